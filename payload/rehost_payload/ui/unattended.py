"""Carries out orders without an operator and says on every console how it ended, for people and for scripts.

The last line is ``REHOST-RESULT <exit code> <word>``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rehost_payload.repair.model import Choices, Engine
from rehost_payload.repair.session import Outcome
from rehost_payload.system.host import Host, HostError
from rehost_payload.ui.answer import Orders, OrdersError
from rehost_payload.ui.console import Console
from rehost_payload.ui.exit_codes import INTERRUPTED, USAGE
from rehost_payload.ui.fault import fault
from rehost_payload.ui.lock import Busy, work_lock
from rehost_payload.ui.run import EXIT
from rehost_payload.ui.texts import Texts
from rehost_payload.ui.work import UnknownChoice, Worker


def announce(host: Host, code: int, word: str) -> None:
    host.announce(f"REHOST-RESULT {code} {word}")


def refuse(error: Exception, texts: Texts, console: Console, host: Host) -> None:
    """Orders that cannot be understood: nothing is run, nothing is switched off, the menu stays."""
    console.say()
    console.say(texts("unattended.bad", reason=error))
    announce(host, USAGE, "usage")


def carry_out(
    orders: Orders,
    texts: Texts,
    complete: Callable[[Orders], Orders],
    make_worker: Callable[[], Worker],
    console: Console,
    host: Host,
    folder: Path,
) -> bool:
    """Runs what ``orders`` say. True if the machine is going down, False if the menu shall come up.

    ``complete`` adds what an answer file says; it may raise OrdersError.
    """
    code, word = 1, "failed"
    try:
        orders = complete(orders)
        console.say(texts("unattended.start", mode=orders.mode, source=", ".join(orders.sources)))
        with work_lock(f"unattended {orders.mode}", folder=folder):
            worker = make_worker()
            worker.attended = False
            if orders.mode == "capture":
                code, word = _capture(orders, worker)
            else:
                outcome = _run(orders, worker)
                _show(outcome, worker)
                code, word = EXIT[outcome.result.word], outcome.result.word.value
    except (OrdersError, UnknownChoice) as e:
        refuse(e, texts, console, host)
        return False
    except KeyboardInterrupt:
        code, word = INTERRUPTED, "interrupted"
        console.say(texts("menu.interrupted"))
    except Busy as e:
        console.say(texts("menu.busy", holder=e))
    except Exception as e:
        console.say_all(fault(e, texts, folder))
    announce(host, code, word)
    return code != INTERRUPTED and _after(orders.after, texts, console, host)


def _run(orders: Orders, worker: Worker) -> Outcome:
    choices = Choices(orders.windows, orders.system_volume)
    worker.engine = Engine(orders.engine or Engine.PORTABLE)
    if orders.mode == "survey":
        return worker.survey()
    if not orders.yes:
        worker.say(worker.texts("unattended.no-consent"))
        return worker.survey()
    if orders.mode == "undo":
        return worker.undo(None)
    return worker.repair(worker.consenting(choices), choices)


def _capture(orders: Orders, worker: Worker) -> tuple[int, str]:
    """Without a yes everything is shown and nothing is written."""
    from rehost_payload.ui.capture_face import consented, perform, report
    from rehost_payload.ui.capture_lines import bad_orders
    from rehost_payload.ui.capture_work import BadOrders, CaptureOrders

    source = ", ".join(orders.sources)
    if not orders.targets:
        raise OrdersError(source, "a capture needs 'targets'")
    if not orders.yes:
        worker.say(worker.texts("unattended.no-consent-capture"))
    wishes = CaptureOrders(
        orders.targets,
        orders.vms,
        config_only=bool(orders.config_only),
        images=bool(orders.with_iso),
        windows=orders.windows,
    )
    try:
        outcome = perform(worker, wishes, consented, dry_run=not orders.yes)
    except BadOrders as e:
        raise OrdersError(source, bad_orders(e, worker.texts)) from e
    report(worker, outcome)
    if outcome.word is None:
        return INTERRUPTED, "interrupted"
    return EXIT[outcome.word], outcome.word.value


def _show(outcome: Outcome, worker: Worker) -> None:
    page = worker.page(outcome.after or outcome.before)
    result = outcome.result
    lines: list[str] = []
    if result.mode == "survey" and outcome.before is not None:
        lines += page.survey(outcome.before)
    if result.diagnosis_before is not None and result.mode != "undo" and not result.changes:
        lines += page.diagnosis(result.diagnosis_before)
    worker.console.say_all(lines + page.result(result))
    worker.say_report(outcome)


def _after(after: str | None, texts: Texts, console: Console, host: Host) -> bool:
    if after not in ("reboot", "poweroff"):
        return False
    console.say(texts(f"unattended.after-{after}"))
    try:
        host.power(after)
    except HostError as e:
        console.say(texts("menu.failed", reason=e))
        return False
    return True
