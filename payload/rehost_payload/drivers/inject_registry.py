"""Registry entries of an INF as edits of a hive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rehost_payload.drivers.hive_edits import Path
from rehost_payload.drivers.inject_model import InjectError
from rehost_payload.formats.hive import (
    REG_MULTI_SZ,
    CreateKey,
    DeleteValue,
    HiveEdit,
    SetValue,
    encode_string,
    encode_strings,
)
from rehost_payload.formats.inf_install import (
    FLG_APPEND,
    FLG_NOCLOBBER,
    REG_QWORD,
    RegistryEntry,
)

MAX_DATA = 16_000  # bytes; hives store longer data in another way
_MAX_DEPTH = 32
_MAX_KEY_NAME = 255
_MAX_VALUE_NAME = 2000


def data_of(entry: RegistryEntry) -> bytes:
    """The data as a hive stores it. InjectError where no hive should."""
    value = entry.data
    if isinstance(value, tuple):
        data = encode_strings(tuple(v for v in value if v))
    elif isinstance(value, int):
        data = value.to_bytes(8 if entry.type == REG_QWORD else 4, "little")
    elif isinstance(value, str):
        data = encode_string(value)
    else:
        data = value
    if len(data) > MAX_DATA:
        raise InjectError("too-large", f"the value {entry.name!r} has {len(data)} bytes")
    return data


def key_of(text: str) -> Path:
    """A key's path below another one. InjectError for what Windows would not take either."""
    parts = tuple(part for part in text.split("\\") if part)
    if len(parts) > _MAX_DEPTH or any(len(part) > _MAX_KEY_NAME or "\0" in part for part in parts):
        raise InjectError("bad-inf", f"{text[:80]!r} is no path of a key")
    return parts


def entry_edits(entries: Iterable[RegistryEntry], base: Path) -> Iterator[HiveEdit]:
    """AddReg and DelReg lines with the root HKR as edits below ``base``; other roots are passed over."""
    for entry in entries:
        if entry.root != "HKR":
            continue
        key = (*base, *key_of(entry.key))
        if len(entry.name) > _MAX_VALUE_NAME:
            raise InjectError("bad-inf", f"a value's name of {len(entry.name)} characters")
        if entry.delete:
            if entry.name:
                yield DeleteValue(key, entry.name)
        elif entry.key_only:
            yield CreateKey(key)
        else:
            yield SetValue(key, entry.name, entry.type, data_of(entry))


def keeps_existing(entry: RegistryEntry) -> bool:
    """The line does not replace a value that is there."""
    return bool(entry.flags & FLG_NOCLOBBER)


def appends(entry: RegistryEntry) -> bool:
    """The line adds strings to a list."""
    return entry.type == REG_MULTI_SZ and bool(entry.flags & FLG_APPEND)
