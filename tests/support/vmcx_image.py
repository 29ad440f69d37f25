"""Writes Hyper-V storage files (.vmcx, .vmrs) for tests: what no real sample has, and damage at known places."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

PAGE = 4096
TABLE = 0x2000

Leaf = bool | int | float | str | bytes
Tree = Sequence[tuple[str, "Leaf | Tree"]]


@dataclass
class Image:
    """``places`` says where headers, tables, entries (by path) and large values begin."""

    data: bytearray
    places: dict[str, int] = field(default_factory=dict)

    @property
    def bytes(self) -> bytes:
        return bytes(self.data)


def crc(data: bytes | bytearray, at: int) -> bytes:
    """The data with their checksum written at ``at``."""
    blank = bytearray(data)
    blank[at : at + 4] = bytes(4)
    blank[at : at + 4] = struct.pack("<I", zlib.crc32(blank))
    return bytes(blank)


def header(sequence: int, version: int, log: int, log_size: int = PAGE) -> bytes:
    return crc(struct.pack("<IIHIIIIQQI", 0x01282014, 0, sequence, version, 0, 0, PAGE, log, log_size, 34), 4)


def entry(
    kind: int, name: str, value: bytes, parent: tuple[int, int], sequence: int, flags: int = 0, slack: int = 0
) -> bytes:
    raw_name = name.encode() + b"\0"
    size = 21 + len(raw_name) + len(value)
    head = struct.pack("<BBIHIIIB", kind, flags, size + slack, *parent, 0, sequence, len(raw_name))
    return crc(head + raw_name + value, 12) + bytes(slack)


def object_entry(kind: int, at: int, size: int) -> bytes:
    return crc(struct.pack("<BIQIB", kind, 0, at, size, 1 if kind else 0), 1)


def _plain(value: Leaf) -> tuple[int, bytes]:
    if isinstance(value, bool):
        return 8, struct.pack("<i", value)
    if isinstance(value, int):
        return 3, struct.pack("<q", value)
    if isinstance(value, float):
        return 5, struct.pack("<d", value)
    if isinstance(value, str):
        raw = (value + "\0").encode("utf-16-le", "surrogatepass")
        return 6, struct.pack("<I", len(raw)) + raw
    return 7, struct.pack("<I", len(value)) + value


class _Writer:
    def __init__(self) -> None:
        self.tables: list[bytearray] = []
        self.blobs: list[tuple[int, int, bytes]] = []  # table, place of the pointer's entry, data
        self.entries: dict[str, tuple[int, int, bytes]] = {}

    def place(self, size: int) -> tuple[int, int]:
        """Index and place of a new entry; a table that would be too full to be closed is left."""
        if not self.tables or len(self.tables[-1]) + size > PAGE - 22:
            self.tables.append(bytearray(10))
        return len(self.tables), len(self.tables[-1])

    def add(self, tree: Tree, parent: tuple[int, int], prefix: str) -> None:
        for number, (name, value) in enumerate(tree, 1):
            path = f"{prefix}{name}"
            leaf = isinstance(value, bool | int | float | str | bytes)
            if leaf:
                kind, raw = _plain(value)  # type: ignore[arg-type]
            else:
                kind, raw = 9, struct.pack("<QI", 0, len(value) + 1)  # type: ignore[arg-type]
            large = leaf and len(raw) - 4 >= 2048
            body = bytes(12) if large else raw
            at = self.place(22 + len(name.encode()) + len(body))
            made = entry(kind, name, body, parent, number, flags=1 if large else 0)
            if large:
                self.blobs.append((*at, raw[4:]))
            self.tables[at[0] - 1] += made
            self.entries.setdefault(path, (*at, made))
            if not leaf:
                self.add(value, at, path + "/")  # type: ignore[arg-type]


def build(
    tree: Tree, *, version: int = 0x0400, sequences: tuple[int, int] = (7, 6), capacity: int = 227
) -> Image:
    """A file holding this tree, its children in the given order, with an empty replay log at the end.

    Objects lie in object tables of ``capacity`` entries, whose last one leads to the next table.
    """
    writer = _Writer()
    writer.add(tree, (0, 0), "")
    image = Image(bytearray(2 * PAGE))
    places = image.places
    objects: list[tuple[int, int, int]] = []
    contents: list[tuple[str, bytes]] = []
    for index, table in enumerate(writer.tables, 1):
        free = PAGE - len(table)
        closed = (
            crc(struct.pack("<HHHI", 2, index, 1, 0), 6)
            + table[10:]
            + entry(1, "", b"", (0, 0), 0, slack=free - 22)
        )
        contents.append((f"table{index}", closed))
    contents += [(f"blob{i}", blob) for i, (_, _, blob) in enumerate(writer.blobs)]
    # object tables first, so that their number is known before anything is placed behind them
    count, in_all = 1, len(contents)
    while count * (capacity - 1) < in_all:
        count += 1
    table_size = -(-(8 + 18 * capacity) // PAGE) * PAGE
    at = TABLE + count * table_size
    for name, content in contents:
        size = -(-len(content) // PAGE) * PAGE
        places[name] = at
        objects.append((2 if name.startswith("table") else 3, at, size))
        at += size
    image.data += bytes(at - len(image.data))
    for number in range(count):
        mine = objects[number * (capacity - 1) : (number + 1) * (capacity - 1)]
        entries = [object_entry(*o) for o in mine]
        entries += [object_entry(0, 0, 0)] * (capacity - 1 - len(mine))
        start = TABLE + number * table_size
        entries.append(
            object_entry(1, start + table_size, table_size) if number + 1 < count else object_entry(0, 0, 0)
        )
        raw = struct.pack("<II", 0x01110001, capacity) + b"".join(entries)
        image.data[start : start + len(raw)] = raw
        places[f"objects{number}"] = start
    for name, content in contents:
        image.data[places[name] : places[name] + len(content)] = content
    for number, (table, place, blob) in enumerate(writer.blobs):
        start = places[f"table{table}"] + place
        size = struct.unpack_from("<I", image.data, start + 2)[0]
        made = bytearray(image.data[start : start + size])
        made[-12:] = struct.pack("<IQ", len(blob), places[f"blob{number}"])
        image.data[start : start + size] = crc(made, 12)
    for path, (table, place, _) in writer.entries.items():
        places[path] = places[f"table{table}"] + place
    log = len(image.data)
    places["log"] = log
    image.data += bytes(4 * PAGE)
    set_log(image, [])
    places["header0"], places["header1"] = 0, PAGE
    for number, sequence in enumerate(sequences):
        image.data[number * PAGE : number * PAGE + 46] = header(sequence, version, log, 4 * PAGE)
    return image


def set_log(image: Image, writes: Sequence[tuple[int, bytes]]) -> None:
    """Pending writes in the replay log, as a host leaves them that lost power."""
    log = image.places["log"]
    place = PAGE
    entries = b""
    for target, data in writes:
        entries += crc(struct.pack("<QIQII", target, len(data), place, 0, zlib.crc32(data)), 20)
        image.data[log + place : log + place + len(data)] = data
        place += len(data)
    assert place <= 4 * PAGE
    head = struct.pack("<IIIBIBQII", 0x01110003, 0, len(writes), 0, 0x91, 0, 0, 0, 0)
    image.data[log : log + 34 + len(entries)] = crc(head, 4) + entries
