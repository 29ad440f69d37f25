"""Disks of a known speed, and a machine of little memory, for the programs of a benchmark (Linux, as root).

Each disk is a loop device over a file, with ext4 on it, that the kernel's block throttling (cgroup, version 1 or 2)
limits in both directions. The file must lie on something much faster: memory (/dev/shm). The limits hold for whatever
the disk is asked for: past the cache, through it, or by the kernel's own writing back.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
NAME = f"rehost-bench-{os.getpid()}"
DIRTY = 128 << 20  # bytes of a disk that wait in memory before its writers are held back


@dataclass(frozen=True)
class DiskSpec:
    """``size`` of the file in bytes, ``rate`` in bytes a second."""

    name: str
    size: int
    rate: int


@dataclass(frozen=True)
class SlowDisks:
    """``folders`` are the mounted disks, in the order asked for. ``join`` is called in a child before its program
    starts."""

    folders: list[Path]
    join: Callable[[], None]


@contextmanager
def slow_disks(folder: Path, specs: Sequence[DiskSpec], memory: int) -> Iterator[SlowDisks]:
    """``memory``: bytes that the children may use, page cache included. Everything is gone afterwards."""
    with ExitStack() as stack:
        group = stack.enter_context(_group(memory))
        folders = [stack.enter_context(_disk(folder, spec, group)) for spec in specs]
        yield SlowDisks(folders, lambda: (group / "cgroup.procs").write_text(str(os.getpid())) and None)


@contextmanager
def _group(memory: int) -> Iterator[Path]:
    new = (CGROUP / "cgroup.controllers").exists()
    group = (CGROUP if new else CGROUP / "memory") / NAME
    if new:
        (CGROUP / "cgroup.subtree_control").write_text("+io +memory")
    group.mkdir()
    try:
        (group / ("memory.max" if new else "memory.limit_in_bytes")).write_text(str(memory))
        yield group
    finally:
        group.rmdir()


def _limit(group: Path, device: str, rate: int) -> None:
    """``rate`` 0 takes the limit away. Version 1 throttles for everybody, writing back included."""
    if (group / "io.max").exists():
        value = rate or "max"
        (group / "io.max").write_text(f"{device} rbps={value} wbps={value}")
        return
    for direction in ("read", "write"):
        (CGROUP / f"blkio/blkio.throttle.{direction}_bps_device").write_text(f"{device} {rate}")


@contextmanager
def _disk(folder: Path, spec: DiskSpec, group: Path) -> Iterator[Path]:
    image, place = folder / f"{spec.name}.img", folder / spec.name
    place.mkdir()
    with ExitStack() as stack:
        with image.open("wb") as file:
            os.posix_fallocate(
                file.fileno(), 0, -(-spec.size // 4096) * 4096
            )  # no waiting for memory while the clock runs
        stack.callback(image.unlink)
        _run("mkfs.ext4", "-q", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", image)
        loop = Path(_run("losetup", "--find", "--show", "--direct-io=on", image))
        stack.callback(_run, "losetup", "--detach", loop)
        device = (Path("/sys/block") / loop.name / "dev").read_text().strip()
        with suppress(FileNotFoundError):  # before Linux 6.2
            (Path("/sys/class/bdi") / device / "strict_limit").write_text("1")
            (Path("/sys/class/bdi") / device / "max_bytes").write_text(str(DIRTY))
        _run("mount", loop, place)
        stack.callback(_run, "umount", place)
        _limit(group, device, spec.rate)
        stack.callback(_limit, group, device, 0)
        yield place


def _run(*command: str | Path) -> str:
    return subprocess.run(
        [str(c) for c in command], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()
