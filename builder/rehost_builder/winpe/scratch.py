"""The size of WinPE's writable space in memory, where somebody asks for another than WinPE's own choice (512 MB)."""

from __future__ import annotations

from rehost_builder.errors import BuildError
from rehost_builder.wim.reader import Wim
from rehost_builder.winpe.image import SYSTEM32, BootImage
from rehost_payload.formats.hive import REG_DWORD, Hive, SetValue

HIVE = f"{SYSTEM32}/config/SYSTEM"
_KEY = ("ControlSet001", "Services", "FBWF")
_VALUE = "WinPECacheThreshold"  # MB


def hive_with_scratch_space(megabytes: int, image: BootImage, wim: Wim) -> bytes:
    """The image's SYSTEM hive with this value. BuildError where it cannot be edited here."""
    hive = wim.read_file(image.tree, HIVE)
    if hive is None or Hive.parse(hive).find(*_KEY) is None:
        raise BuildError(
            "--scratch-space: the boot image has no service FBWF, which keeps its writable space",
            "leave the option out",
        )
    try:
        from rehost_payload.system.hivex_edit import edit_hive
    except ImportError:
        raise BuildError(
            "--scratch-space needs hivex, which is not installed here",
            "on Debian: apt-get install python3-hivex",
        ) from None
    return edit_hive(hive, [SetValue(_KEY, _VALUE, REG_DWORD, megabytes.to_bytes(4, "little"))])
