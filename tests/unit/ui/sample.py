"""A made-up server as the interface sees it: Windows Server 2016, restored to other hardware, stale boot store."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from rehost_payload.formats.bcd_devices import GptIdentity, PartitionDevice, encode_device
from rehost_payload.survey.drivers_model import WindowsDrivers
from rehost_payload.survey.model import (
    BootFile,
    BootStore,
    Controller,
    Disk,
    FileSystem,
    Firmware,
    FirmwareBootEntry,
    FirmwareMode,
    HiveState,
    Partition,
    PartitionTable,
    PathOnVolume,
    SourceFile,
    StoreElement,
    StoreObject,
    StoreRole,
    StoreState,
    Survey,
    TableStyle,
    Volume,
    WindowsInstallation,
)
from support import offline
from support.driver_records import IN_BOX, Driver

MIB, GIB = 1 << 20, 1 << 30
DISK_GUID = "6f1d0f6e-4a1b-4f65-9f0e-1c7a4a0c9b01"
ESP_GUID = "b3f7a1c2-0a55-4c11-8a6b-0d6b6a6f0001"
OS_GUID = "b3f7a1c2-0a55-4c11-8a6b-0d6b6a6f0004"
OLD_DISK, OLD_ESP, OLD_OS = (f"11111111-2222-4333-8444-00000000000{n}" for n in (1, 2, 4))
BOOTMGR = "9dea862c-5cdd-4e70-acc1-f32b344d4795"
LOADER = "4a1d2a5f-7b6c-4e0e-9f3e-7f2f3b7d1c10"
RESUME = "4a1d2a5f-7b6c-4e0e-9f3e-7f2f3b7d1c11"


CONTROLLERS = (
    Controller("0000:3b:00.0", "9005", "028d", "9005", "0558", "010400", "02", "aacraid"),
    Controller("0000:00:11.5", "8086", "a1d2", "1028", "0715", "010601", "09", "ahci"),
)


@cache
def drivers() -> WindowsDrivers:
    """Of a Windows that has the drivers for both controllers."""
    raid = Driver("arcsas", "arcsas.inf", ("PCI\\VEN_9005&DEV_028D&SUBSYS_05589005",))
    known = (raid, *(d for d in IN_BOX if d.service != "arcsas"))
    found = offline.only(offline.surveyed(offline.tree(known), CONTROLLERS)).drivers
    assert found is not None
    return found


def sz(kind: int, text: str) -> StoreElement:
    return StoreElement(kind, (text + "\0").encode("utf-16-le").hex(), 1)


def device(kind: int, partition: str, disk: str) -> StoreElement:
    return StoreElement(kind, encode_device(PartitionDevice(identity=GptIdentity(partition, disk))).hex(), 3)


def store(esp: str, system: str, disk: str) -> BootStore:
    manager = StoreObject(
        BOOTMGR,
        0x10100002,
        (
            device(0x11000001, esp, disk),
            sz(0x12000002, "\\EFI\\Microsoft\\Boot\\bootmgfw.efi"),
            sz(0x12000004, "Windows Boot Manager"),
            sz(0x23000003, "{" + LOADER + "}"),
            StoreElement(0x24000001, ("{" + LOADER + "}\0\0").encode("utf-16-le").hex(), 7),
        ),
    )
    loader = StoreObject(
        LOADER,
        0x10200003,
        (
            device(0x11000001, system, disk),
            sz(0x12000002, "\\Windows\\system32\\winload.efi"),
            sz(0x12000004, "Windows Server 2016"),
            device(0x21000001, system, disk),
            sz(0x22000002, "\\Windows"),
            sz(0x23000003, "{" + RESUME + "}"),
        ),
    )
    resume = StoreObject(
        RESUME,
        0x10200004,
        (
            device(0x11000001, system, disk),
            sz(0x12000002, "\\Windows\\system32\\winresume.efi"),
            sz(0x12000004, "Windows Resume Application"),
            device(0x21000001, system, disk),
            sz(0x22000002, "\\hiberfil.sys"),
        ),
    )
    path = "\\EFI\\Microsoft\\Boot\\BCD"
    objects = (manager, loader, resume)
    return BootStore(
        f"disk0p1:{path}",
        "disk0p1",
        path,
        StoreRole.EFI_SYSTEM,
        StoreState.OK,
        size=32768,
        sha256="3b" * 32,
        objects=objects,
    )


def survey(*, stale: bool = True) -> Survey:
    """The server; with ``stale`` its boot store still names the disk that it was backed up from."""
    esp = Partition(
        "disk0p1", 1, MIB, 100 * MIB, "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "EFI system", ESP_GUID
    )
    msr = Partition(
        "disk0p2",
        2,
        101 * MIB,
        16 * MIB,
        "e3c9e316-0b5c-4db8-817d-f92df00215ae",
        "Microsoft reserved",
        "b3f7a1c2-0a55-4c11-8a6b-0d6b6a6f0002",
    )
    basic = Partition(
        "disk0p3", 3, 117 * MIB, 930 * GIB, "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7", "Basic data", OS_GUID
    )
    table = PartitionTable(TableStyle.GPT, DISK_GUID, None, (esp, msr, basic))
    disk = Disk(
        "disk0",
        "/dev/sda",
        931 * GIB,
        512,
        table,
        model="LogicalDrv 0",
        serial="7A2F01C4",
        transport="sas",
        controller="0000:3b:00.0",
    )
    files = tuple(
        BootFile(p, 1_270_000, "ab" * 32, "x64", "10.0.14393.5850")
        for p in ("\\EFI\\Microsoft\\Boot\\bootmgfw.efi", "\\EFI\\Boot\\bootx64.efi")
    )
    volumes = (
        Volume(
            "disk0p1",
            "disk0",
            "disk0p1",
            esp.offset,
            esp.size,
            FileSystem.FAT32,
            free=70 * MIB,
            boot_files=files,
        ),
        Volume(
            "disk0p3",
            "disk0",
            "disk0p3",
            basic.offset,
            basic.size,
            FileSystem.NTFS,
            label="System",
            cluster_size=4096,
            free=512 * GIB,
            windows_root="\\Windows",
        ),
    )
    winload = BootFile("\\Windows\\system32\\winload.efi", 1_300_000, "cd" * 32, "x64", "10.0.14393.5850")
    windows = WindowsInstallation(
        "disk0p3:\\Windows",
        "disk0p3",
        "\\Windows",
        product_name="Windows Server 2016 Standard",
        edition="ServerStandard",
        installation_type="Server",
        build=14393,
        revision=5850,
        display_version="1607",
        architecture="x64",
        computer_name="HV01",
        locale="de-DE",
        system_hive=HiveState.OK,
        software_hive=HiveState.OK,
        control_sets=(1,),
        current_control_set=1,
        default_control_set=1,
        source_files=(SourceFile("\\Windows\\Boot\\EFI\\bootmgfw.efi", 1_270_000),),
        winload_efi=winload,
        hyperv_host=True,
        drivers=drivers(),
    )
    entry = FirmwareBootEntry(
        0, "Windows Boot Manager", True, ESP_GUID, "\\EFI\\Microsoft\\Boot\\bootmgfw.efi", "00"
    )
    ids = (OLD_ESP, OLD_OS, OLD_DISK) if stale else (ESP_GUID, OS_GUID, DISK_GUID)
    return Survey(
        version="0.1.0",
        taken="2025-01-07T02:58:11+00:00",
        system="linux",
        firmware=Firmware(FirmwareMode.UEFI, False, True, (entry,), (0,), 0),
        controllers=CONTROLLERS,
        disks=(disk,),
        volumes=volumes,
        windows=(windows,),
        boot_stores=(store(*ids),),
        paths=(
            PathOnVolume("\\windows\\system32\\winload.efi", "disk0p3", 1_300_000, False),
            PathOnVolume("\\windows\\system32\\winresume.efi", "disk0p3", 1_100_000, False),
            PathOnVolume("\\windows", "disk0p3", 0, True),
        ),
    )


def two_windows() -> Survey:
    """The same with a second installation on a second disk, so that nobody can tell which one is meant."""
    one = survey()
    p3 = one.disks[0].table.partitions[2]
    part = replace(p3, id="disk1p1", number=1, unique_guid="c0ffee00-0a55-4c11-8a6b-0d6b6a6f0009")
    table = PartitionTable(TableStyle.GPT, "c0ffee00-0a55-4c11-8a6b-0d6b6a6f0000", None, (part,))
    disk = replace(one.disks[0], id="disk1", path="/dev/sdb", serial="7A2F01C5", table=table)
    volume = replace(one.volumes[1], id="disk1p1", disk="disk1", partition="disk1p1", label="Old")
    windows = replace(one.windows[0], id="disk1p1:\\Windows", volume="disk1p1", computer_name="HV00")
    paths = tuple(replace(p, volume="disk1p1") for p in one.paths)
    return replace(
        one,
        disks=(*one.disks, disk),
        volumes=(*one.volumes, volume),
        windows=(*one.windows, windows),
        paths=(*one.paths, *paths),
    )


def two_windows_without_a_store() -> Survey:
    """The system partition is on a disk of its own and empty: nothing says which Windows is meant."""
    both = two_windows()
    esp = replace(both.disks[0].table.partitions[0], id="disk2p1")
    table = PartitionTable(TableStyle.GPT, "dddddddd-0a55-4c11-8a6b-0d6b6a6f0000", None, (esp,))
    disk = replace(both.disks[0], id="disk2", path="/dev/sdc", serial="7A2F01C6", table=table)
    first = replace(
        both.disks[0], table=replace(both.disks[0].table, partitions=both.disks[0].table.partitions[1:])
    )
    volume = replace(both.volumes[0], id="disk2p1", disk="disk2", partition="disk2p1", boot_files=())
    return replace(
        both,
        disks=(first, both.disks[1], disk),
        volumes=(volume, *both.volumes[1:]),
        boot_stores=(),
    )
