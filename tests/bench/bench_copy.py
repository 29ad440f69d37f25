"""The copy engine against cp, rsync, rsync --checksum and cp + sha256sum: same source, same target folders, one run.

    .venv/bin/python tests/bench/bench_copy.py [--size 2048] [--work DIR] [--targets DIR DIR] [--json FILE]
    .venv/bin/python tests/bench/bench_copy.py --rates 100 100 --work /dev/shm      # three disks of known speed (root)
    .venv/bin/python tests/bench/bench_copy.py --cut 50 --size 3072                 # what a power cut costs

Every contender starts with an empty page cache (as root; else its files are dropped from it one by one) and ends when
its copies are on the disk. "verified" is one that has read its copies back from the disk; sha256sum gets an empty cache
for that too. CPU is that of the processes, user and system; what the kernel writes behind their back is not in it. "cores at
250 MB/s": how busy they would keep a processor if each pass over the data (a copy, a check) went at 250 MB/s. The
memory of small programs is that of this one, from which they were started.
Where source and targets share a disk, two copies cost it twice the work: the figures say nothing then of three disks.
With --rates each has a disk of its own, and memory holds no source twice (slow_disks.py).

Measured on two shared, busy cores (seconds; --size 2048 --rates 100 100, and --size 1536 --rates 80 240 --flush 64: an
array that is the slow part and fast targets, flushed more often so that little data show what terabytes do):

                                             100, 100 MB/s            80, 240 MB/s
                                         1 copy    2 copies       1 copy    2 copies
    one pass over one disk: the bound       21.5                     20.1
    rehost, verified                        47.4      48.4           23.4      27.4
    cp, not verified                        25.4      45.9           21.3      42.7
    cp to both at once, not verified                  23.8                     21.3
    rsync, not verified                     36.3      48.0           26.0      44.9
    rsync --checksum, not verified          47.5      95.3           48.6      88.9
    cp + sha256sum                          78.9     139.5           91.7     189.1
    rsync --checksum, again to compare      87.5     175.7           81.9      156.3

Two verified copies take the time of one that rsync --checksum does not verify: that reads the source before it copies.
Against cp or plain rsync they take twice the time where the targets are as slow as the source, as everything must pass
each target's cable twice, and 1.3 times where the source is the slow part. Rehost kept 0.5 cores busy at 250 MB/s.

--cut 50 --size 3072: of 1536 MiB on each target 508 were written again, and 2.5 GiB more read (the last GiB of each
target, to be sure of it, and of the source what is written again). Either is --flush (1 GiB) and a chunk at most, for each target.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from slow_disks import DiskSpec, slow_disks

MIB = 1 << 20


@dataclass(frozen=True)
class Figure:
    what: str
    copies: int
    verified: bool
    size: int
    seconds: float
    cpu: float
    memory: int
    passes: int

    @property
    def line(self) -> str:
        rate = self.size / self.seconds / 1e6
        cores = self.cpu / (self.passes * self.size / 250e6)
        return (
            f"{self.what:<38} {self.copies}  {'yes' if self.verified else 'no':<4}{self.seconds:8.1f} s {rate:8.0f} MB/s"
            f" {self.cpu:8.1f} s CPU {cores:6.2f} cores at 250 MB/s {self.memory / MIB:6.0f} MiB"
        )


def make_source(folder: Path, size: int) -> None:
    """Three large files and a hundred small ones, of bytes that do not compress."""
    folder.mkdir()
    sizes = {"large.vhdx": size * 7 // 10, "middle.vhdx": size // 4, "small.vhdx": size // 20 - 100 * 65536}
    for name, length in sizes.items() | {f"configuration{i}.vmcx": 65536 for i in range(100)}.items():
        with (folder / name).open("wb") as file:
            while length > 0:
                file.write(os.urandom(min(length, 8 * MIB)))
                length -= 8 * MIB
            os.fsync(file.fileno())


def drop_caches(*folders: Path) -> None:
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        for path in (p for folder in folders for p in folder.rglob("*") if p.is_file()):
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Clock:
    """Runs commands one after the other and adds up what they cost."""

    def __init__(self, prepare: Callable[[], None] | None, flush: int) -> None:
        """``prepare`` is called in each child before its program starts; ``flush``: MiB, for Rehost."""
        self._prepare = prepare
        self.flush = flush
        self.cpu = 0.0
        self.memory = 0
        self.seconds = 0.0

    def run(self, *command: str | Path, cwd: Path | None = None, output: Path | None = None) -> None:
        self.run_at_once([command], cwd=cwd, output=output)

    def run_at_once(
        self, commands: Sequence[Sequence[str | Path]], *, cwd: Path | None = None, output: Path | None = None
    ) -> None:
        start = time.monotonic()
        with (output or Path(os.devnull)).open("wb") as out:
            processes = [
                subprocess.Popen([str(c) for c in command], cwd=cwd, stdout=out, preexec_fn=self._prepare)
                for command in commands
            ]
            ended = [os.wait4(process.pid, 0) for process in processes]
        self.seconds += time.monotonic() - start
        for command, (_, status, usage) in zip(commands, ended, strict=True):
            self.cpu += usage.ru_utime + usage.ru_stime
            self.memory = max(self.memory, usage.ru_maxrss * 1024)
            if os.waitstatus_to_exitcode(status):
                raise SystemExit(f"failed: {command}")

    def sync(self) -> None:
        start = time.monotonic()
        os.sync()
        self.seconds += time.monotonic() - start


def rehost(clock: Clock, source: Path, targets: Sequence[Path]) -> None:
    clock.run(sys.executable, __file__, "--flush", str(clock.flush), "--child", source, *targets)


def resumed(source: Path, targets: Sequence[Path], size: int, flush: int, percent: int) -> str:
    """Kills the engine when so much is written, runs it again, and tells what that cost beyond a copy in one go."""
    command = [sys.executable, __file__, "--flush", str(flush), "--child", source, *targets]
    process = subprocess.Popen([str(c) for c in command])
    enough = size * len(targets) * percent // 100
    while process.poll() is None and disk_bytes(process.pid)[1] < enough:
        time.sleep(0.01)
    if process.poll() is not None:
        raise SystemExit("it was through before it was killed: more --size is needed")
    _, before = disk_bytes(process.pid)
    process.kill()
    process.wait()
    told = subprocess.run([str(c) for c in command], check=True, stdout=subprocess.PIPE, text=True).stdout
    read, written = map(int, told.split())
    again = (before + written - size * len(targets)) / len(targets)
    left = size * (1 + len(targets)) - before / len(
        targets
    )  # of the source, and all of every target to verify it
    return (
        f"killed with {before / MIB:.0f} MiB written to {len(targets)} targets: {again / MIB:.0f} MiB written again to"
        f" each, {(read - left) / MIB:.0f} MiB more read than without"
    )


def disk_bytes(process: int | str) -> tuple[int, int]:
    """What a process has read from disks and written to them."""
    lines = dict(line.split(": ") for line in Path(f"/proc/{process}/io").read_text().splitlines())
    return int(lines["read_bytes"]), int(lines["write_bytes"])


def cp(clock: Clock, source: Path, targets: Sequence[Path]) -> None:
    for target in targets:
        clock.run("cp", "-a", source, target)
        clock.sync()


def cp_at_once(clock: Clock, source: Path, targets: Sequence[Path]) -> None:
    clock.run_at_once([("cp", "-a", source, target) for target in targets])
    clock.sync()


def cp_and_sums(clock: Clock, source: Path, targets: Sequence[Path]) -> None:
    cp(clock, source, targets)
    drop_caches(source, *targets)
    sums = targets[0] / "SUMS"
    clock.run("sh", "-c", "sha256sum *", cwd=source, output=sums)
    for target in targets:
        clock.run("sha256sum", "-c", "--quiet", sums, cwd=target / source.name)


def plain_rsync(clock: Clock, source: Path, targets: Sequence[Path]) -> None:
    for target in targets:
        clock.run("rsync", "-a", source, target)
        clock.sync()


def rsync(clock: Clock, source: Path, targets: Sequence[Path]) -> None:
    for target in targets:
        clock.run("rsync", "-a", "--checksum", source, target)
        clock.sync()


def rsync_twice(clock: Clock, source: Path, targets: Sequence[Path]) -> None:
    """The second run compares both sides by checksum."""
    rsync(clock, source, targets)
    drop_caches(source, *targets)
    for target in targets:
        clock.run("rsync", "-a", "--checksum", source, target)


def child(source: Path, targets: Sequence[Path], flush: int) -> None:
    """The engine, in a process of its own so that it is measured as the others are."""
    from rehost_payload.capture.copy import run_copy
    from rehost_payload.capture.copy_pipeline import CopySettings
    from rehost_payload.capture.copy_source import OpenSource
    from rehost_payload.capture.model import CaptureFile, CapturePlan, CaptureUnit, Role, SourceRef
    from rehost_payload.repair.model import VolumeRef
    from rehost_payload.system.capture_target import TargetInfo
    from rehost_payload.system.direct import DirectSource
    from rehost_payload.system.directory_target import DirectoryTarget
    from rehost_payload.system.handles import FileDisk, open_readable
    from rehost_payload.system.protocol import DiskInfo

    class Opener:
        def open(self, file: CaptureFile) -> OpenSource:
            path = source / file.source.path
            info = DiskInfo(str(path), path.stat().st_size, 512)
            disk = FileDisk(info, open_readable(path))
            direct = DirectSource(disk)

            def close() -> None:
                direct.close()
                disk.close()

            return OpenSource(direct, str(path.stat().st_mtime_ns), close=close)

    volume = VolumeRef("", 0, 0, "ext4")
    files = tuple(
        CaptureFile(SourceRef(volume, p.name), p.name, f"vm/{p.name}", Role.DISK, p.stat().st_size)
        for p in sorted(source.iterdir())
    )
    plan = CapturePlan("Rehost-bench", "bench", (CaptureUnit("vm", "vm", "vm", "machine", files),))
    folders = [DirectoryTarget(t, TargetInfo(str(t), str(t), "ext4")) for t in targets]
    result = run_copy(plan, Opener(), folders, settings=CopySettings(flush_every=flush))
    if result.state.good_copies != len(targets):
        raise SystemExit(f"not complete: {result.state}")
    print(*disk_bytes("self"))


CONTENDERS: list[
    tuple[str, Callable[[Clock, Path, Sequence[Path]], None], bool, Callable[[int], int]]
] = [  # the last: passes over the data, one after the other, for so many copies
    ("rehost", rehost, True, lambda copies: 2),
    ("cp", cp, False, lambda copies: copies),
    ("cp, to all targets at once", cp_at_once, False, lambda copies: 1),
    ("rsync", plain_rsync, False, lambda copies: copies),
    ("rsync --checksum", rsync, False, lambda copies: copies),
    ("cp + sha256sum of source and copies", cp_and_sums, True, lambda copies: 2 * copies + 1),
    ("rsync --checksum, and again to compare", rsync_twice, True, lambda copies: 2 * copies),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=2048, help="MiB of source")
    parser.add_argument("--work", type=Path, help="where everything is made; default: a temporary folder")
    parser.add_argument(
        "--targets", type=Path, nargs=2, help="two folders on other disks; default: below --work"
    )
    parser.add_argument(
        "--rates",
        type=int,
        nargs=2,
        metavar=("SOURCE", "TARGET"),
        help="MB/s of three disks made for this, one with the source and two targets (as root; --work: /dev/shm)",
    )
    parser.add_argument(
        "--memory", type=int, default=256, help="with --rates: MiB for programs and page cache"
    )
    parser.add_argument(
        "--flush",
        type=int,
        default=1024,
        help="MiB that Rehost writes between two flushes; default as in a capture",
    )
    parser.add_argument(
        "--cut", type=int, metavar="PERCENT", help="only what it costs to go on after a kill there"
    )
    parser.add_argument("--only", help="contenders with this in their names")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", type=Path, nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], options.child[1:], options.flush * MIB)
        return
    missing = [tool for tool in ("rsync", "cp", "sha256sum") if shutil.which(tool) is None]
    if missing:
        raise SystemExit(f"not installed: {', '.join(missing)}")
    figures: list[Figure] = []
    with ExitStack() as stack:
        work = Path(tempfile.mkdtemp(prefix="rehost-bench-", dir=options.work))
        stack.callback(shutil.rmtree, work)
        size = options.size * MIB
        if options.rates:
            speeds = [options.rates[0], options.rates[1], options.rates[1]]
            specs = [
                DiskSpec(name, size * 11 // 10 + 64 * MIB, rate * 10**6)
                for name, rate in zip(("source", "first", "second"), speeds, strict=True)
            ]
            made = stack.enter_context(slow_disks(work, specs, options.memory * MIB))
            source, bases, prepare = made.folders[0] / "vm", made.folders[1:], made.join
        else:
            source, prepare = work / "source", None
            bases = options.targets or [work / "a", work / "b"]
        make_source(source, size)
        total = sum(p.stat().st_size for p in source.iterdir())
        if options.cut:
            targets = [base / "bench" for base in bases]
            for target in targets:
                target.mkdir(parents=True)
            print(resumed(source, targets, total, options.flush, options.cut))
            return
        for name, contender, verified, passes in CONTENDERS:
            for copies in (1, 2):
                if (options.only or "") not in name or (copies == 1 and contender is cp_at_once):
                    continue
                targets = [base / f"bench-{os.getpid()}" for base in bases[:copies]]
                for target in targets:
                    target.mkdir(parents=True)
                drop_caches(source)
                clock = Clock(prepare, options.flush)
                contender(clock, source, targets)
                costs = (clock.seconds, clock.cpu, clock.memory)
                figures.append(Figure(name, copies, verified, total, *costs, passes(copies)))
                print(figures[-1].line, flush=True)
                for target in targets:
                    shutil.rmtree(target)
                os.sync()
    if options.json:
        options.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=1))


if __name__ == "__main__":
    main()
