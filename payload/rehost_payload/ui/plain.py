"""Dataclasses as plain data for JSON and back: enums by value, bytes as hex, tuples as lists.

Members of a union that do not name their kind themselves (the edits of a hive) get a key "edit" with their class.
"""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from enum import Enum
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from rehost_payload.formats.hive import CreateKey, DeleteKey, DeleteValue, SetValue

_EDITS: dict[str, type] = {c.__name__: c for c in (SetValue, DeleteValue, DeleteKey, CreateKey)}
T = TypeVar("T")


def to_plain(value: object) -> Any:
    """TypeError for what has no place in JSON."""
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if is_dataclass(value) and not isinstance(value, type):
        name = type(value).__name__
        tag = {"edit": name} if name in _EDITS else {}
        return tag | {f.name: to_plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_plain(v) for v in value]
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def dumps(value: object) -> str:
    """ASCII only: it goes through consoles of any kind, and names from disks may hold lone surrogates."""
    return json.dumps(to_plain(value), indent=2)


def from_plain(kind: type[T], data: object, where: str = "") -> T:
    """The inverse of `to_plain`. ValueError, saying where, for data that is not of this kind."""
    return _decode(kind, data, where or kind.__name__)  # type: ignore[no-any-return]


def _decode(kind: Any, data: object, where: str) -> Any:
    if kind is Any:
        return data
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return _decode_union(get_args(kind), data, where)
    if origin is tuple:
        item = get_args(kind)[0]  # only tuple[X, ...] occurs
        if not isinstance(data, list):
            raise ValueError(f"{where}: a list is expected")
        return tuple(_decode(item, v, f"{where}[{i}]") for i, v in enumerate(data))
    if origin is dict:
        if not isinstance(data, dict):
            raise ValueError(f"{where}: an object is expected")
        return {str(k): _decode(get_args(kind)[1], v, f"{where}.{k}") for k, v in data.items()}
    if kind is bytes:
        if not isinstance(data, str):
            raise ValueError(f"{where}: hex digits are expected")
        return bytes.fromhex(data)
    if isinstance(kind, type) and issubclass(kind, Enum):
        try:
            return kind(data)
        except ValueError as e:
            raise ValueError(f"{where}: {e}") from e
    if is_dataclass(kind):
        return _decode_dataclass(kind, data, where)
    if kind is type(None):
        kind = type(None)
    if not isinstance(data, kind) or (kind is int and isinstance(data, bool)):
        raise ValueError(f"{where}: {getattr(kind, '__name__', kind)} is expected")
    return data


def _decode_union(kinds: tuple[Any, ...], data: object, where: str) -> Any:
    if data is None and type(None) in kinds:
        return None
    kinds = tuple(k for k in kinds if k is not type(None))
    if len(kinds) == 1:
        return _decode(kinds[0], data, where)
    if isinstance(data, dict):
        for kind in kinds:
            tagged = (
                data.get("edit") == kind.__name__
                if kind.__name__ in _EDITS
                else _kind(kind) == data.get("kind")
            )
            if tagged:
                return _decode(kind, data, where)
    raise ValueError(f"{where}: of no known kind")


def _kind(cls: Any) -> object:
    return next((f.default for f in fields(cls) if f.name == "kind"), None)


def _decode_dataclass(cls: Any, data: object, where: str) -> Any:
    """Keys that this version does not know are passed over; missing ones take their default."""
    if not isinstance(data, dict):
        raise ValueError(f"{where}: an object is expected")
    hints = get_type_hints(cls)
    values = {
        f.name: _decode(hints[f.name], data[f.name], f"{where}.{f.name}")
        for f in fields(cls)
        if f.name in data
    }
    try:
        return cls(**values)
    except TypeError as e:
        raise ValueError(f"{where}: {e}") from e
