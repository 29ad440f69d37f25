"""Replay of a registry hive's transaction logs: what Windows does when it loads a dirty hive.

Follows the "Windows registry file format specification" (M. Suhanov), "Format of transaction log files", "Dirty
state of a hive" and "Multiple transaction log files". Old format (to Windows 8 and Server 2012): a bitmap of dirty
512-byte pages. New format (8.1 and Server 2012 R2 on): a sequence of entries with Marvin32 hashes, which may go on
in the other log file.

An entry (new) or a log (old) is applied whole or not at all: what is torn or damaged ends the replay there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.hive_base import (
    BASE_BLOCK_SIZE,
    PAGE_SIZE,
    checksum,
    header_intact,
    is_hive,
    needs_replay,
)

_SECTOR = 512
_ENTRY_HEAD = 40
_MARVIN_SEED = 0x82EF4D887A4E55C5
_KTM_LOCKED = 1  # the only flag of the base block that a log entry carries


@dataclass(frozen=True)
class Replayed:
    """``data`` is a clean hive: equal sequence numbers, right checksum.

    ``applied`` counts log entries (new format) or logs (old format). Where it is 0 although the hive was dirty,
    nothing could be recovered: the hive is as it was when its writer was interrupted, and ``warnings`` say so.
    """

    data: bytes
    applied: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Log:
    name: str  # for warnings: "log 1", in the order given
    data: bytes
    sequence: int
    written: int
    bins_size: int
    sector: int
    old: bool


@dataclass(frozen=True)
class _Entry:
    sequence: int
    bins_size: int
    flags: int
    pages: tuple[tuple[int, int, int], ...]  # offset in the hive bins data, offset in the log, length


def replay(data: bytes, logs: Sequence[bytes]) -> Replayed:
    """Applies the logs that lie beside a hive (BCD.LOG, SYSTEM.LOG1 and SYSTEM.LOG2, in this order) to it.

    A clean hive comes back unchanged: Windows ignores its logs. Raises FormatError where ``data`` is no hive, or
    its base block is damaged and no log has a copy. Logs that are empty, foreign, stale or damaged are passed over
    with a warning. The result is never larger than the hive and its logs together.
    """
    if not is_hive(data):
        raise FormatError("regf hive", "no regf signature", 0)
    if not needs_replay(data):
        return Replayed(data, 0, ())
    warnings: list[str] = []
    usable = [log for log in _open_logs(logs, warnings) if log is not None]
    intact = header_intact(data)
    hive = bytearray(data)
    if intact:
        usable = [log for log in usable if _same_hive(data, log, warnings)]
        new = sorted((log for log in usable if not log.old), key=lambda log: log.sequence)
        old = [log for log in usable if log.old and log.written == _written(data)]
        warnings += [
            f"{log.name} belongs to another state of the hive (its time of writing differs)"
            for log in usable
            if log.old and log not in old
        ]
    else:
        # the base block is recovered from a log; of several, only the latest is of use then
        new = sorted((log for log in usable if not log.old), key=lambda log: log.sequence)[-1:]
        old = sorted((log for log in usable if log.old), key=lambda log: log.written)[-1:]
        best = (new or old)[:1]
        if not best:
            raise FormatError("regf hive", "the base block is damaged and no log has a copy of it", 508)
        warnings.append(f"the damaged base block was taken from {best[0].name}")
        hive[:_SECTOR] = best[0].data[:_SECTOR]
        struct.pack_into("<I", hive, 28, 0)  # from "transaction log" back to "primary file"
    limit = len(data) + sum(len(log) for log in logs)
    # a hive has logs of one format; where both lie about, the old ones are left over from an older Windows, and
    # newer ones no longer change the time of writing by which such a log is known to belong to the hive
    if new:
        applied, last = _apply_new(hive, new, intact, limit, warnings)
    else:
        applied, last = _apply_old(hive, old, limit, warnings)
    if not applied:
        warnings.append("no log could be applied: changes that were not yet written are lost")
    (sequence,) = struct.unpack_from("<I", hive, 4)
    # what Windows writes after a recovery: higher than any log, so that none is ever applied again
    sequence = (max(sequence, last) + 1) & 0xFFFFFFFF
    struct.pack_into("<II", hive, 4, sequence, sequence)
    struct.pack_into("<I", hive, 508, checksum(bytes(hive[:_SECTOR])))
    result = bytes(hive)
    _check_bins(result, warnings)
    return Replayed(result, applied, tuple(warnings))


def _written(base_block: bytes) -> int:
    return int.from_bytes(base_block[12:20], "little")


def _same_hive(base_block: bytes, log: _Log, warnings: list[str]) -> bool:
    """Compares the resource manager's GUID, which a hive gets once (Windows Vista on) and its logs copy.

    Windows does not look at it. But a log that another hive left under this name has page numbers that fit by
    chance only; all 32 real logs of their own hive have the hive's GUID, both foreign ones another.
    """
    mine, its = base_block[112:128], log.data[112:128]
    if mine == its or not any(mine) or not any(its):
        return True
    warnings.append(f"{log.name} belongs to another hive")
    return False


def _open_logs(logs: Sequence[bytes], warnings: list[str]) -> Iterator[_Log | None]:
    for number, data in enumerate(logs, 1):
        name = f"log {number}"
        if not data.strip(b"\0"):
            continue  # the unused one of a pair is empty
        if len(data) < 2 * _SECTOR or data[:4] != b"regf":
            warnings.append(f"{name} is no hive log")
            continue
        first, second, written = struct.unpack_from("<IIQ", data, 4)
        file_type, _, _, bins_size, cluster = struct.unpack_from("<IIIII", data, 28)
        if checksum(data) != int.from_bytes(data[508:512], "little") or first != second:
            warnings.append(f"{name} was not completely written: its base block is invalid")
            continue
        if file_type not in (1, 2, 6) or not bins_size or bins_size % PAGE_SIZE:
            warnings.append(f"{name} is no hive log: file type {file_type}, bins data size {bins_size:#x}")
            continue
        sector = _SECTOR * cluster if 1 <= cluster <= 8 and file_type != 6 else _SECTOR
        yield _Log(name, data, first, written, bins_size, sector, file_type != 6)


def _apply_new(
    hive: bytearray, logs: Sequence[_Log], intact: bool, limit: int, warnings: list[str]
) -> tuple[int, int]:
    """Returns how many entries were applied and the last one's sequence number."""
    (reached,) = struct.unpack_from("<I", hive, 8)
    applied = last = 0
    for log in logs:
        if intact and log.sequence < reached:
            warnings.append(f"{log.name} is older than the hive")
            continue
        if applied and log.sequence != last + 1:
            warnings.append(f"{log.name} starts with entry {log.sequence}, {last + 1} would be the next")
            break
        expected = log.sequence
        for entry in _entries(log, expected, warnings):
            if BASE_BLOCK_SIZE + entry.bins_size > limit:
                warnings.append(
                    f"{log.name}: entry {entry.sequence} claims {entry.bins_size:#x} bytes of data"
                )
                break
            _resize(hive, entry.bins_size)
            for target, source, length in entry.pages:
                at = BASE_BLOCK_SIZE + target
                hive[at : at + length] = log.data[source : source + length]
            (flags,) = struct.unpack_from("<I", hive, 144)
            struct.pack_into("<I", hive, 144, flags & ~_KTM_LOCKED | entry.flags & _KTM_LOCKED)
            applied += 1
            last = entry.sequence
    return applied, last


def _entries(log: _Log, expected: int, warnings: list[str]) -> Iterator[_Entry]:
    """The valid entries with consecutive sequence numbers; what follows them are remnants of older ones."""
    at = _SECTOR
    data = log.data
    while data[at : at + 4] == b"HvLE" and at + _ENTRY_HEAD <= len(data):
        size, flags, sequence, bins_size, count = struct.unpack_from("<IIIII", data, at + 4)
        if sequence != expected:
            if expected == log.sequence:
                warnings.append(f"{log.name} starts with entry {sequence} instead of {expected}")
            return
        entry = _entry(data, at, size, sequence, flags, bins_size, count)
        if entry is None:
            warnings.append(f"{log.name}: entry {sequence} is torn or damaged; it and what follows are lost")
            return
        yield entry
        at += size
        expected += 1


def _entry(
    data: bytes, at: int, size: int, sequence: int, flags: int, bins_size: int, count: int
) -> _Entry | None:
    source = at + _ENTRY_HEAD + 8 * count
    end = at + size
    if size < _SECTOR or size % _SECTOR or end > len(data) or source > end:
        return None
    if not bins_size or bins_size % PAGE_SIZE:
        return None
    hash1, hash2 = struct.unpack_from("<QQ", data, at + 24)
    if marvin32(data[at : at + 32]) != hash2 or marvin32(data[at + _ENTRY_HEAD : end]) != hash1:
        return None
    pages = []
    for i in range(count):
        offset, length = struct.unpack_from("<II", data, at + _ENTRY_HEAD + 8 * i)
        if offset + length > bins_size or source + length > end:
            return None
        pages.append((offset, source, length))
        source += length
    return _Entry(sequence, bins_size, flags, tuple(pages))


def _apply_old(hive: bytearray, logs: Sequence[_Log], limit: int, warnings: list[str]) -> tuple[int, int]:
    """Applies the first usable log: LOG1 before LOG2, as the boot loader does it."""
    for log in logs:
        bits = log.bins_size // _SECTOR
        vector = log.sector
        if log.data[vector : vector + 4] != b"DIRT":
            warnings.append(f"{log.name} has no dirty vector")
            continue
        bitmap = log.data[vector + 4 : vector + 4 + bits // 8]
        pages = vector + -(-(4 + bits // 8) // log.sector) * log.sector
        dirty = [8 * i + bit for i, byte in enumerate(bitmap) if byte for bit in range(8) if byte >> bit & 1]
        if len(bitmap) < bits // 8 or pages + len(dirty) * _SECTOR > len(log.data):
            warnings.append(f"{log.name} is cut off")
            continue
        if BASE_BLOCK_SIZE + log.bins_size > limit:
            warnings.append(f"{log.name} claims {log.bins_size:#x} bytes of data")
            continue
        trial = bytearray(hive)
        _resize(trial, log.bins_size)
        for i, page in enumerate(dirty):
            at = BASE_BLOCK_SIZE + page * _SECTOR
            trial[at : at + _SECTOR] = log.data[pages + i * _SECTOR : pages + (i + 1) * _SECTOR]
        # this format has no hashes: that the hive bins fit together afterwards is the only proof
        if bad_bin(bytes(trial)) is not None:
            warnings.append(f"{log.name} does not fit the hive")
            continue
        hive[:] = trial
        return 1, log.sequence
    return 0, 0


def _resize(hive: bytearray, bins_size: int) -> None:
    struct.pack_into("<I", hive, 40, bins_size)
    missing = BASE_BLOCK_SIZE + bins_size - len(hive)
    if missing > 0:
        hive.extend(bytes(missing))


def bad_bin(data: bytes) -> int | None:
    """Offset in the file of the first place where a hive bin should start and does not; None where all follow each other.

    Windows goes through them when it loads a hive. Reading a key does not.
    """
    (size,) = struct.unpack_from("<I", data, 40)
    at, end = BASE_BLOCK_SIZE, BASE_BLOCK_SIZE + size
    while at < end:
        if at + 32 > len(data):
            return at
        signature, offset, length = struct.unpack_from("<4sII", data, at)
        if signature != b"hbin" or offset != at - BASE_BLOCK_SIZE:
            return at
        if length < PAGE_SIZE or length % PAGE_SIZE or at + length > end:
            return at
        at += length
    return None


def _check_bins(data: bytes, warnings: list[str]) -> None:
    bad = bad_bin(data)
    if bad is not None:
        warnings.append(f"the hive is damaged at byte {bad:#x} also with its logs applied")


def marvin32(data: bytes, seed: int = _MARVIN_SEED) -> int:
    """Marvin32 (US patent 20130262421) with the seed that the registry uses; 64 bits.

    Written out without a function for the mixing step: logs have megabytes and this is the inner loop.
    """
    low, high = seed & 0xFFFFFFFF, seed >> 32
    words = len(data) // 4
    # 0x80 after the last byte, and one more round with nothing
    tail = int.from_bytes(data[4 * words :] + b"\x80", "little")
    for chunk in (struct.unpack_from(f"<{words}I", data), (tail, 0)):
        for word in chunk:
            low = low + word & 0xFFFFFFFF
            high ^= low
            low = ((low << 20 | low >> 12) + high) & 0xFFFFFFFF
            high = (high << 9 | high >> 23) & 0xFFFFFFFF ^ low
            low = ((low << 27 | low >> 5) + high) & 0xFFFFFFFF
            high = (high << 19 | high >> 13) & 0xFFFFFFFF
    return low | high << 32
