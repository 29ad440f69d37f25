"""What lies between the controller and Windows: the chain of services, class and device filters, other boot drivers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rehost_payload.drivers.hive_edits import number, texts
from rehost_payload.formats.hive import DeleteValue, HiveEdit
from rehost_payload.repair.driver_match import Drivers, Trouble
from rehost_payload.repair.issue import Issue
from rehost_payload.repair.model import EditHive, Finding, Severity
from rehost_payload.repair.rules.drivers import enabling, hive_edit, starting
from rehost_payload.repair.view import View
from rehost_payload.survey.drivers_model import Filters

# the same in Windows 7, 8.1 and 10; what came later is asked for by version
_CHAIN = ("ACPI", "pci", "disk", "partmgr", "mountmgr", "volmgr", "volmgrx", "volsnap")
_LATER = {"volume": 10240}  # first build that has it
_DISABLED = 4
_SEVERE = (2, 3)  # ErrorControl: the loader gives up where such a driver cannot be loaded


def rules(view: View) -> Iterator[Issue]:
    for windows in starting(view):
        if windows.drivers is None:
            continue
        drivers = Drivers(windows, windows.drivers)
        if not drivers.facts.services:
            continue
        yield from _chain(view, drivers)
        dangling = _dangling(view, drivers)
        yield from _filters(view, drivers, dangling)
        yield from _boot_files(view, drivers, {name.lower() for name in dangling})


def _chain(view: View, drivers: Drivers) -> Iterator[Issue]:
    build = drivers.windows.build
    names = [*_CHAIN, *(n for n, first in _LATER.items() if build is not None and build >= first)]
    for name in names:
        troubles = drivers.troubles(name)
        if not troubles:
            continue
        fixable = all(t.kind in ("start", "override") for t in troubles)
        evidence = tuple(t.evidence for t in troubles)
        params = {"windows": drivers.windows.id, "service": name}
        finding = Finding(
            "driver.chain-broken", Severity.FATAL, drivers.windows.id, params, evidence, fixable
        )
        edits = tuple(enabling(drivers, name))
        yield Issue(finding, (hive_edit(view, drivers.windows, edits, finding.id),) if fixable else ())


# --- filters ----------------------------------------------------------------------------------------------------


def _dangling(view: View, drivers: Drivers) -> dict[str, list[str]]:
    """Filters that cannot be loaded, with evidence, where a device of this machine would have them."""
    found: dict[str, list[str]] = {}
    for filters in _lists_that_count(view, drivers):
        for name in (*filters.upper, *filters.lower):
            trouble = _unloadable(drivers, name, filters.control_set)
            if trouble is not None:
                where = f"ControlSet{filters.control_set:03d} {filters.key} lists {name}"
                found.setdefault(name, []).extend([where, trouble])
    return {name: list(dict.fromkeys(evidence)) for name, evidence in found.items()}


def _lists_that_count(view: View, drivers: Drivers) -> Iterator[Filters]:
    own = {i.lower() for f in drivers.facts.controllers for i in f.hardware_ids if "&subsys_" in i.lower()}
    for filters in drivers.facts.class_filters:
        if filters.control_set in drivers.sets:
            yield filters
    for filters in drivers.facts.device_filters:
        device = filters.key.rpartition("\\")[0].lower()
        if filters.control_set in drivers.sets and device in own:
            yield filters


def _unloadable(drivers: Drivers, name: str, control_set: int) -> str | None:
    place = f"ControlSet{control_set:03d}\\Services\\{name}"
    service = drivers.service(name, control_set)
    if service is None:
        return f"{place} does not exist"
    if service.start == _DISABLED:
        return f"{place}: Start is 4 (disabled)"
    trouble: Trouble | None = drivers.image_problem(service)
    return trouble.evidence if trouble is not None else None


def _filters(view: View, drivers: Drivers, dangling: dict[str, list[str]]) -> Iterator[Issue]:
    edits = tuple(_removing(drivers, dangling)) if dangling else ()
    for name, evidence in dangling.items():
        params = {"windows": drivers.windows.id, "service": name}
        finding = Finding(
            "driver.filter-dangling", Severity.FATAL, drivers.windows.id, params, tuple(evidence), True
        )
        yield Issue(finding, (hive_edit(view, drivers.windows, edits, finding.id),))


def _removing(drivers: Drivers, names: Iterable[str]) -> Iterator[HiveEdit]:
    """The lists without these filters, and their services disabled: both or neither, in every control set."""
    unwanted = {n.lower() for n in names}
    lists: list[tuple[tuple[str, ...], Filters]] = [
        (("Control", "Class"), f) for f in drivers.facts.class_filters
    ]
    lists += [(("Enum",), f) for f in drivers.facts.device_filters]
    for above, filters in lists:
        key = (f"ControlSet{filters.control_set:03d}", *above, *filters.key.split("\\"))
        for value, has in (("UpperFilters", filters.upper), ("LowerFilters", filters.lower)):
            rest = tuple(n for n in has if n.lower() not in unwanted)
            if rest == has:
                continue
            yield texts(key, value, rest) if rest else DeleteValue(key, value)
    for service in drivers.facts.services:
        if service.name.lower() in unwanted and service.start != _DISABLED:
            key = (f"ControlSet{service.control_set:03d}", "Services", service.name)
            yield number(key, "Start", _DISABLED)


# --- other drivers that are loaded at boot ----------------------------------------------------------------------


def _boot_files(view: View, drivers: Drivers, dangling: set[str]) -> Iterator[Issue]:
    """Boot drivers of others whose file is gone, as security and backup software leaves them behind."""
    own = {n.lower() for n in (*_CHAIN, *_LATER)} | dangling
    for service in drivers.facts.services:
        counts = service.control_set in drivers.sets[:1] and service.start == 0 and service.image_path
        if not counts or service.name.lower() in own or any(v.value for v in service.start_override):
            continue
        if service.binary is None:
            continue  # a path that we do not follow
        file = drivers.binary(service)
        if file is None or file.exists:
            continue
        in_box = any(not o.lower().startswith("oem") for o in service.owners)
        severe = service.error_control in _SEVERE
        params = {"windows": drivers.windows.id, "service": service.name, "file": file.path}
        place = f"ControlSet{service.control_set:03d}\\Services\\{service.name}"
        evidence = (f"{place}: Start is 0, ErrorControl {service.error_control}; {file.path} is missing",)
        severity = Severity.FATAL if severe else Severity.WARNING
        fixes: tuple[EditHive, ...] = ()
        if severe and not in_box:
            edits = tuple(
                number((f"ControlSet{s.control_set:03d}", "Services", s.name), "Start", _DISABLED)
                for s in drivers.everywhere(service.name)
                if s.start != _DISABLED
            )
            fixes = (hive_edit(view, drivers.windows, edits, "driver.boot-file-missing"),)
        finding = Finding(
            "driver.boot-file-missing", severity, drivers.windows.id, params, evidence, bool(fixes)
        )
        yield Issue(finding, fixes)
