"""Questions about a survey that every rule asks: what is where, and what would boot from it.

Pure and cheap: indexes over the survey's tuples, nothing is read. "Ours" are the disks that may hold the server's
Windows: not the medium we run from, and no USB disk as long as an internal one holds an installation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from rehost_payload.formats.bcd import Store
from rehost_payload.formats.bcd_devices import GptIdentity, Identity, MbrIdentity, PartitionDevice, partitions
from rehost_payload.formats.gpt import EFI_SYSTEM
from rehost_payload.repair.model import Choices, DiskRef, VolumeRef
from rehost_payload.survey.model import (
    BootFile,
    BootStore,
    Disk,
    FileSystem,
    FirmwareMode,
    Partition,
    StoreRole,
    Survey,
    TableStyle,
    Volume,
    WindowsInstallation,
)
from rehost_payload.survey.store_objects import from_survey_objects

_FAT = (FileSystem.FAT12, FileSystem.FAT16, FileSystem.FAT32)
MBR_EFI_SYSTEM = "ef"
TYPE_OSLOADER = 0x10200003
DEVICE = 0x11000001
OSDEVICE = 0x21000001


def normal(path: str) -> str:
    """A path as the survey's indexes spell it: lower case, backslashes, one leading, none trailing."""
    return "\\" + path.replace("/", "\\").strip("\\").lower()


@dataclass(frozen=True)
class View:
    """A survey together with what the operator has chosen."""

    survey: Survey
    choices: Choices = field(default_factory=Choices)

    # --- indexes -------------------------------------------------------------------------------------------

    @cached_property
    def disks(self) -> dict[str, Disk]:
        return {d.id: d for d in self.survey.disks}

    @cached_property
    def volumes(self) -> dict[str, Volume]:
        return {v.id: v for v in self.survey.volumes}

    @cached_property
    def partitions(self) -> dict[str, Partition]:
        return {p.id: p for d in self.survey.disks for p in d.table.partitions}

    @cached_property
    def windows(self) -> tuple[WindowsInstallation, ...]:
        """The installations on our disks (on the chosen disk, where one was chosen)."""
        return tuple(w for w in self.survey.windows if self.disk_of(w.volume).id in self._ours)

    @cached_property
    def _ours(self) -> frozenset[str]:
        return self._fixed if self.choices.disk is None else frozenset({self.choices.disk})

    @cached_property
    def _fixed(self) -> frozenset[str]:
        """Our disks as they are where none was chosen."""
        fixed = {d.id for d in self.survey.disks if not d.boot_medium and not d.removable}
        internal = {i for i in fixed if self.disks[i].transport != "usb"}
        with_windows = {self.disk_of(w.volume).id for w in self.survey.windows}
        return frozenset(internal if internal & with_windows or not fixed & with_windows else fixed)

    @cached_property
    def _paths(self) -> dict[str, tuple[str, ...]]:
        index: dict[str, list[str]] = {}
        for p in self.survey.paths:
            index.setdefault(normal(p.path), []).append(p.volume)
        return {k: tuple(v) for k, v in index.items()}

    # --- disks and volumes ---------------------------------------------------------------------------------

    def disk_of(self, volume_id: str) -> Disk:
        return self.disks[self.volumes[volume_id].disk]

    def ours(self, volume_id: str) -> bool:
        return self.volumes[volume_id].disk in self._ours

    @cached_property
    def our_disks(self) -> tuple[Disk, ...]:
        return tuple(d for d in self.survey.disks if d.id in self._ours)

    def partition_of(self, volume: Volume) -> Partition | None:
        return self.partitions.get(volume.partition or "")

    def identity(self, volume: Volume) -> Identity | None:
        """How a boot store names the partition of ``volume``; None for a volume without one."""
        disk, partition = self.disks[volume.disk], self.partition_of(volume)
        if partition is None:
            return None
        if disk.table.style is TableStyle.GPT and disk.table.disk_guid and partition.unique_guid:
            return GptIdentity(partition.unique_guid, disk.table.disk_guid)
        if disk.table.style is TableStyle.MBR and disk.table.signature is not None:
            return MbrIdentity(disk.table.signature, partition.offset)
        return None

    def find(self, identity: Identity, near: Volume | None = None) -> tuple[Volume, ...]:
        """The volumes whose partition the boot manager would take for ``identity``, those on the disk of ``near`` first.

        GPT: the partition GUID alone decides; MBR: signature and offset must both match (measured, all versions).
        A volume on a disk that is not ours does not count where ours have the same one: the server's old disk, of which
        they were restored, may still be plugged in, and is not there at the next start.
        """
        found = []
        for v in self.survey.volumes:
            own = self.identity(v)
            if isinstance(identity, GptIdentity) and isinstance(own, GptIdentity):
                if own.partition == identity.partition:
                    found.append(v)
            elif isinstance(identity, MbrIdentity) and own == identity:
                found.append(v)
        found = [v for v in found if not self._is_elsewhere(v)]
        return tuple(sorted(found, key=lambda v: near is None or v.disk != near.disk))

    def _is_elsewhere(self, volume: Volume) -> bool:
        """Whether it is the copy, on a disk that is not ours, of a volume that is on one of ours."""
        ours = self._ours | self._fixed
        if volume.disk in ours or not volume.serial:
            return False
        same = (volume.file_system, volume.serial)
        return any(v.disk in ours and (v.file_system, v.serial) == same for v in self.survey.volumes)

    def mode(self, disk: Disk) -> FirmwareMode:
        """The firmware mode that this disk's contents are made for, whatever mode we were started in.

        GPT means UEFI (Windows boots from GPT in no other way). An MBR disk means BIOS, unless it has an EFI
        system partition and no boot manager for BIOS.
        """
        if disk.table.style is TableStyle.GPT:
            return FirmwareMode.UEFI
        volumes = [v for v in self.survey.volumes if v.disk == disk.id]
        has_esp = any((p := self.partition_of(v)) and p.type == MBR_EFI_SYSTEM for v in volumes)
        has_bootmgr = any(self.boot_file(v, "\\bootmgr") for v in volumes)
        return FirmwareMode.UEFI if has_esp and not has_bootmgr else FirmwareMode.BIOS

    def boot_file(self, volume: Volume, path: str) -> BootFile | None:
        wanted = normal(path)
        return next((f for f in volume.boot_files if normal(f.path) == wanted), None)

    def holders(self, path: str) -> tuple[Volume, ...]:
        """The volumes on our disks that hold ``path`` (which some store refers to)."""
        return tuple(self.volumes[v] for v in self._paths.get(normal(path), ()) if self.ours(v))

    def holds(self, volume: Volume, path: str) -> bool:
        return volume.id in self._paths.get(normal(path), ())

    # --- system partitions ---------------------------------------------------------------------------------

    def is_esp(self, volume: Volume) -> bool:
        partition = self.partition_of(volume)
        return (
            partition is not None
            and partition.type in (EFI_SYSTEM, MBR_EFI_SYSTEM)
            and volume.file_system in _FAT
        )

    @cached_property
    def esps(self) -> tuple[Volume, ...]:
        return tuple(v for v in self.survey.volumes if self.ours(v.id) and self.is_esp(v))

    def installations_on(self, disk: Disk) -> tuple[WindowsInstallation, ...]:
        return tuple(w for w in self.windows if self.volumes[w.volume].disk == disk.id)

    def installation_at(self, volume: Volume, root: str) -> WindowsInstallation | None:
        return next(
            (w for w in self.windows if w.volume == volume.id and normal(w.root) == normal(root)), None
        )

    @cached_property
    def bios_disks(self) -> tuple[Disk, ...]:
        """Our MBR disks that start, or should start, a Windows by BIOS."""
        found = []
        for d in self.our_disks:
            if d.table.style is not TableStyle.MBR or self.mode(d) is not FirmwareMode.BIOS:
                continue
            on_disk = [v for v in self.survey.volumes if v.disk == d.id]
            if self.installations_on(d) or any(self.boot_file(v, "\\bootmgr") for v in on_disk):
                found.append(d)
        return tuple(found)

    @cached_property
    def bios_starts(self) -> tuple[Disk, ...]:
        """Those of `bios_disks` whose boot files start a Windows: their own, or that of a disk that has none."""
        started = {w.id: self._starter(w) for w in self.bios_disks if self.installations_on(w)}
        return tuple(d for d in self.bios_disks if d.id in started.values())

    def _starter(self, disk: Disk) -> str:
        """The disk whose boot files start the Windows on ``disk``: itself, unless it has no boot manager and another one
        has boot manager and store, whose entries lead here, or to no partition at all. Where only one of the two disks
        has an active partition, it is that."""
        if any(v.disk == disk.id and self.boot_file(v, "\\bootmgr") for v in self.survey.volumes):
            return disk.id
        active = any(p.active for p in disk.table.partitions)
        for other in self.bios_disks:
            system = self.bios_system_volume(other)
            own = self.partition_of(system) if system is not None else None
            if other == disk or system is None or own is None or (active and not own.active):
                continue
            for store in self.survey.boot_stores:
                if store.volume != system.id or not self.boot_file(system, "\\bootmgr"):
                    continue
                leads_to = self._disks_started_by(store)
                lost = leads_to == set() and not self.installations_on(other)
                if disk.id in (leads_to or ()) or lost:
                    return other.id
        return disk.id

    def _disks_started_by(self, store: BootStore) -> set[str] | None:
        """The disks on which its entries of a Windows are found; None where it has no such entry."""
        devices = [
            o.device(OSDEVICE) or o.device(DEVICE)
            for o in self.content(store).objects.values()
            if o.type == TYPE_OSLOADER
        ]
        named = [i for d in devices if isinstance(d, PartitionDevice) for i in partitions(d)]
        return {v.disk for i in named for v in self.find(i)} if named else None

    def bios_system_volume(self, disk: Disk) -> Volume | None:
        """The active partition; else the one that holds bootmgr; else the one a Windows setup would have made so."""
        volumes = [v for v in self.survey.volumes if v.disk == disk.id and v.partition]
        if self.choices.system_volume in [v.id for v in volumes]:
            return self.volumes[self.choices.system_volume or ""]
        active = [v for v in volumes if (p := self.partition_of(v)) and p.active]
        if len(active) == 1:
            return active[0]
        with_bootmgr = [v for v in active or volumes if self.boot_file(v, "\\bootmgr")]
        if with_bootmgr:
            return with_bootmgr[0]
        primary = [v for v in volumes if (p := self.partition_of(v)) and p.number <= 4]
        reserved = [v for v in primary if v.label.lower() in ("system reserved", "system-reserviert")]
        holding = [v for v in primary if any(w.volume == v.id for w in self.windows)]
        return next(iter(reserved or holding), None)

    @property
    def system_candidates(self) -> tuple[Volume, ...]:
        """What may be chosen as the system partition: ESPs, and primary partitions of disks that start by BIOS."""
        bios = [d.id for d in self.bios_disks]
        primary = [
            v for v in self.survey.volumes if v.disk in bios and (p := self.partition_of(v)) and p.number <= 4
        ]
        return (*self.esps, *primary)

    @cached_property
    def esp(self) -> Volume | None:
        """The EFI system partition that this server starts from.

        The operator's choice; else the one the firmware's first usable entry for the boot manager names; else one on
        a disk with an installation (with a store before one without); else any.
        """
        by_id = {v.id: v for v in self.esps}
        if self.choices.system_volume in by_id:
            return by_id[self.choices.system_volume or ""]
        firmware = self.survey.firmware
        entries = {e.id: e for e in firmware.boot_entries}
        for number in firmware.boot_order:
            entry = entries.get(number)
            if entry is None or not entry.active or "bootmgfw" not in (entry.path or "").lower():
                continue
            for v in self.esps:
                p = self.partition_of(v)
                if p is not None and p.unique_guid is not None and p.unique_guid == entry.partition_guid:
                    return v
        stores = {s.volume for s in self.survey.boot_stores if s.role is StoreRole.EFI_SYSTEM and s.objects}
        with_windows = {self.volumes[w.volume].disk for w in self._chosen_windows}
        ranked = sorted(self.esps, key=lambda v: (v.disk not in with_windows, v.id not in stores))
        return ranked[0] if ranked else None

    @cached_property
    def _chosen_windows(self) -> tuple[WindowsInstallation, ...]:
        if self.choices.windows is None:
            return self.windows
        return tuple(w for w in self.windows if w.id == self.choices.windows)

    @property
    def candidates(self) -> tuple[WindowsInstallation, ...]:
        """The installations that may be meant: the chosen one, or all of them."""
        return self._chosen_windows

    # --- stores --------------------------------------------------------------------------------------------

    @cached_property
    def stores(self) -> tuple[BootStore, ...]:
        """The stores that a start of this server can use; install media copied to a data disk is not among them."""
        return tuple(s for s in self.survey.boot_stores if self.ours(s.volume) and self._counts(s))

    def _counts(self, store: BootStore) -> bool:
        volume = self.volumes[store.volume]
        disk = self.disks[volume.disk]
        if store.role is StoreRole.BIOS_SYSTEM:
            if disk not in self.bios_disks:
                return False
            system = self.bios_system_volume(disk)
            return system is not None and system.id == volume.id
        if self.mode(disk) is not FirmwareMode.UEFI:
            return False
        on_disk = [v for v in self.esps if v.disk == disk.id]
        return self.is_esp(volume) or (not on_disk and volume.file_system in _FAT)

    @cached_property
    def _contents(self) -> dict[str, Store]:
        return {s.id: from_survey_objects(s.objects) for s in self.survey.boot_stores}

    def content(self, store: BootStore) -> Store:
        """What the store holds (nothing where it could not be read)."""
        return self._contents[store.id]

    def store_mode(self, store: BootStore) -> FirmwareMode:
        return FirmwareMode.BIOS if store.role is StoreRole.BIOS_SYSTEM else FirmwareMode.UEFI

    # --- references that outlive this survey ----------------------------------------------------------------

    def ref(self, volume: Volume) -> VolumeRef:
        return volume_ref(volume, self.disks[volume.disk], self.partition_of(volume))

    def disk_ref(self, disk: Disk) -> DiskRef:
        return DiskRef(disk.path, disk.serial, disk.size)


def volume_ref(volume: Volume, disk: Disk, partition: Partition | None) -> VolumeRef:
    """What finds the volume again after a reboot."""
    gpt = disk.table.style is TableStyle.GPT
    return VolumeRef(
        disk=disk.path,
        offset=volume.offset,
        size=volume.size,
        file_system=volume.file_system.value,
        label=volume.label,
        partition_guid=partition.unique_guid if gpt and partition else None,
        signature=disk.table.signature if not gpt and partition else None,
        disk_serial=disk.serial,
        disk_size=disk.size,
    )
