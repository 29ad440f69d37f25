"""Drivers and kernel modules as PE images with import and export tables; pefile judges them in the tests."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

SUBSYSTEM_NATIVE = 1
_RVA, _RAW = 0x1000, 0x200


class _Data:
    """The contents of the only section; addresses are given out as the parts are put down."""

    def __init__(self) -> None:
        self.bytes = bytearray(b"\xc3".ljust(16, b"\0"))

    def put(self, data: bytes) -> int:
        self.bytes += bytes(-len(self.bytes) % 8)
        at = _RVA + len(self.bytes)
        self.bytes += data
        return at


def make_driver(
    imports: Mapping[str, Sequence[str]] | None = None, exports: Sequence[str] = (), *, fill: bytes = b""
) -> bytes:
    """A 64-bit native image for AMD64. ``imports``: names by module; a name "#5" is imported by number."""
    data = _Data()
    data.put(fill)
    import_at = import_size = export_at = export_size = 0
    if imports:
        entries = b""
        for module, names in imports.items():
            thunks = []
            for name in names:
                if name.startswith("#"):
                    thunks.append(1 << 63 | int(name[1:]))
                else:
                    thunks.append(data.put(struct.pack("<H", 0) + name.encode() + b"\0"))
            table = struct.pack(f"<{len(thunks) + 1}Q", *thunks, 0)
            lookup, addresses = data.put(table), data.put(table)
            entries += struct.pack("<IIIII", lookup, 0, 0, data.put(module.encode() + b"\0"), addresses)
        entries += bytes(20)
        import_at, import_size = data.put(entries), len(entries)
    if exports:
        names_at = [data.put(name.encode() + b"\0") for name in sorted(exports)]
        pointers = data.put(struct.pack(f"<{len(exports)}I", *names_at))
        functions = data.put(struct.pack(f"<{len(exports)}I", *([_RVA] * len(exports))))
        ordinals = data.put(struct.pack(f"<{len(exports)}H", *range(len(exports))))
        own = data.put(b"module.sys\0")
        directory = struct.pack(
            "<IIHHIIIIIII",
            *(0, 0, 0, 0, own, 1, len(exports), len(exports), functions, pointers, ordinals),
        )
        export_at, export_size = data.put(directory), len(directory)
    body = bytes(data.bytes).ljust(-(-len(data.bytes) // 512) * 512, b"\0")
    image_size = _RVA + -(-len(body) // 0x1000) * 0x1000
    optional = struct.pack("<HBBIIIII", 0x20B, 14, 0, len(body), 0, 0, _RVA, _RVA)
    optional += struct.pack("<QIIHHHHHHI", 0x10000, 0x1000, 512, 10, 0, 10, 0, 10, 0, 0)
    optional += struct.pack("<IIIHH", image_size, _RAW, 0, SUBSYSTEM_NATIVE, 0)
    optional += struct.pack("<4QII", 0x40000, 0x1000, 0x100000, 0x1000, 0, 16)
    directories = [(export_at, export_size), (import_at, import_size)] + [(0, 0)] * 14
    optional += b"".join(struct.pack("<II", *d) for d in directories)
    coff = struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, len(optional), 0x22)
    section = struct.pack(
        "<8sIIIIIIHHI", b".text", len(data.bytes), _RVA, len(body), _RAW, 0, 0, 0, 0, 0x60000020
    )
    head = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x80)
    head = head.ljust(0x80, b"\0") + b"PE\0\0" + coff + optional + section
    return head.ljust(_RAW, b"\0") + body
