"""FAT32 volumes: fsck.fat, mtools and our own reader judge them; boot code is assembled anew and compared."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_builder.media import boot_code
from rehost_builder.media.fat32 import MAX_FILE, SMALLEST, Memory, Source, geometry, needed, write_fat32
from rehost_builder.templates import iso_folder
from rehost_payload.formats.fat import FatVolume
from rehost_payload.formats.source import BytesSource

EPOCH = 1_700_000_000
ENVIRONMENT = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}


def written(path: Path, size: int, files: Mapping[str, bytes], bootable: bool = False) -> None:
    sources: dict[str, Source] = {name: Memory(data) for name, data in files.items()}
    with path.open("w+b") as out:
        out.truncate(size)
        write_fat32(out, 0, size, sources, label="REHOST", epoch=EPOCH, serial=0x12345678, bootable=bootable)


def fsck(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["fsck.fat", "-n", path], env=ENVIRONMENT, capture_output=True, text=True)


@pytest.mark.parametrize("size", [SMALLEST, 300 << 20, 9 << 30, 40 << 30])
def test_tools_agree(tmp_path: Path, size: int) -> None:
    files = {
        "BOOTMGR": b"b" * 70_000,
        "sources/boot.wim": bytes(range(256)) * 5000,
        "EFI/Microsoft/Boot/efisys_noprompt.bin": b"e" * 4097,
        "EFI/Microsoft/Boot/Fonts/segmono_boot.ttf": b"f",
        "EFI/Microsoft/Boot/Fonts/segmono_boots.ttf": b"",
        "Grüße an alle, mit Leerzeichen.txt": b"x",
    }
    image = tmp_path / "volume"
    written(image, size, files)
    judged = fsck(image)
    assert judged.returncode == 0, judged.stdout + judged.stderr
    assert f"{len(files) + 6} files" in judged.stdout  # and the six folders
    for name, data in files.items():
        out = subprocess.run(["mcopy", "-i", image, f"::{name}", "-"], capture_output=True, check=True)
        assert out.stdout == data


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.lists(
            st.text(st.characters(codec="utf-8", exclude_characters='"*/:<>?\\|.\0 ', categories=["L", "N", "P"]),
                    min_size=1, max_size=40),
            min_size=1, max_size=4,
        ).map("/".join),
        st.binary(max_size=3000),
        max_size=12,
    )
)  # fmt: skip
def test_our_reader_finds_every_file(files: dict[str, bytes]) -> None:
    out = io.BytesIO(bytes(SMALLEST))
    sources: dict[str, Source] = {name: Memory(data) for name, data in files.items()}
    try:
        write_fat32(out, 0, SMALLEST, sources, label="REHOST", epoch=EPOCH, serial=1)
    except ValueError as error:
        if "called" not in str(error):  # two names that FAT cannot tell apart
            raise
        return
    volume = FatVolume(BytesSource(out.getvalue()))
    assert volume.label == "REHOST"
    for name, data in files.items():
        assert volume.read(name) == data


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    files = {f"folder/{n}.txt": bytes(n) for n in range(50)}
    written(tmp_path / "a", SMALLEST, files)
    written(tmp_path / "b", SMALLEST, dict(reversed(files.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_many_names_in_one_folder(tmp_path: Path) -> None:
    """More than one cluster of entries, and short names that have to be numbered."""
    files = {f"very long name of file number {n:04}.dat": b"%d" % n for n in range(600)}
    written(tmp_path / "v", SMALLEST, files)
    assert fsck(tmp_path / "v").returncode == 0
    volume = FatVolume(BytesSource((tmp_path / "v").read_bytes()))
    assert {e.name for e in volume.listdir("\\")} == set(files)


class _Long:
    """Says that it is longer than what it gives."""

    def __init__(self, size: int) -> None:
        self.size = size

    def blocks(self):  # type: ignore[no-untyped-def]
        yield b"x"


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"a": Memory(b""), "A": Memory(b"")}, "two files"),
        ({"a/b": Memory(b""), "a": Memory(b"")}, "a file and a folder"),
        ({"a:b": Memory(b"")}, "not a name"),
        ({"ends with a dot.": Memory(b"")}, "not a name"),
        ({"../up": Memory(b"")}, "not a name"),
        ({"big": _Long(MAX_FILE + 1)}, "up to 4 GiB"),
        ({"lies": _Long(10)}, "10 were expected"),
        ({"too much": Memory(bytes(40 << 20))}, "the files need"),
    ],
)
def test_what_fat_cannot_hold(files: dict[str, Source], why: str) -> None:
    out = io.BytesIO(bytes(SMALLEST))
    with pytest.raises(ValueError, match=why):
        write_fat32(out, 0, SMALLEST, files, label="REHOST", epoch=EPOCH, serial=1)


def test_sizes_that_are_no_fat32() -> None:
    with pytest.raises(ValueError, match="too few"):
        geometry(SMALLEST - 1)
    assert geometry(2 << 40).clusters < 0x0FFFFFF5
    assert geometry(SMALLEST).clusters >= 65525


def test_room_is_counted_in_clusters() -> None:
    assert needed({"a": Memory(b"x"), "b/c": Memory(bytes(513))}, 512) == (1 + 1 + 1 + 2) * 512


@pytest.mark.parametrize(
    ("source", "code", "most"),
    [
        ("mbr.S", boot_code.MBR, 440),
        ("fat32.S", boot_code.FAT32, 510),
        ("fat32-stage2.S", boot_code.STAGE2, boot_code.STAGE2_SECTORS * 512),
    ],
)
def test_boot_code_is_what_its_source_says(tmp_path: Path, source: str, code: bytes, most: int) -> None:
    path = iso_folder() / "boot" / source
    subprocess.run(["as", "--32", "-o", tmp_path / "o", path], check=True)
    subprocess.run(
        ["ld", "-m", "elf_i386", "-Ttext", "0", "--oformat", "binary", "-o", tmp_path / "b", tmp_path / "o"],
        check=True,
    )
    assert (tmp_path / "b").read_bytes() == code
    assert len(code) <= most
