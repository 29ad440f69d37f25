"""The layout of the Debian base's medium, from stand-ins for the boot loaders and the kernel."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
from pathlib import Path

import pycdlib
import pytest
from jinja2 import UndefinedError

from rehost_builder.debian.medium import BIOS_LOADER, EFI_IMAGE, LABEL, BootFiles, medium_files
from rehost_builder.media.iso9660 import Content, write_iso
from rehost_builder.templates import render

EPOCH = 1_700_000_000
COMMAND_LINE = "quiet rehost.keymap=de"


@pytest.fixture
def boot(tmp_path: Path) -> BootFiles:
    root = tmp_path / "boot"
    for name, data in {
        "usr/lib/ISOLINUX/isolinux.bin": b"\xfb\xc0\x78\x70" + bytes(36_000),
        "usr/lib/ISOLINUX/isohdpfx.bin": bytes(432),
        "usr/lib/syslinux/modules/bios/ldlinux.c32": b"ldlinux",
        "usr/lib/syslinux/modules/bios/libutil.c32": b"libutil",
        "usr/lib/syslinux/modules/bios/menu.c32": b"menu",
        "usr/lib/shim/shimx64.efi.signed": b"MZshim",
        "usr/lib/shim/mmx64.efi.signed": b"MZmm",
        "usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed": b"MZgrub",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return BootFiles(root)


def _files(boot: BootFiles, tmp_path: Path, **build: object) -> dict[str, Content]:
    (tmp_path / "vmlinuz").write_bytes(b"kernel")
    (tmp_path / "initrd").write_bytes(b"image")
    return medium_files(
        boot=boot,
        kernel=tmp_path / "vmlinuz",
        image=tmp_path / "initrd",
        build={"version": "1.2.3", **build},
        command_line=COMMAND_LINE,
        epoch=EPOCH,
    )


def _text(files: dict[str, Content], name: str) -> str:
    content = files[name]
    assert isinstance(content, bytes)
    return content.decode()


def test_every_entry_of_both_menus_has_the_options_and_both_consoles(boot: BootFiles, tmp_path: Path) -> None:
    files = _files(boot, tmp_path)
    identity = _text(files, ".disk/info").split()[-1]
    assert f"boot/{identity}.id" in files
    lines = [
        line.strip()
        for name in ("isolinux/isolinux.cfg", "boot/grub/grub.cfg")
        for line in _text(files, name).splitlines()
        if line.strip().startswith(("APPEND", "linux"))
    ]
    assert len(lines) == 6
    for line in lines:
        assert f"{COMMAND_LINE} rehost.medium={identity} " in line
        assert "console=tty0" in line
        assert "console=ttyS0,115200n8" in line
    assert f"/boot/{identity}.id" in _text(files, "EFI/debian/grub.cfg")


def test_another_build_is_another_medium(boot: BootFiles, tmp_path: Path) -> None:
    first = _text(_files(boot, tmp_path), ".disk/info")
    assert _text(_files(boot, tmp_path), ".disk/info") == first
    assert _text(_files(boot, tmp_path, kernel="6"), ".disk/info") != first


def test_checksums_name_every_file_but_the_patched_loader(boot: BootFiles, tmp_path: Path) -> None:
    files = _files(boot, tmp_path)
    out = tmp_path / "a.iso"
    write_iso(
        out,
        files,
        label=LABEL,
        epoch=EPOCH,
        bios_loader=BIOS_LOADER,
        efi_image=EFI_IMAGE,
        hybrid_code=boot.hybrid_code,
    )
    iso = pycdlib.PyCdlib()
    iso.open(str(out))
    listed = {}
    for line in _text(files, "SHA256SUMS").splitlines():
        digest, _, name = line.partition("  ")
        content = io.BytesIO()
        iso.get_file_from_iso_fp(content, rr_path=f"/{name}")
        assert hashlib.sha256(content.getvalue()).hexdigest() == digest, name
        listed[name] = digest
    iso.close()
    assert files.keys() - listed.keys() == {BIOS_LOADER, "SHA256SUMS"}
    assert json.loads(_text(files, "build.json"))["version"] == "1.2.3"


def test_the_efi_image_has_the_signed_chain_and_the_way_to_the_menu(boot: BootFiles, tmp_path: Path) -> None:
    mcopy = shutil.which("mcopy")
    if mcopy is None:
        pytest.skip("mtools is not installed (tools/setup.sh test)")
    files = _files(boot, tmp_path)
    image = tmp_path / "efi.img"
    content = files[EFI_IMAGE]
    assert isinstance(content, bytes)
    image.write_bytes(content)
    for name, start in (
        ("EFI/BOOT/BOOTX64.EFI", b"MZshim"),
        ("EFI/BOOT/GRUBX64.EFI", b"MZgrub"),
        ("EFI/BOOT/MMX64.EFI", b"MZmm"),
    ):
        done = subprocess.run([mcopy, "-i", str(image), f"::{name}", "-"], capture_output=True, check=True)
        assert done.stdout == start


def test_a_variable_that_nobody_sets_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        render("debian/grub.cfg.j2", version="1")
