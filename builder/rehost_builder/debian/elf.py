"""Reads the few things of ELF files that the builder must know.

Follows the System V ABI (gABI, chapters 4 and 5) for 64-bit little-endian files, which is all that amd64 has.
"""

from __future__ import annotations

import struct

_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NEEDED, _DT_STRTAB, _DT_SONAME = 1, 5, 14


def is_elf(head: bytes) -> bool:
    return head[:6] == b"\x7fELF\x02\x01"


def needed(data: bytes) -> list[str]:
    """The shared libraries (DT_NEEDED) that the dynamic linker must find for this file.

    Empty for static programs. Raises ValueError for a damaged file.
    """
    try:
        segments = _segments(data)
        dynamic = next(((o, s) for kind, o, _, s in segments if kind == _PT_DYNAMIC), None)
        if dynamic is None:
            return []
        offset, size = dynamic
        entries = [struct.unpack_from("<QQ", data, offset + i) for i in range(0, size - 15, 16)]
        strings = next((value for tag, value in entries if tag == _DT_STRTAB), None)
        if strings is None:
            return []
        table = next(o + strings - a for k, o, a, s in segments if k == _PT_LOAD and a <= strings < a + s)
        names = []
        for tag, value in entries:
            if tag == 0:
                break
            if tag == _DT_NEEDED:
                names.append(_string(data, table + value))
        return names
    except (struct.error, IndexError, StopIteration, OverflowError) as e:
        raise ValueError(f"damaged ELF file: {e}") from None


def _segments(data: bytes) -> list[tuple[int, int, int, int]]:
    """(type, offset in the file, address, length in the file) of each program header."""
    start, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    result = []
    for i in range(count):
        kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", data, start + i * size)
        result.append((kind, offset, address, length))
    return result


def _string(data: bytes, offset: int) -> str:
    return data[offset : data.index(b"\0", offset)].decode("ascii", "replace")


def modinfo(data: bytes) -> dict[str, list[str]]:
    """The "key=value" texts of a kernel module's section .modinfo (include/linux/moduleparam.h).

    Raises ValueError where the file is no module.
    """
    try:
        table = struct.unpack_from("<Q", data, 40)[0]
        size, count, names = struct.unpack_from("<HHH", data, 58)
        sections = [struct.unpack_from("<IIQQQQ", data, table + i * size) for i in range(count)]
        names_at = sections[names][4]
        for name, _, _, _, offset, length in sections:
            if _string(data, names_at + name) == ".modinfo":
                content = data[offset : offset + length]
                break
        else:
            raise ValueError("no section .modinfo")
    except (struct.error, IndexError, OverflowError) as e:
        raise ValueError(f"damaged kernel module: {e}") from None
    result: dict[str, list[str]] = {}
    for text in content.split(b"\0"):
        key, found, value = text.decode("utf-8", "replace").partition("=")
        if found:
            result.setdefault(key, []).append(value)
    return result
