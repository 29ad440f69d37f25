"""A WinPE medium from `rehost build --media` is started in QEMU as disc and as stick, by BIOS and UEFI.

The loaders on it are ours (`support.loaders`). Each finds the boot image on the medium, reads all of it and says what
it has read; that must be, byte for byte, what 7-Zip and mtools find there. The boot image holds a directory tree
captured by wimlib, to which the builder has added the payload and a real CPython for Windows.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from rehost_builder.cli import main
from support import loaders, product, qemu, windows_media, windows_python
from support.wim_files import extract, needs_wimlib, verify

pytestmark = [
    needs_wimlib,
    pytest.mark.skipif(
        bool(qemu.missing_tools()), reason=f"not installed: {', '.join(qemu.missing_tools())}"
    ),
]
DISC, OWN, OTHER, STICK = "the UDF side of the disc", "its own volume", "another volume", "its FAT32 volume"


def rehost(*arguments: str | Path) -> str:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def iso(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("winpe")
    try:
        python = windows_python.embeddable_zip(work / "python.zip")
    except windows_python.Unavailable as e:
        pytest.skip(str(e))
    files = windows_media.boot_files() | {
        "boot/etfsboot.com": loaders.etfsboot(),
        "bootmgr": loaders.bootmgr(),
        "efi/boot/bootx64.efi": loaders.efi_application("bootmgfw"),
        "efi/microsoft/boot/efisys_noprompt.bin": windows_media.efi_image(loaders.efi_application("cdboot")),
    }
    media = windows_media.media_folder(
        work / "media", windows_media.make_boot_wim(work / "boot.wim", tree()), files
    )
    rehost("build", "--media", media, "--python-embed", python, "--no-drivers", "-q", "-o", work / "a.iso")
    return work / "a.iso"


def tree() -> dict[str, bytes | None]:
    """What makes the image's metadata as bulky as that of a real one, which has thousands of files in deep folders."""
    names = [f"amd64_component-{n:04}_31bf3856ad364e35_10.0.20348.1_none_{n * 7919:016x}" for n in range(600)]
    found = {f"Windows/WinSxS/{name}/{name[6:20]}.dll": name.encode() * 40 for name in names}
    return found | {"Windows/System32/Größe 測試/leer": b"", "Windows/System32/de-DE/cmd.exe.mui": b"mui"}


@pytest.fixture(scope="module")
def image(iso: Path) -> bytes:
    """The boot image as 7-Zip finds it on the disc."""
    program = windows_media.seven_zip()
    assert program is not None, "7-Zip is not installed (tools/setup.sh test)"
    folder = iso.parent / "extracted"
    subprocess.run(
        [program, "x", "-y", f"-o{folder}", iso, "sources/boot.wim"], check=True, capture_output=True
    )
    return (folder / "sources/boot.wim").read_bytes()


@pytest.fixture(scope="module")
def stick(iso: Path) -> Path:
    return product.usb_stick(iso.parent / "stick.img", iso, {}).path


def said(medium: Path, logs: Path, *options: str) -> str:
    """What the loader says when the medium is started."""
    rehost(
        "boot", medium, "--accel", "tcg", "--ram", "256M", "--until", "halted", "--seconds", "600", "--logs", logs,
        *options,
    )  # fmt: skip
    lines = (logs / "serial.log").read_bytes().decode("latin-1").splitlines()
    return lines[lines.index("halted") - 1]


def test_the_boot_image_holds_the_tree_and_a_real_python(image: bytes, tmp_path: Path) -> None:
    (tmp_path / "boot.wim").write_bytes(image)
    verify(tmp_path / "boot.wim")
    files = extract(tmp_path / "boot.wim", tmp_path / "image")
    python = windows_python.runtime()
    library = next(python.glob("python3??.dll"))
    assert files["Rehost/python/python.exe"] == (python / "python.exe").read_bytes()
    assert files[f"Rehost/python/{library.name}"] == library.read_bytes()
    assert "Rehost/app/rehost_payload/__main__.py" in files
    for path, data in tree().items():
        assert files[path] == data


def test_bios_reads_the_boot_image_from_the_disc(iso: Path, image: bytes, tmp_path: Path) -> None:
    assert said(iso, tmp_path, "--bios") == loaders.line("etfsboot", image, DISC)


def test_uefi_reads_the_boot_image_from_the_disc(iso: Path, image: bytes, tmp_path: Path) -> None:
    assert said(iso, tmp_path, "--uefi") == loaders.line("cdboot", image, OTHER)


def test_bios_reads_the_boot_image_from_a_stick(stick: Path, image: bytes, tmp_path: Path) -> None:
    assert said(stick, tmp_path, "--bios", "--usb") == loaders.line("bootmgr", image, STICK)


def test_uefi_reads_the_boot_image_from_a_stick(stick: Path, image: bytes, tmp_path: Path) -> None:
    assert said(stick, tmp_path, "--uefi", "--usb") == loaders.line("bootmgfw", image, OWN)


def test_mtools_finds_the_same_boot_image_on_the_stick(stick: Path, image: bytes) -> None:
    with stick.open("rb") as f:
        start = struct.unpack_from("<I", f.read(512), 446 + 8)[0] * 512
    found = subprocess.run(
        ["mtype", "-i", f"{stick}@@{start}", "::/sources/boot.wim"], check=True, capture_output=True
    )
    assert found.stdout == image


def test_one_changed_byte_is_noticed(iso: Path, image: bytes, tmp_path: Path) -> None:
    """That the lines above could have been others."""
    changed = bytearray(image)
    changed[len(image) // 2] ^= 1
    copy = tmp_path / "changed.iso"
    shutil.copy(iso, copy)
    with copy.open("r+b") as f:
        f.seek(iso.read_bytes().index(image) + len(image) // 2)
        f.write(changed[len(image) // 2 :][:1])
    assert loaders.line("etfsboot", changed, DISC) != loaders.line("etfsboot", image, DISC)
    assert said(copy, tmp_path, "--bios") == loaders.line("etfsboot", changed, DISC)
