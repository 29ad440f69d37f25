"""GPT and MBR: read what the generator and independent tools say, survive what they never write."""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rehost_payload.formats import gpt, mbr
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.partitions import detect_sector_size, read_table
from rehost_payload.formats.source import BytesSource
from support import disks
from support.disks import MIB, DiskLayout, PartitionSpec

SMALL = 8 * MIB


def image(disk: DiskLayout) -> BytesSource:
    return BytesSource(disk.path.read_bytes())


def raw_gpt(path: Path, sector_size: int = 512, **more: object) -> DiskLayout:
    specs = [
        PartitionSpec("esp", MIB, type=disks.EFI_SYSTEM, name="EFI system partition"),
        PartitionSpec("msr", MIB, type=disks.MICROSOFT_RESERVED),
        PartitionSpec("windows", 2 * MIB, name="Basic data partition ä", attributes=1 << 63 | 1),
    ]
    return disks.make_disk(path, specs, size=SMALL, sector_size=sector_size, **more)  # type: ignore[arg-type]


def raw_mbr(path: Path, logical: int = 0, **more: object) -> DiskLayout:
    specs = [PartitionSpec("system", MIB, type="07", active=True), PartitionSpec("windows", MIB, type="07")]
    inner = [PartitionSpec(f"data{i}", MIB, type="07") for i in range(logical)]
    return disks.make_disk(path, specs, style="mbr", logical=inner, boot_code=b"\x33\xc0", **more)  # type: ignore[arg-type]


def write(disk: DiskLayout, writes: list[gpt.Write]) -> None:
    for item in writes:
        disks.write_bytes(disk.path, item.offset, item.data)


def tool(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


# --- GPT
# --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_gpt_is_read_as_written(tmp_path: Path, sector_size: int) -> None:
    disk = raw_gpt(tmp_path / "a.img", sector_size)
    source = image(disk)
    assert detect_sector_size(source) == sector_size
    table = read_table(source, sector_size)
    assert table.problems == ()
    assert table.gpt is not None
    assert table.gpt.table.disk_guid == disk.disk_guid
    assert table.gpt.primary is not None
    assert table.gpt.backup is not None
    found = [
        (e.number, e.first_lba * sector_size, (e.last_lba - e.first_lba + 1) * sector_size, e.type_guid)
        for e in table.gpt.entries
    ]
    assert found == [(p.number, p.offset, p.size, p.type) for p in disk.partitions]
    assert [e.unique_guid for e in table.gpt.entries] == [p.unique_guid for p in disk.partitions]
    assert [e.name for e in table.gpt.entries] == [p.name for p in disk.partitions]
    assert [e.attributes for e in table.gpt.entries] == [p.attributes for p in disk.partitions]


def test_sgdisk_agrees_with_the_reader(tmp_path: Path) -> None:
    disk = raw_gpt(tmp_path / "a.img")
    assert "No problems found" in tool("sgdisk", "-v", str(disk.path))
    table = read_table(image(disk), 512).gpt
    assert table is not None
    for entry in table.entries:
        said = tool("sgdisk", "-i", str(entry.number), str(disk.path)).lower()
        assert f"partition unique guid: {entry.unique_guid}" in said
        assert f"first sector: {entry.first_lba} " in said
        assert f"last sector: {entry.last_lba} " in said
        assert entry.type_guid in said


def test_sgdisk_written_table_is_read(tmp_path: Path) -> None:
    """A table that is not by our generator: odd entry numbers, another tool's defaults."""
    path = tmp_path / "s.img"
    with path.open("wb") as file:
        file.truncate(64 * MIB)
    tool(
        "sgdisk",
        "-o",
        "-n",
        "3:2048:+4M",
        "-t",
        "3:ef00",
        "-n",
        "7:0:+8M",
        "-t",
        "7:0700",
        "-c",
        "7:x y",
        str(path),
    )
    table = read_table(BytesSource(path.read_bytes()), 512).gpt
    assert table is not None
    assert [(e.number, e.first_lba, e.name) for e in table.entries] == [
        (3, 2048, ""),
        (7, 10240, "x y"),
    ]
    assert table.problems == ()


def test_damaged_primary_falls_back_to_the_backup(tmp_path: Path) -> None:
    disk = raw_gpt(tmp_path / "a.img")
    whole = disk.path.read_bytes()
    for array in (False, True):
        disk.path.write_bytes(whole)
        disks.damage_gpt(disk, primary=True, array=array)
        table = read_table(image(disk), 512)
        assert table.gpt is not None
        assert table.gpt.primary is None
        assert [e.unique_guid for e in table.gpt.entries] == [p.unique_guid for p in disk.partitions]
        assert any("primary GPT" in problem for problem in table.problems)
        write(disk, gpt.rebuild_primary(table.gpt))
        assert disk.path.read_bytes() == whole
        assert "No problems found" in tool("sgdisk", "-v", str(disk.path))


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_damaged_backup_is_rebuilt(tmp_path: Path, sector_size: int) -> None:
    disk = raw_gpt(tmp_path / "a.img", sector_size)
    whole = disk.path.read_bytes()
    disks.damage_gpt(disk, backup=True)
    table = read_table(image(disk), sector_size)
    assert table.gpt is not None
    assert table.gpt.backup is None
    write(disk, gpt.rebuild_backup(table.gpt))
    assert disk.path.read_bytes() == whole


def test_both_copies_damaged(tmp_path: Path) -> None:
    disk = raw_gpt(tmp_path / "a.img")
    disks.damage_gpt(disk, primary=True, backup=True)
    table = read_table(image(disk), 512)
    assert table.gpt is None
    assert table.gpt_expected
    assert table.problems
    with pytest.raises(FormatError):
        gpt.parse(image(disk), 512)


def test_grown_disk_has_its_backup_in_the_middle(tmp_path: Path) -> None:
    """A restore to a larger disk: the primary names the old place of the backup."""
    disk = raw_gpt(tmp_path / "a.img")
    with disk.path.open("r+b") as file:
        file.truncate(SMALL * 2)
    table = read_table(image(disk), 512)
    assert table.gpt is not None
    assert table.gpt.backup is not None
    assert "the backup GPT is not at the end of the disk" in table.problems


def test_gpt_counts_only_under_a_protective_mbr(tmp_path: Path) -> None:
    disk = raw_gpt(tmp_path / "a.img")
    disks.write_bytes(disk.path, 446, struct.pack("<B3sB3sII", 0x80, b"", 7, b"", 2048, 2048))
    table = read_table(image(disk), 512)
    assert table.gpt is None
    assert table.mbr is not None
    assert [p.type for p in table.mbr.partitions] == [7]
    assert any("remains of a GPT" in problem for problem in table.problems)


def test_wiped_protective_mbr_is_named_and_can_be_made_anew(tmp_path: Path) -> None:
    disk = raw_gpt(tmp_path / "a.img", signature=0x1234ABCD)
    whole = disk.path.read_bytes()
    disks.write_bytes(disk.path, 446, bytes(66))
    table = read_table(image(disk), 512)
    assert table.gpt is not None
    assert "the protective MBR is missing" in table.problems
    sector = mbr.protective(disks.read_bytes(disk.path, 0, 512), SMALL // 512)
    assert sector[:446] == whole[:446]
    disks.write_bytes(disk.path, 0, sector)
    assert read_table(image(disk), 512).problems == ()
    assert "No problems found" in tool("sgdisk", "-v", str(disk.path))


@pytest.mark.parametrize(
    ("first", "last", "problem"),
    [(4096, 4095, "outside"), (2048, 1 << 40, "outside"), (2048, 4095, "overlap"), (0, 5, "outside")],
)
def test_impossible_entries_are_named(tmp_path: Path, first: int, last: int, problem: str) -> None:
    disk = raw_gpt(tmp_path / "a.img")
    array = bytearray(disks.read_bytes(disk.path, 1024, 128 * 128))
    struct.pack_into("<QQ", array, 128 + 32, first, last)
    for lba, start in ((1, 1024), (SMALL // 512 - 1, SMALL - 512 * 33)):
        disks.write_bytes(disk.path, start, bytes(array))
        header = bytearray(disks.read_bytes(disk.path, lba * 512, 92))
        import zlib

        struct.pack_into("<I", header, 88, zlib.crc32(array))
        struct.pack_into("<I", header, 16, 0)
        struct.pack_into("<I", header, 16, zlib.crc32(header))
        disks.write_bytes(disk.path, lba * 512, bytes(header))
    table = read_table(image(disk), 512)
    assert table.gpt is not None
    assert table.gpt.primary is not None
    assert any(problem in text for text in table.problems)


# --- MBR
# --------------------------------------------------------------------------------------------------------


def test_mbr_with_logical_partitions_reads_as_partx_reads_it(tmp_path: Path) -> None:
    disk = raw_mbr(tmp_path / "m.img", logical=5, signature=0xCAFE0001)
    table = read_table(image(disk), 512)
    assert table.problems == ()
    assert table.mbr is not None
    assert table.mbr.signature == 0xCAFE0001
    assert table.mbr.boot_code == "other"
    ours = [
        (p.number, p.first_lba, p.sectors) for p in table.mbr.partitions if p.type not in mbr.EXTENDED_TYPES
    ]
    assert ours == [(p.number, p.offset // 512, p.size // 512) for p in disk.partitions]
    lines = tool("partx", "-g", "-o", "NR,START,SECTORS", str(disk.path)).splitlines()
    theirs = [tuple(int(x) for x in line.split()) for line in lines]
    assert [row for row in theirs if row[0] != 3] == ours  # 3 is the extended one
    assert [p.number for p in table.mbr.partitions if p.active] == [1]


def test_partx_reads_the_same_with_4096_byte_sectors(tmp_path: Path) -> None:
    disk = disks.make_mbr_disk(
        tmp_path / "m.img", windows_files={}, windows_size=16 * MIB, sector_size=4096, signature=5
    )
    source = image(disk)
    assert detect_sector_size(source) == 4096
    table = read_table(source, 4096)
    assert table.mbr is not None
    lines = tool("partx", "-S", "4096", "-g", "-o", "START", str(disk.path)).split()
    assert [int(x) * 512 for x in lines] == [p.first_lba * 4096 for p in table.mbr.partitions]


def test_active_flag_and_signature_change_nothing_else(tmp_path: Path) -> None:
    disk = raw_mbr(tmp_path / "m.img", signature=1)
    before = disks.read_bytes(disk.path, 0, 512)
    after = mbr.with_active(before, 2)
    assert {i for i in range(512) if before[i] != after[i]} == {446, 462}
    assert (after[446], after[462]) == (0, 0x80)
    after = mbr.with_signature(before, 0x44332211)
    assert after[440:444] == bytes.fromhex("11223344")
    assert after[:440] + after[444:] == before[:440] + before[444:]
    with pytest.raises(FormatError):
        mbr.with_active(before, 3)
    with pytest.raises(ValueError, match="primary"):
        mbr.with_active(before, 5)


def test_looping_and_leaving_chains_end(tmp_path: Path) -> None:
    disk = raw_mbr(tmp_path / "m.img", logical=3)
    second_record = disk.partitions[3].offset - MIB
    base = disk.partitions[2].offset - MIB
    link = struct.pack("<B3sB3sII", 0, b"", 5, b"", (disk.partitions[2].offset - MIB - base) // 512 + 1, 1)
    for relative, problem in ((0x7FFFFFFF, "leaves"), ((second_record - base) // 512, "loops")):
        link = struct.pack("<B3sB3sII", 0, b"", 5, b"", relative, 1)
        disks.write_bytes(disk.path, second_record + 462, link)
        table = read_table(image(disk), 512)
        assert table.mbr is not None
        assert any(problem in text for text in table.problems)
        assert len([p for p in table.mbr.partitions if p.number > 4]) <= 3


def test_two_active_partitions_are_named(tmp_path: Path) -> None:
    disk = raw_mbr(tmp_path / "m.img")
    disks.write_bytes(disk.path, 462, b"\x80")
    assert "more than one partition is marked active" in read_table(image(disk), 512).problems


def test_volumes_over_the_whole_disk_have_no_table(tmp_path: Path) -> None:
    from support import fat_image, ntfs_image, sparse

    for kind in ("ntfs", "fat"):
        path = tmp_path / kind
        sparse.make(path, 16 * MIB)
        if kind == "ntfs":
            ntfs_image.make_volume(path, {})
        else:
            fat_image.make_volume(path, 0, 16 * MIB, {}, bits=16)
        table = read_table(BytesSource(path.read_bytes()), 512)
        assert (table.mbr, table.gpt) == (None, None)


def test_tiny_and_empty_sources() -> None:
    for data in (b"", b"\0", bytes(511), bytes(512), bytes(4096), b"\xff" * 2048):
        table = read_table(BytesSource(data), 512)
        assert (table.mbr, table.gpt) == (None, None)
        detect_sector_size(BytesSource(data))


# --- anything at all
# --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("tables")
    return [
        raw_gpt(folder / "g.img").path.read_bytes(),
        raw_mbr(folder / "m.img", logical=4).path.read_bytes(),
    ]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_tables_never_crash(samples: list[bytes], data: st.DataObject) -> None:
    sample = bytearray(data.draw(st.sampled_from(samples)))
    size = len(sample)
    areas = [(0, 512), (512, 604), (1024, 1024 + 512), (size - 512, size - 420), (4 * MIB, 4 * MIB + 512)]
    for _ in range(data.draw(st.integers(1, 6))):
        start, end = data.draw(st.sampled_from(areas))
        place = data.draw(st.integers(start, end - 8))
        junk = data.draw(
            st.sampled_from([b"\xff" * 8, bytes(8), b"\x80"]) | st.binary(min_size=1, max_size=8)
        )
        sample[place : place + len(junk)] = junk
    cut = data.draw(st.sampled_from([size, size - 512, MIB, 4096, 700]))
    source = BytesSource(bytes(sample[:cut]))
    sector_size = detect_sector_size(source)
    table = read_table(source, sector_size)
    if table.gpt is not None:
        for entry in table.gpt.entries:
            assert 0 < entry.first_lba <= entry.last_lba < source.size // sector_size
        for rebuild in (gpt.rebuild_primary, gpt.rebuild_backup):
            try:
                for item in rebuild(table.gpt):
                    assert item.offset % sector_size == 0
                    assert item.offset + len(item.data) <= source.size
            except FormatError:
                pass
    if table.mbr is not None:
        assert len(table.mbr.partitions) <= 4 + 4 * 128


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=3000))
def test_random_bytes_never_crash(junk: bytes) -> None:
    for data in (junk, junk.ljust(510, b"\0")[:510] + b"\x55\xaa" + junk):
        read_table(BytesSource(data), detect_sector_size(BytesSource(data)))


def test_layouts_are_reproducible(tmp_path: Path) -> None:
    first, second = raw_gpt(tmp_path / "a.img", seed="x"), raw_gpt(tmp_path / "b.img", seed="x")
    assert first.path.read_bytes() == second.path.read_bytes()
    assert re.fullmatch(r"[0-9a-f-]{36}", first.esp.unique_guid or "")
