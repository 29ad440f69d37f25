"""PE headers (pefile is the judge) and UEFI load options."""

from __future__ import annotations

import contextlib
import importlib.util
import struct
import uuid
from pathlib import Path

import pefile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_payload.formats import efi, pe
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.source import BytesSource
from support.pe_image import make_pe
from support.sources import PatchedSource

SAMPLE = make_pe("x64", "10.0.14393.1198", fill=b"x" * 3000)


@pytest.mark.parametrize("machine", ["x64", "x86", "arm64"])
@pytest.mark.parametrize("version", ["10.0.26100.30227", "6.1.7601.17514", None])
def test_generated_images(machine: str, version: str | None) -> None:
    data = make_pe(machine, version)
    facts = pe.read_facts(BytesSource(data))
    assert (facts.machine, facts.version, facts.truncated) == (machine, version, False)
    assert facts.wide == (machine != "x86")
    judge = pefile.PE(data=data)
    assert pe.MACHINES[judge.FILE_HEADER.Machine] == machine
    assert judge.OPTIONAL_HEADER.Subsystem == facts.subsystem
    if version:
        fixed = judge.VS_FIXEDFILEINFO[0]
        words = (fixed.FileVersionMS >> 16, fixed.FileVersionMS & 0xFFFF)
        words += (fixed.FileVersionLS >> 16, fixed.FileVersionLS & 0xFFFF)
        assert ".".join(map(str, words)) == version


def test_real_images_as_pefile_reads_them() -> None:
    """Programs by other linkers, which come with Python's packaging tools."""
    specs = [importlib.util.find_spec(name) for name in ("pip", "setuptools")]
    roots = [Path(place) for spec in specs if spec for place in spec.submodule_search_locations or ()]
    files = [path for root in roots for path in root.rglob("*.exe")]
    if not files:
        pytest.skip("no PE file of pip or setuptools is installed")
    for path in files:
        judge = pefile.PE(path)
        facts = pe.read_facts(BytesSource(path.read_bytes()))
        assert facts.machine == pe.MACHINES[judge.FILE_HEADER.Machine]
        assert facts.wide == (judge.OPTIONAL_HEADER.Magic == 0x20B)
        assert not facts.truncated


def test_truncated_and_foreign_files() -> None:
    assert pe.read_facts(BytesSource(SAMPLE[:-1])).truncated
    for data in (
        b"",
        b"MZ",
        SAMPLE[:0x90],
        bytes(5000),
        b"\x7fELF" + bytes(100),
        b"\xe9\xd5\x01" + bytes(600),
    ):
        with pytest.raises(FormatError):
            pe.read_facts(BytesSource(data))


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.integers(0, 600) | st.integers(len(SAMPLE) - 512, len(SAMPLE) - 1),
        st.binary(min_size=1, max_size=8),
        max_size=6,
    )
)
def test_damaged_images_never_crash(patches: dict[int, bytes]) -> None:
    try:
        facts = pe.read_facts(PatchedSource(SAMPLE, patches))
    except FormatError:
        return
    assert facts.version is None or facts.version.count(".") == 3


# --- load options
# -----------------------------------------------------------------------------------------------

GUID = "16c10b78-fb61-5e95-8b67-b44a15eacac8"


def node(kind: int, subtype: int, body: bytes) -> bytes:
    return struct.pack("<BBH", kind, subtype, 4 + len(body)) + body


def load_option(description: str, paths: bytes, attributes: int = 1, rest: bytes = b"WINDOWS\0") -> bytes:
    text = description.encode("utf-16-le") + b"\0\0"
    return struct.pack("<IH", attributes, len(paths)) + text + paths + rest


def hard_drive(guid: str) -> bytes:
    return node(4, 1, struct.pack("<IQQ16sBB", 1, 2048, 98304, uuid.UUID(guid).bytes_le, 2, 2))


def file_path(path: str) -> bytes:
    return node(4, 4, path.encode("utf-16-le") + b"\0\0")


END = node(0x7F, 0xFF, b"")


def test_windows_boot_manager_entry() -> None:
    paths = hard_drive(GUID) + file_path("\\EFI\\Microsoft\\Boot\\bootmgfw.efi") + END
    option = efi.parse_load_option(load_option("Windows Boot Manager", paths))
    assert option.active
    assert option.description == "Windows Boot Manager"
    assert option.partition_guid == GUID
    assert option.path == "\\EFI\\Microsoft\\Boot\\bootmgfw.efi"


def test_other_entries() -> None:
    pci = node(1, 1, b"\x02\x1f") + node(3, 18, bytes(6)) + END
    option = efi.parse_load_option(load_option("UEFI QEMU HARDDISK", pci, attributes=0))
    assert (option.active, option.partition_guid, option.path) == (False, None, None)
    # a path in two nodes; an MBR signature instead of a GUID
    mbr = node(4, 1, struct.pack("<IQQ16sBB", 1, 2048, 98304, b"\1\2\3\4", 1, 1))
    option = efi.parse_load_option(load_option("x", mbr + file_path("\\EFI\\") + file_path("boot.efi") + END))
    assert (option.partition_guid, option.path) == (None, "\\EFI\\boot.efi")
    assert efi.parse_boot_order(b"\x01\x00\x00\x00\xff\xff\x07") == (1, 0, 0xFFFF)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 120), st.binary(max_size=8))
def test_any_load_option(junk: bytes, place: int, patch: bytes) -> None:
    good = load_option("W", hard_drive(GUID) + file_path("\\a") + END)
    for data in (junk, good[:place] + patch + good[place + len(patch) :]):
        with contextlib.suppress(FormatError):
            efi.parse_load_option(data)
