"""Edits registry hives with hivex (libguestfs), the writer on Linux.

hivex opens dirty hives without a word and does not know their logs, so this refuses them; `hive.replay` comes first.
It works on a copy in a temporary folder and believes nothing: the result is read again with our own reader and
compared key by key with what the edits were to make of the original.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
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
    SetValue,
    fold,
    needs_replay,
)
from rehost_payload.system.hive_verify import verify_edits
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
    verify_edits(hive, result, wanted)
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
            # hivex has read it whole; the folder may be in memory, and large hives are there several times as it is
            os.truncate(path, 0)
            for edit in edits:
                _apply(handle, edit)
            handle.commit(None)
            del handle
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
