"""Registry hives (regf): what an edit of one is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SetValue:
    """Sets a value; keys of ``key`` that do not exist are created. ``key`` starts below the root key."""

    key: tuple[str, ...]
    name: str  # "" is the key's default value
    type: int  # REG_SZ 1, REG_BINARY 3, REG_DWORD 4, REG_MULTI_SZ 7, ...
    data: bytes  # as stored: strings are UTF-16LE with their terminating NUL


@dataclass(frozen=True)
class DeleteValue:
    """Deletes a value. One that does not exist is no error: the wanted state is there."""

    key: tuple[str, ...]
    name: str


@dataclass(frozen=True)
class DeleteKey:
    """Deletes a key with everything below it. One that does not exist is no error."""

    key: tuple[str, ...]


@dataclass(frozen=True)
class CreateKey:
    """Creates a key and the missing ones above it."""

    key: tuple[str, ...]


HiveEdit = SetValue | DeleteValue | DeleteKey | CreateKey
