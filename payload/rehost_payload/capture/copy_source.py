"""Where a captured file's bytes come from, and how they are read when the disk below has bad places."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from rehost_payload.capture.model import BadRange, CaptureFile
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.source import ByteSource, BytesSource
from rehost_payload.system.protocol import SystemError_

_GONE = {errno.ENODEV, errno.ENXIO, errno.ESHUTDOWN}
_PIECES = (64 << 10, 4 << 10)
_PROBE = 64 << 10
_PATIENCE = 16  # pieces of 64 KiB in a row of which not one sector was readable, before we begin to skip
_LONGEST_SKIP = 64 << 20
_NOT_TRIED = "not tried: the places before it were all unreadable"
_HEADERS = ((0, 512), (64 << 10, 4096), (128 << 10, 4096))
_FOOTER = 512


class SourceChanged(Exception):
    """The source is not, or no longer, what it was when its copy began."""


class SourceGone(Exception):
    """The disk with the source does not answer any more."""


@dataclass(frozen=True)
class OpenSource:
    """An opened file. ``identity`` is whatever the file system knows to tell it from a changed one: file id, size,
    time of the last change. ``sector_size`` is the smallest piece worth asking for where a read fails."""

    source: ByteSource
    identity: str = ""
    sector_size: int = 512
    close: Callable[[], None] = field(default=lambda: None)


class SourceOpener(Protocol):
    def open(self, file: CaptureFile) -> OpenSource:
        """Raises OSError, SystemError_ or FormatError (UnreadableFile) where it cannot be opened."""
        ...


@dataclass(frozen=True)
class BytesOpener:
    """Opens what is in memory: documents that are made for the capture."""

    data: bytes

    def open(self, file: CaptureFile) -> OpenSource:
        return OpenSource(BytesSource(self.data), hashlib.sha256(self.data).hexdigest())


def fingerprint(opened: OpenSource) -> str:
    """What a resumed copy compares: size, the file system's identity, and the places where a virtual disk says that
    it was written to (both VHDX headers with their sequence numbers, the footer of a VHD)."""
    digest = hashlib.sha256(f"{opened.source.size}\0{opened.identity}".encode("utf-8", "surrogatepass"))
    for offset, length in (*_HEADERS, (max(0, opened.source.size - _FOOTER), _FOOTER)):
        try:
            digest.update(opened.source.read_at(offset, length) if offset < opened.source.size else b"")
        except (OSError, FormatError, SystemError_):
            digest.update(b"unreadable")
    return digest.hexdigest()


class CarefulReader:
    """Reads a source of ``size`` bytes block by block, in order. What cannot be read is tried in smaller pieces down
    to the sector; what remains is zeros and a BadRange.

    A disk that fails on and on costs minutes for each sector: after a megabyte without one readable sector only
    single sectors are tried, with growing gaps, until one can be read.
    """

    def __init__(self, opened: OpenSource, size: int) -> None:
        self._source = opened.source
        self._sector = max(512, opened.sector_size)
        self._size = size
        self._dead_pieces = 0
        self._skip = _PROBE
        self._dead_until = 0

    def read_into(self, offset: int, view: memoryview) -> list[BadRange]:
        """Fills ``view``. Raises SourceChanged where the source ends before its size, SourceGone."""
        bad: list[BadRange] = []
        if offset < self._dead_until:
            count = min(self._dead_until - offset, len(view))
            self._zero(view[:count], offset, _NOT_TRIED, bad)
            offset, view = offset + count, view[count:]
        if view:
            self._read(offset, view, bad)
        return merge(bad)

    def _read(self, offset: int, view: memoryview, bad: list[BadRange]) -> bool:
        """Returns whether anything was readable."""
        try:
            data = self._source.read_at(offset, len(view))
        except (OSError, FormatError, SystemError_) as error:
            if _is_gone(error):
                raise SourceGone(str(error)) from error
            reason = str(error)
        else:
            if len(data) != len(view):
                raise SourceChanged(f"it ends at {offset + len(data)} of {self._size} bytes")
            view[:] = data
            self._dead_pieces, self._skip = 0, _PROBE
            return True
        sizes = [s for s in (*_PIECES, self._sector) if s < len(view)]
        if not sizes:
            self._zero(view, offset, reason, bad)
            return False
        any_good = False
        position = 0
        while position < len(view):
            start = offset + position
            if start < self._dead_until:
                count = min(self._dead_until - start, len(view) - position)
                self._zero(
                    view[position : position + count],
                    start,
                    _NOT_TRIED,
                    bad,
                )
                position += count
                continue
            count = min(sizes[0], len(view) - position)
            piece = view[position : position + count]
            if sizes[0] == _PROBE and self._dead_pieces >= _PATIENCE:
                any_good |= self._probe(start, piece, bad)
            else:
                good = self._read(start, piece, bad)
                any_good |= good
                if sizes[0] == _PROBE and not good:
                    self._dead_pieces += 1
            position += count
        return any_good

    def _probe(self, offset: int, piece: memoryview, bad: list[BadRange]) -> bool:
        """Tries one sector; where it is readable the whole piece is read in earnest."""
        try:
            self._source.read_at(offset, min(self._sector, len(piece)))
        except (OSError, FormatError, SystemError_) as error:
            if _is_gone(error):
                raise SourceGone(str(error)) from error
            self._zero(piece, offset, f"only its first sector was tried: {error}", bad)
            self._dead_until = offset + self._skip
            self._skip = min(2 * self._skip, _LONGEST_SKIP)
            return False
        self._dead_pieces = 0
        return self._read(offset, piece, bad)

    @staticmethod
    def _zero(view: memoryview, offset: int, reason: str, bad: list[BadRange]) -> None:
        view[:] = bytes(len(view))
        bad.append(BadRange(offset, len(view), reason))


def _is_gone(error: Exception) -> bool:
    if isinstance(error, SystemError_):
        return error.code == "gone"
    return isinstance(error, OSError) and error.errno in _GONE


def merge(ranges: list[BadRange]) -> list[BadRange]:
    """Neighbours with the same reason as one range; in order."""
    merged: list[BadRange] = []
    for entry in sorted(ranges, key=lambda r: r.offset):
        last = merged[-1] if merged else None
        if last is not None and last.offset + last.length == entry.offset and last.reason == entry.reason:
            merged[-1] = BadRange(last.offset, last.length + entry.length, last.reason)
        else:
            merged.append(entry)
    return merged
