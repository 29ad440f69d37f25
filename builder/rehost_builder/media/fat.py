"""Writes a small FAT12/FAT16 file system image, the same bytes for the same input.

Follows Microsoft's "FAT: General Overview of On-Disk Format" (fatgen103, 2000): boot sector and BIOS
parameter block, two FATs, fixed root directory, short (8.3) names only. That is all an EFI system partition
inside an ISO needs, and it spares the host mkfs.vfat and mtools, whose output differs between versions.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from rehost_builder.media.fat_entries import (
    ARCHIVE,
    FOLDER,
    VOLUME_LABEL,
    dos_time,
    folder_entry,
    packed_label,
)

SECTOR = 512
_ROOT_ENTRIES = 512
_SHORT_NAME = re.compile(r"[A-Z0-9!#$%&'()@^_`{}~-]{1,8}(\.[A-Z0-9!#$%&'()@^_`{}~-]{1,3})?")


@dataclass
class _Directory:
    files: dict[str, bytes] = field(default_factory=dict)
    directories: dict[str, _Directory] = field(default_factory=dict)


def fat_image(files: Mapping[str, bytes], *, label: str, epoch: int, serial: int) -> bytes:
    """The image of a FAT file system that holds ``files`` ("EFI/BOOT/BOOTX64.EFI" -> content).

    Names are stored in upper case and must be 8.3. ``epoch`` (seconds since 1970, UTC) dates every entry.
    The size follows from the files: one sector per cluster, a whole number of 32 KiB.
    Raises ValueError for a name that is not 8.3 and for content beyond FAT16 (about 32 MB).
    """
    root = _Directory()
    for path, content in files.items():
        *folders, name = [_checked(part) for part in path.upper().split("/")]
        directory = root
        for folder in folders:
            directory = directory.directories.setdefault(folder, _Directory())
        directory.files[name] = content

    clusters = _count(root)
    reserved, root_sectors = 1, _ROOT_ENTRIES * 32 // SECTOR
    # Both FATs are sized for FAT16 also where FAT12 would do: a few unused sectors, no second case.
    fat_sectors = -(-(clusters + 66) * 2 // SECTOR)
    total = reserved + 2 * fat_sectors + root_sectors + clusters
    total += -total % 64
    clusters = total - reserved - 2 * fat_sectors - root_sectors
    if clusters >= 65525:
        raise ValueError("too much for FAT16 with one sector per cluster")
    bits = 12 if clusters < 4085 else 16

    writer = _Writer(clusters, epoch)
    table = writer.entries(root, own=0, parent=0, label=label)
    boot = _boot_sector(total, fat_sectors, bits, label, serial)
    fat = writer.fat(bits).ljust(fat_sectors * SECTOR, b"\0")
    return boot + fat + fat + table.ljust(root_sectors * SECTOR, b"\0") + bytes(writer.data)


def _checked(name: str) -> str:
    if not _SHORT_NAME.fullmatch(name):
        raise ValueError(f"not a short (8.3) name: {name!r}")
    return name


def _count(directory: _Directory, is_root: bool = True) -> int:
    own = 0 if is_root else -(-(2 + len(directory.files) + len(directory.directories)) * 32 // SECTOR)
    below = sum(_count(d, False) for d in directory.directories.values())
    return own + below + sum(-(-len(content) // SECTOR) for content in directory.files.values())


class _Writer:
    def __init__(self, clusters: int, epoch: int) -> None:
        self.data = bytearray(clusters * SECTOR)
        self._next: list[int] = []
        self._clock = dos_time(epoch)

    def entries(self, directory: _Directory, own: int, parent: int, label: str = "") -> bytes:
        out = bytearray()
        if label:
            out += folder_entry(packed_label(label), VOLUME_LABEL, 0, 0, self._clock)
        else:
            out += folder_entry(b".          ", FOLDER, own, 0, self._clock)
            out += folder_entry(b"..         ", FOLDER, parent, 0, self._clock)
        for name, sub in sorted(directory.directories.items()):
            size = -(-(2 + len(sub.files) + len(sub.directories)) * 32 // SECTOR) * SECTOR
            first = self._allocate(size)
            self._fill(first, self.entries(sub, own=first, parent=own))
            out += folder_entry(_packed(name), FOLDER, first, 0, self._clock)
        for name, content in sorted(directory.files.items()):
            first = self._allocate(len(content))
            self._fill(first, content)
            out += folder_entry(_packed(name), ARCHIVE, first, len(content), self._clock)
        return bytes(out)

    def fat(self, bits: int) -> bytes:
        end = (1 << bits) - 1
        values = [end & ~0xFF | 0xF8, end, *(end if n == 0 else n for n in self._next)]
        if bits == 16:
            return struct.pack(f"<{len(values)}H", *values)
        out = bytearray()
        for low, high in zip(values[::2], [*values[1::2], 0], strict=False):
            out += (low | high << 12).to_bytes(3, "little")
        return bytes(out)

    def _allocate(self, size: int) -> int:
        """A chain of neighbouring clusters; 0 for nothing. Entry 0 in ``_next`` marks the chain's end."""
        count = -(-size // SECTOR)
        if not count:
            return 0
        first = len(self._next) + 2
        self._next += [*range(first + 1, first + count), 0]
        return first

    def _fill(self, first: int, content: bytes) -> None:
        if content:
            start = (first - 2) * SECTOR
            self.data[start : start + len(content)] = content


def _packed(name: str) -> bytes:
    stem, _, extension = name.partition(".")
    return (stem.ljust(8) + extension.ljust(3)).encode("ascii")


def _boot_sector(total: int, fat_sectors: int, bits: int, label: str, serial: int) -> bytes:
    sector = struct.pack(
        "<3s8sHBHBHHBHHHIIBBBI11s8s",
        b"\xeb\x3c\x90", b"REHOST  ", SECTOR, 1, 1, 2, _ROOT_ENTRIES,
        total if total < 0x10000 else 0, 0xF8, fat_sectors, 32, 64, 0, total if total >= 0x10000 else 0,
        0x80, 0, 0x29, serial & 0xFFFFFFFF, packed_label(label),
        f"FAT{bits}".ljust(8).encode("ascii"),
    )  # fmt: skip
    return sector.ljust(510, b"\0") + b"\x55\xaa"
