"""Registry hives for tests: made by hivex from an empty one, read by hivex, made dirty with a log beside them.

Nothing here is shared with the product's own readers and writers. The layout follows the public description of
the regf format, version 1.3, and of its incremental logs ("HvLE").
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hivex  # type: ignore[import-untyped]

REG_SZ, REG_EXPAND_SZ, REG_BINARY, REG_DWORD, REG_MULTI_SZ = 1, 2, 3, 4, 7
Value = tuple[int, bytes]
_PAGE = 4096
_NONE = 0xFFFFFFFF
_HASH_SEED = 0x82EF4D887A4E55C5
_MASK = 0xFFFFFFFF


def sz(text: str) -> Value:
    return REG_SZ, text.encode("utf-16-le") + b"\0\0"


def expand_sz(text: str) -> Value:
    return REG_EXPAND_SZ, sz(text)[1]


def multi_sz(*texts: str) -> Value:
    return REG_MULTI_SZ, "".join(t + "\0" for t in texts).encode("utf-16-le") + b"\0\0"


def dword(number: int) -> Value:
    return REG_DWORD, struct.pack("<I", number)


def binary(data: bytes) -> Value:
    return REG_BINARY, data


# --- making


def _checksum(block: bytes) -> int:
    total = 0
    for (word,) in struct.iter_unpack("<I", block[:508]):
        total ^= word
    return {0: 1, _NONE: 0xFFFFFFFE}.get(total, total)


def _header(sequence: tuple[int, int], size: int, kind: int = 0, name: str = "") -> bytes:
    block = bytearray(_PAGE)
    struct.pack_into("<4sIIQIIIIIII", block, 0, b"regf", *sequence, 0, 1, 3, kind, 1, 32, size, 1)
    encoded = name.encode("utf-16-le")[:62]
    block[48 : 48 + len(encoded)] = encoded
    struct.pack_into("<I", block, 508, _checksum(bytes(block)))
    return bytes(block)


def empty_hive(name: str = "") -> bytes:
    """A root key, its security descriptor (full access for the system account) and free space."""
    root_name = b"ROOT"
    nk_size = -(-(4 + 76 + len(root_name)) // 8) * 8
    sk_at = 32 + nk_size
    nk = struct.pack("<2sHQIIIIIIIII", b"nk", 0x2C, 0, 0, 0, 0, 0, _NONE, _NONE, 0, _NONE, sk_at)
    nk += struct.pack("<IIIIIIHH", _NONE, 0, 0, 0, 0, 0, len(root_name), 0) + root_name
    system = bytes.fromhex("010100000000000512000000")  # S-1-5-18
    ace = struct.pack("<BBHI", 0, 2, 8 + len(system), 0xF003F) + system
    acl = struct.pack("<BBHHH", 2, 0, 8 + len(ace), 1, 0) + ace
    owner = 20 + len(acl)
    descriptor = struct.pack("<BBHIIII", 1, 0, 0x8004, owner, owner, 0, 20) + acl + system
    sk = struct.pack("<2sHIIII", b"sk", 0, sk_at, sk_at, 1, len(descriptor)) + descriptor
    sk_size = -(-(4 + len(sk)) // 8) * 8
    page = bytearray(_PAGE)
    struct.pack_into("<4sIIIIQI", page, 0, b"hbin", 0, _PAGE, 0, 0, 0, 0)
    struct.pack_into("<i", page, 32, -nk_size)
    page[36 : 36 + len(nk)] = nk
    struct.pack_into("<i", page, sk_at, -sk_size)
    page[sk_at + 4 : sk_at + 4 + len(sk)] = sk
    free = sk_at + sk_size
    struct.pack_into("<i", page, free, _PAGE - free)
    return _header((1, 1), _PAGE, name=name) + bytes(page)


@contextmanager
def opened(data: bytes, *, write: bool = False) -> Iterator[Any]:
    """hivex on a copy of ``data``."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        yield hivex.Hivex(file.name, write=write)


def edited(data: bytes, change: Callable[[Any], None]) -> bytes:
    """The hive after ``change`` (which gets a hivex handle) and a commit."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        handle = hivex.Hivex(file.name, write=True)
        change(handle)
        handle.commit(None)
        return Path(file.name).read_bytes()


def key(handle: Any, path: str, *, create: bool = False) -> int | None:
    node: int = handle.root()
    for name in path.split("\\"):
        child = handle.node_get_child(node, name)
        if child is None:
            if not create:
                return None
            child = handle.node_add_child(node, name)
        node = child
    return node


def set_value(handle: Any, path: str, name: str, value: Value) -> None:
    node = key(handle, path, create=True)
    handle.node_set_value(node, {"key": name, "t": value[0], "value": value[1]})


def make_hive(keys: Mapping[str, Mapping[str, Value]], base: bytes | None = None, name: str = "") -> bytes:
    """A hive with these keys ("A\\B") and values; the root key's own path cannot be given."""

    def fill(handle: Any) -> None:
        for path, values in keys.items():
            key(handle, path, create=True)
            for value_name, value in values.items():
                set_value(handle, path, value_name, value)

    return edited(base or empty_hive(name), fill)


# --- reading


def values(data: bytes) -> dict[tuple[str, str], Value]:
    """Every value of a hive by (key path, value name), as hivex sees it. Keys without values: name ""."""
    result: dict[tuple[str, str], Value] = {}

    def walk(handle: Any, node: int, path: str) -> None:
        for item in handle.node_values(node):
            kind, content = handle.value_value(item)
            result[path, handle.value_key(item)] = (kind, content)
        for child in handle.node_children(node):
            child_path = f"{path}\\{handle.node_name(child)}".lstrip("\\")
            result.setdefault((child_path, ""), (0, b""))
            walk(handle, child, child_path)

    with opened(data) as handle:
        walk(handle, handle.root(), "")
    return result


def sequences(data: bytes) -> tuple[int, int]:
    first, second = struct.unpack_from("<II", data, 4)
    return first, second


def is_clean(data: bytes) -> bool:
    """Whether the header is valid and both sequence numbers are the same."""
    return (
        data[:4] == b"regf"
        and len(set(sequences(data))) == 1
        and struct.unpack_from("<I", data, 508)[0] == _checksum(data[:512])
    )


# --- dirty hives


def _hash(data: bytes) -> int:
    """Marvin32 with the seed of the registry's logs."""
    low, high = _HASH_SEED & _MASK, _HASH_SEED >> 32

    def rotate(value: int, count: int) -> int:
        return ((value << count) | (value >> (32 - count))) & _MASK

    def mix(word: int) -> None:
        nonlocal low, high
        low = (low + word) & _MASK
        high ^= low
        low = (rotate(low, 20) + high) & _MASK
        high = rotate(high, 9) ^ low
        low = (rotate(low, 27) + high) & _MASK
        high = rotate(high, 19)

    whole = len(data) // 4 * 4
    for (word,) in struct.iter_unpack("<I", data[:whole]):
        mix(word)
    mix(int.from_bytes(data[whole:] + b"\x80", "little"))
    mix(0)
    return high << 32 | low


def log_entry(sequence: int, size: int, pages: Mapping[int, bytes]) -> bytes:
    """One incremental log entry. ``size`` is that of the hive bins, ``pages`` are keyed by offset into them."""
    body = b"".join(struct.pack("<II", at, len(data)) for at, data in pages.items()) + b"".join(
        pages.values()
    )
    length = -(-(40 + len(body)) // 512) * 512
    body = body.ljust(length - 40, b"\0")
    start = struct.pack("<4sIIIIIQ", b"HvLE", length, 0, sequence, size, len(pages), _hash(body))
    return start + struct.pack("<Q", _hash(start)) + body


def make_dirty(old: bytes, new: bytes) -> tuple[bytes, bytes]:
    """What a crash leaves of a hive that was being changed from ``old`` to ``new``: (hive, log).

    The hive still has the old contents and says by its sequence numbers that it needs its log; only the log
    has the new ones. Windows calls the log of a boot store BCD.LOG, those of other hives .LOG1 and .LOG2.
    """
    sequence = sequences(old)[1] + 1
    old_bins, new_bins = old[_PAGE:], new[_PAGE:]
    old_size, size = struct.unpack_from("<I", old, 40)[0], struct.unpack_from("<I", new, 40)[0]
    pages = {
        at: new_bins[at : at + _PAGE]
        for at in range(0, size, _PAGE)
        if at >= old_size or new_bins[at : at + _PAGE] != old_bins[at : at + _PAGE]
    }
    header = bytearray(old[:_PAGE])
    struct.pack_into("<II", header, 4, sequence, sequence - 1)
    struct.pack_into("<I", header, 508, _checksum(bytes(header[:512])))
    log_header = bytearray(old[:512])
    struct.pack_into("<II", log_header, 4, sequence, sequence)
    struct.pack_into("<I", log_header, 28, 6)
    struct.pack_into("<I", log_header, 40, size)
    struct.pack_into("<I", log_header, 508, _checksum(bytes(log_header)))
    return bytes(header) + old[_PAGE:], bytes(log_header) + log_entry(sequence, size, pages)
