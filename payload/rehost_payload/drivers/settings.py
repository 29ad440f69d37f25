"""Edits of a SYSTEM hive that let a moved Windows start and need no driver package. Pure functions.

Each takes the hive (`formats.hive.Hive`, logs replayed) and returns the edits that it needs: none where everything is
as wanted already. All control sets are treated alike (control_sets.py). All raise FormatError for a damaged hive.
"""

from __future__ import annotations

from collections.abc import Iterator

from rehost_payload.drivers.control_sets import control_sets
from rehost_payload.drivers.hive_edits import Path, number, still_needed, texts, without
from rehost_payload.formats.hive import (
    REG_MULTI_SZ,
    REG_SZ,
    DeleteKey,
    DeleteValue,
    Hive,
    HiveEdit,
    Key,
)

BOOT, DISABLED = 0, 4
SAN_POLICY_ONLINE = 1  # VDS_SP_ONLINE
FILTERS = ("UpperFilters", "LowerFilters")


def enable_service(hive: Hive, service: str, start: int = BOOT) -> tuple[HiveEdit, ...]:
    """Lets a driver that Windows has start again: Start, and no StartOverride, in every control set that has it.

    ``start`` is the type that the driver's INF asks for (0 boot for what the boot disk hangs on). A service that no
    control set has gives no edits. Bus drivers and filters of the device are calls of their own.
    """
    edits: list[HiveEdit] = []
    for key in _services(hive, service):
        edits.append(number(key, "Start", start))
        edits.append(DeleteKey((*key, "StartOverride")))
    return tuple(still_needed(hive, edits))


def remove_filter(hive: Hive, name: str) -> tuple[HiveEdit, ...]:
    """Takes a filter driver that cannot be loaded out of every list of filters, and disables its service.

    Looks at UpperFilters and LowerFilters of all device classes and of all devices (Enum), in every control set. A list
    that would be empty goes. The service, where there is one, gets Start=4: filter and service go together, because a
    listed filter without a service stops Windows with 0x7B.
    """
    edits: list[HiveEdit] = []
    for control_set in control_sets(hive):
        for path, key in _filter_keys(hive, control_set):
            edits += _without_filter(path, key, name)
    edits += [number(key, "Start", DISABLED) for key in _services(hive, name)]
    return tuple(still_needed(hive, edits))


def crash_reboot_off(hive: Hive) -> tuple[HiveEdit, ...]:
    """Lets a stop error stay on the screen: CrashControl\\AutoReboot is 0."""
    return _everywhere(hive, ("Control", "CrashControl"), "AutoReboot", 0)


def san_policy_online(hive: Hive) -> tuple[HiveEdit, ...]:
    """Brings disks behind a RAID controller online, which servers leave offline by default: SanPolicy is 1."""
    return _everywhere(hive, ("Services", "partmgr", "Parameters"), "SanPolicy", SAN_POLICY_ONLINE)


def forget_drive_letter(hive: Hive, letter: str = "C") -> tuple[HiveEdit, ...]:
    """Takes a drive letter from a volume that is gone; Windows gives it to its own volume at the next start.

    Only the letter's value goes; the names of volumes (\\\\??\\\\Volume{...}) and other letters stay.
    """
    return tuple(still_needed(hive, [DeleteValue(("MountedDevices",), f"\\DosDevices\\{letter.upper()}:")]))


def filter_lists(hive: Hive, control_set: str) -> Iterator[tuple[Path, str, tuple[str, ...]]]:
    """(key, "UpperFilters" or "LowerFilters", service names) of every class and device in a control set."""
    for path, key in _filter_keys(hive, control_set):
        for list_name in FILTERS:
            value = key.value(list_name)
            if value is not None and value.type in (REG_SZ, REG_MULTI_SZ):
                yield path, list_name, value.as_strings()


def _services(hive: Hive, name: str) -> list[Path]:
    """The key of the service in every control set that has it."""
    found: list[Path] = []
    for control_set in control_sets(hive):
        key = hive.find(control_set, "Services", name)
        if key is not None:
            found.append((control_set, "Services", key.name))
    return found


def _everywhere(hive: Hive, key: Path, name: str, value: int) -> tuple[HiveEdit, ...]:
    return tuple(still_needed(hive, [number((s, *key), name, value) for s in control_sets(hive)]))


def _filter_keys(hive: Hive, control_set: str) -> Iterator[tuple[Path, Key]]:
    """Where lists of filters stand: Control\\Class\\{GUID}, and Enum\\bus\\device\\instance."""
    classes: Path = (control_set, "Control", "Class")
    found = hive.find(*classes)
    for key in found.subkeys() if found is not None else ():
        yield (*classes, key.name), key
    devices: Path = (control_set, "Enum")
    found = hive.find(*devices)
    for bus in found.subkeys() if found is not None else ():
        for device in bus.subkeys():
            for instance in device.subkeys():
                yield (*devices, bus.name, device.name, instance.name), instance


def _without_filter(path: Path, key: Key, name: str) -> Iterator[HiveEdit]:
    for list_name in FILTERS:
        value = key.value(list_name)
        if value is None or value.type not in (REG_SZ, REG_MULTI_SZ):
            continue
        has = tuple(v for v in value.as_strings() if v)
        rest = without(has, name)
        if rest == has:
            continue
        if rest:
            yield texts(path, list_name, rest)
        else:
            yield DeleteValue(path, list_name)
