"""Whether the runtime would load in a boot image: what each of its files is linked to, and where that is.

The loader looks for a library in the schema of API sets first, then beside the program, then in System32. The names in the
schema end with the last hyphen for Windows 10 (only what stands before it counts), and are whole, but without "api-", in
Windows 8.1 and before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import pefile

from rehost_builder.wim.reader import Wim
from rehost_builder.winpe.image import SYSTEM32, BootImage
from rehost_builder.winpe.runtime import Runtime
from rehost_payload.formats.errors import FormatError

_AMD64 = 0x8664
_API_SET = re.compile(r"^(api|ext)-[a-z0-9-]+-l\d+-\d+-\d+\.dll$")
_VC_RUNTIME = re.compile(r"^(vcruntime|msvcp|concrt)\d+(_\d)?\.dll$")
_UCRT = "ucrtbase.dll"
_PROGRAMS = (".exe", ".dll", ".pyd")
_DAMAGE = (pefile.PEFormatError, AttributeError, IndexError, ValueError, TypeError)
_DEPTH = 4  # a function that leads to a function that leads to a function


@dataclass(frozen=True)
class _Needs:
    machine: int
    minimum: tuple[int, int]
    imports: Mapping[str, tuple[str, ...]]
    """Library in lower case -> functions by name."""


def check_runtime(
    runtime: Runtime, image: BootImage, wim: Wim, ucrt: Mapping[str, bytes] | None = None
) -> list[str]:
    """What of the runtime would not load in this image, in sentences; empty where everything is there.

    Every program and library is looked at: architecture, the Windows it wants, and that each library it is linked to
    (not those that are loaded late) is beside it, in System32, or an API set that the image knows. ``ucrt`` are the files
    of a C runtime that will lie beside it; these are looked at function by function.
    """
    own = dict(ucrt or {})
    problems = _too_old(runtime, image)
    system = _System(wim, image)
    beside = {name.lower() for name in (*runtime.files, *own)}
    wanted: dict[str, list[str]] = {}
    functions: dict[tuple[str, str], str] = {}
    for name, data in sorted({**runtime.files, **own}.items()):
        if not name.lower().endswith(_PROGRAMS):
            continue
        try:
            needs = _needs(data)
        except FormatError as e:
            problems.append(f"{name} is damaged: {e.problem}")
            continue
        if needs.machine != _AMD64:
            problems.append(
                f"{name} is for another architecture ({needs.machine:#06x}), the boot image for amd64"
            )
        # The API sets of every Windows SDK say 10.0 and are made for older Windows as well: only of a program
        # does Windows look at this number. They hold no code; ucrtbase.dll itself says 5.2.
        forwarder = name in own and name != _UCRT
        if len(system.build) == 2 and needs.minimum > system.build and not forwarder:
            want, have = (".".join(map(str, v)) for v in (needs.minimum, system.build))
            problems.append(f"{name} wants Windows {want}, the boot image is {have}")
        for library, names in needs.imports.items():
            wanted.setdefault(library, []).append(name)
            if library in own:
                functions |= {(library, function): name for function in names}
    for library, users in sorted(wanted.items()):
        if library in beside or system.has(library) or system.knows(library):
            continue
        what = "the Visual C++ runtime " if _VC_RUNTIME.match(library) else ""
        problems.append(f"{what}{library} is missing, which {', '.join(users[:3])} need")
    return problems + _absent_functions(functions, own, system)


def _too_old(runtime: Runtime, image: BootImage) -> list[str]:
    """PEP 11; "Using Python on Windows" of 3.12: Windows 8.1 and newer, of 3.13: Windows 10 and newer."""
    build, minor = image.info.build[:2], int(runtime.tag[1:])
    least, name = (
        ((10, 0), "Windows 10 / Server 2016") if minor >= 13 else ((6, 3), "Windows 8.1 / Server 2012 R2")
    )
    if len(build) < 2 or tuple(build) >= least:
        return []
    return [f"Python 3.{minor} needs {name} or newer, the boot image is {build[0]}.{build[1]}"]


class _System:
    """What Windows itself has in the image."""

    def __init__(self, wim: Wim, image: BootImage) -> None:
        self._wim, self._image = wim, image
        self.build = tuple(image.info.build[:2])
        self._exports: dict[str, frozenset[str]] = {}

    def has(self, library: str) -> bool:
        return any(self._image.has(f"{SYSTEM32}/{folder}{library}") for folder in ("", "downlevel/"))

    def knows(self, library: str) -> bool:
        """Whether it is an API set that leads somewhere; those of the C runtime lead to ucrtbase.dll."""
        if not _API_SET.match(library) or (library.startswith("api-ms-win-crt-") and not self.has(_UCRT)):
            return False
        name = library.removesuffix(".dll")
        return (name[4:] if self.build < (10, 0) else name.rpartition("-")[0]) in self._schema

    @cached_property
    def _schema(self) -> str:
        """The names in the image's API set schema, in one text. Empty where it has none."""
        data = self._wim.read_file(self._image.tree, f"{SYSTEM32}/apisetschema.dll") or b""
        return (data.decode("utf-16-le", "ignore") + data[1:].decode("utf-16-le", "ignore")).lower()

    def lacks(self, library: str, function: str) -> bool:
        """Whether it is certain that a library of Windows does not have this function."""
        if library not in self._exports:
            data = self._wim.read_file(self._image.tree, f"{SYSTEM32}/{library}")
            self._exports[library] = frozenset(_exports(data)) if data else frozenset()
        found = self._exports[library]
        return not self.has(library) or (bool(found) and function not in found)


def _absent_functions(
    wanted: Mapping[tuple[str, str], str], own: Mapping[str, bytes], system: _System
) -> list[str]:
    """Functions that lead nowhere, of the C runtime's own files: a set put together of two versions, or a newer one."""
    tables: dict[str, Mapping[str, str]] = {}

    def leads(library: str, function: str, depth: int = 0) -> bool:
        if library not in own:
            return not system.lacks(library, function)
        if system.knows(library):  # then Windows' own is taken
            return True
        if library not in tables:
            tables[library] = _exports(own[library])
        target = tables[library].get(function)
        if not target:
            return target is not None
        module, _, name = target.rpartition(".")
        return depth < _DEPTH and leads(f"{module.lower()}.dll", name, depth + 1)

    lost: dict[str, list[str]] = {}
    for (library, function), user in sorted(wanted.items()):
        if not leads(library, function):
            lost.setdefault(library, []).append(f"{function} (for {user})")
    return [
        f"{library} has no {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
        for library, names in lost.items()
    ]


def _opened(data: bytes, *directories: int) -> pefile.PE:
    pe = pefile.PE(data=data, fast_load=True)
    pe.parse_data_directories(list(directories))
    return pe


def _needs(data: bytes) -> _Needs:
    try:
        pe = _opened(data, 1)
        header = pe.OPTIONAL_HEADER
        imports: dict[str, tuple[str, ...]] = {}
        for entry in getattr(pe, "DIRECTORY_ENTRY_IMPORT", []):
            library = _text(entry.dll).lower()
            names = tuple(_text(i.name) for i in entry.imports if i.name)
            imports[library] = imports.get(library, ()) + names
        return _Needs(
            pe.FILE_HEADER.Machine, (header.MajorSubsystemVersion, header.MinorSubsystemVersion), imports
        )
    except _DAMAGE as e:
        raise FormatError("program", str(e).strip("'\"")) from None


def _exports(data: bytes) -> Mapping[str, str]:
    """Function -> "library.function" that it leads to, "" where it is the library's own. Empty for what has none."""
    try:
        table = getattr(_opened(data, 0), "DIRECTORY_ENTRY_EXPORT", None)
        if table is None:
            return {}
        return {_text(s.name): _text(s.forwarder) for s in table.symbols if s.name}
    except _DAMAGE:
        return {}


def _text(name: bytes | None) -> str:
    return (name or b"").decode("ascii", "replace")
