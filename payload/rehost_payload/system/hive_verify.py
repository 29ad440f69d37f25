"""Compares a hive that was edited with what the edits were to make of it, key by key, with our own reader.

A hive of a Windows has a hundred thousand keys, and an edit touches a hundred of them. Where the hive is large, keys that
no edit concerns are not read one by one: they are the same if none of the cells in use differs but those of the keys
that are concerned. This takes for granted that no two keys share cells, as in every hive that Windows wrote; small
hives (boot stores) are always compared whole, and so is every one for which it cannot be shown.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.hive import (
    CreateKey,
    DeleteKey,
    DeleteValue,
    Hive,
    HiveEdit,
    Key,
    fold,
)
from rehost_payload.formats.hive_base import BASE_BLOCK_SIZE, PAGE_SIZE
from rehost_payload.system.protocol import SystemError_

_LARGE = 1 << 20
_BIN_HEADER = 32


@dataclass
class _Changes:
    """What the edits ask for in one key and below it; names are folded. Built in the order of the edits."""

    values: dict[str, tuple[int, bytes] | None] = field(default_factory=dict)  # None: deleted
    keys: dict[str, _Changes] = field(default_factory=dict)
    exists: bool | None = None  # None: as before
    fresh: bool = False  # deleted at some point: nothing of the original is left in it

    def at(self, path: Sequence[str], create: bool) -> _Changes:
        node = self
        for name in path:
            node = node.keys.setdefault(fold(name), _Changes(fresh=node.fresh))
            if create:
                node.exists = True
        return node


def _expectation(edits: Sequence[HiveEdit]) -> _Changes:
    root = _Changes()
    for edit in edits:
        if isinstance(edit, DeleteKey):
            node = root.at(edit.key, False)
            node.values.clear()
            node.keys.clear()
            node.exists, node.fresh = False, True
        elif isinstance(edit, DeleteValue):
            root.at(edit.key, False).values[fold(edit.name)] = None
        elif isinstance(edit, CreateKey):
            root.at(edit.key, True)
        else:
            root.at(edit.key, True).values[fold(edit.name)] = (edit.type, edit.data)
    return root


def verify_edits(before: bytes, result: bytes, edits: Sequence[HiveEdit]) -> None:
    """SystemError_("verify") where ``result`` is not the clean hive that ``edits`` make of the clean hive ``before``."""
    try:
        old, new = Hive.parse(before), Hive.parse(result)
        if new.dirty:
            raise SystemError_("verify", "hivex left the hive dirty")
        expected = _expectation(edits)
        if len(before) >= _LARGE and _only_touched_cells_differ(old, new, before, result, expected):
            return
        # a stack, because nothing bounds the depth of a hive from an unknown disk
        pending: list[_Pair] = [(old.root, new.root, expected, "")]
        while pending:
            pending += _compare(*pending.pop())
    except FormatError as e:
        raise SystemError_("verify", f"the edited hive cannot be read: {e}") from e


def _only_touched_cells_differ(
    old: Hive, new: Hive, before: bytes, result: bytes, expected: _Changes
) -> bool:
    """Compares the keys that the edits concern. False where this does not show that all others are the same."""
    differing = _differing_cells(before, result)
    if differing is None:
        return False
    touched: set[int] = set()
    pending: list[_Pair] = [(old.root, new.root, expected, "")]
    while pending:
        was, now, changes, path = pending.pop()
        if was is not None and changes is None:
            if was.cell != now.cell:
                return False
            continue
        if was is not None:
            touched |= was.cells()
            kept = {fold(k.name) for k in now.subkeys()}
            fresh = {n for n, c in changes.keys.items() if c.fresh} if changes is not None else set()
            for key in was.subkeys():
                if fold(key.name) in fresh or fold(key.name) not in kept:
                    touched |= _cells_below(key)
        pending += _compare(was, now, changes, path)
    return differing <= touched


def _cells_below(key: Key) -> set[int]:
    cells: set[int] = set()
    pending = [key]
    while pending:
        one = pending.pop()
        cells |= one.cells()
        pending += one.subkeys()
    return cells


def _differing_cells(before: bytes, result: bytes) -> set[int] | None:
    """Cells in use in ``before`` that are not the same in ``result``; None where the layout cannot be followed."""
    (size,) = struct.unpack_from("<I", before, 40)
    end = BASE_BLOCK_SIZE + size
    if len(result) < end:
        return None
    old, new = memoryview(before), memoryview(result)
    found: set[int] = set()
    start = BASE_BLOCK_SIZE
    while start < end:
        signature, offset, length = struct.unpack_from("<4sII", before, start)
        if signature != b"hbin" or offset != start - BASE_BLOCK_SIZE or length % PAGE_SIZE or not length:
            return None
        stop = start + length
        if stop > end or old[start : start + _BIN_HEADER] != new[start : start + _BIN_HEADER]:
            return None
        if old[start:stop] != new[start:stop]:
            cells = list(_used_cells(before, start + _BIN_HEADER, stop))
            if not cells or cells[-1][1] > stop:
                return None
            found |= {
                first - BASE_BLOCK_SIZE
                for first, last in cells
                if last > first and _part(old[first:last]) != _part(new[first:last])
            }
        start = stop
    return found


def _used_cells(data: bytes, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """(start, end) of the cells in use in a bin; at the end one without a length, or one that is too long."""
    while start < stop:
        (size,) = struct.unpack_from("<i", data, start)
        if size == 0 or size % 8:
            yield start, stop + 1
            return
        if size < 0:
            yield start, start - size
        start += abs(size)
    yield start, start


def _part(cell: memoryview) -> bytes:
    """What has to stay of a cell: of a security descriptor not its links and the count of its users."""
    data = bytes(cell)
    return data[:8] + data[20:] if data[4:6] == b"sk" else data


_Pair = tuple[Key | None, Key, _Changes | None, str]


def _compare(old: Key | None, new: Key, changes: _Changes | None, path: str) -> list[_Pair]:
    """Compares one key and returns those below it that remain to be compared.

    ``old`` None: the key is new, so only what the edits put there may be in it.
    """
    expected = {} if old is None else {fold(v.name): (v.type, v.data) for v in old.values()}
    for name, value in (changes.values if changes is not None else {}).items():
        if value is None:
            expected.pop(name, None)
        else:
            expected[name] = value
    found = {fold(v.name): (v.type, v.data) for v in new.values()}
    if found != expected:
        names = sorted(n for n in found.keys() | expected.keys() if found.get(n) != expected.get(n))
        raise SystemError_("verify", f"values of {path or 'the root key'} are not as they should be: {names}")
    wanted: dict[str, tuple[Key | None, _Changes | None]] = {}
    for key in old.subkeys() if old is not None else ():
        wanted[fold(key.name)] = (key, None)
    for name, below in (changes.keys if changes is not None else {}).items():
        known = wanted.pop(name, (None, None))[0]
        if below.fresh:
            known = None
        if below.exists or (below.exists is None and known is not None):
            wanted[name] = (known, below)
    present = {fold(key.name): key for key in new.subkeys()}
    if present.keys() != wanted.keys():
        names = sorted(present.keys() ^ wanted.keys())
        raise SystemError_("verify", f"keys of {path or 'the root key'} are not as they should be: {names}")
    return [
        (pair[0], present[name], pair[1], f"{path}\\{present[name].name}") for name, pair in wanted.items()
    ]
