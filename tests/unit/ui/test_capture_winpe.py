"""A whole capture on Windows PE: a made-up Windows over disk images, whose target volume is a folder of this computer."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from rehost_payload.capture.judge import verify_capture
from rehost_payload.formats import ntfs_details
from rehost_payload.formats.filesystem import FileSystemReader
from rehost_payload.repair.model import ResultWord, Severity, Verdict
from rehost_payload.system.win32 import VolumeFacts, Win32
from rehost_payload.system.win_files import WindowsFiles
from rehost_payload.system.win_volume import WindowsVolume
from rehost_payload.system.winpe import WinPeSystem
from rehost_payload.ui.capture_work import CaptureOrders, CaptureOutcome, prepare, resolve, run
from support import disks
from support.disks import MIB, DiskLayout, PartitionSpec
from support.hyperv_host import Host, make_host
from support.security import FULL, SYSTEM, descriptor
from support.win32_machine import FakeDisk, Machine, Part

USB = 7
WEB_DISK = "D:\\VMs\\web01\\Virtual Hard Disks\\web01.vhdx"


def parts(disk: DiskLayout) -> tuple[Part, ...]:
    return tuple(Part(p.number, p.offset, p.size) for p in disk.partitions)


@dataclass
class Bench:
    """``system`` has the host's disks and an external one, whose volume is ``target``; what Windows itself reads on
    D: lies in ``data``."""

    host: Host
    machine: Machine
    system: WinPeSystem
    target: Path
    data: Path
    external: DiskLayout

    @property
    def data_volume(self) -> str:
        return self.machine.disks[1].parts[0].name(1)

    def give(self, files: Mapping[str, bytes]) -> None:
        for path, content in files.items():
            place = self.data.joinpath(*path[3:].split("\\"))
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)

    def capture(self) -> CaptureOutcome:
        orders = CaptureOrders(("label:BACKUP",))
        prepared = prepare(self.system, orders, resolve(orders.targets, self.system), lambda *_: None)
        return run(prepared, self.system, "en")

    def captured(self) -> dict[str, str]:
        """SHA-256 of every file of the capture by its original path, as the manifests have it."""
        (capture,) = self.target.glob("Rehost-HV01-*")
        found: dict[str, str] = {}
        for path in capture.glob("*/manifest.json"):
            for file in json.loads(path.read_text("utf-8"))["files"]:
                if (path.parent / file["path"]).is_file():
                    found[file["original"]] = hashlib.sha256(
                        (path.parent / file["path"]).read_bytes()
                    ).hexdigest()
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    host = make_host(tmp_path)
    external = disks.make_disk(
        tmp_path / "external.img", [PartitionSpec("data", 300 * MIB, "ntfs", label="BACKUP")]
    )
    target, data = tmp_path / "target", tmp_path / "data"
    target.mkdir()
    data.mkdir()
    fakes = {n: FakeDisk(disk.path, parts(disk), serial=b"HOST%d" % n) for n, disk in enumerate(host.layouts)}
    last = len(fakes)
    fakes[last] = FakeDisk(external.path, parts(external), bus=USB, serial=b"EXTERNAL", removable=True)
    machine = Machine(fakes)
    machine.letters["E:\\"] = fakes[last].parts[0].name(last)

    def files(api: Win32, root: str, facts: VolumeFacts) -> FileSystemReader:
        assert root == fakes[1].parts[0].name(1)
        return WindowsFiles(api, f"{data}/", facts, "/")

    system = WinPeSystem(
        machine, {}, lambda api, _: WindowsVolume(api, f"{target}/", "/"), lambda _: None, files
    )
    return Bench(host, machine, system, target, data, external)


def test_a_capture_from_windows_pe(bench: Bench) -> None:
    before = {d.path: d.path.read_bytes() for d in (*bench.host.layouts, bench.external)}

    outcome = bench.capture()

    assert outcome.refused is None
    assert outcome.word in (ResultWord.CAPTURED, ResultWord.INCOMPLETE), outcome
    (capture,) = bench.target.glob("Rehost-HV01-*")
    sums = list(capture.glob("*/SHA256SUMS"))
    assert len(sums) >= 5
    for file in sums:
        done = subprocess.run(
            ["sha256sum", "--strict", "--quiet", "-c", file.name], cwd=file.parent, capture_output=True
        )
        assert done.returncode == 0, done.stdout
    assert verify_capture(capture).verdict is Verdict.PASS
    assert (capture / "index.html").exists()
    assert not (bench.target / "rehost.busy").exists()
    assert {
        path: path.read_bytes() for path in before
    } == before  # nothing was written below the file systems
    assert bench.machine.idle()


def as_refs(bench: Bench) -> None:
    """D: becomes a volume that only Windows can read."""
    layout, part = bench.host.place("D:")
    boot = bytearray(512)
    boot[3:7], boot[16:20] = b"ReFS", b"FSRS"
    disks.write_bytes(layout.path, part.offset, bytes(boot))
    disks.write_bytes(layout.path, part.offset + part.size - 512, bytes(512))
    bench.machine.systems[bench.data_volume] = "ReFS"


def test_a_refs_volume_is_read_through_windows(bench: Bench) -> None:
    as_refs(bench)
    bench.give({p: d for p, d in bench.host.files.items() if p[0] == "D"})
    rights = descriptor((0, 0, FULL, SYSTEM))
    bench.machine.descriptors["web01.vhdx"] = rights

    outcome = bench.capture()

    found = {f.id: f for f in outcome.findings}
    assert found["capture.refs-mounted"].severity is Severity.WARNING
    assert found["capture.refs-mounted"].params == {"volume": "D:"}
    assert "capture.volume-unreadable" not in found
    captured = bench.captured()
    wanted = {p: d for p, d in bench.host.files.items() if p[0] == "D" and not p.endswith(".iso")}
    assert wanted
    assert {p: captured.get(p) for p in wanted} == {
        p: hashlib.sha256(d).hexdigest() for p, d in wanted.items()
    }
    (capture,) = bench.target.glob("Rehost-HV01-*")
    assert verify_capture(capture).verdict is Verdict.PASS
    (described,) = [
        f
        for path in capture.glob("*/manifest.json")
        for f in json.loads(path.read_text("utf-8"))["files"]
        if f["original"] == WEB_DISK
    ]
    assert described["sddl"] == "O:S-1-5-32-544G:S-1-5-32-544D:(A;;0x1f01ff;;;S-1-5-18)"
    assert bench.machine.idle()


def test_a_refs_volume_that_this_windows_cannot_mount(bench: Bench) -> None:
    as_refs(bench)
    bench.machine.unmountable.add(bench.data_volume)

    outcome = bench.capture()

    (unreadable,) = [f for f in outcome.findings if f.id == "capture.volume-unreadable"]
    assert (unreadable.severity, unreadable.params["reason"]) == (Severity.BLOCKER, "ReFS")
    assert "capture.refs-mounted" not in {f.id for f in outcome.findings}
    assert WEB_DISK not in bench.captured()


@pytest.mark.parametrize("filtered", [True, False])
def test_a_deduplicated_disk(bench: Bench, filtered: bool) -> None:
    """Its stub is never copied: what the filter of Windows unpacks is, or nothing."""
    content = bench.host.files[WEB_DISK]
    with disks.ntfs_volume(*bench.host.place("D:")) as volume:
        volume.write(WEB_DISK[2:], b"")
        volume.set_reparse(WEB_DISK[2:], ntfs_details.DEDUP, bytes(40))
    if filtered:
        bench.give({WEB_DISK: content})

    outcome = bench.capture()

    captured = bench.captured()
    told = {f.id for u in outcome.plan.units for f in u.findings}
    if filtered:
        assert captured[WEB_DISK] == hashlib.sha256(content).hexdigest()
        assert "capture.file-unreadable" not in told
    else:
        assert WEB_DISK not in captured
        assert "capture.file-unreadable" in told
