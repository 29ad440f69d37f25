"""VHD files of our own writer, and whether children find their parents in either format."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_payload.formats.disk_chain import check_link, parent_paths
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.source import BytesSource
from rehost_payload.formats.vhd import Vhd, is_vhd, parse_vhd
from rehost_payload.formats.vhdx import Vhdx, parse_vhdx
from support import vhd_image, vhdx_image
from support.sources import PatchedSource
from support.vhd_image import BLOCK, FIRST, SECOND

MIB = 1 << 20
PATHS = {
    "W2ru": ".\\base.vhd".encode("utf-16-le"),
    "W2ku": "E:\\VMs\\base.vhd".encode("utf-16-le"),
    "Wi2r": b"base.vhd",
}
CHILD = vhd_image.sparse(guid=SECOND, parent=FIRST, parent_stamp=5000, paths=PATHS, name="base.vhd")


def parse(data: bytes) -> Vhd:
    return parse_vhd(BytesSource(data))


def test_fixed() -> None:
    disk = parse(vhd_image.fixed())
    assert (disk.kind, disk.virtual_size, disk.id, disk.parent) == ("fixed", MIB, str(FIRST), None)
    assert disk.written == datetime(2000, 1, 1, 0, 16, 40, tzinfo=UTC)
    assert disk.problems == ()


def test_dynamic() -> None:
    disk = parse(vhd_image.sparse())
    assert (disk.kind, disk.virtual_size, disk.block_size) == ("dynamic", 16 * MIB, BLOCK)
    assert (disk.allocated_blocks, disk.allocated_end) == (1, 8 * 512 + 512 + BLOCK)
    assert (disk.problems, disk.notes) == ((), ())


@pytest.mark.parametrize("subformat", ["fixed", "dynamic"])
def test_disks_made_by_qemu(tmp_path: Path, subformat: str) -> None:
    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-img is not installed (qemu-utils)")
    path = tmp_path / "disk.vhd"
    options = f"subformat={subformat},force_size=on"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "vpc", "-o", options, path, "10M"], check=True, timeout=300
    )
    out = subprocess.run(
        ["qemu-img", "info", "--output=json", "-f", "vpc", path], check=True, capture_output=True, timeout=300
    ).stdout
    disk = parse(path.read_bytes())
    assert disk.kind == subformat
    assert disk.virtual_size == json.loads(out)["virtual-size"] == 10 * MIB
    assert disk.problems == ()


def test_differencing() -> None:
    disk = parse(CHILD)
    assert (disk.kind, disk.id) == ("differencing", str(SECOND))
    parent = disk.parent
    assert parent is not None
    assert (parent.id, parent.name) == (str(FIRST), "base.vhd")
    assert (parent.relative_path, parent.absolute_path) == (".\\base.vhd", "E:\\VMs\\base.vhd")
    assert parent.others == {"Wi2r": "base.vhd"}
    assert parent.modified == datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=5000)


def test_a_footer_of_511_bytes() -> None:
    disk = parse(vhd_image.sparse()[:-1])
    assert (disk.kind, disk.problems) == ("dynamic", ())


def test_a_damaged_footer_is_replaced_by_its_copy() -> None:
    data = bytearray(vhd_image.sparse())
    data[-100] ^= 1
    assert parse(bytes(data)).problems == ("the footer has a wrong checksum; its copy at the start was used",)
    cut = parse(bytes(data[: 8 * 512 + 1000]))
    assert cut.problems[0].startswith("no footer at the end")
    assert cut.problems[1].startswith("truncated: 1 blocks")
    data[100] ^= 1
    with pytest.raises(FormatError, match="wrong checksum"):
        parse(bytes(data))


def test_a_fixed_disk_that_was_cut_in_front() -> None:
    assert parse(vhd_image.fixed()[512:]).problems == (f"truncated: {MIB - 512} bytes of {MIB}",)
    with pytest.raises(FormatError, match="not found"):
        parse(vhd_image.fixed()[:-512])


def test_blocks_that_cannot_be() -> None:
    assert "truncated: 1" in parse(vhd_image.sparse(blocks={0: 8, 2: 99999})).problems[0]
    disk = parse(vhd_image.sparse(blocks={0: 0, 2: 8, 3: 8}))
    assert disk.problems == ("2 entries of the block table cannot be right",)
    assert parse(vhd_image.sparse(saved=True)).saved_state


def reseal(data: bytes, at: int, new: bytes) -> bytes:
    """A change of the header at 512, with its checksum."""
    changed = bytearray(data)
    changed[512 + at : 512 + at + len(new)] = new
    changed[512:1536] = vhd_image.sealed(bytes(changed[512:1536]), 36)
    return bytes(changed)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (reseal(CHILD, 0, b"x"), "no signature"),
        (CHILD[:600] + b"x" + CHILD[601:], "wrong checksum"),
        (reseal(CHILD, 16, b"\xff" * 8), "block table"),
        (reseal(CHILD, 28, b"\0\0\0\1"), "1 entries"),
        (reseal(CHILD, 32, b"\0\0\0\0"), "blocks of 0"),
        (reseal(CHILD, 32, b"\0\0\2\1"), "blocks of 513"),
        (reseal(CHILD, 24, b"\0\2\0\0"), "version 2.0"),
        (bytes(512) + vhd_image.footer(5, 512), "disk type 5"),
        (bytes(512) + vhd_image.footer(2, 0), "a disk of 0"),
        (bytes(512) + vhd_image.footer(3, 1 << 62), "outside of the file"),
    ],
)
def test_what_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        parse(data)


def test_locators_outside_of_the_file() -> None:
    disk = parse(reseal(CHILD, 576 + 16, b"\x7f" + b"\xff" * 7))
    assert disk.parent is not None
    assert disk.parent.relative_path == ""
    assert "parent locator W2ru" in disk.notes[0]


@settings(max_examples=200, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 4200), st.integers(0, 255)), min_size=1, max_size=8),
    fixed=st.booleans(),
)
def test_mutated_files(changes: list[tuple[int, int]], fixed: bool) -> None:
    data = bytearray(CHILD)
    for at, byte in changes:
        data[at] = byte
        if at < 512:
            data[len(data) - 512 + at] = byte
    if fixed:
        data[:512] = vhd_image.sealed(bytes(data[:512]), 64)
        data[-512:] = data[:512]
        data[512:1536] = vhd_image.sealed(bytes(data[512:1536]), 36)
    try:
        disk = parse_vhd(PatchedSource(bytes(data), {}))
        parent_paths(disk, "C:\\x\\y.avhd")
    except FormatError:
        pass


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=1600))
def test_random_bytes(data: bytes) -> None:
    assert not is_vhd(BytesSource(data)) or b"conectix" in data
    with pytest.raises(FormatError):
        parse(data)


# --- chains


def vhdx(
    number: int, parent: int | None = None, *, linkage2: int = 0, dirty: bool = False, size: int = 64
) -> Vhdx:
    """Disk ``number``, made from disk ``parent``."""

    def guid(n: int) -> UUID:
        return UUID(f"da7ada7a-0000-4000-8000-{n:012}") if n else UUID(int=0)

    paths = None
    if parent is not None:
        paths = {
            "parent_linkage": f"{{{guid(parent)}}}".upper(),
            "parent_linkage2": f"{{{guid(linkage2)}}}",
            "relative_path": "..\\base\\parent.vhdx",
            "absolute_win32_path": "E:\\VMs\\parent.vhdx",
            "volume_path": "\\\\?\\Volume{0EBA351E-5634-46D6-A8CF-4DDC2D6AC0B9}\\VMs\\parent.vhdx",
        }
    data = vhdx_image.build(
        vhdx_image.items(parent=paths, virtual_size=size * MIB),
        bat={},
        data_write=guid(number),
        log=vhdx_image.log_entry(1, []) if dirty else b"",
        log_guid=vhdx_image.LOG_GUID if dirty else None,
    )
    for at in (0x10000, 0x20000):  # each file has its own FileWriteGuid
        data[at + 16 : at + 32] = UUID(int=number).bytes_le
        data[at : at + 4096] = vhdx_image.sealed(data[at : at + 4096])
    return parse_vhdx(BytesSource(bytes(data)))


def test_a_whole_chain() -> None:
    first, second, base = vhdx(3, 2), vhdx(2, 1), vhdx(1)
    assert check_link(first, second).ok
    assert check_link(second, base).ok
    assert not check_link(first, base).ok


def test_a_parent_that_was_written_to() -> None:
    assert "written to since" in check_link(vhdx(3, 2), vhdx(9, 1)).problems[0]


def test_the_second_linkage_counts_as_well() -> None:
    assert check_link(vhdx(3, 2, linkage2=8), vhdx(8)).ok
    # but a GUID of zeros is none
    zero = vhdx(1)
    assert not check_link(vhdx(3, 0), zero).ok


def test_warnings() -> None:
    link = check_link(vhdx(2, 1, size=32), vhdx(1, dirty=True))
    assert link.ok
    assert len(link.warnings) == 2


def test_links_that_make_no_sense() -> None:
    old = parse(vhd_image.sparse())
    assert not check_link(vhdx(1), vhdx(2)).ok
    assert not check_link(vhdx(2, 1), old).ok
    assert not check_link(parse(CHILD), vhdx(1)).ok


def test_vhd_chains() -> None:
    child, base = parse(CHILD), parse(vhd_image.sparse(guid=FIRST))
    expected = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=5000)
    assert check_link(child, base) == check_link(child, base, expected + timedelta(seconds=1))
    late = check_link(child, base, expected + timedelta(hours=1))
    assert late.ok
    assert "the parent was changed at 2000-01-01 02:23:20" in late.warnings[0]
    assert not check_link(child, parse(vhd_image.sparse(guid=SECOND))).ok


def test_where_the_parent_is_looked_for() -> None:
    assert parent_paths(vhdx(2, 1), "D:\\vm\\disks\\child.avhdx") == (
        "D:\\vm\\base\\parent.vhdx",
        "E:\\VMs\\parent.vhdx",
        "\\\\?\\Volume{0EBA351E-5634-46D6-A8CF-4DDC2D6AC0B9}\\VMs\\parent.vhdx",
    )
    assert parent_paths(vhdx(2, 1))[0] == "..\\base\\parent.vhdx"
    assert parent_paths(parse(CHILD), "E:\\VMs\\child.avhd") == ("E:\\VMs\\base.vhd",)
    assert parent_paths(vhdx(1)) == ()
