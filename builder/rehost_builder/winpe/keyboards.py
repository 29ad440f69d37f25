"""Keyboard layouts for the console, checked against the boot image that has to have them."""

from __future__ import annotations

import re

from rehost_builder.errors import BuildError
from rehost_builder.wim.reader import Wim
from rehost_builder.winpe.image import SYSTEM32, BootImage
from rehost_payload.formats.hive import Hive

LAYOUTS = {
    "us": "0409:00000409",
    "de": "0407:00000407",
    "at": "0c07:00000407",
    "ch": "0807:00000807",
    "fr": "040c:0000040c",
    "be": "080c:0000080c",
    "it": "0410:00000410",
    "es": "040a:0000040a",
    "pt": "0816:00000816",
    "br": "0416:00000416",
    "uk": "0809:00000809",
    "nl": "0413:00020409",
    "dk": "0406:00000406",
    "se": "041d:0000041d",
    "no": "0414:00000414",
    "fi": "040b:0000040b",
    "pl": "0415:00000415",
    "cz": "0405:00000405",
    "hu": "040e:0000040e",
    "jp": "0411:00000411",
}
"""Short names as on the Debian base: language and layout as wpeutil SetKeyboardLayout wants them."""


def keyboard_layout(wanted: str, image: BootImage, wim: Wim) -> str:
    """ "de" or "0407:00000407" as the latter; "" for none. BuildError where it is unknown or the image lacks it."""
    if not wanted:
        return ""
    text = LAYOUTS.get(wanted.lower(), wanted.lower())
    if not re.fullmatch(r"[0-9a-f]{4}:[0-9a-f]{8}", text):
        raise BuildError(
            f"the keyboard layout {wanted!r} is not known",
            f"one of {', '.join(sorted(LAYOUTS))}, or language and layout as in 0407:00000407",
        )
    layout = text.partition(":")[2]
    hive = wim.read_file(image.tree, f"{SYSTEM32}/config/SYSTEM")
    root = Hive.parse(hive, lenient=True) if hive else None
    key = root.find("ControlSet001", "Control", "Keyboard Layouts", layout) if root is not None else None
    value = key.value("Layout File") if key is not None else None
    library = value.as_string() if value is not None else ""
    if not library or not image.has(f"{SYSTEM32}/{library}"):
        raise BuildError(
            f"the boot image has no keyboard layout {layout}"
            + (f" ({library} is missing)" if library else ""),
            "leave the option out, or take media in the language of the keyboard",
        )
    return text
