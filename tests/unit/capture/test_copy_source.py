"""Reading from a disk with bad places: what can be read is read, what cannot is named, and it ends in bounded time."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_payload.capture.copy_source import (
    CarefulReader,
    OpenSource,
    SourceChanged,
    SourceGone,
    fingerprint,
    merge,
)
from rehost_payload.capture.model import BadRange
from rehost_payload.formats.errors import FormatError
from rehost_payload.system.protocol import SystemError_

MIB = 1 << 20


@dataclass
class Disk:
    """Byte i is i % 251; sectors (by number, or ranges of them) that fail."""

    size: int
    bad: set[int] = field(default_factory=set)
    ranges: tuple[range, ...] = ()
    error: Exception = field(default_factory=lambda: OSError(errno.EIO, os.strerror(errno.EIO)))
    reads: int = 0

    def read_at(self, offset: int, length: int) -> bytes:
        self.reads += 1
        first, last = offset // 512, (offset + length - 1) // 512
        if any(first <= s <= last for s in self.bad) or any(
            r.start <= last and first < r.stop for r in self.ranges
        ):
            raise self.error
        pattern = bytes(range(251)) * (length // 251 + 2)
        return pattern[offset % 251 :][: min(length, self.size - offset)]


def read_all(disk: Disk, block: int = MIB) -> tuple[bytes, list[BadRange]]:
    reader = CarefulReader(OpenSource(disk), disk.size)
    data, bad = bytearray(disk.size), list[BadRange]()
    for offset in range(0, disk.size, block):
        bad += reader.read_into(offset, memoryview(data)[offset : offset + block])
    return bytes(data), merge(bad)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3 * MIB), st.sets(st.integers(0, 6143), max_size=12))
def test_exactly_the_bad_sectors_are_lost(size: int, bad: set[int]) -> None:
    disk = Disk(size, {s for s in bad if s * 512 < size})
    data, ranges = read_all(disk)
    expected = bytearray(Disk(size).read_at(0, size))
    for sector in disk.bad:
        end = min(size, sector * 512 + 512)
        expected[sector * 512 : end] = bytes(end - sector * 512)
    assert data == expected
    lost = {s for r in ranges for s in range(r.offset // 512, -(-(r.offset + r.length) // 512))}
    assert lost == disk.bad
    assert all("Input/output error" in r.reason for r in ranges)


def test_a_dead_zone_is_crossed_in_few_steps_and_named_whole() -> None:
    """40 MiB without a readable sector: at one second each that would be days by sectors."""
    dead = range(4 * MIB // 512, 44 * MIB // 512)
    disk = Disk(120 * MIB, ranges=(dead,))
    data, ranges = read_all(disk, 4 * MIB)
    assert disk.reads < 4000
    assert ranges[0].offset == dead.start * 512
    lost = sum(r.length for r in ranges)
    assert 40 * MIB <= lost <= 120 * MIB
    assert not any(data[4 * MIB : 44 * MIB])
    assert data[: 4 * MIB] == Disk(4 * MIB).read_at(0, 4 * MIB)
    good = bytearray(Disk(120 * MIB).read_at(0, 120 * MIB))
    for r in ranges:  # whatever is not good is named
        good[r.offset : r.offset + r.length] = bytes(r.length)
    assert data == good


def test_a_disk_that_died_ends_the_file() -> None:
    for error in (OSError(errno.ENODEV, "gone"), OSError(errno.ENXIO, "gone"), SystemError_("gone", "x")):
        with pytest.raises(SourceGone):
            read_all(Disk(MIB, {5}, error=error))


def test_damaged_file_system_structures_are_bad_ranges_too() -> None:
    _, ranges = read_all(Disk(MIB, {5}, error=FormatError("NTFS run list", "it does not cover the stream")))
    assert [(r.offset, r.length) for r in ranges] == [(5 * 512, 512)]


def test_a_source_that_ends_early() -> None:
    disk = Disk(MIB)
    reader = CarefulReader(OpenSource(disk), 2 * MIB)
    disk.size = MIB - 5
    with pytest.raises(SourceChanged, match=str(MIB - 5)):
        reader.read_into(0, memoryview(bytearray(MIB)))


def test_fingerprints() -> None:
    base = fingerprint(OpenSource(Disk(MIB), "id"))
    assert fingerprint(OpenSource(Disk(MIB), "id")) == base
    assert fingerprint(OpenSource(Disk(MIB + 1), "id")) != base
    assert fingerprint(OpenSource(Disk(MIB), "other")) != base
    assert fingerprint(OpenSource(Disk(MIB, {128}), "id")) != base
    assert fingerprint(OpenSource(Disk(0), ""))
