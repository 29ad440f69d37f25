"""The estimate before a capture: what it is made of, and that the probe leaves nothing behind."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from rehost_payload.capture.copy_estimate import estimate
from rehost_payload.system.capture_target import TargetInfo
from rehost_payload.system.directory_target import DirectoryTarget
from rehost_payload.system.protocol import SystemError_
from support.captures import Source, content, plan_of, unit
from support.memory_target import MemoryTarget

BLOCK = 4 << 20


class Clock:
    """Each thread's own time, which passes only as the probe's work takes it."""

    def __init__(self) -> None:
        self.time = threading.local()

    def __call__(self) -> float:
        return float(getattr(self.time, "now", 0.0))

    def spend(self, seconds: float) -> None:
        self.time.now = self() + seconds


def test_the_slowest_sets_the_pace() -> None:
    data = content("x", 3 * BLOCK)
    plan, source = plan_of(unit("vm", {"d": data})), Source({"vm/d": data})
    clock = Clock()
    source.before = lambda path, offset: clock.spend(0.01)

    def slow(write: float, read: float) -> MemoryTarget:
        def spend(operation: str, path: str, offset: int) -> None:
            clock.spend({"write": write / 2, "read_into": read}.get(operation, 0))

        return MemoryTarget(TargetInfo(f"{write}", f"{write}", "ntfs"), fail=spend)

    a, b = slow(0.1, 0.02), slow(0.4, 0.01)
    found = estimate(plan, source, [a, b], clock=clock)
    assert found.read == pytest.approx(BLOCK / 0.01)
    assert [t.target for t in found.targets] == ["0.1", "0.4"]
    assert found.targets[1].write == pytest.approx(BLOCK / 0.4)
    assert found.copy_seconds == pytest.approx(3 * 0.4)
    assert found.verify_seconds == pytest.approx(3 * 0.02)
    assert found.seconds == pytest.approx(1.26)
    assert not a.files
    assert not b.files


def test_a_target_that_refuses_is_named() -> None:
    data = content("x", BLOCK)
    plan, source = plan_of(unit("vm", {"d": data})), Source({"vm/d": data})

    def refuse(operation: str, path: str, offset: int) -> None:
        if operation == "write":
            raise SystemError_("gone", "pulled out")

    found = estimate(plan, source, [MemoryTarget(fail=refuse)])
    assert "pulled out" in found.targets[0].problem
    assert found.seconds is None
    source.files.clear()
    assert estimate(plan, source, [MemoryTarget()]).copy_seconds is None


def test_on_a_real_folder(tmp_path: Path) -> None:
    data = content("x", BLOCK)
    plan, source = plan_of(unit("vm", {"d": data})), Source({"vm/d": data})
    found = estimate(plan, source, [DirectoryTarget(tmp_path, TargetInfo("t", "t", "ext4"))], seconds=300)
    assert found.targets[0].problem == ""
    assert found.seconds is not None
    assert list(tmp_path.iterdir()) == []
