"""A capture as the operator meets it: shown, asked for, watched and reported, on every face in the same way."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rehost_payload.capture.copy_estimate import Estimate
from rehost_payload.capture.copy_progress import CopyProgress
from rehost_payload.repair.model import ResultWord
from rehost_payload.ui.capture_lines import (
    CopyLine,
    candidate_text,
    estimate_line,
    outcome_lines,
    prepared_lines,
    unit_name,
    worth_measuring,
)
from rehost_payload.ui.capture_work import (
    MOST_TARGETS,
    CaptureOrders,
    CaptureOutcome,
    Opener,
    Prepared,
    blocked,
    prepare,
    refused,
    resolve,
    run,
)
from rehost_payload.ui.describe import size
from rehost_payload.ui.work import Worker, is_yes, one_interrupt

if TYPE_CHECKING:
    from rehost_payload.system.protocol import System

Ask = Callable[[Prepared], bool]


def perform(
    worker: Worker, orders: CaptureOrders, ask: Ask, *, dry_run: bool = False, volumes: bool = True
) -> CaptureOutcome:
    """Looks, shows, asks, copies. ``volumes``: volumes of this machine may be targets.

    Raises BadOrders, SystemError_ and KeyboardInterrupt before anything was written, none of them later.
    """
    targets = resolve(orders.targets, worker.system if volumes else None)
    worker.progress.label = worker.texts("capture.looking")
    prepared = prepare(worker.system, orders, targets, worker.progress)
    worker.progress.close()
    why = refused(prepared, worker.system) if targets else None
    if why is not None and why[0] == "source-disk":
        return blocked(
            prepared, why
        )  # a target is not searched, so what was found of the machines there is not all
    worker.show(prepared_lines(prepared, worker.page(None)))
    if not targets:
        return _unwritten(ResultWord.PLANNED, prepared)
    return _ask_and_copy(worker, prepared, ask, dry_run)


def _ask_and_copy(worker: Worker, prepared: Prepared, ask: Ask, dry_run: bool = False) -> CaptureOutcome:
    """A target that can be refused now is refused before the question."""
    why = refused(prepared, worker.system)
    if why is not None:
        return blocked(prepared, why)
    if dry_run:
        return _unwritten(ResultWord.PLANNED, prepared)
    if not ask(prepared):
        return _unwritten(ResultWord.DECLINED, prepared)
    return _copy(worker, prepared)


def _unwritten(word: ResultWord, prepared: Prepared) -> CaptureOutcome:
    return CaptureOutcome(word, prepared.plan, findings=prepared.findings)


def _copy(worker: Worker, prepared: Prepared) -> CaptureOutcome:
    def starting(measure: Callable[[], Estimate]) -> None:
        if worth_measuring(prepared):
            worker.say(worker.texts("capture.measuring"))
            if line := estimate_line(measure(), worker.texts):
                worker.say(line)
        worker.console.say_all(["", *worker.page(None).wrap(worker.texts("capture.started"))])

    show: Callable[[CopyProgress], None] = CopyLine(worker.progress, worker.texts)
    with one_interrupt():
        outcome = run(
            prepared, worker.system, worker.texts.language, show, uncached_reader(worker.system), starting
        )
    worker.progress.close()
    return outcome


def uncached_reader(system: System) -> Opener | None:
    """Disks of this machine are read past the cache; images are small, or their reader has a way of its own."""
    if system.name != "linux":
        return None
    from rehost_payload.system.direct import DirectSource

    return DirectSource


def report(worker: Worker, outcome: CaptureOutcome) -> None:
    worker.show(outcome_lines(outcome, worker.page(None)))


# --- asking ----------------------------------------------------------------------------------------------------


def asking(worker: Worker) -> Ask:
    def ask(prepared: Prepared) -> bool:
        worker.console.say()
        return is_yes(worker.console.ask(worker.texts("capture.consent")))

    return ask


def consented(prepared: Prepared) -> bool:
    return True


def choose_targets(worker: Worker) -> tuple[str, ...]:
    """The volumes that the operator picks from a list; empty: he went back, or there is none."""
    from rehost_payload.capture.targets import candidates

    worker.progress.label = worker.texts("progress.survey")
    found = [c for c in candidates(worker.system) if c.unfit != "windows"]
    worker.progress.close()
    if not any(c.unfit is None for c in found):
        worker.console.say_all(_list(worker, [candidate_text(c, worker.texts) for c in found]))
        worker.say(worker.texts("capture.no-candidates"))
        return ()
    lines = _list(worker, [candidate_text(c, worker.texts) for c in found])
    picked = _pick(worker, lines, "capture.choose-targets", len(found), MOST_TARGETS)
    return tuple(found[n].id for n in picked)


def choose_machines(worker: Worker, prepared: Prepared) -> tuple[str, ...] | None:
    """Identifiers of the chosen machines, None for all."""
    units = [u for u in prepared.plan.units if u.kind == "machine"]
    if len(units) < 2:
        return None
    lines = _list(worker, [f"{unit_name(u, worker.texts)}: {size(u.size)}" for u in units])
    picked = _pick(worker, lines, "capture.choose-machines", len(units), len(units))
    return tuple(units[n].id for n in picked) or None


def _list(worker: Worker, texts: Sequence[str]) -> list[str]:
    page = worker.page(None)
    return [line for number, text in enumerate(texts, 1) for line in page.wrap(f"{number}  {text}", 2, 3)]


def _pick(worker: Worker, lines: list[str], prompt: str, count: int, most: int) -> list[int]:
    """Indices of what was typed as "1, 3"; empty for an empty line."""
    worker.console.say()
    worker.show(lines)
    while True:
        answer = worker.console.ask(worker.texts(prompt))
        words = [w for w in re.split(r"[\s,;]+", answer) if w]
        if not words:
            return []
        numbers = [int(w) - 1 for w in words if w.isascii() and w.isdecimal()]
        if len(numbers) != len(words) or not all(0 <= n < count for n in numbers):
            worker.say(worker.texts("capture.choose-again", count=count))
        elif len(set(numbers)) > most:
            worker.say(worker.texts("capture.choose-two"))
        else:
            return list(dict.fromkeys(numbers))


def interactive(worker: Worker) -> CaptureOutcome | None:
    """The menu's way: targets, a look, machines, the question. None: the operator went back."""
    names = choose_targets(worker)
    if not names:
        return None
    orders = CaptureOrders(names)
    targets = resolve(names, worker.system)
    worker.progress.label = worker.texts("capture.looking")
    prepared = prepare(worker.system, orders, targets, worker.progress)
    worker.progress.close()
    why = refused(prepared, worker.system)
    if why is not None and why[0] != "no-space":
        return blocked(prepared, why)  # before he chooses among machines, for nothing
    machines = choose_machines(worker, prepared)
    if machines is not None:
        return perform(worker, replace(orders, machines=machines), asking(worker))
    worker.show(prepared_lines(prepared, worker.page(None)))
    return _ask_and_copy(worker, prepared, asking(worker))
