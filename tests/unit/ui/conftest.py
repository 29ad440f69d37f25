"""A restored server and the operator's stick as images, and the menu over them on a terminal."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pexpect
import pytest

from support import disks, windows
from support.disks import DiskLayout, PartitionSpec

PROGRAM = Path(__file__).with_name("menu_process.py")
MIB = 1 << 20
PROMPT = "then Enter: "
PATIENCE = 300.0
"""Seconds for what will come, however busy the computer is; only what never comes takes so long."""


@pytest.fixture(scope="session")
def server_master(tmp_path_factory: pytest.TempPathFactory) -> DiskLayout:
    return windows.gpt_server(tmp_path_factory.mktemp("server") / "server.img")


@pytest.fixture
def healthy(server_master: DiskLayout, tmp_path: Path) -> DiskLayout:
    return windows.copy_disk(server_master, tmp_path / "server.img")


@pytest.fixture
def server(healthy: DiskLayout) -> DiskLayout:
    """The same after a restore: its boot store names a disk that is gone."""
    return windows.restored(healthy)


@pytest.fixture(scope="session")
def stick_master(tmp_path_factory: pytest.TempPathFactory) -> DiskLayout:
    spec = PartitionSpec("stick", 40 * MIB, "fat32", disks.BASIC_DATA, label="REHOST")
    return disks.make_gpt_disk(tmp_path_factory.mktemp("stick") / "stick.img", msr=False, extra=(spec,))


@pytest.fixture
def stick(stick_master: DiskLayout, tmp_path: Path) -> DiskLayout:
    return windows.copy_disk(stick_master, tmp_path / "stick.img")


def write_answer(stick: DiskLayout, text: str) -> None:
    disks.write_file(stick, stick["stick"], "rehost.toml", text.encode())


class Terminal(pexpect.spawn):
    def close(self, force: bool = True) -> None:
        """pexpect gives the process some tenths of a second to go, and then complains."""
        if not self.closed:
            if not self.flag_eof:
                self.kill(signal.SIGKILL)
            self.wait()
        super().close(force)


@dataclass
class Medium:
    """The recovery system as the menu sees it. ``console`` collects what is announced."""

    root: Path
    state: Path
    images: list[Path]

    def start(
        self, *, role: str = "main", cmdline: str | None = None, encoding: str = "utf-8", rows: int = 200
    ) -> Terminal:
        if cmdline is not None:
            (self.root / "proc/cmdline").write_text(cmdline)
        arguments = [str(PROGRAM), str(self.root), str(self.state), role, *map(str, self.images)]
        child = Terminal(
            sys.executable,
            arguments,
            encoding=encoding,
            timeout=PATIENCE,
            dimensions=(rows, 80),  # tall: no paging
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
        )
        child.delaybeforesend = None
        return child

    @property
    def announced(self) -> str:
        return (self.root / "dev/console").read_text()

    @property
    def power(self) -> str | None:
        path = self.root / "power"
        return path.read_text() if path.exists() else None


@pytest.fixture
def medium(tmp_path: Path) -> Iterator[Callable[..., Medium]]:
    def make(*layouts: DiskLayout) -> Medium:
        root, state = tmp_path / "root", tmp_path / "state"
        for folder in ("etc", "proc", "dev", "sys/class/dmi/id"):
            (root / folder).mkdir(parents=True)
        state.mkdir()
        (root / "etc/os-release").write_text('NAME="Rehost"\nID=rehost\n')
        (root / "proc/cmdline").write_text("quiet\n")
        (root / "sys/class/dmi/id/sys_vendor").write_text("Contoso\n")
        (root / "sys/class/dmi/id/product_name").write_text("Rack 7000\n")
        (root / "dev/console").touch()
        return Medium(root, state, [d.path for d in layouts])

    yield make
    shutil.rmtree(tmp_path / "state", ignore_errors=True)
