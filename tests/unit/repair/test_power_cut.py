"""Every write may be the last one before the power goes: old or new, and undo brings everything back."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import pytest

from rehost_payload.repair.model import ResultWord
from rehost_payload.repair.session import run_undo
from rehost_payload.system.protocol import SystemError_
from support import disks, fat_image, windows
from support.disks import DiskLayout
from support.image_system import ImageMachine, ImageVolume

from .helpers import repair

FILES = (windows.STORE, windows.FALLBACK_STORE, "EFI/Boot/bootx64.efi", "EFI/Microsoft/Boot/bootmgfw.efi")


class PowerCut(BaseException):
    """Nothing that runs afterwards can write any more: neither rollback nor anything else."""


class Fuse:
    """Lets ``count`` writes pass, then breaks the current: for good, or for one write."""

    def __init__(self, count: int, error: type[BaseException], once: bool) -> None:
        self.left = count
        self.error = error
        self.once = once
        self.passed = 0

    def __call__(self, what: str, where: str) -> None:
        if self.left == 0 or (self.left < 0 and not self.once):
            self.left = -1
            raise self.error(f"{what} {where}")
        self.left -= 1
        self.passed += 1


def state(disk: DiskLayout) -> dict[str, bytes | None]:
    return {
        f: disks.read_file(disk, disk.esp, f) if disks.file_exists(disk, disk.esp, f) else None for f in FILES
    }


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> DiskLayout:
    """Stale stores, no fallback loader, no boot manager: several files and folders are written."""
    disk = windows.gpt_server(tmp_path_factory.mktemp("broken") / "server.img")
    disks.delete_file(disk, disk.esp, "EFI/Boot")
    disks.delete_file(disk, disk.esp, "EFI/Microsoft/Boot/bootmgfw.efi")
    return windows.restored(disk)


def writes(broken: DiskLayout, stick: DiskLayout, folder: Path) -> tuple[int, dict[str, bytes | None]]:
    """How many writes a whole repair makes, and what the files are after it."""
    disk = windows.copy_disk(broken, folder / "whole.img")
    other = windows.copy_disk(stick, folder / "whole-stick.img")
    fuse = Fuse(10**6, PowerCut, False)
    outcome = repair(ImageMachine([disk.path, other.path], fail=fuse))
    assert outcome.result.word is ResultWord.REPAIRED
    return fuse.passed, state(disk)


def test_cut_at_every_write(broken, stick, tmp_path):
    total, new = writes(broken, stick, tmp_path)
    old = state(broken)
    assert total > 15
    undone = 0
    for count in range(total):
        disk = windows.copy_disk(broken, tmp_path / "cut.img")
        medium = windows.copy_disk(stick, tmp_path / "cut-stick.img")
        with pytest.raises(PowerCut):
            repair(ImageMachine([disk.path, medium.path], fail=Fuse(count, PowerCut, False)))
        now = state(disk)
        for name in FILES:
            assert now[name] in (old[name], new[name]), f"{name} after {count} writes"
        outcome = run_undo(ImageMachine([disk.path, medium.path]))
        if outcome.result.word is ResultWord.UNDONE:
            undone += 1
        else:  # cut before the journal announced anything: there is nothing to undo
            assert now == old
        assert state(disk) == old, f"after undo of a cut after {count} writes"
    assert undone > 5


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_failure_at_every_write_is_rolled_back(broken, stick, tmp_path, error):
    total, new = writes(broken, stick, tmp_path)
    old = state(broken)
    for count in range(0, total, 3):
        disk = windows.copy_disk(broken, tmp_path / "fail.img")
        medium = windows.copy_disk(stick, tmp_path / "fail-stick.img")
        machine = ImageMachine([disk.path, medium.path], fail=Fuse(count, error, True))
        try:
            outcome = repair(machine)
        except KeyboardInterrupt:
            # nothing half-done: all rolled back, or (interrupted while the report was written) all done
            assert state(disk) in (old, new), f"after an interruption at write {count}"
        else:
            # the report is written after the work: a failure there leaves the work done
            if outcome.result.word is not ResultWord.REPAIRED:
                assert outcome.result.word is ResultWord.FAILED
                assert state(disk) == old, f"after a failure at write {count}"


def test_the_originals_volume_fills_up(broken, stick, tmp_path):
    """From some write on the journal takes nothing more: what was done until then is put back all the same."""
    total, _ = writes(broken, stick, tmp_path)
    old = state(broken)
    for count in range(1, total, 2):
        disk = windows.copy_disk(broken, tmp_path / "full.img")
        medium = windows.copy_disk(stick, tmp_path / "full-stick.img")
        left = count

        def full(what: str, where: str) -> None:
            nonlocal left
            left -= what != "mount"
            if left < 0 and where.startswith("\\Rehost"):
                raise SystemError_("no-space", where)

        outcome = repair(ImageMachine([disk.path, medium.path], fail=full))
        if outcome.result.word is ResultWord.REPAIRED:  # there was room for all but the report
            continue
        assert outcome.result.word is ResultWord.FAILED
        assert state(disk) == old, f"full after {count} writes"
        assert outcome.result.rolled_back, outcome.result.error
        assert "rolling back failed" not in (outcome.result.error or "")


def test_the_stick_is_pulled_out_in_the_middle(broken, stick, tmp_path, monkeypatch):
    """The originals are on it; what is in memory brings everything back all the same."""
    total, new = writes(broken, stick, tmp_path)
    old = state(broken)
    read = ImageVolume.read
    rolled_back = 0
    for count in range(1, total, 3):
        disk = windows.copy_disk(broken, tmp_path / "pulled.img")
        medium = windows.copy_disk(stick, tmp_path / "pulled-stick.img")
        left = count

        def pulled(what: str, where: str) -> None:
            nonlocal left
            left -= what != "mount"
            if left < 0 and (where.startswith("\\Rehost") or where == str(medium.path)):  # noqa: B023
                raise SystemError_("gone", where)

        def reading(self: ImageVolume, path: str) -> bytes:
            if left < 0 and self.image == medium.path:  # noqa: B023
                raise SystemError_("gone", path)
            return read(self, path)

        monkeypatch.setattr(ImageVolume, "read", reading)
        outcome = repair(ImageMachine([disk.path, medium.path], fail=pulled))
        monkeypatch.undo()
        if outcome.result.word is ResultWord.REPAIRED:  # all but the report was written before
            assert state(disk) == new
            continue
        assert outcome.result.word is ResultWord.FAILED
        assert state(disk) == old, f"pulled out after {count} writes"
        assert outcome.result.rolled_back, outcome.result.error
        rolled_back += 1
    assert rolled_back > 4


def test_a_stick_that_cannot_be_flushed_hides_nothing(broken, stick, tmp_path, monkeypatch):
    """As Windows does it: closing the volume of the pulled stick fails, behind the failure that counts."""
    disk = windows.copy_disk(broken, tmp_path / "pulled.img")
    medium = windows.copy_disk(stick, tmp_path / "pulled-stick.img")
    left = 12

    def pulled(what: str, where: str) -> None:
        nonlocal left
        left -= what != "mount"
        if left < 0 and (where.startswith("\\Rehost") or where == str(medium.path)):
            raise SystemError_("gone", where)

    class Windows(ImageMachine):
        @contextmanager
        def writable(self, disk, offset, size):
            with super().writable(disk, offset, size) as volume:
                try:
                    yield volume
                finally:
                    if left < 0 and disk == str(medium.path):
                        raise SystemError_("gone", "flushing the volume")

    monkeypatch.setattr("rehost_payload.repair.apply._put_back_from_memory", lambda *_: False)
    monkeypatch.setattr("rehost_payload.repair.apply.undo", fails)
    result = repair(Windows([disk.path, medium.path], fail=pulled)).result
    assert result.word is ResultWord.FAILED
    assert not result.rolled_back
    assert result.journal is not None
    assert "rolling back failed" in (result.error or "")


def fails(*_: object, **__: object) -> None:
    raise SystemError_("gone", "the stick")


def test_undo_survives_a_cut_of_its_own(broken, stick, tmp_path):
    disk = windows.copy_disk(broken, tmp_path / "twice.img")
    medium = windows.copy_disk(stick, tmp_path / "twice-stick.img")
    machine = ImageMachine([disk.path, medium.path])
    assert repair(machine).result.word is ResultWord.REPAIRED
    for count in range(1, 6):
        machine.fail = Fuse(count, PowerCut, False)
        with pytest.raises(PowerCut):
            run_undo(machine)
    machine.fail = Fuse(10**6, PowerCut, False)
    assert run_undo(machine).result.word is ResultWord.UNDONE
    assert state(disk) == state(broken)


def test_undo_refuses_what_somebody_changed_since(broken, stick, tmp_path):
    disk = windows.copy_disk(broken, tmp_path / "since.img")
    medium = windows.copy_disk(stick, tmp_path / "since-stick.img")
    machine = ImageMachine([disk.path, medium.path])
    assert repair(machine).result.word is ResultWord.REPAIRED
    disks.write_file(disk, disk.esp, windows.STORE, b"somebody else's store")
    before = state(disk)
    outcome = run_undo(machine)
    assert outcome.result.word is ResultWord.FAILED
    assert outcome.result.error is not None
    assert "conflict" in outcome.result.error
    assert state(disk) == before
    assert run_undo(machine, force=True).result.word is ResultWord.UNDONE
    assert state(disk) == state(broken)
    # what the operator let go of is not gone
    part = medium["stick"]
    kept = [n for n in fat_image.listing(medium.path, part.offset) if "replaced-" in n]
    assert [disks.read_file(medium, part, n) for n in kept] == [b"somebody else's store"]


def test_a_new_file_that_a_cut_left_empty_is_no_change_of_somebody(broken, stick, tmp_path):
    """As Linux' vfat leaves it. A file that was there before is never empty by a cut."""
    disk = windows.copy_disk(broken, tmp_path / "empty.img")
    medium = windows.copy_disk(stick, tmp_path / "empty-stick.img")
    machine = ImageMachine([disk.path, medium.path])
    assert repair(machine).result.word is ResultWord.REPAIRED
    store = disks.read_file(disk, disk.esp, windows.STORE)
    disks.write_file(disk, disk.esp, "EFI/Boot/bootx64.efi", b"")
    disks.write_file(disk, disk.esp, windows.STORE, b"")
    outcome = run_undo(machine)
    assert outcome.result.word is ResultWord.FAILED
    assert "bootx64.efi" not in (outcome.result.error or "")
    assert "BCD" in (outcome.result.error or "")
    disks.write_file(disk, disk.esp, windows.STORE, store)
    assert run_undo(machine).result.word is ResultWord.UNDONE
    assert state(disk) == state(broken)


def test_torn_journal_line_is_ignored(broken, stick, tmp_path):
    disk = windows.copy_disk(broken, tmp_path / "torn.img")
    medium = windows.copy_disk(stick, tmp_path / "torn-stick.img")
    machine = ImageMachine([disk.path, medium.path])
    outcome = repair(machine)
    assert outcome.result.journal is not None
    log = outcome.result.journal.split(" ", 1)[1].strip("\\") + "\\journal.jsonl"
    part = medium["stick"]
    data = disks.read_file(medium, part, log)
    disks.write_file(medium, part, log, data[: data.rstrip(b"\n").rfind(b"\n") + 12])
    assert run_undo(machine).result.word is ResultWord.UNDONE
    assert state(disk) == state(broken)


def test_a_damaged_journal_is_named_and_no_older_run_undone_for_it(broken, stick, tmp_path):
    disk = windows.copy_disk(broken, tmp_path / "damaged.img")
    medium = windows.copy_disk(stick, tmp_path / "damaged-stick.img")
    machine = ImageMachine([disk.path, medium.path])
    first = repair(machine).result
    between = state(disk)
    disks.delete_file(disk, disk.esp, "EFI/Boot")
    second = repair(machine).result
    assert first.word is second.word is ResultWord.REPAIRED
    assert first.journal is not None
    assert second.journal is not None
    log = second.journal.split(" ", 1)[1].strip("\\") + "\\journal.jsonl"
    part = medium["stick"]
    disks.write_file(medium, part, log, b"damaged\n" + disks.read_file(medium, part, log))
    stamps = [j.split("\\")[-2] for j in (first.journal, second.journal)]
    for stamp in (None, stamps[1]):
        outcome = run_undo(machine, stamp)
        assert outcome.result.word is ResultWord.FAILED
        assert "line 1 of the journal is damaged" in (outcome.result.error or "")
        assert stamps[1] in (outcome.result.error or "")
        assert state(disk) == between
    assert run_undo(machine, stamps[0]).result.word is ResultWord.UNDONE
    assert state(disk) == state(broken)
