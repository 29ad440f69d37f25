"""An opened disk or raw image file: reads by file descriptor, never through a file object's buffer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from rehost_payload.system.protocol import DiskInfo

_MOST = 1 << 30  # one read(2), which on Linux gives 2 GiB at most


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
            piece = os.pread(self.descriptor, min(length, _MOST), offset)
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
