"""The menu after start-up: what a person in front of the server sees.

It comes up before anything slow is imported; the look for an answer file and the first survey follow in the
background. Every action is guarded: whatever goes wrong in it ends in the menu again, with one clear message.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rehost_payload import __version__
from rehost_payload.system.here import this_host, this_machine
from rehost_payload.system.host import Host, HostError
from rehost_payload.ui.answer import Orders, OrdersError, command_line_orders, keymap
from rehost_payload.ui.background import FirstLook
from rehost_payload.ui.console import Console, HungUp
from rehost_payload.ui.fault import fault
from rehost_payload.ui.lock import Busy, claim, is_claimed, state_folder, work_lock
from rehost_payload.ui.progress import ProgressLine
from rehost_payload.ui.texts import CHOSEN, LANGUAGES, Texts, ascii_fold, language_of

if TYPE_CHECKING:
    from rehost_payload.system.protocol import System
    from rehost_payload.ui.work import Worker


class Item(NamedTuple):
    """``letter`` works in every language; ``text`` is the key of what is shown."""

    letter: str
    text: str
    action: Callable[[], None]


class _GoingDown(Exception):
    """Orders were carried out that switch the machine off: nothing is read any more."""


class Menu:
    """The menu on one console. ``make_system`` is called when disks are needed, not before."""

    def __init__(
        self,
        console: Console,
        make_system: Callable[[], System],
        host: Host | None = None,
        language: str | None = None,
        folder: Path | None = None,
        main: bool = True,
    ) -> None:
        self.console = console
        self.make_system = make_system
        self.host = host or this_host()
        self.texts = Texts(language_of(language))
        self.folder = folder or state_folder()
        self.main = main
        self._leave = False
        self._used = False  # somebody has chosen something: an answer file found now comes too late
        self._look: FirstLook | None = None
        self._shown_windows = ""
        items = [
            Item("s", "menu.survey", self._survey),
            Item("r", "menu.repair", self._repair),
            Item("u", "menu.undo", self._undo),
            Item("c", "menu.capture", self._capture),
            Item("l", "menu.language", self._language),
        ]
        if self.host.is_medium:
            items += [
                Item("x", "menu.shell", self._shell),
                Item("b", "menu.reboot", lambda: self._power("reboot")),
                Item("p", "menu.poweroff", lambda: self._power("poweroff")),
            ]
        else:
            items.append(Item("q", "menu.quit", self._quit))
        self.items = items

    # --- the loop ------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Until the operator leaves or the console is gone. Returns the exit code."""
        try:
            orders = self._command_line()
            if orders is not None and orders.unattended and self._unattended(orders, self._completed):
                return 0
            self._look = FirstLook(self.make_system, self.folder, answer=self._wants_answer(orders))
            self._draw()
            self._look.start()
            while not self._leave:
                with suppress(
                    KeyboardInterrupt
                ):  # pressed while something was being shown: the prompt comes again
                    self._one_choice()
        except HungUp:
            if self.console.is_terminal:
                time.sleep(2)  # init starts us again: not in a tight circle
        finally:
            if self._look is not None:
                self._look.stop()
        return 0

    def _one_choice(self) -> None:
        try:
            self.console.write(self.texts("menu.prompt"))
            key = self.console.read_line(tick=self._tick)
        except _GoingDown:
            self._leave = True
            return
        except (KeyboardInterrupt, EOFError):
            self.console.say()
            self._draw()
            return
        if not key:
            self._draw()
            return
        item = self._item(key)
        if item is None:
            self.console.say(self.texts("menu.unknown", key=key[:20]))
            return
        self._used = True
        self._perform(item)
        if not self._leave:
            self._draw()

    def _item(self, key: str) -> Item | None:
        if key.isdecimal() and key.isascii() and 1 <= int(key) <= len(self.items):
            return self.items[int(key) - 1]
        return next((i for i in self.items if i.letter == key.lower()), None)

    def _perform(self, item: Item) -> None:
        """Nothing that an action does ends the menu."""
        try:
            item.action()
        except HungUp:
            raise
        except KeyboardInterrupt:
            self.console.say()
            self.console.say(self.texts("menu.interrupted"))
        except Busy as e:
            self.console.say(self.texts("menu.busy", holder=e))
        except Exception as e:
            self.console.say_all(fault(e, self.texts, self.folder))

    # --- the screen ----------------------------------------------------------------------------------------

    def _draw(self) -> None:
        t = self.texts
        title = t("menu.title", version=__version__)
        title = title if self.console.utf8 else ascii_fold(title)
        lines = ["", title, "=" * len(title)]
        if machine := self.host.machine():
            lines.append(t("menu.machine", machine=machine))
        firmware = self.host.firmware()
        lines.append(t("menu.firmware", firmware=t(f"survey.firmware-{firmware}")))
        self._shown_windows = self._windows()
        lines += [t("menu.windows", windows=self._shown_windows), ""]
        lines += [f"  {n}  {i.letter}  {t(i.text)}" for n, i in enumerate(self.items, 1)]
        self.console.say_all([*lines, ""])

    def _windows(self) -> str:
        look = self._look
        if look is None or look.windows is None:
            if look is not None and (look.failed or look.stopped):
                return self.texts("menu.windows-unknown" if look.failed else "menu.windows-stopped")
            return self.texts("menu.windows-looking")
        return "; ".join(look.windows) or self.texts("menu.windows-none")

    def _tick(self) -> None:
        """Called while nobody types: shows what the background has found, and obeys an answer file."""
        look = self._look
        if look is None:
            return
        orders, look.orders = look.orders, None
        if isinstance(orders, OrdersError):
            self._refuse(orders)
        elif orders is not None:
            self._obey(orders)
        if self._shown_windows != self._windows():
            self._shown_windows = self._windows()
            self.console.say()
            self.console.say(self.texts("menu.windows", windows=self._shown_windows))
            self.console.write(self.texts("menu.prompt"))

    # --- without an operator -------------------------------------------------------------------------------

    def _command_line(self) -> Orders | None:
        """What the kernel's command line says; None where it cannot be understood, which is said."""
        if not self.host.is_medium:
            return Orders()
        path = self.host.root / "proc/cmdline"
        try:
            orders = command_line_orders(path)
        except OrdersError as e:
            self._refuse(e)
            return None
        self.texts = Texts(language_of(orders.language, keymap(path), self.texts.language))
        return orders

    def _wants_answer(self, orders: Orders | None) -> Orders | None:
        """The orders that an answer file would complete, None where none is to be looked for."""
        usable = self.main and self.host.is_medium and not is_claimed("unattended", self.folder)
        return orders if usable and orders is not None and orders.mode is None else None

    def _refuse(self, error: OrdersError) -> None:
        from rehost_payload.ui.unattended import refuse

        if self.main and claim("unattended", self.folder):
            refuse(error, self.texts, self.console, self.host)

    def _obey(self, orders: Orders) -> None:
        """Orders that an answer file brought while the menu was waiting."""
        if orders.language and orders.language != self.texts.language:
            self.texts = Texts(orders.language)
        elif not orders.unattended:
            return
        self.console.say()
        if orders.unattended and not self._used and self._unattended(orders, lambda whole: whole):
            raise _GoingDown
        self._draw()
        self.console.write(self.texts("menu.prompt"))

    def _unattended(self, orders: Orders, complete: Callable[[Orders], Orders]) -> bool:
        """Carries orders out, once, on one console. True if the machine goes down after that."""
        if not self.main or not claim("unattended", self.folder):
            return False
        from rehost_payload.ui.unattended import carry_out

        if self._look is not None:
            self._look.stop()
        return carry_out(orders, self.texts, complete, self._worker, self.console, self.host, self.folder)

    def _completed(self, orders: Orders) -> Orders:
        """The command line's orders with what the answer file adds."""
        from rehost_payload.ui.find_answer import answer_orders

        return orders.over(answer_orders(self.make_system()))

    # --- actions -------------------------------------------------------------------------------------------

    def _worker(self) -> Worker:
        from rehost_payload.ui.work import Worker

        progress = ProgressLine(
            self.console.stream,
            self.texts,
            terminal=self.console.is_terminal,
            utf8=self.console.utf8,
            width=self.console.width,
        )
        keep = self.folder / "report" if self.host.is_medium else None
        return Worker(self.make_system(), self.texts, self.console, progress, self.host.machine(), keep)

    def _working(self) -> Worker:
        """Ends the background's look first: two readers at once would only slow each other."""
        if self._look is not None and self._look.busy:
            self.console.say(self.texts("menu.looking"))
            self._look.stop()
        return self._worker()

    def _back(self) -> None:
        self.console.say()
        self.console.ask(self.texts("menu.enter"))

    def _survey(self) -> None:
        with work_lock("survey", folder=self.folder):
            worker = self._working()
            outcome = worker.survey()
        if outcome.before is not None and outcome.result.diagnosis_before is not None:
            page = worker.page(outcome.before)
            lines = page.survey(outcome.before) + page.diagnosis(outcome.result.diagnosis_before)
            worker.show(lines)
            self._found(outcome.before)
        self.console.say()
        worker.say_report(outcome)
        self._back()

    def _repair(self) -> None:
        from rehost_payload.repair.model import Choices, ResultWord

        with work_lock("repair", folder=self.folder):
            worker = self._working()
            choices = Choices()
            outcome = worker.repair(worker.interactive(choices), choices)
        result = outcome.result
        page = worker.page(outcome.after or outcome.before)
        lines: list[str] = []
        unseen = result.word in (ResultWord.HEALTHY, ResultWord.BLOCKED, ResultWord.NOT_REPAIRED)
        if unseen and not result.changes and result.diagnosis_before is not None:
            lines += page.diagnosis(result.diagnosis_before)  # nobody was asked, so nothing was shown yet
        worker.show(lines + page.result(result))
        self.console.say()
        worker.say_report(outcome)
        self._found(outcome.after or outcome.before)
        self._back()

    def _undo(self) -> None:
        from rehost_payload.repair.session import past_runs
        from rehost_payload.ui.work import is_yes, run_text

        with work_lock("undo", folder=self.folder):
            worker = self._working()
            worker.progress.label = self.texts("progress.survey")
            runs = [r for r in past_runs(worker.system) if r.undoable]
            worker.progress.close()
            if not runs:
                worker.say(self.texts("menu.undo-none"))
                self._back()
                return
            options = [(r.stamp, run_text(r, self.texts)) for r in runs]
            stamp = worker.choose(self.texts("menu.undo-choose"), options)
            if stamp is None:
                return
            self.console.say()
            if not is_yes(self.console.ask(self.texts("menu.consent-undo"))):
                return
            self.console.say(self.texts("menu.writing"))
            outcome = worker.undo(stamp)
        worker.show(worker.page(outcome.after or outcome.before).result(outcome.result))
        worker.say_report(outcome)
        self._back()

    def _found(self, survey: object) -> None:
        if self._look is not None and survey is not None:
            self._look.learn(survey)  # type: ignore[arg-type]

    def _capture(self) -> None:
        from rehost_payload.ui.capture_face import interactive, report
        from rehost_payload.ui.capture_lines import bad_orders
        from rehost_payload.ui.capture_work import BadOrders

        with work_lock("capture", folder=self.folder):
            worker = self._working()
            try:
                outcome = interactive(worker)
            except BadOrders as e:
                self.console.say(bad_orders(e, self.texts))
                outcome = None
        if outcome is not None:
            report(worker, outcome)
        self._back()

    def _language(self) -> None:
        following = LANGUAGES[(LANGUAGES.index(self.texts.language) + 1) % len(LANGUAGES)]
        self.texts = Texts(following)

    def _shell(self) -> None:
        self.console.say_all(self.texts("menu.shell-hint").splitlines())
        os.environ[CHOSEN] = self.texts.language
        try:
            self.host.shell()
        except HostError as e:
            self.console.say(self.texts("menu.shell-failed", reason=e))
        self.console.say(self.texts("menu.again"))

    def _power(self, how: str) -> None:
        with work_lock(how, folder=self.folder):
            self.console.say(self.texts("menu.rebooting" if how == "reboot" else "menu.powering-off"))
            try:
                self.host.power(how)
            except HostError as e:
                self.console.say(self.texts("menu.failed", reason=e))

    def _quit(self) -> None:
        self._leave = True


def start(language: str | None = None) -> int:
    """The menu on this terminal, on the machine we run on."""

    main = os.environ.get("REHOST_CONSOLE", "main") == "main"
    return Menu(Console(), this_machine, language=language, main=main).run()
