"""Setup information files (INF): what a driver package is, which devices it is for and what it would install.

Text level in inf_text.py, target systems in inf_target.py, ranking in inf_rank.py. This module gives the meaning of
the sections that matter for a boot driver, after Microsoft's reference of INF sections and directives ("INF Version
Section", "INF Manufacturer Section", "INF Models Section", "INF DDInstall Section", "INF AddService Directive", ...):

    [Version] → [Manufacturer] → [models.decoration] → [install(.NTarch|.NT)] → .Services, .HW, AddReg, CopyFiles

An INF is read without judging it: what cannot be used is a note, what is no INF is a FormatError. Paths that lead
out of the package or of their folder are kept as written and marked (`FileCopy.problem`); nobody may follow them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date

from rehost_payload.formats import inf_text
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.inf_install import Install, install_of, unsafe_path
from rehost_payload.formats.inf_target import (
    Decoration,
    Target,
    closeness,
    parse_decoration,
    why_not,
)
from rehost_payload.formats.inf_text import ENGLISH, WHAT, InfText, Line, number_of

MAX_MODELS = 100_000  # over all sections; the largest INF measured has 700
_SIGNATURES = ("$windows nt$", "$chicago$", "$windows 95$")
_DRIVER_VERSION = re.compile(r"[0-9]{1,10}(\.[0-9]{1,10}){0,3}")
_DATE = re.compile(r"([0-9]{1,2})[/-]([0-9]{1,2})[/-]([0-9]{4})")
EXTENSION_CLASS = "{e2f84ce7-8efa-411c-aa69-97454ca4cb57}"
CLASSES = {
    "scsiadapter": "{4d36e97b-e325-11ce-bfc1-08002be10318}",
    "hdc": "{4d36e96a-e325-11ce-bfc1-08002be10318}",
    "diskdrive": "{4d36e967-e325-11ce-bfc1-08002be10318}",
    "system": "{4d36e97d-e325-11ce-bfc1-08002be10318}",
}
"""Classes of storage drivers by name: what Windows takes where an INF gives the name alone."""


@dataclass(frozen=True)
class DriverVersion:
    """The two halves of DriverVer; either may be missing."""

    date: date | None
    version: tuple[int, int, int, int] | None

    @property
    def text(self) -> str:
        """ "7.2.0.30261 of 2013-06-22" """
        version = ".".join(map(str, self.version)) if self.version else "no version"
        return f"{version} of {self.date.isoformat()}" if self.date else version


@dataclass(frozen=True)
class Version:
    """[Version]. ``class_guid`` is in lower case with braces, empty where neither it nor a known class is named;
    ``catalogs`` by decoration, lower case, "" for none.
    """

    provider: str
    class_name: str
    class_guid: str
    driver: DriverVersion
    catalogs: Mapping[str, str]
    extension_id: str
    pnp_lockdown: bool

    @property
    def extension(self) -> bool:
        """An Extension INF adds to the driver of a device and is never the driver itself."""
        return (
            bool(self.extension_id)
            or self.class_guid == EXTENSION_CLASS
            or self.class_name.lower() == "extension"
        )

    def catalog(self, architecture: str = "amd64") -> str | None:
        """The catalog for this architecture: CatalogFile.NTarch, then .NT, then the plain one."""
        for decoration in (f"nt{architecture}", "nt", ""):
            if decoration in self.catalogs:
                return self.catalogs[decoration]
        return None


@dataclass(frozen=True)
class Model:
    """A line of a Models section. ``hardware_id`` is empty where the line has compatible IDs only."""

    description: str
    install_section: str
    hardware_id: str
    compatible_ids: tuple[str, ...]
    manufacturer: str
    raw_description: str  # %token% as written
    raw_manufacturer: str
    line: int

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(i for i in (self.hardware_id, *self.compatible_ids) if i)


@dataclass(frozen=True)
class ModelsSection:
    """A section that a line of [Manufacturer] names, whether it is for the target at hand or not."""

    name: str
    decoration: Decoration | None  # None: not understood
    manufacturer: str
    present: bool
    models: tuple[Model, ...]


@dataclass(frozen=True)
class Choice:
    """What one line of [Manufacturer] comes to on a target: a section, or the reasons against each one."""

    manufacturer: str
    chosen: ModelsSection | None
    refused: tuple[tuple[ModelsSection, str], ...]


@dataclass(frozen=True)
class Inf:
    text: InfText
    version: Version
    manufacturers: tuple[tuple[ModelsSection, ...], ...]  # one tuple per line of [Manufacturer]
    notes: tuple[str, ...]

    def choices(self, target: Target) -> tuple[Choice, ...]:
        """Which Models sections Windows would use on the target: at most one per line of [Manufacturer]."""
        return tuple(_choose(sections, target) for sections in self.manufacturers)

    def models(self, target: Target) -> Iterator[Model]:
        """All models for the target, in the order of the file."""
        for choice in self.choices(target):
            if choice.chosen is not None:
                yield from choice.chosen.models

    def install(
        self, section: str, architecture: str = "amd64", others: Mapping[str, InfText] | None = None
    ) -> Install:
        """What the install section does. ``others``: INFs that Include= may name, by lower-case file name."""
        return install_of(self.text, section, architecture, others or {})

    def driver_version(self, section: str, architecture: str = "amd64") -> DriverVersion:
        """DriverVer of the install section, else that of [Version]."""
        line = self.install(section, architecture).driver_ver
        return self.version.driver if line is None else _driver_version(line)[0]


def parse_inf(data: bytes, *, language: int = ENGLISH, code_page: str = "cp1252") -> Inf:
    """Reads an INF. ``language`` (a LANGID) and ``code_page`` only matter for its texts. FormatError."""
    text = inf_text.parse_text(data, language=language, code_page=code_page)
    section = text.section("Version")
    if section is None:
        raise FormatError(WHAT, "no section [Version]")
    signature = section.first("Signature")
    if signature.lower() not in _SIGNATURES:
        raise FormatError(WHAT, f"Signature in [Version] is {signature!r}, not $Windows NT$")
    version, notes = _version(text)
    manufacturers, more = _manufacturers(text)
    return Inf(text, version, manufacturers, (*notes, *more))


def _version(text: InfText) -> tuple[Version, list[str]]:
    section = text.sections["version"]
    notes: list[str] = []
    line = next(section.values("DriverVer"), None)
    driver = DriverVersion(None, None)
    if line is None:
        notes.append("no DriverVer: any other package is newer")
    else:
        driver, problem = _driver_version(line)
        notes += [problem] if problem else []
    catalogs: dict[str, str] = {}
    for entry in section.lines:
        head, _, decoration = (entry.key or "").lower().partition(".")
        if head == "catalogfile" and entry.field(0):
            catalogs.setdefault(decoration, entry.field(0))
    if not catalogs:
        notes.append("no CatalogFile: only packages of Windows itself may do without")
    for name in catalogs.values():
        if unsafe_path(name) or "\\" in name or "/" in name:
            notes.append(f"CatalogFile {name!r} is no plain file name")
    guid = section.first("ClassGuid").lower() or CLASSES.get(section.first("Class").lower(), "")
    if guid and not is_guid(guid):
        notes.append(f"ClassGuid {guid!r} is no GUID")
    version = Version(
        provider=section.first("Provider"),
        class_name=section.first("Class"),
        class_guid=guid,
        driver=driver,
        catalogs=catalogs,
        extension_id=section.first("ExtensionId").lower(),
        pnp_lockdown=number_of(section.first("PnpLockdown")) not in (None, 0),
    )
    return version, notes


def is_guid(text: str) -> bool:
    """ "{4d36e97b-e325-11ce-bfc1-08002be10318}", in lower case."""
    return re.fullmatch(r"\{[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\}", text) is not None


def _driver_version(line: Line) -> tuple[DriverVersion, str | None]:
    """``mm/dd/yyyy[,w[.x[.y[.z]]]]``; blanks and leading zeros occur, each part has 16 bits."""
    day: date | None = None
    problem: str | None = None
    match = _DATE.fullmatch(line.field(0).strip())
    if match is not None:
        month, dom, year = map(int, match.groups())
        try:
            day = date(year, month, dom)
        except ValueError:
            match = None
    if match is None:
        problem = f"DriverVer in line {line.number}: {line.field(0)!r} is no date (mm/dd/yyyy)"
    version: tuple[int, int, int, int] | None = None
    text = line.field(1).strip()
    if text:
        parts = [int(p) for p in text.split(".")] if _DRIVER_VERSION.fullmatch(text) else []
        if not parts or max(parts) > 0xFFFF:
            problem = f"DriverVer in line {line.number}: {text!r} is no version"
        else:
            parts += [0] * (4 - len(parts))
            version = (parts[0], parts[1], parts[2], parts[3])
    return DriverVersion(day, version), problem


def _manufacturers(text: InfText) -> tuple[tuple[tuple[ModelsSection, ...], ...], list[str]]:
    notes: list[str] = []
    section = text.section("Manufacturer")
    if section is None:
        return (), ["no [Manufacturer]: it installs no device"]
    result = []
    total = 0
    parsed: dict[tuple[str, str], ModelsSection] = {}
    for line in section.lines:
        # a line without a key is name of manufacturer and Models section in one
        manufacturer = line.field(0) if line.key is None else line.key
        raw = line.raw_fields[0] if line.raw_key is None else line.raw_key
        base = line.field(0)
        if not base:
            notes.append(f"[Manufacturer] line {line.number} names no Models section")
            continue
        decorations = [f for f in line.fields[1:] if f]
        sections = []
        # the undecorated section comes last: it is the one for systems that no decoration fits
        for text_ in dict.fromkeys((*(d.lower() for d in decorations), "")):
            decoration = parse_decoration(text_)
            if decoration is None:
                notes.append(f"[Manufacturer] line {line.number}: {text_!r} is no TargetOS decoration")
            name = f"{base}.{text_}" if text_ else base
            if not text_ and decorations and text.section(name) is None:
                continue
            known = parsed.get((name.lower(), raw))
            if known is None:
                known = parsed[name.lower(), raw] = _models(text, name, decoration, manufacturer, raw)
                if not known.present:
                    notes.append(f"[Manufacturer] line {line.number}: there is no section [{name}]")
                total += len(known.models)
                if total > MAX_MODELS:
                    raise FormatError(WHAT, f"more than {MAX_MODELS} models")
            sections.append(known)
        result.append(tuple(sections))
    return tuple(result), notes


def _models(
    text: InfText, name: str, decoration: Decoration | None, manufacturer: str, raw: str
) -> ModelsSection:
    section = text.section(name)
    models = []
    for line in section.lines if section else ():
        if line.key is None or not line.field(0):
            continue
        models.append(
            Model(
                description=line.key,
                install_section=line.field(0),
                hardware_id=line.field(1),
                compatible_ids=tuple(f for f in line.fields[2:] if f),
                manufacturer=manufacturer,
                raw_description=line.raw_key or "",
                raw_manufacturer=raw,
                line=line.number,
            )
        )
    return ModelsSection(
        section.name if section else name, decoration, manufacturer, section is not None, tuple(models)
    )


def _choose(sections: tuple[ModelsSection, ...], target: Target) -> Choice:
    refused: list[tuple[ModelsSection, str]] = []
    fitting: list[tuple[ModelsSection, Decoration]] = []
    for section in sections:
        if section.decoration is None:
            refused.append((section, "its decoration is not understood"))
        elif (reason := why_not(section.decoration, target)) is not None:
            refused.append((section, reason))
        else:
            fitting.append((section, section.decoration))
    chosen = max(fitting, key=lambda pair: closeness(pair[1]), default=None)
    refused += [(s, "another section is closer") for s, d in fitting if chosen and s is not chosen[0]]
    manufacturer = sections[0].manufacturer if sections else ""
    return Choice(manufacturer, chosen[0] if chosen else None, tuple(refused))
