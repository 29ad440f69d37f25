"""From NTFS volumes on disk images to verified copies, as on the server: nothing mounted, the sources untouched."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from rehost_payload.capture.copy import run_copy
from rehost_payload.capture.copy_source import fingerprint
from rehost_payload.capture.copy_volumes import VolumeOpener
from rehost_payload.capture.judge import verify_capture
from rehost_payload.capture.manifest import from_json
from rehost_payload.capture.model import CaptureFile, CaptureUnit, Role, SourceRef
from rehost_payload.formats.filesystem import FileMetadata
from rehost_payload.formats.ntfs import NtfsVolume
from rehost_payload.formats.source import SliceSource
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


@dataclass
class Failing:
    """A disk some of whose sectors cannot be read."""

    disk: DiskHandle
    bad: set[int]

    def __post_init__(self) -> None:
        self.info, self.size = self.disk.info, self.disk.size

    def read_at(self, offset: int, length: int) -> bytes:
        if any(offset < (sector + 1) * 512 and sector * 512 < offset + length for sector in self.bad):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self.disk.read_at(offset, length)

    def partition_path(self, number: int, offset: int) -> str | None:
        return None

    def close(self) -> None:
        self.disk.close()


def test_sectors_that_cannot_be_read(disk: DiskLayout, handle: DiskHandle, tmp_path: Path) -> None:
    """Two in a virtual disk, one in the file table below another file: exactly these are lost, and named."""
    raw = disk.path.read_bytes()
    data = FILES["VMs/web/web.vhdx"]
    inside = raw.index(data[300_000:300_512]) - 300_000
    assert inside % 512 == 0
    named = "web.vmcx".encode("utf-16-le")
    listed = raw.index(named, raw.index(b"FILE0"))  # in its folder's record
    record = raw.rindex(b"FILE0", 0, raw.index(named, listed + 1024))
    failing = Failing(handle, {(inside + 400_384) // 512, (inside + 800_256) // 512, record // 512})
    plan = plan_of(CaptureUnit("id", "Web", "web", "machine", files(disk)))
    target = DirectoryTarget(tmp_path, TargetInfo("a", "a", "ext4"))
    result = run_copy(plan, VolumeOpener([failing]), [target], settings=SETTINGS)
    (copy,) = result.state.units[0].copies
    assert copy.state == "incomplete"
    manifest = from_json((tmp_path / plan.name / "web/manifest.json").read_bytes())
    assert not manifest.complete
    found = {f.path: f for f in manifest.files}
    assert [(b.offset, b.length) for b in found["web.vhdx"].bad_ranges] == [(400_384, 512), (800_256, 512)]
    assert found["e"].bad_ranges == ()
    assert [f.path for f in manifest.failed] == ["web.vmcx"]
    assert "cannot be opened" in manifest.failed[0].reason
    expected = bytearray(data)
    for at in (400_384, 800_256):
        expected[at : at + 512] = bytes(512)
    assert (tmp_path / plan.name / "web/web.vhdx").read_bytes() == expected
    sha256sum(tmp_path / plan.name)
    assert verify_capture(tmp_path / plan.name).verdict is Verdict.FAIL


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


def test_a_file_whose_time_was_set_back_has_another_identity(disk: DiskLayout) -> None:
    """Same size, time, number and headers, other content: only the time that programs do not set tells it."""
    path = "VMs/web/web.vmcx"
    (file,) = [f for f in files(disk) if f.source.path.endswith("web.vmcx")]

    def look() -> tuple[FileMetadata, str]:
        with closing(open_image(disk.path)) as handle:
            part = disk.partitions[0]
            volume = NtfsVolume(SliceSource(handle, part.offset, part.size))
            found = volume.metadata(file.source.path)
            assert found is not None
            return found, fingerprint(VolumeOpener([handle]).open(file))

    before, was = look()
    with disks.ntfs_volume(disk, disk.partitions[0]) as volume:
        volume.write_pieces(path, {2000: b"other"})
        volume.set_times(path, before.created, before.modified)
    after, now = look()
    assert replace(after, changed=0) == replace(before, changed=0)
    assert after.changed > before.changed
    assert now != was
