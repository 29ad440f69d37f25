"""The description of a machine as it stands: what survey writes and everything after it reads.

Plain, frozen data. `to_json`/`from_json` (survey/json.py) turn it into JSON and back without loss, so that a
survey.json from a user's server reproduces his diagnosis elsewhere. Identifiers ("disk0", "disk0p1") are
valid inside one survey only; what must be found again after a reboot is named by GUID, signature and offset.

All sizes and offsets are bytes, all LBAs count logical sectors of the disk, GUIDs are lower case without
braces.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from rehost_payload.survey.drivers_model import WindowsDrivers


class FirmwareMode(StrEnum):
    UEFI = "uefi"
    BIOS = "bios"
    UNKNOWN = "unknown"  # an image file on a workstation: nobody booted it


class TableStyle(StrEnum):
    GPT = "gpt"
    MBR = "mbr"
    NONE = "none"  # no partition table: a volume over the whole disk, or empty


class FileSystem(StrEnum):
    NTFS = "ntfs"
    FAT12 = "fat12"
    FAT16 = "fat16"
    FAT32 = "fat32"
    EXFAT = "exfat"
    REFS = "refs"
    BITLOCKER = "bitlocker"
    STORAGE_SPACES = "storage-spaces"
    LDM = "ldm"
    ISO9660 = "iso9660"
    UDF = "udf"
    EXT = "ext"
    LINUX_SWAP = "swap"
    LVM = "lvm"
    RAID = "mdraid"
    EMPTY = "empty"  # nothing but zeros where a signature would be
    UNKNOWN = "unknown"


class BootCode(StrEnum):
    """What the boot code of a disk or volume is, by the names in it. It was read, not executed."""

    NONE = "none"  # zeros
    NOT_BOOTABLE = "not-bootable"  # a formatting tool's program, which says that the disk is not bootable
    BOOTMGR = "bootmgr"  # of a volume: starts the boot manager
    NTLDR = "ntldr"  # of a volume: starts the loader of Windows 2003 and older
    GRUB = "grub"
    OTHER = (
        "other"  # of a disk: Microsoft's, which has no name that every language shares, or somebody else's
    )


class StoreState(StrEnum):
    OK = "ok"
    MISSING = "missing"  # the folder that should hold it is there, the file is not
    EMPTY = "empty"  # zero bytes, or zeros only
    NOT_A_HIVE = "not-a-hive"
    DAMAGED = "damaged"
    DIRTY = (
        "dirty"  # sequence numbers differ; `objects` show it with its logs replayed where that was possible
    )


class StoreRole(StrEnum):
    EFI_SYSTEM = "efi-system"  # \EFI\Microsoft\Boot\BCD
    EFI_RECOVERY = "efi-recovery"  # \EFI\Microsoft\Recovery\BCD, the fallback store
    BIOS_SYSTEM = "bios-system"  # \Boot\BCD


class HiveState(StrEnum):
    OK = "ok"
    DIRTY = "dirty"  # needs its logs; `replayed` says whether ours could apply them
    DAMAGED = "damaged"
    MISSING = "missing"
    UNREADABLE = "unreadable"  # the volume did not let us read it


@dataclass(frozen=True)
class Problem:
    """Something survey could not read. ``where`` is an identifier or a path, ``code`` a stable word."""

    code: str
    where: str
    detail: str


@dataclass(frozen=True)
class FirmwareBootEntry:
    """One UEFI Boot#### variable. ``partition_guid`` and ``path`` come from its HD() and file path nodes."""

    id: int  # 0x0000-0xFFFF
    description: str
    active: bool
    partition_guid: str | None
    path: str | None  # with backslashes, as in the variable
    raw: str  # the variable's data in hex (without the 4 attribute bytes of efivarfs)


@dataclass(frozen=True)
class Firmware:
    mode: FirmwareMode
    secure_boot: bool | None = None
    variables_writable: bool = False
    boot_entries: tuple[FirmwareBootEntry, ...] = ()
    boot_order: tuple[int, ...] = ()
    boot_current: int | None = None


@dataclass(frozen=True)
class Controller:
    """A PCI function of a storage class. IDs are 4 lower-case hex digits; ``address`` is dddd:bb:dd.f."""

    address: str
    vendor: str
    device: str
    subsystem_vendor: str
    subsystem_device: str
    class_code: str  # 6 hex digits: class, subclass, programming interface
    revision: str
    driver: str | None  # the module that is bound to it here, if any


@dataclass(frozen=True)
class Partition:
    id: str  # "disk0p1"
    number: int  # entry index + 1 (GPT), 1-4 primary, 5+ logical (MBR)
    offset: int
    size: int
    type: str  # GPT: type GUID; MBR: two hex digits
    type_name: str  # "EFI system", "Microsoft reserved", "Basic data", "Windows recovery", ... or ""
    unique_guid: str | None = None  # GPT only
    name: str = ""  # GPT only
    attributes: int = 0  # GPT attribute bits
    active: bool = False  # MBR boot indicator 0x80
    path: str | None = None  # device node, where there is one


@dataclass(frozen=True)
class PartitionTable:
    style: TableStyle
    disk_guid: str | None = None  # GPT
    signature: int | None = None  # MBR NT disk signature (also read from a protective MBR)
    partitions: tuple[Partition, ...] = ()
    primary_ok: bool = True  # GPT: primary header and array have right CRCs
    backup_ok: bool = True  # GPT: the same of the backup
    outdated: bool = False  # GPT: the backup is all there is, and may be that of an older table
    boot_code: BootCode = BootCode.NONE  # in the first 440 bytes of the disk
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Disk:
    id: str  # "disk0"
    path: str  # "/dev/nvme0n1", or the image file
    size: int
    sector_size: int  # logical, 512 or 4096
    table: PartitionTable
    model: str = ""
    serial: str = ""
    transport: str = ""  # "sata", "nvme", "usb", "virtio", "image", ...
    controller: str | None = None  # address of its Controller
    read_only: bool = False
    removable: bool = False
    boot_medium: bool = False  # we were started from it
    raid: str = ""  # "Intel RST", "DDF", ...: it bears the mark of an array's member


@dataclass(frozen=True)
class BootFile:
    """A file that takes part in booting. ``machine`` is the PE machine ("x64", "x86", "arm64") or None."""

    path: str  # "\\EFI\\Boot\\bootx64.efi", in the volume's own spelling
    size: int
    sha256: str | None = None
    machine: str | None = None
    version: str | None = None  # fixed file version "10.0.14393.1198" where the file has one
    problem: str | None = None  # "not a PE image", "truncated", ...


@dataclass(frozen=True)
class Volume:
    id: str  # the partition's id, or the disk's where it has no table
    disk: str
    partition: str | None
    offset: int  # on the disk
    size: int
    file_system: FileSystem
    label: str = ""
    serial: str = ""
    cluster_size: int = 0
    free: int | None = None
    dirty: bool = False  # the volume's own dirty flag
    journal_unclean: bool = False  # NTFS $LogFile was not closed
    hibernated: bool = False  # hiberfil.sys holds a resumable image (or fast start-up)
    hidden_sectors: int | None = None  # BPB value
    boot_code: BootCode | None = None  # NTFS and FAT that could be read
    unreadable: str | None = None  # why we cannot read it (code: "bitlocker", "refs", "damaged", ...)
    unwritable: str | None = None  # why we must not write (code: "hibernated", "dirty", "read-only", ...)
    boot_files: tuple[BootFile, ...] = ()  # those of the known list (survey/bootfiles.py) that exist
    windows_root: str | None = None


@dataclass(frozen=True)
class StoreElement:
    type: int  # 0x11000001 ...
    raw: str  # the registry value's data in hex
    reg_type: int  # REG_BINARY 3, REG_SZ 1, REG_MULTI_SZ 7, ...


@dataclass(frozen=True)
class StoreObject:
    guid: str
    type: int | None
    elements: tuple[StoreElement, ...]
    firmware_variable: str | None = None  # hex


@dataclass(frozen=True)
class BootStore:
    id: str  # "disk0p1:\\EFI\\Microsoft\\Boot\\BCD"
    volume: str
    path: str
    role: StoreRole
    state: StoreState
    size: int = 0
    sha256: str | None = None
    detail: str = ""  # why it is damaged
    logs: tuple[str, ...] = ()  # log files beside it, by path
    replayed: bool = False  # state is DIRTY and the logs could be applied
    objects: tuple[StoreObject, ...] = ()


@dataclass(frozen=True)
class PathOnVolume:
    """A path that some store refers to, and one volume that has it."""

    path: str  # lower case, with backslashes
    volume: str
    size: int
    is_directory: bool


@dataclass(frozen=True)
class SourceFile:
    """A file below <Windows>\\Boot, from which a boot environment is rebuilt."""

    path: str  # full path on the volume, "\\Windows\\Boot\\EFI\\bootmgfw.efi"
    size: int


@dataclass(frozen=True)
class WindowsInstallation:
    id: str  # "disk0p4:\\Windows"
    volume: str
    root: str  # "\\Windows"
    product_name: str = ""
    edition: str = ""  # EditionID
    installation_type: str = ""  # "Server", "Server Core", "Client"
    build: int | None = None
    revision: int | None = None  # UBR
    display_version: str = ""  # "1607", "21H2", ...
    architecture: str | None = None  # "x64", "x86", "arm64", from winload's PE header or the hive
    computer_name: str = ""
    locale: str = ""  # "de-DE": the installation's system locale
    system_hive: HiveState = HiveState.MISSING
    software_hive: HiveState = HiveState.MISSING
    control_sets: tuple[int, ...] = ()
    current_control_set: int | None = None  # Select\Current
    default_control_set: int | None = None  # Select\Default
    source_files: tuple[SourceFile, ...] = ()
    winload_efi: BootFile | None = None
    winload_exe: BootFile | None = None
    hyperv_host: bool | None = None  # service vmms present
    drivers: WindowsDrivers | None = None  # None: the SYSTEM hive could not be read


@dataclass(frozen=True)
class Survey:
    version: str  # of rehost
    taken: str  # ISO 8601, UTC
    system: str  # "linux", "winpe", "images"
    firmware: Firmware
    controllers: tuple[Controller, ...] = ()
    disks: tuple[Disk, ...] = ()
    volumes: tuple[Volume, ...] = ()
    windows: tuple[WindowsInstallation, ...] = ()
    boot_stores: tuple[BootStore, ...] = ()
    paths: tuple[PathOnVolume, ...] = ()
    problems: tuple[Problem, ...] = ()
    boot_code_writer: bool = False  # the system that took this can write boot code for BIOS
    schema: int = field(default=1)
