"""Decodes LZX as it is in WIM files: each chunk of 32 KiB on its own, with the x86 call translation undone.

Follows [MS-PATCH] 2 (LZX DELTA) in what WIM shares with it; different in WIM: a block begins with its type and one
bit for "32768 bytes", the history starts anew in each chunk, and calls are always translated as for a file of
12,000,000 bytes.
"""

from __future__ import annotations

import struct
from itertools import pairwise

from rehost_builder.wim.huffman import BadCode, decode_table
from rehost_payload.formats.errors import FormatError

WHAT = "LZX chunk"
CHUNK = 32768
_VERBATIM, _ALIGNED, _STORED = 1, 2, 3
_EXTRA = [0, 0, 0, 0, *(bits for bits in range(1, 14) for _ in (0, 1))]
"""Further bits of a distance, by its slot; a window of 32 KiB has 30 slots."""
_BASE = [-2]
for _bits in _EXTRA[:-1]:
    _BASE.append(_BASE[-1] + (1 << _bits))
_MAIN = 256 + 8 * len(_EXTRA)
_LENGTHS = 249
_FILE_SIZE = 12_000_000


def decompress(data: bytes, size: int) -> bytes:
    """The ``size`` bytes (at most 32768) that the chunk ``data`` stands for; FormatError for anything else."""
    if not 0 < size <= CHUNK:
        raise FormatError(WHAT, f"a chunk of {size} bytes")
    try:
        out = _decode(data, size)
    except (IndexError, BadCode, struct.error) as e:
        raise FormatError(WHAT, str(e) or "damaged") from None
    return _undo_calls(out)


def _decode(data: bytes, size: int) -> bytearray:
    count = (len(data) + 1) // 2
    end = count * 16
    # With the next two words beside each word, any 17 bits at any place are one look-up away.
    words: tuple[int, ...] = struct.unpack(f"<{count + 3}H", data.ljust(count * 2, b"\0") + bytes(6))
    wide = [a << 16 | b for a, b in pairwise(words)]
    at = 0  # in bits

    def take(n: int) -> int:
        nonlocal at
        value = wide[at >> 4] >> (32 - n - (at & 15)) & ((1 << n) - 1)
        at += n
        return value

    def take_lengths(lengths: list[int], start: int, stop: int) -> None:
        """Lengths of codes, each the difference to what it was in the block before."""
        nonlocal at
        table, bits = decode_table([take(4) for _ in range(20)], 15)

        def symbol() -> int:
            nonlocal at
            entry = table[wide[at >> 4] >> (32 - bits - (at & 15)) & ((1 << bits) - 1)]
            if not entry:
                raise IndexError("a code that does not exist")
            at += entry & 31
            return entry >> 5

        while start < stop:
            code = symbol()
            run = 1
            if code < 17:
                value = (lengths[start] - code) % 17
            elif code == 19:
                run = 4 + take(1)
                code = symbol()
                if code > 16:
                    raise IndexError("a run of runs")
                value = (lengths[start] - code) % 17
            else:
                run = 4 + take(4) if code == 17 else 20 + take(5)
                value = 0
            run = min(run, stop - start)
            lengths[start : start + run] = [value] * run
            start += run

    out = bytearray()
    recent = [1, 1, 1]
    main_lengths, length_lengths = [0] * _MAIN, [0] * _LENGTHS
    while len(out) < size:
        kind = take(3)
        length = CHUNK if take(1) else take(16)
        if not 0 < length <= size - len(out):
            raise IndexError(f"a block of {length} bytes")
        stop = len(out) + length
        if kind == _STORED:
            start = (at + 16) // 16 * 2  # at least one bit of filling
            recent = list(struct.unpack_from("<3I", data, start))
            body = data[start + 12 : start + 12 + length]
            if len(body) < length or 0 in recent:
                raise IndexError("a stored block is cut short")
            out += body
            at = (start + 12 + length + (length & 1)) * 8
            continue
        if kind not in (_VERBATIM, _ALIGNED):
            raise IndexError(f"a block of type {kind}")
        aligned, aligned_bits = [0], 0
        if kind == _ALIGNED:
            aligned, aligned_bits = decode_table([take(3) for _ in range(8)], 7)
        take_lengths(main_lengths, 0, 256)
        take_lengths(main_lengths, 256, _MAIN)
        take_lengths(length_lengths, 0, _LENGTHS)
        main, main_bits = decode_table(main_lengths, 16)
        lengths, lengths_bits = decode_table(length_lengths, 16)
        main_shift, main_mask = 32 - main_bits, (1 << main_bits) - 1
        done = len(out)
        # The inner loop: no calls, since this is where the time goes.
        while done < stop:
            entry = main[wide[at >> 4] >> (main_shift - (at & 15)) & main_mask]
            at += entry & 31
            symbol = entry >> 5
            if symbol < 256:
                if not entry:
                    raise IndexError("a code that does not exist")
                out.append(symbol)
                done += 1
                continue
            length = (symbol & 7) + 2
            if length == 9:
                entry = lengths[wide[at >> 4] >> (32 - lengths_bits - (at & 15)) & ((1 << lengths_bits) - 1)]
                if not entry:
                    raise IndexError("a code that does not exist")
                at += entry & 31
                length += entry >> 5
            slot = (symbol - 256) >> 3
            if slot < 3:
                distance = recent[slot]
                recent[slot] = recent[0]
                recent[0] = distance
            else:
                extra = _EXTRA[slot]
                distance = _BASE[slot]
                if aligned_bits and extra >= 3:
                    if extra > 3:
                        n = extra - 3
                        distance += (wide[at >> 4] >> (32 - n - (at & 15)) & ((1 << n) - 1)) << 3
                        at += n
                    entry = aligned[
                        wide[at >> 4] >> (32 - aligned_bits - (at & 15)) & ((1 << aligned_bits) - 1)
                    ]
                    if not entry:
                        raise IndexError("a code that does not exist")
                    at += entry & 31
                    distance += entry >> 5
                elif extra:
                    distance += wide[at >> 4] >> (32 - extra - (at & 15)) & ((1 << extra) - 1)
                    at += extra
                recent[2] = recent[1]
                recent[1] = recent[0]
                recent[0] = distance
            if distance > done or done + length > stop:
                raise IndexError("a match outside of the chunk")
            start = done - distance
            if distance >= length:
                out += out[start : start + length]
            else:
                out += (out[start:] * (length // distance + 1))[:length]
            done += length
        if at > end:
            raise IndexError("it is cut short")
    return out


def _undo_calls(out: bytearray) -> bytes:
    """Operands of x86 calls were made absolute by the compressor; the last ten bytes are left alone."""
    limit = len(out) - 10
    at = out.find(0xE8, 0, max(limit, 0))
    while at >= 0:
        (absolute,) = struct.unpack_from("<i", out, at + 1)
        if 0 <= absolute < _FILE_SIZE:
            struct.pack_into("<i", out, at + 1, absolute - at)
        elif -at <= absolute < 0:
            struct.pack_into("<i", out, at + 1, absolute + _FILE_SIZE)
        at = out.find(0xE8, at + 5, max(limit, 0))
    return bytes(out)
