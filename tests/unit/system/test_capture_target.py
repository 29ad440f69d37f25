"""LinuxSystem's targets for captures: which volumes it takes, and what happens when the disk is pulled out."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from rehost_payload.system import directory_target, mounting
from rehost_payload.system.capture_target import AlignedBuffer, TargetInfo
from rehost_payload.system.directory_target import DirectoryTarget
from rehost_payload.system.protocol import SystemError_
from support import disks, exfat_image
from support.disks import MIB, PartitionSpec
from support.linux_bench import Bench

INFO = TargetInfo("t", "t", "ntfs")


def exfat(name: str, *, dirty: bool = False, mark: bool = False) -> PartitionSpec:
    volume = exfat_image.make_volume({"rehost.busy": b""} if mark else {}, dirty=dirty)
    return PartitionSpec(name, 4 * MIB, content=volume)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    specs = [
        PartitionSpec("ntfs", 16 * MIB, fs="ntfs", label="SICHERUNG"),
        PartitionSpec("fat", 8 * MIB, fs="fat16"),
        exfat("exfat"),
        exfat("dirty", dirty=True),
        exfat("interrupted", dirty=True, mark=True),
    ]
    return Bench(disks.make_disk(tmp_path / "t.img", specs), tmp_path / "mounted", monkeypatch)


def target(bench: Bench, role: str):  # type: ignore[no-untyped-def]
    part = bench.disk[role]
    return bench.system.capture_target(str(bench.disk.path), part.offset, part.size)


def code(bench: Bench, role: str) -> str:
    with pytest.raises(SystemError_) as error, target(bench, role):
        pass
    assert bench.mounts == []
    return error.value.code


def test_ntfs_and_exfat_are_taken_and_marked(bench: Bench) -> None:
    for role, kind in (("ntfs", "ntfs"), ("exfat", "exfat")):
        with target(bench, role) as found:
            assert (bench.folder / "rehost.busy").exists()
            assert (found.info.file_system, found.info.disk) == (kind, str(bench.disk.path))
            found.replace("x", b"1")
            assert (bench.folder / "x").read_bytes() == b"1"
        assert not (bench.folder / "rehost.busy").exists()
    with target(bench, "ntfs") as found:
        assert "SICHERUNG" in found.info.name
        with bench.writable(bench.disk["ntfs"]):  # the report goes to the same volume
            assert bench.mounted_now == 1
    assert bench.mounted_now == 0


def test_volumes_that_no_capture_may_go_to(bench: Bench) -> None:
    before = bench.disk.path.read_bytes()
    assert code(bench, "fat") == "file-system"
    assert code(bench, "dirty") == "dirty"
    assert bench.disk.path.read_bytes() == before
    disks.set_dirty(bench.disk, bench.disk["ntfs"])
    assert code(bench, "ntfs") == "dirty"
    disks.set_dirty(bench.disk, bench.disk["ntfs"], False)
    disks.set_hibernated(bench.disk, bench.disk["ntfs"])
    assert code(bench, "ntfs") == "hibernated"


def test_our_own_interrupted_volume_is_taken_again(bench: Bench) -> None:
    bench.folder.joinpath("rehost.busy").touch()
    with target(bench, "interrupted"):
        pass
    assert bench.folder.joinpath("rehost.busy").exists()  # as long as the volume is dirty


def test_a_volume_of_which_the_disk_is_pulled_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with target(bench, "ntfs") as found:
        monkeypatch.setattr(directory_target.os, "fsync", failing(errno.EIO))
        with pytest.raises(SystemError_) as error:
            found.replace("x", b"")
        assert error.value.code == "gone"  # /sys knows no such disk
    assert bench.mounted_now == 0


def failing(number: int):  # type: ignore[no-untyped-def]
    def fail(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail


def test_the_mount_of_a_disk_that_is_gone_is_detached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    class Libc:
        def umount2(self, target: object, flags: int) -> int:
            calls.append(flags)
            return 0

    monkeypatch.setattr(mounting, "_libc", Libc)
    mounting._unmount(tmp_path, "/dev/no-such-disk1")
    mounting._unmount(tmp_path, "/dev/null")
    assert calls == [2, 0]


# --- a folder as target ---


@pytest.fixture
def folder(tmp_path: Path) -> DirectoryTarget:
    return DirectoryTarget(tmp_path, INFO)


@pytest.mark.parametrize("direct", [True, False])
def test_files(
    folder: DirectoryTarget, tmp_path: Path, direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not direct:
        monkeypatch.setattr(directory_target, "_O_DIRECT", 0)
    buffer = AlignedBuffer(8192)
    data = os.urandom(5000)
    folder.make_folders("a/b")
    file = folder.open("a/b/f")
    assert file.unbuffered == direct
    file.reserve(3 * 8192)
    buffer.view[:5000] = data
    buffer.view[5000:] = bytes(3192)
    file.write_at(0, buffer.view, 8192)
    file.write_at(8192, buffer.view, 5000)
    file.finish(8192 + 5000, 0, 133000000000000000)
    back = AlignedBuffer(16384)
    assert file.read_into(0, back.view) == 8192 + 5000
    assert bytes(back.view[: 8192 + 5000]) == data + bytes(3192) + data
    file.close()
    file.close()
    assert folder.size("a/b/f") == 13192
    assert (tmp_path / "a/b/f").stat().st_mtime == 1655526400
    folder.rename("a/b/f", "a/b/g")
    assert (folder.size("a/b/f"), folder.size("a/b/g/x"), folder.names("a")) == (None, None, ["b"])
    folder.append("log", b"1")
    folder.append("log", b"2")
    assert folder.read("log") == b"12"
    folder.remove("a/b/g")
    folder.remove("a/b/g")
    assert folder.names("a/b") == folder.names("nowhere") == []
    with pytest.raises(SystemError_) as error:
        folder.read("nowhere")
    assert error.value.code == "absent"
    with pytest.raises(ValueError, match="no path"):
        folder.read("../x")


def test_a_file_system_that_refuses_unbuffered_access_late(
    folder: DirectoryTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FUSE and others take the flag and refuse the first read or write."""
    file = folder.open("f")
    real_write, real_read = os.pwrite, os.preadv

    def refuse_write(descriptor: int, data: memoryview, offset: int) -> int:
        if file.unbuffered:
            raise OSError(errno.EINVAL, "no")
        return real_write(descriptor, data, offset)

    def refuse_read(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        if file.unbuffered:
            raise OSError(errno.EINVAL, "no")
        return real_read(descriptor, buffers, offset)

    monkeypatch.setattr(directory_target.os, "pwrite", refuse_write)
    monkeypatch.setattr(directory_target.os, "preadv", refuse_read)
    buffer = AlignedBuffer(4096)
    buffer.view[:3] = b"abc"
    file.write_at(0, buffer.view, 3)
    assert not file.unbuffered
    assert folder.size("f") == 3
    assert folder.open("f").read_into(0, AlignedBuffer(4096).view) == 3


@pytest.mark.parametrize(
    ("number", "name"), [(errno.ENOSPC, "no-space"), (errno.EIO, "io"), (errno.ENODEV, "gone")]
)
def test_errors_have_names(
    folder: DirectoryTarget, number: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folder.open("f")
    for call in ("pwrite", "preadv", "fsync"):
        monkeypatch.setattr(directory_target.os, call, failing(number))
    buffer = AlignedBuffer(4096)
    for action in (
        lambda: file.write_at(0, buffer.view, 4096),
        lambda: file.read_into(0, buffer.view),
        file.flush,
        lambda: folder.replace("x", b""),
        lambda: folder.append("x", b""),
    ):
        with pytest.raises(SystemError_) as error:
            action()
        assert error.value.code == name
