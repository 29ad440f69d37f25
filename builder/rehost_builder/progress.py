"""What the administrator sees while the medium is being built: a line per step, with the time still to go."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO


class Progress:
    """Announces steps on a stream (standard error by default).

    ``expected`` maps a step's title to the seconds it took last time (or is known to take); the order of the
    mapping is the order of the steps. The estimate of the rest is scaled by how fast the steps so far went.
    """

    def __init__(
        self, expected: Mapping[str, float], stream: TextIO | None = None, quiet: bool = False
    ) -> None:
        self.expected = dict(expected)
        self.measured: dict[str, float] = {}
        self._stream = stream if stream is not None else sys.stderr
        self._quiet = quiet
        self._live = not quiet and self._stream.isatty()
        self._current = ""
        self._shown = 0.0

    def remaining(self) -> float:
        """Seconds that the steps not yet finished will probably take."""
        planned = sum(self.expected.get(title, 0.0) for title in self.measured)
        speed = 1.0
        if planned > 2.0:
            speed = min(5.0, max(0.2, sum(self.measured.values()) / planned))
        return speed * sum(s for title, s in self.expected.items() if title not in self.measured)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        self._current = title
        self._write(f"{self._prefix(title)} ...", end="" if self._live else None)
        start = time.monotonic()
        yield
        took = time.monotonic() - start
        self.measured[title] = took
        self._write(f"{self._prefix(title)}: {took:.1f} s{self._rest()}", over=True)

    def update(self, text: str) -> None:
        """Replaces the line of the running step on a terminal; elsewhere one line each ten seconds."""
        now = time.monotonic()
        if self._live:
            if now - self._shown >= 0.1:
                self._shown = now
                self._write(f"{self._prefix(self._current)}: {text}", end="", over=True)
        elif now - self._shown >= 10:
            if self._shown:
                self._write(f"{self._prefix(self._current)}: {text}")
            self._shown = now

    def meter(self) -> Callable[[float, float], None]:
        """A function that is told (bytes done, in total) of the running step, and shows them with the time left."""
        begun = time.monotonic()

        def report(done: float, total: float) -> None:
            rest = (time.monotonic() - begun) * (total - done) / max(done, 1)
            self.update(f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB, about {rest:.0f} s")

        return report

    def note(self, text: str) -> None:
        self._write(f"rehost: {text}", over=True)

    def _prefix(self, title: str) -> str:
        titles = list(self.expected)
        number = titles.index(title) + 1 if title in titles else len(self.measured) + 1
        return f"[{number}/{max(len(titles), number)}] {title}"

    def _rest(self) -> str:
        rest = self.remaining()
        return f"   (about {rest:.0f} s to go)" if rest >= 1 else ""

    def _write(self, text: str, end: str | None = None, over: bool = False) -> None:
        if self._quiet:
            return
        if self._live and over:
            text = "\r\x1b[K" + text
        self._stream.write(text + ("\n" if end is None else end))
        self._stream.flush()
