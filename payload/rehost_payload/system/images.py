"""Disk images on a workstation as a System that only reads.

Raw images are opened directly. Everything else goes through `qemu-nbd --read-only`, one process for each
image, on a Unix socket in a private folder; the process ends with its handle, whatever happens.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from rehost_payload.formats.filesystem import FileSystemReader
from rehost_payload.formats.hive import HiveEdit
from rehost_payload.formats.partitions import detect_sector_size
from rehost_payload.survey.model import Controller, Firmware, FirmwareMode
from rehost_payload.system.folders import driver_folders
from rehost_payload.system.handles import FileDisk, open_readable, pread, size_of
from rehost_payload.system.nbd import NbdClient
from rehost_payload.system.protocol import DiskHandle, DiskInfo, SystemError_, WritableVolume

_START_SECONDS = 20.0
_STOP_SECONDS = 5.0


def image_format(start: bytes, end: bytes) -> str:
    """The format of an image, as qemu calls it, from its first 512 bytes and its last 512."""
    if start[:4] == b"QFI\xfb":
        return "qcow2"
    if start[:8] == b"vhdxfile":
        return "vhdx"
    if start[:4] == b"KDMV" or start.startswith(b"# Disk DescriptorFile"):
        return "vmdk"
    if start[64:68] == b"\x7f\x10\xda\xbe":
        return "vdi"
    if start[:8] == b"conectix" or end[:8] == b"conectix":
        return "vpc"
    return "raw"


class NbdDisk:
    """An image behind qemu-nbd. Implements DiskHandle."""

    def __init__(self, path: Path, kind: str) -> None:
        """Raises SystemError_ ("tool-missing", "image")."""
        if sys.platform == "win32":
            raise SystemError_("image", f"{path} is a {kind} image; on Windows only raw images can be read")
        program = shutil.which("qemu-nbd")
        if program is None:
            raise SystemError_(
                "tool-missing", f"{path} is a {kind} image; to read it install qemu-nbd (package qemu-utils)"
            )
        self._folder = Path(tempfile.mkdtemp(prefix="rehost-nbd-"))
        socket = self._folder / "socket"
        command = [
            program,
            "--read-only",
            "--format",
            kind,
            "--socket",
            str(socket),
            "--",
            str(path.resolve()),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._client: NbdClient | None = None
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            self._client = self._connect(socket, path)
            sector = detect_sector_size(self._client)
            self.info = DiskInfo(str(path), self._client.size, sector, transport="image")
        except BaseException:
            self.close()
            raise

    def _connect(self, socket: Path, path: Path) -> NbdClient:
        assert self._process is not None
        deadline = time.monotonic() + _START_SECONDS
        while True:
            if self._process.poll() is not None:
                assert self._process.stderr is not None
                said = self._process.stderr.read().decode(errors="replace")
                raise SystemError_("image", f"{path}: {_refusal(said)}")
            try:
                return NbdClient(socket)
            except OSError as error:
                if time.monotonic() > deadline:
                    raise SystemError_("image", f"{path}: qemu-nbd does not answer: {error}") from error
            time.sleep(0.02)

    @property
    def size(self) -> int:
        return self.info.size

    def read_at(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0:
            raise ValueError("offset and length must not be negative")
        assert self._client is not None
        return self._client.read_at(offset, length)

    def partition_path(self, number: int, offset: int) -> str | None:
        return None

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        process, self._process = self._process, None
        if process is not None:
            try:
                process.wait(0.5)  # it ends by itself with its only connection
            except subprocess.TimeoutExpired:
                process.terminate()
                try:
                    process.wait(_STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            if process.stderr is not None:
                process.stderr.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _refusal(said: str) -> str:
    """What qemu-nbd wrote, in one line, with what to do about the two cases that Hyper-V makes."""
    if "log that needs to be replayed" in said:
        return "its log must be replayed first: run qemu-img check -r all on a copy of it"
    reason = said.strip().rpartition("': ")[2].replace("\n", " ") or "qemu-nbd ended"
    if "not supported" in reason:
        return f"{reason}: a differencing disk (a checkpoint) must be merged or converted first"
    return reason


def open_image(path: Path) -> FileDisk | NbdDisk:
    """Opens one image, or a block device, for reading. Raises SystemError_ ("image", "tool-missing")."""
    try:
        descriptor = open_readable(path)
    except OSError as error:
        raise SystemError_("image", f"{path}: {error.strerror}") from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise SystemError_("image", f"{path}: neither a file nor a block device")
        size = size_of(descriptor)
        if size < 512:
            raise SystemError_("image", f"{path}: {size} bytes are no disk")
        kind = image_format(pread(descriptor, 512, 0), pread(descriptor, 512, size - 512))
        if kind == "raw":
            info = DiskInfo(str(path), size, 512, transport="image")
            disk = FileDisk(info, descriptor)
            sector = detect_sector_size(disk)
            descriptor = -1
            disk.info = DiskInfo(str(path), size, sector, transport="image")
            return disk
    except OSError as error:
        raise SystemError_("image", f"{path}: {error.strerror}") from error
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return NbdDisk(path, kind)


class ImageSystem:
    """Implements System over image files. Everything that would write raises SystemError_ ("read-only")."""

    name = "images"

    def __init__(self, images: Sequence[Path], controllers: Sequence[Controller] = ()) -> None:
        """``controllers``: the disks are looked at as if they were connected to the first of them."""
        self._images = tuple(images)
        self._controllers = tuple(controllers)
        self._problems: list[str] = []
        self._open: list[DiskHandle] = []

    def __enter__(self) -> ImageSystem:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for disk in self._open:
            with suppress(OSError):
                disk.close()
        self._open = []

    def firmware(self) -> Firmware:
        return Firmware(FirmwareMode.UNKNOWN)

    def controllers(self) -> Sequence[Controller]:
        return self._controllers

    def disks(self) -> Sequence[DiskHandle]:
        """Raises SystemError_ where no image at all can be opened; one of several is a problem only."""
        self._problems = []
        opened: list[DiskHandle] = []
        refused: SystemError_ | None = None
        for path in self._images:
            try:
                disk = open_image(path)
            except SystemError_ as error:
                refused = refused or error
                self._problems.append(error.detail)
                continue
            if self._controllers:
                disk.info = replace(disk.info, controller=self._controllers[0].address)
            opened.append(disk)
            self._open.append(disk)
        if refused is not None and not opened:
            raise refused
        return opened

    def problems(self) -> Sequence[str]:
        return tuple(self._problems)

    def driver_folders(self) -> Sequence[Path]:
        return driver_folders(None)

    def volume_files(self, disk: str, offset: int) -> FileSystemReader | None:
        """Nothing is mounted: there is nobody to ask."""
        return None

    def writable(self, disk: str, offset: int, size: int) -> AbstractContextManager[WritableVolume]:
        raise self._refusal()

    def write_sectors(self, disk: str, offset: int, data: bytes) -> None:
        raise self._refusal()

    def reread_partitions(self, disk: str) -> None:
        raise self._refusal()

    def boot_code_writer(self) -> bool:
        return False

    def write_boot_code(self, disk: str, offset: int, size: int, master: bool) -> None:
        raise self._refusal()

    def edit_hive(self, hive: bytes, edits: Iterable[HiveEdit]) -> bytes:
        raise self._refusal()

    def set_firmware_variable(self, name: str, data: bytes | None) -> None:
        raise self._refusal()

    def firmware_variable(self, name: str) -> bytes | None:
        return None

    @staticmethod
    def _refusal() -> SystemError_:
        return SystemError_("read-only", "images are only read")
