#!/usr/bin/env python3
"""How long a driver package takes to be injected, beside hivexregedit merging the same keys into the same hive.

    .venv/bin/python tests/bench/bench_inject.py [--hive SYSTEM] [--runs 5] [--json FILE]

Without --hive the real hives of the corpus are taken, where they are at hand, and a generated one of 60 MB. Ours is the whole
way from the package's bytes to a verified hive: INF, checks, edits, hivex, comparison with the original. hivexregedit
only merges, and is given the keys.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rehost_payload.drivers.inject import inject
from rehost_payload.drivers.inject_model import Injection
from rehost_payload.formats.hive import DeleteKey, Hive, HiveEdit, SetValue
from rehost_payload.formats.inf_target import Target
from rehost_payload.system.hivex_edit import edit_hive
from support import hives, regf
from support.driver_packages import IDS, database_hive, two_services
from support.regf import K, V

TARGETS = {
    "win7-x86": Target(6, 1, 7601, 1),
    "win81-x64": Target(6, 3, 9600, 1),
    "win10-1709-x64": Target(10, 0, 16299, 1),
}
SERVER_2016 = Target(10, 0, 14393)


@dataclass(frozen=True)
class Figure:
    hive: str
    bytes: int
    edits: int
    ours: tuple[float, ...]
    peer: tuple[float, ...]

    def line(self) -> str:
        peer = f"{statistics.median(self.peer):8.2f} s" if self.peer else "        -"
        ours = statistics.median(self.ours)
        return f"{self.hive:<16} {self.bytes / 1e6:7.1f} MB {self.edits:4} edits {ours:8.2f} s {peer}"


def generated(megabytes: int) -> bytes:
    """A hive of about this size, of Windows 10's kind."""
    devices = [
        K(f"dev{i}", keys=[K(f"inst{j}", values=[V("data", 3, bytes([j]) * 600)]) for j in range(20)])
        for i in range(megabytes * 60)
    ]
    base = K("ROOT", keys=[K("ControlSet001", keys=[K("Enum", keys=[K("PCI", keys=devices)])])])
    keys = {
        path: {
            name: value for (p, name), value in hives.values(database_hive()).items() if p == path and name
        }
        for path, _ in hives.values(database_hive())
        if path
    }
    return hives.make_hive(keys, regf.hive(base))


def places(chosen: Path | None) -> Iterator[tuple[str, bytes, Target]]:
    if chosen is not None:
        yield chosen.name, chosen.read_bytes(), SERVER_2016
        return
    default = Path(__file__).resolve().parents[3] / "shared" / "corpus"
    folder = Path(os.environ.get("REHOST_CORPUS") or default) / "hives"
    if folder.is_dir():
        from support.real_windows import clean_hive

        for name, target in TARGETS.items():
            yield name, clean_hive(name), target
    else:
        print(f"no real hives: {folder} is absent (REHOST_CORPUS)", file=sys.stderr)
    yield "generated", generated(60), SERVER_2016


def whole(data: bytes, target: Target) -> Injection:
    injection = inject(two_services(), IDS, target, Hive.parse(data), lambda path: None)
    edit_hive(data, injection.edits)
    return injection


def as_reg(edits: tuple[HiveEdit, ...]) -> str:
    """The edits as a file that hivexregedit merges; every value as hex, so that nothing is left to its reading."""
    lines = ["Windows Registry Editor Version 5.00", ""]
    made: set[tuple[str, ...]] = set()
    for edit in edits:
        for length in range(1, len(edit.key)):  # it makes no keys above those that it is given
            if edit.key[:length] not in made and not isinstance(edit, DeleteKey):
                made.add(edit.key[:length])
                lines += [f"[\\{chr(92).join(edit.key[:length])}]", ""]
        if isinstance(edit, DeleteKey):
            lines += [f"[-\\{chr(92).join(edit.key)}]", ""]
        elif isinstance(edit, SetValue):
            name = f'"{edit.name}"' if edit.name else "@"
            lines += [f"[\\{chr(92).join(edit.key)}]", f"{name}=hex({edit.type:x}):{edit.data.hex(',')}", ""]
    return "\n".join(lines)


def timed(runs: int, work: Callable[[], object]) -> tuple[float, ...]:
    seconds = []
    for _ in range(runs):
        started = time.monotonic()
        work()
        seconds.append(time.monotonic() - started)
    return tuple(seconds)


def measure(name: str, data: bytes, target: Target, runs: int, folder: Path) -> Figure:
    edits = whole(data, target).edits
    peer: tuple[float, ...] = ()
    if shutil.which("hivexregedit"):
        merge, hive = folder / "merge.reg", folder / "SYSTEM"
        merge.write_text(as_reg(edits), encoding="utf-8")

        def merged() -> None:
            hive.write_bytes(data)
            subprocess.run(["hivexregedit", "--merge", "--prefix", "", str(hive), str(merge)], check=True)

        peer = timed(runs, merged)
    return Figure(name, len(data), len(edits), timed(runs, lambda: whole(data, target)), peer)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hive", type=Path, help="a SYSTEM hive that is not dirty")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    options = parser.parse_args()
    print(f"{'hive':<16} {'size':>10} {'':>10} {'ours':>10} {'hivexregedit':>14}")
    figures = []
    with tempfile.TemporaryDirectory(prefix="rehost-bench-") as folder:
        for name, data, target in places(options.hive):
            figures.append(measure(name, data, target, options.runs, Path(folder)))
            print(figures[-1].line(), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak:.0f} MiB")
    if options.json:
        found = [{"hive": f.hive, "bytes": f.bytes, "ours": f.ours, "hivexregedit": f.peer} for f in figures]
        options.json.write_text(json.dumps({"peak_mib": round(peak), "injections": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
