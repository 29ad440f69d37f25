"""ioctls and uncached access to block devices."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
import time

from rehost_payload.system.protocol import SystemError_

if sys.platform != "win32":  # imported everywhere, called on Linux
    import fcntl

_BLKRRPART = 0x125F
_BLKFLSBUF = 0x1261
_BLKPG = 0x1269
_BLKPG_ADD, _BLKPG_DELETE = 1, 2
_GONE = (errno.ENODEV, errno.ENXIO, errno.ESHUTDOWN, errno.ENOENT)
_ALIGNMENT = 4096


def os_error(error: OSError, what: str) -> SystemError_:
    """An OSError as the protocol names it."""
    codes = {
        errno.ENOSPC: "no-space",
        errno.EDQUOT: "no-space",
        errno.EROFS: "read-only",
        errno.EACCES: "permission",
        errno.EPERM: "permission",
        errno.EBUSY: "busy",
        **dict.fromkeys(_GONE, "gone"),
    }
    code = codes.get(error.errno or 0, "io")
    return SystemError_(code, f"{what}: {error.strerror or error}")


def forget_cache(descriptor: int) -> None:
    """Drops what the kernel remembers of the whole disk, so that the next read sees what mounts have
    written."""
    try:
        fcntl.ioctl(descriptor, _BLKFLSBUF, 0)
    except OSError:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # a file, or we are not root


def read_uncached(path: str, offset: int, length: int) -> bytes:
    """Reads past the page cache. Falls back to a read after the cache was dropped where O_DIRECT is
    refused."""
    start = offset // _ALIGNMENT * _ALIGNMENT
    span = -(-(offset + length) // _ALIGNMENT) * _ALIGNMENT - start
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        descriptor = -1
    if descriptor >= 0:
        try:
            with mmap.mmap(-1, span) as buffer:  # page-aligned, as O_DIRECT wants it
                count = os.preadv(descriptor, [buffer], start)
                return buffer[offset - start : min(offset - start + length, count)]
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        finally:
            os.close(descriptor)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        forget_cache(descriptor)
        return os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)


def write_sectors(path: str, sector_size: int, offset: int, data: bytes) -> None:
    """Writes whole sectors, flushes them, reads them back past the cache. Raises SystemError_ ("write",
    ...)."""
    if offset % sector_size or len(data) % sector_size or not data:
        raise ValueError("only whole sectors can be written")
    try:
        descriptor = os.open(path, os.O_RDWR)
        try:
            done = 0
            while done < len(data):
                done += os.pwrite(descriptor, data[done:], offset + done)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        found = read_uncached(path, offset, len(data))
    except OSError as error:
        raise os_error(error, f"{path}: writing {len(data)} bytes at {offset:#x}") from error
    if found != data:
        raise SystemError_("verify", f"{path}: {len(data)} bytes at {offset:#x} read back differently")


def reread_partitions(path: str) -> None:
    """Asks the kernel to look at the table again. A disk in use keeps its old view, which is no error for us:
    `add_partition` reaches what the kernel does not show."""
    for _ in range(5):
        try:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                fcntl.ioctl(descriptor, _BLKRRPART, 0)
                return
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOTTY):
                return  # no partitions possible here
            if error.errno != errno.EBUSY:
                raise os_error(error, path) from error
            time.sleep(0.2)


class _Partition(ctypes.Structure):
    _fields_ = (
        ("start", ctypes.c_longlong),
        ("length", ctypes.c_longlong),
        ("number", ctypes.c_int),
        ("device", ctypes.c_char * 64),
        ("volume", ctypes.c_char * 64),
    )


class _Request(ctypes.Structure):
    _fields_ = (
        ("operation", ctypes.c_int),
        ("flags", ctypes.c_int),
        ("length", ctypes.c_int),
        ("data", ctypes.c_void_p),
    )


def _partition_request(path: str, operation: int, number: int, offset: int, size: int) -> None:
    partition = _Partition(offset, size, number, b"", b"")
    request = _Request(operation, 0, ctypes.sizeof(partition), ctypes.addressof(partition))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, _BLKPG, request)
    finally:
        os.close(descriptor)


def add_partition(path: str, offset: int, size: int, taken: set[int]) -> int:
    """Shows the kernel a partition that it did not find itself (a damaged primary GPT). Returns its
    number."""
    number = next(n for n in range(64, 256) if n not in taken)
    try:
        _partition_request(path, _BLKPG_ADD, number, offset, size)
    except OSError as error:
        raise os_error(error, f"{path}: no device for the volume at {offset:#x}") from error
    return number


def delete_partition(path: str, number: int) -> None:
    try:
        _partition_request(path, _BLKPG_DELETE, number, 0, 0)
    except OSError as error:
        raise os_error(error, path) from error
