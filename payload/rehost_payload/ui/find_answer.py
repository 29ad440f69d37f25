"""Looks for the answer file on every disk, by our own readers and without mounting anything."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.filesystem import FileSystemReader
from rehost_payload.formats.partitions import read_table
from rehost_payload.formats.source import ByteSource, SliceSource
from rehost_payload.survey.filesystems import open_filesystem
from rehost_payload.system.protocol import DiskHandle, System
from rehost_payload.ui.answer import Orders, OrdersError, parse_answer

LABEL = "REHOST"
FILE = "\\rehost.toml"
_LIMIT = 64 * 1024


def volumes_of(disk: DiskHandle) -> Iterator[ByteSource]:
    """Every partition of a disk, or the whole of it where it has no table."""
    sector = disk.info.sector_size
    table = read_table(disk, sector)
    extents: list[tuple[int, int]] = []  # first sector, number of sectors
    if table.gpt is not None:
        extents = [(e.first_lba, e.last_lba - e.first_lba + 1) for e in table.gpt.entries]
    elif table.mbr is not None:
        extents = [(p.first_lba, p.sectors) for p in table.mbr.partitions]
    for first, count in extents or [(0, disk.size // sector)]:
        yield SliceSource(disk, first * sector, count * sector)


def open_labelled(source: ByteSource, label: str = LABEL) -> FileSystemReader | None:
    """The file system on ``source`` if it is one that we read and has this label. Never raises FormatError."""
    with contextlib.suppress(FormatError):
        reader = open_filesystem(source)
        if reader.label.upper() == label:
            return reader
    return None


def answer_orders(system: System) -> Orders:
    """The orders in the answer file, or empty ones. Raises OrdersError also where two files differ."""
    found: dict[bytes, str] = {}
    for disk in system.disks():
        try:
            with contextlib.suppress(OSError):  # a drive without medium, a failing disk: no orders from there
                for number, source in enumerate(volumes_of(disk), 1):
                    data = _answer_on(source)
                    if data is not None:
                        found.setdefault(data, f"rehost.toml ({disk.info.path}, volume {number})")
        finally:
            disk.close()
    if len(found) > 1:
        raise OrdersError(", ".join(found.values()), "the answer files differ")
    for content, where in found.items():
        return parse_answer(content, where)
    return Orders()


def _answer_on(source: ByteSource) -> bytes | None:
    reader = open_labelled(source)
    if reader is None:
        return None
    try:
        return reader.read(FILE, _LIMIT) if reader.exists(FILE) else None
    except (FormatError, IsADirectoryError, FileNotFoundError, NotADirectoryError) as e:
        raise OrdersError("rehost.toml", f"cannot be read: {e}") from e
