"""Reads a copied file back from its target, past the cache, and compares it with the digests of its chunks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

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
