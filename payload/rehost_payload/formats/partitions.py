"""Which partition table a disk has, whatever its style, and the sector size of an image file."""

from __future__ import annotations

import contextlib
import struct
from dataclasses import dataclass

from . import gpt, mbr
from .errors import FormatError
from .gpt import Gpt
from .mbr import Mbr
from .source import ByteSource


@dataclass(frozen=True)
class DiskTable:
    """``gpt`` where a GUID table counts; else ``mbr`` alone; neither where the disk has no table.

    ``problems`` holds those of both tables and those of their combination.
    """

    sector_size: int
    mbr: Mbr | None
    gpt: Gpt | None
    problems: tuple[str, ...] = ()
    gpt_expected: bool = False  # the MBR is protective, or a GPT signature is there


def read_table(source: ByteSource, sector_size: int) -> DiskTable:
    """Reads the table of a disk with logical sectors of ``sector_size`` bytes. Never raises FormatError.

    As Windows does it, a GUID table counts only under a protective MBR; a disk whose sector 0 is no MBR at
    all but which has a good GUID table is read by that, with the missing record named as a problem.
    """
    problems: list[str] = []
    record: Mbr | None = None
    sector0 = source.read_at(0, sector_size)
    with contextlib.suppress(FormatError):
        record = mbr.parse(source, sector_size)
    signature = gpt.has_signature(source, sector_size)
    if record is not None and not record.protective:
        problems += record.problems
        if signature and not record.partitions:
            pass  # an emptied record over a GUID table: read the table below
        else:
            if signature:
                problems.append("remains of a GPT, but the MBR is not protective: the MBR counts")
            return DiskTable(sector_size, record, None, tuple(problems))
    if not signature and not (record and record.protective):
        return DiskTable(sector_size, record, None, tuple(problems))
    try:
        table = gpt.parse(source, sector_size)
    except FormatError as error:
        # A volume over the whole disk keeps no GPT: remains of one in LBA 1 or at the end mean nothing then.
        if record is None and mbr.has_magic(sector0):
            return DiskTable(sector_size, None, None, tuple(problems))
        problems.append(error.problem)
        return DiskTable(sector_size, record, None, tuple(problems), gpt_expected=True)
    problems += table.problems
    if record is None or not record.protective:
        if record is None and mbr.has_magic(sector0):
            return DiskTable(
                sector_size, None, None, ("remains of a GPT under a volume over the whole disk",)
            )
        problems.append("the protective MBR is missing")
    elif sum(p.type != mbr.PROTECTIVE for p in record.partitions):
        problems.append("hybrid MBR: it lists partitions beside the protective entry")
    return DiskTable(sector_size, record, table, tuple(problems), gpt_expected=True)


def detect_sector_size(source: ByteSource) -> int:
    """512 or 4096: which of the two an image file was made with.

    A GUID table says it by its place. For an MBR the partitions are looked at: with the right size most of
    them start with a boot sector. 512 where nothing tells.
    """
    for size in (512, 4096):
        if source.read_at(size, 8) == gpt.SIGNATURE:
            return size
    for size in (512, 4096):
        if source.size > size and source.read_at((source.size // size - 1) * size, 8) == gpt.SIGNATURE:
            return size
    sector = source.read_at(0, 512)
    if not mbr.has_magic(sector):
        return 512
    # the BIOS parameter block of a volume over the whole image says it outright
    if sector[3:7] in (b"NTFS", b"MSDO") and sector[11:13] == b"\x00\x10":
        return 4096
    hits = {512: 0, 4096: 0}
    for index in range(4):
        kind, first = sector[446 + index * 16 + 4], struct.unpack_from("<I", sector, 446 + index * 16 + 8)[0]
        if kind == 0 or kind == mbr.PROTECTIVE or first == 0:
            continue
        for size in hits:
            if first * size < source.size and mbr.has_magic(source.read_at(first * size, 512)):
                hits[size] += 1
    return 4096 if hits[4096] > hits[512] else 512
