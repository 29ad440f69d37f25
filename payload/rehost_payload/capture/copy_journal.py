"""The journal of a capture on one target: which chunks of which file are on the medium, and their SHA-256.

A line is appended only after the data it speaks of was flushed, and is itself flushed. Each begins with its CRC-32, so
that one which a power cut tore is noticed; reading ends there. The lines, as JSON lists:

    ["capture", identity of the plan, chunk size]
    ["unit", its folder, layout, [file, ...]]              its files from here on; these were removed or set aside, and
                                                           are void
    ["aside", its folder, name]                            the folder is renamed to ``name`` next, if it was not yet
    ["begin", file, fingerprint of the source, size]       the file is copied from its start, what was known is void
    ["chunks", file, first, [sha256, ...], [[offset, length, reason], ...]]
    ["cut", file, count]                                   only the first ``count`` chunks were good
    ["done", file, sha256 of the whole or ""]              every chunk is there; times and size are set
    ["good", file, sha256]                                 read back from this target and equal; has its final name
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from typing import Any

from rehost_payload.capture.model import BadRange
from rehost_payload.system.capture_target import CaptureTarget
from rehost_payload.system.protocol import SystemError_

JOURNAL = "capture.journal"


@dataclass
class FileRecord:
    """What the journal knows of a file. ``checked``, which it does not: so many chunks, from the first on, have been read
    back in this run."""

    fingerprint: str
    size: int
    chunks: list[str] = field(default_factory=list)
    bad: list[BadRange] = field(default_factory=list)
    done: bool = False
    verified: bool = False
    sha256: str = ""
    checked: int = 0


class OtherCapture(Exception):
    """The folder on the target holds a capture of something else."""


class Journal:
    """The journal of ``folder`` on ``target``. Methods that write raise SystemError_."""

    def __init__(self, target: CaptureTarget, folder: str, identity: str, chunk_size: int) -> None:
        """Reads what is there; writes nothing before `open`.

        Raises OtherCapture where it is another plan's, or the folder has contents without a journal.
        """
        self._target = target
        self._path = f"{folder}/{JOURNAL}"
        self.files: dict[str, FileRecord] = {}
        self.layouts: dict[str, str] = {}  # by the unit's folder
        self.asides: dict[str, str] = {}  # name that a unit's folder got, or was to get -> the unit's folder
        self.resumed = False
        self._start: bytes | None = None  # what the file has to be before lines are added
        try:
            raw = target.read(self._path)
        except SystemError_ as error:
            if error.code != "absent":
                raise
            raw = b""
        lines, length = _good_lines(raw)
        if not lines:
            foreign = [n for n in target.names(folder) if n not in (JOURNAL, "rehost.tmp")]
            if foreign:
                raise OtherCapture(
                    f"{folder} exists already and holds {foreign[0]}, but no journal of a capture"
                )
            self._start = _line(["capture", identity, chunk_size])
            return
        if lines[0] != ["capture", identity, chunk_size]:
            raise OtherCapture(f"{folder} holds a capture of other files")
        self.resumed = True
        if length != len(raw):  # what a power cut tore would swallow the next line
            self._start = raw[:length]
        for line in lines[1:]:
            self._apply(line)

    def open(self) -> None:
        """Makes it ready for new lines; its folder must exist."""
        if self._start is not None:
            self._target.replace(self._path, self._start)
            self._start = None

    def _apply(self, line: list[Any]) -> None:
        kind, path = line[0], line[1]
        if kind == "unit":
            self.layouts[path] = line[2]
            for gone in line[3]:
                self.files.pop(gone, None)
            return
        if kind == "aside":
            self.asides[line[2]] = path
            return
        record = self.files.get(path)
        if kind == "begin":
            self.files[path] = FileRecord(line[2], line[3])
        elif record is None:
            return
        elif kind == "chunks" and line[2] == len(record.chunks):
            record.chunks += line[3]
            record.bad += [BadRange(*entry) for entry in line[4]]
        elif kind == "cut":
            self._cut(record, line[2], line[3])
        elif kind == "done":
            record.done, record.sha256 = True, line[2]
        elif kind == "good":
            record.verified, record.sha256 = True, line[2]

    @staticmethod
    def _cut(record: FileRecord, count: int, end: int) -> None:
        del record.chunks[count:]
        record.checked = min(record.checked, count)
        record.bad = [entry for entry in record.bad if entry.offset < end]
        record.done = record.verified = False
        record.sha256 = ""

    def _write(self, line: list[Any]) -> None:
        self._target.append(self._path, _line(line))
        self._apply(line)

    def unit(self, folder: str, layout: str, gone: list[str]) -> None:
        """To be called only when the files that are ``gone`` were removed or set aside."""
        self._write(["unit", folder, layout, gone])

    def aside(self, folder: str, name: str) -> None:
        """To be called before the folder is renamed: what is removed later under this name is ours."""
        self._write(["aside", folder, name])

    def begin(self, path: str, fingerprint: str, size: int) -> None:
        self._write(["begin", path, fingerprint, size])

    def chunks(self, path: str, first: int, digests: list[str], bad: list[BadRange]) -> None:
        """To be called only when these chunks were flushed."""
        self._write(["chunks", path, first, digests, [[b.offset, b.length, b.reason] for b in bad]])

    def cut(self, path: str, count: int, end: int) -> None:
        """``end`` is the offset at which the first ``count`` chunks end."""
        self._write(["cut", path, count, end])

    def done(self, path: str, sha256: str) -> None:
        self._write(["done", path, sha256])

    def good(self, path: str, sha256: str) -> None:
        self._write(["good", path, sha256])


def _line(entry: list[Any]) -> bytes:
    text = json.dumps(entry, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _good_lines(raw: bytes) -> tuple[list[list[Any]], int]:
    """The lines up to the first that is damaged, and the length of what they take."""
    lines: list[list[Any]] = []
    position = 0
    while (end := raw.find(b"\n", position)) >= 0:
        text = raw[position + 9 : end]
        if raw[position : position + 9] != b"%08x " % zlib.crc32(text):
            break
        try:
            entry = json.loads(text)
        except ValueError:
            break
        lines.append(entry)
        position = end + 1
    return lines, position
