"""What an install section of an INF does: services, registry values and files.

Follows "INF DDInstall Section", "INF DDInstall.Services Section", "INF DDInstall.HW Section", "INF AddService
Directive", "INF AddReg Directive", "INF CopyFiles Directive", "INF DestinationDirs Section" and "INF SourceDisksFiles
Section". Of ``[sect.NTamd64]``, ``[sect.NT]`` and ``[sect]`` the first that exists counts, and the .Services and .HW
sections carry the same name. Include/Needs are followed inside this INF and into the INFs that the caller hands over;
two needs of machine.inf that storage drivers use are known here, because Windows' own records of them were measured.
What is needed and not at hand is listed in `Install.unresolved`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.inf_text import WHAT, InfText, Line, Section, number_of

MAX_ENTRIES = (
    20_000  # registry entries, files and services of one install section; the largest measured has 60
)

REG_SZ, REG_EXPAND_SZ, REG_BINARY, REG_DWORD, REG_MULTI_SZ, REG_QWORD = 1, 2, 3, 4, 7, 11
REG_NONE = 0
FLG_BINVALUETYPE = 0x1
FLG_NOCLOBBER = 0x2
FLG_DELVAL = 0x4
FLG_APPEND = 0x8
FLG_KEYONLY = 0x10
_TYPES = {
    0x00000: REG_SZ,
    0x10000: REG_MULTI_SZ,
    0x20000: REG_EXPAND_SZ,
    0x00001: REG_BINARY,
    0x10001: REG_DWORD,
    0x20001: REG_NONE,
    0xB0001: REG_QWORD,
}
SERVICE_KERNEL_DRIVER = 1
SPSVCINST_ASSOCSERVICE = 0x2
START_NAMES = {0: "boot", 1: "system", 2: "automatic", 3: "demand", 4: "disabled"}
DEFAULT_FEATURE_SCORE = 0xFF

# relative to %SystemRoot%; 13 stays in the package. Others (program files, fonts, ...) hold no boot driver.
DIRIDS = {
    10: "",
    11: "System32",
    12: r"System32\drivers",
    17: "INF",
    18: "Help",
    20: "Fonts",
    50: "System",
}
PACKAGE_DIRID = 13
FIRST_FROM_STORE = 16299
"""Windows 10 1709: from here on drivers may be loaded from the driver store ("Run From Driver Store")."""
_DIRID = re.compile(r"%(-?[0-9]+)%\\?(.*)", re.DOTALL)
_FROM_STORE = re.compile(rf"%{PACKAGE_DIRID}%\\(.+)", re.DOTALL)

_OPT_OUT = "e5b3b5ac-9725-4f78-963f-03dfb1d828c7"  # stored without braces
KNOWN_NEEDS = {
    "pciiospacenotrequired": (_OPT_OUT, "IoNotRequired"),
    "pciaspmoptout": (_OPT_OUT, "ASPMOptOut"),
}
"""Sections of machine.inf: what Windows stores for them (measured in the 8.1 hive), key below the device and value."""
_NULL_NEEDS = ("no_drv", "nodrv")  # machine.inf's sections for devices without a driver


@dataclass(frozen=True)
class RegistryEntry:
    """One line of AddReg (``delete`` False) or DelReg. ``data`` is int, str, bytes or a tuple of str by ``type``.

    ``root`` is HKR, HKLM, ... in upper case; HKR is the device's, the service's or the driver's key, depending on the
    section that named it. ``name`` is empty for the key's own value. ``type`` is the registry's number of the type.
    """

    root: str
    key: str
    name: str
    type: int
    data: int | str | bytes | tuple[str, ...]
    flags: int = 0
    delete: bool = False
    key_only: bool = False


@dataclass(frozen=True)
class Service:
    """An AddService line and its service-install section. Numbers are None where the INF gives none that is valid.

    ``binary`` is ServiceBinary as written ("%12%\\\\arcsas.sys"), ``image_path`` the same below %SystemRoot%
    ("System32\\\\drivers\\\\arcsas.sys"), None where the directory is not below it.
    """

    name: str
    flags: int
    type: int | None
    start: int | None
    error_control: int | None
    binary: str
    image_path: str | None
    group: str
    dependencies: tuple[str, ...]
    display_name: str
    description: str
    registry: tuple[RegistryEntry, ...]
    event_log: tuple[RegistryEntry, ...]
    install_section: str
    boot_flags: int | None = None
    raw_display_name: str = ""  # with its %token%, which Windows stores instead of the text
    own: bool = True  # of this INF, not of one that it includes

    @property
    def function_driver(self) -> bool:
        """The driver of the device itself; others in the same section are filters or helpers."""
        return bool(self.flags & SPSVCINST_ASSOCSERVICE)

    @property
    def boot(self) -> bool:
        return self.start == 0

    @property
    def in_store(self) -> str | None:
        """Its file's path in the package, where it stays there (%13%) and is loaded from the driver store."""
        match = _FROM_STORE.fullmatch(self.binary)
        return match.group(1) if match is not None else None

    def brought_by(self, file: FileCopy) -> bool:
        """Whether this file is the service's own. Files that stay in the store keep their place in the package."""
        if self.in_store is not None:
            return file.dirid == PACKAGE_DIRID and file.source.lower() == self.in_store.lower()
        path = f"{file.directory}\\{file.name}".lower()
        return file.directory is not None and path == (self.image_path or "").lower()

    @property
    def start_override(self) -> dict[str, int]:
        """StartOverride values that the INF itself sets: they demote the service although its start type is boot."""
        return {
            e.name: e.data
            for e in self.registry
            if e.root == "HKR"
            and e.key.lower() == "startoverride"
            and isinstance(e.data, int)
            and not e.delete
        }


@dataclass(frozen=True)
class FileCopy:
    """A file that is installed. ``source`` is its path in the package, ``directory`` its folder below %SystemRoot%.

    ``directory`` is None where ``dirid`` is not below %SystemRoot% (13 is the package itself). ``problem`` says why
    the paths must not be followed: they lead out of the package or of their folder.
    """

    name: str
    source: str
    listed: bool  # in SourceDisksFiles
    dirid: int | None
    directory: str | None
    flags: int
    problem: str | None = None


@dataclass(frozen=True)
class Install:
    """``section`` is the name that Windows picks and stores, e.g. "arcsas_Inst.NT"; ``present`` whether it exists."""

    section: str
    present: bool
    services: tuple[Service, ...]
    null_driver: bool
    registry: tuple[RegistryEntry, ...]  # AddReg/DelReg of the section itself: the driver's key and HKLM
    hardware: tuple[RegistryEntry, ...]  # of .HW: the device's key
    files: tuple[FileCopy, ...]
    feature_score: int
    exclude_ids: tuple[
        str, ...
    ]  # devices with one of these IDs are not installed by it, whatever matches besides
    driver_ver: Line | None
    includes: tuple[str, ...]
    needs: tuple[str, ...]
    unresolved: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def function_driver(self) -> Service | None:
        """The service of the device; None for null drivers and for extensions."""
        return next((s for s in self.services if s.function_driver), None)

    def excludes(self, ids: Iterable[str]) -> str | None:
        """Which of a device's IDs it excludes."""
        excluded = {i.lower() for i in self.exclude_ids}
        return next((i for i in ids if i.lower() in excluded), None)

    @property
    def filters(self) -> dict[str, tuple[str, ...]]:
        """Device-level UpperFilters and LowerFilters that .HW sets."""
        result: dict[str, tuple[str, ...]] = {}
        for entry in self.hardware:
            if entry.name.lower() in ("upperfilters", "lowerfilters") and not entry.delete and not entry.key:
                data = entry.data if isinstance(entry.data, tuple) else (str(entry.data),)
                result[entry.name] = result.get(entry.name, ()) + data
        return result


def unsafe_path(path: str) -> str | None:
    """Why a path of an INF must not be joined to a folder, None where it may."""
    parts = re.split(r"[\\/]", path)
    if ".." in (p.strip() for p in parts):
        return "leads out of its folder (..)"
    if re.match(r"[\\/]", path) or ":" in path:
        return "is absolute"
    if any(ord(c) < 32 for c in path):
        return "has control characters"
    return None


def install_of(inf: InfText, section: str, architecture: str, others: Mapping[str, InfText]) -> Install:
    """Reads the install section of this base name. FormatError where its lists are endless."""
    return _Reader(inf, architecture, others).install(section)


def actual_section(inf: InfText, base: str, architecture: str) -> str:
    """The name Windows picks: with .NTarch, with .NT or plain, in this order; plain where none exists."""
    for suffix in (f".nt{architecture}", ".nt"):
        found = inf.section(base + suffix)
        if found is not None:
            # spelled as in the Models line, as Windows stores it, with the suffix of the section's own name
            return base + found.name[len(base) :]
    return base


def source_files(inf: InfText, architecture: str) -> tuple[FileCopy, ...]:
    """Every file of the package that its INF lists (SourceDisksFiles), installed or not. FormatError as install_of."""
    reader = _Reader(inf, architecture, {})
    names: dict[str, str] = {}
    for suffix in (f".{architecture}", ""):
        section = inf.section(f"SourceDisksFiles{suffix}")
        for line in section.lines if section is not None else ():
            reader.count()
            if line.key:
                names.setdefault(line.key.lower(), line.key)
    result = []
    for name in names.values():
        path, listed = reader.source(inf, name)
        reason = unsafe_path(path)
        problem = f'the source "{path}" {reason}' if reason is not None else None
        result.append(FileCopy(name, path, listed, PACKAGE_DIRID, None, 0, problem))
    return tuple(result)


class _Reader:
    def __init__(self, inf: InfText, architecture: str, others: Mapping[str, InfText]) -> None:
        self.inf = inf
        self.architecture = architecture
        self.others = others
        self.left = MAX_ENTRIES
        self.unresolved: dict[str, None] = {}
        self.notes: dict[str, None] = {}
        self.includes: dict[str, None] = {}
        self.needs: dict[str, None] = {}
        self.null = False

    def count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise FormatError(WHAT, f"an install section with more than {MAX_ENTRIES} entries")

    def install(self, base: str) -> Install:
        name = actual_section(self.inf, base, self.architecture)
        main = list(self.sections(name))
        hardware = list(self.sections(f"{name}.HW"))
        services = self.services(list(self.sections(f"{name}.Services")))
        own = self.inf.section(name)
        if own is None:
            self.notes[f"there is no section [{name}]"] = None
        score = DEFAULT_FEATURE_SCORE
        if own is not None and (text := own.first("FeatureScore")):
            # the directive is read as hexadecimal, with or without 0x
            value = number_of(text if text.lower().startswith("0x") else f"0x{text}")
            if value is None or value > 0xFF:
                self.notes[f"FeatureScore {text!r} is not between 0 and FF"] = None
            else:
                score = value
        return Install(
            section=name,
            present=own is not None,
            services=tuple(services),
            null_driver=self.null and not any(s.function_driver for s in services),
            registry=tuple(e for inf, s in main for e in self.registry(inf, s)),
            hardware=tuple(e for inf, s in hardware for e in self.registry(inf, s, needs=True)),
            files=tuple(f for inf, s in main for f in self.files(inf, s)),
            feature_score=score,
            exclude_ids=tuple(dict.fromkeys(own.all_fields("ExcludeID"))) if own is not None else (),
            driver_ver=next(own.values("DriverVer"), None) if own is not None else None,
            includes=tuple(self.includes),
            needs=tuple(self.needs),
            unresolved=tuple(self.unresolved),
            notes=tuple(self.notes),
        )

    # --- sections with what they need ----------------------------------------------------------------------

    def sections(self, name: str) -> Iterator[tuple[InfText, Section]]:
        """The section and those it needs, each once, needed ones after it."""
        seen: set[tuple[int, str]] = set()
        pending: list[tuple[InfText, str, Mapping[str, InfText]]] = [(self.inf, name, {})]
        while pending:
            inf, wanted, included = pending.pop(0)
            if (id(inf), wanted.lower()) in seen:
                continue
            seen.add((id(inf), wanted.lower()))
            section = inf.section(wanted)
            if section is None:
                continue
            yield inf, section
            reachable = dict(included)
            for file in section.all_fields("Include"):
                self.includes[file] = None
                other = self.others.get(file.lower())
                if other is not None:
                    reachable[file.lower()] = other
            for need in section.all_fields("Needs"):
                self.count()
                self.needs[need] = None
                holder = next((i for i in (inf, *reachable.values()) if i.section(need) is not None), None)
                if holder is not None:
                    pending.append((holder, need, reachable))
                elif need.lower().partition(".")[0] in _NULL_NEEDS:
                    self.null = True
                elif need.lower() not in KNOWN_NEEDS:
                    self.unresolved[need] = None

    # --- services ------------------------------------------------------------------------------------------

    def services(self, sections: list[tuple[InfText, Section]]) -> list[Service]:
        result = []
        for inf, section in sections:
            for line in section.values("AddService"):
                self.count()
                flags = number_of(line.field(1))
                if flags is None:
                    if line.field(1):
                        self.notes[f"AddService in line {line.number}: {line.field(1)!r} are no flags"] = None
                    flags = 0
                if not line.field(0):
                    # AddService=,2 says that the device has no driver on purpose
                    self.null = self.null or bool(flags & SPSVCINST_ASSOCSERVICE)
                    continue
                result.append(self.service(inf, line, flags))
        return result

    def service(self, inf: InfText, line: Line, flags: int) -> Service:
        name, section_name = line.field(0), line.field(2)
        section = inf.section(section_name) if section_name else None
        if section is None:
            self.notes[f"AddService {name} in line {line.number}: there is no section [{section_name}]"] = (
                None
            )
            section = Section(section_name, ())
        log = inf.section(line.field(3)) if line.field(3) else None

        def number(key: str) -> int | None:
            text = section.first(key)
            value = number_of(text)
            if text and value is None:
                self.notes[f"service {name}: {key} {text!r} is no number"] = None
            return value

        binary = section.first("ServiceBinary")
        start = number("StartType")
        if start is not None and start not in START_NAMES:
            self.notes[f"service {name}: there is no start type {start}"] = None
        return Service(
            name=name,
            flags=flags,
            type=number("ServiceType"),
            start=start,
            error_control=number("ErrorControl"),
            binary=binary,
            image_path=image_path(binary),
            group=section.first("LoadOrderGroup"),
            dependencies=tuple(section.all_fields("Dependencies")),
            display_name=section.first("DisplayName"),
            description=section.first("Description"),
            registry=tuple(self.registry(inf, section)),
            event_log=tuple(self.registry(inf, log)) if log is not None else (),
            install_section=section.name,
            boot_flags=number("BootFlags"),
            raw_display_name=next((n.raw_fields[0] for n in section.values("DisplayName")), ""),
            own=inf is self.inf,
        )

    # --- registry ------------------------------------------------------------------------------------------

    def registry(self, inf: InfText, section: Section, needs: bool = False) -> Iterator[RegistryEntry]:
        """AddReg and DelReg of a section. With ``needs``, also what the known sections of machine.inf would add."""
        for directive, delete in (("AddReg", False), ("DelReg", True)):
            for name in section.all_fields(directive):
                self.count()
                listed = inf.section(name)
                if listed is None:
                    self.notes[f"{directive} in [{section.name}]: there is no section [{name}]"] = None
                    continue
                for line in listed.lines:
                    self.count()
                    yield _registry_entry(line, delete)
        if needs:
            for need in section.all_fields("Needs"):
                known = KNOWN_NEEDS.get(need.lower())
                if known is not None and not any(i.section(need) for i in (inf, *self.others.values())):
                    yield RegistryEntry("HKR", known[0], known[1], REG_DWORD, 1)

    # --- files ---------------------------------------------------------------------------------------------

    def files(self, inf: InfText, section: Section) -> Iterator[FileCopy]:
        for name in section.all_fields("CopyFiles"):
            self.count()
            if name.startswith("@"):
                yield self.file(inf, "DefaultDestDir", name[1:].strip(), "", 0)
                continue
            listed = inf.section(name)
            if listed is None:
                self.notes[f"CopyFiles in [{section.name}]: there is no section [{name}]"] = None
                continue
            for line in listed.lines:
                self.count()
                target = line.field(0) if line.key is None else line.key
                if target:
                    yield self.file(inf, name, target, line.field(1), number_of(line.field(3)) or 0)

    def file(self, inf: InfText, list_name: str, target: str, source: str, flags: int) -> FileCopy:
        dirid, subdir = self.destination(inf, list_name)
        base = DIRIDS.get(dirid) if dirid is not None else None
        folder = None if base is None else "\\".join(p for p in (base, subdir.strip("\\")) if p)
        path, listed = self.source(inf, source or target)
        problem = None
        for what, text in (("target", target), ("folder", subdir), ("source", path)):
            reason = unsafe_path(text)
            if reason is not None and problem is None:
                problem = f'the {what} "{text}" {reason}'
        if problem is None and ("\\" in target or "/" in target):
            problem = f'the target "{target}" is no plain file name'
        return FileCopy(target, path, listed, dirid, folder, flags, problem)

    def destination(self, inf: InfText, list_name: str) -> tuple[int | None, str]:
        section = inf.section("DestinationDirs")
        for key in (list_name, "DefaultDestDir"):
            line = next(section.values(key), None) if section is not None else None
            if line is not None:
                return number_of(line.field(0)), line.field(1)
        return None, ""

    def source(self, inf: InfText, name: str) -> tuple[str, bool]:
        """The path of a file in the package: folder of its disk, folder of the file, name."""
        for suffix in (f".{self.architecture}", ""):
            section = inf.section(f"SourceDisksFiles{suffix}")
            line = next(section.values(name), None) if section is not None else None
            if line is None:
                continue
            disk = ""
            for disks_suffix in (f".{self.architecture}", ""):
                disks = inf.section(f"SourceDisksNames{disks_suffix}")
                entry = next(disks.values(line.field(0)), None) if disks is not None else None
                if entry is not None:
                    disk = entry.field(3)
                    break
            return _joined(disk, line.field(1), name), True
        return _joined(name), False


def _joined(*parts: str) -> str:
    """A path in the package. Folders are written with and without a backslash in front, which means the package's top;
    Windows takes slashes as well, and "." for the folder itself.
    """
    *folders, name = parts
    if unsafe_path(name) or any(unsafe_path(p.lstrip("\\/")) for p in folders):
        return "\\".join(p for p in parts if p)  # as written: whoever asks says what is wrong with it
    names = "\\".join(parts).replace("/", "\\").split("\\")
    return "\\".join(n for n in names if n not in ("", "."))


def image_path(binary: str) -> str | None:
    """ServiceBinary below %SystemRoot%, None where its directory is not below it or the path is not safe."""
    match = _DIRID.fullmatch(binary)
    if match is None:
        return None
    base = DIRIDS.get(int(match.group(1))) if len(match.group(1)) < 10 else None
    rest = match.group(2)
    if base is None or not rest or unsafe_path(rest) is not None:
        return None
    return f"{base}\\{rest}" if base else rest


def _registry_entry(line: Line, delete: bool) -> RegistryEntry:
    # "a=b" without a comma before makes a key of what is the first field
    fields = line.fields if line.key is None else (f"{line.key}={line.field(0)}", *line.fields[1:])
    root, key, name = (fields[i] if i < len(fields) else "" for i in range(3))
    flags = number_of(fields[3]) if len(fields) > 3 else 0
    flags = flags or 0
    data = fields[4:]
    if flags & FLG_DELVAL and not delete:
        delete = True
    kind = _TYPES.get(flags & 0xFFFF0001)
    value: int | str | bytes | tuple[str, ...]
    if kind is None:
        # any registry type, given by the upper half, as bytes
        kind, value = flags >> 16, _bytes(data)
    elif kind == REG_DWORD:
        value = _integer(data, 4)
    elif kind == REG_QWORD:
        value = _integer(data, 8)
    elif kind == REG_MULTI_SZ:
        value = tuple(data)
    elif kind in (REG_BINARY, REG_NONE):
        value = _bytes(data)
    else:
        value = data[0] if data else ""
    return RegistryEntry(root.upper(), key, name, kind, value, flags, delete, bool(flags & FLG_KEYONLY))


def _integer(fields: tuple[str, ...], width: int) -> int:
    """A number, or the bytes of one in little-endian order, one a field, as the directive allows both."""
    if len(fields) > 1:
        return int.from_bytes(_bytes(fields)[:width], "little")
    value = number_of(fields[0], signed=True) if fields else None
    return (value or 0) % (1 << 8 * width)


def _bytes(fields: tuple[str, ...]) -> bytes:
    """Hexadecimal bytes with or without 0x; what is no byte counts as 0, as in Windows' own reading."""
    result = bytearray()
    for field in fields:
        digits = field.strip().lower().removeprefix("0x")
        result.append(int(digits, 16) & 0xFF if re.fullmatch("[0-9a-f]{1,8}", digits) else 0)
    return bytes(result)
