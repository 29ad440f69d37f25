"""Where the originals and the report can be kept."""

from __future__ import annotations

from dataclasses import dataclass

from rehost_payload.repair.model import Choices, VolumeRef
from rehost_payload.repair.rules.disks import not_alone
from rehost_payload.repair.rules.volumes import other_half
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
    """Where a run may keep its journal, best first: a volume labelled REHOST; a Windows volume; the ESP. Not half of a
    mirror, and not one of several disks that are the same or belong together."""
    room = {"label": 4 * 1024 * 1024, "windows": _ROOM, "esp": _ROOM_ON_ESP}
    view = View(survey, choices or Choices())
    several = not_alone(view)
    return tuple(
        p
        for p in journal_homes(survey, view.choices)
        if _fit(view.volumes[p.id], room[p.reason])
        and not view.disk_of(p.id).read_only
        and view.disk_of(p.id).id not in several
        and other_half(view, view.volumes[p.id]) is None
    )


def journal_homes(survey: Survey, choices: Choices | None = None) -> tuple[JournalPlace, ...]:
    """Where an earlier run may have left its journal: also volumes that could take none now (a power cut
    leaves the volume dirty that held it), and, without ``choices``, on any disk: it may have been named then."""
    view = View(survey, choices or Choices())
    readable = [v for v in survey.volumes if v.file_system in _WRITABLE and v.unreadable is None]
    installations = survey.windows if choices is None else view.candidates
    labelled = [(v, "label") for v in readable if v.label.upper() == LABEL]
    windows = [(v, "windows") for v in readable if any(w.volume == v.id for w in installations)]
    esps = [(v, "esp") for v in readable if view.is_esp(v) and (choices is None or view.ours(v.id))]
    return tuple(JournalPlace(view.ref(v), reason, v.id) for v, reason in labelled + windows + esps)


def _fit(volume: Volume, room: int) -> bool:
    fat = volume.file_system in (FileSystem.FAT16, FileSystem.FAT32, FileSystem.EXFAT)
    clean = fat or not (volume.dirty or volume.journal_unclean)
    return (
        volume.unwritable in (None, "dirty" if fat else None)
        and not volume.hibernated
        and clean
        and (volume.free is None or volume.free >= room)
    )
