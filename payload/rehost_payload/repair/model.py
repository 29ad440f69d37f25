"""What diagnose, plan, apply and verify hand to each other: plain, frozen, JSON-serialisable data.

Texts are not here: a finding carries an identifier and parameters, ui/texts/*.toml say it in English and German.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from rehost_payload.formats.hive import HiveEdit


class Severity(StrEnum):
    """What a finding means for the next start of Windows."""

    FATAL = "fatal"  # Windows will not start
    WARNING = "warning"  # it starts, but something that should work does not, or may not
    INFO = "info"  # worth knowing
    BLOCKER = "blocker"  # we must not write until somebody decides or does something


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    ``id`` is stable ("boot.device-stale"); ``subject`` is an identifier of the survey (a store, volume, disk or
    installation); ``params`` fill the texts; ``evidence`` lines are technical and the same in every language.
    ``repairable`` says that the plan holds actions for it; where it does not, the text's remedy says what to do.
    ``undecided``: whether Windows will start is not known as long as this is open.
    """

    id: str
    severity: Severity
    subject: str
    params: dict[str, str] = field(default_factory=dict)
    evidence: tuple[str, ...] = ()
    repairable: bool = False
    undecided: bool = False


@dataclass(frozen=True)
class VolumeRef:
    """Names a volume so that it is found again after a reboot, when device names have changed.

    GPT: ``partition_guid``. MBR: ``signature`` and ``offset``. No table: disk serial and size.
    """

    disk: str  # device path at the time of the survey
    offset: int
    size: int
    file_system: str
    label: str = ""
    partition_guid: str | None = None
    signature: int | None = None
    disk_serial: str = ""
    disk_size: int = 0


@dataclass(frozen=True)
class EditStore:
    """Changes elements of an existing boot store; everything else in it stays as it is.

    ``before_sha256`` is that of the file as surveyed: if it differs at apply, nothing is written. With ``replay``
    the logs beside it are applied first. ``remove_logs`` go together with the store.
    """

    volume: VolumeRef
    path: str
    before_sha256: str
    edits: tuple[HiveEdit, ...]
    finding: str
    replay: bool = False
    remove_logs: tuple[str, ...] = ()
    kind: str = "edit-store"


@dataclass(frozen=True)
class CreateStore:
    """Writes a new boot store made by ``edits`` on an empty hive, over whatever stands there (which is saved)."""

    volume: VolumeRef
    path: str
    before_sha256: str | None  # None: there was no file
    edits: tuple[HiveEdit, ...]
    finding: str
    remove_logs: tuple[str, ...] = ()
    kind: str = "create-store"


@dataclass(frozen=True)
class CopyFile:
    """Copies a file between volumes (boot files of the installation to the system partition)."""

    source: VolumeRef
    source_path: str
    volume: VolumeRef
    path: str
    size: int
    finding: str
    replace: bool = False  # otherwise an existing file at ``path`` stays
    kind: str = "copy-file"


@dataclass(frozen=True)
class DiskRef:
    """Names a disk so that it is found again."""

    path: str
    serial: str
    size: int


@dataclass(frozen=True)
class PatchBytes:
    """Replaces a few bytes of a disk; apply reads and writes the sectors around them. Hex, of equal length."""

    disk: DiskRef
    offset: int
    before: str
    after: str
    what: str  # "active-flag", "hidden-sectors"
    finding: str
    kind: str = "patch-bytes"


@dataclass(frozen=True)
class RebuildGpt:
    """Writes the damaged copy of a GUID partition table from the good one."""

    disk: DiskRef
    copy: str  # "primary" or "backup": the one that is written
    finding: str
    kind: str = "rebuild-gpt"


@dataclass(frozen=True)
class WriteBootCode:
    """Lets Microsoft's tool write boot code for bootmgr into a volume and, with ``master``, into its disk's first sector.

    What it writes is not known beforehand: apply saves all that it may touch, and judges what it left.
    """

    disk: DiskRef
    volume: VolumeRef
    master: bool
    finding: str
    kind: str = "write-boot-code"


@dataclass(frozen=True)
class SetFirmwareVariable:
    """Sets a global UEFI variable. ``before``/``after`` are hex; None: absent."""

    name: str
    before: str | None
    after: str | None
    finding: str
    kind: str = "set-firmware-variable"


@dataclass(frozen=True)
class EditHive:
    """Changes keys and values of an installation's SYSTEM or SOFTWARE hive; everything else in it stays.

    As EditStore: ``before_sha256`` is that of the file as surveyed, with ``replay`` the logs are applied first, and
    ``remove_logs`` go together with the old hive.
    """

    volume: VolumeRef
    path: str
    before_sha256: str
    edits: tuple[HiveEdit, ...]
    finding: str
    replay: bool = False
    remove_logs: tuple[str, ...] = ()
    kind: str = "edit-hive"


@dataclass(frozen=True)
class InjectDriver:
    """Installs a driver package into an installation that is not running.

    ``package`` is the package's folder on this machine (on the medium, or copied from a stick), ``inf`` the file in
    it that is installed, ``inf_sha256`` its digest and ``package_sha256`` that of all its files at the time of the survey,
    when they were verified. ``hardware_ids`` are those of the
    controllers it is meant for, ``service`` is its function driver. The records and files are computed at apply,
    from the package's bytes and the hive as it then is; ``system_sha256`` is that of the surveyed SYSTEM hive.
    """

    volume: VolumeRef
    root: str  # "\\Windows"
    package: str
    inf: str
    inf_sha256: str
    hardware_ids: tuple[str, ...]
    service: str
    build: int
    product_type: int  # 1 workstation, 2 domain controller, 3 server
    system_sha256: str
    finding: str
    replay: bool = False
    remove_logs: tuple[str, ...] = ()
    package_sha256: str = ""  # "": of a survey that does not say it
    kind: str = "inject-driver"


Action = (
    EditStore
    | CreateStore
    | CopyFile
    | PatchBytes
    | RebuildGpt
    | WriteBootCode
    | SetFirmwareVariable
    | EditHive
    | InjectDriver
)


@dataclass(frozen=True)
class Choices:
    """What the operator decided where the machine alone does not say."""

    windows: str | None = None  # id of the installation that shall start
    system_volume: str | None = None  # id of the ESP or active partition that shall be used
    disk: str | None = None  # look at this disk's Windows only


@dataclass(frozen=True)
class Diagnosis:
    findings: tuple[Finding, ...]
    healthy: bool  # nothing fatal, nothing repairable, nothing that blocks or leaves the start in doubt
    question: str | None = None  # "windows" or "system-volume": a choice is needed, see candidates
    candidates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Actions in the order in which they are applied. Empty: nothing has to be written."""

    actions: tuple[Action, ...]
    findings: tuple[str, ...]  # ids of the findings that they remedy


class Verdict(StrEnum):
    PASS = "PASS"
    FAIL = "FAIL"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class Check:
    """One point of the verification. ``reason`` is technical; ``params`` fill the text of ``id``."""

    id: str
    verdict: Verdict
    reason: str
    params: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Verification:
    """``chain`` is the verdict on the way from the firmware to the loader alone, the driver of the disk's controller
    aside; ``controller_known`` is False where nobody can say which driver that is, ``signer_known`` where it is signed by
    somebody of whom nobody can say whether Windows trusts him.
    """

    verdict: Verdict  # FAIL if a needed check failed, UNKNOWN if one could not be made, else PASS
    checks: tuple[Check, ...]
    chain: Verdict = Verdict.UNKNOWN
    controller_known: bool = True
    signer_known: bool = True


@dataclass(frozen=True)
class Change:
    """One thing that apply changed, for the report. ``where`` is a path, a variable or a disk range."""

    kind: str  # "file", "folder", "sectors", "variable"
    where: str
    before: str  # sha256, "absent", or hex for small things
    after: str


class Engine(StrEnum):
    """What installs driver packages."""

    PORTABLE = "portable"  # ours, on every base: each write saved before, old or new at any instant
    DISM = "dism"  # Windows' own tool, in a Windows PE that is at least as new as the installation


@dataclass(frozen=True)
class Note:
    """Something about a run that is no finding: ``id`` has a text, ``params`` fill it."""

    id: str
    params: dict[str, str] = field(default_factory=dict)


class ResultWord(StrEnum):
    """How a run ended; each has its exit code (ui/run.py)."""

    HEALTHY = "healthy"  # 0
    REPAIRED = "repaired"  # 0: verified
    PLANNED = "planned"  # 0: --dry-run
    UNDONE = "undone"  # 0
    CAPTURED = "captured"  # 0: everything chosen, verified on every target
    INCOMPLETE = "incomplete"  # 3: a capture of which something is missing or was not verified
    NOT_REPAIRED = "not-repaired"  # 3: findings remain that we cannot remedy, or verification failed
    DECLINED = "declined"  # 4: no consent
    CHOICE_NEEDED = "choice-needed"  # 4
    BLOCKED = "blocked"  # 5: hibernated, BitLocker ...: nothing was written
    FAILED = "failed"  # 1: an error; what had been written was rolled back unless the report says otherwise


@dataclass(frozen=True)
class RunResult:
    """Everything that the report shows."""

    word: ResultWord
    started: str
    finished: str
    mode: str  # "repair", "survey", "undo"
    diagnosis_before: Diagnosis | None = None
    plan: Plan | None = None
    changes: tuple[Change, ...] = ()
    verification: Verification | None = None
    diagnosis_after: Diagnosis | None = None
    error: str | None = None
    journal: str | None = None  # where the originals are, in words for the operator
    rolled_back: bool = True  # False: an error left changes behind that undo has to take back
    notes: tuple[Note, ...] = ()
