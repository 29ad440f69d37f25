"""A capture from its orders to its result, the same for command line, menu and unattended run: resolve the targets,
look, show, ask, copy, write the way back, and say how it ended."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, cast

from rehost_payload.capture.assess_targets import Target, assess_targets
from rehost_payload.capture.contents import host_documents, read_contents, root_files, write_root
from rehost_payload.capture.copy import run_copy
from rehost_payload.capture.copy_estimate import Estimate, estimate
from rehost_payload.capture.copy_journal import Journal, OtherCapture
from rehost_payload.capture.copy_pipeline import CopySettings
from rehost_payload.capture.copy_plan import (
    CaptureRefused,
    Documents,
    check_targets,
    identity,
    jobs_of,
    layout,
)
from rehost_payload.capture.copy_progress import CopyProgress
from rehost_payload.capture.copy_room import Room, room
from rehost_payload.capture.copy_source import BytesOpener
from rehost_payload.capture.copy_state import UNSEEN, CaptureState, UnitState, find_captures
from rehost_payload.capture.copy_volumes import VolumeOpener
from rehost_payload.capture.found import FoundHost
from rehost_payload.capture.guardians import FOLDER, LARGEST
from rehost_payload.capture.model import NOT_WHOLE, CaptureChoices, CapturePlan
from rehost_payload.capture.on_volumes import Readable, captures_on_volumes
from rehost_payload.capture.plan import find_and_plan
from rehost_payload.capture.selection import unknown_machines
from rehost_payload.capture.targets import Candidate, UnknownTarget, candidates, choose
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.source import ByteSource
from rehost_payload.repair.model import Finding, ResultWord, Severity
from rehost_payload.system.capture_target import CaptureSystem, CaptureTarget, TargetInfo
from rehost_payload.system.folder_target import (
    NOT_HERE,
    folder_conflict,
    folder_target,
    readable_folder,
    shares_file_system,
)
from rehost_payload.system.protocol import DiskHandle, Progress, System, SystemError_
from rehost_payload.ui.capture_page import PAGE, to_html

MOST_TARGETS = 2
# between the question and the start a volume may lose some room: what is said to be kept must be
_SPARE = 64 << 20
_BLOCKERS = {
    "capture.target-fat": "fat32",
    "capture.target-small": "no-space",
    "capture.target-is-source": "source-disk",
    "capture.target-same-disk": "source-disk",
}
Refusal = tuple[str, str, str]
"""Code, subject, detail: nothing was copied, and why."""


@dataclass(frozen=True)
class CaptureOrders:
    """What the operator wants. ``targets`` are volumes of this machine or folders; ``machines`` None: all."""

    targets: tuple[str, ...] = ()
    machines: tuple[str, ...] | None = None
    config_only: bool = False
    images: bool = False
    orphans: bool = True
    windows: str | None = None
    guardian: Path | None = None  # folder with saved certificates of virtual TPMs


class BadOrders(Exception):
    """The orders name something that is not there. ``code`` is a key of [capturerefused]."""

    def __init__(self, code: str, subject: str, known: Sequence[str] = ()) -> None:
        self.code = code
        self.subject = subject
        self.known = tuple(known)
        super().__init__(f"{subject}: {code}" + (f" (known: {', '.join(known)})" if known else ""))


@dataclass(frozen=True)
class ChosenTarget:
    """Either a volume of this machine, or a folder."""

    name: str
    volume: Candidate | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class Prepared:
    """All that the operator sees before he says yes."""

    orders: CaptureOrders
    found: FoundHost
    plan: CapturePlan
    targets: tuple[ChosenTarget, ...]
    target_findings: tuple[Finding, ...] = ()
    resumed: Mapping[str, str] = field(
        default_factory=dict
    )  # target's name -> the capture there that goes on
    others: Mapping[str, str] = field(default_factory=dict)  # ... -> one of the same host that does not
    renewed: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # ... -> machines that have other files now
    # ... -> those of them whose complete earlier copies stay until the new ones are complete, and those without room for it
    kept: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    replaced: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def findings(self) -> tuple[Finding, ...]:
        units = (f for u in self.plan.units for f in u.findings)
        return (*self.target_findings, *self.plan.findings, *units)


@dataclass(frozen=True)
class CaptureOutcome:
    """``word`` is None when the operator has stopped it. ``refused``: nothing was copied, and why. ``troubles`` are
    targets on which the pages could not be written."""

    word: ResultWord | None
    plan: CapturePlan
    state: CaptureState | None = None
    findings: tuple[Finding, ...] = ()
    refused: Refusal | None = None
    troubles: tuple[tuple[str, str], ...] = ()
    machines: list[UnitState] = field(default_factory=list)


class Opener(Protocol):
    """How disks are read past the cache, where there is a way."""

    def __call__(self, disk: DiskHandle) -> ByteSource: ...


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- before ----------------------------------------------------------------------------------------------------


def resolve(names: Sequence[str], system: System | None) -> tuple[ChosenTarget, ...]:
    """Raises BadOrders for what is no target. ``system`` is None where volumes of this machine are no targets."""
    if len(names) > MOST_TARGETS:
        raise BadOrders("unusable-target", ", ".join(names))
    found: list[Candidate] | None = None
    chosen: list[ChosenTarget] = []
    for name in names:
        if Path(name).is_dir():
            chosen.append(ChosenTarget(name, folder=Path(name)))
            continue
        if system is None:
            raise BadOrders("unknown-target", name)
        if found is None:
            found = candidates(system)
        try:
            candidate = choose(found, name)
        except UnknownTarget as error:
            raise BadOrders("unknown-target", str(error), error.known) from error
        chosen.append(ChosenTarget(name, candidate))
    return tuple(chosen)


def prepare(
    system: System, orders: CaptureOrders, targets: Sequence[ChosenTarget], progress: Progress
) -> Prepared:
    """Looks at all disks. Raises BadOrders for a machine that is not there, SystemError_ where no disk is listed."""
    choices = CaptureChoices(
        taken=now(),
        machines=orders.machines,
        images=orders.images,
        config_only=orders.config_only,
        orphans=orders.orphans,
        windows=orders.windows,
        exclude=tuple(t.volume.ref for t in targets if t.volume is not None),
        guardian_files=tuple(_guardian_files(orders, targets)),
    )
    found, plan = find_and_plan(system, progress, choices)
    unknown = unknown_machines(found, choices)
    if unknown:
        names = [m.name for m in found.machines]
        raise BadOrders("unknown-machine", ", ".join(unknown), sorted(set(names)))
    if orders.windows is not None and (found.windows is None or found.windows.id != orders.windows):
        raise BadOrders("unknown-windows", orders.windows, sorted(w.id for w in found.hosts))
    earlier = _earlier(system, plan, targets, host_documents(plan, found))
    resumed, others = earlier.resumed, earlier.others
    judged = [Target(t.name, t.volume.ref, t.volume.volume.free) for t in targets if t.volume is not None]
    # what is there already needs no room: how much is still needed, the copy engine knows
    judgement = tuple(
        f
        for f in assess_targets(plan, judged)
        if not (f.id == "capture.target-small" and f.subject in resumed)
    )
    judgement += tuple(_beside(plan, targets, system))
    return Prepared(
        *(orders, found, plan, tuple(targets), judgement, resumed, others),
        *(earlier.renewed, earlier.kept, earlier.replaced),
    )


def _guardian_files(orders: CaptureOrders, targets: Sequence[ChosenTarget]) -> Iterator[tuple[str, bytes]]:
    """Saved certificates in the folder that was named, and in those of each target which is a folder. What lies on volumes
    is found with all else. Raises BadOrders where the named folder has none."""
    folders: list[Path] = []
    for place in (t.folder for t in targets if t.folder is not None):
        folders += [place / FOLDER, *sorted(place.glob(f"Rehost-*/host/{FOLDER}"))]
    for folder in [*([orders.guardian] if orders.guardian else []), *folders]:
        count = 0
        try:
            files = readable_folder(folder)
            for name in sorted(files.names("")):
                if name.lower().endswith(".pfx") and 0 < (files.size(name) or 0) <= LARGEST:
                    yield str(folder / name), files.read(name)
                    count += 1
        except SystemError_ as error:
            if folder == orders.guardian:
                raise BadOrders("no-guardian", f"{folder} ({error.detail})") from error
        if folder == orders.guardian and not count:
            raise BadOrders("no-guardian", str(folder))


def _beside(plan: CapturePlan, targets: Sequence[ChosenTarget], system: System) -> Iterator[Finding]:
    """Folders on the file system that the images lie on."""
    for target in targets:
        if target.folder is not None and system.name == "images":
            source = shares_file_system(target.folder, _sources(plan, system))
            if source is not None:
                name, line = {"target": target.name}, f"{target.name}: {source}"
                yield Finding("capture.target-same-disk", Severity.WARNING, target.name, name, (line,))


def refused(prepared: Prepared, system: System) -> Refusal | None:
    """What is wrong with the targets as far as it can be seen without opening one for writing. What only shows then,
    `run` says."""
    if not any(unit.files for unit in prepared.plan.units):
        return "nothing", ", ".join(t.name for t in prepared.targets), ""
    for target in prepared.targets:
        if target.volume is not None and target.volume.unfit is not None:
            return target.volume.unfit, target.name, target.volume.volume.file_system.value
    sources = _sources(prepared.plan, system)
    infos: list[TargetInfo] = []
    folders: list[Path] = []
    for target in prepared.targets:
        if target.folder is None:
            assert target.volume is not None
            infos.append(_info(target.name, target.volume))
            continue
        conflict = folder_conflict(target.folder, sources, folders)
        if conflict is not None:
            return conflict.code, target.name, conflict.detail
        folders.append(target.folder)
        try:
            infos.append(folder_target(target.folder).info)
        except SystemError_ as error:
            return error.code, target.name, error.detail
    try:
        check_targets(prepared.plan, infos)
    except CaptureRefused as error:
        return error.code, error.subject, error.detail
    for finding in prepared.target_findings:
        if finding.severity is Severity.BLOCKER:
            return _BLOCKERS[finding.id], finding.subject, "; ".join(finding.evidence)
    return None


def _sources(plan: CapturePlan, system: System) -> list[str]:
    """Disks that are captured; of images all, as each was given for this."""
    if system.name != "images":
        return sorted({file.source.volume.disk for unit in plan.units for file in unit.files})
    handles = system.disks()
    try:
        return [handle.info.path for handle in handles]
    finally:
        for handle in handles:
            handle.close()


def _info(name: str, volume: Candidate) -> TargetInfo:
    """A volume as its target will be."""
    disk, kind = volume.disk, volume.volume.file_system.value
    return TargetInfo(volume.id, name, kind, disk.path, disk.serial, disk.size, volume.volume.offset)


@dataclass
class _Earlier:
    """As in Prepared, by the target's name."""

    resumed: dict[str, str] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)
    renewed: dict[str, tuple[str, ...]] = field(default_factory=dict)
    kept: dict[str, tuple[str, ...]] = field(default_factory=dict)
    replaced: dict[str, tuple[str, ...]] = field(default_factory=dict)


def _earlier(
    system: System, plan: CapturePlan, targets: Sequence[ChosenTarget], documents: Documents
) -> _Earlier:
    """Captures on the targets: the one that goes on, and one of the same host and other machines, which stays as it is.
    Of the former, machines that had other files then, and what becomes of their copies."""
    earlier, wanted = _Earlier(), identity(plan)
    volumes = {t.volume.id: t for t in targets if t.volume is not None}
    now = {u.folder: (u.name, layout(u)) for u in plan.units if u.kind == "machine"}
    unlike: list[tuple[str, CaptureState]] = []

    def look(name: str, state: CaptureState, place: Readable, folder: str, free: int | None) -> None:
        if state.identity != wanted:
            unlike.append((name, state))
            return
        earlier.resumed[name] = state.name
        found = Room(0)
        with suppress(SystemError_, FormatError, OSError, OtherCapture):
            jobs = [job for unit in plan.units for job in jobs_of(unit, BytesOpener(b""), documents)]
            journal = Journal(cast("CaptureTarget", place), folder, wanted, CopySettings().chunk_size)
            found = room(place, folder, journal, jobs, max(0, (free or 0) - _SPARE))
        renewed = {u.folder for u in state.units if u.folder in now and _replaced(state, u, now)}
        renewed |= found.kept | found.replaced  # a run that stopped before their turn has not told of them
        for told, folders in (
            (earlier.renewed, renewed),
            (earlier.kept, found.kept),
            (earlier.replaced, found.replaced),
        ):
            told[name] = tuple(now[u.folder][0] for u in plan.units if u.folder in folders)

    for volume, state, place, folder in captures_on_volumes(system) if volumes else ():
        if (target := volumes.get(volume.id)) is not None:
            look(target.name, state, place, folder, volume.free)
    for target in targets:
        if target.folder is not None:
            with suppress(SystemError_):
                here = readable_folder(target.folder)
                for folder, state in find_captures(here).items():
                    look(target.name, state, here, folder, here.free())
    for name, state in unlike:
        if name not in earlier.resumed and plan.host and state.host == plan.host:
            earlier.others[name] = state.name
    return earlier


def _replaced(state: CaptureState, unit: UnitState, now: Mapping[str, tuple[str, str]]) -> bool:
    """Whether a copy of the unit is there that is of other files than it has ``now`` (by folder: name, layout)."""
    copied = any(c.target == state.here and c.state != "unfinished" for c in unit.copies)
    return copied and now[unit.folder][1] != unit.files


# --- copying ---------------------------------------------------------------------------------------------------


def run(
    prepared: Prepared,
    system: System,
    language: str,
    progress: Callable[[CopyProgress], None] | None = None,
    uncached: Opener | None = None,
    starting: Callable[[Callable[[], Estimate]], None] = lambda measure: None,
) -> CaptureOutcome:
    """Copies, reads back, and writes the way back to every target that still answers. Never raises for a target.

    ``starting`` is called when no target refuses, before the first file is copied; what it is given measures how long
    it will take, with a short probe of source and targets.
    """
    plan = prepared.plan
    handles = system.disks()
    try:
        with ExitStack() as stack:
            targets = [_open(stack, target, system) for target in prepared.targets]
            plan = replace(plan, name=_name(plan, targets))
            opener = VolumeOpener(handles, uncached, system.volume_files)
            documents = host_documents(plan, prepared.found)
            result = run_copy(
                plan,
                opener,
                targets,
                documents=documents,
                progress=progress,
                ready=lambda: starting(lambda: estimate(prepared.plan, opener, targets)),
            )
            troubles = tuple(_write_pages(plan, targets, result.state, language))
    except CaptureRefused as error:
        return blocked(prepared, (error.code, error.subject, error.detail))
    finally:
        for handle in handles:
            handle.close()
    machines = {u.id for u in plan.units if u.kind == "machine"}
    return CaptureOutcome(
        word=None if result.interrupted else _word(result.state, prepared),
        plan=plan,
        state=result.state,
        findings=prepared.findings,
        troubles=troubles,
        machines=[u for u in result.state.units if u.id in machines],
    )


def blocked(prepared: Prepared, why: Refusal) -> CaptureOutcome:
    return CaptureOutcome(ResultWord.BLOCKED, prepared.plan, findings=prepared.findings, refused=why)


def _open(stack: ExitStack, target: ChosenTarget, system: System) -> CaptureTarget:
    try:
        if target.folder is not None:
            return folder_target(target.folder)
        assert target.volume is not None
        if target.volume.unfit is not None:
            raise CaptureRefused(target.volume.unfit, target.name, target.volume.volume.file_system.value)
        if not hasattr(system, "capture_target"):
            raise CaptureRefused("unusable-target", target.name, NOT_HERE)
        able = cast("CaptureSystem", system)
        volume = target.volume.volume
        return stack.enter_context(able.capture_target(target.volume.disk.path, volume.offset, volume.size))
    except SystemError_ as error:
        raise CaptureRefused(error.code, target.name, error.detail) from error


def _name(plan: CapturePlan, targets: Sequence[CaptureTarget]) -> str:
    """The folder of the capture: that of an earlier run for the same machines, else one that is free everywhere."""
    wanted = identity(plan)
    taken: set[str] = set()
    for target in targets:
        try:
            for state in find_captures(target).values():
                if state.identity == wanted:
                    return state.name
                taken.add(state.name.lower())
            taken |= {name.lower() for name in target.names("")}
        except SystemError_ as error:
            raise CaptureRefused(error.code, target.info.name, error.detail) from error
    names = itertools.chain([plan.name], (f"{plan.name}-{n}" for n in itertools.count(2)))
    return next(name for name in names if name.lower() not in taken)


def _write_pages(
    plan: CapturePlan, targets: Sequence[CaptureTarget], state: CaptureState, language: str
) -> Iterator[tuple[str, str]]:
    failed = {t.id for t in state.targets if t.code}
    for target in targets:
        if target.info.id in failed:
            continue
        try:
            contents = read_contents(target, plan.name)
            if contents is None:
                continue
            files = root_files(contents) | {PAGE: to_html(contents, language).encode("utf-8", "replace")}
            write_root(target, plan.name, files)
        except SystemError_ as error:
            yield target.info.name, f"{error.code}: {error.detail}"


def _word(state: CaptureState, prepared: Prepared) -> ResultWord:
    """Captured means: everything that was chosen, whole, verified, on every target."""
    states = [copy.state for unit in state.units for copy in unit.copies if copy.state != UNSEEN]
    if not any(s == "complete" for s in states):
        return ResultWord.FAILED
    # a machine that cannot be captured whole from here is not captured, however well the rest was copied
    fatal = any(f.severity in NOT_WHOLE for f in prepared.findings)
    if (
        fatal
        or any(t.code not in ("", UNSEEN) for t in state.targets)
        or any(s != "complete" for s in states)
    ):
        return ResultWord.INCOMPLETE
    return ResultWord.CAPTURED
