"""What a PE image imports and exports, by name. After Microsoft's PE/COFF specification.

For drivers: whether Windows' own kernel and port drivers have what a driver asks for is decided by names alone.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.source import ByteSource

WHAT = "PE image"
_MAX_SECTIONS = 96
_MAX_MODULES = 256
_MAX_NAMES = 20_000
_MAX_EXPORTS = 4 << 20  # bytes of an export directory; ntoskrnl's has 120 KB
_NAME = 512


@dataclass(frozen=True)
class Symbols:
    """``modules`` maps imported modules, as spelled, to the names taken from them; imports by number are left out."""

    modules: tuple[tuple[str, tuple[str, ...]], ...]
    exports: frozenset[str]


class _Image:
    def __init__(self, source: ByteSource) -> None:
        self.source = source
        head = source.read_at(0, 64)
        if head[:2] != b"MZ" or len(head) < 64:
            raise FormatError(WHAT, "no MZ signature", 0)
        (place,) = struct.unpack_from("<I", head, 60)
        headers = source.read_at(place, 24 + 240 + _MAX_SECTIONS * 40)
        if headers[:4] != b"PE\0\0" or len(headers) < 24 + 128:
            raise FormatError(WHAT, "no PE header", place)
        count, optional_size = struct.unpack_from("<6xH12xH", headers, 0)
        (magic,) = struct.unpack_from("<H", headers, 24)
        if magic not in (0x10B, 0x20B):
            raise FormatError(WHAT, f"unknown optional header {magic:#x}", place + 24)
        self.wide = magic == 0x20B
        at = 24 + (112 if self.wide else 96)
        table = 24 + optional_size
        if not 0 < count <= _MAX_SECTIONS or len(headers) < table + 40 * count or table < at:
            raise FormatError(WHAT, f"impossible section table of {count} entries", place + 6)
        (listed,) = struct.unpack_from("<I", headers, at - 4)
        room = min(listed, 16, (table - at) // 8)
        self.directories = [struct.unpack_from("<II", headers, at + 8 * i) for i in range(room)]
        self.sections = [struct.unpack_from("<IIII", headers, table + 40 * i + 8) for i in range(count)]

    def directory(self, index: int) -> tuple[int, int]:
        return self.directories[index] if index < len(self.directories) else (0, 0)

    def read(self, rva: int, length: int) -> bytes:
        """As many bytes as the section has; FormatError where no section has this address."""
        for size, start, raw_size, offset in self.sections:
            inside = rva - start
            if 0 <= inside < max(size, raw_size):
                return self.source.read_at(offset + inside, max(0, min(length, raw_size - inside)))
        raise FormatError(WHAT, f"address {rva:#x} is in no section")

    def name(self, rva: int) -> str:
        return self.read(rva, _NAME).split(b"\0")[0].decode("latin-1")


def read_symbols(source: ByteSource, *, exports: bool = False) -> Symbols:
    """Imports, or with ``exports`` the exports only. FormatError where the image's tables cannot be followed."""
    image = _Image(source)
    if exports:
        return Symbols((), frozenset(_exports(image)))
    return Symbols(tuple(_imports(image)), frozenset())


def _imports(image: _Image) -> list[tuple[str, tuple[str, ...]]]:
    rva, size = image.directory(1)
    found: list[tuple[str, tuple[str, ...]]] = []
    total = 0
    while rva and size:
        if len(found) > _MAX_MODULES:
            raise FormatError(WHAT, f"more than {_MAX_MODULES} imported modules")
        entry = image.read(rva + 20 * len(found), 20)
        if len(entry) < 20 or not any(entry):
            break
        lookup, name, addresses = struct.unpack("<I8xII", entry)
        names = _names(image, lookup or addresses, _MAX_NAMES - total)
        total += len(names)
        found.append((image.name(name), tuple(names)))
    return found


def _names(image: _Image, rva: int, limit: int) -> list[str]:
    step = 8 if image.wide else 4
    by_number = 1 << (8 * step - 1)
    found: list[str] = []
    count = 0
    while rva:
        chunk = image.read(rva, 512 * step)
        values = [int.from_bytes(chunk[i : i + step], "little") for i in range(0, len(chunk), step)]
        for value in values:
            if value == 0:
                return found
            count += 1
            if count > limit:
                raise FormatError(WHAT, f"more than {_MAX_NAMES} imported names")
            if not value & by_number:
                found.append(image.name((value & 0x7FFFFFFF) + 2))
        if len(values) < 512:
            return found
        rva += len(chunk)
    return found


def _exports(image: _Image) -> list[str]:
    rva, size = image.directory(0)
    if not rva or not size:
        return []
    directory = image.read(rva, min(size, _MAX_EXPORTS))
    if len(directory) < 40:
        raise FormatError(WHAT, "the export directory is cut off")
    count, table = struct.unpack_from("<I4xI", directory, 24)
    if count > _MAX_NAMES:
        raise FormatError(WHAT, f"more than {_MAX_NAMES} exported names")
    pointers = image.read(table, 4 * count)
    found = []
    for (place,) in struct.iter_unpack("<I", pointers[: len(pointers) // 4 * 4]):
        inside = place - rva
        if 0 <= inside < len(directory):  # names lie in the directory as a rule: one read for all
            end = directory.find(b"\0", inside, inside + _NAME)
            found.append(directory[inside : end if end >= 0 else inside + _NAME].decode("latin-1"))
        else:
            found.append(image.name(place))
    return found
