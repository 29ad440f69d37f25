"""Values as registry hives store them, as edits; and which edits a hive still needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rehost_payload.formats.hive import (
    REG_DWORD,
    REG_EXPAND_SZ,
    REG_MULTI_SZ,
    REG_SZ,
    CreateKey,
    DeleteKey,
    DeleteValue,
    Hive,
    HiveEdit,
    SetValue,
    Value,
    encode_string,
    encode_strings,
)

Path = tuple[str, ...]


def text(key: Path, name: str, value: str) -> SetValue:
    return SetValue(key, name, REG_SZ, encode_string(value))


def expandable(key: Path, name: str, value: str) -> SetValue:
    return SetValue(key, name, REG_EXPAND_SZ, encode_string(value))


def texts(key: Path, name: str, values: Iterable[str]) -> SetValue:
    return SetValue(key, name, REG_MULTI_SZ, encode_strings(tuple(values)))


def number(key: Path, name: str, value: int) -> SetValue:
    return SetValue(key, name, REG_DWORD, value.to_bytes(4, "little"))


def find_value(hive: Hive, key: Path, name: str) -> Value | None:
    """The value at this place, None where key or value do not exist. FormatError."""
    found = hive.find(*key)
    return None if found is None else found.value(name)


def still_needed(hive: Hive, edits: Iterable[HiveEdit]) -> Iterator[HiveEdit]:
    """The edits without those whose result the hive has already and those that are there twice. FormatError.

    No edit may undo another: a value that is set below a key that another edit deletes would be looked for in the
    hive as it is before that.
    """
    seen: set[HiveEdit] = set()
    for edit in edits:
        if edit in seen:
            continue
        seen.add(edit)
        if isinstance(edit, CreateKey | DeleteKey):
            if (hive.find(*edit.key) is None) == isinstance(edit, CreateKey):
                yield edit
            continue
        value = find_value(hive, edit.key, edit.name)
        if isinstance(edit, DeleteValue):
            if value is not None:
                yield edit
        elif value is None or (value.type, value.data) != (edit.type, edit.data):
            yield edit
