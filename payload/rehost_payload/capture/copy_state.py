"""capture.json: how far a capture is, on every target that it knows. It stands in the capture's folder on each."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from rehost_payload import strictjson
from rehost_payload.capture.model import FORMAT
from rehost_payload.formats.errors import FormatError
from rehost_payload.system.capture_target import CaptureTarget
from rehost_payload.system.protocol import SystemError_

STATE = "capture.json"
_WHAT = "capture.json"
UNSEEN = "unseen"
"""Code of a target, and state of its copies, that an earlier run knew and that was not looked at since: it may have been
formatted meanwhile, so nothing on it counts."""


@dataclass(frozen=True)
class TargetState:
    """``code`` is "" while nothing is wrong, else that of a SystemError_, or UNSEEN (see `unseen`). ``unbuffered``: whether what was read back
    came from the disk for certain; where the system offers no way past its cache, it is False."""

    id: str
    name: str
    code: str = ""
    detail: str = ""
    unbuffered: bool = True


@dataclass(frozen=True)
class EarlierCopy:
    """A complete copy of a machine when it had other files, kept in ``folder`` beside the units' folders until the new
    one is complete. ``taken``: ISO 8601, UTC. It is none of the copies that count."""

    folder: str
    taken: str


@dataclass(frozen=True)
class UnitCopy:
    """A unit on one target: "complete" (every file read back and equal), "incomplete" (through, but not all of it is
    good), "unfinished" or UNSEEN; ``reasons`` say why it is not complete."""

    target: str
    state: str
    reasons: tuple[str, ...] = ()
    earlier: tuple[EarlierCopy, ...] = ()


@dataclass(frozen=True)
class UnitState:
    id: str
    name: str
    folder: str
    size: int
    copies: tuple[UnitCopy, ...] = ()
    files: str = ""  # its layout (copy_plan.py): that of an older run with other files is another
    # False: a finding says that it was damaged already, cannot all be captured from here, or needs something done first
    whole: bool = True

    @property
    def good_copies(self) -> int:
        """How many targets hold a copy that was verified."""
        return sum(copy.state == "complete" for copy in self.copies)


@dataclass(frozen=True)
class CaptureState:
    """``here`` is the target that this file stands on; ``identity`` tells captures of the same files. ``config_only``:
    the machines' disks are none of its files."""

    format: int
    rehost: str
    name: str
    identity: str
    host: str
    started: str
    updated: str
    here: str
    targets: tuple[TargetState, ...]
    units: tuple[UnitState, ...]
    config_only: bool = False

    @property
    def good_copies(self) -> int:
        """Verified copies that there are of every unit."""
        return min((unit.good_copies for unit in self.units), default=0)


def to_json(state: CaptureState) -> str:
    return json.dumps(strictjson.plain(state), indent=1) + "\n"


def from_json(text: str | bytes) -> CaptureState:
    """Raises FormatError."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(_WHAT, f"not JSON: {error}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise FormatError(_WHAT, "not of the format understood here")
    state = strictjson.read(CaptureState, data, _WHAT, "capture")
    assert isinstance(state, CaptureState)
    return state


def read_state(target: CaptureTarget, name: str) -> CaptureState | None:
    """The state of the capture ``name``; None where there is none that can be read. Raises SystemError_."""
    try:
        return from_json(target.read(f"{name}/{STATE}"))
    except FormatError:
        return None
    except SystemError_ as error:
        if error.code == "absent":
            return None
        raise


def find_captures(target: CaptureTarget) -> dict[str, CaptureState]:
    """The captures on a target by their folders, so that one of an earlier day can be resumed under its name. Raises
    SystemError_."""
    names = [name for name in target.names("") if target.size(f"{name}/{STATE}") is not None]
    found = {name: read_state(target, name) for name in names}
    return {name: state for name, state in found.items() if state is not None}


def unseen(target: TargetState, when: str) -> TargetState:
    """``target`` as one that is not here. ``detail`` becomes ``when`` it was looked at for the last time, at most."""
    return target if target.code == UNSEEN else replace(target, code=UNSEEN, detail=when)


def with_absent_targets(new: CaptureState, old: CaptureState | None) -> CaptureState:
    """``new`` with the targets that ``old`` knows and that are not here now. They are named and do not count; one
    whose name and place another has now is forgotten."""
    if old is None or old.identity != new.identity:
        return new
    here, names = {target.id for target in new.targets}, {target.name for target in new.targets}
    absent = [t for t in old.targets if t.id not in here and t.name not in names]
    kept = {target.id for target in absent}
    known = {unit.folder: unit for unit in old.units}

    def copies(unit: UnitState) -> tuple[UnitCopy, ...]:
        before = known.get(unit.folder)
        found = before.copies if before is not None else ()
        return tuple(replace(c, state=UNSEEN, earlier=()) for c in found if c.target in kept)

    return replace(
        new,
        started=old.started,
        targets=new.targets + tuple(unseen(t, old.updated) for t in absent),
        units=tuple(replace(unit, copies=unit.copies + copies(unit)) for unit in new.units),
    )
