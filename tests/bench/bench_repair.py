#!/usr/bin/env python3
"""How long it takes on a (virtual, emulated) server: start, survey, diagnosis, repair, undo.

    .venv/bin/python tests/bench/bench_repair.py [--iso out/rehost.iso] [--runs 3] [--json FILE]

Prints the median of the runs. QEMU emulates the processor here, so only figures of one machine compare with each
other; a real server is several times faster. "to menu" counts from the power switch, firmware included.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support import outside, product, windows
from support.disks import DiskLayout
from support.lab import make_lab
from support.qemu import Disk, Firmware, Machine

MENU = r"Number or letter|Nummer oder Buchstabe"


@dataclass(frozen=True)
class Figure:
    what: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def line(self) -> str:
        spread = f"  ({min(self.seconds):.1f} - {max(self.seconds):.1f})" if len(self.seconds) > 1 else ""
        return f"{self.what:<48} {self.median:8.1f} s{spread}"


def boot(medium: product.Product, work: Path, firmware: Firmware, usb: bool) -> float:
    """From power on to the menu, from the ISO."""
    place = {"usb_stick": medium.iso} if usb else {"cdrom": medium.iso}
    with Machine(work, firmware=firmware, name="bench", **place) as vm:
        vm.wait_for("REHOST-BOOT", 240)
        return vm.elapsed


def direct_menu(medium: product.Product, work: Path, disk: DiskLayout) -> float:
    """From power on to the menu's prompt on the serial console, without a boot loader."""
    machine = Machine(
        work,
        firmware="uefi",
        kernel=medium.kernel,
        initrd=medium.initrd,
        append=product.CONSOLE,
        disks=[Disk(disk.path, "nvme", snapshot=True)],
        name="bench",
    )
    with machine as vm:
        vm.wait_for(MENU, 240)
        return vm.elapsed


def repeated(what: str, runs: int, measure: Callable[[], float]) -> Figure:
    figure = Figure(what, tuple(measure() for _ in range(runs)))
    print(figure.line(), flush=True)
    return figure


def commands(medium: product.Product, work: Path, runs: int) -> list[Figure]:
    """The commands on a running machine, on a disk that was restored to other hardware."""
    healthy = windows.gpt_server(work / "healthy.img")
    healthy_copy = windows.copy_disk(healthy, work / "intact.img")
    stale = windows.restored(healthy)
    lab = make_lab(medium, "uefi", work)
    times: dict[str, list[float]] = {}

    def timed(vm: Machine, command: str, name: str, codes: tuple[int, ...] = (0,)) -> None:
        started = time.monotonic()
        code, output = vm.shell(command, 180)
        times.setdefault(name, []).append(time.monotonic() - started)
        if code not in codes:
            raise SystemExit(f"{command} ended with {code}:\n{output[-3000:]}")

    for _ in range(runs):
        server = windows.copy_disk(stale, work / "server.img")
        stick = product.rehost_volume(work / "stick.img")
        disks = [Disk(server.path, "nvme", serial="SERVER"), Disk(stick.path, "virtio-blk", serial="STICK")]
        with lab.machine(work, disks) as vm:
            timed(vm, "python3 -c pass", "start of Python")
            timed(vm, "rehost survey --json >/tmp/survey.json", "rehost survey")
            timed(vm, "rehost diagnose >/dev/null", "rehost diagnose (stale store)", (0, 3))
            timed(vm, "rehost repair --yes", "rehost repair (stale store, verified)")
            timed(vm, "rehost verify >/dev/null", "rehost verify", (0, 3))
            timed(vm, "rehost undo --yes", "rehost undo")
            vm.quit()
        with lab.machine(work, [Disk(healthy_copy.path, "nvme", serial="SERVER", snapshot=False)]) as vm:
            timed(vm, "rehost repair --yes", "rehost repair (healthy, nothing written)")
    return [Figure(name, tuple(seconds)) for name, seconds in times.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--iso", type=Path, help="measure this ISO instead of building one")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    options = parser.parse_args()
    if options.iso:
        os.environ["REHOST_ISO"] = str(options.iso)
    figures = []
    with tempfile.TemporaryDirectory(prefix="rehost-bench-") as folder:
        work = Path(folder)
        medium = product.provide(work, work)
        if medium.build_seconds:
            figures.append(Figure("rehost build", (medium.build_seconds,)))
            print(figures[-1].line())
        size = medium.iso.stat().st_size
        print(f"{'size of the ISO':<48} {size / 1e6:8.1f} MB")
        disk = windows.gpt_server(work / "disk.img")
        starts: list[tuple[str, Firmware, bool]] = [
            ("BIOS, CD", "bios", False),
            ("BIOS, USB stick", "bios", True),
            ("UEFI, CD", "uefi", False),
            ("UEFI, USB stick", "uefi", True),
            ("Secure Boot, CD", "secure-boot", False),
        ]
        for name, firmware, usb in starts:

            def once(firmware: Firmware = firmware, usb: bool = usb) -> float:
                return boot(medium, work, firmware, usb)

            figures.append(repeated(f"power on to ready: {name}", options.runs, once))
        figures.append(
            repeated("power on to menu: UEFI, kernel", options.runs, lambda: direct_menu(medium, work, disk))
        )
        found = commands(medium, work, options.runs)
        for figure in found:
            print(figure.line())
        figures += found
        assert outside.complaints(disk) == []
    if options.json:
        data = {f.what: {"median": f.median, "runs": f.seconds} for f in figures}
        options.json.write_text(json.dumps({"iso_bytes": size, "seconds": data}, indent=1) + "\n")


if __name__ == "__main__":
    main()
