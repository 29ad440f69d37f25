#!/usr/bin/env python3
"""Time, memory and size of `rehost build --media`, beside mkwinpeimg (wimlib) and genisoimage on the same source.

    .venv/bin/python tests/bench/bench_winpe.py [--boot-mb 600] [--install-gb 5] [--work DIR] [--json FILE]

The source is an ISO as Windows media are: a boot.wim of real programs of this machine, compressed by LZX, and a large
installation image that nobody needs. mkwinpeimg wants mounted or unpacked media, so unpacking (7-Zip) is a row of its
own; it starts by BIOS only and changes image 2. "cold" is after the kernel's cache was dropped, which needs root.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support import windows_media
from support.wim_files import wimlib, write_files

_DROP = Path("/proc/sys/vm/drop_caches")


def measured(command: Sequence[str | Path], cwd: Path | None = None) -> dict[str, float]:
    """Wall seconds, and the largest resident size of the process and its children in MB."""
    script = (
        "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode;"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
    )
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, command)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{command[0]} failed: {done.stderr[-500:]}")
    row = {"seconds": round(time.monotonic() - begun, 2), "rss_mb": int(done.stdout.split()[-1]) // 1024}
    print(Path(command[0]).name, row, file=sys.stderr)
    return row


def cold() -> bool:
    """Drops the page cache; False where that is not allowed."""
    os.sync()
    try:
        _DROP.write_text("3")
    except OSError:
        return False
    return True


def programs(target: Path, megabytes: int) -> int:
    """Real libraries and programs of this machine as a WinPE tree of about that size; the number of files."""
    rest, count = megabytes << 20, 0
    places = [Path("/usr/lib/x86_64-linux-gnu"), Path("/usr/bin"), Path("/usr/lib/python3"), Path("/usr/lib")]
    for place in places:
        for path in sorted(p for p in place.rglob("*") if p.is_file() and not p.is_symlink()):
            size = path.stat().st_size
            if size > rest or rest <= 0:
                continue
            copy = target / "Windows/System32" / path.relative_to("/usr")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            rest -= size
            count += 1
    return count


def make_source(work: Path, boot_mb: int, install_gb: float) -> Path:
    pe = work / "pe"
    write_files(pe, windows_media.winpe_tree())
    print(f"boot image of {programs(pe, boot_mb)} files of this machine", file=sys.stderr)
    folder = windows_media.media_folder(work / "media", _capture(work / "boot.wim", pe))
    noise = random.Random(1).randbytes(1 << 20)
    with (folder / "sources/install.wim").open("wb") as f:
        for _ in range(int(install_gb * 1024)):
            f.write(noise)
    iso = work / "SERVER.iso"
    subprocess.run(
        ["genisoimage", "-quiet", "-udf", "-iso-level", "3", "-J", "-joliet-long", "-allow-limited-size", "-D", "-N",
         "-relaxed-filenames", "-b", "boot/etfsboot.com", "-no-emul-boot", "-boot-load-size", "8",
         "-eltorito-alt-boot", "-e", "efi/microsoft/boot/efisys.bin", "-no-emul-boot", "-V", "SERVER",
         "-o", iso, folder],
        check=True, capture_output=True,
    )  # fmt: skip
    shutil.rmtree(pe)
    shutil.rmtree(folder)
    return iso


def _capture(wim: Path, pe: Path) -> Path:
    # level 20: the chunks are of the same kind, made in a fifth of the time; Setup has all that WinPE has
    for verb, name, options in (
        ("capture", "Microsoft Windows PE (x64)", ("--flags=9", "--compress=LZX:20")),
        ("append", "Microsoft Windows Setup (x64)", ("--flags=2", "--boot")),
    ):
        if verb == "append":
            write_files(pe, {"setup.exe": b"MZ", "sources/setup.exe": b"MZ"})
        subprocess.run(
            ["wimlib-imagex", verb, pe, wim, name, *options], check=True, stdout=subprocess.DEVNULL
        )
    for image in ("1", "2"):
        wimlib("info", wim, image, "--image-property=WINDOWS/ARCH=9", "--image-property=WINDOWS/VERSION/MAJOR=10",
               "--image-property=WINDOWS/VERSION/MINOR=0", "--image-property=WINDOWS/VERSION/BUILD=20348")  # fmt: skip
    return wim


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--boot-mb", type=int, default=600, help="uncompressed size of the boot image")
    parser.add_argument("--install-gb", type=float, default=5.0)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    for program in ("genisoimage", "mkwinpeimg", "wimlib-imagex", "7z"):
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is not installed")
    with tempfile.TemporaryDirectory(dir=options.work, prefix="bench-winpe-") as name:
        work = Path(name)
        iso = make_source(work, options.boot_mb, options.install_gb)
        python = windows_media.embeddable(
            work / "python.zip", more={f"data{n}": random.Random(n).randbytes(1 << 20) for n in range(20)}
        )
        rehost = Path(sys.executable).with_name("rehost")
        build = [rehost, "build", "--media", iso, "--python-embed", python, "--no-drivers", "-q",
                 "--cache", work / "cache", "-o", work / "rehost.iso"]  # fmt: skip
        rows: dict[str, dict[str, float]] = {}
        if cold():
            rows["rehost build, cold"] = measured(build)
        rows["rehost build, again"] = measured(build)
        rows["rehost media inspect"] = measured([rehost, "media", "inspect", iso])
        overlay = work / "overlay/Rehost"
        wimlib("extract", _boot_wim(work), "1", "/Rehost", f"--dest-dir={overlay.parent}", "--no-acls")
        cold()
        rows["unpack (7-Zip), boot files and boot.wim"] = measured(
            [
                "7z",
                "x",
                "-y",
                f"-o{work}/unpacked",
                iso,
                "boot",
                "efi",
                "bootmgr",
                "bootmgr.efi",
                "sources/boot.wim",
            ]
        )
        other = work / "mkwinpeimg.iso"
        rows["mkwinpeimg --iso"] = measured(
            ["mkwinpeimg", "--iso", f"--windows-dir={work}/unpacked", f"--overlay={overlay.parent}",
             "--arch=amd64", f"--tmp-dir={work}/mkwinpeimg", other]
        )  # fmt: skip
        sizes = {p.name: round(p.stat().st_size / 1e6, 1) for p in (iso, work / "rehost.iso", other)}
    print(f"{'':<44}{'seconds':>9}{'RSS MB':>8}")
    for title, row in rows.items():
        print(f"{title:<44}{row['seconds']:>9}{row['rss_mb']:>8.0f}")
    print("MB: " + ", ".join(f"{name} {size:,.1f}" for name, size in sizes.items()))
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "megabytes": sizes}, indent=1))


def _boot_wim(work: Path) -> Path:
    subprocess.run(
        ["7z", "e", "-y", f"-o{work}/ours", work / "rehost.iso", "sources/boot.wim"],
        check=True,
        capture_output=True,
    )
    return work / "ours/boot.wim"


if __name__ == "__main__":
    main()
