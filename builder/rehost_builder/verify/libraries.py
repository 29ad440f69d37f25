"""What the Python in a boot image is linked to, and that it is there: beside it, in System32, or as an API set.

The schema of API sets (`apisetschema.dll`, section .apiset) is Microsoft's own and not documented by them; its layout here is
the one that the Windows debugger's symbols show for 6.1 to 6.3 (versions 2 to 4) and 10.0 (version 6).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.pe_symbols import read_symbols
from rehost_payload.formats.source import BytesSource

WHAT = "API set schema"
_SECTION = b".apiset\0"
_MOST = 20_000
_UCRT = "ucrtbase.dll"


@dataclass(frozen=True)
class ApiSets:
    """``names`` in lower case: up to the last hyphen where ``by_prefix``, else whole and without "api-"."""

    names: frozenset[str]
    by_prefix: bool

    def know(self, library: str) -> bool:
        if not library.startswith(("api-", "ext-")):
            return False
        name = library.removesuffix(".dll")
        return (name.rpartition("-")[0] if self.by_prefix else name[4:]) in self.names


@dataclass(frozen=True)
class Linked:
    """How many libraries are found where; ``missing`` in sentences."""

    beside: int
    system: int
    sets: int
    missing: tuple[str, ...]


def read_api_sets(data: bytes) -> ApiSets:
    """FormatError for what is none, or has a layout that is not known."""
    schema = _section(data)
    try:
        (version,) = struct.unpack_from("<I", schema, 0)
        if version == 6:
            count, entries = struct.unpack_from("<II", schema, 12)
            step, place, used = 24, 4, 12  # of an entry; in it: the name's offset, and the bytes that count
        elif version in (3, 4):
            (count,), entries, step, place, used = struct.unpack_from("<I", schema, 12), 16, 24, 4, 8
        elif version == 2:
            (count,), entries, step, place, used = struct.unpack_from("<I", schema, 4), 8, 12, 0, 4
        else:
            raise FormatError(WHAT, f"its version {version} is not known")
        if count > _MOST:
            raise FormatError(WHAT, f"{count} names")
        names = set()
        for number in range(count):
            at = entries + number * step
            (offset,) = struct.unpack_from("<I", schema, at + place)
            (length,) = struct.unpack_from("<I", schema, at + used)
            name = schema[offset : offset + length]
            if len(name) != length or length > 1024:
                raise FormatError(WHAT, "a name lies outside of it", at)
            names.add(name.decode("utf-16-le", "replace").lower())
    except struct.error:
        raise FormatError(WHAT, "it is cut off") from None
    return ApiSets(frozenset(names), by_prefix=version == 6)


def _section(data: bytes) -> bytes:
    try:
        (place,) = struct.unpack_from("<I", data, 60)
        if data[:2] != b"MZ" or data[place : place + 4] != b"PE\0\0":
            raise FormatError(WHAT, "no PE image")
        count, optional = struct.unpack_from("<6xH12xH", data, place)
        for number in range(count):
            at = place + 24 + optional + 40 * number
            name, size, offset = struct.unpack_from("<8s8xII", data, at)
            if name == _SECTION:
                return data[offset : offset + size]
    except struct.error:
        pass
    raise FormatError(WHAT, "no section .apiset")


def follow(
    files: Mapping[str, bytes], in_system: Callable[[str], bool], sets: Callable[[], ApiSets]
) -> Linked:
    """Follows the imports of these files, names in lower case. FormatError for one that is no program.

    ``sets`` is asked only where a library is neither beside them nor in System32, or may be taken from elsewhere.
    """
    imports = {name: dict(read_symbols(BytesSource(data)).modules) for name, data in files.items()}
    exports: dict[str, frozenset[str]] = {}
    wanted: dict[str, dict[str, tuple[str, ...]]] = {}
    for name, modules in imports.items():
        for module, functions in modules.items():
            wanted.setdefault(module.lower(), {})[name] = functions
    missing, found = [], {"beside": 0, "system": 0, "sets": 0}
    for library, users in sorted(wanted.items()):
        crt = library.startswith("api-ms-win-crt-")
        if library.startswith(("api-", "ext-")) and sets().know(library):
            # Windows looks here first: a copy beside the program is passed over
            if crt and not in_system(_UCRT):
                missing.append(f"{library} leads to {_UCRT}, which is not in System32")
            found["sets"] += 1
        elif library in files:
            found["beside"] += 1
            if library not in exports:
                exports[library] = read_symbols(BytesSource(files[library]), exports=True).exports
            missing += [
                f"{library} has no {function}, which {name} takes from it"
                for name, functions in sorted(users.items())
                for function in functions
                if function not in exports[library]
            ]
        elif in_system(library):
            found["system"] += 1
        else:
            missing.append(f"{library} is nowhere, which {', '.join(sorted(users)[:3])} is linked to")
    return Linked(found["beside"], found["system"], found["sets"], tuple(missing))
