"""The System and the Host of the machine that we run on. Imported before the menu is on the screen: it imports little."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rehost_payload.system.host import Host

if TYPE_CHECKING:
    from rehost_payload.system.protocol import System

PRIVILEGE = "run it as administrator" if sys.platform == "win32" else "are you root?"
"""What may help where no disk could be opened."""


def this_machine() -> System:
    """Raises SystemError_ ("system") where there is none: then only images and saved surveys can be looked at."""
    if sys.platform == "win32":
        from rehost_payload.system.win32_calls import Calls
        from rehost_payload.system.winpe import WinPeSystem

        return WinPeSystem(Calls())
    elif sys.platform == "linux":  # noqa: RET505
        from rehost_payload.system.linux import LinuxSystem

        return LinuxSystem()
    else:
        from rehost_payload.system.protocol import SystemError_

        raise SystemError_("system", "on this system only disk images and saved surveys can be looked at")


def this_host() -> Host:
    """Off Linux and Windows every question has a harmless answer."""
    if sys.platform == "win32":
        from rehost_payload.system.win32_calls import Calls
        from rehost_payload.system.win_host import WindowsHost

        return WindowsHost(Calls)
    else:  # noqa: RET505
        return Host()
