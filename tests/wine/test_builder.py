"""The builder on Windows: `rehost media inspect`, `build` and `verify` by CPython for Windows under Wine, with the real
wheels for Windows of what it needs. What it builds there is byte for byte what Linux builds.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from rehost_builder.progress import Progress
from rehost_builder.verify.run import verify_medium
from rehost_builder.winpe.build import WinpeOptions, build_winpe_iso
from support import packages, windows_media, windows_python, wine
from support.wim_files import needs_wimlib
from support.windows_python import Unavailable

pytestmark = needs_wimlib
_START = "import sys; sys.dont_write_bytecode = True; from rehost_builder.cli import main; main()"


@pytest.fixture(scope="session")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if why := wine.missing():
        pytest.skip(why)
    try:
        return windows_python.builder(tmp_path_factory.mktemp("builder") / "python")
    except Unavailable as why:
        pytest.skip(str(why))


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory, windows: Path) -> Path:
    """A medium as a folder, another as an ISO, drivers, and the Python for it."""
    work = tmp_path_factory.mktemp("source")
    wim = windows_media.make_boot_wim(work / "boot.wim")
    windows_media.media_iso(work / "SERVER.iso", windows_media.media_folder(work / "media", wim))
    packages.put(work / "packages/exraid")
    shutil.make_archive(str(work / "drivers"), "zip", work / "packages")
    windows_python.embeddable_zip(work / "python.zip")
    return work


def rehost(windows: Path, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    env = {"SOURCE_DATE_EPOCH": "1700000000"}
    return wine.run_python(windows, ["-c", _START, *arguments], env=env)


def options(source: Path, work: Path, media: Path, drivers: Path) -> list[str | Path]:
    return [
        "--media", media, "--drivers", drivers, "--python-embed", source / "python.zip",
        "--allow-unverified-drivers", "--cache", work / "cache", "-q", "-o", work / "rehost.iso",
    ]  # fmt: skip


def test_inspect(windows: Path, source: Path) -> None:
    for media in ("SERVER.iso", "media"):
        done = rehost(windows, "media", "inspect", "--json", source / media)
        assert done.returncode == 0, done.stderr.decode()
        found = json.loads(done.stdout)
        assert (found["architecture"], found["boots_by"]) == ("amd64", ["BIOS", "UEFI"])


def test_build_and_verify(windows: Path, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "rehost.iso"
    target.write_bytes(b"an older one, to be replaced")
    done = rehost(windows, "build", *options(source, tmp_path, source / "media", source / "drivers.zip"))
    assert done.returncode == 0, done.stderr.decode()
    assert [p.name for p in tmp_path.iterdir()] == ["rehost.iso"]
    done = rehost(windows, "verify", "--json", target)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    # the same from here, and the same judgement of it
    result = build_winpe_iso(
        WinpeOptions(
            media=(source / "media",), output=tmp_path / "linux.iso", python_embed=str(source / "python.zip"),
            drivers=(source / "drivers.zip",), allow_unverified=True, cache=tmp_path / "cache", epoch=1_700_000_000,
        ),
        Progress({}, quiet=True),
    )  # fmt: skip
    assert target.read_bytes() == result.iso.read_bytes()
    here = {p.name: p.verdict.value for p in verify_medium(target).points}
    there = {p["name"]: p["verdict"] for p in json.loads(done.stdout)["verification"]["points"]}
    assert here == there


def test_what_goes_wrong(windows: Path, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "rehost.iso"
    target.write_bytes(b"the last good one")
    short, cabinet = tmp_path / "short.iso", tmp_path / "drivers.cab"
    short.write_bytes((source / "SERVER.iso").read_bytes()[:500_000])
    cabinet.write_bytes(b"MSCF" + bytes(200))
    for media, drivers, words in (
        (short, source / "packages", "cut short"),
        (source / "media", cabinet, "install 7-Zip"),
    ):
        done = rehost(windows, "build", *options(source, tmp_path, media, drivers))
        said = done.stderr.decode()
        assert done.returncode == 1, said
        assert words in said
        assert "Traceback" not in said
    done = rehost(windows, "verify", source / "SERVER.iso", "-q")
    assert done.returncode == 3, done.stderr.decode()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["drivers.cab", "rehost.iso", "short.iso"]
    assert target.read_bytes() == b"the last good one"
