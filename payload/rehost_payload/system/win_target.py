r"""A capture's target on Windows: files of a volume by its name, written and read past the cache."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from rehost_payload.system.capture_target import ALIGNMENT, TargetFile, TargetInfo
from rehost_payload.system.protocol import SystemError_
from rehost_payload.system.win32 import (
    GENERIC_READ,
    GENERIC_WRITE,
    NO_BUFFERING,
    Devices,
    Win32Error,
    refused,
)
from rehost_payload.system.win_volume import WindowsVolume

_MAY_MEAN_GONE = ("io", "gone", "absent", "read-only")


@contextmanager
def _named(path: str, gone: Callable[[], bool]) -> Iterator[None]:
    """Errors as SystemError_. What Windows says when a disk was pulled out is not always that: the disk is asked."""
    try:
        yield
    except (Win32Error, OSError, SystemError_) as error:
        named = error if isinstance(error, SystemError_) else refused(error, path)
        if named.code in _MAY_MEAN_GONE and gone():
            named = SystemError_("gone", f"{path}: the disk is not there any more")
        raise named from error


@dataclass
class _File:
    """Implements TargetFile."""

    devices: Devices
    handle: int
    place: str
    path: str
    gone: Callable[[], bool]
    unbuffered: bool = True

    def reserve(self, size: int) -> None:
        """Where the file system does not do it, the file just grows as it is written; a full disk is an error."""
        try:
            with _named(self.path, self.gone):
                if os.path.getsize(self.place) < size:  # noqa: PTH202
                    self.devices.reserve(self.handle, size)
        except SystemError_ as error:
            if error.code in ("no-space", "gone", "read-only"):
                raise

    def write_at(self, offset: int, buffer: memoryview, length: int) -> None:
        end = -(-length // ALIGNMENT) * ALIGNMENT
        with _named(self.path, self.gone):
            done = 0
            while done < end:
                written = self.devices.write_from(self.handle, offset + done, buffer[done:end])
                if written <= 0 or written % ALIGNMENT:
                    raise SystemError_("io", f"{self.path}: {written} bytes were taken at {offset + done:#x}")
                done += written

    def read_into(self, offset: int, buffer: memoryview) -> int:
        with _named(self.path, self.gone):
            done = 0
            while done < len(buffer):
                got = self.devices.read_into(self.handle, offset + done, buffer[done:])
                done += got
                if not got or got % ALIGNMENT:
                    break
            return done

    def flush(self) -> None:
        with _named(self.path, self.gone):
            self.devices.flush(self.handle)

    def finish(self, size: int, created: int, modified: int) -> None:
        """The file is cut by another handle: one without a cache moves in whole sectors only."""
        with _named(self.path, self.gone):
            os.truncate(self.place, size)
            self.devices.set_times(self.handle, created, modified)
            self.devices.flush(self.handle)

    def close(self) -> None:
        if self.handle:
            with suppress(Win32Error):  # a disk that has vanished
                self.devices.close(self.handle)
            self.handle = 0


class WindowsTarget:
    """Implements CaptureTarget. ``gone`` says whether the disk below has been unplugged."""

    def __init__(
        self, devices: Devices, volume: WindowsVolume, info: TargetInfo, gone: Callable[[], bool]
    ) -> None:
        self._devices = devices
        self._volume = volume
        self._gone = gone
        self.info = info

    @contextmanager
    def _errors(self, path: str) -> Iterator[str]:
        """The path as the volume takes it."""
        with _named(path, self._gone):
            yield "\\" + "\\".join(part for part in path.split("/") if part)

    def free(self) -> int:
        with self._errors(""):
            return self._volume.free()

    def size(self, path: str) -> int | None:
        with self._errors(path) as place:
            if self._volume.exists(place):
                return os.path.getsize(self._volume.place(place))  # noqa: PTH202
            self._still_there(path)
            return None

    def names(self, folder: str) -> list[str]:
        with self._errors(folder) as place:
            if self._volume.is_directory(place):
                return sorted(self._volume.listdir(place))
            self._still_there(folder)
            return []

    def _still_there(self, path: str) -> None:
        """Nothing there, or nothing there any more: the second is no answer."""
        if self._gone():
            raise SystemError_("gone", f"{path}: the disk is not there any more")

    def make_folders(self, path: str) -> None:
        with self._errors(path) as place:
            names = place.strip("\\").split("\\")
            for count in range(1, len(names) + 1):
                folder = "\\" + "\\".join(names[:count])
                if not self._volume.is_directory(folder):
                    self._volume.make_directory(folder)

    def open(self, path: str) -> TargetFile:
        with self._errors(path) as name:
            place = self._volume.place(name)
            os.close(os.open(place, os.O_RDWR | os.O_CREAT, 0o600))
            handle = self._devices.open(place, GENERIC_READ | GENERIC_WRITE, NO_BUFFERING)
            return _File(self._devices, handle, place, path, self._gone)

    def rename(self, old: str, new: str) -> None:
        with self._errors(old) as source, self._errors(new) as target:
            self._devices.move(self._volume.place(source), self._volume.place(target))

    def remove(self, path: str) -> None:
        with self._errors(path) as place:
            if self._volume.exists(place):
                self._volume.remove(place)

    def remove_folder(self, path: str) -> None:
        with self._errors(path) as place:
            if self._volume.is_directory(place) and not self._volume.listdir(place):
                self._volume.remove_directory(place)

    def read(self, path: str) -> bytes:
        with self._errors(path) as place:
            return self._volume.read(place)

    def replace(self, path: str, data: bytes) -> None:
        with self._errors(path) as place:
            self._volume.replace(place, data)

    def append(self, path: str, data: bytes) -> None:
        with self._errors(path) as place:
            self._volume.append(place, data)
