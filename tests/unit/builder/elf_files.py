"""Small ELF files for the tests: a dynamic program and a kernel module, built field by field."""

from __future__ import annotations

import struct
from collections.abc import Sequence

_HEADER = "<16sHHIQQQIHHHHHH"
_IDENT = b"\x7fELF\x02\x01\x01" + bytes(9)


def program(libraries: Sequence[str]) -> bytes:
    """A file with PT_LOAD and PT_DYNAMIC whose DT_NEEDED entries name ``libraries``."""
    strings = b"\0"
    offsets = []
    for name in libraries:
        offsets.append(len(strings))
        strings += name.encode() + b"\0"
    base = 0x400000
    dynamic_at = 64 + 2 * 56
    dynamic_size = (len(libraries) + 2) * 16
    strings_at = dynamic_at + dynamic_size
    dynamic = b"".join(struct.pack("<QQ", 1, offset) for offset in offsets)
    dynamic += struct.pack("<QQ", 5, base + strings_at) + struct.pack("<QQ", 0, 0)
    end = strings_at + len(strings)
    header = struct.pack(_HEADER, _IDENT, 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, end, end, 4096)
    dyn = struct.pack(
        "<IIQQQQQQ", 2, 6, dynamic_at, base + dynamic_at, base + dynamic_at, dynamic_size, dynamic_size, 8
    )
    return header + load + dyn + dynamic + strings


def module(texts: Sequence[str]) -> bytes:
    """A relocatable file with a section .modinfo that holds ``texts`` ("depends=a,b")."""
    names = b"\0.modinfo\0.shstrtab\0"
    info = b"".join(text.encode() + b"\0" for text in texts)
    names_at = 64 + len(info)
    table_at = names_at + len(names)
    header = struct.pack(_HEADER, _IDENT, 1, 62, 1, 0, 0, table_at, 0, 64, 0, 0, 64, 3, 2)
    sections = [
        struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
        struct.pack("<IIQQQQIIQQ", 1, 1, 2, 0, 64, len(info), 0, 0, 1, 0),
        struct.pack("<IIQQQQIIQQ", 10, 3, 0, 0, names_at, len(names), 0, 0, 1, 0),
    ]
    return header + info + names + b"".join(sections)
