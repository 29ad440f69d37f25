"""The EFI system partition's file system, judged by mtools and fsck.fat."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_builder.media.fat import fat_image

EPOCH = 1_700_000_000
_SBIN = "/usr/sbin:/sbin:/usr/bin:/bin"


def _image(files: dict[str, bytes]) -> bytes:
    return fat_image(files, label="REHOST-EFI", epoch=EPOCH, serial=0x12345678)


def _needs(program: str) -> str:
    found = shutil.which(program, path=_SBIN)
    if found is None:
        pytest.skip(f"{program} is not installed (tools/setup.sh test)")
    return found


@pytest.mark.parametrize("size", [0, 1, 512, 100_003, 3_000_000])
def test_mtools_reads_back_what_was_written(size: int, tmp_path: Path) -> None:
    mcopy, mdir, fsck = _needs("mcopy"), _needs("mdir"), _needs("fsck.fat")
    content = bytes(i * 7 & 0xFF for i in range(251)) * (size // 251 + 1)
    files = {"EFI/BOOT/BOOTX64.EFI": content[:size], "EFI/debian/grub.cfg": b"stub\n", "A.TXT": b"x"}
    path = tmp_path / "fat.img"
    path.write_bytes(_image(files))
    done = subprocess.run([fsck, "-n", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    for name, data in files.items():
        copied = subprocess.run([mcopy, "-i", str(path), f"::{name}", "-"], capture_output=True, check=True)
        assert copied.stdout == data
    listing = subprocess.run(
        [mdir, "-i", str(path), "::EFI/BOOT"], capture_output=True, text=True, check=True
    )
    assert "REHOST-EFI" in listing.stdout
    assert "2023-11-14  22:13" in listing.stdout


@given(
    st.dictionaries(
        st.from_regex(r"([A-Z0-9]{1,8}/){0,3}[A-Z0-9]{1,8}\.[A-Z]{1,3}", fullmatch=True),
        st.binary(max_size=3000),
        max_size=40,
    )
)
@settings(max_examples=15, deadline=None)
def test_any_set_of_files_passes_fsck(files: dict[str, bytes]) -> None:
    fsck = _needs("fsck.fat")
    folders = {"/".join(n.split("/")[: i + 1]) for n in files for i in range(n.count("/"))}
    kept = {name: data for name, data in files.items() if name not in folders}
    with tempfile.NamedTemporaryFile() as f:
        f.write(_image(kept))
        f.flush()
        done = subprocess.run([fsck, "-n", f.name], capture_output=True)
    assert done.returncode == 0, done.stdout


def test_the_same_input_gives_the_same_bytes() -> None:
    files = {"EFI/BOOT/B.EFI": b"b" * 5000, "EFI/BOOT/A.EFI": b"a"}
    assert _image(files) == _image(dict(reversed(files.items())))


@pytest.mark.parametrize("name", ["toolongname.efi", "a.conf", "sp ace", "", "a/../b", "ümlaut"])
def test_names_that_are_not_short_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"8\.3"):
        _image({name: b""})


def test_more_than_fat16_holds_is_refused() -> None:
    with pytest.raises(ValueError, match="FAT16"):
        _image({"BIG.BIN": bytes(40 << 20)})
