"""Microsoft's own tools: dism, bcdboot, bootsect, wpeutil. Only their exit codes are believed; their words are
translated, and change, and go to a log at most.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rehost_payload.system.win32 import Devices, Win32Error, refused

_REBOOT_NEEDED = 3010
"""DISM: done, and what was serviced must be restarted; an image that is not running need not."""
_LETTERS = "RSTUVWYZQPONMLKJIHGFEDC"  # not X:, where Windows PE runs, and not A: and B:


class ToolError(Exception):
    """A tool could not be started."""


@dataclass(frozen=True)
class Done:
    """A tool that has run. ``log`` is where its words are."""

    command: tuple[str, ...]
    code: int
    log: Path | None = None

    @property
    def ok(self) -> bool:
        return self.code in (0, _REBOOT_NEEDED)

    def __str__(self) -> str:
        name = self.command[0].rpartition("\\")[2]
        return f"{name} ended with code {self.code}{'' if self.log is None else f'; see {self.log}'}"


def tool(name: str, environment: Mapping[str, str] = os.environ) -> Path:
    """Where a tool of Windows is: below System32, never by the search path."""
    return Path(environment.get("SystemRoot", "X:\\Windows"), "System32", name)


def run_tool(command: Sequence[str], log: Path | None = None) -> int:
    """Runs a program on this console, or with its words appended to ``log``. Returns its exit code, on Windows an
    unsigned number of 32 bits. Raises ToolError."""
    try:
        if log is None:
            return subprocess.run(command, check=False).returncode & 0xFFFFFFFF
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            file.write(f"\r\n> {subprocess.list2cmdline(command)}\r\n".encode())
            file.flush()
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, check=False
            )
        return done.returncode & 0xFFFFFFFF
    except OSError as error:
        raise ToolError(f"{command[0]}: {error.strerror or error}") from error


Run = Callable[[Sequence[str], Path | None], int]


def dism_may_service(running_build: int, target_build: int) -> bool:
    """DISM of an older Windows PE may damage a newer installation: it is used where it is at least as new."""
    return running_build >= target_build


def add_driver(
    windows: str, inf: str, logs: Path, *, environment: Mapping[str, str] = os.environ, run: Run = run_tool
) -> Done:
    r"""Adds a driver package to the installation on ``windows`` ("S:\"), signed ones only. Raises ToolError."""
    log = logs / "dism.log"
    command = (
        str(tool("dism.exe", environment)),
        "/English",
        f"/Image:{windows}",
        "/Add-Driver",
        f"/Driver:{inf}",
        f"/LogPath:{log}",
        "/LogLevel:3",
    )
    return Done(command, run(command, logs / "dism-output.log"), log)


def make_boot_files(
    windows: str,
    system: str,
    firmware: str,
    logs: Path,
    *,
    environment: Mapping[str, str] = os.environ,
    run: Run = run_tool,
) -> Done:
    r"""bcdboot: boot files and store of ``windows`` ("S:\Windows") on ``system`` ("R:"); ``firmware`` UEFI or BIOS."""
    command = (str(tool("bcdboot.exe", environment)), windows, "/s", system, "/f", firmware.upper())
    log = logs / "bcdboot-output.log"
    return Done(command, run(command, log), log)


def write_boot_code(bootsect: Path, system: str, logs: Path, *, run: Run = run_tool) -> Done:
    """bootsect from the media: code for bootmgr in the first sectors of the volume ``system`` ("R:") and of its disk.

    What it changes lies in `BOOT_CODE_AREAS`; whoever calls this saves them first. It does not touch the table.
    """
    command = (str(bootsect), "/nt60", system, "/mbr")
    log = logs / "bootsect-output.log"
    return Done(command, run(command, log), log)


VOLUME_BOOT_CODE = 16 * 512
"""Bytes at the start of a volume in which boot code lies: NTFS has 16 sectors for it, FAT32 the reserved ones."""


def boot_code_areas(volume_offset: int, sector: int) -> tuple[tuple[int, int], ...]:
    """What bootsect may change on a disk, as (byte offset, length): the disk's first sector and the volume's first
    ones, in whole sectors."""
    length = -(-VOLUME_BOOT_CODE // sector) * sector
    return ((0, sector), (volume_offset, length))


def find_bootsect(roots: Sequence[Path]) -> Path | None:
    r"""bootsect.exe on the media that we were started from: \boot\bootsect.exe, or added by the builder."""
    for root in roots:
        for place in (("boot", "bootsect.exe"), ("Rehost", "bootsect.exe")):
            path = root.joinpath(*place)
            if path.is_file():
                return path
    return None


@contextmanager
def lettered(devices: Devices, volume: str) -> Iterator[str]:
    r"""A drive letter ("R:") of a volume, for tools that know nothing else: its own, or one for the time of the block.

    ``volume`` is its name ("\\?\Volume{GUID}\"). Raises SystemError_.
    """
    try:
        for point in devices.mount_points(volume):
            if len(point) == 3 and point[1:] == ":\\":
                yield point[:2]
                return
        taken = devices.drive_letters()
        letter = next((c for c in _LETTERS if not taken >> (ord(c) - 65) & 1), None)
        if letter is None:
            raise Win32Error("GetLogicalDrives", 85)  # ERROR_ALREADY_ASSIGNED
        devices.add_mount_point(f"{letter}:\\", volume)
    except Win32Error as error:
        raise refused(error, f"{volume}: a drive letter") from error
    try:
        yield f"{letter}:"
    finally:
        with suppress(Win32Error):
            devices.remove_mount_point(f"{letter}:\\")
