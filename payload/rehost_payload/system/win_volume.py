r"""A volume of Windows for writing, below its name: \\?\Volume{GUID}\, which hidden ones have as well.

Power cuts: `replace` writes a temporary file, flushes it, and moves it over the target with MOVEFILE_WRITE_THROUGH.
NTFS does that as one transaction of its journal. FAT has none: after a cut within the move the target may be missing,
with the new content in the temporary file and the old one in the operator's journal.
"""

# pathlib drops the backslash behind "Volume{GUID}", without which the path names the device instead of its root
# ruff: noqa: PTH101, PTH102, PTH106, PTH108, PTH112, PTH123, PTH202, PTH208

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rehost_payload.formats.filesystem import split_path
from rehost_payload.system.protocol import TEMPORARY_NAME, SystemError_
from rehost_payload.system.win32 import Devices, Win32Error, refused

_PIECE = 4 << 20
_SMALL = 1 << 20
_UNTOUCHABLE = getattr(stat, "FILE_ATTRIBUTE_READONLY", 1)


@contextmanager
def _refusals(path: str) -> Iterator[None]:
    try:
        yield
    except (Win32Error, OSError) as error:
        raise refused(error, path) from error


class WindowsVolume:
    """Implements WritableVolume. ``root`` ends with the separator; Windows itself matches names without case."""

    def __init__(self, devices: Devices, root: str, separator: str = "\\") -> None:
        self._devices = devices
        self._root = root
        self._separator = separator

    def place(self, path: str) -> str:
        """The path as Windows takes it."""
        names = split_path(path)
        if any(name in (".", "..") or "\0" in name or "/" in name or ":" in name for name in names):
            raise SystemError_("absent", f"{path!r} is no path on a volume")
        return self._root + self._separator.join(names)

    def read(self, path: str) -> bytes:
        with _refusals(path), open(self.place(path), "rb") as file:
            return file.read()

    def exists(self, path: str) -> bool:
        with _refusals(path):
            try:
                os.lstat(self.place(path))
            except (FileNotFoundError, NotADirectoryError):
                return False
            return True

    def is_directory(self, path: str) -> bool:
        return self.exists(path) and os.path.isdir(self.place(path))

    def listdir(self, path: str) -> list[str]:
        with _refusals(path):
            return sorted(os.listdir(self.place(path)), key=str.upper)

    def free(self) -> int:
        with _refusals("free space"):
            return shutil.disk_usage(self._root).free

    def make_directory(self, path: str) -> None:
        with _refusals(path):
            os.mkdir(self.place(path))

    def remove_directory(self, path: str) -> None:
        with _refusals(path):
            os.rmdir(self.place(path))

    def replace(self, path: str, data: bytes) -> None:
        target = self.place(path)
        temporary = target[: len(target) - len(split_path(path)[-1])] + TEMPORARY_NAME
        with _refusals(path):
            try:
                self._write(temporary, data, os.O_CREAT | os.O_TRUNC)
                if self.exists(path):
                    self._devices.keep_security(target, temporary)
                    self._make_writable(target)
                self._devices.move(temporary, target)
            except BaseException:
                with suppress(OSError):
                    self._make_writable(temporary)
                    os.unlink(temporary)
                raise

    def append(self, path: str, data: bytes) -> None:
        """Small files are replaced as a whole: on FAT an append that is cut off can leave a size without clusters."""
        place = self.place(path)
        with _refusals(path):
            if not self.exists(path) or os.path.getsize(place) < _SMALL:
                self.replace(path, (self.read(path) if self.exists(path) else b"") + data)
            else:
                self._write(place, data, os.O_APPEND)

    def remove(self, path: str) -> None:
        with _refusals(path):
            self._make_writable(self.place(path))
            os.unlink(self.place(path))

    @staticmethod
    def _make_writable(place: str) -> None:
        """The attribute "read-only" keeps a file from being replaced or deleted."""
        with suppress(FileNotFoundError):
            state = os.lstat(place)
            if getattr(state, "st_file_attributes", 0) & _UNTOUCHABLE:
                os.chmod(place, stat.S_IWRITE | stat.S_IREAD)

    @staticmethod
    def _write(place: str, data: bytes, flags: int) -> None:
        descriptor = os.open(place, os.O_WRONLY | flags | getattr(os, "O_BINARY", 0), 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view[:_PIECE]) :]
            os.fsync(descriptor)  # on Windows: FlushFileBuffers
        finally:
            os.close(descriptor)
