"""Whatever is wrong, it is one message with cause and next step, an exit code, and nothing left behind: no half of an ISO
under its name, no temporary file, and the last good ISO as it was.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rehost_builder import environment
from rehost_builder.cli import main
from rehost_builder.errors import BuildError
from rehost_builder.progress import Progress
from rehost_builder.verify.run import verify_medium
from rehost_builder.winpe import convert, runtime
from rehost_builder.winpe.build import WinpeOptions, build_winpe_iso
from support import windows_media as media
from support.packages import put
from support.wim_files import write_files
from support.windows_media import WimImage, make_wim, winpe_tree

LAST_GOOD = b"the last good one"
BALLAST = "ballast"
"""What fills a disk."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where output, cache and temporary files go; only the output of an earlier build is there."""
    folder = tmp_path / "place"
    (folder / "tmp").mkdir(parents=True)
    (folder / "out.iso").write_bytes(LAST_GOOD)
    monkeypatch.setenv("TMPDIR", str(folder / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


def left(place: Path) -> dict[str, bytes]:
    return {
        p.relative_to(place).as_posix(): p.read_bytes()
        for p in place.rglob("*")
        if not p.is_dir() and p.name != BALLAST
    }


def refused(place: Path, python: Path, *arguments: str | Path) -> str:
    """Runs `rehost build` to its one error and gives it."""
    done = CliRunner().invoke(
        main,
        ["build", *map(str, arguments), "--python-embed", str(python), "-q", "-o", str(place / "out.iso"),
         "--cache", str(place / "cache")],
    )  # fmt: skip
    assert done.exit_code == 1, done.output
    assert done.stdout == ""
    cause, *details, step = done.stderr.strip().split("\n")
    assert cause.startswith("rehost: ")
    assert all(line.startswith(" ") and line.strip() for line in (*details, step))
    assert "Traceback" not in done.stderr
    assert left(place) == {"out.iso": LAST_GOOD}
    assert list((place / "tmp").iterdir()) == []
    return cause


def _cut(iso: Path, target: Path) -> Path:
    data = iso.read_bytes()
    target.write_bytes(data[: len(data) * 2 // 3])
    return target


def _media(work: Path, *images: WimImage) -> Path:
    return media.media_folder(work / "media", make_wim(work / "boot.wim", *images))


def _without_loader(work: Path) -> Path:
    names = ("winload.exe", "Boot/winload.exe", "Boot/winload.efi")
    tree = winpe_tree(more={f"Windows/System32/{n}": None for n in names})
    return _media(work, WimImage(tree))


def _linux(work: Path) -> Path:
    return media.media_iso(work / "linux.iso", write_files(work / "linux", {"casper/vmlinuz": b"x" * 3000}))


def _file(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


SOURCES = {
    "an ISO that is cut short": (lambda work, iso: _cut(iso, work / "short.iso"), "cut short"),
    "media for ARM64": (lambda work, _: _media(work, WimImage(winpe_tree(machine="arm64"), architecture=12)), "is for arm64"),
    "media for x86": (lambda work, _: _media(work, WimImage(winpe_tree(machine="x86"), architecture=0)), "is for x86"),
    "a WIM without the boot image": (lambda work, _: _without_loader(work), "holds no winload"),
    "an ISO that is not Windows": (lambda work, _: _linux(work), "no Windows medium"),
    "a file that is nothing": (lambda work, _: _file(work / "x.iso", b"hello" * 30_000), "no ISO image"),
    "an empty file": (lambda work, _: _file(work / "x.iso", b""), "is empty"),
}  # fmt: skip


@pytest.mark.parametrize("what", SOURCES)
def test_sources(tmp_path: Path, place: Path, iso: Path, python: Path, what: str) -> None:
    make, words = SOURCES[what]
    assert words in refused(place, python, "--media", make(tmp_path, iso), "--no-drivers")


def test_a_python_that_is_not_the_pinned_one(tmp_path: Path, place: Path, iso: Path, python: Path) -> None:
    """From a mirror it has to be; a file that is given may be another, and is named in build.json."""
    done = CliRunner().invoke(
        main,
        ["build", "--media", str(iso), "--no-drivers", "-q", "-o", str(place / "out.iso"), "--cache",
         str(place / "cache"), "--python-embed", python.as_uri()],
    )  # fmt: skip
    assert done.exit_code == 1
    assert "SHA-256" in done.stderr
    assert left(place) == {"out.iso": LAST_GOOD}


def test_drivers_of_no_use(tmp_path: Path, place: Path, iso: Path, python: Path) -> None:
    folder = write_files(tmp_path / "drivers", {"readme.txt": b"see our website", "setup/setup.exe": b"MZ"})
    assert "no boot driver" in refused(place, python, "--media", iso, "--drivers", folder)
    put(tmp_path / "tampered/exraid")
    (tmp_path / "tampered/exraid/exraid.sys").write_bytes(b"MZ another program")
    said = refused(place, python, "--media", iso, "--drivers", tmp_path / "tampered")
    assert "must not go on the medium" in said


def test_a_file_of_the_source_that_goes_away(
    tmp_path: Path, place: Path, folder: Path, python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, tmp_path / "media")
    from rehost_builder.winpe import build

    real = build.write_winpe_iso

    def write(*arguments: Any, **options: Any) -> None:
        (tmp_path / "media/boot/boot.sdi").unlink()
        real(*arguments, **options)

    monkeypatch.setattr(build, "write_winpe_iso", write)
    assert "boot.sdi" in refused(place, python, "--media", tmp_path / "media", "--no-drivers")


# --- the disk is full, at any step


@pytest.fixture
def everything(tmp_path: Path, place: Path, python: Path, monkeypatch: pytest.MonkeyPatch) -> WinpeOptions:
    """A build that writes wherever a build can: a download, drivers out of an archive, an image to be converted."""
    monkeypatch.setattr(runtime, "SHA256", hashlib.sha256(python.read_bytes()).hexdigest())
    put(tmp_path / "packages/exraid")
    archive = shutil.make_archive(str(tmp_path / "drivers"), "zip", tmp_path / "packages")
    wim = make_wim(tmp_path / "boot.wim", WimImage(winpe_tree(), options=("--solid",)))
    iso = media.media_iso(tmp_path / "SERVER.iso", media.media_folder(tmp_path / "m", wim))
    return WinpeOptions(
        media=(iso,), output=place / "out.iso", drivers=(Path(archive),), python_embed=python.as_uri(),
        allow_unverified=True, cache=place / "cache", epoch=1_700_000_000,
    )  # fmt: skip


def _fails_until(options: WinpeOptions, place: Path) -> str:
    """The message of a failed build, "" where it succeeded. Nothing but whole files is left, and the last good ISO."""
    try:
        build_winpe_iso(options, Progress({}, quiet=True))
    except BuildError as error:
        said, step = error.message, error.hint
    else:
        return ""
    assert step, said
    found = left(place)
    assert found.pop("out.iso") == LAST_GOOD
    for name, data in found.items():  # a download that came through may stay
        assert name == f"cache/winpe/{Path(runtime.URL).name}"
        assert hashlib.sha256(data).hexdigest() == runtime.SHA256
    assert list((place / "tmp").iterdir()) == []
    shutil.rmtree(place / "cache", ignore_errors=True)
    return said


@contextmanager
def files_up_to(length: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (length, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_files_that_cannot_grow(everything: WinpeOptions, place: Path) -> None:
    """A file system that takes no file of that size; every file of a build meets it in its turn."""
    said = []
    for length in (0, 5_000, 50_000, 150_000, 300_000, 600_000, 1_000_000, 1_500_000, 2_000_000, 1 << 40):
        with files_up_to(length):
            said.append(_fails_until(everything, place))
    assert said[-1] == ""
    assert len({text for text in said if text}) >= 3, said
    assert verify_medium(place / "out.iso").base == "winpe"


def test_a_disk_that_fills_up(everything: WinpeOptions, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real file system without room, where the space that was asked for before is gone meanwhile."""
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "rehost", place]).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    usage = shutil.disk_usage(place)._replace(free=1 << 40)
    for module in (environment, convert):
        monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    said = []
    try:
        for free in (0, 8, 12, 16, 20, 28, 40, 60, 200, 1000, 3000, 12000):  # KiB
            (place / "tmp").mkdir(exist_ok=True)
            (place / "out.iso").write_bytes(LAST_GOOD)
            _fill(place, free << 10)
            try:
                said.append(_fails_until(everything, place))
            finally:
                (place / BALLAST).unlink()
    finally:
        subprocess.run(["umount", place], check=True)
    assert said[-1] == ""
    assert all("full" in text or "No space left" in text for text in said[:-1] if text), said
    steps = {re.sub(r"rehost-\w+", "work", text) for text in said if text}
    assert len(steps) >= 4, said  # the image to convert, the download, the drivers, the ISO


def _fill(place: Path, free: int) -> None:
    with (place / BALLAST).open("wb", buffering=0) as f:
        room = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
        try:
            os.posix_fallocate(f.fileno(), 0, max(room - free, 1))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
