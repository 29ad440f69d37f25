"""What we ask of Windows, as plain Python: the contract between the Windows backend and win32_calls.py, which declares
the functions for ctypes. The backend itself imports nothing of Windows, so that it can be tested anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rehost_payload.system.protocol import SystemError_

GENERIC_READ, GENERIC_WRITE = 0x80000000, 0x40000000
NO_BUFFERING, WRITE_THROUGH = 0x20000000, 0x80000000

ERROR_INVALID_FUNCTION = 1
ERROR_FILE_NOT_FOUND = 2
ERROR_PATH_NOT_FOUND = 3
ERROR_ACCESS_DENIED = 5
ERROR_WRITE_PROTECT = 19
ERROR_HANDLE_EOF = 38
ERROR_NOT_SUPPORTED = 50
ERROR_INSUFFICIENT_BUFFER = 122
ERROR_MORE_DATA = 234
ERROR_ENVVAR_NOT_FOUND = 203
ERROR_NO_MORE_FILES = 18
ERROR_NO_MORE_ITEMS = 259

_CODES = {
    **dict.fromkeys((ERROR_FILE_NOT_FOUND, ERROR_PATH_NOT_FOUND, 123), "absent"),
    **dict.fromkeys((ERROR_ACCESS_DENIED, 1314), "permission"),
    **dict.fromkeys((ERROR_WRITE_PROTECT, 6009), "read-only"),
    # not ready, dev not exist, no media, no such device, not connected, volume changed or dismounted
    **dict.fromkeys((21, 55, 1112, 433, 1167, 1006, 1110), "gone"),
    **dict.fromkeys((32, 33, 170), "busy"),
    **dict.fromkeys((39, 112, 1295), "no-space"),
}


class Win32Error(Exception):
    """``code`` is what GetLastError or the function itself said (winerror.h)."""

    def __init__(self, function: str, code: int) -> None:
        self.function = function
        self.code = code
        super().__init__(f"{function}: error {code}")


def refused(error: Win32Error | OSError, where: str) -> SystemError_:
    """An error of Windows as the protocol names it."""
    if isinstance(error, Win32Error):
        return SystemError_(_CODES.get(error.code, "io"), f"{where}: {error}")
    code = getattr(error, "winerror", None)
    word = _CODES.get(code or 0)
    if word is None:
        word = {28: "no-space", 30: "read-only", 13: "permission", 2: "absent", 19: "gone"}.get(
            error.errno or 0, "io"
        )
    return SystemError_(word, f"{where}: {error.strerror or error}")


@dataclass(frozen=True)
class VolumeFacts:
    """What GetVolumeInformationW says of a mounted volume. ``file_system`` is its name ("NTFS", "ReFS")."""

    label: str
    serial: int
    flags: int
    file_system: str


class Devices(Protocol):
    """Disks and volumes. Handles are numbers; every method raises Win32Error."""

    def open(self, path: str, access: int, flags: int = 0) -> int:
        """CreateFileW of something that exists, shared with everybody. ``access`` 0: only questions."""
        ...

    def close(self, handle: int) -> None: ...

    def control(self, handle: int, code: int, data: bytes = b"", room: int = 0) -> bytes:
        """DeviceIoControl; returns what came back, at most ``room`` bytes."""
        ...

    def read(self, handle: int, offset: int, length: int) -> bytes:
        """ReadFile at a position, into memory aligned to a page. Fewer bytes at the end."""
        ...

    def write(self, handle: int, offset: int, data: bytes) -> int: ...
    def read_into(self, handle: int, offset: int, buffer: memoryview) -> int:
        """ReadFile into memory of the caller's."""
        ...

    def write_from(self, handle: int, offset: int, buffer: memoryview) -> int: ...
    def reserve(self, handle: int, size: int) -> None:
        """Allocates clusters for ``size`` bytes of a file (FileAllocationInfo)."""
        ...

    def set_times(self, handle: int, created: int, modified: int) -> None:
        """FILETIME; 0: leave."""
        ...

    def flush(self, handle: int) -> None: ...

    def volumes(self) -> Sequence[str]:
        r"""The names of all volumes (FindFirstVolumeW): "\\?\Volume{GUID}" with a backslash at the end."""
        ...

    def volume_facts(self, root: str) -> VolumeFacts:
        """Mounts the volume where it was not."""
        ...

    def mount_points(self, volume: str) -> Sequence[str]:
        r"""Where a volume of that name is mounted: "C:\" and folders."""
        ...

    def add_mount_point(self, root: str, volume: str) -> None: ...
    def remove_mount_point(self, root: str) -> None: ...
    def drive_letters(self) -> int:
        """Bit 0 is A: (GetLogicalDrives)."""
        ...

    def move(self, source: str, target: str) -> None:
        """MoveFileExW: replaces the target; returns when the change is on the disk."""
        ...

    def security(self, path: str) -> bytes | None:
        """Owner, group and access list of a file, self-relative; None where its file system has none."""
        ...

    def keep_security(self, source: str, target: str) -> None:
        """Gives ``target`` the attributes, owner and access list of ``source``."""
        ...


class DeviceTree(Protocol):
    """Plug and Play (cfgmgr32). Devices are named by their instance IDs."""

    def pci_devices(self) -> Sequence[str]:
        """Those that are present."""
        ...

    def property(self, device: str, number: int) -> bytes | None:
        """A property of CM_Get_DevNode_Registry_PropertyW by its CM_DRP number."""
        ...

    def parent(self, device: str) -> str | None: ...

    def disk_interfaces(self) -> Sequence[tuple[str, str]]:
        """For every disk: a path that can be opened, and its device."""
        ...


class FirmwareCalls(Protocol):
    def firmware_type(self) -> int:
        """GetFirmwareType: 0 unknown, 1 BIOS, 2 UEFI."""
        ...

    def variable(self, name: str, guid: str) -> bytes | None: ...

    def set_variable(self, name: str, guid: str, data: bytes, attributes: int) -> None:
        """No data: deletes it."""
        ...

    def may_use_variables(self) -> bool:
        """Whether the privilege for it could be had."""
        ...


class Registry(Protocol):
    """Hives and their keys. Every method raises Win32Error."""

    def load(self, name: str, path: str) -> None:
        """RegLoadKeyW below HKEY_LOCAL_MACHINE."""
        ...

    def unload(self, name: str) -> None: ...
    def loaded(self) -> Sequence[str]:
        """The keys directly below HKEY_LOCAL_MACHINE: its own, and the hives that are loaded there."""
        ...

    def open_key(self, path: str, create: bool = False) -> int:
        """A key below HKEY_LOCAL_MACHINE, for everything, past its access list where we have the privilege."""
        ...

    def close_key(self, key: int) -> None: ...
    def set_value(self, key: int, name: str, kind: int, data: bytes) -> None: ...
    def delete_value(self, key: int, name: str) -> None: ...
    def delete_tree(self, key: int, name: str) -> None: ...
    def flush_key(self, key: int) -> None: ...
    def value(self, path: str, name: str) -> bytes | None:
        """Data of a value below HKEY_LOCAL_MACHINE in the running system."""
        ...


class Win32(Devices, DeviceTree, FirmwareCalls, Registry, Protocol):
    """All of it."""
