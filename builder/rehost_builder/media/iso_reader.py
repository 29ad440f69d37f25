"""Reads a finished ISO image: ISO 9660, Joliet, Rock Ridge names, UDF, and the El Torito boot catalog.

Serves both the user's media that a build starts from and the finished ones that are judged. Shares nothing with pycdlib,
which writes our images: it is the second opinion on them. Follows ECMA-119, the Joliet
specification, RRIP 1.12 (NM entries), ECMA-167 with UDF 1.02 to 2.01 without virtual or sparable partitions, and the
El Torito specification 1.0. Every error is a FormatError; reads stay inside the image.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from rehost_payload.formats.errors import FormatError

BLOCK = 2048
_MAX_ENTRIES = 1 << 20
_MAX_FOLDER = 64 << 20
_MAX_DEPTH = 64
_PIECE = 1 << 20


@dataclass(frozen=True)
class IsoFile:
    """A file's bytes as (offset, length) pieces of the image."""

    size: int
    pieces: tuple[tuple[int, int], ...]


def _file(size: int, pieces: Iterable[tuple[int, int]]) -> IsoFile:
    """Pieces that follow each other are one: UDF has them of 1 GiB at most, ISO 9660 of 4 GiB."""
    joined: list[tuple[int, int]] = []
    for offset, length in pieces:
        if joined and sum(joined[-1]) == offset:
            joined[-1] = joined[-1][0], joined[-1][1] + length
        elif length:
            joined.append((offset, length))
    return IsoFile(size, tuple(joined))


@dataclass(frozen=True)
class Tree:
    """One way to see the files: ``kind`` "udf", "joliet" or "iso9660". Paths have forward slashes, no leading one."""

    kind: str
    label: str
    files: Mapping[str, IsoFile]
    folders: tuple[str, ...]


@dataclass(frozen=True)
class BootEntry:
    """An El Torito entry: ``platform`` 0 BIOS, 0xEF UEFI; ``load`` counts sectors of 512 bytes. ``emulation`` is the
    medium that the image stands for (0: none), ``segment`` where it is loaded (0: the usual place).
    """

    platform: int
    bootable: bool
    offset: int
    load: int
    emulation: int = 0
    segment: int = 0


@dataclass
class IsoImage:
    """An opened image. ``trees`` are those it has, the best one first."""

    file: BinaryIO
    size: int
    trees: tuple[Tree, ...] = ()
    boot: tuple[BootEntry, ...] = ()
    volume_size: int = 0  # as the primary volume descriptor has it
    catalog: int = 0  # where the boot catalog is, in bytes; 0 for none
    problems: list[str] = field(default_factory=list)

    def tree(self, kind: str) -> Tree | None:
        return next((t for t in self.trees if t.kind == kind), None)

    @property
    def needed(self) -> int:
        """Bytes that the image must have for all that its directories name; fewer: it was cut off."""
        ends = [o + n for t in self.trees for f in t.files.values() for o, n in f.pieces]
        return max([*ends, *(e.offset for e in self.boot), self.volume_size])

    @property
    def best(self) -> Tree:
        return self.trees[0]

    def find(self, path: str) -> IsoFile | None:
        """A file by its path, without regard to case, in the best tree."""
        wanted = path.casefold()
        return next((f for p, f in self.best.files.items() if p.casefold() == wanted), None)

    def blocks(self, found: IsoFile) -> Iterator[bytes]:
        left = found.size
        for offset, length in found.pieces:
            end = offset + min(length, left)
            left -= end - offset
            while offset < end:
                data = self.read(offset, min(_PIECE, end - offset))
                yield data
                offset += len(data)
        if left:
            raise FormatError("ISO image", f"a file's pieces are {left} bytes shorter than its size")

    def content(self, found: IsoFile, limit: int = 64 << 20) -> bytes:
        if found.size > limit:
            raise FormatError("ISO image", f"a file of {found.size} bytes, expected at most {limit}")
        return b"".join(self.blocks(found))

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes; FormatError where the image is shorter."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise FormatError(
                "ISO image", f"ends at {self.size}, bytes up to {offset + length} are referred to"
            )
        self.file.seek(offset)
        data = self.file.read(length)
        if len(data) != length:
            raise FormatError("ISO image", f"only {len(data)} of {length} bytes could be read", offset)
        return data


def open_iso(file: BinaryIO) -> IsoImage:
    """Reads the directories of an image. FormatError where it has no file system that is known here."""
    file.seek(0, 2)
    image = IsoImage(file, file.tell())
    trees: list[Tree] = []
    for read in (_udf, _joliet, _iso9660):
        try:
            tree = read(image)
        except FormatError as error:
            image.problems.append(f"{read.__name__.lstrip('_')}: {error}")
            continue
        if tree is not None:
            trees.append(tree)
    if not trees:
        why = "; ".join(image.problems) or "no ISO 9660 and no UDF descriptors"
        raise FormatError("ISO image", why)
    image.trees = tuple(trees)
    image.volume_size = _iso_size(image)
    try:
        image.boot = tuple(_el_torito(image))
    except FormatError as error:
        image.problems.append(f"El Torito: {error}")
    return image


def boot_entries(file: BinaryIO) -> tuple[BootEntry, ...]:
    """The boot catalog alone, for an image whose files cannot be read. Empty where there is none that is whole."""
    file.seek(0, 2)
    try:
        return tuple(_el_torito(IsoImage(file, file.tell())))
    except FormatError:
        return ()


def announced_size(file: BinaryIO) -> int:
    """Bytes that an image should have by its own descriptors, also where nothing else of it can be read; 0: not said."""
    file.seek(0, 2)
    image = IsoImage(file, file.tell())
    try:
        udf = _udf_size(image)
    except FormatError:
        udf = 0
    return max(_iso_size(image), udf)


def _iso_size(image: IsoImage) -> int:
    """Bytes of the ISO 9660 volume (ECMA-119, 8.4.8); 0 where there is none."""
    primary = next((d for d in _descriptors(image) if d[0] == 1), None)
    return struct.unpack_from("<I", primary, 80)[0] * BLOCK if primary is not None else 0


def _udf_size(image: IsoImage) -> int:
    """Where the UDF partition ends, in bytes; 0 where that is not said."""
    if image.size < 257 * BLOCK:
        return 0
    anchor = image.read(256 * BLOCK, BLOCK)
    length, where = struct.unpack_from("<2I", anchor, 16)
    if struct.unpack_from("<H", anchor)[0] != 2:
        return 0
    for sector in range(where, where + min(length // BLOCK, 32)):
        data = image.read(sector * BLOCK, BLOCK)
        if struct.unpack_from("<H", data)[0] == 5:
            start, count = struct.unpack_from("<2I", data, 188)
            return int(start + count) * BLOCK
    return 0


# --- ISO 9660


def _descriptors(image: IsoImage) -> Iterator[bytes]:
    for sector in range(16, 64):
        if (sector + 1) * BLOCK > image.size:
            return
        data = image.read(sector * BLOCK, BLOCK)
        if data[1:6] != b"CD001" or data[0] == 255:
            return
        yield data


def _joliet(image: IsoImage) -> Tree | None:
    for data in _descriptors(image):
        if data[0] == 2 and data[88:91] in (b"%/@", b"%/C", b"%/E"):
            label = data[40:72].decode("utf-16-be", "replace").rstrip(" \0")
            return _walk9660(image, "joliet", label, data[156:190], joliet=True)
    return None


def _iso9660(image: IsoImage) -> Tree | None:
    for data in _descriptors(image):
        if data[0] == 1:
            label = data[40:72].decode("ascii", "replace").rstrip(" \0")
            return _walk9660(image, "iso9660", label, data[156:190], joliet=False)
    return None


@dataclass(frozen=True)
class _Record:
    name: str
    folder: bool
    offset: int
    length: int
    more: bool


def _walk9660(image: IsoImage, kind: str, label: str, root: bytes, joliet: bool) -> Tree:
    files: dict[str, IsoFile] = {}
    folders: list[str] = []
    seen: set[int] = set()
    offset, length = struct.unpack_from("<I", root, 2)[0] * BLOCK, struct.unpack_from("<I", root, 10)[0]
    waiting = [("", offset, length)]
    while waiting:
        path, offset, length = waiting.pop(0)
        if offset in seen:
            raise FormatError("ISO 9660", f"the folder {path} contains itself", offset)
        seen.add(offset)
        pieces: list[tuple[int, int]] = []
        for record in _records(image, offset, length, joliet):
            if len(files) + len(folders) > _MAX_ENTRIES or path.count("/") > _MAX_DEPTH:
                raise FormatError("ISO 9660", "too many files or levels", offset)
            full = f"{path}/{record.name}" if path else record.name
            if record.folder:
                folders.append(full)
                waiting.append((full, record.offset, record.length))
                continue
            pieces.append((record.offset, record.length))
            if not record.more:
                files[full] = _file(sum(size for _, size in pieces), pieces)
                pieces = []
    return Tree(kind, label, files, tuple(folders))


def _records(image: IsoImage, offset: int, length: int, joliet: bool) -> Iterator[_Record]:
    if length > _MAX_FOLDER:
        raise FormatError("ISO 9660", f"a folder of {length} bytes", offset)
    data = image.read(offset, length)
    at = 0
    while at < length:
        size = data[at]
        if size == 0:  # records do not cross sectors
            at = (at // BLOCK + 1) * BLOCK
            continue
        if size < 34 or at + size > length:
            raise FormatError("ISO 9660", "a directory record is too short", offset + at)
        record = data[at : at + size]
        at += size
        name_length, flags = record[32], record[25]
        if 33 + name_length > size:
            raise FormatError("ISO 9660", "a name longer than its record", offset + at)
        raw = record[33 : 33 + name_length]
        if raw in (b"\0", b"\1"):
            continue
        where, count = struct.unpack_from("<I", record, 2)[0], struct.unpack_from("<I", record, 10)[0]
        name = raw.decode("utf-16-be" if joliet else "ascii", "replace")
        system = record[33 + name_length + (1 - name_length % 2) :]
        rock_ridge = "" if joliet else _rock_ridge_name(system)
        name = rock_ridge or name.partition(";")[0].rstrip(".")
        yield _Record(name, bool(flags & 2), where * BLOCK, count, bool(flags & 0x80))


def _rock_ridge_name(area: bytes) -> str:
    """The NM entries in the record itself; a name that goes on elsewhere is left to Joliet."""
    name = b""
    at = 0
    while at + 5 <= len(area):
        length = area[at + 2]
        if length < 4 or at + length > len(area):
            break
        if area[at : at + 2] == b"NM" and length > 5:
            name += area[at + 5 : at + length]
        at += length
    return name.decode("utf-8", "replace")


# --- El Torito


def _el_torito(image: IsoImage) -> Iterator[BootEntry]:
    for data in _descriptors(image):
        if data[0] == 0 and data[7:39].rstrip(b"\0") == b"EL TORITO SPECIFICATION":
            image.catalog = struct.unpack_from("<I", data, 0x47)[0] * BLOCK
            catalog = image.read(image.catalog, BLOCK)
            break
    else:
        return
    if catalog[0] != 1 or catalog[30:32] != b"\x55\xaa" or sum(struct.unpack_from("<16H", catalog)) & 0xFFFF:
        raise FormatError("El Torito", "the validation entry is damaged")
    platform = catalog[1]
    for at in range(32, BLOCK, 32):
        head = catalog[at]
        if head in (0x90, 0x91):
            platform = catalog[at + 1]
        elif head in (0x88, 0x00):
            emulation, segment = struct.unpack_from("<BH", catalog, at + 1)
            count, sector = struct.unpack_from("<HI", catalog, at + 6)
            if not sector:
                return
            yield BootEntry(platform, head == 0x88, sector * BLOCK, count, emulation, segment)


# --- UDF


class _Udf:
    def __init__(self, image: IsoImage, start: int) -> None:
        self.image = image
        self.start = start  # of the partition, in bytes
        self.entries = 0

    def read(self, block: int, length: int) -> bytes:
        return self.image.read(self.start + block * BLOCK, length)

    def entry(self, block: int) -> tuple[int, int, IsoFile, bytes]:
        """(file type, size, pieces, embedded bytes) of a file entry or extended file entry."""
        data = self.read(block, BLOCK)
        tag = _tag(data, "file entry")
        if tag == 261:
            extended, attributes, allocation = 168, *struct.unpack_from("<2I", data, 168)
            at = 176 + attributes
        elif tag == 266:
            extended, attributes, allocation = 208, *struct.unpack_from("<2I", data, 208)
            at = 216 + attributes
        else:
            raise FormatError("UDF", f"tag {tag} where a file entry should be", block)
        kind, form = data[27], data[34] & 7
        size = struct.unpack_from("<Q", data, 56)[0]
        if at + allocation > BLOCK or extended > at:
            raise FormatError("UDF", "a file entry longer than its block", block)
        area = data[at : at + allocation]
        if form == 3:
            if size > len(area):
                raise FormatError("UDF", "embedded data shorter than its size", block)
            piece = (self.start + block * BLOCK + at, size)
            return kind, size, IsoFile(size, (piece,) if size else ()), area[:size]
        width = {0: 8, 1: 16}.get(form)
        if width is None:
            raise FormatError("UDF", f"allocation descriptors of kind {form}", block)
        return kind, size, _file(size, self.pieces(area, width, size, block)), b""

    def pieces(self, area: bytes, width: int, size: int, block: int) -> Iterator[tuple[int, int]]:
        left, at, links = size, 0, 0
        while left > 0:
            if at + width > len(area):
                raise FormatError("UDF", "a file's pieces are shorter than its size", block)
            length, where = struct.unpack_from("<2I", area, at)
            at += width
            kind, length = length >> 30, length & 0x3FFFFFFF
            if kind == 3:  # the descriptors go on in another block
                links += 1
                if links > 4096:
                    raise FormatError("UDF", "endless allocation descriptors", block)
                data = self.read(where, BLOCK)
                if _tag(data, "allocation extent") != 258:
                    raise FormatError("UDF", "no allocation extent", where)
                count = struct.unpack_from("<I", data, 20)[0]
                area, at = data[24 : 24 + min(count, BLOCK - 24)], 0
                continue
            if kind != 0 or not length:
                raise FormatError("UDF", "a piece that is not recorded", block)
            yield self.start + where * BLOCK, min(length, left)
            left -= min(length, left)

    def folder(self, block: int) -> bytes:
        kind, size, found, embedded = self.entry(block)
        if kind != 4 or size > _MAX_FOLDER:
            raise FormatError("UDF", "not a folder", block)
        return embedded or b"".join(self.image.blocks(found))


def _udf(image: IsoImage) -> Tree | None:
    if not any(x[1:6] in (b"NSR02", b"NSR03") for x in _recognition(image)):
        return None
    anchor = image.read(256 * BLOCK, BLOCK)
    if _tag(anchor, "anchor") != 2:
        raise FormatError("UDF", "no anchor in sector 256")
    length, where = struct.unpack_from("<2I", anchor, 16)
    start = root = None
    label = ""
    for sector in range(where, where + min(length // BLOCK, 256)):
        data = image.read(sector * BLOCK, BLOCK)
        tag = _tag(data, "volume descriptor")
        if tag == 8:
            break
        if tag == 5:
            start = struct.unpack_from("<I", data, 188)[0] * BLOCK
        elif tag == 6:
            if struct.unpack_from("<I", data, 212)[0] != BLOCK:
                raise FormatError("UDF", "logical blocks that are not 2048 bytes")
            label = _dstring(data[84:212])
            root = struct.unpack_from("<I", data, 248 + 4)[0]
            if data[440] != 1:
                raise FormatError("UDF", "a partition map of a kind that is not read here")
    if start is None or root is None:
        raise FormatError("UDF", "no partition or no logical volume")
    volume = _Udf(image, start)
    sets = volume.read(root, BLOCK)
    if _tag(sets, "file set") != 256:
        raise FormatError("UDF", "no file set descriptor")
    return _walk_udf(volume, label, struct.unpack_from("<I", sets, 400 + 4)[0])


def _recognition(image: IsoImage) -> Iterator[bytes]:
    for sector in range(16, 64):
        if (sector + 1) * BLOCK > image.size:
            return
        data = image.read(sector * BLOCK, 8)
        if data[1:6] not in (b"CD001", b"BEA01", b"NSR02", b"NSR03", b"TEA01", b"BOOT2"):
            return
        yield data


def _walk_udf(volume: _Udf, label: str, root: int) -> Tree:
    files: dict[str, IsoFile] = {}
    folders: list[str] = []
    seen: set[int] = set()
    waiting = [("", root)]
    while waiting:
        path, block = waiting.pop(0)
        if block in seen:
            raise FormatError("UDF", f"the folder {path} contains itself", block)
        seen.add(block)
        data = volume.folder(block)
        view = memoryview(data)
        at = 0
        while at + 38 <= len(data):
            if _tag(view[at:], "file identifier") != 257:
                raise FormatError("UDF", f"a damaged entry in {path or 'the root'}", block)
            flags, name_length = data[at + 18], data[at + 19]
            where = struct.unpack_from("<I", data, at + 24)[0]
            use = struct.unpack_from("<H", data, at + 36)[0]
            raw = data[at + 38 + use : at + 38 + use + name_length]
            at += (38 + use + name_length + 3) // 4 * 4
            if flags & 0x0C:  # deleted, or the parent
                continue
            if len(files) + len(folders) > _MAX_ENTRIES or path.count("/") > _MAX_DEPTH:
                raise FormatError("UDF", "too many files or levels", block)
            name = _compressed(raw)
            full = f"{path}/{name}" if path else name
            if flags & 2:
                folders.append(full)
                waiting.append((full, where))
            else:
                files[full] = volume.entry(where)[2]
    return Tree("udf", label, files, tuple(folders))


def _tag(data: bytes | memoryview, what: str) -> int:
    """The identifier of a descriptor tag whose checksum and CRC are right (ECMA-167 3/7.2)."""
    if len(data) < 16 or (sum(data[:4]) + sum(data[5:16])) & 0xFF != data[4]:
        raise FormatError("UDF", f"the tag of a {what} is damaged")
    crc, length = struct.unpack_from("<2H", data, 8)
    if 16 + length > len(data) or (length and binascii.crc_hqx(data[16 : 16 + length], 0) != crc):
        raise FormatError("UDF", f"a {what} is not what its CRC says")
    return int.from_bytes(data[:2], "little")


def _compressed(raw: bytes) -> str:
    """OSTA compressed Unicode: 8 or 16 bits a character."""
    if not raw or raw[0] not in (8, 16):
        raise FormatError("UDF", "a name of an unknown encoding")
    return raw[1:].decode("latin-1" if raw[0] == 8 else "utf-16-be", "replace")


def _dstring(raw: bytes) -> str:
    used = raw[-1]
    return _compressed(raw[:used]) if 1 < used < len(raw) else ""
