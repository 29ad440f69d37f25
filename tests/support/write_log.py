"""What a virtual disk was told to write, in order: the states in which a power cut can leave it.

QEMU's blklogwrites driver notes every write, flush and discard in the format of Linux' dm-log-writes. A real disk
has a cache of its own: of the writes after the last flush any may be on the medium and any may not. `power_cut`
builds such a state.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_MAGIC = 0x6A736677736872
_FLUSH, _FUA, _DISCARD, _MARK = 1, 2, 4, 8
SECTOR = 512


@dataclass(frozen=True)
class Entry:
    """``offset`` in bytes; a flush has no data. ``zeros`` is the length of a discard, which reads as zeros."""

    offset: int
    data: bytes
    flush: bool
    fua: bool
    zeros: int = 0


def read_log(path: Path) -> list[Entry]:
    """Raises ValueError where the file is no such log. QEMU must have ended in order."""
    raw = path.read_bytes()
    magic, version, count, sector = struct.unpack_from("<QQQI", raw)
    if (magic, version) != (_MAGIC, 1):
        raise ValueError(f"{path} is no write log")
    entries = []
    position = sector
    for _ in range(count):
        start, sectors, flags, _ = struct.unpack_from("<QQQQ", raw, position)
        position += sector
        length = sectors * sector
        if flags & _MARK:
            continue
        if flags & _DISCARD:
            entries.append(Entry(start * sector, b"", False, False, length))
            continue
        data = raw[position : position + length]
        position += length
        if len(data) != length:
            raise ValueError(f"{path} ends in the middle of an entry")
        entries.append(Entry(start * sector, data, bool(flags & _FLUSH), bool(flags & _FUA)))
    return entries


def apply(path: Path, entries: Sequence[Entry]) -> None:
    with path.open("r+b") as file:
        for entry in entries:
            file.seek(entry.offset)
            file.write(entry.data or bytes(entry.zeros))


def last_flush(entries: Sequence[Entry], end: int) -> int:
    """Index after the last flush before ``end``: everything in front of it is on the medium."""
    for index in range(end - 1, -1, -1):
        if entries[index].flush:
            return index + 1
    return 0


def power_cut(entries: Sequence[Entry], end: int, chance: random.Random) -> list[Entry]:
    """What is on the medium when the power goes after ``end`` entries: of those since the last flush any subset.

    A write of several sectors can be torn between them as well.
    """
    safe = last_flush(entries, end)
    result = list(entries[:safe])
    for entry in entries[safe:end]:
        if entry.fua or chance.random() < 0.5:
            result.append(entry)
        elif len(entry.data) > SECTOR and chance.random() < 0.5:
            keep = chance.randrange(1, len(entry.data) // SECTOR) * SECTOR
            result.append(Entry(entry.offset, entry.data[:keep], False, False))
    return result
