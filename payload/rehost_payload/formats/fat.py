"""A read-only FAT12/16/32 reader with long names, after Microsoft's FAT specification of 2000 (fatgen103).

The width of the table follows from the number of clusters (FAT32: from the layout). Chains are cut where
they would be longer than the volume has clusters, so that loops end.
"""

from __future__ import annotations

import array
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from .dos_time import dos_filetime
from .errors import FormatError
from .filesystem import FileMetadata, FileStat, FileSystemReader, split_path
from .source import ByteSource

_MAX_DIRECTORY = 65536 * 32
_MAX_TABLE = 64 << 20
_READ_ONLY, _HIDDEN, _SYSTEM, _VOLUME_ID, _DIRECTORY = 1, 2, 4, 8, 16
_LONG_NAME = 15
_LFN_PARTS = ((1, 11), (14, 26), (28, 32))


@dataclass(frozen=True)
class BootSector:
    """The fields of the BIOS parameter block that matter. ``*_sector`` count from the volume's start."""

    bits: int
    sector_size: int
    sectors_per_cluster: int
    hidden_sectors: int
    total_sectors: int
    fat_sector: int
    fat_sectors: int
    root_sector: int  # FAT12/16
    root_entries: int
    data_sector: int
    root_cluster: int  # FAT32
    serial: int
    label: str
    dirty: bool  # the bit that Windows and Linux keep in the reserved byte after the drive number

    @property
    def clusters(self) -> int:
        return (self.total_sectors - self.data_sector) // self.sectors_per_cluster


def parse_boot_sector(sector: bytes) -> BootSector:
    what = "FAT boot sector"
    if len(sector) < 512 or sector[510:512] != b"\x55\xaa":
        raise FormatError(what, "no 55 AA signature", 510)
    if sector[0] not in (0xE9, 0xEB):
        raise FormatError(what, "it does not start with a jump", 0)
    size, per_cluster, reserved, fats, root_entries, total16, media, fat16 = struct.unpack_from(
        "<HBHBHHBH", sector, 11
    )
    hidden, total32, fat32 = struct.unpack_from("<III", sector, 28)
    if size not in (512, 1024, 2048, 4096):
        raise FormatError(what, f"impossible sector size {size}", 11)
    if per_cluster == 0 or per_cluster & (per_cluster - 1):
        raise FormatError(what, f"impossible cluster size of {per_cluster} sectors", 13)
    if reserved == 0 or fats not in (1, 2) or media not in (0xF0, *range(0xF8, 0x100)):
        raise FormatError(what, "impossible BIOS parameter block", 14)
    total, fat_sectors = total16 or total32, fat16 or fat32
    root_sectors = -(-root_entries * 32 // size)
    data = reserved + fats * fat_sectors + root_sectors
    if not fat_sectors or data >= total:
        raise FormatError(what, "the tables are larger than the volume", 22)
    clusters = (total - data) // per_cluster
    bits = 12 if clusters < 4085 else 16 if clusters < 65525 else 32
    wide = fat16 == 0
    if wide:
        bits = 32  # mkfs on small disks: FAT32 by its layout although it has few clusters
    elif bits == 32:
        raise FormatError(what, "too many clusters for its layout", 22)
    if root_entries == 0 and not wide:
        raise FormatError(what, "no root directory", 17)
    if (clusters + 2) * bits > fat_sectors * size * 8:
        raise FormatError(what, "the table is too short for the volume", 22)
    extended = 64 if wide else 36
    (root_cluster,) = struct.unpack_from("<I", sector, 44) if wide else (0,)
    signed = sector[extended + 2] in (0x28, 0x29)
    serial = struct.unpack_from("<I", sector, extended + 3)[0] if signed else 0
    label = sector[extended + 7 : extended + 18] if sector[extended + 2] == 0x29 else b""
    return BootSector(
        bits,
        size,
        per_cluster,
        hidden,
        total,
        reserved,
        fat_sectors,
        reserved + fats * fat_sectors,
        root_entries,
        data,
        root_cluster,
        serial,
        _label(label),
        bool(sector[extended + 1] & 1),
    )


def _label(raw: bytes) -> str:
    label = raw.split(b"\0", 1)[0].decode("cp437").strip()
    return "" if label == "NO NAME" else label


class _ClusterFile:
    """A file as a ByteSource: its size and its chain of clusters, followed as far as it is read."""

    def __init__(self, volume: FatVolume, first: int, size: int) -> None:
        self._volume = volume
        self._size = size
        self._chain = volume.chain(first) if size else iter(())
        self._clusters: list[int] = []

    @property
    def size(self) -> int:
        return self._size

    def read_at(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0:
            raise ValueError("offset and length must not be negative")
        length = max(0, min(length, self._size - offset))
        step = self._volume.cluster_size
        pieces: list[bytes] = []
        while length > 0:
            number, inside = divmod(offset, step)
            first = self._cluster(number)
            # neighbours are read at once
            count = 1
            while count * step - inside < length and self._cluster(number + count) == first + count:
                count += 1
            piece = self._volume.read_clusters(first, inside, min(length, count * step - inside))
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return b"".join(pieces)

    def _cluster(self, number: int) -> int:
        while len(self._clusters) <= number:
            following = next(self._chain, None)
            if following is None:
                raise FormatError("FAT chain", "it ends before the file", len(self._clusters))
            self._clusters.append(following)
        return self._clusters[number]


@dataclass(frozen=True)
class _Entry:
    name: str
    short: str
    attributes: int
    first: int
    size: int
    created: int = 0
    modified: int = 0

    @property
    def is_directory(self) -> bool:
        return bool(self.attributes & _DIRECTORY)


class FatVolume(FileSystemReader):
    """A FAT volume over a ByteSource that starts at its boot sector."""

    def __init__(self, source: ByteSource) -> None:
        """Raises FormatError where the boot sector cannot be used."""
        self._source = source
        self.boot = parse_boot_sector(source.read_at(0, 512))
        self._directories: dict[int, list[_Entry]] = {}
        self._table_cache: dict[int, bytes] = {}
        self._dirty = self.boot.dirty or not self._table_flags()

    @property
    def kind(self) -> str:
        return f"fat{self.boot.bits}"

    @property
    def label(self) -> str:
        """The root directory's label, which counts for Windows; else that of the boot sector."""
        try:
            for raw in self._raw_entries(0):
                if raw[11] & 0x3F & ~0x20 == _VOLUME_ID and raw[0] != 0xE5:
                    return raw[:11].decode("cp437").strip()
        except FormatError:
            pass
        return self.boot.label

    @property
    def serial(self) -> str:
        return f"{self.boot.serial >> 16:04X}-{self.boot.serial & 0xFFFF:04X}"

    @property
    def cluster_size(self) -> int:
        return self.boot.sectors_per_cluster * self.boot.sector_size

    @property
    def hidden_sectors(self) -> int:
        return self.boot.hidden_sectors

    @property
    def dirty(self) -> bool:
        return self._dirty

    # --- the table ---

    def _table_bytes(self, offset: int, length: int) -> bytes:
        """Bytes of the first table, read in pages of 64 KiB."""
        result = b""
        limit = self.boot.fat_sectors * self.boot.sector_size
        base = self.boot.fat_sector * self.boot.sector_size
        while length > 0:
            page, inside = divmod(offset, 65536)
            if page not in self._table_cache:
                if len(self._table_cache) > 64:
                    self._table_cache.clear()
                count = min(65536, limit - page * 65536)
                self._table_cache[page] = self._source.read_at(base + page * 65536, max(0, count))
            piece = self._table_cache[page][inside : inside + length]
            if not piece:
                raise FormatError("FAT", "the volume ends within its table", base + offset)
            result += piece
            offset += len(piece)
            length -= len(piece)
        return result

    def _entry(self, cluster: int) -> int:
        if self.boot.bits == 32:
            return int.from_bytes(self._table_bytes(cluster * 4, 4), "little") & 0x0FFFFFFF
        if self.boot.bits == 16:
            return int.from_bytes(self._table_bytes(cluster * 2, 2), "little")
        pair = int.from_bytes(self._table_bytes(cluster * 3 // 2, 2), "little")
        return pair >> 4 if cluster & 1 else pair & 0xFFF

    def _table_flags(self) -> bool:
        """False when entry 1 says that the volume was not unmounted. FAT12 has no such bit."""
        if self.boot.bits == 12:
            return True
        mask = 0x08000000 if self.boot.bits == 32 else 0x8000
        return bool(self._entry(1) & mask)

    def chain(self, first: int) -> Iterator[int]:
        """The clusters of a chain in order. Raises FormatError for a bad link or more links than clusters."""
        end = {12: 0xFF8, 16: 0xFFF8, 32: 0x0FFFFFF8}[self.boot.bits]
        cluster, count = first, 0
        while cluster < end:
            if not 2 <= cluster < self.boot.clusters + 2:
                raise FormatError("FAT chain", f"it leads to cluster {cluster}, which does not exist")
            count += 1
            if count > self.boot.clusters:
                raise FormatError("FAT chain", "it loops")
            yield cluster
            cluster = self._entry(cluster)

    def read_clusters(self, cluster: int, inside: int, length: int) -> bytes:
        start = self._cluster_offset(cluster) + inside
        data = self._source.read_at(start, length)
        if len(data) != length:
            raise FormatError("FAT volume", "it ends before its data", start)
        return data

    def free(self) -> int | None:
        bits, clusters = self.boot.bits, self.boot.clusters
        if clusters * bits // 8 > _MAX_TABLE:
            return None
        if bits == 12:
            return sum(self._entry(c) == 0 for c in range(2, clusters + 2)) * self.cluster_size
        width = bits // 8
        base = self.boot.fat_sector * self.boot.sector_size
        data = self._source.read_at(base + 2 * width, clusters * width)
        if len(data) != clusters * width:
            raise FormatError("FAT", "the volume ends within its table", base)
        if bits == 32:
            # the upper four bits do not belong to the entry; one long number is masked faster than many short
            mask = int.from_bytes(b"\xff\xff\xff\x0f" * clusters, "little")
            data = (int.from_bytes(data, "little") & mask).to_bytes(len(data), "little")
        code = "H" if width == 2 else "I" if array.array("I").itemsize == 4 else "L"
        return array.array(code, data).count(0) * self.cluster_size

    # --- directories ---

    def _raw_entries(self, first: int) -> Iterator[bytes]:
        """The 32-byte entries of a directory up to its end mark; ``first`` 0 is the root."""
        return (raw for _, raw in self._placed_entries(first))

    def entry_places(self, first: int) -> list[tuple[int, bytes]]:
        """(byte offset on the volume, 32 bytes) of a directory's entries, deleted ones included."""
        return list(self._placed_entries(first))

    @staticmethod
    def short_name(raw: bytes) -> str:
        return _short_name(raw)

    def _cluster_offset(self, cluster: int) -> int:
        return self.boot.data_sector * self.boot.sector_size + (cluster - 2) * self.cluster_size

    def _placed_entries(self, first: int) -> Iterator[tuple[int, bytes]]:
        places: Iterator[tuple[int, int]]
        if first == 0 and self.boot.bits != 32:
            places = iter([(self.boot.root_sector * self.boot.sector_size, self.boot.root_entries * 32)])
        else:
            chain = self.chain(first or self.boot.root_cluster)
            places = ((self._cluster_offset(cluster), self.cluster_size) for cluster in chain)
        total = 0
        for start, length in places:
            piece = self._source.read_at(start, length)
            total += length
            if total > _MAX_DIRECTORY or len(piece) != length:
                raise FormatError("FAT directory", "it is longer than it can be", start)
            for position in range(0, length, 32):
                raw = piece[position : position + 32]
                if raw[0] == 0:
                    return
                yield start + position, raw

    def _entries(self, first: int) -> list[_Entry]:
        cached = self._directories.get(first)
        if cached is None:
            if len(self._directories) > 256:
                self._directories.clear()
            cached = self._directories[first] = list(self._parse(first))
        return cached

    def _parse(self, first: int) -> Iterator[_Entry]:
        long_parts: dict[int, bytes] = {}
        expected, checksum = 0, -1
        for raw in self._raw_entries(first):
            if raw[0] == 0xE5:
                long_parts, expected = {}, 0
                continue
            attributes = raw[11]
            if attributes & 0x3F == _LONG_NAME:
                order = raw[0]
                if order & 0x40:
                    long_parts, expected, checksum = {}, order & 0x3F, raw[13]
                if (order & 0x3F) != expected or raw[13] != checksum or not expected:
                    long_parts, expected = {}, 0
                    continue
                long_parts[expected] = b"".join(raw[a:b] for a, b in _LFN_PARTS)
                expected -= 1
                continue
            if not attributes & _VOLUME_ID and raw[:2] not in (b". ", b".."):
                short = _short_name(raw)
                name = short
                if long_parts and expected == 0 and _checksum(raw[:11]) == checksum:
                    # a character of two units may stand in two entries
                    units = b"".join(long_parts[i] for i in sorted(long_parts))
                    name = units.decode("utf-16-le", "replace").split("\0", 1)[0] or short
                elif raw[12] & 0x18:
                    name = _cased(short, raw[12])
                high, low, size = struct.unpack_from("<H4xHI", raw, 20)
                start = low | (high << 16 if self.boot.bits == 32 else 0)
                tenths, made_time, made_date = struct.unpack_from("<BHH", raw, 13)
                time, date = struct.unpack_from("<HH", raw, 22)
                times = dos_filetime(made_date, made_time, tenths), dos_filetime(date, time)
                yield _Entry(name, short, attributes, start, size, *times)
            long_parts, expected = {}, 0

    def _lookup(self, path: str) -> _Entry | None:
        current = _Entry("", "", _DIRECTORY, 0, 0)
        for part in split_path(path):
            if not current.is_directory:
                return None
            wanted = part.upper()
            for entry in self._entries(current.first):
                if wanted in (entry.name.upper(), entry.short.upper()):
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
            FileStat(e.name, e.is_directory, 0 if e.is_directory else e.size)
            for e in self._entries(entry.first)
        ]
        return sorted(found, key=lambda e: e.name.lower())

    def open(self, path: str) -> ByteSource:
        entry = self._lookup(path)
        if entry is None:
            raise FileNotFoundError(path)
        if entry.is_directory:
            raise IsADirectoryError(path)
        return _ClusterFile(self, entry.first, entry.size)


def _short_name(raw: bytes) -> str:
    base = (b"\xe5" + raw[1:8] if raw[0] == 0x05 else raw[:8]).decode("cp437").rstrip(" ")
    extension = raw[8:11].decode("cp437").rstrip(" ")
    return f"{base}.{extension}" if extension else base


def _cased(short: str, flags: int) -> str:
    """Windows NT keeps all-lower-case 8.3 names in two bits of a reserved byte."""
    base, dot, extension = short.partition(".")
    return (base.lower() if flags & 8 else base) + dot + (extension.lower() if flags & 16 else extension)


def _checksum(name: bytes) -> int:
    total = 0
    for byte in name:
        total = ((total >> 1) | (total & 1) << 7) + byte & 0xFF
    return total
