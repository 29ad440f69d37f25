"""Where this system keeps driver packages."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "REHOST_DRIVERS"
"""Names folders, separated as in PATH, instead of the medium's own: for workstations."""

MEDIUM = Path("usr/share/rehost/drivers")


def driver_folders(root: Path | None, environment: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """The folders of the variable, else the medium's below ``root``; None: this is no medium."""
    named = environment.get(VARIABLE, "")
    if named:  # one that is not there as well: the survey says so
        return tuple(Path(p) for p in named.split(os.pathsep) if p)
    return tuple(f for f in (root / MEDIUM,) if f.is_dir()) if root is not None else ()
