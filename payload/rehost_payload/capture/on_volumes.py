"""Finds captures on the volumes of this machine with our own readers: nothing is mounted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from rehost_payload.capture.copy_state import STATE, CaptureState, from_json
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.filesystem import FileSystemReader
from rehost_payload.survey.cache import CachedSource
from rehost_payload.survey.volumes import survey_disk, survey_volumes
from rehost_payload.system.protocol import System

_MOST_STATE = 64 << 20
_PREFIX = "rehost-"


def captures_on_volumes(system: System) -> Iterator[tuple[str, list[CaptureState]]]:
    """(volume, captures on it) for every volume that has one. Raises SystemError_ where no disk can be listed."""
    handles = system.disks()
    try:
        for index, handle in enumerate(handles):
            source = CachedSource(handle)
            with suppress(OSError):
                for opened in survey_volumes(survey_disk(handle, source, f"disk{index}"), source, []):
                    if opened.reader is not None:
                        label = f" '{opened.volume.label}'" if opened.volume.label else ""
                        found = list(_captures(opened.reader))
                        if found:
                            yield f"{opened.volume.id}{label}", found
    finally:
        for handle in handles:
            handle.close()


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
