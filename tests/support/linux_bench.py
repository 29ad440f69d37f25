"""A LinuxSystem over a disk image, without mounting anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rehost_payload.system import linux
from rehost_payload.system.linux import LinuxSystem
from rehost_payload.system.mounting import Way
from rehost_payload.system.sysfs import BlockDevice
from support.disks import DiskLayout, PartitionLayout


class Bench:
    """A LinuxSystem that takes the image for a block device and a folder for the mounted volume."""

    def __init__(self, disk: DiskLayout, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.disk, self.folder = disk, folder
        self.nodes = {p.offset: f"/dev/fake{p.number}" for p in disk.partitions}
        self.read_only = False
        self.mounts: list[tuple[str, list[Way]]] = []
        self.mounted_now = 0
        self.system = LinuxSystem()
        folder.mkdir()
        monkeypatch.setattr(self.system, "_device", lambda path: self.device())
        monkeypatch.setattr(linux, "mounted", self.mounted)

    def device(self) -> BlockDevice:
        facts = (self.disk.size, self.disk.sector_size, "", "", "", None, self.read_only, False, self.nodes)
        return BlockDevice("fake", str(self.disk.path), *facts)

    @contextmanager
    def mounted(self, node: str, ways: list[Way]) -> Iterator[Path]:
        self.mounts.append((node, ways))
        self.mounted_now += 1
        try:
            yield self.folder
        finally:
            self.mounted_now -= 1

    def writable(self, part: PartitionLayout):  # type: ignore[no-untyped-def]
        return self.system.writable(str(self.disk.path), part.offset, part.size)
