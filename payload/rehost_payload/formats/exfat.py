"""A read-only exFAT reader, after Microsoft's "exFAT file system specification" (revision 1.00).

Checks of directory entry sets: the secondary count and the entry types must fit; checksums are not checked,
as a name that does not match is not found anyway.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from .dos_time import dos_filetime
from .errors import FormatError
from .filesystem import FileMetadata, FileStat, FileSystemReader, split_path
from .source import ByteSource

_MAX_DIRECTORY = 256 << 20
_MAX_BITMAP = 64 << 20
_DIRECTORY = 0x10
_NO_CHAIN = 0x02
_VOLUME_DIRTY = 0x0002
_BITMAP, _LABEL, _FILE, _STREAM, _NAME = 0x81, 0x83, 0x85, 0xC0, 0xC1


@dataclass(frozen=True)
class BootSector:
    """Offsets and sizes in bytes, from the start of the volume."""

    sector_size: int
    cluster_size: int
    partition_sector: int
    fat_offset: int
    heap_offset: int
    clusters: int
    root_cluster: int
    serial: int
    dirty: bool


def parse_boot_sector(sector: bytes) -> BootSector:
    what = "exFAT boot sector"
    if len(sector) < 512 or sector[3:11] != b"EXFAT   ":
        raise FormatError(what, "no EXFAT signature", 3)
    start, length = struct.unpack_from("<QQ", sector, 64)
    fat, fat_sectors, heap, clusters, root, serial, _, flags, shift, cluster_shift = struct.unpack_from(
        "<IIIIIIHHBB", sector, 80
    )
    if not 9 <= shift <= 12 or shift + cluster_shift > 25:
        raise FormatError(what, "impossible sector or cluster size", 108)
    if not 2 <= root < clusters + 2 or not fat or heap + (clusters << cluster_shift) > length:
        raise FormatError(what, "its parts do not fit into the volume", 80)
    if (clusters + 2) * 4 > fat_sectors << shift:
        raise FormatError(what, "the table is too short for the volume", 84)
    return BootSector(
        *(1 << shift, 1 << shift + cluster_shift, start, fat << shift, heap << shift),
        *(clusters, root, serial, bool(flags & _VOLUME_DIRTY)),
    )


@dataclass(frozen=True)
class _Entry:
    name: str
    is_directory: bool
    first: int
    size: int
    valid: int
    contiguous: bool
    created: int = 0
    modified: int = 0
    attributes: int = 0


class _ClusterFile:
    """A file as a ByteSource; what lies behind its valid length reads as zeros."""

    def __init__(self, volume: ExfatVolume, entry: _Entry) -> None:
        self._volume = volume
        self._entry = entry
        self._chain = volume.chain(entry.first) if entry.size and not entry.contiguous else iter(())
        self._clusters: list[int] = []

    @property
    def size(self) -> int:
        return self._entry.size

    def read_at(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0:
            raise ValueError("offset and length must not be negative")
        length = max(0, min(length, self._entry.size - offset))
        stored = max(0, min(length, self._entry.valid - offset))
        step = self._volume.cluster_size
        pieces: list[bytes] = []
        while stored > 0:
            number, inside = divmod(offset, step)
            if self._entry.contiguous:
                piece = self._volume.read_heap(self._entry.first, number * step + inside, stored)
            else:
                piece = self._volume.read_heap(self._cluster(number), inside, min(stored, step - inside))
            pieces.append(piece)
            offset += len(piece)
            stored -= len(piece)
        return b"".join(pieces).ljust(length, b"\0")

    def _cluster(self, number: int) -> int:
        while len(self._clusters) <= number:
            following = next(self._chain, None)
            if following is None:
                raise FormatError("exFAT chain", "it ends before the file")
            self._clusters.append(following)
        return self._clusters[number]


class ExfatVolume(FileSystemReader):
    """An exFAT volume over a ByteSource that starts at its boot sector."""

    def __init__(self, source: ByteSource) -> None:
        """Raises FormatError where the boot sector cannot be used."""
        self._source = source
        self.boot = parse_boot_sector(source.read_at(0, 512))
        self._root = _Entry("", True, self.boot.root_cluster, _MAX_DIRECTORY, _MAX_DIRECTORY, False)

    @property
    def kind(self) -> str:
        return "exfat"

    @property
    def label(self) -> str:
        try:
            for raw in self._raw_entries(self._root):
                if raw[0] == _LABEL and raw[1] <= 11:
                    return raw[2 : 2 + 2 * raw[1]].decode("utf-16-le", "replace")
        except FormatError:
            pass
        return ""

    @property
    def serial(self) -> str:
        return f"{self.boot.serial >> 16:04X}-{self.boot.serial & 0xFFFF:04X}"

    @property
    def cluster_size(self) -> int:
        return self.boot.cluster_size

    @property
    def hidden_sectors(self) -> int:
        return self.boot.partition_sector

    @property
    def dirty(self) -> bool:
        return self.boot.dirty

    def chain(self, first: int) -> Iterator[int]:
        """The clusters of a chain in order. Raises FormatError for a bad link or more links than clusters."""
        cluster, count = first, 0
        while cluster < 0xFFFFFFF7:
            if not 2 <= cluster < self.boot.clusters + 2 or count >= self.boot.clusters:
                raise FormatError("exFAT chain", f"a bad link to cluster {cluster}")
            count += 1
            yield cluster
            raw = self._source.read_at(self.boot.fat_offset + cluster * 4, 4)
            if len(raw) < 4:
                raise FormatError("exFAT chain", "the volume ends within its table")
            cluster = int.from_bytes(raw, "little")

    def read_heap(self, cluster: int, inside: int, length: int) -> bytes:
        """``length`` bytes from byte ``inside`` behind the start of a cluster, across clusters where
        needed."""
        start = (cluster - 2) * self.boot.cluster_size + inside
        if cluster < 2 or start + length > self.boot.clusters * self.boot.cluster_size:
            raise FormatError("exFAT file", "it lies outside the volume")
        data = self._source.read_at(self.boot.heap_offset + start, length)
        if len(data) != length:
            raise FormatError("exFAT volume", "it ends before its data", self.boot.heap_offset + start)
        return data

    def _raw_entries(self, directory: _Entry) -> Iterator[bytes]:
        if directory.contiguous:
            count = -(-directory.size // self.boot.cluster_size)
            clusters: Iterator[int] = iter(range(directory.first, directory.first + count))
        else:
            clusters = self.chain(directory.first)
        total = 0
        for cluster in clusters:
            if total >= min(directory.size, _MAX_DIRECTORY):
                return
            data = self.read_heap(cluster, 0, self.boot.cluster_size)
            total += len(data)
            for position in range(0, len(data), 32):
                if data[position] == 0:
                    return
                yield data[position : position + 32]

    def _entries(self, directory: _Entry) -> Iterator[_Entry]:
        pending: list[bytes] = []
        missing = 0
        for raw in self._raw_entries(directory):
            if raw[0] == _FILE:
                pending, missing = [raw], raw[1]
            elif missing and raw[0] & 0xC0 == 0xC0:
                pending.append(raw)
                missing -= 1
                if missing == 0:
                    entry = _file_entry(pending)
                    if entry is not None:
                        yield entry
            else:
                pending, missing = [], 0

    def _lookup(self, path: str) -> _Entry | None:
        current = self._root
        for part in split_path(path):
            if not current.is_directory:
                return None
            wanted = part.upper()
            for entry in self._entries(current):
                if entry.name.upper() == wanted:
                    current = entry
                    break
            else:
                return None
        return current

    def stat(self, path: str) -> FileStat | None:
        entry = self._lookup(path)
        if entry is None:
            return None
        return FileStat(entry.name, entry.is_directory, 0 if entry.is_directory else entry.size)

    def metadata(self, path: str) -> FileMetadata | None:
        entry = self._lookup(path)
        if entry is None:
            return None
        size = 0 if entry.is_directory else entry.size
        times = entry.created, entry.modified
        return FileMetadata(entry.name, entry.is_directory, size, *times, entry.attributes)

    def listdir(self, path: str) -> list[FileStat]:
        entry = self._lookup(path)
        if entry is None:
            raise FileNotFoundError(path)
        if not entry.is_directory:
            raise NotADirectoryError(path)
        found = [
            FileStat(e.name, e.is_directory, 0 if e.is_directory else e.size) for e in self._entries(entry)
        ]
        return sorted(found, key=lambda e: e.name.lower())

    def open(self, path: str) -> ByteSource:
        entry = self._lookup(path)
        if entry is None:
            raise FileNotFoundError(path)
        if entry.is_directory:
            raise IsADirectoryError(path)
        return _ClusterFile(self, entry)

    def free(self) -> int | None:
        if self.boot.clusters > 8 * _MAX_BITMAP:
            return None
        for raw in self._raw_entries(self._root):
            if raw[0] == _BITMAP and not raw[1] & 1:
                first, size = struct.unpack_from("<IQ", raw, 20)
                if size * 8 < self.boot.clusters or size > _MAX_BITMAP:
                    raise FormatError("exFAT bitmap", "it does not fit the volume")
                bitmap = _ClusterFile(self, _Entry("", False, first, size, size, False)).read_at(0, size)
                mask = (1 << self.boot.clusters) - 1
                used = (int.from_bytes(bitmap, "little") & mask).bit_count()
                return (self.boot.clusters - used) * self.boot.cluster_size
        raise FormatError("exFAT bitmap", "there is none")


def _file_entry(entries: list[bytes]) -> _Entry | None:
    """A file's entry set: the file, its stream extension, its name in pieces of 15 characters."""
    stream = entries[1]
    if stream[0] != _STREAM:
        return None
    (attributes,) = struct.unpack_from("<H", entries[0], 4)
    (valid,) = struct.unpack_from("<Q", stream, 8)
    first, size = struct.unpack_from("<IQ", stream, 20)
    text = b"".join(raw[2:32] for raw in entries[2:] if raw[0] == _NAME)
    name = text[: 2 * stream[3]].decode("utf-16-le", "replace")
    if not name or (size and first < 2):
        return None
    contiguous = bool(stream[1] & _NO_CHAIN)
    made_time, made_date, time, date = struct.unpack_from("<HHHH", entries[0], 8)
    made_more, more, made_zone, zone = struct.unpack_from("<BBBB", entries[0], 20)
    times = dos_filetime(made_date, made_time, made_more, made_zone), dos_filetime(date, time, more, zone)
    is_directory = bool(attributes & _DIRECTORY)
    return _Entry(name, is_directory, first, size, min(valid, size), contiguous, *times, attributes)
