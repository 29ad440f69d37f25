"""Progress with an estimate of the time left, for whatever takes more than two seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from rehost_payload.ui.texts import Texts, ascii_fold, clean

QUIET = 2.0  # seconds before the first word
_EVERY_TERMINAL = 1.0
_EVERY_FILE = 10.0


class ProgressLine:
    """A `rehost_payload.system.protocol.Progress` that writes to a stream.

    On a terminal one line is written over and over (carriage return only); into a file a new line every 10 s.
    """

    def __init__(
        self,
        out: TextIO,
        texts: Texts,
        *,
        terminal: bool,
        utf8: bool = True,
        clock: Callable[[], float] = time.monotonic,
        width: int = 79,
    ) -> None:
        self._out = out
        self._t = texts
        self._terminal = terminal
        self._utf8 = utf8
        self._clock = clock
        self._width = width
        self._start = clock()
        self._phase_start = self._start
        self._first = 0
        self._total = 0
        self.label = ""  # what the whole is: goes before what is being done just now
        self._last = float("-inf")
        self._shown = 0

    def __call__(self, what: str, done: int, total: int) -> None:
        now = self._clock()
        if total != self._total or done < self._first:  # something else has begun
            self._phase_start, self._first, self._total = now, done, total
        if now - self._start < QUIET:
            return
        every = _EVERY_TERMINAL if self._terminal else _EVERY_FILE
        if now - self._last < every and not (total and done >= total and self._shown):
            return
        self._last = now
        self._write(self.text(what, done, total, now))

    def show(self, text: str) -> None:
        """A line that somebody else has made, as often as lines are shown."""
        now = self._clock()
        every = _EVERY_TERMINAL if self._terminal else _EVERY_FILE
        if now - self._start >= QUIET and now - self._last >= every:
            self._last = now
            self._write(text)

    def notice(self, text: str) -> None:
        """A line that stays."""
        self.close()
        line = clean(text)
        self._emit((line if self._utf8 else ascii_fold(line)) + "\n")

    def text(self, what: str, done: int, total: int, now: float) -> str:
        key = f"progress.{what}"
        line = ": ".join(p for p in (self.label, self._t(key) if self._t.has(key) else what) if p)
        if total > 0:
            share = min(1.0, max(0.0, done / total))
            line += f"  {share:.0%}"
            fresh = done - self._first
            elapsed = now - self._phase_start
            if fresh > 0 and done < total and elapsed >= QUIET:
                left = elapsed / fresh * (total - done)
                line += "  " + self._t("progress.eta", seconds=round(left))
        return line

    def _write(self, line: str) -> None:
        line = clean(line)
        line = line if self._utf8 else ascii_fold(line)
        if self._terminal:
            line = line[: self._width]
            text = "\r" + line + " " * (self._shown - len(line))
            self._shown = len(line)
        else:
            text = line + "\n"
            self._shown = 1
        self._emit(text)

    def _emit(self, text: str) -> None:
        try:
            self._out.write(text)
            self._out.flush()
        except (OSError, ValueError, UnicodeError):
            pass

    def close(self) -> None:
        """Leaves the line, so that what follows begins at the left."""
        if self._terminal and self._shown:
            self._emit("\r" + " " * self._shown + "\r")
            self._shown = 0
