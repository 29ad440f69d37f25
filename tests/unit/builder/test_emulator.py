"""`rehost boot`: the command line for QEMU, and real machines that say one word."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from rehost_builder.cli import main
from rehost_builder.emulator.command import DiskImage, MachineOptions, qemu_command
from rehost_builder.emulator.start import pick_accelerator, start
from rehost_builder.errors import BuildError
from support.boot_sectors import boot_sector

needs_qemu = pytest.mark.skipif(
    shutil.which("qemu-system-x86_64") is None,
    reason="qemu-system-x86 is not installed (tools/setup.sh test)",
)


def command(options: MachineOptions, accelerator: str = "tcg") -> list[str]:
    return qemu_command(
        options, accelerator=accelerator, qmp=Path("q"), serial=Path("s.log"), variables=Path("vars.fd")
    )


def test_disks_are_protected_unless_they_are_to_be_kept() -> None:
    lost = command(MachineOptions(Path("m.iso"), disks=(DiskImage(Path("a.raw"), "raw"),)))
    kept = command(MachineOptions(Path("m.iso"), disks=(DiskImage(Path("a.raw"), "raw", keep=True),)))
    assert "file=a.raw,format=raw,if=none,id=drive0,snapshot=on" in lost
    assert "file=a.raw,format=raw,if=none,id=drive0" in kept


@pytest.mark.parametrize("stick", [False, True])
def test_the_medium_is_never_written(stick: bool) -> None:
    drive = next(x for x in command(MachineOptions(Path("m.iso"), stick=stick)) if x.startswith("file=m.iso"))
    assert drive.endswith("snapshot=on" if stick else "readonly=on")


def test_no_machine_has_a_network() -> None:
    words = command(MachineOptions(Path("m.iso")))
    assert words[words.index("-nic") + 1] == "none"


def test_a_comma_in_a_name_does_not_end_it() -> None:
    assert any("file=a,,b.iso" in x for x in command(MachineOptions(Path("a,b.iso"))))


def test_an_accelerator_that_was_named_is_taken() -> None:
    assert pick_accelerator("tcg") == "tcg"
    assert pick_accelerator("kvm") == "kvm"
    assert pick_accelerator("auto") in ("kvm", "tcg")


def boot(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["boot", *map(str, arguments)], standalone_mode=False)
    return result.exit_code, result.stdout


@needs_qemu
def test_a_stick_that_speaks(tmp_path: Path) -> None:
    medium = tmp_path / "stick.img"
    medium.write_bytes(boot_sector(b"hello from the stick").ljust(1 << 20, b"\0"))
    before = medium.read_bytes()
    code, out = boot(
        medium, "--usb", "--accel", "tcg", "--ram", "256M", "--until", "hello from the stick", "--seconds", 600,
        "--logs", tmp_path / "logs", "--json",
    )  # fmt: skip
    result = json.loads(out)
    assert (code, result["end"]) == (0, "text")
    assert b"hello from the stick" in (tmp_path / "logs/serial.log").read_bytes()
    assert (tmp_path / "logs/screen.png").read_bytes()[:4] == b"\x89PNG"
    assert medium.read_bytes() == before


@needs_qemu
def test_what_is_not_said_in_time_is_exit_code_3(tmp_path: Path) -> None:
    medium = tmp_path / "stick.img"
    medium.write_bytes(boot_sector(b"hello").ljust(1 << 20, b"\0"))
    code, out = boot(
        medium, "--usb", "--accel", "tcg", "--ram", "256M", "--until", "goodbye", "--seconds", 2,
        "--logs", tmp_path, "--json",
    )  # fmt: skip
    assert (code, json.loads(out)["end"]) == (3, "time")


@needs_qemu
def test_an_image_that_qemu_refuses(tmp_path: Path) -> None:
    medium, disk = tmp_path / "m.iso", tmp_path / "d.vhdx"
    medium.write_bytes(boot_sector(b"x").ljust(1 << 20, b"\0"))
    disk.write_bytes(b"vhdxfile".ljust(1 << 20, b"\0"))
    result = CliRunner().invoke(
        main, ["boot", str(medium), "--usb", "--disk", str(disk), "--accel", "tcg", "--logs", str(tmp_path)]
    )
    assert result.exit_code == 1
    assert "QEMU did not start" in result.stderr


def test_a_qemu_that_ends_after_it_made_its_socket_did_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    qemu = tmp_path / "bin" / "qemu-system-x86_64"
    qemu.parent.mkdir()
    qemu.write_text(
        f"#!{sys.executable}\n"
        "import socket, sys, time\n"
        "name = next(x for x in sys.argv if x.startswith('unix:'))[5:].split(',')[0]\n"
        "socket.socket(socket.AF_UNIX).bind(name)\n"
        "time.sleep(0.5)\n"
        "sys.exit('no such image format')\n"
    )
    qemu.chmod(0o755)
    monkeypatch.setenv("PATH", str(qemu.parent))
    with pytest.raises(BuildError, match="QEMU did not start: no such image format"):
        start(MachineOptions(tmp_path / "m.iso"), tmp_path / "logs", accelerator="tcg")


@pytest.mark.parametrize("words", [
    ["--ram", "lots"], ["--ram", "0"], ["--cores", "0"], ["--bus", "ide2"],
    ["--uefi", "--bios"], ["--bios", "--secure-boot"],
])  # fmt: skip
def test_words_that_make_no_sense(words: list[str], tmp_path: Path) -> None:
    medium = tmp_path / "m.iso"
    medium.touch()
    assert CliRunner().invoke(main, ["boot", str(medium), *words]).exit_code == 2


def test_what_is_no_iso_image_is_not_started(tmp_path: Path) -> None:
    (tmp_path / "zero.iso").write_bytes(bytes(1 << 20))
    result = CliRunner().invoke(
        main, ["boot", str(tmp_path / "zero.iso"), "--seconds", "1", "--logs", str(tmp_path / "logs")]
    )
    assert result.exit_code == 1
    assert "zero.iso is no ISO image" in result.stderr
    assert not (tmp_path / "logs").exists()
