"""VHDX files of our own writer: checksums, logs, tables, parents; qemu-img is asked as well where it is installed."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_payload.formats import vhdx_log
from rehost_payload.formats.crc32c import crc32c, crc32c_without
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.source import BytesSource
from rehost_payload.formats.vhdx import Vhdx, is_vhdx, parse_vhdx
from support import vhdx_image as image
from support.effort import at_most
from support.sources import PatchedSource
from support.vhdx_image import BAT, LOG, METADATA, MIB, PARTLY, PRESENT

PATHS = {
    "parent_linkage": "{DA7ADA7A-0000-4000-8000-000000000009}",
    "parent_linkage2": "{00000000-0000-0000-0000-000000000000}",
    "relative_path": ".\\base.vhdx",
    "absolute_win32_path": "E:\\VMs\\base.vhdx",
    "volume_path": "\\\\?\\Volume{0EBA351E-5634-46D6-A8CF-4DDC2D6AC0B9}\\VMs\\base.vhdx",
}
NEW_UNKNOWN = UUID("77777777-0000-4000-8000-000000000001")
BASE = bytes(image.build())


def parse(data: bytes | bytearray) -> Vhdx:
    return parse_vhdx(BytesSource(bytes(data)))


def qemu(*arguments: str | Path) -> str:
    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-img is not installed (qemu-utils)")
    done = subprocess.run(
        ["qemu-img", *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def info(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(qemu("info", "--output=json", path))
    return found


def test_the_checksum() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of the Castagnoli polynomial
    assert crc32c(b"6789", crc32c(b"12345")) == 0xE3069283
    assert crc32c_without(b"12abcd34", 2) == crc32c(b"12\0\0\0\x0034")


def test_a_dynamic_disk(tmp_path: Path) -> None:
    disk = parse(BASE)
    assert (disk.kind, disk.creator, disk.virtual_size, disk.block_size) == (
        "dynamic",
        "test",
        64 * MIB,
        2 * MIB,
    )
    assert (disk.logical_sector, disk.physical_sector) == (512, 4096)
    assert disk.disk_id == str(image.DISK)
    assert disk.header.data_write_guid == str(image.DATA_WRITE)
    assert not disk.log.dirty
    assert disk.parent is None
    assert (disk.blocks.entries, disk.blocks.bitmaps, disk.blocks.allocated_end) == (32, 0, 8 * MIB)
    assert disk.blocks.states == {"not present": 30, "present": 2}
    assert disk.problems == ()
    assert disk.notes == ()
    path = tmp_path / "disk.vhdx"
    path.write_bytes(BASE)
    assert info(path)["virtual-size"] == disk.virtual_size
    assert "No errors" in qemu("check", path)


@pytest.mark.parametrize("subformat", ["dynamic", "fixed"])
def test_disks_made_by_qemu(tmp_path: Path, subformat: str) -> None:
    path = tmp_path / "disk.vhdx"
    qemu(
        "create",
        "-q",
        "-f",
        "vhdx",
        "-o",
        f"subformat={subformat},block_size=1M,block_state_zero=off",
        path,
        "20M",
    )
    disk = parse(path.read_bytes())
    assert disk.virtual_size == info(path)["virtual-size"] == 20 * MIB
    assert disk.kind == subformat
    assert disk.block_size == MIB
    assert disk.blocks.states.get("present", 0) == (20 if subformat == "fixed" else 0)
    assert disk.problems == ()


def test_the_header_with_the_higher_sequence_counts() -> None:
    for sequences, copy in (((1, 2), 1), ((9, 2), 0), ((1, 1), 0)):
        assert parse(image.build(sequences=sequences)).header.copy == copy


def test_one_damaged_header() -> None:
    data = bytearray(BASE)
    data[0x20000 + 4000] ^= 1  # the checksum covers all of its 4 KiB
    disk = parse(data)
    assert disk.header.copy == 0
    assert disk.notes == ("header 2: wrong checksum",)
    data[0x10000] ^= 1
    with pytest.raises(FormatError, match="header 1: no signature; header 2: wrong checksum"):
        parse(data)


def test_headers_of_another_version() -> None:
    data = bytearray(BASE)
    for at in (0x10000, 0x20000):
        data[at : at + 4096] = image.header(1, version=2)
    with pytest.raises(FormatError, match="version 2"):
        parse(data)


def test_damaged_region_tables() -> None:
    data = bytearray(BASE)
    data[0x30000 + 60000] ^= 1
    assert parse(data).notes == ("region table 1: wrong checksum",)
    data[0x40000 + 60000] ^= 1
    with pytest.raises(FormatError, match="region table 2: wrong checksum"):
        parse(data)


@pytest.mark.parametrize(
    ("regions", "problem"),
    [
        ([*image.REGIONS, (NEW_UNKNOWN, 5 * MIB, MIB, 1)], "unknown region .* is required"),
        (image.REGIONS[:1], "one region metadata"),
        ([*image.REGIONS, image.REGIONS[0]], "overlaps"),
        ([(image.BAT_REGION, LOG, MIB, 1), image.REGIONS[1]], "overlaps"),
        ([(image.BAT_REGION, 100 * MIB, MIB, 1), image.REGIONS[1]], "does not fit"),
        ([(image.BAT_REGION, BAT, 0, 1), image.REGIONS[1]], "does not fit"),
        ([(image.BAT_REGION, BAT + 1, MIB, 1), image.REGIONS[1]], "does not fit"),
    ],
)
def test_regions_that_are_refused(regions: list[tuple[UUID, int, int, int]], problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        parse(image.build(regions=regions))


def test_an_unknown_region_that_is_not_required() -> None:
    regions = [*image.REGIONS, (NEW_UNKNOWN, 5 * MIB, MIB, 0)]
    assert [r.name for r in parse(image.build(regions=regions)).regions] == ["BAT", "metadata", ""]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (image.items(more=[(NEW_UNKNOWN, b"x", image.REQUIRED)]), "unknown item .* is required"),
        (image.items(more=[(NEW_UNKNOWN, b"x", image.REQUIRED | image.USER)]), "unknown item .* is required"),
        (image.items(more=[(image.DISK_ID, bytes(16), 0)]), "occurs twice"),
        (image.items()[1:], "without file parameters"),
        ([(image.FILE_PARAMETERS, b"abc", 4), *image.items()[1:]], "file parameters of 3 bytes"),
        (image.items(block_size=3 * MIB), "blocks of"),
        (image.items(block_size=512 * MIB), "blocks of"),
        (image.items(logical=1000), "sectors of"),
        (image.items(virtual_size=0), "a disk of"),
        (image.items(virtual_size=1 << 63), "a disk of"),
        (image.items(virtual_size=1000), "a disk of"),
        (image.items(virtual_size=8 << 40), "entries do not fit"),
        (image.items(flags=2), "without parent locator"),
    ],
)
def test_metadata_that_is_refused(content: list[tuple[UUID, bytes, int]], problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        parse(image.build(content))


def test_metadata_that_is_odd() -> None:
    unfinished = UUID("71cc85f0-1b69-4e28-9558-c3bf83ae75d3")
    disk = parse(image.build(image.items(flags=1, more=[(unfinished, b"", 4), (NEW_UNKNOWN, b"x", 1)])))
    assert disk.kind == "fixed"
    assert disk.problems == ("its creation was never finished",)


def test_a_differencing_disk() -> None:
    """Bitmaps stand between the blocks: 64 MiB in 16 MiB blocks of 512-byte sectors are 4 of 256 per chunk."""
    content = image.items(block_size=16 * MIB, parent=PATHS, virtual_size=8192 * MIB)
    bat = {0: (PARTLY, 8), 256: (PRESENT, 5), 300: (3, 0)}
    disk = parse(image.build(content, bat=bat, size=24 * MIB))
    assert disk.kind == "differencing"
    parent = disk.parent
    assert parent is not None
    assert parent.linkage == "da7ada7a-0000-4000-8000-000000000009"
    assert parent.relative_path == ".\\base.vhdx"
    assert parent.volume_path.endswith("\\VMs\\base.vhdx")
    assert disk.blocks.entries == 2 * 257
    assert disk.blocks.bitmaps == 1
    assert disk.blocks.states == {"not present": 510, "unmapped": 1, "partly present": 1}
    assert disk.problems == ()


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "0 bytes"),
        (bytes(30), "type .* is not known"),
        (image.LOCATOR_TYPE.bytes_le + struct.pack("<HH", 0, 300) + bytes(9999), "300 entries"),
        (image.LOCATOR_TYPE.bytes_le + struct.pack("<HHIIHH", 0, 1, 32, 32, 2, 9), "entry 1 does not fit"),
    ],
)
def test_locators_that_are_refused(raw: bytes, problem: str) -> None:
    content = [*image.items(flags=2), (image.PARENT, raw, 4)]
    with pytest.raises(FormatError, match=problem):
        parse(image.build(content))


def test_blocks_outside_of_the_file() -> None:
    disk = parse(image.build(bat={0: (PRESENT, 4), 1: (PRESENT, 7), 2: (PRESENT, 1 << 43)}))
    assert disk.problems == (
        f"truncated: 2 blocks lie beyond the end; {(1 << 63) + 2 * MIB} bytes are needed",
    )
    # what is not present may say what it likes
    assert parse(image.build(bat={0: (3, 1 << 43), 1: (2, 99)})).problems == ()


def test_entries_that_cannot_be_right() -> None:
    disk = parse(image.build(bat={0: (PRESENT, 0), 1: (PARTLY, 4)}))
    assert disk.problems == ("2 BAT entries cannot be right",)


# --- the log


def bat_page(blocks: dict[int, tuple[int, int]]) -> bytes:
    page = bytearray(4096)
    for index, (state, place) in blocks.items():
        struct.pack_into("<Q", page, 8 * index, state | place << 20)
    return bytes(page)


OLD, NEW = {0: (PRESENT, 4)}, {0: (PRESENT, 4), 5: (PRESENT, 6)}


def dirty(*entries: bytes) -> bytearray:
    return image.build(bat=OLD, log=b"".join(entries), log_guid=image.LOG_GUID)


def test_a_pending_log_is_replayed_in_memory(tmp_path: Path) -> None:
    data = dirty(image.log_entry(7, [(BAT, bat_page(NEW))]))
    disk = parse(data)
    assert (disk.log.dirty, disk.log.active, disk.log.sectors, disk.log.problem) == (True, 1, 1, "")
    assert disk.blocks.states["present"] == 2
    assert "log replayed" in disk.notes[0]
    # qemu-img replays it on the disk: then we read the same without a log
    path = tmp_path / "disk.vhdx"
    path.write_bytes(data)
    qemu("check", "-r", "all", path)
    after = parse(path.read_bytes())
    assert not after.log.dirty
    assert after.blocks == disk.blocks


def test_entries_that_follow_each_other() -> None:
    first = image.log_entry(7, [(BAT, bat_page(NEW))])
    second = image.log_entry(8, [(BAT, 4096)])
    third = image.log_entry(9, [(BAT, bat_page({1: (PRESENT, 4)}))])
    disk = parse(dirty(first, second, third))
    assert (disk.log.entries, disk.log.active) == (3, 3)
    assert disk.blocks.states["present"] == 1
    # the third says that the first two were written already
    late = image.log_entry(9, [], tail=len(first) + len(second))
    disk = parse(dirty(first, second, late))
    assert (disk.log.active, disk.blocks.states["present"]) == (1, 1)
    # a gap: only what comes before it counts
    disk = parse(dirty(first, image.log_entry(9, [(BAT, 4096)])))
    assert (disk.log.entries, disk.log.active, disk.blocks.states["present"]) == (2, 1, 2)


def test_zeros_from_the_log() -> None:
    disk = parse(dirty(image.log_entry(7, [(BAT, 4096)])))
    assert "present" not in disk.blocks.states


def test_an_entry_that_goes_round_the_end_of_the_log() -> None:
    entry = image.log_entry(7, [(BAT, bat_page(NEW))], tail=MIB - 4096)
    data = dirty(entry[4096:])
    data[LOG + MIB - 4096 : LOG + MIB] = entry[:4096]
    assert parse(data).blocks.states["present"] == 2


def test_entries_of_another_time_do_not_count() -> None:
    other = image.log_entry(99, [(BAT, 4096)], guid=image.DISK)
    disk = parse(dirty(image.log_entry(7, [(BAT, bat_page(NEW))]), other))
    assert (disk.log.entries, disk.blocks.states["present"]) == (1, 2)


@pytest.mark.parametrize("spot", [8, 70, 4096 + 2, 4096 + 100, 8191])
def test_torn_entries_do_not_count(spot: int) -> None:
    entry = bytearray(image.log_entry(7, [(BAT, bat_page(NEW))]))
    entry[spot] ^= 1
    disk = parse(dirty(bytes(entry)))
    assert disk.log.active == 0
    assert disk.problems == ("the log has to be replayed, but: no complete sequence of log entries",)
    assert disk.blocks.states["present"] == 1


def test_an_entry_that_would_write_to_the_log() -> None:
    assert parse(dirty(image.log_entry(7, [(LOG + 4096, bytes(4096))]))).log.active == 0
    assert parse(dirty(image.log_entry(7, [(0, 1 << 40)]))).log.active == 0


def test_a_file_that_is_shorter_than_its_log_says() -> None:
    disk = parse(dirty(image.log_entry(7, [(BAT, bat_page(NEW))], flushed=9 * MIB)))
    assert "truncated" in disk.problems[0]
    assert disk.blocks.states["present"] == 1


def test_a_region_table_that_is_only_in_the_log() -> None:
    table = image.region_table(image.REGIONS)
    writes: list[tuple[int, bytes | int]] = [
        (0x30000 + i, table[i : i + 4096]) for i in range(0, 0x10000, 4096)
    ]
    data = dirty(image.log_entry(7, writes))
    data[0x30000:0x50000] = bytes(0x20000)
    assert parse(data).notes[0].startswith("not closed properly")


# --- hostile files

DIRTY = bytes(
    image.build(
        image.items(parent=PATHS), bat=OLD, log=image.log_entry(7, [(BAT, bat_page(NEW))]), log_guid=image.LOG_GUID
    )
)  # fmt: skip
PLACES = [0, 0x10000, 0x20000, 0x30000, 0x40000, LOG, LOG + 4096, METADATA, METADATA + 0x10000, BAT]
SPOTS = sorted({p + o for p in PLACES for o in range(260)})


@settings(max_examples=80, deadline=None)
@given(
    data=st.sampled_from([BASE, DIRTY]),
    changes=st.lists(st.tuples(st.sampled_from(SPOTS), st.integers(0, 255)), min_size=1, max_size=6),
    fixed=st.booleans(),
)
def test_mutated_files(data: bytes, changes: list[tuple[int, int]], fixed: bool) -> None:
    patches = {at: bytes([byte]) for at, byte in changes}
    if fixed:  # with right checksums, so that what they protect is reached
        mutated = bytearray(PatchedSource(data, patches).read_at(0, len(data)))
        for at, size in ((0x10000, 4096), (0x20000, 4096), (0x30000, 0x10000)):
            patches[at] = image.sealed(mutated[at : at + size])[:260]
        if data is DIRTY:
            patches[LOG] = image.sealed(mutated[LOG : LOG + 8192])[:260]
    with at_most(1_000_000), suppress(FormatError):
        disk = parse_vhdx(PatchedSource(data, patches))
        assert 0 < disk.virtual_size <= 64 << 40


def test_truncated_anywhere() -> None:
    for length in [
        *range(0, 20),
        0x10000,
        0x11000,
        0x30001,
        0x50000,
        LOG,
        METADATA,
        METADATA + 100,
        BAT,
        BAT + 5,
    ]:
        with pytest.raises(FormatError):
            parse(BASE[:length])
    assert not is_vhdx(BytesSource(b"vhdxfil"))


def test_overlapping_log_entries_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sector says that it begins an entry as long as the log: no more is summed up than the log twice."""
    summed = 0

    def counted(data: bytes, at: int) -> int:
        nonlocal summed
        summed += len(data)
        return crc32c_without(data, at)

    monkeypatch.setattr(vhdx_log, "crc32c_without", counted)
    head = struct.pack("<4sIIIQII16sQQ", b"loge", 1, MIB, 0, 1, 0, 0, image.LOG_GUID.bytes_le, 0, 0)
    data = dirty(head.ljust(4096, b"\0") * 256)
    assert "overlap" in parse(data).problems[0]
    assert 0 < summed <= 2 * MIB
