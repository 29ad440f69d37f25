"""Surveys made around a boot store, without any disk: a server whose partitions the store does not know."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from rehost_payload.formats.bcd import Store, parse_store
from rehost_payload.formats.bcd_devices import (
    FileDevice,
    RamdiskDevice,
    VhdDevice,
    walk_devices,
)
from rehost_payload.formats.gpt import BASIC_DATA, EFI_SYSTEM, WINDOWS_RECOVERY
from rehost_payload.survey.model import (
    BootCode,
    BootFile,
    BootStore,
    Disk,
    FileSystem,
    Firmware,
    FirmwareMode,
    HiveState,
    Partition,
    PartitionTable,
    PathOnVolume,
    StoreRole,
    StoreState,
    Survey,
    TableStyle,
    Volume,
    WindowsInstallation,
)
from rehost_payload.survey.store_objects import to_survey_objects

MIB = 1 << 20
SYSTEM, WINDOWS, RECOVERY = "disk0p1", "disk0p2", "disk0p3"
_LOADERS = ("winload", "winresume")


def _partitions(gpt: bool) -> tuple[Partition, ...]:
    types = (EFI_SYSTEM, BASIC_DATA, WINDOWS_RECOVERY) if gpt else ("07", "07", "27")
    return tuple(
        Partition(
            f"disk0p{n}",
            n,
            n * 100 * MIB,
            90 * MIB,
            kind,
            "",
            f"0000000{n}-aaaa-bbbb-cccc-000000000000" if gpt else None,
            active=not gpt and n == 1,
        )
        for n, kind in enumerate(types, 1)
    )


def _volume(partition: Partition, fat: bool, files: tuple[BootFile, ...]) -> Volume:
    return Volume(
        id=partition.id,
        disk="disk0",
        partition=partition.id,
        offset=partition.offset,
        size=partition.size,
        file_system=FileSystem.FAT32 if fat else FileSystem.NTFS,
        free=50 * MIB,
        hidden_sectors=partition.offset // 512,
        boot_code=BootCode.BOOTMGR,
        boot_files=files,
    )


def system_roots(store: Store) -> set[str]:
    """The folders that the store's loaders (not those from a ramdisk) take for a Windows."""
    loaders = [o for o in store.objects.values() if o.type == 0x10200003]
    own = [o for o in loaders if not isinstance(o.device(0x21000001), RamdiskDevice | VhdDevice)]
    return {(o.string(0x22000002) or "\\Windows") for o in own}


def paths(store: Store) -> tuple[PathOnVolume, ...]:
    """Every path of the store, each on the one volume that a real server has it on."""
    found: dict[str, str] = {}
    for obj, element in store.elements():
        device = element.device
        if device is not None:
            for part in walk_devices(device):
                if isinstance(part, RamdiskDevice | FileDevice):
                    on = RECOVERY if isinstance(part, RamdiskDevice) else WINDOWS
                    found.setdefault(part.path.lower(), on)
        elif element.type == 0x32000004:
            found[str(element.value).lower()] = RECOVERY
        elif element.type == 0x12000002:
            on = WINDOWS if obj.type in (0x10200003, 0x10200004) else SYSTEM
            found.setdefault(str(element.value).lower(), on)
    return tuple(PathOnVolume("\\" + p.strip("\\"), v, 1000, False) for p, v in found.items())


def around(data: bytes, gpt: bool) -> Survey:
    """The survey of a server whose one disk was restored with new identities, with this store on it."""
    store = parse_store(data)
    parts = _partitions(gpt)
    disk = Disk(
        "disk0",
        "/dev/sda",
        400 * MIB,
        512,
        PartitionTable(
            TableStyle.GPT if gpt else TableStyle.MBR,
            "00000000-1111-2222-3333-444444444444" if gpt else None,
            0 if gpt else 0x12345678,
            parts,
            boot_code=BootCode.OTHER,
        ),
    )
    boot = "\\EFI\\Microsoft\\Boot\\bootmgfw.efi"
    at_system = (
        (BootFile(boot, 1000), BootFile("\\EFI\\Boot\\bootx64.efi", 1000))
        if gpt
        else (BootFile("\\bootmgr", 1000),)
    )
    volumes = (
        _volume(parts[0], gpt, at_system),
        _volume(parts[1], False, ()),
        _volume(parts[2], False, ()),
    )
    windows = tuple(
        WindowsInstallation(
            f"{WINDOWS}:{root}",
            WINDOWS,
            root,
            "Windows Server 2016",
            build=14393,
            architecture="x64",
            system_hive=HiveState.OK,
            winload_efi=BootFile(f"{root}\\system32\\winload.efi", 1000, machine="x64"),
            winload_exe=BootFile(f"{root}\\system32\\winload.exe", 1000, machine="x64"),
        )
        for root in sorted({r.lower().rstrip("\\"): r for r in system_roots(store)}.values())
    )
    role = StoreRole.EFI_SYSTEM if gpt else StoreRole.BIOS_SYSTEM
    path = "\\EFI\\Microsoft\\Boot\\BCD" if gpt else "\\Boot\\BCD"
    boot_store = BootStore(
        f"{SYSTEM}:{path}",
        SYSTEM,
        path,
        role,
        StoreState.OK,
        len(data),
        hashlib.sha256(data).hexdigest(),
        objects=to_survey_objects(store),
    )
    return Survey(
        "test",
        "2026-01-01T00:00:00+00:00",
        "images",
        Firmware(FirmwareMode.UNKNOWN),
        disks=(disk,),
        volumes=volumes,
        windows=windows,
        boot_stores=(boot_store,),
        paths=paths(store),
    )


def with_store(survey: Survey, data: bytes) -> Survey:
    """The same server with another content of its store."""
    store = replace(
        survey.boot_stores[0],
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        objects=to_survey_objects(parse_store(data)),
    )
    return replace(survey, boot_stores=(store,))
