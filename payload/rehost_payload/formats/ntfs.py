"""A read-only NTFS reader: directories, files (plain, resident, sparse, LZNT1), volume flags and journal
state.

Follows the Linux-NTFS documentation of NTFS 3.x. Every structure is checked before it is used; loops in
directory trees and attribute lists are cut by visiting each record and index block once.
"""

from __future__ import annotations

import array
import struct
import sys
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from . import lznt1
from . import ntfs_details as details
from . import ntfs_records as records
from .errors import FormatError
from .filesystem import FileMetadata, FileStat, FileSystemReader, Step, UnreadableFile, split_path
from .ntfs_logfile import is_unclean
from .ntfs_records import Attribute, IndexEntry, Record, Run
from .ntfs_search import find_in_mft
from .source import ByteSource, BytesSource

_MFT, _LOGFILE, _VOLUME, _ROOT, _BITMAP, _SECURE, _UPCASE = 0, 2, 3, 5, 6, 9, 10
_INDEX = "$I30"
_MAX_ATTRIBUTE_LIST = 256 * 1024
_MAX_BITMAP = 64 << 20
_MAX_ENTRIES = 1 << 20
_MAX_DEPTH = 64
_CACHED_RECORDS = 512
_CACHED_NODES = 512
_MAX_REPARSE = 16 * 1024
_MAX_DESCRIPTOR = 0x10000
_VOLUME_DIRTY = 0x0001


@dataclass(frozen=True)
class BootSector:
    """The fields of the BIOS parameter block that matter. Sizes are bytes."""

    sector_size: int
    cluster_size: int
    hidden_sectors: int
    total_sectors: int
    mft_lcn: int
    mirror_lcn: int
    record_size: int
    index_size: int
    serial: int

    @property
    def clusters(self) -> int:
        return self.total_sectors * self.sector_size // self.cluster_size


def parse_boot_sector(sector: bytes) -> BootSector:
    what = "NTFS boot sector"
    if len(sector) < 512 or sector[3:11] != b"NTFS    ":
        raise FormatError(what, "no NTFS signature", 3)
    sector_size, per_cluster = struct.unpack_from("<HB", sector, 11)
    (hidden,) = struct.unpack_from("<I", sector, 28)
    total, mft, mirror = struct.unpack_from("<QQQ", sector, 40)
    record_code, index_code = struct.unpack_from("<b3xb", sector, 64)
    (serial,) = struct.unpack_from("<Q", sector, 72)
    if sector_size not in (256, 512, 1024, 2048, 4096):
        raise FormatError(what, f"impossible sector size {sector_size}", 11)
    # up to 64 sectors as a number, more as 256 - n for 2^n sectors
    sectors = per_cluster if per_cluster <= 0x80 else 1 << (256 - per_cluster)
    cluster = sector_size * sectors
    if not sectors or sectors & (sectors - 1) or cluster > 2 << 20:
        raise FormatError(what, f"impossible cluster size {cluster}", 13)

    def size(code: int, place: int) -> int:
        value = code * cluster if code > 0 else 1 << min(-code, 30)
        if not 512 <= value <= 65536 or value % 512:
            raise FormatError(what, f"impossible record size {value}", place)
        return value

    boot = BootSector(
        *(sector_size, cluster, hidden, total, mft, mirror),
        *(size(record_code, 64), size(index_code, 68), serial),
    )
    if not total or max(mft, mirror) >= boot.clusters:
        raise FormatError(what, "the MFT lies outside the volume", 48)
    return boot


class Stream:
    """The content of a non-resident attribute as a ByteSource. Holes and uninitialised parts read as
    zeros."""

    def __init__(self, source: ByteSource, cluster: int, clusters: int, attribute: Attribute) -> None:
        self._source = source
        self._cluster = cluster
        self._runs = attribute.runs
        self._starts = [run.vcn for run in attribute.runs]
        self._size = attribute.size
        self._initialized = attribute.initialized
        self._unit = attribute.compression_unit if attribute.flags & records.COMPRESSED else 0
        self._last_unit: tuple[int, bytes] = (-1, b"")
        for run in attribute.runs:
            if run.lcn is not None and run.lcn + run.count > clusters:
                raise FormatError("NTFS run list", f"a run ends behind the volume (cluster {run.lcn})")

    @property
    def size(self) -> int:
        return self._size

    def read_at(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0:
            raise ValueError("offset and length must not be negative")
        length = max(0, min(length, self._size - offset))
        stored = max(0, min(length, self._initialized - offset))
        read = self._read_units if self._unit else self._read_runs
        return read(offset, stored).ljust(length, b"\0")

    def _read_runs(self, offset: int, length: int) -> bytes:
        pieces: list[bytes] = []
        while length > 0:
            run = self._run_at(offset // self._cluster)
            if run is None:
                raise FormatError("NTFS run list", "it does not cover the stream", offset)
            inside = offset - run.vcn * self._cluster
            count = min(length, run.count * self._cluster - inside)
            if run.lcn is None:
                pieces.append(bytes(count))
            else:
                piece = self._source.read_at(run.lcn * self._cluster + inside, count)
                if len(piece) != count:
                    raise FormatError("NTFS volume", "it ends before its data", run.lcn * self._cluster)
                pieces.append(piece)
            offset += count
            length -= count
        return b"".join(pieces)

    def _run_at(self, vcn: int) -> Run | None:
        index = bisect_right(self._starts, vcn) - 1
        if index < 0:
            return None
        run = self._runs[index]
        return run if vcn < run.vcn + run.count else None

    def _read_units(self, offset: int, length: int) -> bytes:
        size = self._unit * self._cluster
        pieces: list[bytes] = []
        while length > 0:
            number, inside = divmod(offset, size)
            if self._last_unit[0] != number:
                self._last_unit = (number, self._decompress(number))
            piece = self._last_unit[1][inside : inside + min(length, size - inside)]
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return b"".join(pieces)

    def _decompress(self, number: int) -> bytes:
        """One compression unit: all holes = zeros, no hole = stored as it is, both = LZNT1."""
        vcn, end = number * self._unit, (number + 1) * self._unit
        stored: list[bytes] = []
        count = 0
        while vcn < end:
            run = self._run_at(vcn)
            if run is None:
                break
            take = min(end, run.vcn + run.count) - vcn
            if run.lcn is not None:
                stored.append(self._read_runs(vcn * self._cluster, take * self._cluster))
                count += take
            vcn += take
        data = b"".join(stored)
        size = self._unit * self._cluster
        if count == 0:
            return bytes(size)
        return data if count == self._unit else lznt1.decompress(data, size)


@dataclass(frozen=True)
class _Node:
    """A parsed node of a directory's B-tree; ``folded`` are the entries' names as NTFS compares them."""

    entries: list[IndexEntry]
    folded: list[tuple[int, ...] | None]


class NtfsVolume(FileSystemReader):
    """An NTFS volume over a ByteSource that starts at its boot sector."""

    def __init__(self, source: ByteSource, boot: BootSector | None = None) -> None:
        """Raises FormatError where the boot sector or the MFT's own record cannot be used.

        ``boot`` replaces the boot sector on the volume (its backup, for example).
        """
        self._source = source
        self.boot = boot or parse_boot_sector(source.read_at(0, 512))
        self._records: OrderedDict[int, Record] = OrderedDict()
        self._nodes: OrderedDict[tuple[int, int | None], _Node] = OrderedDict()
        self._upcase: Sequence[int] | None = None
        self._descriptors: dict[int, tuple[int, int]] | None = None
        self._mft = self._open_mft()
        self._label = ""
        self.flags = 0
        self._read_volume_record()

    @property
    def kind(self) -> str:
        return "ntfs"

    @property
    def label(self) -> str:
        return self._label

    @property
    def dirty(self) -> bool:
        return bool(self.flags & _VOLUME_DIRTY)

    @property
    def serial(self) -> str:
        return f"{self.boot.serial:016X}"

    @property
    def cluster_size(self) -> int:
        return self.boot.cluster_size

    @property
    def hidden_sectors(self) -> int:
        return self.boot.hidden_sectors

    # --- records and attributes ---

    def _stream(self, attribute: Attribute) -> ByteSource:
        if attribute.value is not None:
            return BytesSource(attribute.value)
        return Stream(self._source, self.boot.cluster_size, self.boot.clusters, attribute)

    def _open_mft(self) -> ByteSource:
        """The MFT's data stream, whose description is in its own first record (or in the mirror of that)."""
        complaint: FormatError | None = None
        for lcn in (self.boot.mft_lcn, self.boot.mirror_lcn):
            try:
                data = self._source.read_at(lcn * self.boot.cluster_size, self.boot.record_size)
                record = records.parse_record(data, _MFT)
                first = record.first(records.DATA)
                if first is None or first.value is not None or first.lowest_vcn:
                    raise FormatError("MFT record 0", "it does not describe the MFT")
                self._mft = self._stream(first)
                if record.first(records.ATTRIBUTE_LIST) is not None:
                    # the rest of the run list is in records that the first part reaches
                    self._mft = self._stream(self._joined(record, records.DATA, "") or first)
                return self._mft
            except FormatError as error:
                complaint = complaint or error
        assert complaint is not None
        raise complaint

    def record(self, number: int) -> Record:
        cached = self._records.get(number)
        if cached is not None:
            self._records.move_to_end(number)
            return cached
        size = self.boot.record_size
        if number < 0 or (number + 1) * size > self._mft.size:
            raise FormatError(f"MFT record {number}", "there is no such record")
        record = records.parse_record(self._mft.read_at(number * size, size), number)
        self._records[number] = record
        if len(self._records) > _CACHED_RECORDS:
            self._records.popitem(last=False)
        return record

    def _joined(self, record: Record, kind: int, name: str) -> Attribute | None:
        """An attribute of a base record, put together from its pieces in other records."""
        listing = record.first(records.ATTRIBUTE_LIST)
        if listing is None:
            return record.first(kind, name)
        stream = self._stream(listing)
        if stream.size > _MAX_ATTRIBUTE_LIST:
            raise FormatError(f"MFT record {record.number}", "its attribute list is too long")
        pieces: list[Attribute] = []
        for entry in records.parse_attribute_list(stream.read_at(0, stream.size)):
            if entry.type != kind or entry.name != name:
                continue
            owner = record if entry.record == record.number else self.record(entry.record)
            if owner is not record and owner.base != record.number:
                raise FormatError(f"MFT record {entry.record}", "it does not belong to its base record")
            for piece in owner.attributes:
                if (piece.type, piece.name, piece.instance) == (kind, name, entry.instance):
                    pieces.append(piece)
                    break
            else:
                raise FormatError(f"MFT record {entry.record}", "a listed attribute is missing")
        if not pieces:
            return None
        first = pieces[0]
        if len(pieces) == 1 or first.value is not None:
            return first
        runs: list[Run] = []
        for piece in pieces:
            if piece.value is not None or piece.lowest_vcn != (runs[-1].vcn + runs[-1].count if runs else 0):
                raise FormatError(f"MFT record {record.number}", "the pieces of its run list do not fit")
            runs += piece.runs
        return Attribute(
            *(first.type, first.name, first.flags, first.instance, None, 0, tuple(runs)),
            *(first.compression_unit, first.size, first.initialized),
        )

    def _read_volume_record(self) -> None:
        record = self.record(_VOLUME)
        name = self._joined(record, records.VOLUME_NAME, "")
        if name is not None and name.value is not None:
            self._label = name.value.decode("utf-16-le", "replace")
        information = self._joined(record, records.VOLUME_INFORMATION, "")
        if information is None or information.value is None or len(information.value) < 12:
            raise FormatError("NTFS $Volume", "no volume information")
        (self.flags,) = struct.unpack_from("<H", information.value, 10)

    def journal_unclean(self) -> bool:
        """Whether $LogFile was left open: the volume was in use when the machine stopped."""
        data = self._joined(self.record(_LOGFILE), records.DATA, "")
        if data is None:
            raise FormatError("NTFS $LogFile", "it has no data")
        return is_unclean(self._stream(data).read_at(0, 128 * 1024))

    def free(self) -> int | None:
        data = self._joined(self.record(_BITMAP), records.DATA, "")
        if data is None:
            raise FormatError("NTFS $Bitmap", "it has no data")
        stream = self._stream(data)
        clusters = self.boot.clusters
        if clusters > 8 * _MAX_BITMAP:
            return None
        if stream.size * 8 < clusters:
            raise FormatError("NTFS $Bitmap", "it is shorter than the volume")
        used = 0
        whole, rest = divmod(clusters, 8)
        for offset in range(0, whole, 1 << 20):
            piece = stream.read_at(offset, min(1 << 20, whole - offset))
            used += int.from_bytes(piece, "little").bit_count()
        if rest:
            used += (stream.read_at(whole, 1)[0] & ((1 << rest) - 1)).bit_count()
        return (clusters - used) * self.boot.cluster_size

    # --- directories ---

    def _fold(self, name: str) -> tuple[int, ...]:
        """The name as NTFS sorts it: UTF-16 units through the volume's $UpCase."""
        if self._upcase is None:
            self._upcase = self._load_upcase()
        raw = name.encode("utf-16-le", "surrogatepass")
        return tuple(self._upcase[unit] for unit in struct.unpack(f"<{len(raw) // 2}H", raw))

    def _load_upcase(self) -> Sequence[int]:
        try:
            data = self._joined(self.record(_UPCASE), records.DATA, "")
            if data is not None and data.size == 131072:
                table = array.array("H", self._stream(data).read_at(0, data.size))
                if sys.byteorder == "big":
                    table.byteswap()
                return table
        except FormatError:
            pass
        # nearly the same table: characters whose upper case is one character of the same plane
        upper = [ord(chr(i).upper()) if len(chr(i).upper()) == 1 else i for i in range(0x10000)]
        return [u if u < 0x10000 else i for i, u in enumerate(upper)]

    def _node(self, directory: int, vcn: int | None) -> _Node:
        """A node of a directory's B-tree, parsed once: the root (None) or an index block."""
        cached = self._nodes.get((directory, vcn))
        if cached is not None:
            self._nodes.move_to_end((directory, vcn))
            return cached
        entries = self._root_entries(directory) if vcn is None else self._block_entries(directory, vcn)
        node = _Node(entries, [None if e.name is None else self._fold(e.name) for e in entries])
        self._nodes[directory, vcn] = node
        if len(self._nodes) > _CACHED_NODES:
            self._nodes.popitem(last=False)
        return node

    def _root_entries(self, directory: int) -> list[IndexEntry]:
        root = self._joined(self.record(directory), records.INDEX_ROOT, _INDEX)
        if root is None or root.value is None or len(root.value) < 32:
            raise NotADirectoryError(f"MFT record {directory}")
        (block,) = struct.unpack_from("<I", root.value, 8)
        if block != self.boot.index_size:
            raise FormatError(f"MFT record {directory}", f"index blocks of {block} bytes")
        return records.parse_index_node(root.value, 16, f"index root of record {directory}")

    def _block_entries(self, directory: int, vcn: int) -> list[IndexEntry]:
        what = f"index block {vcn} of record {directory}"
        allocation = self._joined(self.record(directory), records.INDEX_ALLOCATION, _INDEX)
        block = self.boot.index_size
        # VCNs count clusters, or sectors of 512 bytes where a cluster is larger than a block
        start = vcn * (self.boot.cluster_size if block >= self.boot.cluster_size else 512)
        stream = None if allocation is None else self._stream(allocation)
        if stream is None or start + block > stream.size:
            raise FormatError(what, "there is no such block")
        data = records.apply_fixups(stream.read_at(start, block), b"INDX", what)
        if struct.unpack_from("<Q", data, 16)[0] != vcn:
            raise FormatError(what, "it says that it is another block", 16)
        return records.parse_index_node(data, 24, what)

    def _find(self, directory: int, name: str) -> IndexEntry | None:
        """Descends the directory's B-tree."""
        wanted = self._fold(name)
        vcn: int | None = None
        for _ in range(_MAX_DEPTH):
            node = self._node(directory, vcn)
            for entry, folded in zip(node.entries, node.folded, strict=True):
                if folded == wanted:
                    return entry
                if folded is None or folded > wanted:
                    vcn = entry.child
                    break
            else:
                return None
            if vcn is None:
                return None
        raise FormatError(f"MFT record {directory}", "its directory tree is too deep")

    def _walk(self, directory: int) -> list[IndexEntry]:
        found: list[IndexEntry] = []
        seen: set[int] = set()
        waiting: list[int | None] = [None]
        while waiting:
            for entry in self._node(directory, waiting.pop()).entries:
                if entry.child is not None:
                    if entry.child in seen:
                        raise FormatError(f"MFT record {directory}", "its directory tree loops")
                    seen.add(entry.child)
                    waiting.append(entry.child)
                if entry.name is not None and not entry.is_dos_name:
                    found.append(entry)
            if len(found) > _MAX_ENTRIES:
                raise FormatError(f"MFT record {directory}", "too many entries")
        return found

    def _lookup(self, path: str) -> tuple[int, list[str]] | None:
        """(record, names in the volume's spelling) of a path; the root has no names."""
        number = _ROOT
        names: list[str] = []
        for part in split_path(path):
            if not self.record(number).flags & records.RECORD_IS_DIRECTORY:
                return None
            entry = self._find(number, part)
            if entry is None:
                return None
            number = entry.record
            name = entry.name or ""
            names.append((self._long_name(number) or name) if entry.is_dos_name else name)
        return number, names

    def exact_path(self, path: str) -> str | None:
        found = self._lookup(path)
        return None if found is None else "\\" + "\\".join(found[1])

    def _long_name(self, number: int) -> str | None:
        for attribute in self.record(number).attributes:
            if attribute.type == records.FILE_NAME and attribute.value and len(attribute.value) >= 66:
                value = attribute.value
                if value[65] != 2:
                    return value[66 : 66 + 2 * value[64]].decode("utf-16-le", "surrogatepass")
        return None

    def stat(self, path: str) -> FileStat | None:
        found = self._lookup(path)
        return None if found is None else self._stat(found[0], found[1][-1] if found[1] else "")

    def _stat(self, number: int, name: str) -> FileStat:
        record = self._base_record(number)
        tag = self._reparse_tag(record)
        if record.flags & records.RECORD_IS_DIRECTORY:
            return FileStat(name, True, 0, tag)
        data = self._joined(record, records.DATA, "")
        size = 0 if data is None else data.size if data.value is None else len(data.value)
        return FileStat(name, False, size, tag)

    def _reparse_tag(self, record: Record) -> int:
        reparse = self._joined(record, records.REPARSE_POINT, "")
        return 0 if reparse is None else int.from_bytes(self._stream(reparse).read_at(0, 4), "little")

    def _base_record(self, number: int) -> Record:
        record = self.record(number)
        if not record.flags & records.RECORD_IN_USE or record.base:
            raise FormatError(f"MFT record {number}", "a directory names it, but it is not in use")
        return record

    def listdir(self, path: str) -> list[FileStat]:
        """Sizes are those of the files themselves: a directory's own are stale for files with several names.

        A file whose record is damaged is listed as the directory describes it.
        """
        found = self._lookup(path)
        if found is None:
            raise FileNotFoundError(path)
        if not self._base_record(found[0]).flags & records.RECORD_IS_DIRECTORY:
            raise NotADirectoryError(path)
        listed: list[FileStat] = []
        for entry in sorted(self._walk(found[0]), key=lambda e: (e.name or "").lower()):
            # the root lists itself and the metadata files too
            if entry.name is None or (found[0] == _ROOT and (entry.record < 16 or entry.name == ".")):
                continue
            try:
                listed.append(self._stat(entry.record, entry.name))
            except FormatError:
                size = 0 if entry.is_directory else entry.size
                listed.append(FileStat(entry.name, entry.is_directory, size, entry.reparse_tag))
        return listed

    def open(self, path: str) -> ByteSource:
        found = self._lookup(path)
        if found is None:
            raise FileNotFoundError(path)
        record = self._base_record(found[0])
        if record.flags & records.RECORD_IS_DIRECTORY:
            raise IsADirectoryError(path)
        tag = self._reparse_tag(record)
        if tag:
            raise UnreadableFile(path, details.UNREADABLE.get(tag, "reparse"))
        data = self._joined(record, records.DATA, "")
        if data is None:
            return BytesSource(b"")
        if data.flags & records.ENCRYPTED:
            raise UnreadableFile(path, "encrypted")
        return self._stream(data)

    # --- what belongs to a file beside its content ---

    def metadata(self, path: str) -> FileMetadata | None:
        found = self._lookup(path)
        if found is None:
            return None
        number, names = found
        record = self._base_record(number)
        stat = self._stat(number, names[-1] if names else "")
        value = self._joined(record, records.STANDARD_INFORMATION, "")
        if value is None or value.value is None:
            raise FormatError(f"MFT record {number}", "no $STANDARD_INFORMATION")
        standard = details.parse_standard(value.value)
        data = None if stat.is_directory else self._joined(record, records.DATA, "")
        unreadable = None
        if stat.reparse_tag and not stat.is_directory:
            unreadable = details.UNREADABLE.get(stat.reparse_tag, "reparse")
        elif data is not None and data.flags & records.ENCRYPTED:
            unreadable = "encrypted"
        return FileMetadata(
            *(stat.name, stat.is_directory, stat.size, standard.created, standard.modified),
            *(standard.attributes, record.sequence << 48 | number, stat.reparse_tag),
            self._security(record, standard.security_id),
            unreadable,
            standard.changed,
        )

    def _security(self, record: Record, number: int) -> bytes | None:
        """A file's security descriptor: in its own attribute (NTFS 1.2), else in $Secure; None where neither has it."""
        own = self._joined(record, records.SECURITY_DESCRIPTOR, "")
        if own is not None:
            stream = self._stream(own)
            if stream.size > _MAX_DESCRIPTOR:
                raise FormatError(
                    f"MFT record {record.number}", f"a security descriptor of {stream.size} bytes"
                )
            return stream.read_at(0, stream.size)
        if not number:
            return None
        try:
            data = self._joined(self.record(_SECURE), records.DATA, "$SDS")
            if data is None:
                return None
            stream = self._stream(data)
            if self._descriptors is None:
                self._descriptors = {n: (at, size) for n, at, size in details.descriptors(stream)}
            place = self._descriptors.get(number)
            return None if place is None else details.read_descriptor(stream, *place)
        except FormatError:
            return None  # the file itself is not the worse for it

    def link_target(self, path: str) -> str | None:
        found = self._lookup(path)
        reparse = (
            None if found is None else self._joined(self._base_record(found[0]), records.REPARSE_POINT, "")
        )
        if reparse is None:
            return None
        return details.link_target(self._stream(reparse).read_at(0, _MAX_REPARSE))

    def find_files(
        self, suffixes: frozenset[str], problems: list[str], step: Step | None = None
    ) -> Iterator[str]:
        room = self.boot.clusters * self.boot.cluster_size
        if self._mft.size > room:  # a hole that is claimed to be terabytes would be read for days
            raise FormatError("NTFS", f"its $MFT claims {self._mft.size} bytes on a volume of {room}")
        return find_in_mft(self._mft, self.boot.record_size, self.record, suffixes, problems, step)
