"""Every boot store on every volume, with its state and, where it can be read, its objects."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from rehost_payload.formats import bcd
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.filesystem import FileSystemReader
from rehost_payload.formats.hive import is_hive, needs_replay, replay
from rehost_payload.survey.model import (
    BootStore,
    StoreElement,
    StoreObject,
    StoreRole,
    StoreState,
)
from rehost_payload.survey.volumes import OpenVolume

STORES = (
    (StoreRole.EFI_SYSTEM, "\\EFI\\Microsoft\\Boot\\BCD"),
    (StoreRole.EFI_RECOVERY, "\\EFI\\Microsoft\\Recovery\\BCD"),
    (StoreRole.BIOS_SYSTEM, "\\Boot\\BCD"),
)
_LOGS = (".LOG", ".LOG1", ".LOG2")
_LIMIT = 32 << 20  # real stores have up to 256 KiB


def survey_stores(opened: OpenVolume) -> list[BootStore]:
    """The stores of one volume, missing ones included (see StoreState.MISSING)."""
    found: list[BootStore] = []
    if opened.reader is None:
        return found
    for role, path in STORES:
        try:
            store = _store(opened.reader, opened.volume.id, role, path)
        except (FormatError, OSError) as error:
            identity = (f"{opened.volume.id}:{path}", opened.volume.id, path, role)
            store = BootStore(*identity, StoreState.DAMAGED, detail=str(error))
        if store is not None:
            found.append(store)
    return found


def _store(reader: FileSystemReader, volume: str, role: StoreRole, path: str) -> BootStore | None:
    exact = reader.exact_path(path)
    if exact is None:
        folder = reader.exact_path(path.rpartition("\\")[0])
        if folder is None or not reader.is_directory(folder):
            return None
        # \Boot is a common name: only beside a boot manager is it the folder of a store
        if role is StoreRole.BIOS_SYSTEM and not reader.exists("\\bootmgr"):
            return None
        missing = f"{folder}\\BCD"
        return BootStore(f"{volume}:{missing}", volume, missing, role, StoreState.MISSING)
    identity = (f"{volume}:{exact}", volume, exact, role)
    if reader.is_directory(exact):
        return BootStore(*identity, StoreState.NOT_A_HIVE, detail="a folder stands in its place")
    logs = tuple(log for suffix in _LOGS if (log := reader.exact_path(path + suffix)) is not None)
    data = reader.read(exact, _LIMIT)
    return _read(identity, data, logs, [_log(reader, log) for log in logs])


def _log(reader: FileSystemReader, path: str) -> bytes:
    """A log that cannot be read is as good as an empty one: `replay` passes it over with a warning."""
    try:
        return reader.read(path, _LIMIT)
    except (FormatError, OSError):
        return b""


def _read(
    identity: tuple[str, str, str, StoreRole], data: bytes, logs: tuple[str, ...], log_data: Sequence[bytes]
) -> BootStore:
    digest = hashlib.sha256(data).hexdigest()

    def store(
        state: StoreState, detail: str = "", *, replayed: bool = False, objects: tuple[StoreObject, ...] = ()
    ) -> BootStore:
        return BootStore(*identity, state, len(data), digest, detail, logs, replayed, objects)

    if not any(data):
        return store(StoreState.EMPTY)
    if not is_hive(data):
        return store(StoreState.NOT_A_HIVE, "no regf signature")
    dirty, replayed, detail = needs_replay(data), False, ""
    try:
        if dirty:
            result = replay(data, log_data)
            data, replayed, detail = result.data, result.applied > 0, "; ".join(result.warnings)
        objects = to_objects(bcd.parse_store(data))
    except FormatError as error:
        return store(StoreState.DAMAGED, str(error))
    return store(StoreState.DIRTY if dirty else StoreState.OK, detail, replayed=replayed, objects=objects)


def to_objects(store: bcd.Store) -> tuple[StoreObject, ...]:
    return tuple(
        StoreObject(
            guid=entry.guid,
            type=entry.type,
            elements=tuple(
                StoreElement(element.type, element.data.hex(), element.reg_type)
                for element in entry.elements.values()
            ),
            firmware_variable=None if entry.firmware_variable is None else entry.firmware_variable.hex(),
        )
        for entry in store.objects.values()
    )
