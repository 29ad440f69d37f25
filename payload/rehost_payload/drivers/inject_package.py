"""Which part of a driver package is installed for some devices, and every reason not to install it.

Pure but for `read_package`. The INF says what it wants; nothing of it is believed before it is checked: paths, binaries,
signatures, services. `choose` returns only what may be installed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rehost_payload.drivers.inject_model import InjectError, Package, ReadWindowsFile
from rehost_payload.drivers.packages import from_store, locate
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.inf import Inf, Model, parse_inf
from rehost_payload.formats.inf_install import (
    FIRST_FROM_STORE,
    SERVICE_KERNEL_DRIVER,
    FileCopy,
    Install,
    Service,
    source_files,
    unsafe_path,
)
from rehost_payload.formats.inf_rank import match_ids
from rehost_payload.formats.inf_target import Target
from rehost_payload.formats.inf_text import MAX_SIZE, InfText, parse_text
from rehost_payload.formats.pe import PeFacts, read_facts
from rehost_payload.formats.source import BytesSource

MAX_PACKAGE = 64 << 20  # bytes; storage drivers have a few MiB, and a server may have 512 MiB of memory
MAX_IDS = 5000  # the largest storage INF measured has 700
FILE_SYSTEM_DRIVER = 2
DRIVERS = r"System32\drivers"
_NATIVE = 1
_MAX_INCLUDES = 16
_DEVICE = re.compile(r"[^\\]+\\VEN_[0-9A-F]{4}&DEV_[0-9A-F]{4}", re.IGNORECASE)
_BAD_NAME = re.compile(
    '[<>:"/|?*\\x00-\\x1f\ud800-\udfff]'
)  # halves of characters: a name in no known encoding
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9]|rehost\.(tmp|busy))(\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Binary:
    """The file of a kernel service. ``data`` is None where it is Windows' own and stays as it is.

    ``image_path`` is the service's ImagePath below %SystemRoot%; in the store it is completed when the store's name of the
    package is known (``in_store``: path in the package).
    """

    service: Service
    image_path: str | None
    in_store: str | None
    data: bytes | None


@dataclass(frozen=True)
class Chosen:
    """``models`` are all of the INF for the target, ``configured`` the install sections whose services are installed."""

    inf: Inf
    inf_name: str
    inf_data: bytes
    target: Target
    models: tuple[Model, ...]
    installs: Mapping[str, Install]  # by the lower-case section name in the Models line
    configured: tuple[str, ...]
    binaries: tuple[Binary, ...]
    catalog: bytes | None
    stored: Mapping[str, bytes]  # all files of the package, as they lie in the driver store
    copies: Mapping[str, bytes]  # what goes to System32\drivers, by path below the Windows folder
    notes: tuple[str, ...]


def read_package(folder: Path, inf: str) -> Package:
    """The files that the INF names, from a folder of this machine. Links are not followed. OSError, InjectError."""
    place = locate(folder, inf)
    if place is None:
        raise InjectError("file-missing", f"{inf} is not in {folder}")
    left = MAX_PACKAGE

    def read(path: Path) -> bytes:
        nonlocal left
        with path.open("rb") as file:
            data = file.read(left + 1)
        left -= len(data)
        if left < 0:
            raise InjectError("too-large", f"{folder} has more than {MAX_PACKAGE >> 20} MiB")
        return data

    data = read(place)
    files = {place.name: data}
    parsed = _parsed(data)
    try:
        listed = [f.source for f in source_files(parsed.text, "amd64") if f.problem is None]
    except FormatError as e:
        raise InjectError("bad-inf", str(e)) from e
    for name in dict.fromkeys((*parsed.version.catalogs.values(), *listed)):
        found = locate(folder, name) if safe_name(name) is None else None
        if found is not None and name.lower() not in {n.lower() for n in files}:
            files[name] = read(found)
    return Package(place.name, files)


def safe_name(path: str) -> str | None:
    """Why a relative path of an INF is not fit to be written to an NTFS volume, None where it is."""
    reason = unsafe_path(path)
    if reason is not None:
        return reason
    for part in path.split("\\"):
        if not part or _BAD_NAME.search(part) or part != part.strip(" ").rstrip(".") or len(part) > 200:
            return "is no valid file name"
        if _RESERVED.fullmatch(part):
            return "is a reserved name"
    return None


def _parsed(data: bytes) -> Inf:
    try:
        return parse_inf(data)
    except FormatError as e:
        raise InjectError("bad-inf", str(e)) from e


def choose(package: Package, hardware_ids: Collection[str], target: Target, read: ReadWindowsFile) -> Chosen:
    """What of the package is installed for devices with these IDs, the most specific first. InjectError."""
    found = package.find(package.inf)
    if found is None:
        raise InjectError("file-missing", f"{package.inf} is not in the package")
    if sum(map(len, package.files.values())) > MAX_PACKAGE:
        raise InjectError("too-large", f"the package has more than {MAX_PACKAGE >> 20} MiB")
    name, data = found
    _check_path(name, "the INF's name")
    inf = _parsed(data)
    try:
        return _choose(package, name, data, inf, tuple(hardware_ids), target, read)
    except FormatError as e:
        raise InjectError("bad-inf", str(e)) from e


def _choose(
    package: Package,
    name: str,
    data: bytes,
    inf: Inf,
    hardware_ids: Sequence[str],
    target: Target,
    read: ReadWindowsFile,
) -> Chosen:
    if inf.version.extension:
        raise InjectError("extension", f"{name} is an Extension INF: it adds to another package's driver")
    models = tuple(inf.models(target))
    if sum(len(m.ids) for m in models) > MAX_IDS:
        raise InjectError("too-large", f"{name} has more than {MAX_IDS} IDs")
    notes: list[str] = []
    others = _included(inf, read, notes)
    installs = {
        section.lower(): inf.install(section, target.architecture, others)
        for section in dict.fromkeys(m.install_section for m in models)
    }
    best = list(_best(models, installs, hardware_ids))
    if not best:
        raise InjectError("no-model", _why_no_model(inf, hardware_ids, target))
    for file in (f for install in installs.values() for f in install.files):
        if file.problem is not None:
            raise InjectError("unsafe-path", file.problem)
    services = _services(best, installs, notes)
    wanted = {s.name.lower() for s in services}
    configured = tuple(
        section
        for section, install in installs.items()
        if install.function_driver is not None
        and {s.name.lower() for s in install.services if _kernel(s)} <= wanted
    )
    stored = _stored(package, name, inf, target, notes)
    binaries = _binaries(services, configured, installs, stored, target, read)
    catalog_name = inf.version.catalog(target.architecture)
    catalog = stored.get(catalog_name.lower()) if catalog_name else None
    _check_signatures(binaries, catalog_name, catalog)
    for section in configured:
        install = installs[section]
        notes += [f"[{install.section}]: {n}" for n in install.notes]
        notes += [f"[{install.section}]: [{n}] of another INF is not at hand" for n in install.unresolved]
    return Chosen(
        inf=inf,
        inf_name=name,
        inf_data=data,
        target=target,
        models=models,
        installs=installs,
        configured=configured,
        binaries=tuple(binaries),
        catalog=catalog,
        stored={package.spelling(path): content for path, content in stored.items()},
        copies=_copies(configured, installs, stored, notes),
        notes=tuple(dict.fromkeys(notes)),
    )


# --- models ------------------------------------------------------------------------------------------------


def _best(
    models: Sequence[Model], installs: Mapping[str, Install], hardware_ids: Sequence[str]
) -> Iterator[Model]:
    """For each device among the IDs the model that Windows would take."""
    devices: dict[str, list[str]] = {}
    for device_id in hardware_ids:
        device = _DEVICE.match(device_id)
        if device is not None:
            devices.setdefault(device.group(0).upper(), [])
    for device_id in hardware_ids:
        match = _DEVICE.match(device_id)
        # an ID without a device (a class code) may be any one's
        owners = [match.group(0).upper()] if match is not None else list(devices) or [""]
        for owner in owners:
            devices.setdefault(owner, []).append(device_id)
    for ids in devices.values():
        found = [
            (hit.score, n)
            for n, m in enumerate(models)
            if (hit := match_ids(m, ids, ())) and installs[m.install_section.lower()].excludes(ids) is None
        ]
        if found:
            yield models[min(found)[1]]


def _why_no_model(inf: Inf, hardware_ids: Sequence[str], target: Target) -> str:
    """The reasons against the Models sections that name the device; else that none does."""
    reasons = [
        f"[{section.name}] {why}"
        for choice in inf.choices(target)
        for section, why in choice.refused
        if any(match_ids(m, hardware_ids, ()) for m in section.models)
    ]
    wanted = ", ".join(hardware_ids[:3]) or "no ID at all"
    return "; ".join(dict.fromkeys(reasons)) or f"no model for {wanted} on {target.name}"


def _included(inf: Inf, read: ReadWindowsFile, notes: list[str]) -> dict[str, InfText]:
    """The INFs that Include= names, from the installation."""
    names = dict.fromkeys(
        f.lower() for section in inf.text.sections.values() for f in section.all_fields("Include")
    )
    found = {}
    for name in list(names)[:_MAX_INCLUDES]:
        if safe_name(name) is not None or "\\" in name or not name.endswith(".inf"):
            continue
        data = read(f"INF\\{name}")
        if data is None:
            continue
        try:
            if len(data) > MAX_SIZE:
                raise FormatError("INF", "too large")
            found[name] = parse_text(data)
        except FormatError as e:
            notes.append(f"{name} of the installation: {e}")
    return found


# --- services ----------------------------------------------------------------------------------------------


def _kernel(service: Service) -> bool:
    return service.type in (SERVICE_KERNEL_DRIVER, FILE_SYSTEM_DRIVER)


def _services(
    best: Iterable[Model], installs: Mapping[str, Install], notes: list[str]
) -> tuple[Service, ...]:
    """The kernel services of the best models' sections, function drivers first."""
    result: dict[str, Service] = {}
    problem: InjectError | None = None
    for model in best:
        install = installs[model.install_section.lower()]
        reason = _unusable(install)
        if reason is not None:
            problem = problem or reason
            notes.append(f"{model.hardware_id}: {reason.detail}")
            continue
        for service in sorted(install.services, key=lambda s: not s.function_driver):
            _check_service_name(service.name)
            if _kernel(service):
                result.setdefault(service.name.lower(), service)
            else:
                notes.append(f"{service.name} is no kernel driver and is left to Windows")
    if not result:
        raise problem or InjectError("no-driver", "its install sections install no driver")
    return tuple(result.values())


def _unusable(install: Install) -> InjectError | None:
    if not install.present:
        return InjectError("bad-inf", f"there is no section [{install.section}]")
    driver = install.function_driver
    if driver is None:
        if install.null_driver:
            return InjectError("null-driver", f"[{install.section}] installs no driver on purpose")
        return InjectError("no-driver", f"[{install.section}] installs no driver")
    if driver.type != SERVICE_KERNEL_DRIVER:
        return InjectError("not-a-driver", f"the service {driver.name} has type {driver.type}")
    if not driver.boot:
        return InjectError("not-boot", f"{driver.name} has start type {driver.start}, not 0 (boot)")
    return None


def _check_service_name(name: str) -> None:
    if not name or len(name) > 200 or re.search(r"[\\/\x00-\x1f]", name):
        raise InjectError("bad-inf", f"{name!r} is no name of a service")


# --- files -------------------------------------------------------------------------------------------------


def _check_path(path: str, what: str) -> None:
    reason = safe_name(path)
    if reason is not None:
        raise InjectError("unsafe-path", f'{what} "{path}" {reason}')


def _stored(package: Package, name: str, inf: Inf, target: Target, notes: list[str]) -> dict[str, bytes]:
    """What the driver store gets, by lower-case path in the package: INF, catalog, and the files it lists."""
    stored: dict[str, bytes] = {}
    catalog = inf.version.catalog(target.architecture)
    for what, path in [
        ("the INF", name),
        *([("the catalog", catalog)] if catalog else []),
        *(("the source", f.source) for f in source_files(inf.text, target.architecture)),
    ]:
        _check_path(path, what)
        found = package.find(path)
        if found is not None:
            stored[path.lower()] = found[1]
        elif what == "the source":
            notes.append(f"{path} is not in the package")
    return stored


def _installed_files(configured: Iterable[str], installs: Mapping[str, Install]) -> Iterator[FileCopy]:
    for section in configured:
        yield from installs[section].files


def _binaries(
    services: Sequence[Service],
    configured: Sequence[str],
    installs: Mapping[str, Install],
    stored: Mapping[str, bytes],
    target: Target,
    read: ReadWindowsFile,
) -> list[Binary]:
    copied = {
        f"{f.directory}\\{f.name}".lower(): f.source
        for f in _installed_files(configured, installs)
        if f.directory is not None
    }
    result = []
    for service in services:
        if service.in_store is not None:
            result.append(_from_store(service, service.in_store, stored, target))
            continue
        path = service.image_path
        if path is None:
            raise InjectError(
                "file-missing", f"{service.name}: {service.binary!r} is not in the Windows folder"
            )
        _check_path(path, f"{service.name}: the driver's path")
        source = copied.get(path.lower())
        if source is None:
            own = read(path)
            if own is None:
                raise InjectError("file-missing", f"{service.name}: {path} is neither copied nor in Windows")
            check_driver(own, path, target)
            result.append(Binary(service, path, None, None))
            continue
        if not path.lower().startswith(DRIVERS.lower() + "\\"):
            raise InjectError("file-missing", f"{service.name}: {path} is not in {DRIVERS}")
        data = stored.get(source.lower())
        if data is None:
            raise InjectError(
                "file-missing", f"{source}, the driver of {service.name}, is not in the package"
            )
        check_driver(data, source, target)
        result.append(Binary(service, path, None, data))
    return result


def _from_store(service: Service, path: str, stored: Mapping[str, bytes], target: Target) -> Binary:
    _check_path(path, f"{service.name}: the driver's path")
    if target.build < FIRST_FROM_STORE:
        raise InjectError("run-from-store", f"{service.name} {from_store(target)}")
    data = stored.get(path.lower())
    if data is None:
        raise InjectError("file-missing", f"{path}, the driver of {service.name}, is not in the package")
    check_driver(data, path, target)
    return Binary(service, None, path, data)


def check_driver(data: bytes, name: str, target: Target) -> PeFacts:
    """What the file says about itself; InjectError where it is no driver for the target."""
    try:
        facts = read_facts(BytesSource(data))
    except FormatError as e:
        raise InjectError("not-a-driver", f"{name}: {e}") from e
    wanted = {"amd64": "x64"}.get(target.architecture, target.architecture)
    if facts.machine != wanted:
        raise InjectError("wrong-architecture", f"{name} is for {facts.machine}, not for {wanted}")
    if facts.subsystem != _NATIVE:
        raise InjectError(
            "not-a-driver", f"{name} is no kernel driver: its subsystem is {facts.subsystem}, not 1"
        )
    if facts.truncated:
        raise InjectError("not-a-driver", f"{name} is cut off")
    return facts


def _check_signatures(binaries: Iterable[Binary], name: str | None, catalog: bytes | None) -> None:
    """The loader wants a signature in the file, or a catalog that it can find."""
    if catalog:
        return
    for binary in binaries:
        if binary.data is not None and not read_facts(BytesSource(binary.data)).signature:
            which = f"the catalog {name} is missing" if name else "the INF names no catalog"
            raise InjectError(
                "catalog-missing", f"the driver of {binary.service.name} is not signed itself, and {which}"
            )


def _copies(
    configured: Sequence[str], installs: Mapping[str, Install], stored: Mapping[str, bytes], notes: list[str]
) -> dict[str, bytes]:
    """The files of the configured sections that go to System32\\drivers; others are left to Windows."""
    copies: dict[str, bytes] = {}
    for file in _installed_files(configured, installs):
        directory = file.directory
        if directory is None:
            continue
        path = f"{directory}\\{file.name}"
        if not f"{directory}\\".lower().startswith(DRIVERS.lower() + "\\"):
            notes.append(f"{path} is not needed to start and is left to Windows")
            continue
        _check_path(path, "the target")
        data = stored.get(file.source.lower())
        if data is None:
            raise InjectError("file-missing", f"{file.source} is not in the package")
        known = next((p for p in copies if p.lower() == path.lower()), None)
        if known is None:
            copies[path] = data
        elif copies[known] != data:
            raise InjectError("bad-inf", f"two different files are copied to {path}")
    return copies
