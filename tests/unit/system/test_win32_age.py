"""What the Windows backend asks of Windows is in Windows 8.1 / Server 2012 R2, the oldest Windows PE that it runs on."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import rehost_payload
from rehost_payload.system import win32_calls
from rehost_payload.system.win32 import ERROR_NOT_SUPPORTED, Win32Error

PAYLOAD = Path(rehost_payload.__file__).parent
CALLS = PAYLOAD / "system/win32_calls.py"
TERMINAL = PAYLOAD / "system/terminal.py"
OLDEST = (6, 3)
# "Minimum supported client" in Microsoft's reference: Windows 2000 and XP, Vista, 8
SINCE = {
    (
        5,
        1,
    ): """AdjustTokenPrivileges AssignProcessToJobObject CM_Get_DevNode_Registry_PropertyW CM_Get_Device_IDW
        CM_Get_Device_ID_ListW CM_Get_Device_ID_List_SizeW CM_Get_Device_Interface_ListW
        CM_Get_Device_Interface_List_SizeW CM_Get_Parent CM_Locate_DevNodeW CloseHandle CreateFileW CreateJobObjectW
        DeleteVolumeMountPointW DeviceIoControl FindFirstVolumeW FindNextVolumeW FindVolumeClose FlushFileBuffers
        GetConsoleMode GetCurrentProcess GetFileAttributesW GetFileSecurityW GetLogicalDrives GetVolumeInformationW
        GetVolumePathNamesForVolumeNameW LookupPrivilegeValueW MoveFileExW NtSetValueKey OpenProcessToken
        PeekNamedPipe QueryInformationJobObject ReadFile RegCloseKey RegCreateKeyExW RegDeleteValueW RegEnumKeyExW
        RegFlushKey RegLoadKeyW RegOpenKeyExW RegQueryValueExW RegUnLoadKeyW RtlNtStatusToDosError SetConsoleMode
        SetFileAttributesW SetFileSecurityW SetFileTime SetVolumeMountPointW TerminateJobObject WriteFile""",
    (
        6,
        0,
    ): """CM_Get_Device_Interface_PropertyW GetFirmwareEnvironmentVariableW GetUserDefaultLocaleName RegDeleteTreeW
        SetFileInformationByHandle""",
    (6, 2): "GetFirmwareType SetFirmwareEnvironmentVariableExW",
}


def asked(path: Path) -> Iterator[str]:
    """The functions of Windows that a module names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            place = {"_kernel": 0, "_function": 1}.get(node.func.id)
            if place is not None and isinstance(name := node.args[place], ast.Constant):
                yield str(name.value)
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "_kernel32"
        ):
            yield node.attr


def test_every_function_is_old_enough() -> None:
    since = {name: version for version, names in SINCE.items() for name in names.split()}
    found = {*asked(CALLS), *asked(TERMINAL)}
    assert len(found) > 50
    assert found - set(since) == set(), "since which Windows? Microsoft's reference says it"
    assert {name for name in found if since[name] > OLDEST} == set()
    assert set(since) - found == set(), "not asked for any more"


def test_nothing_else_calls_windows_itself() -> None:
    callers = {p for p in PAYLOAD.rglob("*.py") if "WinDLL" in p.read_text(encoding="utf-8")}
    assert callers == {CALLS, TERMINAL}


def test_a_function_that_is_not_there_is_named_when_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when the backend is imported: a repair that does not need it goes on."""

    class Library:
        pass

    monkeypatch.setattr(win32_calls, "_library", lambda _: Library())
    win32_calls._function.cache_clear()
    try:
        with pytest.raises(Win32Error) as caught:
            win32_calls._kernel("GetFirmwareType", None)
    finally:
        win32_calls._function.cache_clear()
    assert caught.value.code == ERROR_NOT_SUPPORTED
    assert "GetFirmwareType" in str(caught.value)
