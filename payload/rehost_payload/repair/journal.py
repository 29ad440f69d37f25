"""The undo journal: what was there before, saved before it is changed.

A run's folder (on the stick, or on another volume) holds `journal\\journal.jsonl`, one JSON object a line, each
flushed before the change it announces, and `journal\\0001.bin` ... with the original bytes. A line that a power
cut tore off is the last one and is ignored: the change it would have announced was not begun.

Lines: {"op": "open", ...} · {"op": "begin", "seq": n, "step": {...}} · {"op": "done", "seq": n} ·
{"op": "complete"} · {"op": "undone", "seq": n} · {"op": "all-undone"}. What a program of somebody else's makes is known
only afterwards: the line {"op": "done", "seq": n, "after": ...} then says what it wrote, of sectors as hex (the step's "after" is
empty), of folders as the paths that are new and the hashes of the files that have changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rehost_payload.formats.filesystem import FileSystemReader
from rehost_payload.repair.errors import ApplyError
from rehost_payload.repair.model import DiskRef, VolumeRef
from rehost_payload.system.protocol import SystemError_, WritableVolume

VERSION = 1
HOME = "\\Rehost"
_LOG = "journal.jsonl"


@dataclass(frozen=True)
class FileStep:
    """A file replaced, created (``before_sha256`` None) or removed (``after_sha256`` None)."""

    volume: VolumeRef
    path: str
    before_sha256: str | None
    after_sha256: str | None
    original: str | None = None  # name of the saved bytes in the journal folder
    kind: str = "file"


@dataclass(frozen=True)
class FolderStep:
    """A folder that did not exist."""

    volume: VolumeRef
    path: str
    kind: str = "folder"


@dataclass(frozen=True)
class SectorsStep:
    """Sectors of a disk. The bytes are few and stand in the journal itself, as hex.

    ``after`` is empty as long as nobody knows it: while a program that is not ours is writing.
    """

    disk: DiskRef
    offset: int
    before: str
    after: str
    what: str
    kind: str = "sectors"


@dataclass(frozen=True)
class VariableStep:
    """A UEFI variable; hex or None for absent."""

    name: str
    before: str | None
    after: str | None
    kind: str = "variable"


@dataclass(frozen=True)
class TreeAfter:
    """Paths that are new, and by path the hashes of the saved files that have changed (None: gone)."""

    new: tuple[str, ...]
    changed: dict[str, str | None]


@dataclass(frozen=True)
class TreeStep:
    """What a tool of Windows' own does in the folders of an installation. Open-ended: what it makes is not known before.

    ``record`` is the name of a file in the journal folder that says what was there (see tree.py).
    """

    volume: VolumeRef
    what: str
    record: str
    record_sha256: str
    after: TreeAfter | None = None
    kind: str = "tree"


Step = FileStep | FolderStep | SectorsStep | VariableStep | TreeStep


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def step_from_json(data: dict[str, Any]) -> Step:
    """The inverse of dataclasses.asdict for each kind; KeyError, TypeError or ValueError for junk."""
    kind = data["kind"]
    if kind in ("file", "folder", "tree"):
        data = {**data, "volume": VolumeRef(**data["volume"])}
    elif kind == "sectors":
        data = {**data, "disk": DiskRef(**data["disk"])}
    classes: dict[str, type[Step]] = {
        "file": FileStep,
        "folder": FolderStep,
        "sectors": SectorsStep,
        "variable": VariableStep,
        "tree": TreeStep,
    }
    step = classes[kind](**data)
    if isinstance(step, SectorsStep):
        before, after = bytes.fromhex(step.before), bytes.fromhex(step.after)
        if step.offset < 0 or len(after) not in (0, len(before)):
            raise ValueError("sectors at no place, or of two lengths")
    if isinstance(step, TreeStep) and (step.after is not None or not _is_name(step.record)):
        raise ValueError("a record that is no file of the journal")
    return step


def _is_name(name: object) -> bool:
    return isinstance(name, str) and not set(name) & set("\\/:\0") and name not in ("", ".", "..")


@dataclass(frozen=True)
class Entry:
    """A step as the journal knows it."""

    seq: int
    step: Step
    done: bool
    undone: bool


@dataclass
class Journal:
    """One run's journal on a mounted, writable volume. ``folder`` is the run's folder, "\\Rehost\\<stamp>"."""

    volume: WritableVolume
    folder: str
    _next: int = field(default=1)
    open_ended: bool = field(
        default=False
    )  # a step was begun of which only the program that made it knows the work
    _torn: bool = field(
        default=False
    )  # its last line is, and could not be cut off: nothing may be put behind it

    @property
    def path(self) -> str:
        return f"{self.folder}\\journal"

    @classmethod
    def create(cls, volume: WritableVolume, folder: str, about: dict[str, Any]) -> Journal:
        """Makes the folders and the opening line. Raises ApplyError("journal") where that is impossible."""
        journal = cls(volume, folder)
        try:
            make_folders(volume, journal.path)
            if volume.exists(f"{journal.path}\\{_LOG}"):
                raise ApplyError("journal", f"{journal.path} is taken by another run")
            journal._append({"op": "open", "version": VERSION, **about})
        except SystemError_ as e:
            raise ApplyError("journal", f"cannot write {journal.path}: {e.detail}") from e
        return journal

    def _append(self, record: dict[str, Any]) -> None:
        if self._torn:
            raise SystemError_("io", f"{self.path}\\{_LOG} ends in a torn line that could not be removed")
        line = json.dumps(record, sort_keys=True, ensure_ascii=True) + "\n"
        self.volume.append(f"{self.path}\\{_LOG}", line.encode())

    def begin(self, step: Step, original: bytes | None = None) -> int:
        """Announces a change; its original bytes are on the medium when this returns."""
        seq = self._next
        if original is not None:
            if not isinstance(step, FileStep):
                raise TypeError("only files have their original saved as a file")
            name = self.keep(".bin", original)
            step = FileStep(step.volume, step.path, step.before_sha256, step.after_sha256, name)
        self._next += 1
        self.open_ended |= isinstance(step, TreeStep) or (isinstance(step, SectorsStep) and not step.after)
        self._append({"op": "begin", "seq": seq, "step": asdict(step)})
        return seq

    def keep(self, suffix: str, data: bytes) -> str:
        """Saves bytes that belong to the step announced next, before it is; returns the file's name."""
        name = f"{self._next:04d}{suffix}"
        self.volume.replace(f"{self.path}\\{name}", data)
        if self.volume.read(f"{self.path}\\{name}") != data:
            raise ApplyError("journal", f"{self.path}\\{name} does not read back as it was written")
        return name

    def keep_replaced(self, digest: str, data: bytes) -> None:
        """Saves what somebody else has made of a file since, before the original goes over it."""
        name = f"replaced-{digest[:16]}.bin"
        if not self.volume.exists(f"{self.path}\\{name}"):
            self.volume.replace(f"{self.path}\\{name}", data)

    def kept(self, name: str) -> bytes:
        return self.volume.read(f"{self.path}\\{name}")

    def done(self, seq: int, after: str | dict[str, Any] | None = None) -> None:
        """``after``: what has been written, of a step that did not know it."""
        self._append({"op": "done", "seq": seq} | ({} if after is None else {"after": after}))

    def complete(self) -> None:
        self._append({"op": "complete"})

    def undone(self, seq: int) -> None:
        self._append({"op": "undone", "seq": seq})

    def all_undone(self) -> None:
        self._append({"op": "all-undone"})

    def original(self, step: FileStep) -> bytes:
        """The saved bytes of a file step; ApplyError("journal") if they are not what was saved."""
        if step.original is None:
            raise ApplyError("journal", f"no original was saved for {step.path}", rolled_back=False)
        data = self.kept(step.original)
        if sha256(data) != step.before_sha256:
            raise ApplyError(
                "journal",
                f"{self.path}\\{step.original} is damaged: its hash is not that of {step.path}",
                False,
            )
        return data

    def read(self) -> JournalContent:
        return parse_journal(self.volume.read(f"{self.path}\\{_LOG}"))

    def reopen(self) -> JournalContent:
        """Reads the journal of an earlier run and makes it fit to be appended to (a torn last line goes)."""
        data = self.volume.read(f"{self.path}\\{_LOG}")
        content = parse_journal(data)
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:
            try:
                self.volume.replace(f"{self.path}\\{_LOG}", whole)
            except SystemError_:  # what it holds can be put back all the same
                self._torn = True
        self._next = max((e.seq for e in content.entries), default=0) + 1
        return content


@dataclass(frozen=True)
class JournalContent:
    about: dict[str, Any]
    entries: tuple[Entry, ...]
    complete: bool
    all_undone: bool

    @property
    def open_entries(self) -> tuple[Entry, ...]:
        """What undo has to look at, newest first."""
        return tuple(e for e in reversed(self.entries) if not e.undone)


def parse_journal(data: bytes) -> JournalContent:
    """Reads journal.jsonl. A torn last line is ignored; anything else that is wrong is ApplyError("journal")."""
    lines = data.split(b"\n")
    about: dict[str, Any] = {}
    steps: dict[int, Step] = {}
    done: set[int] = set()
    undone: set[int] = set()
    complete = all_undone = False
    for number, line in enumerate(lines, 1):
        if not line.strip(b"\0 \r"):
            continue
        try:
            record = json.loads(line)
            op = record["op"]
            if op == "open":
                if record.get("version") != VERSION:
                    raise ApplyError(
                        "journal", f"version {record.get('version')} of the journal is not ours", False
                    )
                about = record
            elif op == "begin":
                steps[int(record["seq"])] = step_from_json(record["step"])
            elif op == "done":
                done.add(int(record["seq"]))
                if "after" in record:
                    _learn(steps, int(record["seq"]), record["after"])
            elif op == "undone":
                undone.add(int(record["seq"]))
            elif op == "complete":
                complete = True
            elif op == "all-undone":
                all_undone = True
            else:
                raise ValueError(f"unknown op {op!r}")
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as e:
            if number == len(lines):  # no newline behind it: torn by a power cut
                break
            raise ApplyError("journal", f"line {number} of the journal is damaged: {e}", False) from e
    if not about:
        raise ApplyError("journal", "the journal has no opening line", False)
    entries = tuple(Entry(n, steps[n], n in done, n in undone) for n in sorted(steps))
    return JournalContent(about, entries, complete, all_undone)


def _learn(steps: dict[int, Step], seq: int, after: str | dict[str, Any]) -> None:
    """Puts what was written into an open step. KeyError, TypeError or ValueError for junk."""
    step = steps[seq]
    if isinstance(step, TreeStep):
        if step.after is not None or not isinstance(after, dict):
            raise ValueError("the step knows what was written, or that is not what it says")
        new, changed = tuple(after["new"]), dict(after["changed"])
        if not all(isinstance(x, str) for x in (*new, *changed, *filter(None, changed.values()))):
            raise ValueError("paths and hashes are texts")
        steps[seq] = replace(step, after=TreeAfter(new, changed))
        return
    if not isinstance(step, SectorsStep) or not isinstance(after, str) or step.after:
        raise ValueError("the step knows what was written")
    if len(bytes.fromhex(after)) != len(bytes.fromhex(step.before)):
        raise ValueError("lengths before and after differ")
    steps[seq] = replace(step, after=after)


def make_folders(volume: WritableVolume, path: str) -> list[str]:
    """Makes ``path`` and its parents where they are missing; returns those made, outermost first."""
    made = []
    parts = path.strip("\\").split("\\")
    for i in range(1, len(parts) + 1):
        folder = "\\" + "\\".join(parts[:i])
        if not volume.exists(folder):
            volume.make_directory(folder)
            made.append(folder)
    return made


def find_journals(volume: FileSystemReader) -> Iterator[tuple[str, JournalContent | ApplyError]]:
    """(run folder, content) of every journal on a volume, oldest first (folders are named by their UTC time); in the
    place of the content, what is wrong with one that is damaged."""
    if not volume.exists(HOME):
        return
    for name in sorted(entry.name for entry in volume.listdir(HOME) if entry.is_directory):
        folder = f"{HOME}\\{name}"
        path = f"{folder}\\journal\\{_LOG}"
        if volume.exists(path):
            try:
                yield folder, parse_journal(volume.read(path))
            except ApplyError as e:
                yield folder, e
