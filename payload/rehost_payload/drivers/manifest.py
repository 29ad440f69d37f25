"""What whoever made a folder of driver packages says of them: the builder's manifest, and a consent on a stick.

The manifest names every file of the packages on a medium by its SHA-256, and says whether the builder could verify the
package. It is believed for these bytes only. A file called allow-unverified.txt in the folder takes packages of which
nothing but the signature is missing or wrong, as `rehost build --allow-unverified-drivers` does for a medium.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rehost_payload.drivers.packages import locate
from rehost_payload.formats.errors import FormatError

MANIFEST = "packages.json"
CONSENT = "allow-unverified.txt"
FORMAT = 1
NOT_VERIFIED = "no"
_WHAT = "manifest of driver packages"
_MAX_SIZE = 16 << 20


@dataclass(frozen=True)
class Bundled:
    """A package that the builder has put there. ``files``: SHA-256 by path in it, with slashes."""

    verified: str
    files: Mapping[str, str]

    @property
    def allowed(self) -> bool:
        """The builder could not verify it and was told to take it all the same."""
        return self.verified == NOT_VERIFIED

    def changed(self, folder: Path) -> str | None:
        """A file that is not the one that was put there, None where all are. OSError."""
        for name, expected in self.files.items():
            found = locate(folder, name.replace("/", "\\"))
            if found is None:
                return name
            with found.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                    return name
        return None


def read_manifest(place: Path) -> dict[str, Bundled]:
    """The packages by their folders' names; none where there is no manifest. FormatError, OSError."""
    found = locate(place, MANIFEST)
    if found is None:
        return {}
    with found.open("rb") as file:
        data = file.read(_MAX_SIZE + 1)
    try:
        document = json.loads(data)
        if document["format"] != FORMAT:
            raise FormatError(_WHAT, f"format {document['format']!r} is not {FORMAT}")
        return {
            str(p["folder"]): Bundled(
                str(p["verified"]), {str(f["path"]): str(f["sha256"]) for f in p["files"]}
            )
            for p in document["packages"]
        }
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as e:
        if isinstance(e, FormatError):
            raise
        raise FormatError(_WHAT, f"{found} is none: {e}") from None


def consents(place: Path) -> bool:
    """Whether the folder takes packages of which only the signature is missing or wrong."""
    return locate(place, CONSENT) is not None
