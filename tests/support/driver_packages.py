"""Whole driver packages and the SYSTEM hives that they are injected into, made by the tests."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from rehost_payload.drivers.inject_model import Package
from support import hives, infs
from support.hives import binary, dword, multi_sz, sz
from support.pe_image import make_pe

NATIVE = 1
DISK_CLASS = "{4d36e97b-e325-11ce-bfc1-08002be10318}"
CARD = r"PCI\VEN_9005&DEV_028F&SUBSYS_08009005"
IDS = (CARD + "&REV_01", CARD, r"PCI\VEN_9005&DEV_028F&REV_01", r"PCI\VEN_9005&DEV_028F")


def driver(
    machine: str = "x64", *, signature: bytes = b"", fill: bytes = b"", subsystem: int = NATIVE
) -> bytes:
    """A kernel driver as far as its headers say."""
    return make_pe(machine, "1.2.3.4", subsystem=subsystem, fill=fill, signature=signature)


def package(files: Mapping[str, bytes] | None = None, **parts: str) -> Package:
    """A RAID driver with INF, catalog and binary; ``parts`` are those of `infs.package`."""
    inf = infs.encoded(infs.package(**parts))
    return Package(
        "exraid.inf",
        {"exraid.inf": inf, "exraid.cat": b"catalog", "exraid.sys": driver()}
        if files is None
        else {"exraid.inf": inf, **files},
    )


TWO_SERVICES = r"""
[Card_Inst.Services]
AddService = ex_xata,, Filter_Service
AddService = ex_sata, 2, Card_Service
[Card_Service]
ServiceType = 1
StartType = 0
ErrorControl = 1
ServiceBinary = %12%\ex_sata.sys
LoadOrderGroup = SCSI miniport
AddReg = Card_Parameters
[Card_Parameters]
HKR, "Parameters", "BusType", 0x00010001, 0x0000000b
HKR, "StartOverride", "0", 0x00010001, 3
[Filter_Service]
ServiceType = 1
StartType = 0
ErrorControl = 1
ServiceBinary = %12%\ex_xata.sys
[Card_Inst.HW]
AddReg = Card_HW
[Card_HW]
HKR,,"UpperFilters",0x00010000,"ex_xata"
HKR,,"xata",0x00010001,1
HKR,,"Security",,"D:P(A;;GA;;;SY)"
HKR, "Interrupt Management\MessageSignaledInterruptProperties", MSISupported, 0x00010001, 1
"""


def two_services(**parts: str) -> Package:
    """A function driver and the device's own upper filter, as AMD's SATA package has them."""
    text = infs.package(
        service=TWO_SERVICES, install="CopyFiles = @ex_sata.sys, @ex_xata.sys", **parts
    ).replace("exraid.sys = 1", "ex_sata.sys = 1\nex_xata.sys = 1")
    files = {"ex_sata.sys": driver(fill=b"sata"), "ex_xata.sys": driver(fill=b"xata"), "exraid.cat": b"cat"}
    return Package("exraid.inf", {"exraid.inf": infs.encoded(text), **files})


@cache
def database_hive(build: int = 14393) -> bytes:
    """SYSTEM of Windows 8 and later: two control sets, an in-box driver and one that a vendor brought (oem1)."""
    keys: dict[str, dict[str, hives.Value]] = {
        "Select": {"Default": dword(1), "Current": dword(1), "LastKnownGood": dword(2)},
        "DriverDatabase": {
            "Version": dword(0x0A000000),
            "Architecture": dword(9),
            "OemInfMap": binary(b"\xc0"),
        },
        "DriverDatabase\\DeviceIds\\" + DISK_CLASS: {"inbox.inf": (0, b"")},
        "DriverDatabase\\DriverInfFiles\\oem1.inf": {"Active": sz("vendor.inf_amd64_0123456789abcdef")},
        "DriverDatabase\\DriverPackages\\vendor.inf_amd64_0123456789abcdef": {"": sz("oem1.inf")},
        "DriverDatabase\\DriverPackages\\inbox.inf_amd64_fedcba9876543210": {
            "": sz("inbox.inf"),
            "Provider": sz("Somebody Else"),
        },
        "DriverDatabase\\DriverPackages\\inbox.inf_amd64_fedcba9876543210\\Configurations\\Inst": {
            "Service": sz("inbox")
        },
        "DriverDatabase\\DriverPackages\\inbox.inf_amd64_fedcba9876543210\\Descriptors\\PCI\\VEN_1000&DEV_0001": {
            "Configuration": sz("Inst")
        },
    }
    for control_set in ("ControlSet001", "ControlSet002"):
        services = f"{control_set}\\Services"
        keys[f"{services}\\inbox"] = {
            "Start": dword(0),
            "ImagePath": (2, sz("System32\\drivers\\inbox.sys")[1]),
        }
        keys[f"{services}\\inbox\\StartOverride"] = {"0": dword(3)}
        keys[f"{services}\\pci"] = {"Start": dword(0), "Owners": multi_sz("pci.inf")}
    keys["ControlSet001\\Services\\pci\\StartOverride"] = {"0": dword(3)}
    return hives.make_hive(keys, name="SYSTEM")


@cache
def critical_hive() -> bytes:
    """SYSTEM of Windows 7 and Server 2008 R2."""
    return hives.make_hive(
        {
            "Select": {"Default": dword(1)},
            "ControlSet001\\Control\\CriticalDeviceDatabase\\PCI#CC_0104": {"Service": sz("x")},
            "ControlSet001\\Services\\pci": {"Start": dword(0)},
            "ControlSet002\\Control\\CriticalDeviceDatabase": {},
        },
        name="SYSTEM",
    )
