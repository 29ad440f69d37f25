"""What the operator's interface asks of the running system beside disks: its name, consoles, a shell, power.

`Host` answers for Linux, win_host.py for Windows, here.py says which it is. Imported before the menu is on the screen, so it
imports little itself.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path

_SHELLS = ("/usr/bin/bash", "/bin/bash", "/usr/bin/sh", "/bin/sh")
_PATIENCE = 10.0  # seconds for a line on a console
_PROGRAMS = {"reboot": "/usr/sbin/reboot", "poweroff": "/usr/sbin/poweroff"}
# what mainboards say whose maker did not fill the field in
NO_NAME = (
    "",
    "none",
    "default string",
    "to be filled by o.e.m.",
    "system product name",
    "system manufacturer",
)


class HostError(Exception):
    """The system did not do it; the message says what it answered."""


class Host:
    """``root`` is "/" except in tests."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    @property
    def is_medium(self) -> bool:
        """True on our own recovery system; False on a workstation, which is not ours to switch off."""
        try:
            lines = (self.root / "etc/os-release").read_text(errors="replace").splitlines()
        except OSError:
            return False
        return "ID=rehost" in lines

    def machine(self) -> str:
        """Maker and model from DMI, "" where they are not known."""
        parts = (self._dmi(name) for name in ("sys_vendor", "product_name"))
        return " ".join(p for p in parts if p.lower() not in NO_NAME)

    def _dmi(self, name: str) -> str:
        try:
            return (self.root / "sys/class/dmi/id" / name).read_text(errors="replace").strip()
        except OSError:
            return ""

    def language(self) -> str | None:
        """The language that the running system was set up for, where it says so otherwise than by its locale."""
        return None

    def firmware(self) -> str:
        """A value of survey.model.FirmwareMode, without reading any variable."""
        if not (self.root / "sys").is_dir():
            return "unknown"
        return "uefi" if (self.root / "sys/firmware/efi").is_dir() else "bios"

    def consoles(self) -> list[Path]:
        """The kernel's consoles, the main one last; the screen (tty0) is given as its first terminal."""
        try:
            names = (self.root / "sys/class/tty/console/active").read_text().split()
        except OSError:
            names = []
        names = ["tty1" if n == "tty0" else n for n in names if re.fullmatch(r"[A-Za-z]+\d*", n)]
        return [self.root / "dev" / n for n in names] or [self.root / "dev/console"]

    def announce(self, line: str) -> None:
        """Writes a line to every console. One that does not take it (no receiver, no such port) is left out."""
        for path in self.consoles():
            with contextlib.suppress(OSError):
                _write(path, f"\r\n{line}\r\n".encode("ascii", "replace"))

    def power(self, how: str) -> None:
        """ "reboot" or "poweroff": asks init for it and waits to be ended. HostError where that fails."""
        os.sync()
        program = _PROGRAMS[how]
        if code := _run([program]):
            raise HostError(f"{program} ended with code {code}")
        time.sleep(60)

    def shell(self) -> None:
        """A shell on this terminal; returns when it ends. HostError where there is none."""
        program = next((s for s in _SHELLS if os.access(self.root / s.lstrip("/"), os.X_OK)), None)
        if program is None:
            raise HostError("no shell was found")
        _run([str(self.root / program.lstrip("/")), "-l"])


def _write(path: Path, data: bytes) -> None:
    """Waits for a slow line, but not for ever for a stopped one."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        deadline = time.monotonic() + _PATIENCE
        while data and time.monotonic() < deadline:
            try:
                data = data[os.write(fd, data) :]
            except BlockingIOError:
                time.sleep(0.05)
    finally:
        os.close(fd)


def _run(command: list[str]) -> int:
    import subprocess  # not needed for the menu to come up

    try:
        return subprocess.run(command, check=False).returncode
    except OSError as e:
        raise HostError(str(e)) from e
