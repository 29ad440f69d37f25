#!/usr/bin/env python3
"""Time of `rehost drivers check` for a folder of many packages, and of osslsigncode for the same files.

    .venv/bin/python tests/bench/bench_drivers.py [--packages 300] [--size 400] [--sample 20] [--json FILE]

The packages are made here: an INF with 40 IDs, a driver of --size KB, a catalog with a real signature. The peer does less
(one signature and one hash per start) and is started for each file, which is the only way it has; its figure is that of
a sample, scaled.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rehost_builder.drivers.bundle import collect
from rehost_payload.drivers.check import Kind, check_folder
from support.infs import encoded, package
from support.packages import OURS, driver, put
from support.signing import root


def make(folder: Path, count: int, size: int) -> None:
    for i in range(count):
        models = "\n".join(
            rf"%Card.DeviceDesc% = Card_Inst, PCI\VEN_9005&DEV_{0x1000 + i:04X}&SUBSYS_{n:04X}9005"
            for n in range(40)
        )
        inf = encoded(package(models=models, version=f"01/02/2020,1.2.3.{i}"), "cp1252")
        fill = random.Random(i).randbytes(size << 10)
        put(folder / f"p{i:04}", inf=inf, sys=driver(version=f"1.2.3.{i}", fill=fill))


def peer(folder: Path, sample: int, count: int, work: Path) -> float | None:
    """Seconds for all packages: the catalog's signature, and the driver in it."""
    if shutil.which("osslsigncode") is None:
        return None
    authority = work / "root.pem"
    authority.write_bytes(root().pem)
    start = time.perf_counter()
    for place in sorted(folder.iterdir())[:sample]:
        verify = [
            "osslsigncode",
            "verify",
            "-CAfile",
            authority,
            "-catalog",
            "exraid.cat",
            "-in",
            "exraid.sys",
        ]
        done = subprocess.run(verify, cwd=place, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"osslsigncode does not accept {place.name}: {done.stdout[-500:]}")
    return (time.perf_counter() - start) / sample * count


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--packages", type=int, default=300)
    parser.add_argument("--size", type=int, default=400, help="KB of a driver")
    parser.add_argument("--sample", type=int, default=20, help="packages that osslsigncode gets")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rehost-bench-") as name:
        work = Path(name)
        folder = work / "packages"
        make(folder, options.packages, options.size)
        start = time.perf_counter()
        reports = check_folder(folder, OURS)
        checked = time.perf_counter() - start
        assert [r.kind for r in reports] == [Kind.USABLE] * options.packages
        start = time.perf_counter()
        bundle = collect([folder], work / "bundle", microsoft=OURS)
        collected = time.perf_counter() - start
        figures = {
            "packages": options.packages,
            "megabytes": round(bundle.size / 1e6, 1),
            "check_seconds": round(checked, 2),
            "collect_seconds": round(collected, 2),
            "osslsigncode_seconds": peer(folder, options.sample, options.packages, work),
            "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }
    for key, value in figures.items():
        print(f"{key:<22}{value if value is None or isinstance(value, int) else round(value, 2)}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
