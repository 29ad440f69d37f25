"""The integrity table: SHA-1 of each 10 MiB between the header and the end of the look-up table."""

from __future__ import annotations

import hashlib
import struct
from typing import BinaryIO

from rehost_builder.wim.header import SIZE
from rehost_payload.formats.errors import FormatError

WHAT = "WIM integrity table"
CHUNK = 10 << 20
_HEAD = struct.Struct("<III")


def parse_integrity(raw: bytes) -> tuple[int, list[bytes]]:
    """Size of a chunk in bytes and the hashes; FormatError for anything else."""
    if len(raw) < _HEAD.size:
        raise FormatError(WHAT, "too short")
    size, count, chunk = _HEAD.unpack_from(raw)
    if size != len(raw) or size != _HEAD.size + 20 * count or not chunk:
        raise FormatError(WHAT, f"{count} hashes in {len(raw)} bytes")
    return chunk, [raw[at : at + 20] for at in range(_HEAD.size, size, 20)]


def make_integrity(source: BinaryIO, end: int, chunk: int = CHUNK, known: tuple[bytes, ...] = ()) -> bytes:
    """The table over bytes 208 to ``end`` of ``source``; ``known`` are hashes of its first chunks, which are not read."""
    hashes = list(known)
    at = SIZE + chunk * len(hashes)
    source.seek(at)
    while at < end:
        digest = hashlib.sha1(usedforsecurity=False)
        rest = min(chunk, end - at)
        at += rest
        while rest:
            data = source.read(min(rest, 1 << 20))
            if not data:
                raise FormatError(WHAT, "the file ends too early", source.tell())
            digest.update(data)
            rest -= len(data)
        hashes.append(digest.digest())
    return _HEAD.pack(_HEAD.size + 20 * len(hashes), len(hashes), chunk) + b"".join(hashes)


def check_integrity(source: BinaryIO, raw: bytes, end: int) -> list[int]:
    """Numbers of the chunks that are not what the table says."""
    chunk, hashes = parse_integrity(raw)
    fresh = parse_integrity(make_integrity(source, end, chunk))[1]
    if len(fresh) != len(hashes):
        raise FormatError(WHAT, f"{len(hashes)} hashes where {len(fresh)} belong")
    return [n for n, (a, b) in enumerate(zip(fresh, hashes, strict=True)) if a != b]
