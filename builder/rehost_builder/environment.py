"""What a build takes from the machine it runs on: cache folder, date, temporary space; and its errors in one sentence."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rehost_builder.errors import BuildError


def default_cache() -> Path:
    """$REHOST_CACHE, else the user's cache folder (XDG base directory specification; %LOCALAPPDATA% on Windows)."""
    own = os.environ.get("REHOST_CACHE")
    if own:
        return Path(own)
    if os.name == "nt" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"]) / "rehost"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rehost"


def source_date_epoch() -> int | None:
    """SOURCE_DATE_EPOCH (seconds since 1970), None where it is not set. BuildError where it is no number."""
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise BuildError(f"SOURCE_DATE_EPOCH is {text!r}", "it must be seconds since 1970 in digits")
    return int(text)


@contextmanager
def workspace(need: int, what: str = "a build") -> Iterator[Path]:
    """A temporary folder that is removed whatever happens. BuildError where ``need`` bytes are not free there."""
    with tempfile.TemporaryDirectory(prefix="rehost-") as name:
        free = shutil.disk_usage(name).free
        if free < need:
            raise BuildError(
                f"{Path(name).parent} has {free >> 20} MB free, {what} needs {need >> 20} MB",
                "set TMPDIR to a folder with more space",
            )
        yield Path(name)


def check_space(output: Path, need: int) -> None:
    """BuildError where the folder of ``output`` has not ``need`` bytes free."""
    free = shutil.disk_usage(output.parent).free
    if free < need:
        raise BuildError(
            f"{output.parent} has {free >> 20} MB free, {output.name} needs {(need >> 20) + 1} MB",
            "free some space, or write to another disk with -o",
        )


@contextmanager
def temporary(need: int, what: str) -> Iterator[Path]:
    """A `workspace` that is all ``what`` writes to. BuildError, naming the folder, also where it becomes full."""
    try:
        with workspace(need, what) as folder:
            yield folder
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise BuildError(
            f"the temporary folder {tempfile.gettempdir()} is full", "set TMPDIR to a folder with more space"
        ) from None


@contextmanager
def named(file: Path | str) -> Iterator[None]:
    """Names ``file`` in errors of the operating system that name none: read(2) and write(2) only know a number."""
    try:
        yield
    except OSError as e:
        if e.filename is None and e.errno is not None:
            e.filename = str(file)
        raise


@contextmanager
def clear_messages(output: Path, *also: Path) -> Iterator[None]:
    """Turns the operating system's errors into one sentence and a next step."""
    try:
        yield
    except OSError as e:
        where = e.filename or output
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BuildError(
                f"the disk is full while writing {where}",
                "free some space there; -o, --cache and TMPDIR lead to other disks",
            ) from None
        if e.errno == errno.EFBIG:
            raise BuildError(
                f"{where}: the file system takes no file of this size",
                "write to another disk (FAT32 ends at 4 GiB); -o, --cache and TMPDIR lead there",
            ) from None
        if e.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and output.parent in Path(where).parents:
            raise BuildError(
                f"{output.parent} may not be written: {e.strerror}", "name another place with -o"
            ) from None
        places = " and ".join(str(p) for p in (*also, output.parent))
        raise BuildError(f"{where}: {e.strerror or e}", f"check {places}") from None
