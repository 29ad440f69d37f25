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

from rehost_payload.survey.model import Firmware
from rehost_payload.system.protocol import SystemError_
from rehost_payload.system.variables import ATTRIBUTES, GLOBAL_GUID, checked_name, uefi

if sys.platform != "win32":  # imported everywhere, called on Linux
    import fcntl

_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS = 0x80086601, 0x40086602
_IMMUTABLE = 0x10
_ENTRY = re.compile(rf"Boot([0-9A-F]{{4}})-{GLOBAL_GUID}")
_LIMIT = 64 * 1024


class Variables:
    """The variables of one machine. ``folder`` is where efivarfs is mounted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, name: str) -> Path:
        return self._folder / f"{checked_name(name)}-{GLOBAL_GUID}"

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
                content = struct.pack("<I", ATTRIBUTES) + data
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
        try:
            names = [entry.name for entry in self._folder.iterdir()]
        except OSError:
            names = []
        numbers = [int(match[1], 16) for name in names if (match := _ENTRY.fullmatch(name))]
        return uefi(self.read, numbers, self.writable())


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
