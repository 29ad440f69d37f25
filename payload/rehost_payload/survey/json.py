"""A survey as JSON and back, without loss.

Reading is strict: an unknown field, a missing one, a wrong type or another schema is a FormatError that
names the place. What a newer Rehost has written is so never half understood.
"""

from __future__ import annotations

import json
import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any

from rehost_payload.formats.errors import FormatError
from rehost_payload.survey.model import Survey

SCHEMA = 1


def to_json(survey: Survey) -> str:
    """Indented, ASCII only: names from disks may hold anything, consoles and mail may not."""
    return json.dumps(_plain(survey), indent=1) + "\n"


def from_json(text: str) -> Survey:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError("survey JSON", f"not JSON: {error}") from error
    if not isinstance(data, dict) or "schema" not in data:
        raise FormatError("survey JSON", "not a survey of Rehost")
    if data["schema"] != SCHEMA:
        raise FormatError(
            "survey JSON", f"schema {data['schema']!r} is not {SCHEMA}, the one understood here"
        )
    survey = _read(Survey, data, "survey")
    assert isinstance(survey, Survey)
    return survey


def checked(survey: Survey) -> Survey:
    """The survey, if all that is named in it is there and hex is hex (it may have been edited): else FormatError."""
    disks = {d.id for d in survey.disks}
    volumes = {v.id for v in survey.volumes}
    named = [(v.disk, disks) for v in survey.volumes]
    named += [(w.volume, volumes) for w in survey.windows]
    named += [(s.volume, volumes) for s in survey.boot_stores]
    named += [(p.volume, volumes) for p in survey.paths]
    for name, known in named:
        if name not in known:
            raise FormatError("survey JSON", f"{name!r} is referred to, but not described")
    try:
        for store in survey.boot_stores:
            for obj in store.objects:
                bytes.fromhex(obj.firmware_variable or "")
                for element in obj.elements:
                    bytes.fromhex(element.raw)
    except ValueError as error:
        raise FormatError("survey JSON", f"{store.id}: an element is not hexadecimal") from error
    return survey


def _plain(value: object) -> Any:
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _read(kind: Any, value: Any, place: str) -> Any:
    """``value`` as the annotated type ``kind``: dataclass, enum, tuple[X, ...], X | None, int, str or
    bool."""
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        (kind,) = (part for part in typing.get_args(kind) if part is not type(None))
        return _read(kind, value, place)
    if origin is tuple:
        if not isinstance(value, list):
            raise FormatError("survey JSON", f"{place} must be a list")
        item = typing.get_args(kind)[0]
        return tuple(_read(item, entry, f"{place}[{index}]") for index, entry in enumerate(value))
    if is_dataclass(kind):
        return _read_object(kind, value, place)
    if issubclass(kind, Enum):
        try:
            return kind(value)
        except ValueError:
            raise FormatError("survey JSON", f"{place}: {value!r} is not known") from None
    if type(value) is not kind:
        raise FormatError("survey JSON", f"{place} must be of type {kind.__name__}")
    return value


def _read_object(kind: Any, value: Any, place: str) -> Any:
    if not isinstance(value, dict):
        raise FormatError("survey JSON", f"{place} must be an object")
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    for name in value:
        if name not in known:
            raise FormatError("survey JSON", f"{place}.{name} is not known")
    for name, definition in known.items():
        if name not in value and definition.default is MISSING and definition.default_factory is MISSING:
            raise FormatError("survey JSON", f"{place}.{name} is missing")
    return kind(**{name: _read(hints[name], entry, f"{place}.{name}") for name, entry in value.items()})
