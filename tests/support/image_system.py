"""A `System` whose disks are raw image files that can be written, without root: for tests of the whole pipeline.

Reading goes the way of the product; writing goes through mtools and libntfs-3g (support/disks.py). ``fail`` lets a
test break things: it is called before every write with what is about to be done and may raise.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rehost_payload.formats.filesystem import FileSystemReader
from rehost_payload.formats.hive import HiveEdit
from rehost_payload.formats.partitions import detect_sector_size
from rehost_payload.formats.source import SliceSource
from rehost_payload.survey.filesystems import open_filesystem
from rehost_payload.survey.model import Controller, Firmware, FirmwareMode
from rehost_payload.system.hivex_edit import edit_hive
from rehost_payload.system.protocol import DiskHandle, DiskInfo, SystemError_, WritableVolume
from support import disks
from support.disks import DiskLayout, PartitionLayout

Fail = Callable[[str, str], None]
Bootsect = Callable[[Path, int, int, bool], None]
"""Writes boot code: image, byte offset and size of the volume, whether the disk's own as well."""


class ImageDisk:
    def __init__(self, path: Path, read_only: bool, controller: str | None = None) -> None:
        self._file = path.open("rb")
        self._size = path.stat().st_size
        info = DiskInfo(
            *(str(path), self._size, 512, "Image", path.name, "image"),
            controller=controller,
            read_only=read_only,
        )
        self.info = DiskInfo(**{**info.__dict__, "sector_size": detect_sector_size(self)})

    @property
    def size(self) -> int:
        return self._size

    def read_at(self, offset: int, length: int) -> bytes:
        return os.pread(self._file.fileno(), max(0, min(length, self._size - offset)), offset)

    def partition_path(self, number: int, offset: int) -> str | None:
        return None

    def close(self) -> None:
        self._file.close()


@dataclass
class ImageVolume:
    """A writable volume of a raw image. Every write is on the image when the call returns."""

    image: Path
    offset: int
    size: int
    fail: Fail

    def _layout(self) -> tuple[DiskLayout, PartitionLayout]:
        reader = self._reader()
        part = PartitionLayout(
            "", 1, self.offset, self.size, "", "ntfs" if reader.kind == "ntfs" else "fat32"
        )
        return DiskLayout(self.image, "", self.image.stat().st_size, 512, (part,)), part

    def _reader(self) -> FileSystemReader:
        return open_filesystem(SliceSource(ImageDisk(self.image, True), self.offset, self.size))

    def read(self, path: str) -> bytes:
        return self._reader().read(path)

    def exists(self, path: str) -> bool:
        return self._reader().exists(path)

    def is_directory(self, path: str) -> bool:
        return self._reader().is_directory(path)

    def listdir(self, path: str) -> list[str]:
        return [e.name for e in self._reader().listdir(path)]

    def free(self) -> int:
        return self._reader().free() or 0

    def make_directory(self, path: str) -> None:
        self.fail("make-directory", path)
        disks.write_files(*self._layout(), {path.strip("\\") + "\\": b""})

    def remove_directory(self, path: str) -> None:
        self.fail("remove-directory", path)
        disks.delete_file(*self._layout(), path)

    def replace(self, path: str, data: bytes) -> None:
        self.fail("replace", path)
        disks.write_file(*self._layout(), path.strip("\\"), data)

    def append(self, path: str, data: bytes) -> None:
        self.fail("append", path)
        old = self.read(path) if self.exists(path) else b""
        disks.write_file(*self._layout(), path.strip("\\"), old + data)

    def remove(self, path: str) -> None:
        self.fail("remove", path)
        disks.delete_file(*self._layout(), path)


def tree_of(reader: FileSystemReader) -> dict[str, str]:
    """Every file and folder of a volume, by what it holds; folders end with a backslash. NTFS' own are left out."""
    found: dict[str, str] = {}
    pending = [""]
    while pending:
        folder = pending.pop()
        for entry in reader.listdir(folder or "\\"):
            path = f"{folder}\\{entry.name}"
            if entry.name.startswith("$"):
                continue
            if entry.is_directory:
                pending.append(path)
                found[path + "\\"] = ""
            else:
                found[path] = hashlib.sha256(reader.read(path)).hexdigest()
    return found


def _nothing(what: str, where: str) -> None:
    pass


@dataclass
class ImageMachine:
    """A machine made of raw images. ``variables`` are its UEFI variables."""

    images: Sequence[Path]
    firmware_: Firmware = field(default_factory=lambda: Firmware(FirmwareMode.UNKNOWN))
    variables: dict[str, bytes] = field(default_factory=dict)
    read_only: frozenset[Path] = frozenset()
    fail: Fail = _nothing
    name: str = "linux"
    controllers_: tuple[Controller, ...] = ()
    """The disks are connected to the first of them."""
    drivers: tuple[Path, ...] = ()
    bootsect: Bootsect | None = None

    def firmware(self) -> Firmware:
        return self.firmware_

    def controllers(self) -> Sequence[Controller]:
        return self.controllers_

    def disks(self) -> Sequence[DiskHandle]:
        address = self.controllers_[0].address if self.controllers_ else None
        return [ImageDisk(p, p in self.read_only, address) for p in self.images]

    def driver_folders(self) -> Sequence[Path]:
        return self.drivers

    def problems(self) -> Sequence[str]:
        return ()

    @contextmanager
    def writable(self, disk: str, offset: int, size: int) -> Iterator[WritableVolume]:
        if Path(disk) in self.read_only:
            raise SystemError_("read-only", f"{disk} is read-only")
        self.fail("mount", disk)
        yield ImageVolume(Path(disk), offset, size, self.fail)

    def write_sectors(self, disk: str, offset: int, data: bytes) -> None:
        self.fail("sectors", disk)
        disks.write_bytes(Path(disk), offset, data)

    def reread_partitions(self, disk: str) -> None:
        pass

    def boot_code_writer(self) -> bool:
        return self.bootsect is not None

    def write_boot_code(self, disk: str, offset: int, size: int, master: bool) -> None:
        self.fail("boot-code", disk)
        assert self.bootsect is not None
        self.bootsect(Path(disk), offset, size, master)

    def edit_hive(self, hive: bytes, edits: Iterable[HiveEdit]) -> bytes:
        return edit_hive(hive, edits)

    def firmware_variable(self, name: str) -> bytes | None:
        return self.variables.get(name)

    def set_firmware_variable(self, name: str, data: bytes | None) -> None:
        self.fail("variable", name)
        if data is None:
            self.variables.pop(name, None)
        else:
            self.variables[name] = data
