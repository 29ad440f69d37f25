"""Small valid PE files with a version resource: what boot files look like to everything that reads them."""

from __future__ import annotations

import struct

_MACHINES = {"x64": 0x8664, "x86": 0x14C, "arm64": 0xAA64}
SUBSYSTEM_EFI = 10
SUBSYSTEM_BOOT = 16


def _align(value: int, step: int) -> int:
    return -(-value // step) * step


def _version_info(version: tuple[int, int, int, int]) -> bytes:
    key = "VS_VERSION_INFO\0".encode("utf-16-le")
    high, low = version[0] << 16 | version[1], version[2] << 16 | version[3]
    fixed = struct.pack("<13I", 0xFEEF04BD, 0x10000, high, low, high, low, 0x3F, 0, 0x40004, 1, 0, 0, 0)
    header = struct.pack("<HHH", 0, len(fixed), 0) + key
    body = header.ljust(_align(len(header), 4), b"\0") + fixed
    return struct.pack("<H", len(body)) + body[2:]


def _resources(version: tuple[int, int, int, int], rva: int) -> bytes:
    def folder(entry_id: int, target: int) -> bytes:
        return struct.pack("<IIHHHHII", 0, 0, 0, 0, 0, 1, entry_id, target)

    info = _version_info(version)
    tree = folder(16, 0x80000018) + folder(1, 0x80000030) + folder(0x409, 0x48)
    return tree + struct.pack("<IIII", rva + 0x58, len(info), 0, 0) + info


def make_pe(
    machine: str = "x64",
    version: str | None = "10.0.14393.1198",
    *,
    subsystem: int = SUBSYSTEM_EFI,
    size: int = 0,
    fill: bytes = b"",
    signature: bytes = b"",
) -> bytes:
    """A PE32+ (x86: PE32) image with one code section and, with a ``version``, a resource section.

    ``fill`` goes into the code section, so that files can differ; ``size`` pads the file at its end. ``signature`` is
    what the certificate table holds.
    """
    wide = machine != "x86"
    optional_size = 240 if wide else 224
    code = (b"\xc3" + fill).ljust(_align(1 + len(fill), 512), b"\0")
    code_rva, resource_rva = 0x1000, 0x1000 + _align(len(code), 0x1000)
    resources = b""
    if version is not None:
        a, b, c, d = (int(part) for part in version.split("."))
        resources = _resources((a, b, c, d), resource_rva)
    raw_resources = resources.ljust(_align(len(resources), 512), b"\0")
    count = 2 if resources else 1
    headers_size = 512
    image_size = resource_rva + _align(len(raw_resources), 0x1000)

    dos = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x80)
    coff = struct.pack("<HHIIIHH", _MACHINES[machine], count, 0, 0, 0, optional_size, 0x22 if wide else 0x102)
    optional = struct.pack("<HBBIIIII", 0x20B if wide else 0x10B, 14, 0, len(code), 0, 0, code_rva, code_rva)
    optional += struct.pack("<Q", 0x10000000) if wide else struct.pack("<II", 0, 0x10000000)
    optional += struct.pack("<IIHHHHHHI", 0x1000, 512, 10, 0, 10, 0, 1, 0, 0)
    optional += struct.pack("<IIIHH", image_size, headers_size, 0, subsystem, 0)
    optional += struct.pack("<4Q" if wide else "<4I", 0x100000, 0x1000, 0x100000, 0x1000)
    optional += struct.pack("<II", 0, 16)
    directories = [(0, 0)] * 16
    if resources:
        directories[2] = (resource_rva, len(resources))
    if signature:
        directories[4] = (headers_size + len(code) + len(raw_resources), len(signature))
    optional += b"".join(struct.pack("<II", *d) for d in directories)
    assert len(optional) == optional_size

    def section(name: bytes, length: int, rva: int, raw: int, offset: int, flags: int) -> bytes:
        return struct.pack("<8sIIIIIIHHI", name, length, rva, raw, offset, 0, 0, 0, 0, flags)

    sections = section(b".text", len(code), code_rva, len(code), headers_size, 0x60000020)
    if resources:
        place = headers_size + len(code)
        sections += section(b".rsrc", len(resources), resource_rva, len(raw_resources), place, 0x40000040)
    head = (dos.ljust(0x80, b"\0") + b"PE\0\0" + coff + optional + sections).ljust(headers_size, b"\0")
    return (head + code + raw_resources + signature).ljust(size, b"\0")
