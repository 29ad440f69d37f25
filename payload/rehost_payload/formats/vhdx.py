"""VHDX and AVHDX files: what they say of themselves, and whether that can be true. The contents are not read.

Follows [MS-VHDX] (Virtual Hard Disk v2). All checksums are checked, a pending log is replayed in memory first, and
every allocated block must lie inside the file. A file may only be interpreted if each region and each metadata item
that calls itself required is known; it can be copied all the same.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections import Counter
from dataclasses import dataclass
from uuid import UUID

from rehost_payload.formats.crc32c import crc32c_without
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.source import ByteSource
from rehost_payload.formats.vhdx_log import LogState, replay_log

MIB = 1 << 20
_HEADERS = (0x10000, 0x20000)
_REGION_TABLES = (0x30000, 0x40000)
_TABLE_SIZE = 0x10000
_HEADER = struct.Struct("<4sIQ16s16s16sHHIQ")

_BAT = "2dc27766-f623-4200-9d64-115e9bfd4a08"
_METADATA = "8b7ca206-4790-4b9a-b8fe-575f050f886e"
_REGIONS = {_BAT: "BAT", _METADATA: "metadata"}

_FILE_PARAMETERS = "caa16737-fa36-4d43-b3b6-33f0aa44e76b"
_VIRTUAL_SIZE = "2fa54224-cd1b-4876-b211-5dbed83bf4b8"
_DISK_ID = "beca12ab-b2e6-4523-93ef-c309e000c746"
_LOGICAL = "8141bf1d-a96f-4709-ba47-f233a8faab5f"
_PHYSICAL = "cda348c7-445d-4471-9cc9-e9885251c556"
_PARENT = "a8d35f2d-b30b-454d-abf7-d3d84834ab0c"
_INCOMPLETE = "71cc85f0-1b69-4e28-9558-c3bf83ae75d3"
_ITEMS = {
    _FILE_PARAMETERS: "file parameters",
    _VIRTUAL_SIZE: "virtual disk size",
    _DISK_ID: "virtual disk id",
    _LOGICAL: "logical sector size",
    _PHYSICAL: "physical sector size",
    _PARENT: "parent locator",
    _INCOMPLETE: "incomplete file",
}
_SIZES = {_FILE_PARAMETERS: 8, _VIRTUAL_SIZE: 8, _DISK_ID: 16, _LOGICAL: 4, _PHYSICAL: 4}
_LOCATOR_TYPE = "b04aefb7-d19e-4a81-b789-25b8e9445913"

_LARGEST_DISK = 64 << 40
_LARGEST_ITEM = MIB
_MOST_BAT_ENTRIES = 1 << 22  # that are looked at: 4 TiB in the smallest blocks, 128 TiB in the usual ones
_STATES = ("not present", "undefined", "zero", "unmapped", "state 4", "state 5", "present", "partly present")
_PRESENT, _PARTLY = 6, 7


@dataclass(frozen=True)
class Header:
    """The header that counts. ``log_guid`` is "" for a file that was closed properly."""

    copy: int
    sequence: int
    file_write_guid: str
    data_write_guid: str
    log_guid: str
    log_offset: int
    log_length: int


@dataclass(frozen=True)
class Region:
    """Offset and length in bytes; ``name`` is "" for one that is not known (and then not required)."""

    guid: str
    name: str
    offset: int
    length: int


@dataclass(frozen=True)
class ParentLocator:
    """How a differencing disk finds its parent. GUIDs in lower case, paths as stored, "" where absent."""

    linkage: str
    linkage2: str
    relative_path: str
    absolute_path: str
    volume_path: str
    others: dict[str, str]


@dataclass(frozen=True)
class BlockTable:
    """``states`` counts the entries of data blocks by their state, bitmaps apart."""

    entries: int
    states: dict[str, int]
    bitmaps: int
    allocated_end: int  # bytes: the file must not be shorter


@dataclass(frozen=True)
class Vhdx:
    """A file. Sizes in bytes. ``problems`` are damage that makes the contents unsafe, ``notes`` only information."""

    file_size: int
    creator: str
    header: Header
    log: LogState
    regions: tuple[Region, ...]
    kind: str  # "fixed", "dynamic" or "differencing"
    virtual_size: int
    block_size: int
    logical_sector: int
    physical_sector: int
    disk_id: str
    parent: ParentLocator | None
    blocks: BlockTable
    notes: tuple[str, ...]
    problems: tuple[str, ...]


def is_vhdx(source: ByteSource) -> bool:
    return source.read_at(0, min(8, source.size)) == b"vhdxfile"


def parse_vhdx(source: ByteSource) -> Vhdx:
    """Reads headers and tables. FormatError where they cannot be trusted or must not be interpreted."""
    if not is_vhdx(source):
        raise FormatError("VHDX", "no file identifier", 0)
    creator = source.read_at(8, 512).decode("utf-16-le", "replace").split("\0", 1)[0]
    notes: list[str] = []
    problems: list[str] = []
    header, guid = _header(source, notes)
    log, view = LogState(False), source
    if header.log_guid:
        log, view = replay_log(source, header.log_offset, header.log_length, guid)
        if log.problem:
            problems.append(f"the log has to be replayed, but: {log.problem}")
        else:
            notes.append("not closed properly: shown with its log replayed in memory")
    regions = _regions(view, header, notes)
    bat = next(region for region in regions if region.name == "BAT")
    items = _metadata(view, next(region for region in regions if region.name == "metadata"))
    block_size, flags = struct.unpack("<II", items[_FILE_PARAMETERS])
    virtual_size, logical, physical = (
        int.from_bytes(items[name], "little") for name in (_VIRTUAL_SIZE, _LOGICAL, _PHYSICAL)
    )
    _check_geometry(block_size, virtual_size, logical, physical)
    if _INCOMPLETE in items:
        problems.append("its creation was never finished")
    has_parent = bool(flags & 2)
    parent = None
    if has_parent:
        if _PARENT not in items:
            raise FormatError("VHDX metadata", "a differencing disk without parent locator")
        parent = _locator(items[_PARENT])
    elif _PARENT in items:
        notes.append("a parent locator in a disk without parent; not used")
    blocks = _blocks(view, bat, (virtual_size, block_size, logical), has_parent, source.size, notes, problems)
    return Vhdx(
        source.size,
        creator,
        header,
        log,
        regions,
        "differencing" if has_parent else "fixed" if flags & 1 else "dynamic",
        virtual_size,
        block_size,
        logical,
        physical,
        _guid(items[_DISK_ID]),
        parent,
        blocks,
        tuple(notes),
        tuple(problems),
    )


def _guid(raw: bytes) -> str:
    return str(UUID(bytes_le=raw))


def _header(source: ByteSource, notes: list[str]) -> tuple[Header, bytes]:
    """The header that counts, and its log GUID as stored."""
    found: list[tuple[Header, bytes]] = []
    problems: list[str] = []
    for copy, at in enumerate(_HEADERS):
        raw = source.read_at(at, 4096) if at < source.size else b""
        where = f"header {copy + 1}"
        if len(raw) < 4096:
            problems.append(f"{where}: truncated")
            continue
        fields = _HEADER.unpack_from(raw)
        signature, crc, sequence, file_write, data_write, log, log_version, version, log_size, log_at = fields
        if signature != b"head":
            problems.append(f"{where}: no signature")
        elif crc != crc32c_without(raw, 4):
            problems.append(f"{where}: wrong checksum")
        elif version != 1 or (any(log) and log_version != 0):
            problems.append(f"{where}: version {version}, log version {log_version}")
        elif log_at % MIB or log_size % MIB or log_at < MIB:
            problems.append(f"{where}: its log is at {log_at:#x}, {log_size} bytes long")
        else:
            log_guid = _guid(log) if any(log) else ""
            header = Header(copy, sequence, _guid(file_write), _guid(data_write), log_guid, log_at, log_size)
            found.append((header, log))
    if not found:
        raise FormatError("VHDX header", "; ".join(problems), _HEADERS[0])
    notes += problems
    # equal sequences occur (disk2vhd writes such files): then the first
    return max(found, key=lambda f: (f[0].sequence, -f[0].copy))


def _regions(view: ByteSource, header: Header, notes: list[str]) -> tuple[Region, ...]:
    problems: list[str] = []
    for number, at in enumerate(_REGION_TABLES, 1):
        raw = view.read_at(at, _TABLE_SIZE) if at < view.size else b""
        if len(raw) < _TABLE_SIZE:
            problem = "truncated"
        elif raw[:4] != b"regi":
            problem = "no signature"
        elif int.from_bytes(raw[4:8], "little") != crc32c_without(raw, 4):
            problem = "wrong checksum"
        else:
            notes += problems
            return _region_table(raw, at, view.size, header)
        problems.append(f"region table {number}: {problem}")
    raise FormatError("VHDX region table", "; ".join(problems), _REGION_TABLES[0])


def _region_table(raw: bytes, at: int, size: int, header: Header) -> tuple[Region, ...]:
    what = "VHDX region table"
    (count,) = struct.unpack_from("<I", raw, 8)
    if count > 2047:
        raise FormatError(what, f"{count} entries", at)
    regions: list[Region] = []
    taken = [(header.log_offset, header.log_offset + header.log_length)]
    for i in range(count):
        guid_bytes, offset, length, flags = struct.unpack_from("<16sQII", raw, 16 + 32 * i)
        guid = _guid(guid_bytes)
        name = _REGIONS.get(guid, "")
        if not name and flags & 1:
            raise FormatError(what, f"unknown region {guid} is required", at)
        if offset < MIB or offset % MIB or length % MIB or not length or offset + length > size:
            raise FormatError(what, f"region {name or guid} at {offset:#x}, {length} bytes, does not fit", at)
        if any(offset < end and start < offset + length for start, end in taken):
            raise FormatError(what, f"region {name or guid} overlaps another", at)
        taken.append((offset, offset + length))
        regions.append(Region(guid, name, offset, length))
    for name in ("BAT", "metadata"):
        if [region.name for region in regions].count(name) != 1:
            raise FormatError(what, f"there must be one region {name}", at)
    return tuple(regions)


def _metadata(view: ByteSource, region: Region) -> dict[str, bytes]:
    """The known items by their GUID."""
    what, at = "VHDX metadata", region.offset
    raw = view.read_at(at, min(_TABLE_SIZE, region.length))
    if raw[:8] != b"metadata":
        raise FormatError(what, "no signature", at)
    (count,) = struct.unpack_from("<H", raw, 10)
    if count > 2047 or 32 + 32 * count > len(raw):
        raise FormatError(what, f"{count} items", at)
    items: dict[str, bytes] = {}
    for i in range(count):
        guid_bytes, offset, length, flags = struct.unpack_from("<16sIII", raw, 32 + 32 * i)
        guid = _guid(guid_bytes)
        is_user, required = bool(flags & 1), bool(flags & 4)
        name = "" if is_user else _ITEMS.get(guid, "")
        if not name:
            if required:
                raise FormatError(what, f"unknown item {guid} is required", at)
            continue
        if guid in items:
            raise FormatError(what, f"{name} occurs twice", at)
        if length and (offset < _TABLE_SIZE or offset + length > region.length or length > _LARGEST_ITEM):
            raise FormatError(what, f"{name} of {length} bytes at {offset:#x} does not fit", at)
        data = view.read_at(at + offset, length) if length else b""
        if len(data) < max(length, _SIZES.get(guid, 0)):
            raise FormatError(what, f"{name} of {len(data)} bytes", at)
        items[guid] = data[: _SIZES.get(guid)]
    missing = [_ITEMS[guid] for guid in _SIZES if guid not in items]
    if missing:
        raise FormatError(what, f"without {', '.join(missing)}", at)
    return items


def _check_geometry(block_size: int, virtual_size: int, logical: int, physical: int) -> None:
    what = "VHDX metadata"
    if not MIB <= block_size <= 256 * MIB or block_size & (block_size - 1):
        raise FormatError(what, f"blocks of {block_size} bytes")
    if logical not in (512, 4096) or physical not in (512, 4096):
        raise FormatError(what, f"sectors of {logical} and {physical} bytes")
    if not 0 < virtual_size <= _LARGEST_DISK or virtual_size % logical:
        raise FormatError(what, f"a disk of {virtual_size} bytes")


def _locator(raw: bytes) -> ParentLocator:
    what = "VHDX parent locator"
    if len(raw) < 20:
        raise FormatError(what, f"{len(raw)} bytes")
    if _guid(raw[:16]) != _LOCATOR_TYPE:
        raise FormatError(what, f"type {_guid(raw[:16])} is not known")
    (count,) = struct.unpack_from("<H", raw, 18)
    if count > 256 or 20 + 12 * count > len(raw):
        raise FormatError(what, f"{count} entries in {len(raw)} bytes")
    entries: dict[str, str] = {}
    for i in range(count):
        key_at, value_at, key_size, value_size = struct.unpack_from("<IIHH", raw, 20 + 12 * i)
        if key_at + key_size > len(raw) or value_at + value_size > len(raw):
            raise FormatError(what, f"entry {i + 1} does not fit")
        key, value = (
            raw[at : at + size & ~1 if size % 2 else at + size].decode("utf-16-le", "replace").rstrip("\0")
            for at, size in ((key_at, key_size), (value_at, value_size))
        )
        entries.setdefault(key, value)
    linkage, linkage2 = (
        entries.pop(k, "").strip("{}").lower() for k in ("parent_linkage", "parent_linkage2")
    )
    relative, absolute, volume = (
        entries.pop(key, "") for key in ("relative_path", "absolute_win32_path", "volume_path")
    )
    return ParentLocator(linkage, linkage2, relative, absolute, volume, entries)


def _blocks(
    view: ByteSource,
    bat: Region,
    geometry: tuple[int, int, int],
    has_parent: bool,
    file_size: int,
    notes: list[str],
    problems: list[str],
) -> BlockTable:
    virtual_size, block_size, logical = geometry
    ratio = (logical << 23) // block_size
    data_blocks = -(-virtual_size // block_size)
    entries = (
        -(-data_blocks // ratio) * (ratio + 1) if has_parent else data_blocks + (data_blocks - 1) // ratio
    )
    if entries * 8 > bat.length:
        raise FormatError("VHDX BAT", f"{entries} entries do not fit {bat.length} bytes", bat.offset)
    looked_at = min(entries, _MOST_BAT_ENTRIES)
    if looked_at < entries:
        notes.append(f"only the first {looked_at} of {entries} BAT entries were checked")
    states: Counter[int] = Counter()
    bitmaps = outside = wrong = end = 0
    step = MIB // 8
    for first in range(0, looked_at, step):
        number = min(step, looked_at - first)
        raw = view.read_at(bat.offset + first * 8, number * 8)
        if len(raw) < number * 8:
            raise FormatError("VHDX BAT", "truncated", bat.offset + first * 8)
        chunk = array("Q", raw)
        if sys.byteorder == "big":
            chunk.byteswap()
        # the first byte of each entry has the state; the bitmaps among them are taken off again
        states.update(byte & 7 for byte in raw[::8])
        for index, entry in enumerate(chunk, first) if any(raw) else ():
            state = entry & 7
            is_bitmap = index % (ratio + 1) == ratio
            if is_bitmap and state:
                states[state] -= 1
                states[0] += 1
                bitmaps += state == _PRESENT
            if state < _PRESENT:
                continue
            offset = entry >> 20 << 20
            stop = offset + (MIB if is_bitmap else block_size)
            end = max(end, stop)
            outside += stop > file_size
            wrong += offset < MIB or (state == _PARTLY and (is_bitmap or not has_parent))
    states[0] -= sum(1 for _ in range(ratio, looked_at, ratio + 1))
    if outside:
        problems.append(f"truncated: {outside} blocks lie beyond the end; {end} bytes are needed")
    if wrong:
        problems.append(f"{wrong} BAT entries cannot be right")
    counted = {_STATES[state]: count for state, count in sorted(states.items()) if count > 0}
    return BlockTable(entries, counted, bitmaps, end)
