"""One at a time: two consoles show the menu, but only one of them may work on the disks.

The state lives in a folder in memory (/run/rehost), so that it is gone with the next start.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_LOCKED = 1 << 20


class Busy(Exception):
    """Another process holds the lock; the message says which."""


def state_folder() -> Path:
    """/run/rehost, or its like where there is no such thing (a workstation, WinPE)."""
    folder = Path("/run/rehost")
    if os.name == "nt" or not os.access(folder.parent, os.W_OK):
        import tempfile

        owner = os.getuid() if hasattr(os, "getuid") else "system"
        folder = Path(tempfile.gettempdir()) / f"rehost-{owner}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def console_name(fd: int = 0) -> str:
    try:
        return os.ttyname(fd)
    except (OSError, AttributeError):
        return f"process {os.getpid()}"


@contextlib.contextmanager
def work_lock(
    what: str, *, name: str = "work", wait: bool = False, folder: Path | None = None
) -> Iterator[None]:
    """Holds the lock while the body runs. Raises Busy at once if somebody else has it (unless ``wait``).

    The kernel frees it when the holder dies, however that happens.
    """
    path = (folder or state_folder()) / f"{name}.lock"
    with path.open("a+") as file:
        try:
            _lock(file, wait)
        except OSError as e:
            file.seek(0)
            raise Busy(file.read(200).strip() or "?") from e
        file.seek(0)
        file.truncate()
        file.write(f"{what}, {console_name()}")
        file.flush()
        yield
        file.seek(0)
        file.truncate()


def _lock(file: IO[str], wait: bool) -> None:
    if sys.platform == "win32":
        import msvcrt

        # far behind the text: on Windows nobody else may read a locked byte
        os.lseek(file.fileno(), _LOCKED, os.SEEK_SET)
        while True:
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
                return
            except OSError:
                if not wait:
                    raise
                time.sleep(0.2)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def claim(name: str, folder: Path | None = None) -> bool:
    """True for the first who asks since the machine was started: for what may be done only once."""
    try:
        (folder or state_folder()).joinpath(f"{name}.claimed").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def is_claimed(name: str, folder: Path | None = None) -> bool:
    return (folder or state_folder()).joinpath(f"{name}.claimed").exists()
