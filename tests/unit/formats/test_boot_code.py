"""Kinds of boot code, and where it lies."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rehost_payload.formats import boot_code
from support import bootsect, disks
from support.disks import MIB, PartitionSpec


def fat(start: int, text: bytes = b"", reserved: int = 32) -> bytes:
    sector = bytearray(512)
    sector[:3] = b"\xeb\x58\x90"
    struct.pack_into("<HBH", sector, 11, 512, 1, reserved)
    struct.pack_into("<HH", sector, 0x30, 1, 6)
    sector[start : start + len(text)] = text
    sector[510:] = b"\x55\xaa"
    return bytes(sector)


def test_the_first_sector_of_a_disk() -> None:
    table = b"\x80\x01\x01\0".ljust(72, b"\1")
    assert boot_code.master_kind(bytes(440) + table) == boot_code.NONE
    assert boot_code.master_kind(b"\x33\xc0".ljust(440, b"\0") + table) == boot_code.OTHER
    assert boot_code.master_kind(b"\xeb\x63GRUB \0Geom\0".ljust(440, b"\0") + table) == boot_code.GRUB


@pytest.mark.parametrize(
    ("kind", "head", "wanted"),
    [
        ("ntfs", bootsect.ntfs_code("BOOTMGR"), boot_code.BOOTMGR),
        ("ntfs", bootsect.ntfs_code("NTLDR"), boot_code.NTLDR),
        ("ntfs", bootsect.ntfs_code("LOADER"), boot_code.OTHER),
        ("ntfs", bytes(8192), boot_code.NONE),
        ("fat32", fat(0x169, b"BOOTMGR    "), boot_code.BOOTMGR),
        ("fat32", fat(0x170, b"NTLDR      "), boot_code.NTLDR),
        ("fat32", fat(0x5A), boot_code.NONE),
        ("fat32", fat(0x70, b"This is not a bootable disk.  Please"), boot_code.NOT_BOOTABLE),
        ("fat16", fat(0x3E, b"\xfa\x33This disk is not bootable"), boot_code.NOT_BOOTABLE),
        ("fat16", fat(0x3E), boot_code.NONE),
        ("fat12", fat(0x100, b"BOOTMGR    "), boot_code.BOOTMGR),
        ("exfat", bytes(512), None),
        ("ntfs", b"", None),
    ],
)
def test_the_first_sectors_of_a_volume(kind: str, head: bytes, wanted: str | None) -> None:
    assert boot_code.volume_kind(kind, head) == wanted


def test_a_name_behind_the_code_is_none() -> None:
    """The folder of a FAT volume may begin within the first sectors, and a file be called BOOTMGR."""
    assert boot_code.volume_kind("fat16", fat(0x3E, b"\xfa") + b"BOOTMGR    ") == boot_code.OTHER


@pytest.mark.parametrize("kind", ["ntfs", "fat32", "fat16"])
def test_what_formatting_tools_leave_is_not_bootable(kind: str, tmp_path: Path) -> None:
    """Told by mkntfs' and mkfs.fat's own volumes."""
    spec = PartitionSpec("data", (16 if kind == "fat16" else 40) * MIB, kind)
    disk = disks.make_disk(tmp_path / "d.img", [spec])
    head = disks.read_bytes(disk.path, disk["data"].offset, 8192)
    assert boot_code.volume_kind(kind, head) == boot_code.NOT_BOOTABLE


def ntfs(sectors: int, size: int = 512) -> bytes:
    head = bytearray(bootsect.ntfs_code("BOOTMGR")[:512])
    struct.pack_into("<H", head, 11, size)
    struct.pack_into("<Q", head, 0x28, sectors)
    return bytes(head)


def test_where_it_lies() -> None:
    assert boot_code.volume_areas("ntfs", ntfs(2047), 1 << 20, 512) == ((0, 8192), (2047 * 512, 512))
    assert boot_code.volume_areas("ntfs", ntfs(255, 4096), 1 << 20, 4096) == ((0, 8192), (255 * 4096, 4096))
    # a backup that is said to lie outside is not looked for there
    assert boot_code.volume_areas("ntfs", ntfs(1 << 60), 1 << 20, 512) == ((0, 8192),)
    # the second and the eighth sector count free clusters
    wanted = ((0, 512), (1024, 5 * 512), (8 * 512, 24 * 512))
    assert boot_code.volume_areas("fat32", fat(0x5A), 1 << 26, 512) == wanted
    assert boot_code.volume_areas("fat16", fat(0x3E), 1 << 24, 512) == ((0, 512),)
    assert boot_code.volume_areas("exfat", bytes(512), 1 << 24, 512) == ()
    assert boot_code.volume_areas("ntfs", ntfs(2047)[:100], 1 << 20, 512) == ()


def test_parameters_are_what_may_not_change() -> None:
    old = ntfs(2047)
    assert boot_code.parameters("ntfs", old) == boot_code.parameters(
        "ntfs", old[:0x54] + b"\1" * 426 + old[510:]
    )
    for place in (3, 11, 0x28, 0x53, 510):
        changed = old[:place] + bytes([old[place] ^ 1]) + old[place + 1 :]
        assert boot_code.parameters("ntfs", old) != boot_code.parameters("ntfs", changed)
    flagged = fat(0x41, b"\1")  # Windows has it mounted
    assert boot_code.parameters("fat32", flagged) == boot_code.parameters("fat32", fat(0x5A))


@given(st.sampled_from(["ntfs", "fat32", "fat16", "exfat", ""]), st.binary(min_size=512, max_size=1024))
def test_any_bytes(kind: str, head: bytes) -> None:
    assert boot_code.volume_kind(kind, head) in (
        None,
        "none",
        "not-bootable",
        "bootmgr",
        "ntldr",
        "grub",
        "other",
    )
    assert boot_code.master_kind(head) in ("none", "grub", "other")
    size = 1 << 20
    for offset, length in boot_code.volume_areas(kind, head, size, 512):
        assert offset % 512 == length % 512 == 0
        assert 0 <= offset < offset + length <= size
