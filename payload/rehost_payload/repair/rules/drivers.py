"""Will Windows find its boot disk, and its other disks, on the controllers of this machine?

First of all the controller of the boot disk: no driver, or one that is not loaded at boot, is stop error 0x7B. What
Windows has itself is enabled; a package is installed only where Windows has nothing that fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rehost_payload.drivers.catalogue import Controller as Known
from rehost_payload.drivers.catalogue import find_controller, known_controllers
from rehost_payload.drivers.hive_edits import number
from rehost_payload.formats.bcd_devices import partitions
from rehost_payload.formats.hive import DeleteKey, HiveEdit
from rehost_payload.formats.inf_target import SERVER
from rehost_payload.repair.driver_match import Drivers, Match, Resolution, Trouble, unverified
from rehost_payload.repair.issue import Fix, Issue
from rehost_payload.repair.model import CopyFile, EditHive, Finding, InjectDriver, Severity
from rehost_payload.repair.targets import OSDEVICE, SYSTEMROOT, default_loader
from rehost_payload.repair.view import View
from rehost_payload.survey.drivers import pci_device
from rehost_payload.survey.drivers_model import ControllerFacts, PackageCandidate
from rehost_payload.survey.model import Controller, WindowsInstallation

_VMD_DOMAINS = 0x10000  # where Linux puts what is behind a volume management device
_MOST_EVIDENCE = 12
_WANTS_PACKAGE = ("driver.missing", "driver.file-missing", "driver.better-package")
FOREIGN = "foreign-file"  # the engine's word for a service or file that is somebody else's


def rules(view: View) -> Iterator[Issue]:
    for windows in starting(view):
        if windows.drivers is None:
            continue
        drivers = Drivers(windows, windows.drivers, view.survey.firmware.secure_boot)
        seats = list(_seats(view, drivers))
        chosen = _packages(drivers, seats)
        installed: dict[tuple[str, str], PackageCandidate] = {}
        in_the_way: dict[tuple[str, str], PackageCandidate] = {}
        for seat in seats:
            for issue in _seat(view, drivers, seat, chosen):
                yield issue
                choice = chosen.get(seat.facts.address)
                candidate = choice.candidate if choice is not None else None
                if candidate is not None and any(isinstance(fix, InjectDriver) for fix in issue.fixes):
                    installed[candidate.folder, candidate.inf] = candidate
                if issue.finding.id.startswith(_WANTS_PACKAGE):
                    for other in drivers.facts.candidates:
                        if other.address == seat.facts.address and other.refusal_code == FOREIGN:
                            in_the_way.setdefault((other.folder, other.inf), other)
        for candidate in installed.values():
            why = unverified(candidate)
            if why is not None:
                yield _unverified(drivers, candidate, why)
        yield from (_conflict(drivers, c) for c in in_the_way.values())
        yield from _left_out(view, drivers)


def starting(view: View) -> tuple[WindowsInstallation, ...]:
    """The installations that a start of this server leads to: the chosen or only one, else what the stores start."""
    if len(view.candidates) <= 1:
        return view.candidates
    found: dict[str, WindowsInstallation] = {}
    for store in view.stores:
        loader = default_loader(view, store)
        device = loader.device(OSDEVICE) if loader is not None else None
        if loader is None or device is None:
            continue
        root = loader.string(SYSTEMROOT) or "\\Windows"
        for identity in partitions(device):
            for volume in view.find(identity):
                installation = view.installation_at(volume, root)
                if installation is not None and installation in view.candidates:
                    found[installation.id] = installation
    return tuple(found.values())


@dataclass(frozen=True)
class _Seat:
    """A controller that disks of this server are connected to. ``boot``: that of Windows is among them."""

    controller: Controller
    facts: ControllerFacts
    boot: bool
    disks: tuple[str, ...]
    resolution: Resolution

    @property
    def known(self) -> Known | None:
        return find_controller(known_controllers(), pci_device(self.controller))

    @property
    def name(self) -> str:
        """For people: what it is called, and its IDs."""
        c = self.controller
        ids = f"{c.vendor}:{c.device}"
        if c.subsystem_vendor:
            ids += f":{c.subsystem_vendor}:{c.subsystem_device}"
        known = self.known
        if known is None:
            return f"PCI {ids}"
        card = known.card(pci_device(c))
        return f"{card or f'{known.vendor}, {known.family}'} (PCI {ids})"

    @property
    def evidence(self) -> tuple[str, ...]:
        c = self.controller
        return (
            f"{', '.join(self.disks)} on {c.address}: {next(iter(self.facts.hardware_ids), 'no IDs')}, class {c.class_code or '?'}",
        )


def _seats(view: View, drivers: Drivers) -> Iterator[_Seat]:
    """The boot disk's controller first, then those of the other disks that count."""
    boot_disk = view.disk_of(drivers.windows.volume)
    disks = [boot_disk, *(d for d in view.our_disks if d.id != boot_disk.id)]
    by_controller: dict[str, list[str]] = {}
    for disk in disks:
        address = behind(view, disk.controller) if disk.controller is not None else None
        if address is not None and not disk.boot_medium and not disk.removable:
            by_controller.setdefault(address, []).append(disk.id)
    known = {c.address: c for c in view.survey.controllers}
    facts = {f.address: f for f in drivers.facts.controllers}
    for address, on_it in by_controller.items():
        if address in known and address in facts:
            boot = boot_disk.id in on_it
            yield _Seat(known[address], facts[address], boot, tuple(on_it), drivers.resolve(facts[address]))


def behind(view: View, address: str) -> str | None:
    """The controller that Windows sees for a disk: for what is behind a volume management device, that device."""
    domain = address.partition(":")[0]
    try:
        hidden = int(domain, 16) >= _VMD_DOMAINS
    except ValueError:
        return None
    if not hidden:
        return address
    devices = [
        c.address for c in view.survey.controllers if c.vendor == "8086" and c.class_code[:4] == "0104"
    ]
    return devices[0] if len(devices) == 1 else None


# --- one controller ---------------------------------------------------------------------------------------------


def _seat(view: View, drivers: Drivers, seat: _Seat, chosen: dict[str, _Choice]) -> Iterator[Issue]:
    match = seat.resolution.match
    if match is None:
        if seat.facts.other_cards and not seat.controller.subsystem_vendor:
            yield _card_unknown(drivers, seat)
        else:
            yield _missing(view, drivers, seat, chosen)
        return
    troubles = [t for name in drivers.needed(match) for t in drivers.troubles(name)]
    troubles += drivers.unsigned(match)
    if not seat.boot:
        # found later, by a Windows that runs: how it starts does not matter, only that it can
        troubles = [t for t in troubles if t.kind in ("absent", "file", "image")]
    broken = [t for t in troubles if t.kind in ("absent", "file", "image")]
    if broken:
        yield _broken(view, drivers, seat, match, broken, chosen)
    elif troubles:
        yield _not_at_boot(view, drivers, seat, match, troubles)
    elif (choice := chosen.get(seat.facts.address)) is not None and _is_better(seat, match, choice):
        yield _better(view, drivers, seat, match, choice)


def _params(drivers: Drivers, seat: _Seat, choice: _Choice | None) -> dict[str, str]:
    known = seat.known
    wanted = " ".join(known.needs) if known is not None else ""
    download = known.download if known is not None and known.download else ""
    candidate = choice.candidate if choice is not None else None
    return {
        "windows": drivers.windows.id,
        "controller": seat.name,
        "disks": ", ".join(seat.disks),
        "service": candidate.service if candidate is not None else wanted or "-",
        "package": f"{candidate.folder}/{candidate.inf} {candidate.version or ''}".strip()
        if candidate
        else "-",
        "download": download
        or f"driver of the manufacturer for PCI {seat.controller.vendor}:{seat.controller.device}",
    }


def _missing(view: View, drivers: Drivers, seat: _Seat, chosen: dict[str, _Choice]) -> Issue:
    choice = chosen.get(seat.facts.address)
    evidence = [*seat.evidence]
    if not drivers.facts.database and not drivers.facts.critical_database:
        evidence.append("SYSTEM has neither DriverDatabase nor CriticalDeviceDatabase")
    else:
        evidence.append(f"none of its {len(_ids(seat.facts))} IDs leads to a service")
    evidence += seat.resolution.dead_ends
    return _with_package(view, drivers, seat, "driver.missing", evidence, choice)


def _with_package(
    view: View, drivers: Drivers, seat: _Seat, kind: str, evidence: list[str], choice: _Choice | None
) -> Issue:
    fixes: tuple[Fix, ...] = ()
    if choice is not None and choice.candidate is not None:
        fixes = (_injection(view, drivers, seat, choice),)
    if choice is not None:
        evidence += choice.reasons
    elif drivers.facts.other_packages:
        count = drivers.facts.other_packages
        evidence.append(
            f"{count} {'package at hand is' if count == 1 else 'packages at hand are'} for other devices"
        )
    severity = Severity.FATAL if seat.boot else Severity.WARNING
    name = kind if seat.boot else f"{kind}-data"
    finding = Finding(
        name,
        severity,
        drivers.windows.id,
        _params(drivers, seat, choice),
        tuple(evidence[:_MOST_EVIDENCE]),
        bool(fixes),
    )
    return Issue(finding, fixes)


def _unverified(drivers: Drivers, candidate: PackageCandidate, why: str) -> Issue:
    found = candidate.verification
    signer = found.signer if found is not None and found.signer else "-"
    evidence = [f"{candidate.folder}/{candidate.inf}: {why}", f"signer: {signer}"]
    if found is not None and found.level == "fail":
        evidence.append("taken because whoever made the medium or filled the folder allows it")
    params = {
        "windows": drivers.windows.id,
        "service": candidate.service,
        "package": f"{candidate.folder}/{candidate.inf}",
    }
    return Issue(
        Finding("driver.package-unverified", Severity.WARNING, drivers.windows.id, params, tuple(evidence))
    )


def _conflict(drivers: Drivers, candidate: PackageCandidate) -> Issue:
    """A package that would take the place of another driver: not taken, whatever its rank."""
    package = f"{candidate.folder}/{candidate.inf}"
    evidence = (
        f"{package}: {candidate.refusal}",
        f"{package}: {candidate.service} {candidate.version or 'no version'} for {candidate.device_id}, rank {candidate.rank:08X}",
    )
    params = {"windows": drivers.windows.id, "service": candidate.service, "package": package}
    return Issue(Finding("driver.package-conflict", Severity.WARNING, drivers.windows.id, params, evidence))


def _left_out(view: View, drivers: Drivers) -> Iterator[Issue]:
    """Folders, archives and packages that were named or found, and of which nothing could be taken."""
    found = [
        p for p in view.survey.problems if p.code in ("driver-package", "driver-archive", "driver-folder")
    ]
    if found and drivers.windows.id == view.candidates[0].id:  # once, not for each Windows
        evidence = tuple(f"{p.where}: {p.detail}" for p in found[:_MOST_EVIDENCE])
        params = {"count": str(len(found))}
        yield Issue(
            Finding("driver.packages-left-out", Severity.WARNING, drivers.windows.id, params, evidence)
        )


def _card_unknown(drivers: Drivers, seat: _Seat) -> Issue:
    others = ", ".join(seat.facts.other_cards)
    evidence = (*seat.evidence, f"its subsystem is missing; cards that this Windows knows: {others}")
    params = _params(drivers, seat, None)
    finding = Finding(
        "driver.card-unknown",
        Severity.WARNING,
        drivers.windows.id,
        params,
        evidence,
        undecided=seat.boot,
    )
    return Issue(finding)


def _not_at_boot(view: View, drivers: Drivers, seat: _Seat, match: Match, troubles: list[Trouble]) -> Issue:
    evidence = (*(t.evidence for t in troubles), match.way, *seat.evidence)
    names = dict.fromkeys(t.service for t in troubles)
    edits = tuple(dict.fromkeys(e for name in names for e in enabling(drivers, name)))
    params = _params(drivers, seat, None) | {"service": ", ".join(names)}
    finding = Finding(
        "driver.not-at-boot", Severity.FATAL, drivers.windows.id, params, evidence[:_MOST_EVIDENCE], True
    )
    return Issue(finding, (hive_edit(view, drivers.windows, edits, finding.id),))


def hive_edit(
    view: View, windows: WindowsInstallation, edits: tuple[HiveEdit, ...], finding: str
) -> EditHive:
    """These edits of the installation's SYSTEM hive as an action."""
    assert windows.drivers is not None
    return EditHive(
        view.ref(view.volumes[windows.volume]),
        windows.drivers.system_path,
        windows.drivers.system_sha256,
        edits,
        finding,
        replay=windows.drivers.replayed,
        remove_logs=windows.drivers.system_logs,
    )


def enabling(drivers: Drivers, service: str) -> Iterator[HiveEdit]:
    """Start 0 and no StartOverride, in every control set: the loader may take another one on a second try."""
    for s in drivers.everywhere(service):
        key = (f"ControlSet{s.control_set:03d}", "Services", s.name)
        if s.start != 0:
            yield number(key, "Start", 0)
        if s.start_override:
            yield DeleteKey((*key, "StartOverride"))


def _broken(
    view: View,
    drivers: Drivers,
    seat: _Seat,
    match: Match,
    troubles: list[Trouble],
    chosen: dict[str, _Choice],
) -> Issue:
    """A driver is registered, but its service or file is not there or cannot be loaded."""
    evidence = [*(t.evidence for t in troubles), match.way, *seat.evidence]
    copies = [c for t in troubles for c in _from_store(view, drivers, t)]
    if len(copies) == len(troubles):
        names = dict.fromkeys(t.service for t in troubles)
        edits = tuple(e for name in drivers.needed(match) for e in enabling(drivers, name))
        kind = "driver.file-missing" if seat.boot else "driver.file-missing-data"
        params = _params(drivers, seat, None) | {"service": ", ".join(names)}
        severity = Severity.FATAL if seat.boot else Severity.WARNING
        evidence += [f"{c.source_path} is a good copy" for c in copies]
        finding = Finding(kind, severity, drivers.windows.id, params, tuple(evidence), True)
        hive = (hive_edit(view, drivers.windows, edits, finding.id),) if edits else ()
        return Issue(finding, (*copies, *hive))
    issue = _with_package(
        view, drivers, seat, "driver.file-missing", evidence, chosen.get(seat.facts.address)
    )
    names_ = ", ".join(dict.fromkeys(t.service for t in troubles))
    if not issue.finding.repairable:
        issue.finding.params["service"] = names_
    return issue


def _from_store(view: View, drivers: Drivers, trouble: Trouble) -> Iterator[CopyFile]:
    """The missing file from the package's folder in the driver store."""
    service = next((s for s in drivers.everywhere(trouble.service)), None)
    if trouble.kind == "absent" or service is None or service.binary is None:
        return
    source = next((c for c in drivers.facts.store_copies if c.target.lower() == service.binary.lower()), None)
    if source is None or source.problem is not None or source.machine != drivers.windows.architecture:
        return
    volume = view.ref(view.volumes[drivers.windows.volume])
    yield CopyFile(
        volume, source.path, volume, service.binary, source.size, "driver.file-missing", replace=True
    )


# --- packages ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Choice:
    """The package that would be installed for a controller, or none, with the reasons in either case."""

    candidate: PackageCandidate | None
    reasons: tuple[str, ...]
    hardware_ids: tuple[str, ...] = ()


def _packages(drivers: Drivers, seats: list[_Seat]) -> dict[str, _Choice]:
    """By controller: the best package at hand. One package for several controllers is one injection for all."""
    choices: dict[str, _Choice] = {}
    brought: dict[str, PackageCandidate] = {}  # by service: the boot controller's package comes first
    for seat in seats:
        choice = _choose(drivers, seat, brought)
        if choice is not None:
            choices[seat.facts.address] = choice
            if choice.candidate is not None:
                for name in _services_of(choice.candidate):
                    brought.setdefault(name, choice.candidate)
    ids: dict[tuple[str, str], dict[str, None]] = {}
    for seat in seats:
        chosen = choices.get(seat.facts.address)
        if chosen is not None and chosen.candidate is not None:
            key = (chosen.candidate.folder, chosen.candidate.inf)
            ids.setdefault(key, {}).update(dict.fromkeys(_ids(seat.facts)))
    return {
        address: _Choice(c.candidate, c.reasons, tuple(ids[c.candidate.folder, c.candidate.inf]))
        if c.candidate is not None
        else c
        for address, c in choices.items()
    }


def _services_of(candidate: PackageCandidate) -> set[str]:
    return {s.lower() for s in (candidate.service, *candidate.further_services)}


def _choose(drivers: Drivers, seat: _Seat, brought: Mapping[str, PackageCandidate]) -> _Choice | None:
    """``brought``: services that packages for other controllers install; another version of them would replace these."""
    needs = {n.lower() for n in seat.known.needs[1:]} if seat.known is not None else set()
    wide = drivers.windows.architecture in (None, "x64")
    taken: PackageCandidate | None = None
    reasons: list[str] = []
    for candidate, against in drivers.candidates(seat.facts):
        name = f"{candidate.folder}/{candidate.inf}"
        lacks = needs - _services_of(candidate)
        if against is None and not wide:
            against = "packages are installed into 64-bit Windows (x64) only"
        if against is None and lacks:
            against = f"the controller needs {', '.join(sorted(lacks))} as well, which it does not bring"
        if against is None:
            against = next((w for w in _replaces(candidate, brought)), None)
        if against is not None:
            reasons.append(f"{name}: not taken, {against}")
        elif taken is None:
            taken = candidate
            version = candidate.version or "no version"
            reasons.append(
                f"{name}: taken, {candidate.service} {version} for {candidate.device_id}, rank {candidate.rank:08X}"
            )
            reasons += [f"{name}: {text}" for text in _about(candidate)]
        else:
            reasons.append(
                f"{name}: fits as well; rank {candidate.rank:08X}, {candidate.version or 'no version'}"
            )
    refused = [r for r in drivers.facts.refusals if r.address == seat.facts.address]
    reasons += [f"{r.folder}/{r.inf}: not taken, {r.reason}" for r in refused]
    return _Choice(taken, tuple(reasons)) if reasons else None


def _replaces(candidate: PackageCandidate, brought: Mapping[str, PackageCandidate]) -> Iterator[str]:
    for service in sorted(_services_of(candidate)):
        other = brought.get(service)
        if other is not None and other.package_sha256 != candidate.package_sha256:
            yield f"its {service} would replace that of {other.folder}/{other.inf}, which another controller gets"


def _about(candidate: PackageCandidate) -> Iterator[str]:
    """What is to be said of a package that is taken: what it replaces, who has signed it, what speaks against it a little."""
    yield from candidate.replaces
    found = candidate.verification
    if found is None:
        return
    if found.level in ("pass", "warn"):
        yield f"every hash is in its catalog, signed by {found.signer or 'nobody'}"
    if found.level == "warn":
        yield from found.reasons


def _injection(view: View, drivers: Drivers, seat: _Seat, choice: _Choice) -> InjectDriver:
    candidate, facts, w = choice.candidate, drivers.facts, drivers.windows
    assert candidate is not None
    assert w.build is not None  # without it no package was judged
    return InjectDriver(
        volume=view.ref(view.volumes[w.volume]),
        root=w.root,
        package=candidate.folder,
        inf=candidate.inf,
        inf_sha256=candidate.inf_sha256,
        package_sha256=candidate.package_sha256,
        hardware_ids=choice.hardware_ids or _ids(seat.facts),
        service=candidate.service,
        build=w.build,
        product_type=facts.product_type or SERVER,
        system_sha256=facts.system_sha256,
        finding="driver.missing",  # the same for all controllers: one injection
        replay=facts.replayed,
        remove_logs=facts.system_logs,
    )


def _is_better(seat: _Seat, match: Match, choice: _Choice) -> bool:
    """Only where the catalogue doubts that what Windows has drives this card, and the package is newer."""
    known, candidate = seat.known, choice.candidate
    if known is None or not known.prefer_package or candidate is None or candidate.version is None:
        return False
    theirs = tuple(int(p) for p in candidate.version.split(".") if p.isdecimal())
    return match.version is not None and theirs > match.version


def _better(view: View, drivers: Drivers, seat: _Seat, match: Match, choice: _Choice) -> Issue:
    version = ".".join(map(str, match.version or ()))
    evidence = (*seat.evidence, match.way, f"{match.service} {version} is installed", *choice.reasons)
    finding = Finding(
        "driver.better-package",
        Severity.WARNING,
        drivers.windows.id,
        _params(drivers, seat, choice),
        evidence[:_MOST_EVIDENCE],
        True,
    )
    return Issue(finding, (_injection(view, drivers, seat, choice),))


def _ids(facts: ControllerFacts) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*facts.hardware_ids, *facts.compatible_ids)))
