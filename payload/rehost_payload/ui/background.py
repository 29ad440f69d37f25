"""What happens while the menu already waits for a key: the look for an answer file, and a first survey.

A thread of its own, reading only. It leaves its findings in attributes; the menu picks them up in its own time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rehost_payload.ui.answer import Orders, OrdersError
from rehost_payload.ui.lock import Busy, work_lock

if TYPE_CHECKING:
    from rehost_payload.survey.model import Survey
    from rehost_payload.system.protocol import System

_PATIENCE = 30.0  # seconds to wait for the thread: one read of a failing disk may take that long


class _Stopped(Exception):
    pass


class FirstLook:
    """``answer``: the orders so far, which an answer file completes; None: no answer file is looked for."""

    def __init__(self, make_system: Callable[[], System], folder: Path, answer: Orders | None) -> None:
        self._make_system = make_system
        self._folder = folder
        self._answer = answer
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.orders: Orders | OrdersError | None = None
        self.windows: tuple[str, ...] | None = None  # None: not known yet
        self.failed = False  # and it never will be
        self.stopped = False  # and it will not be unless somebody else looks

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """Ends the look at the next step of the survey."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_PATIENCE)

    def learn(self, survey: Survey) -> None:
        """Takes over what somebody else has found."""
        self.windows = tuple(
            f"{w.product_name or 'Windows'}{f' ({w.computer_name})' if w.computer_name else ''}, {w.volume}"
            for w in survey.windows
        )

    def _run(self) -> None:
        try:
            system = self._make_system()
            if self._answer is not None:
                from rehost_payload.ui.find_answer import answer_orders

                try:
                    self.orders = self._answer.over(answer_orders(system))
                except OrdersError as e:
                    self.orders = e
                if isinstance(self.orders, OrdersError) or self.orders.unattended:
                    return
            with work_lock("", name="look", wait=True, folder=self._folder):
                from rehost_payload.survey import survey_machine

                self._progress("", 0, 0)
                self.learn(survey_machine(system, self._progress))
        except (_Stopped, Busy):
            self.stopped = True
        except Exception:  # the survey itself will say what is wrong
            self.failed = True

    def _progress(self, what: str, done: int, total: int) -> None:
        if self._stop.is_set():
            raise _Stopped
