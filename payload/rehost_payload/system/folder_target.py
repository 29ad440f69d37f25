"""An ordinary folder as a capture's target: a mounted disk, or a place on a workstation."""

from __future__ import annotations

import os
from pathlib import Path

from rehost_payload.system.capture_target import TargetInfo
from rehost_payload.system.directory_target import DirectoryTarget
from rehost_payload.system.protocol import SystemError_

NOT_HERE = "captures are written by the medium made of Debian packages, not from Windows yet"


def readable_folder(folder: Path) -> DirectoryTarget:
    """To look at the captures in a folder."""
    return DirectoryTarget(folder, TargetInfo(f"folder-{folder}", str(folder), ""))


def folder_target(folder: Path, root: Path = Path("/")) -> DirectoryTarget:
    """The folder must exist. Raises SystemError_ ("absent", "permission", "unusable-target")."""
    if os.name != "posix":
        raise SystemError_("unusable-target", NOT_HERE)
    try:
        place = folder.resolve(strict=True)
        device = place.stat().st_dev
    except OSError as error:
        raise SystemError_("absent", f"{folder}: {error.strerror}") from error
    if not place.is_dir():
        raise SystemError_("absent", f"{folder} is no folder")
    if not os.access(place, os.W_OK):
        raise SystemError_("permission", f"{folder} cannot be written")
    kind, disk = _mount(device, root)
    return DirectoryTarget(place, TargetInfo(f"folder-{place}", str(folder), kind, disk), whole=True)


def _mount(device: int, root: Path) -> tuple[str, str]:
    """File system and disk of a mounted device, "" where they are not known (not Linux, a network)."""
    if not hasattr(os, "major"):
        return "", ""
    number = f"{os.major(device)}:{os.minor(device)}"
    kind = ""
    try:
        for line in (root / "proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
            left, _, right = line.partition(" - ")
            if left.split(" ")[2] == number:
                kind = right.split(" ")[0]
        node = (root / "sys/dev/block" / number).resolve(strict=True)
    except (OSError, IndexError):
        return kind, ""
    if (node / "partition").exists():
        node = node.parent
    return kind, f"/dev/{node.name}"
