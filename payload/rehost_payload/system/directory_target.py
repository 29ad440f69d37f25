"""A capture's target as a folder of a mounted volume (POSIX). Data goes past the page cache where the file system
takes O_DIRECT; where it does not, what was written is flushed and dropped from the cache before it is read back.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rehost_payload.formats.hive_base import UNIX_EPOCH
from rehost_payload.system.blockio import os_error
from rehost_payload.system.capture_target import ALIGNMENT, TargetFile, TargetInfo
from rehost_payload.system.protocol import TEMPORARY_NAME, SystemError_
from rehost_payload.system.synced import flush_file_system, write_synced

_O_DIRECT = getattr(os, "O_DIRECT", 0)
_NO_DIRECT = (errno.EINVAL, errno.EOPNOTSUPP)
_DIRTY_LIMIT = 32 << 20  # buffered writing: not more than this in memory before it goes to the disk


def _never() -> bool:
    return False


@dataclass
class _File:
    """Implements TargetFile. ``wrap`` names errors."""

    descriptor: int
    unbuffered: bool
    path: str
    gone: Callable[[], bool]
    whole: bool
    dirty: int = 0

    @contextmanager
    def _errors(self) -> Iterator[None]:
        with _named(self.path, self.gone):
            yield

    def reserve(self, size: int) -> None:
        with self._errors():
            if os.fstat(self.descriptor).st_size < size:
                _fallocate(self.descriptor, size)

    def write_at(self, offset: int, buffer: memoryview, length: int) -> None:
        end = -(-length // ALIGNMENT) * ALIGNMENT if self.unbuffered else length
        with self._errors():
            done = 0
            while done < end:
                try:
                    done += os.pwrite(self.descriptor, buffer[done:end], offset + done)
                except OSError as error:
                    if not (self.unbuffered and error.errno in _NO_DIRECT):
                        raise
                    self._buffered()
                    end = length
            if not self.unbuffered:
                self.dirty += length
                if self.dirty >= _DIRTY_LIMIT:
                    self._settle()

    def read_into(self, offset: int, buffer: memoryview) -> int:
        with self._errors():
            if not self.unbuffered:
                self._settle()
            done = 0
            while done < len(buffer):
                try:
                    got = os.preadv(self.descriptor, [buffer[done:]], offset + done)
                except OSError as error:
                    if not (self.unbuffered and error.errno in _NO_DIRECT):
                        raise
                    self._buffered()
                    continue
                done += got
                if not got or got % ALIGNMENT:
                    break
            return done

    def _buffered(self) -> None:
        """Some file systems take the flag when opening and refuse the first access."""
        if sys.platform != "win32":  # which has no O_DIRECT
            import fcntl

            flags = fcntl.fcntl(self.descriptor, fcntl.F_GETFL)
            fcntl.fcntl(self.descriptor, fcntl.F_SETFL, flags & ~_O_DIRECT)
        self.unbuffered = False

    def _settle(self) -> None:
        """To the disk, and out of the cache: the next read asks the disk."""
        if self.dirty:
            os.fdatasync(self.descriptor)
            self.dirty = 0
        with suppress(OSError, AttributeError):
            os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def flush(self) -> None:
        with self._errors():
            self._flush()

    def _flush(self) -> None:
        os.fsync(self.descriptor)
        if self.whole:
            flush_file_system(self.descriptor)
        self.dirty = 0

    def finish(self, size: int, created: int, modified: int) -> None:
        with self._errors():
            os.ftruncate(self.descriptor, size)
            if modified >= UNIX_EPOCH:
                nanoseconds = (modified - UNIX_EPOCH) * 100
                os.utime(self.descriptor, ns=(nanoseconds, nanoseconds))
            self._flush()

    def close(self) -> None:
        if self.descriptor >= 0:
            with suppress(OSError):  # a disk that has vanished
                os.close(self.descriptor)
            self.descriptor = -1


def _fallocate(descriptor: int, size: int) -> None:
    """fallocate(2) itself: where a file system does not know it, glibc's posix_fallocate writes into every block.

    Raises OSError for a full disk; where it is not known, the file just grows as it is written.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    call = getattr(libc, "fallocate64", None) or getattr(libc, "fallocate", None)
    if call is None:
        return
    if call(descriptor, 0, ctypes.c_int64(0), ctypes.c_int64(size)):
        code = ctypes.get_errno()
        if code in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO, errno.ENODEV):
            raise OSError(code, os.strerror(code))


@contextmanager
def _named(what: str, gone: Callable[[], bool]) -> Iterator[None]:
    """OSErrors as SystemError_. A file system whose disk was pulled out says EIO: then the disk itself is asked."""
    try:
        yield
    except OSError as error:
        named = os_error(error, what)
        if isinstance(error, FileNotFoundError):
            named = SystemError_("absent", named.detail)
        if named.code in ("io", "gone", "read-only", "absent") and gone():
            named = SystemError_("gone", f"{what}: the disk is not there any more")
        raise named from error


class DirectoryTarget:
    """Implements CaptureTarget. ``gone`` says whether the disk below has been unplugged.

    ``whole``: each flush is one of the whole file system. NTFS keeps in several places what one file needs, and the
    Linux driver does not write all of them when that file is flushed.
    """

    def __init__(
        self, root: Path, info: TargetInfo, gone: Callable[[], bool] = _never, *, whole: bool = False
    ) -> None:
        self._root = root
        self._gone = gone
        self._whole = whole
        self.info = info

    def _path(self, path: str) -> Path:
        parts = [part for part in path.split("/") if part]
        if any(part in (".", "..") or "\0" in part for part in parts):
            raise ValueError(f"{path!r} is no path on a target")
        return self._root.joinpath(*parts)

    @contextmanager
    def _errors(self, path: str) -> Iterator[Path]:
        with _named(path, self._gone):
            yield self._path(path)

    def _flush_folder(self, folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            with suppress(OSError):  # FUSE may not know it
                os.fsync(descriptor)
            if self._whole:
                flush_file_system(descriptor)
        finally:
            os.close(descriptor)

    def free(self) -> int:
        with self._errors(""):
            state = os.statvfs(self._root)
            return state.f_bavail * state.f_frsize

    def size(self, path: str) -> int | None:
        with self._errors(path) as place:
            try:
                return place.stat().st_size
            except (FileNotFoundError, NotADirectoryError):
                if self._gone():
                    raise
                return None

    def names(self, folder: str) -> list[str]:
        with self._errors(folder) as place:
            try:
                return sorted(entry.name for entry in place.iterdir())
            except (FileNotFoundError, NotADirectoryError):
                if self._gone():
                    raise
                return []

    def make_folders(self, path: str) -> None:
        with self._errors(path) as place:
            missing = []
            while not place.is_dir():
                missing.append(place)
                place = place.parent
            for folder in reversed(missing):
                folder.mkdir()
                self._flush_folder(folder.parent)

    def open(self, path: str) -> TargetFile:
        with self._errors(path) as place:
            new = not place.exists()
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
            try:
                file = _File(
                    os.open(place, flags | _O_DIRECT, 0o644), bool(_O_DIRECT), path, self._gone, self._whole
                )
            except OSError as error:
                if error.errno not in _NO_DIRECT:
                    raise
                file = _File(os.open(place, flags, 0o644), False, path, self._gone, self._whole)
            if new:
                self._flush_folder(place.parent)
            return file

    def rename(self, old: str, new: str) -> None:
        with self._errors(new) as place:
            self._path(old).rename(place)
            self._flush_folder(place.parent)

    def remove(self, path: str) -> None:
        with self._errors(path) as place:
            try:
                place.unlink()
            except FileNotFoundError:
                return
            self._flush_folder(place.parent)

    def remove_folder(self, path: str) -> None:
        with self._errors(path) as place:
            try:
                place.rmdir()
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    return
                raise
            self._flush_folder(place.parent)

    def read(self, path: str) -> bytes:
        with self._errors(path) as place:
            return place.read_bytes()

    def replace(self, path: str, data: bytes) -> None:
        with self._errors(path) as place:
            temporary = place.parent / TEMPORARY_NAME
            try:
                write_synced(temporary, data, os.O_CREAT | os.O_TRUNC, 0o644)
                self._flush_folder(place.parent)
                temporary.rename(place)
            except OSError:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
                raise
            self._flush_folder(place.parent)

    def append(self, path: str, data: bytes) -> None:
        with self._errors(path) as place:
            new = not place.exists()
            write_synced(place, data, os.O_CREAT | os.O_APPEND, 0o644)
            if new:
                self._flush_folder(place.parent)
