"""What a medium is judged by: points with a verdict each, and the reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Verdict(Enum):
    PASS = "PASS"
    FAIL = "FAIL"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class Point:
    """``name`` is for programs, ``title`` for people. ``needed``: the medium is no good while this is not known."""

    name: str
    title: str
    verdict: Verdict
    reason: str
    needed: bool = True


class Broken(Exception):
    """A point that is not fulfilled, and why."""


class NotSeen(Exception):
    """A point that cannot be judged, and why."""


@dataclass(frozen=True)
class MediumReport:
    """``size`` in bytes. ``base`` "debian", "winpe", or "" where the medium does not say."""

    iso: str
    size: int
    base: str
    version: str
    points: tuple[Point, ...]
    seconds: float = field(default=0.0, compare=False)

    @property
    def passed(self) -> bool:
        """Every needed point was looked at and is as it should be, and none of the others is wrong."""
        return all(p.verdict is Verdict.PASS for p in self.points if p.needed) and not any(
            p.verdict is Verdict.FAIL for p in self.points
        )


def report_lines(report: MediumReport) -> list[str]:
    """The report for people, one line a point."""
    lines = [f"{p.verdict.value:<8}{p.title}: {p.reason}" for p in report.points]
    count = {v: sum(p.verdict is v for p in report.points) for v in Verdict}
    open_points = sum(p.verdict is Verdict.UNKNOWN and not p.needed for p in report.points)
    words = f"{count[Verdict.PASS]} passed, {count[Verdict.FAIL]} failed, {count[Verdict.UNKNOWN]} not known"
    if open_points:
        words += f" ({open_points} of these not needed)"
    end = "The medium is as it should be" if report.passed else "The medium should not be used"
    if any(p.title == "build.json" and p.reason == f"{p.title} is missing" for p in report.points):
        end = "This is no medium of Rehost, or one that has lost its build.json"
    lines.append(f"{end}: {words}.")
    return lines
