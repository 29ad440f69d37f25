"""How long a capture will take, from a short probe of source and targets before the start."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from rehost_payload.capture.copy_pipeline import CopySettings
from rehost_payload.capture.copy_source import SourceOpener
from rehost_payload.capture.model import CapturePlan
from rehost_payload.formats.errors import FormatError
from rehost_payload.system.capture_target import AlignedBuffer, CaptureTarget
from rehost_payload.system.protocol import SystemError_

_PROBE = "rehost.probe"


@dataclass(frozen=True)
class TargetSpeed:
    """Bytes per second; 0.0 where the probe failed, and ``problem`` says why. ``free`` is bytes."""

    target: str
    write: float
    read: float
    free: int | None
    problem: str = ""


@dataclass(frozen=True)
class Estimate:
    """``size`` is bytes of source data. ``copy_seconds`` and ``verify_seconds`` follow each other; None where a speed
    could not be measured. Disks are slower at their end and with small files: it is a guess, and on the bright side."""

    size: int
    read: float
    targets: tuple[TargetSpeed, ...]
    copy_seconds: float | None
    verify_seconds: float | None

    @property
    def seconds(self) -> float | None:
        if self.copy_seconds is None or self.verify_seconds is None:
            return None
        return self.copy_seconds + self.verify_seconds


def estimate(
    plan: CapturePlan,
    opener: SourceOpener,
    targets: Sequence[CaptureTarget],
    *,
    seconds: float = 5.0,
    most: int = 512 << 20,
    clock: Callable[[], float] = time.monotonic,
) -> Estimate:
    """Reads from the largest file, then writes to all targets at the same time and reads back, each for ``seconds``
    or ``most`` bytes. The probe's file is removed again. Never raises for a source or target that refuses."""
    block = CopySettings().block_size
    read = _read_source(plan, opener, seconds, most, block, clock)
    speeds: list[TargetSpeed] = []

    def probe(target: CaptureTarget) -> None:
        speeds.append(_probe(target, seconds, min(most, max(block, plan.size)), block, clock))

    threads = [threading.Thread(target=probe, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    order = {target.info.name: index for index, target in enumerate(targets)}
    speeds.sort(key=lambda s: order[s.target])
    slowest_write = min((s.write for s in speeds), default=0.0)
    slowest_read = min((s.read for s in speeds), default=0.0)
    pace = min(read, slowest_write)
    return Estimate(
        plan.size,
        read,
        tuple(speeds),
        plan.size / pace if pace else None,
        plan.size / slowest_read if slowest_read else None,
    )


def _read_source(
    plan: CapturePlan,
    opener: SourceOpener,
    seconds: float,
    most: int,
    block: int,
    clock: Callable[[], float],
) -> float:
    files = sorted((f for u in plan.units for f in u.files), key=lambda f: -f.size)
    for file in files[:3]:
        try:
            opened = opener.open(file)
            try:
                start, done = clock(), 0
                while done < min(most, opened.source.size) and clock() - start < seconds:
                    done += len(opened.source.read_at(done, min(block, opened.source.size - done))) or most
            finally:
                opened.close()
        except (OSError, FormatError, SystemError_):
            continue
        return _rate(min(done, opened.source.size), clock() - start)
    return 0.0


def _rate(count: int, elapsed: float) -> float:
    return count / max(elapsed, 1e-6)


def _probe(
    target: CaptureTarget, seconds: float, most: int, block: int, clock: Callable[[], float]
) -> TargetSpeed:
    buffer = AlignedBuffer(block)
    buffer.view[:] = os.urandom(block)
    name, free = target.info.name, None
    try:
        free = target.free()
        most = min(most, free // 2 // block * block)
        file = target.open(_PROBE)
        try:
            start, done = clock(), 0
            while done < most and clock() - start < seconds:
                file.write_at(done, buffer.view, block)
                done += block
            file.flush()
            written = _rate(done, clock() - start)
            start, back = clock(), 0
            while back < done and clock() - start < seconds:
                back += file.read_into(back, buffer.view) or done
            read = _rate(min(back, done), clock() - start)
        finally:
            file.close()
            with suppress(SystemError_):
                target.remove(_PROBE)
    except SystemError_ as error:
        return TargetSpeed(name, 0.0, 0.0, free, str(error))
    finally:
        buffer.close()
    return TargetSpeed(name, written, read, free)
