"""Frozen dataclasses as plain data for JSON and back, without loss.

Reading is strict: an unknown field, a missing one or a wrong type is a FormatError that names the place. What a newer
Rehost has written is so never half understood. Known are dataclasses, enums, tuple[X, ...], dict[str, str], X | None,
int, str and bool.
"""

from __future__ import annotations

import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any

from rehost_payload.formats.errors import FormatError


def plain(value: object) -> Any:
    """What json.dumps takes, for a value of the kinds above."""
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value


def read(kind: Any, value: Any, what: str, place: str) -> Any:
    """``value`` as the annotated type ``kind``. ``what`` is the FormatError's, ``place`` is where in it."""
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        (kind,) = (part for part in typing.get_args(kind) if part is not type(None))
        return read(kind, value, what, place)
    if origin is tuple:
        if not isinstance(value, list):
            raise FormatError(what, f"{place} must be a list")
        item = typing.get_args(kind)[0]
        return tuple(read(item, entry, what, f"{place}[{index}]") for index, entry in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise FormatError(what, f"{place} must be an object")
        item = typing.get_args(kind)[1]
        return {key: read(item, entry, what, f"{place}.{key}") for key, entry in value.items()}
    if is_dataclass(kind):
        return _read_object(kind, value, what, place)
    if issubclass(kind, Enum):
        try:
            return kind(value)
        except ValueError:
            raise FormatError(what, f"{place}: {value!r} is not known") from None
    if type(value) is not kind:
        raise FormatError(what, f"{place} must be of type {kind.__name__}")
    return value


def _read_object(kind: Any, value: Any, what: str, place: str) -> Any:
    if not isinstance(value, dict):
        raise FormatError(what, f"{place} must be an object")
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    for name in value:
        if name not in known:
            raise FormatError(what, f"{place}.{name} is not known")
    for name, definition in known.items():
        if name not in value and definition.default is MISSING and definition.default_factory is MISSING:
            raise FormatError(what, f"{place}.{name} is missing")
    return kind(**{n: read(hints[n], entry, what, f"{place}.{n}") for n, entry in value.items()})
