"""Reads a copied file back from its target, past the cache, and compares it with the digests of its chunks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from rehost_payload.capture.copy_journal import FileRecord
from rehost_payload.capture.copy_pipeline import CopySettings, Stopped
from rehost_payload.capture.copy_source import CarefulReader, SourceChanged
from rehost_payload.system.capture_target import ALIGNMENT, AlignedBuffer, TargetFile
from rehost_payload.system.protocol import SystemError_


@dataclass(frozen=True)
class Readback:
    """``bad`` are numbers of chunks that differ or cannot be read; ``sha256`` is that of the whole file where all of
    it was read, else ""."""

    bad: tuple[int, ...]
    sha256: str


def read_back(
    file: TargetFile,
    size: int,
    chunks: Sequence[str],
    settings: CopySettings,
    buffers: Sequence[AlignedBuffer],
    *,
    first: int = 0,
    whole: bool = False,
    step: Callable[[int], None] = lambda count: None,
    stopping: Callable[[], bool] = lambda: False,
) -> Readback:
    """Compares the chunks from ``first`` on; two buffers at least: one is filled while the others are hashed.

    Raises SystemError_ where the target is gone, Stopped.
    """
    bad: list[int] = []
    total = hashlib.sha256() if whole and first == 0 else None
    with ThreadPoolExecutor(2) as pool:
        for number in range(first, len(chunks)):
            offset = number * settings.chunk_size
            end = min(size, offset + settings.chunk_size)
            digest = hashlib.sha256()
            running: list[Future[None]] = []
            turn = 0
            try:
                while offset < end:
                    if stopping():
                        raise Stopped
                    want = min(settings.block_size, end - offset)
                    view = _read(file, offset, want, buffers[turn % 2])
                    for future in running:
                        future.result()
                    running = [pool.submit(digest.update, view)]
                    if total is not None:
                        running.append(pool.submit(total.update, view))
                    offset += want
                    turn += 1
                    step(want)
                for future in running:
                    future.result()
            except SystemError_ as error:
                if error.code != "io":
                    raise
                step(end - offset)
                bad.append(number)
                total = None
                continue
            if digest.hexdigest() != chunks[number]:
                bad.append(number)
                total = None
    return Readback(tuple(bad), total.hexdigest() if total is not None else "")


class EarlyCheck:
    """Reads a file back, block by block and in order, while it is still being written.

    A chunk that differs or cannot be read is left, with all that follow it, to `read_back`."""

    def __init__(self, file: TargetFile, record: FileRecord, settings: CopySettings) -> None:
        self._file = file
        self._record = record
        self._settings = settings
        self._buffer: AlignedBuffer | None = None  # most files are too small to ever need it
        self._position = 0  # in the chunk
        self._digest = hashlib.sha256()
        self._over = False

    def step(self, chunks: int) -> bool:
        """Reads one block of the first ``chunks`` chunks, which must be whole ones; False where there is none to read.
        Raises SystemError_ where the target is gone."""
        number = self._record.checked
        if self._over or number >= chunks or not self._file.unbuffered:
            return False
        self._buffer = self._buffer or AlignedBuffer(self._settings.block_size)
        start = number * self._settings.chunk_size + self._position
        try:
            self._digest.update(_read(self._file, start, self._settings.block_size, self._buffer))
        except SystemError_ as error:
            self._over = True
            if error.code != "io":
                raise
            return False
        self._position += self._settings.block_size
        if self._position == self._settings.chunk_size:
            if self._digest.hexdigest() == self._record.chunks[number]:
                self._record.checked += 1
            else:
                self._over = True
            self._position, self._digest = 0, hashlib.sha256()
        return True


def _read(file: TargetFile, offset: int, want: int, buffer: AlignedBuffer) -> memoryview:
    """Raises SystemError_("io") where the file is shorter."""
    span = -(-want // ALIGNMENT) * ALIGNMENT
    got = file.read_into(offset, buffer.view[:span])
    if got < want:
        raise SystemError_("io", f"the file ends at {offset + got}")
    return buffer.view[:want]


def copy_again(
    file: TargetFile,
    reader: CarefulReader,
    number: int,
    size: int,
    digest: str,
    settings: CopySettings,
    buffer: AlignedBuffer,
) -> None:
    """Writes a bad chunk once more from the source. Raises SourceChanged where that reads differently now."""
    offset = number * settings.chunk_size
    end = min(size, offset + settings.chunk_size)
    found = hashlib.sha256()
    while offset < end:
        length = min(settings.block_size, end - offset)
        reader.read_into(offset, buffer.view[:length])
        span = -(-length // ALIGNMENT) * ALIGNMENT
        buffer.view[length:span] = bytes(span - length)
        found.update(buffer.view[:length])
        file.write_at(offset, buffer.view, length)
        offset += length
    file.flush()
    if found.hexdigest() != digest:
        raise SourceChanged(f"chunk {number} now reads differently from the source")
