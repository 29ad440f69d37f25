"""Finds captures on the volumes of this machine with our own readers: nothing is mounted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from rehost_payload.capture.copy_state import STATE, CaptureState, from_json
from rehost_payload.capture.targets import opened_volumes
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.filesystem import FileSystemReader
from rehost_payload.survey.model import Volume
from rehost_payload.system.protocol import System

_MOST_STATE = 64 << 20
_PREFIX = "rehost-"


def captures_on_volumes(system: System) -> list[tuple[Volume, list[CaptureState]]]:
    """Every volume that has captures, with these. Raises SystemError_ where no disk can be listed."""
    return [
        (opened.volume, found)
        for _, volumes in opened_volumes(system)
        for opened in volumes
        if opened.reader is not None and (found := list(_captures(opened.reader)))
    ]


def _captures(reader: FileSystemReader) -> Iterator[CaptureState]:
    try:
        folders = [
            e.name for e in reader.listdir("\\") if e.is_directory and e.name.lower().startswith(_PREFIX)
        ]
    except (FormatError, OSError):
        return
    for folder in folders:
        with suppress(FormatError, OSError):
            yield from_json(reader.read(f"\\{folder}\\{STATE}", _MOST_STATE))
