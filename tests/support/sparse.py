"""Copies between sparse files, data extents only."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

_CHUNK = 1 << 20


def extents(descriptor: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of the parts of [start, end) that hold data."""
    position = start
    while position < end:
        try:
            data = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        if data >= end:
            return
        hole = min(os.lseek(descriptor, data, os.SEEK_HOLE), end)
        yield data, hole - data
        position = hole


def copy_range(source: Path, source_offset: int, target: Path, target_offset: int, length: int) -> None:
    """Copies the data extents; where the source has a hole the target stays as it is."""
    with source.open("rb") as reader, target.open("r+b") as writer:
        size = min(length, os.fstat(reader.fileno()).st_size - source_offset)
        for offset, count in list(extents(reader.fileno(), source_offset, source_offset + size)):
            while count > 0:
                data = os.pread(reader.fileno(), min(count, _CHUNK), offset)
                if not data:
                    break
                os.pwrite(writer.fileno(), data, target_offset + offset - source_offset)
                offset += len(data)
                count -= len(data)


def make(path: Path, size: int) -> None:
    """An empty sparse file of ``size`` bytes."""
    with path.open("wb") as file:
        file.truncate(size)
