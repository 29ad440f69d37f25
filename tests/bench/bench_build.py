#!/usr/bin/env python3
"""Time and size of a build, and time from the power switch to the menu for each way to start the medium.

    .venv/bin/python tests/bench/bench_build.py [--cold] [--boot bios-cd ...] [--memory 512] [--json FILE]

"cached" builds from the packages of the last build; --cold measures one from nothing as well, which fetches some
130 MB. QEMU emulates the processor, so a start takes several times as long as on a server.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rehost_builder.debian.build import BuildResult, DebianOptions, build_debian_iso
from rehost_builder.progress import Progress
from support import qemu
from support.qemu import Firmware, Machine

MENU = r"Number or letter|Nummer oder Buchstabe"
WAYS: dict[str, tuple[Firmware, bool]] = {
    "bios-cd": ("bios", False),
    "bios-usb": ("bios", True),
    "uefi-cd": ("uefi", False),
    "uefi-usb": ("uefi", True),
    "secure-boot-cd": ("secure-boot", False),
    "secure-boot-usb": ("secure-boot", True),
}


def build(work: Path, name: str, cache: Path | None, offline: bool) -> BuildResult:
    options = DebianOptions(output=work / f"{name}.iso", cache=cache, offline=offline)
    return build_debian_iso(options, Progress({}, quiet=True))


def start(iso: Path, work: Path, way: str, memory: int) -> tuple[float, float, float]:
    """Seconds from power on to the first process's end and to the menu, and the kernel's own clock at the former.

    The menu is on the screen; on the serial line it comes after Enter, which is what is timed: while both are
    being started, so the figure is a little too high.
    """
    firmware, usb = WAYS[way]
    place = {"usb_stick": iso} if usb else {"cdrom": iso}
    with Machine(work, firmware=firmware, memory=memory, name=way, **place) as vm:
        kernel = float(vm.wait_for(r"REHOST-BOOT (\d+\.\d+)\s", 300)[1])
        booted = vm.elapsed
        vm.wait_for("press Enter", 60)
        vm.send("\r")
        vm.wait_for(MENU, 120)
        return booted, vm.elapsed, kernel


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--iso", type=Path, help="start this one instead of building")
    parser.add_argument("--cold", action="store_true", help="also build from nothing (needs a network)")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--memory", type=int, default=512, help="of the virtual machine, in MiB")
    parser.add_argument("--boot", nargs="*", choices=WAYS, default=list(WAYS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures: dict[str, object] = {"load": os.getloadavg()[0], "cores": os.cpu_count()}

    with tempfile.TemporaryDirectory(prefix="rehost-bench-") as name:
        work = Path(name)
        iso = options.iso
        if iso is None or options.cold:
            builds = []
            if options.cold:
                builds.append(("from nothing", build(work, "cold", work / "cache", False)))
            cache = work / "cache" if options.cold else None
            builds += [("cached", build(work, f"warm{i}", cache, True)) for i in range(options.runs)]
            for what, result in builds:
                steps = ", ".join(f"{title} {seconds:.1f}" for title, seconds in result.steps.items())
                print(f"build {what:<16} {result.seconds:8.1f} s   ({steps})", flush=True)
                figures.setdefault("builds", []).append({"what": what, "seconds": result.seconds})  # type: ignore[attr-defined]
            if len({result.sha256 for _, result in builds}) > 1:
                raise SystemExit("the builds differ, and must not")
            iso = iso or builds[-1][1].iso
            print(f"packages               {builds[-1][1].packages:8d}")
        print(f"ISO                    {iso.stat().st_size / 1e6:8.1f} MB")
        figures["iso_bytes"] = iso.stat().st_size

        missing = qemu.missing_tools()
        if missing and options.boot:
            raise SystemExit(f"cannot start it: {', '.join(missing)} missing (tools/setup.sh test)")
        starts: dict[str, list[tuple[float, float, float]]] = {}
        for way in options.boot:
            for _ in range(options.runs):
                figure = start(iso, work, way, options.memory)
                starts.setdefault(way, []).append(figure)
                print(
                    f"start {way:<16} {figure[1]:8.1f} s to the menu, {figure[0]:.1f} s to its program "
                    f"(kernel and drivers {figure[2]:.1f} s)",
                    flush=True,
                )
        figures["starts"] = starts
    print(f"load of this machine at the beginning {figures['load']:.1f} on {figures['cores']} cores")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
