"""Reads a disk past the page cache (Linux): terabytes that are read once have no business in it, and the copy from the
cache would cost a good part of a processor."""

from __future__ import annotations

import errno
import os
import sys
import threading
from dataclasses import dataclass, field

from rehost_payload.system.capture_target import ALIGNMENT, AlignedBuffer
from rehost_payload.system.protocol import DiskHandle

_LARGE = 256 << 10  # smaller reads are of metadata, which lies close together: there the cache is of use
_MOST = 8 << 20
_O_DIRECT = getattr(os, "O_DIRECT", 0)


class _Memory(threading.local):
    def __init__(self) -> None:
        self.buffer = AlignedBuffer(_MOST)


@dataclass
class DirectSource:
    """A ByteSource over an opened disk. Falls back to the disk's own way where the system refuses."""

    disk: DiskHandle
    _descriptor: int = field(default=-1, init=False)
    _memory: _Memory = field(default_factory=_Memory, init=False)

    def __post_init__(self) -> None:
        if sys.platform == "win32":
            return  # there the disk's own way is past the cache
        try:
            self._descriptor = os.open(self.disk.info.path, os.O_RDONLY | _O_DIRECT | os.O_CLOEXEC)
        except OSError:
            self._descriptor = -1

    @property
    def size(self) -> int:
        return self.disk.size

    def read_at(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self.size - offset))
        start = offset // ALIGNMENT * ALIGNMENT
        span = -(-(offset + length) // ALIGNMENT) * ALIGNMENT - start
        if length < _LARGE or span > _MOST or self._descriptor < 0:
            return self.disk.read_at(offset, length)
        view = self._memory.buffer.view[:span]
        got = 0
        while got < span:
            try:
                count = os.preadv(self._descriptor, [view[got:]], start + got)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                    raise
                return self.disk.read_at(offset, length)
            got += count
            if not count or count % ALIGNMENT:
                break
        return bytes(view[offset - start : min(offset - start + length, got)])

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
