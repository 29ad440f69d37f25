"""Where an ISO may be written: nothing that it is made from, and nothing that is no file, is replaced."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_LABEL = 16 * 2048 + 40  # the volume's name in the ISO's first descriptor
_OURS = b"REHOST-"


def unfit_output(output: Path, inputs: Iterable[Path]) -> str | None:
    """Why ``output`` must not be written, with the next step; None where it may. ``inputs`` may be absent."""
    try:
        mode = output.stat().st_mode
    except OSError:
        return None  # not there yet; whether it can be made shows when it is made
    if not stat.S_ISREG(mode):
        kind = "a device" if stat.S_ISBLK(mode) or stat.S_ISCHR(mode) else "no file"
        return f"{output} is {kind}: write the ISO to a file, then bring it to a stick with rehost usb"
    for source in inputs:
        with suppress(OSError):
            if output.samefile(source):
                return f"{output} is the source itself: write to another name"
            inside = source.is_dir() and source.resolve() in output.resolve().parents
            if inside and not _is_medium(output):
                return f"{output} is a file of the source {source}: write to another folder"
    return None


def _is_medium(path: Path) -> bool:
    """One of our own, from an earlier build."""
    with path.open("rb") as file:
        file.seek(_LABEL)
        return file.read(len(_OURS)) == _OURS
