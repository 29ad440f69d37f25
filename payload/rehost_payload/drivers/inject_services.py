"""Service keys of injected drivers, in every control set; and whether a service or file is somebody else's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from rehost_payload.drivers.hive_edits import (
    Path,
    expandable,
    find_value,
    number,
    text,
    texts,
)
from rehost_payload.drivers.inject_model import FIRST_WITH_DATABASE, InjectError, ReadWindowsFile
from rehost_payload.drivers.inject_names import DATABASE
from rehost_payload.drivers.inject_package import Binary, Chosen
from rehost_payload.drivers.inject_records import token_of
from rehost_payload.drivers.inject_registry import appends, entry_edits, keeps_existing
from rehost_payload.formats.hive import (
    REG_MULTI_SZ,
    REG_SZ,
    DeleteKey,
    Hive,
    HiveEdit,
    Key,
    SetValue,
    decode_strings,
    encode_strings,
    fold,
)
from rehost_payload.formats.inf_install import RegistryEntry, Service

# parts of Windows that no package brings: their name in a package is a mistake or worse
_WINDOWS_OWN = frozenset(
    f"system32\\drivers\\{name}.sys"
    for name in (
        "storport",
        "scsiport",
        "ataport",
        "classpnp",
        "disk",
        "partmgr",
        "volmgr",
        "ntfs",
        "pci",
        "acpi",
        "fltmgr",
    )
)
_BUSES = {"PCI": "pci", "VMBUS": "vmbus"}  # drivers of the buses that boot controllers are found on


# --- service keys ------------------------------------------------------------------------------------------


def service_edits(
    hive: Hive, binary: Binary, control_sets: Iterable[str], published: str, store: str, build: int
) -> Iterator[HiveEdit]:
    """The keys of one service as Windows writes them, event log included."""
    service = binary.service
    for control_set in control_sets:
        key: Path = (control_set, "Services", service.name)
        yield from _values(hive, service, key, published, build)
        yield expandable(key, "ImagePath", image_path(binary, store))
        yield from _registry(hive, service, key)
        if service.boot:
            yield DeleteKey((*key, "StartOverride"))
        log = (e for e in service.event_log if not e.delete)
        yield from entry_edits(log, (control_set, "Services", "EventLog", "System", service.name))


def image_path(binary: Binary, store: str) -> str:
    """Boot drivers: relative to the Windows folder, as the loader wants it; others with \\SystemRoot\\ before it."""
    path = binary.image_path or rf"System32\DriverStore\FileRepository\{store}\{binary.in_store}"
    return path if binary.service.boot else rf"\SystemRoot\{path}"


def _values(hive: Hive, service: Service, key: Path, published: str, build: int) -> Iterator[HiveEdit]:
    yield number(key, "Type", service.type or 1)
    yield number(key, "Start", 3 if service.start is None else service.start)
    yield number(key, "ErrorControl", service.error_control or 0)
    if service.group:
        yield text(key, "Group", service.group)
    display = service.raw_display_name
    if display:
        token = token_of(display)
        plain = service.display_name
        yield text(key, "DisplayName", f"@{published},{display};{plain}" if token else plain)
    if service.boot_flags is not None:
        yield number(key, "BootFlags", service.boot_flags & 0xFFFFFFFF)
    services = [d for d in service.dependencies if not d.startswith("+")]
    groups = [d[1:] for d in service.dependencies if d.startswith("+") and len(d) > 1]
    if services:
        yield texts(key, "DependOnService", services)
    if groups:
        yield texts(key, "DependOnGroup", groups)
    if build >= FIRST_WITH_DATABASE:
        owners = find_value(hive, key, "Owners")
        known = owners.as_strings() if owners is not None and owners.type in (REG_SZ, REG_MULTI_SZ) else ()
        if fold(published) not in {fold(o) for o in known}:
            known = (published, *known)
        yield texts(key, "Owners", known)


def _registry(hive: Hive, service: Service, key: Path) -> Iterator[HiveEdit]:
    """The service's AddReg, without the StartOverride that the packages of Windows bring: this driver is needed."""
    lists: dict[tuple[Path, str], SetValue] = {}
    for entry in service.registry:
        if entry.key.lower().startswith("startoverride"):
            continue
        for edit in entry_edits([entry], key):
            if not isinstance(edit, SetValue):
                yield edit
                continue
            present = find_value(hive, edit.key, edit.name)
            if keeps_existing(entry) and present is not None:
                continue
            if appends(entry):
                known = lists.get((edit.key, fold(edit.name)))
                before = known.data if known else present.data if present is not None else b""
                edit = _appended(edit, before)
                lists[edit.key, fold(edit.name)] = edit
                continue
            yield edit
    yield from lists.values()


def _appended(edit: SetValue, before: bytes) -> SetValue:
    has = decode_strings(before)
    more = [s for s in decode_strings(edit.data) if fold(s) not in {fold(h) for h in has}]
    return SetValue(edit.key, edit.name, edit.type, encode_strings((*has, *more)))


def entries_left_out(chosen: Chosen) -> Iterator[str]:
    """Registry entries outside of the keys that are written here; Windows makes them when it installs the device."""
    entries: list[RegistryEntry] = []
    for section in chosen.configured:
        install = chosen.installs[section]
        entries += [*install.registry, *install.hardware]
        entries += [e for s in install.services for e in s.registry]
    roots = {e.root: e.key for e in entries if e.root not in ("HKR", "")}
    yield from (f"{root}\\{key} is left to Windows" for root, key in roots.items())


# --- what the device needs besides -------------------------------------------------------------------------


def helpers(
    hive: Hive, chosen: Chosen, hardware_ids: Iterable[str], control_sets: Iterable[str]
) -> Iterator[HiveEdit]:
    """Bus drivers, and filters that the package names and Windows has: they have to start at boot as well."""
    own = {fold(b.service.name) for b in chosen.binaries}
    names = {bus for i in hardware_ids if (bus := _BUSES.get(i.partition("\\")[0].upper()))}
    filters = {
        f
        for section in chosen.configured
        for services in chosen.installs[section].filters.values()
        for f in services
        if f and fold(f) not in own
    }
    sets = tuple(control_sets)
    for name in sorted(filters):
        if all(hive.find(s, "Services", name) is None for s in sets):
            raise InjectError("file-missing", f"the filter {name} is neither in the package nor in Windows")
    for name in sorted(names | filters):
        for control_set in sets:
            key = hive.find(control_set, "Services", name)
            if key is None:
                continue
            path = (control_set, "Services", key.name)
            if name in filters:
                yield number(path, "Start", 0)
            yield DeleteKey((*path, "StartOverride"))


# --- whose is it -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Owner:
    """A package that a service belongs to, by what the hive says of it."""

    name: str
    provider: str
    ids: frozenset[str]


def check_owners(hive: Hive, chosen: Chosen, control_sets: Iterable[str], read: ReadWindowsFile) -> None:
    """Refuses to overwrite services and files of other drivers. InjectError("foreign-file").

    A service of the same name is the same driver where provider or hardware IDs agree: packages of one driver change
    their provider's name when the vendor is sold, and keep their devices.
    """
    sets = tuple(control_sets)
    users = _users(hive, sets)
    ours = {fold(b.service.name) for b in chosen.binaries}
    binaries = {(b.image_path or "").lower(): b.service.name for b in chosen.binaries if b.data is not None}
    for path, data in chosen.copies.items():
        present = read(path)
        if present is None or present == data:
            continue
        if path.lower() in _WINDOWS_OWN:
            raise InjectError("foreign-file", f"{path} is a part of Windows")
        others = sorted(users.get(path.lower(), set()) - ours)
        if others:
            raise InjectError("foreign-file", f"{path} is the driver of {', '.join(others)}")
        if path.lower() not in binaries:
            raise InjectError(
                "foreign-file", f"{path} is there with other contents and is no driver of this package"
            )
    for binary in chosen.binaries:
        if binary.data is None:
            continue
        key = next(
            (k for s in sets if (k := hive.find(s, "Services", binary.service.name)) is not None), None
        )
        if key is not None:
            _check_service(hive, chosen, binary.service, sets)


def _check_service(hive: Hive, chosen: Chosen, service: Service, control_sets: tuple[str, ...]) -> None:
    owners = list(_owners(hive, service.name, control_sets))
    ids = {i.lower() for m in chosen.models for i in m.ids}
    provider = chosen.inf.version.provider.lower()
    if owners and not any(o.provider.lower() == provider or o.ids & ids for o in owners):
        names = ", ".join(f"{o.name} ({o.provider or 'no provider'})" for o in owners)
        raise InjectError("foreign-file", f"the service {service.name} belongs to {names}, for other devices")


def _users(hive: Hive, control_sets: Iterable[str]) -> Mapping[str, set[str]]:
    """Folded names of the services by the lower-case path of their file below the Windows folder."""
    users: dict[str, set[str]] = {}
    for control_set in control_sets:
        services = hive.find(control_set, "Services")
        for key in services.subkeys() if services is not None else ():
            value = key.value("ImagePath")
            if value is None or value.type not in (1, 2):
                continue
            path = value.as_string().lower().removeprefix("\\systemroot\\").removeprefix("%systemroot%\\")
            users.setdefault(path, set()).add(fold(key.name))
    return users


def _owners(hive: Hive, service: str, control_sets: Iterable[str]) -> Iterator[_Owner]:
    packages = hive.find(DATABASE, "DriverPackages")
    for package in packages.subkeys() if packages is not None else ():
        configurations = package.subkey("Configurations")
        if configurations is None:
            continue
        if not any(_text(c, "Service") == fold(service) for c in configurations.subkeys()):
            continue
        provider = package.value("Provider")
        ids = frozenset(_ids_below(package.subkey("Descriptors")))
        yield _Owner(package.name, provider.as_string() if provider is not None else "", ids)
    for control_set in control_sets:
        devices = hive.find(control_set, "Control", "CriticalDeviceDatabase")
        ids = frozenset(
            k.name.lower().replace("#", "\\")
            for k in (devices.subkeys() if devices is not None else ())
            if _text(k, "Service") == fold(service)
        )
        if ids:
            yield _Owner("CriticalDeviceDatabase", "", ids)


def _text(key: Key, name: str) -> str | None:
    value = key.value(name)
    return fold(value.as_string()) if value is not None and value.type == REG_SZ else None


def _ids_below(descriptors: Key | None) -> Iterator[str]:
    for bus in descriptors.subkeys() if descriptors is not None else ():
        below = [k.name for k in bus.subkeys()]
        yield from (f"{bus.name}\\{name}".lower() for name in below)
        if not below:
            yield bus.name.lower()
