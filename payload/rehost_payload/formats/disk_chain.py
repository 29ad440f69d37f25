"""Chains of differencing disks: where a parent should be, and whether a file is that parent.

A VHDX child holds its parent's DataWriteGuid ([MS-VHDX] 2.6.2.6), which every writable attach changes; a VHD child
holds its parent's unique id and the time of the parent's last change.
"""

from __future__ import annotations

import ntpath
from dataclasses import dataclass
from datetime import datetime

from rehost_payload.formats.vhd import Vhd
from rehost_payload.formats.vhdx import Vhdx

MAX_DEPTH = 256
_NONE = "00000000-0000-0000-0000-000000000000"

Disk = Vhdx | Vhd


@dataclass(frozen=True)
class Link:
    """Whether a child and its parent belong together. ``warnings`` do not keep Windows from opening the chain."""

    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems


def parent_paths(disk: Disk, path: str = "") -> tuple[str, ...]:
    """Where the parent may be, in the order in which it is looked for: relative, absolute, by volume GUID.

    ``path`` is the child's own Windows path, against which the relative one is resolved; without it the relative
    path is given as stored.
    """
    parent = disk.parent
    if parent is None:
        return ()
    relative = parent.relative_path
    if relative and path:
        relative = ntpath.normpath(ntpath.join(ntpath.dirname(path), relative))
    found = [relative, parent.absolute_path]
    if isinstance(disk, Vhdx) and disk.parent is not None:
        found.append(disk.parent.volume_path)
    return tuple(dict.fromkeys(entry for entry in found if entry))


def identity(disk: Disk) -> str:
    """What a child remembers its parent by."""
    return disk.header.data_write_guid if isinstance(disk, Vhdx) else disk.id


def wanted_parents(disk: Disk) -> set[str]:
    """The identities that this disk's parent may have; none for a disk without one."""
    if disk.parent is None:
        return set()
    if isinstance(disk, Vhdx):
        assert disk.parent is not None
        return {disk.parent.linkage, disk.parent.linkage2} - {"", _NONE}
    return {disk.parent.id}


def check_link(child: Disk, parent: Disk, parent_modified: datetime | None = None) -> Link:
    """Whether ``parent`` is the disk that ``child`` was made from. The time is that of the parent's file."""
    problems: list[str] = []
    warnings: list[str] = []
    if child.parent is None:
        return Link((f"it is a {child.kind} disk, which has no parent",))
    if isinstance(child, Vhdx) and child.parent is not None:
        if not isinstance(parent, Vhdx):
            return Link(("the child is a VHDX, the parent a VHD",))
        wanted, actual = wanted_parents(child), identity(parent)
        if actual not in wanted:
            expected = " or ".join(sorted(wanted)) or "nothing"
            problems.append(f"the child expects {expected}, the parent is {actual}: it was written to since")
        if child.logical_sector != parent.logical_sector:
            problems.append(f"sectors of {child.logical_sector} and {parent.logical_sector} bytes")
        if parent.log.dirty:
            warnings.append("the parent was not closed properly")
    elif isinstance(child, Vhd) and child.parent is not None:
        if not isinstance(parent, Vhd):
            return Link(("the child is a VHD, the parent a VHDX",))
        if identity(parent) not in wanted_parents(child):
            problems.append(f"the child expects {child.parent.id}, the parent is {parent.id}")
        if (
            parent_modified is not None
            and abs((parent_modified - child.parent.modified).total_seconds()) >= 2
        ):
            warnings.append(
                f"the parent was changed at {parent_modified:%Y-%m-%d %H:%M:%S}, "
                f"the child expects {child.parent.modified:%Y-%m-%d %H:%M:%S} (UTC)"
            )
    if child.virtual_size < parent.virtual_size:
        warnings.append(f"the child has {child.virtual_size} bytes, the parent {parent.virtual_size}")
    return Link(tuple(problems), tuple(warnings))
