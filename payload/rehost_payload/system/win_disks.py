r"""Disks of Windows: \\.\PhysicalDriveN, read past every cache and in whole sectors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from rehost_payload.system import win32_layouts as layouts
from rehost_payload.system.protocol import DiskInfo, SystemError_
from rehost_payload.system.win32 import (
    ERROR_FILE_NOT_FOUND,
    ERROR_MORE_DATA,
    ERROR_WRITE_PROTECT,
    GENERIC_READ,
    GENERIC_WRITE,
    NO_BUFFERING,
    WRITE_THROUGH,
    Devices,
    Win32Error,
    refused,
)

_PATH = re.compile(r"\\\\\.\\PhysicalDrive(\d{1,4})", re.IGNORECASE)
_MOST = 8 << 20  # bytes of one ReadFile
_ROOM = 1 << 16


def disk_path(number: int) -> str:
    return rf"\\.\PhysicalDrive{number}"


def disk_number(path: str) -> int:
    match = _PATH.fullmatch(path)
    if match is None:
        raise SystemError_("gone", f"{path} is no disk of this machine")
    return int(match[1])


@contextmanager
def opened(devices: Devices, path: str, access: int = 0, flags: int = 0) -> Iterator[int]:
    handle = devices.open(path, access, flags)
    try:
        yield handle
    finally:
        devices.close(handle)


@dataclass
class WindowsDisk:
    """Implements DiskHandle. ``partitions`` maps byte offsets to names of devices."""

    info: DiskInfo
    devices: Devices
    handle: int
    partitions: Mapping[int, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return self.info.size

    def read_at(self, offset: int, length: int) -> bytes:
        """Raises OSError, as the readers expect it."""
        if offset < 0 or length < 0:
            raise ValueError("offset and length must not be negative")
        sector = self.info.sector_size
        end = min(offset + length, self.size)
        pieces: list[bytes] = []
        position = offset // sector * sector
        try:
            while position < end:
                wanted = min(_MOST, -(-(end - position) // sector) * sector)
                piece = self.devices.read(self.handle, position, wanted)
                if not piece:
                    break
                pieces.append(piece)
                position += len(piece)
        except Win32Error as error:
            raise OSError(5, f"{error} at {position:#x}") from error
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        skip = offset - offset // sector * sector
        return data[skip : skip + max(0, end - offset)]

    def partition_path(self, number: int, offset: int) -> str | None:
        return self.partitions.get(offset)

    def close(self) -> None:
        if self.handle:
            with suppress(Win32Error):
                self.devices.close(self.handle)
            self.handle = 0


def open_disk(devices: Devices, number: int) -> WindowsDisk | None:
    """None where there is no such disk, or no medium in it. Raises Win32Error, ValueError."""
    path = disk_path(number)
    try:
        handle = devices.open(path, GENERIC_READ, NO_BUFFERING)
    except Win32Error as error:
        if error.code == ERROR_FILE_NOT_FOUND:
            return None
        raise
    try:
        sector, size = layouts.parse_geometry(devices.control(handle, layouts.DISK_GEOMETRY_EX, b"", 256))
        with suppress(Win32Error, ValueError):  # the geometry of some drivers is rounded to cylinders
            size = layouts.parse_length(devices.control(handle, layouts.DISK_GET_LENGTH, b"", 8))
        if size == 0:
            devices.close(handle)
            return None
        device = layouts.Device("", "", "", False)
        with suppress(Win32Error, ValueError):
            answer = devices.control(handle, layouts.STORAGE_QUERY_PROPERTY, layouts.QUERY_DEVICE, 4096)
            device = layouts.parse_device(answer)
        info = DiskInfo(
            path=path,
            size=size,
            sector_size=sector,
            model=device.model,
            serial=device.serial,
            transport=device.transport,
            read_only=_is_read_only(devices, handle),
            removable=device.removable,
        )
        return WindowsDisk(info, devices, handle, _partitions(devices, handle, number))
    except BaseException:
        devices.close(handle)
        raise


def _is_read_only(devices: Devices, handle: int) -> bool:
    try:
        devices.control(handle, layouts.DISK_IS_WRITABLE)
    except Win32Error as error:
        return error.code == ERROR_WRITE_PROTECT and not _offline(devices, handle)
    return False


def _offline(devices: Devices, handle: int) -> bool:
    """Windows' own policy (SAN) keeps a disk away, which `online` changes; that is no write protection."""
    return bool(_attributes(devices, handle) & (layouts.ATTRIBUTE_OFFLINE | layouts.ATTRIBUTE_READ_ONLY))


def _attributes(devices: Devices, handle: int) -> int:
    try:
        return layouts.parse_attributes(devices.control(handle, layouts.DISK_GET_ATTRIBUTES, b"", 16))
    except (Win32Error, ValueError):
        return 0


def _partitions(devices: Devices, handle: int, number: int) -> dict[int, str]:
    try:
        answer = devices.control(handle, layouts.DISK_LAYOUT_EX, b"", _ROOM)
        numbers = layouts.parse_layout(answer)
    except (Win32Error, ValueError):
        return {}
    return {offset: rf"\Device\Harddisk{number}\Partition{n}" for offset, n in numbers.items()}


@contextmanager
def online(devices: Devices, number: int) -> Iterator[None]:
    """Takes a disk that Windows' policy keeps offline or read-only into use for the time of the block."""
    with opened(devices, disk_path(number), GENERIC_READ | GENERIC_WRITE) as handle:
        held = _attributes(devices, handle) & (layouts.ATTRIBUTE_OFFLINE | layouts.ATTRIBUTE_READ_ONLY)
        if held:
            devices.control(handle, layouts.DISK_SET_ATTRIBUTES, layouts.make_attributes(0, held))
            devices.control(handle, layouts.DISK_UPDATE_PROPERTIES)
        try:
            yield
        finally:
            if held:
                with suppress(Win32Error):
                    devices.control(handle, layouts.DISK_SET_ATTRIBUTES, layouts.make_attributes(held, held))


# --- volumes -------------------------------------------------------------------------------------------------


def volume_device(name: str) -> str:
    r"""What is opened to ask or lock the volume itself: "\\?\Volume{GUID}" without the backslash of its root."""
    return name.rstrip("\\")


def extents(devices: Devices, name: str) -> tuple[layouts.Extent, ...]:
    """Where a volume lies; () for one that is on no disk (a CD, memory)."""
    try:
        with opened(devices, volume_device(name)) as handle:
            room = 8 + 24
            while True:
                try:
                    return layouts.parse_extents(
                        devices.control(handle, layouts.VOLUME_DISK_EXTENTS, b"", room)
                    )
                except Win32Error as error:
                    if error.code != ERROR_MORE_DATA or room > _ROOM:
                        raise
                    room *= 8
    except (Win32Error, ValueError):
        return ()


def find_volume(devices: Devices, number: int, offset: int) -> str | None:
    """The name of the volume that begins at ``offset`` of a disk and lies nowhere else."""
    for name in devices.volumes():
        found = extents(devices, name)
        if len(found) == 1 and (found[0].disk, found[0].offset) == (number, offset):
            return name
    return None


def volumes_within(devices: Devices, number: int, offset: int, length: int) -> list[str]:
    """The names of the volumes that own any of these bytes."""
    return [
        name
        for name in devices.volumes()
        if any(
            e.disk == number and e.offset < offset + length and offset < e.offset + e.length
            for e in extents(devices, name)
        )
    ]


# --- sectors -------------------------------------------------------------------------------------------------


def write_sectors(devices: Devices, disk: WindowsDisk, offset: int, data: bytes) -> None:
    """Writes whole sectors, flushes, and reads them back past the cache. Raises SystemError_."""
    sector, where = disk.info.sector_size, f"{disk.info.path}: writing {len(data)} bytes at {offset:#x}"
    if offset % sector or len(data) % sector or not data:
        raise ValueError("only whole sectors can be written")
    try:
        flags = NO_BUFFERING | WRITE_THROUGH
        with opened(devices, disk.info.path, GENERIC_READ | GENERIC_WRITE, flags) as handle:
            done = 0
            while done < len(data):
                written = devices.write(handle, offset + done, data[done : done + _MOST])
                if written <= 0 or written % sector:
                    raise SystemError_("io", f"{where}: {written} bytes were taken")
                done += written
            devices.flush(handle)
        found = disk.read_at(offset, len(data))
    except Win32Error as error:
        raise refused(error, where) from error
    except OSError as error:
        raise SystemError_("io", f"{where}: {error}") from error
    if found != data:
        raise SystemError_(
            "verify", f"{disk.info.path}: {len(data)} bytes at {offset:#x} read back differently"
        )
