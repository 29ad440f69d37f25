"""Disks and storage controllers as the Linux kernel shows them in /sys. Reads files only, opens no device.

``root`` is "/" except in tests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from rehost_payload.survey.model import Controller

# Not disks: memory, loops, optical drives, and what is stacked upon disks (dm, md).
_NOT_DISKS = re.compile(r"(loop|ram|zram|dm-|md|sr|fd|mtdblock|nbd)\d")
_PCI_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_STORAGE_CLASS = "01"


@dataclass(frozen=True)
class BlockDevice:
    """One whole disk. ``partitions`` maps byte offsets to device nodes."""

    name: str
    path: str
    size: int
    sector_size: int
    model: str
    serial: str
    transport: str
    controller: str | None
    read_only: bool
    removable: bool
    partitions: dict[int, str]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip().strip("\0").strip()
    except OSError:
        return ""


def _number(path: Path, default: int = 0) -> int:
    try:
        return int(_read(path))
    except ValueError:
        return default


def block_devices(root: Path = Path("/")) -> list[BlockDevice]:
    """All disks with a medium, sorted as people count them: sda, sdb, ..., sdaa."""
    folder = root / "sys/block"
    if not folder.is_dir():
        return []
    names = [entry.name for entry in folder.iterdir() if not _NOT_DISKS.match(entry.name)]
    found = (_device(folder / name, name) for name in sorted(names, key=_natural))
    return [device for device in found if device is not None]


def _natural(name: str) -> tuple[tuple[int, int | str], ...]:
    match = re.fullmatch(r"((?:sd|vd|hd|xvd))([a-z]+)", name)
    if match:
        return ((1, match[1]), (0, len(match[2])), (1, match[2]))
    return tuple(
        (0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name) if part
    )


def _device(entry: Path, name: str) -> BlockDevice | None:
    size = _number(entry / "size") * 512  # always in units of 512 bytes
    if size == 0 or _number(entry / "hidden"):
        return None  # a card reader without a card; one path of a multipath NVMe disk
    try:
        place = (entry / "device").resolve()
    except OSError:
        place = entry
    addresses = _PCI_ADDRESS.findall(str(place))
    transport = _transport(name, str(place))
    controller = addresses[-1] if addresses and transport != "usb" else None
    vendor, model = _read(entry / "device/vendor"), _read(entry / "device/model")
    if vendor and vendor not in ("ATA", "0x1af4") and not vendor.startswith("0x"):
        model = f"{vendor} {model}".strip()
    partitions = {
        _number(child / "start") * 512: f"/dev/{child.name}"
        for child in entry.glob(f"{name}*")
        if (child / "start").exists()
    }
    return BlockDevice(
        name,
        f"/dev/{name.replace('!', '/')}",
        size,
        _number(entry / "queue/logical_block_size", 512),
        model,
        _serial(entry),
        transport,
        controller,
        bool(_number(entry / "ro")),
        bool(_number(entry / "removable")),
        partitions,
    )


def _serial(entry: Path) -> str:
    for name in ("device/serial", "serial"):
        serial = _read(entry / name)
        if serial:
            return serial
    try:
        page = (entry / "device/vpd_pg80").read_bytes()  # SCSI: 4 bytes of header, then the number
    except OSError:
        return ""
    return page[4 : 4 + int.from_bytes(page[2:4], "big")].decode("ascii", "replace").strip(" \0")


def _transport(name: str, place: str) -> str:
    for word, transport in (("/usb", "usb"), ("/vmbus", "hyper-v"), ("VMBUS", "hyper-v")):
        if word in place:
            return transport
    if name.startswith("nvme"):
        return "nvme"
    if name.startswith("mmcblk"):
        return "mmc"
    for word, transport in (
        ("/ata", "sata"),
        ("/end_device-", "sas"),
        ("/virtio", "virtio"),
        ("/host", "scsi"),
    ):
        if word in place:
            return transport
    return ""


def controllers(root: Path = Path("/")) -> list[Controller]:
    """PCI functions of the storage class (01xxxx)."""
    folder = root / "sys/bus/pci/devices"
    if not folder.is_dir():
        return []
    found: list[Controller] = []
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        code = _hex(entry / "class")
        if not code.startswith(_STORAGE_CLASS) or len(code) != 6:
            continue
        driver = entry / "driver"
        found.append(
            Controller(
                address=entry.name,
                vendor=_hex(entry / "vendor"),
                device=_hex(entry / "device"),
                subsystem_vendor=_hex(entry / "subsystem_vendor"),
                subsystem_device=_hex(entry / "subsystem_device"),
                class_code=code,
                revision=_hex(entry / "revision"),
                driver=driver.resolve().name if driver.exists() else None,
            )
        )
    return found


def _hex(path: Path) -> str:
    return _read(path).removeprefix("0x").lower()
