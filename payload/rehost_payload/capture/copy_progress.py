"""How far a capture is and how long it will take, as plain data for whatever shows it.

Rates come from the monotonic clock, so that a clock that is set does not disturb them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

_EVERY = 0.5  # seconds between reports
_MEMORY = 20.0  # seconds after which an old rate weighs a third
_SAMPLE = 1.0


@dataclass(frozen=True)
class CopyProgress:
    """``phase`` is "copy" or "verify". ``unit`` is the id, ``file`` its path in the capture. ``unit_done`` and
    ``done`` count both phases: each byte once copied and once read back. ``rate`` is bytes of this phase per second,
    0.0 while unknown; ``eta`` is seconds for all that is left, None while unknown."""

    phase: str
    unit: str
    name: str
    file: str
    unit_done: int
    unit_total: int
    done: int
    total: int
    rate: float
    eta: float | None
    failed_targets: tuple[str, ...] = ()


class Rate:
    """Bytes per second, smoothed; time in which nothing was asked for (`pause`) does not count."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last: float | None = None
        self._bytes = 0
        self.value = 0.0

    def add(self, count: int) -> None:
        now = self._clock()
        if self._last is None:
            self._last = now  # how long the first piece took is not known
            return
        self._bytes += count
        elapsed = now - self._last
        if elapsed >= _SAMPLE:
            sample = self._bytes / elapsed
            weight = 1 - math.exp(-elapsed / _MEMORY) if self.value else 1.0
            self.value += weight * (sample - self.value)
            self._last, self._bytes = now, 0

    def pause(self) -> None:
        self._last, self._bytes = None, 0


class Meter:
    """Counts for `CopyProgress`. Bytes of both phases; ``total`` is known before the start."""

    def __init__(
        self,
        total: int,
        report: Callable[[CopyProgress], None] | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total = {"copy": total, "verify": total}
        self._done = {"copy": 0.0, "verify": 0.0}
        self._rates = {"copy": Rate(clock), "verify": Rate(clock)}
        self._report = report
        self._clock = clock
        self._last = -math.inf
        self._unit = ("", "", 0)
        self._unit_start = 0.0
        self._phase = "copy"
        self._file = ""
        self.failed: tuple[str, ...] = ()

    def unit(self, id_: str, name: str, size: int) -> None:
        self._unit = (id_, name, size)
        self._unit_start = sum(self._done.values())

    def file(self, phase: str, path: str) -> None:
        if phase != self._phase:
            for rate in self._rates.values():
                rate.pause()
        self._phase, self._file = phase, path
        self._say()

    def add(self, count: float) -> None:
        self._done[self._phase] += count
        self._rates[self._phase].add(int(count))
        self._say()

    def skip(self, phase: str, count: int) -> None:
        """What need not be done, because it is there from an earlier run or cannot be had."""
        self._done[phase] += count

    def now(self) -> CopyProgress:
        total, done = sum(self._total.values()), min(sum(self._total.values()), int(sum(self._done.values())))
        id_, name, size = self._unit
        unit_done = min(2 * size, int(sum(self._done.values()) - self._unit_start))
        return CopyProgress(
            self._phase,
            *(id_, name, self._file, max(0, unit_done), 2 * size, done, total),
            self._rates[self._phase].value,
            self._eta(),
            self.failed,
        )

    def _eta(self) -> float | None:
        seconds = 0.0
        for phase, other in (("copy", "verify"), ("verify", "copy")):
            left = max(0.0, self._total[phase] - self._done[phase])
            rate = self._rates[phase].value or self._rates[other].value
            if left and not rate:
                return None
            seconds += left / rate if left else 0.0
        return seconds

    def _say(self) -> None:
        now = self._clock()
        if self._report is not None and now - self._last >= _EVERY:
            self._last = now
            self._report(self.now())
