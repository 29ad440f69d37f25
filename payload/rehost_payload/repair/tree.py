"""Folders as they were before a tool of Windows' own worked in them, and how they are put back.

Which files such a tool writes is not known before it has run. So what it may change is saved, and what it may add is
recognised afterwards: by names that were not there, and only by those that it may use. The record of it is a file of the
journal, on the medium before the tool starts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.filesystem import FileSystemReader
from rehost_payload.repair.errors import ApplyError
from rehost_payload.repair.journal import Journal, TreeAfter, TreeStep, sha256
from rehost_payload.repair.model import Change
from rehost_payload.repair.writing import remove_leftover
from rehost_payload.system.protocol import WritableVolume

_PACK = 16 << 20
_MOST = 2 << 30  # bytes; the registry of a large server has a quarter of it
_MOST_FILES = 20_000
_MAX_DEPTH = 32
_BEGINNING = 4096  # an event log's header: what it counts, and whether it is open


@dataclass(frozen=True)
class Watched:
    """A folder in which the tool may work.

    ``removable``: patterns, in lower case, of the names that it may add. ``saved``: whether a file, by its name in lower
    case, may be changed by it. ``deep``: patterns of the folders in it that may be changed altogether.
    """

    path: str
    removable: tuple[str, ...]
    saved: Callable[[str], bool] = lambda name: False
    deep: tuple[str, ...] = ()


@dataclass(frozen=True)
class FolderRecord:
    """``names``: those in it, in lower case, that match one of the patterns ``removable``."""

    path: str
    existed: bool
    removable: tuple[str, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class FileRecord:
    """A file whose bytes are saved in ``pack`` from ``offset`` on."""

    path: str
    sha256: str
    size: int
    pack: str
    offset: int


@dataclass(frozen=True)
class TreeRecord:
    """``signs``: see `signs_of_a_start`, as pairs (path, hash)."""

    folders: tuple[FolderRecord, ...]
    files: tuple[FileRecord, ...]
    signs: tuple[tuple[str, str | None], ...] = ()


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name.lower(), p) for p in patterns)


# --- before -----------------------------------------------------------------------------------------------------


def save_tree(
    reader: FileSystemReader, watched: Sequence[Watched], journal: Journal, signs: Iterable[str] = ()
) -> tuple[str, str]:
    """Saves what is there. Returns name and hash of the record, for a TreeStep.

    ``signs``: paths of files that the tool leaves alone and every start of Windows changes.

    Raises ApplyError ("journal": the originals do not fit), SystemError_, FormatError, OSError; nothing on the volume
    itself is changed.
    """
    folders: list[FolderRecord] = []
    paths: list[tuple[str, int]] = []
    for folder in watched:
        _look(reader, folder, folders, paths, 0)
    total, free = sum(size for _, size in paths), journal.volume.free()
    if total > min(free, _MOST) or len(paths) > _MOST_FILES:
        raise ApplyError("journal", f"{len(paths)} originals have {total} bytes; {free} are free for them")
    seen = tuple(signs_of_a_start(reader, signs).items())
    record = TreeRecord(tuple(folders), tuple(_packed(reader, [p for p, _ in paths], journal)), seen)
    data = json.dumps(asdict(record)).encode()
    return journal.keep(".json", data), sha256(data)


def signs_of_a_start(reader: FileSystemReader, paths: Iterable[str]) -> dict[str, str | None]:
    """Hashes of the beginnings of files by which a start of Windows is seen; None where there is none to be read."""
    return {path: _beginning(reader, path) for path in paths}


def _beginning(reader: FileSystemReader, path: str) -> str | None:
    with suppress(FormatError):
        return sha256(reader.open(path).read_at(0, _BEGINNING)) if reader.exists(path) else None
    return None


def _look(
    reader: FileSystemReader,
    folder: Watched,
    folders: list[FolderRecord],
    files: list[tuple[str, int]],
    depth: int,
) -> None:
    there = reader.is_directory(folder.path)
    entries = reader.listdir(folder.path) if there else []
    names = tuple(e.name.lower() for e in entries if _matches(e.name, folder.removable))
    folders.append(FolderRecord(folder.path, there, folder.removable, names))
    for entry in entries:
        path = f"{folder.path}\\{entry.name}"
        if not entry.is_directory:
            if folder.saved(entry.name.lower()):
                files.append((path, entry.size))
        elif _matches(entry.name, folder.deep) and depth < _MAX_DEPTH:
            _look(reader, Watched(path, ("*",), lambda name: True, ("*",)), folders, files, depth + 1)


def _packed(reader: FileSystemReader, paths: Iterable[str], journal: Journal) -> Iterator[FileRecord]:
    """Many small files are one file of the journal: a stick takes its time for each."""
    pending: list[tuple[str, bytes]] = []
    number = size = 0
    for path in paths:
        data = reader.read(path)
        pending.append((path, data))
        size += len(data)
        if size >= _PACK:
            yield from _pack(pending, number, journal)
            pending, number, size = [], number + 1, 0
    if pending:
        yield from _pack(pending, number, journal)


def _pack(files: Sequence[tuple[str, bytes]], number: int, journal: Journal) -> Iterator[FileRecord]:
    name = journal.keep(f"-{number:03d}.bin", b"".join(data for _, data in files))
    offset = 0
    for path, data in files:
        yield FileRecord(path, sha256(data), len(data), name, offset)
        offset += len(data)


def read_record(journal: Journal, step: TreeStep) -> TreeRecord:
    """ApplyError ("journal") where it is not what was saved."""
    return parse_record(journal.kept(step.record), step)


def parse_record(data: bytes, step: TreeStep) -> TreeRecord:
    """As `read_record`, of the file's bytes."""
    if sha256(data) != step.record_sha256:
        raise ApplyError("journal", f"{step.record} of the journal is damaged", False)
    try:
        read = json.loads(data)
        folders = (
            FolderRecord(str(f["path"]), bool(f["existed"]), tuple(f["removable"]), tuple(f["names"]))
            for f in read["folders"]
        )
        signs = tuple((str(path), digest) for path, digest in read.get("signs", ()))
        return TreeRecord(tuple(folders), tuple(FileRecord(**f) for f in read["files"]), signs)
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise ApplyError("journal", f"{step.record} of the journal is damaged: {e}", False) from e


# --- afterwards -------------------------------------------------------------------------------------------------


def tree_after(reader: FileSystemReader, record: TreeRecord) -> TreeAfter:
    """What the tool has made."""
    new = tuple(
        f"{folder.path}\\{entry.name}"
        for folder in record.folders
        if reader.is_directory(folder.path)
        for entry in reader.listdir(folder.path)
        if _is_new(entry.name, folder)
    )
    changed: dict[str, str | None] = {}
    for file in record.files:
        now = sha256(reader.read(file.path)) if reader.exists(file.path) else None
        if now != file.sha256:
            changed[file.path] = now
    return TreeAfter(new, changed)


def _is_new(name: str, folder: FolderRecord) -> bool:
    return _matches(name, folder.removable) and name.lower() not in folder.names


def tree_changes(record: TreeRecord, after: TreeAfter) -> Iterator[Change]:
    """For the report."""
    before = {f.path: f.sha256 for f in record.files}
    for path in after.new:
        yield Change("file", path, "absent", "present")
    for path, now in after.changed.items():
        yield Change("file", path, before[path], now or "absent")


def tree_conflicts(
    record: TreeRecord, after: TreeAfter | None, volume: WritableVolume, later: set[str]
) -> Iterator[str]:
    """Files that somebody else has changed since. ``later``: paths, in lower case, that a later step has written.

    Of a tool that was cut off nothing is known but what was there before it.
    """
    if after is None:
        return
    for file in record.files:
        if file.path.lower() in later:
            continue
        now = sha256(volume.read(file.path)) if volume.exists(file.path) else None
        if now not in (file.sha256, after.changed.get(file.path, file.sha256)):
            yield file.path


def restore_tree(
    record: TreeRecord,
    after: TreeAfter | None,
    volume: WritableVolume,
    journal: Journal,
    *,
    keep: bool = False,
) -> list[Change]:
    """Puts back what was saved, then removes what is new: with ``after`` only that, without it whatever the tool may have
    added. ``keep``: what neither was there nor is known to be the tool's is saved before it is replaced.
    Safe to run again. Raises SystemError_, ApplyError ("journal", "verify-write")."""
    changes: list[Change] = []
    pack: tuple[str | None, bytes] = (None, b"")
    # a hive's logs before the hive: at no instant does an old hive lie beside logs of the new one
    for file in sorted(record.files, key=lambda f: ".log" not in f.path.lower()):
        now = sha256(volume.read(file.path)) if volume.exists(file.path) else None
        if now == file.sha256:
            continue
        remove_leftover(volume, file.path)
        if pack[0] != file.pack:
            pack = (file.pack, journal.kept(file.pack))
        known_now = None if after is None else after.changed.get(file.path)
        if keep and now is not None and now != known_now:
            journal.keep_replaced(now, volume.read(file.path))
        data = pack[1][file.offset : file.offset + file.size]
        if sha256(data) != file.sha256:
            raise ApplyError("journal", f"{journal.path}\\{file.pack} is damaged: {file.path}", False)
        volume.replace(file.path, data)
        if volume.read(file.path) != data:
            raise ApplyError("verify-write", f"{file.path} does not read back as it was", False)
        changes.append(Change("file", file.path, now or "absent", file.sha256))
    known = None if after is None else {path.lower() for path in after.new}
    for folder in reversed(record.folders):
        if not volume.is_directory(folder.path):
            continue
        for name in volume.listdir(folder.path):
            path = f"{folder.path}\\{name}"
            if _is_new(name, folder) and (known is None or path.lower() in known):
                _remove(volume, path, 0)
                changes.append(Change("file", path, "present", "absent"))
        if not folder.existed and not volume.listdir(folder.path):
            volume.remove_directory(folder.path)
    return changes


def _remove(volume: WritableVolume, path: str, depth: int) -> None:
    if not volume.is_directory(path):
        volume.remove(path)
        return
    if depth >= _MAX_DEPTH:
        raise ApplyError("write", f"{path}: folders are nested too deeply", False)
    for name in volume.listdir(path):
        _remove(volume, f"{path}\\{name}", depth + 1)
    volume.remove_directory(path)
