"""The pipeline from survey to report, for every face that starts it: menu, command line, answer file.

survey -> diagnose -> plan -> consent -> apply -> survey again -> verify -> report. Nothing is written before
consent, the journal's folder included; a healthy machine gets no writes at all (the report of one goes to a volume
labelled REHOST, which is the operator's own, or nowhere).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from rehost_payload import __version__
from rehost_payload.formats.errors import FormatError
from rehost_payload.repair.apply import Applied, apply_plan
from rehost_payload.repair.diagnose import diagnose
from rehost_payload.repair.dism import chosen_tool
from rehost_payload.repair.errors import ApplyError
from rehost_payload.repair.journal import (
    HOME,
    Journal,
    JournalContent,
    TreeStep,
    find_journals,
    make_folders,
)
from rehost_payload.repair.locate import locate_volume, reading
from rehost_payload.repair.model import (
    Change,
    Choices,
    CreateStore,
    Diagnosis,
    EditStore,
    Engine,
    Note,
    Plan,
    ResultWord,
    RunResult,
    Severity,
    Verdict,
    Verification,
    VolumeRef,
)
from rehost_payload.repair.places import JournalPlace, journal_homes, journal_places
from rehost_payload.repair.plan import plan as make_plan
from rehost_payload.repair.tree import parse_record
from rehost_payload.repair.undo import changed_by_a_start, undo
from rehost_payload.repair.verify import verify
from rehost_payload.repair.view import View
from rehost_payload.repair.writing import mounted
from rehost_payload.survey.model import Survey
from rehost_payload.survey.run import survey_machine
from rehost_payload.system.protocol import DriverTool, Progress, System, SystemError_, WritableVolume


@dataclass(frozen=True)
class Consent:
    """The operator's answer. ``choices`` are set where he was asked for one; the plan is then made anew."""

    yes: bool
    choices: Choices | None = None


@dataclass(frozen=True)
class Outcome:
    """A run's result with the surveys it is based on, and where its report files were written."""

    result: RunResult
    before: Survey | None
    after: Survey | None
    report: str | None = None


Ask = Callable[[Survey, Diagnosis, Plan, "JournalPlace | None"], Consent]
"""Shows diagnosis and plan, and where the originals would be kept; returns the operator's answer."""

Files = Callable[[Outcome], Mapping[str, bytes]]
"""Renders the report files of a run: name -> content."""


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def run_survey(system: System, progress: Progress | None = None) -> Outcome:
    """Survey, diagnosis and verification; writes nothing."""
    started = now()
    survey = survey_machine(system, progress)
    diagnosis, plan = diagnose(survey), make_plan(survey)
    word = word_without_writing(diagnosis, plan)
    result = RunResult(word, started, now(), "survey", diagnosis, plan, verification=verify(survey))
    return Outcome(result, survey, None)


def word_without_writing(diagnosis: Diagnosis, plan: Plan) -> ResultWord:
    """How a run ends that only looked: a plan is promised only where there is one."""
    if diagnosis.healthy:
        return ResultWord.HEALTHY
    if diagnosis.question is not None:
        return ResultWord.CHOICE_NEEDED
    if plan.actions:
        return ResultWord.PLANNED
    blocked = any(f.severity is Severity.BLOCKER for f in diagnosis.findings)
    return ResultWord.BLOCKED if blocked else ResultWord.NOT_REPAIRED


def run_repair(
    system: System,
    ask: Ask,
    choices: Choices | None = None,
    progress: Progress | None = None,
    dry_run: bool = False,
    files: Files | None = None,
    engine: Engine = Engine.PORTABLE,
) -> Outcome:
    """The whole repair. Never raises ApplyError: how it ended is the result's word.

    ``engine`` installs driver packages; where it cannot, ours does, and the result's notes say why.
    KeyboardInterrupt leaves everything as it was (apply rolls back) and goes on to the caller.
    """
    started = now()
    choices = choices or Choices()
    survey = survey_machine(system, progress)
    diagnosis, plan = diagnose(survey, choices), make_plan(survey, choices)
    places = journal_places(survey, choices)

    def ended(word: ResultWord, error: str | None = None, **more: object) -> Outcome:
        base = RunResult(word, started, now(), "repair", diagnosis, plan, error=error)
        return Outcome(replace(base, **more), survey, None)  # type: ignore[arg-type]

    if not survey.disks and survey.problems:  # not a machine without a Windows: one that we could not look at
        problem = survey.problems[0]
        error = f"disks: none could be read: {problem.where}: {problem.detail}"
        return ended(ResultWord.FAILED, error, diagnosis_before=None, plan=None)
    if diagnosis.healthy:
        return _kept(system, places, files, ended(ResultWord.HEALTHY, verification=verify(survey, choices)))
    word = word_without_writing(diagnosis, plan)
    if dry_run:
        return ended(word, notes=chosen_tool(plan, system, engine)[1])
    if word in (ResultWord.BLOCKED, ResultWord.NOT_REPAIRED):
        note = _interrupted(system, survey) if word is ResultWord.BLOCKED else None
        return _kept(system, places, files, ended(word, note, verification=verify(survey, choices)))
    half = _half_installed(system, survey)
    if half is not None:
        return _kept(system, places, files, ended(ResultWord.BLOCKED, half))
    consent = ask(survey, diagnosis, plan, places[0] if places else None)
    if consent.choices is not None and consent.choices != choices:
        choices = consent.choices
        diagnosis, plan = diagnose(survey, choices), make_plan(survey, choices)
        places = journal_places(survey, choices)
    if not consent.yes:
        return ended(ResultWord.DECLINED)
    if diagnosis.question is not None or not plan.actions:
        return _kept(system, places, files, ended(ResultWord.CHOICE_NEEDED))
    if not places:
        return ended(ResultWord.FAILED, "journal: no volume where the originals could be kept")
    try:
        work = _Work(system, survey, diagnosis, plan, choices, places[0], started, progress, files)
        return _repair(work, *chosen_tool(plan, system, engine))
    except ApplyError as e:
        more = {"rolled_back": e.rolled_back, "journal": e.journal, "notes": e.notes}
        return _kept(system, places, files, ended(ResultWord.FAILED, str(e), **more))
    except (SystemError_, OSError) as e:
        return ended(ResultWord.FAILED, str(e))


@dataclass(frozen=True)
class _Work:
    """A repair that was consented to."""

    system: System
    survey: Survey
    diagnosis: Diagnosis
    plan: Plan
    choices: Choices
    place: JournalPlace
    started: str
    progress: Progress | None
    files: Files | None


def _repair(work: _Work, tool: DriverTool | None, notes: tuple[Note, ...]) -> Outcome:
    system, place = work.system, work.place
    trouble: Exception | None = None
    applied: Applied | None = None
    broken_off: ApplyError | None = None
    where = place.id
    try:
        with mounted(system, place.volume) as volume:
            folder = _run_folder(volume, work.started)
            where = f"{place.id} {folder}\\journal"
            about = {"rehost": __version__, "started": work.started, "mode": "repair"}
            journal = Journal.create(volume, folder, about)
            try:
                applied = apply_plan(work.plan, system, journal, work.progress, tool)
            except ApplyError as e:
                broken_off = e
                raise
    except (ApplyError, SystemError_, OSError) as e:
        # whether all was rolled back counts, not that a stick that is gone cannot be flushed either
        counts = broken_off or (e if isinstance(e, ApplyError) else None)
        if counts is not None:
            counts.journal = where
            counts.notes = _together(notes, counts.notes)
            raise counts from counts.__cause__
        if applied is None:
            raise
        trouble = e  # all is written and flushed; only unmounting the journal's volume failed
    assert applied is not None
    made = RunResult(
        ResultWord.NOT_REPAIRED,
        work.started,
        now(),
        "repair",
        work.diagnosis,
        work.plan,
        applied.changes,
        journal=where,
        notes=_together(notes, applied.notes),
    )
    try:
        after = survey_machine(system, work.progress)
    except (SystemError_, OSError) as e:  # written, but nobody has seen that it is right
        error = f"verify: the disks could not be looked at again: {e}"
        return Outcome(replace(made, finished=now(), error=error), work.survey, None)
    verification = _verified(after, work.plan, work.choices)
    if applied.by_tool and trouble is None and (failed := _drivers_failed(verification)):
        return _without_tool(work, where, folder, failed)
    diagnosis_after = diagnose(after, work.choices)
    result = replace(
        made,
        word=_judged(verification, diagnosis_after),
        finished=now(),
        verification=verification,
        diagnosis_after=diagnosis_after,
    )
    outcome = Outcome(result, work.survey, after)
    if trouble is not None:
        return _noted(outcome, place.id, trouble)
    if work.files is not None:
        try:
            with mounted(system, place.volume) as volume:
                _write_files(volume, folder, work.files(outcome))
        except (SystemError_, OSError) as e:  # the work is done and verified all the same
            return _noted(outcome, place.id, e)
        return replace(outcome, report=f"{place.id} {folder}")
    return outcome


def _verified(after: Survey, plan: Plan, choices: Choices) -> Verification:
    """The verdict on the way that the firmware is likely to go. Where stores on other system partitions were written, a
    verdict that one of these leads nowhere goes first: a Windows on another disk, which starts as well as ever, is no
    proof of the repair."""
    likely = verify(after, choices)
    if likely.chain is Verdict.FAIL or choices.system_volume is not None:
        return likely
    written = {
        a.volume
        for a in plan.actions
        if isinstance(a, EditStore | CreateStore) and "\\recovery\\" not in a.path.lower()
    }
    view = View(after, choices)
    own = (
        verify(after, replace(choices, system_volume=v.id)) for v in after.volumes if view.ref(v) in written
    )
    return next((v for v in own if v.chain is Verdict.FAIL), likely)


def _together(chosen: tuple[Note, ...], made: tuple[Note, ...]) -> tuple[Note, ...]:
    """What was said before the run and what came of it."""
    return made or tuple(replace(n, id="dism-used") if n.id == "dism-chosen" else n for n in chosen)


_OF_A_PACKAGE = (
    "verify.storage-driver",
    "verify.driver-record",
    "verify.driver-service",
    "verify.driver-file",
)


def _drivers_failed(verification: Verification) -> str:
    """What the judge has against the drivers, technical; empty where there is nothing."""
    failed = (c for c in verification.checks if c.verdict is Verdict.FAIL and c.id in _OF_A_PACKAGE)
    return "; ".join(f"{c.id}: {c.reason}" for c in failed)


def _without_tool(work: _Work, where: str, folder: str, failed: str) -> Outcome:
    """Everything is put back and done once more by our own engine: the judge does not pass what the tool has made."""
    try:
        with mounted(work.system, work.place.volume) as volume:
            undo(Journal(volume, folder), work.system, work.progress)
    except (ApplyError, SystemError_, OSError) as e:
        error = ApplyError("write", f"dism: {failed}; putting it back failed: {e}", rolled_back=False)
        error.journal = where
        raise error from e
    return _repair(work, None, (Note("dism-judged", {"detail": failed}),))


def _judged(verification: Verification, diagnosis: Diagnosis) -> ResultWord:
    """Repaired only where the judge passes every needed point and nothing fatal is left.

    Where the disk is behind no PCI controller (virtual machines of Hyper-V, Xen) there is no driver to be judged: the
    way to the loader counts, and the verification says what was not checked.
    """
    fatal = any(f.severity in (Severity.FATAL, Severity.BLOCKER) for f in diagnosis.findings)
    passed = verification.verdict is Verdict.PASS
    if not verification.controller_known:
        passed = verification.verdict is not Verdict.FAIL and verification.chain is Verdict.PASS
    return ResultWord.REPAIRED if passed and not fatal else ResultWord.NOT_REPAIRED


def _run_folder(volume: WritableVolume, started: str) -> str:
    """A folder of its own for every run, named by its start; the clock may stand still or go back."""
    stamp = started.replace("-", "").replace(":", "")
    taken = {n.lower() for n in volume.listdir(HOME)} if volume.exists(HOME) else set()
    name, number = stamp, 1
    while name.lower() in taken:
        number += 1
        name = f"{stamp}-{number}"
    return f"{HOME}\\{name}"


def _kept(system: System, places: tuple[JournalPlace, ...], files: Files | None, outcome: Outcome) -> Outcome:
    """Leaves the report on the operator's own volume, and only there: nothing was changed on the others."""
    own = [p for p in places if p.reason == "label"]
    if files is None or not own:
        return outcome
    try:
        with mounted(system, own[0].volume) as volume:
            folder = _run_folder(volume, outcome.result.started)
            _write_files(volume, folder, files(outcome))
    except (SystemError_, OSError) as e:
        return _noted(outcome, own[0].id, e)
    return replace(outcome, report=f"{own[0].id} {folder}")


def _noted(outcome: Outcome, volume: str, error: Exception) -> Outcome:
    """The outcome with a word on why there is no report."""
    note = f"the report could not be written to {volume}: {error}"
    before = outcome.result.error
    return replace(outcome, result=replace(outcome.result, error=f"{before}; {note}" if before else note))


def _write_files(volume: WritableVolume, folder: str, content: Mapping[str, bytes]) -> None:
    make_folders(volume, folder)
    for name, data in content.items():
        volume.replace(f"{folder}\\{name}", data)


@dataclass(frozen=True)
class PastRun:
    """A run whose journal was found."""

    volume: VolumeRef
    volume_id: str
    folder: str
    stamp: str
    content: JournalContent

    @property
    def undoable(self) -> bool:
        return bool(self.content.open_entries) and not self.content.all_undone


@dataclass(frozen=True)
class _Found:
    """A journal; ``content`` is what is wrong with it where it is damaged."""

    place: JournalPlace
    folder: str
    content: JournalContent | ApplyError

    @property
    def stamp(self) -> str:
        return self.folder.rpartition("\\")[2]


def past_runs(system: System, survey: Survey | None = None) -> tuple[PastRun, ...]:
    """The runs whose journals lie on a volume where a run may keep them, newest first; without damaged ones."""
    return _whole(_journals(system, survey or survey_machine(system)))


def _whole(journals: Iterable[_Found]) -> tuple[PastRun, ...]:
    return tuple(
        PastRun(j.place.volume, j.place.id, j.folder, j.stamp, j.content)
        for j in journals
        if isinstance(j.content, JournalContent)
    )


def _journals(system: System, survey: Survey) -> list[_Found]:
    """Newest first."""
    found: list[_Found] = []
    for place in journal_homes(survey):
        try:
            with reading(system, place.volume) as reader:
                found += [_Found(place, folder, content) for folder, content in find_journals(reader)]
        except (SystemError_, FormatError, OSError):
            continue  # a place that cannot be looked at has nothing that we could undo from
    return sorted(found, key=lambda j: j.stamp, reverse=True)


def _interrupted(system: System, survey: Survey) -> str | None:
    """A word on a run that did not come to its end: what it left may be what stands in the way."""
    open_runs = [r for r in past_runs(system, survey) if r.undoable and not r.content.complete]
    return (
        f"interrupted: an earlier repair ({open_runs[0].stamp}) did not finish; undo it first"
        if open_runs
        else None
    )


def _half_installed(system: System, survey: Survey) -> str | None:
    """A word on a run that was cut off while DISM worked: half of a package is in the installation then. Where Windows
    was started since, that is its present state, and undo would throw away what it has written."""
    for run in past_runs(system, survey):
        steps = [e.step for e in run.content.open_entries if isinstance(e.step, TreeStep) and not e.done]
        # a stick may have been in other servers
        if any(_is_here(system, step.volume) and not _went_on(system, run, step) for step in steps):
            return f"interrupted: DISM was cut off in an earlier repair ({run.stamp}); undo it first"
    return None


def _went_on(system: System, run: PastRun, step: TreeStep) -> bool:
    try:
        with reading(system, run.volume) as reader:
            record = parse_record(reader.read(f"{run.folder}\\journal\\{step.record}"), step)
        return bool(changed_by_a_start(record, step, system))
    except (ApplyError, SystemError_, FormatError, OSError):
        return False


def _is_here(system: System, volume: VolumeRef) -> bool:
    try:
        locate_volume(system, volume)
    except (SystemError_, FormatError, OSError):
        return False
    return True


def run_undo(
    system: System,
    stamp: str | None = None,
    progress: Progress | None = None,
    force: bool = False,
    files: Files | None = None,
) -> Outcome:
    """Undoes the newest run that can be undone, or the one named ``stamp``. Never raises ApplyError.

    Where the journal of a newer one is damaged, nothing is undone unless a run is named.
    """
    started = now()
    before = survey_machine(system, progress)

    def ended(
        word: ResultWord, error: str | None, changes: tuple[Change, ...], journal: str | None
    ) -> Outcome:
        diagnosis = diagnose(before)
        return Outcome(
            RunResult(word, started, now(), "undo", diagnosis, changes=changes, error=error, journal=journal),
            before,
            None,
        )

    journals = [j for j in _journals(system, before) if stamp in (None, j.stamp)]
    runs = _whole(journals)
    undoable = [r for r in runs if r.undoable]
    damaged = [j for j in journals if isinstance(j.content, ApplyError)]
    if damaged and not (
        undoable and undoable[0].stamp > damaged[0].stamp
    ):  # an older run is not undone in its stead
        first = damaged[0]
        where = f"{first.place.id} {first.folder}\\journal"
        return ended(ResultWord.FAILED, f"{first.content} ({where})", (), where)
    if not undoable:
        why = "nothing is left to undo" if runs else "no journal of such a run was found"
        return ended(ResultWord.FAILED, f"journal: {why}", (), None)
    run = undoable[0]
    where = f"{run.volume_id} {run.folder}\\journal"
    try:
        with mounted(system, run.volume) as volume:
            changes = undo(Journal(volume, run.folder), system, progress, force)
    except (ApplyError, SystemError_, OSError) as e:
        return ended(ResultWord.FAILED, str(e), (), where)
    after = survey_machine(system, progress)
    outcome = replace(
        ended(ResultWord.UNDONE, None, changes, where),
        after=after,
    )
    outcome = replace(outcome, result=replace(outcome.result, diagnosis_after=diagnose(after)))
    if files is not None:
        try:
            with mounted(system, run.volume) as volume:
                _write_files(volume, run.folder, {f"undo-{n}": d for n, d in files(outcome).items()})
        except (SystemError_, OSError) as e:
            return _noted(outcome, run.volume_id, e)
        return replace(outcome, report=f"{run.volume_id} {run.folder}")
    return outcome
