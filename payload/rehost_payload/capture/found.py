"""What a host and its virtual machines are made of, as found on its volumes: plain data, before anything is judged."""

from __future__ import annotations

from dataclasses import dataclass, field

from rehost_payload.capture.model import DiskUse, HostSettings, Role
from rehost_payload.formats.vhd import Vhd
from rehost_payload.formats.vhdx import Vhdx
from rehost_payload.formats.vm_model import SavedState, VirtualMachine
from rehost_payload.formats.vmgs import GuestState
from rehost_payload.repair.model import VolumeRef
from rehost_payload.survey.model import Controller, Disk, Problem, WindowsInstallation


@dataclass(frozen=True)
class FoundVolume:
    """A volume of this machine, and where the old Windows had it.

    ``root`` begins every original path on it: "D:", "C:\\Mounts\\Data", or "\\\\?\\Volume{...}". ``guessed``: no
    letter is known for it, and the one given follows from the paths in the configurations.
    """

    id: str
    ref: VolumeRef
    disk: str
    root: str
    letters: tuple[str, ...] = ()
    guessed: bool = False
    unreadable: str | None = None
    label: str = ""
    file_system: str = ""
    size: int = 0
    dirty: bool = False


@dataclass(frozen=True)
class FoundFile:
    """A file where it is now (``volume``, ``path``) and where it was under the old Windows (``original``).

    ``unreadable`` says why its bytes must not be copied: "dedup", "wof", "encrypted", "reparse", "damaged".
    """

    volume: str
    path: str
    original: str
    size: int
    created: int = 0
    modified: int = 0
    attributes: int = 0
    file_id: int | None = None
    sddl: str | None = None
    unreadable: str | None = None


@dataclass(frozen=True)
class FoundDisk:
    """A virtual disk. ``disk`` is None where it could not be read, for the reason ``problem``."""

    file: FoundFile
    disk: Vhdx | Vhd | None
    problem: str = ""

    @property
    def differencing(self) -> bool:
        return self.disk is not None and self.disk.kind == "differencing"

    @property
    def dirty(self) -> bool:
        return isinstance(self.disk, Vhdx) and self.disk.log.dirty


@dataclass(frozen=True)
class ChainFault:
    """What is wrong between a child and its parent. ``parent`` is the found file, or what the child asks for.

    ``kind``: "missing", "linkage", "ring", "depth", "unreadable" or "moved" (found, but not where the child looks).
    """

    kind: str
    child: str
    parent: str
    detail: str


@dataclass(frozen=True)
class Chain:
    """From the child to the base, as far as it could be followed."""

    disks: tuple[FoundDisk, ...]
    faults: tuple[ChainFault, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class FoundConfiguration:
    """A configuration file; ``machine`` is None where it could not be read, for the reason ``problem``."""

    id: str  # the GUID that the file is called by
    file: FoundFile
    machine: VirtualMachine | None
    kind: str  # "machine", "checkpoint", ...
    problem: str = ""
    damage: tuple[str, ...] = ()


@dataclass(frozen=True)
class MachineFile:
    """A file of a machine and what it is to it."""

    file: FoundFile
    role: Role


@dataclass(frozen=True)
class FoundMachine:
    """A virtual machine with all its files. ``missing`` are paths that a configuration names and no volume has.

    ``chains`` are those of all its disks, by the original path of the child; ``disks`` are those of the machine
    itself, without its checkpoints'. ``unreached`` are paths on the network or on volumes that cannot be read.
    """

    id: str
    name: str
    configuration: FoundConfiguration
    registered: bool | None
    checkpoints: tuple[FoundConfiguration, ...] = ()
    files: tuple[MachineFile, ...] = ()
    disks: tuple[DiskUse, ...] = ()
    chains: dict[str, Chain] = field(default_factory=dict)
    state: SavedState | None = None
    state_vendor: str = ""  # of the processor that a saved state was made on
    checkpoint_states: tuple[str, ...] = ()  # ids of checkpoints with a memory state
    guest_state: GuestState | None = None
    stray: tuple[str, ...] = ()  # differencing disks on its chains that no configuration names
    missing: tuple[str, ...] = ()
    unreached: tuple[str, ...] = ()
    images: tuple[str, ...] = ()  # ISO and floppy images that are not there, or drives of the host


@dataclass(frozen=True)
class GuardianCertificate:
    """A certificate of the host that virtual TPMs may be locked with. ``purpose``: "Encryption", "Signing" or "" (not made
    by Windows); ``guardian`` is its name there. ``has_key``: with its private key on the host."""

    thumbprint: str  # upper case
    subject: str
    guardian: str
    purpose: str
    has_key: bool


@dataclass(frozen=True)
class GuardianFile:
    """A saved certificate, named by its thumbprint. ``problem`` says why it is not one that can be relied on."""

    path: str
    thumbprint: str
    data: bytes = field(repr=False)
    problem: str = ""


@dataclass(frozen=True)
class FoundHost:
    """Everything that was found. ``windows`` is the host that is captured, None where no Windows is there."""

    name: str
    windows: WindowsInstallation | None
    settings: HostSettings | None
    volumes: tuple[FoundVolume, ...]
    machines: tuple[FoundMachine, ...]
    orphans: tuple[MachineFile, ...] = ()
    orphan_chains: tuple[Chain, ...] = ()
    host_files: tuple[tuple[MachineFile, str], ...] = ()  # with their place below the host's folder
    known: dict[str, str] | None = None  # the host's own list: configuration by GUID
    lost: dict[str, str] = field(default_factory=dict)  # of these, those that are nowhere
    hosts: tuple[WindowsInstallation, ...] = ()
    disks: tuple[Disk, ...] = ()
    controllers: tuple[Controller, ...] = ()
    left_out: tuple[str, ...] = ()  # virtual disks in backups, captures and recycle bins
    guardians: tuple[GuardianCertificate, ...] = ()
    guardian_files: tuple[GuardianFile, ...] = ()
    problems: tuple[Problem, ...] = ()
