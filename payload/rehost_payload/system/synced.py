"""Writes to files of a mounted volume that are on the disk when the call returns."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path


def write_synced(path: Path, data: bytes, flags: int, mode: int) -> None:
    """Writes all of ``data`` and flushes the file. ``flags`` and ``mode`` as for os.open. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | flags, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_file_system(descriptor: int) -> None:
    """Flushes the whole file system that a file or folder is on (Linux, syncfs(2)). Raises OSError."""
    if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
