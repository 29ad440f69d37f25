"""Driver injection without Windows: what a package adds to an installation that is not running.

`inject` reads the package, the SYSTEM hive and the installation's own files and computes an `Injection`: edits of SYSTEM
and files to write. It writes nothing and gives the same answer for the same input; what the installation has already is
left out, so that a second injection of the same package is empty.

    inject_package.py   what of the package is installed for these devices, and every reason against it
    inject_names.py     its name in the driver store, and its number (oemNN)
    inject_records.py   SYSTEM\\DriverDatabase, or CriticalDeviceDatabase before Windows 8
    inject_owners.py    whose a service or file is that would be replaced
    inject_services.py  services in every control set, event log, StartOverride
    inject_registry.py  registry entries of INFs as edits
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from rehost_payload.drivers.control_sets import control_sets
from rehost_payload.drivers.hive_edits import still_needed
from rehost_payload.drivers.inject_model import (
    FIRST_WITH_DATABASE,
    STORE,
    InjectedFile,
    InjectError,
    Injection,
    Package,
    ReadWindowsFile,
)
from rehost_payload.drivers.inject_names import (
    DATABASE,
    free_number,
    oem_map,
    oem_number,
    published_as,
    store_name,
    taken_numbers,
    with_number,
)
from rehost_payload.drivers.inject_owners import check_owners, replaced
from rehost_payload.drivers.inject_package import Chosen, choose
from rehost_payload.drivers.inject_records import AMD64, Names, critical_devices, database_records
from rehost_payload.drivers.inject_services import (
    entries_left_out,
    helpers,
    service_edits,
)
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.hive import REG_BINARY, REG_SZ, Hive, HiveEdit, Key, SetValue, fold
from rehost_payload.formats.inf_target import Target

CATALOGS = r"System32\CatRoot\{F750E6C3-38EE-11D1-85E5-00C04FC295EE}"
PUBLISHED = "INF"


def inject(
    package: Package,
    hardware_ids: Collection[str],
    target: Target,
    system: Hive,
    read: ReadWindowsFile,
    taken: Collection[int] = (),
) -> Injection:
    """Computes what installs ``package`` for the devices with these hardware IDs, the most specific first.

    ``system`` is the SYSTEM hive with its logs replayed. ``taken`` are numbers NN of oemNN.inf that are in use in
    \\Windows\\INF and in the DRIVERS hive; those in SYSTEM are found here. Raises InjectError; a hive that cannot be
    read is "damaged-hive".
    """
    ids = tuple(hardware_ids)
    chosen = choose(package, ids, target, read)
    try:
        return _inject(chosen, ids, system, read, set(taken))
    except FormatError as e:
        raise InjectError("damaged-hive", str(e)) from e


def _inject(
    chosen: Chosen, hardware_ids: tuple[str, ...], system: Hive, read: ReadWindowsFile, taken: set[int]
) -> Injection:
    target = chosen.target
    sets = control_sets(system)
    check_owners(system, chosen, sets, read)
    database = target.build >= FIRST_WITH_DATABASE
    store = store_name(chosen.inf_name, chosen.stored) if database else ""
    if database:
        _check_architecture(system)
        taken |= taken_numbers(system)
        published = published_as(system, store)
    else:
        published = next((f"oem{n}.inf" for n in sorted(taken) if _is_published(chosen, n, read)), None)
    published = published or f"oem{free_number(taken)}.inf"
    edits: list[HiveEdit] = []
    if database:
        edits += _records(chosen, store, published, system)
    else:
        edits += critical_devices(chosen.inf, chosen.models, chosen.installs, chosen.configured, sets)
    for binary in chosen.binaries:
        edits += service_edits(system, binary, sets, published, store, target.build)
    edits += helpers(system, chosen, hardware_ids, sets)
    files = [f for f in _files(chosen, store, published) if read(f.path) != f.data]
    return Injection(
        name=store,
        published=published,
        services=tuple(b.service.name for b in chosen.binaries),
        edits=tuple(still_needed(system, edits)),
        files=tuple(files),
        notes=(*chosen.notes, *entries_left_out(chosen)),
        replaces=tuple(replaced(chosen, read)),
    )


def complete(
    package: Package, hardware_ids: Collection[str], target: Target, system: Hive, read: ReadWindowsFile
) -> Injection:
    """Computes what is left to be done where a tool of Windows' own has installed ``package`` (Windows 8 and later).

    The tool's records of the package stay as they are. Services are as `inject` makes them, in every control set and
    without StartOverride, and so are bus drivers and filters; a driver file that is not in its place is put there.
    InjectError ("not-installed") where the installation does not have the package, with its drivers and their services.
    """
    ids = tuple(hardware_ids)
    chosen = choose(package, ids, target, read)
    try:
        names = _installed_as(chosen, system, read)
        if names is None:
            raise InjectError("not-installed", f"no package in {DATABASE} is {package.inf} with its services")
        store, published = names
        sets = control_sets(system)
        check_owners(system, chosen, sets, read)
        edits: list[HiveEdit] = []
        for binary in chosen.binaries:
            edits += service_edits(system, binary, sets, published, store, target.build)
        edits += helpers(system, chosen, ids, sets)
        wanted = (InjectedFile(path, data) for path, data in chosen.copies.items())
        return Injection(
            name=store,
            published=published,
            services=tuple(b.service.name for b in chosen.binaries),
            edits=tuple(still_needed(system, edits)),
            files=tuple(f for f in wanted if read(f.path) != f.data),
            notes=chosen.notes,
        )
    except FormatError as e:
        raise InjectError("damaged-hive", str(e)) from e


def _installed_as(chosen: Chosen, system: Hive, read: ReadWindowsFile) -> tuple[str, str] | None:
    """Under which names (in the store, oemNN.inf) the package is in the database and in the Windows folder.

    Of its files the INF and the drivers count; which of the others are stored is the tool's business.
    """
    drivers = {b.data for b in chosen.binaries}
    needed = {
        path: data for path, data in chosen.stored.items() if data in drivers or data == chosen.inf_data
    }
    published = system.find(DATABASE, "DriverInfFiles")
    for key in published.subkeys() if published is not None else ():
        active = key.value("Active")
        if active is None or oem_number(key.name) is None:
            continue
        store = active.as_string()
        record = system.find(DATABASE, "DriverPackages", store)
        if record is None or not _is_configured(record, chosen):
            continue
        files = {rf"{STORE}\{store}\{path}": data for path, data in needed.items()}
        files[rf"{PUBLISHED}\{key.name}"] = chosen.inf_data
        if all(read(path) == data for path, data in files.items()):
            return store, key.name
    return None


def _is_configured(record: Key, chosen: Chosen) -> bool:
    """Staged packages have no configurations: Windows does not load their drivers at boot."""
    configurations = record.subkey("Configurations")
    services = {
        fold(value.as_string())
        for c in (configurations.subkeys() if configurations is not None else ())
        if (value := c.value("Service")) is not None and value.type == REG_SZ
    }
    function = {
        fold(d.name) for s in chosen.configured if (d := chosen.installs[s].function_driver) is not None
    }
    return function <= services and record.subkey("Descriptors") is not None


def _check_architecture(system: Hive) -> None:
    database = system.find(DATABASE)
    if database is None:
        raise InjectError("damaged-hive", f"SYSTEM has no {DATABASE}")
    value = database.value("Architecture")
    if value is not None and value.as_int() != AMD64:
        raise InjectError(
            "wrong-architecture", f"this Windows has architecture {value.as_int()}, not {AMD64} (x64)"
        )


def _is_published(chosen: Chosen, number: int, read: ReadWindowsFile) -> bool:
    return read(f"{PUBLISHED}\\oem{number}.inf") == chosen.inf_data


def _records(chosen: Chosen, store: str, published: str, system: Hive) -> Iterator[HiveEdit]:
    names = Names(store, published, chosen.inf_name, rf"C:\Windows\{STORE}\{store}")
    yield from database_records(
        chosen.inf,
        chosen.models,
        chosen.installs,
        chosen.configured,
        names,
        chosen.target,
        chosen.catalog,
    )
    database = system.find(DATABASE)
    assert database is not None  # _check_architecture has looked
    number = oem_number(published)
    assert number is not None
    bits = with_number(oem_map(database), number)
    yield SetValue((DATABASE,), "OemInfMap", REG_BINARY, bits)


def _files(chosen: Chosen, store: str, published: str) -> Iterator[InjectedFile]:
    """The driver store first, what is loaded last."""
    if store:
        for path, data in chosen.stored.items():
            yield InjectedFile(rf"{STORE}\{store}\{path}", data)
    yield InjectedFile(rf"{PUBLISHED}\{published}", chosen.inf_data)
    if chosen.catalog is not None:
        yield InjectedFile(rf"{CATALOGS}\{published.removesuffix('.inf')}.cat", chosen.catalog)
    for path, data in chosen.copies.items():
        yield InjectedFile(path, data)


__all__ = [
    "CATALOGS",
    "PUBLISHED",
    "STORE",
    "InjectError",
    "InjectedFile",
    "Injection",
    "Package",
    "complete",
    "inject",
]
