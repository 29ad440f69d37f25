"""`rehost usb` on image files: what is refused, what is written, and that it starts."""

from __future__ import annotations

import functools
import io
import json
import os
import random
import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pycdlib
import pytest
from click.testing import CliRunner, Result

from rehost_builder.cli import main
from rehost_builder.errors import BlockedError, BuildError
from rehost_builder.media.iso9660 import write_iso
from rehost_builder.media.udf import BootEntries, write_winpe_iso
from rehost_builder.usb import cli, device, large, write
from rehost_builder.usb.device import describe, opened
from rehost_builder.usb.layout import ALIGNMENT, boot_record, is_hybrid, layout
from rehost_payload.formats.fat import FatVolume
from rehost_payload.formats.source import SliceSource
from support import disks
from support.boot_sectors import boot_sector, serial_printer
from support.disks import MIB, PartitionSpec
from support.wim_files import capture, needs_wimlib, wimlib, write_files

from .test_verify import make_medium

needs_qemu = pytest.mark.skipif(
    shutil.which("qemu-system-x86_64") is None,
    reason="qemu-system-x86 is not installed (tools/setup.sh test)",
)
CODE = bytes(range(256)) * 2


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A medium with a partition table of its own, as the Debian base's."""
    path = tmp_path_factory.mktemp("iso") / "hybrid.iso"
    files = {"isolinux.bin": b"i" * 4096, "efi.img": b"e" * 65536, "readme.txt": b"hello", "big": b"b" * MIB}
    write_iso(
        path, files, label="REHOST-ISO", epoch=1_700_000_000, bios_loader="isolinux.bin", efi_image="efi.img",
        hybrid_code=CODE,
    )  # fmt: skip
    return path


def plain_iso(path: Path, files: dict[str, bytes]) -> Path:
    """A medium without one, with UDF: as WinPE's."""
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, vol_ident="WINPE", udf="2.60")
    made: set[str] = set()
    for number, (name, data) in enumerate(files.items()):
        parts = name.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            if folder not in made:
                made.add(folder)
                iso.add_directory(udf_path=f"/{folder}")
        iso.add_fp(io.BytesIO(data), len(data), f"/F{number}.;1", udf_path=f"/{name}")
    iso.write(str(path))
    iso.close()
    return path


def stick(path: Path, size: int, content: bytes = b"") -> Path:
    path.write_bytes(content)
    os.truncate(path, size)
    return path


def usb(*arguments: str | Path, foreign: bool = True) -> Result:
    """``foreign``: as for media that Rehost has not made, which most of those here are."""
    more = ["--foreign"] if foreign else []
    return CliRunner().invoke(main, ["usb", *map(str, arguments), *more])


def table(path: Path) -> list[tuple[int, int, int, int]]:
    """(status, type, offset, size) of each partition."""
    with path.open("rb") as file:
        sector = file.read(512)
    assert sector[510:] == b"\x55\xaa"
    entries = [struct.unpack_from("<B3xB3xII", sector, 446 + 16 * n) for n in range(4)]
    return [(s, t, first * 512, count * 512) for s, t, first, count in entries if t]


def volume(path: Path, offset: int, size: int) -> FatVolume:
    with opened(describe(path)) as handle:
        return FatVolume(SliceSource(handle, offset, size))


def test_a_hybrid_medium_is_copied_and_gets_a_data_volume(hybrid: Path, tmp_path: Path) -> None:
    target = stick(tmp_path / "stick.img", 256 * MIB, b"\xff" * 100)
    result = usb(hybrid, target, "--yes", "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["verified"]
    assert said["kind"] == "image"
    iso = hybrid.read_bytes()
    with target.open("rb") as file:
        copied = file.read(len(iso))
    assert copied[512:] == iso[512:]
    assert copied[:446] == iso[:446]
    assert copied[446:478] == iso[446:478]  # its own two partitions
    _, kind, offset, size = table(target)[-1]
    assert (kind, offset % ALIGNMENT, offset + size) == (0x0C, 0, 256 * MIB)
    assert offset >= len(iso)
    with opened(describe(target)) as handle:
        data = FatVolume(SliceSource(handle, offset, size))
        assert data.label == "REHOST"
        assert data.listdir("\\") == []


def test_files_of_a_plain_medium_go_on_a_volume(tmp_path: Path) -> None:
    files = {
        "bootmgr": b"b" * 5000,
        "EFI/BOOT/BOOTX64.EFI": b"MZ" + bytes(9000),
        "sources/boot.wim": b"w" * MIB,
    }
    medium = plain_iso(tmp_path / "pe.iso", files)
    target = stick(tmp_path / "stick.img", 512 * MIB)
    assert usb(medium, target, "--yes").exit_code == 0
    (status, kind, offset, size), second = table(target)
    assert (status, kind, offset) == (0x80, 0x0C, ALIGNMENT)
    assert second[0] == 0
    with opened(describe(target)) as handle:
        boot = FatVolume(SliceSource(handle, offset, size))
        assert boot.label == "REHOST-BOOT"
        assert {n: boot.read(n) for n in files} == files
        assert FatVolume(SliceSource(handle, second[2], second[3])).label == "REHOST"


@needs_qemu
def test_bios_starts_bootmgr_from_the_stick(tmp_path: Path) -> None:
    """The whole way: master boot record, boot sector, second stage, folder and cluster chain, start of BOOTMGR.

    The stand-in prints from its far end, so that a chain followed wrongly or too early a start is seen.
    """
    far = 400_000
    jump = b"\xea" + struct.pack("<HH", 0, 0x2000 + far // 16)  # jmp far to the end of the file
    loader = jump.ljust(far, b"\x90") + serial_printer(b"BOOTMGR speaks")
    files = {f"a long name before it {n}.txt": b"x" for n in range(40)} | {"BootMgr": loader, "z": b"z"}
    medium = plain_iso(tmp_path / "pe.iso", files)
    target = stick(tmp_path / "stick.img", 512 * MIB)
    assert usb(medium, target, "--yes").exit_code == 0
    result = CliRunner().invoke(
        main,
        ["boot", str(target), "--usb", "--accel", "tcg", "--ram", "256M", "--until", "BOOTMGR speaks",
         "--seconds", "600", "--logs", str(tmp_path)],
    )  # fmt: skip
    assert result.exit_code == 0, (tmp_path / "serial.log").read_bytes()


def limited(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """As if FAT32 ended there."""
    for name in ("too_large", "check_large", "in_parts"):
        function = getattr(large, name)
        monkeypatch.setattr(cli, name, functools.partial(function, limit=limit))


@needs_wimlib
def test_an_installation_image_that_fat32_cannot_hold_is_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = {f"Windows/{n}.bin": random.Random(n).randbytes(300_000) for n in range(12)}
    wim = capture(tmp_path / "install.wim", write_files(tmp_path / "tree", tree), "Server", "--compress=none")
    files = {"bootmgr": b"b" * 5000, "Sources/Install.wim": wim.read_bytes(), "sources/boot.wim": b"w" * 5000}
    medium = plain_iso(tmp_path / "pe.iso", files)
    target = stick(tmp_path / "stick.img", 512 * MIB)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    limited(monkeypatch, 2 * MIB)
    result = usb(medium, target, "--yes")
    assert result.exit_code == 0, result.output
    assert list(temporary.iterdir()) == []
    _, _, offset, size = table(target)[0]
    with opened(describe(target)) as handle:
        boot = FatVolume(SliceSource(handle, offset, size))
        names = [entry.name for entry in boot.listdir("Sources")]
        parts = [n for n in names if n.endswith(".swm")]
        assert len(parts) == 2
        assert "Install.wim" not in names
        for name in parts:
            assert boot.open(f"Sources/{name}").size <= 2 * MIB
            (tmp_path / name).write_bytes(boot.read(f"Sources/{name}"))
    refs = f"--ref={tmp_path}/install*.swm"
    wimlib("apply", tmp_path / "install.swm", "1", tmp_path / "applied", refs)
    assert {p.relative_to(tmp_path / "applied").as_posix(): p.read_bytes()
            for p in (tmp_path / "applied").rglob("*") if p.is_file()} == tree  # fmt: skip


@pytest.mark.parametrize(
    ("name", "program", "words"),
    [
        ("sources/boot.wim", True, "start the ISO itself"),
        ("Backup/catalog.db", True, "start the ISO itself"),
        ("sources/install.wim", False, "wimtools"),
    ],
)
def test_other_files_that_fat32_cannot_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, program: bool, words: str
) -> None:
    medium = plain_iso(tmp_path / "pe.iso", {"bootmgr": b"b" * 5000, name: bytes(3 * MIB)})
    target = stick(tmp_path / "stick.img", 512 * MIB, boot_sector(b"old"))
    limited(monkeypatch, 2 * MIB)
    if not program:
        monkeypatch.setattr(large.shutil, "which", lambda _: None)
    result = usb(medium, target, "--yes")
    assert result.exit_code == 1
    cause, step = result.stderr.strip().split("\n")
    assert cause.startswith(f"rehost: {name} has 0.0 GB, and a stick for UEFI is FAT32")
    assert words in step
    with target.open("rb") as f:
        assert f.read(512) == boot_sector(b"old")[:512]


def test_nothing_is_written_without_a_yes(hybrid: Path, tmp_path: Path) -> None:
    target = stick(tmp_path / "stick.img", 128 * MIB, boot_sector(b"old"))
    before = target.read_bytes()
    assert usb(hybrid, target).exit_code == 4  # no terminal to ask on
    assert usb(hybrid, target, "--dry-run").exit_code == 0
    assert target.read_bytes() == before


def test_a_stick_that_is_too_small(hybrid: Path, tmp_path: Path) -> None:
    target = stick(tmp_path / "stick.img", MIB)
    result = usb(hybrid, target, "--yes")
    assert result.exit_code == 5
    assert "too small" in result.stderr
    assert target.read_bytes() == bytes(MIB)


def test_no_room_for_a_data_volume_is_said(hybrid: Path, tmp_path: Path) -> None:
    target = stick(tmp_path / "stick.img", 32 * MIB)
    result = usb(hybrid, target, "--yes")
    assert result.exit_code == 0
    assert "no room" in result.stderr
    assert len(table(target)) == 2


def test_originals_of_a_repair_are_not_overwritten(hybrid: Path, tmp_path: Path) -> None:
    spec = PartitionSpec(
        "r", 64 * MIB, "fat32", "0c", {"Rehost/20250101T000000Z/report.json": b"{}"}, label="REHOST"
    )
    target = disks.make_disk(tmp_path / "stick.img", [spec], style="mbr", boot_code=b"").path
    os.truncate(target, 256 * MIB)
    before = target.read_bytes()
    result = usb(hybrid, target, "--yes")
    assert result.exit_code == 5
    assert "--discard-journals" in result.stderr
    assert target.read_bytes() == before
    assert usb(hybrid, target, "--yes", "--discard-journals").exit_code == 0


@pytest.mark.parametrize("content", [b"", b"no image at all", bytes(40000) + b"\x01CD001\x01" + bytes(9000)])
def test_what_is_no_medium(content: bytes, tmp_path: Path) -> None:
    medium = tmp_path / "junk.iso"
    medium.write_bytes(content)
    target = stick(tmp_path / "stick.img", 64 * MIB)
    result = usb(medium, target, "--yes")
    assert result.exit_code == 1
    assert "no ISO image" in result.stderr


def test_a_truncated_medium_is_refused(hybrid: Path, tmp_path: Path) -> None:
    medium = tmp_path / "short.iso"
    medium.write_bytes(hybrid.read_bytes()[: -1 * MIB])
    target = stick(tmp_path / "stick.img", 128 * MIB, boot_sector(b"old"))
    before = target.read_bytes()
    result = usb(medium, target, "--yes")
    assert result.exit_code == 1
    assert "is cut off" in result.stderr
    assert target.read_bytes() == before


def test_a_stick_that_forgets_what_it_is_told(
    hybrid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A counterfeit: it takes all and keeps the first half."""
    target = stick(tmp_path / "stick.img", 128 * MIB)
    real, limit = os.pwrite, hybrid.stat().st_size // 2

    def forgetful(descriptor: int, data: memoryview, offset: int) -> int:
        if offset >= limit:
            return len(data)
        return real(descriptor, data, offset)

    monkeypatch.setattr(write.os, "pwrite", forgetful)
    result = usb(hybrid, target, "--yes")
    assert result.exit_code == 1
    assert "does not read back" in result.stderr
    assert target.read_bytes()[:512] == bytes(512)


def test_a_stick_that_is_pulled(hybrid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = stick(tmp_path / "stick.img", 128 * MIB)
    real, count = os.pwrite, 0

    def pulled(descriptor: int, data: memoryview, offset: int) -> int:
        nonlocal count
        count += 1
        if count > 3:
            raise OSError(19, "No such device")
        return real(descriptor, data, offset)

    monkeypatch.setattr(write.os, "pwrite", pulled)
    result = usb(hybrid, target, "--yes")
    assert result.exit_code == 1
    cause, step = result.stderr.strip().split("\n")[-2:]
    assert re.fullmatch(rf"rehost: {re.escape(str(target))}: No such device after \d+ s", cause)
    assert "plug it in again" in step
    assert target.read_bytes()[:512] == bytes(512)  # it starts nothing


# --- block devices, by a /sys of our own


def fake_machine(
    root: Path, *, removable: bool = True, bus: str = "usb1/1-1", mounted: str = "", holder: bool = False
) -> None:
    usb_place = root / "sys/devices/pci0000:00/0000:00:14.0" / bus / "block/sdz"
    (usb_place / "queue").mkdir(parents=True)
    (usb_place / "sdz1").mkdir()
    device = usb_place / "device"
    device.mkdir()
    for path, text in {
        "size": "2097152", "ro": "0", "removable": str(int(removable)), "dev": "8:400", "queue/logical_block_size": "512",
        "device/model": "Stick", "device/vendor": "Acme", "device/serial": "4711", "sdz1/start": "2048",
        "sdz1/size": "4096", "sdz1/dev": "8:401",
    }.items():  # fmt: skip
        (usb_place / path).write_text(text + "\n")
    for folder in ("sys/block", "sys/class/block"):
        (root / folder).mkdir(parents=True)
        (root / folder / "sdz").symlink_to(usb_place)
    (root / "sys/class/block/sdz1").symlink_to(usb_place / "sdz1")
    if holder:
        (usb_place / "sdz1/holders/dm-0").mkdir(parents=True)
    (root / "proc/self").mkdir(parents=True)
    line = f"36 35 8:401 / {mounted} rw - vfat /dev/sdz1 rw\n" if mounted else ""
    (root / "proc/self/mountinfo").write_text("22 1 0:21 / /proc rw - proc proc rw\n" + line)
    (root / "proc/swaps").write_text("Filename Type Size Used Priority\n")


@pytest.mark.parametrize(
    ("facts", "why"),
    [({"mounted": "/media/stick"}, "mounted on /media/stick"), ({"holder": True}, "part of dm-0")],
)
def test_disks_in_use_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facts: dict[str, object], why: str
) -> None:
    fake_machine(tmp_path, **facts)  # type: ignore[arg-type]
    with pytest.raises(BlockedError, match=why):
        device._block_device(Path("/dev/sdz"), tmp_path)


def test_a_partition_is_no_disk(tmp_path: Path) -> None:
    fake_machine(tmp_path)
    with pytest.raises(BuildError, match="is a partition"):
        device._block_device(Path("/dev/sdz1"), tmp_path)
    found = device._block_device(Path("/dev/sdz"), tmp_path)
    assert (found.size, found.serial, found.transport) == (2097152 * 512, "4711", "usb")


def test_a_built_in_disk_takes_fixed(hybrid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_machine(tmp_path, removable=False, bus="ata1/host0")
    found = device._block_device(Path("/dev/sdz"), tmp_path)
    assert not found.removable
    target = stick(tmp_path / "disk.img", 128 * MIB, boot_sector(b"old"))
    before = target.read_bytes()
    monkeypatch.setattr(cli, "describe", lambda path: replace(found, path=path, size=128 * MIB, is_file=True))
    result = usb(hybrid, target, "--yes")
    assert result.exit_code == 5
    assert "is a built-in disk" in result.stderr
    assert "--fixed" in result.stderr
    assert target.read_bytes() == before
    assert usb(hybrid, target, "--yes", "--fixed").exit_code == 0
    assert len(table(target)) == 3


class Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "code"), [("yes", 0), ("y", 4), ("", 4)])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_question_names_the_stick(
    hybrid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, options: list[str]
) -> None:
    fake_machine(tmp_path)
    found = device._block_device(Path("/dev/sdz"), tmp_path)
    target = stick(tmp_path / "stick.img", 128 * MIB, boot_sector(b"old"))
    monkeypatch.setattr(cli, "describe", lambda path: replace(found, path=path, size=128 * MIB, is_file=True))
    result = CliRunner().invoke(
        main, ["usb", str(hybrid), str(target), "--foreign", *options], input=Terminal(f"{answer}\n".encode())
    )
    assert result.exit_code == code, result.output
    asked = result.stderr[: result.stderr.index("Type yes")]
    assert f"{target}, 0.1 GB, Acme Stick, serial number 4711, usb" in asked
    with target.open("rb") as file:
        assert (file.read(512) == boot_sector(b"old")[:512]) == (code != 0)
    if options:
        assert not result.stdout or json.loads(result.stdout)["serial"] == "4711"


# --- image files that are somebody's disk, and the medium itself


@pytest.mark.parametrize("mounted", ["", "/mnt/image"])
@pytest.mark.parametrize("shown", ["{}", "{} (deleted)"])
@pytest.mark.parametrize("link", [None, "symlink_to", "hardlink_to"])
def test_an_image_that_a_loop_device_shows_is_refused(
    tmp_path: Path, mounted: str, shown: str, link: str | None
) -> None:
    target = given = stick(tmp_path / "stick.img", MIB)
    if link is not None:
        given = tmp_path / "other name"
        getattr(given, link)(target)
    for number, name in enumerate((tmp_path / "another.img", target)):
        folder = tmp_path / f"sys/block/loop{number}/loop"
        folder.mkdir(parents=True)
        (folder / "backing_file").write_text(shown.format(name) + "\n")
    (tmp_path / "sys/block/loop2").mkdir()  # free
    node = tmp_path / "sys/class/block/loop1p1"
    node.mkdir(parents=True)
    (tmp_path / "sys/block/loop1/loop1p1").mkdir()
    (node / "dev").write_text("259:3\n")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text(
        f"36 35 259:3 / {mounted} rw - ext4 /dev/loop1p1 rw\n" if mounted else ""
    )
    with pytest.raises(BlockedError) as error:
        describe(given, tmp_path)
    assert "attached to /dev/loop1" in error.value.message
    assert "loop0" not in error.value.message
    assert ("mounted on /mnt/image" in error.value.message) == bool(mounted)
    (tmp_path / "sys/block/loop1/loop/backing_file").unlink()
    assert describe(given, tmp_path).is_file


@pytest.mark.skipif(shutil.which("losetup") is None, reason="losetup is not installed")
def test_the_kernel_names_the_image_of_a_loop_device(hybrid: Path, tmp_path: Path) -> None:
    target = stick(tmp_path / "stick.img", 128 * MIB, boot_sector(b"old"))
    before = target.read_bytes()
    attached = subprocess.run(["losetup", "-f", "--show", target], capture_output=True, text=True)
    if attached.returncode:
        pytest.skip(f"no loop device: {attached.stderr.strip()}")
    try:
        result = usb(hybrid, target, "--yes")
    finally:
        subprocess.run(["losetup", "-d", attached.stdout.strip()], check=True)
    assert result.exit_code == 5
    assert f"in use: attached to {attached.stdout.strip()}" in result.stderr
    assert target.read_bytes() == before


@pytest.mark.parametrize("link", [None, "symlink_to", "hardlink_to"])
def test_the_medium_is_not_written_onto_itself(hybrid: Path, tmp_path: Path, link: str | None) -> None:
    medium = target = tmp_path / "a.iso"
    shutil.copy(hybrid, medium)
    os.truncate(medium, 128 * MIB)
    before = medium.read_bytes()
    if link is not None:
        target = tmp_path / "other name"
        getattr(target, link)(medium)
    result = usb(medium, target, "--yes")
    assert result.exit_code == 5
    assert "is the medium itself" in result.stderr
    assert medium.read_bytes() == before


# --- damaged media


def sealed_medium(folder: Path) -> Path:
    path = folder / "pe.iso"
    files = {"bootmgr": b"b" * 5000, "sources/boot.wim": b"Windows" * 9000}
    write_winpe_iso(path, files, BootEntries(bytes(4096), None), label="REHOST", epoch=1_700_000_000)
    return path


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (sealed_medium, b"WindowsWindows"),
        (make_medium, b"ldlinux"),  # listed in SHA256SUMS
        (make_medium, bytes(range(128, 256))),  # isolinux.bin, which has a checksum of its own
        (make_medium, b'"product"'),  # build.json
    ],
)
def test_a_damaged_medium_is_refused(tmp_path: Path, make: Callable[[Path], Path], part: bytes) -> None:
    medium = make(tmp_path)
    target = stick(tmp_path / "stick.img", 512 * MIB)
    whole = usb(medium, target, "--dry-run", "--json", foreign=False)
    assert whole.exit_code == 0, whole.output
    assert json.loads(whole.stdout)["medium_checked"] is True
    data = bytearray(medium.read_bytes())
    data[data.rindex(part) + 1] ^= 0x20
    medium.write_bytes(data)
    result = usb(medium, target, "--yes", foreign=False)
    assert result.exit_code == 1
    assert "is damaged: " in result.stderr
    assert f"rehost verify {medium}" in result.stderr
    with target.open("rb") as file:
        assert not any(file.read(MIB))


# --- media that Rehost has not made


def test_media_of_others_are_refused(hybrid: Path, tmp_path: Path) -> None:
    """Whoever gives the ISO of Windows wants Rehost on the stick; --yes does not change that."""
    windows = plain_iso(tmp_path / "SERVER.iso", {"bootmgr": b"b" * 5000, "sources/boot.wim": b"w" * 5000})
    for medium in (hybrid, windows):
        target = stick(tmp_path / "stick.img", 512 * MIB, boot_sector(b"old"))
        for options in (["--yes"], ["--yes", "--json"], ["--dry-run"]):
            result = usb(medium, target, *options, foreign=False)
            assert result.exit_code == 5, result.output
            assert result.stdout == ""
            cause, step = result.stderr.strip().split("\n")
            assert cause == f"rehost: {medium} was not made by Rehost: there is no build.json of it in it"
            assert f"rehost build --media {medium}" in step
            assert "--foreign" in step
        with target.open("rb") as f:
            assert f.read(512) == boot_sector(b"old")[:512]


def test_media_of_others_are_written_unchecked_and_that_is_said(hybrid: Path, tmp_path: Path) -> None:
    target = stick(tmp_path / "stick.img", 128 * MIB)
    result = usb(hybrid, target, "--yes", "--json")
    assert result.exit_code == 0
    assert "whether it is damaged, and starts from a stick, is not known" in result.stderr
    assert json.loads(result.stdout)["medium_checked"] is False


def test_what_would_start_nothing_is_refused(tmp_path: Path) -> None:
    medium = plain_iso(tmp_path / "data.iso", {"casper/vmlinuz": b"k" * 5000, "EFI/BOOT/BOOTIA32.EFI": b"MZ"})
    target = stick(tmp_path / "stick.img", 512 * MIB, boot_sector(b"old"))
    result = usb(medium, target, "--yes")
    assert result.exit_code == 5
    assert "neither bootmgr (BIOS) nor efi/boot/bootx64.efi (UEFI) is on it" in result.stderr
    with target.open("rb") as f:
        assert f.read(512) == boot_sector(b"old")[:512]


@pytest.mark.parametrize(
    "entries",
    [
        bytes(4) + b"\xee" + bytes(3) + struct.pack("<II", 1, 999) + bytes(48),  # stands for a GPT
        (b"\x80" + bytes(3) + b"\x83" + bytes(3) + struct.pack("<II", 64, 64)) * 4,  # full
    ],
)
def test_a_table_that_takes_no_partition_stays_as_it_is(hybrid: Path, tmp_path: Path, entries: bytes) -> None:
    medium = tmp_path / "linux.iso"
    data = bytearray(hybrid.read_bytes())
    data[446:510] = entries
    medium.write_bytes(data)
    target = stick(tmp_path / "stick.img", 256 * MIB, b"\xff" * 600)
    shown = usb(medium, target, "--dry-run")
    assert "no volume labelled REHOST: the image's own partition table" in shown.stderr
    result = usb(medium, target, "--yes", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["data_bytes"] == 0
    with target.open("rb") as f:
        assert f.read(len(data)) == data


def test_what_is_not_there() -> None:
    with pytest.raises(BuildError, match="No such file"):
        describe(Path("/dev/no-such-disk"))
    with pytest.raises(BuildError, match="neither a disk nor a file"):
        describe(Path("/dev/null"))


def test_layouts_stay_inside_the_stick() -> None:
    for size in (256 * MIB, 8 << 30, 3 << 40):
        for hybrid_ in (True, False):
            plan = layout(size, 50 * MIB, hybrid_, 100 * MIB)
            parts = [p for p in (plan.boot, plan.data) if p is not None]
            assert all(p.offset % ALIGNMENT == 0 and p.offset + p.size <= size for p in parts)
            assert is_hybrid(boot_record(plan, bytes(512), 1).ljust(512)) or plan.kind == "image"
    full = bytes(446) + b"\x01" * 64 + b"\x55\xaa"
    with pytest.raises(ValueError, match="no free entry"):
        boot_record(layout(1 << 30, 50 * MIB, True, 0), full, 1)
