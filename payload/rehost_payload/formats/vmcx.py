"""Hyper-V's binary storage: configurations (.vmcx), the list of machines (data.vmcx), states (.vmrs, .vsv).

Follows "HyperV Storage File Format" of openvmm (support/hvs_file), and what was measured on real files: every
checksum is the CRC-32 of its structure with the checksum field zeroed, and the replay log's entries lie behind its
head of 34 bytes as <target u64, size u32, place in the log u64, CRC of the entry u32, CRC of the data u32>.

    0x0000, 0x1000  two headers; the right one with the higher sequence counts
    0x2000          the first object table: where key tables, large values and further object tables lie
    key table       entries {head of 21 bytes, name, value}, each naming its parent by table and offset
    replay log      writes that were decided on but perhaps not done: applied in memory before anything else is read

A log whose own checksums are wrong was never finished, so the file is as it was before: then nothing is applied.
Hostile files are bounded: tables are read once each, together no more than 64 MiB with half a million keys, and 16 MiB of objects;
large values stay in the file until they are asked for.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.source import ByteSource
from rehost_payload.formats.vm_tree import MAX_DEPTH, MAX_NODES, Blob, Kind, Node, Value

SIGNATURE = 0x01282014
HEADER_COPY = 0x1000
FIRST_OBJECT_TABLE = 0x2000

_OBJECT_TABLE = 0x01110001
_REPLAY_LOG = 0x01110003
_KEY_TABLE = 2

_HEADER = struct.Struct("<IIHIIIIQQI")
_OBJECT = struct.Struct("<BIQIB")
_KEY_HEAD = struct.Struct("<BBIHIIIB")
_LOG_HEAD = struct.Struct("<IIIBIBQII")
_LOG_ENTRY = struct.Struct("<QIQII")

_OBJECT_CHECKSUMS_SINCE = 0x0301  # 3.1 "fixed object table entry checksum"
_TYPE_OBJECT_TABLE, _TYPE_KEY_TABLE = 1, 2
_FREE, _INT, _UINT, _DOUBLE, _STRING, _ARRAY, _BOOL, _NODE = 1, 3, 4, 5, 6, 7, 8, 9
_FIXED = {_INT: 8, _UINT: 8, _DOUBLE: 8, _BOOL: 4, _NODE: 12}
_KINDS = {
    _INT: Kind.INT,
    _UINT: Kind.UINT,
    _DOUBLE: Kind.DOUBLE,
    _STRING: Kind.STRING,
    _ARRAY: Kind.BYTES,
    _BOOL: Kind.BOOL,
    _NODE: Kind.NODE,
}
_POINTS_TO_OBJECT = 1

_MOST_KEY_BYTES = 64 << 20
_MOST_OBJECT_BYTES = 16 << 20
_MOST_LOG_BYTES = 64 << 20
_MOST_LOG_ENTRIES = 4096  # real logs have room for 145
_PAGE = 4096
_LONGEST_STRING = 1 << 20  # bytes


@dataclass(frozen=True)
class Header:
    """One of the two headers. Offsets and sizes in bytes."""

    sequence: int
    format_version: int  # major << 8 | minor
    data_version: int
    alignment: int
    log_offset: int
    log_size: int


@dataclass(frozen=True)
class ReplayState:
    """How many pending writes of the log were applied in memory."""

    applied: int = 0


@dataclass(frozen=True)
class Storage:
    """A file's content. ``root`` is the nameless root; ``notes`` say what was odd, ``damage`` what is missing."""

    header: Header
    root: Node
    replay: ReplayState
    entries: int  # key entries whose checksum was right
    notes: tuple[str, ...] = ()
    damage: tuple[str, ...] = ()

    @property
    def format_text(self) -> str:
        return f"{self.header.format_version >> 8}.{self.header.format_version & 0xFF}"


def is_vmcx(source: ByteSource) -> bool:
    """Whether one of the two headers begins like one."""
    magic = SIGNATURE.to_bytes(4, "little")
    return any(source.read_at(at, 4) == magic for at in (0, HEADER_COPY) if at < source.size)


def parse_vmcx(source: ByteSource, *, lenient: bool = False) -> Storage:
    """Reads a file. FormatError where a structure or a checksum is wrong, or for formats before 2.0.

    With ``lenient`` damaged tables, entries and values are left out and named in ``damage``; without a header and
    the first object table there is nothing to be read even then.
    """
    notes: list[str] = []
    header = _header(source, notes)
    reader = _Reader(header, source, lenient, notes)
    return reader.read()


def _zeroed_crc(data: bytes, field: int) -> int:
    """CRC-32 with the four bytes at ``field`` taken as zeros."""
    return zlib.crc32(data[field + 4 :], zlib.crc32(bytes(4), zlib.crc32(data[:field])))


def _header(source: ByteSource, notes: list[str]) -> Header:
    found: list[Header] = []
    problems: list[str] = []
    for at in (0, HEADER_COPY):
        raw = source.read_at(at, _HEADER.size) if at < source.size else b""
        if len(raw) < _HEADER.size:
            problems.append(f"header at {at:#x}: truncated")
            continue
        signature, crc, sequence, version, data_version, _, alignment, log, log_size, _ = _HEADER.unpack(raw)
        if signature != SIGNATURE:
            problems.append(f"header at {at:#x}: no signature")
        elif crc != _zeroed_crc(raw, 4):
            problems.append(f"header at {at:#x}: wrong checksum")
        else:
            found.append(Header(sequence, version, data_version, alignment, log, log_size))
    if not found:
        raise FormatError("Hyper-V storage", "; ".join(problems), 0)
    notes += problems
    header = found[0]
    # the counter has 16 bits and wraps; the two copies are one step apart
    if len(found) == 2 and 0 < (found[1].sequence - header.sequence) & 0xFFFF < 0x8000:
        header = found[1]
    if not 2 <= header.format_version >> 8 <= 4:
        version = f"{header.format_version >> 8}.{header.format_version & 0xFF}"
        raise FormatError("Hyper-V storage", f"format {version} is not supported (2.0 to 4.x are)", 10)
    return header


class _Patched:
    """The file with the log's writes applied, later ones over earlier ones. Keeps the pages that they touch."""

    def __init__(self, base: ByteSource, writes: list[tuple[int, bytes]]) -> None:
        self._base = base
        self._pages: dict[int, bytearray] = {}
        for at, content in writes:
            for page in range(at // _PAGE, -(-(at + len(content)) // _PAGE)):
                start = page * _PAGE
                if page not in self._pages:
                    self._pages[page] = bytearray(base.read_at(start, min(_PAGE, base.size - start)))
                first, stop = max(at, start), min(at + len(content), start + _PAGE)
                self._pages[page][first - start : stop - start] = content[first - at : stop - at]

    @property
    def size(self) -> int:
        return self._base.size

    def read_at(self, offset: int, length: int) -> bytes:
        data = bytearray(self._base.read_at(offset, length))
        end = offset + len(data)
        for page in range(offset // _PAGE, -(-end // _PAGE)):
            content = self._pages.get(page)
            if content is not None:
                first, stop = max(offset, page * _PAGE), min(end, page * _PAGE + len(content))
                data[first - offset : stop - offset] = content[first - page * _PAGE : stop - page * _PAGE]
        return bytes(data)


class _Torn(Exception):
    """The log cannot be applied; the message says why."""


@dataclass
class _Entry:
    """A key entry before the tree is put together."""

    node: Node
    parent: tuple[int, int]
    sequence: int


class _Reader:
    def __init__(self, header: Header, source: ByteSource, lenient: bool, notes: list[str]) -> None:
        self._header = header
        self._source = source
        self._lenient = lenient
        self._notes = notes
        self._damage: list[str] = []
        self._entries: dict[tuple[int, int], _Entry] = {}

    def read(self) -> Storage:
        replay = self._replay()
        tables = self._key_tables()
        if not tables:
            self._complain("object table", "no key table is listed", FIRST_OBJECT_TABLE)
        for index, (_, at, data) in sorted(tables.items()):
            self._read_table(index, at, data)
        root = self._tree()
        return Storage(
            self._header, root, replay, len(self._entries), tuple(self._notes), tuple(self._damage)
        )

    def _complain(self, what: str, problem: str, at: int | None = None) -> None:
        error = FormatError(what, problem, at)
        if not self._lenient:
            raise error
        if len(self._damage) < 1000:
            self._damage.append(str(error))

    # --- replay log

    def _replay(self) -> ReplayState:
        try:
            writes = self._pending_writes()
        except _Torn as e:
            self._notes.append(f"replay log: {e}; nothing of it was applied")
            return ReplayState()
        if writes:
            self._source = _Patched(self._source, writes)
            self._notes.append(f"{len(writes)} pending writes of the replay log were applied in memory")
        return ReplayState(len(writes))

    def _pending_writes(self) -> list[tuple[int, bytes]]:
        start, source = self._header.log_offset, self._source
        if start < FIRST_OBJECT_TABLE or start + _LOG_HEAD.size > source.size:
            raise _Torn("it lies outside of the file")
        # the log's size may reach past the end of a file: its tail was never used
        room = min(self._header.log_size, source.size - start)
        raw = source.read_at(start, _LOG_HEAD.size)
        if len(raw) < _LOG_HEAD.size or room < _LOG_HEAD.size:
            raise _Torn("truncated")
        signature, crc, count, _, most, *_ = _LOG_HEAD.unpack(raw)
        if signature != _REPLAY_LOG:
            raise _Torn("no signature")
        if crc != _zeroed_crc(raw, 4):
            raise _Torn("wrong checksum")
        if count == 0:
            return []
        if count > min(most, _MOST_LOG_ENTRIES) or _LOG_HEAD.size + count * _LOG_ENTRY.size > room:
            raise _Torn(f"{count} entries, more than it has room for")
        listed = source.read_at(start + _LOG_HEAD.size, count * _LOG_ENTRY.size)
        writes: list[tuple[int, bytes]] = []
        total = 0
        for i in range(count):
            entry = listed[i * _LOG_ENTRY.size : (i + 1) * _LOG_ENTRY.size]
            problem = f"entry {i + 1} of {count} "
            if len(entry) < _LOG_ENTRY.size or _LOG_ENTRY.unpack(entry)[3] != _zeroed_crc(entry, 20):
                raise _Torn(problem + "has a wrong checksum")
            target, size, place, _, data_crc = _LOG_ENTRY.unpack(entry)
            total += size
            if place + size > room or target + size > source.size or total > _MOST_LOG_BYTES:
                raise _Torn(problem + "points outside")
            data = source.read_at(start + place, size)
            if len(data) != size or zlib.crc32(data) != data_crc:
                raise _Torn(problem + "has data with a wrong checksum")
            writes.append((target, data))
        return writes

    # --- object tables

    def _key_tables(self) -> dict[int, tuple[int, int, bytes]]:
        """Sequence, place and bytes of every key table by its index."""
        tables: dict[int, tuple[int, int, bytes]] = {}
        pending, seen = [FIRST_OBJECT_TABLE], set[int]()
        budget, key_budget = _MOST_OBJECT_BYTES, min(_MOST_KEY_BYTES, self._source.size)
        while pending:
            table = pending.pop()
            if table in seen:
                self._complain("object table", "listed twice", table)
                continue
            seen.add(table)
            raw = self._object_table(table, budget, first=table == FIRST_OBJECT_TABLE)
            budget -= len(raw)
            for i in range(0, len(raw), _OBJECT.size):
                entry = raw[i : i + _OBJECT.size]
                kind, crc, at, size, _ = _OBJECT.unpack(entry)
                place = table + 8 + i
                if crc != _zeroed_crc(entry, 1) and not self._old_checksum(place):
                    continue
                if kind == _TYPE_OBJECT_TABLE:
                    pending.append(at)
                elif kind == _TYPE_KEY_TABLE:
                    if at in seen:
                        self._complain("object table", "a key table is listed twice", place)
                        continue
                    seen.add(at)
                    key_budget -= size
                    if key_budget < 0:
                        raise FormatError("object table", "more key tables than the file can hold", place)
                    self._take_key_table(tables, at, size)
        return tables

    def _old_checksum(self, place: int) -> bool:
        """Whether a wrong checksum of an object entry says nothing: versions before 3.1 computed it wrongly."""
        if self._header.format_version < _OBJECT_CHECKSUMS_SINCE:
            return True
        self._complain("object table entry", "wrong checksum", place)
        return False

    def _object_table(self, at: int, budget: int, first: bool) -> bytes:
        """The entries of a table. The first one must be there, the others may be damaged if that is allowed."""
        source = self._source
        head = source.read_at(at, 8) if at < source.size else b""
        problem = ""
        count = 0
        if len(head) < 8:
            problem = "outside of the file"
        else:
            signature, count = struct.unpack("<II", head)
            if signature != _OBJECT_TABLE:
                problem = "no signature"
            elif at + 8 + count * _OBJECT.size > source.size:
                problem = f"{count} entries do not fit the file"
            elif count * _OBJECT.size > budget:
                problem = f"{count} entries are too many"
        if problem:
            if first:
                raise FormatError("object table", problem, at)
            self._complain("object table", problem, at)
            return b""
        raw = source.read_at(at + 8, count * _OBJECT.size)
        if len(raw) < count * _OBJECT.size:
            raise FormatError("object table", "truncated", at)
        return raw

    def _take_key_table(self, tables: dict[int, tuple[int, int, bytes]], at: int, size: int) -> None:
        if size < 10 or at + size > self._source.size:
            self._complain("key table", f"{size} bytes do not fit the file", at)
            return
        data = self._source.read_at(at, size)
        if len(data) < 10:
            self._complain("key table", "truncated", at)
            return
        signature, index, sequence, crc = struct.unpack_from("<HHHI", data)
        if signature != _KEY_TABLE:
            self._complain("key table", "no signature", at)
        elif crc != _zeroed_crc(data[:10], 6):
            self._complain("key table", "wrong checksum", at)
        elif index in tables:
            self._complain("key table", f"index {index} occurs twice", at)
        else:
            tables[index] = (sequence, at, data)

    # --- keys

    def _read_table(self, index: int, at: int, data: bytes) -> None:
        place = 10
        while place + _KEY_HEAD.size <= len(data):
            kind, flags, size, table, offset, crc, sequence, name_size = _KEY_HEAD.unpack_from(data, place)
            if size < _KEY_HEAD.size or place + size > len(data):
                if kind or size:  # zeros up to the end are no entries
                    self._complain("key entry", f"{size} bytes do not fit its table", at + place)
                return
            if kind not in (0, _FREE):
                if len(self._entries) >= MAX_NODES:
                    raise FormatError("key entry", f"more than {MAX_NODES} entries", at + place)
                content = data[place : place + size]
                try:
                    node = self._node(kind, flags, content, name_size, crc)
                except FormatError as e:
                    self._complain(e.what, e.problem, at + place)
                else:
                    self._entries[index, place] = _Entry(node, (table, offset), sequence)
            place += size

    def _node(self, kind: int, flags: int, content: bytes, name_size: int, crc: int) -> Node:
        value_at = _KEY_HEAD.size + name_size
        points = bool(flags & _POINTS_TO_OBJECT)
        if kind not in _KINDS:
            raise FormatError("key entry", f"unknown type {kind}")
        length = 12 if points else _FIXED.get(kind, 4)
        if value_at + length > len(content):
            raise FormatError("key entry", "its value does not fit")
        if not points and kind in (_STRING, _ARRAY):
            length += int.from_bytes(content[value_at : value_at + 4], "little")
            if value_at + length > len(content):
                raise FormatError("key entry", f"a value of {length - 4} bytes does not fit")
        end = value_at + length
        if crc != _zeroed_crc(content[:end], 12):
            raise FormatError("key entry", "wrong checksum")
        name = content[_KEY_HEAD.size : value_at].split(b"\0", 1)[0].decode("utf-8", "replace")
        raw = content[value_at:end]
        value = self._pointed(kind, raw) if points else _inline(kind, raw)
        return Node(name, _KINDS[kind], value)

    def _pointed(self, kind: int, raw: bytes) -> Value:
        size, at = struct.unpack("<IQ", raw)
        if kind not in (_STRING, _ARRAY):
            raise FormatError("key entry", f"a large value of type {kind}")
        if at + size > self._source.size:
            raise FormatError("key entry", f"a large value of {size} bytes lies outside of the file")
        blob = Blob(self._source, at, size)
        if kind == _ARRAY:
            return blob
        if size > _LONGEST_STRING:
            raise FormatError("key entry", f"a string of {size} bytes")
        return _text(blob.read())

    def _tree(self) -> Node:
        root = Node("")
        children: dict[tuple[int, int], list[_Entry]] = {}
        by_place = {id(entry.node): place for place, entry in self._entries.items()}
        for entry in self._entries.values():
            children.setdefault(entry.parent, []).append(entry)
        reached = 0
        level = [((0, 0), root)]
        for _ in range(MAX_DEPTH):
            following: list[tuple[tuple[int, int], Node]] = []
            for place, node in level:
                below = sorted(children.pop(place, ()), key=lambda e: e.sequence)
                if below and node.kind is not Kind.NODE:
                    self._complain("key entry", f"{node.name} has children but is no node")
                    continue
                node.children = [entry.node for entry in below]
                reached += len(below)
                following += [(by_place[id(entry.node)], entry.node) for entry in below]
            level = following
        if any(place in children for place, _ in level):
            raise FormatError("key entry", f"more than {MAX_DEPTH} levels of keys")
        if reached != len(self._entries):
            self._complain("key entry", f"{len(self._entries) - reached} entries have no parent")
        return root


def _inline(kind: int, raw: bytes) -> Value | None:
    if kind == _NODE:
        return None
    if kind in (_STRING, _ARRAY):
        return _text(raw[4:]) if kind == _STRING else raw[4:]
    if kind == _BOOL:
        return any(raw)
    if kind == _DOUBLE:
        (number,) = struct.unpack("<d", raw)
        assert isinstance(number, float)
        return number
    return int.from_bytes(raw, "little", signed=kind == _INT)


def _text(raw: bytes) -> str:
    """UTF-16LE without its terminating NUL."""
    return raw[: len(raw) & ~1].decode("utf-16-le", "replace").rstrip("\0")
