from __future__ import annotations

from pathlib import Path

import pytest

from support import windows_media as media
from support.wim_files import needs_wimlib


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
