"""DISM: when it may service an installation, and how it is run so that nothing of it is left behind."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from rehost_payload.system.protocol import SystemError_
from rehost_payload.system.win32 import Registry, Win32Error
from rehost_payload.system.win_hive import unload
from rehost_payload.system.win_tools import (
    DISM_SECONDS,
    Run,
    ToolError,
    add_driver,
    dism_may_service,
    is_windows_pe,
    own_folder,
    run_tool,
    tool,
)

_VERSION = r"SOFTWARE\Microsoft\Windows NT\CurrentVersion"
LOGS = ("dism.log", "dism-output.log")
_LOG_END = 512 * 1024
FIRST_SERVICED = 9200
"""Windows PE 4 and later cannot change the driver stores of Windows 7 and Server 2008 R2 (KB2853726)."""


class Dism:
    """``run`` starts programs; ``environment`` is that of Windows PE."""

    def __init__(
        self,
        registry: Registry,
        environment: Mapping[str, str] = os.environ,
        run: Run = run_tool,
        limit: float = DISM_SECONDS,
    ) -> None:
        self._registry = registry
        self._environment = environment
        self._run = run
        self._limit = limit

    @property
    def _logs(self) -> Path:
        return own_folder("logs", self._environment)

    def refusal(self, build: int, root: str) -> tuple[str, dict[str, str]] | None:
        """See DriverTool.driver_tool_refusal."""
        if not is_windows_pe(self._environment):
            return "platform", {}
        if not tool("dism.exe", self._environment).is_file():
            return "absent", {}
        running = self._running_build()
        if running is None or not dism_may_service(running, build):
            return "older", {"running": str(running or "?"), "target": str(build)}
        if build < FIRST_SERVICED:
            return "database", {"target": str(build)}
        if root.rpartition("\\")[2].lower() != "windows":
            return "folder", {"folder": root}
        return None

    def _running_build(self) -> int | None:
        try:
            data = self._registry.value(_VERSION, "CurrentBuildNumber") or b""
        except Win32Error:
            return None
        text = data.decode("utf-16-le", "replace").partition("\0")[0]
        return int(text) if text.isascii() and text.isdecimal() else None

    def log(self) -> bytes:
        """The end of its log and of what it has said."""
        words = b""
        for name in LOGS:
            with suppress(OSError), (self._logs / name).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_END))
                words += file.read(_LOG_END)
        return words

    def install(self, letter: str, root: str, inf: Path, waiting: Callable[[], None]) -> None:
        """Runs it for one package on the volume with this ``letter`` ("S:"). SystemError_ ("tool", "registry").

        A program that is ended leaves its hives loaded, which would keep the volume's files in use: whatever has been
        loaded meanwhile is unloaded.
        """
        image = f"{letter}{root.rpartition(chr(92))[0]}\\"
        known = set(self._registry.loaded())
        try:
            done = add_driver(
                image,
                str(inf),
                self._logs,
                waiting=waiting,
                limit=self._limit,
                environment=self._environment,
                run=self._run,
            )
        except ToolError as error:
            raise SystemError_("tool", str(error)) from error
        finally:
            for name in set(self._registry.loaded()) - known:
                unload(self._registry, name)
        if not done.ok:
            raise SystemError_("tool", str(done))
