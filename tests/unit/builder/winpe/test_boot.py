"""A WinPE medium starts in QEMU: stand-in loaders say that they run, and that of the BIOS reads our boot image."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from rehost_builder.cli import main
from rehost_builder.media.iso_reader import open_iso
from rehost_builder.progress import Progress
from rehost_builder.winpe.build import WinpeOptions, build_winpe_iso
from support import windows_media as media
from support.boot_sectors import efi_printer, sector_reader

pytestmark = pytest.mark.skipif(
    shutil.which("qemu-system-x86_64") is None,
    reason="qemu-system-x86 is not installed (tools/setup.sh test)",
)
CDBOOT, BOOTX64 = b"cdboot speaks", b"bootx64 speaks"


def _build(work: Path, wim: Path, python: Path, sector: int) -> tuple[Path, int]:
    """A medium whose BIOS loader reads ``sector``, and the sector in which its boot image begins."""
    files = media.boot_files()
    files["boot/etfsboot.com"] = sector_reader(sector, 5)
    files["efi/boot/bootx64.efi"] = efi_printer(BOOTX64)
    files["efi/microsoft/boot/efisys_noprompt.bin"] = media.efi_image(efi_printer(CDBOOT))
    place = media.media_folder(work / f"media{sector}", wim, files)
    options = WinpeOptions(
        media=(place,), output=work / f"{sector}.iso", python_embed=str(python), cache=work / "cache", epoch=1_700_000_000
    )  # fmt: skip
    build_winpe_iso(options, Progress({}, quiet=True))
    with options.output.open("rb") as f:
        found = open_iso(f).find("sources/boot.wim")
    assert found is not None
    return options.output, found.pieces[0][0] // 2048


@pytest.fixture(scope="module")
def medium(tmp_path_factory: pytest.TempPathFactory, boot_wim: Path, python: Path) -> Path:
    work = tmp_path_factory.mktemp("boot")
    _, sector = _build(work, boot_wim, python, 0)
    iso, again = _build(work, boot_wim, python, sector)
    assert again == sector
    return iso


def said(medium: Path, logs: Path, text: str, *options: str) -> None:
    result = CliRunner().invoke(
        main,
        ["boot", str(medium), "--accel", "tcg", "--ram", "256M", "--until", text, "--seconds", "60",
         "--logs", str(logs), *options],
    )  # fmt: skip
    assert result.exit_code == 0, (result.output, (logs / "serial.log").read_bytes()[-200:])


def test_the_bios_loader_reads_our_boot_image_from_the_disc(medium: Path, tmp_path: Path) -> None:
    said(medium, tmp_path, "MSWIM", "--bios")


def test_uefi_starts_the_program_of_the_boot_entry(medium: Path, tmp_path: Path) -> None:
    said(medium, tmp_path, CDBOOT.decode(), "--uefi")


def test_uefi_starts_the_boot_manager_from_a_stick(medium: Path, tmp_path: Path) -> None:
    stick = tmp_path / "stick.img"
    stick.touch()
    with stick.open("r+b") as f:
        f.truncate(512 << 20)
    result = CliRunner().invoke(main, ["usb", str(medium), str(stick), "--yes"])
    assert result.exit_code == 0, result.output
    said(stick, tmp_path, BOOTX64.decode(), "--uefi", "--usb")
