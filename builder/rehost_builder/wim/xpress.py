"""Decodes XPRESS with Huffman codes, chunk by chunk, after [MS-XCA] 2.2 (LZ77+Huffman)."""

from __future__ import annotations

import struct

from rehost_builder.wim.huffman import BadCode, decode_table
from rehost_payload.formats.errors import FormatError

WHAT = "XPRESS chunk"
_LARGEST = 65536


def decompress(data: bytes, size: int) -> bytes:
    """The ``size`` bytes that the chunk ``data`` stands for; FormatError for anything else."""
    if not 0 < size <= _LARGEST:
        raise FormatError(WHAT, f"a chunk of {size} bytes")
    if len(data) < 256:
        raise FormatError(WHAT, "no room for its table of codes")
    try:
        return _decode(data, size)
    except (IndexError, BadCode, struct.error) as e:
        raise FormatError(WHAT, str(e) or "damaged") from None


def _decode(data: bytes, size: int) -> bytes:
    lengths = [nibble for byte in data[:256] for nibble in (byte & 15, byte >> 4)]
    table, bits = decode_table(lengths, 15)
    mask = (1 << bits) - 1
    padded = data + bytes(8)
    at = 256  # of the next byte to be taken
    buffer, have = 0, 0
    out = bytearray()
    while len(out) < size:
        # Where single bytes lie between the words depends on how far ahead the words are read: up to 16 bits.
        if have < 16:
            buffer = (buffer << 16 | padded[at] | padded[at + 1] << 8) & 0xFFFFFFFF
            at += 2
            have += 16
        entry = table[buffer >> (have - bits) & mask]
        if not entry:
            raise IndexError("a code that does not exist")
        have -= entry & 31
        symbol = entry >> 5
        if symbol < 256:
            out.append(symbol)
            continue
        if have < 16:
            buffer = (buffer << 16 | padded[at] | padded[at + 1] << 8) & 0xFFFFFFFF
            at += 2
            have += 16
        n, length = symbol >> 4 & 15, symbol & 15
        distance = 1 << n
        if n:
            have -= n
            distance |= buffer >> have & ((1 << n) - 1)
        if length == 15:
            length += padded[at]
            at += 1
            if length == 15 + 255:
                length = padded[at] | padded[at + 1] << 8
                at += 2
        length += 3
        done = len(out)
        if distance > done or done + length > size:
            raise IndexError("a match outside of the chunk")
        start = done - distance
        if distance >= length:
            out += out[start : start + length]
        else:
            out += (out[start:] * (length // distance + 1))[:length]
    return bytes(out)
