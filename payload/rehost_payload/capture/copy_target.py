"""One target during a capture: its journal, its files under their temporary names, and whether it is still there.

Whatever the target refuses is remembered here and ends this target's part; the copy goes on with the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import groupby

from rehost_payload.capture import manifest as manifests
from rehost_payload.capture.copy_journal import FileRecord, Journal
from rehost_payload.capture.copy_pipeline import CopySettings, Destination
from rehost_payload.capture.copy_plan import PART, Job, layout
from rehost_payload.capture.copy_state import TargetState
from rehost_payload.capture.copy_verify import EarlyCheck, read_back
from rehost_payload.capture.manifest import MANIFEST, SUMS
from rehost_payload.capture.model import CaptureUnit, Manifest
from rehost_payload.formats.errors import FormatError
from rehost_payload.system.capture_target import AlignedBuffer, CaptureTarget, TargetFile
from rehost_payload.system.protocol import SystemError_


class TargetRun:
    """``folder`` is the capture's. Raises OtherCapture and SystemError_ when it is made or begun, not later.

    Making one only reads: whether a target is fit is known of all of them before one is written to.
    """

    def __init__(self, target: CaptureTarget, folder: str, identity: str, settings: CopySettings) -> None:
        self.target = target
        self.folder = folder
        self.settings = settings
        self.journal = Journal(target, folder, identity, settings.chunk_size)
        self.problem: SystemError_ | None = None
        self.unbuffered = True
        self.failures: dict[str, str] = {}  # path of a file -> why it is not good on this target

    def begin(self, jobs: Sequence[Job]) -> None:
        """The first thing that is written: the folder, and the journal in it."""
        self.target.make_folders(self.folder)
        self.journal.open()
        self._forget_missing(jobs)

    @property
    def id(self) -> str:
        return self.target.info.id

    @property
    def name(self) -> str:
        return self.target.info.name

    @property
    def alive(self) -> bool:
        return self.problem is None

    def fail(self, error: SystemError_) -> None:
        self.problem = self.problem or error

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """What the target refuses in this block ends its part, and the block."""
        try:
            yield
        except SystemError_ as error:
            self.fail(error)

    @property
    def state(self) -> TargetState:
        code, detail = (self.problem.code, self.problem.detail) if self.problem else ("", "")
        return TargetState(self.id, self.name, code, detail, self.unbuffered)

    def place(self, path: str) -> str:
        return f"{self.folder}/{path}"

    def record(self, path: str) -> FileRecord | None:
        return self.journal.files.get(path)

    def checked(self, path: str) -> int:
        """Bytes that were read back while the file was copied."""
        record = self.record(path)
        if record is None or not record.done or record.verified:
            return 0
        return record.checked * self.settings.chunk_size

    def needed(self, jobs: Sequence[Job]) -> int:
        """Bytes that are still to be allocated, at the most at any time; an allowance for folders and lists included."""
        most = total = 16 << 20
        for _, group in groupby(jobs, key=lambda job: job.unit.folder):
            mine = list(group)
            unit = mine[0].unit
            for job in mine:
                total += max(0, job.file.size - self._there(job.path)) + (16 << 10)
            planned = {job.path for job in mine}
            total -= sum(self._there(path) for path in self._outdated(unit, mine) if path not in planned)
            most = max(most, total)
        return most

    def _there(self, path: str) -> int:
        place = self.place(path)
        return max(self.target.size(place) or 0, self.target.size(place + PART) or 0)

    # --- a unit whose files are others than they were ---

    def is_current(self, unit: CaptureUnit) -> bool:
        """Whether what the journal knows of the unit is of the files that it has now."""
        return self.journal.layouts.get(unit.folder) == layout(unit)

    def was_other(self, unit: CaptureUnit) -> bool:
        """Whether an earlier run has copied it with other files."""
        return unit.folder in self.journal.layouts and not self.is_current(unit)

    def _outdated(self, unit: CaptureUnit, jobs: Sequence[Job]) -> list[str]:
        """What an earlier run has copied of the unit and that must not stay beside what it has now. Of a machine that is
        all: its disks are of one moment, or of no worth."""
        if not self.was_other(unit):
            return []
        planned = set() if unit.kind == "machine" else {job.path for job in jobs}
        start = f"{unit.folder}/"
        return [path for path in self.journal.files if path.startswith(start) and path not in planned]

    def renew(self, unit: CaptureUnit, jobs: Sequence[Job]) -> None:
        """Before the first file of a unit: an earlier run's copy of it goes where that had other files."""
        if self.is_current(unit):
            return
        gone = self._outdated(unit, jobs)
        if self.was_other(unit):
            self._unseal(unit.folder)
        for path in gone:
            self.target.remove(self.place(path))
            self.target.remove(self.place(path) + PART)
        self.journal.unit(unit.folder, layout(unit), gone)

    # --- copying a file ---

    def is_good(self, path: str, size: int) -> bool:
        """Read back in an earlier run, and its file is still there."""
        record = self.record(path)
        return (
            record is not None
            and record.verified
            and record.size == size
            and self.target.size(self.place(path)) == size
        )

    def prepare(
        self, job: Job, mark: str, size: int, buffers: Sequence[AlignedBuffer], stopping: Callable[[], bool]
    ) -> Destination | None:
        """What is missing of a file; None where nothing is. The source is what it was (``mark``), or the file is begun
        anew. Of what was flushed, the last part is read again before it is relied on."""
        record = self.record(job.path)
        if record is not None and (record.fingerprint, record.size) == (mark, size):
            if self.is_good(job.path, size):
                return None
            file = self._reopen(job.path)
            if file is not None:
                return self._resume(job, record, file, buffers, stopping)
        return self._begin(job, mark, size)

    def _reopen(self, path: str) -> TargetFile | None:
        place = self.place(path)
        if (
            self.target.size(place) is not None
        ):  # power was cut between its renaming and the journal's word for it
            self.target.rename(place, place + PART)
        return self.target.open(place + PART) if self.target.size(place + PART) is not None else None

    def _resume(
        self,
        job: Job,
        record: FileRecord,
        file: TargetFile,
        buffers: Sequence[AlignedBuffer],
        stopping: Callable[[], bool],
    ) -> Destination | None:
        try:
            if not record.done or record.verified:
                first = max(0, len(record.chunks) - -(-self.settings.flush_every // self.settings.chunk_size))
                good = self._recheck(file, record, first, buffers, stopping)
                if good < len(record.chunks) or record.verified:
                    end = min(record.size, good * self.settings.chunk_size)
                    self.journal.cut(job.path, good, end)
            if record.done:
                file.close()
                return None
            file.reserve(record.size)
        except BaseException:
            file.close()
            raise
        return self._destination(job, file, record)

    def _recheck(
        self,
        file: TargetFile,
        record: FileRecord,
        first: int,
        buffers: Sequence[AlignedBuffer],
        stopping: Callable[[], bool],
    ) -> int:
        """How many chunks are good. Where one of the last is not, a flush was not what it promised to be: then all
        of them are read."""

        def check(start: int) -> tuple[int, ...]:
            return read_back(
                file, record.size, record.chunks, self.settings, buffers, first=start, stopping=stopping
            ).bad

        bad = check(first)
        if bad and first:
            bad = check(0)
        return bad[0] if bad else len(record.chunks)

    def _begin(self, job: Job, mark: str, size: int) -> Destination:
        place = self.place(job.path)
        self._unseal(job.unit.folder)
        self.journal.begin(job.path, mark, size)
        self.target.remove(place)
        self.target.remove(place + PART)
        self.target.make_folders(place.rpartition("/")[0])
        file = self.target.open(place + PART)
        try:
            file.reserve(size)
        except BaseException:
            file.close()
            raise
        record = self.record(job.path)
        assert record is not None
        destination = self._destination(job, file, record)
        # of a copy that is resumed all of it has to be read at the end, for the hash of the whole file
        destination.early = EarlyCheck(file, record, self.settings).step
        return destination

    def _destination(self, job: Job, file: TargetFile, record: FileRecord) -> Destination:
        return Destination(
            file,
            len(record.chunks),
            lambda first, digests, bad: self.journal.chunks(job.path, first, digests, bad),
            self.name,
        )

    def complete(self, job: Job, file: TargetFile, size: int, sha256: str) -> None:
        """Every chunk is there and journalled."""
        file.finish(size, job.file.created, job.file.modified)
        self.unbuffered &= file.unbuffered
        self.journal.done(job.path, sha256)

    def forget(self, path: str) -> None:
        """What is known of an unfinished copy does not count any more: the source is another, or reads differently.
        One that was verified stays until the source is known to be another."""
        record = self.record(path)
        if record is not None and not self.is_good(path, record.size):
            self.journal.begin(path, "", 0)

    def _forget_missing(self, jobs: Sequence[Job]) -> None:
        """Somebody may have deleted what was good."""
        for job in jobs:
            record = self.record(job.path)
            if record is not None and record.verified and not self.is_good(job.path, record.size):
                self._unseal(job.unit.folder)
                self.journal.cut(job.path, 0, 0)

    def approve(self, path: str, sha256: str) -> None:
        """The file was read back and is equal: it gets its name."""
        self.target.rename(self.place(path) + PART, self.place(path))
        self.journal.good(path, sha256)

    # --- a unit's lists ---

    def _unseal(self, folder: str) -> None:
        """Takes the lists away before what they list changes. SHA256SUMS goes first: without it a unit is not
        through."""
        for name in (SUMS, MANIFEST):
            self.target.remove(f"{self.folder}/{folder}/{name}")

    def seal(self, folder: str, manifest: Manifest) -> None:
        """Writes the unit's lists, unless the same ones are there already."""
        base = f"{self.folder}/{folder}"
        self.target.make_folders(base)
        if self.target.size(f"{base}/{SUMS}") is not None:
            with suppress(FormatError, SystemError_):
                old = manifests.from_json(self.target.read(f"{base}/{MANIFEST}"))
                if _untimed(old) == _untimed(manifest):
                    return
        self._unseal(folder)
        text = manifests.to_json(manifest).encode()
        self.target.replace(f"{base}/{MANIFEST}", text)
        self.target.replace(f"{base}/{SUMS}", manifests.sums(manifest, hashlib.sha256(text).hexdigest()))


def _untimed(manifest: Manifest) -> Manifest:
    return replace(manifest, taken="", rehost="")
