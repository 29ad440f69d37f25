"""Installations in memory, surveyed behind any controller: what the tests of drivers are made from."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rehost_payload.survey.driver_packages import survey_packages
from rehost_payload.survey.model import (
    BootCode,
    Controller,
    Disk,
    FileSystem,
    Firmware,
    FirmwareMode,
    Partition,
    PartitionTable,
    Problem,
    Survey,
    TableStyle,
    Volume,
    WindowsInstallation,
)
from rehost_payload.survey.volumes import OpenVolume
from rehost_payload.survey.windows import survey_windows
from support import driver_records, windows
from support.disks import BASIC_DATA
from support.driver_records import Driver, Keys
from support.hives import dword, make_hive
from support.memory_volume import MemoryVolume

MIB = 1 << 20
GUID = uuid.UUID("5f0c6a3e-6b1c-4c7e-9a39-3f1d9f0a7b11")
ADDRESS = "0000:03:00.0"
SYSTEM = "Windows/System32/config/SYSTEM"


def controller(
    pci: str, class_code: str = "010400", address: str = ADDRESS, revision: str = "01"
) -> Controller:
    """From "9005:028D:9005:0552" (subsystem vendor and device last, as lspci writes it)."""
    parts = [*pci.lower().split(":"), "0000", "0000"]
    return Controller(address, *parts[:4], class_code, revision, None)


AHCI = controller("1022:7901:1458:b005", "010601")
NVME = controller("144d:a808:144d:a801", "010802")
SERIES_8 = controller("9005:028d:9005:0552")
SMART_3100 = controller("9005:028f:9005:0800")

CRASH_CONTROL = "ControlSet001\\Control\\CrashControl"


def tree(
    drivers: tuple[Driver, ...] = driver_records.IN_BOX,
    system: Keys | None = None,
    files: Mapping[str, bytes | None] | None = None,
    release: windows.Release = windows.SERVER_2016,
) -> dict[str, bytes]:
    """The files of an installation. ``system``: more keys of its SYSTEM hive; ``files``: None takes one away.

    Stop errors stay on its screen already, so that this is not one more thing to be changed with every driver.
    """
    found = windows.windows_tree(windows.BootFiles(), release, drivers)
    found[SYSTEM] = make_hive({CRASH_CONTROL: {"AutoReboot": dword(0)}, **(system or {})}, found[SYSTEM])
    for name, data in (files or {}).items():
        if data is None:
            found = {k: v for k, v in found.items() if k.lower() != name.lower()}
        else:
            found[name] = data
    return found


def surveyed(
    files: Mapping[str, bytes],
    controllers: Sequence[Controller] = (AHCI,),
    packages: Sequence[Path] = (),
    volumes: Sequence[OpenVolume] = (),
    problems: list[Problem] | None = None,
    mounted: bytes = b"DMIO:ID:" + GUID.bytes_le,
) -> Survey:
    """A server whose one disk is connected to the first of the controllers.

    ``mounted`` is what MountedDevices would say of the partition: 12 bytes for MBR, 24 for GPT.
    """
    offset = MIB if len(mounted) == 24 else int.from_bytes(mounted[4:], "little")
    if len(mounted) == 24:
        guid = str(uuid.UUID(bytes_le=mounted[8:]))
        partition = Partition("disk0p1", 1, offset, 1000 * MIB, BASIC_DATA, "", guid)
        table = PartitionTable(TableStyle.GPT, str(GUID), partitions=(partition,))
    else:
        partition = Partition("disk0p1", 1, offset, 1000 * MIB, "07", "", active=True)
        signature = int.from_bytes(mounted[:4], "little")
        table = PartitionTable(TableStyle.MBR, None, signature, (partition,), boot_code=BootCode.OTHER)
    address = controllers[0].address if controllers else None
    disk = Disk("disk0", "/dev/sda", offset + 1001 * MIB, 512, table, controller=address)
    volume = Volume("disk0p1", "disk0", "disk0p1", offset, 1000 * MIB, FileSystem.NTFS, free=500 * MIB)
    opened = OpenVolume(volume, MemoryVolume(files))
    found = problems if problems is not None else []
    installations = survey_windows(opened, found, controllers)
    installations = survey_packages(installations, controllers, packages, [opened, *volumes], found)
    return Survey(
        *("test", "2026-01-01T00:00:00+00:00", "linux"),
        Firmware(FirmwareMode.UNKNOWN),
        controllers=tuple(controllers),
        disks=(disk,),
        volumes=(volume,),
        windows=tuple(installations),
        problems=tuple(found),
    )


def only(survey: Survey) -> WindowsInstallation:
    (found,) = survey.windows
    return found


def without(survey: Survey, **changes: object) -> Survey:
    """The survey with other driver facts."""
    found = only(survey)
    assert found.drivers is not None
    drivers = replace(found.drivers, **changes)  # type: ignore[arg-type]
    return replace(survey, windows=(replace(found, drivers=drivers),))
