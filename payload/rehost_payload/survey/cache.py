"""A small block cache in front of a disk: metadata is read in many small pieces that lie close together."""

from __future__ import annotations

from collections import OrderedDict

from rehost_payload.formats.source import ByteSource

_BLOCK = 64 * 1024
_BLOCKS = 192  # 12 MiB for each disk
_DIRECT = 4 * _BLOCK


class CachedSource:
    """Reads through a cache of 64 KiB blocks; reads of 256 KiB and more pass it by. It never
    looks at the disk again for a block it has: use one for one survey, no longer.

    Where a block cannot be read as a whole, only what is asked for is read: a bad sector costs no more than itself.
    """

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._failed: set[int] = set()

    @property
    def size(self) -> int:
        return self._source.size

    def read_at(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0:
            raise ValueError("offset and length must not be negative")
        length = max(0, min(length, self.size - offset))
        if length >= _DIRECT:
            return self._source.read_at(offset, length)
        pieces: list[bytes] = []
        while length > 0:
            number, inside = divmod(offset, _BLOCK)
            block = self._block(number)
            if block is None:
                piece = self._source.read_at(offset, min(length, _BLOCK - inside))
            else:
                piece = block[inside : inside + length]
            if not piece:
                break
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _block(self, number: int) -> bytes | None:
        """None where a part of it cannot be read. That is tried once: a failing disk takes seconds to say so."""
        if number in self._failed:
            return None
        block = self._blocks.get(number)
        if block is None:
            try:
                block = self._source.read_at(number * _BLOCK, min(_BLOCK, self.size - number * _BLOCK))
            except OSError:
                self._failed.add(number)
                return None
            self._blocks[number] = block
            if len(self._blocks) > _BLOCKS:
                self._blocks.popitem(last=False)
        else:
            self._blocks.move_to_end(number)
        return block
