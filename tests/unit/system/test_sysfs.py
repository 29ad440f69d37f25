"""Disks and controllers from a /sys that the test makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from rehost_payload.survey.model import FirmwareMode
from rehost_payload.system.linux import LinuxSystem
from rehost_payload.system.sysfs import block_devices, controllers


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "sys/block").mkdir(parents=True)
    (tmp_path / "sys/bus/pci/devices").mkdir(parents=True)
    return tmp_path


def put(folder: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def pci(root: Path, address: str, code: str, ids: tuple[str, str, str, str], driver: str = "") -> None:
    place = root / "sys/bus/pci/devices" / address
    names = ("vendor", "device", "subsystem_vendor", "subsystem_device")
    put(place, {name: f"0x{value}\n" for name, value in zip(names, ids, strict=True)})
    put(place, {"class": f"0x{code}\n", "revision": "0x01\n"})
    if driver:
        target = root / "sys/bus/pci/drivers" / driver
        target.mkdir(parents=True, exist_ok=True)
        (place / "driver").symlink_to(target)


def disk(
    root: Path, name: str, place: str, files: dict[str, str | bytes], device: dict[str, str | bytes]
) -> Path:
    entry = root / "sys/devices" / place / "block" / name
    put(
        entry,
        {"size": "2048\n", "ro": "0\n", "removable": "0\n", "queue/logical_block_size": "512\n"} | files,
    )
    put(root / "sys/devices" / place, device)
    (entry / "device").symlink_to(root / "sys/devices" / place)
    (root / "sys/block" / name).symlink_to(entry)
    return entry


def test_controllers(root: Path) -> None:
    pci(root, "0000:00:1f.2", "010601", ("8086", "a182", "1028", "06e6"), "ahci")
    pci(root, "0000:03:00.0", "010400", ("9005", "028f", "9005", "0806"))
    pci(root, "10000:e1:00.0", "010802", ("144D", "A808", "144D", "A801"), "nvme")
    pci(root, "0000:00:02.0", "030000", ("1234", "1111", "1af4", "1100"))
    found = {c.address: c for c in controllers(root)}
    assert set(found) == {"0000:00:1f.2", "0000:03:00.0", "10000:e1:00.0"}
    raid = found["0000:03:00.0"]
    assert (raid.vendor, raid.device, raid.subsystem_vendor, raid.subsystem_device) == (
        *("9005", "028f", "9005", "0806"),
    )
    assert (raid.class_code, raid.revision, raid.driver) == ("010400", "01", None)
    assert found["0000:00:1f.2"].driver == "ahci"
    assert found["10000:e1:00.0"].vendor == "144d"


def test_disks(root: Path) -> None:
    sata = disk(
        root,
        "sda",
        "pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0",
        {"size": "1000215216\n", "sda1/start": "2048\n", "sda2/start": "206848\n"},
        {"model": "Samsung SSD 850\n", "vendor": "ATA     \n", "vpd_pg80": b"\0\x80\0\x08S21N1234"},
    )
    disk(
        root,
        "nvme0n1",
        "pci0000:00/0000:00:01.0/0000:01:00.0/nvme/nvme0",
        {"queue/logical_block_size": "4096\n", "ro": "1\n", "nvme0n1p1/start": "256\n"},
        {"model": "PM983 ", "serial": "S4X\n"},
    )
    disk(root, "vda", "pci0000:00/0000:00:05.0/virtio2", {"serial": "virtual-1"}, {"vendor": "0x1af4\n"})
    disk(
        root,
        "sdb",
        "pci0000:00/0000:00:14.0/usb1/1-2/1-2:1.0/host3/target3:0:0/3:0:0:0",
        {"removable": "1\n"},
        {"vendor": "SanDisk\n", "model": "Ultra\n"},
    )
    disk(
        root,
        "sdc",
        "LNXSYSTM:00/VMBUS:00/f8b3781a/host4/target4:0:0/4:0:0:0",
        {},
        {"vendor": "Msft", "model": "V"},
    )
    disk(root, "sdaa", "pci0000:00/0000:03:00.0/host5/port-5:0/end_device-5:0/target5/5:0:0:0", {}, {})
    for name in ("loop0", "ram0", "zram0", "dm-0", "md0", "sr0", "fd0"):
        disk(root, name, f"virtual/{name}", {}, {})
    disk(root, "sdd", "pci0000:00/0000:00:14.0/usb1/1-3/host6/card", {"size": "0\n"}, {})
    disk(root, "nvme0c0n1", "pci0000:00/path", {"hidden": "1\n"}, {})
    found = {d.name: d for d in block_devices(root)}
    assert list(found) == ["nvme0n1", "sda", "sdb", "sdc", "sdaa", "vda"]
    assert sata
    assert found["sda"].size == 1000215216 * 512
    assert (found["sda"].model, found["sda"].serial) == ("Samsung SSD 850", "S21N1234")
    assert (found["sda"].transport, found["sda"].controller) == ("sata", "0000:00:1f.2")
    assert found["sda"].partitions == {1 << 20: "/dev/sda1", 206848 * 512: "/dev/sda2"}
    nvme = found["nvme0n1"]
    assert (nvme.transport, nvme.controller, nvme.sector_size) == ("nvme", "0000:01:00.0", 4096)
    assert (nvme.read_only, nvme.serial, nvme.partitions) == (True, "S4X", {256 * 512: "/dev/nvme0n1p1"})
    assert (found["vda"].transport, found["vda"].serial) == ("virtio", "virtual-1")
    assert found["vda"].model == ""
    stick = found["sdb"]
    assert (stick.transport, stick.controller, stick.removable) == ("usb", None, True)
    assert stick.model == "SanDisk Ultra"
    assert (found["sdc"].transport, found["sdc"].controller) == ("hyper-v", None)
    assert (found["sdaa"].transport, found["sdaa"].controller) == ("sas", "0000:03:00.0")


def test_an_empty_machine(tmp_path: Path) -> None:
    system = LinuxSystem(tmp_path)
    assert list(system.disks()) == []
    assert list(system.controllers()) == []
    assert system.firmware().mode is FirmwareMode.BIOS


def test_disks_that_cannot_be_opened_are_problems(root: Path) -> None:
    disk(root, "sdzz", "pci0000:00/0000:00:1f.2/ata9/host0/x", {}, {})
    system = LinuxSystem(root)
    assert list(system.disks()) == []
    (problem,) = system.problems()
    assert problem.startswith("/dev/sdzz: ")
