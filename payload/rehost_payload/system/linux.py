"""The System of a Linux base: block devices from /sys, mounts, hivex, efivarfs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.filesystem import FileSystemReader
from rehost_payload.formats.hive import HiveEdit
from rehost_payload.formats.source import SliceSource
from rehost_payload.survey.model import Controller, Firmware, FirmwareMode
from rehost_payload.system import blockio, sysfs
from rehost_payload.system.capture_target import CaptureTarget, TargetInfo
from rehost_payload.system.directory_target import DirectoryTarget
from rehost_payload.system.efivars import Variables
from rehost_payload.system.folders import driver_folders
from rehost_payload.system.handles import FileDisk
from rehost_payload.system.hivex_edit import edit_hive
from rehost_payload.system.judging import FOR_CAPTURES, Condition, condition, unfit
from rehost_payload.system.mounting import MountedVolume, Way, mount_efivarfs, mounted, ways
from rehost_payload.system.protocol import (
    BUSY_NAME,
    DiskInfo,
    SystemError_,
    WritableVolume,
)
from rehost_payload.system.sharing import Shared

MEDIUM_LABEL = b"REHOST-ISO"


@dataclass(frozen=True)
class _Mount:
    """A volume that is mounted now."""

    volume: MountedVolume
    facts: Condition


@dataclass(frozen=True)
class _Judged:
    """A volume that may be written: how to mount it, whether it gets BUSY_NAME for that time, and whether it
    is dirty already, from a run of ours that was interrupted. The mark of such a one stays as long as the
    flag."""

    ways: list[Way]
    facts: Condition
    mark: bool = False
    dirty: bool = False


class LinuxSystem:
    """Implements System. ``root`` is "/" except in tests, which build a /sys of their own."""

    name = "linux"

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._problems: list[str] = []
        self._mounts: Shared[tuple[str, int], _Mount] = Shared()

    # --- what is there ---

    def firmware(self) -> Firmware:
        if not (self._root / "sys/firmware/efi").is_dir():
            return Firmware(FirmwareMode.BIOS)
        return self._variables().firmware()

    def _variables(self) -> Variables:
        folder = self._root / "sys/firmware/efi/efivars"
        if self._root == Path("/"):
            mount_efivarfs(folder)
        return Variables(folder)

    def controllers(self) -> Sequence[Controller]:
        return sysfs.controllers(self._root)

    def disks(self) -> Sequence[FileDisk]:
        """Opens every disk read-only and drops what the kernel had cached of it."""
        self._problems = []
        addresses = {controller.address for controller in self.controllers()}
        opened: list[FileDisk] = []
        for device in sysfs.block_devices(self._root):
            try:
                descriptor = os.open(device.path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                self._problems.append(f"{device.path}: {error.strerror}")
                continue
            blockio.forget_cache(descriptor)
            info = DiskInfo(
                path=device.path,
                size=device.size,
                sector_size=device.sector_size,
                model=device.model,
                serial=device.serial,
                transport=device.transport,
                controller=device.controller if device.controller in addresses else None,
                read_only=device.read_only,
                removable=device.removable,
                boot_medium=_is_medium(descriptor),
            )
            opened.append(FileDisk(info, descriptor, device.partitions))
        return opened

    def problems(self) -> Sequence[str]:
        return tuple(self._problems)

    def driver_folders(self) -> Sequence[Path]:
        return driver_folders(self._root)

    def volume_files(self, disk: str, offset: int) -> FileSystemReader | None:
        """Linux reads no file system of Windows' that our own readers do not."""
        return None

    # --- writing ---

    @contextmanager
    def writable(self, disk: str, offset: int, size: int) -> Iterator[WritableVolume]:
        """See System.writable. A volume that is mounted already is shared; the last user unmounts it."""
        with self._shared(disk, offset, size) as mount:
            yield mount.volume

    @contextmanager
    def capture_target(self, disk: str, offset: int, size: int) -> Iterator[CaptureTarget]:
        """See CaptureSystem.capture_target."""
        device = self._device(disk)
        with self._shared(disk, offset, size, capture=True) as mount:
            facts = mount.facts
            if facts.kind not in FOR_CAPTURES:  # mounted for something else before
                raise unfit(f"{disk} at {offset:#x}", facts.kind)
            label = f" ({facts.label})" if facts.label else ""
            info = TargetInfo(
                id=f"{facts.kind}-{facts.serial}",
                name=device.partitions.get(offset, disk) + label,
                file_system=facts.kind,
                disk=disk,
                disk_serial=device.serial,
                disk_size=device.size,
                offset=offset,
            )
            yield DirectoryTarget(mount.volume.root, info, lambda: self._is_gone(device), whole=True)

    def _is_gone(self, device: sysfs.BlockDevice) -> bool:
        """Unplugged, or another disk in its place."""
        identity = (device.path, device.serial, device.size)
        return identity not in {(d.path, d.serial, d.size) for d in sysfs.block_devices(self._root)}

    def _shared(
        self, disk: str, offset: int, size: int, *, capture: bool = False
    ) -> AbstractContextManager[_Mount]:
        return self._mounts.use((disk, offset), lambda: self._mounted(disk, offset, size, capture))

    @contextmanager
    def _mounted(self, disk: str, offset: int, size: int, capture: bool) -> Iterator[_Mount]:
        device = self._device(disk)
        if device.read_only:
            raise SystemError_("read-only", f"{disk} is read-only")
        try:
            judged = self._prepare(device, offset, size, capture)
        except FormatError as error:
            raise SystemError_("mount", f"{disk} at {offset:#x}: {error}") from error
        except OSError as error:
            raise blockio.os_error(error, disk) from error
        with self._node(device, offset, size) as node:
            try:
                with mounted(node, judged.ways) as target:
                    volume = MountedVolume(target)
                    if judged.mark and not volume.exists(BUSY_NAME):
                        volume.append(BUSY_NAME, b"")
                    try:
                        yield _Mount(volume, judged.facts)
                    finally:
                        if judged.mark and not judged.dirty:
                            with suppress(SystemError_):  # a disk that has vanished
                                volume.remove(BUSY_NAME)
            finally:
                self._forget(disk)

    def _device(self, disk: str) -> sysfs.BlockDevice:
        for device in sysfs.block_devices(self._root):
            if device.path == disk:
                return device
        raise SystemError_("gone", f"{disk} is not there any more")

    def _prepare(self, device: sysfs.BlockDevice, offset: int, size: int, capture: bool) -> _Judged:
        """Looks at a volume with our own readers. Raises SystemError_, FormatError, OSError as `condition` does."""
        descriptor = os.open(device.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            blockio.forget_cache(descriptor)
            info = DiskInfo(device.path, device.size, device.sector_size)
            source = SliceSource(FileDisk(info, descriptor), offset, size)
            where = f"{device.path} at {offset:#x}"
            found = condition(source, where, device.sector_size, capture=capture)
        finally:
            os.close(descriptor)
        for place, content in found.leftovers:
            blockio.write_sectors(device.path, device.sector_size, offset + place, content)
        attempts = ways(found.kind, journal_unclean=found.journal_unclean, forced=found.dirty)
        return _Judged(attempts, found, mark=capture or found.kind == "ntfs", dirty=found.dirty)

    @contextmanager
    def _node(self, device: sysfs.BlockDevice, offset: int, size: int) -> Iterator[str]:
        """The device node of the volume; where the kernel knows none, one is made for the time of the
        block."""
        if offset in device.partitions:
            yield device.partitions[offset]
        elif offset == 0:
            yield device.path
        else:
            known = {int(path[len(device.path) :].lstrip("p")) for path in device.partitions.values()}
            number = blockio.add_partition(device.path, offset, size, known)
            try:
                separator = "p" if device.path[-1].isdecimal() else ""
                yield f"{device.path}{separator}{number}"
            finally:
                with suppress(SystemError_):
                    blockio.delete_partition(device.path, number)

    @staticmethod
    def _forget(disk: str) -> None:
        with suppress(OSError):
            descriptor = os.open(disk, os.O_RDONLY | os.O_CLOEXEC)
            try:
                blockio.forget_cache(descriptor)
            finally:
                os.close(descriptor)

    def write_sectors(self, disk: str, offset: int, data: bytes) -> None:
        blockio.write_sectors(disk, self._device(disk).sector_size, offset, data)

    def reread_partitions(self, disk: str) -> None:
        blockio.reread_partitions(disk)

    def boot_code_writer(self) -> bool:
        return False

    def write_boot_code(self, disk: str, offset: int, size: int, master: bool) -> None:
        raise SystemError_("boot-code", "Microsoft's boot code is not on this base")

    def edit_hive(self, hive: bytes, edits: Iterable[HiveEdit]) -> bytes:
        return edit_hive(hive, edits)

    def set_firmware_variable(self, name: str, data: bytes | None) -> None:
        self._variables().write(name, data)

    def firmware_variable(self, name: str) -> bytes | None:
        return self._variables().read(name)


def _is_medium(descriptor: int) -> bool:
    """Our own ISO, written to a stick or seen by a virtual drive: volume label of its ISO 9660 descriptor."""
    try:
        data = os.pread(descriptor, 72, 32768)
    except OSError:
        return False
    return data[1:6] == b"CD001" and data[40:72].strip() == MEDIUM_LABEL
