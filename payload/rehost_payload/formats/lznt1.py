"""LZNT1 decompression, after [MS-XCA] section 2.5: what NTFS uses for compressed files."""

from __future__ import annotations

import struct

from .errors import FormatError

_CHUNK = 4096


def decompress(data: bytes, size: int) -> bytes:
    """The first ``size`` bytes of what ``data`` holds; what the stream does not provide is zero.

    Each chunk makes 4096 bytes (zeros where it makes fewer, as NTFS reads it). Raises FormatError for a token
    that refers to before its chunk, or a chunk that does not fit.
    """
    out = bytearray()
    position = 0
    while len(out) < size and position + 2 <= len(data):
        (header,) = struct.unpack_from("<H", data, position)
        if header == 0:
            break
        end = position + 2 + (header & 0xFFF) + 1
        if end > len(data):
            raise FormatError("LZNT1 chunk", "it is longer than the data", position)
        start = len(out)
        if header & 0x8000:
            _chunk(data, position + 2, end, out)
        else:
            out += data[position + 2 : end]
        if len(out) - start > _CHUNK:
            raise FormatError("LZNT1 chunk", "it makes more than 4096 bytes", position)
        out += bytes(_CHUNK - (len(out) - start))
        position = end
    return bytes(out[:size]).ljust(size, b"\0")


def _chunk(data: bytes, position: int, end: int, out: bytearray) -> None:
    start = len(out)
    while position < end:
        flags = data[position]
        position += 1
        for bit in range(8):
            if position >= end:
                return
            if not flags >> bit & 1:
                out.append(data[position])
                position += 1
                continue
            if position + 2 > end:
                raise FormatError("LZNT1 chunk", "a token is cut off", position)
            token = data[position] | data[position + 1] << 8
            position += 2
            done = len(out) - start
            # the more of the chunk there is, the more bits of the token are displacement
            shift = 12 - max(0, (done - 1).bit_length() - 4) if done else 12
            distance = (token >> shift) + 1
            length = (token & ((1 << shift) - 1)) + 3
            if distance > done:
                raise FormatError("LZNT1 chunk", "a token refers to before the chunk", position - 2)
            if done + length > _CHUNK:
                raise FormatError("LZNT1 chunk", "it makes more than 4096 bytes", position - 2)
            if distance >= length:
                begin = len(out) - distance
                out += out[begin : begin + length]
            else:
                pattern = bytes(out[-distance:])
                out += (pattern * (length // distance + 1))[:length]
