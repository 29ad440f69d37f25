"""Finds captures on the volumes of this machine with our own readers: nothing is mounted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol

from rehost_payload.capture.copy_state import STATE, CaptureState, from_json
from rehost_payload.capture.present import Medium, Present, as_it_lies
from rehost_payload.capture.targets import opened_volumes
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.filesystem import FileSystemReader
from rehost_payload.survey.model import Volume
from rehost_payload.system.protocol import System

_MOST_STATE = 64 << 20
_PREFIX = "rehost-"


class Readable(Medium, Protocol):
    """A medium that can be listed as well."""

    def names(self, folder: str) -> list[str]: ...


class _Volume:
    """Implements Readable over one of our own readers."""

    def __init__(self, reader: FileSystemReader) -> None:
        self._reader = reader

    def read(self, path: str) -> bytes:
        return self._reader.read(f"\\{path}", _MOST_STATE)

    def size(self, path: str) -> int | None:
        found = self._reader.stat(f"\\{path}")
        return found.size if found is not None and not found.is_directory else None

    def names(self, folder: str) -> list[str]:
        return [entry.name for entry in self._reader.listdir(f"\\{folder}")]


def captures_on_volumes(system: System) -> Iterator[tuple[Volume, CaptureState, Readable, str]]:
    """The captures on this machine's volumes, each with what it says of itself, its place, which can be read until the
    next one is asked for, and its folder there. Raises SystemError_ where no disk can be listed."""
    for volume, found in _volumes(system):
        for state, place, folder in found:
            yield volume, state, place, folder


def present_on_volumes(system: System) -> list[Present]:
    """The captures on this machine's volumes as they lie there now. Raises SystemError_ where no disk can be listed."""
    return [
        Present(
            f"{volume.id} '{volume.label}'" if volume.label else volume.id, as_it_lies(state, place, folder)
        )
        for volume, found in _volumes(system)
        for state, place, folder in found
    ]


def _volumes(system: System) -> Iterator[tuple[Volume, list[tuple[CaptureState, _Volume, str]]]]:
    """The places can be read until the next volume is asked for."""
    for _, volumes in opened_volumes(system):
        for opened in volumes:
            if opened.reader is not None and (found := list(_captures(opened.reader))):
                yield opened.volume, found


def _captures(reader: FileSystemReader) -> Iterator[tuple[CaptureState, _Volume, str]]:
    try:
        folders = [
            e.name for e in reader.listdir("\\") if e.is_directory and e.name.lower().startswith(_PREFIX)
        ]
    except (FormatError, OSError):
        return
    for folder in folders:
        with suppress(FormatError, OSError):
            yield from_json(reader.read(f"\\{folder}\\{STATE}", _MOST_STATE)), _Volume(reader), folder
