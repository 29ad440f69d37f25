"""An ordinary folder as a capture's target: a mounted disk, or a place on a workstation."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rehost_payload.system.capture_target import TargetInfo
from rehost_payload.system.directory_target import DirectoryTarget
from rehost_payload.system.protocol import SystemError_

_MARKS = (("capture.json",), ("capture.journal",), ("manifest.json", "SHA256SUMS"))
NOT_HERE = "a folder is a target on Linux only; on Windows name a volume"


def readable_folder(folder: Path) -> DirectoryTarget:
    """To look at the captures in a folder."""
    return DirectoryTarget(folder, TargetInfo(f"folder-{folder}", str(folder), ""))


def folder_target(folder: Path, root: Path = Path("/")) -> DirectoryTarget:
    """The folder must exist. Raises SystemError_ ("absent", "permission", "read-only",
    "unusable-target")."""
    if os.name != "posix":
        raise SystemError_("unusable-target", NOT_HERE)
    try:
        place = folder.resolve(strict=True)
        device = place.stat().st_dev
    except OSError as error:
        raise SystemError_("absent", f"{folder}: {error.strerror}") from error
    if not place.is_dir():
        raise SystemError_("absent", f"{folder} is no folder")
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        raise SystemError_("read-only", f"{folder} lies on a file system that is mounted read-only")
    if not os.access(place, os.W_OK):
        raise SystemError_("permission", f"{folder} cannot be written")
    kind, disk, below = _mount(device, root)
    info = TargetInfo(f"folder-{place}", str(folder), kind, disk, below=below)
    return DirectoryTarget(place, info, whole=True)


def _mount(device: int, root: Path) -> tuple[str, str, frozenset[str]]:
    """File system and disk of a mounted device, "" where they are not known (not Linux, a network), and everything
    that it lies on."""
    if not hasattr(os, "major"):
        return "", "", frozenset()
    number = f"{os.major(device)}:{os.minor(device)}"
    kind = ""
    with suppress(OSError, IndexError):
        for line in (root / "proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
            left, _, right = line.partition(" - ")
            if left.split(" ")[2] == number:
                kind = right.split(" ")[0]
    disks = _disks_below(number, root)
    return kind, disks[0] if disks else "", frozenset([f"device {number}", *disks])


def _disks_below(number: str, root: Path) -> list[str]:
    """The whole disk of a device ("8:17"), the device itself, and what RAID, LVM, encryption and loop devices lie on."""
    found: dict[str, None] = {}
    try:
        waiting = [(root / "sys/dev/block" / number).resolve(strict=True)]
    except OSError:
        return []
    while waiting:
        node = waiting.pop()
        if (node / "partition").exists():
            waiting.append(node.parent)
        else:
            found[f"/dev/{node.name}"] = None
        with suppress(OSError):
            waiting += [s.resolve() for s in (node / "slaves").iterdir() if f"/dev/{s.name}" not in found]
        with suppress(OSError):
            found[os.path.realpath((node / "loop/backing_file").read_text().rstrip("\n"))] = None
    return list(found)


@dataclass(frozen=True)
class FolderConflict:
    """Why a folder must take no copy. ``code`` is one of CaptureRefused's, ``detail`` the evidence."""

    code: str
    detail: str


def folder_conflict(
    folder: Path, sources: Iterable[str], others: Iterable[Path], root: Path = Path("/")
) -> FolderConflict | None:
    """What is wrong with the place of a target, before anything is written there.

    ``sources`` are the disks and images that are captured, ``others`` the folders that were named before this one.
    """
    place = folder.resolve()
    try:
        below = _mount(place.stat().st_dev, root)[2]
    except OSError:
        return None  # folder_target says it better
    for source in sources:
        real = Path(os.path.realpath(source))
        if real == place or place in real.parents:
            return FolderConflict("holds-source", f"{real} lies in {place}")
        if _names(real, root) & below:
            return FolderConflict("source-disk", f"{place} lies on {real}")
    for above in (place, *place.parents):
        if any(all((above / name).is_file() for name in names) for names in _MARKS):
            return FolderConflict("inside-capture", f"{above} is a capture, or a machine's folder in one")
    for other in (o.resolve() for o in others):
        if other == place:
            return FolderConflict("same-disk", f"{other} is named twice")
        if other in place.parents or place in other.parents:
            return FolderConflict("same-disk", f"{max(other, place)} lies in {min(other, place)}")
    return None


def shares_file_system(folder: Path, sources: Iterable[str]) -> str | None:
    """The first image that lies on the same file system as ``folder``: original and copy would be lost together."""
    for source in sources:
        with suppress(OSError):
            info = Path(source).stat()
            if stat.S_ISREG(info.st_mode) and info.st_dev == folder.stat().st_dev:
                return source
    return None


def _names(source: Path, root: Path) -> frozenset[str]:
    """How a source may be called in TargetInfo.below."""
    try:
        info = source.stat()
    except OSError:
        return frozenset()
    if not stat.S_ISBLK(info.st_mode):
        return frozenset([str(source)])
    number = f"{os.major(info.st_rdev)}:{os.minor(info.st_rdev)}"
    return frozenset([f"device {number}", *_disks_below(number, root)])
