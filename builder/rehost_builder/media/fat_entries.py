"""Folder entries of FAT, alike in FAT12, FAT16 and FAT32 (Microsoft, fatgen103, 2000)."""

from __future__ import annotations

import datetime
import struct

VOLUME_LABEL, FOLDER, ARCHIVE = 0x08, 0x10, 0x20
_FIRST_MOMENT = 315532800  # FAT begins in 1980
DosTime = tuple[int, int]
"""Time and date as FAT has them."""


def dos_time(epoch: int) -> DosTime:
    """Seconds since 1970, UTC, as FAT has them; before 1980 and after 2107 the nearest that it has."""
    moment = datetime.datetime.fromtimestamp(max(epoch, _FIRST_MOMENT), datetime.UTC)
    return (
        moment.hour << 11 | moment.minute << 5 | moment.second // 2,
        min(moment.year - 1980, 127) << 9 | moment.month << 5 | moment.day,
    )


def folder_entry(name: bytes, attributes: int, cluster: int, size: int, clock: DosTime) -> bytes:
    """The 32 bytes of an entry; ``name`` is the packed short name, 11 bytes."""
    time, date = clock
    return struct.pack(
        "<11sBBBHHHHHHHI",
        name, attributes, 0, 0, time, date, date, cluster >> 16, time, date, cluster & 0xFFFF, size,
    )  # fmt: skip


def packed_label(label: str) -> bytes:
    """A volume label as an entry or a boot sector has it."""
    return label.upper().ljust(11)[:11].encode("ascii")
