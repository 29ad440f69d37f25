"""Ctrl-C, SIGTERM and SIGHUP from the first moment on: one line and exit code 130, also while modules are imported.

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


_POLITE = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP


def run(load: Callable[[], Callable[[], Any]], *, polite: bool = True) -> NoReturn:
    """Ends the process with what the program that ``load`` imports returns; that program handles Ctrl-C itself.

    ``polite``: SIGTERM and SIGHUP come to it as Ctrl-C does, so that it removes what is half-done. What is ignored
    already (a script's background, nohup) stays so. To be called in the main thread.
    """
    heard = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN  # started in the background of a script
    others = [
        number
        for number in (getattr(signal, name, None) for name in _POLITE if polite)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL
    ]
    for number in others:
        signal.signal(number, _leave)
    if heard:
        signal.signal(signal.SIGINT, _leave)

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        for other in others:  # a terminal that closes sends SIGHUP more than once: cleaning up goes on
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt

    sys.unraisablehook = _not_lost
    program = load()
    try:
        if heard:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in others:
            signal.signal(number, interrupt)
        code = program()
    except KeyboardInterrupt:
        _leave()
    finally:
        if heard:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is said; Python takes a moment to end
        for number in others:
            signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


def _leave(number: int = signal.SIGINT, frame: FrameType | None = None) -> NoReturn:
    """Without an exception: what is imported half-way would show it, or swallow it."""
    os.write(2, _LINE)
    os._exit(INTERRUPTED)


def _not_lost(found: sys.UnraisableHookArgs) -> None:
    """An interrupt in a place where Python can only print exceptions (it imports, it frees memory) comes once more."""
    if issubclass(found.exc_type, KeyboardInterrupt):
        import _thread

        main = _thread.get_ident()

        def later() -> None:
            frame: FrameType | None = sys._getframe()
            while frame is not None:  # raised in here it would be lost again
                time.sleep(0.02)
                frame = sys._current_frames().get(main)
                while frame is not None and frame.f_code is not _not_lost.__code__:
                    frame = frame.f_back
            if hasattr(signal, "pthread_kill"):
                signal.pthread_kill(main, signal.SIGINT)  # ends a wait, which interrupt_main does not
            else:
                _thread.interrupt_main()

        _thread.start_new_thread(later, ())
    else:
        sys.__unraisablehook__(found)
