"""The functions of Windows that win32.py names, declared for ctypes. Declarations and nothing else: no decisions here.

Importable everywhere; `Calls()` works on Windows only. Functions that an old or small Windows lacks are looked up when
they are called, and then answer ERROR_NOT_SUPPORTED.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Sequence
from contextlib import suppress
from ctypes import POINTER, byref, c_int, c_uint8, c_uint32, c_void_p, c_wchar_p
from functools import cache
from typing import Any

from rehost_payload.system.win32 import (
    ERROR_FILE_NOT_FOUND,
    ERROR_HANDLE_EOF,
    ERROR_INSUFFICIENT_BUFFER,
    ERROR_MORE_DATA,
    ERROR_NO_MORE_FILES,
    ERROR_NO_MORE_ITEMS,
    ERROR_NOT_SUPPORTED,
    VolumeFacts,
    Win32Error,
)

_INVALID_HANDLE = (1 << 64) - 1
_SHARE_ALL, _OPEN_EXISTING = 7, 3
_MOVE_REPLACE, _MOVE_WRITE_THROUGH = 1, 8
_LOCAL_MACHINE = 0xFFFFFFFF80000002
_KEY_EVERYTHING = 0x000F003F  # KEY_ALL_ACCESS
_KEY_READ = 0x00020019
_BACKUP_RESTORE = 4
_SECURITY = 1 | 2 | 4  # owner, group, access list
_ATTRIBUTES_KEPT = 2 | 4 | 0x20 | 0x2000  # hidden, system, archive, not indexed
_PRIVILEGES = ("SeBackupPrivilege", "SeRestorePrivilege", "SeTakeOwnershipPrivilege")
_FIRMWARE_PRIVILEGE = "SeSystemEnvironmentPrivilege"
_DISK_INTERFACE = (0x53F56307, 0xB6BF, 0x11D0, (0x94, 0xF2, 0x00, 0xA0, 0xC9, 0x1E, 0xFB, 0x8B))
_INSTANCE_ID = ((0x78C34FC8, 0x104A, 0x4ACA, (0x9E, 0xA4, 0x52, 0x4D, 0x52, 0x99, 0x6E, 0x57)), 256)
_PRESENT_OF_ENUMERATOR = 0x100 | 1
_CR_BUFFER_SMALL = 0x1A
_FILE_ALLOCATION_INFO = 5
_NAME = 512  # characters


class _Overlapped(ctypes.Structure):
    _fields_ = (
        ("internal", c_void_p),
        ("internal_high", c_void_p),
        ("offset", c_uint32),
        ("offset_high", c_uint32),
        ("event", c_void_p),
    )


class _Guid(ctypes.Structure):
    _fields_ = (
        ("data1", c_uint32),
        ("data2", ctypes.c_uint16),
        ("data3", ctypes.c_uint16),
        ("data4", c_uint8 * 8),
    )


class _PropertyKey(ctypes.Structure):
    _fields_ = (("format", _Guid), ("number", c_uint32))


class _UnicodeString(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("room", ctypes.c_uint16), ("text", c_wchar_p))


class _Luid(ctypes.Structure):
    _fields_ = (("low", c_uint32), ("high", ctypes.c_int32))


class _TokenPrivilege(ctypes.Structure):
    _fields_ = (("count", c_uint32), ("luid", _Luid), ("attributes", c_uint32))


def _guid(value: tuple[int, int, int, tuple[int, ...]]) -> _Guid:
    return _Guid(value[0], value[1], value[2], (c_uint8 * 8)(*value[3]))


@cache
def _library(name: str) -> Any:
    return getattr(ctypes, "WinDLL")(name, use_last_error=True)  # noqa: B009


@cache
def _function(library: str, name: str, result: Any, *arguments: Any) -> Any:
    try:
        found = getattr(_library(library), name)
    except (AttributeError, OSError) as error:
        raise Win32Error(name, ERROR_NOT_SUPPORTED) from error
    found.restype, found.argtypes = result, list(arguments)
    return found


def _last_error() -> int:
    return int(getattr(ctypes, "get_last_error")())  # noqa: B009


def _kernel(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    """A function of kernel32 that says by 0 (or an invalid handle) that it failed."""
    function = _function("kernel32", name, result, *arguments)

    def call(*values: Any) -> Any:
        answer = function(*values)
        if not answer or answer == _INVALID_HANDLE:
            raise Win32Error(name, _last_error())
        return answer

    return call


def _status(name: str, function: Callable[..., Any], *values: Any) -> None:
    """For functions that return their error."""
    if code := function(*values):
        raise Win32Error(name, int(code))


class Calls:
    """Implements win32.Win32. Enables the privileges for backup and restore once."""

    def __init__(self) -> None:
        for name in _PRIVILEGES:
            with suppress(Win32Error):
                _enable(name)

    # --- devices -----------------------------------------------------------------------------------------

    def open(self, path: str, access: int, flags: int = 0) -> int:
        create = _kernel(
            "CreateFileW", c_void_p, c_wchar_p, c_uint32, c_uint32, c_void_p, c_uint32, c_uint32, c_void_p
        )
        return int(create(path, access, _SHARE_ALL, None, _OPEN_EXISTING, flags, None))

    def close(self, handle: int) -> None:
        _kernel("CloseHandle", c_int, c_void_p)(handle)

    def control(self, handle: int, code: int, data: bytes = b"", room: int = 0) -> bytes:
        control = _kernel(
            "DeviceIoControl",
            c_int,
            *(c_void_p, c_uint32, c_void_p, c_uint32, c_void_p, c_uint32, POINTER(c_uint32), c_void_p),
        )
        given = ctypes.create_string_buffer(data, len(data)) if data else None
        answer = ctypes.create_string_buffer(room) if room else None
        length = c_uint32()
        control(handle, code, given, len(data), answer, room, byref(length), None)
        return answer.raw[: length.value] if answer is not None else b""

    def read(self, handle: int, offset: int, length: int) -> bytes:
        with mmap.mmap(-1, length) as memory:  # aligned to a page, as unbuffered access wants it
            with memoryview(memory) as view:
                done = self.read_into(handle, offset, view)
            return memory[:done]

    def write(self, handle: int, offset: int, data: bytes) -> int:
        with mmap.mmap(-1, len(data)) as memory:
            memory[:] = data
            with memoryview(memory) as view:
                return self.write_from(handle, offset, view)

    def read_into(self, handle: int, offset: int, buffer: memoryview) -> int:
        read = _kernel(
            "ReadFile", c_int, c_void_p, c_void_p, c_uint32, POINTER(c_uint32), POINTER(_Overlapped)
        )
        try:
            return _transfer(read, handle, offset, buffer)
        except Win32Error as error:
            if error.code == ERROR_HANDLE_EOF:
                return 0
            raise

    def write_from(self, handle: int, offset: int, buffer: memoryview) -> int:
        write = _kernel(
            "WriteFile", c_int, c_void_p, c_void_p, c_uint32, POINTER(c_uint32), POINTER(_Overlapped)
        )
        return _transfer(write, handle, offset, buffer)

    def reserve(self, handle: int, size: int) -> None:
        give = _kernel("SetFileInformationByHandle", c_int, c_void_p, c_int, c_void_p, c_uint32)
        wanted = ctypes.c_int64(size)
        give(handle, _FILE_ALLOCATION_INFO, byref(wanted), 8)

    def set_times(self, handle: int, created: int, modified: int) -> None:
        pointer = POINTER(ctypes.c_uint64)
        give = _kernel("SetFileTime", c_int, c_void_p, pointer, pointer, pointer)
        times = [byref(ctypes.c_uint64(t)) if t else None for t in (created, modified)]
        if any(times):
            give(handle, times[0], None, times[1])

    def flush(self, handle: int) -> None:
        _kernel("FlushFileBuffers", c_int, c_void_p)(handle)

    # --- volumes -----------------------------------------------------------------------------------------

    def volumes(self) -> Sequence[str]:
        first = _kernel("FindFirstVolumeW", c_void_p, c_wchar_p, c_uint32)
        following = _kernel("FindNextVolumeW", c_int, c_void_p, c_wchar_p, c_uint32)
        close = _function("kernel32", "FindVolumeClose", c_int, c_void_p)
        name = ctypes.create_unicode_buffer(_NAME)
        found: list[str] = []
        try:
            handle = first(name, _NAME)
        except Win32Error as error:
            if error.code in (ERROR_NO_MORE_FILES, ERROR_FILE_NOT_FOUND):
                return found
            raise
        try:
            while True:
                found.append(name.value)
                following(handle, name, _NAME)
        except Win32Error as error:
            if error.code != ERROR_NO_MORE_FILES:
                raise
        finally:
            close(handle)
        return found

    def volume_facts(self, root: str) -> VolumeFacts:
        pointer = POINTER(c_uint32)
        ask = _kernel(
            "GetVolumeInformationW",
            c_int,
            *(c_wchar_p, c_wchar_p, c_uint32, pointer, pointer, pointer, c_wchar_p, c_uint32),
        )
        label, name = ctypes.create_unicode_buffer(_NAME), ctypes.create_unicode_buffer(_NAME)
        serial, flags = c_uint32(), c_uint32()
        ask(root, label, _NAME, byref(serial), None, byref(flags), name, _NAME)
        return VolumeFacts(label.value, serial.value, flags.value, name.value)

    def mount_points(self, volume: str) -> Sequence[str]:
        ask = _kernel(
            "GetVolumePathNamesForVolumeNameW", c_int, c_wchar_p, c_wchar_p, c_uint32, POINTER(c_uint32)
        )
        room = _NAME
        while True:
            names, needed = ctypes.create_unicode_buffer(room), c_uint32()
            try:
                ask(volume, names, room, byref(needed))
                return [part for part in "".join(names[: needed.value]).split("\0") if part]
            except Win32Error as error:
                if error.code != ERROR_MORE_DATA or needed.value <= room:
                    raise
                room = needed.value

    def add_mount_point(self, root: str, volume: str) -> None:
        _kernel("SetVolumeMountPointW", c_int, c_wchar_p, c_wchar_p)(root, volume)

    def remove_mount_point(self, root: str) -> None:
        _kernel("DeleteVolumeMountPointW", c_int, c_wchar_p)(root)

    def drive_letters(self) -> int:
        return int(_kernel("GetLogicalDrives", c_uint32)())

    def move(self, source: str, target: str) -> None:
        move = _kernel("MoveFileExW", c_int, c_wchar_p, c_wchar_p, c_uint32)
        move(source, target, _MOVE_REPLACE | _MOVE_WRITE_THROUGH)

    def security(self, path: str) -> bytes | None:
        get = _function(
            "advapi32", "GetFileSecurityW", c_int, c_wchar_p, c_uint32, c_void_p, c_uint32, POINTER(c_uint32)
        )
        needed = c_uint32()
        get(path, _SECURITY, None, 0, byref(needed))
        if not needed.value:
            return None
        descriptor = ctypes.create_string_buffer(needed.value)
        if not get(path, _SECURITY, descriptor, needed.value, byref(needed)):
            return None
        return descriptor.raw[: needed.value]

    def keep_security(self, source: str, target: str) -> None:
        """What a file system does not know (FAT) or we may not set is left as it is."""
        give = _function("advapi32", "SetFileSecurityW", c_int, c_wchar_p, c_uint32, c_void_p)
        descriptor = self.security(source)
        if descriptor is not None:
            give(target, _SECURITY, descriptor)
        attributes = _function("kernel32", "GetFileAttributesW", c_uint32, c_wchar_p)(source)
        if attributes != 0xFFFFFFFF:
            kept = attributes & _ATTRIBUTES_KEPT
            _function("kernel32", "SetFileAttributesW", c_int, c_wchar_p, c_uint32)(target, kept or 0x80)

    # --- plug and play -----------------------------------------------------------------------------------

    def pci_devices(self) -> Sequence[str]:
        size = _function(
            "cfgmgr32", "CM_Get_Device_ID_List_SizeW", c_uint32, POINTER(c_uint32), c_wchar_p, c_uint32
        )
        ask = _function(
            "cfgmgr32", "CM_Get_Device_ID_ListW", c_uint32, c_wchar_p, c_void_p, c_uint32, c_uint32
        )
        return _list(
            "CM_Get_Device_ID_ListW",
            lambda needed: size(needed, "PCI", _PRESENT_OF_ENUMERATOR),
            lambda names, room: ask("PCI", names, room, _PRESENT_OF_ENUMERATOR),
        )

    def property(self, device: str, number: int) -> bytes | None:
        pointer = POINTER(c_uint32)
        ask = _function(
            "cfgmgr32",
            "CM_Get_DevNode_Registry_PropertyW",
            c_uint32,
            *(c_uint32, c_uint32, pointer, c_void_p, pointer, c_uint32),
        )
        node, kind, length = _node(device), c_uint32(), c_uint32(4096)
        data = ctypes.create_string_buffer(4096)
        if ask(node, number, byref(kind), data, byref(length), 0):
            return None  # it has no such property
        return data.raw[: length.value]

    def parent(self, device: str) -> str | None:
        up = _function("cfgmgr32", "CM_Get_Parent", c_uint32, POINTER(c_uint32), c_uint32, c_uint32)
        ask = _function("cfgmgr32", "CM_Get_Device_IDW", c_uint32, c_uint32, c_void_p, c_uint32, c_uint32)
        above, name = c_uint32(), ctypes.create_unicode_buffer(_NAME)
        if up(byref(above), _node(device), 0):
            return None
        _status("CM_Get_Device_IDW", ask, above, name, _NAME, 0)
        return name.value

    def disk_interfaces(self) -> Sequence[tuple[str, str]]:
        guid, pointer = _guid(_DISK_INTERFACE), POINTER(c_uint32)
        size = _function(
            "cfgmgr32",
            "CM_Get_Device_Interface_List_SizeW",
            c_uint32,
            *(pointer, POINTER(_Guid), c_wchar_p, c_uint32),
        )
        ask = _function(
            "cfgmgr32",
            "CM_Get_Device_Interface_ListW",
            c_uint32,
            *(POINTER(_Guid), c_wchar_p, c_void_p, c_uint32, c_uint32),
        )
        about = _function(
            "cfgmgr32",
            "CM_Get_Device_Interface_PropertyW",
            c_uint32,
            *(c_wchar_p, POINTER(_PropertyKey), pointer, c_void_p, pointer, c_uint32),
        )
        paths = _list(
            "CM_Get_Device_Interface_ListW",
            lambda needed: size(needed, byref(guid), None, 0),
            lambda names, room: ask(byref(guid), None, names, room, 0),
        )
        key = _PropertyKey(_guid(_INSTANCE_ID[0]), _INSTANCE_ID[1])
        found = []
        for path in paths:
            kind, length, name = c_uint32(), c_uint32(2 * _NAME), ctypes.create_unicode_buffer(_NAME)
            if about(path, byref(key), byref(kind), name, byref(length), 0) == 0:
                found.append((path, name.value))
        return found

    # --- firmware ----------------------------------------------------------------------------------------

    def firmware_type(self) -> int:
        answer = c_uint32()
        _kernel("GetFirmwareType", c_int, POINTER(c_uint32))(byref(answer))
        return answer.value

    def may_use_variables(self) -> bool:
        try:
            _enable(_FIRMWARE_PRIVILEGE)
        except Win32Error:
            return False
        return True

    def variable(self, name: str, guid: str) -> bytes | None:
        _enable(_FIRMWARE_PRIVILEGE)
        ask = _function(
            "kernel32", "GetFirmwareEnvironmentVariableW", c_uint32, c_wchar_p, c_wchar_p, c_void_p, c_uint32
        )
        room = 4096
        while True:
            data = ctypes.create_string_buffer(room)
            length = ask(name, guid, data, room)
            if length:
                return data.raw[:length]
            code = _last_error()
            if code == 0:
                return b""
            if code != ERROR_INSUFFICIENT_BUFFER or room >= 1 << 20:
                raise Win32Error("GetFirmwareEnvironmentVariableW", code)
            room *= 4

    def set_variable(self, name: str, guid: str, data: bytes, attributes: int) -> None:
        _enable(_FIRMWARE_PRIVILEGE)
        give = _kernel(
            "SetFirmwareEnvironmentVariableExW", c_int, c_wchar_p, c_wchar_p, c_void_p, c_uint32, c_uint32
        )
        given = ctypes.create_string_buffer(data, len(data)) if data else None
        give(name, guid, given, len(data), attributes)

    def user_locale(self) -> str:
        """ "de-DE": what Windows, or the language of a Windows PE, is set to."""
        name = ctypes.create_unicode_buffer(85)  # LOCALE_NAME_MAX_LENGTH
        _kernel("GetUserDefaultLocaleName", c_int, c_wchar_p, c_int)(name, 85)
        return name.value

    # --- registry ----------------------------------------------------------------------------------------

    def load(self, name: str, path: str) -> None:
        load = _function("advapi32", "RegLoadKeyW", c_int, c_void_p, c_wchar_p, c_wchar_p)
        _status("RegLoadKeyW", load, _LOCAL_MACHINE, name, path)

    def unload(self, name: str) -> None:
        unload = _function("advapi32", "RegUnLoadKeyW", c_int, c_void_p, c_wchar_p)
        _status("RegUnLoadKeyW", unload, _LOCAL_MACHINE, name)

    def open_key(self, path: str, create: bool = False) -> int:
        key = c_void_p()
        if create:
            make = _function(
                "advapi32",
                "RegCreateKeyExW",
                c_int,
                *(c_void_p, c_wchar_p, c_uint32, c_wchar_p, c_uint32, c_uint32, c_void_p),
                *(POINTER(c_void_p), POINTER(c_uint32)),
            )
            arguments = (_KEY_EVERYTHING, None, byref(key), None)
            code = make(_LOCAL_MACHINE, path, 0, None, 0, *arguments)
            if code == 5:  # ERROR_ACCESS_DENIED
                code = make(_LOCAL_MACHINE, path, 0, None, _BACKUP_RESTORE, *arguments)
        else:
            look = _function(
                "advapi32", "RegOpenKeyExW", c_int, c_void_p, c_wchar_p, c_uint32, c_uint32, POINTER(c_void_p)
            )
            code = look(_LOCAL_MACHINE, path, 0, _KEY_EVERYTHING, byref(key))
            if code == 5:
                code = look(_LOCAL_MACHINE, path, _BACKUP_RESTORE, _KEY_EVERYTHING, byref(key))
        if code:
            raise Win32Error("RegCreateKeyExW" if create else "RegOpenKeyExW", code)
        return int(key.value or 0)

    def close_key(self, key: int) -> None:
        _status("RegCloseKey", _function("advapi32", "RegCloseKey", c_int, c_void_p), key)

    def set_value(self, key: int, name: str, kind: int, data: bytes) -> None:
        """NtSetValueKey: RegSetValueExW may add a NUL to a text, and knows no types of its own."""
        give = _function(
            "ntdll",
            "NtSetValueKey",
            c_uint32,
            *(c_void_p, POINTER(_UnicodeString), c_uint32, c_uint32, c_void_p, c_uint32),
        )
        length = 2 * len(name)
        text = _UnicodeString(length, length + 2, name)
        given = ctypes.create_string_buffer(data, len(data)) if data else None
        if status := give(key, byref(text), 0, kind & 0xFFFFFFFF, given, len(data)):
            explain = _function("ntdll", "RtlNtStatusToDosError", c_uint32, c_uint32)
            raise Win32Error("NtSetValueKey", int(explain(status)))

    def delete_value(self, key: int, name: str) -> None:
        delete = _function("advapi32", "RegDeleteValueW", c_int, c_void_p, c_wchar_p)
        _status("RegDeleteValueW", delete, key, name)

    def delete_tree(self, key: int, name: str) -> None:
        delete = _function("advapi32", "RegDeleteTreeW", c_int, c_void_p, c_wchar_p)
        _status("RegDeleteTreeW", delete, key, name)

    def flush_key(self, key: int) -> None:
        _status("RegFlushKey", _function("advapi32", "RegFlushKey", c_int, c_void_p), key)

    def loaded(self) -> Sequence[str]:
        ask = _function(
            "advapi32",
            "RegEnumKeyExW",
            c_int,
            *(c_void_p, c_uint32, c_wchar_p, POINTER(c_uint32), c_void_p, c_void_p, c_void_p, c_void_p),
        )
        found: list[str] = []
        while True:
            name, length = ctypes.create_unicode_buffer(_NAME), c_uint32(_NAME)
            code = ask(_LOCAL_MACHINE, len(found), name, byref(length), None, None, None, None)
            if code == ERROR_NO_MORE_ITEMS:
                return found
            if code:
                raise Win32Error("RegEnumKeyExW", int(code))
            found.append(name.value)

    def value(self, path: str, name: str) -> bytes | None:
        look = _function(
            "advapi32", "RegOpenKeyExW", c_int, c_void_p, c_wchar_p, c_uint32, c_uint32, POINTER(c_void_p)
        )
        pointer = POINTER(c_uint32)
        ask = _function(
            "advapi32", "RegQueryValueExW", c_int, c_void_p, c_wchar_p, pointer, pointer, c_void_p, pointer
        )
        key, kind, length = c_void_p(), c_uint32(), c_uint32(4096)
        if look(_LOCAL_MACHINE, path, 0, _KEY_READ, byref(key)):
            return None
        try:
            data = ctypes.create_string_buffer(4096)
            code = ask(key, name, None, byref(kind), data, byref(length))
            return None if code else data.raw[: length.value]
        finally:
            self.close_key(int(key.value or 0))


class Job:
    """A job object: a process, with all that it starts from then on. Win32Error."""

    def __init__(self, process: int) -> None:
        self._handle = int(_kernel("CreateJobObjectW", c_void_p, c_void_p, c_wchar_p)(None, None))
        try:
            _kernel("AssignProcessToJobObject", c_int, c_void_p, c_void_p)(self._handle, process)
        except Win32Error:
            self._close()
            raise

    def active(self) -> int:
        """How many of them run."""
        ask = _kernel(
            "QueryInformationJobObject",
            c_int,
            *(c_void_p, c_int, c_void_p, c_uint32, c_void_p),
        )
        answer = (c_uint32 * 12)()  # JOBOBJECT_BASIC_ACCOUNTING_INFORMATION
        ask(self._handle, 1, byref(answer), ctypes.sizeof(answer), None)
        return int(answer[10])

    def end(self) -> None:
        """Ends them all."""
        try:
            _kernel("TerminateJobObject", c_int, c_void_p, c_uint32)(self._handle, 1)
        finally:
            self._close()

    def _close(self) -> None:
        _kernel("CloseHandle", c_int, c_void_p)(self._handle)


def _transfer(function: Callable[..., Any], handle: int, offset: int, buffer: memoryview) -> int:
    place, done = _Overlapped(None, None, offset & 0xFFFFFFFF, offset >> 32, None), c_uint32()
    view = (ctypes.c_char * len(buffer)).from_buffer(buffer)
    try:
        function(handle, ctypes.addressof(view), len(buffer), byref(done), byref(place))
        return done.value
    finally:
        del view  # or the memory could not be given back


def _node(device: str) -> int:
    locate = _function("cfgmgr32", "CM_Locate_DevNodeW", c_uint32, POINTER(c_uint32), c_wchar_p, c_uint32)
    node = c_uint32()
    if code := locate(byref(node), device, 0):
        raise Win32Error("CM_Locate_DevNodeW", int(code))
    return node.value


def _list(name: str, size: Callable[[Any], int], ask: Callable[[Any, int], int]) -> list[str]:
    """A list of texts of cfgmgr32, which may grow between the two questions."""
    for _ in range(5):
        needed = c_uint32()
        if code := size(byref(needed)):
            raise Win32Error(name, int(code))
        names = ctypes.create_unicode_buffer(max(2, needed.value))
        code = ask(names, len(names))
        if code == 0:
            return [part for part in "".join(names[:]).split("\0") if part]
        if code != _CR_BUFFER_SMALL:
            break
    raise Win32Error(name, int(code))


@cache
def _enable(privilege: str) -> None:
    """Takes a privilege into use for the whole process. Raises Win32Error where the account has not got it."""
    process = _function("kernel32", "GetCurrentProcess", c_void_p)()
    token, luid = c_void_p(), _Luid()
    take = _function("advapi32", "OpenProcessToken", c_int, c_void_p, c_uint32, POINTER(c_void_p))
    if not take(process, 0x28, byref(token)):  # to adjust and to ask
        raise Win32Error("OpenProcessToken", _last_error())
    try:
        find = _function("advapi32", "LookupPrivilegeValueW", c_int, c_wchar_p, c_wchar_p, POINTER(_Luid))
        if not find(None, privilege, byref(luid)):
            raise Win32Error("LookupPrivilegeValueW", _last_error())
        wanted = _TokenPrivilege(1, luid, 2)  # SE_PRIVILEGE_ENABLED
        adjust = _function(
            "advapi32",
            "AdjustTokenPrivileges",
            c_int,
            *(c_void_p, c_int, POINTER(_TokenPrivilege), c_uint32, c_void_p, c_void_p),
        )
        ok = adjust(token, 0, byref(wanted), 0, None, None)
        code = _last_error()
        if not ok or code:  # ERROR_NOT_ALL_ASSIGNED comes with success
            raise Win32Error(f"AdjustTokenPrivileges ({privilege})", code)
    finally:
        _function("kernel32", "CloseHandle", c_int, c_void_p)(token)
