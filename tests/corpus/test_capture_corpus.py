"""A host made of real files: list, configurations of both kinds, a state, virtual disks. qemu-img judges the sizes."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from rehost_payload.capture.assess import assess
from rehost_payload.capture.found import FoundHost
from rehost_payload.capture.judge import verify_capture
from rehost_payload.capture.manifest import from_json
from rehost_payload.capture.model import CaptureChoices, CapturePlan
from rehost_payload.capture.plan import find_and_plan
from rehost_payload.repair.model import Verdict
from rehost_payload.system.images import ImageSystem
from rehost_payload.ui.cli import rehost, run
from support import disks, windows
from support.captures import sha256sum
from support.corpus import corpus, read
from support.hyperv_host import HYPERV, make_link

FOLDER = corpus("hyperv")
VMCX = "993f7b33-6057-4d1e-a1fe-a1a1d77be974"
XML = "b90ac31b-c6f8-479f-9b91-07b894a6a3f6"
CHOICES = CaptureChoices("2026-11-27T04:00:00+00:00")
EASY = "C:\\Hyper-V\\EasyToFind\\Virtual Machines"
REAL = {
    f"{HYPERV}\\data.vmcx": "data.vmcx",
    f"{EASY}\\{VMCX.upper()}.vmcx": f"{VMCX.upper()}.vmcx",
    f"{EASY}\\{VMCX.upper()}.VMRS": "test.VMRS",
    "C:\\Disks\\Default Generation 2.vhdx": "dynamic.vhdx.xz",
    "C:\\VM\\Old\\Virtual Machines\\B90AC31B-C6F8-479F-9B91-07B894A6A3F6.xml": f"{XML.upper()}.xml",
    "C:\\Disks\\Default Generation 1.vhdx": "iotest-dirtylog-10G-4M.vhdx.xz",
    "C:\\Disks\\forgotten.avhdx": "differencing.avhdx.xz",
}


@dataclass(frozen=True)
class Real:
    image: Path
    files: dict[str, bytes]
    found: FoundHost
    plan: CapturePlan


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Real:
    folder = tmp_path_factory.mktemp("real")
    files = {path: read(FOLDER / name) for path, name in REAL.items()}
    files[f"{EASY}\\{VMCX.upper()}.vmgs"] = b"GUESTRTS" + bytes(4000)
    size = 64 * windows.MIB + sum(map(len, files.values())) // windows.MIB * windows.MIB
    server = windows.gpt_server(folder / "disk0.img", recovery=False, windows_size=size)
    with disks.ntfs_volume(server, server.windows) as volume:
        for path, data in files.items():
            volume.write(path[2:], data)
        old = next(p for p in files if p.endswith(".xml"))
        make_link(volume, f"{HYPERV}\\Virtual Machines\\{XML.upper()}.xml"[2:], old)
    with ImageSystem([server.path]) as system:
        found, plan = find_and_plan(system, lambda *_: None, CHOICES)
    return Real(server.path, files, found, plan)


def test_real_files_are_put_together(real: Real) -> None:
    assert {(m.id, m.name, m.registered) for m in real.found.machines} == {
        (VMCX, "Default Generation 2", True),
        (XML, "Default Generation 1", True),
    }
    assert len(real.found.known or {}) == 5
    assert len(real.found.lost) == 3  # of the list's four only one configuration is a sample
    units = {u.id: u for u in real.plan.units}
    captured = {f.original: f.size for u in real.plan.units if u.kind != "host" for f in u.files}
    listed = f"{HYPERV}\\data.vmcx"
    assert captured == {p: len(d) for p, d in real.files.items() if p != listed}
    machine = units[VMCX].machine
    assert machine is not None
    assert (machine.generation, machine.version, machine.memory_mb, machine.secure_boot) == (
        2,
        "9.0",
        1024,
        True,
    )
    assert [d.chain for d in machine.disks] == [("C:\\Disks\\Default Generation 2.vhdx",)]


def test_findings_of_real_files(real: Real) -> None:
    said = {(f.id.removeprefix("capture."), f.subject) for f in assess(real.found, CHOICES)}
    assert said == {
        ("machine-lost", "host"),
        ("disk-dirty", XML),
        ("version", XML),
        ("common-folder", "host"),  # both have their disks in C:\\Disks
        ("orphan-disks", "host"),
        ("domain-controllers", "host"),
    }
    orphan = next(f for f in real.plan.findings if f.id == "capture.orphan-disks")
    assert "missing: looked for at C:\\Disks\\Generation 1_49C4BAF3" in orphan.evidence[0]


def test_real_files_are_captured_byte_by_byte(real: Real, tmp_path: Path) -> None:
    """The whole way, with real names; sha256sum and our judge say so too, and the list of what is there."""
    assert (
        run(rehost, ["capture", "--image", str(real.image), "--to", str(tmp_path), "--yes"]) == 3
    )  # 3 are lost
    (folder,) = tmp_path.iterdir()
    copied = {
        file.original: (path.parent / file.path).read_bytes()
        for path in folder.glob("*/manifest.json")
        for file in from_json(path.read_bytes()).files
    }
    assert {path: copied.get(path) for path in real.files} == real.files
    sha256sum(folder)
    assert verify_capture(folder).verdict is Verdict.PASS
    names = {p.name for p in folder.iterdir() if p.is_dir()}
    assert names == {"Default Generation 1", "Default Generation 2", "host", "orphans"}


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
def test_sizes_are_those_of_qemu_img(real: Real, tmp_path: Path) -> None:
    """Of those disks that qemu can open: it knows no differencing VHDX, and replays no log without writing."""
    found = {d.file.original: d for m in real.found.machines for c in m.chains.values() for d in c.disks}
    for original in ("C:\\Disks\\Default Generation 2.vhdx", "C:\\Disks\\Default Generation 1.vhdx"):
        path = tmp_path / "disk.vhdx"
        path.write_bytes(real.files[original])
        subprocess.run(["qemu-img", "check", "-q", "-r", "all", path], check=False, capture_output=True)
        said = subprocess.run(["qemu-img", "info", "--output=json", path], check=True, capture_output=True)
        disk = found[original].disk
        assert disk is not None
        assert disk.virtual_size == json.loads(said.stdout)["virtual-size"]
