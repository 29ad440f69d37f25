"""The survey of disks that fail or hold anything at all: problems, never a crash."""

from __future__ import annotations

import errno
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rehost_payload.survey import survey_machine
from rehost_payload.survey.json import from_json, to_json
from rehost_payload.survey.model import Controller, Firmware, FirmwareMode, Survey
from rehost_payload.system.protocol import DiskInfo
from support import windows
from support.disks import MIB, DiskLayout
from support.sources import PatchedSource


@dataclass
class Disk:
    """A disk in memory that stops answering after ``reads`` reads."""

    source: PatchedSource
    reads: int = 1 << 30
    closed: bool = False

    @property
    def info(self) -> DiskInfo:
        return DiskInfo("/dev/test", self.source.size, 512)

    @property
    def size(self) -> int:
        return self.source.size

    def read_at(self, offset: int, length: int) -> bytes:
        assert not self.closed
        self.reads -= 1
        if self.reads < 0:
            raise OSError(errno.EIO, "Input/output error")
        return self.source.read_at(offset, length)

    def partition_path(self, number: int, offset: int) -> str | None:
        return None

    def close(self) -> None:
        self.closed = True


@dataclass
class Machine:
    handles: list[Disk]
    name: str = "linux"
    steps: list[str] = field(default_factory=list)

    def firmware(self) -> Firmware:
        return Firmware(FirmwareMode.BIOS)

    def controllers(self) -> Sequence[Controller]:
        return ()

    def disks(self) -> Sequence[Disk]:
        return self.handles

    def driver_folders(self) -> Sequence[Path]:
        return ()

    def boot_code_writer(self) -> bool:
        return False

    def problems(self) -> Sequence[str]:
        return ("/dev/sdz: Permission denied",)

    def survey(self) -> Survey:
        found = survey_machine(self, lambda what, done, total: self.steps.append(what))  # type: ignore[arg-type]
        assert all(disk.closed for disk in self.handles)
        assert from_json(to_json(found)) == found
        return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> DiskLayout:
    return windows.gpt_server(tmp_path_factory.mktemp("robust") / "s.img", windows_size=32 * MIB)


@pytest.fixture(scope="module")
def content(server: DiskLayout) -> bytes:
    return server.path.read_bytes()


def test_a_disk_that_vanishes_at_any_moment(content: bytes) -> None:
    healthy = Disk(PatchedSource(content, {}))
    machine = Machine([healthy])
    assert len(machine.survey().windows) == 1
    assert "/dev/test" in machine.steps
    needed = (1 << 30) - healthy.reads
    assert needed > 20
    for reads in range(needed):
        found = Machine([Disk(PatchedSource(content, {}), reads)]).survey()
        assert len(found.problems) > 1
    assert found.problems[0].where == "/dev/sdz"


def test_one_dead_disk_does_not_hide_the_other(content: bytes) -> None:
    found = Machine([Disk(PatchedSource(content, {}), 0), Disk(PatchedSource(content, {}))]).survey()
    assert [d.id for d in found.disks] == ["disk1"]
    assert [w.id for w in found.windows] == ["disk1p3:\\Windows"]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_surveyed(content: bytes, server: DiskLayout, data: st.DataObject) -> None:
    """Sectors overwritten where something lives: tables, FAT, MFT, stores, hives."""
    chance = random.Random(data.draw(st.integers(0, 1 << 32)))
    patches: dict[int, bytes] = {}
    for _ in range(data.draw(st.integers(1, 12))):
        while True:
            place = chance.randrange(len(content) // 512) * 512
            if any(content[place : place + 512]):
                break
        length = chance.choice([1, 4, 16, 512])
        patches[place + chance.randrange(512)] = chance.choice(
            [b"\xff" * length, bytes(length), chance.randbytes(length)]
        )
    Machine([Disk(PatchedSource(content, patches))]).survey()
