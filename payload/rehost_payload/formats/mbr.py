"""MBR partition tables: the master boot record and the chain of extended boot records.

Layout as in the UEFI specification 2.10 section 5.2 and Microsoft's description of the NT disk signature (32
bits at byte 440). All integers are little endian, LBAs count logical sectors. Nothing here writes: the
functions that change a table return the whole sector to be written.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass

from . import boot_code
from .errors import FormatError
from .source import ByteSource

_SIGNATURE_OFFSET = 440
_TABLE_OFFSET = 446
_ENTRY = struct.Struct("<B3sB3sII")
_MAGIC = b"\x55\xaa"
_MAX_LOGICAL = 128

PROTECTIVE = 0xEE
HYBRID = 0x17
"""Hidden NTFS by its number; at sector 0 it is a whole ISO image on a stick (isohybrid), with volumes in and behind it."""
EXTENDED_TYPES = frozenset({0x05, 0x0F, 0x85})

TYPE_NAMES = {
    0x01: "FAT12",
    0x04: "FAT16",
    0x05: "Extended",
    0x06: "FAT16",
    0x07: "NTFS/exFAT",
    0x0B: "FAT32",
    0x0C: "FAT32",
    0x0E: "FAT16",
    0x0F: "Extended",
    0x17: "Hidden NTFS",
    0x27: "Windows recovery",
    0x42: "Windows dynamic disk",
    0x82: "Linux swap",
    0x83: "Linux",
    0x85: "Extended",
    0x8E: "Linux LVM",
    0xDE: "OEM utility",
    0xEE: "GPT protective",
    0xEF: "EFI system",
    0xFD: "Linux RAID",
}


@dataclass(frozen=True)
class MbrPartition:
    """One partition; ``number`` is 1-4 for primary entries, 5 and up for logical ones in chain order."""

    number: int
    active: bool
    type: int
    first_lba: int
    sectors: int


@dataclass(frozen=True)
class Mbr:
    """A master boot record. ``boot_code`` is a word of boot_code.py. ``partitions`` leaves out unused entries and, among
    the logical, the links."""

    signature: int
    boot_code: str
    partitions: tuple[MbrPartition, ...]
    problems: tuple[str, ...] = ()

    @property
    def protective(self) -> bool:
        """True when the record says that the disk has a GUID partition table."""
        return any(p.type == PROTECTIVE for p in self.partitions)


def has_magic(sector: bytes) -> bool:
    return len(sector) >= 512 and sector[510:512] == _MAGIC


def _entries(sector: bytes) -> list[tuple[int, int, int, int]]:
    """(status, type, first LBA, sectors) of the four entries."""
    found = []
    for index in range(4):
        status, _, kind, _, first, sectors = _ENTRY.unpack_from(sector, _TABLE_OFFSET + index * _ENTRY.size)
        found.append((status, kind, first, sectors))
    return found


def _covers_disk(kind: int, first: int) -> bool:
    """An entry that is about the whole disk and has no place of its own in it."""
    return kind == PROTECTIVE or (kind == HYBRID and first == 0)


def looks_like_mbr(sector: bytes, total_sectors: int) -> bool:
    """Whether a sector that ends in 55 AA is a partition table and not the boot sector of a volume.

    Boot sectors of FAT and NTFS have code or text where the table would be: an entry then has an impossible
    status byte, or starts behind the end of the disk. An empty table under a BIOS parameter block is a
    volume.
    """
    if not has_magic(sector):
        return False
    used = 0
    for status, kind, first, sectors in _entries(sector):
        if status & 0x7F:
            return False
        if kind == 0:
            continue
        if not _covers_disk(kind, first) and (first == 0 or sectors == 0 or first >= total_sectors):
            return False
        used += 1
    if used:
        return True
    volume = sector[3:7] == b"NTFS" or sector[3:8] == b"EXFAT" or sector[3:7] == b"ReFS"
    fat = sector[0] in (0xEB, 0xE9) and sector[11:13] in (b"\x00\x02", b"\x00\x10") and sector[16] in (1, 2)
    return not (volume or fat or sector[3:11] == b"-FVE-FS-")


def parse(source: ByteSource, sector_size: int) -> Mbr:
    """Reads the record in sector 0 and follows the extended partitions.

    Raises FormatError where sector 0 is no master boot record. Trouble further on (a chain that loops or
    leaves the disk, two active partitions, overlaps) is named in ``problems``.
    """
    sector = source.read_at(0, sector_size)
    total = source.size // sector_size
    if len(sector) < 512:
        raise FormatError("MBR", "the disk is smaller than one sector", 0)
    if not has_magic(sector):
        raise FormatError("MBR", "no 55 AA signature", 510)
    if not looks_like_mbr(sector, total):
        raise FormatError("MBR", "the sector holds no partition table", _TABLE_OFFSET)
    problems: list[str] = []
    partitions: list[MbrPartition] = []
    extended: list[MbrPartition] = []
    for index, (status, kind, first, sectors) in enumerate(_entries(sector)):
        if kind == 0:
            continue
        part = MbrPartition(index + 1, status == 0x80, kind, first, sectors)
        if kind != PROTECTIVE and first + sectors > total:
            problems.append(f"partition {part.number} ends behind the end of the disk")
        partitions.append(part)
        if kind in EXTENDED_TYPES:
            extended.append(part)
    if sum(p.active for p in partitions) > 1:
        problems.append("more than one partition is marked active")
    for part in extended:
        partitions += _logical(source, sector_size, part, 5 + _count_logical(partitions), problems)
    problems += _overlaps(partitions)
    (signature,) = struct.unpack_from("<I", sector, _SIGNATURE_OFFSET)
    return Mbr(signature, boot_code.master_kind(sector), tuple(partitions), tuple(problems))


def _count_logical(partitions: list[MbrPartition]) -> int:
    return sum(p.number >= 5 for p in partitions)


def _logical(
    source: ByteSource, sector_size: int, extended: MbrPartition, number: int, problems: list[str]
) -> list[MbrPartition]:
    """The logical partitions of one extended partition. Every link is visited once, at most 128 of them."""
    found: list[MbrPartition] = []
    seen: set[int] = set()
    record = extended.first_lba
    while len(seen) < _MAX_LOGICAL:
        if record in seen:
            problems.append(f"the chain of logical partitions loops at sector {record}")
            return found
        seen.add(record)
        sector = source.read_at(record * sector_size, 512)
        if not has_magic(sector):
            problems.append(f"no extended boot record at sector {record}")
            return found
        entries = _entries(sector)
        status, kind, first, sectors = entries[0]
        if kind and kind not in EXTENDED_TYPES:
            start = record + first
            if sectors == 0 or (start + sectors) * sector_size > source.size:
                problems.append(f"logical partition {number} lies outside the disk")
            else:
                found.append(MbrPartition(number, status == 0x80, kind, start, sectors))
            number += 1
        _, link, relative, _ = entries[1]
        if link not in EXTENDED_TYPES or relative == 0:
            return found
        record = extended.first_lba + relative
        if record * sector_size >= source.size:
            problems.append("the chain of logical partitions leaves the disk")
            return found
    problems.append(f"more than {_MAX_LOGICAL} logical partitions")
    return found


def _overlaps(partitions: list[MbrPartition]) -> list[str]:
    spans = sorted(
        (p.first_lba, p.first_lba + p.sectors, p.number)
        for p in partitions
        if p.type not in EXTENDED_TYPES and not _covers_disk(p.type, p.first_lba)
    )
    return [
        f"partitions {number} and {other} overlap"
        for (_, end, number), (start, _, other) in itertools.pairwise(spans)
        if start < end
    ]


def with_active(sector: bytes, number: int) -> bytes:
    """Sector 0 with partition ``number`` (1-4) marked active and no other one. Nothing else changes."""
    if not has_magic(sector):
        raise FormatError("MBR", "no 55 AA signature", 510)
    if not 1 <= number <= 4:
        raise ValueError("only a primary partition can be active")
    if _entries(sector)[number - 1][1] == 0:
        raise FormatError("MBR", f"entry {number} is not in use", _TABLE_OFFSET + (number - 1) * _ENTRY.size)
    changed = bytearray(sector)
    for index in range(4):
        changed[_TABLE_OFFSET + index * _ENTRY.size] = 0x80 if index == number - 1 else 0
    return bytes(changed)


def with_signature(sector: bytes, signature: int) -> bytes:
    """Sector 0 with another NT disk signature. Nothing else changes."""
    if not has_magic(sector):
        raise FormatError("MBR", "no 55 AA signature", 510)
    changed = bytearray(sector)
    struct.pack_into("<I", changed, _SIGNATURE_OFFSET, signature)
    return bytes(changed)


def protective(sector: bytes, total_sectors: int) -> bytes:
    """Sector 0 turned into a protective record for a GPT: boot code and disk signature stay as they are."""
    changed = bytearray(sector)
    size = min(total_sectors - 1, 0xFFFFFFFF)
    changed[_TABLE_OFFSET : _TABLE_OFFSET + 64] = bytes(64)
    _ENTRY.pack_into(changed, _TABLE_OFFSET, 0, b"\x00\x02\x00", PROTECTIVE, b"\xff\xff\xff", 1, size)
    changed[510:512] = _MAGIC
    return bytes(changed)
