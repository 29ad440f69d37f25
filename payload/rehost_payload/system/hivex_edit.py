"""Edits registry hives with hivex (libguestfs), the writer on Linux.

hivex opens dirty hives without a word and does not know their logs, so this refuses them; `hive.replay` comes first.
It works on a copy in a temporary folder and believes nothing: the result is read again with our own reader and
compared key by key with what the edits were to make of the original.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.hive import (
    BIG_DATA_SEGMENT,
    CreateKey,
    DeleteKey,
    DeleteValue,
    Hive,
    HiveEdit,
    Key,
    SetValue,
    fold,
    needs_replay,
)
from rehost_payload.system.protocol import SystemError_


def edit_hive(hive: bytes, edits: Iterable[HiveEdit]) -> bytes:
    """Applies ``edits`` in their order to a clean hive and returns the new hive; the input stays as it is.

    Raises SystemError_: "dirty" (apply the logs first), "damaged" (no hive, or one that cannot be read whole where
    it must), "unsupported" (value data above 16344 bytes in a key whose values change: hivex does not write them as
    Windows does), "hivex" (hivex refused), "verify" (the result is not what the edits ask for).
    """
    wanted = list(edits)
    if needs_replay(hive):
        raise SystemError_("dirty", "the hive was not closed; its logs must be applied before it is edited")
    try:
        before = Hive.parse(hive)
        for edit in wanted:
            _refuse_big_data(before, edit)
        result = _with_hivex(hive, wanted)
    except FormatError as e:
        raise SystemError_("damaged", str(e)) from e
    _verify(before, result, wanted)
    return result


def _refuse_big_data(hive: Hive, edit: HiveEdit) -> None:
    if not isinstance(edit, SetValue | DeleteValue):
        return
    if isinstance(edit, SetValue) and len(edit.data) > BIG_DATA_SEGMENT:
        raise SystemError_("unsupported", f"{edit.name!r}: {len(edit.data)} bytes of value data")
    # hivex rewrites all values of a key when it changes one
    key = hive.find(*edit.key)
    for value in key.values() if key is not None else ():
        if value.size > BIG_DATA_SEGMENT:
            raise SystemError_("unsupported", f"{value.name!r} beside {edit.name!r} has {value.size} bytes")


def _with_hivex(hive: bytes, edits: Sequence[HiveEdit]) -> bytes:
    try:
        import hivex
    except ImportError as e:
        raise SystemError_("hivex", f"python3-hivex is not installed: {e}") from e
    with tempfile.TemporaryDirectory(prefix="rehost-hive-") as folder:
        path = Path(folder, "hive")
        path.write_bytes(hive)
        try:
            handle = hivex.Hivex(str(path), write=True)
            for edit in edits:
                _apply(handle, edit)
            handle.commit(None)
        except (RuntimeError, OSError) as e:
            raise SystemError_("hivex", str(e)) from e
        return path.read_bytes()


def _apply(handle: Any, edit: HiveEdit) -> None:
    if isinstance(edit, DeleteKey):
        node = _find(handle, edit.key)
        if node is not None:
            if not edit.key:
                raise SystemError_("unsupported", "the root key cannot be deleted")
            handle.node_delete_child(node)
    elif isinstance(edit, DeleteValue):
        node = _find(handle, edit.key)
        if node is not None:
            values = _values(handle, node)
            kept = [v for v in values if fold(v["key"]) != fold(edit.name)]
            if len(kept) != len(values):
                handle.node_set_values(node, kept)
    elif isinstance(edit, CreateKey):
        _create(handle, edit.key)
    else:
        node = _create(handle, edit.key)
        # hivex compares names of values as it compares those of keys: ASCII letters without case
        handle.node_set_value(node, {"key": edit.name, "t": edit.type, "value": edit.data})


def _values(handle: Any, node: Any) -> list[dict[str, Any]]:
    values = []
    for value in handle.node_values(node):
        kind, data = handle.value_value(value)
        values.append({"key": handle.value_key(value), "t": kind, "value": data})
    return values


def _child(handle: Any, node: Any, name: str) -> Any | None:
    found = handle.node_get_child(node, name)
    if found is not None or name.isascii():
        return found
    # hivex folds ASCII only
    for child in handle.node_children(node):
        if fold(handle.node_name(child)) == fold(name):
            return child
    return None


def _find(handle: Any, path: Sequence[str]) -> Any | None:
    node = handle.root()
    for name in path:
        node = _child(handle, node, name)
        if node is None:
            return None
    return node


def _create(handle: Any, path: Sequence[str]) -> Any:
    node = handle.root()
    for name in path:
        child = _child(handle, node, name)
        node = handle.node_add_child(node, name) if child is None else child
    return node


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


def _verify(before: Hive, result: bytes, edits: Sequence[HiveEdit]) -> None:
    try:
        after = Hive.parse(result)
        if after.dirty:
            raise SystemError_("verify", "hivex left the hive dirty")
        # a stack, because nothing bounds the depth of a hive from an unknown disk
        pending: list[_Pair] = [(before.root, after.root, _expectation(edits), "")]
        while pending:
            pending += _compare(*pending.pop())
    except FormatError as e:
        raise SystemError_("verify", f"the edited hive cannot be read: {e}") from e


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
