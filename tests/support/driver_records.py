"""What Windows 8 and Server 2012 on keep of their boot drivers in the SYSTEM hive, in the shape of real hives."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from support.hives import Value, binary, dword, expand_sz, multi_sz, sz

SCSI_ADAPTER = "4d36e97b-e325-11ce-bfc1-08002be10318"
HDC = "4d36e96a-e325-11ce-bfc1-08002be10318"
Keys = dict[str, dict[str, Value]]


@dataclass(frozen=True)
class Driver:
    """A boot driver of Windows, or one that was installed (``inf`` oemNN.inf, ``original`` its own name)."""

    service: str
    inf: str
    ids: tuple[str, ...]
    start: int = 0
    override: bool = False
    original: str = ""
    version: tuple[int, int, int, int] = (10, 0, 14393, 0)
    date: int = 0x01C694C5A38C8000  # FILETIME of 2006-06-21, as in-box packages have it
    class_guid: str = SCSI_ADAPTER
    error_control: int = 1
    upper_filters: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    complete: bool = True  # False: staged only, neither Descriptors nor Configurations
    file: str = ""

    @property
    def binary(self) -> str:
        return self.file or f"{self.service}.sys"


IN_BOX = (
    Driver("storahci", "mshdc.inf", ("PCI\\CC_010601",), class_guid=HDC, error_control=3),
    Driver("pciide", "mshdc.inf", ("PCI\\CC_0101",), class_guid=HDC, error_control=3),
    Driver("stornvme", "stornvme.inf", ("PCI\\CC_010802",), error_control=3),
    Driver(
        "megasas",
        "megasas.inf",
        ("PCI\\VEN_1000&DEV_0060", "PCI\\VEN_1000&DEV_005B", "PCI\\VEN_1000&DEV_0079"),
    ),
    Driver("LSI_SAS", "lsi_sas.inf", ("PCI\\VEN_1000&DEV_0054",), override=True),
    Driver(
        "arcsas",
        "arcsas.inf",
        ("PCI\\VEN_9005&DEV_028D&SUBSYS_05529005", "PCI\\VEN_9005&DEV_028C&SUBSYS_05009005"),
        override=True,
        version=(7, 5, 0, 32048),
    ),
    Driver(
        "viostor",
        "oem0.inf",
        ("PCI\\VEN_1AF4&DEV_1001", "PCI\\VEN_1AF4&DEV_1042"),
        original="viostor.inf",
        version=(62, 77, 104, 17100),
    ),
    Driver(
        "vioscsi",
        "oem1.inf",
        ("PCI\\VEN_1AF4&DEV_1004", "PCI\\VEN_1AF4&DEV_1048"),
        original="vioscsi.inf",
        version=(62, 77, 104, 17100),
    ),
    Driver("pvscsi", "pvscsi.inf", ("PCI\\VEN_15AD&DEV_07C0",)),
)
"""The usual ones: of Windows itself, and those of virtual machines."""

CHAIN = {
    **dict.fromkeys(
        ("ACPI", "pci", "partmgr", "mountmgr", "volmgr", "volmgrx", "volsnap", "volume", "fvevol"), 3
    ),
    **{"disk": 1, "rdyboost": 3, "iorate": 3, "EhStorClass": 1, "atapi": 3, "CLFS": 3},
}
"""Services between the controller and the volume, with their ErrorControl."""

CLASS_FILTERS = {
    "{4d36e967-e325-11ce-bfc1-08002be10318}": {
        "UpperFilters": ("partmgr",),
        "LowerFilters": ("EhStorClass",),
    },
    "{71a27cdd-812a-11d0-bec7-08002be2092f}": {
        "LowerFilters": ("fvevol", "iorate", "rdyboost"),
        "UpperFilters": ("volsnap",),
    },
    "{4d36e97b-e325-11ce-bfc1-08002be10318}": {},
    "{4d36e96a-e325-11ce-bfc1-08002be10318}": {},
}
_CLASS_NAMES = {
    "{4d36e967-e325-11ce-bfc1-08002be10318}": "DiskDrive",
    "{71a27cdd-812a-11d0-bec7-08002be2092f}": "Volume",
    "{4d36e97b-e325-11ce-bfc1-08002be10318}": "SCSIAdapter",
    "{4d36e96a-e325-11ce-bfc1-08002be10318}": "hdc",
}


def version_blob(driver: Driver) -> bytes:
    """The Version value of a package: kind, architecture, class, date, version with its parts in reverse."""
    a, b, c, d = driver.version
    head = struct.pack("<BBHI", 0x00 if driver.original else 0xFF, 0xFF, 9, 0)
    return (
        head + uuid.UUID(driver.class_guid).bytes_le + struct.pack("<Q4H", driver.date, d, c, b, a) + bytes(8)
    )


def package_name(driver: Driver) -> str:
    return f"{driver.original or driver.inf}_amd64_{abs(hash_of(driver.inf)):016x}"


def hash_of(text: str) -> int:
    return int.from_bytes(uuid.uuid5(uuid.NAMESPACE_DNS, text).bytes[:8], "big")


def database(drivers: Iterable[Driver]) -> Keys:
    """SYSTEM\\DriverDatabase of these drivers; several of one INF share its package."""
    keys: Keys = {
        "DriverDatabase": {
            "Version": dword(0x0A000000),
            "Architecture": dword(9),
            "OemInfMap": binary(b"\xc0"),
        },
        "DriverDatabase\\DeviceIds\\PCI": {},
    }
    for driver in drivers:
        name = package_name(driver)
        package = f"DriverDatabase\\DriverPackages\\{name}"
        inf = keys.setdefault(f"DriverDatabase\\DriverInfFiles\\{driver.inf}", {})
        inf |= {"": multi_sz(name), "Active": sz(name)}
        keys[package] = {
            "": sz(driver.inf),
            "Version": binary(version_blob(driver)),
            "Provider": sz("Example" if driver.original else "Microsoft"),
            "SignerScore": dword(0x0D000005 if driver.original else 0x0D000003),
        }
        if driver.original:
            keys[package]["InfName"] = sz(driver.original)
        for device_id in driver.ids:
            place = f"DriverDatabase\\DeviceIds\\{device_id}"
            keys.setdefault(place, {})[driver.inf] = binary(bytes((1, 0xFF, 0, 0)))
            if driver.complete:
                keys[f"{package}\\Descriptors\\{device_id}"] = {
                    "Configuration": sz(f"{driver.service}_Inst"),
                    "Manufacturer": sz("%mfg%"),
                }
        if driver.complete:
            settings = {"Service": sz(driver.service), "ConfigFlags": dword(0), "ConfigScope": dword(7)}
            if driver.upper_filters:
                settings["UpperFilters"] = multi_sz(*driver.upper_filters)
            if driver.excluded:
                settings["ExcludeIds"] = multi_sz(*driver.excluded)
            keys[f"{package}\\Configurations\\{driver.service}_Inst"] = settings
            known = list(inf.get("Configurations", multi_sz())[1].decode("utf-16-le").split("\0"))
            names = dict.fromkeys([*filter(None, known), f"{driver.service}_Inst"])
            inf["Configurations"] = multi_sz(*names)
    return keys


def services(drivers: Iterable[Driver], control_set: str = "ControlSet001") -> Keys:
    """The keys of the drivers and of the chain below Services."""
    keys: Keys = {}
    for driver in drivers:
        place = f"{control_set}\\Services\\{driver.service}"
        keys[place] = {
            "Type": dword(1),
            "Start": dword(driver.start),
            "ErrorControl": dword(driver.error_control),
            "Group": sz("SCSI Miniport"),
            "ImagePath": expand_sz(f"System32\\drivers\\{driver.binary}"),
            "Owners": multi_sz(driver.inf),
        }
        if driver.override:
            keys[f"{place}\\StartOverride"] = {"0": dword(3)}
    for name, error_control in CHAIN.items():
        keys[f"{control_set}\\Services\\{name}"] = {
            "Type": dword(1),
            "Start": dword(0),
            "ErrorControl": dword(error_control),
            "ImagePath": expand_sz(f"System32\\drivers\\{name}.sys"),
        }
    keys[f"{control_set}\\Services\\partmgr\\Parameters"] = {"SanPolicy": dword(1)}
    return keys


def class_filters(
    filters: Mapping[str, Mapping[str, tuple[str, ...]]] | None = None, control_set: str = "ControlSet001"
) -> Keys:
    chosen = CLASS_FILTERS if filters is None else filters
    return {
        f"{control_set}\\Control\\Class\\{guid}": {
            "Class": sz(_CLASS_NAMES.get(guid, "Example")),
            **{name: multi_sz(*values) for name, values in lists.items()},
        }
        for guid, lists in chosen.items()
    }


def files(drivers: Iterable[Driver]) -> list[str]:
    """Names of the files in System32\\drivers that all this needs."""
    return [*dict.fromkeys(d.binary for d in drivers), *(f"{name}.sys" for name in CHAIN)]


def catalogs(drivers: Iterable[Driver]) -> dict[str, list[str]]:
    """The catalogs of installed packages, below System32, and the drivers in them."""
    folder = "CatRoot/{F750E6C3-38EE-11D1-85E5-00C04FC295EE}"
    found: dict[str, list[str]] = {}
    for driver in drivers:
        if driver.original:
            name = f"{folder}/{driver.inf.removesuffix('.inf')}.cat"
            found.setdefault(name, []).append(driver.binary)
    return found
