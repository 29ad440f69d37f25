"""Progress says nothing for two seconds, then what, how far and how long still."""

from __future__ import annotations

import io

from rehost_payload.ui.progress import ProgressLine
from rehost_payload.ui.texts import Texts


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run(
    terminal: bool, steps: list[tuple[float, str, int, int]], language: str = "en", utf8: bool = True
) -> str:
    clock, out = Clock(), io.StringIO()
    line = ProgressLine(out, Texts(language), terminal=terminal, utf8=utf8, clock=clock)
    line.label = Texts(language)("progress.survey")
    for seconds, what, done, total in steps:
        clock.now = 100.0 + seconds
        line(what, done, total)
    line.close()
    return out.getvalue()


def test_quick_things_are_silent() -> None:
    assert run(True, [(0, "disk0", 0, 4), (0.5, "disk1", 1, 4), (1.9, "disk2", 2, 4)]) == ""


def test_percent_and_time_left() -> None:
    text = run(False, [(0, "disk0", 0, 10), (5, "disk1", 2, 10)])
    assert text == "Looking at the disks: disk1  20%  about 20 s left\n"


def test_no_estimate_without_a_total() -> None:
    assert run(False, [(0, "a", 0, 0), (5, "b", 0, 0)]) == "Looking at the disks: b\n"


def test_a_new_phase_starts_a_new_estimate() -> None:
    text = run(False, [(0, "a", 0, 2), (100, "a", 1, 2), (101, "b", 0, 100), (121, "b", 50, 100)])
    assert text.splitlines()[-1].endswith("50%  about 20 s left")


def test_a_terminal_gets_one_line_that_is_wiped() -> None:
    text = run(True, [(0, "disk0", 0, 10), (3, "a long name", 1, 10), (5, "b", 2, 10)])
    assert "\n" not in text
    assert text.startswith("\rLooking")
    assert text.endswith(" \r")


def test_a_file_is_not_flooded() -> None:
    steps = [(0.0, "a", 0, 1000), *((3 + n / 100, "a", n, 1000) for n in range(999))]
    assert run(False, steps).count("\n") == 1


def test_nothing_in_a_name_controls_the_terminal() -> None:
    text = run(False, [(0, "a", 0, 0), (5, "x\x1b[2J\r\n", 0, 0)])
    assert "\x1b" not in text
    assert "\r" not in text


def test_folded() -> None:
    assert "Datentraeger" in run(False, [(0, "a", 0, 0), (5, "b", 0, 0)], "de", utf8=False)


def test_odd_numbers_are_no_exception() -> None:
    run(True, [(0, "a", 5, 3), (3, "a", -1, 3), (9, "a", 9, 3), (12, "a", 0, -1)])


def test_a_closed_stream_is_no_exception() -> None:
    out = io.StringIO()
    line = ProgressLine(out, Texts("en"), terminal=False, clock=Clock())
    out.close()
    line._start -= 10
    line("a", 0, 0)
