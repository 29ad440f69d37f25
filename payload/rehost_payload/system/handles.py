"""An opened disk or raw image file: reads by file descriptor, never through a file object's buffer."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rehost_payload.system.protocol import DiskInfo

_MOST = 1 << 30  # one read(2), which on Linux gives 2 GiB at most


def open_readable(path: str | Path) -> int:
    """A file descriptor for reading bytes. Raises OSError."""
    return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))


def size_of(descriptor: int) -> int:
    """Size in bytes of a file or a block device. Raises OSError."""
    return os.lseek(descriptor, 0, os.SEEK_END)


if sys.platform != "win32":
    pread = os.pread
else:
    _position = threading.Lock()

    def pread(descriptor: int, length: int, offset: int) -> bytes:
        """os.pread, which Python has not on Windows: there position and read are two calls."""
        with _position:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.read(descriptor, length)


@dataclass
class FileDisk:
    """Implements DiskHandle. ``partitions`` maps byte offsets to device nodes."""

    info: DiskInfo
    descriptor: int
    partitions: Mapping[int, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return self.info.size

    def read_at(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0:
            raise ValueError("offset and length must not be negative")
        length = max(0, min(length, self.size - offset))
        pieces: list[bytes] = []
        while length > 0:
            piece = pread(self.descriptor, min(length, _MOST), offset)
            if not piece:
                break  # the file became shorter
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def partition_path(self, number: int, offset: int) -> str | None:
        return self.partitions.get(offset)

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
