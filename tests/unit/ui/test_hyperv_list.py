"""`rehost hyperv list` over synthetic hosts, as a user calls it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rehost_payload.capture.model import CapturePlan
from rehost_payload.ui.cli import rehost
from rehost_payload.ui.plain import from_plain
from support.hyperv_host import DC, WEB, Host, make_host


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    return make_host(tmp_path_factory.mktemp("list"))


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(rehost, ["hyperv", "list", *map(str, arguments)], catch_exceptions=False)


def images(host: Host) -> list[str]:
    return [part for image in host.images for part in ("--image", str(image))]


def test_the_table_and_what_stands_against_a_capture(host: Host) -> None:
    said = call(*images(host), "--lang", "en")
    assert said.exit_code == 3  # the physical disk of sql
    lines = said.stdout.splitlines()
    rows = {line.split()[0]: line.split() for line in lines if line and line[0] in "dstw" and " 8.0 " in line}
    assert rows["dc01"] == ["dc01", "1", "8.0", "saved", "0", "1", "1.1", "MiB"]
    assert rows["web01"][:6] == ["web01", "2", "8.0", "off", "2", "1"]
    assert all(len(line) <= 79 for line in lines)
    assert "FATAL  sql uses physical disks: SCSI 0:2: \\\\.\\PHYSICALDRIVE3" in said.stdout
    assert "WARNING  dc01 is saved, not shut down" in said.stdout
    assert said.stdout.index("FATAL") < said.stdout.index("WARNING") < said.stdout.index("NOTE")


def test_german(host: Host) -> None:
    said = call(*images(host), "--lang", "de")
    assert "Virtuelle Maschinen" in said.stdout
    assert "dc01 ist gespeichert, nicht heruntergefahren" in said.stdout


def test_json_is_the_whole_plan(host: Host) -> None:
    said = call(*images(host), "--json")
    data = json.loads(said.stdout)
    assert data["exit_code"] == said.exit_code == 3
    plan = from_plain(CapturePlan, data["plan"])
    assert {u.id for u in plan.units if u.kind == "machine"} >= {WEB, DC}
    assert {v["root"] for v in data["volumes"]} >= {"C:", "D:", "E:"}
    assert data["settings"]["name"] == "HV01"
    assert data["known"][WEB].endswith(f"{WEB.upper()}.vmcx")


def test_a_disk_without_machines(tmp_path: Path, host: Host) -> None:
    blank = tmp_path / "blank.img"
    blank.write_bytes(bytes(1 << 20))
    said = call("--image", blank, "--lang", "en")
    assert said.exit_code == 0
    assert "No virtual machine was found" in said.stdout


def test_what_cannot_be_read_is_one_message(tmp_path: Path) -> None:
    said = call("--image", tmp_path / "gone.img")
    assert said.exit_code == 1
    assert said.stderr.startswith("rehost: ")
    assert "Traceback" not in said.output


def test_a_windows_that_is_not_there(host: Host) -> None:
    said = call(*images(host), "--windows", "disk9p9:\\Windows")
    assert said.exit_code == 2
    assert "there is no such Windows" in said.stderr


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
def test_an_array_in_a_virtual_disk(tmp_path: Path, host: Host) -> None:
    """A workstation has images of any kind; the disks are the same."""
    path = tmp_path / "array.qcow2"
    command = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(host.images[1]), str(path)]
    subprocess.run(command, check=True)
    raw = call(*images(host), "--json")
    mixed = call("--image", host.images[0], "--image", path, "--image", host.images[2], "--json")
    assert mixed.exit_code == raw.exit_code
    targets = [
        [f["target"] for u in json.loads(r.stdout)["plan"]["units"] for f in u["files"]] for r in (raw, mixed)
    ]
    assert targets[0] == targets[1]
