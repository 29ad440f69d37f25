"""Small valid PE files with a version resource: what boot files look like to everything that reads them."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

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


def _resources(version: tuple[int, int, int, int], rva: int, svn: tuple[int, int] | None) -> bytes:
    if svn is not None:
        return _resources_with_svn(version, rva, svn)

    def folder(entry_id: int, target: int) -> bytes:
        return struct.pack("<IIHHHHII", 0, 0, 0, 0, 0, 1, entry_id, target)

    info = _version_info(version)
    tree = folder(16, 0x80000018) + folder(1, 0x80000030) + folder(0x409, 0x48)
    return tree + struct.pack("<IIII", rva + 0x58, len(info), 0, 0) + info


def _resources_with_svn(version: tuple[int, int, int, int], rva: int, svn: tuple[int, int]) -> bytes:
    """RCDATA (10) "BOOTMGRSECURITYVERSIONNUMBER", minor and major number, before the version resource (16)."""

    def folder(named: int, *entries: tuple[int, int]) -> bytes:
        head = struct.pack("<IIHHHH", 0, 0, 0, 0, named, len(entries) - named)
        return head + b"".join(struct.pack("<II", *entry) for entry in entries)

    deep, name = 1 << 31, "BOOTMGRSECURITYVERSIONNUMBER"
    tree = folder(0, (10, deep | 0x20), (16, deep | 0x50))
    tree += folder(1, (deep | 0xA0, deep | 0x38)) + folder(0, (0x409, 0x80))
    tree += folder(0, (1, deep | 0x68)) + folder(0, (0x409, 0x90))
    info = _version_info(version)
    text = (struct.pack("<H", len(name)) + name.encode("utf-16-le")).ljust(0x40, b"\0")
    data = struct.pack("<IIII", rva + 0xE0, 4, 0, 0) + struct.pack("<IIII", rva + 0xE4, len(info), 0, 0)
    return tree + data + text + struct.pack("<HH", svn[1], svn[0]) + info


def _imports(libraries: Mapping[str, Sequence[str]], rva: int) -> bytes:
    """An import directory that takes these functions of each library, or the one with ordinal 1 where none is named."""
    if not libraries:
        return b""
    head = _align(20 * (len(libraries) + 1), 8)
    directory, rest = b"", b""
    for library, functions in libraries.items():
        values = [1 << 63 | 1] if not functions else []
        for function in functions:
            values.append(rva + head + len(rest))
            rest += (b"\0\0" + function.encode("ascii") + b"\0").ljust(_align(len(function) + 3, 8), b"\0")
        thunks = rva + head + len(rest)
        rest += struct.pack(f"<{len(values) + 1}Q", *values, 0) * 2
        name = rva + head + len(rest)
        rest += (library.encode("ascii") + b"\0").ljust(_align(len(library) + 1, 8), b"\0")
        directory += struct.pack("<IIIII", thunks, 0, 0, name, thunks + 8 * (len(values) + 1))
    return directory.ljust(head, b"\0") + rest


def export_directory(name: str, exports: Mapping[str, str], rva: int, own: int = 0) -> bytes:
    """The functions of a library: name -> "library.function" of another one, or "" for its code at ``own``.

    Microsoft's "PE Format", 6.3: an address inside of the directory is the name of another library's function.
    """
    names = sorted(exports)  # Windows searches them by halves
    count = len(names)
    tables = 40 + count * 10
    strings = bytearray(name.encode() + b"\0")
    places: dict[str, int] = {"": own}
    for text in (*names, *(exports[n] for n in names)):
        if text not in places:
            places[text] = rva + tables + len(strings)
            strings += text.encode() + b"\0"
    addresses = (rva + 40, rva + 40 + 4 * count, rva + 40 + 8 * count)
    directory = struct.pack("<IIHHIIIIIII", 0, 0, 0, 0, rva + tables, 1, count, count, *addresses)
    directory += struct.pack(f"<{count}I", *(places[exports[n]] for n in names))
    directory += struct.pack(f"<{count}I", *(places[n] for n in names))
    return directory + struct.pack(f"<{count}H", *range(count)) + bytes(strings)


def make_pe(
    machine: str = "x64",
    version: str | None = "10.0.14393.1198",
    *,
    subsystem: int = SUBSYSTEM_EFI,
    size: int = 0,
    fill: bytes = b"",
    signature: bytes = b"",
    imports: Sequence[str] | Mapping[str, Sequence[str]] = (),
    exports: Mapping[str, str] | None = None,
    code: bytes | None = None,
    section_name: bytes = b".text",
    minimum_os: tuple[int, int] = (10, 0),
    svn: tuple[int, int] | None = None,
) -> bytes:
    """A PE32+ (x86: PE32) image with one code section and, with a ``version``, a resource section.

    ``fill`` goes into the code section, so that files can differ; ``size`` pads the file at its end. ``signature`` is
    what the certificate table holds, ``imports`` libraries of which it wants one function each, or the named ones (PE32+ only),
    ``exports`` as `export_directory` takes them, ``svn`` the security version number of a boot manager (major, minor).
    ``code`` is what the first section, ``section_name``, begins with instead of an instruction.
    """
    wide = machine != "x86"
    optional_size = 240 if wide else 224
    start = (b"\xc3" if code is None else code) + fill
    body = start.ljust(_align(len(start), 16), b"\0")
    import_rva = 0x1000 + len(body)
    taken = imports if isinstance(imports, Mapping) else dict.fromkeys(imports, ())
    table = _imports(taken, import_rva)
    table = table.ljust(_align(len(table), 16), b"\0")
    export_rva = import_rva + len(table)
    shown = export_directory("library.dll", exports, export_rva, 0x1000) if exports else b""
    code = (body + table + shown).ljust(_align(len(body + table + shown), 512), b"\0")
    code_rva, resource_rva = 0x1000, 0x1000 + _align(len(code), 0x1000)
    resources = b""
    if version is not None:
        a, b, c, d = (int(part) for part in version.split("."))
        resources = _resources((a, b, c, d), resource_rva, svn)
    raw_resources = resources.ljust(_align(len(resources), 512), b"\0")
    count = 2 if resources else 1
    headers_size = 512
    image_size = resource_rva + _align(len(raw_resources), 0x1000)

    dos = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x80)
    coff = struct.pack("<HHIIIHH", _MACHINES[machine], count, 0, 0, 0, optional_size, 0x22 if wide else 0x102)
    optional = struct.pack("<HBBIIIII", 0x20B if wide else 0x10B, 14, 0, len(code), 0, 0, code_rva, code_rva)
    optional += struct.pack("<Q", 0x10000000) if wide else struct.pack("<II", 0, 0x10000000)
    optional += struct.pack("<IIHHHHHHI", 0x1000, 512, *minimum_os, *minimum_os, *minimum_os, 0)
    optional += struct.pack("<IIIHH", image_size, headers_size, 0, subsystem, 0)
    optional += struct.pack("<4Q" if wide else "<4I", 0x100000, 0x1000, 0x100000, 0x1000)
    optional += struct.pack("<II", 0, 16)
    directories = [(0, 0)] * 16
    if table:
        directories[1] = (import_rva, 20 * (len(taken) + 1))
    if shown:
        directories[0] = (export_rva, len(shown))
    if resources:
        directories[2] = (resource_rva, len(resources))
    if signature:
        directories[4] = (headers_size + len(code) + len(raw_resources), len(signature))
    optional += b"".join(struct.pack("<II", *d) for d in directories)
    assert len(optional) == optional_size

    def section(name: bytes, length: int, rva: int, raw: int, offset: int, flags: int) -> bytes:
        return struct.pack("<8sIIIIIIHHI", name, length, rva, raw, offset, 0, 0, 0, 0, flags)

    sections = section(section_name, len(code), code_rva, len(code), headers_size, 0x60000020)
    if resources:
        place = headers_size + len(code)
        sections += section(b".rsrc", len(resources), resource_rva, len(raw_resources), place, 0x40000040)
    head = (dos.ljust(0x80, b"\0") + b"PE\0\0" + coff + optional + sections).ljust(headers_size, b"\0")
    return (head + code + raw_resources + signature).ljust(size, b"\0")
