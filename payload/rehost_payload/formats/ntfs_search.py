"""Finds files by the end of their names in the whole MFT, without walking through directories.

The MFT is read from start to end in large pieces, and only records whose bytes contain a wanted ending are looked at
closely. On a disk that turns, reading a gigabyte in one go takes seconds where a hundred thousand folders take many
minutes; files in a damaged folder are found as well.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from . import ntfs_records as records
from .errors import FormatError
from .ntfs_records import Record
from .source import ByteSource

_PIECE = 4 << 20
_SMALL_PIECE = 64 << 10
_PATIENCE = (
    4  # records in a row, then small pieces in a row, that cannot be read before the rest is not tried
)
_ROOT = 5
_FIRST_FILE = 16
_MAX_DEPTH = 1024
_MAX_CACHED = 200_000
_NAME_DOS = 2
_REFERENCE = 0xFFFFFFFFFFFF


class _Name(NamedTuple):
    parent: int  # file reference with its sequence number
    name: str


def find_in_mft(
    mft: ByteSource,
    record_size: int,
    record: Callable[[int], Record],
    suffixes: frozenset[str],
    problems: list[str],
    step: Callable[[int, int], None] | None = None,
) -> Iterator[str]:
    """Paths of the files in use whose names end in ``suffixes``; ``record`` reads one record of the MFT."""
    wanted = re.compile(b"|".join(_pattern(s) for s in sorted(suffixes)))
    folders = _Folders(record)
    size = mft.size // record_size * record_size
    for start in range(0, size, _PIECE):
        if step is not None:
            step(start // record_size, size // record_size)
        raw = _read(mft, start, min(_PIECE, size - start), record_size, problems)
        if len(raw) % record_size:
            problems.append(f"$MFT ends within record {(start + len(raw)) // record_size}")
            return
        numbers = dict.fromkeys(m.start() // record_size for m in wanted.finditer(_fixed(raw, record_size)))
        for inside in numbers:
            number = start // record_size + inside
            if number < _FIRST_FILE:
                continue
            try:
                found = records.parse_record(raw[inside * record_size : (inside + 1) * record_size], number)
                yield from _paths(found, record, folders, suffixes, problems)
            except (FormatError, OSError) as error:
                problems.append(f"MFT record {number}: {error}")


def _read(mft: ByteSource, start: int, length: int, record_size: int, problems: list[str]) -> bytes:
    """A piece of the MFT. Records that the disk does not give are zeros, and a problem that begins with "$MFT"."""
    try:
        return mft.read_at(start, length)
    except OSError as error:
        reason = error
    made = bytearray()
    lost: list[int] = []
    dead = 0
    while len(made) < length and dead < _PATIENCE:
        want = min(_SMALL_PIECE, length - len(made))
        try:
            made += mft.read_at(start + len(made), want)
            dead = 0
        except OSError:
            piece, failed = _read_records(mft, start + len(made), want, record_size)
            lost += [(start + len(made) + at) // record_size for at in failed]
            made += piece
            dead = dead + 1 if len(failed) == want // record_size else 0
    lost += range((start + len(made)) // record_size, (start + length) // record_size)
    problems.append(f"$MFT: {len(lost)} records cannot be read, from {lost[0]} to {lost[-1]}: {reason}")
    return bytes(made.ljust(length, b"\0"))


def _read_records(mft: ByteSource, start: int, length: int, record_size: int) -> tuple[bytes, list[int]]:
    """Record by record; offsets of those that cannot be read. On a dead disk each attempt takes seconds."""
    made, failed, dead = bytearray(length), [], 0
    for at in range(0, length, record_size):
        if dead < _PATIENCE:
            try:
                made[at : at + record_size] = mft.read_at(start + at, record_size)
                dead = 0
                continue
            except OSError:
                dead += 1
        failed.append(at)
    return bytes(made), failed


def _pattern(suffix: str) -> bytes:
    """The ending in UTF-16, in either case."""
    parts = (f"[{c.lower()}{c.upper()}]" if c.isalpha() else re.escape(c) for c in suffix)
    return b"".join(p.encode("ascii") + b"\\0" for p in parts)


def _fixed(raw: bytes, record_size: int) -> bytes | bytearray:
    """All records with the bytes that the update sequence keeps put back, unchecked: enough to search in.

    A record keeps them right behind its head of 48 bytes (NTFS 3.1) or of 42; the slices do it for all at once.
    """
    sectors = record_size // 512
    at = raw[4]
    if not raw.startswith(b"FILE") or raw[4::record_size].count(at) != len(raw) // record_size:
        return _fixed_each(raw, record_size)
    fixed = bytearray(raw)
    for sector in range(sectors):
        for byte in range(2):
            source = at + 2 + 2 * sector + byte
            if source < record_size:
                fixed[512 * sector + 510 + byte :: record_size] = raw[source::record_size]
    return fixed


def _fixed_each(raw: bytes, record_size: int) -> bytearray:
    fixed = bytearray(raw)
    for start in range(0, len(raw), record_size):
        if raw[start : start + 4] != b"FILE":
            continue
        (at,) = struct.unpack_from("<H", raw, start + 4)
        for sector in range(record_size // 512):
            source = at + 2 + 2 * sector
            if source + 2 <= record_size:
                place = start + 512 * sector + 510
                fixed[place : place + 2] = raw[start + source : start + source + 2]
    return fixed


def _paths(
    found: Record,
    record: Callable[[int], Record],
    folders: _Folders,
    suffixes: frozenset[str],
    problems: list[str],
) -> Iterator[str]:
    base = record(found.base) if found.base else found
    if not found.flags & records.RECORD_IN_USE or not base.flags & records.RECORD_IN_USE:
        return
    if base.flags & records.RECORD_IS_DIRECTORY:
        return
    for name in _names(found):
        dot = name.name.rfind(".")
        if dot < 0 or name.name[dot:].lower() not in suffixes:
            continue
        folder = folders.path(name.parent)
        if folder is None:
            problems.append(f"{name.name}: its folder (MFT record {name.parent & _REFERENCE}) is lost")
        else:
            yield f"{folder}\\{name.name}"


def _names(record: Record) -> Iterator[_Name]:
    for attribute in record.attributes:
        value = attribute.value
        if attribute.type != records.FILE_NAME or value is None or len(value) < 66:
            continue
        if value[65] != _NAME_DOS and 66 + 2 * value[64] <= len(value):
            (parent,) = struct.unpack_from("<Q", value)
            yield _Name(parent, value[66 : 66 + 2 * value[64]].decode("utf-16-le", "surrogatepass"))


class _Folders:
    """Paths of folders by their file reference, upwards from record to record."""

    def __init__(self, record: Callable[[int], Record]) -> None:
        self._record = record
        self._known: dict[int, str | None] = {}

    def path(self, reference: int) -> str | None:
        """The folder's path ("" is the root); None where a record on the way is gone, or they form a ring."""
        parts: list[str] = []
        on_the_way: list[int] = []
        result: str | None = None
        while True:
            if reference & _REFERENCE == _ROOT:
                result = ""
                break
            if reference in self._known:
                result = self._known[reference]
                break
            name = self._name(reference) if len(parts) < _MAX_DEPTH else None
            if name is None:
                break
            on_the_way.append(reference)
            parts.append(name.name)
            reference = name.parent
        if len(self._known) > _MAX_CACHED:
            self._known.clear()
        for folder, part in zip(reversed(on_the_way), reversed(parts), strict=True):
            result = None if result is None else f"{result}\\{part}"
            self._known[folder] = result
        return result

    def _name(self, reference: int) -> _Name | None:
        try:
            record = self._record(reference & _REFERENCE)
        except (FormatError, OSError):
            return None
        needed = records.RECORD_IN_USE | records.RECORD_IS_DIRECTORY
        if record.flags & needed != needed or record.sequence != reference >> 48:
            return None
        return next(_names(record), None)
