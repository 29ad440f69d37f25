"""What survey tells of the drivers of an installation: raw facts of its SYSTEM hive and files, no judgement.

Registry data that a judge has to decode itself is kept as hex, names are spelled as they are stored, paths begin with a
backslash at the volume's root. `WindowsDrivers` belongs to one installation, `ControllerFacts` to one controller of the
machine as that installation's database sees it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class IdHit:
    """A value of SYSTEM\\DriverDatabase\\DeviceIds\\PCI\\<id>: this INF is for this ID."""

    device_id: str  # "PCI\\VEN_9005&DEV_028D"
    inf: str  # the value's name, "arcsas.inf"
    data: str  # hex of the value, four bytes as a rule


@dataclass(frozen=True)
class CriticalDevice:
    """A key of Control\\CriticalDeviceDatabase, which Windows 7 and Server 2008 R2 look into instead."""

    control_set: int
    device_id: str  # with a backslash: "PCI\\CC_010601"
    service: str
    class_guid: str


@dataclass(frozen=True)
class ControllerFacts:
    """A controller's IDs in the order of Windows, and everything that this installation has for any of them."""

    address: str  # of the survey's Controller
    hardware_ids: tuple[str, ...]
    compatible_ids: tuple[str, ...]
    hits: tuple[IdHit, ...] = ()
    critical: tuple[CriticalDevice, ...] = ()
    other_cards: tuple[
        str, ...
    ] = ()  # without a hit: IDs of other cards of this kind that are known, the first of them


@dataclass(frozen=True)
class DriverInf:
    """A key of DriverDatabase\\DriverInfFiles."""

    inf: str
    packages: tuple[str, ...]  # its default value
    active: str
    configurations: tuple[str, ...]


@dataclass(frozen=True)
class Descriptor:
    """DriverPackages\\<package>\\Descriptors\\<device ID>; only those for IDs of this machine's controllers."""

    device_id: str
    configuration: str


@dataclass(frozen=True)
class Configuration:
    """DriverPackages\\<package>\\Configurations\\<name>; only those that a descriptor names."""

    name: str
    service: str
    flags: int | None
    upper_filters: tuple[str, ...] = ()
    lower_filters: tuple[str, ...] = ()
    exclude_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class SignerFacts:
    """Who signed a catalog or a program, as far as the file itself tells.

    ``trust`` is a word of formats/pkcs7.py: where the chain of certificates leads. ``problem``: why it is no signature over
    this content.
    """

    name: str
    trust: str
    usages: tuple[str, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class CatalogFacts:
    """A catalog in CatRoot. ``digests`` of its members in hex; ``problem``: why it is no catalog that can be read."""

    path: str
    digests: tuple[str, ...] = ()
    signer: SignerFacts | None = None
    problem: str | None = None


@dataclass(frozen=True)
class DriverPackage:
    """A key of DriverDatabase\\DriverPackages. ``folder``: it is in DriverStore\\FileRepository."""

    name: str
    inf: str  # its default value: "oem4.inf", or the in-box name
    version: str  # hex of its Version value, 48 bytes as a rule
    provider: str
    original: str  # InfName
    oem_path: str
    signer: str
    folder: bool
    catalog: bool = False  # oemNN.cat of an OEM package is in CatRoot
    catalog_facts: CatalogFacts | None = None  # the same, looked into
    descriptors: tuple[Descriptor, ...] = ()
    configurations: tuple[Configuration, ...] = ()


@dataclass(frozen=True)
class OverrideValue:
    name: str
    value: int | None  # None: no number


@dataclass(frozen=True)
class ServiceFacts:
    """A driver's key below ControlSetNNN\\Services. ``binary`` is where its file is to be on this volume."""

    control_set: int
    name: str
    type: int | None
    start: int | None
    error_control: int | None
    image_path: str | None  # None: there is no such value
    binary: str | None  # None: the path leads elsewhere
    group: str = ""
    owners: tuple[str, ...] = ()
    start_override: tuple[OverrideValue, ...] = ()


@dataclass(frozen=True)
class BinaryFacts:
    """A driver's file. The fields after ``size`` are known only where it was looked into (``examined``).

    ``digests`` (hex, under which a catalog may hold it) and ``signer`` (embedded) are told of drivers that are not of
    Windows itself.
    """

    path: str
    exists: bool
    size: int = 0
    examined: bool = False
    machine: str | None = None  # "x64", "x86", ...
    subsystem: int | None = None  # 1: native
    version: str | None = None
    signature: int = 0  # bytes of the certificate table: more than 0 where a signature is embedded
    problem: str | None = None  # why it is no usable image
    unreadable: str | None = None  # code: it is there, but is stored in a way that we do not read ("wof")
    imports: tuple[str, ...] = ()  # the modules that it imports from
    missing_modules: tuple[str, ...] = ()
    missing_symbols: tuple[str, ...] = ()  # "storport.sys!StorPortFoo": the first of them
    imports_compared: bool = False
    digests: tuple[str, ...] = ()
    signer: SignerFacts | None = None


@dataclass(frozen=True)
class StoreCopy:
    """A file of a package in DriverStore\\FileRepository whose place in System32 (``target``) is empty or unusable."""

    path: str
    target: str
    size: int
    machine: str | None
    problem: str | None = None


@dataclass(frozen=True)
class Filters:
    """UpperFilters and LowerFilters of a device class (``key``: its GUID) or of one device ("PCI\\..\\..")."""

    control_set: int
    key: str
    upper: tuple[str, ...]
    lower: tuple[str, ...]


@dataclass(frozen=True)
class SetNumber:
    """A number that a control set holds; None where the value is not there."""

    control_set: int
    value: int | None


@dataclass(frozen=True)
class DriveLetter:
    """A value MountedDevices\\DosDevices\\X: and what it leads to."""

    letter: str  # "C"
    data: (
        str  # hex: signature and offset of an MBR partition, "DMIO:ID:" and GUID, or a device path in UTF-16
    )


@dataclass(frozen=True)
class PolicyValue:
    """A value below SOFTWARE\\Policies\\Microsoft\\Windows\\DeviceInstall\\Restrictions."""

    key: str  # below Restrictions, "" for itself
    name: str
    value: str


@dataclass(frozen=True)
class PackageVerification:
    """What the files, the catalog and its signature say of a package, for this Windows and this controller.

    ``level``: "pass", "warn", "unknown" or "fail"; ``reasons`` are those of this level. ``only_signature``: nothing but
    who vouches for its bytes speaks against it. ``allowed``: whoever made the medium or filled the stick takes it all the
    same. ``signer`` is empty where there is no signature. ``secure_boot`` is False where a machine with Secure Boot on
    refuses it.
    """

    level: str
    reasons: tuple[str, ...] = ()
    signer: str = ""
    only_signature: bool = False
    allowed: bool = False
    secure_boot: bool = True

    @property
    def refused(self) -> bool:
        """Windows would not load it, or not know that it is what its vendor made; and nobody has taken that on himself."""
        return self.level == "fail" and not (self.allowed and self.only_signature)


@dataclass(frozen=True)
class PackageCandidate:
    """A package at hand that Windows would take for a controller. ``rank`` is 0xSSGGTHHH, the lowest is the best.

    ``refusal``: why the engine would not write it into this installation, found by computing everything that it would
    write; ``refusal_code`` is one of `inject_model.CODES`. Empty where it would, or where that was not computed because
    the verification failed or enough better ones would be written. ``replaces``: in words, the driver files of Windows
    that it takes the place of.
    """

    address: str
    folder: str
    inf: str  # the file's name in ``folder``
    inf_sha256: str
    rank: int
    date: str | None  # ISO 8601
    version: str | None
    device_id: str
    section: str
    description: str
    service: str
    further_services: tuple[str, ...] = ()
    catalog: str | None = None
    subsystems: tuple[str, ...] = ()  # it fits these cards only, and the card is not known
    warnings: tuple[str, ...] = ()
    binaries: tuple[BinaryFacts, ...] = ()  # its boot drivers, judged against this installation
    verification: PackageVerification | None = None
    package_sha256: str = ""  # of the files that were verified
    refusal_code: str = ""
    refusal: str = ""
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True)
class PackageRefusal:
    """A package that names the controller and is not for this Windows, or cannot be used."""

    address: str
    folder: str
    inf: str
    reason: str


@dataclass(frozen=True)
class WindowsDrivers:
    """``system_sha256`` is that of the SYSTEM file as it is stored; ``replayed``: what is said here includes its logs."""

    system_path: str
    system_sha256: str
    system_logs: tuple[str, ...] = ()
    replayed: bool = False
    product_type: int | None = None  # 1 workstation, 2 domain controller, 3 server
    last_known_good: int | None = None  # Select\LastKnownGood
    database: bool = False  # SYSTEM\DriverDatabase is there
    critical_database: bool = False  # Control\CriticalDeviceDatabase is there
    architecture: int | None = None  # DriverDatabase's, 9: AMD64
    controllers: tuple[ControllerFacts, ...] = ()
    infs: tuple[DriverInf, ...] = ()
    packages: tuple[DriverPackage, ...] = ()
    services: tuple[ServiceFacts, ...] = ()
    absent_services: tuple[str, ...] = ()  # asked for, and in no control set
    binaries: tuple[BinaryFacts, ...] = ()
    store_copies: tuple[StoreCopy, ...] = ()
    class_filters: tuple[Filters, ...] = ()
    device_filters: tuple[Filters, ...] = ()
    san_policy: tuple[SetNumber, ...] = ()
    auto_reboot: tuple[SetNumber, ...] = ()
    letters: tuple[DriveLetter, ...] = ()
    system_root: str = ""  # SystemRoot of its SOFTWARE hive, "C:\\Windows"
    pending_xml: bool = False
    pending_renames: int = 0  # entries of PendingFileRenameOperations in the default control set
    pending_drivers: tuple[str, ...] = ()  # those of them that concern drivers or servicing
    restrictions: tuple[PolicyValue, ...] = ()
    oem_numbers: tuple[int, ...] = ()  # oemNN.inf that are taken, in the database or in Windows\INF
    candidates: tuple[PackageCandidate, ...] = ()  # per controller, the best first
    refusals: tuple[PackageRefusal, ...] = ()
    other_packages: int = 0  # at hand, for other devices
    cut: tuple[str, ...] = ()  # what was too much to be told in full
