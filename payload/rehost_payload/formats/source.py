"""Where bytes come from: the only thing the readers of this package know about disks and files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class ByteSource(Protocol):
    """Random access to ``size`` bytes. ``read_at`` never returns bytes from outside [0, size).

    ``read_at(offset, length)`` returns exactly ``length`` bytes, or fewer only where the source ends.
    I/O errors surface as OSError.
    """

    @property
    def size(self) -> int: ...

    def read_at(self, offset: int, length: int) -> bytes: ...


@dataclass(frozen=True)
class BytesSource:
    """A source over bytes in memory."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read_at(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0:
            raise ValueError("offset and length must not be negative")
        return self.data[offset : offset + length]


@dataclass(frozen=True)
class SliceSource:
    """A window of another source: a partition of a disk, for example."""

    parent: ByteSource
    start: int
    length: int

    @property
    def size(self) -> int:
        return max(0, min(self.length, self.parent.size - self.start))

    def read_at(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0:
            raise ValueError("offset and length must not be negative")
        length = min(length, self.size - offset)
        return self.parent.read_at(self.start + offset, length) if length > 0 else b""
