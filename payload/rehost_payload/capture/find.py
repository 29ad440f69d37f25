"""Finds everything that a capture needs to know of a host that is not running. Reads only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from rehost_payload.capture.configurations import (
    checkpoint_links,
    is_configuration,
    read_configurations,
    read_list,
)
from rehost_payload.capture.disks import Disks
from rehost_payload.capture.found import (
    Chain,
    FoundConfiguration,
    FoundHost,
    FoundMachine,
    MachineFile,
)
from rehost_payload.capture.guardians import host_guardians, saved_files
from rehost_payload.capture.host import HostHives, host_settings, open_hives
from rehost_payload.capture.host_files import host_files
from rehost_payload.capture.machines import DISKS, LOOSE, Machines, disk_role, file_role
from rehost_payload.capture.model import CaptureChoices, Role
from rehost_payload.capture.places import Places
from rehost_payload.capture.scan import Scan, scan_volumes
from rehost_payload.capture.volumes import host_volumes
from rehost_payload.formats.filesystem import has_suffix
from rehost_payload.repair.model import VolumeRef
from rehost_payload.survey.cache import CachedSource
from rehost_payload.survey.model import Controller, Disk, Problem, WindowsInstallation
from rehost_payload.survey.volumes import OpenVolume, survey_disk
from rehost_payload.survey.windows import survey_windows
from rehost_payload.system.protocol import Progress, System


@dataclass(frozen=True)
class _Machine:
    """The opened disks and volumes of this machine."""

    disks: tuple[Disk, ...]
    volumes: tuple[OpenVolume, ...]
    windows: tuple[WindowsInstallation, ...]
    controllers: tuple[Controller, ...]


def find_host(system: System, progress: Progress, choices: CaptureChoices) -> FoundHost:
    """Looks at all disks of ``system``. What cannot be read is named in ``problems``, never an error.

    SystemError_ only where the disks cannot be listed at all.
    """
    problems: list[Problem] = []
    with _opened(system, progress, problems) as machine:
        host = _host(machine.windows, choices)
        hives = _hives(machine, host, problems)
        places = Places(machine.volumes, machine.disks, hives.mounted, hives.system_letter)
        places.problems = problems
        excluded = {v.id for v in places.volumes() if any(_same(v.ref, ref) for ref in choices.exclude)}
        excluded |= {o.volume.id for o in machine.volumes if _boot_medium(machine, o)}
        scan = scan_volumes(places, progress, excluded.__contains__)
        progress("machines", 0, 0)
        return _found(machine, host, hives, places, scan, choices)


@contextmanager
def _opened(system: System, progress: Progress, problems: list[Problem]) -> Iterator[_Machine]:
    handles = system.disks()
    try:
        for text in system.problems():
            where, _, detail = text.partition(": ")
            problems.append(Problem("disk", where, detail or text))
        disks: list[Disk] = []
        volumes: list[OpenVolume] = []
        for index, handle in enumerate(handles):
            progress(handle.info.path, index, len(handles))
            source = CachedSource(handle)
            try:
                disk = survey_disk(handle, source, f"disk{index}")
                disks.append(disk)
                volumes += host_volumes(system, disk, source, problems)
            except OSError as error:
                problems.append(Problem("io", handle.info.path, str(error)))
        windows = [w for volume in volumes for w in survey_windows(volume, problems)]
        yield _Machine(tuple(disks), tuple(volumes), tuple(windows), tuple(system.controllers()))
    finally:
        for handle in handles:
            handle.close()


def _host(windows: Sequence[WindowsInstallation], choices: CaptureChoices) -> WindowsInstallation | None:
    """The installation whose machines they are: the chosen one, else the first with Hyper-V, else the first."""
    chosen = [w for w in windows if w.id == choices.windows]
    hosts = [w for w in windows if w.hyperv_host]
    return next(iter(chosen or hosts or windows), None)


def _hives(machine: _Machine, host: WindowsInstallation | None, problems: list[Problem]) -> HostHives:
    reader = next((o.reader for o in machine.volumes if host and o.volume.id == host.volume), None)
    return HostHives() if host is None or reader is None else open_hives(reader, host, problems)


def _boot_medium(machine: _Machine, opened: OpenVolume) -> bool:
    return any(d.boot_medium for d in machine.disks if d.id == opened.volume.disk)


def _same(a: VolumeRef, b: VolumeRef) -> bool:
    return (a.disk, a.offset, a.size) == (b.disk, b.offset, b.size)


def _found(
    machine: _Machine,
    host: WindowsInstallation | None,
    hives: HostHives,
    places: Places,
    scan: Scan,
    choices: CaptureChoices,
) -> FoundHost:
    known = None if host is None else read_list(places, host.volume)
    candidates = [p for p in scan.files if is_configuration(p.path)]
    named = list((known or {}).values())
    named += [] if host is None else checkpoint_links(places, host.volume)
    candidates += [place for path in named if (place := places.resolve(path)) is not None]
    configurations = read_configurations(places, candidates)
    roots = {v.root for v in places.volumes()}
    _learn_letters(places, configurations)
    if roots != {v.root for v in places.volumes()}:
        places.forget()
        configurations = read_configurations(places, candidates)
    disks = Disks(places, [p for p in scan.files if has_suffix(p.path, DISKS)])
    makers = Machines(places, disks, configurations, scan.files, known)
    kept = [] if host is None else list(host_files(places, host))
    rest = _Rest(places, disks, makers, scan, {f.file.original for f, _ in kept})
    machines = rest.with_strays(makers.all())
    holding = {f.file.volume for m in machines for f in m.files}
    volumes = places.volumes()
    settings = None if host is None else host_settings(hives, host, volumes, holding, choices.taken)
    guardians = host_guardians(hives.software, places.problems)
    saved = saved_files(places, choices.guardian_files, places.problems)
    return FoundHost(
        name=host.computer_name if host else "",
        windows=host,
        settings=settings,
        volumes=volumes,
        machines=tuple(machines),
        orphans=tuple(rest.orphans(machines)),
        orphan_chains=tuple(rest.orphan_chains),
        host_files=tuple(kept),
        known=known,
        lost={g: path for g, path in (known or {}).items() if places.resolve(path) is None},
        hosts=tuple(w for w in machine.windows if w.hyperv_host),
        disks=machine.disks,
        controllers=machine.controllers,
        left_out=tuple(places.original(p.volume, p.path) for p in scan.left_out),
        guardians=guardians,
        guardian_files=saved,
        problems=tuple(dict.fromkeys(places.problems)),
    )


def _learn_letters(places: Places, configurations: Sequence[FoundConfiguration]) -> None:
    """Looks all paths up once, before a file is given its original path: guessed letters come from this."""
    for configuration in configurations:
        for drive in configuration.machine.drives if configuration.machine else ():
            if drive.is_file:
                places.resolve(drive.path)


@dataclass
class _Rest:
    """What belongs to no machine by any configuration."""

    places: Places
    disks: Disks
    makers: Machines
    scan: Scan
    host_files: set[str]  # original paths
    orphan_chains: list[Chain] = field(default_factory=list)

    def with_strays(self, machines: list[FoundMachine]) -> list[FoundMachine]:
        """The machines, with the differencing disks that continue their disks though no configuration names them.

        Such a disk is a checkpoint whose configuration is lost, or a merge that was not finished: it may hold the
        newest data. What else is left goes to ``orphan_chains``.
        """
        owners: dict[str, int] = {}
        for number, machine in enumerate(machines):
            for entry in machine.files:
                owners.setdefault(entry.file.original.lower(), number)
        strays: dict[int, dict[str, Chain]] = {}
        for place in self.scan.files:
            disk = self.disks.disk(place) if has_suffix(place.path, DISKS) else None
            if disk is None or disk.file.original.lower() in owners:
                continue
            chain = self.disks.chain(place)
            above = (owners.get(d.file.original.lower()) for d in chain.disks[1:])
            owner = next((number for number in above if number is not None), None)
            if owner is None:
                self.orphan_chains.append(chain)
            else:
                strays.setdefault(owner, {})[disk.file.original] = chain
        found = list(machines)
        for number, chains in strays.items():
            machine = machines[number]
            have = {f.file.original.lower() for f in machine.files}
            more: dict[str, MachineFile] = {}
            for chain in chains.values():
                for disk in chain.disks:
                    if disk.file.original.lower() not in have:
                        more.setdefault(disk.file.original, MachineFile(disk.file, disk_role(disk)))
            found[number] = replace(
                machine,
                files=(*machine.files, *more.values()),
                chains=machine.chains | chains,
                stray=tuple(chains),
            )
        return found

    def orphans(self, machines: Sequence[FoundMachine]) -> Iterator[MachineFile]:
        """The orphaned disks and every other file of Hyper-V's that is in no machine and not the host's."""
        used = {f.file.original.lower() for m in machines for f in m.files}
        for chain in self.orphan_chains:
            disk = chain.disks[0]
            used.add(disk.file.original.lower())
            yield MachineFile(disk.file, disk_role(disk))
        used |= {original.lower() for original in self.host_files}
        for checkpoint in self.makers.stray_checkpoints():
            used.add(checkpoint.file.original.lower())
            yield MachineFile(checkpoint.file, Role.CHECKPOINT)
        for place in self.scan.files:
            if not has_suffix(place.path, LOOSE):
                continue
            file = self.places.file(place)
            if file is not None and file.original.lower() not in used:
                yield MachineFile(file, file_role(place.path, Role.STATE))
