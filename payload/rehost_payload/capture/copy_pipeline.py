"""One read, several writes: the bytes of one file from its source to every target, hashed on the way.

The caller's thread reads into a small ring of aligned buffers. Two threads hash (chunks, whole file), one for each
target writes; a buffer is free again when all of them are done with it. Memory is the ring and nothing else, and the
slowest of them sets the pace.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Empty, Queue

from rehost_payload.capture.copy_source import CarefulReader, SourceChanged
from rehost_payload.capture.model import BadRange
from rehost_payload.system.capture_target import ALIGNMENT, AlignedBuffer, TargetFile
from rehost_payload.system.protocol import SystemError_

_BURST = 4  # blocks that are read back in one go: on a turning disk every turn costs two seeks
_POLL = 0.2  # seconds; waiting without end cannot be interrupted on every system


@dataclass(frozen=True)
class CopySettings:
    """Bytes; ``chunk_size`` is a multiple of ``block_size``. ``flush_every``: how much a target may hold unflushed, and
    how much of the flushed is read again when a copy is resumed."""

    chunk_size: int = 64 << 20
    block_size: int = 4 << 20
    buffers: int = 12
    flush_every: int = 1 << 30

    def __post_init__(self) -> None:
        if self.block_size % ALIGNMENT or self.chunk_size % self.block_size or self.buffers < 4:
            raise ValueError("sizes of a copy do not fit each other")


class Stopped(Exception):
    """The copy was asked to stop; what was written is flushed and journalled."""


class Ring:
    """The buffers, for one copy after the other."""

    def __init__(self, settings: CopySettings) -> None:
        self.buffers = [AlignedBuffer(settings.block_size) for _ in range(settings.buffers)]

    def close(self) -> None:
        for buffer in self.buffers:
            buffer.close()


@dataclass
class _Block:
    view: memoryview
    offset: int = 0
    length: int = 0
    users: int = 0


@dataclass
class Destination:
    """One target's part in the copy of a file: it has the first ``start`` chunks already.

    ``keep`` (first chunk, digests, bad ranges) is called in its writer's thread after these chunks were flushed.
    ``early`` (number of chunks) reads back, from the same thread, one block of the first so many, and says whether
    there was one left to read; it is called while the target would only wait for the source. ``failed`` is set when the
    target refuses; the copy goes on without it.
    """

    file: TargetFile
    start: int
    keep: Callable[[int, list[str], list[BadRange]], None]
    name: str = ""
    early: Callable[[int], bool] = lambda chunks: False
    written: int = 0
    failed: SystemError_ | None = None
    queue: Queue[_Block | None] = field(default_factory=Queue)


@dataclass
class _Hashes:
    """Digests of the chunks in the order of the file, from chunk ``first`` on."""

    first: int
    digests: list[str] = field(default_factory=list)
    bad: list[BadRange] = field(default_factory=list)
    done: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)

    def add(self, digest: str) -> None:
        with self.changed:
            self.digests.append(digest)
            self.changed.notify_all()

    def finish(self) -> None:
        with self.changed:
            self.done = True
            self.changed.notify_all()

    def get(self, start: int, end: int) -> tuple[list[str], list[BadRange]]:
        """The digests of chunks [start, end), as soon as they are known; fewer only when hashing has ended early."""
        with self.changed:
            while len(self.digests) < end - self.first and not self.done:
                self.changed.wait()
            return self.digests[start - self.first : end - self.first], list(self.bad)


class Pipeline:
    """Copies one file. ``known`` are lists of the file's chunks, as the targets have them from earlier runs: what is
    read must agree with each."""

    def __init__(
        self,
        reader: CarefulReader,
        size: int,
        destinations: Sequence[Destination],
        known: Sequence[Sequence[str]],
        settings: CopySettings,
        ring: Ring,
    ) -> None:
        self._reader = reader
        self._size = size
        self._destinations = destinations
        self._known = known
        self._settings = settings
        self._free: Queue[_Block] = Queue()
        for buffer in ring.buffers:
            self._free.put(_Block(buffer.view))
        self._lock = threading.Lock()
        self._first = min(d.start for d in destinations)
        self._hashes = _Hashes(self._first)
        self._chunk_queue: Queue[_Block | None] = Queue()
        self._whole_queue: Queue[_Block | None] = Queue()
        self._whole = hashlib.sha256() if self._first == 0 else None
        self._faults: list[BaseException] = []
        self._unstable: int | None = None

    def run(self, step: Callable[[int], None], stopping: Callable[[], bool]) -> str:
        """Copies what is missing; ``step`` is called with the bytes read of each block.

        Returns the SHA-256 of the whole file, "" where its beginning was not read. Raises SourceChanged, SourceGone,
        Stopped and KeyboardInterrupt, always after what was written has been flushed and journalled.
        """
        with self._threads():
            offset = self._first * self._settings.chunk_size
            while offset < self._size:
                if stopping():
                    raise Stopped
                if self._faults or self._unstable is not None or self._all_failed():
                    break
                block = self._take()
                if block is None:
                    continue
                length = min(self._settings.block_size, self._size - offset)
                self._fill(block, offset, length)
                self._hand_out(block)
                offset += length
                step(length)
        if self._faults:
            raise self._faults[0]
        if self._unstable is not None:
            raise SourceChanged(
                f"the chunk at {self._unstable * self._settings.chunk_size} now reads differently"
            )
        return self._whole.hexdigest() if self._whole is not None else ""

    def _all_failed(self) -> bool:
        return all(d.failed is not None for d in self._destinations)

    def _take(self) -> _Block | None:
        try:
            return self._free.get(timeout=_POLL)
        except Empty:
            return None

    def _fill(self, block: _Block, offset: int, length: int) -> None:
        bad = self._reader.read_into(offset, block.view[:length])
        if length % ALIGNMENT:
            end = -(-length // ALIGNMENT) * ALIGNMENT
            block.view[length:end] = bytes(end - length)
        block.offset, block.length = offset, length
        if bad:
            with self._hashes.changed:
                self._hashes.bad += bad

    def _hand_out(self, block: _Block) -> None:
        queues = [self._chunk_queue, *(d.queue for d in self._destinations)]
        if self._whole is not None:
            queues.append(self._whole_queue)
        block.users = len(queues)
        for queue in queues:
            queue.put(block)

    def _release(self, block: _Block) -> None:
        with self._lock:
            block.users -= 1
            if block.users == 0:
                self._free.put(block)

    @contextmanager
    def _threads(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._guard, args=(self._hash_chunks, self._chunk_queue))]
        if self._whole is not None:
            threads.append(threading.Thread(target=self._guard, args=(self._hash_whole, self._whole_queue)))
        writers = [
            (d, threading.Thread(target=self._guard, args=(self._write, d.queue, d)))
            for d in self._destinations
        ]
        threads += [thread for _, thread in writers]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            # first the hashers' end: a writer may wait for the digest of a chunk that was never completed
            for queue in (self._chunk_queue, self._whole_queue, *(d.queue for d in self._destinations)):
                queue.put(None)
            for thread in threads:
                thread.join()

    def _guard(self, work: Callable[..., None], queue: Queue[_Block | None], *arguments: object) -> None:
        """Runs a thread's work; if it fails, its queue is emptied all the same, so that nobody waits for it."""
        try:
            work(queue, *arguments)
        except BaseException as error:
            self._faults.append(error)
            self._hashes.finish()
            for block in _blocks(queue):
                self._release(block)

    def _hash_chunks(self, queue: Queue[_Block | None]) -> None:
        digest, filled, number = hashlib.sha256(), 0, self._first
        for block in _blocks(queue):
            digest.update(block.view[: block.length])
            filled += block.length
            end = block.offset + block.length
            self._release(block)
            if filled == self._settings.chunk_size or end == self._size:
                self._complete(number, digest.hexdigest())
                digest, filled, number = hashlib.sha256(), 0, number + 1
        self._hashes.finish()

    def _complete(self, number: int, digest: str) -> None:
        if any(number < len(chunks) and chunks[number] != digest for chunks in self._known):
            self._unstable = number
        self._hashes.add(digest)

    def _hash_whole(self, queue: Queue[_Block | None]) -> None:
        assert self._whole is not None
        for block in _blocks(queue):
            self._whole.update(block.view[: block.length])
            self._release(block)

    def _write(self, queue: Queue[_Block | None], destination: Destination) -> None:
        writer = _Writer(destination, self._hashes, self._settings, self._size)
        for block in _blocks(queue, writer.use_time):
            try:
                if destination.failed is None:
                    writer.write(block)
            except SystemError_ as error:
                destination.failed = error
            finally:
                self._release(block)
        try:
            if destination.failed is None:
                writer.keep()
        except SystemError_ as error:
            destination.failed = error


def _blocks(queue: Queue[_Block | None], meanwhile: Callable[[], bool] = lambda: False) -> Iterator[_Block]:
    """What comes until the end, which stays in the queue for whoever empties it after a failure.

    While nothing is there ``meanwhile`` is called, as long as it says that it did something."""
    while True:
        while queue.empty() and meanwhile():
            pass
        block = queue.get()
        if block is None:
            queue.put(None)
            return
        yield block


class _Writer:
    """Writes blocks in order and journals complete chunks after a flush."""

    def __init__(self, destination: Destination, hashes: _Hashes, settings: CopySettings, size: int) -> None:
        self._to = destination
        self._hashes = hashes
        self._settings = settings
        self._size = size
        self._kept = destination.start  # chunks that the journal knows
        self._whole = destination.start  # chunks that are written
        self._unflushed = 0
        self._started = time.monotonic()
        self._busy = 0.0  # seconds of writing

    def use_time(self) -> bool:
        """Reads back a little of what was flushed long ago; says whether it did.

        Only while the source is the slow part: a target that keeps up with it just so would lose by every turn, and the
        reading can as well be done after the copy. What was flushed last stays out: the disk's own cache might answer.
        """
        lag = -(-self._settings.flush_every // self._settings.chunk_size)
        free = time.monotonic() - self._started - self._busy
        if self._kept <= lag or free < self._busy / 2 or self._to.failed is not None:
            return False
        try:
            for turn in range(_BURST):
                if not self._to.early(self._kept - lag):
                    return turn > 0
        except SystemError_ as error:
            self._to.failed = error
            return False
        return True

    def write(self, block: _Block) -> None:
        start = time.monotonic()
        try:
            self._write(block)
        finally:
            self._busy += time.monotonic() - start

    def _write(self, block: _Block) -> None:
        end = block.offset + block.length
        if block.offset < self._to.start * self._settings.chunk_size:
            return
        self._to.file.write_at(block.offset, block.view, block.length)
        self._to.written += block.length
        self._unflushed += block.length
        if end % self._settings.chunk_size == 0 or end == self._size:
            self._whole = -(-end // self._settings.chunk_size)
            if self._unflushed >= self._settings.flush_every:
                self.keep()

    def keep(self) -> None:
        """Flushes; then, and only then, the journal may know."""
        if self._whole == self._kept:
            return
        self._to.file.flush()
        digests, bad = self._hashes.get(self._kept, self._whole)
        if digests:
            start, end = (n * self._settings.chunk_size for n in (self._kept, self._kept + len(digests)))
            self._to.keep(self._kept, digests, [b for b in bad if start <= b.offset < end])
        self._kept += len(digests)
        self._unflushed = 0
