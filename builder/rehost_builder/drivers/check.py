"""Verification of an unpacked driver package: its files, its catalog, its binaries. Reads only.

What is not verified is said: the chain of the catalog's signature is not checked here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from rehost_builder.drivers.catalog import Catalog, parse_catalog
from rehost_builder.drivers.pe import AMD64, BOOT_LIBRARIES, Binary, file_digests, read_binary
from rehost_payload.drivers.packages import find_infs, locate
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.inf import Inf, parse_inf
from rehost_payload.formats.inf_install import Install
from rehost_payload.formats.inf_target import SERVERS, Target, target_of

MAX_FILE = 256 << 20  # bytes; driver packages hold no larger ones
_SERVER_BUILDS = tuple(target_of(str(build)) for build in SERVERS)


class Level(Enum):
    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Check:
    """One statement about one file of the package; ``file`` is its path in the package."""

    file: str
    level: Level
    text: str


@dataclass(frozen=True)
class PackageReport:
    path: Path  # of the INF
    usable: tuple[str, ...]  # names of the servers that it has models for
    services: tuple[str, ...]
    checks: tuple[Check, ...]

    @property
    def failed(self) -> bool:
        return any(c.level is Level.FAIL for c in self.checks)


def check_folder(place: Path) -> list[PackageReport]:
    """Every package in a folder and below. OSError and FormatError as `find_infs`."""
    return [check_package(path) for path in find_infs([place])]


def check_package(path: Path) -> PackageReport:
    """One package, by the path of its INF. Never raises for what is wrong with it."""
    try:
        data = _read(path)
        inf = parse_inf(data)
        installs = _installs(inf)
    except (FormatError, OSError) as e:
        return PackageReport(path, (), (), (Check(path.name, Level.FAIL, str(e)),))
    checks: list[Check] = []
    catalog = _catalog(path, inf, checks)
    usable = tuple(t.name for t in _SERVER_BUILDS if next(inf.models(t), None) is not None)
    if not usable:
        checks.append(Check(path.name, Level.FAIL, "is for no Windows Server on x64"))
    _vouched(path.name, data, catalog, checks)
    boot = {s.image_path.lower(): s for i in installs for s in i.services if s.boot and s.image_path}
    seen: set[str] = set()
    for file in (f for install in installs for f in install.files):
        if file.source.lower() in seen:
            continue
        seen.add(file.source.lower())
        if file.problem is not None:
            checks.append(Check(file.source, Level.FAIL, file.problem))
            continue
        found = locate(path.parent, file.source)
        if found is None:
            checks.append(Check(file.source, Level.FAIL, "is missing"))
            continue
        try:
            content = _read(found)
        except (OSError, FormatError) as e:
            checks.append(Check(file.source, Level.FAIL, str(e)))
            continue
        held = _vouched(file.source, content, catalog, checks)
        if file.source.lower().endswith(".sys"):
            early = f"{file.directory}\\{file.name}".lower() in boot
            _binary(file.source, content, inf, early, held, checks)
    services = dict.fromkeys(s.name for i in installs for s in i.services if s.boot)
    return PackageReport(path, usable, tuple(services), tuple(checks))


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise FormatError("file", f"{path.name} is larger than {MAX_FILE >> 20} MiB")
    return data


def _installs(inf: Inf) -> list[Install]:
    """The install sections that any server would use."""
    names: dict[str, str] = {}
    for target in _SERVER_BUILDS:
        for model in inf.models(target):
            names.setdefault(model.install_section.lower(), model.install_section)
    if len(names) > 500:
        raise FormatError("INF", f"{len(names)} install sections, which no storage driver has")
    return [inf.install(name) for name in names.values()]


def _catalog(path: Path, inf: Inf, checks: list[Check]) -> Catalog | None:
    name = inf.version.catalog()
    if name is None:
        checks.append(Check(path.name, Level.FAIL, "names no catalog: the package is not signed"))
        return None
    found = locate(path.parent, name)
    if found is None:
        checks.append(Check(name, Level.FAIL, "is missing: the package is not signed"))
        return None
    try:
        catalog = parse_catalog(_read(found))
    except (FormatError, OSError) as e:
        checks.append(Check(name, Level.FAIL, str(e)))
        return None
    if not catalog.signer:
        checks.append(Check(name, Level.FAIL, "carries no signature"))
    else:
        checks.append(
            Check(
                name,
                Level.UNKNOWN,
                f"names {catalog.signer} as its signer; that signature is not verified here",
            )
        )
    systems = catalog.attributes.get("OS", "")
    if not systems:
        checks.append(Check(name, Level.WARN, "does not say for which Windows it was tested"))
    elif "server" not in systems.lower():
        checks.append(
            Check(
                name,
                Level.WARN,
                f"was tested for {systems}: no server, and Server 2016 and later may refuse it",
            )
        )
    else:
        checks.append(Check(name, Level.PASS, f"was tested for {systems}"))
    return catalog


def _vouched(name: str, data: bytes, catalog: Catalog | None, checks: list[Check]) -> bool:
    """Whether the catalog holds the file's hash; says so."""
    if catalog is None:
        return False
    if catalog.holds(file_digests(data)):
        checks.append(Check(name, Level.PASS, "has the hash that the catalog holds"))
        return True
    restored = _with_crlf(data)
    if restored != data and catalog.holds(file_digests(restored)):
        text = "its line endings were changed (by git, for instance): fetch the package again as it was delivered"
    elif catalog.names(name.rpartition("\\")[2]):
        text = "is not the file that was signed: its hash differs from the one in the catalog"
    else:
        text = "is not in the catalog"
    checks.append(Check(name, Level.FAIL, text))
    return False


def _with_crlf(data: bytes) -> bytes:
    """A text as it was before somebody turned its CRLF into LF."""
    lf, crlf = b"\n", b"\r\n"
    if data.startswith(b"\xff\xfe"):
        lf, crlf = lf.decode().encode("utf-16-le"), crlf.decode().encode("utf-16-le")
    return data.replace(crlf, lf).replace(lf, crlf)


def _binary(name: str, data: bytes, inf: Inf, early: bool, held: bool, checks: list[Check]) -> None:
    def say(level: Level, text: str) -> None:
        checks.append(Check(name, level, text))

    try:
        binary: Binary = read_binary(data)
    except FormatError as e:
        say(Level.FAIL, str(e))
        return
    before = len(checks)
    if binary.machine != AMD64:
        say(Level.FAIL, f"is for {binary.machine_name}, not for amd64")
    if not binary.native:
        say(Level.FAIL, "is no kernel driver (its subsystem is not native)")
    if binary.checksum_ok is not True and early:
        bad = "a wrong checksum" if binary.checksum_ok is False else "no checksum"
        say(
            Level.FAIL if binary.checksum_ok is False else Level.WARN, f"has {bad}: Windows checks it at boot"
        )
    too_old = [t.name for t in _usable(inf) if binary.minimum_os > (t.major, t.minor)]
    if too_old:
        needs = ".".join(map(str, binary.minimum_os))
        say(
            Level.WARN,
            f"needs Windows {needs}: not for {', '.join(too_old)}, although the INF offers it to them",
        )
    strange = [i for i in binary.imports if i.lower() not in BOOT_LIBRARIES]
    if early and strange:
        say(Level.WARN, f"is linked to {', '.join(strange)}, which Windows may not load at boot")
    if not binary.signed_inside and not held:
        say(Level.FAIL, "is not signed: neither inside nor by the catalog")
    version = inf.version.driver.version
    if binary.version is not None and version is not None and binary.version != version:
        say(
            Level.WARN,
            f"is version {'.'.join(map(str, binary.version))}, the INF says {'.'.join(map(str, version))}",
        )
    if len(checks) == before:
        inside = "signed inside" if binary.signed_inside else "signed by the catalog"
        say(Level.PASS, f"is an amd64 kernel driver, {inside}")


def _usable(inf: Inf) -> list[Target]:
    return [t for t in _SERVER_BUILDS if next(inf.models(t), None) is not None]
