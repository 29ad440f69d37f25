"""The header of a WIM file (208 bytes), and the 24 bytes that say where a resource is."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from enum import Enum
from typing import BinaryIO

from rehost_payload.formats.errors import FormatError

WHAT = "WIM header"
SIZE = 208
_LAYOUT = struct.Struct("<8sIIII16sHHI24s24s24sI24s60s")
_MAGIC, _PIPABLE = b"MSWIM\0\0\0", b"WLPWM\0\0\0"
_VERSION, _VERSION_ESD = 0x10D00, 0xE00
_COMPRESSED, _XPRESS, _LZX, _LZMS, _XPRESS_2 = 0x2, 0x20000, 0x40000, 0x80000, 0x200000
_SPANNED = 0x8

METADATA, COMPRESSED, SOLID = 0x2, 0x4, 0x10
"""Flags of a resource."""


class Compression(Enum):
    NONE = "none"
    XPRESS = "XPRESS"
    LZX = "LZX"
    LZMS = "LZMS"


@dataclass(frozen=True)
class Resource:
    """``stored`` bytes in the file from ``offset`` on, ``size`` bytes once decompressed."""

    stored: int
    flags: int
    offset: int
    size: int

    @classmethod
    def unpack(cls, raw: bytes) -> Resource:
        packed, offset, size = struct.unpack("<QQQ", raw)
        return cls(packed & (1 << 56) - 1, packed >> 56, offset, size)

    def pack(self) -> bytes:
        return struct.pack("<QQQ", self.stored | self.flags << 56, self.offset, self.size)

    @property
    def compressed(self) -> bool:
        return bool(self.flags & COMPRESSED)


NOTHING = Resource(0, 0, 0, 0)


@dataclass(frozen=True)
class Header:
    """``chunk_size`` is in bytes; ``boot_index`` counts from 1, 0 for none; ``esd`` is the younger version of the
    format, in which files can be packed together (solid)."""

    pipable: bool
    version: int
    flags: int
    chunk_size: int
    guid: bytes
    part: int
    parts: int
    images: int
    table: Resource
    xml: Resource
    boot_metadata: Resource
    boot_index: int
    integrity: Resource

    @property
    def esd(self) -> bool:
        return self.version == _VERSION_ESD

    @property
    def compression(self) -> Compression:
        if not self.flags & _COMPRESSED:
            return Compression.NONE
        if self.flags & _LZX:
            return Compression.LZX
        if self.flags & _LZMS:
            return Compression.LZMS
        return Compression.XPRESS

    def pack(self) -> bytes:
        return _LAYOUT.pack(
            _MAGIC, SIZE, self.version, self.flags, self.chunk_size, self.guid, self.part, self.parts, self.images,
            self.table.pack(), self.xml.pack(), self.boot_metadata.pack(), self.boot_index, self.integrity.pack(),
            bytes(60),
        )  # fmt: skip

    def with_changes(self, **changes: object) -> Header:
        return replace(self, **changes)  # type: ignore[arg-type]


def read_header(source: BinaryIO) -> Header:
    """FormatError for what is no WIM file, or one of a version that is not known."""
    source.seek(0)
    raw = source.read(SIZE)
    if raw[:8] not in (_MAGIC, _PIPABLE):
        raise FormatError(WHAT, "this is not a WIM file", 0)
    if len(raw) < SIZE:
        raise FormatError(WHAT, "the file ends inside its header", len(raw))
    fields = _LAYOUT.unpack(raw)
    magic, size, version, flags, chunk, guid, part, parts, images, table, xml, boot, index, integrity, _ = (
        fields
    )
    if size != SIZE or version not in (_VERSION, _VERSION_ESD):
        raise FormatError(WHAT, f"version {version:#x} with a header of {size} bytes is not known", 8)
    return Header(
        magic == _PIPABLE, version, flags, chunk, guid, part, parts, images,
        Resource.unpack(table), Resource.unpack(xml), Resource.unpack(boot), index, Resource.unpack(integrity),
    )  # fmt: skip


def why_unfit(header: Header) -> str | None:
    """Why Microsoft's boot manager would not start from this file whatever is in it; None where it would.

    Each of these was tried on the boot manager of build 19041: all end in 0xc0000225.
    """
    if header.pipable:
        return "it is a pipable WIM, which only wimlib reads"
    if header.parts > 1 or header.flags & _SPANNED:
        return f"it is part {header.part} of {header.parts} of a split WIM"
    if header.esd or header.compression is Compression.LZMS:
        return f"it is an ESD: solid, or compressed with {header.compression.value}"
    if header.compression is not Compression.NONE and header.chunk_size != 32768:
        return f"it is compressed in chunks of {header.chunk_size >> 10} KiB instead of 32"
    return None
