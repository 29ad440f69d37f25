"""What a capture is worth now: judged by what lies on the targets that are here, never by what one says of another.

capture.json tells how it was when it was written. A second disk may have been formatted since, files may have been
deleted. So a copy counts only where its lists are there and every file that they name, with its size; contents are
judged by `rehost capture verify`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from rehost_payload.capture.copy_state import UNSEEN, CaptureState, EarlierCopy, UnitCopy, unseen
from rehost_payload.capture.manifest import MANIFEST, SUMS
from rehost_payload.capture.manifest import from_json as manifest_from_json
from rehost_payload.capture.model import Manifest
from rehost_payload.formats.errors import FormatError
from rehost_payload.system.protocol import SystemError_

_OTHER_FILES = "of an earlier run, when it had other files"


class Medium(Protocol):
    """What is asked of a volume or folder; CaptureTarget has it. Raises SystemError_ and FormatError."""

    def read(self, path: str) -> bytes: ...

    def size(self, path: str) -> int | None: ...


def manifest_in(medium: Medium, place: str) -> Manifest | None:
    """The manifest in folder ``place``; None where there is none that can be read. Raises SystemError_ where the medium
    does not tell."""
    try:
        return manifest_from_json(medium.read(f"{place}/{MANIFEST}"))
    except FormatError:
        return None
    except SystemError_ as error:
        if error.code != "absent":
            raise
        return None


def whole_copy(medium: Medium, place: str) -> Manifest | None:
    """The manifest of the unit's copy in folder ``place`` where that is complete: both lists are there, and every file
    with its size. Else None. Raises as `manifest_in`, and FormatError for a volume that is damaged."""
    manifest = manifest_in(medium, place)
    if manifest is None or not manifest.complete or medium.size(f"{place}/{SUMS}") is None:
        return None
    good = all(is_below(f.path) and medium.size(f"{place}/{f.path}") == f.size for f in manifest.files)
    return manifest if good else None


def is_below(path: str) -> bool:
    """Whether a manifest's path stays in its unit's folder."""
    return not any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in path.split("/"))


@dataclass(frozen=True)
class Present:
    """A capture on one target that is here. ``where`` is for people; ``state`` counts what lies there now."""

    where: str
    state: CaptureState


def as_it_lies(state: CaptureState, medium: Medium, folder: str) -> CaptureState:
    """``state``, which lies in ``folder``, with its own target's copies as they are now and all others unseen.

    Raises nothing: a target that does not answer has no good copy.
    """
    units: dict[str, Manifest] = {}
    reasons: dict[str, list[str]] = {}
    good: set[str] = set()  # paths below the capture's folder
    for unit in state.units:
        lost: list[str] = []
        try:
            manifest = manifest_from_json(medium.read(f"{folder}/{unit.folder}/{MANIFEST}"))
            if medium.size(f"{folder}/{unit.folder}/{SUMS}") is None:
                lost.append(f"{unit.folder}/{SUMS}: missing")
            for file in manifest.files:
                path = f"{unit.folder}/{file.path}"
                found = medium.size(f"{folder}/{path}")
                if found == file.size:
                    good.add(path)
                else:
                    lost.append(f"{path}: {'missing' if found is None else f'{found} bytes of {file.size}'}")
            if not manifest.complete:
                lost.append(f"{unit.folder}/{MANIFEST}: not complete")
            units[unit.folder] = manifest
        except (SystemError_, FormatError, OSError) as error:
            lost.append(f"{unit.folder}/{MANIFEST}: {_words(error)}")
        reasons[unit.folder] = lost
    parents = {
        f"{folder_}/{file.path}": _parent(folder_, file.parent)
        for folder_, manifest in units.items()
        for file in manifest.files
        if file.parent is not None
    }
    for unit_folder, manifest in units.items():
        reasons[unit_folder] += _lost_parents(unit_folder, manifest, parents, good)

    def now(copy: UnitCopy, unit_folder: str) -> UnitCopy:
        if copy.target != state.here:
            return replace(copy, state=UNSEEN, earlier=())
        copy = replace(copy, earlier=tuple(e for e in copy.earlier if _is_there(medium, folder, e)))
        lost = reasons[unit_folder]
        if copy.state != "complete" or not lost:
            return copy
        return replace(copy, state="unfinished", reasons=(*lost, *copy.reasons))

    return replace(
        state,
        name=folder.rpartition("/")[2] or state.name,
        targets=tuple(t if t.id == state.here else unseen(t, state.updated) for t in state.targets),
        units=tuple(replace(u, copies=tuple(now(c, u.folder) for c in u.copies)) for u in state.units),
    )


def _is_there(medium: Medium, folder: str, earlier: EarlierCopy) -> bool:
    try:
        return is_below(earlier.folder) and whole_copy(medium, f"{folder}/{earlier.folder}") is not None
    except (SystemError_, FormatError, OSError):
        return False


def _words(error: Exception) -> str:
    return "missing" if getattr(error, "code", "") == "absent" else str(error)


def _parent(folder: str, parent: str) -> str:
    """A parent as a manifest names it, below the capture's folder."""
    return parent[3:] if parent.startswith("../") else f"{folder}/{parent}"


def _lost_parents(folder: str, manifest: Manifest, parents: dict[str, str], good: set[str]) -> list[str]:
    """Parent disks in other machines' folders that are not good, down to the base."""
    lost: dict[str, None] = {}
    for file in manifest.files:
        path, seen = f"{folder}/{file.path}", set[str]()
        while (path := parents.get(path, "")) and path not in seen:
            seen.add(path)
            if path not in good and not path.startswith(f"{folder}/"):
                lost[f"{path}: missing"] = None
    return list(lost)


@dataclass(frozen=True)
class Together:
    """One capture on all targets that are here. ``state`` has a target for each of them, called by its place;
    ``absent`` are (name, when it was last heard of) of targets that some of them know and that are not here."""

    state: CaptureState
    on: tuple[Present, ...]
    absent: tuple[tuple[str, str], ...] = ()


def together(found: Sequence[Present]) -> list[Together]:
    """Captures of the same machines under the same name, which are one capture on several targets."""
    groups: dict[tuple[str, str], list[Present]] = {}
    for entry in found:
        groups.setdefault((entry.state.identity, entry.state.name), []).append(entry)
    return [_one(tuple(group)) for group in groups.values()]


def _one(on: tuple[Present, ...]) -> Together:
    here = {p.state.here for p in on}
    absent: dict[str, tuple[str, str]] = {}
    for present in on:
        for target in present.state.targets:
            if target.id not in here:
                when = max(target.detail, absent.get(target.id, ("", ""))[1])
                absent[target.id] = (target.name, when)
    latest = max(on, key=lambda p: p.state.updated).state
    copies: dict[str, list[UnitCopy]] = {unit.folder: [] for unit in latest.units}
    files = {unit.folder: unit.files for unit in latest.units}
    for present in on:
        for unit in present.state.units:
            own = [replace(c, target=present.where) for c in unit.copies if c.target == present.state.here]
            if unit.files != files.get(unit.folder):
                # good as it may be, it is no copy of what was captured last
                own = [replace(c, state="unfinished", reasons=(_OTHER_FILES,)) for c in own]
            copies.get(unit.folder, []).extend(own)
    state = replace(
        latest,
        targets=tuple(
            replace(t, id=p.where, name=p.where) for p in on for t in p.state.targets if t.id == p.state.here
        ),
        units=tuple(replace(unit, copies=tuple(copies[unit.folder])) for unit in latest.units),
    )
    return Together(state, on, tuple(absent.values()))
