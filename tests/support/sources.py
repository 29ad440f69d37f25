"""Byte sources for tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PatchedSource:
    """Bytes with a few of them replaced, without a copy of the whole. Keeps account of what was asked for.

    Fails the test on a read that starts outside, as no reader should do.
    """

    data: bytes
    patches: Mapping[int, bytes]

    @property
    def size(self) -> int:
        return len(self.data)

    def read_at(self, offset: int, length: int) -> bytes:
        assert offset >= 0
        assert 0 <= length <= 64 << 20, "a runaway read"
        piece = bytearray(self.data[offset : offset + length])
        for place, junk in self.patches.items():
            for index, byte in enumerate(junk):
                at = place + index - offset
                if 0 <= at < len(piece):
                    piece[at] = byte
        return bytes(piece)
