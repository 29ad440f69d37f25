"""One target during a capture: its journal, its files under their temporary names, and whether it is still there.

Whatever the target refuses is remembered here and ends this target's part; the copy goes on with the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

from rehost_payload.capture import manifest as manifests
from rehost_payload.capture.copy_journal import FileRecord, Journal
from rehost_payload.capture.copy_pipeline import CopySettings, Destination
from rehost_payload.capture.copy_plan import PART, Job, above, layout
from rehost_payload.capture.copy_room import Room, is_current, outdated, room, was_other
from rehost_payload.capture.copy_state import EarlierCopy, TargetState
from rehost_payload.capture.copy_verify import EarlyCheck, read_back
from rehost_payload.capture.manifest import MANIFEST, SUMS
from rehost_payload.capture.model import CaptureUnit, Manifest
from rehost_payload.capture.names import MOST_FOLDER, Names, safe_name
from rehost_payload.capture.present import is_below, manifest_in, whole_copy
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
        self._room = Room(0)
        self._asides: dict[
            str, str
        ] = {}  # name of a kept copy -> when it was taken; "" where it is not whole
        self.failures: dict[str, str] = {}  # path of a file -> why it is not good on this target

    def begin(self, jobs: Sequence[Job]) -> None:
        """The first thing that is written: the folder, and the journal in it."""
        self.target.make_folders(self.folder)
        self.journal.open()
        self._find_asides()
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

    def look(self, jobs: Sequence[Job]) -> Room:
        """What there is room for; that is kept then, and no more. Raises SystemError_."""
        self._room = room(self.target, self.folder, self.journal, jobs, self.target.free())
        return self._room

    # --- a unit whose files are others than they were ---

    def is_current(self, unit: CaptureUnit) -> bool:
        """Whether what the journal knows of the unit is of the files that it has now."""
        return is_current(self.journal, unit)

    def was_other(self, unit: CaptureUnit) -> bool:
        """Whether an earlier run has copied it with other files."""
        return was_other(self.journal, unit)

    def renew(self, unit: CaptureUnit, jobs: Sequence[Job], folders: Collection[str]) -> bool:
        """Before the first file of a unit: an earlier run's copy of it gives way where that had other files. Returns
        whether it is kept under another name, which is none of ``folders``."""
        if self.is_current(unit):
            return False
        gone = outdated(self.journal, unit, jobs)
        earlier = None
        if unit.folder in self._room.kept:
            earlier = whole_copy(self.target, self.place(unit.folder))
        if earlier is not None:
            self._set_aside(unit.folder, earlier, folders)
        elif self.was_other(unit):
            self._unseal(unit.folder)
            for path in gone:
                self.target.remove(self.place(path))
                self.target.remove(self.place(path) + PART)
        self.journal.unit(unit.folder, layout(unit), gone)
        return earlier is not None

    def _set_aside(self, folder: str, manifest: Manifest, folders: Collection[str]) -> None:
        """Renames the folder of a complete copy. A power cut before the journal's next line leaves nothing in its place,
        which `renew` takes for one that is removed."""
        mark = f" (earlier {manifest.taken[:10]})"
        taken = (*self.target.names(self.folder), *folders)
        name = Names(taken).take(safe_name(folder, MOST_FOLDER - len(mark)) + mark, most=MOST_FOLDER)
        self.journal.aside(folder, name)
        self.target.rename(self.place(folder), self.place(name))
        self._asides[name] = manifest.taken

    def _find_asides(self) -> None:
        present = set(self.target.names(self.folder)) if self.journal.asides else set()
        for name in self.journal.asides:
            if name in present:
                manifest = whole_copy(self.target, self.place(name))
                self._asides[name] = manifest.taken if manifest is not None else ""

    def earlier(self, folder: str) -> tuple[EarlierCopy, ...]:
        """Complete copies of a unit with other files that are kept until the new one is complete."""
        return tuple(
            EarlierCopy(name, taken)
            for name, taken in self._asides.items()
            if taken and self.journal.asides[name] == folder
        )

    def drop_earlier(self, units: Collection[str], complete: Collection[str]) -> None:
        """Removes kept copies of the units that are ``complete`` now, but for those with which disks of another unit's
        earlier copy are still needed."""
        if not self._asides:
            return
        needed = self._needed_by([folder for folder in units if folder not in complete])
        for name in list(self._asides):
            folder = self.journal.asides[name]
            if folder in complete and folder not in needed:
                self._remove_copy(name)
                del self._asides[name]

    def _needed_by(self, waiting: list[str]) -> set[str]:
        """Folders of these units, and of those in which parents of their earlier disks lie, down to the base."""
        first, needed = set(waiting), set(waiting)
        while waiting:
            folder = waiting.pop()
            kept = [
                manifest_in(self.target, self.place(name))
                for name in self._asides
                if self.journal.asides[name] == folder
            ]
            if folder in first:  # its turn has not come yet
                kept.append(whole_copy(self.target, self.place(folder)))
            parents = {f.parent for manifest in kept if manifest is not None for f in manifest.files}
            new = {p.split("/")[1] for p in parents if p is not None and p.startswith("../")} - needed
            needed |= new
            waiting += new
        return needed

    def _remove_copy(self, name: str) -> None:
        """What its manifest lists, that one as the last file: what a power cut leaves is removed by the next run. A file
        that somebody else has put there stays, and its folder."""
        place = self.place(name)
        manifest = manifest_in(self.target, place)
        paths = [f.path for f in manifest.files if is_below(f.path)] if manifest is not None else []
        for path in (SUMS, *paths):
            self.target.remove(f"{place}/{path}")
        folders = {parent for path in paths for parent in above(path)}
        for folder in sorted(folders, key=len, reverse=True):
            self.target.remove_folder(f"{place}/{folder}")
        self.target.remove(f"{place}/{MANIFEST}")
        self.target.remove_folder(place)

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
