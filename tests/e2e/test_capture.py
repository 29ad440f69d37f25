"""The medium captures a Hyper-V host of three arrays onto two disks, while a disk is pulled out and the power goes.

What lies on the disks afterwards is taken from them with libntfs-3g and judged by sha256sum, and by the bytes that the
host was made of.
"""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from rehost_payload.capture.judge import verify_capture
from rehost_payload.formats.ntfs import NtfsVolume
from rehost_payload.formats.source import SliceSource
from rehost_payload.repair.model import Verdict
from rehost_payload.system.handles import FileDisk
from rehost_payload.system.protocol import DiskInfo
from support import disks, hyperv_host
from support.disks import MIB, DiskLayout, PartitionSpec
from support.hyperv_host import SQL, Host, Vm, configuration, make_host, vmcx
from support.product import CONSOLE, RESULT, Product
from support.qemu import Disk, Machine
from support.tables import Table

LARGE = "D:\\Disks\\sql-os.vhdx"
ORDERS = "rehost.run=capture rehost.yes=1 rehost.targets=label:BACKUP1,label:BACKUP2 rehost.poweroff=1"
COPYING = r"sql: copying \d+%"


@dataclass(frozen=True)
class Bench:
    medium: Product
    host: Host
    targets: tuple[DiskLayout, DiskLayout]
    work: Path
    table: Table

    def machine(self, name: str) -> Machine:
        """The host's disks, and the two targets plugged in as USB disks before the kernel looks."""
        return Machine(
            self.work,
            disks=[Disk(image, "ahci", serial=f"ARRAY{i}") for i, image in enumerate(self.host.images)],
            kernel=self.medium.kernel,
            initrd=self.medium.initrd,
            append=f"{CONSOLE} {ORDERS}",
            memory=768,
            name=name,
        )

    def plug(self, vm: Machine) -> None:
        for number, target in enumerate(self.targets, 1):
            vm.plug(Disk(target.path, "usb-storage", serial=f"BACKUP{number}"), str(number))

    def note(self, name: str, vm: Machine, result: str) -> None:
        self.table.add(f"capture, {name}", result, "", f"{vm.elapsed:.0f}", "")


def host_of_five(folder: Path) -> Host:
    """A disk large enough to be interrupted in; and no disk of a machine that is no file, which no copy could hold."""
    more = {
        LARGE: hyperv_host.vhdx("sql-os") + random.Random(1).randbytes(128 * MIB),
        f"{hyperv_host.HYPERV}\\Virtual Machines\\{SQL.upper()}.vmcx": vmcx(
            configuration(
                Vm(
                    SQL,
                    "sql",
                    [("SCSI", 0, 0, "VHD", LARGE), ("SCSI", 0, 1, "VHD", "E:\\Data\\sql-data.vhdx")],
                    general=[("slp_data_root", "E:\\Paging")],
                )
            )
        ),
    }
    return make_host(folder, more=more)


def backup(folder: Path, number: int) -> DiskLayout:
    spec = PartitionSpec("backup", 288 * MIB, "ntfs", label=f"BACKUP{number}")
    return disks.make_disk(folder / f"backup{number}.img", [spec])


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def taken_out(target: DiskLayout, folder: Path, *, pulled: bool) -> Path:
    """The capture on a target in a folder here: names by our reader, contents by libntfs-3g.

    libntfs-3g refuses a volume that was pulled out while it was mounted until chkdsk has been there (the mark in $Volume
    and its mirror differ): of that one our reader gives the contents as well, and sha256sum judges them.
    """
    part = target["backup"]
    with part_source(target) as source:
        reader = NtfsVolume(source)
        (name,) = [e.name for e in reader.listdir("\\") if e.name.startswith("Rehost-HV01-")]
        waiting, found = [name], list[str]()
        while waiting:
            path = waiting.pop()
            for entry in reader.listdir("\\" + path.replace("/", "\\")):
                (waiting if entry.is_directory else found).append(f"{path}/{entry.name}")
        for path in found if pulled else ():
            write(folder / path, reader.read(path))
    if not pulled:
        with disks.ntfs_volume(target, part, read_only=True) as volume:
            for path in found:
                write(folder / path, volume.read(path))
    return folder / name


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@contextmanager
def part_source(target: DiskLayout) -> Iterator[SliceSource]:
    part = target["backup"]
    with target.path.open("rb") as file:
        disk = FileDisk(DiskInfo(str(target.path), target.size, 512), file.fileno())
        yield SliceSource(disk, part.offset, part.size)


def assert_good(capture: Path, host: Host) -> None:
    """sha256sum knows nothing of Rehost; the bytes are those from which the host was made."""
    lists = sorted(capture.glob("*/SHA256SUMS"))
    assert len(lists) == 7  # five machines, disks of none, the host
    for sums in lists:
        done = subprocess.run(
            ["sha256sum", "--strict", "--quiet", "-c", "SHA256SUMS"], cwd=sums.parent, capture_output=True
        )
        assert done.returncode == 0, (sums, done.stdout[-2000:])
    verdict = verify_capture(capture)
    assert verdict.verdict is Verdict.PASS, verdict
    restore = json.loads((capture / "restore.json").read_text())
    seen: set[str] = set()
    for machine in restore["machines"]:
        assert machine["complete"], machine["name"]
        for file in machine["files"]:
            assert (capture / file["path"]).read_bytes() == host.files[file["original"]], file["original"]
            seen.add(file["original"])
    own = {path for path in host.files if not path.endswith((".iso", "data.vmcx", "forgotten.vhdx"))}
    assert seen == own
    page = (capture / "index.html").read_text()
    assert "2 good copies of 5 virtual machines" in page
    assert (capture / "Restore-VM.ps1").read_bytes().startswith(b"<#\r\n")


def test_a_host_is_captured_in_spite_of_a_pulled_disk_and_a_power_cut(
    medium: Product, runs: Table, tmp_path: Path
) -> None:
    host = host_of_five(tmp_path)
    bench = Bench(medium, host, (backup(tmp_path, 1), backup(tmp_path, 2)), tmp_path, runs)
    before = [digest(image) for image in host.images]

    with bench.machine("pulled") as vm:
        bench.plug(vm)
        vm.wait_for(COPYING, 300)
        vm.unplug("2")
        vm.wait_for("failed and is left out from here on", 60)
        match = vm.wait_for(RESULT.pattern, 480)
        assert (match[1], match[2]) == ("3", "incomplete"), vm.last_lines(60)
        assert "1 good copy of 5 virtual machines" in vm.text
        vm.wait_exit(60)
        bench.note("a disk pulled out", vm, "3 incomplete")

    with bench.machine("cut") as vm:
        bench.plug(vm)
        vm.wait_for(COPYING, 300)
        vm.kill()
        assert not RESULT.search(vm.text), "the power was cut too late"

    with bench.machine("resumed") as vm:
        bench.plug(vm)
        match = vm.wait_for(RESULT.pattern, 480)
        assert (match[1], match[2]) == ("0", "captured"), vm.last_lines(60)
        assert "2 good copies of 5 virtual machines" in vm.text
        vm.wait_exit(60)
        bench.note("resumed after a power cut", vm, "0 captured")

    for number, target in enumerate(bench.targets, 1):
        assert_good(taken_out(target, tmp_path / f"out{number}", pulled=number == 2), host)
    # not one bit of the host's own disks
    assert [digest(image) for image in host.images] == before


@pytest.mark.parametrize(
    "order", ["rehost.targets=label:NOWHERE", "rehost.targets=label:BACKUP1 rehost.vms=nobody"]
)
def test_orders_that_fit_nothing_write_nothing(order: str, medium: Product, tmp_path: Path) -> None:
    host, target = make_host(tmp_path), backup(tmp_path, 1)
    before = digest(target.path)
    machine = Machine(
        tmp_path,
        disks=[Disk(p, "ahci", serial=f"DISK{i}") for i, p in enumerate([*host.images, target.path])],
        kernel=medium.kernel,
        initrd=medium.initrd,
        append=f"{CONSOLE} rehost.run=capture rehost.yes=1 {order}",
        memory=512,
    )
    with machine as vm:
        match = vm.wait_for(RESULT.pattern, 480)
        assert (match[1], match[2]) == ("2", "usage"), vm.last_lines(40)
    assert digest(target.path) == before
