"""An opened medium: its image, what its files hash to (read once, in the order of their places), and its judge."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, cast

from rehost_builder.media.iso_reader import IsoFile, IsoImage
from rehost_builder.verify.described import Described
from rehost_builder.verify.model import Broken, NotSeen, Point, Verdict
from rehost_payload.formats.errors import FormatError

_PIECE = 1 << 20
Pieces = tuple[tuple[int, int], ...]


@dataclass
class Medium:
    """``digests`` are the SHA-256 of contents by their place, None for what lies beyond the end of the image."""

    image: IsoImage
    described: Described | None = None
    digests: dict[Pieces, str | None] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)

    @property
    def cut_off(self) -> bool:
        return self.image.needed > self.image.size

    def judge(self, name: str, title: str, check: Callable[[], str], *, needed: bool = True) -> bool:
        """Adds a point: what ``check`` returns is the reason for PASS. True where it passed."""
        verdict = Verdict.PASS
        try:
            reason = check()
        except Broken as e:
            verdict, reason = Verdict.FAIL, str(e)
        except NotSeen as e:
            verdict, reason = Verdict.UNKNOWN, str(e)
        except FormatError as e:
            # what cannot be read because the image is too short is said once, by the point about that
            verdict, reason = (Verdict.UNKNOWN if self.cut_off else Verdict.FAIL), str(e)
        # names on a medium may hold anything, terminal sequences too
        shown = "".join(c if c.isprintable() else "?" for c in reason)
        self.points.append(Point(name, title, verdict, shown, needed))
        return verdict is Verdict.PASS

    def find(self, path: str) -> IsoFile | None:
        return self.image.find(path)

    def file(self, path: str) -> IsoFile:
        found = self.find(path)
        if found is None:
            raise Broken(f"{path} is missing")
        return found

    def content(self, path: str) -> bytes:
        return self.image.content(self.file(path))

    def digest(self, file: IsoFile) -> str | None:
        """SHA-256 in hex; None where the file goes beyond the end of the image."""
        if file.pieces not in self.digests:
            self.digests[file.pieces] = self._hash(file, lambda n: None)
        return self.digests[file.pieces]

    def hash_image(
        self, blank: tuple[int, int], progress: Callable[[float, float], None] | None = None
    ) -> str:
        """SHA-256 of the whole image in hex, the bytes from ``blank[0]`` up to ``blank[1]`` taken as zeros."""
        digest = hashlib.sha256()
        for at in range(0, self.image.size, _PIECE):
            data = self.image.read(at, min(_PIECE, self.image.size - at))
            start, end = (min(max(place - at, 0), len(data)) for place in blank)
            digest.update(data[:start] + bytes(end - start) + data[end:] if end > start else data)
            if progress is not None:
                progress(at + len(data), self.image.size)
        return digest.hexdigest()

    def hash_all(self, progress: Callable[[float, float], None] | None = None) -> None:
        """Reads every file of every tree once."""
        files = {f.pieces: f for t in self.image.trees for f in t.files.values()}
        total = sum(f.size for f in files.values())
        done = 0

        def count(length: int) -> None:
            nonlocal done
            done += length
            if progress is not None:
                progress(done, total)

        for pieces in sorted(files):
            self.digests[pieces] = self._hash(files[pieces], count)

    def _hash(self, file: IsoFile, count: Callable[[int], None]) -> str | None:
        digest = hashlib.sha256()
        try:
            for data in self.image.blocks(file):
                digest.update(data)
                count(len(data))
        except FormatError:
            return None
        return digest.hexdigest()

    def compare(self, path: str, expected: str) -> str:
        """ "" where the file is there with this SHA-256, else what is wrong with it."""
        found = self.find(path)
        if found is None:
            return f"{path} is missing"
        digest = self.digest(found)
        if digest is None:
            return "" if self.cut_off else f"{path} cannot be read"
        return "" if digest == expected.lower() else f"{path} has other content"


class ImageSource:
    """A range of the image for the readers of `formats`."""

    def __init__(self, image: IsoImage, start: int, length: int) -> None:
        self._image = image
        self._start = start
        self._length = max(0, min(length, image.size - start))

    @property
    def size(self) -> int:
        return self._length

    def read_at(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0:
            raise ValueError("offset and length must not be negative")
        length = min(length, self._length - offset)
        return self._image.read(self._start + offset, length) if length > 0 else b""


class _FileInside(io.RawIOBase):
    def __init__(self, image: IsoImage, file: IsoFile) -> None:
        self._image = image
        self._size = file.size
        self._pieces = file.pieces
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, {0: 0, 1: self._at, 2: self._size}[whence] + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer)).cast("B")
        start = 0
        for offset, length in self._pieces:
            if self._at < start + length:
                inside = self._at - start
                count = min(len(view), length - inside, self._size - self._at)
                if count <= 0:
                    return 0
                view[:count] = self._image.read(offset + inside, count)
                self._at += count
                return count
            start += length
        return 0


def opened_file(medium: Medium, file: IsoFile) -> BinaryIO:
    """A readable, seekable file over a file of the medium. Reads raise FormatError beyond the image's end."""
    return cast(BinaryIO, io.BufferedReader(_FileInside(medium.image, file), buffer_size=1 << 16))


def some(texts: list[str] | Iterator[str], limit: int = 3) -> str:
    """The first of them, and how many more there are."""
    listed = list(texts)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return "; ".join(listed[:limit]) + more
