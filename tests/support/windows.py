"""Disks with an installed Windows Server on them, healthy, and what a restore to other hardware does to them.

Small, but everything that repair looks at is there: boot files on the system partition, their sources below
\\Windows\\Boot, winload, the SYSTEM and SOFTWARE hives, the boot stores, the recovery environment. Without
Microsoft's own files the programs are empty PE images; with `BootFiles` the disk really boots.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from support import bootsect, disks, driver_records, hives, sparse, stores
from support.catalogs import make_catalog
from support.disks import DiskLayout, PartitionLayout, PartitionSpec
from support.driver_image import make_driver
from support.hives import dword, sz
from support.packages import digest
from support.pe_image import make_pe

MIB = 1 << 20
LOCALES = ("de-DE", "en-US")
STORE = "EFI/Microsoft/Boot/BCD"
FALLBACK_STORE = "EFI/Microsoft/Recovery/BCD"
BIOS_STORE = "Boot/BCD"
KERNEL_EXPORTS = ("IoCreateDevice", "KeInitializeEvent", "ExAllocatePoolWithTag")


@dataclass(frozen=True)
class BootFiles:
    """The programs that start Windows. Microsoft's where a test has them, else empty PE images."""

    bootmgfw: bytes = field(default_factory=lambda: make_pe(fill=b"bootmgfw"))
    bootmgr: bytes = field(default_factory=lambda: b"\xe9\xd5\x01\xeb\x04\x90" + b"bootmgr" * 4000)
    winload_efi: bytes = field(default_factory=lambda: make_pe(fill=b"winload.efi"))
    winload_exe: bytes = field(default_factory=lambda: make_pe(fill=b"winload.exe"))
    sdi: bytes = b"$SDI0001" + bytes(8184)
    wim: bytes = b"MSWIM\0\0\0" + bytes(8184)
    stl: bytes | None = None
    fonts: Mapping[str, bytes] = field(default_factory=lambda: {"wgl4_boot.ttf": b"\0\1\0\0" + bytes(3000)})
    mbr: bytes = b"\xeb\xfe"
    pbr: bytes = field(default_factory=lambda: bootsect.ntfs_code("BOOTMGR"))


@dataclass(frozen=True)
class Release:
    """What a release of Windows Server says of itself in its SOFTWARE hive."""

    name: str
    build: int
    revision: int
    version: str


SERVER_2016 = Release("Windows Server 2016 Standard", 14393, 1198, "1607")
SERVER_2019 = Release("Windows Server 2019 Standard", 17763, 1, "1809")
SERVER_2022 = Release("Windows Server 2022 Standard", 20348, 1, "21H2")
SERVER_2025 = Release("Windows Server 2025 Standard", 26100, 30215, "24H2")


def noise(seed: str, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


@cache
def system_hive(
    computer: str = "ALTERSERVER", drivers: tuple[driver_records.Driver, ...] = driver_records.IN_BOX
) -> bytes:
    """Of a server whose Windows has these boot drivers, and the services between controller and volume."""
    control = "ControlSet001\\Control"
    services = "ControlSet001\\Services"
    keys: dict[str, dict[str, hives.Value]] = {
        "Select": {
            "Current": dword(1),
            "Default": dword(1),
            "Failed": dword(0),
            "LastKnownGood": dword(1),
        },
        "MountedDevices": {},
        "Setup": {"SystemSetupInProgress": dword(0), "SetupType": dword(0), "CmdLine": sz("")},
        f"{control}\\ComputerName\\ComputerName": {"ComputerName": sz(computer)},
        f"{control}\\Nls\\Language": {"Default": sz("0407"), "InstallLanguage": sz("0407")},
        f"{control}\\ProductOptions": {"ProductType": sz("ServerNT")},
        f"{control}\\CrashControl": {"AutoReboot": dword(1), "CrashDumpEnabled": dword(7)},
        f"{services}\\vmms": {"Start": dword(2), "Type": dword(16), "ImagePath": sz("vmms.exe")},
        **driver_records.database(drivers),
        **driver_records.services(drivers),
        **driver_records.class_filters(),
    }
    return hives.make_hive(keys, name="SYSTEM")


@cache
def software_hive(release: Release = SERVER_2016) -> bytes:
    version = "Microsoft\\Windows NT\\CurrentVersion"
    keys = {
        version: {
            "ProductName": sz(release.name),
            "EditionID": sz("ServerStandard"),
            "InstallationType": sz("Server"),
            "CurrentBuild": sz(str(release.build)),
            "CurrentBuildNumber": sz(str(release.build)),
            "CurrentVersion": sz("6.3"),
            "CurrentMajorVersionNumber": dword(10),
            "CurrentMinorVersionNumber": dword(0),
            "UBR": dword(release.revision),
            "ReleaseId": sz(release.version),
            "SystemRoot": sz("C:\\Windows"),
        }
    }
    return hives.make_hive(keys, name="SOFTWARE")


def _locale_files(folder: str, names: tuple[str, ...]) -> dict[str, bytes]:
    return {
        f"{folder}/{locale}/{name}": noise(f"{locale}/{name}", 2000) for locale in LOCALES for name in names
    }


def _efi_environment(boot: BootFiles, root: str) -> dict[str, bytes]:
    """Programs, messages, fonts and pictures of the EFI boot manager below ``root``."""
    files = {
        f"{root}/bootmgfw.efi": boot.bootmgfw,
        f"{root}/bootmgr.efi": make_pe(fill=b"bootmgr.efi"),
        f"{root}/memtest.efi": make_pe(fill=b"memtest.efi"),
    }
    if boot.stl is not None:
        files[f"{root}/boot.stl"] = boot.stl
    return files | _locale_files(root, ("bootmgfw.efi.mui", "bootmgr.efi.mui", "memtest.efi.mui"))


def _fonts(boot: BootFiles, folder: str) -> dict[str, bytes]:
    return {f"{folder}/{name}": data for name, data in boot.fonts.items()}


def esp_tree(boot: BootFiles) -> dict[str, bytes]:
    """The system partition of an EFI machine, without its stores."""
    root = "EFI/Microsoft/Boot"
    files = _efi_environment(boot, root) | _fonts(boot, f"{root}/Fonts")
    files[f"{root}/Resources/bootres.dll"] = noise("bootres", 4000)
    files["EFI/Boot/bootx64.efi"] = boot.bootmgfw
    return files


def bios_tree(boot: BootFiles) -> dict[str, bytes]:
    """The active partition of a BIOS machine, without its store."""
    files = {"bootmgr": boot.bootmgr, "BOOTNXT": b"\0", "Boot/memtest.exe": make_pe(fill=b"memtest.exe")}
    files |= _fonts(boot, "Boot/Fonts") | {"Boot/Resources/bootres.dll": noise("bootres", 4000)}
    return files | _locale_files("Boot", ("bootmgr.exe.mui", "memtest.exe.mui"))


@cache
def driver_file(name: str) -> bytes:
    return make_driver({"ntoskrnl.exe": KERNEL_EXPORTS[:2]}, fill=name.encode())


@cache
def catalog_of(names: tuple[str, ...]) -> bytes:
    """Signed by the tests' own authority."""
    return make_catalog({name: digest(driver_file(name)) for name in names})


def windows_tree(
    boot: BootFiles,
    release: Release = SERVER_2016,
    drivers: tuple[driver_records.Driver, ...] = driver_records.IN_BOX,
) -> dict[str, bytes]:
    """The Windows volume."""
    system = "Windows/System32"
    files = {
        f"{system}/winload.efi": boot.winload_efi,
        f"{system}/winload.exe": boot.winload_exe,
        f"{system}/winresume.efi": make_pe(fill=b"winresume.efi"),
        f"{system}/winresume.exe": make_pe(fill=b"winresume.exe"),
        f"{system}/ntoskrnl.exe": make_driver(exports=KERNEL_EXPORTS, fill=b"ntoskrnl"),
        f"{system}/config/SYSTEM": system_hive(drivers=drivers),
        f"{system}/config/SOFTWARE": software_hive(release),
        **{f"{system}/drivers/{name}": driver_file(name) for name in driver_records.files(drivers)},
        **{
            f"{system}/{name}": catalog_of(tuple(held))
            for name, held in driver_records.catalogs(drivers).items()
        },
        "Windows/explorer.exe": make_pe(fill=b"explorer"),
        "Windows/Boot/PCAT/bootmgr": boot.bootmgr,
        "Windows/Boot/PCAT/bootnxt": b"\0",
        "Windows/Boot/PCAT/memtest.exe": make_pe(fill=b"memtest.exe"),
        "Windows/Boot/Resources/bootres.dll": noise("bootres", 4000),
        "Users/Administrator/": b"",
        "Program Files/": b"",
    }
    files |= _efi_environment(boot, "Windows/Boot/EFI") | _fonts(boot, "Windows/Boot/Fonts")
    return files | _locale_files("Windows/Boot/PCAT", ("bootmgr.exe.mui", "memtest.exe.mui"))


def recovery_tree(boot: BootFiles) -> dict[str, bytes]:
    folder = "Recovery/WindowsRE"
    return {f"{folder}/Winre.wim": boot.wim, f"{folder}/boot.sdi": boot.sdi, f"{folder}/ReAgent.xml": b"<x/>"}


def decoy_tree(boot: BootFiles) -> dict[str, bytes]:
    """A volume that looks like Windows to somebody who looks only for winload."""
    system = "Windows/System32"
    return {f"{system}/winload.efi": boot.winload_efi, f"{system}/winload.exe": boot.winload_exe}


# --- healthy servers


def gpt_server(
    path: Path,
    boot: BootFiles | None = None,
    *,
    release: Release = SERVER_2016,
    extra: tuple[PartitionSpec, ...] = (),
    seed: str | None = None,
    windows_size: int = 128 * MIB,
    sector_size: int = 512,
    recovery: bool = True,
    drivers: tuple[driver_records.Driver, ...] = driver_records.IN_BOX,
) -> DiskLayout:
    """A healthy server that starts by UEFI, with a recovery environment and the fallback store."""
    boot = boot or BootFiles()
    disk = disks.make_gpt_disk(
        path,
        esp_files=esp_tree(boot),
        windows_files=windows_tree(boot, release, drivers),
        recovery_files=recovery_tree(boot) if recovery else None,
        recovery_size=48 * MIB,
        windows_size=windows_size,
        extra=extra,
        seed=seed,
        sector_size=sector_size,
    )
    write_stores(disk)
    return disk


def write_stores(disk: DiskLayout) -> None:
    """Writes the stores that belong to the disk as it stands."""
    recovery = next((p for p in disk.partitions if p.role == "recovery"), None)
    if disk.style == "gpt":
        files = {STORE: stores.installed(disk, recovery=recovery).hive()}
        if recovery is not None:
            files[FALLBACK_STORE] = stores.fallback(disk, recovery).hive()
        disks.write_files(disk, disk.esp, files)
    else:
        disks.write_file(disk, disk.system, BIOS_STORE, stores.installed(disk, recovery=recovery).hive())


def mbr_server(
    path: Path,
    boot: BootFiles | None = None,
    *,
    release: Release = SERVER_2016,
    extra: tuple[PartitionSpec, ...] = (),
    seed: str | None = None,
    windows_size: int = 128 * MIB,
    drivers: tuple[driver_records.Driver, ...] = driver_records.IN_BOX,
) -> DiskLayout:
    """A healthy server that starts by BIOS from a system partition of its own."""
    boot = boot or BootFiles()
    specs = (
        PartitionSpec("recovery", 48 * MIB, "ntfs", "27", recovery_tree(boot), label="Recovery"),
        *extra,
    )
    disk = disks.make_mbr_disk(
        path,
        system_files=bios_tree(boot),
        windows_files=windows_tree(boot, release, drivers),
        system_size=32 * MIB,
        windows_size=windows_size,
        extra=specs,
        seed=seed,
        boot_code=boot.mbr,
    )
    install_pbr(disk, disk.system, boot.pbr)
    write_stores(disk)
    return disk


def install_pbr(disk: DiskLayout, part: PartitionLayout, code: bytes) -> None:
    """Puts boot code into $Boot (16 sectors), and the first of them into its copy behind the volume's last sector, as
    formatting does. The volume's parameters (bytes 11 to 83) stay.
    """
    sectors = bytearray(code[:8192])
    old = disks.read_bytes(disk.path, part.offset, 512)
    sectors[11:84] = old[11:84]
    sectors[510:512] = b"\x55\xaa"
    disks.write_bytes(disk.path, part.offset, bytes(sectors))
    total = int.from_bytes(old[0x28:0x30], "little")
    disks.write_bytes(disk.path, part.offset + total * 512, bytes(sectors[:512]))


# --- what goes wrong


def restored(disk: DiskLayout, seed: str = "restored") -> DiskLayout:
    """The same contents with other identities, as a restore to other hardware leaves them: stores are stale."""
    if disk.style == "gpt":
        return disks.regenerate_guids(disk, f"{seed}/{disk.path.name}")
    return disks.change_signature(disk, disks.derived_signature(f"{seed}/{disk.path.name}"))


def store_place(disk: DiskLayout) -> tuple[PartitionLayout, str]:
    return (disk.esp, STORE) if disk.style == "gpt" else (disk.system, BIOS_STORE)


def read_store(disk: DiskLayout) -> bytes:
    return disks.read_file(disk, *store_place(disk))


def delete_store(disk: DiskLayout) -> None:
    disks.delete_file(disk, *store_place(disk))


def make_store_dirty(disk: DiskLayout, change: Callable[[bytes], bytes]) -> None:
    """The machine crashed while the store was changed: only BCD.LOG has what ``change`` made of it."""
    part, path = store_place(disk)
    old = disks.read_file(disk, part, path)
    dirty, log = hives.make_dirty(old, change(old))
    disks.write_files(disk, part, {path: dirty, f"{path}.LOG": log})


def copy_disk(disk: DiskLayout, path: Path) -> DiskLayout:
    """The same disk in another file, holes kept."""
    sparse.make(path, disk.size)
    sparse.copy_range(disk.path, 0, path, 0, disk.size)
    return replace(disk, path=path)
