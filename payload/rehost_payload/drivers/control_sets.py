"""The control sets of a SYSTEM hive that is not loaded: there is no CurrentControlSet in it, only numbered ones.

Whichever of them the loader takes (Select says Default; LastKnownGood on a second try), it has to find the driver:
edits go into all of them.
"""

from __future__ import annotations

import re

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.hive import Hive

_NAME = re.compile("ControlSet[0-9]{3}", re.IGNORECASE)


def control_sets(hive: Hive) -> tuple[str, ...]:
    """Names of the control sets as the hive spells them, in order. FormatError where there is none."""
    names = sorted(
        (k.name for k in hive.root.subkeys() if _NAME.fullmatch(k.name)), key=lambda name: name.upper()
    )
    if not names:
        raise FormatError("SYSTEM hive", "it has no control set")
    return tuple(names)
