"""What every part of the registry hive code shares: the base block and the encoding of strings.

Specification: "Windows registry file format specification" (M. Suhanov), "Base block".
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

BASE_BLOCK_SIZE = 4096
PAGE_SIZE = 4096  # hive bins come in multiples of it
NOWHERE = 0xFFFFFFFF  # a cell offset that points to nothing


def fold(name: str) -> str:
    """A key or value name as it is compared: character by character in upper case, as Windows does it."""
    if name.isascii():
        return name.upper()
    # str.upper makes "SS" of "ß"; Windows maps one character to one character
    return "".join(u if len(u := c.upper()) == 1 else c for c in name)


def checksum(base_block: bytes) -> int:
    """XOR-32 of the first 508 bytes of a base block; 0 and 0xFFFFFFFF never occur as a result."""
    value = 0
    for word in struct.unpack_from("<127I", base_block):
        value ^= word
    if value == 0xFFFFFFFF:
        return 0xFFFFFFFE
    return value or 1


def is_hive(data: bytes) -> bool:
    """Whether this begins like a registry hive: the signature and room for a base block."""
    return len(data) >= BASE_BLOCK_SIZE and data[:4] == b"regf"


def header_intact(data: bytes) -> bool:
    """Whether the base block's checksum is right."""
    return is_hive(data) and checksum(data) == int.from_bytes(data[508:512], "little")


def needs_replay(data: bytes) -> bool:
    """Whether a hive is dirty: its base block is damaged or a write to it was not finished."""
    return is_hive(data) and (not header_intact(data) or data[4:8] != data[8:12])


UNIX_EPOCH = 116444736000000000
"""1970-01-01 as a FILETIME."""


def filetime(value: int) -> datetime | None:
    """A FILETIME (100 ns since 1601, UTC); None where it is zero or past the year 9999."""
    if value == 0:
        return None
    try:
        return datetime(1601, 1, 1, tzinfo=UTC) + timedelta(microseconds=value // 10)
    except OverflowError:
        return None


def decode_string(data: bytes) -> str:
    """UTF-16LE up to the first NUL; an odd last byte is ignored, what is no UTF-16 becomes U+FFFD."""
    return data[: len(data) & ~1].decode("utf-16-le", "replace").split("\0", 1)[0]


def decode_strings(data: bytes) -> tuple[str, ...]:
    """NUL-terminated UTF-16LE strings up to the empty one that ends the list."""
    strings = []
    for text in data[: len(data) & ~1].decode("utf-16-le", "replace").split("\0"):
        if not text:
            break
        strings.append(text)
    return tuple(strings)


def encode_string(text: str) -> bytes:
    """As REG_SZ stores it: UTF-16LE with a terminating NUL."""
    return (text + "\0").encode("utf-16-le")


def encode_strings(texts: Sequence[str]) -> bytes:
    """As REG_MULTI_SZ stores it: each string with its NUL, and one more NUL at the end."""
    return ("".join(text + "\0" for text in texts) + "\0").encode("utf-16-le")
