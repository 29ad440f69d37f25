"""The copy engine: brings the files of a CapturePlan to one or two targets and reads them back.

For each unit: every file is read once and written to all targets (copy_pipeline.py), then every target reads its copy
back past the cache (what it did not read before, while it waited for the source), then the unit gets its manifest.json
and SHA256SUMS. Each target has a journal of its own (copy_journal.py), so that a run which was stopped, unplugged or cut
off is resumed within a file. A target that fails ends its own part only; a source that fails ends its file only. What
was not verified is never called complete.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from rehost_payload import __version__
from rehost_payload.capture.copy_journal import OtherCapture
from rehost_payload.capture.copy_pipeline import CopySettings, Destination, Pipeline, Ring, Stopped
from rehost_payload.capture.copy_plan import (
    PART,
    CaptureRefused,
    Documents,
    Job,
    check_plan,
    check_targets,
    identity,
    jobs_of,
    layout,
)
from rehost_payload.capture.copy_progress import CopyProgress, Meter
from rehost_payload.capture.copy_source import (
    CarefulReader,
    OpenSource,
    SourceChanged,
    SourceGone,
    SourceOpener,
    fingerprint,
    merge,
)
from rehost_payload.capture.copy_state import (
    STATE,
    CaptureState,
    UnitCopy,
    UnitState,
    read_state,
    to_json,
    with_absent_targets,
)
from rehost_payload.capture.copy_target import TargetRun
from rehost_payload.capture.copy_verify import copy_again, read_back
from rehost_payload.capture.model import (
    FORMAT,
    NOT_WHOLE,
    CapturePlan,
    CaptureUnit,
    FailedFile,
    Manifest,
    ManifestFile,
)
from rehost_payload.formats.errors import FormatError
from rehost_payload.system.capture_target import AlignedBuffer, CaptureTarget, TargetFile
from rehost_payload.system.protocol import SystemError_

_ATTEMPTS = 2
_POLL = 0.25


@dataclass(frozen=True)
class CopyResult:
    """``state`` is what capture.json says. ``interrupted``: stopped by the operator; run it again to go on."""

    state: CaptureState
    interrupted: bool


def _utc() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def run_copy(
    plan: CapturePlan,
    opener: SourceOpener,
    targets: Sequence[CaptureTarget],
    *,
    documents: Documents | None = None,
    settings: CopySettings | None = None,
    progress: Callable[[CopyProgress], None] | None = None,
    stopping: Callable[[], bool] = lambda: False,
    now: Callable[[], str] = _utc,
    ready: Callable[[], None] = lambda: None,
) -> CopyResult:
    """Copies what is missing of the plan's files, verifies, and writes the lists.

    ``documents``: small files made for the capture, by unit. ``stopping`` is asked after each block; it and Ctrl-C
    end the run in order, to be resumed by the same call. ``ready`` is called when plan and targets are fit and each
    target has taken its journal, before the first file. Raises CaptureRefused before anything is written, where the
    plan or a target is not fit; everything later is in the result. Never raises for one target's or file's trouble.
    """
    settings = settings or CopySettings()
    jobs = {unit.folder: jobs_of(unit, opener, documents or {}) for unit in plan.units}
    every = [job for unit in jobs.values() for job in unit]
    if 2 * len(targets) > settings.buffers:
        raise ValueError("too few buffers for so many targets")
    check_plan(plan, every)
    check_targets(plan, [target.info for target in targets])
    runs = [_look_at(target, plan, settings, every) for target in targets]
    for run in runs:
        with _refusals(run.target):
            run.begin(every)
    ready()
    ring = Ring(settings)
    try:
        return _Copy(plan, jobs, runs, settings, ring, progress, stopping, now).run()
    finally:
        ring.close()


def _look_at(
    target: CaptureTarget, plan: CapturePlan, settings: CopySettings, jobs: Sequence[Job]
) -> TargetRun:
    with _refusals(target):
        run = TargetRun(target, plan.name, identity(plan), settings)
        needed, free = run.look(jobs).needed, target.free()
    if needed > free:
        raise CaptureRefused("no-space", target.info.name, f"{needed} bytes are needed, {free} are free")
    return run


@contextmanager
def _refusals(target: CaptureTarget) -> Iterator[None]:
    try:
        yield
    except OtherCapture as error:
        raise CaptureRefused("other-capture", target.info.name, str(error)) from error
    except SystemError_ as error:
        raise CaptureRefused(error.code, target.info.name, error.detail) from error


class _Copy:
    def __init__(
        self,
        plan: CapturePlan,
        jobs: Mapping[str, list[Job]],
        runs: list[TargetRun],
        settings: CopySettings,
        ring: Ring,
        progress: Callable[[CopyProgress], None] | None,
        stopping: Callable[[], bool],
        now: Callable[[], str],
    ) -> None:
        self._plan = plan
        self._jobs = jobs
        self._runs = runs
        self._settings = settings
        self._ring = ring
        self._stopping = stopping
        self._now = now
        self._started = now()
        self._meter = Meter(sum(job.file.size for unit in jobs.values() for job in unit), progress)
        self._failures: dict[str, str] = {}  # path -> what is wrong with its source
        self._sealed: dict[tuple[str, str], UnitCopy] = {}  # (target, folder)
        self._source_lock = threading.Lock()

    @property
    def _alive(self) -> list[TargetRun]:
        return [run for run in self._runs if run.alive]

    def run(self) -> CopyResult:
        interrupted = False
        try:
            self._seal_units()  # what an earlier run has finished
            self._write_state()
            for unit in self._plan.units:
                if not self._alive:
                    break
                self._copy_unit(unit)
        except (KeyboardInterrupt, Stopped):
            interrupted = True
        self._write_state()
        return CopyResult(self._state(self._runs[0]), interrupted)

    def _copy_unit(self, unit: CaptureUnit) -> None:
        jobs = self._jobs[unit.folder]
        users = {unit.id}.union(*(job.file.shared_with for job in jobs))
        for run in self._runs:
            for other in self._plan.units:
                if other.id in users:
                    self._sealed.pop((run.id, other.folder), None)
        self._meter.unit(unit.id, unit.name, sum(job.file.size for job in jobs))
        kept = False
        for run in self._alive:
            with run.guarded():
                kept |= run.renew(unit, jobs, [u.folder for u in self._plan.units])
        if kept:
            self._write_state()  # it says where
        for job in jobs:
            self._copy_file(job)
        self._verify_unit(jobs)
        self._seal_units()
        self._write_state()

    # --- copying ---

    def _copy_file(self, job: Job) -> None:
        self._note_failed()
        self._meter.file("copy", job.path)
        for attempt in range(_ATTEMPTS):
            try:
                opened = job.opener.open(job.file)
            except (OSError, FormatError, SystemError_) as error:
                self._unopened(job, f"it cannot be opened: {error}")
                return
            try:
                self._copy_opened(job, opened)
                return
            except SourceChanged as error:
                for run in self._alive:
                    with run.guarded():
                        run.forget(job.path)
                if attempt == _ATTEMPTS - 1:
                    self._failures[job.path] = f"it changes while it is copied: {error}"
            except SourceGone as error:
                self._failures[job.path] = f"its disk does not answer any more: {error}"
                return
            finally:
                opened.close()

    def _unopened(self, job: Job, reason: str) -> None:
        """A file that is good already needs its source no more."""
        for run in self._alive:
            with run.guarded():
                record = run.record(job.path)
                if record is None or not run.is_good(job.path, record.size):
                    self._failures[job.path] = reason
        self._meter.skip("copy", job.file.size)

    def _note_failed(self) -> None:
        self._meter.failed = tuple(run.name for run in self._runs if not run.alive)

    def _copy_opened(self, job: Job, opened: OpenSource) -> None:
        size, mark = opened.source.size, fingerprint(opened)
        wanted: list[tuple[TargetRun, Destination]] = []
        try:
            for run in self._alive:
                with run.guarded():
                    destination = run.prepare(job, mark, size, self._ring.buffers, self._stopping)
                    if destination is not None:
                        wanted.append((run, destination))
            if not wanted:
                self._meter.skip("copy", size)
                return
            self._transfer(job, opened, size, mark, wanted)
        finally:
            for _, destination in wanted:
                destination.file.close()

    def _transfer(
        self, job: Job, opened: OpenSource, size: int, mark: str, wanted: list[tuple[TargetRun, Destination]]
    ) -> None:
        destinations = [destination for _, destination in wanted]
        records = [run.record(job.path) for run in self._runs]
        known = [
            tuple(r.chunks) for r in records if r is not None and (r.fingerprint, r.size) == (mark, size)
        ]
        pipeline = Pipeline(
            CarefulReader(opened, size), size, destinations, known, self._settings, self._ring
        )
        first = min(d.start for d in destinations) * self._settings.chunk_size
        self._meter.skip("copy", min(size, first))
        try:
            sha256 = pipeline.run(self._meter.add, self._stopping)
        finally:
            for run, destination in wanted:
                if destination.failed is not None:
                    run.fail(destination.failed)
                    self._note_failed()
        self._check_unchanged(job, mark)
        for run, destination in wanted:
            if run.alive:
                with run.guarded():
                    run.complete(job, destination.file, size, sha256)

    @staticmethod
    def _check_unchanged(job: Job, mark: str) -> None:
        try:
            opened = job.opener.open(job.file)
        except (OSError, FormatError, SystemError_) as error:
            raise SourceChanged(str(error)) from error
        try:
            if fingerprint(opened) != mark:
                raise SourceChanged("its size, time or headers are not what they were")
        finally:
            opened.close()

    # --- reading back ---

    def _verify_unit(self, jobs: Sequence[Job]) -> None:
        """All targets at the same time; this thread shows how far they are."""
        runs = self._alive
        if not runs:
            return
        share = len(self._ring.buffers) // max(2, len(runs))
        halt = threading.Event()
        faults: list[BaseException] = []
        count = _Counter()

        def work(run: TargetRun, buffers: Sequence[AlignedBuffer]) -> None:
            try:
                for job in jobs:
                    with run.guarded():
                        self._verify_file(run, job, buffers, count, halt.is_set)
                    if not run.alive:
                        return
            except Stopped:
                pass
            except BaseException as error:
                faults.append(error)
                halt.set()

        threads = [
            threading.Thread(target=work, args=(run, self._ring.buffers[i * share : (i + 1) * share]))
            for i, run in enumerate(runs)
        ]
        self._meter.file("verify", jobs[0].path if jobs else "")
        early = sum(run.checked(job.path) for run in runs for job in jobs)
        self._meter.skip("verify", early // len(runs))
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(_POLL)
                    self._meter.add(count.take() / len(runs))
                    if self._stopping():
                        halt.set()
        finally:
            halt.set()
            for thread in threads:
                thread.join()
        self._meter.add(count.take() / len(runs))
        if faults:
            raise faults[0]
        if self._stopping():
            raise Stopped

    def _verify_file(
        self,
        run: TargetRun,
        job: Job,
        buffers: Sequence[AlignedBuffer],
        count: _Counter,
        stopping: Callable[[], bool],
    ) -> None:
        record = run.record(job.path)
        run.failures.pop(job.path, None)
        if record is None or not record.done or record.verified:
            count.add(job.file.size)
            return
        file = run.target.open(run.place(job.path) + PART)
        try:
            sha256 = record.sha256

            def check() -> tuple[int, ...]:
                nonlocal sha256
                whole = not record.sha256
                done = read_back(
                    file,
                    record.size,
                    record.chunks,
                    self._settings,
                    buffers,
                    first=0 if whole else record.checked,
                    whole=whole,
                    step=count.add,
                    stopping=stopping,
                )
                sha256 = record.sha256 or done.sha256
                return done.bad

            bad = check()
            if bad:
                trouble = self._mend(run, job, bad, file, buffers)
                bad = () if trouble else check()
                if bad or trouble:
                    places = ", ".join(f"{n * self._settings.chunk_size:#x}" for n in bad[:4])
                    run.failures[job.path] = trouble or f"read back differently, twice, at {places}"
                    return
            run.unbuffered &= file.unbuffered
        finally:
            file.close()
        run.approve(job.path, sha256)

    def _mend(
        self,
        run: TargetRun,
        job: Job,
        bad: Sequence[int],
        file: TargetFile,
        buffers: Sequence[AlignedBuffer],
    ) -> str:
        """Copies bad chunks once more. Returns why that was not possible, or ""."""
        record = run.record(job.path)
        assert record is not None
        with self._source_lock:
            try:
                opened = job.opener.open(job.file)
            except (OSError, FormatError, SystemError_) as error:
                return f"read back differently, and the source cannot be opened any more: {error}"
            try:
                reader = CarefulReader(opened, record.size)
                for number in bad:
                    copy_again(
                        file,
                        reader,
                        number,
                        record.size,
                        record.chunks[number],
                        self._settings,
                        buffers[0],
                    )
                file.finish(record.size, job.file.created, job.file.modified)
            except (SourceChanged, SourceGone) as error:
                return f"read back differently, and the source cannot be read again: {error}"
            finally:
                opened.close()
        return ""

    # --- lists and state ---

    def _faults(self, run: TargetRun, job: Job) -> str:
        """Why a file is not good on a target; "" where it is."""
        record = run.record(job.path)
        if record is not None and record.verified:
            if not record.bad:
                return ""
            lost = sum(entry.length for entry in record.bad)
            return f"{lost} bytes could not be read from the source: {record.bad[0].reason}"
        return run.failures.get(job.path) or self._failures.get(job.path) or "not copied yet"

    def _is_through(self, run: TargetRun, job: Job) -> bool:
        record = run.record(job.path)
        return (
            (record is not None and record.verified) or job.path in self._failures or job.path in run.failures
        )

    def _needs(self, unit: CaptureUnit) -> list[Job]:
        """The unit's files, and those of other units that it cannot do without."""
        shared = [
            job
            for folder, jobs in self._jobs.items()
            if folder != unit.folder
            for job in jobs
            if unit.id in job.file.shared_with
        ]
        return [*self._jobs[unit.folder], *shared]

    def _seal_units(self) -> None:
        for unit in self._plan.units:
            needs = self._needs(unit)
            for run in self._alive:
                if (run.id, unit.folder) in self._sealed or not all(self._is_through(run, j) for j in needs):
                    continue
                if not all(run.is_current(u) for u in (unit, *(j.unit for j in needs))):
                    continue  # what is known of them is of other files
                reasons = tuple(f"{j.path}: {why}" for j in needs if (why := self._faults(run, j)))
                with run.guarded():
                    run.seal(unit.folder, self._manifest(run, unit, complete=not reasons))
                    state = "incomplete" if reasons else "complete"
                    self._sealed[run.id, unit.folder] = UnitCopy(run.id, state, reasons)
        folders = [unit.folder for unit in self._plan.units]
        for run in self._alive:
            sealed = {folder: self._sealed.get((run.id, folder)) for folder in folders}
            with run.guarded():
                run.drop_earlier(
                    folders, [f for f, copy in sealed.items() if copy and copy.state == "complete"]
                )

    def _manifest(self, run: TargetRun, unit: CaptureUnit, *, complete: bool) -> Manifest:
        files: list[ManifestFile] = []
        failed: list[FailedFile] = []
        for job in self._jobs[unit.folder]:
            record = run.record(job.path)
            if record is None or not record.verified:
                failed.append(FailedFile(job.inside, job.file.original, self._faults(run, job)))
                continue
            files.append(
                ManifestFile(
                    job.inside,
                    job.file.original,
                    job.file.role,
                    record.size,
                    record.sha256,
                    tuple(record.chunks),
                    created=job.file.created,
                    modified=job.file.modified,
                    attributes=job.file.attributes,
                    sddl=job.file.sddl,
                    parent=_relative(job.file.parent, unit.folder),
                    bad_ranges=tuple(merge(record.bad)),
                )
            )
        return Manifest(
            *(FORMAT, __version__, unit.id, unit.name, unit.kind, self._plan.host, self._now()),
            chunk_size=self._settings.chunk_size,
            complete=complete,
            files=tuple(files),
            machine=unit.machine,
            missing=unit.missing,
            findings=unit.findings,
            failed=tuple(failed),
        )

    def _state(self, here: TargetRun) -> CaptureState:
        units = tuple(
            UnitState(
                *(unit.id, unit.name, unit.folder, sum(job.file.size for job in self._jobs[unit.folder])),
                copies=tuple(self._unit_copy(run, unit) for run in self._runs),
                files=layout(unit),
                whole=not any(f.severity in NOT_WHOLE for f in unit.findings),
            )
            for unit in self._plan.units
        )
        state = CaptureState(
            *(FORMAT, __version__, self._plan.name, identity(self._plan), self._plan.host),
            *(self._started, self._now(), here.id),
            targets=tuple(run.state for run in self._runs),
            units=units,
            config_only=self._plan.config_only,
        )
        old = None
        if here.alive:
            with here.guarded():
                old = read_state(here.target, here.folder)
        return with_absent_targets(state, old)

    def _unit_copy(self, run: TargetRun, unit: CaptureUnit) -> UnitCopy:
        earlier = run.earlier(unit.folder)
        sealed = self._sealed.get((run.id, unit.folder))
        if sealed is not None:
            return replace(sealed, earlier=earlier)
        needs = self._needs(unit)
        reasons = [f"{j.path}: {self._faults(run, j)}" for j in needs if not self._is_through(run, j)][:1]
        if run.was_other(unit):
            reasons = ["an earlier run has copied it with other files; it is to be copied anew"]
        if run.problem is not None:
            reasons.insert(0, str(run.problem))
        return UnitCopy(run.id, "unfinished", tuple(reasons), earlier)

    def _write_state(self) -> None:
        for run in self._alive:
            with run.guarded(), suppress(FormatError):
                run.target.replace(f"{run.folder}/{STATE}", to_json(self._state(run)).encode())


class _Counter:
    """Bytes that several threads have read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._value = 0

    def add(self, count: int) -> None:
        with self._lock:
            self._value += count

    def take(self) -> int:
        with self._lock:
            value, self._value = self._value, 0
            return value


def _relative(parent: str | None, folder: str) -> str | None:
    """A parent disk's path as the unit's manifest names it."""
    if parent is None:
        return None
    return parent[len(folder) + 1 :] if parent.startswith(f"{folder}/") else f"../{parent}"
