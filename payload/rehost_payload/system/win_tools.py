"""Microsoft's own tools: dism, bootsect, wpeutil. Only their exit codes are believed; their words are
translated, and change, and go to a log at most.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rehost_payload.system.win32 import Devices, Win32Error, refused

_REBOOT_NEEDED = 3010
"""DISM: done, and what was serviced must be restarted; an image that is not running need not."""
_DISM_SECONDS = 1800.0
_BOOTSECT_SECONDS = 120.0
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


def run_tool(command: Sequence[str], log: Path | None = None, limit: float | None = None) -> int:
    """Runs a program on this console, or with its words appended to ``log``. Returns its exit code, on Windows an
    unsigned number of 32 bits. Raises ToolError, also where it has not ended after ``limit`` seconds and was stopped."""
    try:
        if log is None:
            return subprocess.run(command, check=False, timeout=limit).returncode & 0xFFFFFFFF
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            file.write(f"\r\n> {subprocess.list2cmdline(command)}\r\n".encode())
            file.flush()
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
                timeout=limit,
            )
        return done.returncode & 0xFFFFFFFF
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{command[0]}: it did not end within {limit:g} seconds and was stopped") from error
    except OSError as error:
        raise ToolError(f"{command[0]}: {error.strerror or error}") from error


class Run(Protocol):
    """`run_tool`, or what a test has in its place."""

    def __call__(
        self, command: Sequence[str], log: Path | None = None, limit: float | None = None
    ) -> int: ...


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
    return Done(command, run(command, logs / "dism-output.log", _DISM_SECONDS), log)


def write_boot_code(
    bootsect: Path, volume: str, logs: Path, *, master: bool = True, run: Run = run_tool
) -> Done:
    """bootsect from the media: code for bootmgr in the first sectors of ``volume`` ("R:") and, with ``master``, in the
    first sector of its disk. Raises ToolError."""
    command = (str(bootsect), "/nt60", volume, *(["/mbr"] if master else []))
    log = logs / "bootsect-output.log"
    return Done(command, run(command, log, _BOOTSECT_SECONDS), log)


def find_bootsect(roots: Sequence[Path]) -> Path | None:
    r"""bootsect.exe in one of these folders, or in the folder \boot of installation media below one."""
    for root in roots:
        for path in (root / "bootsect.exe", root / "boot" / "bootsect.exe"):
            try:
                if path.is_file():
                    return path
            except OSError:  # a drive without a medium
                continue
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
