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


@dataclass(frozen=True)
class TargetState:
    """``code`` is "" while nothing is wrong, else that of a SystemError_. ``unbuffered``: whether what was read back
    came from the disk for certain; where the system offers no way past its cache, it is False."""

    id: str
    name: str
    code: str = ""
    detail: str = ""
    unbuffered: bool = True


@dataclass(frozen=True)
class UnitCopy:
    """A unit on one target: "complete" (every file read back and equal), "incomplete" (through, but not all of it is
    good) or "unfinished"; ``reasons`` say why it is not complete."""

    target: str
    state: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class UnitState:
    id: str
    name: str
    folder: str
    size: int
    copies: tuple[UnitCopy, ...] = ()

    @property
    def good_copies(self) -> int:
        """How many targets hold a copy that was verified."""
        return sum(copy.state == "complete" for copy in self.copies)


@dataclass(frozen=True)
class CaptureState:
    """``here`` is the target that this file stands on; ``identity`` tells captures of the same files."""

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


def find_captures(target: CaptureTarget) -> list[CaptureState]:
    """The captures on a target, so that one of an earlier day can be resumed under its name. Raises SystemError_."""
    found = [
        read_state(target, name) for name in target.names("") if target.size(f"{name}/{STATE}") is not None
    ]
    return [state for state in found if state is not None]


def with_absent_targets(new: CaptureState, old: CaptureState | None) -> CaptureState:
    """``new`` with what ``old`` knows of targets that are not here now."""
    if old is None or old.identity != new.identity:
        return new
    here = {target.id for target in new.targets}
    known = {unit.folder: unit for unit in old.units}

    def copies(unit: UnitState) -> tuple[UnitCopy, ...]:
        before = known.get(unit.folder)
        return tuple(c for c in before.copies if c.target not in here) if before is not None else ()

    return replace(
        new,
        started=old.started,
        targets=new.targets + tuple(t for t in old.targets if t.id not in here),
        units=tuple(replace(unit, copies=unit.copies + copies(unit)) for unit in new.units),
    )
