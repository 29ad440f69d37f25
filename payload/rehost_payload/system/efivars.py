"""UEFI variables through efivarfs: each file holds 4 bytes of attributes and the variable's data.

Only variables of the global GUID are touched. Files of variables that matter for starting are immutable; the
flag is taken off for the moment of the change (Documentation/filesystems/efivarfs.rst).
"""

from __future__ import annotations

import errno
import os
import re
import struct
import sys
from pathlib import Path

from rehost_payload.formats.efi import parse_boot_order, parse_load_option
from rehost_payload.formats.errors import FormatError
from rehost_payload.survey.model import Firmware, FirmwareBootEntry, FirmwareMode
from rehost_payload.system.protocol import SystemError_

if sys.platform != "win32":  # imported everywhere, called on Linux
    import fcntl

GLOBAL_GUID = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
_ATTRIBUTES = 7  # non-volatile, boot service access, runtime access
_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS = 0x80086601, 0x40086602
_IMMUTABLE = 0x10
_NAME = re.compile(r"[A-Za-z0-9]{1,64}")
_ENTRY = re.compile(rf"Boot([0-9A-F]{{4}})-{GLOBAL_GUID}")
_LIMIT = 64 * 1024


class Variables:
    """The variables of one machine. ``folder`` is where efivarfs is mounted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise SystemError_("firmware", f"{name!r} is no name of a variable")
        return self._folder / f"{name}-{GLOBAL_GUID}"

    def read(self, name: str) -> bytes | None:
        """The variable's data, None where it does not exist."""
        try:
            descriptor = os.open(self._path(name), os.O_RDONLY)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            raise SystemError_("firmware", f"{name}: {error.strerror}") from error
        try:
            # efivarfs gives the whole variable in one read
            return os.read(descriptor, _LIMIT)[4:]
        except OSError as error:
            raise SystemError_("firmware", f"{name}: {error.strerror}") from error
        finally:
            os.close(descriptor)

    def write(self, name: str, data: bytes | None) -> None:
        """Sets, or with None deletes, the variable; deleting one that does not exist is no error."""
        path = self._path(name)
        try:
            _make_mutable(path)
            if data is None:
                path.unlink(missing_ok=True)
                return
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                # attributes and data must come in one write
                content = struct.pack("<I", _ATTRIBUTES) + data
                if os.write(descriptor, content) != len(content):
                    raise SystemError_("firmware", f"{name}: the firmware took only a part")
            finally:
                os.close(descriptor)
        except OSError as error:
            code = "read-only" if error.errno == errno.EROFS else "firmware"
            raise SystemError_(code, f"{name}: {error.strerror}") from error

    def writable(self) -> bool:
        try:
            return self._folder.is_dir() and not os.statvfs(self._folder).f_flag & os.ST_RDONLY
        except OSError:
            return False

    def firmware(self) -> Firmware:
        """What the survey says of a machine that was started by UEFI."""
        entries: list[FirmwareBootEntry] = []
        try:
            names = sorted(entry.name for entry in self._folder.iterdir())
        except OSError:
            names = []
        for name in names:
            match = _ENTRY.fullmatch(name)
            data = self._quiet(f"Boot{match[1]}") if match else None
            if match and data is not None:
                entries.append(_entry(int(match[1], 16), data))
        order, current, secure = (
            self._quiet("BootOrder"),
            self._quiet("BootCurrent"),
            self._quiet("SecureBoot"),
        )
        return Firmware(
            FirmwareMode.UEFI,
            secure_boot=None if not secure else secure[0] == 1,
            variables_writable=self.writable(),
            boot_entries=tuple(entries),
            boot_order=parse_boot_order(order) if order else (),
            boot_current=int.from_bytes(current[:2], "little") if current and len(current) >= 2 else None,
        )

    def _quiet(self, name: str) -> bytes | None:
        try:
            return self.read(name)
        except SystemError_:
            return None


def _entry(number: int, data: bytes) -> FirmwareBootEntry:
    """A variable that is no load option is shown by its bytes alone."""
    try:
        option = parse_load_option(data)
    except FormatError:
        return FirmwareBootEntry(number, "", False, None, None, data.hex())
    return FirmwareBootEntry(
        *(number, option.description, option.active, option.partition_guid, option.path, data.hex())
    )


def _make_mutable(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        flags = struct.unpack("<I", fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, bytes(4)))[0]
        if flags & _IMMUTABLE:
            fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, struct.pack("<I", flags & ~_IMMUTABLE))
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(descriptor)
