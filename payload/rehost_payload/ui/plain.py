"""Dataclasses as plain data for JSON: enums by value, bytes as hex, tuples as lists."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any


def to_plain(value: object) -> Any:
    """TypeError for what has no place in JSON."""
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_plain(v) for v in value]
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def dumps(value: object) -> str:
    """ASCII only: it goes through consoles of any kind, and names from disks may hold lone surrogates."""
    return json.dumps(to_plain(value), indent=2)
