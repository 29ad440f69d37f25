"""What code costs, counted instead of timed: the same on every machine, however busy it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Effort:
    calls: int = 0


@contextmanager
def at_most(calls: int) -> Iterator[Effort]:
    """Fails what is inside as soon as it has made more calls than this, of functions of Python and of C alike.

    So does a loop that never ends. Loops within one function of C are one call. This thread only.
    """
    effort = Effort()

    def count(frame: FrameType, event: str, argument: object) -> None:
        if event in ("call", "c_call"):
            effort.calls += 1
            if effort.calls > calls:
                sys.setprofile(before)
                raise AssertionError(f"more than {calls} calls")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield effort
    finally:
        sys.setprofile(before)
