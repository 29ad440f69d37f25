"""Opens a plan's files on the volumes of this machine with our own readers: nothing is mounted, nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rehost_payload.capture.copy_source import OpenSource
from rehost_payload.capture.model import CaptureFile
from rehost_payload.capture.volumes import SystemFiles, WithHelp
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.filesystem import FileSystemReader
from rehost_payload.formats.source import ByteSource, SliceSource
from rehost_payload.repair.locate import Place, find_volume
from rehost_payload.repair.model import VolumeRef
from rehost_payload.survey.cache import CachedSource
from rehost_payload.survey.filesystems import open_filesystem
from rehost_payload.system.protocol import DiskHandle


def _nobody(disk: str, offset: int) -> FileSystemReader | None:
    return None


class VolumeOpener:
    """Implements SourceOpener over opened disks, which stay the caller's. ``uncached`` gives a way to read a disk past
    the system's cache (system/direct.py), where there is one; ``files`` reads volumes that our own readers cannot.

    Every file is found anew from its volume's boot sector: what is remembered from the copy's beginning would hide
    that a file has changed at its end.
    """

    def __init__(
        self,
        disks: Sequence[DiskHandle],
        uncached: Callable[[DiskHandle], ByteSource] | None = None,
        files: SystemFiles = _nobody,
    ) -> None:
        self._disks = disks
        self._uncached = uncached
        self._files = files
        self._sources: dict[str, ByteSource] = {}
        self._places: dict[VolumeRef, tuple[DiskHandle, Place]] = {}

    def open(self, file: CaptureFile) -> OpenSource:
        ref = file.source.volume
        if ref not in self._places:
            self._places[ref] = find_volume(self._disks, ref)
        disk, place = self._places[ref]
        source = self._sources.get(disk.info.path)
        if source is None:
            source = self._sources[disk.info.path] = self._uncached(disk) if self._uncached else disk
        reader = self._reader(source, disk, place)
        metadata = reader.metadata(file.source.path)
        if metadata is None:
            raise FileNotFoundError(f"{file.original} is not there any more")
        identity = f"{metadata.file_id}/{metadata.size}/{metadata.modified}/{metadata.changed}"
        return OpenSource(reader.open(file.source.path), identity, disk.info.sector_size)

    def _reader(self, source: ByteSource, disk: DiskHandle, place: Place) -> FileSystemReader:
        def ask() -> FileSystemReader | None:
            return self._files(disk.info.path, place.offset)

        try:
            return WithHelp(open_filesystem(CachedSource(SliceSource(source, place.offset, place.size))), ask)
        except FormatError:
            reader = ask()
            if reader is None:
                raise
            return reader
