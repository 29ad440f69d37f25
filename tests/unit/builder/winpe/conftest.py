from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

import pytest

from rehost_builder.progress import Progress
from rehost_builder.winpe.build import WinpeOptions, build_winpe_iso
from support import windows_media as media
from support.packages import put
from support.pe_image import make_pe
from support.wim_files import needs_wimlib

_EXTENSIONS = (
    "_socket",
    "select",
    "_overlapped",
    "_bz2",
    "_lzma",
    "unicodedata",
    "pyexpat",
    "_decimal",
    "_hashlib",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(needs_wimlib)


@pytest.fixture(scope="session")
def boot_wim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """WinPE and Setup, as on the media of Server 2022."""
    return media.make_boot_wim(tmp_path_factory.mktemp("wim") / "boot.wim")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, boot_wim: Path) -> Path:
    return media.media_folder(tmp_path_factory.mktemp("media"), boot_wim)


@pytest.fixture(scope="session")
def iso(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    return media.media_iso(tmp_path_factory.mktemp("iso") / "SERVER.iso", folder)


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embeddable package's stand-in."""
    return media.embeddable(tmp_path_factory.mktemp("python") / "python-embed.zip")


@pytest.fixture(scope="session")
def python_with_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in with all names of the standard library, so that the payload's imports are there."""
    work = tmp_path_factory.mktemp("library")
    return media.embeddable(
        work / "python.zip", more={"python312.zip": _standard_library(work / "lib.zip")} | {
            f"{name}.pyd": make_pe(fill=name.encode(), minimum_os=(6, 0)) for name in _EXTENSIONS
        },
    )  # fmt: skip


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, iso: Path, python_with_library: Path) -> Path:
    """Built by the product, with a driver package."""
    work = tmp_path_factory.mktemp("verify")
    put(work / "packages/exraid")
    options = WinpeOptions(
        media=(iso,), output=work / "rehost.iso", python_embed=str(python_with_library), cache=work / "cache",
        epoch=1_700_000_000, drivers=(work / "packages",), allow_unverified=True,
    )  # fmt: skip
    build_winpe_iso(options, Progress({}, quiet=True))
    return work / "rehost.iso"


def _standard_library(target: Path) -> bytes:
    folder = Path(os.__file__).parent
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*.py")):
            name = path.relative_to(folder).as_posix()
            if name.split("/")[0].removesuffix(".py") in sys.stdlib_module_names and "/test" not in name:
                archive.writestr(f"{name}c", b"compiled")
    return target.read_bytes()
