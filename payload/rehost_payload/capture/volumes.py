"""The volumes of a host, read by our own readers, and by the operating system where these cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property

from rehost_payload.formats.filesystem import (
    FileMetadata,
    FileStat,
    FileSystemReader,
    Step,
    UnreadableFile,
)
from rehost_payload.formats.source import ByteSource
from rehost_payload.survey.model import Disk, FileSystem, Problem
from rehost_payload.survey.volumes import OpenVolume, survey_volumes
from rehost_payload.system.protocol import System

SystemFiles = Callable[[str, int], FileSystemReader | None]
"""System.volume_files: the disk's path and the volume's offset in it."""

BY_SYSTEM = (FileSystem.REFS, FileSystem.BITLOCKER)
"""What only the operating system may be able to read; BitLocker's where it has been unlocked."""
_UNPACKED = ("dedup", "wof")


def host_volumes(system: System, disk: Disk, source: ByteSource, problems: list[Problem]) -> list[OpenVolume]:
    """One for each partition. A volume that only the operating system reads is readable, and keeps its
    ``file_system``; its ``label`` is what the system says."""
    return [_helped(system.volume_files, disk, found) for found in survey_volumes(disk, source, problems)]


def _helped(files: SystemFiles, disk: Disk, found: OpenVolume) -> OpenVolume:
    volume = found.volume
    if found.reader is not None:
        return replace(found, reader=WithHelp(found.reader, lambda: files(disk.path, volume.offset)))
    reader = files(disk.path, volume.offset) if volume.file_system in BY_SYSTEM else None
    if reader is None:
        return found
    known = replace(volume, label=reader.label, serial=reader.serial, unreadable=None)
    return OpenVolume(known, reader)


class WithHelp(FileSystemReader):
    """A reader of ours, and for files that it cannot unpack what ``ask`` returns (asked once, when it is needed)."""

    def __init__(self, own: FileSystemReader, ask: Callable[[], FileSystemReader | None]) -> None:
        self._own = own
        self._ask = ask

    @cached_property
    def _helper(self) -> FileSystemReader | None:
        return self._ask()

    @property
    def kind(self) -> str:
        return self._own.kind

    @property
    def label(self) -> str:
        return self._own.label

    @property
    def serial(self) -> str:
        return self._own.serial

    @property
    def cluster_size(self) -> int:
        return self._own.cluster_size

    @property
    def hidden_sectors(self) -> int:
        return self._own.hidden_sectors

    @property
    def dirty(self) -> bool:
        return self._own.dirty

    def free(self) -> int | None:
        return self._own.free()

    def stat(self, path: str) -> FileStat | None:
        return self._own.stat(path)

    def listdir(self, path: str) -> list[FileStat]:
        return self._own.listdir(path)

    def link_target(self, path: str) -> str | None:
        return self._own.link_target(path)

    def find_files(
        self, suffixes: frozenset[str], problems: list[str], step: Step | None = None
    ) -> Iterator[str]:
        return self._own.find_files(suffixes, problems, step)

    def open(self, path: str) -> ByteSource:
        try:
            return self._own.open(path)
        except UnreadableFile as error:
            helper = self._helper if error.code in _UNPACKED else None
            if helper is None:
                raise
            return helper.open(path)

    def metadata(self, path: str) -> FileMetadata | None:
        """As our own reader says it, but for whether the bytes can be had, and how many they are."""
        found = self._own.metadata(path)
        if found is None or found.unreadable not in _UNPACKED:
            return found
        other = None if self._helper is None else self._helper.metadata(path)
        if other is None or other.unreadable is not None:
            return found
        return replace(found, size=other.size, unreadable=None, reparse_tag=0)
