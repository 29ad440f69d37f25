"""What Windows finds its drivers by at boot: SYSTEM\\DriverDatabase, before Windows 8 the CriticalDeviceDatabase.

The records are those that Windows itself writes; how they follow from the INF was found by comparing real hives with the
INFs in them (the tests repeat it). Fields whose meaning is not known get the value that such packages have.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from rehost_payload.drivers.hive_edits import Path, number, text, texts
from rehost_payload.drivers.inject_model import InjectError
from rehost_payload.drivers.inject_names import DATABASE
from rehost_payload.drivers.inject_registry import entry_edits, key_of
from rehost_payload.formats.hive import REG_BINARY, REG_NONE, HiveEdit, SetValue
from rehost_payload.formats.inf import Inf, Model
from rehost_payload.formats.inf_install import Install, RegistryEntry
from rehost_payload.formats.inf_target import Target

AMD64 = 9  # PROCESSOR_ARCHITECTURE_AMD64
IN_BOX, OEM = 0xFF, 0x00
WHQL = "Microsoft Windows Hardware Compatibility Publisher"
_SCORE_WHQL, _SCORE_AUTHENTICODE, _SCORE_UNSIGNED = 0x0D000005, 0x0F000000, 0x80000000
_STATUS_CONFIGURED = 0x12  # packages whose configurations are in SYSTEM have these bits
_FIRST_WITH_SCOPE = 10240  # ConfigScope
_FIRST_WITH_CATALOG = 18362  # the catalog's name in the package's key
_CONFIG_SCOPE = 7
_EPOCH = date(1601, 1, 1)
# Windows keeps these as properties of the device and not as values; a controller starts without them
_PROPERTIES = ("security", "devicetype", "devicecharacteristics", "exclusive")


@dataclass(frozen=True)
class Names:
    """How the package is called: in the driver store, as oemNN.inf, and by its vendor; and where it came from."""

    store: str
    published: str
    original: str
    origin: str
    in_box: bool = False


def version_blob(inf: Inf, in_box: bool = False) -> bytes:
    """The 48 bytes of a package's Version: origin, architecture, class, date and version of DriverVer."""
    guid = inf.version.class_guid.strip("{}")
    try:
        class_bytes = UUID(guid).bytes_le
    except ValueError as e:
        raise InjectError("bad-inf", f"ClassGuid {guid!r} is no GUID") from e
    day, version = inf.version.driver.date, inf.version.driver.version
    filetime = (day - _EPOCH).days * 86400 * 10_000_000 if day is not None and day > _EPOCH else 0
    parts = reversed(version or (0, 0, 0, 0))
    head = bytes([IN_BOX if in_box else OEM, 0xFF]) + struct.pack("<HI", AMD64, 0)
    return head + class_bytes + struct.pack("<Q4HQ", filetime, *parts, 0)


def database_records(
    inf: Inf,
    models: Iterable[Model],
    installs: Mapping[str, Install],
    configured: Iterable[str],
    names: Names,
    target: Target,
    catalog: bytes | None,
) -> Iterator[HiveEdit]:
    """DriverPackages, DriverInfFiles and DeviceIds of a package (Windows 8 and later).

    Device IDs are those of all models; configurations and descriptors only of the ``configured`` install sections,
    because Windows has them only of packages whose services are installed.
    """
    models = tuple(models)
    sections = {s.lower(): installs[s.lower()] for s in configured}
    package: Path = (DATABASE, "DriverPackages", names.store)
    yield from _package_values(inf, package, names, target, catalog)
    for install in sections.values():
        yield from configuration(install, (*package, "Configurations", install.section), target)
    yield from _descriptors(inf, models, sections, package)
    files: Path = (DATABASE, "DriverInfFiles", names.published)
    yield texts(files, "", [names.store])
    yield text(files, "Active", names.store)
    if sections:
        yield texts(files, "Configurations", (i.section for i in sections.values()))
    yield from device_ids(models, installs, names.published)
    guid = inf.version.class_guid
    yield SetValue((DATABASE, "DeviceIds", guid), names.published, REG_NONE, b"")


def _package_values(
    inf: Inf, package: Path, names: Names, target: Target, catalog: bytes | None
) -> Iterator[HiveEdit]:
    yield text(package, "", names.published)
    yield SetValue(package, "Version", REG_BINARY, version_blob(inf, names.in_box))
    yield text(package, "Provider", inf.version.provider)
    if names.in_box:
        return
    yield text(package, "InfName", names.original)
    yield text(package, "OemPath", names.origin)
    whql = catalog is not None and _mentions(catalog, WHQL)
    if whql:
        yield text(package, "SignerName", WHQL)
    score = _SCORE_WHQL if whql else _SCORE_AUTHENTICODE if catalog else _SCORE_UNSIGNED
    yield number(package, "SignerScore", score)
    yield number(package, "StatusFlags", _STATUS_CONFIGURED)
    name = inf.version.catalog(target.architecture)
    if catalog is not None and name and target.build >= _FIRST_WITH_CATALOG:
        yield text(package, "Catalog", name)


def _mentions(catalog: bytes, name: str) -> bool:
    """Certificates hold names as plain bytes, or as UTF-16 in big-endian order."""
    return name.encode() in catalog or name.encode("utf-16-be") in catalog


def configuration(install: Install, key: Path, target: Target) -> Iterator[HiveEdit]:
    """What an install section comes to: service, filters, the device's and the driver's values, the services' values."""
    driver = install.function_driver
    yield text(key, "Service", driver.name if driver is not None else "")
    if target.build >= _FIRST_WITH_SCOPE:
        yield number(key, "ConfigScope", _CONFIG_SCOPE)
    yield number(key, "ConfigFlags", 0)
    if install.includes:
        yield texts(key, "IncludedInfs", dict.fromkeys(i.lower() for i in install.includes))
    if install.exclude_ids:
        yield texts(key, "ExcludeIds", install.exclude_ids)
    for name, services in install.filters.items():
        yield texts(key, name, (s for s in services if s))
    yield from entry_edits((e for e in install.hardware if _of_device(e)), (*key, "Device"))
    yield from entry_edits((e for e in install.registry if not e.delete), (*key, "Driver"))
    for service in install.services:
        # the service key's own values are in the service key alone
        below = (e for e in service.registry if e.key and not e.delete and e.key.lower() != "startoverride")
        yield from entry_edits(below, (*key, "Services", service.name))


def _of_device(entry: RegistryEntry) -> bool:
    name = entry.name.lower()
    special = not entry.key and name in ("upperfilters", "lowerfilters", *_PROPERTIES)
    return not entry.delete and not special


def _descriptors(
    inf: Inf, models: Iterable[Model], sections: Mapping[str, Install], package: Path
) -> Iterator[HiveEdit]:
    seen: set[str] = set()
    tokens: dict[str, str] = {}
    for model in models:
        install = sections.get(model.install_section.lower())
        for device_id in model.ids if install is not None else ():
            if device_id.lower() in seen:
                continue
            seen.add(device_id.lower())
            assert install is not None
            key = (*package, "Descriptors", *id_key(device_id))
            yield text(key, "Configuration", install.section)
            for name, raw in (
                ("Manufacturer", model.raw_manufacturer),
                ("Description", model.raw_description),
            ):
                token = token_of(raw)
                if token is not None and token in inf.text.strings:
                    tokens[token] = inf.text.strings[token]
                    yield text(key, name, f"%{token}%")
                else:
                    yield text(key, name, model.manufacturer if name == "Manufacturer" else model.description)
    for token, value in tokens.items():
        yield text((*package, "Strings"), token, value)


def token_of(raw: str) -> str | None:
    """The token of a text that is nothing but one (%token%), in lower case."""
    inner = raw[1:-1]
    return inner.lower() if len(raw) > 2 and raw[0] == raw[-1] == "%" and "%" not in inner else None


def id_key(device_id: str) -> Path:
    """An ID as keys: bus and the rest."""
    key = key_of(device_id)
    if not key or len(key) > 3:
        raise InjectError("bad-inf", f"{device_id!r} is no hardware ID")
    return key


def device_ids(
    models: Iterable[Model], installs: Mapping[str, Install], published: str
) -> Iterator[HiveEdit]:
    """One value for each ID: how it stands on its line (1 as hardware ID, 2 as compatible one), feature score, position."""
    seen: set[str] = set()
    for model in models:
        score = installs[model.install_section.lower()].feature_score
        compatible = [(2, position, i) for position, i in enumerate(model.compatible_ids)]
        for kind, position, device_id in [(1, 0, model.hardware_id), *compatible]:
            if not device_id or device_id.lower() in seen:
                continue
            seen.add(device_id.lower())
            data = struct.pack("<BBH", kind, score, position)
            yield SetValue((DATABASE, "DeviceIds", *id_key(device_id)), published, REG_BINARY, data)


def critical_devices(
    inf: Inf,
    models: Iterable[Model],
    installs: Mapping[str, Install],
    configured: Iterable[str],
    control_sets: Iterable[str],
) -> Iterator[HiveEdit]:
    """CriticalDeviceDatabase (before Windows 8): service and class by ID, in every control set."""
    sections = {s.lower() for s in configured}
    guid = inf.version.class_guid.upper()
    version_blob(inf)  # says so where the GUID is none
    models = tuple(models)
    for control_set in control_sets:
        seen: set[str] = set()
        for model in models:
            section = model.install_section.lower()
            for device_id in model.ids if section in sections else ():
                if device_id.lower() in seen:
                    continue
                seen.add(device_id.lower())
                install = installs[section]
                assert install.function_driver is not None  # what is configured has one
                name = "#".join(id_key(device_id))
                key = (control_set, "Control", "CriticalDeviceDatabase", name)
                yield text(key, "Service", install.function_driver.name)
                yield text(key, "ClassGUID", guid)
                for list_name, services in install.filters.items():
                    yield texts(key, list_name, (s for s in services if s))
