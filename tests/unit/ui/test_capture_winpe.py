"""A whole capture on Windows PE: a made-up Windows over disk images, whose target volume is a folder of this computer."""

from __future__ import annotations

import subprocess
from pathlib import Path

from rehost_payload.capture.judge import verify_capture
from rehost_payload.repair.model import ResultWord, Verdict
from rehost_payload.system.win_volume import WindowsVolume
from rehost_payload.system.winpe import WinPeSystem
from rehost_payload.ui.capture_work import CaptureOrders, prepare, resolve, run
from support import disks
from support.disks import MIB, DiskLayout, PartitionSpec
from support.hyperv_host import make_host
from support.win32_machine import FakeDisk, Machine, Part

USB = 7


def parts(disk: DiskLayout) -> tuple[Part, ...]:
    return tuple(Part(p.number, p.offset, p.size) for p in disk.partitions)


def test_a_capture_from_windows_pe(tmp_path: Path) -> None:
    host = make_host(tmp_path)
    external = disks.make_disk(
        tmp_path / "external.img", [PartitionSpec("data", 300 * MIB, "ntfs", label="BACKUP")]
    )
    folder = tmp_path / "volume"
    folder.mkdir()
    fakes = {n: FakeDisk(disk.path, parts(disk), serial=b"HOST%d" % n) for n, disk in enumerate(host.layouts)}
    fakes[len(fakes)] = FakeDisk(external.path, parts(external), bus=USB, serial=b"EXTERNAL", removable=True)
    machine = Machine(fakes)
    machine.letters["E:\\"] = fakes[len(fakes) - 1].parts[0].name(len(fakes) - 1)
    system = WinPeSystem(machine, {}, lambda api, _: WindowsVolume(api, f"{folder}/", "/"), lambda _: None)
    before = {disk.path: disk.path.read_bytes() for disk in (*host.layouts, external)}

    orders = CaptureOrders(("label:BACKUP",))
    targets = resolve(orders.targets, system)
    prepared = prepare(system, orders, targets, lambda *_: None)
    outcome = run(prepared, system, "en")

    assert outcome.refused is None
    assert outcome.word in (ResultWord.CAPTURED, ResultWord.INCOMPLETE), outcome
    (capture,) = folder.glob("Rehost-HV01-*")
    sums = list(capture.glob("*/SHA256SUMS"))
    assert len(sums) >= 5
    for file in sums:
        done = subprocess.run(
            ["sha256sum", "--strict", "--quiet", "-c", file.name], cwd=file.parent, capture_output=True
        )
        assert done.returncode == 0, done.stdout
    assert verify_capture(capture).verdict is Verdict.PASS
    assert (capture / "index.html").exists()
    assert not (folder / "rehost.busy").exists()
    assert {
        path: path.read_bytes() for path in before
    } == before  # nothing was written below the file systems
    assert machine.idle()
