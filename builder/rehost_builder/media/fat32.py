"""Writes a FAT32 volume straight to a stick or an image: files are streamed, the tables are computed beforehand.

Follows Microsoft's "FAT: General Overview of On-Disk Format" (fatgen103, 2000), with long names. Every file lies in
neighbouring clusters. The same input gives the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from rehost_builder.media.boot_code import FAT32, STAGE2, STAGE2_SECTOR, STAGE2_SECTORS
from rehost_builder.media.fat_entries import (
    ARCHIVE,
    FOLDER,
    VOLUME_LABEL,
    DosTime,
    dos_time,
    folder_entry,
    packed_label,
)

SECTOR = 512
RESERVED = 32
MAX_FILE = (1 << 32) - 1
SMALLEST = 34 << 20
"""Below some 33 MiB there are not the 65525 clusters that make a FAT a FAT32."""
_MAX_SECTORS = (1 << 32) - 1
_BLOCK = 1 << 20
_LFN_END = 0x40
_SPECIAL = set('"*/:<>?\\|')


class Source(Protocol):
    """A file's content: its size in bytes, and how to get at it."""

    @property
    def size(self) -> int: ...

    def blocks(self) -> Iterator[bytes]: ...


@dataclass(frozen=True)
class Memory:
    """A source that is there already."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def blocks(self) -> Iterator[bytes]:
        yield self.data


@dataclass(frozen=True)
class Geometry:
    """Where things are in a volume of so many sectors. Sizes in sectors of 512 bytes."""

    sectors: int
    per_cluster: int
    fat_sectors: int

    @property
    def data(self) -> int:
        return RESERVED + 2 * self.fat_sectors

    @property
    def clusters(self) -> int:
        return (self.sectors - self.data) // self.per_cluster

    @property
    def cluster_size(self) -> int:
        return self.per_cluster * SECTOR


@dataclass
class _Folder:
    files: dict[str, Source] = field(default_factory=dict)
    folders: dict[str, _Folder] = field(default_factory=dict)
    first: int = 0
    clusters: int = 0
    places: dict[str, int] = field(default_factory=dict)  # file -> first cluster


def geometry(size: int) -> Geometry:
    """The layout of a volume of ``size`` bytes. Raises ValueError where FAT32 cannot have that size."""
    sectors = min(size // SECTOR, _MAX_SECTORS)
    if size < SMALLEST:
        raise ValueError(f"{size} bytes are too few for FAT32")
    # Microsoft's own choices (fatgen103, table for FAT32): few clusters keep the tables short
    limits = ((260 << 20, 1), (8 << 30, 8), (16 << 30, 16), (32 << 30, 32))
    per_cluster = next((count for limit, count in limits if size <= limit), 64)
    fat_sectors = 1
    while True:  # grows at most once or twice: the tables take room from what they describe
        clusters = (sectors - RESERVED - 2 * fat_sectors) // per_cluster
        needed = -(-(clusters + 2) * 4 // SECTOR)
        if needed <= fat_sectors:
            break
        fat_sectors = needed
    return Geometry(sectors, per_cluster, fat_sectors)


def write_fat32(
    out: BinaryIO,
    offset: int,
    size: int,
    files: Mapping[str, Source],
    *,
    label: str,
    epoch: int,
    serial: int,
    bootable: bool = False,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Writes a volume with ``files`` ("sources/boot.wim" -> content) at byte ``offset`` of ``out``.

    ``progress`` is told how many bytes have been written since it was last called. With ``bootable`` the boot
    sector starts BOOTMGR. Raises ValueError for what FAT32 cannot hold, OSError as ``out`` does.
    """
    shape = geometry(size)
    root = _tree(files)
    used = _allocate(root, shape.cluster_size)
    if used - 2 > shape.clusters:
        need = (used - 2) * shape.cluster_size
        raise ValueError(f"the files need {need} bytes, the volume has {shape.clusters * shape.cluster_size}")
    clock = dos_time(epoch)
    tell = progress or (lambda count: None)

    def put(sector: int, data: bytes) -> None:
        out.seek(offset + sector * SECTOR)
        out.write(data)
        tell(len(data))

    boot = _boot_sector(shape, offset // SECTOR, label, serial, bootable)
    info = _information(shape.clusters - (used - 2), used)
    put(0, (boot + info).ljust(RESERVED * SECTOR, b"\0"))
    put(6, boot + info)  # the copies that repair tools look for
    if bootable:
        put(STAGE2_SECTOR, STAGE2.ljust(STAGE2_SECTORS * SECTOR, b"\0"))
    for start in (RESERVED, RESERVED + shape.fat_sectors):
        at = start
        for piece in _table(root, shape):
            put(at, piece)
            at += len(piece) // SECTOR
    for folder, parent in _folders(root):
        content = _entries(folder, None if folder is root else parent, clock, label)
        put(_sector(shape, folder.first), content.ljust(folder.clusters * shape.cluster_size, b"\0"))
        for name, source in folder.files.items():
            if source.size:
                _stream(out, offset + _sector(shape, folder.places[name]) * SECTOR, name, source, tell)


def _stream(out: BinaryIO, at: int, name: str, source: Source, tell: Callable[[int], None]) -> None:
    out.seek(at)
    done = 0
    for block in source.blocks():
        done += len(block)
        if done > source.size:
            break
        out.write(block)
        tell(len(block))
    if done != source.size:
        raise ValueError(f"{name} has {done} bytes, {source.size} were expected")
    if rest := -done % SECTOR:  # a device takes whole sectors
        out.write(bytes(rest))


def needed(files: Mapping[str, Source], cluster_size: int) -> int:
    """Bytes of clusters that the files and their folders take."""
    return (_allocate(_tree(files), cluster_size) - 2) * cluster_size


def _tree(files: Mapping[str, Source]) -> _Folder:
    root = _Folder()
    for path in sorted(files):
        *folders, name = [_checked(part) for part in path.split("/")]
        folder = root
        for part in folders:
            if part.casefold() in {n.casefold() for n in folder.files}:
                raise ValueError(f"{part} is called a file and a folder")
            folder = folder.folders.setdefault(_existing(folder.folders, part), _Folder())
        if name.casefold() in {n.casefold() for n in (*folder.files, *folder.folders)}:
            raise ValueError(f"two files are called {path}, without regard to case")
        if files[path].size > MAX_FILE:
            raise ValueError(f"{path} has {files[path].size} bytes; FAT32 holds files up to 4 GiB")
        folder.files[name] = files[path]
    return root


def _existing(folders: Mapping[str, _Folder], name: str) -> str:
    return next((n for n in folders if n.casefold() == name.casefold()), name)


def _checked(name: str) -> str:
    bad = not name or len(name.encode("utf-16-le")) > 510 or name in (".", "..") or name[-1] in ". "
    if bad or any(c in _SPECIAL or ord(c) < 32 for c in name):
        raise ValueError(f"not a name for FAT: {name!r}")
    return name


def _allocate(root: _Folder, cluster_size: int) -> int:
    """Gives every folder and file its clusters; returns the first free one."""
    following = 2
    for folder, _ in _folders(root):
        names = [*folder.folders, *folder.files]
        count = 2 + sum(1 + _long_count(n, s) for n, s in _short_names(names).items())
        folder.first, folder.clusters = following, max(1, -(-count * 32 // cluster_size))
        following += folder.clusters
        for name, source in folder.files.items():
            folder.places[name] = following if source.size else 0
            following += -(-source.size // cluster_size)
    return following


def _folders(root: _Folder) -> Iterator[tuple[_Folder, int]]:
    """Each folder with the cluster that it calls its parent's: that of the root is called 0."""
    waiting: list[tuple[_Folder, int]] = [(root, 0)]
    while waiting:
        folder, parent = waiting.pop(0)
        yield folder, parent
        waiting += [(child, 0 if folder is root else folder.first) for child in folder.folders.values()]


def _table(root: _Folder, shape: Geometry) -> Iterator[bytes]:
    """The table of clusters, in pieces of whole sectors."""
    chains: list[tuple[int, int]] = []
    for folder, _ in _folders(root):
        chains.append((folder.first, folder.clusters))
        for name, source in folder.files.items():
            if source.size:
                chains.append((folder.places[name], -(-source.size // shape.cluster_size)))
    chains.sort()
    last = chains[-1][0] + chains[-1][1]
    values = bytearray(struct.pack("<2I", 0x0FFFFFF8, 0x0FFFFFFF))
    for first, count in chains:
        values += struct.pack(f"<{count}I", *range(first + 1, first + count), 0x0FFFFFFF)
    assert len(values) == last * 4
    values += bytes(-len(values) % SECTOR)
    yield bytes(values)
    rest = shape.fat_sectors * SECTOR - len(values)
    while rest > 0:
        yield bytes(min(rest, _BLOCK))
        rest -= _BLOCK


def _sector(shape: Geometry, cluster: int) -> int:
    return shape.data + (cluster - 2) * shape.per_cluster


# --- folder entries


def _entries(folder: _Folder, parent: int | None, clock: DosTime, label: str) -> bytes:
    out = bytearray()
    if parent is None:  # the root, which holds the volume's name
        out += folder_entry(packed_label(label), VOLUME_LABEL, 0, 0, clock)
    else:
        out += folder_entry(b".          ", FOLDER, folder.first, 0, clock)
        out += folder_entry(b"..         ", FOLDER, parent, 0, clock)
    names = _short_names([*folder.folders, *folder.files])
    for name, short in names.items():
        out += _long(name, short)
        if name in folder.folders:
            out += folder_entry(short, FOLDER, folder.folders[name].first, 0, clock)
        else:
            out += folder_entry(short, ARCHIVE, folder.places[name], folder.files[name].size, clock)
    return bytes(out)


def _short_names(names: list[str]) -> dict[str, bytes]:
    """Name -> the 11 bytes of its short twin, each of which is there once."""
    result: dict[str, bytes] = {}
    taken: set[bytes] = set()
    for name in names:
        plain = _plain_short(name)
        short = plain if plain is not None and plain not in taken else _numbered(name, taken)
        taken.add(short)
        result[name] = short
    return result


def _plain_short(name: str) -> bytes | None:
    """The name itself, where it is one of 8.3."""
    stem, dot, extension = name.rpartition(".") if "." in name else (name, "", "")
    fits = 1 <= len(stem) <= 8 and len(extension) <= 3 and bool(extension) == bool(dot) and "." not in stem
    return _packed(stem, extension) if fits and _harmless(stem + extension) else None


def _harmless(text: str) -> bool:
    return all(c.isascii() and (c.isalnum() or c in "!#$%&'()-@^_`{}~") for c in text)


def _numbered(name: str, taken: set[bytes]) -> bytes:
    stem, _, extension = name.rpartition(".") if "." in name[1:] else (name, "", "")
    stem = "".join(c for c in stem if _harmless(c)) or "_"
    extension = "".join(c for c in extension if _harmless(c))[:3]
    for number in range(1, 1_000_000):
        tail = f"~{number}"
        short = _packed(stem[: 8 - len(tail)] + tail, extension)
        if short not in taken:
            return short
    raise ValueError(f"too many names like {name}")


def _packed(stem: str, extension: str) -> bytes:
    return (stem.upper().ljust(8) + extension.upper().ljust(3)).encode("ascii")


def _long_count(name: str, short: bytes) -> int:
    if _shown(short) == name:
        return 0
    return -(-(len(name.encode("utf-16-le")) // 2) // 13)


def _shown(short: bytes) -> str:
    stem, extension = short[:8].decode().rstrip(), short[8:].decode().rstrip()
    return f"{stem}.{extension}" if extension else stem


def _long(name: str, short: bytes) -> bytes:
    count = _long_count(name, short)
    checksum = 0
    for byte in short:
        checksum = ((checksum & 1) << 7) + (checksum >> 1) + byte & 0xFF
    units = name.encode("utf-16-le")
    if len(units) // 2 % 13:
        units += b"\0\0"
    units = units.ljust(count * 26, b"\xff")
    out = bytearray()
    for number in range(count, 0, -1):
        part = units[(number - 1) * 26 : number * 26]
        order = number | (_LFN_END if number == count else 0)
        out += struct.pack("<B10sBBB12sH4s", order, part[:10], 0x0F, 0, checksum, part[10:22], 0, part[22:26])
    return bytes(out)


# --- boot sector


def _boot_sector(shape: Geometry, hidden: int, label: str, serial: int, bootable: bool) -> bytes:
    head = struct.pack(
        "<8sHBHBHHBHHHII",
        b"MSDOS5.0", SECTOR, shape.per_cluster, RESERVED, 2, 0, 0, 0xF8, 0, 63, 255, hidden, shape.sectors,
    )  # fmt: skip
    more = struct.pack(
        "<IHHIHH12sBBBI11s8s",
        shape.fat_sectors, 0, 0, 2, 1, 6, b"", 0x80, 0, 0x29, serial & 0xFFFFFFFF,
        packed_label(label), b"FAT32   ",
    )  # fmt: skip
    block = head + more
    code = bytearray((FAT32 if bootable else b"\xeb\x58\x90").ljust(510, b"\0"))
    code[3 : 3 + len(block)] = block
    if not bootable:
        code[0x5A:0x5C] = b"\xcd\x18"  # int 18h: there is nothing to start here, try the next device
    return bytes(code) + b"\x55\xaa"


def _information(free: int, following: int) -> bytes:
    return struct.pack("<I480sIII12sI", 0x41615252, b"", 0x61417272, free, following, b"", 0xAA550000)
