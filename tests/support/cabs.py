"""Cabinets, made by code."""

from __future__ import annotations

import struct


def stored_cab(files: dict[str, bytes]) -> bytes:
    """A cabinet without compression ([MS-CAB])."""
    body = b"".join(files.values())
    entries, at = b"", 0
    for name, data in files.items():
        entries += struct.pack("<IIHHHH", len(data), at, 0, 0x5A21, 0, 0x20) + name.encode() + b"\0"
        at += len(data)
    entries_at = 36 + 8
    data_at = entries_at + len(entries)
    sizes = struct.pack("<HH", len(body), len(body))
    block = struct.pack("<I", _cab_sum(sizes, _cab_sum(body, 0))) + sizes + body
    head = b"MSCF" + struct.pack(
        "<IIIIIBBHHHHH", 0, data_at + len(block), 0, entries_at, 0, 3, 1, 1, len(files), 0, 0, 0
    )
    return head + struct.pack("<IHH", data_at, 1, 0) + entries + block


def _cab_sum(data: bytes, seed: int) -> int:
    whole = len(data) // 4 * 4
    for i in range(0, whole, 4):
        seed ^= int.from_bytes(data[i : i + 4], "little")
    return seed ^ int.from_bytes(data[whole:], "big")
