"""What the payload asks of the operating system. linux.py and winpe.py are the only ones that answer.

Everything above reads disks through `DiskHandle.read_at` and the readers in formats/, without mounting; only
`writable` mounts, for as long as one action needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rehost_payload.formats.filesystem import FileSystemReader
from rehost_payload.formats.hive import HiveEdit
from rehost_payload.survey.model import Controller, Firmware

TEMPORARY_NAME = "rehost.tmp"
"""The one name that `WritableVolume.replace` uses beside its target, so that whatever a power cut leaves is
found."""


BUSY_NAME = "rehost.busy"
"""Stands in the root of an NTFS volume while we write to it. On a volume that is dirty it means: the volume
was clean before us and a power cut interrupted us, so that we may go on where otherwise we would refuse."""


class SystemError_(Exception):
    """The operating system refused. ``code`` is a stable word, ``detail`` what it said."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(f"{code}: {detail}")


@dataclass(frozen=True)
class DiskInfo:
    path: str
    size: int
    sector_size: int
    model: str = ""
    serial: str = ""
    transport: str = ""
    controller: str | None = None
    read_only: bool = False
    removable: bool = False
    boot_medium: bool = False


class DiskHandle(Protocol):
    """An opened disk or image: a formats.source.ByteSource that knows what it is."""

    @property
    def info(self) -> DiskInfo: ...

    @property
    def size(self) -> int: ...

    def read_at(self, offset: int, length: int) -> bytes: ...

    def partition_path(self, number: int, offset: int) -> str | None:
        """The device node of the partition that starts at byte ``offset``, where there is one."""
        ...

    def close(self) -> None: ...


class WritableVolume(Protocol):
    """A volume mounted for writing. Paths use backslashes, are absolute and matched without case.

    `replace` is old-or-new under power cuts: temporary file (TEMPORARY_NAME in the same folder), fsync,
    rename, fsync of the folder. Errors are SystemError_ ("no-space", "read-only", "gone", "io", "absent").
    """

    def read(self, path: str) -> bytes: ...
    def exists(self, path: str) -> bool: ...
    def is_directory(self, path: str) -> bool: ...
    def listdir(self, path: str) -> list[str]: ...
    def free(self) -> int: ...
    def make_directory(self, path: str) -> None:
        """One level; the parent must exist."""
        ...

    def remove_directory(self, path: str) -> None: ...
    def replace(self, path: str, data: bytes) -> None: ...
    def append(self, path: str, data: bytes) -> None:
        """Append and fsync: for the journal."""
        ...

    def remove(self, path: str) -> None: ...


class System(Protocol):
    @property
    def name(self) -> str: ...

    def firmware(self) -> Firmware: ...
    def controllers(self) -> Sequence[Controller]: ...
    def disks(self) -> Sequence[DiskHandle]:
        """Opens every disk read-only. A disk that cannot be opened is reported through `problems`."""
        ...

    def problems(self) -> Sequence[str]: ...

    def driver_folders(self) -> Sequence[Path]:
        """Folders of this system with driver packages; those that somebody has named also where they are not there."""
        ...

    def volume_files(self, disk: str, offset: int) -> FileSystemReader | None:
        """The volume at byte ``offset`` of ``disk`` as the operating system itself reads it: for what our own readers
        cannot. None where it does not read it either. Changes nothing."""
        ...

    def writable(self, disk: str, offset: int, size: int) -> AbstractContextManager[WritableVolume]:
        """Mounts the volume at byte ``offset`` of the disk ``disk`` (DiskInfo.path) for writing.

        Raises SystemError_ ("dirty", "read-only", "hibernated", "mount") and leaves nothing mounted behind.
        Checks /proc/mounts (or its like) that it really is writable: exit code 0 is no proof.
        """
        ...

    def write_sectors(self, disk: str, offset: int, data: bytes) -> None:
        """Writes and flushes whole sectors; reads them back past the cache and compares."""
        ...

    def reread_partitions(self, disk: str) -> None: ...

    def boot_code_writer(self) -> bool:
        """Whether there is something here that writes boot code for the BIOS."""
        ...

    def write_boot_code(self, disk: str, offset: int, size: int, master: bool) -> None:
        """Writes boot code for bootmgr into the volume at byte ``offset`` and, with ``master``, into its disk's first
        sector. The caller has saved what lies there, and looks at what was written.

        Raises SystemError_ ("boot-code", and those of `writable`); what is on the disk then is not known.
        """
        ...

    def edit_hive(self, hive: bytes, edits: Iterable[HiveEdit]) -> bytes:
        """Applies the edits to a clean hive and returns the new hive; the input must not be dirty."""
        ...

    def set_firmware_variable(self, name: str, data: bytes | None) -> None:
        """Sets (or with None deletes) a global UEFI variable such as "Boot0004" or "BootOrder"."""
        ...

    def firmware_variable(self, name: str) -> bytes | None: ...


class DriverTool(Protocol):
    """A system with a tool of Windows' own that installs driver packages: DISM."""

    def driver_tool_refusal(self, build: int, root: str) -> tuple[str, dict[str, str]] | None:
        """Why it is not to be used for the installation of this ``build`` in the folder ``root`` ("\\Windows").

        The word says which reason ("platform", "absent", "older", "database", "folder"), the rest is its details; None:
        it may be used.
        """
        ...

    def driver_tool_log(self) -> bytes:
        """The end of what it has written about its work, for people; empty where there is nothing."""
        ...

    def install_driver(
        self, disk: str, offset: int, size: int, root: str, inf: Path, waiting: Callable[[], None]
    ) -> None:
        """Runs the tool for the package of ``inf`` on the installation in ``root`` of this volume.

        ``waiting`` is called about twice a second. When this returns or raises, the tool has ended with everything that
        it started, no hive of the volume is loaded, and what was written is on the disk. SystemError_: "tool" where it
        did not succeed or took too long, others as for `System.writable`.
        """
        ...


Progress = Callable[[str, int, int], None]
"""Called with (what, done, total); total 0 where it is not known."""
