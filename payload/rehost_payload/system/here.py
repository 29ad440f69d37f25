"""The System of the machine that we run on."""

from __future__ import annotations

import sys

from rehost_payload.system.protocol import System, SystemError_


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
        raise SystemError_("system", "on this system only disk images and saved surveys can be looked at")
