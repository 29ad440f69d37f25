"""Where a folder lies, and why it may not take a capture: seen before anything is written there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rehost_payload.system.folder_target import (
    FolderConflict,
    folder_conflict,
    folder_target,
    shares_file_system,
)

posix = pytest.mark.skipif(os.name != "posix", reason="devices by number are POSIX")


def fake_root(
    tmp_path: Path, device: str, *, partition: bool = False, slave: str = "", backing: str = ""
) -> Path:
    """/proc and /sys of a machine on which the tests' file system lies on ``device``."""
    root, number = tmp_path / "root", _number(tmp_path)
    place = root / "sys/devices/disk" / device
    if partition:
        place = place / f"{device}1"
    place.mkdir(parents=True)
    if partition:
        (place / "partition").write_text("1\n")
    if slave:
        other = root / "sys/devices/disk" / slave
        (other / f"{slave}2").mkdir(parents=True)
        (other / f"{slave}2" / "partition").write_text("2\n")
        (place / "slaves").mkdir()
        (place / "slaves" / f"{slave}2").symlink_to(other / f"{slave}2")
    if backing:
        (place / "loop").mkdir()
        (place / "loop/backing_file").write_text(f"{backing}\n")
    (root / "sys/dev/block").mkdir(parents=True)
    (root / "sys/dev/block" / number).symlink_to(place)
    (root / "proc/self").mkdir(parents=True)
    line = f"36 35 {number} / / rw,noatime shared:1 - fuseblk /dev/x rw\n"
    (root / "proc/self/mountinfo").write_text(line)
    return root


def _number(path: Path) -> str:
    device = path.stat().st_dev
    return f"{os.major(device)}:{os.minor(device)}"


@posix
@pytest.mark.parametrize(
    ("facts", "disks"),
    [
        ({"device": "sdb"}, {"/dev/sdb"}),
        ({"device": "sdb", "partition": True}, {"/dev/sdb"}),
        ({"device": "dm-0", "slave": "sdc"}, {"/dev/dm-0", "/dev/sdc"}),
        ({"device": "loop3", "backing": "/srv/backup.img"}, {"/dev/loop3", "/srv/backup.img"}),
    ],
)
def test_what_a_folder_lies_on(facts: dict[str, str], disks: set[str], tmp_path: Path) -> None:
    root = fake_root(tmp_path, **facts)  # type: ignore[arg-type]
    info = folder_target(tmp_path, root).info
    assert info.file_system == "fuseblk"
    assert info.below == {f"device {_number(tmp_path)}", *disks}
    assert info.disk in disks


@posix
def test_a_folder_on_a_disk_that_is_captured(tmp_path: Path) -> None:
    """Mounted from the image itself: writing there would change what is to be saved."""
    image = tmp_path / "host/c.img"
    image.parent.mkdir()
    image.write_bytes(b"x")
    target = tmp_path / "target"
    target.mkdir()
    link = tmp_path / "link.img"
    link.symlink_to(image)
    root = fake_root(tmp_path, "loop0", backing=str(image))
    for source in (image, link):
        found = folder_conflict(target, [str(source)], [], root)
        assert found == FolderConflict("source-disk", f"{target} lies on {image}")
    assert folder_conflict(target, [str(tmp_path / "other.img")], [], root) is None


def test_a_folder_that_holds_what_is_captured(tmp_path: Path) -> None:
    images = tmp_path / "images/deep"
    images.mkdir(parents=True)
    (images / "c.img").write_bytes(b"x")
    (tmp_path / "short.img").symlink_to(images / "c.img")
    (tmp_path / "beside").mkdir()
    sources = [str(tmp_path / "short.img")]
    for folder in (images, images.parent, tmp_path):
        found = folder_conflict(folder, sources, [])
        assert found is not None
        assert found.code == "holds-source"
        assert str(images / "c.img") in found.detail
    assert folder_conflict(tmp_path / "beside", sources, []) is None
    assert shares_file_system(tmp_path / "beside", sources) == sources[0]


@pytest.mark.parametrize("marks", [("capture.json",), ("capture.journal",), ("manifest.json", "SHA256SUMS")])
def test_a_folder_inside_a_capture(marks: tuple[str, ...], tmp_path: Path) -> None:
    inside = tmp_path / "capture" / "web01"
    inside.mkdir(parents=True)
    for name in marks:
        (tmp_path / "capture" / name).touch()
    for folder in (tmp_path / "capture", inside):
        found = folder_conflict(folder, [], [])
        assert found is not None
        assert (found.code, str(tmp_path / "capture") in found.detail) == ("inside-capture", True)
    assert folder_conflict(tmp_path, [], []) is None


def test_a_list_of_hashes_alone_is_no_capture(tmp_path: Path) -> None:
    (tmp_path / "SHA256SUMS").touch()
    assert folder_conflict(tmp_path, [], []) is None


def test_the_same_folder_twice_and_one_in_the_other(tmp_path: Path) -> None:
    one, inner, two = tmp_path / "one", tmp_path / "one/inner", tmp_path / "two"
    for folder in (one, inner, two):
        folder.mkdir(exist_ok=True)
    alias = tmp_path / "alias"
    alias.symlink_to(one)
    for first, second in ((one, alias), (alias, inner), (inner, one), (one, tmp_path / "two/../one")):
        found = folder_conflict(second, [], [first])
        assert found is not None
        assert found.code == "same-disk"
    assert folder_conflict(two, [], [one]) is None
