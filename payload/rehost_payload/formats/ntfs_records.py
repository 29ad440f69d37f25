"""Pieces of NTFS metadata as pure functions of bytes: fixups, attributes, run lists, index entries.

The layout is that of NTFS 3.x as the Linux-NTFS documentation describes it. Integers are little endian; VCN
and LCN count clusters of a stream and of the volume.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from .errors import FormatError

STANDARD_INFORMATION = 0x10
ATTRIBUTE_LIST = 0x20
FILE_NAME = 0x30
SECURITY_DESCRIPTOR = 0x50
VOLUME_NAME = 0x60
VOLUME_INFORMATION = 0x70
DATA = 0x80
INDEX_ROOT = 0x90
INDEX_ALLOCATION = 0xA0
REPARSE_POINT = 0xC0
_END = 0xFFFFFFFF

COMPRESSED = 0x0001
ENCRYPTED = 0x4000

RECORD_IN_USE = 1
RECORD_IS_DIRECTORY = 2
_NAME_DOS = 2
_MAX_RUNS = 1 << 20


@dataclass(frozen=True)
class Run:
    """``count`` clusters from ``vcn`` on; ``lcn`` None means a hole."""

    vcn: int
    count: int
    lcn: int | None


@dataclass(frozen=True)
class Attribute:
    """One attribute of one record. ``value`` for a resident one, else ``runs`` with the sizes of the stream.

    The sizes count only in the piece whose ``lowest_vcn`` is 0.
    """

    type: int
    name: str
    flags: int
    instance: int
    value: bytes | None
    lowest_vcn: int = 0
    runs: tuple[Run, ...] = ()
    compression_unit: int = 0  # clusters, 0 = not compressed
    size: int = 0
    initialized: int = 0


@dataclass(frozen=True)
class Record:
    """A file record with its fixups applied."""

    number: int
    sequence: int
    flags: int
    base: int  # number of the base record, 0 where this is one
    attributes: tuple[Attribute, ...]

    def first(self, kind: int, name: str = "") -> Attribute | None:
        for attribute in self.attributes:
            if attribute.type == kind and attribute.name == name:
                return attribute
        return None


@dataclass(frozen=True)
class ListEntry:
    """One line of an $ATTRIBUTE_LIST."""

    type: int
    name: str
    lowest_vcn: int
    record: int
    instance: int


class IndexEntry(NamedTuple):
    """An entry of a directory. ``name`` is None in the last one of a node; ``child`` is the VCN below it."""

    record: int
    name: str | None
    is_dos_name: bool
    is_directory: bool
    size: int
    reparse_tag: int
    child: int | None


def apply_fixups(data: bytes, magic: bytes, what: str) -> bytes:
    """Checks the update sequence of a multi-sector structure and puts the saved bytes back."""
    if data[:4] != magic:
        raise FormatError(what, f"no {magic.decode()} signature")
    offset, count = struct.unpack_from("<HH", data, 4)
    if count < 2 or (count - 1) * 512 != len(data) or offset % 2 or offset + 2 * count > 510:
        raise FormatError(what, "impossible update sequence", 4)
    fixed = bytearray(data)
    check = data[offset : offset + 2]
    for index in range(1, count):
        tail = index * 512 - 2
        if data[tail : tail + 2] != check:
            raise FormatError(what, "it was written only in part (update sequence)", tail)
        fixed[tail : tail + 2] = data[offset + 2 * index : offset + 2 * index + 2]
    return bytes(fixed)


def parse_record(data: bytes, number: int) -> Record:
    """A file record as read from the MFT."""
    what = f"MFT record {number}"
    if len(data) < 512:
        raise FormatError(what, "truncated")
    data = apply_fixups(data, b"FILE", what)
    sequence, _, first, flags, used = struct.unpack_from("<HHHHI", data, 0x10)
    (base,) = struct.unpack_from("<Q", data, 0x20)
    if used > len(data):
        raise FormatError(what, "it claims to be longer than it is", 0x18)
    attributes = tuple(_attributes(data[:used], first, what))
    return Record(number, sequence, flags, base & 0xFFFFFFFFFFFF, attributes)


def _attributes(data: bytes, position: int, what: str) -> Iterator[Attribute]:
    while position + 4 <= len(data):
        kind = int.from_bytes(data[position : position + 4], "little")
        if kind == _END:
            return
        if position + 24 > len(data):
            raise FormatError(what, "an attribute is cut off", position)
        length, resident, name_length, name_offset, flags, instance = struct.unpack_from(
            "<IBBHHH", data, position + 4
        )
        if length < 24 or length % 8 or position + length > len(data):
            raise FormatError(what, f"impossible attribute length {length}", position)
        raw = data[position : position + length]
        if name_offset + 2 * name_length > length:
            raise FormatError(what, "an attribute's name lies outside of it", position)
        name = raw[name_offset : name_offset + 2 * name_length].decode("utf-16-le", "surrogatepass")
        if resident == 0:
            size, offset = struct.unpack_from("<IH", raw, 16)
            if offset + size > length:
                raise FormatError(what, "an attribute's value lies outside of it", position)
            yield Attribute(kind, name, flags, instance, raw[offset : offset + size])
        else:
            yield _non_resident(raw, kind, name, flags, instance, what)
        position += length


def _non_resident(raw: bytes, kind: int, name: str, flags: int, instance: int, what: str) -> Attribute:
    if len(raw) < 64:
        raise FormatError(what, "a non-resident attribute is cut off")
    lowest, highest, mapping, unit = struct.unpack_from("<QQHB", raw, 16)
    _, size, initialized = struct.unpack_from("<QQQ", raw, 40)
    if lowest >> 62 or size >> 62:
        raise FormatError(what, "impossible size of a non-resident attribute")
    runs = tuple(decode_runs(raw[mapping:], lowest))
    end = runs[-1].vcn + runs[-1].count if runs else lowest
    # An empty stream has highest VCN -1 or 0 and no runs.
    if runs and highest != end - 1:
        raise FormatError(what, "a run list does not cover its attribute")
    if unit > 8:
        raise FormatError(what, f"impossible compression unit 2^{unit}")
    clusters = 1 << unit if unit else 0
    return Attribute(kind, name, flags, instance, None, lowest, runs, clusters, size, min(initialized, size))


def decode_runs(data: bytes, vcn: int) -> Iterator[Run]:
    """Decodes mapping pairs. Whether an LCN lies on the volume is for the caller to check."""
    position, lcn = 0, 0
    while position < len(data) and data[position]:
        head = data[position]
        length_size, offset_size = head & 15, head >> 4
        end = position + 1 + length_size + offset_size
        if not 1 <= length_size <= 8 or offset_size > 8 or end > len(data):
            raise FormatError("NTFS run list", "an impossible run", position)
        count = int.from_bytes(data[position + 1 : position + 1 + length_size], "little")
        if count == 0 or vcn + count > 1 << 62:
            raise FormatError("NTFS run list", "an impossible run length", position)
        if offset_size:
            lcn += int.from_bytes(data[position + 1 + length_size : end], "little", signed=True)
            if lcn < 0:
                raise FormatError("NTFS run list", "a run before the volume", position)
            yield Run(vcn, count, lcn)
        else:
            yield Run(vcn, count, None)
        vcn += count
        position = end


def parse_attribute_list(data: bytes) -> list[ListEntry]:
    found: list[ListEntry] = []
    position = 0
    while position + 26 <= len(data):
        kind, length, name_length, name_offset, lowest, record, instance = struct.unpack_from(
            "<IHBBQQH", data, position
        )
        if length < 26 or position + length > len(data) or name_offset + 2 * name_length > length:
            raise FormatError("NTFS attribute list", "an impossible entry", position)
        start = position + name_offset
        name = data[start : start + 2 * name_length].decode("utf-16-le", "surrogatepass")
        found.append(ListEntry(kind, name, lowest, record & 0xFFFFFFFFFFFF, instance))
        position += length
    return found


def parse_index_node(data: bytes, header: int, what: str) -> list[IndexEntry]:
    """The entries of an index node whose header stands at ``header``; the last one has no name."""
    if header + 16 > len(data):
        raise FormatError(what, "truncated")
    first, used, _, _ = struct.unpack_from("<IIII", data, header)
    end = header + used
    if end > len(data):
        raise FormatError(what, "it claims to be longer than it is", header)
    position = header + first
    found: list[IndexEntry] = []
    while position + 16 <= end:
        record, length, key_length, flags = struct.unpack_from("<QHHH", data, position)
        if length < 16 or length % 8 or position + length > end or 16 + key_length > length:
            raise FormatError(what, "an impossible index entry", position)
        child: int | None = None
        if flags & 1:
            if length < 24:
                raise FormatError(what, "an impossible index entry", position)
            (child,) = struct.unpack_from("<Q", data, position + length - 8)
        if flags & 2:
            found.append(IndexEntry(0, None, False, False, 0, 0, child))
            return found
        found.append(
            _file_name(data[position + 16 : position + 16 + key_length], record & 0xFFFFFFFFFFFF, child, what)
        )
        position += length
    raise FormatError(what, "it has no last entry", position)


def _file_name(key: bytes, record: int, child: int | None, what: str) -> IndexEntry:
    if len(key) < 66 or 66 + 2 * key[64] > len(key):
        raise FormatError(what, "an impossible file name")
    size, flags, tag = struct.unpack_from("<QII", key, 48)
    name = key[66 : 66 + 2 * key[64]].decode("utf-16-le", "surrogatepass")
    return IndexEntry(
        record,
        name,
        key[65] == _NAME_DOS,
        bool(flags & 0x10000000),
        size,
        tag if flags & 0x400 else 0,
        child,
    )
