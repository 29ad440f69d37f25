"""Ctrl-C from the first moment on: one line and exit code 130, also while modules are still being imported.

Imports next to nothing, so that hardly anything runs before it is in force.
"""

from __future__ import annotations

import os
import signal
import sys
import time

TYPE_CHECKING = False  # `typing` itself takes longer to import than all the rest
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any, NoReturn

INTERRUPTED = 130
_LINE = b"\nrehost: interrupted; nothing was begun\n"


def run(load: Callable[[], Callable[[], Any]]) -> NoReturn:
    """Ends the process with what the program that ``load`` imports returns; that program handles Ctrl-C itself."""
    heard = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN  # started in the background of a script
    if heard:
        signal.signal(signal.SIGINT, _leave)
    sys.unraisablehook = _not_lost
    program = load()
    try:
        if heard:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = program()
    except KeyboardInterrupt:
        _leave()
    finally:
        if heard:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is said; Python takes a moment to end
    sys.exit(code)


def _leave(number: int = signal.SIGINT, frame: FrameType | None = None) -> NoReturn:
    """Without an exception: what is imported half-way would show it, or swallow it."""
    os.write(2, _LINE)
    os._exit(INTERRUPTED)


def _not_lost(found: sys.UnraisableHookArgs) -> None:
    """An interrupt in a place where Python can only print exceptions (it imports, it frees memory) comes once more."""
    if issubclass(found.exc_type, KeyboardInterrupt):
        import _thread

        def later() -> None:
            time.sleep(0.02)  # at once it would be raised in here, and lost again
            _thread.interrupt_main()

        _thread.start_new_thread(later, ())
    else:
        sys.__unraisablehook__(found)
