"""Every kind of thing that a user may name, and what is none."""

from __future__ import annotations

import json
import random
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from click.testing import CliRunner

from rehost_builder.content import read_content
from rehost_builder.errors import BuildError
from rehost_builder.winpe import convert, isofs
from rehost_builder.winpe.cli import media as media_command
from rehost_builder.winpe.inspect import MediaReport
from rehost_builder.winpe.media import Media
from rehost_builder.winpe.opened import opened_media
from rehost_payload.formats.errors import FormatError
from support import windows_media as media
from support.wim_files import facts, verify, wimlib, write_files
from support.windows_media import WimImage, make_wim, winpe_tree


def opened(*places: Path, work: Path) -> AbstractContextManager[tuple[Media, object, MediaReport]]:
    work.mkdir(exist_ok=True)
    return opened_media(places, work)


def refusal(*places: Path, work: Path) -> BuildError:
    with pytest.raises(BuildError) as caught, opened(*places, work=work):
        pass
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("side", ["udf", "joliet", "iso"])
def test_isos(tmp_path: Path, folder: Path, side: str) -> None:
    iso = media.media_iso(tmp_path / "x.iso", folder, side=side)
    with opened(iso, work=tmp_path / "work") as (found, _, report):
        assert report.usable
        assert report.product == "Server 2022 (build 20348)"
        assert report.label == "SSS_X64FRE_DE"
        assert report.boots_by == ("BIOS", "UEFI")
        assert report.languages == ("de-DE",)
        assert [(i.index, i.flags, i.chosen) for i in report.images] == [(1, "9", True), (2, "2", False)]
        assert report.starts == "cmd.exe"
        assert report.tools["dism"]
        assert not report.tools["PowerShell"]
        for name, content in found.files.items():
            original = next(
                p for p in folder.rglob("*") if p.relative_to(folder).as_posix().lower() == name.lower()
            )
            assert read_content(content) == original.read_bytes(), name
        assert "setup.exe" not in {n.lower() for n in found.files}
        assert read_content(found.wim) == (folder / "sources/boot.wim").read_bytes()
        assert found.efi_boot is not None
        assert (
            read_content(found.efi_boot) == (folder / "efi/microsoft/boot/efisys_noprompt.bin").read_bytes()
        )


def test_a_folder_in_other_cases(tmp_path: Path, folder: Path) -> None:
    copy = tmp_path / "media"
    for path in (p for p in folder.rglob("*") if p.is_file()):
        target = copy / path.relative_to(folder).as_posix().upper()
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    with opened(copy, work=tmp_path / "work") as (found, _, report):
        assert report.usable
        assert "EFI/BOOT/BOOTX64.EFI" in found.files
        assert found.wim_path == "SOURCES/BOOT.WIM"


def test_7zip_reads_what_our_reader_does_not(
    tmp_path: Path, iso: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if media.seven_zip() is None:
        pytest.skip("7-Zip is not installed (package p7zip-full)")

    def failing(_: object) -> None:
        raise FormatError("UDF", "a partition map of a kind that is not read here")

    monkeypatch.setattr(isofs, "open_iso", failing)
    with opened(iso, work=tmp_path / "work") as (found, _, report):
        assert report.read_by == "7-Zip"
        assert report.usable
        assert found.efi_boot is not None
    monkeypatch.setattr(isofs.shutil, "which", lambda _: None)
    error = refusal(iso, work=tmp_path / "work2")
    assert "7-Zip" in error.message
    assert "a partition map" in error.message


def test_a_udf_side_that_is_not_understood(
    tmp_path: Path, iso: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text on the ISO 9660 side is not mistaken for the medium."""
    data = bytearray(iso.read_bytes())
    data[257 * 2048 + 300] ^= 1  # the file set
    (tmp_path / "x.iso").write_bytes(data)
    monkeypatch.setattr(isofs.shutil, "which", lambda _: None)
    assert "CRC" in refusal(tmp_path / "x.iso", work=tmp_path / "w").message


def test_where_even_7zip_sees_only_the_text(tmp_path: Path, iso: Path) -> None:
    if media.seven_zip() is None:
        pytest.skip("7-Zip is not installed (package p7zip-full)")
    bridge = media.media_iso(tmp_path / "b.iso", write_files(tmp_path / "b", {"x": b"x"}))
    data = bytearray(bridge.read_bytes())
    data[257 * 2048 : 257 * 2048 + 512] = bytes(512)  # the file set
    bridge.write_bytes(data)
    assert "UDF side" in refusal(bridge, work=tmp_path / "w").message


@pytest.mark.parametrize("name", ["README.TXT", "notes.txt"])
def test_one_file_that_is_not_windows_is_no_udf_side(tmp_path: Path, name: str) -> None:
    plain = media.media_iso(tmp_path / "x.iso", write_files(tmp_path / "x", {name: b"x"}), side="joliet")
    message = refusal(plain, work=tmp_path / "w").message
    assert "no Windows medium" in message
    assert "UDF" not in message


def test_7zip_that_leaves_files_out_is_noticed(
    tmp_path: Path, iso: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isofs.shutil, "which", lambda _: "/usr/bin/7z")
    monkeypatch.setattr(
        isofs, "run", lambda argv, **_: "Path = sources/boot.wim\nSize = 5\n\n" if argv[1] == "l" else ""
    )
    with pytest.raises(BuildError, match="did not unpack sources"):
        isofs._by_7zip(iso, tmp_path, lambda _: True, "x")


def test_the_adk(tmp_path: Path, folder: Path) -> None:
    kit = tmp_path / "Assessment and Deployment Kit"
    root = kit / "Windows Preinstallation Environment"
    place = root / "amd64/Media"
    shutil.copytree(folder, place)
    shutil.rmtree(place / "sources")
    for name in (
        "boot/etfsboot.com",
        "efi/microsoft/boot/efisys.bin",
        "efi/microsoft/boot/efisys_noprompt.bin",
    ):
        tools = kit / "Deployment Tools/amd64/Oscdimg"
        tools.mkdir(parents=True, exist_ok=True)
        shutil.move(place / name, tools / Path(name).name)
    wim = root / "amd64/en-us/winpe.wim"
    wim.parent.mkdir(parents=True)
    make_wim(wim, WimImage(winpe_tree(), "Microsoft Windows PE (amd64)", ""))
    for start in (kit, root, tmp_path.parent / tmp_path.name / kit.name):
        with opened(start, work=tmp_path / "work") as (found, _, report):
            assert report.kind == "ADK WinPE add-on"
            assert report.boots_by == ("BIOS", "UEFI")
            assert found.wim_path == "sources/boot.wim"
        shutil.rmtree(tmp_path / "work")
    shutil.rmtree(kit / "Deployment Tools")
    assert "Deployment Tools" in refusal(root, work=tmp_path / "work").hint
    shutil.move(root / "amd64", root / "arm64")
    assert "ARM64" in refusal(root, work=tmp_path / "work3").message


def test_a_folder_of_copype(tmp_path: Path, folder: Path) -> None:
    place = tmp_path / "WinPE_amd64"
    shutil.copytree(folder, place / "media")
    (place / "fwfiles").mkdir()
    for name in ("boot/etfsboot.com", "efi/microsoft/boot/efisys.bin"):
        shutil.move(place / "media" / name, place / "fwfiles" / Path(name).name)
    (place / "media/efi/microsoft/boot/efisys_noprompt.bin").unlink()
    (place / "mount").mkdir()
    with opened(place, work=tmp_path / "work") as (found, _, report):
        assert report.boots_by == ("BIOS", "UEFI")
        assert found.efi_boot == place / "fwfiles/efisys.bin"


def test_a_boot_image_alone(tmp_path: Path, iso: Path) -> None:
    bare = make_wim(
        tmp_path / "winre.wim", WimImage(winpe_tree(), "Microsoft Windows Recovery Environment (x64)", "")
    )
    error = refusal(bare, work=tmp_path / "w1")
    assert "boot image alone" in error.message
    assert "--media" in error.hint
    with opened(bare, iso, work=tmp_path / "w2") as (found, _, report):
        assert report.usable
        assert report.place == str(bare)
        assert found.wim == bare
        assert found.wim_path == "sources/boot.wim"
        assert "bootmgr" in found.files
    files = media.boot_files()
    inside = media.files_inside(files) | {"Windows/Boot/EFI/boot.stl": b"list of revoked"}
    full = make_wim(tmp_path / "full.wim", WimImage(winpe_tree(more=inside)))
    with opened(full, work=tmp_path / "w3") as (found, _, report):
        assert report.boots_by == ("BIOS", "UEFI")
        assert "inside of the boot image" in report.notes[0]
        assert found.files["efi/boot/bootx64.efi"] == files["efi/boot/bootx64.efi"]
        assert found.files["efi/microsoft/boot/boot.stl"] == b"list of revoked"
        assert found.files["efi/microsoft/boot/fonts/wgl4_boot.ttf"] == files["boot/fonts/wgl4_boot.ttf"]


def test_media_that_start_in_one_way_only(tmp_path: Path, boot_wim: Path) -> None:
    files = media.boot_files()
    uefi = {n: d for n, d in files.items() if n not in ("boot/etfsboot.com", "bootmgr", "boot/bcd")}
    with opened(media.media_folder(tmp_path / "uefi", boot_wim, uefi), work=tmp_path / "w1") as (
        _,
        _,
        report,
    ):
        assert report.boots_by == ("UEFI",)
        assert any("UEFI only" in note for note in report.notes)
    bios = {n: d for n, d in files.items() if not n.startswith("efi/")}
    with opened(media.media_folder(tmp_path / "bios", boot_wim, bios), work=tmp_path / "w2") as (
        _,
        _,
        report,
    ):
        assert report.boots_by == ("BIOS",)


# --- what is of no use


def test_an_iso_that_is_cut_short(tmp_path: Path, iso: Path) -> None:
    short = tmp_path / "short.iso"
    data = iso.read_bytes()
    refused = 0
    for length in (0, 100, 20_000, 40_000, len(data) // 2, len(data) - 60_000):
        short.write_bytes(data[:length])
        error = refusal(short, work=tmp_path / f"w{length}")
        assert str(short) in error.message
        refused += "cut short" in error.message
    assert refused == 3


def test_what_is_no_windows_medium(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "noise.iso").write_bytes(b"\0" * 100_000)
    assert "no ISO image" in refusal(tmp_path / "noise.iso", work=tmp_path / "w1").message
    linux = write_files(tmp_path / "linux", {"casper/vmlinuz": b"x" * 3000, "boot/grub/grub.cfg": b"x"})
    error = refusal(media.media_iso(tmp_path / "linux.iso", linux), work=tmp_path / "w2")
    assert "no Windows medium" in error.message
    assert "Ubuntu" in error.message
    (tmp_path / "empty").mkdir()
    assert "empty" in refusal(tmp_path / "empty", work=tmp_path / "w3").message
    install = write_files(tmp_path / "install", {"sources/install.esd": b"MSWIM", "boot/bcd": b"x"})
    assert "no sources/boot.wim" in refusal(install, work=tmp_path / "w4").message


@pytest.mark.parametrize(("number", "name"), [(0, "x86"), (12, "arm64")])
def test_other_architectures(tmp_path: Path, number: int, name: str) -> None:
    tree = winpe_tree(machine=name)
    wim = make_wim(tmp_path / "boot.wim", WimImage(tree, architecture=number))
    error = refusal(media.media_folder(tmp_path / "media", wim), work=tmp_path / "w1")
    assert f"is for {name}" in error.message


def test_the_architecture_is_read_from_a_program_where_the_xml_is_silent(tmp_path: Path) -> None:
    wim = make_wim(tmp_path / "boot.wim", WimImage(winpe_tree(machine="arm64"), architecture=99))
    assert (
        "is for arm64" in refusal(media.media_folder(tmp_path / "media", wim), work=tmp_path / "w1").message
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--solid",), "ESD"),
        (("--compress=LZX", "--chunk-size=128K"), "128 KiB"),
    ],
)
def test_images_that_the_boot_manager_refuses(
    tmp_path: Path, options: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wim = make_wim(tmp_path / "boot.wim", WimImage(winpe_tree(), options=options))
    place = media.media_folder(tmp_path / "media", wim)
    with opened(media.media_iso(tmp_path / "x.iso", place), work=tmp_path / "w1") as (found, _, report):
        assert report.usable
        assert report.compression == "LZX"
        assert "converted by wimlib" in report.notes[0]
        assert words in report.notes[0]
        verify(Path(str(found.wim)))
        assert facts(Path(str(found.wim)))["Boot Index"] == "1"
    monkeypatch.setattr(convert.shutil, "which", lambda _: None)
    error = refusal(place, work=tmp_path / "w2")
    assert words in error.message
    assert "wimtools" in error.hint


def test_images_that_cannot_be_converted(tmp_path: Path, boot_wim: Path) -> None:
    big = make_wim(
        tmp_path / "a.wim", WimImage(winpe_tree(more={"noise": random.Random(1).randbytes(3 << 20)}))
    )
    wimlib("split", big, tmp_path / "part.swm", "1")
    error = refusal(media.media_folder(tmp_path / "media", tmp_path / "part.swm"), work=tmp_path / "w1")
    assert "part 1 of" in error.message
    pipable = make_wim(tmp_path / "p.wim", WimImage(winpe_tree(), options=("--pipable",)))
    assert "pipable" in refusal(media.media_folder(tmp_path / "p", pipable), work=tmp_path / "w2").message


def test_images_that_are_no_boot_images(tmp_path: Path, boot_wim: Path) -> None:
    no_loader = {
        f"Windows/System32/{n}": None for n in ("winload.exe", "Boot/winload.exe", "Boot/winload.efi")
    }
    wim = make_wim(tmp_path / "a.wim", WimImage(winpe_tree(more=no_loader)))
    assert (
        "holds no winload" in refusal(media.media_folder(tmp_path / "a", wim), work=tmp_path / "w1").message
    )
    no_pe = {f"Windows/System32/{n}": None for n in ("wpeinit.exe", "winpeshl.exe")}
    wim = make_wim(tmp_path / "b.wim", WimImage(winpe_tree(more=no_pe), "Windows Server 2022", ""))
    assert "full Windows" in refusal(media.media_folder(tmp_path / "b", wim), work=tmp_path / "w2").message
    data = bytearray(boot_wim.read_bytes())
    (tmp_path / "bad.wim").write_bytes(data)
    place = media.media_folder(tmp_path / "c", tmp_path / "bad.wim")
    data[-300:] = bytes(300)
    (place / "sources/boot.wim").write_bytes(data)
    assert "damaged" in refusal(place, work=tmp_path / "w4").message


def test_media_without_a_ramdisk_in_their_store(tmp_path: Path, boot_wim: Path) -> None:
    files = media.boot_files() | {"boot/bcd": b"no hive", "efi/microsoft/boot/bcd": b"no hive"}
    error = refusal(media.media_folder(tmp_path / "media", boot_wim, files), work=tmp_path / "w1")
    assert "boot stores" in error.message
    files = media.boot_files()
    del files["boot/boot.sdi"]
    error = refusal(media.media_folder(tmp_path / "sdi", boot_wim, files), work=tmp_path / "w2")
    assert "boot.sdi" in error.message


# --- rehost media inspect


def test_inspect(tmp_path: Path, iso: Path) -> None:
    done = CliRunner().invoke(media_command, ["inspect", str(iso)])
    assert done.exit_code == 0, done.output
    assert "Server 2022 (build 20348)" in done.output
    assert "* 1: Microsoft Windows PE (x64), flags 9" in done.output
    assert "signed under Microsoft Windows Production PCA 2011" in done.output
    assert "usable        yes" in done.output
    plain = json.loads(CliRunner().invoke(media_command, ["inspect", "--json", str(iso)]).output)
    assert plain["architecture"] == "amd64"
    assert plain["boot_programs"][0]["authority"] == media.PCA_2011
    assert not plain["can_2023"]


@pytest.mark.parametrize("number", [(7, 0), (2, 300), None])
def test_the_security_version_number_is_said(
    tmp_path: Path, boot_wim: Path, number: tuple[int, int] | None
) -> None:
    program = media.boot_program("10.0.20348.1", media.CA_2023, svn=number)
    place = media.media_folder(
        tmp_path / "m", boot_wim, media.boot_files() | {"efi/boot/bootx64.efi": program}
    )
    wanted = f"{number[0]}.{number[1]}" if number else ""
    plain = json.loads(CliRunner().invoke(media_command, ["inspect", str(place), "--json"]).stdout)
    found = next(p for p in plain["boot_programs"] if p["path"] == "efi/boot/bootx64.efi")
    assert (found["svn"], found["version"]) == (wanted, "10.0.20348.1")
    said = CliRunner().invoke(media_command, ["inspect", str(place)]).stdout
    assert (f"SVN {wanted}" in said) if number else ("SVN" not in said)


def test_inspect_says_what_is_missing(tmp_path: Path) -> None:
    more: dict[str, bytes | None] = {"Windows/System32/ucrtbase.dll": None, "Windows/System32/dism.exe": None}
    wim = make_wim(
        tmp_path / "boot.wim", WimImage(winpe_tree(more=more | media.files_2023()), version=(6, 3, 9600, 1))
    )
    done = CliRunner().invoke(media_command, ["inspect", str(media.media_folder(tmp_path / "m", wim))])
    assert done.exit_code == 3
    assert "Server 2012 R2" in done.output
    assert "missing       ucrtbase" in done.output
    assert "missing       dism" in done.output
    assert "CA 2023       boot files inside: Windows/Boot/EFI_EX/bootmgfw_EX.efi" in done.output


def test_the_editions_of_the_installation_image(tmp_path: Path, boot_wim: Path) -> None:
    place = media.media_folder(tmp_path / "m", boot_wim)
    tree = {"Windows/System32/ntoskrnl.exe": b"MZ"}
    make_wim(
        place / "sources/install.wim",
        WimImage(tree, "Windows Server 2022 SERVERSTANDARD", ""),
        WimImage(tree, "Windows Server 2022 SERVERDATACENTER", ""),
    )
    with opened(place, work=tmp_path / "w") as (_, _, report):
        assert report.editions == (
            "Windows Server 2022 SERVERSTANDARD",
            "Windows Server 2022 SERVERDATACENTER",
        )


def test_damaged_isos(tmp_path: Path, iso: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is wrong with an ISO, it is one error for people, or the damage lies where nobody looks."""
    monkeypatch.setattr(isofs.shutil, "which", lambda _: None)
    original = iso.read_bytes()
    rng = random.Random(9)
    refused = 0
    for number in range(100):
        data = bytearray(original)
        for _ in range(rng.randrange(1, 5)):
            at = rng.choice(
                (
                    rng.randrange(16 * 2048, 30 * 2048),
                    rng.randrange(256 * 2048, 300 * 2048),
                    rng.randrange(len(data)),
                )
            )
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        (tmp_path / "x.iso").write_bytes(data)
        try:
            with opened(tmp_path / "x.iso", work=tmp_path / f"w{number}"):
                pass
        except BuildError as e:
            refused += bool(e.message and e.hint)
    assert refused > 10
