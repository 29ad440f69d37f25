"""Pieces of NTFS beside names and content: times, reparse points, the volume's security descriptors.

As the Linux-NTFS documentation describes $STANDARD_INFORMATION and $Secure, and [MS-FSCC] 2.1.2 reparse points.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from .errors import FormatError
from .source import ByteSource

SYMLINK = 0xA000000C
MOUNT_POINT = 0xA0000003  # also of junctions
WOF = 0x80000017
DEDUP = 0x80000013
UNREADABLE = {WOF: "wof", DEDUP: "dedup"}
"""The code of UnreadableFile for a file with such a reparse point; "reparse" for others."""

_SDS_BLOCK = 0x40000  # followed by its mirror of the same size
_SDS_LARGEST = 256 << 20
_SDS_HEAD = struct.Struct("<IIQI")
_DESCRIPTOR_LARGEST = 0x10000


class Standard(NamedTuple):
    """$STANDARD_INFORMATION. Times are FILETIME; ``changed`` is that of anything about the file. ``security_id`` is 0
    before NTFS 3.0."""

    created: int
    modified: int
    changed: int
    attributes: int
    security_id: int


def parse_standard(value: bytes) -> Standard:
    if len(value) < 48:
        raise FormatError("NTFS $STANDARD_INFORMATION", f"{len(value)} bytes")
    created, modified, changed = struct.unpack_from("<QQQ", value)
    (attributes,) = struct.unpack_from("<I", value, 32)
    security = struct.unpack_from("<I", value, 52)[0] if len(value) >= 72 else 0
    return Standard(created, modified, changed, attributes, security)


def link_target(reparse: bytes) -> str | None:
    r"""The target of a symbolic link or mount point without the prefix \??\; None for other reparse points."""
    what = "NTFS reparse point"
    if len(reparse) < 8:
        raise FormatError(what, "truncated")
    tag, length = struct.unpack_from("<IH", reparse)
    if tag not in (SYMLINK, MOUNT_POINT):
        return None
    data = reparse[8 : 8 + length]
    head = 12 if tag == SYMLINK else 8
    if len(data) < head:
        raise FormatError(what, "truncated")
    offset, size = struct.unpack_from("<HH", data)
    name = data[head + offset : head + offset + size]
    if size % 2 or len(name) < size:
        raise FormatError(what, "its target lies outside of it")
    target = name.decode("utf-16-le", "surrogatepass")
    return "\\\\?\\" + target[4:] if target.startswith("\\??\\Volume{") else target.removeprefix("\\??\\")


def descriptors(stream: ByteSource) -> Iterator[tuple[int, int, int]]:
    """(security id, offset, length) of each descriptor in $Secure:$SDS, mirrors left out."""
    end = min(stream.size, _SDS_LARGEST)
    for start in range(0, end, 2 * _SDS_BLOCK):
        block = stream.read_at(start, min(_SDS_BLOCK, end - start))
        at = 0
        while at + _SDS_HEAD.size <= len(block):
            _, number, offset, length = _SDS_HEAD.unpack_from(block, at)
            if offset != start + at or not _SDS_HEAD.size < length <= _DESCRIPTOR_LARGEST + _SDS_HEAD.size:
                break  # the rest of a block is filled with zeros
            yield number, offset + _SDS_HEAD.size, length - _SDS_HEAD.size
            at += -(-length // 16) * 16


def read_descriptor(stream: ByteSource, offset: int, length: int) -> bytes:
    """One descriptor of $SDS, its hash checked."""
    head = stream.read_at(offset - _SDS_HEAD.size, _SDS_HEAD.size)
    data = stream.read_at(offset, length)
    what = "NTFS security descriptor"
    if len(head) < _SDS_HEAD.size or len(data) < length:
        raise FormatError(what, "truncated", offset)
    if _SDS_HEAD.unpack(head)[0] != descriptor_hash(data):
        raise FormatError(what, "wrong hash", offset)
    return data


def descriptor_hash(data: bytes) -> int:
    """The hash that $SDS keeps: each 32-bit word added to the rotated sum."""
    total = 0
    for (word,) in struct.iter_unpack("<I", data[: len(data) & ~3]):
        total = (word + (total << 3 | total >> 29)) & 0xFFFFFFFF
    return total
