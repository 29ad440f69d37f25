"""What the stages of a capture hand to each other: plain, frozen, JSON-serialisable data.

find (survey) -> assess -> CapturePlan -> copy -> manifest -> restore scripts. Sizes are bytes, times are Windows
FILETIME (100 ns since 1601, UTC), GUIDs lower case without braces. Paths with a letter are those of the *old* Windows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from rehost_payload.repair.model import Finding, Severity, VolumeRef

FORMAT = 1
"""Version of manifest.json and host.json."""
NOT_WHOLE = (Severity.FATAL, Severity.BLOCKER)
"""Findings of these weights: something is not in the capture, or was damaged before, however well it was copied."""


class Role(StrEnum):
    """What a captured file is to its machine."""

    CONFIGURATION = "configuration"  # .vmcx, .xml
    STATE = "state"  # .vmrs, .bin, .vsv
    GUEST_STATE = "guest-state"  # .vmgs
    DISK = "disk"  # .vhd, .vhdx, .vhds
    DIFFERENCING_DISK = "differencing-disk"  # .avhd, .avhdx, or a differencing .vhd(x)
    CHECKPOINT = "checkpoint"  # configuration of a checkpoint
    CHECKPOINT_STATE = "checkpoint-state"
    SMART_PAGING = "smart-paging"
    CHANGE_TRACKING = "change-tracking"  # .rct, .mrt
    REPLICA_LOG = "replica-log"
    IMAGE = "image"  # .iso, .vfd
    HIVE = "hive"
    EVIDENCE = "evidence"  # kept raw for the host, for later questions
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class SourceRef:
    """Where a file's bytes are now: a volume of this machine and the path on it, with backslashes."""

    volume: VolumeRef
    path: str


@dataclass(frozen=True)
class CaptureFile:
    """One file that is copied.

    ``original`` is its full path under the old Windows ("D:\\VMs\\web01\\web01.vhdx"), or with a volume GUID where the
    volume had no letter. ``target`` is relative to the capture's folder, with forward slashes
    ("web01/Virtual Hard Disks/web01.vhdx").
    """

    source: SourceRef
    original: str
    target: str
    role: Role
    size: int
    created: int = 0
    modified: int = 0
    attributes: int = 0
    file_id: int | None = None  # NTFS file reference: tells a replaced file from the same one
    sddl: str | None = None
    shared_with: tuple[str, ...] = ()  # ids of further units that need this file (a common parent disk)
    parent: str | None = None  # a differencing disk's parent, as ``target`` of the file in this capture


@dataclass(frozen=True)
class DiskUse:
    """A virtual disk of a machine: where it is attached and the chain from the child to the base (``original``)."""

    controller: str  # "IDE", "SCSI", ...
    controller_number: int
    slot: int
    path: str  # original; for a pass-through disk what the configuration says
    chain: tuple[str, ...] = ()
    pass_through: bool = False


@dataclass(frozen=True)
class AdapterUse:
    """A network adapter; ``switch`` is the switch's name on the old host, "" where it is not connected.

    ``vlan`` is the VLAN of access mode; ``vlan_by_hand`` says what else was set there, "" where nothing was.
    """

    name: str
    mac: str
    mac_static: bool | None
    switch: str
    vlan: int | None = None
    legacy: bool = False
    vlan_by_hand: str = ""


@dataclass(frozen=True)
class CheckpointUse:
    """A checkpoint with a configuration of its own (``configuration`` is an ``original``)."""

    id: str
    name: str
    parent: str | None
    configuration: str
    has_state: bool = False


@dataclass(frozen=True)
class MachineSummary:
    """What the way back needs to know of a virtual machine, so that the scripts decide as little as possible."""

    id: str
    name: str
    generation: int | None
    version: str  # "9.0", "?"
    configuration: str  # original
    processors: int | None = None
    memory_mb: int | None = None
    memory_minimum_mb: int | None = None
    memory_maximum_mb: int | None = None
    dynamic_memory: bool | None = None
    secure_boot: bool | None = None
    secure_boot_template: str = ""
    tpm: bool | None = None
    shielded: bool | None = None
    saved_state: bool = False
    registered: bool | None = None  # known to the host's own list; None where there is no list
    start_action: str = ""
    stop_action: str = ""
    notes: str = ""
    highly_available: bool | None = None
    replica: bool = False
    disks: tuple[DiskUse, ...] = ()
    adapters: tuple[AdapterUse, ...] = ()
    checkpoints: tuple[CheckpointUse, ...] = ()
    unread: tuple[str, ...] = ()  # what was not understood


@dataclass(frozen=True)
class CaptureUnit:
    """One folder of the capture: a virtual machine, the host, or disks that belong to no machine."""

    id: str  # the machine's GUID, "host", or "orphans"
    name: str  # as the operator knows it
    folder: str  # the one folder name below the capture's folder
    kind: str  # "machine", "host", "orphans"
    files: tuple[CaptureFile, ...]
    machine: MachineSummary | None = None
    findings: tuple[Finding, ...] = ()
    missing: tuple[str, ...] = ()  # originals that the configuration names and no volume has

    @property
    def size(self) -> int:
        return sum(f.size for f in self.files)


@dataclass(frozen=True)
class CapturePlan:
    """Everything that a capture will copy. ``name`` is the folder on each target: "Rehost-<host>-<date>". The last three
    are what was chosen (CaptureChoices)."""

    name: str
    host: str
    units: tuple[CaptureUnit, ...]
    findings: tuple[Finding, ...] = ()
    config_only: bool = False
    images: bool = False
    orphans: bool = True

    @property
    def size(self) -> int:
        return sum(u.size for u in self.units)


@dataclass(frozen=True)
class CaptureChoices:
    """What the operator decided.

    ``machines`` are ids or names; None: all. ``windows`` is the id of the installation that is the host (survey's),
    where there are several. ``exclude`` are volumes that must not be looked at: the capture's own targets.
    ``taken`` is the ISO 8601 time (UTC) that names the capture.
    """

    taken: str
    machines: tuple[str, ...] | None = None
    images: bool = False  # ISO images too
    config_only: bool = False  # no disks, no memory of saved states
    orphans: bool = True  # virtual disks that belong to no machine
    windows: str | None = None
    exclude: tuple[VolumeRef, ...] = ()
    guardian_files: tuple[tuple[str, bytes], ...] = ()  # saved certificates of virtual TPMs: name and content


# --- what a capture leaves: manifest.json of a unit -----------------------------------------------------------


@dataclass(frozen=True)
class BadRange:
    """Bytes that could not be read from the source; the copy has zeros there."""

    offset: int
    length: int
    reason: str


@dataclass(frozen=True)
class ManifestFile:
    """A captured file. ``chunks`` are the SHA-256 of each ``chunk_size`` bytes, ``sha256`` that of the whole file."""

    path: str  # below the unit's folder, with forward slashes
    original: str
    role: Role
    size: int
    sha256: str
    chunks: tuple[str, ...]
    created: int = 0
    modified: int = 0
    attributes: int = 0
    sddl: str | None = None
    parent: str | None = None  # path of the parent disk: below this unit, or "../<other unit>/..."
    bad_ranges: tuple[BadRange, ...] = ()


@dataclass(frozen=True)
class FailedFile:
    """A file of the plan that is not in the copy at all, and why."""

    path: str  # below the unit's folder
    original: str
    reason: str


@dataclass(frozen=True)
class Manifest:
    """manifest.json of one unit's folder, on each target.

    ``complete``: every file of the unit was read whole, written, flushed and read back from this target.
    ``missing`` were named by the configuration and found nowhere.
    """

    format: int
    rehost: str
    unit: str
    name: str
    kind: str
    host: str
    taken: str  # ISO 8601, UTC
    chunk_size: int
    complete: bool
    files: tuple[ManifestFile, ...]
    machine: MachineSummary | None = None
    missing: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    failed: tuple[FailedFile, ...] = ()


# --- host.json ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evidence:
    """The registry value that something was read from, so that it can be judged anew later."""

    hive: str  # "SYSTEM", "SOFTWARE"
    key: str
    value: str
    type: int
    data: str  # hex


@dataclass(frozen=True)
class Uplink:
    """A physical adapter below a switch. ``name`` is the connection's name ("Ethernet 2")."""

    guid: str  # NetCfgInstanceId
    name: str = ""
    description: str = ""
    pnp_id: str = ""
    mac: str = ""


@dataclass(frozen=True)
class HostAdapter:
    """A network adapter of the host itself: a virtual one on a switch, or a physical one with addresses."""

    guid: str
    name: str
    switch: str = ""  # name of the switch it is on, "" for a physical one
    addresses: tuple[str, ...] = ()  # "192.0.2.10/24"
    gateways: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    dhcp: bool | None = None
    mac: str = ""
    vlan: int | None = None


@dataclass(frozen=True)
class VirtualSwitch:
    """``kind``: "external", "internal" or "private"; ``team``: "" or "set" or "lbfo"."""

    id: str
    name: str
    kind: str
    uplinks: tuple[Uplink, ...] = ()
    host_adapter: bool = False  # AllowManagementOS
    team: str = ""
    bandwidth_mode: str = ""
    sriov: bool | None = None
    notes: str = ""


@dataclass(frozen=True)
class Letter:
    """A drive letter of the old Windows and what it pointed to."""

    letter: str  # "D:"
    partition_guid: str | None = None
    signature: int | None = None
    offset: int | None = None
    label: str = ""
    size: int | None = None
    file_system: str = ""
    holds_machines: bool = False


@dataclass(frozen=True)
class HostSettings:
    """host.json: the host's configuration as far as it could be read from its hives, with the evidence."""

    format: int
    rehost: str
    taken: str
    name: str
    product: str
    build: int | None
    locale: str
    domain: str = ""
    machine_path: str = ""  # DefaultExternalDataRoot; "" is Windows' default
    disk_path: str = ""  # DefaultVirtualHardDiskPath
    mac_minimum: str = ""
    mac_maximum: str = ""
    live_migrations: int | None = None
    storage_migrations: int | None = None
    numa_spanning: bool | None = None
    enhanced_session: bool | None = None
    switches: tuple[VirtualSwitch, ...] = ()
    adapters: tuple[HostAdapter, ...] = ()
    letters: tuple[Letter, ...] = ()
    roles: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = field(default=())
    unread: tuple[str, ...] = ()
