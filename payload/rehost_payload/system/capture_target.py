"""What a capture asks of the disk that it writes to: files in one folder of a mounted volume.

Paths are relative to the target's root, with forward slashes. Every error is a SystemError_: "no-space", "gone" (the
disk was unplugged), "read-only", "io", "absent", "permission".
"""

from __future__ import annotations

import mmap
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Protocol

from rehost_payload.system.protocol import System

ALIGNMENT = 4096
"""Unbuffered access wants offsets, lengths and memory in multiples of this many bytes."""


@dataclass(frozen=True)
class TargetInfo:
    """``id`` tells the volume from every other, also after a reboot; ``name`` is for people. ``disk`` (device path),
    ``disk_serial`` and ``offset`` are empty where the target is an ordinary folder; then ``below`` names all that its
    file system is known to lie on: devices, and files behind loop devices."""

    id: str
    name: str
    file_system: str
    disk: str = ""
    disk_serial: str = ""
    disk_size: int = 0
    offset: int = 0
    below: frozenset[str] = frozenset()


class TargetFile(Protocol):
    """An open file. What was written is on the medium after `flush`, not before."""

    @property
    def unbuffered(self) -> bool:
        """Whether reads really go past the cache; False where the system refused."""
        ...

    def reserve(self, size: int) -> None:
        """Takes the space for ``size`` bytes where the file system can do so quickly. The file stays dense."""
        ...

    def write_at(self, offset: int, buffer: memoryview, length: int) -> None:
        """Writes ``length`` bytes of an aligned buffer at an aligned offset. Where ``length`` is not aligned, the
        buffer has zeros up to the next boundary, and these may be written behind the end until `finish`."""
        ...

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Reads from the medium, past the cache, into an aligned buffer; fewer bytes only at the end."""
        ...

    def flush(self) -> None: ...

    def finish(self, size: int, created: int, modified: int) -> None:
        """Cuts the file to ``size`` bytes, gives it its times (FILETIME; 0: leave) as far as the target can keep
        them, and flushes."""
        ...

    def close(self) -> None: ...


class CaptureTarget(Protocol):
    @property
    def info(self) -> TargetInfo: ...

    def free(self) -> int: ...

    def size(self, path: str) -> int | None:
        """Bytes of a file; None where there is none."""
        ...

    def names(self, folder: str) -> list[str]:
        """What lies in a folder; nothing where there is none."""
        ...

    def make_folders(self, path: str) -> None: ...

    def open(self, path: str) -> TargetFile:
        """For reading and writing; an empty one is made where there is none. Its folder must exist."""
        ...

    def rename(self, old: str, new: str) -> None:
        """A file within one folder, where it replaces ``new``; or a folder, where there must be no ``new``. Is on the
        medium on return."""
        ...

    def remove(self, path: str) -> None:
        """Nothing happens where there is none."""
        ...

    def remove_folder(self, path: str) -> None:
        """Nothing happens where there is none, or where it is not empty."""
        ...

    def read(self, path: str) -> bytes:
        """A small file."""
        ...

    def replace(self, path: str, data: bytes) -> None:
        """A small file, old or new under power cuts; it is on the medium on return."""
        ...

    def append(self, path: str, data: bytes) -> None:
        """It is on the medium on return; a power cut may leave a part of it."""
        ...


class CaptureSystem(System, Protocol):
    """A system that can write captures."""

    def capture_target(self, disk: str, offset: int, size: int) -> AbstractContextManager[CaptureTarget]:
        """Mounts the volume at byte ``offset`` of the disk ``disk`` (DiskInfo.path) as a target, for the time of the
        block. A volume of which a run of ours was interrupted is taken again, a dirty one otherwise not.

        Raises SystemError_ ("file-system": neither NTFS nor exFAT; "dirty", "hibernated", "read-only", "mount": cannot
        be read, BitLocker for one; "gone") and leaves nothing mounted behind, even if the disk was pulled out.
        """
        ...


class AlignedBuffer:
    """Memory that unbuffered access can use, since mmap gives whole pages."""

    def __init__(self, size: int) -> None:
        if size % ALIGNMENT:
            raise ValueError("not a multiple of the alignment")
        self._map = mmap.mmap(-1, size)
        self.view = memoryview(self._map)

    def close(self) -> None:
        """Where an exception still holds a part of it, the memory is freed with that exception."""
        with suppress(BufferError):
            self.view.release()
            self._map.close()
