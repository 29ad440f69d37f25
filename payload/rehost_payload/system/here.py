"""The System of the machine that we run on."""

from __future__ import annotations

import sys

from rehost_payload.system.protocol import System, SystemError_


def this_machine() -> System:
    """Raises SystemError_ ("system") where there is none: then only images and saved surveys can be looked at."""
    if sys.platform.startswith("linux"):
        from rehost_payload.system.linux import LinuxSystem

        return LinuxSystem()
    raise SystemError_("system", "on this system only disk images and saved surveys can be looked at")
