"""Temporary files that a power cut in the middle of a rename left on a FAT volume.

Replacing a file on FAT writes the target's directory entry first (it then names the new clusters) and
deletes the temporary entry after that. Between the two writes both names share one chain of clusters, and
deleting the temporary file in the ordinary way would free the clusters of the good one. The remedy is to
delete the directory entry alone.
"""

from __future__ import annotations

import struct

from .fat import FatVolume
from .source import ByteSource

_MAX_DIRECTORIES = 4096


def shared_leftovers(source: ByteSource, name: str) -> list[tuple[int, bytes]]:
    """(offset, byte) of every directory entry to be marked deleted: those of files called ``name`` that
    share their first cluster with another entry of the same folder. Offsets count from the start of the
    volume.

    Raises FormatError where the volume is damaged.
    """
    volume = FatVolume(source)
    found: list[tuple[int, bytes]] = []
    waiting, seen = [0], {0}
    while waiting and len(seen) < _MAX_DIRECTORIES:
        directory = waiting.pop()
        places = volume.entry_places(directory)
        first_of = [_first(raw) for _, raw in places]
        for index, (_, raw) in enumerate(places):
            if raw[0] in (0xE5, 0x2E) or raw[11] & 0x08:
                continue
            first = first_of[index]
            if raw[11] & 0x10:
                if first >= 2 and first not in seen:
                    seen.add(first)
                    waiting.append(first)
            elif first >= 2 and volume.short_name(raw).upper() == name.upper():
                others = (
                    other
                    for position, (_, other) in enumerate(places)
                    if position != index and other[0] != 0xE5 and not other[11] & 0x08
                )
                if any(_first(other) == first for other in others):
                    found += _with_long_name(places, index)
    return found


def _first(raw: bytes) -> int:
    high, low = struct.unpack_from("<H4xH", raw, 20)
    return int(high << 16 | low)


def _with_long_name(places: list[tuple[int, bytes]], index: int) -> list[tuple[int, bytes]]:
    """The entry and the pieces of its long name, which stand right before it."""
    marks = [(places[index][0], b"\xe5")]
    while index > 0 and places[index - 1][1][11] & 0x3F == 0x0F and places[index - 1][1][0] != 0xE5:
        index -= 1
        marks.append((places[index][0], b"\xe5"))
    return marks
