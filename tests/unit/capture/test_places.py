"""Paths of the old Windows: links, junctions, folder mounts, volume GUIDs, cluster volumes, rings of links."""

from __future__ import annotations

import struct
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_payload.capture.places import Place, Places
from rehost_payload.formats.mounted_devices import MountedDevice, parse_mounted_device
from rehost_payload.formats.ntfs import NtfsVolume
from rehost_payload.formats.source import BytesSource
from rehost_payload.survey.model import Disk, FileSystem, Partition, PartitionTable, TableStyle, Volume
from rehost_payload.survey.volumes import OpenVolume
from support import ntfs_image, sparse
from support.hyperv_host import make_link
from support.ntfs_image import NtfsImage

MIB = 1 << 20
GUIDS = [f"00000000-0000-4000-8000-00000000000{i}" for i in range(3)]
MOUNTED = "0b1e7d5e-1111-4222-8333-444455556666"
MOUNT_POINT = 0xA0000003


def junction(volume: NtfsImage, path: str, target: str) -> None:
    volume.make_directories(path)
    text = f"\\??\\{target}".encode("utf-16-le")
    volume.set_reparse(
        path, MOUNT_POINT, struct.pack("<HHHH", 0, len(text), len(text) + 2, 0) + text + bytes(4)
    )


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """C: with links of every kind, D: with files, and a volume that is mounted in a folder of C:."""
    trees = [
        {"Data/a.txt": b"a"},
        {"VMs/x.vhdx": b"x", "same.txt": b""},
        {"only.vhdx": b"o", "same.txt": b""},
    ]
    made = []
    for number, tree in enumerate(trees):
        path = tmp_path_factory.mktemp("places") / f"v{number}"
        sparse.make(path, 8 * MIB)
        ntfs_image.make_volume(path, tree)
        if number == 0:
            with NtfsImage(path) as volume:
                make_link(volume, "link", "D:\\VMs\\x.vhdx")
                make_link(volume, "Data/up", "..\\Data\\a.txt", relative=True)
                make_link(volume, "root", "\\Data\\a.txt", relative=True)
                junction(volume, "junction", "D:\\VMs")
                junction(volume, "twice", "C:\\junction")
                junction(volume, "mount", f"Volume{{{MOUNTED}}}\\")
                make_link(volume, "ring1", "C:\\ring2")
                make_link(volume, "ring2", "ring1", relative=True)
                junction(volume, "inside", "C:\\inside\\inside")
        made.append(path.read_bytes())
    return made


def places(contents: list[bytes], letters: str = "CD") -> Places:
    partitions = tuple(
        Partition(f"disk0p{i}", i, i * MIB, 8 * MIB, "", "", unique_guid=GUIDS[i]) for i in range(3)
    )
    disk = Disk("disk0", "/dev/sda", 64 * MIB, 512, PartitionTable(TableStyle.GPT, partitions=partitions))
    opened = [
        OpenVolume(Volume(p.id, "disk0", p.id, p.offset, p.size, FileSystem.NTFS), NtfsVolume(BytesSource(c)))
        for p, c in zip(partitions, contents, strict=True)
    ]
    mounted = [
        MountedDevice(letter=f"{c}:", partition_guid=GUIDS[i]) for i, c in enumerate("CD") if c in letters
    ]
    mounted.append(MountedDevice(volume=MOUNTED, partition_guid=GUIDS[2]))
    return Places(opened, [disk], mounted)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("C:\\Data\\a.txt", ("disk0p0", "\\Data\\a.txt")),
        ("c:/data/A.TXT", ("disk0p0", "\\Data\\a.txt")),
        ("\\\\?\\C:\\Data\\..\\Data\\.\\a.txt", ("disk0p0", "\\Data\\a.txt")),
        ("C:\\link", ("disk0p1", "\\VMs\\x.vhdx")),
        ("C:\\Data\\up", ("disk0p0", "\\Data\\a.txt")),
        ("C:\\root", ("disk0p0", "\\Data\\a.txt")),
        ("C:\\junction\\X.VHDX", ("disk0p1", "\\VMs\\x.vhdx")),
        ("C:\\twice\\x.vhdx", ("disk0p1", "\\VMs\\x.vhdx")),
        ("C:\\mount\\only.vhdx", ("disk0p2", "\\only.vhdx")),
        (f"\\\\?\\Volume{{{MOUNTED.upper()}}}\\only.vhdx", ("disk0p2", "\\only.vhdx")),
        (f"\\\\?\\Volume{{{GUIDS[1]}}}\\VMs\\x.vhdx", ("disk0p1", "\\VMs\\x.vhdx")),
        ("C:\\ring1", None),
        ("C:\\inside\\x", None),
        ("C:\\nothing", None),
        ("\\\\server\\share\\x.vhdx", None),
        ("relative.vhdx", None),
        ("", None),
    ],
)  # fmt: skip
def test_paths(contents: list[bytes], path: str, place: tuple[str, str] | None) -> None:
    found = places(contents).resolve(path)
    assert found == (None if place is None else Place(*place))


def test_a_ring_of_links_is_named(contents: list[bytes]) -> None:
    looked = places(contents)
    assert looked.resolve("C:\\ring1") is None
    assert [p.code for p in looked.problems] == ["loop"]


def test_originals_follow_letters_mounts_and_guids(contents: list[bytes]) -> None:
    looked = places(contents)
    assert looked.original("disk0p1", "\\VMs\\x.vhdx") == "D:\\VMs\\x.vhdx"
    assert looked.original("disk0p2", "\\only.vhdx") == f"\\\\?\\Volume{{{GUIDS[2]}}}\\only.vhdx"
    looked.resolve("C:\\mount\\only.vhdx")  # a path through the folder shows where it was mounted
    assert looked.original("disk0p2", "\\only.vhdx") == "C:\\mount\\only.vhdx"


def test_a_letter_that_leads_nowhere(contents: list[bytes]) -> None:
    looked = places(contents, letters="C")
    assert looked.resolve("E:\\VMs\\x.vhdx") == Place("disk0p1", "\\VMs\\x.vhdx", guessed=True)
    assert looked.original("disk0p1", "\\VMs\\x.vhdx") == "E:\\VMs\\x.vhdx"
    assert looked.resolve("E:\\same.txt") is None  # two volumes have it: nobody knows which was meant
    assert looked.resolve("E:\\Data\\a.txt") is None  # that volume was C:
    assert places(contents).resolve("D:\\only.vhdx") is None  # D: is here and does not have it


def test_a_cluster_volume(contents: list[bytes]) -> None:
    found = places(contents, letters="C").resolve("X:\\ClusterStorage\\Volume1\\VMs\\x.vhdx")
    assert found == Place("disk0p1", "\\VMs\\x.vhdx", guessed=True)


def test_why_a_path_cannot_be_reached(contents: list[bytes]) -> None:
    looked = places(contents)
    assert looked.unreachable("\\\\server\\share\\x") == "network"
    assert looked.unreachable("D:\\nothing") is None
    assert looked.unreachable("Q:\\nothing") is None


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="CD:\\/?.Volume{}x-0 ä\ud800", max_size=60))
def test_any_text_as_a_path(contents: list[bytes], path: str) -> None:
    looked = places(contents)
    found = looked.resolve(path)
    assert found is None or found.volume.startswith("disk0p")
    looked.unreachable(path)


def test_mounted_devices() -> None:
    guid = UUID(GUIDS[1])
    mbr = struct.pack("<IQ", 0xAE4645DF, 0x1F500000)
    assert parse_mounted_device("\\DosDevices\\D:", mbr) == MountedDevice(
        "D:", signature=0xAE4645DF, offset=0x1F500000
    )
    gpt = b"DMIO:ID:" + guid.bytes_le
    assert parse_mounted_device("\\dosdevices\\e:", gpt) == MountedDevice("E:", partition_guid=GUIDS[1])
    volume = parse_mounted_device(f"\\??\\Volume{{{MOUNTED.upper()}}}", gpt)
    assert volume == MountedDevice(volume=MOUNTED, partition_guid=GUIDS[1])
    optical = parse_mounted_device("\\DosDevices\\F:", "\\??\\IDE#CdRom".encode("utf-16-le"))
    assert optical == MountedDevice("F:", device="\\??\\IDE#CdRom")
    assert parse_mounted_device("#{x}", gpt) is None
    assert parse_mounted_device("\\DosDevices\\FF:", gpt) is None


@given(st.text(max_size=30), st.binary(max_size=40))
def test_any_mounted_device(name: str, data: bytes) -> None:
    parse_mounted_device(name, data)
    parse_mounted_device("\\DosDevices\\Z:", data)
