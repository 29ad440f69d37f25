"""Writes VHDX files for tests: small, with known places, pending logs and parents."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from uuid import UUID

from rehost_payload.formats.crc32c import crc32c

MIB = 1 << 20
LOG, METADATA, BAT, DATA = MIB, 2 * MIB, 3 * MIB, 4 * MIB
PRESENT, PARTLY = 6, 7

DISK = UUID("d15cd15c-0000-4000-8000-000000000001")
FILE_WRITE = UUID("f11ef11e-0000-4000-8000-000000000001")
DATA_WRITE = UUID("da7ada7a-0000-4000-8000-000000000001")
LOG_GUID = UUID("10610610-0000-4000-8000-000000000001")

FILE_PARAMETERS = UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
VIRTUAL_SIZE = UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
DISK_ID = UUID("beca12ab-b2e6-4523-93ef-c309e000c746")
LOGICAL = UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f")
PHYSICAL = UUID("cda348c7-445d-4471-9cc9-e9885251c556")
PARENT = UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")
LOCATOR_TYPE = UUID("b04aefb7-d19e-4a81-b789-25b8e9445913")
BAT_REGION = UUID("2dc27766-f623-4200-9d64-115e9bfd4a08")
METADATA_REGION = UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")

USER, VIRTUAL, REQUIRED = 1, 2, 4


def sealed(data: bytes | bytearray, at: int = 4) -> bytes:
    """The structure with its CRC-32C written at ``at``."""
    blank = bytearray(data)
    blank[at : at + 4] = bytes(4)
    blank[at : at + 4] = struct.pack("<I", crc32c(bytes(blank)))
    return bytes(blank)


def header(
    sequence: int, log_guid: UUID | None = None, data_write: UUID = DATA_WRITE, version: int = 1
) -> bytes:
    log = log_guid.bytes_le if log_guid else bytes(16)
    raw = struct.pack(
        "<4sIQ16s16s16sHHIQ",
        b"head", 0, sequence, FILE_WRITE.bytes_le, data_write.bytes_le, log, 0, version, MIB, LOG,
    )  # fmt: skip
    return sealed(raw.ljust(4096, b"\0"))


def region_table(regions: Sequence[tuple[UUID, int, int, int]]) -> bytes:
    raw = struct.pack("<4sIII", b"regi", 0, len(regions), 0)
    raw += b"".join(
        struct.pack("<16sQII", guid.bytes_le, at, size, flags) for guid, at, size, flags in regions
    )
    return sealed(raw.ljust(0x10000, b"\0"))


REGIONS = ((BAT_REGION, BAT, MIB, 1), (METADATA_REGION, METADATA, MIB, 1))


def locator(entries: Mapping[str, str]) -> bytes:
    head = LOCATOR_TYPE.bytes_le + struct.pack("<HH", 0, len(entries))
    at = 20 + 12 * len(entries)
    texts = b""
    for key, value in entries.items():
        k, v = key.encode("utf-16-le"), value.encode("utf-16-le")
        head += struct.pack("<IIHH", at, at + len(k), len(k), len(v))
        texts += k + v
        at += len(k) + len(v)
    return head + texts


def metadata(items: Sequence[tuple[UUID, bytes, int]]) -> bytes:
    table, data = struct.pack("<8sHH20x", b"metadata", 0, len(items)), b""
    for guid, raw, flags in items:
        table += struct.pack("<16sIIII", guid.bytes_le, 0x10000 + len(data), len(raw), flags, 0)
        data += raw
    return (table.ljust(0x10000, b"\0") + data).ljust(MIB, b"\0")


def items(
    *, virtual_size: int = 64 * MIB, block_size: int = 2 * MIB, flags: int = 0, logical: int = 512,
    parent: Mapping[str, str] | None = None, more: Sequence[tuple[UUID, bytes, int]] = (),
) -> list[tuple[UUID, bytes, int]]:  # fmt: skip
    found = [
        (FILE_PARAMETERS, struct.pack("<II", block_size, flags | (2 if parent is not None else 0)), REQUIRED),
        (VIRTUAL_SIZE, struct.pack("<Q", virtual_size), REQUIRED | VIRTUAL),
        (LOGICAL, struct.pack("<I", logical), REQUIRED | VIRTUAL),
        (PHYSICAL, struct.pack("<I", 4096), REQUIRED | VIRTUAL),
        (DISK_ID, DISK.bytes_le, REQUIRED | VIRTUAL),
    ]
    if parent is not None:
        found.append((PARENT, locator(parent), REQUIRED))
    return [*found, *more]


def build(
    content: Sequence[tuple[UUID, bytes, int]] | None = None,
    *,
    bat: Mapping[int, tuple[int, int]] = {0: (PRESENT, 4), 3: (PRESENT, 6)},
    size: int = 8 * MIB,
    sequences: tuple[int, int] = (1, 2),
    log: bytes = b"",
    log_guid: UUID | None = None,
    data_write: UUID = DATA_WRITE,
    regions: Sequence[tuple[UUID, int, int, int]] = REGIONS,
) -> bytearray:
    """A file; ``bat`` gives state and place in MiB of entries that are not 0. ``log`` fills the log's region."""
    data = bytearray(size)
    data[:8] = b"vhdxfile"
    creator = "test".encode("utf-16-le")
    data[8 : 8 + len(creator)] = creator
    for at, sequence in zip((0x10000, 0x20000), sequences, strict=True):
        data[at : at + 4096] = header(sequence, log_guid, data_write)
    for at in (0x30000, 0x40000):
        data[at : at + 0x10000] = region_table(regions)
    data[LOG : LOG + len(log)] = log
    data[METADATA : METADATA + MIB] = metadata(content if content is not None else items())
    for index, (state, place) in bat.items():
        struct.pack_into("<Q", data, BAT + 8 * index, state | place << 20)
    return data


def log_entry(
    sequence: int,
    writes: Sequence[tuple[int, bytes | int]],
    *,
    tail: int = 0,
    guid: UUID = LOG_GUID,
    flushed: int = 8 * MIB,
    last: int = 8 * MIB,
) -> bytes:
    """One entry; a write is 4 KiB of data or a number of zero bytes."""
    descriptors, sectors = b"", b""
    for target, data in writes:
        if isinstance(data, int):
            descriptors += struct.pack("<4sIQQQ", b"zero", 0, data, target, sequence)
            continue
        assert len(data) == 4096
        trailing, leading = struct.unpack("<I", data[-4:])[0], struct.unpack("<Q", data[:8])[0]
        descriptors += struct.pack("<4sIQQQ", b"desc", trailing, leading, target, sequence)
        sectors += b"data" + struct.pack("<I", sequence >> 32) + data[8:-4]
        sectors += struct.pack("<I", sequence & 0xFFFFFFFF)
    area = -(-(64 + len(descriptors)) // 4096) * 4096
    length = area + len(sectors)
    head = struct.pack(
        "<4sIIIQII16sQQ",
        b"loge", 0, length, tail, sequence, len(writes), 0, guid.bytes_le, flushed, last,
    )  # fmt: skip
    return sealed((head + descriptors).ljust(area, b"\0") + sectors)
