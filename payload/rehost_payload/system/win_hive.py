"""Edits registry hives through Windows itself: a private copy is loaded, edited, flushed and unloaded.

The input must be clean, as with hivex; the result is read again with our own reader and compared key by key with
what the edits were to make of the original. Since Windows 8.1 a flush may go to the log alone: what the copy's logs
hold after unloading is applied by our own code.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.hive import (
    CreateKey,
    DeleteKey,
    DeleteValue,
    Hive,
    HiveEdit,
    needs_replay,
    replay,
)
from rehost_payload.system.hive_verify import verify_edits
from rehost_payload.system.protocol import SystemError_
from rehost_payload.system.win32 import (
    ERROR_FILE_NOT_FOUND,
    ERROR_PATH_NOT_FOUND,
    Registry,
    Win32Error,
)

_ABSENT = (ERROR_FILE_NOT_FOUND, ERROR_PATH_NOT_FOUND)
_PATIENCE = 10  # tries to unload, a tenth of a second apart
_counter = itertools.count(1)


def edit_hive(registry: Registry, hive: bytes, edits: Iterable[HiveEdit]) -> bytes:
    """Applies ``edits`` in their order to a clean hive and returns the new hive; the input stays as it is.

    Raises SystemError_: "dirty" (apply the logs first), "damaged" (no hive, or one that cannot be read whole),
    "unsupported" (the root key cannot be deleted), "registry" (Windows refused), "verify" (the result is not what
    the edits ask for).
    """
    wanted = list(edits)
    if needs_replay(hive):
        raise SystemError_("dirty", "the hive was not closed; its logs must be applied before it is edited")
    try:
        Hive.parse(hive)
        with tempfile.TemporaryDirectory(prefix="rehost-hive-", ignore_cleanup_errors=True) as folder:
            path = Path(folder, "hive")
            path.write_bytes(hive)
            with loaded(registry, path) as name:
                for edit in wanted:
                    _apply(registry, name, edit)
                _flush(registry, name)
            result = _read_back(path)
    except FormatError as e:
        raise SystemError_("damaged", str(e)) from e
    except Win32Error as e:
        raise SystemError_("registry", f"Windows did not edit the hive: {e}") from e
    except OSError as e:
        raise SystemError_("registry", f"the hive's copy: {e}") from e
    verify_edits(hive, result, wanted)
    return result


@contextmanager
def loaded(registry: Registry, path: Path) -> Iterator[str]:
    """Loads the hive file below HKEY_LOCAL_MACHINE and yields the key's name; unloads it whatever happens."""
    name = f"rehost-{os.getpid()}-{next(_counter)}"
    registry.load(name, str(path))
    try:
        yield name
    except BaseException:
        with suppress(SystemError_):
            unload(registry, name)
        raise
    unload(registry, name)


def unload(registry: Registry, name: str) -> None:
    """Somebody else may have the key open for a moment (a scanner): tried several times."""
    for attempt in range(_PATIENCE):
        try:
            registry.unload(name)
            return
        except Win32Error as error:
            if attempt == _PATIENCE - 1:
                raise SystemError_("registry", f"a hive stays loaded as {name}: {error}") from error
            time.sleep(0.1)


def _flush(registry: Registry, name: str) -> None:
    key = registry.open_key(name)
    try:
        registry.flush_key(key)
    finally:
        registry.close_key(key)


def _apply(registry: Registry, name: str, edit: HiveEdit) -> None:
    if isinstance(edit, DeleteKey) and not edit.key:
        raise SystemError_("unsupported", "the root key cannot be deleted")
    create = not isinstance(edit, DeleteKey | DeleteValue)
    below: Sequence[str] = edit.key[:-1] if isinstance(edit, DeleteKey) else edit.key
    try:
        key = registry.open_key("\\".join([name, *below]), create)
    except Win32Error as error:
        if not create and error.code in _ABSENT:
            return  # nothing to delete
        raise
    try:
        if isinstance(edit, CreateKey):
            return
        if isinstance(edit, DeleteKey):
            registry.delete_tree(key, edit.key[-1])
        elif isinstance(edit, DeleteValue):
            registry.delete_value(key, edit.name)
        else:
            registry.set_value(key, edit.name, edit.type, edit.data)
    except Win32Error as error:
        if not isinstance(edit, DeleteKey | DeleteValue) or error.code not in _ABSENT:
            raise
    finally:
        registry.close_key(key)


def _read_back(path: Path) -> bytes:
    data = path.read_bytes()
    if not needs_replay(data):
        return data
    logs = [log.read_bytes() for n in ("1", "2") if (log := path.with_name(f"{path.name}.LOG{n}")).exists()]
    return replay(data, logs).data
