"""CRC-32C (Castagnoli), the checksum of VHDX. The standard library has CRC-32 only.

About 10 MB/s: enough for headers and tables, which are all that VHDX protects.
"""

from __future__ import annotations


def _table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_TABLE = _table()


def crc32c(data: bytes, start: int = 0) -> int:
    """The checksum of ``data``; ``start`` is the result for what comes before them."""
    crc, table = start ^ 0xFFFFFFFF, _TABLE
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def crc32c_without(data: bytes, at: int) -> int:
    """The checksum of a structure whose own checksum field of 4 bytes at ``at`` counts as zeros."""
    return crc32c(data[at + 4 :], crc32c(bytes(4), crc32c(data[:at])))
