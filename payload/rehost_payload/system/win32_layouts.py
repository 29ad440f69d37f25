"""What device control codes take and return, byte by byte (winioctl.h, ntddstor.h, ntddvol.h), on x64.

Parsers raise ValueError for answers that are too short: a driver may say anything.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

DISK_GET_LENGTH = 0x7405C
DISK_GEOMETRY_EX = 0x700A0
DISK_IS_WRITABLE = 0x70024
DISK_LAYOUT_EX = 0x70050
DISK_GET_ATTRIBUTES = 0x700F0
DISK_SET_ATTRIBUTES = 0x7C0F4
DISK_UPDATE_PROPERTIES = 0x70140
STORAGE_QUERY_PROPERTY = 0x2D1400
STORAGE_DEVICE_NUMBER = 0x2D1080
VOLUME_DISK_EXTENTS = 0x560000
LOCK_VOLUME, UNLOCK_VOLUME, DISMOUNT_VOLUME = 0x90018, 0x9001C, 0x90020

QUERY_DEVICE = struct.pack("<III", 0, 0, 0)  # StorageDeviceProperty, PropertyStandardQuery
ATTRIBUTE_OFFLINE, ATTRIBUTE_READ_ONLY = 1, 2
FILE_DEVICE_DISK = 7

_BUSES = {
    1: "scsi",
    2: "ata",  # ATAPI
    3: "ata",
    4: "ieee1394",
    6: "fc",
    7: "usb",
    8: "raid",
    9: "iscsi",
    10: "sas",
    11: "sata",
    12: "mmc",
    13: "mmc",
    14: "virtual",
    15: "virtual",
    16: "spaces",
    17: "nvme",
}


@dataclass(frozen=True)
class Device:
    model: str
    serial: str
    transport: str
    removable: bool


@dataclass(frozen=True)
class Extent:
    """Bytes of a disk that belong to a volume."""

    disk: int
    offset: int
    length: int


def _need(data: bytes, length: int, what: str) -> None:
    if len(data) < length:
        raise ValueError(f"{what}: {len(data)} bytes came, {length} are needed")


def parse_geometry(data: bytes) -> tuple[int, int]:
    """DISK_GEOMETRY_EX: (bytes per sector, size of the disk in bytes)."""
    _need(data, 32, "DISK_GEOMETRY_EX")
    (sector,) = struct.unpack_from("<I", data, 20)
    (size,) = struct.unpack_from("<q", data, 24)
    if sector not in (512, 1024, 2048, 4096) or size < 0:
        raise ValueError(f"DISK_GEOMETRY_EX: sectors of {sector} bytes, {size} bytes in all")
    return sector, size


def parse_length(data: bytes) -> int:
    """GET_LENGTH_INFORMATION: bytes."""
    _need(data, 8, "GET_LENGTH_INFORMATION")
    return int(struct.unpack_from("<q", data)[0])


def parse_device(data: bytes) -> Device:
    """STORAGE_DEVICE_DESCRIPTOR; its strings are named by offsets, 0 where there is none."""
    _need(data, 36, "STORAGE_DEVICE_DESCRIPTOR")
    removable = data[10] != 0
    vendor, product, _revision, serial = struct.unpack_from("<4I", data, 12)
    (bus,) = struct.unpack_from("<I", data, 28)

    def text(offset: int) -> str:
        if not 0 < offset < len(data):
            return ""
        return data[offset:].partition(b"\0")[0].decode("ascii", "replace").strip()

    maker = text(vendor)
    model = text(product)
    if maker and maker.upper() not in ("ATA", "NVME"):  # what the port driver puts in, not the maker
        model = f"{maker} {model}".strip()
    return Device(model, text(serial), _BUSES.get(bus, ""), removable)


def parse_device_number(data: bytes) -> tuple[int, int]:
    """STORAGE_DEVICE_NUMBER: (device type, number)."""
    _need(data, 12, "STORAGE_DEVICE_NUMBER")
    kind, number, _partition = struct.unpack_from("<III", data)
    return kind, number


def parse_extents(data: bytes) -> tuple[Extent, ...]:
    """VOLUME_DISK_EXTENTS."""
    _need(data, 8, "VOLUME_DISK_EXTENTS")
    (count,) = struct.unpack_from("<I", data)
    _need(data, 8 + 24 * count, "VOLUME_DISK_EXTENTS")
    found = []
    for i in range(count):
        disk, offset, length = struct.unpack_from("<I4xqq", data, 8 + 24 * i)
        found.append(Extent(disk, offset, length))
    return tuple(found)


def parse_layout(data: bytes) -> dict[int, int]:
    """DRIVE_LAYOUT_INFORMATION_EX: byte offset -> number of the partition's device. Empty entries are left out."""
    _need(data, 48, "DRIVE_LAYOUT_INFORMATION_EX")
    (count,) = struct.unpack_from("<I", data, 4)
    _need(data, 48 + 144 * count, "DRIVE_LAYOUT_INFORMATION_EX")
    found: dict[int, int] = {}
    for i in range(count):
        offset, length, number = struct.unpack_from("<qqI", data, 48 + 144 * i + 8)
        if number and length:
            found[offset] = number
    return found


def parse_attributes(data: bytes) -> int:
    """GET_DISK_ATTRIBUTES: the attributes that apply."""
    _need(data, 16, "GET_DISK_ATTRIBUTES")
    return int(struct.unpack_from("<Q", data, 8)[0])


def make_attributes(attributes: int, mask: int) -> bytes:
    """SET_DISK_ATTRIBUTES, not kept over a restart."""
    return struct.pack("<IB3xQQ4I", 40, 0, attributes, mask, 0, 0, 0, 0)
