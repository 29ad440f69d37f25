"""What goes into a file on the medium, without holding it: bytes, a file, or pieces of both in a row.

A boot.wim with our files in it is a new header, the middle of a file inside the user's ISO, and a tail. Described
that way it is written once, onto the medium, and never copied before.
"""

from __future__ import annotations

import hashlib
import io
import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast


@dataclass(frozen=True)
class Extent:
    """``length`` bytes of the file ``path`` from byte ``offset`` on."""

    path: Path
    offset: int
    length: int


@dataclass(frozen=True)
class Joined:
    parts: tuple[bytes | Extent, ...]


Content = bytes | Path | Extent | Joined


def size_of(content: Content) -> int:
    """Bytes. Raises OSError where a file is not there."""
    if isinstance(content, bytes):
        return len(content)
    if isinstance(content, Path):
        return content.stat().st_size
    if isinstance(content, Extent):
        return content.length
    return sum(size_of(part) for part in content.parts)


def open_content(content: Content) -> BinaryIO:
    """A readable, seekable file over the content; the caller closes it.

    A file that turns out shorter than announced reads as OSError, never as less.
    """
    if isinstance(content, bytes):
        return io.BytesIO(content)
    if isinstance(content, Path):
        return content.open("rb")
    parts = (content,) if isinstance(content, Extent) else content.parts
    return cast(BinaryIO, io.BufferedReader(_Parts(parts), buffer_size=1 << 16))


def read_content(content: Content) -> bytes:
    if isinstance(content, bytes):
        return content
    with open_content(content) as f:
        return f.read()


def digest_of(content: Content, algorithm: str = "sha256") -> tuple[bytes, int]:
    """The hash of the content and its length in bytes, read once."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    length = 0
    with open_content(content) as f:
        while data := f.read(1 << 20):
            digest.update(data)
            length += len(data)
    return digest.digest(), length


def part_of(content: Content, offset: int, length: int) -> tuple[bytes | Extent, ...]:
    """The pieces that make up ``length`` bytes of the content from ``offset`` on. ValueError outside of it."""
    if offset < 0 or length < 0 or offset + length > size_of(content):
        raise ValueError(f"bytes {offset} to {offset + length} of {size_of(content)}")
    if isinstance(content, Path):
        return (Extent(content, offset, length),) if length else ()
    pieces = content.parts if isinstance(content, Joined) else (content,)
    found: list[bytes | Extent] = []
    for piece in pieces:
        here = size_of(piece)
        start, end = min(offset, here), min(offset + length, here)
        if end > start:
            if isinstance(piece, bytes):
                found.append(piece[start:end])
            else:
                found.append(Extent(piece.path, piece.offset + start, end - start))
        length -= end - start
        offset = max(0, offset - here)
    return tuple(found)


class _Parts(io.RawIOBase):
    def __init__(self, parts: Sequence[bytes | Extent]) -> None:
        self._parts = [part for part in parts if size_of(part)]
        self._starts = [0]
        for part in self._parts:
            self._starts.append(self._starts[-1] + size_of(part))
        self._position = 0
        self._files: dict[Path, BinaryIO] = {}

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._starts[-1]}[whence]
        if base + offset < 0:
            raise OSError(22, "a place before the start")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer)).cast("B")
        number = bisect_right(self._starts, self._position) - 1
        if number >= len(self._parts):
            return 0
        part = self._parts[number]
        inside = self._position - self._starts[number]
        if isinstance(part, bytes):
            data = part[inside : inside + len(view)]
            view[: len(data)] = data
            count = len(data)
        else:
            file = self._files.get(part.path)
            if file is None:
                file = self._files[part.path] = part.path.open("rb", buffering=0)
            file.seek(part.offset + inside)
            count = cast(io.RawIOBase, file).readinto(view[: part.length - inside]) or 0
            if not count:
                raise OSError(5, "the file is shorter than it was", str(part.path))
        self._position += count
        return count

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        super().close()
