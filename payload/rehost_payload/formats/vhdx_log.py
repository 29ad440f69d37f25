"""The log of a VHDX file: what is still to be written to its tables, applied in memory.

Follows [MS-VHDX] 2.3. The header's GUID says that there is something to do and which entries count. Of those the
sequence with the highest number counts whose entries follow each other without a gap from the place that its last
entry calls the tail. Only headers, tables and bitmaps are ever logged, never the contents of the disk.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from rehost_payload.formats.crc32c import crc32c_without
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.source import ByteSource

SECTOR = 4096
LARGEST_LOG = 16 << 20  # bytes that are looked at; Windows makes logs of 1 MiB

_ENTRY = struct.Struct("<4sIIIQII16sQQ")
_DESCRIPTOR = struct.Struct("<4sIQQQ")
_MOST_HEADS = 256
_MOST_WRITES = 1 << 15  # a log of 1 MiB has no room for more


@dataclass(frozen=True)
class LogState:
    """``entries`` carry the header's GUID and are right, ``active`` of them are to be replayed."""

    dirty: bool
    entries: int = 0
    active: int = 0
    sectors: int = 0  # 4 KiB blocks to be written
    problem: str = ""  # why a dirty log cannot be replayed


@dataclass(frozen=True)
class Replayed:
    """The file as it is after its log was replayed. ``size`` may be larger than the file is."""

    base: ByteSource
    size: int
    writes: tuple[tuple[int, int, bytes | None], ...] = field(repr=False)  # offset, length, None is zeros

    def read_at(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self.size - offset))
        data = bytearray(self.base.read_at(offset, length) if offset < self.base.size else b"")
        data += bytes(length - len(data))
        end = offset + length
        for at, size, content in self.writes:
            start, stop = max(at, offset), min(at + size, end)
            if start < stop:
                piece = bytes(stop - start) if content is None else content[start - at : stop - at]
                data[start - offset : stop - offset] = piece
        return bytes(data)


@dataclass(frozen=True)
class _Entry:
    at: int  # in the log
    length: int
    tail: int
    sequence: int
    flushed: int
    last: int
    writes: tuple[tuple[int, int, bytes | None], ...]


def replay_log(source: ByteSource, offset: int, length: int, guid: bytes) -> tuple[LogState, ByteSource]:
    """What the log holds, and the file with it applied: ``source`` itself where that cannot be done.

    ``guid`` are the 16 bytes of the header. Never fails: a log that is of no use is described in the state.
    """
    if length > LARGEST_LOG:
        return LogState(True, problem=f"a log of {length} bytes is not read"), source
    log = source.read_at(offset, length)
    if len(log) < length or length < SECTOR:
        return LogState(True, problem="the log lies outside of the file"), source
    entries, problem = _entries(log, guid, offset)
    active = _active(entries, length)
    if not active:
        return LogState(True, len(entries), problem=problem or "no complete sequence of log entries"), source
    writes = tuple(write for entry in active for write in entry.writes)
    if len(writes) > _MOST_WRITES:
        return LogState(True, len(entries), problem=f"{len(writes)} pending writes"), source
    head = active[-1]
    state = LogState(True, len(entries), len(active), sum(size for _, size, _ in writes) // SECTOR, "")
    if source.size < head.flushed:
        problem = f"truncated: {source.size} bytes of at least {head.flushed}"
        return LogState(True, len(entries), len(active), state.sectors, problem), source
    return state, Replayed(source, max(source.size, head.last), writes)


def _entries(log: bytes, guid: bytes, log_at: int) -> tuple[dict[int, _Entry], str]:
    """Every entry with this GUID whose checksum is right, by its place; and why the search was given up."""
    found: dict[int, _Entry] = {}
    budget = 2 * len(log)  # entries do not overlap; without this, a hostile log would cost minutes
    for at in range(0, len(log), SECTOR):
        if log[at : at + 4] != b"loge" or log[at + 32 : at + 48] != guid:
            continue
        length = int.from_bytes(log[at + 8 : at + 12], "little")
        if length == 0 or length % SECTOR or length > len(log):
            continue
        budget -= length
        if budget < 0:
            return found, "log entries overlap"
        raw = log[at : at + length]
        raw += log[: length - len(raw)]  # the log is a ring
        try:
            entry = _entry(raw, at, (log_at, log_at + len(log)))
        except FormatError:
            continue
        found[at] = entry
    return found, ""


def _entry(raw: bytes, at: int, log: tuple[int, int]) -> _Entry:
    _, crc, length, tail, sequence, count, _, _, flushed, last = _ENTRY.unpack_from(raw)
    if crc != crc32c_without(raw, 4):
        raise FormatError("VHDX log entry", "wrong checksum")
    area = -(-(64 + 32 * count) // SECTOR) * SECTOR
    if tail % SECTOR or not sequence or area > length:
        raise FormatError("VHDX log entry", "its header contradicts itself")
    writes: list[tuple[int, int, bytes | None]] = []
    data = area
    for number in range(count):
        kind, trailing, leading, target, own = _DESCRIPTOR.unpack_from(raw, 64 + 32 * number)
        size = leading if kind == b"zero" else SECTOR
        if own != sequence or target % SECTOR or size % SECTOR or target + size >= 1 << 63:
            raise FormatError("VHDX log entry", "a descriptor contradicts itself")
        if target < log[1] and target + size > log[0]:
            raise FormatError("VHDX log entry", "it would write to the log")
        if kind == b"zero":
            writes.append((target, size, None))
            continue
        sector = raw[data : data + SECTOR]
        data += SECTOR
        if kind != b"desc" or len(sector) < SECTOR or sector[:4] != b"data":
            raise FormatError("VHDX log entry", "no data where they should be")
        high, low = struct.unpack_from("<I", sector, 4)[0], struct.unpack_from("<I", sector, SECTOR - 4)[0]
        if high << 32 | low != sequence:
            raise FormatError("VHDX log entry", "a torn data sector")
        writes.append(
            (target, SECTOR, struct.pack("<Q", leading) + sector[8:-4] + struct.pack("<I", trailing))
        )
    return _Entry(at, length, tail, sequence, flushed, last, tuple(writes))


def _active(entries: dict[int, _Entry], length: int) -> list[_Entry]:
    """From the tail to the head of the sequence that counts; empty where there is none."""
    heads = sorted(entries.values(), key=lambda e: e.sequence, reverse=True)
    for head in heads[:_MOST_HEADS]:
        entry = entries.get(head.tail)
        chain: list[_Entry] = []
        while entry is not None and len(chain) <= len(entries):
            chain.append(entry)
            if entry is head:
                return chain
            following = entries.get((entry.at + entry.length) % length)
            entry = following if following is not None and following.sequence == entry.sequence + 1 else None
    return []
