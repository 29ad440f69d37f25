"""Servers to repair: made once per session, copied for each test (sparse, so a copy is quick)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support import disks, windows
from support.disks import DiskLayout, PartitionSpec
from support.image_system import ImageMachine

MIB = 1 << 20


@pytest.fixture(scope="session")
def gpt_master(tmp_path_factory: pytest.TempPathFactory) -> DiskLayout:
    return windows.gpt_server(tmp_path_factory.mktemp("gpt") / "server.img")


@pytest.fixture(scope="session")
def mbr_master(tmp_path_factory: pytest.TempPathFactory) -> DiskLayout:
    return windows.mbr_server(tmp_path_factory.mktemp("mbr") / "server.img")


@pytest.fixture(scope="session")
def stick_master(tmp_path_factory: pytest.TempPathFactory) -> DiskLayout:
    stick = PartitionSpec("stick", 40 * MIB, "fat32", disks.BASIC_DATA, label="REHOST")
    folder = tmp_path_factory.mktemp("stick")
    return disks.make_gpt_disk(folder / "stick.img", msr=False, extra=(stick,))


@pytest.fixture
def gpt(gpt_master: DiskLayout, tmp_path: Path) -> DiskLayout:
    return windows.copy_disk(gpt_master, tmp_path / "gpt.img")


@pytest.fixture
def mbr(mbr_master: DiskLayout, tmp_path: Path) -> DiskLayout:
    return windows.copy_disk(mbr_master, tmp_path / "mbr.img")


@pytest.fixture
def stick(stick_master: DiskLayout, tmp_path: Path) -> DiskLayout:
    return windows.copy_disk(stick_master, tmp_path / "stick.img")


@pytest.fixture
def machine(stick: DiskLayout) -> Callable[..., ImageMachine]:
    """A machine of the given disks, with the operator's stick as the last one."""

    def make(*layouts: DiskLayout) -> ImageMachine:
        return ImageMachine([*(d.path for d in layouts), stick.path])

    return make
