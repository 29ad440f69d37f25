"""What a volume is, by signatures that other tools or own bytes put there."""

from __future__ import annotations

import struct
import subprocess
import uuid
from pathlib import Path

import pycdlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.signatures import identify
from rehost_payload.formats.source import BytesSource
from rehost_payload.survey.filesystems import open_filesystem
from rehost_payload.survey.model import FileSystem
from support import fat_image, ntfs_image, sparse
from support.exfat_image import make_volume as make_exfat

MIB = 1 << 20


def at(places: dict[int, bytes], size: int = MIB) -> bytes:
    data = bytearray(size)
    for place, content in places.items():
        data[place : place + len(content)] = content
    return bytes(data)


NOT_ZERO = {300: b"\1"}
FVE = uuid.UUID("4967d63b-2e29-4ad8-8399-f6a339e3d001").bytes_le
SAMPLES: dict[str, tuple[str, bytes]] = {
    "bitlocker": ("bitlocker", at({0: b"\xeb\x58\x90-FVE-FS-", 160: FVE, 510: b"\x55\xaa"})),
    "bitlocker-to-go": ("bitlocker", at({0: b"\xeb\x58\x90MSWIN4.1", 424: FVE, 510: b"\x55\xaa"})),
    "refs": ("refs", at({3: b"ReFS", 16: b"FSRS", 56: struct.pack("<Q", 0xA1B2C3D4E5F60718)})),
    "storage-spaces": ("storage-spaces", at({4096: b"SPACEDB "})),
    "ldm": ("ldm", at({3072: b"PRIVHEAD"})),
    "ldm-at-the-end": ("ldm", at(NOT_ZERO | {MIB - 512: b"PRIVHEAD"})),
    "lvm": ("lvm", at({512: b"LABELONE", 512 + 24: b"LVM2 001"})),
    "mdraid-1.2": ("mdraid", at({4096: bytes.fromhex("fc4e2ba9")})),
    "mdraid-1.0": ("mdraid", at(NOT_ZERO | {MIB - 8192: bytes.fromhex("fc4e2ba9")})),
    "mdraid-0.90": ("mdraid", at(NOT_ZERO | {MIB - 65536: bytes.fromhex("fc4e2ba9")})),
    "empty": ("empty", bytes(MIB)),
    "unknown": ("unknown", at(NOT_ZERO)),
    "tiny": ("empty", b""),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_signatures_by_hand(name: str) -> None:
    kind, data = SAMPLES[name]
    found = identify(BytesSource(data))
    assert found.kind == kind
    assert FileSystem(found.kind)
    if kind == "refs":
        assert found.serial == "A1B2C3D4E5F60718"
    with pytest.raises(FormatError):
        open_filesystem(BytesSource(data))


def test_volumes_by_their_own_tools(tmp_path: Path) -> None:
    path = tmp_path / "v"
    sparse.make(path, 16 * MIB)
    for kind, command in {
        "ext": ["mkfs.ext4", "-q", "-F", "-L", "daten", str(path)],
        "swap": ["mkswap", "-L", "auslagern", str(path)],
    }.items():
        environment = {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"}
        subprocess.run(command, check=True, capture_output=True, env=environment)
        found = identify(BytesSource(path.read_bytes()))
        assert (found.kind, found.label) == (kind, "daten" if kind == "ext" else "auslagern")
        said = subprocess.run(
            ["blkid", "-p", "-o", "value", "-s", "UUID", str(path)],
            capture_output=True, text=True, env=environment, check=True,
        )  # fmt: skip
        assert found.serial == said.stdout.strip()
    sparse.make(path, 16 * MIB)
    fat_image.make_volume(path, 0, 16 * MIB, {}, bits=16)
    assert identify(BytesSource(path.read_bytes())).kind == "fat16"
    sparse.make(path, 16 * MIB)
    ntfs_image.make_volume(path, {})
    assert identify(BytesSource(path.read_bytes())).kind == "ntfs"
    assert identify(BytesSource(make_exfat({}))).kind == "exfat"


def test_iso_and_udf(tmp_path: Path) -> None:
    for udf in (False, True):
        iso = pycdlib.PyCdlib()
        iso.new(vol_ident="REHOST-ISO", udf="2.60" if udf else None)
        path = tmp_path / "i.iso"
        iso.write(str(path))
        iso.close()
        found = identify(BytesSource(path.read_bytes()))
        assert (found.kind, found.label) == ("udf" if udf else "iso9660", "REHOST-ISO")


def test_damaged_ntfs_boot_sector_is_known_by_its_backup(tmp_path: Path) -> None:
    path = tmp_path / "v"
    sparse.make(path, 16 * MIB)
    ntfs_image.make_volume(path, {})
    data = bytearray(path.read_bytes())
    data[:512] = b"\xa5" * 512
    found = identify(BytesSource(bytes(data)))
    assert (found.kind, found.backup) == ("ntfs", True)
    with pytest.raises(FormatError, match="boot sector is damaged"):
        open_filesystem(BytesSource(bytes(data)))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([0, 3, 500, 1024, 4096, 32768]))
def test_anything_is_identified(junk: bytes, place: int) -> None:
    assert FileSystem(identify(BytesSource(at({place: junk}, 70_000))).kind)
