"""The room that a capture needs on a target, and which earlier copies of machines have room beside the new ones.

A machine that has other files than in an earlier run is copied anew. Where that run's copy was complete, it is the only
good one until the new one is: it is kept as long as there is room for both, on each target by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby

from rehost_payload.capture.copy_journal import Journal
from rehost_payload.capture.copy_plan import PART, Job, layout
from rehost_payload.capture.model import CaptureUnit
from rehost_payload.capture.present import Medium, whole_copy

_ALLOWANCE = 16 << 20  # folders and lists
_EACH = 16 << 10  # what a file takes beside its bytes


@dataclass(frozen=True)
class Room:
    """``needed``: bytes still to be allocated, at the most at any time. ``kept`` and ``replaced`` are folders of machines
    whose complete earlier copies stay until the new ones are complete, and of those that have no room to."""

    needed: int
    kept: frozenset[str] = frozenset()
    replaced: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Unit:
    """Bytes: ``fresh`` when nothing of what is there is used, ``more`` when it is; ``gone`` is what is removed first."""

    folder: str
    fresh: int
    more: int
    gone: int
    whole: bool


def is_current(journal: Journal, unit: CaptureUnit) -> bool:
    """Whether what the journal knows of the unit is of the files that it has now."""
    return journal.layouts.get(unit.folder) == layout(unit)


def was_other(journal: Journal, unit: CaptureUnit) -> bool:
    """Whether an earlier run has copied it with other files."""
    return unit.folder in journal.layouts and not is_current(journal, unit)


def outdated(journal: Journal, unit: CaptureUnit, jobs: Sequence[Job]) -> list[str]:
    """What an earlier run has copied of the unit and that must not stay beside what it has now. Of a machine that is
    all: its disks are of one moment, or of no worth."""
    if not was_other(journal, unit):
        return []
    planned = set() if unit.kind == "machine" else {job.path for job in jobs}
    start = f"{unit.folder}/"
    return [path for path in journal.files if path.startswith(start) and path not in planned]


def room(medium: Medium, folder: str, journal: Journal, jobs: Sequence[Job], free: int) -> Room:
    """For the capture in ``folder`` of a target with ``free`` bytes. Raises SystemError_.

    What is kept is counted as if it stayed to the end: where a source fails, it does, and the machines behind it must
    have their room all the same.
    """
    units = [
        _look(medium, folder, journal, list(group)) for _, group in groupby(jobs, lambda j: j.unit.folder)
    ]
    kept: set[str] = set()
    for unit in units:
        if unit.whole and _needed(units, kept | {unit.folder}) <= free:
            kept.add(unit.folder)
    replaced = {unit.folder for unit in units if unit.whole} - kept
    return Room(_needed(units, kept), frozenset(kept), frozenset(replaced))


def _needed(units: Sequence[_Unit], kept: Collection[str]) -> int:
    most = total = _ALLOWANCE
    for unit in units:
        total += unit.fresh if unit.folder in kept else unit.more - unit.gone
        most = max(most, total)
    return most


def _look(medium: Medium, folder: str, journal: Journal, jobs: Sequence[Job]) -> _Unit:
    def there(path: str) -> int:
        place = f"{folder}/{path}"
        return max(medium.size(place) or 0, medium.size(place + PART) or 0)

    unit = jobs[0].unit
    planned = {job.path for job in jobs}
    return _Unit(
        unit.folder,
        fresh=sum(job.file.size + _EACH for job in jobs),
        more=sum(max(0, job.file.size - there(job.path)) + _EACH for job in jobs),
        gone=sum(there(path) for path in outdated(journal, unit, jobs) if path not in planned),
        whole=unit.kind == "machine"
        and was_other(journal, unit)
        and whole_copy(medium, f"{folder}/{unit.folder}") is not None,
    )
