"""Writes VHD files for tests."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from uuid import UUID

SECTOR = 512
TABLE = 1536
BLOCK = 2 << 20
FIRST = UUID("0d0d0d0d-0000-4000-8000-000000000001")
SECOND = UUID("0d0d0d0d-0000-4000-8000-000000000002")
FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4


def sealed(data: bytes, at: int) -> bytes:
    blank = bytearray(data)
    blank[at : at + 4] = bytes(4)
    blank[at : at + 4] = struct.pack(">I", ~sum(blank) & 0xFFFFFFFF)
    return bytes(blank)


def footer(kind: int, size: int, guid: UUID = FIRST, stamp: int = 1000, saved: bool = False) -> bytes:
    at = (1 << 64) - 1 if kind == FIXED else 512
    raw = struct.pack(
        ">8sIIQI4sI4sQQIII16sB",
        b"conectix", 2, 0x10000, at, stamp, b"test", 0xA0000, b"Wi2k", size, size, 0, kind, 0, guid.bytes_le, saved,
    )  # fmt: skip
    return sealed(raw.ljust(512, b"\0"), 64)


def fixed(size: int = 1 << 20, guid: UUID = FIRST) -> bytes:
    return bytes(size) + footer(FIXED, size, guid)


def sparse(
    *,
    size: int = 16 << 20,
    blocks: Mapping[int, int] = {1: 8},
    guid: UUID = FIRST,
    parent: UUID | None = None,
    parent_stamp: int = 0,
    paths: Mapping[str, bytes] = {},
    name: str = "",
    length: int = 4096 + 512 + BLOCK,
    saved: bool = False,
) -> bytes:
    """A dynamic or differencing disk; ``blocks`` gives the sector of each allocated block."""
    kind = DYNAMIC if parent is None else DIFFERENCING
    entries = -(-size // BLOCK)
    table = b"".join(struct.pack(">I", blocks.get(i, 0xFFFFFFFF)) for i in range(entries))
    locators, texts, at = b"", b"", 2560
    for code, text in paths.items():
        locators += struct.pack(">4sIIIQ", code.encode(), 512, len(text), 0, at)
        texts += text.ljust(512, b"\0")
        at += 512
    head = struct.pack(
        ">8sQQIIII16sII512s",
        b"cxsparse", (1 << 64) - 1, TABLE, 0x10000, entries, BLOCK, 0,
        parent.bytes_le if parent else bytes(16), parent_stamp, 0, name.encode("utf-16-be"),
    )  # fmt: skip
    end = footer(kind, size, guid, saved=saved)
    data = end + sealed((head + locators).ljust(1024, b"\0"), 36) + table.ljust(1024, b"\xff") + texts
    return data.ljust(length, b"\0") + end
