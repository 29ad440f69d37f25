"""What can be done on a mount point, in an ordinary folder: names without case, replace, errors."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from rehost_payload.system import mounting
from rehost_payload.system.mounting import MountedVolume, is_writable, mounted, ways
from rehost_payload.system.protocol import SystemError_


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "EFI/Microsoft/Boot").mkdir(parents=True)
    (tmp_path / "EFI/Microsoft/Boot/BCD").write_bytes(b"old")
    return tmp_path


@pytest.fixture
def volume(root: Path) -> MountedVolume:
    return MountedVolume(root)


def names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


def test_reading(volume: MountedVolume) -> None:
    assert volume.read("\\efi\\MICROSOFT\\boot\\bcd") == b"old"
    assert volume.exists("\\EFI")
    assert not volume.exists("\\EFI\\Boot")
    assert not volume.exists("\\EFI\\Microsoft\\Boot\\BCD\\below")
    assert volume.is_directory("\\efi")
    assert not volume.is_directory("\\efi\\microsoft\\boot\\BCD")
    assert volume.listdir("\\efi\\microsoft") == ["Boot"]
    assert volume.listdir("\\") == ["EFI"]
    assert volume.free() > 0


def test_replace_keeps_the_spelling_and_leaves_nothing_behind(volume: MountedVolume, root: Path) -> None:
    volume.replace("\\efi\\microsoft\\boot\\bcd", b"new" * 1000)
    assert names(root / "EFI/Microsoft/Boot") == ["BCD"]
    assert (root / "EFI/Microsoft/Boot/BCD").read_bytes() == b"new" * 1000
    volume.replace("\\efi\\microsoft\\boot\\Fresh", b"")
    assert (root / "EFI/Microsoft/Boot/Fresh").read_bytes() == b""


def test_folders_append_and_remove(volume: MountedVolume, root: Path) -> None:
    volume.make_directory("\\efi\\Boot")
    assert (root / "EFI/Boot").is_dir()
    volume.append("\\EFI\\boot\\journal", b"a")
    volume.append("\\EFI\\boot\\JOURNAL", b"b")
    assert (root / "EFI/Boot/journal").read_bytes() == b"ab"
    volume.remove("\\EFI\\BOOT\\journal")
    volume.remove_directory("\\EFI\\BOOT")
    assert not (root / "EFI/Boot").exists()


@pytest.mark.parametrize("path", ["\\absent", "\\EFI\\..\\EFI", "\\EFI\\.", "\\absent\\x"])
def test_absent_and_impossible_paths(volume: MountedVolume, path: str) -> None:
    for action in (volume.read, volume.listdir, volume.remove, volume.remove_directory):
        with pytest.raises(SystemError_) as error:
            action(path)
        assert error.value.code == "absent"


def test_a_failed_replace_leaves_the_old(
    volume: MountedVolume, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(mounting.os, "fsync", full)
    with pytest.raises(SystemError_) as error:
        volume.replace("\\EFI\\Microsoft\\Boot\\BCD", b"new")
    assert error.value.code == "no-space"
    assert names(root / "EFI/Microsoft/Boot") == ["BCD"]
    assert (root / "EFI/Microsoft/Boot/BCD").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.EROFS, "read-only"), (errno.EIO, "io"), (errno.ENODEV, "gone"), (errno.ENOSPC, "no-space")],
)
def test_error_codes(volume: MountedVolume, monkeypatch: pytest.MonkeyPatch, number: int, code: str) -> None:
    def fail(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(mounting.os, "open", fail)
    for action in (volume.replace, volume.append):
        with pytest.raises(SystemError_) as error:
            action("\\EFI\\x", b"")
        assert error.value.code == code


def test_proc_mounts(tmp_path: Path) -> None:
    table = tmp_path / "mounts"
    table.write_text(
        "/dev/sda1 /mnt/a vfat rw,relatime 0 0\n/dev/sda2 /mnt/b fuseblk ro,rw_by_name 0 0\n"
        "/dev/sda3 /mnt/with\\040space ntfs3 rw 0 0\n"
    )
    assert is_writable(Path("/mnt/a"), table)
    assert not is_writable(Path("/mnt/b"), table)
    assert is_writable(Path("/mnt/with space"), table)
    assert not is_writable(Path("/mnt/c"), table)


def test_ways_to_mount() -> None:
    assert [w.name for w in ways("fat32")] == ["vfat"]
    assert [w.name for w in ways("ntfs")] == ["ntfs3", "ntfs-3g"]
    assert [w.name for w in ways("ntfs", journal_unclean=True)] == ["ntfs3"]
    assert ways("ntfs", forced=True)[0].options == "force"
    assert ways("refs") == []


def test_nothing_is_left_when_no_way_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounting.tempfile, "tempdir", str(tmp_path))
    with pytest.raises(SystemError_) as error, mounted("/dev/absent", ways("fat32")):
        pass
    assert error.value.code == "mount"
    assert list(tmp_path.iterdir()) == []
