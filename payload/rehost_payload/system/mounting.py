"""Mounting a volume for writing on Linux, and what can be done on it.

mount(2) is called directly; only ntfs-3g, where the kernel has no ntfs3, is a program. Before anything is
mounted our own readers have judged the volume (linux.py), because ntfs3 mounts a hibernated one without a
word.

Power cuts: `replace` writes a temporary file, flushes it, renames it over the target and flushes the whole
file system. On FAT directories are written at once and in order (MS_DIRSYNC), so that the target names
either the old or the new clusters; formats/fat_leftover.py removes what such a cut leaves. NTFS has no order
that a driver without journal could keep: there the target may be missing after a cut within the rename, with
the new content in the temporary file and the old one in the operator's journal.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.filesystem import split_path
from rehost_payload.formats.security import inherited
from rehost_payload.system.blockio import os_error
from rehost_payload.system.protocol import TEMPORARY_NAME, SystemError_
from rehost_payload.system.synced import flush_file_system, write_synced

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_DIRSYNC, _MS_NOATIME = 2, 4, 8, 128, 1024
_FLAGS = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC | _MS_NOATIME
_UMOUNT_TRIES = 20
_MNT_DETACH = 2  # gone as soon as nobody uses it
_SMALL = 1 << 20


@dataclass(frozen=True)
class Way:
    """One way to mount: a file system of the kernel, or a program of its own (``program`` not empty)."""

    name: str
    options: str
    flags: int = _FLAGS
    program: str = ""


def ways(kind: str, *, journal_unclean: bool = False, forced: bool = False) -> list[Way]:
    """The ways to mount a file system for writing, best first.

    ``journal_unclean``: an NTFS journal that must be replayed; ntfs-3g would throw it away, so only ntfs3
    may try. ``forced``: mount in spite of the dirty flag.
    """
    if kind.startswith("fat"):
        return [Way("vfat", "utf8=1,shortname=mixed,fmask=0077,dmask=0077", _FLAGS | _MS_DIRSYNC)]
    if kind == "exfat":
        return [Way("exfat", "iocharset=utf8", _FLAGS | _MS_DIRSYNC)]
    if kind == "ntfs":
        kernel = Way("ntfs3", "force" if forced else "")
        # big_writes: without it ntfs-3g writes some 50 times slower; norecover: never empty the journal
        fuse = Way("ntfs-3g", "rw,big_writes,norecover,noatime", program="ntfs-3g")
        return [kernel] if journal_unclean else [kernel, fuse]
    return []


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _mount(device: str, target: Path, way: Way) -> None:
    """Raises OSError."""
    if way.program:
        program = shutil.which(way.program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/bin")
        if program is None:
            raise OSError(0, f"{way.program} is not installed")
        done = subprocess.run(
            [program, "-o", way.options, device, str(target)], capture_output=True, check=False, text=True
        )
        if done.returncode:
            raise OSError(0, (done.stderr or done.stdout).strip().replace("\n", "; "))
        return
    arguments = (device.encode(), str(target).encode(), way.name.encode(), way.flags, way.options.encode())
    if _libc().mount(*(ctypes.c_char_p(a) if isinstance(a, bytes) else ctypes.c_ulong(a) for a in arguments)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _unmount(target: Path, device: str) -> None:
    """Flushes and unmounts; waits where something still has a file open. Raises SystemError_.

    The mount of a disk that was pulled out is only taken out of sight: there is nothing left to flush it to.
    """
    libc = _libc()
    if not Path(device).exists():
        libc.umount2(ctypes.c_char_p(str(target).encode()), _MNT_DETACH)
        return
    for attempt in range(_UMOUNT_TRIES):
        if libc.umount2(ctypes.c_char_p(str(target).encode()), 0) == 0:
            return
        code = ctypes.get_errno()
        if code == 16:  # EBUSY
            time.sleep(0.05 * (attempt + 1))
            continue
        raise SystemError_("io", f"cannot unmount {target}: {os.strerror(code)}")
    libc.umount2(ctypes.c_char_p(str(target).encode()), _MNT_DETACH)
    raise SystemError_("busy", f"{target} was still in use and is detached only")


def is_writable(target: Path, mounts: Path = Path("/proc/mounts")) -> bool:
    """What the kernel says of a mount point: exit code 0 of a mount is no proof of "rw"."""
    for line in mounts.read_text(errors="surrogateescape").splitlines():
        fields = line.split(" ")
        if len(fields) >= 4 and fields[1].replace("\\040", " ") == str(target):
            return "rw" in fields[3].split(",")
    return False


def mount_efivarfs(folder: Path) -> None:
    """Mounts efivarfs where it is not: an init of ours may not have done it. Failing is no error here."""
    with suppress(OSError):
        if folder.is_dir() and not any(folder.iterdir()):
            _mount("efivarfs", folder, Way("efivarfs", "", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC))


@contextmanager
def mounted(device: str, attempts: list[Way]) -> Iterator[Path]:
    """Mounts the device by the first way that works and yields the mount point; unmounts in every case.

    Raises SystemError_: "mount" when no way works, "read-only" when it mounted but not for writing.
    """
    target = Path(tempfile.mkdtemp(prefix="rehost-mount-"))
    try:
        complaints: list[str] = []
        for way in attempts:
            try:
                _mount(device, target, way)
            except OSError as error:
                complaints.append(f"{way.name}: {error.strerror}")
                continue
            break
        else:
            raise SystemError_("mount", f"{device}: " + ("; ".join(complaints) or "no way to mount it"))
        try:
            if not is_writable(target):
                raise SystemError_("read-only", f"{device}: {way.name} mounted it read-only")
            yield target
        finally:
            _unmount(target, device)
    finally:
        with suppress(OSError):
            target.rmdir()


_SECURITY = ("system.ntfs_security", "system.ntfs_acl")
"""Extended attributes that hold the security descriptor of a file on NTFS: with ntfs3, and with ntfs-3g."""


def _secure(path: Path, model: Path | None) -> None:
    """Gives a new file or folder on NTFS the rights of ``model`` where that exists, else those that its folder hands
    down. Both drivers would give everybody full access. Elsewhere, and where it fails, nothing is done: a server that
    starts comes first."""
    for name in _SECURITY:
        with suppress(OSError, FormatError):
            if model is not None and model.exists():
                rights = os.getxattr(model, name)
            else:
                rights = inherited(os.getxattr(path.parent, name), path.is_dir())
            os.setxattr(path, name, rights)
            return


class MountedVolume:
    """Implements WritableVolume over a mount point. Paths are matched without case, name by name."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def root(self) -> Path:
        """The mount point."""
        return self._root

    def _find(self, path: str) -> Path | None:
        """The existing file, in its own spelling, or None."""
        current = self._root
        for name in self._names(path):
            exact = current / name
            if not os.path.lexists(exact) or name not in self._listing(current):
                wanted = name.upper()
                found = [entry for entry in self._listing(current) if entry.upper() == wanted]
                if not found:
                    return None
                exact = current / found[0]
            current = exact
        return current

    @staticmethod
    def _names(path: str) -> list[str]:
        names = split_path(path)
        if any(name in (".", "..") or "\0" in name for name in names):
            raise SystemError_("absent", f"{path!r} is no path on a volume")
        return names

    @staticmethod
    def _listing(folder: Path) -> list[str]:
        try:
            return [entry.name for entry in folder.iterdir()]
        except NotADirectoryError:
            return []

    def _existing(self, path: str) -> Path:
        try:
            found = self._find(path)
        except OSError as error:
            raise os_error(error, path) from error
        if found is None:
            raise SystemError_("absent", f"{path} does not exist")
        return found

    def _target(self, path: str) -> Path:
        """Where ``path`` is, or is to be made: its folder must exist."""
        names = self._names(path)
        folder = self._existing("\\".join(names[:-1]))
        try:
            return self._find(path) or folder / names[-1]
        except OSError as error:
            raise os_error(error, path) from error

    def read(self, path: str) -> bytes:
        found = self._existing(path)
        try:
            return found.read_bytes()
        except OSError as error:
            raise os_error(error, path) from error

    def exists(self, path: str) -> bool:
        try:
            return self._find(path) is not None
        except OSError as error:
            raise os_error(error, path) from error

    def is_directory(self, path: str) -> bool:
        try:
            found = self._find(path)
            return found is not None and found.is_dir()
        except OSError as error:
            raise os_error(error, path) from error

    def listdir(self, path: str) -> list[str]:
        found = self._existing(path)
        try:
            return sorted((entry.name for entry in found.iterdir()), key=str.upper)
        except OSError as error:
            raise os_error(error, path) from error

    def free(self) -> int:
        try:
            state = os.statvfs(self._root)
        except OSError as error:
            raise os_error(error, "free space") from error
        return state.f_bavail * state.f_frsize

    def make_directory(self, path: str) -> None:
        target = self._target(path)
        try:
            target.mkdir()
            _secure(target, None)
            self._flush(target.parent)
        except OSError as error:
            raise os_error(error, path) from error

    def remove_directory(self, path: str) -> None:
        found = self._existing(path)
        try:
            found.rmdir()
            self._flush(found.parent)
        except OSError as error:
            raise os_error(error, path) from error

    def replace(self, path: str, data: bytes) -> None:
        target = self._target(path)
        temporary = target.parent / TEMPORARY_NAME
        try:
            try:
                write_synced(temporary, data, os.O_CREAT | os.O_TRUNC, 0o600)
                _secure(temporary, target)
                # the folder entry of the temporary file first: the rename must find nothing half done
                self._flush(target.parent)
                with self._held(target):
                    temporary.rename(target)
                    self._flush(target.parent)
            except OSError:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
                raise
            self._flush(target.parent)
        except OSError as error:
            raise os_error(error, path) from error

    def append(self, path: str, data: bytes) -> None:
        """Small files are replaced as a whole: on FAT an append that is cut off can leave a size without
        clusters, at which the kernel makes the volume read-only."""
        target = self._target(path)
        try:
            old = target.read_bytes() if target.exists() and target.stat().st_size < _SMALL else None
            if old is not None or not target.exists():
                self.replace(path, (old or b"") + data)
            else:
                write_synced(target, data, os.O_APPEND, 0o600)
                self._flush(target.parent)
        except OSError as error:
            raise os_error(error, path) from error

    def remove(self, path: str) -> None:
        found = self._existing(path)
        try:
            with self._held(found):
                found.unlink()
                self._flush(found.parent)
            self._flush(found.parent)
        except OSError as error:
            raise os_error(error, path) from error

    @staticmethod
    @contextmanager
    def _held(path: Path) -> Iterator[None]:
        """Keeps the file's clusters in use, so that they are freed only after the block, in which the folder
        entry that named them went to the disk: a disk's cache may keep the later of two writes and lose the
        earlier."""
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            yield
            return
        try:
            yield
        finally:
            os.close(descriptor)

    @staticmethod
    def _flush(folder: Path) -> None:
        """The folder, then everything: NTFS keeps in several places what a folder entry needs."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with suppress(OSError):  # FUSE may not know it
                os.fsync(descriptor)
            flush_file_system(descriptor)
        finally:
            os.close(descriptor)
