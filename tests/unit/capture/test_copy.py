"""The copy engine: identical bytes on every target, whatever fails on the way, and no promise that was not kept."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rehost_payload.capture import copy_pipeline
from rehost_payload.capture import manifest as manifests
from rehost_payload.capture.contents import read_contents, root_files
from rehost_payload.capture.copy import CopyResult, run_copy
from rehost_payload.capture.copy_journal import FileRecord
from rehost_payload.capture.copy_plan import PART, CaptureRefused, identity, layout
from rehost_payload.capture.copy_progress import CopyProgress
from rehost_payload.capture.copy_state import find_captures
from rehost_payload.capture.copy_verify import EarlyCheck
from rehost_payload.capture.judge import verify_capture
from rehost_payload.capture.model import CapturePlan, Manifest
from rehost_payload.capture.present import Present, as_it_lies, together
from rehost_payload.formats.exfat import ExfatVolume
from rehost_payload.formats.source import BytesSource
from rehost_payload.repair.model import Verdict
from rehost_payload.system.capture_target import TargetInfo
from rehost_payload.system.directory_target import DirectoryTarget
from rehost_payload.system.protocol import SystemError_
from rehost_payload.ui.capture_lines import listed
from rehost_payload.ui.capture_page import to_html
from rehost_payload.ui.texts import Texts
from support.captures import MODIFIED, SETTINGS, Source, content, dump, plan_of, sample, sha256sum, unit
from support.memory_target import MemoryTarget

NAME = "Rehost-HV-1"


def memory(name: str = "a", **more: object) -> MemoryTarget:
    return MemoryTarget(TargetInfo(name, f"disk {name}", "ntfs"), **more)  # type: ignore[arg-type]


def copy(plan: CapturePlan, source: Source, *targets: MemoryTarget, **more: object) -> CopyResult:
    return run_copy(plan, source, targets, settings=SETTINGS, **more)  # type: ignore[arg-type]


def states(result: CopyResult, target: str = "a") -> dict[str, str]:
    return {u.folder: c.state for u in result.state.units for c in u.copies if c.target == target}


def reasons(result: CopyResult, folder: str, target: str = "a") -> str:
    (found,) = [
        c.reasons for u in result.state.units for c in u.copies if (u.folder, c.target) == (folder, target)
    ]
    return "; ".join(found)


def manifest(target: MemoryTarget, folder: str) -> Manifest:
    return manifests.from_json(target.content(f"{NAME}/{folder}/manifest.json"))


def assert_equal(plan: CapturePlan, source: Source, target: MemoryTarget) -> None:
    for entry in plan.units:
        for file in entry.files:
            assert target.content(f"{NAME}/{file.target}") == source.files[file.original], file.target
    assert not [path for path in target.files if path.endswith(PART)]


def assert_good(plan: CapturePlan, source: Source, target: MemoryTarget, folder: Path) -> None:
    assert_equal(plan, source, target)
    place = dump(target, folder)
    assert verify_capture(place).verdict is Verdict.PASS
    sha256sum(place)


# --- the good case ---


def test_two_copies_of_everything(tmp_path: Path) -> None:
    plan, source = sample()
    a, b = memory("a"), memory("b")
    result = copy(plan, source, a, b)
    assert states(result, "a") == states(result, "b") == {"web": "complete", "db": "complete"}
    assert result.state.good_copies == 2
    assert not result.interrupted
    assert_good(plan, source, a, tmp_path / "a")
    assert_good(plan, source, b, tmp_path / "b")
    (file,) = [f for f in manifest(a, "web").files if f.path == "web.vhdx"]
    assert (file.size, len(file.chunks), file.modified, file.bad_ranges) == (100_001, 7, MODIFIED, ())
    assert a.times[f"{NAME}/web/web.vhdx{PART}"] == (0, MODIFIED)


def test_real_folders(tmp_path: Path) -> None:
    """Real files, past the cache where the file system allows it; sizes around blocks, chunks and pages."""
    sizes = [0, 1, 511, 4095, 4096, 4097, 16383, 16384, 16385, 65536, 300_000]
    files = {f"{size}.vhdx": content(str(size), size) for size in sizes}
    plan, source = plan_of(unit("vm", files)), Source({f"vm/{n}": d for n, d in files.items()})
    targets = [DirectoryTarget(tmp_path / n, TargetInfo(n, n, "ext4")) for n in "ab"]
    for name in "ab":
        (tmp_path / name).mkdir()
    result = run_copy(plan, source, targets, settings=SETTINGS)
    assert result.state.good_copies == 2
    for name in "ab":
        folder = tmp_path / name / NAME
        sha256sum(folder)
        assert verify_capture(folder).verdict is Verdict.PASS
        place = folder / "vm/300000.vhdx"
        assert place.read_bytes() == files["300000.vhdx"]
        assert place.stat().st_mtime_ns == (MODIFIED - 116444736000000000) * 100
        assert place.stat().st_blocks * 512 >= 300_000


def test_zeros_are_written_like_all_else(tmp_path: Path) -> None:
    plan, source = plan_of(unit("vm", {"z": bytes(200_000)})), Source({"vm/z": bytes(200_000)})
    target = DirectoryTarget(tmp_path, TargetInfo("t", "t", "ext4"))
    assert run_copy(plan, source, [target], settings=SETTINGS).state.good_copies == 1
    assert (tmp_path / NAME / "vm/z").stat().st_blocks * 512 >= 200_000


def test_each_source_byte_is_read_once_for_two_targets() -> None:
    plan, source = (
        plan_of(unit("vm", {"d": content("d", 160 * 4096)})),
        Source({"vm/d": content("d", 160 * 4096)}),
    )
    copy(plan, source, memory("a"), memory("b"))
    assert source.reads == 160 + 2 * 4  # and the fingerprint before and after


def test_run_again_copies_nothing() -> None:
    plan, source = sample()
    target = memory()
    copy(plan, source, target)
    lists = target.content(f"{NAME}/web/manifest.json")
    source.reads = 0
    result = copy(plan, source, target, now=lambda: "later")
    assert result.state.good_copies == 1
    assert source.reads <= 4 * 6
    assert target.content(f"{NAME}/web/manifest.json") == lists


def test_documents_are_copied_and_listed(tmp_path: Path) -> None:
    plan, source = sample()
    target = memory()
    result = copy(plan, source, target, documents={"id-web": {"docs/host.json": b"{}"}})
    assert states(result) == {"web": "complete", "db": "complete"}
    assert "docs/host.json" in {f.path for f in manifest(target, "web").files}
    assert_good(plan, source, target, tmp_path)
    copy(plan, source, target, documents={"id-web": {"docs/host.json": b"[]"}})
    assert target.content(f"{NAME}/web/docs/host.json") == b"[]"
    assert_good(plan, source, target, tmp_path)


def test_parents_in_other_units(tmp_path: Path) -> None:
    """A shared parent is stored once; who needs it is complete only with it."""
    base, child = unit("base", {"p.vhdx": b"p" * 5000}), unit("vm", {"c.avhdx": b"c" * 10})
    base = replace(base, files=tuple(replace(f, shared_with=("id-vm",)) for f in base.files))
    child = replace(child, files=tuple(replace(f, parent="base/p.vhdx") for f in child.files))
    source = Source({"base/p.vhdx": b"p" * 5000, "vm/c.avhdx": b"c" * 10})
    plan = plan_of(child, base)  # the child comes first: its lists have to wait
    target = memory()
    assert states(copy(plan, source, target)) == {"vm": "complete", "base": "complete"}
    assert manifest(target, "vm").files[0].parent == "../base/p.vhdx"
    assert_good(plan, source, target, tmp_path)
    source.bad.add(("base/p.vhdx", 512))
    other = memory()
    assert states(copy(plan, source, other)) == {"vm": "incomplete", "base": "incomplete"}


# --- sources ---


def test_bad_sectors_are_zeros_and_named(tmp_path: Path) -> None:
    plan, source = sample()
    source.bad = {("web/web.vhdx", 20480), ("web/web.vhdx", 20992), ("web/web.vhdx", 99840)}
    target = memory()
    result = copy(plan, source, target)
    assert states(result) == {"web": "incomplete", "db": "complete"}
    assert "could not be read from the source" in reasons(result, "web")
    (file,) = [f for f in manifest(target, "web").files if f.path == "web.vhdx"]
    assert [(r.offset, r.length) for r in file.bad_ranges] == [(20480, 1024), (99840, 100_001 - 99840)]
    expected = bytearray(source.files["web/web.vhdx"])
    expected[20480:21504] = bytes(1024)
    expected[99840:] = bytes(161)
    assert target.content(f"{NAME}/web/web.vhdx") == expected
    assert not manifest(target, "web").complete
    verdict = verify_capture(dump(target, tmp_path))
    assert {u.folder: u.verdict for u in verdict.units} == {"web": Verdict.FAIL, "db": Verdict.PASS}
    sha256sum(tmp_path / NAME)


def test_a_disk_that_is_gone_ends_its_file_only() -> None:
    plan, source = sample()
    source.bad, source.number = {("web/web.vhdx", 40960)}, errno.ENODEV
    target = memory()
    result = copy(plan, source, target)
    assert states(result) == {"web": "incomplete", "db": "complete"}
    assert [f.path for f in manifest(target, "web").failed] == ["web.vhdx"]
    assert f"{NAME}/web/web.vhdx" not in target.files  # what is there has not got its name
    source.bad.clear()
    assert copy(plan, source, target).state.good_copies == 1
    assert_equal(plan, source, target)


def test_a_file_that_cannot_be_opened() -> None:
    plan, source = sample()
    lost = source.files.pop("db/db.vmcx")
    target = memory()
    result = copy(plan, source, target)
    assert states(result) == {"web": "complete", "db": "incomplete"}
    assert "cannot be opened" in reasons(result, "db")
    source.files["db/db.vmcx"] = lost
    assert states(copy(plan, source, target)) == {"web": "complete", "db": "complete"}


def test_a_verified_copy_outlives_its_source(tmp_path: Path) -> None:
    plan, source = sample()
    target = memory()
    copy(plan, source, target)
    files, source.files = source.files, {}
    assert copy(plan, source, target).state.good_copies == 1
    assert_good(plan, Source(files), target, tmp_path)


def test_a_changed_source_is_copied_anew(tmp_path: Path) -> None:
    plan, source = sample()
    target = memory()
    copy(plan, source, target)
    source.files["web/web.vhdx"] = content("other", 100_001)
    source.versions["web/web.vhdx"] = 1
    assert copy(plan, source, target).state.good_copies == 1
    assert_good(plan, source, target, tmp_path)


def test_a_changed_header_alone_is_noticed() -> None:
    """As a VHDX is after somebody attached it: size and, on a clock that stands, time are the same."""
    data = content("x", 200_000)
    plan, source = plan_of(unit("vm", {"d.vhdx": data})), Source({"vm/d.vhdx": data})
    target = memory()
    copy(plan, source, target)
    source.files["vm/d.vhdx"] = data[:131072] + b"changed" + data[131079:]
    copy(plan, source, target)
    assert_equal(plan, source, target)


@pytest.mark.parametrize("size", [60_000, 150_000])
def test_a_source_that_shrinks_or_grows_meanwhile(size: int, tmp_path: Path) -> None:
    plan, source = sample()

    def change(path: str, offset: int) -> None:
        if path == "web/web.vhdx" and offset == 81920:
            source.before = lambda path, offset: None
            source.files[path] = content("later", size)

    source.before = change
    target = memory()
    assert copy(plan, source, target).state.good_copies == 1
    assert_good(plan, source, target, tmp_path)


def test_a_source_that_never_rests_is_not_complete() -> None:
    plan, source = sample()

    def change(path: str, offset: int) -> None:
        if path == "web/web.vhdx" and offset == 40960:
            source.versions[path] = source.versions.get(path, 0) + 1

    source.before = change
    target = memory()
    result = copy(plan, source, target)
    assert states(result) == {"web": "incomplete", "db": "complete"}
    assert "changes while it is copied" in reasons(result, "web")


def test_a_source_that_reads_differently_each_time_is_not_complete() -> None:
    """Two copies that differ are none: what the source gives must be what the first target has."""
    plan, source = sample()
    a, b = memory("a"), memory("b", fail=fails("write", "gone", "web.vhdx", 40960))
    copy(plan, source, a, b)
    good = source.files["web/web.vhdx"]
    source.files["web/web.vhdx"] = good[:50000] + b"?" + good[50001:]
    b.fail = lambda *call: None
    result = copy(plan, source, a, b)
    assert states(result, "a")["web"] == "complete"
    assert states(result, "b")["web"] == "incomplete"
    assert "the chunk at 49152 now reads differently" in reasons(result, "web", "b")
    assert a.content(f"{NAME}/web/web.vhdx") == good


# --- targets ---


def fails(operation: str, code: str, path: str = "", offset: int = 0) -> Callable[[str, str, int], None]:
    def fail(op: str, where: str, at: int) -> None:
        if op == operation and path in where and at >= offset:
            raise SystemError_(code, where)

    return fail


@pytest.mark.parametrize(
    "operation", ["write", "flush", "append", "rename", "replace", "open", "finish", "read_into"]
)
@pytest.mark.parametrize("code", ["gone", "no-space"])
def test_one_target_fails_the_other_is_complete(operation: str, code: str, tmp_path: Path) -> None:
    plan, source = sample()
    a, b = memory("a"), memory("b")
    seen = threading.Event()

    def fail(op: str, where: str, at: int) -> None:
        if (op == operation and "db" in where) or (op == operation == "append" and seen.is_set()):
            raise SystemError_(code, where)
        if op == "open" and "db.vhdx" in where:
            seen.set()

    b.fail = fail
    result = copy(plan, source, a, b)
    assert states(result, "a") == {"web": "complete", "db": "complete"}
    assert states(result, "b") == {"web": "complete", "db": "unfinished"}
    assert [t.code for t in result.state.targets] == ["", code]
    assert result.state.good_copies == 1
    assert_good(plan, source, a, tmp_path / "a")
    told = json.loads(a.content(f"{NAME}/capture.json"))
    assert [t["code"] for t in told["targets"]] == ["", code]
    # it comes back
    b.fail = lambda *call: None
    reads, source.reads = source.reads, 0
    result = copy(plan, source, a, b)
    assert result.state.good_copies == 2
    assert source.reads < reads
    assert_good(plan, source, b, tmp_path / "b")
    assert_good(plan, source, a, tmp_path / "a")


def test_when_all_targets_fail_nothing_is_complete() -> None:
    plan, source = sample()
    a, b = memory("a", fail=fails("write", "gone", offset=8192)), memory("b", fail=fails("flush", "io"))
    result = copy(plan, source, a, b)
    assert result.state.good_copies == 0
    assert set(states(result, "a").values()) == {"unfinished"}


def test_a_full_target_is_refused_before_the_start() -> None:
    plan, source = sample()
    first, second = memory(), memory("b", capacity=1 << 20)
    with pytest.raises(CaptureRefused) as error:
        copy(plan, source, first, second)
    assert (error.value.code, error.value.subject) == ("no-space", "disk b")
    assert [list(first.names("")), list(second.names(""))] == [[], []]


@pytest.mark.skipif(
    os.geteuid() != 0 or None in (shutil.which("mkfs.exfat"), shutil.which("mount.exfat-fuse")),
    reason="mounting exFAT needs root, exfatprogs and exfat-fuse",
)
def test_a_real_exfat_volume(tmp_path: Path) -> None:
    """As target, with names that are not ASCII; its own fsck and our reader judge it afterwards."""
    image, place = tmp_path / "image", tmp_path / "mounted"
    image.write_bytes(bytes(48 << 20))
    place.mkdir()
    subprocess.run(["mkfs.exfat", image], check=True, capture_output=True)
    files = {"Größe 日本 😀.vhdx": content("a", 1_000_001), "leer": b"", "zeros": bytes(70_000)}
    plan = plan_of(unit("web 01", files))
    source = Source({f"web 01/{name}": data for name, data in files.items()})
    loop = subprocess.run(["losetup", "-f", "--show", image], capture_output=True, text=True).stdout.strip()
    if not loop or subprocess.run(["mount.exfat-fuse", loop, place], capture_output=True).returncode:
        if loop:
            subprocess.run(["losetup", "-d", loop], check=True)
        pytest.skip("exFAT cannot be mounted here")
    try:
        target = DirectoryTarget(place, TargetInfo("a", "a", "exfat"))
        for _ in range(2):
            assert run_copy(plan, source, [target], settings=SETTINGS).state.good_copies == 1
        assert verify_capture(place / NAME).verdict is Verdict.PASS
        sha256sum(place / NAME)
    finally:
        subprocess.run(["umount", place], check=True)
        subprocess.run(["losetup", "-d", loop], check=True)
    while subprocess.run(["losetup", "-j", image], capture_output=True, check=True).stdout:
        time.sleep(0.05)  # the file system's program may still be at it
    subprocess.run(["fsck.exfat", "-n", image], check=True, capture_output=True)
    reader = ExfatVolume(BytesSource(image.read_bytes()))
    for name, data in files.items():
        assert reader.read(f"\\{NAME}\\web 01\\{name}") == data


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_real_file_system_that_fills_up_meanwhile(tmp_path: Path) -> None:
    """Somebody else writes to the target; when there is room again, the copy goes on."""
    data = content("big", 4 << 20)
    plan, source = plan_of(unit("vm", {"d": data})), Source({"vm/d": data})
    (tmp_path / "full").mkdir()
    (tmp_path / "good").mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", tmp_path / "full"], capture_output=True
    )
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted: {done.stderr!r}")
    try:
        full, good = (DirectoryTarget(tmp_path / n, TargetInfo(n, n, "tmpfs")) for n in ("full", "good"))
        filler = tmp_path / "full/other"

        def fill(path: str, offset: int) -> None:
            if not filler.exists():
                filler.write_bytes(bytes(31 << 20))

        source.before = fill
        result = run_copy(plan, source, [full, good], settings=SETTINGS)
        assert [t.code for t in result.state.targets] == ["no-space", ""]
        assert states(result, "good") == {"vm": "complete"}
        filler.unlink()
        source.before = lambda path, offset: None
        assert run_copy(plan, source, [full, good], settings=SETTINGS).state.good_copies == 2
        sha256sum(tmp_path / "full" / NAME)
    finally:
        subprocess.run(["umount", tmp_path / "full"], check=True)


def test_what_the_target_lost_is_mended_once() -> None:
    """A chunk that reads back differently is copied again; one that does so for ever fails the file."""
    plan, source = sample()
    target = memory()
    hits = []
    wrong = source.files["web/web.vhdx"][40000] ^ 1

    def spoil(op: str, where: str, at: int) -> None:
        # how often a place is read follows from the load of the computer: what is wrong stays wrong
        if op == "read_into" and "web.vhdx" in where and at == 36864 and (for_ever or not hits):
            hits.append(at)
            target.files[where].now[40000] = wrong

    target.fail, for_ever = spoil, False
    assert copy(plan, source, target).state.good_copies == 1
    assert_equal(plan, source, target)
    other = target = memory()
    other.fail, for_ever = spoil, True
    result = copy(plan, source, other)
    assert states(result) == {"web": "incomplete", "db": "complete"}
    assert "read back differently, twice, at 0x8000" in reasons(result, "web")
    assert f"{NAME}/web/web.vhdx" not in other.files


def test_a_bad_place_on_the_target_fails_the_file_not_the_target() -> None:
    plan, source = sample()
    target = memory(fail=fails("read_into", "io", "web.vhdx"))
    result = copy(plan, source, target)
    assert states(result) == {"web": "incomplete", "db": "complete"}


def test_chunks_that_a_lying_disk_lost_are_not_trusted(tmp_path: Path) -> None:
    plan, source = sample()
    target = memory(fail=fails("write", "gone", "web.vhdx", 90000))
    copy(plan, source, target)
    target.fail = lambda *call: None
    part = target.files[f"{NAME}/web/web.vhdx{PART}"]
    for place in (10, 80000):  # one of the last, and one long before: it was flushed, the disk says
        part.now[place] ^= 0xFF
    assert copy(plan, source, target).state.good_copies == 1
    assert_good(plan, source, target, tmp_path)


# --- reading back while the source is the slow part ---


class Clock:
    """Time that passes only where a test lets it pass: a busy computer makes neither side the slow one."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def spend(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(copy_pipeline, "time", clock)
    return clock


def waiting_source(
    target: MemoryTarget, clock: Clock, last: int = 47 * 4096
) -> tuple[CapturePlan, Source, list[int]]:
    """A file of 25 chunks whose source is the slow part and stops in the 16th, until the target has read its block
    ``last`` back: by itself that of the 12th chunk (14 are flushed, the last two of them may be in the disk's own
    cache); what is read of the target, in order."""
    data = content("slow", 100 * 4096)
    plan, source = plan_of(unit("vm", {"d": data})), Source({"vm/d": data})
    reads: list[int] = []
    enough = threading.Event()
    fail = target.fail

    def look(op: str, where: str, at: int) -> None:
        if op == "read_into":
            reads.append(at)
            if at == last:
                enough.set()
        fail(op, where, at)

    def wait(path: str, at: int) -> None:
        clock.spend(1.0)
        if at == 60 * 4096:
            assert enough.wait(300), f"only {len(reads)} blocks were read back"

    target.fail, source.before = look, wait
    return plan, source, reads


def test_a_target_that_waits_reads_back_and_does_so_once(clock: Clock, tmp_path: Path) -> None:
    target = memory()
    plan, source, reads = waiting_source(target, clock)
    marks: list[int] = []
    wait = source.before

    def mark(path: str, at: int) -> None:
        wait(path, at)
        if at == 60 * 4096:
            marks.append(len(reads))

    source.before = mark
    seen: list[CopyProgress] = []
    assert copy(plan, source, target, progress=seen.append).state.good_copies == 1
    assert marks == [48]  # while the source was still being waited for
    assert sorted(reads) == [n * 4096 for n in range(100)]
    assert max(p.done for p in seen) <= seen[-1].total
    assert_good(plan, source, target, tmp_path)


def test_what_is_found_bad_meanwhile_is_mended(clock: Clock, tmp_path: Path) -> None:
    hits: list[int] = []

    def spoil(op: str, where: str, at: int) -> None:
        if op == "read_into" and at == 6 * 16384 and not hits:
            hits.append(at)
            target.files[where].now[at + 5] ^= 1

    target = memory(fail=spoil)
    plan, source, reads = waiting_source(target, clock, 6 * 16384)
    assert copy(plan, source, target).state.good_copies == 1
    assert hits
    assert reads.count(6 * 16384) >= 3  # meanwhile, at the end, and after it was copied again
    assert reads.count(0) == 1
    assert_good(plan, source, target, tmp_path)


def test_a_target_that_goes_while_it_reads_back_ends_alone(clock: Clock, tmp_path: Path) -> None:
    good, target = memory("a"), memory("b", fail=fails("read_into", "gone", "d", 8 * 16384))
    plan, source, reads = waiting_source(target, clock, 8 * 16384)
    result = copy(plan, source, good, target)
    assert (states(result, "a"), states(result, "b")) == ({"vm": "complete"}, {"vm": "unfinished"})
    assert reads[-1] == 8 * 16384
    assert_good(plan, source, good, tmp_path)


def test_a_target_that_is_the_slow_part_only_writes(clock: Clock) -> None:
    def slow(op: str, where: str, at: int) -> None:
        calls.append(op)
        if op == "write":
            clock.spend(1.0)

    calls: list[str] = []
    data = content("fast", 100 * 4096)
    plan, source = plan_of(unit("vm", {"d": data})), Source({"vm/d": data})
    assert copy(plan, source, memory(fail=slow)).state.good_copies == 1
    assert "write" not in calls[calls.index("read_into") :]


def test_what_goes_through_the_cache_is_not_read_back_meanwhile() -> None:
    target = memory()
    target.make_folders("f")
    file = target.open("f/d")
    data = content("d", 3 * 16384)
    file.node.now[:] = data
    record = FileRecord("", len(data), [hashlib.sha256(data[:16384]).hexdigest()] * 3)
    file.unbuffered = False
    assert not EarlyCheck(file, record, SETTINGS).step(3)
    file.unbuffered = True
    check = EarlyCheck(file, record, SETTINGS)
    while check.step(3):
        pass
    assert record.checked == 1  # the second chunk is not what the record says


# --- stopping and power ---


def test_ctrl_c_stops_in_order_and_goes_on_within_the_file(tmp_path: Path) -> None:
    data = content("big", 4096 * 100)
    plan, source = plan_of(unit("vm", {"d": data})), Source({"vm/d": data})

    def interrupt(path: str, offset: int) -> None:
        if offset == 4096 * 70:
            source.before = lambda path, offset: None
            raise KeyboardInterrupt

    source.before = interrupt
    target = memory()
    result = copy(plan, source, target)
    assert result.interrupted
    assert states(result) == {"vm": "unfinished"}
    source.reads = 0
    result = copy(plan, source, target)
    assert source.reads <= 100 - 68 + 8  # 17 chunks of four blocks were kept
    assert result.state.good_copies == 1
    assert_good(plan, source, target, tmp_path)


def test_stopping_in_every_phase(tmp_path: Path) -> None:
    plan, source = sample()
    target = memory()
    for count in range(200):
        left = [count]

        def stop(left: list[int] = left) -> bool:
            left[0] -= 1
            return left[0] < 0

        result = copy(plan, source, target, stopping=stop)
        if not result.interrupted:
            break
    assert count > 10
    assert result.state.good_copies == 1
    assert_good(plan, source, target, tmp_path)


def assert_journal_is_not_ahead(target: MemoryTarget) -> None:
    """Every chunk that the journal knows is on the medium, if its file is."""
    import hashlib

    from rehost_payload.capture.copy_journal import Journal

    plan, _ = sample()
    if target.files.get(f"{NAME}/capture.journal") is None:
        return
    for path, record in Journal(target, NAME, identity(plan), SETTINGS.chunk_size).files.items():
        node = target.files.get(f"{NAME}/{path}{PART}") or target.files.get(f"{NAME}/{path}")
        for number, digest in enumerate(record.chunks if node is not None else ()):
            assert node is not None
            start = number * SETTINGS.chunk_size
            piece = bytes(node.now)[start : min(record.size, start + SETTINGS.chunk_size)]
            assert hashlib.sha256(piece).hexdigest() == digest, (path, number)
        if record.verified and node is not None:
            assert len(record.chunks) == -(-record.size // SETTINGS.chunk_size)


def calls_of_a_run() -> int:
    plan, source = sample()
    target = memory()
    copy(plan, source, target)
    return target.calls


@pytest.mark.parametrize("part", range(4))
def test_power_is_cut_at_every_step(part: int, tmp_path: Path) -> None:
    """After each call that reaches the disk, of which what was not flushed survives in part; then once more on the way."""
    from support.memory_target import PowerCut

    chance = random.Random(part)
    for cut in range(part, calls_of_a_run() + 5, 4):
        plan, source = sample()
        target = memory()
        for again in (cut, chance.randrange(1, 200), None):
            target.cut_at = again
            try:
                result = copy(plan, source, target)
            except PowerCut:
                target.restart(chance if chance.random() < 0.8 else None)
                assert_journal_is_not_ahead(target)
                continue
            break
        assert result.state.good_copies == 1, cut
        assert_equal(plan, source, target)
    place = dump(target, tmp_path)
    assert verify_capture(place).verdict is Verdict.PASS
    sha256sum(place)


# --- other files than in the run before ---


def merged(plan: CapturePlan, source: Source) -> CapturePlan:
    """The checkpoint of "web" was merged: its disk is gone, and the base has other contents."""
    _web, db = plan.units
    source.files = {name: data for name, data in source.files.items() if name != "web/web.avhdx"}
    source.files["web/web.vhdx"] = content("merged", 100_001)
    return plan_of(unit("web", {n[4:]: d for n, d in source.files.items() if n.startswith("web/")}), db)


def with_checkpoint() -> tuple[CapturePlan, Source]:
    plan, source = sample()
    source.files["web/web.avhdx"] = content("avhdx", 50_000)
    return plan_of(
        unit("web", {n[4:]: d for n, d in source.files.items() if n.startswith("web/")}), plan.units[1]
    ), source


def test_a_machine_with_other_files_is_copied_anew_and_the_others_are_not(tmp_path: Path) -> None:
    plan, source = with_checkpoint()
    target = memory()
    copy(plan, source, target)
    later, read = merged(plan, source), set[str]()
    source.before = lambda path, offset: read.add(path) if offset not in (0, 65536, 131072) else None
    result = copy(later, source, target)
    assert result.state.good_copies == 1
    assert {path for path in read if path.startswith("db/d")} <= {"db/db.vhdx"}
    assert f"{NAME}/web/web.avhdx" not in target.files  # the old chain is not beside the new one
    assert_good(later, source, target, tmp_path)
    (was,) = [u.files for u in result.state.units if u.folder == "web"]
    assert was == layout(later.units[0]) != layout(plan.units[0])


def test_of_a_machine_with_other_files_nothing_is_kept() -> None:
    """A checkpoint was taken: the base looks as it did. It is read again all the same: one moment, one chain."""
    plan, source = sample()
    target = memory()
    copy(plan, source, target)
    bigger = replace(source)
    bigger.files = source.files | {"web/web.avhdx": content("avhdx", 50_000)}
    later = plan_of(
        unit("web", {n[4:]: d for n, d in bigger.files.items() if n.startswith("web/")}), plan.units[1]
    )
    read: dict[str, int] = {}

    def count(path: str, offset: int) -> None:
        read[path] = read.get(path, 0) + 1

    bigger.before = count
    assert copy(later, bigger, target).state.good_copies == 1
    assert read["web/web.vhdx"] > 24
    assert read["db/db.vhdx"] <= 8


def test_an_earlier_copy_stays_whole_until_its_turn_and_does_not_count(tmp_path: Path) -> None:
    """The run ends before it comes to the machine: what is there is of the earlier moment, all of it."""
    plan, source = with_checkpoint()
    plan = plan_of(*reversed(plan.units))  # "web" is the second
    target = memory()
    copy(plan, source, target)
    before = {path: target.content(path) for path in target.files if path.startswith(f"{NAME}/web/")}
    old = dict(source.files)
    later = plan_of(*reversed(merged(plan_of(*reversed(plan.units)), source).units))
    source.versions["db/db.vhdx"] = 1

    def stop(path: str, offset: int) -> None:
        if path == "db/db.vhdx" and offset == 4096:
            raise KeyboardInterrupt

    source.before = stop
    result = copy(later, source, target)
    assert result.interrupted
    assert states(result) == {"db": "unfinished", "web": "unfinished"}
    assert "an earlier run has copied it with other files" in reasons(result, "web")
    assert {p: target.content(p) for p in target.files if p.startswith(f"{NAME}/web/")} == before
    assert target.content(f"{NAME}/web/web.vhdx") == old["web/web.vhdx"]
    sha256sum(dump(target, tmp_path / "between"))
    source.before = lambda path, offset: None
    assert copy(later, source, target).state.good_copies == 1
    assert_good(later, source, target, tmp_path / "after")


EARLIER = "web (earlier 2026-11-20)"
TAKEN = "2026-11-20T10:00:00Z"


def set_aside(target: MemoryTarget) -> list[str]:
    return sorted({path.split("/")[1] for path in list(target.files) if "earlier" in path})


def assert_one_is_whole(target: MemoryTarget, source: Source, old: dict[str, bytes]) -> None:
    """At no moment is there neither the earlier copy nor the new one, with lists and all that they name."""
    copies = {"web": None, **dict.fromkeys(set_aside(target))}
    good = []
    for folder in copies:
        here = {p.removeprefix(f"{NAME}/{folder}/"): bytes(n.now) for p, n in target.files.items()}
        lists = here.get("manifest.json"), here.get("SHA256SUMS")
        if None in lists:
            continue
        said = manifests.from_json(lists[0] or b"")
        for files in (old, source.files):
            mine = {p[4:]: data for p, data in files.items() if p.startswith("web/")}
            if {f.path for f in said.files} == mine.keys() and all(here.get(p) == mine[p] for p in mine):
                good.append(folder)
    assert good, sorted(target.files)


def earlier_run(room: int | None = None) -> tuple[CapturePlan, Source, MemoryTarget, dict[str, bytes]]:
    """A target with a complete copy; "web" has other files since. ``room`` is bytes beside the allowance."""
    plan, source = with_checkpoint()
    target = memory()
    copy(plan, source, target, now=lambda: TAKEN)
    old = dict(source.files)
    later = merged(plan, source)
    if room is not None:
        target.capacity = target._used() + (16 << 20) + (16 << 10) * 6 + room
    target.calls = 0
    return later, source, target, old


def test_an_earlier_copy_outlives_a_source_that_fails_in_the_middle(tmp_path: Path) -> None:
    later, source, target, old = earlier_run()
    source.bad, source.number = {("web/web.vhdx", 40960)}, errno.ENODEV
    result = copy(later, source, target)
    assert states(result) == {"web": "incomplete", "db": "complete"}
    assert result.state.good_copies == 0
    for path, data in old.items():
        if path.startswith("web/"):
            assert target.content(f"{NAME}/{EARLIER}/{path[4:]}") == data
    ((kept,),) = [c.earlier for u in result.state.units if u.folder == "web" for c in u.copies]
    assert (kept.folder, kept.taken) == (EARLIER, TAKEN)
    place = dump(target, tmp_path / "between")
    assert (place / EARLIER / "SHA256SUMS").is_file()
    sha256sum(place)
    verdict = verify_capture(place)
    assert {u.folder: (u.verdict, u.earlier) for u in verdict.units} == {
        "web": (Verdict.FAIL, False),
        EARLIER: (Verdict.PASS, True),
        "db": (Verdict.PASS, False),
    }
    # a further failing run keeps it, and makes no second one
    copy(later, source, target)
    assert set_aside(target) == [EARLIER]
    (state,) = find_captures(target).values()
    lines = "\n".join(listed([Present("a", as_it_lies(state, target, NAME))], Texts("en")))
    assert f'earlier complete copy of 2026-11-20 kept in "{EARLIER}"' in lines
    assert "A good copy of 1 of 2" in lines
    contents = read_contents(target, NAME)
    assert contents is not None
    assert EARLIER in to_html(contents, "en")
    assert EARLIER.encode() not in root_files(contents)["restore.json"]
    # one of which a file is gone is not named any more
    lost = target.files.pop(f"{NAME}/{EARLIER}/web.avhdx")
    assert [c.earlier for u in as_it_lies(state, target, NAME).units for c in u.copies] == [(), ()]
    target.files[f"{NAME}/{EARLIER}/web.avhdx"] = lost
    # the array is back
    source.bad.clear()
    result = copy(later, source, target)
    assert result.state.good_copies == 1
    assert set_aside(target) == []
    assert [c.earlier for u in result.state.units for c in u.copies] == [(), ()]
    assert_good(later, source, target, tmp_path / "after")


def test_an_earlier_copy_goes_when_the_new_one_is_complete_on_that_target(tmp_path: Path) -> None:
    later, source, good, _ = earlier_run()
    bad = MemoryTarget(TargetInfo("b", "disk b", "ntfs"))
    plan, first = with_checkpoint()
    copy(plan, first, bad, now=lambda: TAKEN)
    seen = set[str]()

    def fail(op: str, where: str, at: int) -> None:
        seen.update(set_aside(good))
        if op == "write" and "web.vhdx" in where:
            raise SystemError_("gone", where)

    bad.fail = fail
    result = copy(later, source, good, bad)
    assert states(result, "a") == {"web": "complete", "db": "complete"}
    assert states(result, "b")["web"] == "unfinished"
    assert seen == {EARLIER}
    assert (set_aside(good), set_aside(bad)) == ([], [EARLIER])
    assert_good(later, source, good, tmp_path / "good")
    sha256sum(dump(bad, tmp_path / "bad"))
    bad.fail = lambda *call: None
    assert copy(later, source, good, bad).state.good_copies == 2
    assert set_aside(bad) == []


def test_a_copy_that_was_not_complete_is_not_kept() -> None:
    plan, source = with_checkpoint()
    source.bad = {("web/web.vhdx", 20480)}
    target = memory()
    copy(plan, source, target)
    source.bad.clear()
    later = merged(plan, source)
    names = set[str]()
    target.fail = lambda op, where, at: names.update(n for n in [where] if "earlier" in n)
    assert copy(later, source, target).state.good_copies == 1
    assert names == set()


@pytest.mark.parametrize(("spare", "kept"), [(0, True), (-1, False)])
def test_without_room_for_both_the_earlier_copy_is_replaced(spare: int, kept: bool, tmp_path: Path) -> None:
    """The room is counted to the byte, for the plan and for what is really used at most."""
    new = sum(f.size for f in earlier_run()[0].units[0].files)
    later, source, target, _ = earlier_run(new + spare)
    names = set[str]()
    most = [0]

    def look(op: str, where: str, at: int) -> None:
        names.update(set_aside(target))
        most[0] = max(most[0], target._used())

    target.fail = look
    before = target._used()
    assert copy(later, source, target).state.good_copies == 1
    assert names == ({EARLIER} if kept else set())
    assert most[0] - before > (new if kept else 0)
    assert most[0] <= target.capacity
    assert_good(later, source, target, tmp_path)


def test_what_is_kept_leaves_the_others_their_room(tmp_path: Path) -> None:
    """Both machines have other files, and the first one's source fails: the second one is copied all the same."""
    plan, source = with_checkpoint()
    target = memory()
    copy(plan, source, target, now=lambda: TAKEN)
    files = {"db": {"db.vhdx": content("new db", 90_000)}, "web": {"web.vhdx": content("new", 160_000)}}
    source.files = {f"{f}/{n}": d for f, entry in files.items() for n, d in entry.items()}
    later = plan_of(*(unit(folder, files[folder]) for folder in ("web", "db")))
    source.bad, source.number = {("web/web.vhdx", 40960)}, errno.ENODEV
    # room for the one beside its earlier copy or for the other, not for both
    target.capacity = target._used() + (16 << 20) + (16 << 10) * 2 + 200_000
    result = copy(later, source, target)
    assert states(result) == {"web": "incomplete", "db": "complete"}
    assert set_aside(target) == [EARLIER]
    sha256sum(dump(target, tmp_path))


def test_parents_of_an_earlier_copy_stay_with_it() -> None:
    """The base is complete again, the machine on it is not: its earlier copy is worth nothing without the earlier base."""
    files = {"base": {"p.vhdx": content("p", 50_000)}, "vm": {"c.avhdx": content("c", 30_000)}}
    source = Source({f"{f}/{n}": d for f, entry in files.items() for n, d in entry.items()})

    def plan() -> CapturePlan:
        base, child = (
            unit(f, {n[len(f) + 1 :]: d for n, d in source.files.items() if n.startswith(f"{f}/")})
            for f in ("base", "vm")
        )
        shared = tuple(replace(f, shared_with=("id-vm",)) for f in base.files)
        return plan_of(
            replace(base, files=shared),
            replace(child, files=tuple(replace(f, parent="base/p.vhdx") for f in child.files)),
        )

    target = memory()
    assert copy(plan(), source, target, now=lambda: TAKEN).state.good_copies == 1
    source.files |= {"base/p.vmcx": b"1", "vm/c.vmcx": b"1"}
    source.bad, source.number = {("vm/c.avhdx", 4096)}, errno.ENODEV
    result = copy(plan(), source, target)
    assert states(result) == {"base": "complete", "vm": "incomplete"}
    assert set_aside(target) == ["base (earlier 2026-11-20)", "vm (earlier 2026-11-20)"]
    source.bad.clear()
    assert copy(plan(), source, target).state.good_copies == 1
    assert set_aside(target) == []


def test_the_name_of_an_earlier_copy_meets_no_other(tmp_path: Path) -> None:
    """A machine is called so already, and somebody has put a file into the folder: neither is touched."""
    long = "x" * 60
    names = ("web", EARLIER.upper(), long)
    files = {name: {"a": content(name, 5000), "b/c": b"1"} for name in names}
    source = Source({f"{f}/{n}": d for f, entry in files.items() for n, d in entry.items()})
    root = tmp_path / "t"
    root.mkdir()
    target = DirectoryTarget(root, TargetInfo("t", "t", "ext4"))

    def go(**more: object) -> dict[str, str]:
        units = [
            unit(f, {n[len(f) + 1 :]: d for n, d in source.files.items() if n.startswith(f"{f}/")})
            for f in names
        ]
        result = run_copy(plan_of(*units), source, [target], settings=SETTINGS, **more)  # type: ignore[arg-type]
        return states(result, "t")

    go(now=lambda: TAKEN)
    source.files |= {"web/new": b"n", f"{long}/new": b"n"}
    source.bad, source.number = {("web/a", 512), (f"{long}/a", 512)}, errno.ENODEV
    go()
    place = root / NAME
    kept = {p.name for p in place.iterdir() if p.is_dir()} - {*names}
    assert kept == {f"{EARLIER} (2)", f"{'x' * 39} (earlier 2026-11-20)"}
    assert max(map(len, kept)) <= 60
    sha256sum(place)
    note = place / f"{EARLIER} (2)" / "b" / "note.txt"
    note.write_text("mine")
    source.bad.clear()
    assert set(go().values()) == {"complete"}
    assert {p.name for p in place.iterdir() if p.is_dir()} == {*names, f"{EARLIER} (2)"}
    assert [p for p in (place / f"{EARLIER} (2)").rglob("*") if p.is_file()] == [note]
    note.unlink()
    note.parent.rmdir()
    assert set(go().values()) == {"complete"}  # what is empty now goes
    assert {p.name for p in place.iterdir() if p.is_dir()} == {*names}
    assert verify_capture(place).verdict is Verdict.PASS


@pytest.mark.parametrize("part", range(4))
def test_power_is_cut_while_other_files_take_the_place(part: int, tmp_path: Path) -> None:
    """Whatever is called complete afterwards has the new files, and none of the old ones. With room for both, there is a
    whole copy of the machine after each cut, the earlier or the new one."""
    from support.memory_target import PowerCut

    chance = random.Random(part)
    # too little for both; and a file that has two names after a cut is counted twice here
    room = None if part % 2 else 100_000
    later, source, target, _ = earlier_run(room)
    copy(later, source, target)
    seen = 0
    for cut in range(part // 2, target.calls + 5, 2):
        later, source, target, old = earlier_run(room)
        for again in (cut, chance.randrange(1, 120), None):
            target.cut_at = again
            try:
                result = copy(later, source, target)
            except PowerCut:
                target.restart(chance if chance.random() < 0.8 else None)
                seen += bool(set_aside(target))
                if room is None:
                    assert_one_is_whole(target, source, old)
                continue
            break
        assert result.state.good_copies == 1, cut
        assert_equal(later, source, target)
        assert f"{NAME}/web/web.avhdx" not in target.files, cut
        assert set_aside(target) == [], cut
    assert bool(seen) == (room is None)
    place = dump(target, tmp_path)
    assert verify_capture(place).verdict is Verdict.PASS
    sha256sum(place)


def test_files_that_are_no_machines_are_kept_where_they_stayed(tmp_path: Path) -> None:
    """Those of the host change whenever it runs; disks of nobody may be terabytes and have nothing to do with each other."""
    files = {"one": content("one", 60_000), "two": content("two", 60_000)}
    orphans = replace(unit("orphans", files), kind="orphans")
    source = Source({f"orphans/{n}": d for n, d in files.items()})
    target = memory()
    copy(plan_of(orphans), source, target)
    source.files = {"orphans/one": files["one"], "orphans/three": content("three", 5)}
    later = plan_of(
        replace(unit("orphans", {"one": files["one"], "three": content("three", 5)}), kind="orphans")
    )
    read = set[tuple[str, int]]()
    source.before = lambda path, offset: read.add((path, offset))
    assert copy(later, source, target).state.good_copies == 1
    assert ("orphans/one", 4096) not in read
    assert f"{NAME}/orphans/two" not in target.files
    assert_good(later, source, target, tmp_path)


def test_room_that_the_old_files_leave_counts() -> None:
    plan, source = with_checkpoint()
    target = memory()
    copy(plan, source, target)
    source.files["web/web.vhdx"] = content("merged", 140_000)
    later = plan_of(
        unit("web", {n[4:]: d for n, d in source.files.items() if n.startswith("web/") and "avhdx" not in n}),
        plan.units[1],
    )
    target.capacity = target._used() + (16 << 20) + (16 << 10) * 6
    assert copy(later, source, target).state.good_copies == 1
    target.capacity = target._used() + (16 << 20)
    with pytest.raises(CaptureRefused) as error:
        copy(plan_of(unit("web", {"web.vhdx": content("x", 400_000)}), plan.units[1]), source, target)
    assert error.value.code == "no-space"


def test_a_disk_with_the_older_files_is_no_second_copy() -> None:
    plan, source = with_checkpoint()
    a, b = memory("a"), memory("b")
    copy(plan, source, a, b)
    later = merged(plan, source)
    copy(later, source, a, now=lambda: "9999")
    found = [Present(t.info.name, as_it_lies(s, t, n)) for t in (a, b) for n, s in find_captures(t).items()]
    (capture,) = together(found)
    copies = {u.folder: u.good_copies for u in capture.state.units}
    assert copies == {"web": 1, "db": 2}
    assert copy(later, source, b).state.good_copies == 1
    found = [Present(t.info.name, as_it_lies(s, t, n)) for t in (a, b) for n, s in find_captures(t).items()]
    assert together(found)[0].state.good_copies == 2


def test_what_makes_it_another_capture() -> None:
    plan, _ = sample()
    web, db = plan.units
    assert identity(plan) == identity(plan_of(db, web))
    for other in (
        plan_of(web),
        plan_of(replace(web, folder="web-2"), db),
        replace(plan, config_only=True),
        replace(plan, images=True),
        replace(plan, orphans=False),
        replace(plan, host="HV2"),
    ):
        assert identity(other) != identity(plan)


# --- what is refused ---


def refused(plan: CapturePlan, *targets: MemoryTarget) -> tuple[str, str]:
    _, source = sample()
    with pytest.raises(CaptureRefused) as error:
        copy(plan, source, *targets)
    assert not any(t.files for t in targets)
    return error.value.code, error.value.subject


@pytest.mark.parametrize(
    "target",
    [
        "../x",
        "web/../../etc",
        "web/a:b",
        "web/con?",
        "db/x",
        "web/",
        "web//x",
        "web/\ud800",
        "web/MANIFEST.json",
        "web/x\n",
    ],
)
def test_names_that_lead_elsewhere(target: str) -> None:
    plan, _ = sample()
    web = replace(plan.units[0], files=(replace(plan.units[0].files[0], target=target),))
    assert refused(plan_of(web), memory())[0] == "plan"


def test_names_that_meet() -> None:
    plan, _ = sample()
    web, db = plan.units
    first = web.files[0]
    for bad in (
        plan_of(web, replace(db, folder="WEB")),
        plan_of(replace(web, files=(first, replace(first, target="web/WEB.VHDX")))),
        plan_of(replace(web, files=(first, replace(first, target="web/web.vhdx/below")))),
        plan_of(replace(web, files=(replace(first, parent="web/nowhere.vhdx"),))),
        replace(plan, name="a/b"),
    ):
        assert refused(bad, memory())[0] == "plan"


def test_targets_that_no_copy_may_lie_on() -> None:
    plan, _ = sample()

    def on(
        name: str, file_system: str = "ntfs", disk: str = "", serial: str = "", size: int = 0
    ) -> MemoryTarget:
        return MemoryTarget(TargetInfo(name, name, file_system, disk, serial, size))

    assert refused(plan) == ("no-target", NAME)
    assert refused(plan, on("a", "fat32")) == ("fat32", "a")
    assert refused(plan, on("a", disk="/dev/source")) == ("source-disk", "a")
    assert refused(plan, on("a", disk="/dev/sdz", serial="SOURCE", size=1 << 41)) == ("source-disk", "a")
    assert refused(plan, on("a"), on("a")) == ("same-disk", "a")
    assert refused(plan, on("a", disk="/dev/sdb"), on("b", disk="/dev/sdb")) == ("same-disk", "b")


def test_another_capture_is_not_touched() -> None:
    plan, source = sample()
    target = memory()
    copy(plan, source, target)
    before = {path: bytes(node.now) for path, node in target.files.items()}
    with pytest.raises(CaptureRefused) as error:
        copy(replace(plan, units=plan.units[:1]), source, target)
    assert error.value.code == "other-capture"
    foreign = memory()
    foreign.replace(f"{NAME}/letter.txt", b"mine")
    with pytest.raises(CaptureRefused) as error:
        copy(plan, source, foreign)
    assert error.value.code == "other-capture"
    assert {path: bytes(node.now) for path, node in target.files.items()} == before
    assert list(foreign.files) == [f"{NAME}/letter.txt"]


def test_an_earlier_capture_is_found_and_resumed_under_its_name() -> None:
    plan, source = sample()
    target = memory(fail=fails("write", "gone", "db"))
    copy(plan, source, target)
    target.fail = lambda *call: None
    (found,) = find_captures(target).values()
    later = replace(plan, name="Rehost-HV-2")
    assert (found.name, found.identity, found.good_copies) == (NAME, identity(later), 0)
    assert copy(replace(later, name=found.name), source, target).state.good_copies == 1


def test_a_clock_that_jumps_changes_nothing_but_the_dates(tmp_path: Path) -> None:
    """Set back to 1970 in the middle, and years ahead in the next run, which goes on all the same."""
    plan, source = sample()
    target = memory(fail=fails("write", "gone", "db"))
    times = iter(["2026-11-27T10:00:00Z", *["1970-01-01T00:00:00Z"] * 100])
    copy(plan, source, target, now=lambda: next(times))
    target.fail = lambda *call: None
    before = source.reads
    result = copy(plan, source, target, now=lambda: "2099-01-01T00:00:00Z")
    assert result.state.good_copies == 1
    assert (result.state.started, result.state.updated) == ("2026-11-27T10:00:00Z", "2099-01-01T00:00:00Z")
    assert source.reads < 2 * before
    again = copy(plan, source, target, now=lambda: "1970-01-01T00:00:00Z")
    assert again.state.good_copies == 1
    assert_good(plan, source, target, tmp_path)


def test_files_deleted_from_a_finished_copy_come_back(tmp_path: Path) -> None:
    plan, source = sample()
    target = memory()
    copy(plan, source, target)
    target.remove(f"{NAME}/web/web.vhdx")
    assert copy(plan, source, target).state.good_copies == 1
    assert_good(plan, source, target, tmp_path)


def test_progress() -> None:
    plan, source = sample()
    seen: list[CopyProgress] = []
    clock = iter(range(100000))
    import rehost_payload.capture.copy_progress as module

    meter = module.Meter(1000, seen.append, lambda: float(next(clock)))
    meter.unit("u", "Web", 1000)
    meter.file("copy", "web/x")
    for _ in range(10):
        meter.add(100)
    meter.file("verify", "web/x")
    for _ in range(5):
        meter.add(100)
    last = meter.now()
    assert (last.phase, last.name, last.unit_done, last.unit_total) == ("verify", "Web", 1500, 2000)
    assert (last.done, last.total) == (1500, 2000)
    assert 0 < last.rate <= 100
    assert last.eta is not None
    assert 5 <= last.eta <= 20
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    got: list[CopyProgress] = []
    copy(plan, source, memory(), progress=got.append)
    assert got


@pytest.mark.parametrize("language", ["en", "de"])
def test_every_refusal_and_fault_has_words(language: str) -> None:
    from rehost_payload.capture import copy, copy_plan, judge, targets
    from rehost_payload.system import folder_target, linux, mounting
    from rehost_payload.ui import capture_work
    from rehost_payload.ui.texts import Texts

    texts = Texts(language)
    for module, call in (
        (copy_plan, "CaptureRefused"),
        (copy, "CaptureRefused"),
        (folder_target, "FolderConflict"),
        (folder_target, "SystemError_"),
        (linux, "SystemError_"),
        (mounting, "SystemError_"),
        (capture_work, "BadOrders"),
        (capture_work, "CaptureRefused"),
    ):
        codes = set(re.findall(rf'{call}\(\s*"([a-z-]+)"', Path(module.__file__ or "").read_text()))
        assert codes or module is mounting
        codes.discard("boot-code")  # a repair's, of which the systems are asked as well
        for code in codes | set(capture_work._BLOCKERS.values()) | targets.UNFIT:
            for part in ("title", "next"):
                assert texts.part("capturerefused", code, part), f"{module.__name__}: {code}: {part}"
    codes = set(re.findall(r'Fault\(\s*"([a-z-]+)"', Path(judge.__file__).read_text()))
    assert codes
    assert not {code for code in codes if not texts.has(f"capturecheck.{code}")}
