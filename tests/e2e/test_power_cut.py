"""The power goes during a repair, at random instants, and comes back: old or new, never between, and undo works.

Two kinds of power cut. In the first QEMU is killed: what the guest had not given to its disks is lost. In the second
the disk had a cache that it lost as well: of the writes since its last flush any may be there or not, and a long one
may be torn between sectors. The second kind is made from a log of all writes.
"""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from support import disks, outside, product, windows, write_log
from support.disks import MIB, DiskLayout, PartitionSpec
from support.lab import Lab
from support.qemu import Disk, Machine
from support.tables import Table

CUTS = int(os.environ.get("REHOST_POWER_CUTS", "20"))
REPAIR = "rehost repair --yes"
UNDO = "rehost undo --yes"


@dataclass(frozen=True)
class Setup:
    """The images before anything happened, and what a whole repair makes of them."""

    lab: Lab
    server: DiskLayout
    stick: DiskLayout
    system: str  # role of the volume that repair writes to
    old: outside.Tree
    new: outside.Tree
    regions: dict[str, str]
    window: float  # seconds from the first write to the last

    def disks(self, folder: Path) -> tuple[DiskLayout, DiskLayout]:
        """Fresh copies of both."""
        return (
            windows.copy_disk(self.server, folder / "server.img"),
            windows.copy_disk(self.stick, folder / "stick.img"),
        )


class Watch:
    """Sees from outside when an image is written to."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._last = self._look()
        self.times: list[float] = []

    def _look(self) -> list[int]:
        return [path.stat().st_mtime_ns for path in self._paths]

    def changed(self) -> bool:
        now = self._look()
        if now == self._last:
            return False
        self._last = now
        self.times.append(time.monotonic())
        return True

    def until(self, over: threading.Event) -> None:
        while not over.is_set():
            self.changed()
            time.sleep(0.0005)


def machine_disks(server: DiskLayout, stick: DiskLayout) -> list[Disk]:
    return [Disk(server.path, "virtio-blk", serial="SERVER"), Disk(stick.path, "virtio-blk", serial="STICK")]


def reference(lab: Lab, server: DiskLayout, folder: Path) -> Setup:
    """Repairs copies without any accident: what the result is, and how long it is written."""
    stick = product.rehost_volume(folder / "stick-0.img")
    system = "esp" if server.style == "gpt" else "system"
    setup = Setup(lab, server, stick, system, outside.tree(server, server[system]), {}, {}, 0.0)
    (folder / "reference").mkdir()
    copy, copy_stick = setup.disks(folder / "reference")
    with lab.machine(folder / "reference", machine_disks(copy, copy_stick)) as vm:
        watch, over = Watch(copy.path, copy_stick.path), threading.Event()
        thread = threading.Thread(target=watch.until, args=(over,))
        thread.start()
        try:
            code, output = vm.shell(REPAIR, 120)
        finally:
            over.set()
            thread.join()
        shut_down(vm)
    assert code == 0, output
    assert outside.complaints(copy) == []
    new = outside.tree(copy, copy[system])
    assert new != setup.old
    regions = {r: v for r, v in outside.regions(server).items() if r != system}
    return replace(setup, new=new, regions=regions, window=watch.times[-1] - watch.times[0])


def shut_down(vm: Machine) -> None:
    """Everything that the guest still holds goes to its disks."""
    assert vm.shell("sync")[0] == 0
    vm.quit()


def cut_power(setup: Setup, folder: Path, delay: float) -> tuple[DiskLayout, DiskLayout]:
    """Repairs copies and kills the machine ``delay`` seconds after its first write."""
    server, stick = setup.disks(folder)
    with setup.lab.machine(folder, machine_disks(server, stick)) as vm:
        watch = Watch(server.path, stick.path)
        vm.send(REPAIR + "\n")
        deadline = time.monotonic() + 90
        while not watch.changed():
            assert time.monotonic() < deadline, vm.last_lines()
            time.sleep(0.0005)
        time.sleep(delay)
        vm.kill()
    return server, stick


def assert_old_or_new(setup: Setup, now: outside.Tree) -> str:
    """Every file is what it was or what it should become. Returns what was found, in a word."""
    leftovers = {n for n in now.keys() - setup.old.keys() - setup.new.keys() if not is_temporary(n)}
    assert leftovers == set()
    for name in setup.old.keys() | setup.new.keys():
        allowed = {setup.old.get(name), setup.new.get(name)}
        assert now.get(name) in allowed, f"{name} is neither old nor new"
    own = {n: v for n, v in now.items() if not is_temporary(n)}
    return "old" if own == setup.old else "new" if own == setup.new else "between"


def is_temporary(name: str) -> bool:
    """Names that the product uses while it writes, and removes later."""
    return "rehost" in name.rsplit("/", 1)[-1].lower()


def assert_undone(setup: Setup, server: DiskLayout, stick: DiskLayout, folder: Path) -> None:
    """Undo in a machine that was switched on again brings back what was there before."""
    with setup.lab.machine(folder, machine_disks(server, stick)) as vm:
        code, output = vm.shell(UNDO, 120)
        shut_down(vm)
    assert code == 0, output
    assert outside.tree(server, server[setup.system]) == setup.old
    now = outside.regions(server)
    assert {r: v for r, v in now.items() if r != setup.system} == setup.regions
    assert outside.complaints(server) == []


def make_gpt(path: Path) -> DiskLayout:
    """Stale stores and missing boot files: several files are replaced, some created."""
    disk = windows.restored(windows.gpt_server(path))
    disks.delete_file(disk, disk.esp, "EFI/Boot")
    return disk


def make_mbr(path: Path) -> DiskLayout:
    disk = windows.restored(windows.mbr_server(path))
    disks.delete_file(disk, disk.system, "bootmgr")
    return disk


@pytest.fixture(scope="module")
def gpt_setup(uefi_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Setup:
    folder = tmp_path_factory.mktemp("gpt")
    return reference(uefi_lab, make_gpt(folder / "server-0.img"), folder)


@pytest.fixture(scope="module")
def mbr_setup(bios_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Setup:
    folder = tmp_path_factory.mktemp("mbr")
    return reference(bios_lab, make_mbr(folder / "server-0.img"), folder)


def cut_again_and_again(setup: Setup, folder: Path, count: int, seed: str, cuts: Table) -> None:
    chance = random.Random(seed)
    found: list[str] = []
    for number in range(count):
        # a little beyond the end as well: a whole repair must be undone too
        delay = chance.uniform(0, setup.window * 1.05)
        work = folder / str(number)
        work.mkdir()
        server, stick = cut_power(setup, work, delay)
        found.append(assert_old_or_new(setup, outside.tree(server, server[setup.system])))
        assert_undone(setup, server, stick, work)
        shutil.rmtree(work)
    words = ", ".join(f"{word} {found.count(word)}" for word in sorted(set(found)))
    cuts.add(f"QEMU killed, {seed}", count, words, f"{setup.window:.2f}")
    # cuts that all come too early or too late would show nothing
    assert len(set(found)) > 1 or count < 10


def test_power_cuts_gpt(gpt_setup: Setup, cuts: Table, tmp_path: Path) -> None:
    cut_again_and_again(gpt_setup, tmp_path, CUTS, "gpt", cuts)


def test_power_cuts_mbr(mbr_setup: Setup, cuts: Table, tmp_path: Path) -> None:
    """The system partition is NTFS, which a power cut leaves with an open journal."""
    cut_again_and_again(mbr_setup, tmp_path, max(1, CUTS // 2), "mbr", cuts)


# --- a disk that loses its cache


def make_all_in_one(path: Path) -> DiskLayout:
    """Journal and server on one disk, so that one log shows the order of all writes."""
    stick = PartitionSpec("rehost", 48 * MIB, "fat32", label="REHOST", name="REHOST")
    disk = windows.restored(windows.gpt_server(path, extra=(stick,)))
    disks.delete_file(disk, disk.esp, "EFI/Boot")
    return disk


def recorded_repair(lab: Lab, disk: DiskLayout, folder: Path) -> tuple[list[write_log.Entry], outside.Tree]:
    """All writes of a whole repair, and the system partition after it."""
    copy = windows.copy_disk(disk, folder / "recorded.img")
    log = folder / "writes.log"
    with lab.machine(folder, [Disk(copy.path, "virtio-blk", serial="SERVER", log=log)]) as vm:
        code, output = vm.shell(REPAIR, 120)
        shut_down(vm)
    assert code == 0, output
    return write_log.read_log(log), outside.tree(copy, copy.esp)


def test_a_disk_that_loses_its_cache(uefi_lab: Lab, cuts: Table, tmp_path: Path) -> None:
    """After every write of the repair, with a random part of the unflushed ones missing: old or new."""
    disk = make_all_in_one(tmp_path / "server.img")
    old = outside.tree(disk, disk.esp)
    entries, new = recorded_repair(uefi_lab, disk, tmp_path)
    setup = Setup(uefi_lab, disk, disk, "esp", old, new, {}, 0.0)
    assert sum(entry.flush for entry in entries) > 5, "nothing is flushed"
    first = next(i for i, e in enumerate(entries) if e.data)
    chance = random.Random("cache")
    state = tmp_path / "state.img"
    found = []
    for end in range(first, len(entries) + 1):
        copy = windows.copy_disk(disk, state)
        write_log.apply(state, write_log.power_cut(entries, end, chance))
        found.append(assert_old_or_new(setup, outside.tree(copy, copy.esp)))
    words = ", ".join(f"{word} {found.count(word)}" for word in sorted(set(found)))
    cuts.add("disk cache lost, every write", len(found), words, "-")
    assert set(found) >= {"old", "new"}


def test_undo_on_a_disk_that_lost_its_cache(uefi_lab: Lab, tmp_path: Path) -> None:
    """Some of these states are switched on again: undo must bring back every file."""
    disk = make_all_in_one(tmp_path / "server.img")
    old = outside.tree(disk, disk.esp)
    entries, _ = recorded_repair(uefi_lab, disk, tmp_path)
    chance = random.Random("undo")
    first = next(i for i, e in enumerate(entries) if e.data)
    for number in range(max(1, CUTS // 4)):
        copy = windows.copy_disk(disk, tmp_path / "state.img")
        end = chance.randrange(first, len(entries) + 1)
        write_log.apply(copy.path, write_log.power_cut(entries, end, chance))
        with uefi_lab.machine(tmp_path, [Disk(copy.path, "virtio-blk", serial="SERVER")]) as vm:
            code, output = vm.shell(UNDO, 120)
            shut_down(vm)
        assert code == 0, f"state {number}, after {end} of {len(entries)} writes: {output}"
        assert outside.tree(copy, copy.esp) == old
