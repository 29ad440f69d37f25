"""The running Windows PE, or Windows, as the operator's interface needs it: name, shell, power."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from rehost_payload.system import terminal
from rehost_payload.system.host import NO_NAME, Host, HostError
from rehost_payload.system.win32 import FirmwareCalls, Registry, Win32Error
from rehost_payload.system.win_firmware import mode
from rehost_payload.system.win_tools import ToolError, is_windows_pe, run_tool, tool

_BIOS = r"HARDWARE\DESCRIPTION\System\BIOS"
_POWER = {"reboot": "reboot", "poweroff": "shutdown"}


class _Calls(FirmwareCalls, Registry, Protocol):
    """What the host asks of Windows."""

    def user_locale(self) -> str: ...


class WindowsHost(Host):
    """``run`` starts a program and returns its exit code."""

    def __init__(
        self,
        calls: Callable[[], _Calls],
        environment: Mapping[str, str] = os.environ,
        run: Callable[[Sequence[str]], int] = run_tool,
    ) -> None:
        super().__init__(Path(environment.get("SystemDrive", "C:") + "\\"))
        self._make = calls
        self._environment = environment
        self._run = run
        self._known: _Calls | None = None

    @property
    def _calls(self) -> _Calls:
        if self._known is None:
            self._known = self._make()
        return self._known

    @property
    def is_medium(self) -> bool:
        """True in Windows PE."""
        return is_windows_pe(self._environment)

    def machine(self) -> str:
        parts = (self._bios(name) for name in ("SystemManufacturer", "SystemProductName"))
        return " ".join(p for p in parts if p.lower() not in NO_NAME)

    def _bios(self, name: str) -> str:
        try:
            data = self._calls.value(_BIOS, name) or b""
        except Win32Error:
            return ""
        return data.decode("utf-16-le", "replace").partition("\0")[0].strip()

    def language(self) -> str | None:
        try:
            return self._calls.user_locale() or None
        except Win32Error:
            return None

    def firmware(self) -> str:
        return mode(self._calls).value

    def consoles(self) -> list[Path]:
        return []

    def announce(self, line: str) -> None:
        """On the console, whatever standard output is."""
        with suppress(OSError), Path("CONOUT$").open("w", encoding="ascii", errors="replace") as console:
            console.write(f"\n{line}\n")

    def power(self, how: str) -> None:
        program = tool("wpeutil.exe", self._environment)
        try:
            code = self._run([str(program), _POWER[how]])
        except ToolError as error:
            raise HostError(str(error)) from error
        if code:
            raise HostError(f"wpeutil {_POWER[how]} ended with code {code}")
        time.sleep(60)

    def shell(self) -> None:
        program = self._environment.get("ComSpec") or str(tool("cmd.exe", self._environment))
        with _without_interrupts():
            try:
                self._run([program, "/k"])
            except ToolError as error:
                raise HostError(str(error)) from error
        with suppress(AttributeError, OSError, ValueError):
            terminal.tame(sys.stdin.fileno())


class _without_interrupts:
    """Ctrl-C is for the shell: Windows sends it to everybody on the console."""

    def __enter__(self) -> None:
        self._old = signal.signal(signal.SIGINT, signal.SIG_IGN)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._old)
