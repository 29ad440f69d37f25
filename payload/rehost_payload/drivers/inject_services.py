"""Service keys of injected drivers, in every control set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rehost_payload.drivers.hive_edits import (
    Path,
    expandable,
    find_value,
    number,
    text,
    texts,
)
from rehost_payload.drivers.inject_model import FIRST_WITH_DATABASE, InjectError
from rehost_payload.drivers.inject_package import Binary, Chosen
from rehost_payload.drivers.inject_records import token_of
from rehost_payload.drivers.inject_registry import appends, entry_edits, keeps_existing
from rehost_payload.formats.hive import (
    REG_MULTI_SZ,
    REG_SZ,
    DeleteKey,
    Hive,
    HiveEdit,
    SetValue,
    decode_strings,
    encode_strings,
    fold,
)
from rehost_payload.formats.inf_install import RegistryEntry, Service

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
