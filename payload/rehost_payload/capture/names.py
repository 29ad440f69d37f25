"""Names for the capture's folders and files that every target takes: NTFS, exFAT, and what Windows opens.

A name may come from a virtual machine, which is free to be called anything. What it really was is kept in the manifest.
"""

from __future__ import annotations

import unicodedata
from itertools import chain, count

MOST_FOLDER = 60
MOST_FILE = 110
"""UTF-16 units. "E:\\Rehost-<15>-<date>\\<60>\\Virtual Hard Disks\\<110>" stays below 260, which old tools need."""

_MOST_BYTES = 240
_FORBIDDEN = dict.fromkeys([*range(0x20), 0x7F, *map(ord, '<>:"/\\|?*')], "_")
# what would show a name as another one (C1 controls, marks of writing direction, line separators)
_FORBIDDEN |= dict.fromkeys(
    [*range(0x80, 0xA0), 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF], "_"
)
_OURS = ".rehost-part"  # the end of a name while its file is being copied (copy_plan.PART)
_RESERVED = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", "CLOCK$"} | {
    f"{port}{digit}" for port in ("COM", "LPT") for digit in "0123456789\u00b9\u00b2\u00b3"
}


def fold(name: str) -> str:
    """What two names have in common that one folder cannot hold both of: case, and Unicode composition."""
    return unicodedata.normalize("NFC", name).casefold()


def safe_name(name: str, most: int = MOST_FILE) -> str:
    """One file or folder name. Short extensions survive the cutting of a long name; "" becomes "_".

    None begins with "-" or ".": a shell's `for d in */` would pass hidden ones over and take others for options.
    """
    plain = "".join("_" if 0xD800 <= ord(c) < 0xE000 else c for c in name.translate(_FORBIDDEN))
    plain = plain.strip(" ").rstrip(". ")
    if plain.startswith(("-", ".")):
        plain = f"_{plain}"
    stem, extension = _split(plain)
    while stem and (_units(stem + extension) > most or len((stem + extension).encode("utf-8")) > _MOST_BYTES):
        stem = stem[:-1]
    stem = (stem if extension else stem.rstrip(". ")) or "_"
    if stem.split(".")[0].strip().upper() in _RESERVED:
        head, dot, tail = stem.partition(".")
        stem = f"{head}_{dot}{tail}"
    made = stem + extension
    return f"{made[:-1]}_" if made.lower().endswith(_OURS) else made


def _split(name: str) -> tuple[str, str]:
    """Stem and extension with its dot; what is too long for an extension belongs to the stem."""
    stem, dot, extension = name.rpartition(".")
    return (stem, dot + extension) if stem and len(extension) <= 8 and " " not in extension else (name, "")


def _units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


class Names:
    """Gives each name out once per folder."""

    def __init__(self, taken: tuple[str, ...] = ()) -> None:
        self._taken = {fold(f"/{name}") for name in taken}

    def take(self, name: str, folder: str = "", hint: str = "", most: int = MOST_FILE) -> str:
        """A safe form of ``name`` that is free in ``folder``: else with " (hint)", " (2)", " (3)" ..."""
        safe = safe_name(name, most)
        marks = chain((hint,) if hint else (), map(str, count(2)))
        candidate = safe
        while fold(f"{folder}/{candidate}") in self._taken:
            mark = f" ({next(marks)})"
            stem, extension = _split(safe)
            candidate = safe_name(stem, most - len(mark) - len(extension)) + mark + extension
        self._taken.add(fold(f"{folder}/{candidate}"))
        return candidate
