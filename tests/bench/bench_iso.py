"""Writing of media beside xorriso: `python tests/bench/bench_iso.py [FOLDER]`; the medians of three runs each, in turn.

Two trees: 5,000 small files, and one file of 2 GB. Sources are read once before, so that both find them in memory.
Ours has UDF, ISO 9660 and Joliet, and the SHA-256 of it all; xorriso, which knows no UDF, has the other two.
"""

from __future__ import annotations

import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rehost_builder.media.udf import BootEntries, write_winpe_iso

MIB = 1 << 20


def trees(folder: Path) -> dict[str, Path]:
    rng = random.Random(1)
    many, one = folder / "many", folder / "one"
    for number in range(5000):
        path = many / f"d{number // 100:02}" / f"file{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(rng.randrange(100, 20_000)))
    one.mkdir()
    with (one / "big.wim").open("wb") as f:
        block = rng.randbytes(MIB)
        for number in range(2048):
            f.write(number.to_bytes(4, "little") + block[4:])
    return {"5,000 files": many, "one file of 2 GB": one}


def ours(tree: Path, target: Path) -> None:
    files = {p.relative_to(tree).as_posix(): p for p in sorted(tree.rglob("*")) if p.is_file()}
    write_winpe_iso(target, dict(files), BootEntries(bytes(4096), None), label="BENCH", epoch=1_700_000_000)


def xorriso(tree: Path, target: Path) -> None:
    subprocess.run(
        ["xorriso", "-as", "mkisofs", "-quiet", "-iso-level", "3", "-J", "-joliet-long", "-d", "-o", target, tree],
        check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    with target.open("rb+") as f:  # as ours: done when it is on the disk
        os.fsync(f.fileno())


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as name:
        folder = Path(name)
        for title, tree in trees(folder).items():
            for path in tree.rglob("*"):
                if path.is_file():
                    with path.open("rb") as f:
                        while f.read(MIB):
                            pass
            runs: dict[str, list[float]] = {}
            for writer in (xorriso, ours) * 3:
                target = folder / "out.iso"
                begun = time.monotonic()
                writer(tree, target)
                runs.setdefault(writer.__name__, []).append(time.monotonic() - begun)
                target.unlink()
            seconds = {name: statistics.median(times) for name, times in runs.items()}
            ratio = seconds["ours"] / seconds["xorriso"]
            print(
                f"{title}: ours {seconds['ours']:.1f} s, xorriso {seconds['xorriso']:.1f} s, ratio {ratio:.2f}",
                flush=True,
            )
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
