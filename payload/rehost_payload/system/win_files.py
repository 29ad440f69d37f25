r"""A volume as Windows itself reads it, below its name: for ReFS, which we have no reader for, for BitLocker volumes that
the operator has unlocked, and for files that a filter of Windows unpacks (deduplicated ones, where it is there).

Every read opens the file anew: nothing stays open on a volume that may be locked, dismounted or pulled out.
"""

# pathlib drops the backslash behind "Volume{GUID}", without which the path names the device instead of its root
# ruff: noqa: PTH115, PTH208

from __future__ import annotations

import errno
import os
import stat as modes
from dataclasses import dataclass
from typing import Protocol

from rehost_payload.formats.filesystem import (
    FileMetadata,
    FileStat,
    FileSystemReader,
    UnreadableFile,
    split_path,
)
from rehost_payload.formats.hive_base import UNIX_EPOCH
from rehost_payload.formats.ntfs_details import MOUNT_POINT, SYMLINK, UNREADABLE
from rehost_payload.formats.source import ByteSource
from rehost_payload.system.win32 import VolumeFacts, Win32Error, refused

_ENCRYPTED = 0x4000
_ELSEWHERE = 0x1000 | 0x400000  # offline, recalled when read: the bytes are not on this volume
_PLAIN = "\\\\?\\"


class _Security(Protocol):
    def security(self, path: str) -> bytes | None: ...


@dataclass(frozen=True)
class WindowsFile:
    """Implements ByteSource over a file. Errors are OSError with ENODEV where the volume is gone, else EIO."""

    place: str
    size: int

    def read_at(self, offset: int, length: int) -> bytes:
        pieces: list[bytes] = []
        wanted = max(0, min(length, self.size - offset))
        try:
            descriptor = os.open(self.place, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            try:
                os.lseek(descriptor, offset, os.SEEK_SET)
                while wanted and (piece := os.read(descriptor, wanted)):
                    pieces.append(piece)
                    wanted -= len(piece)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _as_reading(error, self.place) from error
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _as_reading(error: OSError, where: str) -> OSError:
    """Python knows few of Windows' numbers: a bad sector (23) would be EACCES."""
    word = refused(error, where)
    return OSError(errno.ENODEV if word.code == "gone" else errno.EIO, word.detail)


class WindowsFiles(FileSystemReader):
    """Implements FileSystemReader. ``root`` ends with ``separator``."""

    def __init__(self, api: _Security, root: str, facts: VolumeFacts, separator: str = "\\") -> None:
        self._api = api
        self._root = root
        self._facts = facts
        self._separator = separator
        self._folders: dict[str, dict[str, str]] = {}

    @property
    def kind(self) -> str:
        return self._facts.file_system.lower()

    @property
    def label(self) -> str:
        return self._facts.label

    @property
    def serial(self) -> str:
        return f"{self._facts.serial:08X}"

    @property
    def cluster_size(self) -> int:
        return 0

    @property
    def hidden_sectors(self) -> int:
        return 0

    @property
    def dirty(self) -> bool:
        return False

    def free(self) -> int | None:
        return None

    def _names(self, folder: str) -> dict[str, str]:
        """Names of a folder by their upper case. Kept: names do not change while the server stands still."""
        if folder not in self._folders:
            self._folders[folder] = {name.upper(): name for name in os.listdir(folder)}
        return self._folders[folder]

    def _find(self, path: str) -> tuple[str, str] | None:
        """The path that Windows takes, and the name in the volume's own spelling."""
        place, name = self._root.rstrip(self._separator), ""
        for part in split_path(path):
            try:
                found = self._names(place + self._separator).get(part.upper())
            except (FileNotFoundError, NotADirectoryError):
                return None
            except OSError as error:
                raise _as_reading(error, place) from error
            if found is None:
                return None
            place, name = place + self._separator + found, found
        return (place, name) if name else (self._root, "")

    def _existing(self, path: str) -> tuple[str, str, os.stat_result]:
        found = self._find(path)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "not there", path)
        return (*found, self._state(found[0]))

    @staticmethod
    def _state(place: str) -> os.stat_result:
        try:
            return os.lstat(place)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _as_reading(error, place) from error

    def stat(self, path: str) -> FileStat | None:
        found = self._find(path)
        return None if found is None else _stat(found[1], self._state(found[0]))

    def listdir(self, path: str) -> list[FileStat]:
        place, _, state = self._existing(path)
        if not _is_directory(state):
            raise NotADirectoryError(errno.ENOTDIR, "no folder", path)
        prefix = place if place.endswith(self._separator) else place + self._separator
        try:
            names = self._names(prefix)
        except OSError as error:
            raise _as_reading(error, place) from error
        return [_stat(name, self._state(prefix + name)) for _, name in sorted(names.items())]

    def open(self, path: str) -> ByteSource:
        place, _, state = self._existing(path)
        if _is_directory(state):
            raise IsADirectoryError(errno.EISDIR, "a folder", path)
        code = _unreadable(state)
        if code is not None:
            raise UnreadableFile(path, code)
        return WindowsFile(place, state.st_size)

    def metadata(self, path: str) -> FileMetadata | None:
        found = self._find(path)
        if found is None:
            return None
        place, name = found
        state = self._state(place)
        plain = _stat(name, state)
        return FileMetadata(
            name=plain.name,
            is_directory=plain.is_directory,
            size=plain.size,
            created=_filetime(getattr(state, "st_birthtime_ns", state.st_ctime_ns)),
            modified=_filetime(state.st_mtime_ns),
            attributes=getattr(state, "st_file_attributes", 0),
            file_id=state.st_ino,
            reparse_tag=plain.reparse_tag,
            security=self._security(place),
            unreadable=None if plain.is_directory else _unreadable(state),
        )

    def _security(self, place: str) -> bytes | None:
        try:
            return self._api.security(place)
        except Win32Error:
            return None  # the file itself is not the worse for it

    def link_target(self, path: str) -> str | None:
        place, _, state = self._existing(path)
        if _tag(state) not in (SYMLINK, MOUNT_POINT):
            return None
        target = os.readlink(place)
        plain = target.startswith(_PLAIN) and not target.startswith(_PLAIN + "Volume{")
        return target[len(_PLAIN) :] if plain else target


def _tag(state: os.stat_result) -> int:
    return int(getattr(state, "st_reparse_tag", SYMLINK if modes.S_ISLNK(state.st_mode) else 0))


def _is_directory(state: os.stat_result) -> bool:
    """A link to a folder is one to Windows, and to our other readers."""
    return modes.S_ISDIR(state.st_mode) or bool(getattr(state, "st_file_attributes", 0) & 0x10)


def _stat(name: str, state: os.stat_result) -> FileStat:
    directory = _is_directory(state)
    return FileStat(name, directory, 0 if directory else state.st_size, _tag(state))


def _unreadable(state: os.stat_result) -> str | None:
    attributes = getattr(state, "st_file_attributes", 0)
    if attributes & _ENCRYPTED:
        return "encrypted"
    tag = _tag(state)
    if tag or attributes & _ELSEWHERE:
        return UNREADABLE.get(tag, "reparse")
    return None


def _filetime(nanoseconds: int) -> int:
    return max(0, nanoseconds // 100 + UNIX_EPOCH)
