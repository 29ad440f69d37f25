"""What a capture is said to be worth follows from what lies on the targets that are here, not from what they once said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rehost_payload.capture.copy import CopyResult, run_copy
from rehost_payload.capture.copy_state import UNSEEN, CaptureState, find_captures, read_state
from rehost_payload.capture.model import CapturePlan
from rehost_payload.capture.on_volumes import present_on_volumes
from rehost_payload.capture.present import Present, as_it_lies, together
from rehost_payload.system.capture_target import TargetInfo
from rehost_payload.system.images import ImageSystem
from rehost_payload.system.protocol import SystemError_
from rehost_payload.ui.capture_lines import listed
from rehost_payload.ui.capture_work import _earlier, resolve
from rehost_payload.ui.texts import Texts
from support import disks
from support.captures import SETTINGS, Source, plan_of, sample, unit
from support.disks import MIB, PartitionSpec
from support.memory_target import MemoryTarget

NAME = "Rehost-HV-1"
WHEN = "2026-11-20T12:00:00Z"


def memory(name: str, label: str = "") -> MemoryTarget:
    return MemoryTarget(TargetInfo(name, label or f"disk {name}", "ntfs"))


def copy(plan: CapturePlan, source: Source, *targets: MemoryTarget) -> CopyResult:
    """At one time: a second that ends while it runs is in what one target heard of the other, or is not."""
    return run_copy(plan, source, targets, settings=SETTINGS, now=lambda: WHEN)


def present(*targets: MemoryTarget) -> list[Present]:
    return [
        Present(target.info.name, as_it_lies(state, target, name))
        for target in targets
        for name, state in find_captures(target).items()
    ]


def lines(*targets: MemoryTarget) -> str:
    return "\n".join(listed(present(*targets), Texts("en")))


def said(target: MemoryTarget) -> CaptureState:
    state = read_state(target, NAME)
    assert state is not None
    return state


def test_two_copies_are_counted_where_both_disks_are_here() -> None:
    plan, source = sample()
    a, b = memory("a"), memory("b")
    copy(plan, source, a, b)
    (capture,) = together(present(a, b))
    assert (capture.state.good_copies, capture.absent) == (2, ())
    assert f"{NAME}, on the disks that are here: 2 good copies of 2 virtual machines" in lines(a, b)


def test_a_disk_that_was_formatted_since_or_is_away_is_no_copy() -> None:
    plan, source = sample()
    a, b = memory("a"), memory("b")
    updated = copy(plan, source, a, b).state.updated
    assert said(a).good_copies == 2  # what it said then, on a disk that cannot know better
    (capture,) = together(present(a, memory("b")))
    assert capture.state.good_copies == 1
    assert capture.absent == (("disk b", updated),)
    assert "1 good copy of 2" in lines(a, memory("b"))
    assert f"disk b: not here, so not counted. Last heard of: {updated}" in lines(a)


def test_a_second_run_does_not_count_a_disk_that_it_does_not_see() -> None:
    plan, source = sample()
    a, b = memory("a"), memory("b")
    first = copy(plan, source, a, b).state.updated
    result = run_copy(plan, source, [a], settings=SETTINGS, now=lambda: "2099-01-01T00:00:00Z")
    assert result.state.good_copies == 1
    assert {(t.id, t.code) for t in result.state.targets} == {("a", ""), ("b", UNSEEN)}
    assert {c.state for u in result.state.units for c in u.copies if c.target == "b"} == {UNSEEN}
    (capture,) = together(present(a))
    assert capture.absent == (("disk b", first),)  # not the day on which it was missed


def test_a_formatted_disk_takes_the_place_of_the_one_that_it_was() -> None:
    plan, source = sample()
    a, b = memory("a"), memory("b", "/dev/sdb1 (BACKUP2)")
    copy(plan, source, a, b)
    new = memory("c", "/dev/sdb1 (BACKUP2)")
    result = copy(plan, source, a, new)
    assert result.state.good_copies == 2  # not three
    assert [t.id for t in said(a).targets] == ["a", "c"]
    assert together(present(a, new))[0].state.good_copies == 2


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda t: t.remove(f"{NAME}/web/web.vhdx"), "web/web.vhdx: missing"),
        (lambda t: t.replace(f"{NAME}/web/web.vhdx", b"short"), "web/web.vhdx: 5 bytes of 100001"),
        (lambda t: t.remove(f"{NAME}/web/manifest.json"), "web/manifest.json: missing"),
        (lambda t: t.replace(f"{NAME}/web/manifest.json", b"{"), "web/manifest.json: capture manifest"),
        (lambda t: t.remove(f"{NAME}/web/SHA256SUMS"), "web/SHA256SUMS: missing"),
    ],
)
def test_what_was_deleted_or_cut_short_is_no_copy_any_more(
    harm: Callable[[MemoryTarget], None], reason: str
) -> None:
    plan, source = sample()
    target = memory("a")
    copy(plan, source, target)
    harm(target)
    ((web, db),) = [p.state.units for p in present(target)]
    assert (web.good_copies, db.good_copies) == (0, 1)
    assert reason in " ".join(web.copies[0].reasons)
    assert "A good copy of 1 of 2" in lines(target)
    assert reason in lines(target)


def test_a_disk_that_several_machines_need_is_missed_by_all_of_them() -> None:
    base = unit("base", {"base.vhdx": b"x" * 50})
    child = unit("child", {"child.vhdx": b"y" * 50})
    plan = plan_of(
        replace(base, files=(replace(base.files[0], shared_with=("id-child",)),)),
        replace(child, files=(replace(child.files[0], parent="base/base.vhdx"),)),
    )
    source = Source({"base/base.vhdx": b"x" * 50, "child/child.vhdx": b"y" * 50})
    target = memory("a")
    copy(plan, source, target)
    target.remove(f"{NAME}/base/base.vhdx")
    ((first, second),) = [p.state.units for p in present(target)]
    assert (first.good_copies, second.good_copies) == (0, 0)
    assert "base/base.vhdx: missing" in second.copies[0].reasons


def test_a_disk_that_does_not_answer_has_no_good_copy() -> None:
    plan, source = sample()
    target = memory("a")
    copy(plan, source, target)

    def fail(operation: str, path: str, offset: int) -> None:
        if operation == "size":
            raise SystemError_("io", path)

    state = said(target)
    target.fail = fail
    assert as_it_lies(state, target, NAME).good_copies == 0


def test_two_disks_that_were_mounted_in_one_place_are_two_copies() -> None:
    """Ordinary folders are known by their path only."""
    plan, source = sample()
    a, b = memory("/mnt"), memory("/mnt")
    for target in (a, b):
        copy(plan, source, target)
    found = [replace(p, where=f"/mnt/{n}") for n, p in enumerate(present(a, b))]
    (capture,) = together(found)
    assert capture.state.good_copies == 2


def test_on_volumes(tmp_path: Path) -> None:
    plan, source = sample()
    target = memory("a")
    copy(plan, source, target)
    files = {path.replace("/", "\\"): bytes(node.now) for path, node in target.files.items()}
    specs = [PartitionSpec("data", 16 * MIB, "ntfs", label="BACKUP", files=files)]
    layout = disks.make_disk(tmp_path / "disk.img", specs)
    with ImageSystem([layout.path]) as system:
        (found,) = present_on_volumes(system)
    assert found.state.good_copies == 1
    assert "BACKUP" in found.where

    lost = {path: data for path, data in files.items() if not path.endswith("web.vhdx")}
    layout = disks.make_disk(tmp_path / "lost.img", [replace(specs[0], files=lost)])
    with ImageSystem([layout.path]) as system:
        (found,) = present_on_volumes(system)
    assert [u.good_copies for u in found.state.units] == [0, 1]


@pytest.mark.parametrize(("size", "kept", "replaced"), [(160, ("Web",), ()), (64, (), ("Web",))])
def test_what_becomes_of_earlier_copies_on_volumes(
    size: int, kept: tuple[str, ...], replaced: tuple[str, ...], tmp_path: Path
) -> None:
    """As it is said before the start, of a volume that is not mounted: the run before stopped ahead of the machine's turn,
    so that only the journal tells of what its copy is."""
    plan, source = sample()
    target = memory("a")
    run_copy(plan, source, [target])
    source.files["web/new"] = b"new"
    web = {n[4:]: d for n, d in source.files.items() if n.startswith("web/")}
    later = plan_of(plan.units[1], unit("web", web))

    def stop() -> bool:
        return True

    run_copy(later, source, [target], stopping=stop)
    assert {u.folder: c.state for u in said(target).units for c in u.copies}["web"] == "unfinished"
    files = {path.replace("/", "\\"): bytes(node.now) for path, node in target.files.items()}
    specs = [PartitionSpec("data", size * MIB, "ntfs", label="BACKUP", files=files)]
    layout = disks.make_disk(tmp_path / "disk.img", specs)
    with ImageSystem([layout.path]) as system:
        earlier = _earlier(system, later, resolve(["label:BACKUP"], system), {})
    name = "label:BACKUP"
    assert earlier.resumed == {name: NAME}
    assert (earlier.renewed[name], earlier.kept[name], earlier.replaced[name]) == (("Web",), kept, replaced)
