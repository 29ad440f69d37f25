"""Canonical Huffman codes as one look-up table."""

from __future__ import annotations

from collections.abc import Sequence


class BadCode(ValueError):
    """The lengths are not those of a prefix code."""


def decode_table(lengths: Sequence[int], longest: int) -> tuple[list[int], int]:
    """A table over the next ``bits`` bits whose entries are ``symbol << 5 | length``, and ``bits`` (1 to ``longest``).

    An entry of 0 is a code that no symbol has. No symbol at all is a valid, empty code. Raises BadCode where the
    lengths claim more codes than there are.
    """
    bits = max(max(lengths, default=0), 1)
    if bits > longest:
        raise BadCode(f"a code of {bits} bits, {longest} at most")
    by_length: list[list[int]] = [[] for _ in range(bits + 1)]
    for symbol, length in enumerate(lengths):
        by_length[length].append(symbol)
    table: list[int] = []
    for length in range(1, bits + 1):
        repeat = 1 << (bits - length)
        for symbol in by_length[length]:
            table += [symbol << 5 | length] * repeat
        if len(table) > 1 << bits:
            raise BadCode("more codes than fit")
    table += [0] * ((1 << bits) - len(table))
    return table, bits
