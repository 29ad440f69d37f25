"""Facts of a PE file: machine, fixed file version, and whether it is all there.

After Microsoft's PE/COFF specification. Reads headers, section table and the version resource only; pefile
does more, but the payload must start with the standard library alone.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from .errors import FormatError
from .source import ByteSource

MACHINES = {0x014C: "x86", 0x8664: "x64", 0xAA64: "arm64", 0x01C4: "arm"}
_MAX_SECTIONS = 96
_MAX_RESOURCES = 16 << 20
_RT_VERSION = 16
_FIXED_MAGIC = 0xFEEF04BD


@dataclass(frozen=True)
class PeFacts:
    """``machine`` is "x64", "x86", "arm64" or the number in hex; ``truncated`` when a section lies
    outside."""

    machine: str
    wide: bool  # PE32+
    subsystem: int
    version: str | None
    truncated: bool
    signature: int = 0  # bytes of the certificate table: more than 0 where a signature is embedded


@dataclass(frozen=True)
class _Section:
    rva: int
    size: int
    offset: int
    raw_size: int


def read_facts(source: ByteSource) -> PeFacts:
    """Raises FormatError where the file is no PE image. A missing or odd version resource is no error."""
    head = source.read_at(0, 64)
    if head[:2] != b"MZ" or len(head) < 64:
        raise FormatError("PE image", "no MZ signature", 0)
    (place,) = struct.unpack_from("<I", head, 60)
    headers = source.read_at(place, 24 + 240 + _MAX_SECTIONS * 40)
    if headers[:4] != b"PE\0\0" or len(headers) < 24 + 96:
        raise FormatError("PE image", "no PE header", place)
    machine, count, _, _, _, optional_size, _ = struct.unpack_from("<HHIIIHH", headers, 4)
    (magic,) = struct.unpack_from("<H", headers, 24)
    if magic not in (0x10B, 0x20B):
        raise FormatError("PE image", f"unknown optional header {magic:#x}", place + 24)
    wide = magic == 0x20B
    directories = 24 + (112 if wide else 96)
    (subsystem,) = struct.unpack_from("<H", headers, 24 + 68)
    table = 24 + optional_size
    if count == 0 or count > _MAX_SECTIONS or len(headers) < table + count * 40:
        raise FormatError("PE image", f"impossible section table of {count} entries", place + 6)
    sections = []
    for index in range(count):
        size, rva, raw_size, offset = struct.unpack_from("<IIII", headers, table + index * 40 + 8)
        sections.append(_Section(rva, size, offset, raw_size))
    truncated = any(s.offset + s.raw_size > source.size for s in sections if s.raw_size)
    version: str | None = None
    (directory_count,) = struct.unpack_from("<I", headers, directories - 4)
    if directory_count > 2 and directories + 24 <= table:
        rva, size = struct.unpack_from("<II", headers, directories + 16)
        if rva and size:
            version = _version(source, sections, rva, min(size, _MAX_RESOURCES))
    signature = 0
    if directory_count > 4 and directories + 40 <= table:
        # the one directory whose address is a place in the file, not in memory
        place, signature = struct.unpack_from("<II", headers, directories + 32)
        truncated = truncated or (signature > 0 and place + signature > source.size)
    machine_name = MACHINES.get(machine, f"{machine:#06x}")
    return PeFacts(machine_name, wide, subsystem, version, truncated, signature)


def _offset(sections: list[_Section], rva: int) -> int | None:
    for section in sections:
        if section.rva <= rva < section.rva + max(section.size, section.raw_size):
            inside = rva - section.rva
            return section.offset + inside if inside < section.raw_size else None
    return None


def _version(source: ByteSource, sections: list[_Section], rva: int, size: int) -> str | None:
    """Walks type 16 → first name → first language of the resource tree, reading only those three tables."""
    base = _offset(sections, rva)
    if base is None:
        return None
    place = 0
    for level in range(3):
        if place + 16 > size:
            return None
        named, numbered = struct.unpack("<12xHH", source.read_at(base + place, 16).ljust(16, b"\0"))
        entries = source.read_at(base + place + 16, 8 * min(named + numbered, 4096))
        chosen: int | None = None
        for index in range(len(entries) // 8):
            entry_id, target = struct.unpack_from("<II", entries, 8 * index)
            if level > 0 or entry_id == _RT_VERSION:
                chosen = target
                break
        if chosen is None or bool(chosen & 0x80000000) != (level < 2):
            return None
        place = chosen & 0x7FFFFFFF
    raw = source.read_at(base + place, 8)
    if len(raw) < 8:
        return None
    data_rva, length = struct.unpack("<II", raw)
    start = _offset(sections, data_rva)
    if start is None:
        return None
    info = source.read_at(start, min(length, 256))
    # VS_VERSIONINFO: three words, the key "VS_VERSION_INFO" in UTF-16, padding, then the fixed part
    if len(info) < 40 + 52 or info[6:38].decode("utf-16-le", "replace").rstrip("\0") != "VS_VERSION_INFO":
        return None
    fixed, _, high, low = struct.unpack_from("<IIII", info, 40)
    if fixed != _FIXED_MAGIC:
        return None
    return f"{high >> 16}.{high & 0xFFFF}.{low >> 16}.{low & 0xFFFF}"
