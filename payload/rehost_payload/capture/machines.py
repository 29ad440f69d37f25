"""From configurations to machines: which checkpoints and which files belong to each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rehost_payload.capture.configurations import read_tree, stem
from rehost_payload.capture.disks import Disks
from rehost_payload.capture.found import (
    Chain,
    FoundConfiguration,
    FoundDisk,
    FoundFile,
    FoundMachine,
    MachineFile,
)
from rehost_payload.capture.model import DiskUse, Role
from rehost_payload.capture.places import Place, Places
from rehost_payload.capture.processor import vendor_of
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.filesystem import has_suffix
from rehost_payload.formats.vm_devices import Drive
from rehost_payload.formats.vm_model import SavedState, read_saved_state
from rehost_payload.formats.vmgs import GuestState, parse_vmgs

DISKS = frozenset({".vhd", ".vhdx", ".avhd", ".avhdx", ".vhds"})
_TRACKING = frozenset({".rct", ".mrt"})
_STATES = frozenset({".vmrs", ".vsv", ".bin"})
LOOSE = _TRACKING | _STATES | {".vmcx", ".vmgs", ".slp", ".hrl"}
"""Files that are worth keeping even where no machine claims them; all others of these names are not Hyper-V's."""
_ROLES = {".vmgs": Role.GUEST_STATE, ".slp": Role.SMART_PAGING, ".hrl": Role.REPLICA_LOG}
_MOST_FILES = 1000  # in a machine's own folder; a handful is usual
_DEPTH = 3
_LARGEST_STATE = 64 << 30


@dataclass
class _Parts:
    """A machine while its files are gathered; files once each, by their place."""

    files: dict[str, MachineFile] = field(default_factory=dict)
    chains: dict[str, Chain] = field(default_factory=dict)
    missing: dict[str, None] = field(default_factory=dict)
    unreached: dict[str, None] = field(default_factory=dict)
    images: dict[str, None] = field(default_factory=dict)  # that are not there

    def add(self, file: FoundFile | None, role: Role) -> None:
        if file is not None:
            self.files.setdefault(file.original.lower(), MachineFile(file, role))


class Machines:
    """Puts machines together from what the scan has found."""

    def __init__(
        self,
        places: Places,
        disks: Disks,
        configurations: Sequence[FoundConfiguration],
        scanned: Iterable[Place],
        known: dict[str, str] | None,
    ) -> None:
        self._places = places
        self._disks = disks
        self._configurations = configurations
        self._known = known
        self._beside: dict[tuple[str, str], list[Place]] = {}  # files of a folder
        for place in scanned:
            folder = place.path.rpartition("\\")[0].lower()
            self._beside.setdefault((place.volume, folder), []).append(place)

    def all(self) -> list[FoundMachine]:
        """The machines, those that the host knows first, by name."""
        heads = [c for c in self._configurations if c.kind != "checkpoint"]
        checkpoints = self._checkpoints_of(heads)
        found = [self._machine(c, checkpoints.get(c.file.original, [])) for c in heads]
        return sorted(found, key=lambda m: (not m.registered, m.name.lower(), m.configuration.file.original))

    def stray_checkpoints(self) -> list[FoundConfiguration]:
        """Configurations of checkpoints that belong to no machine."""
        heads = [c for c in self._configurations if c.kind != "checkpoint"]
        used = {c.file.original for group in self._checkpoints_of(heads).values() for c in group}
        return [c for c in self._configurations if c.kind == "checkpoint" and c.file.original not in used]

    # --- checkpoints

    def _checkpoints_of(self, heads: Sequence[FoundConfiguration]) -> dict[str, list[FoundConfiguration]]:
        """By the machine's configuration file. By what the machine lists, by its GUID, by a common disk.

        One that cannot be read belongs to the only machine whose folder lies beside its own.
        """
        found: dict[str, list[FoundConfiguration]] = {}
        for checkpoint in (c for c in self._configurations if c.kind == "checkpoint"):
            owners = [h for h in heads if self._lists(h, checkpoint)]
            if not owners:
                owners = [h for h in heads if checkpoint.machine and h.id == checkpoint.machine.machine_id]
            if not owners:
                owners = [h for h in heads if self._share_a_disk(h, checkpoint)]
            if not owners and checkpoint.machine is None:
                owners = [h for h in heads if _home(h) == _home(checkpoint)]
                owners = owners if len(owners) == 1 else []
            if len(owners) > 1:  # copies of a machine have its GUIDs: the nearest folder counts
                owners = [max(owners, key=lambda h: _common(h.file.original, checkpoint.file.original))]
            if owners:
                found.setdefault(owners[0].file.original, []).append(checkpoint)
        return found

    @staticmethod
    def _lists(head: FoundConfiguration, checkpoint: FoundConfiguration) -> bool:
        machine = head.machine
        return machine is not None and any(
            checkpoint.id in entry.guids for entry in machine.checkpoints.entries
        )

    def _share_a_disk(self, head: FoundConfiguration, checkpoint: FoundConfiguration) -> bool:
        return bool(self._disk_files(head) & self._disk_files(checkpoint))

    def _disk_files(self, configuration: FoundConfiguration) -> set[str]:
        found: set[str] = set()
        for drive in configuration.machine.drives if configuration.machine else ():
            place = self._places.resolve(drive.path) if drive.is_file else None
            if place is not None and drive.medium.upper() == "VHD":
                found |= {d.file.original.lower() for d in self._disks.chain(place).disks}
        return found

    # --- one machine

    def _machine(
        self, configuration: FoundConfiguration, checkpoints: Sequence[FoundConfiguration]
    ) -> FoundMachine:
        parts = _Parts()
        self._own_files(parts, configuration, Role.CONFIGURATION, Role.STATE)
        uses = self._drives(parts, configuration)
        for checkpoint in checkpoints:
            self._own_files(parts, checkpoint, Role.CHECKPOINT, Role.CHECKPOINT_STATE)
            self._drives(parts, checkpoint)
        for chain in list(parts.chains.values()):
            for disk in chain.disks:
                self._companions(parts, disk.file)
        machine = configuration.machine
        state, vendor = self._state(parts, configuration)
        ids = {c.id for c in checkpoints}
        states = [i for i in sorted(ids) if self._has_memory(parts, i)]
        return FoundMachine(
            id=configuration.id,
            name=(machine.name if machine else "") or configuration.id,
            configuration=configuration,
            registered=self._registered(configuration),
            checkpoints=tuple(checkpoints),
            files=tuple(parts.files.values()),
            disks=tuple(uses),
            chains=parts.chains,
            state=state,
            state_vendor=vendor,
            checkpoint_states=tuple(states),
            guest_state=self._guest_state(parts, configuration),
            missing=tuple(parts.missing),
            unreached=tuple(parts.unreached),
            images=tuple(parts.images),
        )

    def _registered(self, configuration: FoundConfiguration) -> bool | None:
        if self._known is None:
            return None
        path = self._known.get(configuration.id)
        place = None if path is None else self._places.resolve(path)
        return place is not None and (place.volume, place.path) == (
            configuration.file.volume,
            configuration.file.path,
        )

    def _own_files(
        self, parts: _Parts, configuration: FoundConfiguration, role: Role, state_role: Role
    ) -> None:
        """The configuration, what lies beside it under the same GUID, and the folder of this GUID."""
        file, machine = configuration.file, configuration.machine
        parts.add(file, role)
        folder = file.path.rpartition("\\")[0]
        for place in self._beside.get((file.volume, folder.lower()), ()):
            if stem(place.path).lower() == configuration.id and not has_suffix(
                place.path, frozenset({".vmcx", ".xml"})
            ):
                parts.add(self._places.file(place), file_role(place.path, state_role))
        self._folder(parts, file.volume, f"{folder}\\{stem(file.path)}", state_role)
        if machine is None:
            return
        self._named(parts, machine.firmware.guest_state_file, Role.GUEST_STATE)
        state = machine.saved_state
        for path in (state.state_file, state.memory_file):
            self._named(parts, path, state_role)
        paging = machine.places.smart_paging
        for place in self._folder_files(paging) if paging else ():
            if stem(place.path).lower().startswith(configuration.id):
                parts.add(self._places.file(place), Role.SMART_PAGING)

    def _folder_files(self, path: str) -> list[Place]:
        place = self._places.resolve(path)
        found = [] if place is None else list(self._beside.get((place.volume, place.path.lower()), ()))
        inner = self._places.resolve(path.rstrip("\\") + "\\Virtual Machines")
        return found + ([] if inner is None else self._beside.get((inner.volume, inner.path.lower()), []))

    def _folder(self, parts: _Parts, volume: str, folder: str, state_role: Role) -> None:
        """Everything in the folder that is called by a machine's GUID; nothing else is ever kept there."""
        waiting = [(folder, 0)]
        count = 0
        while waiting:
            current, depth = waiting.pop()
            for name in self._places.listdir(volume, current):
                if name.endswith("\\"):
                    if depth < _DEPTH:
                        waiting.append((f"{current}\\{name[:-1]}", depth + 1))
                    continue
                count += 1
                if count > _MOST_FILES:
                    self._places.trouble("too-many", folder, f"more than {_MOST_FILES} files")
                    return
                path = f"{current}\\{name}"
                if not has_suffix(name, frozenset({".vmcx", ".xml"})):
                    parts.add(self._places.file(Place(volume, path)), file_role(path, state_role))

    def _named(self, parts: _Parts, path: str, role: Role) -> None:
        """A file that a configuration names by its full path."""
        if not path:
            return
        place = self._places.resolve(path)
        file = None if place is None else self._places.file(place)
        if file is not None:
            parts.add(file, role)
        elif place is None:
            why = self._places.unreachable(path)
            (parts.missing if why is None else parts.unreached).setdefault(path)

    # --- drives and disks

    def _drives(self, parts: _Parts, configuration: FoundConfiguration) -> list[DiskUse]:
        uses: list[DiskUse] = []
        for drive in configuration.machine.drives if configuration.machine else ():
            if drive.empty:
                continue
            place = (drive.bus, drive.controller, drive.slot)
            if drive.medium.upper() in ("ISO", "VFD"):
                self._image(parts, drive)
                continue
            if not drive.is_file:
                uses.append(DiskUse(*place, drive.path or drive.medium, pass_through=True))
                continue
            uses.append(DiskUse(*place, *self._attach(parts, drive)))
        return uses

    def _image(self, parts: _Parts, drive: Drive) -> None:
        """An ISO or floppy image: a machine is whole without it. A drive of the host is none."""
        place = self._places.resolve(drive.path) if drive.is_file else None
        file = None if place is None else self._places.file(place)
        if file is not None:
            parts.add(file, Role.IMAGE)
        else:
            parts.images.setdefault(drive.path)

    def _attach(self, parts: _Parts, drive: Drive) -> tuple[str, tuple[str, ...]]:
        """The disk's original path and its chain; the files of the chain become the machine's."""
        place = self._places.resolve(drive.path)
        chain = Chain(()) if place is None else self._disks.chain(place)
        if not chain.disks:
            why = self._places.unreachable(drive.path)
            (parts.missing if why is None else parts.unreached).setdefault(drive.path)
            return drive.path, ()
        self._take(parts, chain)
        return chain.disks[0].file.original, tuple(d.file.original for d in chain.disks)

    @staticmethod
    def _take(parts: _Parts, chain: Chain) -> None:
        parts.chains.setdefault(chain.disks[0].file.original, chain)
        for disk in chain.disks:
            parts.add(disk.file, disk_role(disk))
        for fault in chain.faults:
            if fault.kind == "missing":
                parts.missing.setdefault(fault.parent)

    def _companions(self, parts: _Parts, file: FoundFile) -> None:
        """Change tracking, replica logs, and the layers of a shared disk, which lie beside it."""
        folder, _, name = file.path.rpartition("\\")
        name = name.lower()
        for place in self._beside.get((file.volume, folder.lower()), ()):
            other = place.path.rpartition("\\")[2].lower()
            if other == name:
                continue
            if has_suffix(other, _TRACKING) and stem(other) in (name, stem(name)):
                parts.add(self._places.file(place), Role.CHANGE_TRACKING)
            elif other.endswith(".hrl") and other.startswith(stem(name)):
                parts.add(self._places.file(place), Role.REPLICA_LOG)
            elif name.endswith(".vhds") and other.startswith(stem(name)) and has_suffix(other, DISKS):
                chain = self._disks.chain(place)
                if chain.disks:
                    self._take(parts, chain)

    # --- states

    def _state(self, parts: _Parts, configuration: FoundConfiguration) -> tuple[SavedState | None, str]:
        """The machine's saved state and the maker of the processor it was made on, as far as they can be read."""
        listed = configuration.machine.saved_state if configuration.machine else None
        best = listed if listed is not None and listed.present else None
        for entry in parts.files.values():
            if entry.role is not Role.STATE:
                continue
            state, vendor = self._read_state(entry.file)
            if state is not None and state.present:
                return state, vendor
            if entry.file.path.lower().endswith((".vsv", ".bin")) and entry.file.size > 0 and best is None:
                best = SavedState(state_file=entry.file.original)
        return best, ""

    def _guest_state(self, parts: _Parts, configuration: FoundConfiguration) -> GuestState | None:
        """What the machine's guest state file says; a second sign of a virtual TPM."""
        for entry in parts.files.values():
            if entry.role is not Role.GUEST_STATE or entry.file.unreadable:
                continue
            if stem(entry.file.path).lower() != configuration.id:
                continue
            try:
                return parse_vmgs(self._places.reader(entry.file.volume).open(entry.file.path))
            except (FormatError, OSError):
                return None  # older machines, or another format: it is captured, and that is enough
        return None

    def _has_memory(self, parts: _Parts, checkpoint: str) -> bool:
        for entry in parts.files.values():
            if entry.role is not Role.CHECKPOINT_STATE or checkpoint not in entry.file.path.lower():
                continue
            if entry.file.path.lower().endswith((".vsv", ".bin")):
                return True
            state, _ = self._read_state(entry.file)
            if state is not None and (state.has_processors or state.memory_blocks):
                return True
        return False

    def _read_state(self, file: FoundFile) -> tuple[SavedState | None, str]:
        if file.unreadable or file.size > _LARGEST_STATE or not has_suffix(file.path, _STATES - {".bin"}):
            return None, ""
        try:
            root, _ = read_tree(self._places.reader(file.volume).open(file.path), file.path)
            return read_saved_state(root), vendor_of(root)
        except (FormatError, OSError) as error:
            # old states (.vsv) are another format: that the file is there says enough
            if file.path.lower().endswith(".vmrs"):
                self._places.trouble("state", file.original, str(error))
            return None, ""


def disk_role(disk: FoundDisk) -> Role:
    differencing = disk.differencing or has_suffix(disk.file.path, frozenset({".avhd", ".avhdx"}))
    return Role.DIFFERENCING_DISK if differencing else Role.DISK


def file_role(path: str, state_role: Role) -> Role:
    """What a file that lies beside a configuration is, by its ending."""
    if has_suffix(path, _STATES):
        return state_role
    ending = path[path.rfind(".") :].lower()
    return _ROLES.get(ending, Role.CHANGE_TRACKING if ending in _TRACKING else Role.UNKNOWN)


def _home(configuration: FoundConfiguration) -> tuple[str, str]:
    """The folder that holds "Virtual Machines" and "Snapshots"."""
    file = configuration.file
    return file.volume, file.path.lower().rpartition("\\")[0].rpartition("\\")[0]


def _common(first: str, second: str) -> int:
    """How many folders two paths have in common."""
    count = 0
    for a, b in zip(first.lower().split("\\"), second.lower().split("\\"), strict=False):
        if a != b:
            break
        count += 1
    return count
