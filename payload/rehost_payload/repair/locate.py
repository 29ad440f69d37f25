"""Finds again what a survey or a journal names: disks and volumes, when device names may have changed since.

A GPT volume is its partition GUID, an MBR volume its disk signature and offset. Where a clone is attached, two
match; then the device path and size of the reference decide, and if these do not either, nothing is returned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rehost_payload.formats.filesystem import FileSystemReader
from rehost_payload.formats.partitions import read_table
from rehost_payload.formats.source import SliceSource
from rehost_payload.repair.model import DiskRef, VolumeRef
from rehost_payload.survey.filesystems import open_filesystem
from rehost_payload.system.protocol import DiskHandle, System, SystemError_


@dataclass(frozen=True)
class Place:
    """Where a volume is now: device path of its disk, byte offset and size."""

    disk: str
    offset: int
    size: int


def _places(disk: DiskHandle) -> Iterator[tuple[Place, str | None, int | None]]:
    """(place, partition GUID, MBR signature) of everything on a disk."""
    info = disk.info
    table = read_table(disk, info.sector_size)
    if table.gpt is not None:
        for e in table.gpt.entries:
            size = (e.last_lba - e.first_lba + 1) * info.sector_size
            yield Place(info.path, e.first_lba * info.sector_size, size), e.unique_guid, None
    elif table.mbr is not None:
        for p in table.mbr.partitions:
            place = Place(info.path, p.first_lba * info.sector_size, p.sectors * info.sector_size)
            yield place, None, table.mbr.signature
    else:
        yield Place(info.path, 0, info.size), None, None


def _matches(ref: VolumeRef, place: Place, guid: str | None, signature: int | None, disk: DiskHandle) -> bool:
    if ref.partition_guid is not None:
        return guid == ref.partition_guid
    same_disk = disk.info.serial == ref.disk_serial and disk.info.size == ref.disk_size
    if ref.signature is not None:
        # 0 is the signature of every disk that no Windows has seen yet
        own = signature == ref.signature and (ref.signature != 0 or same_disk)
        return own and place.offset == ref.offset
    return same_disk and place.offset == ref.offset


def find_volume(disks: Sequence[DiskHandle], ref: VolumeRef) -> tuple[DiskHandle, Place]:
    """The disk among ``disks`` that has the volume, and where. Raises SystemError_("gone")."""
    found = []
    for disk in disks:
        try:
            places = list(_places(disk))
        except OSError:
            continue  # a disk that has just vanished cannot be the one
        found += [(disk, p) for p, guid, sig in places if _matches(ref, p, guid, sig, disk)]
    if len(found) > 1:
        exact = [(d, p) for d, p in found if p == Place(ref.disk, ref.offset, ref.size)]
        if ref.disk_serial:
            exact = [(d, p) for d, p in exact if d.info.serial == ref.disk_serial]
        found = exact
    if len(found) != 1:
        name = ref.partition_guid or (f"{ref.signature:08x}" if ref.signature is not None else ref.disk)
        raise SystemError_("gone", f"volume {name} at {ref.offset} of {ref.disk} is not there any more")
    return found[0]


@contextmanager
def _open(system: System, ref: VolumeRef) -> Iterator[tuple[DiskHandle, Place]]:
    disks = system.disks()
    try:
        yield find_volume(disks, ref)
    finally:
        for disk in disks:
            disk.close()


def locate_volume(system: System, ref: VolumeRef) -> Place:
    """Where the volume is now. Raises SystemError_("gone") where it is not there, or not clearly."""
    with _open(system, ref) as (_, place):
        return place


@contextmanager
def locate_disk(system: System, ref: DiskRef) -> Iterator[DiskHandle]:
    """The disk with this serial number and size (the same path first); SystemError_("gone") otherwise."""
    disks = system.disks()
    try:
        same = [d for d in disks if d.info.serial == ref.serial and d.info.size == ref.size]
        chosen = [d for d in same if d.info.path == ref.path] or same
        if len(chosen) != 1:
            name = f"{ref.path} ({ref.serial or 'no serial number'})"
            raise SystemError_("gone", f"the disk {name} is not there any more")
        yield chosen[0]
    finally:
        for disk in disks:
            disk.close()


@contextmanager
def reading(system: System, ref: VolumeRef) -> Iterator[FileSystemReader]:
    """The volume's reader: nothing is mounted. SystemError_ where it is gone, FormatError where it is unreadable."""
    with _open(system, ref) as (disk, place):
        yield open_filesystem(SliceSource(disk, place.offset, place.size))


def read_file(system: System, ref: VolumeRef, path: str) -> bytes | None:
    """A file's content as `reading` sees it; None where it does not exist."""
    with reading(system, ref) as reader:
        return reader.read(path) if reader.exists(path) else None
