"""Judges a capture by what lies in its folder: on any workstation, years later, with nothing but Python.

Shares no code with the copy engine: it reads manifest.json, SHA256SUMS and capture.json with eyes of its own and
hashes every file anew. PASS is said only of bytes that were read here.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rehost_payload.repair.model import Verdict

_MANIFEST, _SUMS, _STATE, _RESTORE = "manifest.json", "SHA256SUMS", "capture.json", "restore.json"
_FORMAT = 1
_BLOCK = 4 << 20
_MOST_JSON = 256 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PLAIN = re.compile(r"[A-Za-z0-9-]+\.[a-z0-9]+")
_SUMS_LINE = re.compile(r"(\\?)([0-9a-f]{64}) [ *](.+)")
_UNESCAPE = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}

Progress = Callable[[str, int, int], None]
"""Called with (folder of the unit, bytes done, bytes in total)."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with a file or a unit. ``code`` is a stable word; ``detail`` is evidence.

    Failing: "incomplete", "unfinished", "manifest", "sums", "missing", "size", "content", "read", "bad-range",
    "not-copied", "parent", "root". Unknown: "no-manifest", "format", "denied", "parent-unseen", "parent-earlier",
    "no-state", "state", "no-root".
    """

    code: str
    path: str = ""
    detail: str = ""


_UNKNOWN = {
    *("no-manifest", "format", "denied", "parent-unseen", "parent-earlier", "no-state", "state", "no-root")
}


@dataclass(frozen=True)
class UnitVerdict:
    """``files`` and ``size`` (bytes) are what was read. ``extra`` files are no fault; ``missing`` are originals
    that were nowhere on the old host when the capture was made. ``earlier``: it is none of what was captured last, but
    a copy that was kept from before."""

    folder: str
    name: str
    verdict: Verdict
    files: int = 0
    size: int = 0
    faults: tuple[Fault, ...] = ()
    extra: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    earlier: bool = False


@dataclass(frozen=True)
class CaptureVerdict:
    """``not_whole`` are machines of which something could not be captured; ``config_only``: their disks were left out.
    Neither is a fault of the copy."""

    folder: str
    verdict: Verdict
    units: tuple[UnitVerdict, ...]
    faults: tuple[Fault, ...] = ()
    config_only: bool = False
    not_whole: tuple[str, ...] = ()


class NoCapture(Exception):
    """The folder holds no capture. ``inside`` are folders below it that do."""

    def __init__(self, folder: Path, inside: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.inside = inside
        super().__init__(f"{folder} holds no capture")


@dataclass(frozen=True)
class _File:
    path: str
    size: int
    sha256: str
    chunks: tuple[str, ...]
    parent: str | None
    bad_ranges: int


@dataclass
class _Unit:
    """What a unit's folder says of itself; ``faults`` grows while it is checked."""

    folder: Path
    name: str
    chunk_size: int = 0
    files: tuple[_File, ...] = ()
    missing: tuple[str, ...] = ()
    manifest_sha256: str = ""
    faults: list[Fault] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    earlier: bool = False


class _Malformed(Exception):
    pass


def verify_capture(folder: Path, progress: Progress | None = None) -> CaptureVerdict:
    """Reads every file of the capture in ``folder`` (or of the one unit that it is) and compares.

    Raises NoCapture, and OSError where the folder itself cannot be listed.
    """
    single = (folder / _MANIFEST).is_file() and not (folder / _STATE).is_file()
    faults: list[Fault] = []
    says = _State()
    if single:
        units = [_read_unit(folder)]
    else:
        says = _read_state(folder, faults)
        known = says.units
        present = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.is_symlink())
        if known is None and not any((folder / name / _MANIFEST).is_file() for name in present):
            inside = tuple(n for n in present if (folder / n / _STATE).is_file())
            raise NoCapture(folder, inside)
        units = list(_units(folder, present, known))
        faults += _root_faults(folder)
    total = sum(file.size for unit in units for file in unit.files)
    meter = _Meter(progress, total)
    extras = [_check_unit(unit, meter) for unit in units]
    _check_parents(units, single)
    verdicts = tuple(
        UnitVerdict(
            unit.folder.name,
            unit.name,
            _verdict(unit.faults),
            len(unit.files),
            sum(file.size for file in unit.files),
            tuple(unit.faults),
            extra,
            unit.missing,
            unit.earlier,
        )
        for unit, extra in zip(units, extras, strict=True)
    )
    overall = _overall(verdicts, faults)
    return CaptureVerdict(str(folder), overall, verdicts, tuple(faults), says.config_only, says.not_whole)


def _verdict(faults: list[Fault]) -> Verdict:
    if any(fault.code not in _UNKNOWN for fault in faults):
        return Verdict.FAIL
    return Verdict.UNKNOWN if faults else Verdict.PASS


def _overall(units: tuple[UnitVerdict, ...], faults: list[Fault]) -> Verdict:
    found = {unit.verdict for unit in units} | ({_verdict(faults)} if faults else set())
    for verdict in (Verdict.FAIL, Verdict.UNKNOWN):
        if verdict in found:
            return verdict
    return Verdict.PASS if units else Verdict.UNKNOWN


class _Meter:
    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0

    def add(self, what: str, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(what, self._done, self._total)


# --- what the capture says of itself ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Known:
    """A unit as capture.json names it; ``why`` it is not complete on this disk, if so."""

    name: str
    why: str | None


@dataclass(frozen=True)
class _State:
    """What capture.json says. ``units`` by folder; None where it does not tell (a fault says so)."""

    units: dict[str, _Known] | None = None
    config_only: bool = False
    not_whole: tuple[str, ...] = ()


def _read_state(folder: Path, faults: list[Fault]) -> _State:
    try:
        data = _load(folder / _STATE)
        if data.get("format") != _FORMAT:
            faults.append(Fault("state", _STATE, f"format {data.get('format')!r}"))
            return _State()
        here = _text(data, "here")
        known: dict[str, _Known] = {}
        for unit in _list(data, "units"):
            copies = {_text(copy, "target"): copy for copy in _list(unit, "copies")}
            mine = copies.get(here, {})
            state = mine.get("state")
            why = "; ".join(str(r) for r in mine.get("reasons", [])) or str(state or "not begun")
            known[_text(unit, "folder")] = _Known(_text(unit, "name"), None if state == "complete" else why)
        lacking = tuple(_text(u, "name") for u in _list(data, "units") if u.get("whole") is False)
        return _State(known, data.get("config_only") is True, lacking)
    except FileNotFoundError:
        faults.append(Fault("no-state", _STATE))
    except (OSError, _Malformed, AttributeError, TypeError) as error:
        faults.append(Fault("state", _STATE, str(error)))
    return _State()


def _units(folder: Path, present: list[str], known: dict[str, _Known] | None) -> Iterator[_Unit]:
    for name in [*present, *(n for n in known or {} if n not in present)]:
        entry = (known or {}).get(name)
        if (folder / name / _MANIFEST).is_file():
            unit = _read_unit(folder / name)
            unit.earlier = known is not None and entry is None
            yield unit
        elif entry is not None and entry.why is None:  # it was finished, and is gone
            yield _Unit(folder / name, entry.name, faults=[Fault("missing", f"{name}/{_MANIFEST}")])
        elif entry is not None:
            yield _Unit(folder / name, entry.name, faults=[Fault("unfinished", detail=entry.why or "")])
        else:
            yield _Unit(folder / name, name, faults=[Fault("no-manifest")])


def _read_unit(folder: Path) -> _Unit:
    unit = _Unit(folder, folder.name)
    try:
        raw = (folder / _MANIFEST).read_bytes()
        unit.manifest_sha256 = hashlib.sha256(raw).hexdigest()
        data = _parse(raw)
        if data.get("format") != _FORMAT:
            unit.faults.append(Fault("format", _MANIFEST, f"format {data.get('format')!r}"))
            return unit
        unit.name = _text(data, "name")
        unit.chunk_size = _number(data, "chunk_size")
        if not unit.chunk_size:
            raise _Malformed("chunk_size is 0")
        files = tuple(_file(entry, unit.chunk_size) for entry in _list(data, "files"))
        twice = [path for path, count in Counter(f.path for f in files).items() if count > 1]
        if twice:
            raise _Malformed(f"{twice[0]} is listed twice")
        unit.files = files
        unit.missing = tuple(str(name) for name in data.get("missing", []))
        unit.faults += [
            Fault("not-copied", _text(f, "path"), _text(f, "reason")) for f in data.get("failed", [])
        ]
        if data.get("complete") is not True:
            unit.faults.append(Fault("incomplete"))
    except (OSError, _Malformed, AttributeError, TypeError) as error:
        unit.faults.append(Fault("manifest", _MANIFEST, str(error)))
    return unit


def _file(entry: Any, chunk_size: int) -> _File:
    path, size, digest = _text(entry, "path"), _number(entry, "size"), _text(entry, "sha256")
    parts = path.split("/")
    if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts) or path[1:2] == ":":
        raise _Malformed(f"{path!r} is no path below the unit's folder")
    chunks = tuple(_list(entry, "chunks"))
    if not all(isinstance(c, str) and _DIGEST.fullmatch(c) for c in (*chunks, digest)):
        raise _Malformed(f"{path}: a SHA-256 is malformed")
    if len(chunks) != -(-size // chunk_size):
        raise _Malformed(f"{path}: {len(chunks)} chunks do not make {size} bytes")
    parent = entry.get("parent")
    if parent is not None and not isinstance(parent, str):
        raise _Malformed(f"{path}: parent")
    return _File(path, size, digest, chunks, parent, len(entry.get("bad_ranges", [])))


def _load(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _MOST_JSON:
        raise _Malformed(f"{path.name} is too large")
    return _parse(path.read_bytes())


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _Malformed(f"not JSON: {error}") from error
    if not isinstance(data, dict):
        raise _Malformed("not an object")
    return data


def _text(entry: Any, name: str) -> str:
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, str) or not value:
        raise _Malformed(f"{name} is missing")
    return value


def _number(entry: Any, name: str) -> int:
    value = entry.get(name) if isinstance(entry, dict) else None
    if type(value) is not int or value < 0:
        raise _Malformed(f"{name} is no size")
    return value


def _list(entry: Any, name: str) -> list[Any]:
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, list):
        raise _Malformed(f"{name} is missing")
    return value


# --- what is really there --------------------------------------------------------------------------------------


def _check_unit(unit: _Unit, meter: _Meter) -> tuple[str, ...]:
    """Returns the files that the manifest does not know."""
    if not unit.chunk_size:
        return ()
    _check_sums(unit)
    with ThreadPoolExecutor(2) as pool:
        for file in unit.files:
            fault = _check_file(unit, file, meter, pool)
            if fault is not None:
                unit.faults.append(fault)
                unit.broken.add(file.path)
    known = {file.path for file in unit.files} | {_MANIFEST, _SUMS}
    found = (path.relative_to(unit.folder).as_posix() for path in _walk(unit.folder))
    return tuple(sorted(name for name in found if name not in known))


def _root_faults(folder: Path) -> Iterator[Fault]:
    """What lies beside the units: the scripts, what they read, and the page. capture.json changes and has no hash."""
    try:
        lines = (folder / _SUMS).read_text("utf-8", "surrogateescape").splitlines()
    except FileNotFoundError:
        if (folder / _RESTORE).exists():
            yield Fault("no-root", _SUMS)
        return
    except OSError as error:
        yield Fault("no-root", _SUMS, error.strerror or str(error))
        return
    for line in lines:
        match = _SUMS_LINE.fullmatch(line)
        if match is None or not _PLAIN.fullmatch(match[3]):
            yield Fault("root", _SUMS, f"not understood: {line[:80]}")
            continue
        try:
            with (folder / match[3]).open("rb") as file:
                good = hashlib.file_digest(file, "sha256").hexdigest() == match[2]
        except OSError as error:
            yield Fault("root", match[3], error.strerror or str(error))
        else:
            if not good:
                yield Fault("root", match[3])


def _walk(folder: Path) -> Iterator[Path]:
    for base, _, names in os.walk(folder):
        for name in names:
            yield Path(base) / name


def _check_sums(unit: _Unit) -> None:
    try:
        lines = (unit.folder / _SUMS).read_bytes().decode("utf-8", "surrogateescape").split("\n")
    except OSError as error:
        unit.faults.append(Fault("sums", _SUMS, error.strerror or str(error)))
        return
    found: dict[str, str] = {}
    for line in filter(None, lines):
        match = _SUMS_LINE.fullmatch(line)
        if match is None:
            unit.faults.append(Fault("sums", _SUMS, f"not understood: {line[:80]}"))
            return
        name = match[3]
        if match[1]:
            name = re.sub(r"\\[\\nr]", lambda m: _UNESCAPE[m[0]], name)
        found[name] = match[2]
    expected = {file.path: file.sha256 for file in unit.files} | {_MANIFEST: unit.manifest_sha256}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            unit.faults.append(Fault("sums", _SUMS, f"it does not agree with {_MANIFEST} on {name}"))


def _check_file(unit: _Unit, file: _File, meter: _Meter, pool: ThreadPoolExecutor) -> Fault | None:
    path = unit.folder.joinpath(*file.path.split("/"))
    try:
        state = path.lstat()
        if not stat.S_ISREG(state.st_mode) or not path.resolve().is_relative_to(unit.folder.resolve()):
            return Fault("missing", file.path, "it is no plain file")
        if state.st_size != file.size:
            return Fault("size", file.path, f"{state.st_size} bytes instead of {file.size}")
        whole, chunks = _hash(path, unit.chunk_size, lambda n: meter.add(unit.folder.name, n), pool)
    except (FileNotFoundError, NotADirectoryError):
        return Fault("missing", file.path)
    except OSError as error:
        code = "denied" if error.errno in (errno.EACCES, errno.EPERM) else "read"
        return Fault(code, file.path, error.strerror or str(error))
    bad = [i for i, (a, b) in enumerate(zip(chunks, file.chunks, strict=False)) if a != b]
    if bad or len(chunks) != len(file.chunks):
        places = ", ".join(f"{i * unit.chunk_size:#x}" for i in bad[:8]) + (" ..." if len(bad) > 8 else "")
        return Fault("content", file.path, f"{len(bad)} of {len(file.chunks)} chunks differ, at {places}")
    if whole != file.sha256:
        return Fault("content", file.path, "its chunks are right, the SHA-256 of the whole is not")
    if file.bad_ranges:
        return Fault("bad-range", file.path, f"{file.bad_ranges} ranges")
    return None


def _hash(
    path: Path, chunk_size: int, count: Callable[[int], None], pool: ThreadPoolExecutor
) -> tuple[str, list[str]]:
    """SHA-256 of the whole file and of each chunk. The next block is read while one is hashed."""
    whole, chunk, filled, chunks = hashlib.sha256(), hashlib.sha256(), 0, list[str]()
    buffers = [bytearray(_BLOCK), bytearray(_BLOCK)]
    running: list[Future[None]] = []
    with path.open("rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):  # what the cache remembers says nothing about the disk
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        turn = 0
        while True:
            want = min(_BLOCK, chunk_size - filled)
            view = memoryview(buffers[turn])[:want]
            got = file.readinto(view)
            for future in running:
                future.result()
            if filled == chunk_size or (not got and filled):
                chunks.append(chunk.hexdigest())
                chunk, filled = hashlib.sha256(), 0
            if not got:
                if want:
                    return whole.hexdigest(), chunks
                continue
            running = [pool.submit(whole.update, view[:got]), pool.submit(chunk.update, view[:got])]
            filled += got
            turn = 1 - turn
            count(got)


def _check_parents(units: list[_Unit], single: bool) -> None:
    """A differencing disk is worth nothing without its parent, which may lie in another unit's folder."""
    by_folder = {unit.folder.name: unit for unit in units}
    for unit in units:
        for file in unit.files:
            if file.parent is None:
                continue
            owner, path = unit, file.parent
            if path.startswith("../"):
                if single:
                    unit.faults.append(Fault("parent-unseen", file.path, file.parent))
                    continue
                if unit.earlier:  # what lies there now may be of another moment
                    unit.faults.append(Fault("parent-earlier", file.path, file.parent))
                    continue
                folder, _, path = path[3:].partition("/")
                owner = by_folder.get(folder, _Unit(unit.folder, ""))
            if path not in {f.path for f in owner.files}:
                unit.faults.append(Fault("parent", file.path, f"{file.parent} is not in this capture"))
            elif path in owner.broken:
                unit.faults.append(Fault("parent", file.path, f"{file.parent} is damaged"))
