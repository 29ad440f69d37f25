"""Plans, sources and checks for tests of the copy engine."""

from __future__ import annotations

import errno
import os
import random
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rehost_payload.capture.copy_pipeline import CopySettings
from rehost_payload.capture.copy_source import OpenSource
from rehost_payload.capture.model import CaptureFile, CapturePlan, CaptureUnit, Role, SourceRef
from rehost_payload.repair.model import VolumeRef
from support.memory_target import MemoryTarget

SETTINGS = CopySettings(chunk_size=16384, block_size=4096, buffers=4, flush_every=32768)
"""Everything small, so that a few kilobytes take every path."""

VOLUME = VolumeRef("/dev/source", 1 << 20, 1 << 40, "ntfs", disk_serial="SOURCE", disk_size=1 << 41)
MODIFIED = 133000000000000000


def content(seed: str, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


@dataclass
class Source:
    """Files in memory. ``bad``: (path, offset) -> errno of a 512-byte sector that cannot be read; ``before`` is called
    on each read. ``version`` is what a file system would show as the time of the last change."""

    files: dict[str, bytes]
    bad: set[tuple[str, int]] = field(default_factory=set)
    number: int = errno.EIO
    before: Callable[[str, int], None] = lambda path, offset: None
    versions: dict[str, int] = field(default_factory=dict)
    reads: int = 0

    def open(self, file: CaptureFile) -> OpenSource:
        if file.original not in self.files:
            raise FileNotFoundError(file.original)
        return OpenSource(_Bytes(self, file.original), str(self.versions.get(file.original, 0)))


@dataclass
class _Bytes:
    source: Source
    path: str

    def __post_init__(self) -> None:
        self.size = len(self.source.files[self.path])

    def read_at(self, offset: int, length: int) -> bytes:
        self.source.before(self.path, offset)
        self.source.reads += 1
        data = self.source.files[self.path][offset : offset + length]
        for sector in range(offset // 512 * 512, offset + len(data), 512):
            if (self.path, sector) in self.source.bad:
                raise OSError(self.source.number, os.strerror(self.source.number))
        return data


def unit(folder: str, files: Mapping[str, bytes], **more: object) -> CaptureUnit:
    captured = tuple(
        CaptureFile(
            *(
                SourceRef(VOLUME, f"\\{folder}\\{name}"),
                f"{folder}/{name}",
                f"{folder}/{name}",
                Role.DISK,
                len(data),
            ),
            modified=MODIFIED,
        )
        for name, data in files.items()
    )
    return CaptureUnit(f"id-{folder}", folder.title(), folder, "machine", captured, **more)  # type: ignore[arg-type]


def plan_of(*units: CaptureUnit) -> CapturePlan:
    return CapturePlan("Rehost-HV-1", "HV", units)


def sample() -> tuple[CapturePlan, Source]:
    """Two machines with files of awkward sizes."""
    sizes = {
        "web": {"web.vhdx": 100_001, "a/web.vmcx": 4096, "a/empty": 0},
        "db": {"db.vhdx": 16384 * 3, "db.vmcx": 1, "zeros": 0},
    }
    files = {f: {name: content(f + name, size) for name, size in entry.items()} for f, entry in sizes.items()}
    files["db"]["zeros"] = bytes(40_000)
    units = [unit(folder, entry) for folder, entry in files.items()]
    return plan_of(*units), Source({f"{f}/{n}": d for f, entry in files.items() for n, d in entry.items()})


def dump(target: MemoryTarget, folder: Path) -> Path:
    for path, node in target.files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(node.now)
    return folder / "Rehost-HV-1"


def sha256sum(folder: Path) -> None:
    """The outside judge: fails the test where coreutils does not agree."""
    for sums in sorted(folder.glob("*/SHA256SUMS")):
        done = subprocess.run(
            ["sha256sum", "-c", "--strict", "--quiet", sums.name],
            cwd=sums.parent,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
