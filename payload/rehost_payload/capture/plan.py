"""From what was found and what the operator chose to what is copied, and where to."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace

from rehost_payload.capture.assess import assess
from rehost_payload.capture.copy_journal import JOURNAL
from rehost_payload.capture.copy_state import STATE
from rehost_payload.capture.find import find_host
from rehost_payload.capture.found import FoundFile, FoundHost, FoundMachine, MachineFile
from rehost_payload.capture.manifest import MANIFEST, SUMS
from rehost_payload.capture.model import (
    CaptureChoices,
    CaptureFile,
    CapturePlan,
    CaptureUnit,
    Role,
    SourceRef,
)
from rehost_payload.capture.names import MOST_FOLDER, Names, safe_name
from rehost_payload.capture.restore.data import RESTORE
from rehost_payload.capture.restore.scripts import NAMES as SCRIPT_NAMES
from rehost_payload.capture.selection import selected, unit_ids
from rehost_payload.capture.summary import summarize
from rehost_payload.repair.model import Finding, VolumeRef
from rehost_payload.system.protocol import Progress, System

HOST, ORPHANS = "host", "orphans"
# what stands in the capture's own folder beside the units' folders
_RESERVED = (HOST, ORPHANS, "index.html", STATE, JOURNAL, RESTORE, MANIFEST, SUMS, *SCRIPT_NAMES)
_LARGE = frozenset(
    {
        Role.DISK,
        Role.DIFFERENCING_DISK,
        Role.CHANGE_TRACKING,
        Role.REPLICA_LOG,
        Role.SMART_PAGING,
        Role.IMAGE,
    }
)
_STATES = frozenset({Role.STATE, Role.CHECKPOINT_STATE})
_SMALL_STATE = 16 << 20  # that of a machine that was shut down; it belongs to the configuration
_CONFIGURATIONS = frozenset({Role.CONFIGURATION, Role.CHECKPOINT})
_SHORT_ID = 8


def find_and_plan(
    system: System, progress: Progress, choices: CaptureChoices
) -> tuple[FoundHost, CapturePlan]:
    """Looks at all disks of ``system`` and says what a capture would copy. Reads only.

    Raises SystemError_ where the disks cannot be listed. What cannot be read is named in findings and problems.
    """
    found = find_host(system, progress, choices)
    return found, plan(found, choices, assess(found, choices))


def plan(found: FoundHost, choices: CaptureChoices, findings: Sequence[Finding] = ()) -> CapturePlan:
    """What is copied. Pure. A file that several machines need is in the first one's folder, once.

    ``findings`` go to their machine's unit, those of host and volumes to the plan itself.
    """
    units = _Planner(found, choices).units()
    subjects = {u.id for u in units if u.kind == "machine"}
    units = tuple(
        replace(u, findings=tuple(f for f in findings if f.subject == u.id and u.id in subjects))
        for u in units
    )
    name = safe_name(found.name or "unknown", 15)
    return CapturePlan(
        name=f"Rehost-{name}-{choices.taken[:10]}",
        host=found.name,
        units=units,
        findings=tuple(f for f in findings if f.subject not in subjects),
        config_only=choices.config_only,
        images=choices.images,
        orphans=choices.orphans and choices.machines is None,
    )


def wanted(entry: MachineFile, choices: CaptureChoices) -> bool:
    """Whether a file of a chosen machine is part of the capture."""
    if entry.role is Role.IMAGE and entry.file.path.lower().endswith(".iso") and not choices.images:
        return False
    if not choices.config_only or entry.role not in _LARGE | _STATES:
        return True
    small = entry.file.size <= _SMALL_STATE and not entry.file.path.lower().endswith(".bin")
    return entry.role in _STATES and small


class _Planner:
    def __init__(self, found: FoundHost, choices: CaptureChoices) -> None:
        self._found = found
        self._choices = choices
        self._refs: dict[str, VolumeRef] = {v.id: v.ref for v in found.volumes}
        self._roots: dict[str, str] = {v.id: v.root for v in found.volumes}
        self._names = Names(_RESERVED)
        self._targets: dict[str, str] = {}  # by original, of what is planned

    def units(self) -> tuple[CaptureUnit, ...]:
        ids = unit_ids(self._found)
        machines = selected(self._found, self._choices)
        users: dict[str, list[str]] = {}
        for machine in machines:
            for entry in machine.files:
                users.setdefault(_key(entry.file), []).append(ids[machine.configuration.file.original])
        units = [self._machine(m, ids[m.configuration.file.original], users) for m in machines]
        if self._choices.orphans and self._choices.machines is None:
            units.append(self._orphans())
        units.append(self._host())
        return tuple(self._with_parents(u) for u in units if u.files or u.kind == "machine")

    def _machine(self, machine: FoundMachine, identifier: str, users: dict[str, list[str]]) -> CaptureUnit:
        short = identifier[:_SHORT_ID] + identifier[36:]
        folder = self._names.take(machine.name, hint=short, most=MOST_FOLDER)
        files: list[CaptureFile] = []
        missing = list(machine.missing)
        for entry in machine.files:
            if not wanted(entry, self._choices):
                continue
            if entry.file.unreadable:
                missing.append(entry.file.original)
                continue
            if users[_key(entry.file)][0] != identifier:
                continue  # it is in another unit
            target = self._take(folder, *_place(machine, entry), _key(entry.file))
            others = tuple(dict.fromkeys(users[_key(entry.file)][1:]))
            files.append(self._file(entry, target, others))
        settings = self._found.settings
        switches = {s.id: s.name for s in settings.switches} if settings else {}
        return CaptureUnit(
            id=identifier,
            name=machine.name,
            folder=folder,
            kind="machine",
            files=tuple(files),
            machine=summarize(machine, switches),
            missing=tuple(dict.fromkeys(missing)),
        )

    def _orphans(self) -> CaptureUnit:
        """Files that belong to no machine, each below a folder for its volume."""
        files: list[CaptureFile] = []
        missing: list[str] = []
        for entry in self._found.orphans:
            if not wanted(entry, self._choices) or _key(entry.file) in self._targets:
                continue
            if entry.file.unreadable:
                missing.append(entry.file.original)
                continue
            *folders, name = [p for p in entry.file.path.split("\\") if p]
            # by letter or GUID: the kernel may number the disks in another order next time, and a resumed capture
            # must find its files again
            root = self._roots[entry.file.volume].rpartition("\\")[2].strip("{}:")
            place = "/".join(safe_name(f, 40) for f in [root, *folders[:3]])
            target = self._take(ORPHANS, place, name, _key(entry.file))
            files.append(self._file(entry, target))
        return CaptureUnit(ORPHANS, ORPHANS, ORPHANS, "orphans", tuple(files), missing=tuple(missing))

    def _host(self) -> CaptureUnit:
        files: list[CaptureFile] = []
        missing: list[str] = []
        for entry, place in self._found.host_files:
            if entry.file.unreadable:
                missing.append(entry.file.original)
                continue
            folder, _, name = place.rpartition("/")
            folder = "/".join(safe_name(part) for part in folder.split("/"))
            # the host keeps a copy of its own of what a machine has too
            target = self._take(HOST, folder, name, f"{HOST}:{_key(entry.file)}")
            files.append(self._file(entry, target))
        return CaptureUnit(HOST, self._found.name, HOST, "host", tuple(files), missing=tuple(missing))

    def _take(self, folder: str, place: str, name: str, key: str) -> str:
        where = f"{folder}/{place}" if place else folder
        target = f"{where}/{self._names.take(name, where)}"
        self._targets[key] = target
        return target

    def _file(self, entry: MachineFile, target: str, shared: tuple[str, ...] = ()) -> CaptureFile:
        file = entry.file
        return CaptureFile(
            source=SourceRef(self._refs[file.volume], file.path),
            original=file.original,
            target=target,
            role=entry.role,
            size=file.size,
            created=file.created,
            modified=file.modified,
            attributes=file.attributes,
            file_id=file.file_id,
            sddl=file.sddl,
            shared_with=shared,
        )

    def _with_parents(self, unit: CaptureUnit) -> CaptureUnit:
        """The unit with each differencing disk's parent, when all targets are known."""
        parents: dict[str, str] = {}
        for chain in _chains(self._found):
            for child, parent in itertools.pairwise(chain):
                if _key(parent) in self._targets:
                    parents[_key(child)] = self._targets[_key(parent)]
        if not any(f.original.lower() in parents for f in unit.files):
            return unit
        files = tuple(replace(f, parent=parents.get(f.original.lower())) for f in unit.files)
        return replace(unit, files=files)


def _key(file: FoundFile) -> str:
    return file.original.lower()


def _chains(found: FoundHost) -> Iterable[tuple[FoundFile, ...]]:
    for machine in found.machines:
        for chain in machine.chains.values():
            yield tuple(d.file for d in chain.disks)
    for chain in found.orphan_chains:
        yield tuple(d.file for d in chain.disks)


def _place(machine: FoundMachine, entry: MachineFile) -> tuple[str, str]:
    """Folder and name inside the machine's folder: those of an export by Hyper-V, which it can read back."""
    path = entry.file.path
    folder, _, name = path.rpartition("\\")
    if entry.role in (Role.DISK, Role.DIFFERENCING_DISK, Role.CHANGE_TRACKING, Role.REPLICA_LOG):
        return "Virtual Hard Disks", name
    if entry.role is Role.IMAGE:
        return "Images", name
    homes = [(machine.configuration.file, "Virtual Machines")]
    homes += [(c.file, "Snapshots") for c in machine.checkpoints]
    for configuration, place in homes:
        home = configuration.path.rpartition("\\")[0]
        same = configuration.volume == entry.file.volume and (folder + "\\").lower().startswith(
            (home + "\\").lower()
        )
        mine = configuration == entry.file or configuration.path.rpartition(".")[0].lower() in path.lower()
        if same and mine:
            below = [safe_name(p, 40) for p in folder[len(home) :].split("\\") if p]
            return "/".join([place, *below]), name
    return "Snapshots" if entry.role in (Role.CHECKPOINT, Role.CHECKPOINT_STATE) else "Virtual Machines", name
