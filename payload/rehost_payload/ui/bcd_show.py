"""`rehost bcd show`: any boot store as text or JSON, with bcdedit's names and decoded devices."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from rehost_payload.formats import bcd_names
from rehost_payload.formats.bcd import (
    FORMAT_BOOLEAN,
    FORMAT_OBJECT,
    FORMAT_OBJECT_LIST,
    BcdObject,
    Element,
    Store,
    element_format,
    parse_store,
)
from rehost_payload.formats.bcd_devices import (
    FileDevice,
    GptIdentity,
    Identity,
    LocateDevice,
    MbrIdentity,
    PartitionDevice,
    RamdiskDevice,
    UnknownDevice,
    VhdDevice,
    describe_device,
    walk_devices,
)
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.hive import needs_replay, replay
from rehost_payload.ui.paths import InputPath

_LARGEST = 256 << 20  # real stores have up to 256 KiB; this only keeps a wrong path from filling the memory
_LOG_SUFFIXES = (".LOG", ".LOG1", ".LOG2")
_COLUMN = 24


class StoreProblem(Exception):
    """The file cannot be shown; the message says why, in one line."""


@dataclass(frozen=True)
class LoadedStore:
    """A store from a file, with its logs applied where it was dirty. ``notes`` are for the operator."""

    path: Path
    size: int
    store: Store
    dirty: bool
    applied: int
    notes: tuple[str, ...]


def load_store(path: Path) -> LoadedStore:
    """Reads a store and, where it is dirty, the logs beside it. Nothing is written. Raises StoreProblem."""
    try:
        data = _read(path)
        dirty = needs_replay(data)
        notes: list[str] = []
        applied = 0
        if dirty:
            logs = _logs_beside(path)
            result = replay(data, [_read(log) for log in logs])
            data, applied = result.data, result.applied
            names = ", ".join(log.name for log in logs) or "none"
            notes.append(f"dirty: an interrupted write; logs beside it: {names}; applied: {applied}")
            notes += result.warnings
        store = parse_store(data)
    except OSError as e:
        raise StoreProblem(f"{path}: {e.strerror or e}") from e
    except FormatError as e:
        raise StoreProblem(f"{path}: {e}") from e
    return LoadedStore(path, len(data), store, dirty, applied, (*notes, *store.oddities))


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise StoreProblem(f"{path}: larger than {_LARGEST >> 20} MiB, which no boot store is")
    return data


def _logs_beside(path: Path) -> list[Path]:
    """BCD.LOG, BCD.LOG1 and BCD.LOG2 in this order; on a file system with case, in any spelling."""
    wanted = {(path.name + suffix).lower(): i for i, suffix in enumerate(_LOG_SUFFIXES)}
    found = [p for p in path.parent.iterdir() if p.name.lower() in wanted and p.is_file()]
    return sorted(found, key=lambda p: wanted[p.name.lower()])


def as_text(loaded: LoadedStore) -> Iterator[str]:
    """The lines of `rehost bcd show`."""
    store = loaded.store
    yield f"Boot store {loaded.path} ({loaded.size} bytes, {len(store.objects)} objects)"
    for note in loaded.notes:
        yield f"  note: {_plain(note)}"
    for entry in ordered(store):
        title = bcd_names.object_type_title(entry.type)
        yield ""
        yield title
        yield "-" * len(title)
        yield _line("identifier", bcd_names.object_name(entry.guid))
        for element in entry.elements.values():
            name = bcd_names.element_name(element.type, entry.type)
            for i, text in enumerate(_texts(element, entry)):
                yield _line("" if i else name, text)
        if entry.firmware_variable is not None:
            yield _line("firmware variable", f"{len(entry.firmware_variable)} bytes")


def ordered(store: Store) -> list[BcdObject]:
    """Boot managers first, then the entries in their order on the menu, then the others as stored."""
    first = [bcd_names.FWBOOTMGR, bcd_names.BOOTMGR]
    manager = store.get(bcd_names.BOOTMGR)
    if manager is not None:
        first += manager.objects(bcd_names.BOOTMGR_DISPLAY_ORDER)
    ranks = {guid: rank for rank, guid in reversed(list(enumerate(first)))}
    kinds = {1: 0, 2: 2, 3: 1}  # applications, devices, settings

    def rank(entry: BcdObject) -> tuple[int, int]:
        kind = kinds.get((entry.type or 0) >> 28, 3)
        return ranks.get(entry.guid, len(first)), kind

    return sorted(store.objects.values(), key=rank)


def _line(name: str, text: str) -> str:
    return f"{name:<{_COLUMN}}{_plain(text)}".rstrip()


def _plain(text: str) -> str:
    """Control characters would let a store write on the terminal as it likes."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def _texts(element: Element, entry: BcdObject) -> list[str]:
    value = element.value
    kind = element_format(element.type)
    device = element.device
    if device is not None:
        return [describe_device(device)]
    if isinstance(value, bytes):
        return [f"data of type {element.reg_type}: {value.hex() or 'empty'}"]
    if isinstance(value, bool) and kind == FORMAT_BOOLEAN:
        return ["Yes" if value else "No"]
    if isinstance(value, int):
        word = bcd_names.integer_name(element.type, value, entry.type)
        if word is not None:
            return [f"{word} ({value})"]
        return [str(value) if value < 10 else f"{value} ({value:#x})"]
    if isinstance(value, str):
        return [bcd_names.object_name(value) if kind == FORMAT_OBJECT else value]
    if isinstance(value, tuple):
        return [
            bcd_names.object_name(v) if kind == FORMAT_OBJECT_LIST and isinstance(v, str) else f"{v:#x}"
            for v in value
        ] or ["empty list"]
    return [str(value)]


def as_json(loaded: LoadedStore) -> dict[str, Any]:
    """The same for programs. ``raw`` is the registry value in hex, so that nothing is lost."""
    return {
        "path": str(loaded.path),
        "size": loaded.size,
        "dirty": loaded.dirty,
        "log_entries_applied": loaded.applied,
        "notes": list(loaded.notes),
        "objects": [
            {
                "guid": entry.guid,
                "name": bcd_names.WELL_KNOWN.get(entry.guid),
                "type": entry.type,
                "type_name": bcd_names.object_type_title(entry.type),
                "firmware_variable": None
                if entry.firmware_variable is None
                else entry.firmware_variable.hex(),
                "elements": [_element_json(element, entry) for element in entry.elements.values()],
            }
            for entry in ordered(loaded.store)
        ],
    }


def _element_json(element: Element, entry: BcdObject) -> dict[str, Any]:
    device = element.device
    value: Any = element.value
    if device is not None:
        value = [_device_json(part) for part in walk_devices(device)]
    elif isinstance(value, bytes):
        value = None
    return {
        "type": f"{element.type:08x}",
        "name": bcd_names.element_name(element.type, entry.type),
        "value": value,
        "reg_type": element.reg_type,
        "raw": element.data.hex(),
    }


def _device_json(device: Any) -> dict[str, Any]:
    """One level of a device; the levels follow each other from the outside to the inside."""
    result: dict[str, Any] = {"kind": type(device).__name__.removesuffix("Device").lower()}
    if isinstance(device, UnknownDevice):
        return result | {"raw": device.raw.hex()}
    if device.options is not None:
        result["options"] = device.options
    if isinstance(device, PartitionDevice | VhdDevice) and device.identity is not None:
        result |= _identity_json(device.identity)
    if isinstance(device, RamdiskDevice | FileDevice | LocateDevice) and device.path:
        result["path"] = device.path
    if isinstance(device, LocateDevice) and not device.path:
        result["element"] = f"{device.element:08x}"
    return result


def _identity_json(identity: Identity) -> dict[str, Any]:
    if isinstance(identity, GptIdentity):
        return {"partition_guid": identity.partition, "disk_guid": identity.disk}
    if isinstance(identity, MbrIdentity):
        return {"disk_signature": f"{identity.signature:08x}", "offset": identity.offset}
    return {"disk_number": identity.number}


@click.group()
def bcd() -> None:
    """Look at Windows boot stores (BCD)."""


@bcd.command()
@click.argument("file", type=InputPath())
@click.option("--json", "json_", is_flag=True, help="Machine-readable output, with every byte.")
def show(file: Path, json_: bool) -> None:
    """Print the boot store FILE. Nothing is changed.

    A store that was not closed properly is shown with the logs applied that lie beside it (BCD.LOG, BCD.LOG1,
    BCD.LOG2).

    \b
    Example:
      rehost bcd show /mnt/EFI/Microsoft/Boot/BCD
      rehost bcd show --json BCD | jq '.objects[].name'
    """
    try:
        loaded = load_store(file)
    except StoreProblem as e:
        click.echo(f"rehost: {e}", err=True)
        sys.exit(1)
    if json_:
        click.echo(json.dumps(as_json(loaded), indent=2, ensure_ascii=True))
        return
    for line in as_text(loaded):
        # a serial console may know ASCII only: question marks are better than a traceback there
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        click.echo(line.encode(encoding, "replace").decode(encoding))
