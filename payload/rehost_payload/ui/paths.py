"""Paths on the command line: what is neither a file nor a folder is refused before anything opens it.

Whoever opens a named pipe waits until somebody writes to it, and a device such as /dev/zero has no end.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import click

_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISSOCK, "a socket"),
)


class InputPath(click.Path):  # type: ignore[type-arg,unused-ignore]
    """A path that is read. ``disks``: a block device does as well. What is missing is left to the command to say,
    unless ``exists`` is set.
    """

    def __init__(
        self, *, files: bool = True, folders: bool = True, disks: bool = False, exists: bool = False
    ) -> None:
        super().__init__(exists=exists, file_okay=files, dir_okay=folders, path_type=Path)
        self.disks = disks

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        try:
            mode = path.stat().st_mode
        except (OSError, ValueError):  # the command says what is wrong with it
            return path
        if self.disks and stat.S_ISBLK(mode):
            return path
        kind = next((name for holds, name in _KINDS if holds(mode)), None)
        if kind is not None:
            wanted = " or a folder" if self.dir_okay and self.file_okay else ""
            wanted = f"a file{wanted}" if self.file_okay else "a folder"
            self.fail(f"{path} is {kind}; {wanted} is needed (write its content to a file first)", param, ctx)
        return path
