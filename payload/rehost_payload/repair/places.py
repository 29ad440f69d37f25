"""Where the originals and the report can be kept."""

from __future__ import annotations

from dataclasses import dataclass

from rehost_payload.repair.model import Choices, VolumeRef
from rehost_payload.repair.view import View
from rehost_payload.survey.model import FileSystem, Survey, Volume

LABEL = "REHOST"
_ROOM = 64 * 1024 * 1024  # originals and reports are far smaller; on a system partition less must do
_ROOM_ON_ESP = 8 * 1024 * 1024
_WRITABLE = (FileSystem.FAT16, FileSystem.FAT32, FileSystem.EXFAT, FileSystem.NTFS)


@dataclass(frozen=True)
class JournalPlace:
    """``reason``: "label" (the operator's own volume), "windows" or "esp" (the repaired disk itself)."""

    volume: VolumeRef
    reason: str
    id: str


def journal_places(survey: Survey, choices: Choices | None = None) -> tuple[JournalPlace, ...]:
    """Candidates, best first: a volume labelled REHOST; the volume of a Windows; the EFI system partition."""
    view = View(survey, choices or Choices())
    labelled = [v for v in survey.volumes if v.label.upper() == LABEL and _fit(v, 0)]
    windows = [v for w in view.candidates if _fit(v := view.volumes[w.volume], _ROOM)]
    esps = [v for v in view.esps if _fit(v, _ROOM_ON_ESP)]
    ranked = [(v, "label") for v in labelled] + [(v, "windows") for v in windows] + [(v, "esp") for v in esps]
    return tuple(
        JournalPlace(view.ref(v), reason, v.id) for v, reason in ranked if not view.disk_of(v.id).read_only
    )


def _fit(volume: Volume, room: int) -> bool:
    fat = volume.file_system in (FileSystem.FAT16, FileSystem.FAT32, FileSystem.EXFAT)
    clean = fat or not (volume.dirty or volume.journal_unclean)
    return (
        volume.file_system in _WRITABLE
        and volume.unreadable is None
        and volume.unwritable in (None, "dirty" if fat else None)
        and not volume.hibernated
        and clean
        and (volume.free is None or volume.free >= room)
    )
