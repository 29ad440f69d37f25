"""Rights of the files that a repair writes, through the medium's own kernel driver for NTFS; judged by ntfs-3g's."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import disks, sparse
from support.disks import MIB, DiskLayout, PartitionSpec
from support.lab import Lab
from support.product import rehost_volume
from support.qemu import Disk
from support.security import ADMINS, CI, FULL, ID, OI, READ, SYSTEM, USERS, descriptor, entries

DRIVER = Path(__file__).with_name("rights_driver.py")
ATTRIBUTE = "system.ntfs_acl"


@contextmanager
def by_ntfs3g(disk: DiskLayout, folder: Path) -> Iterator[Path]:
    """The volume of the disk mounted by ntfs-3g; what is changed goes into the disk."""
    part = disk.partitions[0]
    volume, place = folder / "volume", folder / "mount"
    sparse.make(volume, part.size)
    sparse.copy_range(disk.path, part.offset, volume, 0, part.size)
    place.mkdir()
    server = subprocess.Popen(
        ["ntfs-3g", "-o", "rw,no_detach", volume, place], stderr=subprocess.PIPE, text=True
    )
    while server.poll() is None and not os.path.ismount(place):
        time.sleep(0.02)
    if server.poll() is not None:
        pytest.skip(f"nothing can be mounted here: {server.communicate()[1]}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)
        server.communicate()  # umount does not wait until it has written everything
        place.rmdir()
    sparse.copy_range(volume, 0, disk.path, part.offset, part.size)
    volume.unlink()


def test_new_files_inherit_and_replaced_ones_keep(uefi_lab: Lab, tmp_path: Path) -> None:
    if not shutil.which("ntfs-3g"):
        pytest.skip("ntfs-3g is not installed")
    files = {"drivers/kept.sys": b"old", "elsewhere/x": b""}
    disk = disks.make_disk(tmp_path / "server.img", [PartitionSpec("data", 40 * MIB, "ntfs", files=files)])
    own = descriptor((0, 0, FULL, SYSTEM), (0, 0, READ, ADMINS))
    with by_ntfs3g(disk, tmp_path) as volume:
        handed_down = descriptor((0, OI | CI, FULL, SYSTEM), (0, OI | CI, READ, USERS))
        os.setxattr(volume / "drivers", ATTRIBUTE, handed_down)
        os.setxattr(volume / "drivers/kept.sys", ATTRIBUTE, own)
        kept = os.getxattr(volume / "drivers/kept.sys", ATTRIBUTE)

    part = disk.partitions[0]
    stick = rehost_volume(tmp_path / "stick.img", {"driver.py": DRIVER.read_bytes()})
    with uefi_lab.machine(tmp_path, [Disk(stick.path, "virtio-blk"), Disk(disk.path, "virtio-blk")]) as vm:
        code, output = vm.shell(
            "mkdir -p /mnt; modprobe -a vfat ntfs3; for d in /dev/vd?1; do mount -t vfat -o ro $d /mnt && break; done; "
            f"python3 /mnt/driver.py {disk.size} {part.offset} {part.size}"
        )
        assert code == 0, output
        assert "MOUNTED ntfs3" in output

    with by_ntfs3g(disk, tmp_path) as volume:
        folder = volume / "drivers"
        assert (folder / "kept.sys").read_bytes() == b"newer, and more"
        assert os.getxattr(folder / "kept.sys", ATTRIBUTE) == kept
        inherited = {
            path: entries(os.getxattr(folder / path, ATTRIBUTE))
            for path in ("new.sys", "store", "store/new.inf")
        }
    for path, rights in inherited.items():
        assert [(mask, sid) for _, _, mask, sid in rights] == [(FULL, SYSTEM), (READ, USERS)], path
        assert all(flags & ID for _, flags, _, _ in rights), path
    assert all(flags & (OI | CI) for _, flags, _, _ in inherited["store"])
