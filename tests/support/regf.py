"""Registry hives and their logs, written from scratch byte by byte, in every layout that a reader may meet.

support/hives.py makes hives through hivex; this makes those that hivex never writes: lf, li and ri lists, big data,
UTF-16 names, old logs, damaged logs. Follows the "Windows registry file format specification" (M. Suhanov).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

PAGE = 4096
NONE = 0xFFFFFFFF


@dataclass
class V:
    """A value. ``wide`` stores its name in UTF-16 although it need not be."""

    name: str
    type: int
    data: bytes
    wide: bool = False


@dataclass
class K:
    """A key."""

    name: str
    keys: list[K] = field(default_factory=list)
    values: list[V] = field(default_factory=list)
    wide: bool = False


@dataclass
class Built:
    """A hive and where its keys and values are: file offsets of the cells' data by path ("A\\B", "A\\B:value")."""

    data: bytearray
    places: dict[str, int]
    lists: dict[str, int]  # subkey lists by the path of their key

    def seal(self) -> bytes:
        """The bytes, with a right checksum again."""
        struct.pack_into("<I", self.data, 508, checksum(self.data))
        return bytes(self.data)


def checksum(block: bytes | bytearray) -> int:
    total = 0
    for word in struct.unpack_from("<127I", block):
        total ^= word
    return {0: 1, NONE: NONE - 1}.get(total, total)


def base_block(
    bins_size: int,
    *,
    sequence: tuple[int, int] = (1, 1),
    written: int = 0,
    minor: int = 5,
    file_type: int = 0,
    root: int = 32,
    cluster: int = 1,
) -> bytes:
    head = struct.pack(
        "<4sIIQIIIIIII", b"regf", *sequence, written, 1, minor, file_type, 1, root, bins_size, cluster
    )
    head = head.ljust(508, b"\0")
    return (head + struct.pack("<I", checksum(head))).ljust(PAGE, b"\0")


class _Bins:
    """Hive bins that grow; a cell never crosses the border of a bin."""

    def __init__(self, written: int) -> None:
        self.data = bytearray()
        self.free = 0
        self.written = written

    def cell(self, content: bytes) -> int:
        """Stores a cell and returns its offset in the hive bins data."""
        size = (4 + len(content) + 7) & ~7
        if size > len(self.data) - self.free:
            self.close()
            length = (32 + size + PAGE - 1) // PAGE * PAGE
            start = len(self.data)
            self.data += struct.pack("<4sIIQQI", b"hbin", start, length, 0, 0 if start else self.written, 0)
            self.data += bytes(length - 32)
            self.free = start + 32
        at = self.free
        struct.pack_into("<i", self.data, at, -size)
        self.data[at + 4 : at + 4 + len(content)] = content
        self.free += size
        return at

    def close(self) -> None:
        rest = len(self.data) - self.free
        if rest:
            struct.pack_into("<i", self.data, self.free, rest)


def _name(text: str, wide: bool) -> tuple[bytes, bool]:
    """Encoded name and whether it is compressed to one byte a character."""
    if not wide:
        try:
            return text.encode("latin-1"), True
        except UnicodeEncodeError:
            pass
    return text.encode("utf-16-le"), False


def name_hash(name: str) -> int:
    value = 0
    for c in name.upper():
        value = (37 * value + ord(c)) & 0xFFFFFFFF
    return value


def build(
    root: K,
    *,
    leaf: str = "lh",
    per_leaf: int = 500,
    minor: int = 5,
    sequence: tuple[int, int] = (1, 1),
    written: int = 0,
) -> Built:
    """``leaf`` is the kind of subkey list (lf, lh, li); more than ``per_leaf`` keys get an index root (ri)."""
    bins = _Bins(written)
    places: dict[str, int] = {}
    lists: dict[str, int] = {}

    # the key nodes get their places first, so that the root is the first cell and children know their parent
    def place(key: K, path: str) -> int:
        name, _ = _name(key.name, key.wide)
        at = bins.cell(bytes(76) + name)
        places[path] = PAGE + at + 4
        return at

    def value(item: V, path: str) -> int:
        data = item.data
        name, compressed = _name(item.name, item.wide)
        size = len(data)
        if size <= 4:
            size |= 0x80000000
            where = int.from_bytes(data.ljust(4, b"\0"), "little")
        elif size > 16344 and minor > 3:
            segments = [bins.cell(data[i : i + 16344]) for i in range(0, size, 16344)]
            listed = bins.cell(struct.pack(f"<{len(segments)}I", *segments))
            where = bins.cell(struct.pack("<2sHI", b"db", len(segments), listed))
        else:
            where = bins.cell(data)
        at = bins.cell(
            struct.pack("<2sHIIIHH", b"vk", len(name), size, where, item.type, compressed, 0) + name
        )
        places[f"{path}:{item.name}"] = PAGE + at + 4
        return at

    def leaf_cell(part: Sequence[tuple[K, int]]) -> int:
        content = struct.pack("<2sH", leaf.encode(), len(part))
        for key, at in part:
            content += struct.pack("<I", at)
            if leaf == "lf":
                content += key.name.encode("latin-1", "replace")[:4].ljust(4, b"\0")
            elif leaf == "lh":
                content += struct.pack("<I", name_hash(key.name))
        return bins.cell(content)

    def fill(key: K, at: int, parent: int, path: str, security: int) -> None:
        keys = sorted(key.keys, key=lambda k: k.name.upper())
        children = [(k, place(k, f"{path}\\{k.name}".lstrip("\\"))) for k in keys]
        subkeys = NONE
        if children:
            leaves = [leaf_cell(children[i : i + per_leaf]) for i in range(0, len(children), per_leaf)]
            subkeys = leaves[0]
            if len(leaves) > 1:
                subkeys = bins.cell(struct.pack(f"<2sH{len(leaves)}I", b"ri", len(leaves), *leaves))
            lists[path] = PAGE + subkeys + 4
        listed = [value(v, path) for v in key.values]
        values = bins.cell(struct.pack(f"<{len(listed)}I", *listed)) if listed else NONE
        name, compressed = _name(key.name, key.wide)
        flags = (0x20 if compressed else 0) | (0x0C if parent == NONE else 0)
        node = struct.pack("<2sHQIIIIII", b"nk", flags, written, 0, parent, len(children), 0, subkeys, NONE)
        node += struct.pack("<IIII", len(listed), values, security, NONE)
        node += struct.pack(
            "<IIIIIHH",
            max((2 * len(k.name) for k in keys), default=0),
            0,
            max((2 * len(v.name) for v in key.values), default=0),
            max((len(v.data) for v in key.values), default=0),
            *(0, len(name), 0),
        )
        bins.data[at + 4 : at + 4 + 76 + len(name)] = node + name
        for child, place_ in children:
            fill(child, place_, at, f"{path}\\{child.name}".lstrip("\\"), security)

    at = place(root, "")
    descriptor = bytes.fromhex("0100048014000000200000000000000000000000") + bytes(12)
    security = bins.cell(bytes(20) + descriptor)
    bins.data[security + 4 : security + 24] = struct.pack(
        "<2sHIIII", b"sk", 0, security, security, _count(root), len(descriptor)
    )
    fill(root, at, NONE, "", security)
    bins.close()
    head = base_block(len(bins.data), sequence=sequence, written=written, minor=minor, root=at)
    return Built(bytearray(head) + bins.data, places, lists)


def _count(key: K) -> int:
    return 1 + sum(_count(k) for k in key.keys)


def hive(root: K, **options: object) -> bytes:
    return bytes(build(root, **options).data)  # type: ignore[arg-type]


def tree(items: Mapping[str, Mapping[str, tuple[int, bytes]]], root: str = "ROOT") -> K:
    """Keys from paths: {"A\\B": {"name": (type, data)}}."""
    top = K(root)
    for path, values in items.items():
        key = top
        for name in path.split("\\"):
            child = next((k for k in key.keys if k.name.lower() == name.lower()), None)
            if child is None:
                child = K(name)
                key.keys.append(child)
            key = child
        key.values += [V(name, *value) for name, value in values.items()]
    return top


# --- logs


def marvin32(data: bytes, seed: int = 0x82EF4D887A4E55C5) -> int:
    """An implementation of its own, to judge the product's."""
    low, high = seed & NONE, seed >> 32

    def rotl(x: int, n: int) -> int:
        return (x << n | x >> 32 - n) & NONE

    padded = data + b"\x80" + bytes(-(len(data) + 1) % 4) + bytes(4)
    for (word,) in struct.iter_unpack("<I", padded):
        low = (low + word) & NONE
        high ^= low
        low = rotl(low, 20)
        low = (low + high) & NONE
        high = rotl(high, 9)
        high ^= low
        low = rotl(low, 27)
        low = (low + high) & NONE
        high = rotl(high, 19)
    return high << 32 | low


def entry(sequence: int, bins_size: int, pages: Mapping[int, bytes], flags: int = 0) -> bytes:
    """An entry of a new log; ``pages`` by offset in the hive bins data."""
    body = b"".join(struct.pack("<II", at, len(page)) for at, page in pages.items())
    body += b"".join(pages.values())
    size = (40 + len(body) + 511) // 512 * 512
    body = body.ljust(size - 40, b"\0")
    head = struct.pack("<4sIIIII", b"HvLE", size, flags, sequence, bins_size, len(pages))
    head += struct.pack("<Q", marvin32(body))
    return head + struct.pack("<Q", marvin32(head)) + body


def new_log(sequence: int, bins_size: int, entries: Iterable[bytes]) -> bytes:
    """A log of Windows 8.1 and later whose first entry has this sequence number."""
    head = base_block(bins_size, sequence=(sequence, sequence), file_type=6)[:512]
    return head + b"".join(entries)


def old_log(
    hive_: bytes,
    dirty: Iterable[int],
    *,
    sequence: int = 2,
    written: int = 0,
    cluster: int = 1,
) -> bytes:
    """A log of Windows 8 and earlier that brings a hive to the state ``hive_``. ``dirty`` are 512-byte pages."""
    (bins_size,) = struct.unpack_from("<I", hive_, 40)
    pages = sorted(set(dirty))
    bitmap = bytearray(bins_size // 512 // 8)
    for page in pages:
        bitmap[page // 8] |= 1 << page % 8
    sector = 512 * cluster
    vector = b"DIRT" + bitmap
    head = base_block(bins_size, sequence=(sequence, sequence), written=written, file_type=1, cluster=cluster)
    result = head[:512].ljust(sector, b"\0") + vector.ljust(-(-len(vector) // sector) * sector, b"\0")
    return result + b"".join(hive_[PAGE + 512 * p : PAGE + 512 * p + 512] for p in pages)


def difference(old: bytes, new: bytes, step: int = PAGE) -> Iterator[int]:
    """Offsets in the hive bins data of the pages of ``new`` that ``old`` does not have."""
    for at in range(PAGE, len(new), step):
        if old[at : at + step] != new[at : at + step]:
            yield at - PAGE


def dirty(hive_: bytes, sequence: tuple[int, int] = (2, 1)) -> bytes:
    """The same bytes with sequence numbers that differ, and a right checksum."""
    block = bytearray(hive_)
    struct.pack_into("<II", block, 4, *sequence)
    struct.pack_into("<I", block, 508, checksum(block))
    return bytes(block)
