"""Small exFAT volumes made by own code after Microsoft's specification: flat trees, contiguous or fragmented
files.

Enough for tests of a reader; `fsck.exfat -n` finds nothing to complain about.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

_SECTOR, _CLUSTER = 512, 4096
_FAT_OFFSET, _HEAP = 128, 256  # sectors


def _set_checksum(entries: bytes) -> int:
    total = 0
    for index, byte in enumerate(entries):
        if index not in (2, 3):
            total = ((total << 15 | total >> 1) & 0xFFFF) + byte & 0xFFFF
    return total


def _name_hash(name: str) -> int:
    total = 0
    for byte in name.upper().encode("utf-16-le"):
        total = ((total << 15 | total >> 1) & 0xFFFF) + byte & 0xFFFF
    return total


def _table_checksum(data: bytes) -> int:
    total = 0
    for byte in data:
        total = ((total << 31 | total >> 1) & 0xFFFFFFFF) + byte & 0xFFFFFFFF
    return total


class _Volume:
    def __init__(self, clusters: int) -> None:
        self.clusters = clusters
        self.fat = [0xFFFFFFF8, 0xFFFFFFFF] + [0] * clusters
        self.heap = bytearray(clusters * _CLUSTER)
        self.used: set[int] = set()
        self._next = 2

    def store(self, data: bytes, *, chained: bool, gap: int = 0) -> int:
        """Puts data into clusters and returns the first; ``gap`` clusters are left free between two."""
        count = max(1, -(-len(data) // _CLUSTER))
        numbers = [self._next + i * (gap + 1) for i in range(count)]
        self._next = numbers[-1] + 1
        for index, number in enumerate(numbers):
            piece = data[index * _CLUSTER : (index + 1) * _CLUSTER]
            place = (number - 2) * _CLUSTER
            self.heap[place : place + len(piece)] = piece
            if chained:
                self.fat[number] = numbers[index + 1] if index + 1 < count else 0xFFFFFFFF
        self.used |= set(numbers)
        return numbers[0]


def _file(name: str, attributes: int, first: int, size: int, valid: int, contiguous: bool) -> bytes:
    encoded = name.encode("utf-16-le")
    pieces = [encoded[i : i + 30] for i in range(0, len(encoded), 30)]
    head = struct.pack("<BBHHHIIIBBBBB7x", 0x85, 1 + len(pieces), 0, attributes, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    flags = 1 | (2 if contiguous else 0)
    count = len(encoded) // 2
    stream = struct.pack("<BBBBHHQIIQ", 0xC0, flags, 0, count, _name_hash(name), 0, valid, 0, first, size)
    entries = bytearray(head + stream + b"".join(b"\xc1\0" + p.ljust(30, b"\0") for p in pieces))
    struct.pack_into("<H", entries, 2, _set_checksum(entries))
    return bytes(entries)


def make_volume(
    files: Mapping[str, bytes],
    *,
    label: str = "",
    size: int = 4 << 20,
    serial: int = 0x1234ABCD,
    dirty: bool = False,
    fragmented: bool = False,
    partition_sector: int = 0,
    valid: Mapping[str, int] | None = None,
) -> bytes:
    """The bytes of a volume with these files. One folder level ("folder/file"); ``valid`` shortens valid
    data."""
    clusters = (size // _SECTOR - _HEAP) // (_CLUSTER // _SECTOR)
    volume = _Volume(clusters)
    bitmap_size = -(-clusters // 8)
    bitmap_first = volume.store(bytes(bitmap_size), chained=True)
    upper = [chr(i).upper() for i in range(256)]
    upcase = b"".join(struct.pack("<H", ord(u) if len(u) == 1 else i) for i, u in enumerate(upper))
    upcase += struct.pack("<HH", 0xFFFF, 0x10000 - 256)  # the rest is itself
    upcase_first = volume.store(upcase, chained=True)

    def entries(tree: Mapping[str, bytes]) -> bytes:
        made = b""
        folders: dict[str, dict[str, bytes]] = {}
        for path, data in tree.items():
            folder, slash, rest = path.partition("/")
            if slash:
                folders.setdefault(folder, {})[rest] = data
                continue
            first = volume.store(data, chained=fragmented, gap=int(fragmented)) if data else 0
            length = (valid or {}).get(path, len(data))
            made += _file(path, 0x20, first, len(data), length, bool(data) and not fragmented)
        for folder, inner in folders.items():
            content = entries(inner)
            rounded = max(1, -(-len(content) // _CLUSTER)) * _CLUSTER
            first = volume.store(content.ljust(rounded, b"\0"), chained=True)
            made += _file(folder, 0x10, first, rounded, rounded, False)
        return made

    tree = entries(files)
    encoded = label.encode("utf-16-le")
    root = struct.pack("<BB22s8x", 0x83, len(label), encoded)
    root += struct.pack("<BB18xIQ", 0x81, 0, bitmap_first, bitmap_size)
    root += struct.pack("<BxxxI12xIQ", 0x82, _table_checksum(upcase), upcase_first, len(upcase))
    root_first = volume.store(root + tree, chained=True)
    bitmap = 0
    for number in volume.used:
        bitmap |= 1 << number - 2
    place = (bitmap_first - 2) * _CLUSTER
    volume.heap[place : place + bitmap_size] = bitmap.to_bytes(bitmap_size, "little")

    boot = bytearray(_SECTOR)
    boot[0:11] = b"\xeb\x76\x90EXFAT   "
    struct.pack_into(
        "<QQIIIIIIHHBBBBB",
        boot,
        64,
        *(partition_sector, size // _SECTOR, _FAT_OFFSET, _HEAP - _FAT_OFFSET, _HEAP, clusters, root_first),
        *(serial, 0x100, 2 if dirty else 0, 9, 3, 1, 0x80, 0xFF),
    )
    boot[510:512] = b"\x55\xaa"
    region = bytes(boot)
    region += 8 * (bytes(510) + b"\x55\xaa") + bytes(
        2 * _SECTOR
    )  # extended boot sectors, parameters, reserved
    total = 0
    for index, byte in enumerate(region):
        if index not in (106, 107, 112):
            total = ((total << 31 | total >> 1) & 0xFFFFFFFF) + byte & 0xFFFFFFFF
    region += struct.pack("<I", total) * (_SECTOR // 4)
    head = (region * 2).ljust(_FAT_OFFSET * _SECTOR, b"\0")
    table = struct.pack(f"<{len(volume.fat)}I", *volume.fat).ljust((_HEAP - _FAT_OFFSET) * _SECTOR, b"\0")
    return (head + table + bytes(volume.heap)).ljust(size, b"\0")
