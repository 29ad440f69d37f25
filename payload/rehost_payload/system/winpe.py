"""The System of a Windows base (WinPE, or any Windows, as administrator): disks, volumes, registry and firmware.

Nothing here reads the text of a program, and nothing imports Windows: what it is asked is in win32.py, so that tests
run it anywhere.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.filesystem import FileSystemReader
from rehost_payload.formats.hive import HiveEdit
from rehost_payload.formats.source import SliceSource
from rehost_payload.survey.model import Controller, Firmware
from rehost_payload.system import win32_layouts as layouts
from rehost_payload.system import win_controllers, win_disks, win_firmware, win_hive
from rehost_payload.system.capture_target import CaptureTarget, TargetInfo
from rehost_payload.system.folders import driver_folders
from rehost_payload.system.judging import FOR_CAPTURES, Condition, condition, unfit
from rehost_payload.system.protocol import BUSY_NAME, DiskInfo, SystemError_, WritableVolume
from rehost_payload.system.sharing import Shared
from rehost_payload.system.win32 import (
    GENERIC_READ,
    GENERIC_WRITE,
    VolumeFacts,
    Win32,
    Win32Error,
    refused,
)
from rehost_payload.system.win_disks import WindowsDisk, disk_number, opened, volume_device
from rehost_payload.system.win_dism import Dism
from rehost_payload.system.win_files import WindowsFiles
from rehost_payload.system.win_target import WindowsTarget
from rehost_payload.system.win_tools import (
    Run,
    ToolError,
    find_bootsect,
    lettered,
    own_folder,
    run_tool,
    tool,
    write_boot_code,
)
from rehost_payload.system.win_volume import WindowsVolume

_READ_ONLY_VOLUME = 0x00080000
_PROBED = range(64)
_LOCK_TRIES = 20
_VOLUME_TRIES = 20  # half a second apart: Windows finds the volumes of a disk in its own time
_NAMED_VOLUME = "\\\\?\\Volume{"
_MEDIUM_LABELS = (b"REHOST-ISO", b"REHOST-WINPE")
_SOURCE_DRIVE = (r"SYSTEM\CurrentControlSet\Control", "PEBootRamdiskSourceDrive")


@dataclass(frozen=True)
class _Mount:
    """A volume that is in use now."""

    volume: WritableVolume
    root: str
    facts: Condition


class WinPeSystem:
    """Implements System. ``make_volume`` and ``make_files`` make a volume of a root path, for writing and for reading;
    tests put folders there. ``run`` starts a program."""

    name = "winpe"

    def __init__(
        self,
        api: Win32,
        environment: Mapping[str, str] = os.environ,
        make_volume: Callable[[Win32, str], WritableVolume] = WindowsVolume,
        sleep: Callable[[float], None] = time.sleep,
        make_files: Callable[[Win32, str, VolumeFacts], FileSystemReader] = WindowsFiles,
        run: Run = run_tool,
    ) -> None:
        self._api = api
        self._make_files = make_files
        self._environment = environment
        self._make_volume = make_volume
        self._sleep = sleep
        self._run = run
        self._dism = Dism(api, environment, run)
        self._problems: list[str] = []
        self._mounts: Shared[tuple[int, int], _Mount] = Shared()

    # --- what is there ---

    def firmware(self) -> Firmware:
        return win_firmware.firmware(self._api)

    def controllers(self) -> Sequence[Controller]:
        return win_controllers.controllers(self._api)

    def disks(self) -> Sequence[WindowsDisk]:
        """Opens every disk read-only, in the order of their numbers."""
        self._problems = []
        known = self.controllers()
        devices = self._numbers()
        medium = self._medium()
        found: list[WindowsDisk] = []
        for number in sorted(devices):
            path = win_disks.disk_path(number)
            try:
                disk = win_disks.open_disk(self._api, number)
            except (Win32Error, ValueError) as error:
                self._problems.append(f"{path}: {error}")
                continue
            if disk is None:
                continue
            device = devices[number]
            info = disk.info
            controller = None
            if device is not None and info.transport != "usb":
                controller = win_controllers.controller_of(self._api, device, known)
            boot_medium = (medium is not None and number == medium[1]) or _is_medium(disk)
            disk.info = type(info)(**{**info.__dict__, "controller": controller, "boot_medium": boot_medium})
            found.append(disk)
        return found

    def _numbers(self) -> dict[int, str | None]:
        """The numbers of the disks, with their devices. Plug and Play knows them all; where it does not answer,
        the names are tried."""
        found: dict[int, str | None] = {}
        try:
            interfaces = self._api.disk_interfaces()
        except Win32Error:
            interfaces = ()
        for path, device in interfaces:
            with suppress(Win32Error, ValueError), opened(self._api, path) as handle:
                answer = self._api.control(handle, layouts.STORAGE_DEVICE_NUMBER, b"", 12)
                kind, number = layouts.parse_device_number(answer)
                if kind == layouts.FILE_DEVICE_DISK:
                    found[number] = device
        return found or dict.fromkeys(_PROBED)

    def _medium(self) -> tuple[str, int | None] | None:
        """Root ("D:\\") and disk of the volume whose boot image we run from, as Windows PE noted it. A disc has no
        number."""
        try:
            data = self._api.value(*_SOURCE_DRIVE)
            root = (data or b"").decode("utf-16-le", "replace").partition("\0")[0]
            for name in self._api.volumes() if root else ():
                if root.upper() in (point.upper() for point in self._api.mount_points(name)):
                    found = win_disks.extents(self._api, name)
                    return root, found[0].disk if found else None
        except Win32Error:
            pass
        return None

    def problems(self) -> Sequence[str]:
        return tuple(self._problems)

    def driver_folders(self) -> Sequence[Path]:
        # the medium's own is always named, and there only where the medium was built with packages
        own = own_folder("drivers", self._environment)
        folders = driver_folders(None, self._environment) or (own,)
        return tuple(f for f in folders if f != own or f.is_dir())

    def volume_files(self, disk: str, offset: int) -> FileSystemReader | None:
        """See System.volume_files. Windows mounts what it can by itself, so that asking changes nothing."""
        try:
            root = win_disks.find_volume(self._api, disk_number(disk), offset)
            facts = None if root is None else self._api.volume_facts(root)
        except Win32Error:
            return None  # not a file system of Windows', locked by BitLocker, or the disk is offline
        return None if root is None or facts is None else self._make_files(self._api, root, facts)

    # --- writing ---

    @contextmanager
    def writable(self, disk: str, offset: int, size: int) -> Iterator[WritableVolume]:
        """See System.writable. A volume that is in use already is shared; the last user closes it."""
        with self._shared(disk, offset, size) as mount:
            yield mount.volume

    @contextmanager
    def capture_target(self, disk: str, offset: int, size: int) -> Iterator[CaptureTarget]:
        """See CaptureSystem.capture_target."""
        number = disk_number(disk)
        with self._shared(disk, offset, size, capture=True) as mount:
            facts, volume, where = mount.facts, mount.volume, f"{disk} at {offset:#x}"
            if facts.kind not in FOR_CAPTURES:  # in use for something else before
                raise unfit(where, facts.kind)
            if not isinstance(volume, WindowsVolume):
                raise TypeError(f"{type(volume).__name__} is no volume for captures")
            with self._disk(number) as opened_disk:
                identity = opened_disk.info
            info = TargetInfo(
                id=f"{facts.kind}-{facts.serial}",
                name=self._volume_name(mount.root) + (f" ({facts.label})" if facts.label else ""),
                file_system=facts.kind,
                disk=disk,
                disk_serial=identity.serial,
                disk_size=identity.size,
                offset=offset,
            )
            marked = not volume.exists(BUSY_NAME)
            if marked:
                volume.append(BUSY_NAME, b"")
            try:
                yield WindowsTarget(self._api, volume, info, lambda: self._is_gone(identity))
            finally:
                if marked and not facts.dirty:
                    with suppress(SystemError_):  # a disk that has vanished
                        volume.remove(BUSY_NAME)

    def driver_tool_refusal(self, build: int, root: str) -> tuple[str, dict[str, str]] | None:
        return self._dism.refusal(build, root)

    def driver_tool_log(self) -> bytes:
        return self._dism.log()

    def install_driver(
        self, disk: str, offset: int, size: int, root: str, inf: Path, waiting: Callable[[], None]
    ) -> None:
        """See DriverTool.install_driver."""
        where = f"{disk} at {offset:#x}"
        with self._shared(disk, offset, size) as mount:
            try:
                with lettered(self._api, mount.root) as letter:
                    self._dism.install(letter, root, inf, waiting)
            except Win32Error as error:
                raise refused(error, where) from error
            finally:
                self._flush(mount.root, where)  # the volume may stay in use, for the journal

    def _volume_name(self, root: str) -> str:
        """Its letter, where it has one."""
        try:
            points = [p for p in self._api.mount_points(root) if len(p) == 3]
        except Win32Error:
            points = []
        return points[0].rstrip("\\") if points else root.rstrip("\\")

    def _is_gone(self, known: DiskInfo) -> bool:
        """Unplugged, or another disk in its place."""
        try:
            with self._disk(disk_number(known.path)) as disk:
                return (disk.info.serial, disk.info.size) != (known.serial, known.size)
        except SystemError_:
            return True

    def _shared(
        self, disk: str, offset: int, size: int, *, capture: bool = False
    ) -> AbstractContextManager[_Mount]:
        number = disk_number(disk)
        return self._mounts.use((number, offset), lambda: self._mounted(number, offset, size, capture))

    @contextmanager
    def _mounted(self, number: int, offset: int, size: int, capture: bool) -> Iterator[_Mount]:
        with self._opened(number, offset, size, capture) as (root, facts):
            yield _Mount(self._make_volume(self._api, root), root, facts)

    @contextmanager
    def _opened(self, number: int, offset: int, size: int, capture: bool) -> Iterator[tuple[str, Condition]]:
        """The root path of a volume that may be written, flushed at the end."""
        where = f"{win_disks.disk_path(number)} at {offset:#x}"
        with self._disk(number) as disk:
            if disk.info.read_only:
                raise SystemError_("read-only", f"{where}: the disk is read-only")
            try:
                source = SliceSource(disk, offset, size)
                found = condition(source, where, disk.info.sector_size, capture=capture)
            except FormatError as error:
                raise SystemError_("mount", f"{where}: {error}") from error
            except OSError as error:
                raise SystemError_("io", f"{where}: {error}") from error
        with self._online(number):
            for place, content in found.leftovers:
                self._write_sectors(number, offset + place, content)
            root = self._root(number, offset, where)
            try:
                yield root, found
            finally:
                self._flush(root, where)

    @contextmanager
    def _disk(self, number: int) -> Iterator[WindowsDisk]:
        path = win_disks.disk_path(number)
        try:
            disk = win_disks.open_disk(self._api, number)
        except Win32Error as error:
            raise refused(error, path) from error
        except ValueError as error:
            raise SystemError_("io", f"{path}: {error}") from error
        if disk is None:
            raise SystemError_("gone", f"{path} is not there any more")
        try:
            yield disk
        finally:
            disk.close()

    @contextmanager
    def _online(self, number: int) -> Iterator[None]:
        path = win_disks.disk_path(number)
        with ExitStack() as stack:
            try:
                stack.enter_context(win_disks.online(self._api, number))
            except Win32Error as error:
                raise refused(error, f"{path}: taking it into use") from error
            yield

    def _root(self, number: int, offset: int, where: str) -> str:
        """The path of the volume's root folder: by its name, or, where the mount manager gave it none, by its
        partition."""
        root = win_disks.find_volume(self._api, number, offset)
        for _ in range(_VOLUME_TRIES):
            if root is not None or (root := self._partition_root(number, offset)) is not None:
                break
            self._sleep(0.5)
            root = win_disks.find_volume(self._api, number, offset)
        if root is None:
            raise SystemError_("mount", f"{where}: Windows knows no volume there")
        try:
            flags = self._api.volume_facts(root).flags
        except Win32Error as error:
            raise SystemError_("mount", f"{where}: {error}") from error
        if flags & _READ_ONLY_VOLUME:
            raise SystemError_("read-only", f"{where}: Windows mounted it read-only")
        return root

    def _partition_root(self, number: int, offset: int) -> str | None:
        with self._disk(number) as disk:
            device = disk.partition_path(0, offset)
        return None if device is None else rf"\\?\GLOBALROOT{device}" + "\\"

    def _flush(self, root: str, where: str) -> None:
        """Everything to the disk, and, where nobody else uses the volume, the file system closed: so that what is
        read from the disk itself afterwards is what was written. Raises SystemError_."""
        try:
            with opened(self._api, volume_device(root), GENERIC_READ | GENERIC_WRITE) as handle:
                self._api.flush(handle)
                with suppress(Win32Error):
                    self._api.control(handle, layouts.LOCK_VOLUME)
                    self._api.control(handle, layouts.DISMOUNT_VOLUME)
        except Win32Error as error:
            raise refused(error, f"{where}: flushing the volume") from error

    def write_sectors(self, disk: str, offset: int, data: bytes) -> None:
        number = disk_number(disk)
        with self._online(number):
            self._write_sectors(number, offset, data)

    def _write_sectors(self, number: int, offset: int, data: bytes) -> None:
        """Windows lets nobody write below a mounted file system: it is closed and locked for that time."""
        with ExitStack() as stack:
            for name in win_disks.volumes_within(self._api, number, offset, len(data)):
                stack.enter_context(self._locked(name))
            disk = stack.enter_context(self._disk(number))
            win_disks.write_sectors(self._api, disk, offset, data)

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        access = GENERIC_READ | GENERIC_WRITE
        try:
            handle = self._api.open(volume_device(name), access)
        except Win32Error as error:
            raise refused(error, name) from error
        try:
            self._lock(handle, name)
            yield
        finally:
            with suppress(Win32Error):
                self._api.control(handle, layouts.UNLOCK_VOLUME)
            self._api.close(handle)

    def _lock(self, handle: int, name: str) -> None:
        """Somebody may have a file open for a moment: tried several times."""
        for attempt in range(_LOCK_TRIES):
            try:
                self._api.control(handle, layouts.LOCK_VOLUME)
                break
            except Win32Error as error:
                if attempt == _LOCK_TRIES - 1:
                    raise SystemError_("busy", f"{name} is in use and cannot be locked: {error}") from error
                self._sleep(0.1)
        try:
            self._api.control(handle, layouts.DISMOUNT_VOLUME)
        except Win32Error as error:
            raise refused(error, f"{name}: closing its file system") from error

    def reread_partitions(self, disk: str) -> None:
        try:
            with opened(self._api, disk, GENERIC_READ | GENERIC_WRITE) as handle:
                self._api.control(handle, layouts.DISK_UPDATE_PROPERTIES)
        except Win32Error as error:
            raise refused(error, disk) from error

    def boot_code_writer(self) -> bool:
        return self._bootsect() is not None

    def _bootsect(self) -> Path | None:
        """bootsect of the system that runs, or of the disc or stick that it was started from. None from a disk of the
        server's: nobody knows what that program is."""
        roots = [tool("bootsect.exe", self._environment).parent]
        medium = self._medium()
        if medium is not None:
            root, number = medium
            if number is None or self._is_portable(number):
                roots.append(Path(root))
        return find_bootsect(roots)

    def _is_portable(self, number: int) -> bool:
        try:
            with self._disk(number) as disk:
                return disk.info.transport == "usb" or disk.info.removable
        except SystemError_:
            return False

    def write_boot_code(self, disk: str, offset: int, size: int, master: bool) -> None:
        """See System.write_boot_code. bootsect wants a drive letter, and the volume for itself."""
        bootsect = self._bootsect()
        if bootsect is None:
            raise SystemError_("boot-code", "bootsect.exe is neither in this system nor on its medium")
        with self._shared(disk, offset, size) as mount:
            root, where = mount.root, f"{disk} at {offset:#x}"
            if not root.startswith(_NAMED_VOLUME):
                raise SystemError_(
                    "boot-code",
                    f"{where}: Windows has no name for the volume, so it cannot have a drive letter",
                )
            try:
                with self._locked(root):
                    pass  # bootsect goes on without the lock where it cannot have it, and Windows writes over its work
            except SystemError_ as error:
                raise SystemError_("boot-code", error.detail) from error
            logs = own_folder("logs", self._environment)
            try:
                with lettered(self._api, root) as letter:
                    done = write_boot_code(bootsect, letter, logs, master=master, run=self._run)
            except ToolError as error:
                raise SystemError_("boot-code", f"{where}: {error}") from error
            finally:
                self._flush(root, where)
        if done.code != 0:
            raise SystemError_("boot-code", f"{where}: {done}")

    def edit_hive(self, hive: bytes, edits: Iterable[HiveEdit]) -> bytes:
        return win_hive.edit_hive(self._api, hive, edits)

    def set_firmware_variable(self, name: str, data: bytes | None) -> None:
        win_firmware.write(self._api, name, data)

    def firmware_variable(self, name: str) -> bytes | None:
        return win_firmware.read(self._api, name)


def _is_medium(disk: WindowsDisk) -> bool:
    """Our own ISO, written to a stick as it is: volume label of its ISO 9660 descriptor."""
    try:
        data = disk.read_at(32768, 72)
    except OSError:
        return False
    return data[1:6] == b"CD001" and data[40:72].strip() in _MEDIUM_LABELS
