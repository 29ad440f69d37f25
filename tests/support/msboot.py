"""The judge that is not ours: Microsoft's boot manager, started from a copy of a disk, and what it says.

Its files come from the folder named by REHOST_MSBOOT (tests/msboot/README.md says how to fill it). On the copy

* the boot store is switched to text without recovery, so that the verdict can be read and is that of the entry
  that was asked for: `graphicsmodedisabled` in the boot manager and its default entry, `recoveryenabled` off;
* SYSTEM of every Windows that has one is replaced by noise. Only a boot manager that has found its store, entry,
  device, path, a winload with a valid signature, and through it osdevice and systemroot gets as far as to complain
  of that file. This is the verdict `Verdict.reached_windows`.

UEFI: the firmware copies the text console to the serial port. BIOS: the text screen lies in memory.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from support import disks, fat_image, hives, stores, windows
from support.disks import DiskLayout, PartitionLayout
from support.qemu import Bus, Disk, Firmware, Machine

_STATUS = re.compile(r"Status:\s*(0x[0-9a-fA-F]{8})")
_FILE = re.compile(r"File:\s*(\\\S.*?)\s*$", re.MULTILINE)
# what ends a start without the boot manager's own error screen
_OTHER_ENDS = re.compile(
    r"BOOTMGR is missing|Missing operating system|Operating System not found|No bootable device|Access Denied"
    r"|BdsDxe: No bootable option"
)
NOT_FOUND = 0xC000000F
NO_DEVICE = 0xC000000E
NO_PARTITION = 0xC0000225
UNREADABLE_REGISTRY = 0xC000014C
STALE = (NO_DEVICE, NO_PARTITION)


@dataclass(frozen=True)
class Verdict:
    """What the boot manager said. ``status`` is None where it never came to a status; ``text`` is the screen."""

    status: int | None
    file: str | None
    text: str
    seconds: float

    @property
    def reached_windows(self) -> bool:
        return self.status == UNREADABLE_REGISTRY and (self.file or "").lower() == (
            "\\windows\\system32\\config\\system"
        )

    def __str__(self) -> str:
        if self.status is None:
            end = _OTHER_ENDS.search(self.text)
            return end[0] if end else "no verdict"
        return f"{self.status:#010x}" + (f" {self.file}" if self.file else "")


class NoVerdict(AssertionError):
    """The boot manager said nothing that could be read in time."""


# --- Microsoft's files


@dataclass(frozen=True)
class Files:
    """The folder REHOST_MSBOOT."""

    root: Path

    def efi_versions(self) -> list[str]:
        return self._versions("efi", "bootmgfw.efi")

    def bios_versions(self) -> list[str]:
        if not self._all("bios/mbr.bin", "bios/ntfs_pbr.bin"):
            return []
        return self._versions("bios", "bootmgr")

    def media_versions(self) -> list[str]:
        return self._versions("media", "bootmgr")

    def _versions(self, folder: str, name: str) -> list[str]:
        found = [p.parent.name for p in (self.root / folder).glob(f"*/{name}")]
        return sorted(found, key=lambda v: [int(x) for x in re.findall(r"\d+", v)])

    def _all(self, *names: str) -> bool:
        return all((self.root / name).is_file() for name in names)

    def missing(self) -> list[str]:
        needed = ["winload/winload.efi", "winload/winload.exe", "boot.sdi"]
        return [name for name in needed if not self._all(name)]

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def boot_files(self, *, efi: str | None = None, bios: str | None = None) -> windows.BootFiles:
        """The genuine programs for a test disk; the recovery image holds winload and the sentinel."""
        boot = windows.BootFiles(
            winload_efi=self.read("winload/winload.efi"),
            winload_exe=self.read("winload/winload.exe"),
            sdi=self.read("boot.sdi"),
        )
        fonts = {p.name: p.read_bytes() for p in sorted((self.root / "fonts").glob("*.ttf"))}
        if fonts:
            boot = replace(boot, fonts=fonts)
        if efi:
            stl = self.read("boot.stl") if self._all("boot.stl") else None
            boot = replace(boot, bootmgfw=self.read(f"efi/{efi}/bootmgfw.efi"), stl=stl)
        if bios:
            boot = replace(
                boot,
                bootmgr=self.read(f"bios/{bios}/bootmgr"),
                mbr=self.read("bios/mbr.bin"),
                pbr=self.read("bios/ntfs_pbr.bin"),
            )
        return boot


def files() -> tuple[Files | None, str]:
    """The folder, or None and why not."""
    name = os.environ.get("REHOST_MSBOOT", "")
    if not name:
        return None, "REHOST_MSBOOT names no folder with Microsoft's boot files (tests/msboot/README.md)"
    found = Files(Path(name).expanduser())
    missing = found.missing()
    if missing:
        return None, f"REHOST_MSBOOT={name} lacks {', '.join(missing)} (tests/msboot/README.md)"
    return found, ""


def recovery_image(boot: windows.BootFiles) -> bytes:
    """A WIM with nothing but winload and a SYSTEM hive that cannot be read: enough to know that it was started."""
    with tempfile.TemporaryDirectory() as folder:
        system = Path(folder) / "tree" / "windows" / "system32"
        (system / "config").mkdir(parents=True)
        (system / "winload.efi").write_bytes(boot.winload_efi)
        (system / "winload.exe").write_bytes(boot.winload_exe)
        (system / "config" / "SYSTEM").write_bytes(windows.noise("sentinel", 8192))
        image = Path(folder) / "winre.wim"
        command = ["wimlib-imagex", "capture", str(Path(folder) / "tree"), str(image), "re", "--boot"]
        subprocess.run([*command, "--compress=XPRESS"], check=True, capture_output=True)
        return image.read_bytes()


def with_recovery(boot: windows.BootFiles) -> windows.BootFiles:
    return replace(boot, wim=recovery_image(boot))


# --- the copy


def _speak_text(store: bytes) -> bytes:
    """The store in text mode and without automatic recovery; one that hivex cannot read stays as it is."""
    if not hives.is_clean(store):
        return store
    try:
        found = stores.elements(store)
        kinds = stores.object_types(store)
    except (RuntimeError, ValueError):
        return store
    loaders = [guid for guid, kind in kinds.items() if kind == 0x10200003]

    def change(handle: Any) -> None:
        for guid in [*loaders, stores.BOOTMGR]:
            if guid in kinds:
                stores.set_element(handle, guid, 0x16000046, stores.boolean(True))
        for guid in loaders:
            if (guid, 0x46000010) in found or (guid, 0x26000022) in found:
                continue
            stores.set_element(handle, guid, 0x16000009, stores.boolean(False))
            stores.delete_element(handle, guid, 0x14000008)
        if stores.BOOTMGR in kinds:
            stores.set_element(handle, stores.BOOTMGR, 0x25000004, stores.integer(0))

    return stores.changed(store, change)


def prepare(disk: DiskLayout) -> None:
    """Makes the disk (a copy!) speak text, and puts the sentinel where a SYSTEM hive is."""
    for part in disk.partitions:
        if part.fs.startswith("fat"):
            paths = [p for p in (windows.STORE, windows.FALLBACK_STORE) if disks.file_exists(disk, part, p)]
            broken = [p for p in paths if not hives.is_clean(disks.read_file(disk, part, p))]
            for path in set(paths) - set(broken):
                disks.write_file(disk, part, path, _speak_text(disks.read_file(disk, part, path)))
            if not paths or broken:
                # without a store to say so, only a boot manager without fonts speaks text
                for folder in ("Fonts", "Resources"):
                    if fat_image.exists(disk.path, part.offset, f"EFI/Microsoft/Boot/{folder}"):
                        disks.delete_file(disk, part, f"EFI/Microsoft/Boot/{folder}")
        elif part.fs == "ntfs":
            _prepare_ntfs(disk, part)


def _prepare_ntfs(disk: DiskLayout, part: PartitionLayout) -> None:
    sentinel = windows.noise("sentinel", 8192)
    files: dict[str, bytes] = {}
    if disks.file_exists(disk, part, "Windows/System32/config/SYSTEM"):
        files["Windows/System32/config/SYSTEM"] = sentinel
    if disks.file_exists(disk, part, windows.BIOS_STORE):
        files[windows.BIOS_STORE] = _speak_text(disks.read_file(disk, part, windows.BIOS_STORE))
    if files:
        disks.write_files(disk, part, files)


# --- the boot


def judge(
    disk: DiskLayout,
    work: Path,
    *,
    firmware: Firmware | None = None,
    others: Sequence[DiskLayout] = (),
    bus: Bus = "ahci",
    vars: Path | None = None,
    change: Callable[[DiskLayout], None] | None = None,
    name: str = "judge",
    timeout: float = 45,
) -> Verdict:
    """Starts a copy of ``disk`` (with ``others`` behind it) and returns what the boot manager says.

    ``change`` may alter the copy after it was prepared. Raises `NoVerdict` after ``timeout`` seconds.
    """
    work.mkdir(parents=True, exist_ok=True)
    firmware = firmware or ("uefi" if disk.style == "gpt" else "bios")
    copies = []
    for index, original in enumerate([disk, *others]):
        copy = windows.copy_disk(original, work / f"{name}-{index}.img")
        prepare(copy)
        if change:
            change(copy)
        copies.append(copy)
    machine = Machine(
        work,
        firmware=firmware,
        disks=[Disk(c.path, bus, bootindex=i + 1, snapshot=True) for i, c in enumerate(copies)],
        cpu="Nehalem",
        vars=vars,
        name=name,
    )
    try:
        with machine as vm:
            return watch(vm, timeout)
    finally:
        for copy in copies:
            copy.path.unlink()


def watch(vm: Machine, timeout: float) -> Verdict:
    """What the boot manager of the running machine says. Raises `NoVerdict` after ``timeout`` seconds."""
    text = ""
    while vm.elapsed < timeout:
        text = vm.text if vm.firmware != "bios" else (vm.vga_text() if vm.running else text)
        status = _STATUS.search(text)
        # "Info:" comes below the file name and the status: all of the screen is there
        if status and ("Info:" in text[status.end() :] or _complete(vm, text)):
            file = _FILE.search(text)
            return Verdict(int(status[1], 16), file[1] if file else None, text, vm.elapsed)
        if _OTHER_ENDS.search(text):
            return Verdict(None, None, text, vm.elapsed)
        if not vm.running:
            break
        time.sleep(0.25)
    raise NoVerdict(f"no verdict in {vm.elapsed:.0f} s; the console says:\n{text[-3000:]}")


def _complete(vm: Machine, before: str) -> bool:
    time.sleep(0.7)
    after = vm.text if vm.firmware != "bios" else vm.vga_text()
    return after == before


def file_version(image: bytes) -> str | None:
    """The fixed file version of a program, found by its magic number."""
    at = image.find(b"\xbd\x04\xef\xfe")
    if at < 0:
        return None
    high, low = struct.unpack_from("<II", image, at + 8)
    return f"{high >> 16}.{high & 0xFFFF}.{low >> 16}.{low & 0xFFFF}"


def tools_missing() -> list[str]:
    return [t for t in ("wimlib-imagex",) if shutil.which(t) is None]
