"""The stick, or the image file that stands for one: what it is, what is on it, and why it must not be written."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rehost_builder.errors import BlockedError, BuildError
from rehost_payload.formats.errors import FormatError
from rehost_payload.survey.model import Problem
from rehost_payload.survey.volumes import survey_disk, survey_volumes
from rehost_payload.system import sysfs
from rehost_payload.system.handles import FileDisk
from rehost_payload.system.protocol import DiskInfo

JOURNALS = "\\Rehost"


@dataclass(frozen=True)
class Stick:
    """``removable``: USB, or a card. ``volumes`` says what is on it now; ``journals`` are volumes with our originals."""

    path: Path
    size: int
    model: str
    serial: str
    transport: str
    is_file: bool
    removable: bool
    volumes: tuple[str, ...] = ()
    journals: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        words = [self.model, self.serial and f"serial number {self.serial}", self.transport]
        return ", ".join(w for w in words if w) or "unnamed"


def describe(path: Path, root: Path = Path("/")) -> Stick:
    """Looks at the stick; writes nothing. Raises BuildError where it must not be written, with the reason."""
    if not sys.platform.startswith("linux"):
        raise BuildError(
            "sticks are written on Linux only",
            "on Windows, Rufus writes the ISO (in DD mode for the Debian base)",
        )
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise BuildError(
            f"{path}: {error.strerror}", "rehost usb ISO /dev/sdX; lsblk shows the disks"
        ) from None
    if stat.S_ISREG(mode):
        if in_use := _loops(path, root):
            raise BlockedError(f"{path} is in use: {'; '.join(in_use)}", "unmount it, then losetup -d")
        stick = Stick(path, path.stat().st_size, "image file", "", "", True, True)
    elif stat.S_ISBLK(mode):
        stick = _block_device(path, root)
    else:
        raise BlockedError(f"{path} is neither a disk nor a file")
    return _with_contents(stick)


def _block_device(path: Path, root: Path) -> Stick:
    real = path.resolve()
    devices = list(sysfs.block_devices(root))
    for device in devices:
        if str(real) in device.partitions.values():
            raise BlockedError(f"{path} is a partition", f"give the whole disk: {device.path}")
    found = next((d for d in devices if d.path == str(real)), None)
    if found is None:
        raise BlockedError(
            f"{path} is no disk that could be a stick (an array, a mapped device, an empty reader?)"
        )
    if found.read_only:
        raise BlockedError(f"{path} is write-protected", "look for the switch on its side")
    if found.sector_size != 512:
        raise BlockedError(
            f"{path} has sectors of {found.sector_size} bytes", "a stick with sectors of 512 is needed"
        )
    if in_use := _users({found.path, *found.partitions.values()}, root):
        raise BlockedError(
            f"{path} is in use: {'; '.join(in_use)}", "unmount it first, if it really is the stick"
        )
    removable = found.removable or found.transport in ("usb", "mmc")
    return Stick(real, found.size, found.model, found.serial, found.transport, False, removable)


def _loops(path: Path, root: Path) -> list[str]:
    """The loop devices that show an image file as a disk, and what uses these: nothing else guards the file.

    The kernel gives the path by which the file was attached; " (deleted)" follows where that name is gone.
    """
    found = []
    for entry in sorted((root / "sys/block").glob("loop*/loop/backing_file")):
        try:
            shown = os.fsdecode(entry.read_bytes().removesuffix(b"\n"))
        except OSError:  # detached in this moment
            continue
        if any(_same(Path(name), path) for name in {shown, shown.removesuffix(" (deleted)")}):
            loop = entry.parent.parent
            nodes = {f"/dev/{loop.name}", *(f"/dev/{p.name}" for p in loop.glob(f"{loop.name}p*"))}
            found += [f"attached to /dev/{loop.name}", *_users(nodes, root)]
    return found


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _users(nodes: set[str], root: Path) -> list[str]:
    """What uses the disk or a part of it: mounts, swap, arrays and mapped devices above it."""
    numbers = {_number(root, node) for node in nodes} - {None}
    found = []
    for line in _lines(root / "proc/self/mountinfo"):
        fields = line.split()
        if len(fields) > 4 and (fields[2] in numbers or nodes & set(fields)):
            found.append(f"mounted on {fields[4]}")
    found += [f"swap on {x.split()[0]}" for x in _lines(root / "proc/swaps")[1:] if x.split()[0] in nodes]
    for node in sorted(nodes):
        folder = root / "sys/class/block" / node.removeprefix("/dev/").replace("/", "!") / "holders"
        found += [f"{node} is part of {h.name}" for h in folder.glob("*")]
    return found


def _number(root: Path, node: str) -> str | None:
    try:
        return (root / "sys/class/block" / node.removeprefix("/dev/") / "dev").read_text().strip()
    except OSError:
        return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _with_contents(stick: Stick) -> Stick:
    """What would be lost. A table or file system that cannot be read is nothing that we could name."""
    volumes: list[str] = []
    journals: list[str] = []
    problems: list[Problem] = []
    try:
        with opened(stick) as handle:
            disk = survey_disk(handle, handle, "stick")
            for found in survey_volumes(disk, handle, problems):
                volume = found.volume
                if volume.file_system.value in ("empty", "unknown") and not volume.label:
                    continue
                volumes.append(f"{volume.file_system.value} {volume.label!r}, {volume.size >> 20} MiB")
                if found.reader is not None and found.reader.is_directory(JOURNALS):
                    journals.append(volume.label or volume.id)
    except (OSError, FormatError) as error:
        if isinstance(error, PermissionError):
            raise BuildError(f"{stick.path}: {error.strerror}", "run it as root") from None
    return Stick(**{**stick.__dict__, "volumes": tuple(volumes), "journals": tuple(journals)})


@contextmanager
def opened(stick: Stick) -> Iterator[FileDisk]:
    """The stick as a disk that is read, past what was cached of it."""
    descriptor = os.open(stick.path, os.O_RDONLY | os.O_CLOEXEC)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    handle = FileDisk(DiskInfo(str(stick.path), os.lseek(descriptor, 0, os.SEEK_END), 512), descriptor)
    try:
        yield handle
    finally:
        handle.close()
