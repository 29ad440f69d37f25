"""A small medium, read back by pycdlib, by xorriso or isoinfo where installed, and by readers of the formats."""

from __future__ import annotations

import io
import os
import re
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pycdlib
import pytest

from rehost_builder.media.fat import fat_image
from rehost_builder.media.iso9660 import write_iso
from rehost_builder.media.iso_reader import boot_entries

EPOCH = 1_700_000_000
LOADER = b"\xfb\xc0\x78\x70" + bytes(36_000)


def _files(tmp_path: Path) -> dict[str, bytes | Path]:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(os.urandom(300_000))
    return {
        "isolinux/isolinux.bin": LOADER,
        "isolinux/isolinux.cfg": b"DEFAULT x\n",
        "boot/efi.img": fat_image({"EFI/BOOT/BOOTX64.EFI": b"MZ" * 9000}, label="E", epoch=EPOCH, serial=1),
        "boot/vmlinuz": kernel,
        "boot/grub/x86_64-efi/grub.cfg": b"set x\n",
        ".disk/info": b"info\n",
        "empty": b"",
    }


def _write(target: Path, files: dict[str, bytes | Path], epoch: int = EPOCH) -> None:
    write_iso(
        target,
        files,
        label="REHOST-ISO",
        epoch=epoch,
        bios_loader="isolinux/isolinux.bin",
        efi_image="boot/efi.img",
        hybrid_code=bytes(432),
    )


def _content(source: bytes | Path) -> bytes:
    return source.read_bytes() if isinstance(source, Path) else source


def test_every_file_reads_back_in_each_of_the_three_trees(tmp_path: Path) -> None:
    files = _files(tmp_path)
    _write(tmp_path / "a.iso", files)
    iso = pycdlib.PyCdlib()
    iso.open(str(tmp_path / "a.iso"))
    for name, source in files.items():
        for tree in ("rr_path", "joliet_path"):
            out = io.BytesIO()
            iso.get_file_from_iso_fp(out, **{tree: f"/{name}"})
            read = out.getvalue()
            if name == "isolinux/isolinux.bin":  # its boot information table is filled in
                read, expected = read[64:], LOADER[64:]
            else:
                expected = _content(source)
            assert read == expected, (name, tree)
    out = io.BytesIO()
    iso.get_file_from_iso_fp(out, iso_path="/BOOT/GRUB/X86_64_EFI/GRUB.CFG;1")
    assert out.getvalue() == b"set x\n"
    assert iso.pvd.volume_identifier.decode().strip() == "REHOST-ISO"
    iso.close()


def test_boot_entries_and_partition_table_point_at_the_loaders(tmp_path: Path) -> None:
    files = _files(tmp_path)
    _write(tmp_path / "a.iso", files)
    efi = _content(files["boot/efi.img"])
    data = (tmp_path / "a.iso").read_bytes()
    entries = boot_entries(io.BytesIO(data))
    assert [(e.platform, e.load) for e in entries] == [(0, 4), (0xEF, len(efi) // 512)]
    bios, uefi = (e.offset for e in entries)
    assert data[bios : bios + 4] == LOADER[:4]
    # boot information table (mkisofs -boot-info-table): PVD sector, loader sector, length, checksum
    table = struct.unpack_from("<IIII", data, bios + 8)
    assert table[:3] == (16, bios // 2048, len(LOADER))
    words = struct.unpack(f"<{(len(LOADER) - 64) // 4}I", LOADER[64 : len(LOADER) // 4 * 4])
    assert table[3] == sum(words) & 0xFFFFFFFF
    assert data[uefi : uefi + len(efi)] == efi
    assert struct.unpack_from("<Q", data, 432)[0] == bios // 512
    assert struct.unpack_from("<II", data, 470) == (uefi // 512, len(efi) // 512)
    assert len(data) % (1 << 20) == 0
    assert struct.unpack_from("<I", data, 458)[0] * 512 == len(data)


def test_same_input_same_bytes_at_another_hour_and_in_another_time_zone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = _files(tmp_path)
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    _write(tmp_path / "a.iso", files)
    real = time.time
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    monkeypatch.setattr(time, "time", lambda: real() + 40_000)
    _write(tmp_path / "b.iso", dict(reversed(files.items())))
    monkeypatch.undo()
    time.tzset()
    assert (tmp_path / "a.iso").read_bytes() == (tmp_path / "b.iso").read_bytes()
    _write(tmp_path / "c.iso", files, epoch=EPOCH + 86_400)
    assert (tmp_path / "a.iso").read_bytes() != (tmp_path / "c.iso").read_bytes()


def test_the_clock_is_given_back(tmp_path: Path) -> None:
    _write(tmp_path / "a.iso", _files(tmp_path))
    import pycdlib.dates

    assert vars(pycdlib.dates)["time"] is time


def test_a_failure_leaves_the_old_medium_and_no_temporary_file(tmp_path: Path) -> None:
    files = _files(tmp_path)
    target = tmp_path / "a.iso"
    target.write_bytes(b"old")
    with pytest.raises(FileNotFoundError):
        _write(target, {**files, "gone": tmp_path / "does-not-exist"})
    assert target.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.iso", "kernel"]


def test_names_that_become_the_same_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two files"):
        _write(tmp_path / "a.iso", {**_files(tmp_path), "a-b": b"1", "a_b": b"2"})


def test_xorriso_agrees(tmp_path: Path) -> None:
    if shutil.which("xorriso") is None:
        pytest.skip("xorriso is not installed (tools/setup.sh test)")
    files = _files(tmp_path)
    _write(tmp_path / "a.iso", files)
    command = ["xorriso", "-no_rc", "-indev", str(tmp_path / "a.iso")]
    listing = subprocess.run(
        [*command, "-find", "/", "-type", "f"], capture_output=True, text=True, check=True
    )
    found = set(re.findall(r"^'/(.*)'$", listing.stdout, re.MULTILINE))
    assert found == set(files)  # the boot catalog is not listed among the plain files
    report = subprocess.run(
        [*command, "-report_el_torito", "plain"], capture_output=True, text=True, check=True
    )
    assert re.search(r"El Torito boot img :\s+1\s+BIOS\s+y\s+none", report.stdout)
    assert re.search(r"El Torito boot img :\s+2\s+UEFI\s+y\s+none", report.stdout)
    assert re.search(r"El Torito img path :\s+2\s+/boot/efi.img", report.stdout)
