"""Virtual disks that Hyper-V and Windows made: NTFS by Windows itself, not by libntfs-3g."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from rehost_payload.formats.ntfs import NtfsVolume
from rehost_payload.formats.partitions import read_table
from rehost_payload.formats.source import SliceSource
from rehost_payload.survey import survey_images
from rehost_payload.system.images import open_image
from rehost_payload.system.protocol import SystemError_
from support import corpus

pytestmark = pytest.mark.skipif(shutil.which("qemu-nbd") is None, reason="qemu-utils is not installed")


def unpacked(name: str, folder: Path) -> Path:
    path = folder / name
    path.write_bytes(corpus.read(corpus.corpus("hyperv") / f"{name}.xz"))
    return path


@pytest.mark.parametrize("name", ["dynamic.vhd", "dynamic.vhdx", "fixed.vhdx"])
def test_ntfs_by_windows_as_ntfs_3g_reads_it(tmp_path: Path, name: str) -> None:
    disk = open_image(unpacked(name, tmp_path))
    try:
        table = read_table(disk, disk.info.sector_size).mbr
        assert table is not None
        part = table.partitions[0]
        source = SliceSource(disk, part.first_lba * 512, part.sectors * 512)
        raw = tmp_path / "volume"
        raw.write_bytes(source.read_at(0, source.size))
        volume = NtfsVolume(source)
        assert (volume.label, volume.dirty, volume.hidden_sectors) == ("New Volume", False, part.first_lba)
        said = subprocess.run(["ntfsinfo", "-m", raw], capture_output=True, text=True, check=True).stdout
        assert f"Free Clusters: {(volume.free() or 0) // volume.cluster_size}" in said
        assert volume.listdir("\\") == []  # nobody has put anything there
        # its own metadata files are files like any other (of $MFT ntfscat undoes the fixups)
        for path in (
            "$AttrDef",
            "$UpCase",
            "$Boot",
            "$Bitmap",
            "$LogFile",
            "$Extend/$RmMetadata/$Repair",
        ):
            theirs = subprocess.run(["ntfscat", str(raw), path], capture_output=True, check=True).stdout
            assert volume.read(path) == theirs, path
        said = subprocess.run(
            ["ntfsls", "-a", "-s", "-p", "/$Extend", str(raw)], capture_output=True, text=True
        )
        names = set(said.stdout.splitlines()) - {"", ".", ".."}
        assert {e.name for e in volume.listdir("$extend")} == names
    finally:
        disk.close()


@pytest.mark.parametrize(
    ("name", "says"),
    [("differencing.avhdx", "differencing disk"), ("iotest-dirtylog-10G-4M.vhdx", "log must be replayed")],
)
def test_what_qemu_cannot_open_is_said_in_one_line(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(SystemError_, match=says) as error:
        survey_images([unpacked(name, tmp_path)])
    assert "\n" not in error.value.detail
