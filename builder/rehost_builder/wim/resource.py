"""Takes resources out of a WIM file: plain, or a table of offsets and compressed chunks."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from typing import BinaryIO

from rehost_builder.wim import lzx, xpress
from rehost_builder.wim.header import SOLID, Compression, Header, Resource
from rehost_payload.formats.errors import FormatError

WHAT = "WIM resource"
_PIECE = 1 << 20
_DECODERS = {Compression.LZX: lzx.decompress, Compression.XPRESS: xpress.decompress}


def pieces(source: BinaryIO, header: Header, resource: Resource) -> Iterator[bytes]:
    """The content of a resource, piece by piece. FormatError for what is damaged or packed in another way."""
    if resource.flags & SOLID:
        raise FormatError(WHAT, "it is inside of a solid archive", resource.offset)
    if not resource.compressed:
        if resource.stored != resource.size:
            raise FormatError(WHAT, "two different lengths", resource.offset)
        yield from _plain(source, resource)
        return
    decode = _DECODERS.get(header.compression)
    if decode is None:
        raise FormatError(WHAT, f"compressed with {header.compression.value}", resource.offset)
    chunk = header.chunk_size
    if chunk < 4096 or chunk > 65536 or (header.compression is Compression.LZX and chunk != lzx.CHUNK):
        raise FormatError(WHAT, f"compressed in chunks of {chunk} bytes", resource.offset)
    count = -(-resource.size // chunk)
    width = 8 if resource.size > 0xFFFFFFFF else 4
    table = (count - 1) * width if count else 0
    if table > resource.stored:
        raise FormatError(WHAT, "no room for the table of its chunks", resource.offset)
    raw = _exactly(source, resource.offset, table)
    starts = [0, *struct.unpack(f"<{max(count - 1, 0)}{'Q' if width == 8 else 'I'}", raw)]
    starts.append(resource.stored - table)
    for number in range(count):
        size = min(chunk, resource.size - number * chunk)
        start, stop = starts[number], starts[number + 1]
        if not 0 < stop - start <= size:
            raise FormatError(WHAT, f"chunk {number} of {stop - start} bytes", resource.offset)
        data = _exactly(source, resource.offset + table + start, stop - start)
        yield data if len(data) == size else decode(data, size)


def read(source: BinaryIO, header: Header, resource: Resource, limit: int) -> bytes:
    """The whole content; FormatError also where it is more than ``limit`` bytes."""
    if resource.size > limit:
        raise FormatError(WHAT, f"{resource.size} bytes, more than {limit}", resource.offset)
    return b"".join(pieces(source, header, resource))


def sha1(source: BinaryIO, header: Header, resource: Resource) -> bytes:
    digest = hashlib.sha1(usedforsecurity=False)
    for piece in pieces(source, header, resource):
        digest.update(piece)
    return digest.digest()


def _plain(source: BinaryIO, resource: Resource) -> Iterator[bytes]:
    at, rest = resource.offset, resource.size
    while rest:
        data = _exactly(source, at, min(rest, _PIECE))
        yield data
        at += len(data)
        rest -= len(data)


def _exactly(source: BinaryIO, offset: int, length: int) -> bytes:
    """``length`` is bounded by what the file holds before anything is allocated for it."""
    end = source.seek(0, 2)
    if offset + length > end:
        raise FormatError(WHAT, f"the file ends at {end}", offset)
    source.seek(offset)
    data = source.read(length)
    if len(data) < length:
        raise FormatError(WHAT, "the file ends here", offset + len(data))
    return data
