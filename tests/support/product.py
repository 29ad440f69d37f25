"""Starts the product under test: builds the ISO once, boots it against disks, and collects what it reports."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from support import disks, fat_image, packages
from support.disks import MIB, DiskLayout, PartitionLayout, PartitionSpec
from support.qemu import Bus, Disk, Firmware, Machine

ROOT = Path(__file__).resolve().parents[2]
Boot = Literal["cd", "usb", "kernel"]
# with what follows the word, so that half a word is not taken for one
RESULT = re.compile(r"REHOST-RESULT (\d+) (\S+)\s")
CONSOLE = "console=tty0 console=ttyS0,115200n8"


@dataclass(frozen=True)
class Product:
    """The ISO, and the kernel and initramfs that are on it."""

    iso: Path
    kernel: Path
    initrd: Path
    build_seconds: float = 0.0
    drivers: Path | None = None
    """The driver packages that are on it (`packages.for_medium`)."""

    @property
    def described(self) -> dict[str, Any]:
        """build.json of the medium."""
        found: dict[str, Any] = json.loads(_contents(self.iso, "/build.json"))
        return found


def provide(work: Path, shared: Path) -> Product:
    """The ISO named by REHOST_ISO, or a new one built with `rehost build`.

    Test processes that run side by side build it once, in ``shared``.
    """
    named = os.environ.get("REHOST_ISO")
    started = time.monotonic()
    iso = Path(named).resolve() if named else _built(shared)
    seconds = time.monotonic() - started
    kernel, initrd = work / "vmlinuz", work / "initrd.img"
    _extract(iso, {"/boot/vmlinuz": kernel, "/boot/initrd.img": initrd})
    if named:
        return Product(iso, kernel, initrd)
    return Product(iso, kernel, initrd, seconds, shared / "drivers")


def _built(folder: Path) -> Path:
    iso = folder / "rehost.iso"
    with (folder / "rehost.iso.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if iso.exists():
            return iso
        program = Path(sys.executable).with_name("rehost")
        packages.for_medium(folder / "drivers")
        command = [program, "build", "-q", "--drivers", folder / "drivers", "-o", iso]
        # signed, but not by Microsoft
        command.append("--allow-unverified-drivers")
        result = subprocess.run([str(c) for c in command], cwd=ROOT, capture_output=True, text=True)
        if result.returncode:
            raise AssertionError(f"rehost build ended with {result.returncode}: {result.stderr[-3000:]}")
    return iso


def _extract(iso: Path, files: Mapping[str, Path]) -> None:
    import pycdlib

    image = pycdlib.PyCdlib()
    image.open(str(iso))
    try:
        for name, target in files.items():
            image.get_file_from_iso(str(target), rr_path=name)
    finally:
        image.close()


def _contents(iso: Path, name: str) -> bytes:
    import io

    import pycdlib

    image = pycdlib.PyCdlib()
    image.open(str(iso))
    try:
        data = io.BytesIO()
        image.get_file_from_iso_fp(data, rr_path=name)
        return data.getvalue()
    finally:
        image.close()


# --- the operator's volume


def answer_file(**orders: str | bool) -> bytes:
    lines = ["[run]"]
    for name, value in orders.items():
        text = str(value).lower() if isinstance(value, bool) else json.dumps(value)
        lines.append(f"{name} = {text}")
    return "\n".join(lines).encode() + b"\n"


def rehost_volume(path: Path, files: Mapping[str, bytes] | None = None, fs: str = "fat32") -> DiskLayout:
    """A stick with one volume labelled REHOST."""
    spec = PartitionSpec("rehost", 48 * MIB, fs, "0c", files or {}, label="REHOST")
    return disks.make_disk(path, [spec], style="mbr", boot_code=b"")


def usb_stick(path: Path, iso: Path, files: Mapping[str, bytes]) -> DiskLayout:
    """A stick as `rehost usb` writes it, with ``files`` on its volume labelled REHOST."""
    with path.open("wb") as image:
        image.truncate(512 * MIB)
    program = Path(sys.executable).with_name("rehost")
    command = [str(program), "usb", str(iso), str(path), "--yes", "--json"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise AssertionError(f"rehost usb ended with {result.returncode}: {result.stderr[-3000:]}")
    size = json.loads(result.stdout)["data_bytes"]
    part = PartitionLayout("rehost", 3, 512 * MIB - size, size, "0c", "fat32")
    disk = DiskLayout(path, "mbr", 512 * MIB, 512, (part,))
    disks.write_files(disk, part, files)
    return disk


def reports(volume: DiskLayout) -> dict[str, bytes]:
    """Everything below \\Rehost on the volume."""
    part = volume["rehost"]
    names = fat_image.listing(volume.path, part.offset)
    return {
        n: fat_image.read(volume.path, part.offset, n)
        for n in names
        if n.lower().startswith("rehost/") and not n.endswith("/")
    }


# --- unattended runs


@dataclass(frozen=True)
class Run:
    """How an unattended run ended. Seconds count from the start of QEMU."""

    code: int
    word: str
    console: str
    to_start: float
    to_result: float
    to_exit: float
    files: Mapping[str, bytes] = field(default_factory=dict)

    def file(self, name: str) -> bytes:
        """A file of the run's folder on the volume labelled REHOST, by its last name."""
        found = [data for path, data in self.files.items() if path.rsplit("/", 1)[-1] == name]
        if len(found) != 1:
            raise AssertionError(f"{len(found)} files {name} in {sorted(self.files)}")
        return found[0]

    @property
    def report(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(self.file("report.json"))
        return data


def run_unattended(
    product: Product,
    work: Path,
    servers: Sequence[DiskLayout],
    *,
    bus: Bus = "ahci",
    firmware: Firmware = "bios",
    boot: Boot = "kernel",
    mode: str = "repair",
    yes: bool = True,
    memory: int = 1024,
    vars: Path | None = None,
    stick: bool | DiskLayout = True,
    name: str = "run",
    timeout: float = 240,
) -> Run:
    """Boots the product against the disks, which it may change, until it has switched the machine off.

    From USB the stick is one that `rehost usb` has made, with its own volume for orders and reports.
    From CD or USB the orders are in the answer file, as on a real server; with ``boot`` "kernel" they are on the
    kernel command line. ``stick``: a volume labelled REHOST is there and gets the reports; one of an earlier run may be
    given, for what is on it.
    """
    work.mkdir(parents=True, exist_ok=True)
    machine_disks = [
        Disk(s.path, bus, bootindex=i + 2, serial=f"SERVER{i}", sector_size=s.sector_size)
        for i, s in enumerate(servers)
    ]
    volume = stick if isinstance(stick, DiskLayout) else None
    if volume is None and (stick or boot != "kernel"):
        orders = answer_file(mode=mode, yes=yes, language="en", after="poweroff")
        files = {"rehost.toml": orders} if boot != "kernel" else {}
        path = work / f"{name}-stick.img"
        volume = usb_stick(path, product.iso, files) if boot == "usb" else rehost_volume(path, files)
    if volume is not None and boot != "usb":
        # as a disk: OVMF and SeaBIOS start from the first stick only
        machine_disks.append(Disk(volume.path, "virtio-blk", serial="STICK"))
    append = f"{CONSOLE} rehost.run={mode} rehost.poweroff=1" + (" rehost.yes=1" if yes else "")
    direct: dict[str, Any] = {"kernel": product.kernel, "initrd": product.initrd, "append": append}
    machine = Machine(
        work,
        firmware=firmware,
        disks=machine_disks,
        cdrom=product.iso if boot == "cd" else None,
        usb_stick=volume.path if volume and boot == "usb" else None,
        memory=memory,
        vars=vars,
        name=name,
        **(direct if boot == "kernel" else {}),
    )
    with machine as vm:
        vm.wait_for(r"REHOST-BOOT", timeout)
        to_start = vm.elapsed
        match = vm.wait_for(RESULT.pattern, timeout)
        to_result = vm.elapsed
        vm.wait_exit(60)
        console, to_exit = vm.text, vm.elapsed
    kept = reports(volume) if volume else {}
    return Run(int(match[1]), match[2], console, to_start, to_result, to_exit, kept)
