"""Registry hives (regf): the reader, and what an edit of a hive is.

Follows the "Windows registry file format specification" (M. Suhanov), versions 1.3 to 1.6. Reading is lazy:
`Hive.parse` looks at the base block and the root key only, keys and values are decoded when they are asked for, so
a 100 MB SOFTWARE hive costs no more than the path that is followed. Everything that reads may raise `FormatError`,
also `Key.subkeys()` in the middle of an iteration.

Hostile hives are bounded: a cell lies inside the hive bins data, a list yields no more keys than its key claims, no
key twice and only those that name this key as their parent. So a walk visits every key node at most once, and every
value. Only data may be shared by hostile values: who keeps the data of many must look at the sum of their sizes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.hive_base import (
    BASE_BLOCK_SIZE,
    PAGE_SIZE,
    decode_string,
    decode_strings,
    encode_string,
    encode_strings,
    filetime,
    fold,
    header_intact,
    is_hive,
    needs_replay,
)
from rehost_payload.formats.hive_log import Replayed, bad_bin, replay
from rehost_payload.formats.hive_new import minimal_hive

__all__ = [
    "BIG_DATA_SEGMENT",
    "REG_BINARY",
    "REG_DWORD",
    "REG_DWORD_BIG_ENDIAN",
    "REG_EXPAND_SZ",
    "REG_LINK",
    "REG_MULTI_SZ",
    "REG_NONE",
    "REG_QWORD",
    "REG_SZ",
    "CreateKey",
    "DeleteKey",
    "DeleteValue",
    "Hive",
    "HiveEdit",
    "Key",
    "Replayed",
    "SetValue",
    "Value",
    "bad_bin",
    "decode_string",
    "decode_strings",
    "encode_string",
    "encode_strings",
    "fold",
    "is_hive",
    "minimal_hive",
    "needs_replay",
    "replay",
]

REG_NONE = 0
REG_SZ = 1
REG_EXPAND_SZ = 2
REG_BINARY = 3
REG_DWORD = 4
REG_DWORD_BIG_ENDIAN = 5
REG_LINK = 6
REG_MULTI_SZ = 7
REG_QWORD = 11

BIG_DATA_SEGMENT = 16344  # larger value data is split into segments from version 1.4 on

_KEY_COMPRESSED_NAME = 0x20
_VALUE_COMPRESSED_NAME = 0x01
_SMALLEST_KEY_CELL = 80  # 4 bytes size and 76 bytes key node without a name


@dataclass(frozen=True)
class SetValue:
    """Sets a value; keys of ``key`` that do not exist are created. ``key`` starts below the root key."""

    key: tuple[str, ...]
    name: str  # "" is the key's default value
    type: int  # REG_SZ 1, REG_BINARY 3, REG_DWORD 4, REG_MULTI_SZ 7, ...
    data: bytes  # as stored: strings are UTF-16LE with their terminating NUL


@dataclass(frozen=True)
class DeleteValue:
    """Deletes a value. One that does not exist is no error: the wanted state is there."""

    key: tuple[str, ...]
    name: str


@dataclass(frozen=True)
class DeleteKey:
    """Deletes a key with everything below it. One that does not exist is no error."""

    key: tuple[str, ...]


@dataclass(frozen=True)
class CreateKey:
    """Creates a key and the missing ones above it."""

    key: tuple[str, ...]


HiveEdit = SetValue | DeleteValue | DeleteKey | CreateKey


class Hive:
    """A hive in memory, read-only."""

    def __init__(self, data: bytes, end: int) -> None:
        """Use `parse`. ``end`` is where the hive bins data ends in ``data``."""
        self._data = data
        self._end = end
        self.sequence1: int
        self.sequence2: int
        self.sequence1, self.sequence2, self._written = struct.unpack_from("<IIQ", data, 4)
        self.major: int
        self.minor: int
        self.major, self.minor = struct.unpack_from("<II", data, 20)
        self.header_intact = header_intact(data)
        self._children: dict[int, dict[str, int]] = {}
        self._root: int = struct.unpack_from("<I", data, 36)[0]

    @staticmethod
    def parse(data: bytes, *, lenient: bool = False) -> Hive:
        """Opens a hive; raises FormatError for what Windows would not accept as one.

        A dirty hive is accepted and says so in `dirty`. With ``lenient`` a wrong checksum of the base block and
        hive bins that are cut off are accepted too: for a look at a damaged hive, never for writing one.
        """
        if data[:4] != b"regf":
            raise FormatError("regf hive", "no regf signature", 0)
        if len(data) < BASE_BLOCK_SIZE:
            raise FormatError("regf hive", f"{len(data)} bytes are too few for a base block", 0)
        if not lenient and not header_intact(data):
            raise FormatError("regf hive", "the base block's checksum is wrong", 508)
        major, minor, file_type, file_format = struct.unpack_from("<IIII", data, 20)
        if major != 1 or not 3 <= minor <= 6:
            raise FormatError("regf hive", f"version {major}.{minor} is not supported", 20)
        if file_type != 0 or file_format != 1:
            raise FormatError(
                "regf hive", f"file type {file_type}, format {file_format}: not a primary file", 28
            )
        (size,) = struct.unpack_from("<I", data, 40)
        if size == 0 or size % PAGE_SIZE:
            raise FormatError("regf hive", f"hive bins data size {size:#x} is no multiple of 4096", 40)
        end = BASE_BLOCK_SIZE + size
        if end > len(data):
            if not lenient:
                raise FormatError("regf hive", f"truncated: {len(data)} bytes of {end}", len(data))
            end = len(data)
        if data[BASE_BLOCK_SIZE : BASE_BLOCK_SIZE + 4] != b"hbin":
            raise FormatError("regf hive", "no hive bin follows the base block", BASE_BLOCK_SIZE)
        hive = Hive(data, end)
        _ = hive.root  # a root key that cannot be read makes the whole file useless
        return hive

    @property
    def size(self) -> int:
        """Bytes of base block and hive bins, without padding behind them."""
        return self._end

    @property
    def dirty(self) -> bool:
        """A write was not finished: what this shows may lack changes that are in the logs."""
        return self.sequence1 != self.sequence2

    @property
    def last_written(self) -> datetime | None:
        """When the hive was written; Windows 8.1 and later leave the time of its creation."""
        return filetime(self._written)

    @property
    def root(self) -> Key:
        return Key(self, self._root, None)

    def key(self, name: str) -> Key | None:
        """The key below the root, or the path of keys with backslashes between them."""
        return self.find(*(part for part in name.split("\\") if part))

    def find(self, *path: str) -> Key | None:
        """The key at this path below the root key, None where it does not exist. Case does not matter."""
        key = self.root
        for name in path:
            child = key.subkey(name)
            if child is None:
                return None
            key = child
        return key

    def _cell(self, offset: int, what: str) -> tuple[int, int]:
        """Start of the cell's data in the file, and its length."""
        at = BASE_BLOCK_SIZE + offset
        if offset % 8 or offset < 32 or at + 8 > self._end:
            raise FormatError(what, f"cell offset {offset:#x} is outside of the hive bins", None)
        (size,) = struct.unpack_from("<i", self._data, at)
        if size >= 0:
            raise FormatError(what, "the cell is not in use", at)
        if size > -8 or at - size > self._end:
            raise FormatError(what, f"cell of {-size} bytes does not fit", at)
        return at + 4, -size - 4

    def _bytes(self, offset: int, length: int, what: str) -> bytes:
        at, room = self._cell(offset, what)
        if length > room:
            raise FormatError(what, f"{length} bytes in a cell of {room}", at)
        return self._data[at : at + length]

    def _name(self, at: int, length: int, room: int, compressed: bool, what: str) -> str:
        if length > room:
            raise FormatError(what, f"name of {length} bytes in a cell with room for {room}", at)
        raw = self._data[at : at + length]
        if compressed:
            return raw.decode("latin-1")
        if length % 2:
            raise FormatError(what, "UTF-16 name of odd length", at)
        # a name with a lone surrogate cannot be printed or written as JSON, hence "replace"
        return raw.decode("utf-16-le", "replace")

    def _subkey_offsets(self, offset: int, limit: int) -> Iterator[int]:
        """Offsets of the key nodes in a subkey list (lf, lh, li or ri), ``limit`` of them at the most."""
        given = 0
        for leaf in self._leaves(offset):
            at, room = self._cell(leaf, "subkey list")
            signature, count = struct.unpack_from("<2sH", self._data, at)
            step = {b"lf": 8, b"lh": 8, b"li": 4}.get(signature)
            if step is None:
                raise FormatError("subkey list", f"signature {signature!r}", at)
            if 4 + count * step > room:
                raise FormatError("subkey list", f"{count} elements in a cell of {room} bytes", at)
            given += count
            if given > limit:
                raise FormatError("subkey list", f"more than the {limit} subkeys of its key", at)
            for i in range(count):
                yield struct.unpack_from("<I", self._data, at + 4 + i * step)[0]

    def _leaves(self, offset: int) -> Iterator[int]:
        at, room = self._cell(offset, "subkey list")
        signature, count = struct.unpack_from("<2sH", self._data, at)
        if signature != b"ri":
            yield offset
            return
        if 4 + count * 4 > room:
            raise FormatError("subkey list", f"{count} elements in a cell of {room} bytes", at)
        yield from struct.unpack_from(f"<{count}I", self._data, at + 4)

    def _value_data(self, offset: int, length: int) -> bytes:
        at, room = self._cell(offset, "value data")
        if length > BIG_DATA_SEGMENT and self.minor > 3 and self._data[at : at + 2] == b"db":
            (count, segments) = struct.unpack_from("<HI", self._data, at + 2)
            if count != -(-length // BIG_DATA_SEGMENT):
                raise FormatError("big data", f"{count} segments for {length} bytes", at)
            offsets = struct.unpack(f"<{count}I", self._bytes(segments, 4 * count, "big data"))
            parts = []
            for i, segment in enumerate(offsets):
                wanted = min(BIG_DATA_SEGMENT, length - i * BIG_DATA_SEGMENT)
                parts.append(self._bytes(segment, wanted, "big data"))
            return b"".join(parts)
        if length > room:
            raise FormatError("value data", f"{length} bytes in a cell of {room}", at)
        return self._data[at : at + length]


class Key:
    """A key node. Cheap to make: nothing below it is read before it is asked for."""

    __slots__ = ("_at", "_hive", "_offset", "name")

    def __init__(self, hive: Hive, offset: int, parent: int | None) -> None:
        """Use `Hive.root` and `subkey`. ``parent`` is the cell offset of the key this was found under."""
        at, room = hive._cell(offset, "key")
        if room < 76 or hive._data[at : at + 2] != b"nk":
            raise FormatError("key", "no key node where one is expected", at)
        flags, above, name_length = struct.unpack_from("<2xH12xI52xH", hive._data, at)
        if parent is not None and (above != parent or offset == hive._root):
            raise FormatError("key", "listed under a key that is not its parent", at)
        self._hive = hive
        self._offset = offset
        self._at = at
        self.name = hive._name(at + 76, name_length, room - 76, bool(flags & _KEY_COMPRESSED_NAME), "key")

    def __repr__(self) -> str:
        return f"<Key {self.name!r}>"

    @property
    def cell(self) -> int:
        """Offset of the key node's cell in the hive bins data."""
        return self._offset

    def cells(self) -> set[int]:
        """The cells that make this key: its node, lists, values and their data; not the security descriptor, not keys
        below it."""
        hive = self._hive
        found = {self._offset}
        count, subkeys, values, listed = struct.unpack_from("<I4xI4xII", hive._data, self._at + 20)
        if count:
            found |= {subkeys, *hive._leaves(subkeys)}
        if values:
            found.add(listed)
            for (offset,) in struct.iter_unpack("<I", hive._bytes(listed, 4 * values, "value list")):
                found.add(offset)
                value = Value(hive, offset)
                if not value._size & 0x80000000 and value.size:
                    found.add(value._where)
        return found

    @property
    def last_written(self) -> datetime | None:
        return filetime(int.from_bytes(self._hive._data[self._at + 4 : self._at + 12], "little"))

    def subkeys(self) -> Iterator[Key]:
        """The keys below this one, in the order of the list (Windows sorts them by name)."""
        hive = self._hive
        count, subkeys = struct.unpack_from("<I4xI", hive._data, self._at + 20)
        if count == 0:
            return
        if count > len(hive._data) // _SMALLEST_KEY_CELL:
            raise FormatError("key", f"{count} subkeys in a hive of {len(hive._data)} bytes", self._at)
        seen: set[int] = set()
        for offset in hive._subkey_offsets(subkeys, count):
            if offset in seen:
                raise FormatError("subkey list", f"the key at {offset:#x} is listed twice", self._at)
            seen.add(offset)
            yield Key(hive, offset, self._offset)

    def subkey(self, name: str) -> Key | None:
        """The key of this name directly below; case does not matter."""
        children = self._hive._children.get(self._offset)
        if children is None:
            children = {}
            for key in self.subkeys():
                children.setdefault(fold(key.name), key._offset)
            self._hive._children[self._offset] = children
        offset = children.get(fold(name))
        return None if offset is None else Key(self._hive, offset, self._offset)

    def values(self) -> Iterator[Value]:
        """The values of this key in their stored order."""
        hive = self._hive
        count, values = struct.unpack_from("<II", hive._data, self._at + 36)
        if count == 0:
            return
        listed = hive._bytes(values, 4 * count, "value list")
        seen: set[int] = set()
        for (offset,) in struct.iter_unpack("<I", listed):
            if offset in seen:
                raise FormatError("value list", f"the value at {offset:#x} is listed twice", self._at)
            seen.add(offset)
            yield Value(hive, offset)

    def value(self, name: str) -> Value | None:
        """The value of this name ("" is the default value); case does not matter."""
        wanted = fold(name)
        for value in self.values():
            if fold(value.name) == wanted:
                return value
        return None


class Value:
    """A value. ``type`` is the registry type (REG_SZ 1, ...), ``data`` the bytes as stored."""

    __slots__ = ("_hive", "_size", "_where", "name", "type")

    def __init__(self, hive: Hive, offset: int) -> None:
        """Use `Key.values`."""
        at, room = hive._cell(offset, "value")
        if room < 20 or hive._data[at : at + 2] != b"vk":
            raise FormatError("value", "no value where one is expected", at)
        head: tuple[int, int, int, int, int] = struct.unpack_from("<2xHIIIH", hive._data, at)
        name_length, self._size, data_offset, self.type, flags = head
        self.name: str = hive._name(
            at + 20, name_length, room - 20, bool(flags & _VALUE_COMPRESSED_NAME), "value"
        )
        self._hive = hive
        # data of up to 4 bytes lies in the offset field itself, which the top bit of the size says
        self._where: int = at + 8 if self._size & 0x80000000 else data_offset

    def __repr__(self) -> str:
        return f"<Value {self.name!r} type {self.type}>"

    @property
    def size(self) -> int:
        """Length of the data in bytes, as the hive says it; nothing is read for it."""
        return self._size & 0x7FFFFFFF

    @property
    def data(self) -> bytes:
        size = self.size
        if self._size & 0x80000000:
            if size > 4:
                raise FormatError("value", f"{size} bytes in the place of an offset", self._where)
            return self._hive._data[self._where : self._where + size]
        return self._hive._value_data(self._where, size) if size else b""

    def as_string(self) -> str:
        """A string value up to its first NUL; FormatError where the type is not a string's."""
        if self.type not in (REG_SZ, REG_EXPAND_SZ, REG_LINK):
            raise FormatError("value", f"{self.name!r} has type {self.type}, not a string")
        return decode_string(self.data)

    def as_strings(self) -> tuple[str, ...]:
        """A list of strings. A single string counts as a list of one: some writers store it so."""
        if self.type == REG_MULTI_SZ:
            return decode_strings(self.data)
        return (self.as_string(),)

    def as_int(self) -> int:
        """A DWORD or QWORD value; FormatError where type or length are not a number's."""
        data = self.data
        if (self.type, len(data)) in ((REG_DWORD, 4), (REG_QWORD, 8)):
            return int.from_bytes(data, "little")
        if (self.type, len(data)) == (REG_DWORD_BIG_ENDIAN, 4):
            return int.from_bytes(data, "big")
        raise FormatError("value", f"{self.name!r} has type {self.type} and {len(data)} bytes, not a number")
