"""A capture as lines of plain text: what would be copied, how far it is, how it ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rehost_payload.capture.copy_estimate import Estimate
from rehost_payload.capture.copy_progress import CopyProgress
from rehost_payload.capture.copy_state import UNSEEN, CaptureState, UnitCopy, UnitState
from rehost_payload.capture.model import NOT_WHOLE, CaptureUnit
from rehost_payload.capture.present import Present, together
from rehost_payload.capture.targets import Candidate
from rehost_payload.repair.model import Diagnosis
from rehost_payload.ui import describe
from rehost_payload.ui.capture_page import earlier_texts, summary
from rehost_payload.ui.capture_show import CapturePage
from rehost_payload.ui.capture_work import (
    BadOrders,
    CaptureOutcome,
    ChosenTarget,
    Prepared,
    Refusal,
)
from rehost_payload.ui.progress import ProgressLine
from rehost_payload.ui.run import EXIT
from rehost_payload.ui.show import Page, grouped, part, remedy, title
from rehost_payload.ui.texts import Texts

_USUAL_RATE = 120_000_000  # bytes per second of an external hard disk
_WORTH_ESTIMATING = 2 << 30
_MOST_REASONS = 3


def time_text(seconds: float, t: Texts) -> str:
    """90 -> "2 min"; hours for what takes longer than one."""
    if seconds < 90:
        return t("capture.seconds", seconds=max(1, round(seconds)))
    minutes = round(seconds / 60)
    if minutes < 90:
        return t("capture.minutes", minutes=minutes)
    return t("capture.hours", hours=minutes // 60, minutes=minutes % 60)


def unit_name(unit: CaptureUnit | UnitState, t: Texts) -> str:
    key = {"host": "capture.unit-host", "orphans": "capture.unit-orphans"}.get(unit.id)
    if key:
        return t(key)
    # two machines of one name are told apart by their folders
    return unit.folder if unit.folder.startswith(unit.name) else f"{unit.name} ({unit.folder})"


def worth_measuring(prepared: Prepared) -> bool:
    return prepared.plan.size >= _WORTH_ESTIMATING


# --- before ----------------------------------------------------------------------------------------------------


def prepared_lines(prepared: Prepared, page: Page) -> list[str]:
    """Host, machines, findings, targets, estimate: everything before the question."""
    t, plan = page.t, prepared.plan
    shown = CapturePage(t, page.width, page.ascii)
    out = shown.host(plan, prepared.found.settings)
    out += shown.machines(plan.units)
    if prepared.findings:
        out += page.diagnosis(Diagnosis(prepared.findings, False))
    if prepared.targets:
        out += page.heading(t("capture.targets"))
        for target in prepared.targets:
            out += page.wrap(target_text(target, t), 0, 4)
            if target.name in prepared.resumed:
                out += page.wrap(t("capture.resumed", folder=prepared.resumed[target.name]), 4)
                if names := prepared.renewed.get(target.name):
                    out += page.wrap(t("capture.renewed", names=", ".join(names)), 4)
                if names := prepared.kept.get(target.name):
                    out += page.wrap(t("capture.renewed-kept", names=", ".join(names)), 4)
                if names := prepared.replaced.get(target.name):
                    out += page.wrap(t("capture.renewed-no-room", names=", ".join(names)), 4)
            elif target.name in prepared.others:
                out += page.wrap(t("capture.not-resumed", folder=prepared.others[target.name]), 4)
            if target.volume is not None and target.volume.volume.dirty:
                out += page.wrap(t("capture.check-later"), 4)
    if worth_measuring(prepared):
        seconds = 2 * plan.size / _USUAL_RATE
        out += page.wrap(t("capture.estimate", time=time_text(seconds, t), rate=_USUAL_RATE // 1_000_000))
    return [*out, *page.wrap(t("capture.nothing-erased"))]


def target_text(target: ChosenTarget, t: Texts) -> str:
    if target.volume is None:
        return target.name
    return candidate_text(target.volume, t)


def candidate_text(candidate: Candidate, t: Texts) -> str:
    """ "disk1p1 'BACKUP1' (Samsung T7, USB)": NTFS, 900 GiB free of 931 GiB"."""
    volume, disk = candidate.volume, candidate.disk
    label = f" '{volume.label}'" if volume.label else ""
    facts = ", ".join(x for x in (disk.model, disk.transport, disk.path) if x)
    name = f"{volume.id}{label} ({facts})"
    kind = volume.file_system.value.upper()
    text = t(
        "capture.target",
        name=name,
        kind=kind,
        free=describe.size(volume.free) if volume.free is not None else "?",
        size=describe.size(volume.size),
    )
    return f"{text}  [{refusal_part(candidate.unfit, 'title', t)}]" if candidate.unfit else text


def estimate_line(measured: Estimate, t: Texts) -> str | None:
    if measured.seconds is None:
        return None
    return t("capture.measured", time=time_text(measured.seconds, t))


# --- during ----------------------------------------------------------------------------------------------------


class CopyLine:
    """Shows CopyProgress on one line, with rate and time left; a target that fails gets a line of its own."""

    def __init__(self, line: ProgressLine, t: Texts) -> None:
        self._line = line
        self._t = t
        self._failed: set[str] = set()

    def __call__(self, progress: CopyProgress) -> None:
        for name in progress.failed_targets:
            if name not in self._failed:
                self._failed.add(name)
                self._line.notice(self._t("capture.target-failed", name=name))
        self._line.show(progress_text(progress, self._t))


def progress_text(progress: CopyProgress, t: Texts) -> str:
    share = progress.unit_done / progress.unit_total if progress.unit_total else 1.0
    params = {
        "done": describe.size(progress.done // 2),
        "total": describe.size(progress.total // 2),
        "name": progress.name,
        "phase": t(f"capture.phase-{progress.phase}"),
        "share": f"{share:.0%}",
    }
    if not progress.rate or progress.eta is None:
        return t("capture.progress-unknown", **params)
    rate = progress.rate / 1_000_000
    left = time_text(progress.eta, t)
    return t("capture.progress", rate=f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}", left=left, **params)


# --- after -----------------------------------------------------------------------------------------------------


def outcome_lines(outcome: CaptureOutcome, page: Page) -> list[str]:
    """The copies of each unit, and the result with what to do next."""
    t = page.t
    out: list[str] = []
    if outcome.state is not None:
        out += state_lines(outcome.state, outcome.machines, page)
    for name, reason in outcome.troubles:
        out += page.wrap(t("capture.target-trouble", name=name, reason=reason))
    if outcome.word is None:
        return [*out, "", *page.wrap(t("capture.interrupted"))]
    word = outcome.word.value
    out += page.heading(
        f"{t('show.result')}: {t.part('result', word, 'word') or word} ({EXIT[outcome.word]})"
    )
    if outcome.refused is not None:
        return out + refusal_lines(outcome.refused, page)
    out += page.wrap(t.part("result", word, "title") or word)
    out += shortfalls(outcome, page)
    if outcome.state is not None:
        written = ", ".join(target.name for target in outcome.state.targets if not target.code)
        if written:  # a target that failed has no page
            out += page.wrap(t("capture.where", targets=written, folder=outcome.plan.name))
    # the same word after a repair has another next step
    whole = outcome.state is not None and not any(_lacking(u) for u in outcome.state.units)
    parts = ("capture-next-finding", "capture-next", "next") if whole else ("capture-next", "next")
    following = next((text for p in parts if (text := t.part("result", word, p))), "")
    return out + page.wrap(f"{t('show.next')}: {following}")


def shortfalls(outcome: CaptureOutcome, page: Page) -> list[str]:
    """Which machines are not whole, on which target, why, and what to do: what the number of good copies leaves out."""
    if outcome.state is None:
        return []
    t, out = page.t, list[str]()
    names = {target.id: target.name for target in outcome.state.targets}
    failed = {target.id: target.code for target in outcome.state.targets if target.code}
    for unit in outcome.state.units:
        lacking = _lacking(unit)
        good = [names.get(c.target, c.target) for c in unit.copies if c.state == "complete"]
        if lacking:
            key = "capture.short-partly" if good else "capture.short"
            out += page.wrap("- " + t(key, name=unit_name(unit, t), good=", ".join(good)), 2, 2)
        for copy in lacking:
            why = copy.reasons[0] if copy.reasons else t(f"capture.state-{copy.state}")
            out += page.labelled(t("show.cause"), f"{names.get(copy.target, copy.target)}: {why}")
            code = failed.get(copy.target)
            step = refusal_part(code, "next", t) if code else t(f"capture.short-next-{copy.state}")
            out += page.labelled(t("show.manual"), step)
    fatal = [f for f in outcome.findings if f.severity in NOT_WHOLE]
    if fatal:
        out += page.wrap(t("capture.short-findings"))
    for group in grouped(fatal):
        for text in dict.fromkeys(title(f, page.names) for f in group):
            out += page.wrap(f"- {text}", 2, 2)
        for text in dict.fromkeys(part(f, "explain", page.names) or "" for f in group):
            out += page.labelled(t("show.cause"), text)
        out += page.labelled(t("show.manual"), remedy(group[0], page.names)[1])
    return out


def _lacking(unit: UnitState) -> list[UnitCopy]:
    return [c for c in unit.copies if c.state not in ("complete", UNSEEN)]


def state_lines(state: CaptureState, machines: Sequence[UnitState], page: Page) -> list[str]:
    t = page.t
    out = page.heading(summary(state, machines, t))
    names = {target.id: target.name for target in state.targets}
    for unit in state.units:
        for copy in (c for c in unit.copies if c.state != UNSEEN):
            word = t(f"capture.state-{copy.state}")
            line = f"{unit_name(unit, t)} -> {names.get(copy.target, copy.target)}: {word}"
            out += page.wrap(line, 0, 4)
            for reason in copy.reasons[:_MOST_REASONS]:
                out += page.wrap(reason, 4, 2)
            if len(copy.reasons) > _MOST_REASONS:
                out += page.wrap(t("show.more", count=len(copy.reasons) - _MOST_REASONS), 4)
            for text in earlier_texts(copy, t):
                out += page.wrap(text, 4, 2)
    for target in state.targets:
        if target.code == UNSEEN:
            out += page.wrap(t("capture.unseen", name=target.name), 0, 4)
        elif target.code:
            reason = refusal_part(target.code, "title", t)
            out += page.wrap(f"{target.name}: {reason} ({target.detail})", 0, 4)
    return out


def refusal_part(code: str, part: str, t: Texts) -> str:
    """What a refusal is, or ("next") what to do about it; what has no words of its own refuses all the same."""
    return t.part("capturerefused", code, part) or t.part("capturerefused", "other", part) or code


def refusal_lines(refused: Refusal, page: Page) -> list[str]:
    """Cause, evidence and next step of a target that is refused."""
    code, subject, detail = refused
    t = page.t
    out = page.wrap(f"{subject}: {refusal_part(code, 'title', t)}.")
    out += page.labelled(t("show.evidence"), detail) if detail else []
    return out + page.wrap(f"{t('show.next')}: {refusal_part(code, 'next', t)}")


def bad_orders(error: BadOrders, t: Texts) -> str:
    known = f" ({t('capture.known', names=', '.join(error.known))})" if error.known else ""
    title, following = (refusal_part(error.code, part, t) for part in ("title", "next"))
    return f"{title}: {error.subject}{known}. {following}"


# --- captures on disks -----------------------------------------------------------------------------------------


def listed(found: Sequence[Present], t: Texts) -> Iterator[str]:
    """Each capture with what is good of it on the targets that are here; what others say of absent ones is no copy."""
    for capture in together(found):
        state = capture.state
        machines = machines_of(state)
        yield t("capture.listed", name=state.name, summary=summary(state, machines, t))
        for present in capture.on:
            here = [u for u in machines_of(present.state) if u.good_copies]
            yield "  " + t(
                "capture.listed-on",
                where=present.where,
                good=len(here),
                count=len(machines),
                date=present.state.updated,
            )
            for unit in present.state.units:
                for copy in unit.copies:
                    if copy.target == present.state.here and copy.state != "complete":
                        yield f"    {unit_name(unit, t)}: {t(f'capture.state-{copy.state}')}"
                        yield from (f"      {reason}" for reason in copy.reasons[:_MOST_REASONS])
                        yield from (f"      {text}" for text in earlier_texts(copy, t))
        for name, date in capture.absent:
            yield "  " + t("capture.listed-absent", name=name, date=date)


def machines_of(state: CaptureState) -> list[UnitState]:
    return [u for u in state.units if u.id not in ("host", "orphans")]
