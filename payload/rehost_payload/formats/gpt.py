"""GUID partition tables, after the UEFI specification 2.10 section 5.3.

A disk has two copies: the primary in LBA 1 and the backup, normally in its last LBA. Each copy counts only
when its header's CRC and the CRC of its entry array are right. `Gpt.table` is the primary where it is good,
else the backup. Nothing here writes: `rebuild_primary` and `rebuild_backup` return what has to be written,
in order. All integers are little endian, LBAs count logical sectors.
"""

from __future__ import annotations

import itertools
import struct
import uuid
import zlib
from dataclasses import dataclass

from .errors import FormatError
from .source import ByteSource

SIGNATURE = b"EFI PART"
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY = struct.Struct("<16s16sQQQ72s")
_MAX_ARRAY = 1 << 20  # 128 entries of 128 bytes are usual; Windows never writes more

EFI_SYSTEM = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
MICROSOFT_RESERVED = "e3c9e316-0b5c-4db8-817d-f92df00215ae"
BASIC_DATA = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"
WINDOWS_RECOVERY = "de94bba4-06d1-4d40-a16a-bfd50179d6ac"
LDM_METADATA = "5808c8aa-7e8f-42e0-85d2-e1e90434cfb3"
LDM_DATA = "af9b60a0-1431-4f62-bc68-3311714a69ad"
STORAGE_SPACES = "e75caf8f-f680-4cee-afa3-b001e56efc2d"

TYPE_NAMES = {
    EFI_SYSTEM: "EFI system",
    MICROSOFT_RESERVED: "Microsoft reserved",
    BASIC_DATA: "Basic data",
    WINDOWS_RECOVERY: "Windows recovery",
    LDM_METADATA: "LDM metadata",
    LDM_DATA: "LDM data",
    STORAGE_SPACES: "Storage Spaces",
    "21686148-6449-6e6f-744e-656564454649": "BIOS boot",
    "0fc63daf-8483-4772-8e79-3d69d8477de4": "Linux",
    "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f": "Linux swap",
    "e6d6d379-f507-44c2-a23c-238f2a3df928": "Linux LVM",
    "a19d880f-05fc-4d3b-a006-743f0f84911e": "Linux RAID",
    "bc13c2ff-59e6-4262-a352-b275fd6f7172": "Linux boot",
}


@dataclass(frozen=True)
class Write:
    """Whole sectors to be written at byte ``offset`` of the disk."""

    offset: int
    data: bytes


@dataclass(frozen=True)
class GptEntry:
    """One partition; ``number`` is its index in the array + 1, ``last_lba`` still belongs to it."""

    number: int
    type_guid: str
    unique_guid: str
    first_lba: int
    last_lba: int
    attributes: int
    name: str


@dataclass(frozen=True)
class GptCopy:
    """One good copy of the table: its header's fields and the raw entry array."""

    revision: int
    header_size: int
    my_lba: int
    alternate_lba: int
    first_usable: int
    last_usable: int
    disk_guid: str
    entries_lba: int
    entry_count: int
    entry_size: int
    array: bytes


@dataclass(frozen=True)
class Gpt:
    """What a disk holds. At least one of ``primary`` and ``backup`` is there; a missing one has its problem
    named.

    ``outdated``: the primary is bad, but its entries are partitions, and others than the backup's: this may be left from
    an older table, as behind the copy of a smaller disk.
    """

    sector_size: int
    total_sectors: int
    primary: GptCopy | None
    backup: GptCopy | None
    entries: tuple[GptEntry, ...]
    problems: tuple[str, ...]
    outdated: bool = False

    @property
    def table(self) -> GptCopy:
        copy = self.primary or self.backup
        assert copy is not None
        return copy


def has_signature(source: ByteSource, sector_size: int) -> bool:
    """Whether a copy's signature stands in LBA 1 or in the last LBA, for this sector size."""
    last = source.size // sector_size - 1
    return any(source.read_at(lba * sector_size, 8) == SIGNATURE for lba in (1, last) if lba > 0)


def parse(source: ByteSource, sector_size: int) -> Gpt:
    """Reads both copies and judges them. Raises FormatError when neither is good.

    The backup is looked for where the primary names it (also when only the primary's CRC is wrong: the
    backup has a CRC of its own) and in the last LBA.
    """
    total = source.size // sector_size
    problems: list[str] = []
    primary: GptCopy | None = None
    try:
        primary = _copy(source, sector_size, 1, total)
    except FormatError as error:
        problems.append(f"primary GPT: {error.problem}")
    named = _alternate(source, sector_size)
    candidates = [lba for lba in (named, total - 1) if lba is not None and 1 < lba < total]
    backup: GptCopy | None = None
    complaint = "primary names no place for it" if not candidates else ""
    for lba in dict.fromkeys(candidates):
        try:
            backup = _copy(source, sector_size, lba, total)
            break
        except FormatError as error:
            complaint = error.problem
    if backup is None:
        problems.append(f"backup GPT: {complaint}")
    elif backup.my_lba != total - 1:
        problems.append("the backup GPT is not at the end of the disk")
    if primary is None and backup is None:
        raise FormatError("GPT", "; ".join(problems), sector_size)
    if primary and backup and (primary.disk_guid, primary.array) != (backup.disk_guid, backup.array):
        problems.append("primary and backup GPT differ")
    chosen = primary or backup
    assert chosen is not None
    outdated = primary is None and _others(source.read_at(2 * sector_size, len(chosen.array)), chosen, total)
    if outdated:
        problems.append("the damaged primary GPT has other partitions than the backup")
    entries = _entries(chosen, total, problems)
    return Gpt(sector_size, total, primary, backup, entries, tuple(problems), outdated)


def _others(array: bytes, copy: GptCopy, total: int) -> bool:
    """Whether an entry array without a good header makes sense, and is another than that of ``copy``."""
    if array == copy.array or len(array) != len(copy.array):
        return False
    used = 0
    for start in range(0, len(array), copy.entry_size):
        kind, _, first, last, _, _ = _ENTRY.unpack_from(array, start)
        if any(kind):
            used += 1
            if not 0 < first <= last < total:
                return False
    return used > 0


def _alternate(source: ByteSource, sector_size: int) -> int | None:
    sector = source.read_at(sector_size, _HEADER.size)
    if len(sector) < _HEADER.size or sector[:8] != SIGNATURE:
        return None
    lba: int = _HEADER.unpack(sector)[6]
    return lba


def _copy(source: ByteSource, sector_size: int, lba: int, total: int) -> GptCopy:
    where = lba * sector_size
    sector = source.read_at(where, sector_size)
    if len(sector) < sector_size:
        raise FormatError("GPT header", "the disk ends before it", where)
    (
        signature,
        revision,
        header_size,
        crc,
        _,
        my_lba,
        alternate,
        first_usable,
        last_usable,
        disk_guid,
        entries_lba,
        count,
        entry_size,
        array_crc,
    ) = _HEADER.unpack_from(sector)
    if signature != SIGNATURE:
        raise FormatError("GPT header", "no EFI PART signature", where)
    if not _HEADER.size <= header_size <= sector_size:
        raise FormatError("GPT header", f"impossible header size {header_size}", where + 12)
    if zlib.crc32(sector[:16] + bytes(4) + sector[20:header_size]) != crc:
        raise FormatError("GPT header", "the header's checksum is wrong", where + 16)
    if my_lba != lba:
        raise FormatError("GPT header", f"it says that it belongs to sector {my_lba}", where + 24)
    if entry_size < _ENTRY.size or entry_size % 8 or count * entry_size > _MAX_ARRAY:
        raise FormatError(
            "GPT header", f"impossible entry array: {count} entries of {entry_size} bytes", where + 80
        )
    array = source.read_at(entries_lba * sector_size, count * entry_size) if entries_lba < total else b""
    if len(array) != count * entry_size:
        raise FormatError("GPT entry array", "it lies outside the disk", where + 72)
    if zlib.crc32(array) != array_crc:
        raise FormatError("GPT entry array", "the entry array's checksum is wrong", entries_lba * sector_size)
    return GptCopy(
        revision,
        header_size,
        lba,
        alternate,
        first_usable,
        last_usable,
        str(uuid.UUID(bytes_le=disk_guid)),
        entries_lba,
        count,
        entry_size,
        array,
    )


def _entries(copy: GptCopy, total: int, problems: list[str]) -> tuple[GptEntry, ...]:
    found: list[GptEntry] = []
    owners: dict[str, int] = {}
    for index in range(copy.entry_count):
        kind, unique, first, last, attributes, name = _ENTRY.unpack_from(copy.array, index * copy.entry_size)
        if not any(kind):
            continue
        number = index + 1
        if first > last or last >= total or first == 0:
            problems.append(f"partition {number} lies outside the disk")
            continue
        entry = GptEntry(
            number,
            str(uuid.UUID(bytes_le=kind)),
            str(uuid.UUID(bytes_le=unique)),
            first,
            last,
            attributes,
            name.decode("utf-16-le", "replace").split("\0", 1)[0],
        )
        if entry.unique_guid in owners:
            problems.append(f"partitions {owners[entry.unique_guid]} and {number} have the same GUID")
        owners.setdefault(entry.unique_guid, number)
        found.append(entry)
    spans = sorted((e.first_lba, e.last_lba, e.number) for e in found)
    for (_, end, number), (start, _, other) in itertools.pairwise(spans):
        if start <= end:
            problems.append(f"partitions {number} and {other} overlap")
    return tuple(found)


def _array_sectors(copy: GptCopy, sector_size: int) -> int:
    return -(-len(copy.array) // sector_size)


def _pack(
    copy: GptCopy, sector_size: int, my_lba: int, alternate: int, entries_lba: int
) -> tuple[bytes, bytes]:
    """The entry array and the header of a copy that stands in ``my_lba``, each in whole sectors."""

    def header(crc: int) -> bytes:
        return _HEADER.pack(
            SIGNATURE,
            copy.revision,
            _HEADER.size,
            crc,
            0,
            my_lba,
            alternate,
            copy.first_usable,
            copy.last_usable,
            uuid.UUID(copy.disk_guid).bytes_le,
            entries_lba,
            copy.entry_count,
            copy.entry_size,
            zlib.crc32(copy.array),
        )

    sector = header(zlib.crc32(header(0))).ljust(sector_size, b"\0")
    return copy.array.ljust(_array_sectors(copy, sector_size) * sector_size, b"\0"), sector


def rebuild_primary(gpt: Gpt) -> list[Write]:
    """The writes that make the primary from the backup: the entry array first, the header that names it last.

    The protective MBR is not part of it (see mbr.protective). Raises FormatError when there is no good
    backup or the array would not fit before the first usable sector.
    """
    if gpt.backup is None:
        raise FormatError("GPT", "there is no good backup to rebuild the primary from")
    size = gpt.sector_size
    if 2 + _array_sectors(gpt.backup, size) > gpt.backup.first_usable:
        raise FormatError("GPT", "no room for the entry array before the first usable sector")
    array, header = _pack(gpt.backup, size, 1, gpt.backup.my_lba, 2)
    return [Write(2 * size, array), Write(size, header)]


def rebuild_backup(gpt: Gpt) -> list[Write]:
    """The writes that make the backup from the primary, in the place that the primary names for it.

    Raises FormatError when there is no good primary or that place is in use or outside the disk.
    """
    if gpt.primary is None:
        raise FormatError("GPT", "there is no good primary to rebuild the backup from")
    size = gpt.sector_size
    lba = gpt.primary.alternate_lba
    start = lba - _array_sectors(gpt.primary, size)
    last_used = max([gpt.primary.last_usable, *(e.last_lba for e in gpt.entries)])
    if lba >= gpt.total_sectors or start <= last_used:
        raise FormatError("GPT", "no room for the backup where the primary names it")
    array, header = _pack(gpt.primary, size, lba, 1, start)
    return [Write(start * size, array), Write(lba * size, header)]
