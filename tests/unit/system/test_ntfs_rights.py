"""Rights of new and replaced files on NTFS, through a real mount of ntfs-3g."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rehost_payload.system.mounting import MountedVolume
from support.security import ADMINS, CI, FULL, OI, READ, SYSTEM, USERS, descriptor, entries

ATTRIBUTE = "system.ntfs_acl"


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    if not shutil.which("mkntfs") or not shutil.which("ntfs-3g"):
        pytest.skip("ntfs-3g is not installed")
    image, target = tmp_path / "ntfs.img", tmp_path / "mount"
    target.mkdir()
    with image.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkntfs", "-F", "-Q", "-q", str(image)], check=True, capture_output=True)
    if subprocess.run(["ntfs-3g", "-o", "rw", str(image), str(target)], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield target
    finally:
        subprocess.run(["umount", str(target)], check=True)


def test_new_files_inherit_and_replaced_ones_keep(volume: Path) -> None:
    folder = volume / "drivers"
    folder.mkdir()
    handed_down = descriptor((0, OI | CI, FULL, SYSTEM), (0, OI | CI, READ, USERS))
    os.setxattr(folder, ATTRIBUTE, handed_down)
    mounted = MountedVolume(volume)
    mounted.replace("\\drivers\\new.sys", b"new")
    mounted.make_directory("\\drivers\\store")
    mounted.replace("\\drivers\\store\\new.inf", b"new")
    for path in ("new.sys", "store/new.inf"):
        rights = entries(os.getxattr(folder / path, ATTRIBUTE))
        assert [(mask, sid) for _, _, mask, sid in rights] == [(FULL, SYSTEM), (READ, USERS)], path
    own = descriptor((0, 0, FULL, SYSTEM), (0, 0, FULL, ADMINS))
    os.setxattr(folder / "new.sys", ATTRIBUTE, own)
    kept = os.getxattr(folder / "new.sys", ATTRIBUTE)
    mounted.replace("\\drivers\\new.sys", b"newer")
    assert (folder / "new.sys").read_bytes() == b"newer"
    assert os.getxattr(folder / "new.sys", ATTRIBUTE) == kept
