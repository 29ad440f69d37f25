"""Volumes of this machine to which a capture could be written, and how the operator names them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from rehost_payload.formats.errors import FormatError
from rehost_payload.repair.model import VolumeRef
from rehost_payload.repair.view import volume_ref
from rehost_payload.survey.cache import CachedSource
from rehost_payload.survey.model import Disk, FileSystem, Volume
from rehost_payload.survey.volumes import OpenVolume, survey_disk, survey_volumes
from rehost_payload.system.protocol import System

_FIT = frozenset({FileSystem.NTFS, FileSystem.EXFAT})
_KNOWN = _FIT | {FileSystem.FAT12, FileSystem.FAT16, FileSystem.FAT32}
UNFIT = frozenset({"windows", "file-system", "dirty", "hibernated", "read-only", "damaged", "io"})
_SMALLEST = 16 << 20
_HIVE = "\\Windows\\System32\\config\\SYSTEM"


@dataclass(frozen=True)
class Candidate:
    """A volume that may take a capture. ``unfit`` is why it may not, one of UNFIT: "windows" (on the same disk),
    "file-system", or the survey's code for a volume that cannot be written."""

    volume: Volume
    disk: Disk
    ref: VolumeRef
    unfit: str | None

    @property
    def id(self) -> str:
        return self.volume.id


class UnknownTarget(Exception):
    """``known`` are the names that would have been understood."""

    def __init__(self, name: str, known: Sequence[str], several: bool = False) -> None:
        self.name = name
        self.known = tuple(known)
        self.several = several
        super().__init__(
            f"{name}: {'several volumes are called so' if several else 'there is no such volume'}"
        )


def opened_volumes(system: System) -> Iterator[tuple[Disk, list[OpenVolume]]]:
    """The volumes of each disk, opened for reading until the next one is asked for.

    Raises SystemError_ where the disks cannot be listed; a disk that does not answer is left out.
    """
    handles = system.disks()
    try:
        for index, handle in enumerate(handles):
            source = CachedSource(handle)
            with suppress(OSError):
                disk = survey_disk(handle, source, f"disk{index}")
                yield disk, survey_volumes(disk, source, [])
    finally:
        for handle in handles:
            handle.close()


def candidates(system: System) -> list[Candidate]:
    """Every volume with a file system that Windows writes, except the medium's own. Reads only."""
    found: list[Candidate] = []
    for disk, volumes in opened_volumes(system):
        windows = any(_has_windows(opened) for opened in volumes)
        found += [
            _candidate(disk, opened, windows)
            for opened in volumes
            if opened.volume.file_system in _KNOWN
            and opened.volume.size >= _SMALLEST
            and not disk.boot_medium
        ]
    return found


def _has_windows(opened: OpenVolume) -> bool:
    try:
        return opened.reader is not None and opened.reader.exists(_HIVE)
    except FormatError:
        return False


def _candidate(disk: Disk, opened: OpenVolume, windows: bool) -> Candidate:
    volume = opened.volume
    partition = next((p for p in disk.table.partitions if p.id == volume.partition), None)
    unfit = volume.unreadable or volume.unwritable
    if unfit is None and volume.file_system not in _FIT:
        unfit = "file-system"
    return Candidate(volume, disk, volume_ref(volume, disk, partition), "windows" if windows else unfit)


def choose(found: Sequence[Candidate], name: str) -> Candidate:
    """The volume called "disk1p1", "/dev/sdb1" or "label:BACKUP". Raises UnknownTarget for none or several."""
    if name.lower().startswith("label:"):
        label = name[6:].casefold()
        matches = [c for c in found if c.volume.label.casefold() == label]
    else:
        matches = [c for c in found if name in (c.volume.id, _node(c))]
    if len(matches) != 1:
        known = [c.volume.id for c in found] + [f"label:{c.volume.label}" for c in found if c.volume.label]
        raise UnknownTarget(name, known, several=len(matches) > 1)
    return matches[0]


def _node(candidate: Candidate) -> str:
    """The device node of the volume."""
    partitions = candidate.disk.table.partitions
    partition = next((p for p in partitions if p.id == candidate.volume.partition), None)
    return (partition.path or "") if partition is not None else candidate.disk.path
