"""Microsoft's own tools: dism, bootsect, wpeutil. Only their exit codes are believed; their words are
translated, and change, and go to a log at most.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from rehost_payload.system.win32 import Devices, Win32Error, refused

if TYPE_CHECKING:
    from rehost_payload.system.win32_calls import Job

_REBOOT_NEEDED = 3010
"""DISM: done, and what was serviced must be restarted; an image that is not running need not."""
DISM_SECONDS = 1800.0
"""For one package. It takes a minute or two on a slow array; what is not done then hangs."""
_BOOTSECT_SECONDS = 120.0
_LETTERS = "RSTUVWYZQPONMLKJIHGFEDC"  # not X:, where Windows PE runs, and not A: and B:


_GLANCE = 0.5  # seconds
_GRACE = 10.0  # seconds for helpers of a program that has ended


class ToolError(Exception):
    """A tool could not be started, or took too long."""


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


def own_folder(name: str, environment: Mapping[str, str] = os.environ) -> Path:
    r"""A folder of ours in the system that runs: X:\Rehost\logs, X:\Rehost\drivers."""
    return Path(environment.get("SystemDrive", "X:") + "\\", "Rehost", name)


def run_tool(
    command: Sequence[str],
    log: Path | None = None,
    limit: float | None = None,
    waiting: Callable[[], None] = lambda: None,
) -> int:
    """Runs a program on this console, or with its words appended to ``log``. Returns its exit code, on Windows an
    unsigned number of 32 bits. Raises ToolError.

    With ``limit`` (seconds) Ctrl-C on the console does not reach the program, and ``waiting`` is called about twice a
    second. If it has not ended by then, or we are interrupted, it is ended with everything that it has started.
    """
    try:
        with _noted(command, log) as output:
            if limit is None:
                quiet = None if output is None else subprocess.DEVNULL
                done = subprocess.run(
                    command,
                    stdin=quiet,
                    stdout=output,
                    stderr=subprocess.STDOUT if quiet else None,
                    check=False,
                )
                return done.returncode & 0xFFFFFFFF
            with _Started(command, output) as started:
                return _awaited(command, started, limit, waiting)
    except OSError as error:
        raise ToolError(f"{command[0]}: {error.strerror or error}") from error


@contextmanager
def _noted(command: Sequence[str], log: Path | None) -> Iterator[BinaryIO | None]:
    """The log, with the command at its end."""
    if log is None:
        yield None
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        file.write(f"\r\n> {subprocess.list2cmdline(command)}\r\n".encode())
        file.flush()
        yield file


def _awaited(command: Sequence[str], started: _Started, limit: float, waiting: Callable[[], None]) -> int:
    end = time.monotonic() + limit
    while (left := end - time.monotonic()) > 0:
        code = started.wait(min(_GLANCE, left))
        if code is not None:
            return code
        waiting()
    raise ToolError(f"{command[0]}: it did not end within {limit:g} seconds and was stopped")


class Run(Protocol):
    """`run_tool`, or what a test has in its place."""

    def __call__(
        self,
        command: Sequence[str],
        log: Path | None = None,
        limit: float | None = None,
        waiting: Callable[[], None] = ...,
    ) -> int: ...


class _Started:
    """A program in a group of its own; leaving the block ends what is left of it."""

    def __init__(self, command: Sequence[str], output: BinaryIO | None) -> None:
        flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=None if output is None else subprocess.STDOUT,
            creationflags=flags,
            start_new_session=not flags,
        )
        self._job = _job_of(self._process)

    def __enter__(self) -> _Started:
        return self

    def wait(self, seconds: float) -> int | None:
        try:
            return self._process.wait(seconds) & 0xFFFFFFFF
        except subprocess.TimeoutExpired:
            return None

    def __exit__(self, failed: object, *_: object) -> None:
        if self._job is not None:
            deadline = time.monotonic() + (0 if failed else _GRACE)
            while self._job.active() and time.monotonic() < deadline:
                time.sleep(0.1)
            self._job.end()
        elif sys.platform != "win32":
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(OSError):
            self._process.kill()
        self._process.wait()


def _job_of(process: subprocess.Popen[bytes]) -> Job | None:
    """What the program starts from now on can be ended with it. None where there are no jobs, or it has ended."""
    if sys.platform == "win32":
        from rehost_payload.system.win32_calls import Job

        with suppress(Win32Error):
            return Job(int(process._handle))
    return None


def is_windows_pe(environment: Mapping[str, str] = os.environ) -> bool:
    """Nothing else has the program that ends it."""
    return environment.get("SystemRoot") is not None and tool("wpeutil.exe", environment).is_file()


def dism_may_service(running_build: int, target_build: int) -> bool:
    """DISM of an older Windows PE may damage a newer installation: it is used where it is at least as new."""
    return running_build >= target_build


def add_driver(
    windows: str,
    inf: str,
    logs: Path,
    *,
    waiting: Callable[[], None] = lambda: None,
    limit: float = DISM_SECONDS,
    environment: Mapping[str, str] = os.environ,
    run: Run = run_tool,
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
    return Done(command, run(command, logs / "dism-output.log", limit, waiting), log)


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
