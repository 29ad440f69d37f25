"""From NTFS volumes on disk images to verified copies, as on the server: nothing mounted, the sources untouched."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from rehost_payload.capture.copy import run_copy
from rehost_payload.capture.copy_volumes import VolumeOpener
from rehost_payload.capture.judge import verify_capture
from rehost_payload.capture.model import CaptureFile, CaptureUnit, Role, SourceRef
from rehost_payload.repair.model import Verdict, VolumeRef
from rehost_payload.system.capture_target import TargetInfo
from rehost_payload.system.direct import DirectSource
from rehost_payload.system.directory_target import DirectoryTarget
from rehost_payload.system.images import open_image
from rehost_payload.system.protocol import DiskHandle, SystemError_
from support import disks
from support.captures import SETTINGS, content, plan_of, sha256sum
from support.disks import MIB, DiskLayout, PartitionSpec

FILES = {
    "VMs/web/web.vhdx": content("web", 900_001),
    "VMs/web/web.vmcx": content("vmcx", 4096),
    "VMs/web/e": b"",
}


@pytest.fixture
def disk(tmp_path: Path) -> DiskLayout:
    spec = PartitionSpec("data", 48 * MIB, fs="ntfs", files=FILES, label="Daten")
    return disks.make_disk(tmp_path / "source.img", [spec])


@pytest.fixture
def handle(disk: DiskLayout) -> Iterator[DiskHandle]:
    with closing(open_image(disk.path)) as handle:
        yield handle


def ref(disk: DiskLayout) -> VolumeRef:
    part = disk.partitions[0]
    return VolumeRef(str(disk.path), part.offset, part.size, "ntfs", partition_guid=part.unique_guid)


def files(disk: DiskLayout) -> tuple[CaptureFile, ...]:
    return tuple(
        CaptureFile(
            SourceRef(ref(disk), "\\" + p.replace("/", "\\")),
            f"D:\\{p}",
            f"web/{p[8:]}",
            Role.DISK,
            len(d),
        )
        for p, d in FILES.items()
    )


@pytest.mark.parametrize("uncached", [False, True])
def test_capture_of_a_volume(disk: DiskLayout, handle: DiskHandle, tmp_path: Path, uncached: bool) -> None:
    before = hashlib.sha256(disk.path.read_bytes()).hexdigest()
    opener = VolumeOpener([handle], DirectSource) if uncached else VolumeOpener([handle])
    plan = plan_of(CaptureUnit("id", "Web", "web", "machine", files(disk)))
    targets = []
    for name in "ab":
        (tmp_path / name).mkdir()
        targets.append(DirectoryTarget(tmp_path / name, TargetInfo(name, name, "ext4")))
    assert run_copy(plan, opener, targets, settings=SETTINGS).state.good_copies == 2
    for name in "ab":
        folder = tmp_path / name / plan.name
        assert verify_capture(folder).verdict is Verdict.PASS
        sha256sum(folder)
        assert (folder / "web/web.vhdx").read_bytes() == FILES["VMs/web/web.vhdx"]
    assert hashlib.sha256(disk.path.read_bytes()).hexdigest() == before


def test_direct_reads_are_the_bytes_of_the_disk(disk: DiskLayout, handle: DiskHandle) -> None:
    source = DirectSource(handle)
    raw = disk.path.read_bytes()
    for offset, length in (
        (0, MIB),
        (513, MIB + 7),
        (len(raw) - MIB, 2 * MIB),
        (4096, 5),
        (0, 9 * MIB),
        (1, 300_000),
    ):
        assert source.read_at(offset, length) == raw[offset : offset + length]
    source.close()


def test_what_is_not_there_any_more(disk: DiskLayout, handle: DiskHandle) -> None:
    opener = VolumeOpener([handle])
    (first, *_) = files(disk)
    lost = CaptureFile(SourceRef(ref(disk), "\\nowhere"), "D:\\nowhere", "x", Role.DISK, 1)
    with pytest.raises(FileNotFoundError):
        opener.open(lost)
    with pytest.raises(SystemError_, match="gone"):
        VolumeOpener([]).open(first)


def test_a_changed_file_has_another_identity(disk: DiskLayout) -> None:
    (first, *_) = files(disk)
    with closing(open_image(disk.path)) as handle:
        before = VolumeOpener([handle]).open(first).identity
    disks.write_file(disk, disk.partitions[0], "VMs/web/web.vhdx", b"other")
    with closing(open_image(disk.path)) as handle:
        assert VolumeOpener([handle]).open(first).identity != before
