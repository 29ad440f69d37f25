"""Firmware mode and UEFI variables through the functions of kernel32. Only variables of the global GUID.

These functions cannot list names, so that entries are looked for by theirs: those of BootOrder, BootCurrent, and
Boot0000 to Boot00FF, where firmware and systems put them.
"""

from __future__ import annotations

from rehost_payload.survey.model import Firmware, FirmwareMode
from rehost_payload.system.protocol import SystemError_
from rehost_payload.system.variables import ATTRIBUTES, GLOBAL_GUID, checked_name, uefi
from rehost_payload.system.win32 import ERROR_ENVVAR_NOT_FOUND, ERROR_WRITE_PROTECT, FirmwareCalls, Win32Error

_GUID = "{" + GLOBAL_GUID + "}"
_MODES = {1: FirmwareMode.BIOS, 2: FirmwareMode.UEFI}
_PROBED = range(0x100)


def mode(calls: FirmwareCalls) -> FirmwareMode:
    try:
        return _MODES.get(calls.firmware_type(), FirmwareMode.UNKNOWN)
    except Win32Error:
        return FirmwareMode.UNKNOWN


def read(calls: FirmwareCalls, name: str) -> bytes | None:
    """The variable's data, None where it does not exist."""
    try:
        return calls.variable(checked_name(name), _GUID)
    except Win32Error as error:
        if error.code == ERROR_ENVVAR_NOT_FOUND:
            return None
        raise SystemError_("firmware", f"{name}: {error}") from error


def write(calls: FirmwareCalls, name: str, data: bytes | None) -> None:
    """Sets, or with None deletes, the variable; deleting one that does not exist is no error."""
    if data is not None and not data:
        raise SystemError_("firmware", f"{name}: a variable without data is none")
    try:
        calls.set_variable(checked_name(name), _GUID, data or b"", ATTRIBUTES)
    except Win32Error as error:
        if data is None and error.code == ERROR_ENVVAR_NOT_FOUND:
            return
        raise SystemError_(
            "read-only" if error.code == ERROR_WRITE_PROTECT else "firmware", f"{name}: {error}"
        ) from error


def firmware(calls: FirmwareCalls) -> Firmware:
    found = mode(calls)
    if found is not FirmwareMode.UEFI:
        return Firmware(found)
    return uefi(lambda name: read(calls, name), _PROBED, calls.may_use_variables())
