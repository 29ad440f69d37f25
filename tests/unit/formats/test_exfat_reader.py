"""The exFAT reader against volumes made by own code after the specification; fsck.exfat judges the maker."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.exfat import ExfatVolume
from rehost_payload.formats.source import BytesSource
from support.exfat_image import make_volume
from support.sources import PatchedSource

TREE = {
    "rehost.toml": b"[rehost]\n",
    "A rather long name with ünicode in it.bin": bytes(range(256)) * 100,
    "empty": b"",
    "folder/inner.txt": b"inside",
}


@pytest.mark.parametrize("fragmented", [False, True])
def test_files_and_facts(fragmented: bool) -> None:
    volume = ExfatVolume(
        BytesSource(make_volume(TREE, label="REHOST", fragmented=fragmented, partition_sector=2048))
    )
    assert (volume.kind, volume.label, volume.serial) == ("exfat", "REHOST", "1234-ABCD")
    assert volume.hidden_sectors == 2048
    assert not volume.dirty
    for path, data in TREE.items():
        assert volume.read(path.upper()) == data
    assert [e.name for e in volume.listdir("\\")] == [
        "A rather long name with ünicode in it.bin",
        "empty",
        "folder",
        "rehost.toml",
    ]
    assert volume.exact_path("FOLDER/INNER.TXT") == "\\folder\\inner.txt"
    assert volume.stat("absent") is None
    source = volume.open("a RATHER long name with ÜNICODE in it.bin")
    whole = bytes(range(256)) * 100
    for start, length in ((0, 5), (4090, 20), (20_000, 9000), (25_600, 4)):
        assert source.read_at(start, length) == whole[start : start + length]


def test_free_space_dirty_flag_and_valid_length() -> None:
    empty = ExfatVolume(BytesSource(make_volume({}))).free()
    data = make_volume({"a": b"x" * 9000}, dirty=True, valid={"a": 5})
    volume = ExfatVolume(BytesSource(data))
    assert volume.free() == (empty or 0) - 3 * 4096
    assert volume.dirty
    assert volume.read("a") == b"x" * 5 + bytes(8995)


@pytest.mark.parametrize("fragmented", [False, True])
def test_fsck_finds_no_fault_in_the_maker(tmp_path: Path, fragmented: bool) -> None:
    fsck = shutil.which("fsck.exfat", path="/usr/sbin:/sbin:/usr/bin")
    if fsck is None:
        pytest.skip("fsck.exfat (exfatprogs) is not installed")
    path = tmp_path / "v"
    path.write_bytes(make_volume(TREE, label="REHOST", fragmented=fragmented))
    done = subprocess.run([fsck, "-n", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "clean" in done.stdout


@settings(max_examples=80, deadline=None)
@given(
    st.booleans(),
    st.dictionaries(
        st.integers(64, 120) | st.integers(65536, 65600) | st.integers(131072, 131072 + 60_000),
        st.sampled_from([b"\xff" * 8, bytes(8), b"\xff", b"\x85"]) | st.binary(min_size=1, max_size=8),
        max_size=6,
    ),
)
def test_damaged_metadata_never_crashes(fragmented: bool, patches: dict[int, bytes]) -> None:
    source = PatchedSource(SAMPLES[fragmented], patches)
    try:
        volume = ExfatVolume(source)
        volume.free()
        for entry in volume.listdir("\\"):
            if not entry.is_directory:
                volume.open(entry.name).read_at(0, 50_000)
        volume.stat("folder/inner.txt")
    except (FormatError, FileNotFoundError, IsADirectoryError):
        pass


SAMPLES = {kind: make_volume(TREE, fragmented=kind, size=1 << 20) for kind in (False, True)}
