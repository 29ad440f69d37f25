"""Registry values as survey takes them: what is absent, or of another type, is nothing."""

from __future__ import annotations

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.hive import Key

_MAX_SIZE = 4 << 20
_MAX_STRINGS = 256
_MAX_LENGTH = 1024


def sub(key: Key | None, *names: str) -> Key | None:
    """The key at a path below another one."""
    for name in names:
        key = key.subkey(name) if key is not None else None
    return key


def string(key: Key | None, name: str) -> str:
    """A string value, "" where it is absent or of another type."""
    value = key.value(name) if key is not None else None
    try:
        return value.as_string()[:_MAX_LENGTH] if value is not None and value.size <= _MAX_SIZE else ""
    except FormatError:
        return ""


def strings(key: Key | None, name: str, *, keep: int = _MAX_STRINGS) -> tuple[str, ...]:
    """A list of strings, the first ``keep`` of them; a single string is a list of one."""
    value = key.value(name) if key is not None else None
    try:
        found = value.as_strings() if value is not None and value.size <= _MAX_SIZE else ()
    except FormatError:
        return ()
    return tuple(text[:_MAX_LENGTH] for text in found[:keep] if text)


def number(key: Key | None, name: str) -> int | None:
    """A number, None where it is absent or of another type."""
    value = key.value(name) if key is not None else None
    try:
        return value.as_int() if value is not None else None
    except FormatError:
        return None
