"""Boots the medium against broken servers and looks at the disks from outside with tools that are not ours.

Together the cases cover CD, USB stick and direct start, BIOS, UEFI and Secure Boot, and disks behind AHCI, NVMe,
virtio, SCSI and RAID controllers. Each says which files may have changed, and how.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import disks, outside, product, stores, windows
from support.disks import DiskLayout
from support.product import Boot, Product, Run
from support.qemu import Bus, Firmware
from support.tables import Table

LOG = windows.STORE + ".LOG"


@dataclass(frozen=True)
class Before:
    """A disk before it is repaired: what was done to it, and what it looked like."""

    healthy: DiskLayout
    disk: DiskLayout
    regions: dict[str, str]
    tree: outside.Tree
    files: dict[str, bytes]

    @property
    def system(self) -> str:
        """Role of the partition on which repair may write."""
        return "esp" if self.disk.style == "gpt" else "system"


def remember(healthy: DiskLayout, disk: DiskLayout) -> Before:
    part = disk["esp" if disk.style == "gpt" else "system"]
    names = (windows.STORE, windows.FALLBACK_STORE, LOG, windows.BIOS_STORE)
    files = {n: disks.read_file(disk, part, n) for n in names if disks.file_exists(disk, part, n)}
    return Before(healthy, disk, outside.regions(disk), outside.tree(disk, part), files)


def changes(before: Before) -> dict[str, str]:
    """What the repair did to the system partition; complains of every byte that changed elsewhere."""
    disk = before.disk
    now = outside.regions(disk)
    elsewhere = [role for role in now if role != before.system and now[role] != before.regions[role]]
    assert elsewhere == []
    assert outside.complaints(disk) == []
    return outside.difference(before.tree, outside.tree(disk, disk[before.system]))


def read(before: Before, path: str) -> bytes:
    return disks.read_file(before.disk, before.disk[before.system], path)


def assert_only_identities_changed(before: Before, path: str) -> None:
    """Every device element has the disk's present identities; everything else in the store is as it was."""
    old, new = before.files[path], read(before, path)
    assert outside.hive_complaints(new) == []
    mapping = outside.identity_mapping(before.healthy, before.disk)
    change = outside.store_change(old, new)
    assert change.others == ()
    was, now = stores.elements(old), stores.elements(new)
    devices = {place for place in was if stores.is_device(place[1])}
    wanted = {place: outside.translated(was[place][1], mapping) for place in devices}
    assert {place: now[place][1] for place in devices} == wanted
    # on a restored disk none of them is right
    assert change.devices == devices
    assert devices
    # a third reader sees the same
    assert outside.regipy_elements(new) == wanted


# --- what is broken, and what must have become of it


def stale_gpt(path: Path) -> Before:
    healthy = windows.gpt_server(path)
    return remember(healthy, windows.restored(healthy))


def check_stale_gpt(before: Before) -> None:
    assert changes(before) == {windows.STORE: "changed", windows.FALLBACK_STORE: "changed"}
    assert_only_identities_changed(before, windows.STORE)
    assert_only_identities_changed(before, windows.FALLBACK_STORE)


def stale_mbr(path: Path) -> Before:
    healthy = windows.mbr_server(path)
    return remember(healthy, windows.restored(healthy))


def check_stale_mbr(before: Before) -> None:
    assert changes(before) == {windows.BIOS_STORE: "changed"}
    assert_only_identities_changed(before, windows.BIOS_STORE)


def no_store_gpt(path: Path) -> Before:
    healthy = windows.gpt_server(path)
    windows.delete_store(healthy)
    return remember(healthy, healthy)


def no_store_mbr(path: Path) -> Before:
    healthy = windows.mbr_server(path)
    windows.delete_store(healthy)
    return remember(healthy, healthy)


def assert_store_starts_windows(before: Before, path: str, suffix: str) -> None:
    store, disk = read(before, path), before.disk
    assert outside.hive_complaints(store) == []
    found, kinds = stores.elements(store), stores.object_types(store)
    assert kinds[stores.BOOTMGR] == 0x10100002
    default = text(found[stores.BOOTMGR, 0x23000003])
    assert kinds[default] == 0x10200003
    here = stores.identity(disk, disk.windows)
    for number in (0x11000001, 0x21000001):
        assert stores.identities(found[default, number][1]) == {here}
    assert stores.identities(found[stores.BOOTMGR, 0x11000001][1]) == {
        stores.identity(disk, disk[before.system])
    }
    assert text(found[default, 0x12000002]).lower() == f"\\windows\\system32\\winload.{suffix}"
    assert text(found[default, 0x22000002]).lower() == "\\windows"
    assert default in text(found[stores.BOOTMGR, 0x24000001])
    # nothing in the whole store points to a partition that is not there
    present = {stores.identity(disk, p) for p in disk.partitions}
    for (_, number), (_, data) in found.items():
        if stores.is_device(number):
            assert stores.identities(data) <= present


def text(value: tuple[int, bytes]) -> str:
    return value[1].decode("utf-16-le").rstrip("\0").lower()


def check_no_store_gpt(before: Before) -> None:
    assert changes(before) == {windows.STORE: "added"}
    assert_store_starts_windows(before, windows.STORE, "efi")


def check_no_store_mbr(before: Before) -> None:
    assert changes(before) == {windows.BIOS_STORE: "added"}
    assert_store_starts_windows(before, windows.BIOS_STORE, "exe")


def no_fallback_loader(path: Path) -> Before:
    healthy = windows.gpt_server(path)
    disks.delete_file(healthy, healthy.esp, "EFI/Boot")
    return remember(healthy, healthy)


def check_no_fallback_loader(before: Before) -> None:
    assert changes(before) == {"EFI/Boot/": "added", "EFI/Boot/bootx64.efi": "added"}
    assert read(before, "EFI/Boot/bootx64.efi") == windows.BootFiles().bootmgfw


def dirty_store(path: Path) -> Before:
    """The store needs its log, and what the log holds is as stale as the rest."""
    healthy = windows.gpt_server(path, recovery=False)
    disk = windows.restored(healthy)
    windows.make_store_dirty(disk, lambda old: stores.changed(old, set_timeout))
    return remember(healthy, disk)


def set_timeout(handle: object) -> None:
    stores.set_element(handle, stores.BOOTMGR, 0x25000004, stores.binary(struct.pack("<Q", 7)))


def check_dirty_store(before: Before) -> None:
    assert changes(before) == {windows.STORE: "changed", LOG: "removed"}
    new = read(before, windows.STORE)
    assert outside.hive_complaints(new) == []
    found = stores.elements(new)
    # only the log knew of this
    assert found[stores.BOOTMGR, 0x25000004][1] == struct.pack("<Q", 7)
    here = stores.identity(before.disk, before.disk.windows)
    assert stores.identities(found[stores.LOADER, 0x11000001][1]) == {here}
    change = outside.store_change(before.files[windows.STORE], new)
    assert [o for o in change.others if "25000004" not in o] == []


def not_active(path: Path) -> Before:
    healthy = windows.mbr_server(path)
    disks.set_active(healthy, None)
    return remember(healthy, healthy)


def check_not_active(before: Before) -> None:
    disk = before.disk
    now = outside.regions(disk)
    assert [role for role in now if now[role] != before.regions[role]] == ["table"]
    flags = [disks.read_bytes(disk.path, 446 + 16 * i, 1) for i in range(4)]
    assert flags == [b"\x80", b"\0", b"\0", b"\0"]
    disks.set_active(disk, None)
    assert outside.regions(disk) == before.regions


@dataclass(frozen=True)
class Case:
    name: str
    make: Callable[[Path], Before]
    check: Callable[[Before], None]
    boot: Boot
    firmware: Firmware
    bus: Bus
    memory: int = 1024


CASES = [
    Case("gpt stale", stale_gpt, check_stale_gpt, "cd", "uefi", "nvme"),
    Case("mbr stale", stale_mbr, check_stale_mbr, "cd", "bios", "ahci"),
    Case("mbr store deleted", no_store_mbr, check_no_store_mbr, "usb", "bios", "virtio-blk"),
    Case(
        "gpt fallback loader missing",
        no_fallback_loader,
        check_no_fallback_loader,
        "cd",
        "secure-boot",
        "ahci",
    ),
    Case("gpt stale, 512 MB", stale_gpt, check_stale_gpt, "kernel", "uefi", "megasas", 512),
    Case("gpt store deleted", no_store_gpt, check_no_store_gpt, "kernel", "uefi", "nvme"),
    Case("gpt dirty store", dirty_store, check_dirty_store, "kernel", "uefi", "virtio-scsi"),
    Case("mbr no active partition", not_active, check_not_active, "kernel", "bios", "megasas-gen2"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.name}, {c.boot}, {c.firmware}, {c.bus}")
def test_repair(case: Case, medium: Product, runs: Table, tmp_path: Path) -> None:
    before = case.make(tmp_path / "server.img")
    run = product.run_unattended(
        medium,
        tmp_path,
        [before.disk],
        bus=case.bus,
        firmware=case.firmware,
        boot=case.boot,
        memory=case.memory,
    )
    note(runs, f"{case.name}, {case.boot}, {case.firmware}, {case.bus}", run)
    assert (run.code, run.word) == (0, "repaired"), run.console[-4000:]
    case.check(before)
    assert_reported(run)


def assert_reported(run: Run) -> None:
    """The report is complete, and its page needs nothing from elsewhere."""
    assert run.report["result"]["word"] == run.word
    # the survey by which the diagnosis can be made again elsewhere
    assert json.loads(run.file("survey.json"))["schema"] == 1
    page = run.file("report.html").decode()
    assert "</html>" in page
    assert 'src="http' not in page
    assert 'href="http' not in page


def note(runs: Table, name: str, run: Run) -> None:
    seconds = (f"{s:.0f}" for s in (run.to_start, run.to_result, run.to_exit))
    runs.add(name, f"{run.code} {run.word}", *seconds)


def test_a_healthy_bios_server_is_not_written_to(medium: Product, runs: Table, tmp_path: Path) -> None:
    """Not one bit of the whole disk, table and free space included."""
    disk = windows.mbr_server(tmp_path / "server.img")
    before = outside.region(disk, 0, disk.size)
    run = product.run_unattended(medium, tmp_path, [disk])
    note(runs, "healthy mbr, kernel, bios, ahci", run)
    assert outside.region(disk, 0, disk.size) == before
    assert (run.code, run.word) == (0, "healthy"), run.console[-4000:]
    assert run.report["result"]["word"] == "healthy"


def test_a_healthy_uefi_server_is_not_written_to(medium: Product, runs: Table, tmp_path: Path) -> None:
    """The firmware of a new machine gets its boot entry, the disk nothing; the second time there is nothing to do."""
    disk = windows.gpt_server(tmp_path / "server.img")
    before = outside.region(disk, 0, disk.size)
    first = product.run_unattended(medium, tmp_path, [disk], bus="nvme", firmware="uefi", name="first")
    note(runs, "healthy gpt, new firmware, kernel, uefi, nvme", first)
    assert outside.region(disk, 0, disk.size) == before
    assert (first.code, first.word) == (0, "repaired"), first.console[-4000:]
    assert {change["kind"] for change in first.report["result"]["changes"]} == {"variable"}
    variables = (tmp_path / "first.vars.fd").read_bytes()
    assert "Windows Boot Manager".encode("utf-16-le") in variables
    second = product.run_unattended(
        medium, tmp_path, [disk], bus="nvme", firmware="uefi", name="second", vars=tmp_path / "first.vars.fd"
    )
    note(runs, "healthy gpt, kernel, uefi, nvme", second)
    assert outside.region(disk, 0, disk.size) == before
    assert (second.code, second.word) == (0, "healthy"), second.console[-4000:]
    assert second.report["result"]["changes"] == []


def test_nothing_is_written_without_a_yes(medium: Product, runs: Table, tmp_path: Path) -> None:
    healthy = windows.gpt_server(tmp_path / "server.img")
    disk = windows.restored(healthy)
    before = outside.region(disk, 0, disk.size)
    run = product.run_unattended(medium, tmp_path, [disk], bus="nvme", firmware="uefi", yes=False)
    note(runs, "stale gpt without yes, kernel, uefi, nvme", run)
    assert outside.region(disk, 0, disk.size) == before
    assert run.word in ("declined", "planned")
    assert run.report["result"]["diagnosis_before"]["healthy"] is False
