"""A small block cache in front of a disk: metadata is read in many small pieces that lie close together."""

from __future__ import annotations

from collections import OrderedDict

from rehost_payload.formats.source import ByteSource

_BLOCK = 64 * 1024
_BLOCKS = 192  # 12 MiB for each disk
_DIRECT = 4 * _BLOCK


class CachedSource:
    """Reads through a cache of 64 KiB blocks; reads of 256 KiB and more pass it by. It never
    looks at the disk again for a block it has: use one for one survey, no longer."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

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
            piece = self._block(number)[inside : inside + length]
            if not piece:
                break
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _block(self, number: int) -> bytes:
        block = self._blocks.get(number)
        if block is None:
            block = self._source.read_at(number * _BLOCK, min(_BLOCK, self.size - number * _BLOCK))
            self._blocks[number] = block
            if len(self._blocks) > _BLOCKS:
                self._blocks.popitem(last=False)
        else:
            self._blocks.move_to_end(number)
        return block
