"""Whole builds from stand-in media; 7-Zip, wimlib and our El Torito reader judge what comes out."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rehost_builder import environment
from rehost_builder.errors import BuildError
from rehost_builder.media import udf
from rehost_builder.media.iso_reader import boot_entries
from rehost_builder.progress import Progress
from rehost_builder.winpe.build import WinpeOptions, WinpeResult, build_winpe_iso
from rehost_builder.winpe.opened import opened_media
from rehost_builder.winpe.payload import script
from support import hives
from support import windows_media as media
from support.packages import put
from support.wim_files import extract, facts, listing, verify
from support.windows_media import WimImage, make_boot_wim, make_wim, winpe_tree

needs_7zip = pytest.mark.skipif(
    media.seven_zip() is None, reason="7-Zip is not installed (package p7zip-full)"
)
Build = Callable[..., WinpeResult]


@pytest.fixture
def build(tmp_path: Path, python: Path) -> Build:
    def run(*places: Path, **options: Any) -> WinpeResult:
        values: dict[str, Any] = {
            "output": tmp_path / "rehost.iso",
            "python_embed": str(python),
            "cache": tmp_path / "cache",
            "epoch": 1_700_000_000,
            **options,
        }
        return build_winpe_iso(WinpeOptions(media=places, **values), Progress({}, quiet=True))

    return run


def refusal(build: Build, *places: Path, **options: Any) -> BuildError:
    with pytest.raises(BuildError) as caught:
        build(*places, **options)
    assert caught.value.hint
    return caught.value


def image_files(iso: Path, work: Path, image: int = 1) -> dict[str, bytes]:
    media.iso_files(iso, work / "unpacked")
    verify(work / "unpacked/sources/boot.wim")
    return extract(work / "unpacked/sources/boot.wim", work / "image", image)


@needs_7zip
def test_the_medium(tmp_path: Path, build: Build, iso: Path, folder: Path, python: Path) -> None:
    result = build(iso)
    found = media.iso_files(result.iso, tmp_path / "out")
    # the media's boot files as they were, without the rest of the media
    for path in (p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name in ("setup.exe", "autorun.inf"):
            assert name not in found
        elif name != "sources/boot.wim":
            assert found[name] == path.read_bytes(), name
    # the boot entries
    with result.iso.open("rb") as f:
        entries = boot_entries(f)
        assert (entries[0].platform, entries[0].load) == (0, 8)
        assert entries[1].platform == 0xEF
        for entry, name in zip(
            entries, ("boot/etfsboot.com", "efi/microsoft/boot/efisys_noprompt.bin"), strict=True
        ):
            f.seek(entry.offset)
            expected = (folder / name).read_bytes()
            assert f.read(len(expected)) == expected
    # the list of checksums, checked by a program that is not ours
    done = subprocess.run(
        ["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=tmp_path / "out", capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")
    listed = {line.split("  ", 1)[1] for line in found["SHA256SUMS"].decode().splitlines()}
    assert listed == set(found) - {"SHA256SUMS", "boot.cat", "[BOOT]"} - {
        n for n in found if n.startswith("[BOOT]")
    }

    plan = json.loads(found["build.json"])
    assert (plan["base"], plan["format"], plan["epoch"]) == ("winpe", 1, 1_700_000_000)
    assert plan["source"]["place"] == iso.name
    assert str(tmp_path) not in found["build.json"].decode()
    assert {f["path"] for f in plan["medium"]} == listed - {"build.json", "README.txt", "Export-Guardian.ps1"}
    assert plan["runtime"]["sha256"] == hashlib.sha256(python.read_bytes()).hexdigest()
    readme = found["README.txt"].decode("ascii")
    assert "Server 2022" in readme
    assert "must not be passed on" in readme
    assert re.search("[^\r]\n", readme) is None

    assert hashlib.sha256(result.iso.read_bytes()).hexdigest() == result.sha256
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "rehost.iso"]


@needs_7zip
def test_the_boot_image(tmp_path: Path, build: Build, iso: Path, boot_wim: Path, python: Path) -> None:
    build(iso)
    found = image_files(tmp_path / "rehost.iso", tmp_path)
    old = extract(boot_wim, tmp_path / "old")
    wim = tmp_path / "unpacked/sources/boot.wim"
    assert facts(wim)["Boot Index"] == "1"
    added = {n: d for n, d in found.items() if n.startswith("Rehost/")}
    rest = {n: d for n, d in found.items() if n not in added}
    assert rest.pop("Windows/System32/startnet.cmd").startswith(b"@echo off\r\n")
    old.pop("Windows/System32/startnet.cmd")
    assert rest == old
    with zipfile.ZipFile(python) as archive:
        for name in ("python.exe", "python312.dll", "python312.zip", "vcruntime140.dll", "_ctypes.pyd"):
            assert added[f"Rehost/python/{name}"] == archive.read(name)
    assert added["Rehost/python/python312._pth"] == b"python312.zip\r\n.\r\n..\\app\r\n"
    assert "Rehost/python/_wmi.pyd" not in added
    assert {
        "Rehost/app/rehost_payload/__main__.py",
        "Rehost/app/click/core.py",
        "Rehost/app/jinja2/runtime.py",
    } <= set(added)
    assert "Rehost/app/markupsafe/__init__.py" in added
    assert not any(n.endswith((".pyc", ".so")) for n in added)
    # what is in build.json is what is in the image
    plan = json.loads((tmp_path / "unpacked/build.json").read_bytes())
    for file in plan["added"]:
        assert hashlib.sha256(found[file["path"]]).hexdigest() == file["sha256"], file["path"]
    assert {f["path"] for f in plan["added"]} == {*added, "Windows/System32/startnet.cmd"}
    # Setup, the second image, is untouched
    assert extract(wim, tmp_path / "two", 2) == extract(boot_wim, tmp_path / "old2", 2)


def test_the_scripts_are_for_cmd(tmp_path: Path) -> None:
    values: dict[str, object] = {"version": "1", "build": "10.0.1", "keyboard": "0407:00000407"}
    for name, more in (
        ("startnet.cmd", values),
        ("start.cmd", values),
        ("drivers.cmd", {"drivers": ["a\\b.inf"]}),
        ("rehost.cmd", {}),
        ("winpeshl.ini", {"commands": ["x.exe, -y"], "first": 0}),
    ):
        data = script(name, **more)
        text = data.decode("ascii")
        assert re.search("[^\r]\n", text) is None, name
        assert not data.startswith(b"\xef\xbb\xbf")
        labels = set(re.findall(r"^:(\w+)", text, re.M))
        assert set(re.findall(r"(?:goto|call) :?(\w+)$", text, re.M)) <= labels, name
    with pytest.raises(UnicodeEncodeError):
        script("winpeshl.ini", commands=["ü.exe"], first=0)


@needs_7zip
def test_the_keyboard(tmp_path: Path, build: Build, iso: Path) -> None:
    build(iso, keyboard="de")
    start = image_files(tmp_path / "rehost.iso", tmp_path)["Rehost/start.cmd"].decode()
    assert "wpeutil SetKeyboardLayout 0407:00000407" in start
    error = refusal(build, iso, keyboard="fr")
    assert "KBDFR.DLL is missing" in error.message
    assert "no keyboard layout 00000415" in refusal(build, iso, keyboard="0415:00000415").message
    assert "not known" in refusal(build, iso, keyboard="klingon").message


@needs_7zip
def test_the_scratch_space(tmp_path: Path, build: Build, iso: Path) -> None:
    build(iso, scratch_space=1024)
    hive = image_files(tmp_path / "rehost.iso", tmp_path)["Windows/System32/config/SYSTEM"]
    old = hives.values(media.system_hive())
    path = ("ControlSet001\\Services\\FBWF", "WinPECacheThreshold")
    assert hives.values(hive) == old | {path: hives.dword(1024)}
    bare = make_wim(
        tmp_path / "bare.wim", WimImage(winpe_tree(more={"Windows/System32/config/SYSTEM": None}))
    )
    assert "FBWF" in refusal(build, bare, iso, scratch_space=1024).message


def test_the_same_input_gives_the_same_bytes(
    tmp_path: Path, build: Build, iso: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(iso, output=tmp_path / "1.iso")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    os.utime(iso, (1, 1))
    build(iso, output=tmp_path / "2.iso")
    assert (tmp_path / "1.iso").read_bytes() == (tmp_path / "2.iso").read_bytes()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    build(iso, output=tmp_path / "3.iso", epoch=None)
    assert (tmp_path / "1.iso").read_bytes() == (tmp_path / "3.iso").read_bytes()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    assert "SOURCE_DATE_EPOCH" in refusal(build, iso, epoch=None).message


@needs_7zip
def test_drivers(tmp_path: Path, build: Build, iso: Path) -> None:
    put(tmp_path / "packages/exraid")
    result = build(iso, drivers=(tmp_path / "packages",), allow_unverified=True)
    assert result.drivers == 1
    found = image_files(result.iso, tmp_path)
    plan = json.loads((tmp_path / "unpacked/build.json").read_bytes())
    (inf,) = plan["loaded"]
    folder = plan["drivers"]["packages"][0]["folder"]
    assert inf == f"{folder}/exraid.inf"
    assert found[f"Rehost/drivers/{inf}"] == (tmp_path / "packages/exraid/exraid.inf").read_bytes()
    script_text = found["Rehost/drivers.cmd"].decode()
    assert f'call :load "%SystemDrive%\\Rehost\\drivers\\{folder}\\exraid.inf"\r\n' in script_text
    (tmp_path / "nothing").mkdir()
    assert "no boot driver" in refusal(build, iso, drivers=(tmp_path / "nothing",)).message


# --- Secure Boot


@needs_7zip
def test_boot_files_of_2023(tmp_path: Path, build: Build) -> None:
    new = media.files_2023()
    wim = make_boot_wim(tmp_path / "boot.wim", new)
    place = media.media_folder(tmp_path / "m", wim)
    result = build(place, secure_boot="2023")
    assert "Windows UEFI CA 2023" in result.boot_files
    found = media.iso_files(result.iso, tmp_path / "out")
    assert found["efi/boot/bootx64.efi"] == new["Windows/Boot/EFI_EX/bootmgfw_EX.efi"]
    assert found["bootmgr.efi"] == new["Windows/Boot/EFI_EX/bootmgr_EX.efi"]
    assert found["efi/microsoft/boot/fonts/wgl4_boot.ttf"] == b"font of 2023"
    assert found["efi/microsoft/boot/boot.stl"] == b"list of 2023"
    with result.iso.open("rb") as f:
        f.seek(boot_entries(f)[1].offset)
        expected = new["Windows/Boot/DVD_EX/EFI/en-US/efisys_noprompt_EX.bin"]
        assert f.read(len(expected)) == expected
    # a second time, from the result: nothing to do
    again = build(tmp_path / "rehost.iso", secure_boot="2023", output=tmp_path / "again.iso")
    assert "Windows UEFI CA 2023" in again.boot_files
    older = build(place, secure_boot="auto", output=tmp_path / "older.iso")
    assert "2011" in older.boot_files
    # the image's, although nothing else of 2023 is taken: boot managers of Server 2025 want it under Secure Boot
    found = media.iso_files(older.iso, tmp_path / "out2")
    assert found["efi/microsoft/boot/boot.stl"] == b"list of 2023"


def test_boot_files_that_are_not_there(tmp_path: Path, build: Build, iso: Path, boot_wim: Path) -> None:
    error = refusal(build, iso, secure_boot="2023")
    assert "bootmgfw_EX.efi is not inside" in error.message
    assert "April 2024" in error.hint
    new = media.boot_files(issuer=media.CA_2023)
    place = media.media_folder(tmp_path / "new", boot_wim, new)
    assert "2011" in refusal(build, place, secure_boot="2011").message
    bios = {n: d for n, d in media.boot_files().items() if not n.startswith("efi/")}
    place = media.media_folder(tmp_path / "bios", boot_wim, bios)
    assert "does not start by UEFI" in refusal(build, place, secure_boot="2023").message


# --- other makers' media


def vendor(tmp_path: Path, more: dict[str, bytes | None], command: str = "winpeshl.exe") -> Path:
    wim = make_wim(tmp_path / "acme.wim", WimImage(winpe_tree(command=command, more=more), "Acme Rescue", ""))
    place = media.media_folder(tmp_path / "acme", wim)
    (place / "Acme").mkdir()
    (place / "Acme/catalog.db").write_bytes(b"their data")
    return place


@needs_7zip
def test_another_makers_program_stays(tmp_path: Path, build: Build) -> None:
    ini = b"[LaunchApp]\r\nAppPath=%SYSTEMDRIVE%\\Acme\\rescue.exe\r\n"
    result = build(vendor(tmp_path, {"Windows/System32/winpeshl.ini": ini}))
    found = image_files(result.iso, tmp_path)
    assert found["Windows/System32/winpeshl.ini"].decode() == (
        "[LaunchApps]\r\n"
        '%SYSTEMDRIVE%\\Windows\\System32\\cmd.exe, /c start "Rehost" cmd.exe /k %SYSTEMDRIVE%\\Rehost\\start.cmd\r\n'
        "%SYSTEMDRIVE%\\Acme\\rescue.exe\r\n"
    )
    assert found["Windows/System32/startnet.cmd"] == b"wpeinit\r\n"
    assert (tmp_path / "unpacked/Acme/catalog.db").read_bytes() == b"their data"
    assert (tmp_path / "unpacked/setup.exe").exists()


@needs_7zip
@pytest.mark.parametrize(
    "wpeinit", ["wpeinit.exe", "%SYSTEMROOT%\\System32\\WPEInit.exe, -unattend=X:\\u.xml", '"X:\\w\\wpeinit"']
)
def test_ours_comes_after_the_other_makers_wpeinit(tmp_path: Path, build: Build, wpeinit: str) -> None:
    """The drivers that we load, and the menu, do not race the set-up of devices."""
    ini = f"[LaunchApps]\r\nX:\\early.exe\r\n{wpeinit}\r\nX:\\Acme.exe, wpeinit.exe\r\n"
    result = build(vendor(tmp_path, {"Windows/System32/winpeshl.ini": ini.encode()}))
    found = image_files(result.iso, tmp_path)["Windows/System32/winpeshl.ini"].decode()
    assert found.splitlines()[1:3] == ["X:\\early.exe", wpeinit]
    assert "start.cmd" in found.splitlines()[3]
    assert '/c start "Rehost"' in found.splitlines()[3]  # winpeshl waits for it, and it ends at once
    assert found.splitlines()[4:] == ["X:\\Acme.exe, wpeinit.exe"]
    assert "leave it open until Rehost has finished" in (tmp_path / "unpacked/README.txt").read_text()


@needs_7zip
@pytest.mark.parametrize("wpeinit", ["call wpeinit", '@"%SystemRoot%\\System32\\wpeinit.exe"'])
def test_ours_comes_after_wpeinit_in_startnet(tmp_path: Path, build: Build, wpeinit: str) -> None:
    theirs = f"@echo off\r\n{wpeinit}\r\nX:\\Acme.exe\r\n".encode()
    result = build(vendor(tmp_path, {"Windows/System32/startnet.cmd": theirs}))
    lines = image_files(result.iso, tmp_path)["Windows/System32/startnet.cmd"].decode().splitlines()
    assert lines[:2] == ["@echo off", wpeinit]
    assert lines[2].startswith('start "Rehost"')


@needs_7zip
def test_another_makers_startnet_stays(tmp_path: Path, build: Build) -> None:
    theirs = "@echo off\r\nwpeinit\r\nX:\\Acme\\Rückholer.exe\r\n".encode("cp1252")
    result = build(vendor(tmp_path, {"Windows/System32/startnet.cmd": theirs}))
    found = image_files(result.iso, tmp_path)["Windows/System32/startnet.cmd"].decode("cp1252")
    assert found == (
        "@echo off\r\nwpeinit\r\n"
        'start "Rehost" cmd.exe /k "%SystemDrive%\\Rehost\\start.cmd"\r\n'
        "X:\\Acme\\Rückholer.exe\r\n"
    )


@needs_7zip
def test_another_makers_program_can_be_replaced(tmp_path: Path, build: Build) -> None:
    ini = b"[LaunchApps]\r\n%SYSTEMDRIVE%\\Acme\\rescue.exe, -x\r\n"
    result = build(vendor(tmp_path, {"Windows/System32/winpeshl.ini": ini}), keep_shell=False)
    found = image_files(result.iso, tmp_path)
    assert "Windows/System32/winpeshl.ini" not in found
    assert b"Rehost\\start.cmd" in found["Windows/System32/startnet.cmd"]


def test_what_cannot_be_added_to(tmp_path: Path, build: Build) -> None:
    error = refusal(build, vendor(tmp_path, {}, command="X:\\Acme\\rescue.exe"))
    assert "by its registry" in error.message
    for keep in (True, False):
        assert "by its registry" in refusal(build, tmp_path / "acme", keep_shell=keep).message


@needs_7zip
def test_the_recovery_environments_own_start_goes(tmp_path: Path, build: Build, iso: Path) -> None:
    ini = b"[LaunchApp]\r\nAppPath=X:\\sources\\recovery\\recenv.exe\r\n"
    tree = winpe_tree(more={"Windows/System32/winpeshl.ini": ini})
    winre = make_wim(
        tmp_path / "winre.wim", WimImage(tree, "Microsoft Windows Recovery Environment (x64)", "")
    )
    build(winre, iso)
    assert "Windows/System32/winpeshl.ini" not in image_files(tmp_path / "rehost.iso", tmp_path)


@needs_7zip
def test_setup_alone_is_disarmed(tmp_path: Path, build: Build) -> None:
    tree = winpe_tree(more={"setup.exe": b"MZ", "sources/setup.exe": b"MZ"})
    wim = make_wim(tmp_path / "boot.wim", WimImage(tree, "Microsoft Windows Setup (x64)", "2"))
    build(media.media_folder(tmp_path / "m", wim))
    found = image_files(tmp_path / "rehost.iso", tmp_path)
    assert not {"setup.exe", "sources/setup.exe"} & set(found)


# --- what goes wrong


def test_an_image_that_is_too_old(tmp_path: Path, build: Build) -> None:
    tree = winpe_tree(more={"Windows/System32/ucrtbase.dll": None})
    wim = make_wim(tmp_path / "boot.wim", WimImage(tree, version=(6, 3, 9600, 1)))
    error = refusal(build, media.media_folder(tmp_path / "m", wim))
    assert "6.3.9600.1" in error.message
    assert "ucrtbase" in error.message
    assert "newer WinPE" in error.hint


def test_a_runtime_that_does_not_fit(tmp_path: Path, build: Build, iso: Path) -> None:
    package = media.embeddable(tmp_path / "arm.zip", machine="arm64")
    error = refusal(build, iso, python_embed=str(package))
    assert "another architecture" in error.message
    assert not (tmp_path / "rehost.iso").exists()


def test_a_full_disk(tmp_path: Path, build: Build, iso: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "rehost.iso"
    target.write_bytes(b"the last good one")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(udf.pycdlib.PyCdlib, "write_fp", full)
        assert "disk is full" in refusal(build, iso).message
    assert target.read_bytes() == b"the last good one"
    assert [p.name for p in tmp_path.iterdir()] == ["rehost.iso"]
    usage = environment.shutil.disk_usage(tmp_path)
    free = 70 << 20

    def small(place: object) -> Any:
        return usage._replace(free=free if str(place) != str(tmp_path) else 1 << 20)

    monkeypatch.setattr(environment.shutil, "disk_usage", small)
    error = refusal(build, iso)
    assert "1 MB free" in error.message
    assert target.read_bytes() == b"the last good one"
    free = 1 << 20
    assert "TMPDIR" in refusal(build, iso).hint


def test_the_source_is_not_overwritten(tmp_path: Path, build: Build, iso: Path) -> None:
    before = iso.read_bytes()
    assert "source itself" in refusal(build, iso, output=iso).message
    assert iso.read_bytes() == before


def test_ctrl_c_leaves_nothing(
    tmp_path: Path, build: Build, iso: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(udf.pycdlib.PyCdlib, "write_fp", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(iso)
    assert list(tmp_path.iterdir()) == []


# --- the command


def rehost(*arguments: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    code = "import sys; from rehost_builder.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, timeout=300, env={**os.environ, **(env or {})},
    )  # fmt: skip


def test_a_dry_run_writes_nothing(tmp_path: Path, iso: Path, python: Path) -> None:
    common = (
        "build",
        "--media",
        iso,
        "--python-embed",
        python,
        "--no-drivers",
        "--cache",
        tmp_path / "c",
        "--dry-run",
    )
    done = rehost(*common, "-q", "-o", tmp_path / "x.iso")
    assert done.returncode == 0, done.stderr
    assert "sources/boot.wim, image 1 (Microsoft Windows PE (x64))" in done.stdout
    assert "boot image with additions" in done.stdout
    assert list(tmp_path.iterdir()) == []
    plan = json.loads(rehost(*common, "--json").stdout)
    assert any(f["path"] == "Rehost/python/python.exe" for f in plan["added"])
    assert list(tmp_path.iterdir()) == []


def test_the_command(tmp_path: Path, iso: Path, python: Path) -> None:
    done = rehost("build", "--media", iso, "--python-embed", python, "--no-drivers", "-q", "-o", tmp_path / "x.iso",
                  env={"REHOST_CACHE": str(tmp_path / "c")})  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Server 2022" in done.stdout
    assert "not to be passed on" in done.stdout
    with (tmp_path / "x.iso").open("rb") as f:
        assert len(boot_entries(f)) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--base", "winpe"), "needs --media"),
        (("--keyboard", "de"), "--keyboard is for the winpe base"),
        (("--media", "ISO", "--suite", "trixie"), "--suite is for the debian base"),
        (("--media", "absent.iso"), "does not exist"),
    ],
)
def test_options_that_do_not_go_together(iso: Path, arguments: tuple[str, ...], words: str) -> None:
    done = rehost("build", *(str(iso) if a == "ISO" else a for a in arguments))
    assert done.returncode == 2
    assert words in done.stderr


def test_an_error_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "x.iso").write_bytes(bytes(50_000))
    done = rehost("build", "--media", tmp_path / "x.iso", "-q", "-o", tmp_path / "y.iso")
    assert done.returncode == 1
    assert "no ISO image" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "y.iso").exists()


@needs_7zip
def test_a_medium_is_built_anew_from_itself(tmp_path: Path, build: Build, iso: Path) -> None:
    """Only what is new is different: nothing of the first build stays behind, the other maker's start least of all."""
    put(tmp_path / "packages/exraid")
    build(iso, output=tmp_path / "1.iso", drivers=(tmp_path / "packages",), allow_unverified=True)
    build(tmp_path / "1.iso", output=tmp_path / "2.iso")
    build(iso, output=tmp_path / "3.iso")
    second = image_files(tmp_path / "2.iso", tmp_path / "two")
    assert second == image_files(tmp_path / "3.iso", tmp_path / "three")
    assert not any(n.startswith("Rehost/drivers/") for n in second)
    assert set(media.iso_files(tmp_path / "2.iso", tmp_path / "a")) == set(
        media.iso_files(tmp_path / "3.iso", tmp_path / "b")
    )
    ini = b"[LaunchApps]\r\n%SYSTEMDRIVE%\\Acme\\rescue.exe, -x\r\n"
    build(vendor(tmp_path, {"Windows/System32/winpeshl.ini": ini}), output=tmp_path / "4.iso")
    build(tmp_path / "4.iso", output=tmp_path / "5.iso")
    last = image_files(tmp_path / "5.iso", tmp_path / "five")["Windows/System32/winpeshl.ini"]
    assert last.count(b"start.cmd") == 1
    assert last.count(b"rescue.exe, -x") == 1


@needs_7zip
def test_our_reader_sees_through_the_iso_what_wimlib_sees(tmp_path: Path, build: Build, iso: Path) -> None:
    build(iso)
    (tmp_path / "w").mkdir()
    with opened_media((tmp_path / "rehost.iso",), tmp_path / "w") as (found, _, report):
        assert report.shell == "command prompt"
        ours = {path for path, _ in found.image.tree.root.walk()}
    media.iso_files(tmp_path / "rehost.iso", tmp_path / "out")
    assert {f"/{path}" for path in ours} | {"/"} == set(listing(tmp_path / "out/sources/boot.wim"))
