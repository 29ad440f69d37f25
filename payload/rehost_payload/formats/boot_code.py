"""Boot code of BIOS disks: what kind it is, and where on a disk and a volume it lies. Nothing of it is executed.

The layouts are Microsoft's: the master boot record has 440 bytes of code; an NTFS boot sector has it behind its
parameters and in the 15 sectors that follow; FAT32 has it in the boot sector and in further reserved sectors (the third
and the thirteenth), with a copy from the seventh on; FAT12 and FAT16 have it in the boot sector alone. What the code
loads is told by the name that it looks for: an 8.3 name on FAT, a name in UTF-16 behind its length on NTFS.
"""

from __future__ import annotations

import struct

NONE = "none"
NOT_BOOTABLE = "not-bootable"
BOOTMGR = "bootmgr"
NTLDR = "ntldr"
GRUB = "grub"
OTHER = "other"

MASTER_CODE = 440
VOLUME_CODE = 16 * 512
"""Bytes at the start of an NTFS volume in which its boot code lies."""
_CODE_STARTS = {"ntfs": 0x54, "fat32": 0x5A, "fat16": 0x3E, "fat12": 0x3E}
_PARAMETERS = 11
_MAGIC_AT = 510
# a byte among FAT's parameters is no parameter: Windows keeps its dirty flag there
_FLAGS = {"fat32": 0x41, "fat16": 0x25, "fat12": 0x25}
_RESERVED = 32  # sectors; the thirteenth is the last that boot code of FAT32 lies in
# mkfs.fat, mtools and mkntfs leave a program that says so and waits for a key
_STUBS = (b"not bootable", b"not a bootable disk")


def master_kind(sector: bytes) -> str:
    """NONE, GRUB or OTHER, of the first sector of a disk."""
    code = sector[:MASTER_CODE]
    if not any(code):
        return NONE
    return GRUB if b"GRUB " in code else OTHER


def volume_kind(file_system: str, head: bytes) -> str | None:
    """What the boot code of a volume is, by its first `VOLUME_CODE` bytes; None where its file system has none."""
    start = _CODE_STARTS.get(file_system)
    if start is None or len(head) < 512:
        return None
    code = head[start:_MAGIC_AT]
    if not any(code):
        return NONE
    low = code.lower()
    if any(stub in low for stub in _STUBS):
        return NOT_BOOTABLE
    # code for bootmgr can start the older loader too and names both
    for kind, name in ((BOOTMGR, "BOOTMGR"), (NTLDR, "NTLDR")):
        if file_system == "ntfs":
            counted = struct.pack("<H", len(name)) + name.encode("utf-16-le")
            if counted in head[start:VOLUME_CODE]:
                return kind
        elif name.encode().ljust(11) in code:
            return kind
    return GRUB if b"GRUB " in code else OTHER


def volume_areas(file_system: str, head: bytes, size: int, sector: int) -> tuple[tuple[int, int], ...]:
    """Where a volume of ``size`` bytes on a disk with sectors of ``sector`` bytes may have boot code, as (byte offset,
    length) in whole sectors, by its first sector: all that a tool may write there. () where it has no place for any.

    NTFS: the first 16 sectors and the backup of the first. FAT32: the reserved sectors without those that count free
    clusters, which change with every file. FAT12, FAT16: the first sector.
    """
    if len(head) < 512:
        return ()
    if file_system == "ntfs":
        size_of_sector, _, total = struct.unpack_from("<H27sQ", head, _PARAMETERS)
        backup = total * size_of_sector
        areas = [(0, -(-VOLUME_CODE // sector) * sector)]
        if 0 < backup <= size - sector and backup % sector == 0:
            areas.append((backup, sector))
        return tuple(areas)
    if file_system == "fat32":
        (reserved,) = struct.unpack_from("<H", head, 14)
        (information, copy) = struct.unpack_from("<HH", head, 0x30)
        last = min(reserved, _RESERVED)
        counters = {information, information + copy} - {0}
        runs: list[tuple[int, int]] = []
        for number in range(last):
            if number in counters:
                continue
            if runs and sum(runs[-1]) == number:
                runs[-1] = (runs[-1][0], runs[-1][1] + 1)
            else:
                runs.append((number, 1))
        return tuple((first * sector, count * sector) for first, count in runs)
    return ((0, sector),) if file_system in _CODE_STARTS else ()


def kind_of(head: bytes) -> str | None:
    """The file system whose boot sector this is, by the names in it; None for a disk's first sector and all else."""
    if head[3:_PARAMETERS] == b"NTFS    ":
        return "ntfs"
    if head[0x52:0x57] == b"FAT32":
        return "fat32"
    return {b"FAT12": "fat12", b"FAT16": "fat16"}.get(head[0x36:0x3B])


def parameters(file_system: str, head: bytes) -> bytes:
    """What a tool that writes boot code must leave as it is in a volume's first sector: parameters and end mark."""
    kept = bytearray(head[_PARAMETERS : _CODE_STARTS[file_system]])
    if file_system in _FLAGS:
        kept[_FLAGS[file_system] - _PARAMETERS] = 0
    name = head[3:_PARAMETERS] if file_system == "ntfs" else b""
    return name + bytes(kept) + head[_MAGIC_AT:512]
