"""The copy engine on the medium's own kernel: NTFS and exFAT targets, one pulled out, and the power cut on the way.

What is on the targets is judged by sha256sum, and what NTFS holds by ntfs-3g's library; after a power cut that one
refuses the volume until it was checked, then our own reader has to do.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rehost_payload.capture.judge import verify_capture
from rehost_payload.formats.filesystem import FileSystemReader
from rehost_payload.formats.source import SliceSource
from rehost_payload.repair.model import Verdict
from rehost_payload.survey.filesystems import open_filesystem
from rehost_payload.system.images import open_image
from support import disks
from support.captures import sha256sum
from support.disks import MIB, DiskLayout, PartitionSpec
from support.lab import Lab
from support.product import rehost_volume
from support.qemu import Disk, Machine

NAME = "Rehost-HV-1"
DRIVER = Path(__file__).with_name("capture_driver.py")
FILES = {
    "VMs/web/web.vhdx": random.Random(1).randbytes(96 * MIB + 12345),
    "VMs/web/web.vmcx": random.Random(2).randbytes(4096),
    "VMs/db/db.vhdx": random.Random(3).randbytes(48 * MIB),
    "VMs/db/db.vmcx": b"x" * 777,
}
WITHIN = r"PROGRESS copy \d+ \d+ web/web.vhdx"


@dataclass
class Bench:
    lab: Lab
    folder: Path
    source: DiskLayout
    stick: DiskLayout
    ntfs: DiskLayout
    exfat: DiskLayout

    def machine(self, work: str) -> Any:
        (self.folder / work).mkdir()
        return self.lab.machine(
            self.folder / work,
            [
                Disk(self.stick.path, "virtio-blk", snapshot=False),
                Disk(self.source.path, "virtio-blk", read_only=True),
                Disk(self.ntfs.path, "usb-storage"),
                Disk(self.exfat.path, "usb-storage"),
            ],
        )


@pytest.fixture
def bench(uefi_lab: Lab, tmp_path: Path) -> Bench:
    if shutil.which("mkfs.exfat") is None:
        pytest.skip("mkfs.exfat is not installed (package exfatprogs)")
    size = 240 * MIB
    source = disks.make_disk(
        tmp_path / "source.img", [PartitionSpec("data", size, "ntfs", files=FILES, label="SOURCE")]
    )
    stick = rehost_volume(tmp_path / "stick.img", {"driver.py": DRIVER.read_bytes()})
    ntfs = disks.make_disk(tmp_path / "ntfs.img", [PartitionSpec("data", size, "ntfs", label="COPY1")])
    volume = tmp_path / "volume"
    with volume.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.exfat", "-L", "COPY2", volume], check=True, capture_output=True)
    content = volume.read_bytes()
    exfat = disks.make_disk(tmp_path / "exfat.img", [PartitionSpec("data", size, content=content)])
    volume.unlink()
    return Bench(uefi_lab, tmp_path, source, stick, ntfs, exfat)


def prepare(vm: Machine) -> None:
    code, output = vm.shell(
        "mkdir -p /mnt; modprobe -a vfat ntfs3 exfat 2>&1; "
        "for d in /dev/vd?1; do mount -t vfat -o ro $d /mnt && break; done; ls -l /dev/vd* /dev/sd* /mnt/driver.py"
    )
    assert code == 0, output


def wait_for_usb_disks(vm: Machine, count: int) -> None:
    code, output = vm.shell(f"until [ $(ls -d /dev/sd?1 | wc -l) = {count} ]; do sleep 1; done")
    assert code == 0, output


def run(vm: Machine, *targets: str) -> dict[str, Any]:
    vm.send(f"python3 /mnt/driver.py {' '.join(targets)}\n")
    return result(vm)


def result(vm: Machine) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(vm.wait_for(r"RESULT (\{.*\})\s", 300)[1])
    return told


def exported(disk: DiskLayout, folder: Path) -> Path:
    """The capture on a target, taken out of its image."""
    part = disk.partitions[0]
    with closing(open_image(disk.path)) as image:
        reader = open_filesystem(SliceSource(image, part.offset, part.size))
        for path in _walk(reader, NAME):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(reader.read(path))
    return folder / NAME


def _walk(reader: FileSystemReader, folder: str) -> Iterator[str]:
    for entry in reader.listdir(folder):
        path = f"{folder}/{entry.name}"
        if entry.is_directory:
            yield from _walk(reader, path)
        else:
            yield path


def assert_good(bench: Bench) -> None:
    for name, disk in (("ntfs", bench.ntfs), ("exfat", bench.exfat)):
        place = exported(disk, bench.folder / f"out-{name}")
        sha256sum(place)
        assert verify_capture(place).verdict is Verdict.PASS
        for path, data in FILES.items():
            assert (place / path[4:]).read_bytes() == data, (name, path)


def test_a_target_is_pulled_out_and_comes_back(bench: Bench) -> None:
    with bench.machine("one") as vm:
        prepare(vm)
        vm.send("python3 /mnt/driver.py COPY1 COPY2\n")
        vm.wait_for(WITHIN, 120)
        vm.unplug("3")
        told = result(vm)
        assert told["mounts"] == []
        (first, second) = told["targets"]
        assert (first[1], second[1]) == ("", "gone"), told
        assert [unit[1][0] for unit in told["units"]] == [["complete"], ["complete"]]
        assert dict(told["units"])["web"][1][0] == "unfinished"
        options = {"driver": "usb-storage", "bus": "xhci.0", "removable": True}
        wait_for_usb_disks(vm, 1)
        vm.qmp.command("device_add", id="disk-3b", drive="node-3", **options)
        wait_for_usb_disks(vm, 2)
        told = run(vm, "COPY1", "COPY2")
        assert told["good"] == 2, told
        assert told["mounts"] == []
        assert all(target[3] for target in told["targets"]), "not read past the cache"
    assert_good(bench)
    for path, data in FILES.items():  # as another driver sees it
        assert disks.read_file(bench.ntfs, bench.ntfs.partitions[0], f"{NAME}/{path[4:]}") == data


def test_power_is_cut_while_copying(bench: Bench) -> None:
    with bench.machine("one") as vm:
        prepare(vm)
        vm.send("python3 /mnt/driver.py COPY1 COPY2\n")
        vm.wait_for(WITHIN, 120)
        vm.wait_for(r"PROGRESS copy (\d{8,}) \d+ web/web.vhdx", 120)
        vm.kill()
    with bench.machine("two") as vm:
        prepare(vm)
        told = run(vm, "COPY1", "COPY2")
        assert told.get("good") == 2, told
        assert told["mounts"] == []
    assert_good(bench)
