"""VHD and AVHD files: what they say of themselves, and whether that can be true. The contents are not read.

Follows the "Virtual Hard Disk Image Format Specification" 1.0: a footer of 512 bytes at the end (511 in files of
very old tools), for dynamic and differencing disks a copy of it at the start, a header and a block table. Numbers
are big-endian, offsets in the table count sectors of 512 bytes. Every checksum is checked.
"""

from __future__ import annotations

import struct
import sys
from array import array
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.source import ByteSource

SECTOR = 512
_FOOTER = struct.Struct(">8sIIQI4sI4sQQIII16sB")
_HEADER = struct.Struct(">8sQQIIII16sII512s")
_LOCATOR = struct.Struct(">4sIIIQ")
_KINDS = {2: "fixed", 3: "dynamic", 4: "differencing"}
_UNUSED = 0xFFFFFFFF
_MOST_BLOCKS = 1 << 22  # 8 TiB in blocks of 2 MiB; the format ends at 2 TiB
_MOST_COMPARED = 1 << 20  # blocks that are looked at for sharing a place: 2 TiB in the usual size
_LONGEST_PATH = 1 << 16  # bytes
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class VhdParent:
    """How a differencing disk finds its parent. ``modified`` is the time of the parent's last change."""

    id: str
    modified: datetime
    name: str
    relative_path: str
    absolute_path: str
    others: dict[str, str]  # by platform code


@dataclass(frozen=True)
class Vhd:
    """A file. Sizes in bytes. ``problems`` are damage that makes the contents unsafe, ``notes`` only information."""

    file_size: int
    kind: str  # "fixed", "dynamic" or "differencing"
    creator: str
    written: datetime
    virtual_size: int
    id: str
    saved_state: bool
    block_size: int  # 0 for fixed disks
    allocated_blocks: int
    allocated_end: int  # bytes: the file must not be shorter
    parent: VhdParent | None
    notes: tuple[str, ...]
    problems: tuple[str, ...]


def is_vhd(source: ByteSource) -> bool:
    """Whether there is a footer at the end or its copy at the start."""
    return any(source.read_at(at, 8) == b"conectix" for at in (0, *_footers(source.size)) if at < source.size)


def parse_vhd(source: ByteSource) -> Vhd:
    """Reads footer, header and block table. FormatError where they cannot be trusted."""
    notes: list[str] = []
    problems: list[str] = []
    raw, footer_at = _footer(source, problems)
    (_, _, version, header_at, stamp, application, _, _, _, size, _, kind, _, guid, saved) = (
        _FOOTER.unpack_from(raw)
    )
    if version >> 16 != 1:
        raise FormatError("VHD footer", f"version {version >> 16}.{version & 0xFFFF}", footer_at)
    if kind not in _KINDS:
        raise FormatError("VHD footer", f"disk type {kind}", footer_at)
    if not size or size % SECTOR:
        raise FormatError("VHD footer", f"a disk of {size} bytes", footer_at)
    block_size = blocks = end = 0
    parent = None
    if kind == 2:
        end = size
        if footer_at < size:
            problems.append(f"truncated: {footer_at} bytes of {size}")
    else:
        header = _header(source, header_at)
        block_size, blocks, end = _table(source, header, (size, header_at, footer_at), problems)
        if kind == 4:
            parent = _parent(source, header, notes)
    if saved:
        notes.append("it belongs to a saved state")
    return Vhd(
        source.size,
        _KINDS[kind],
        application.decode("ascii", "replace").strip("\0 "),
        _EPOCH + timedelta(seconds=stamp),
        size,
        str(UUID(bytes_le=guid)),
        bool(saved),
        block_size,
        blocks,
        end,
        parent,
        tuple(notes),
        tuple(problems),
    )


def _footers(size: int) -> tuple[int, ...]:
    return tuple(at for at in (size - 512, size - 511) if at >= 0)


def _checksum_right(raw: bytes, at: int) -> bool:
    """The ones' complement of the sum of all bytes but those of the field itself."""
    stored = int.from_bytes(raw[at : at + 4], "big")
    return ~(sum(raw) - sum(raw[at : at + 4])) & 0xFFFFFFFF == stored


def _footer(source: ByteSource, problems: list[str]) -> tuple[bytes, int]:
    """The footer and where the data before it end; its copy is used where it is damaged."""
    found = ""
    for at in _footers(source.size):
        raw = source.read_at(at, 512)
        if raw[:8] == b"conectix":
            if _checksum_right(raw, 64):
                return raw, at
            found = "the footer has a wrong checksum"
    raw = source.read_at(0, min(512, source.size))
    if raw[:8] == b"conectix" and len(raw) == 512 and _checksum_right(raw, 64):
        problems.append(f"{found or 'no footer at the end: truncated'}; its copy at the start was used")
        return raw, source.size
    raise FormatError("VHD footer", found or "not found", max(0, source.size - 512))


def _header(source: ByteSource, at: int) -> bytes:
    raw = source.read_at(at, 1024) if at + 1024 <= source.size else b""
    if len(raw) < 1024:
        raise FormatError("VHD header", "outside of the file", at)
    if raw[:8] != b"cxsparse":
        raise FormatError("VHD header", "no signature", at)
    if not _checksum_right(raw, 36):
        raise FormatError("VHD header", "wrong checksum", at)
    return raw


def _table(
    source: ByteSource, header: bytes, place: tuple[int, int, int], problems: list[str]
) -> tuple[int, int, int]:
    """Block size, number of allocated blocks, and where the last of them ends."""
    size, header_at, footer_at = place
    _, _, at, version, entries, block_size, *_ = _HEADER.unpack_from(header)
    if version >> 16 != 1:
        raise FormatError("VHD header", f"version {version >> 16}.{version & 0xFFFF}", header_at)
    if block_size < SECTOR or block_size & (block_size - 1):
        raise FormatError("VHD header", f"blocks of {block_size} bytes", header_at)
    wanted = -(-size // block_size)
    if wanted > _MOST_BLOCKS:
        raise FormatError("VHD header", f"{wanted} blocks", header_at)
    if entries < wanted or at + wanted * 4 > source.size:
        raise FormatError("VHD block table", f"{entries} entries at {at:#x} for {wanted} blocks", header_at)
    raw = source.read_at(at, wanted * 4)
    if len(raw) < wanted * 4:
        raise FormatError("VHD block table", "truncated", at)
    table = array("I", raw)
    if sys.byteorder == "little":
        table.byteswap()
    bitmap = -(-block_size // SECTOR // 8 // SECTOR) * SECTOR
    blocks = outside = wrong = last = 0
    taken: set[int] = set()
    for entry in table:
        if entry == _UNUSED:
            continue
        blocks += 1
        last = max(last, entry)
        outside += entry * SECTOR + bitmap + block_size > footer_at
        wrong += entry * SECTOR < header_at + 1024 or entry in taken
        if len(taken) < _MOST_COMPARED:
            taken.add(entry)
    end = last * SECTOR + bitmap + block_size if blocks else at + wanted * 4
    if outside:
        problems.append(f"truncated: {outside} blocks lie beyond the end; {end} bytes are needed")
    if wrong:
        problems.append(f"{wrong} entries of the block table cannot be right")
    return block_size, blocks, end


def _parent(source: ByteSource, header: bytes, notes: list[str]) -> VhdParent:
    *_, guid, stamp, _, name = _HEADER.unpack_from(header)
    paths: dict[str, str] = {}
    for i in range(8):
        code, _, length, _, at = _LOCATOR.unpack_from(header, 576 + 24 * i)
        if not any(code):
            continue
        word = code.decode("ascii", "replace").strip("\0 ")
        if length > _LONGEST_PATH or at + length > source.size:
            notes.append(f"parent locator {word}: {length} bytes at {at:#x} do not fit")
            continue
        raw = source.read_at(at, length)
        encoding = {"W2ru": "utf-16-le", "W2ku": "utf-16-le", "MacX": "utf-8"}.get(word, "latin-1")
        paths[word] = raw.decode(encoding, "replace").rstrip("\0")
    return VhdParent(
        str(UUID(bytes_le=guid)),
        _EPOCH + timedelta(seconds=stamp),
        name.decode("utf-16-be", "replace").split("\0", 1)[0],
        paths.pop("W2ru", ""),
        paths.pop("W2ku", ""),
        paths,
    )
