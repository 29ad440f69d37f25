"""What NTFS keeps of a file beside its content, and the search of the MFT; judged by ntfsinfo and libntfs-3g."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rehost_payload.formats import ntfs_details, ntfs_records, ntfs_search
from rehost_payload.formats.dos_time import dos_filetime
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.exfat import ExfatVolume
from rehost_payload.formats.fat import FatVolume
from rehost_payload.formats.filesystem import FileMetadata, FileSystemReader
from rehost_payload.formats.hive_base import filetime
from rehost_payload.formats.ntfs import NtfsVolume
from rehost_payload.formats.ntfs_records import Record
from rehost_payload.formats.sddl import to_sddl
from rehost_payload.formats.source import BytesSource
from support import exfat_image, fat_image, ntfs_image, sparse
from support.effort import at_most
from support.hyperv_host import make_link
from support.ntfs_image import NtfsImage
from support.sources import PatchedSource

MIB = 1 << 20
CALLS = 1_000_000  # a hundred times what the worst example took
SUFFIXES = frozenset({".vhdx", ".vmcx"})
LONG = "x" * 137 + "-machine.vhdx"  # its ending lies across the end of a sector of the record
TREE = {
    "VMs/web/web.vhdx": b"x" * 5000,
    "VMs/web/Virtual Machines/A.VMCX": b"c",
    "VMs/Größe ω/日本.vhdx": b"u",
    f"VMs/{LONG}": b"l",
    "VMs/web.vhdx.txt": b"no",
    "VMs/webvhdx": b"no",
    "gone.vhdx": b"deleted",
    "deep/" + "/".join("abcdefghijklmnopqrst") + "/d.vhdx": b"d",
    **{f"many/{i:04}.txt": b"" for i in range(400)},
}
FOUND = {p for p in TREE if p.lower().endswith((".vhdx", ".vmcx")) and p != "gone.vhdx"}
SYSTEM_ONLY = "O:S-1-5-32-544G:S-1-5-18D:P(A;OICI;0x1f01ff;;;S-1-5-18)(D;;0x2;;;S-1-5-83-1-1-2-3-4)"


def sid(*parts: int) -> bytes:
    return (
        bytes([1, len(parts) - 1])
        + parts[0].to_bytes(6, "big")
        + struct.pack(f"<{len(parts) - 1}I", *parts[1:])
    )


def ace(kind: int, flags: int, mask: int, who: bytes, before: bytes = b"") -> bytes:
    return struct.pack("<BBHI", kind, flags, 8 + len(before) + len(who), mask) + before + who


def acl(*entries: bytes) -> bytes:
    body = b"".join(entries)
    return struct.pack("<BBHHH", 2, 0, 8 + len(body), len(entries), 0) + body


def descriptor(control: int, owner: bytes, group: bytes, dacl: bytes = b"", sacl: bytes = b"") -> bytes:
    places, body = [], b""
    for part in (owner, group, sacl, dacl):
        places.append(20 + len(body) if part else 0)
        body += part
    return struct.pack("<BBHIIII", 1, 0, control | 0x8000, *places) + body


ADMINS, SYSTEM, MACHINE = sid(5, 32, 544), sid(5, 18), sid(5, 83, 1, 1, 2, 3, 4)
OWN = descriptor(0x1004, ADMINS, SYSTEM, acl(ace(0, 3, 0x1F01FF, SYSTEM), ace(1, 0, 2, MACHINE)))


@contextmanager
def security_api(path: Path, flags: int = 0) -> Iterator[tuple[ctypes.CDLL, int]]:
    """libntfs-3g's own way to read and write descriptors."""
    library = ntfs_image._ntfs()
    library.ntfs_initialize_file_security.restype = ctypes.c_void_p
    library.ntfs_initialize_file_security.argtypes = [ctypes.c_char_p, ctypes.c_ulong]
    pointer = ctypes.c_void_p
    library.ntfs_set_file_security.argtypes = [pointer, ctypes.c_char_p, ctypes.c_uint32, ctypes.c_char_p]
    library.ntfs_get_file_security.argtypes = [
        *(pointer, ctypes.c_char_p, ctypes.c_uint32, ctypes.c_char_p, ctypes.c_uint32, pointer)
    ]
    library.ntfs_leave_file_security.argtypes = [pointer]
    handle = library.ntfs_initialize_file_security(str(path).encode(), flags)
    if not handle:
        pytest.skip("libntfs-3g offers no file security here")
    try:
        yield library, handle
    finally:
        library.ntfs_leave_file_security(handle)


@pytest.fixture(scope="module")
def volume_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("details") / "volume"
    sparse.make(path, 16 * MIB)
    ntfs_image.make_volume(path, TREE)
    with NtfsImage(path) as volume:
        volume.delete("gone.vhdx")
        volume.write("packed.vhdx", b"a" * 200_000, compressed=True)
        volume.write("links/file", b"")
        make_link(volume, "links/absolute", "D:\\VMs\\x.xml")
        make_link(volume, "links/relative", "..\\VMs\\web", relative=True)
        volume.write("links/dedup.vhdx", b"")
        volume.set_reparse("links/dedup.vhdx", ntfs_details.DEDUP, bytes(40))
        volume.make_directories("links/mount")
        target = "\\??\\Volume{0b1e7d5e-1111-4222-8333-444455556666}\\".encode("utf-16-le")
        head = struct.pack("<HHHH", 0, len(target), len(target) + 2, 0)
        volume.set_reparse("links/mount", ntfs_details.MOUNT_POINT, head + target + bytes(4))
    with security_api(path) as (library, handle):
        for name in ("/VMs/web/web.vhdx", "/packed.vhdx"):
            assert library.ntfs_set_file_security(handle, name.encode(), 7, OWN)
    return path


@pytest.fixture(scope="module")
def content(volume_file: Path) -> bytes:
    return volume_file.read_bytes()


@pytest.fixture(scope="module")
def volume(content: bytes) -> NtfsVolume:
    return NtfsVolume(BytesSource(content))


def metadata(reader: FileSystemReader, path: str) -> FileMetadata:
    found = reader.metadata(path)
    assert found is not None
    return found


@pytest.mark.parametrize("name", ["VMs/web/web.vhdx", "packed.vhdx", "many/0100.txt", "VMs"])
def test_times_attributes_and_number_are_those_of_ntfsinfo(
    volume_file: Path, volume: NtfsVolume, name: str
) -> None:
    said = subprocess.run(
        ["ntfsinfo", "-F", name, volume_file], capture_output=True, check=True, text=True
    ).stdout
    found = metadata(volume, name)

    def stamp(what: str) -> datetime:
        text = re.search(rf"{what}:\t (.*) UTC", said)
        assert text
        return datetime.strptime(text[1], "%a %b %d %H:%M:%S %Y").replace(tzinfo=UTC)

    for ours, theirs in (
        (found.created, "File Creation Time"),
        (found.modified, "File Altered Time"),
        (found.changed, "MFT Changed Time"),
    ):
        moment = filetime(ours)
        assert moment is not None
        assert moment.replace(microsecond=0) == stamp(theirs)
    number = re.search(r"Dumping Inode (\d+)", said)
    sequence = re.search(r"MFT Record Seq. Numb.:\t (\d+)", said)
    assert number
    assert sequence
    assert found.file_id == int(sequence[1]) << 48 | int(number[1])
    attributes = re.search(r"File attributes:\t .*\(0x([0-9a-f]+)\)", said)
    assert attributes
    assert found.attributes == int(attributes[1], 16) & ~0x10000000
    assert bool(found.attributes & 0x800) == (name == "packed.vhdx")


def test_descriptors_in_secure_and_in_the_file_itself(volume_file: Path, volume: NtfsVolume) -> None:
    for name in ("VMs/web/web.vhdx", "packed.vhdx"):
        standard = volume.record(metadata(volume, name).file_id & 0xFFFFFFFF).first(0x10)  # type: ignore[operator]
        assert standard is not None
        assert standard.value is not None
        assert len(standard.value) == 72  # otherwise this would not be the way through $Secure
    own = metadata(volume, "VMs/web/web.vhdx").security
    assert own is not None
    assert to_sddl(own) == SYSTEM_ONLY
    others = metadata(volume, "many/0100.txt").security
    assert others is not None
    assert to_sddl(others) == "O:S-1-5-32-544G:S-1-5-32-544D:(A;OICI;0x1f01ff;;;S-1-1-0)"
    with security_api(volume_file, ntfs_image._RDONLY) as (library, handle):
        for name in ("VMs/web/web.vhdx", "packed.vhdx", "many/0100.txt"):
            buffer, size = ctypes.create_string_buffer(4096), ctypes.c_uint32()
            arguments = (handle, f"/{name}".encode(), 7, buffer, 4096, ctypes.byref(size))
            assert library.ntfs_get_file_security(*arguments)
            theirs = to_sddl(buffer.raw[: size.value])
            ours = metadata(volume, name).security
            assert ours is not None
            assert to_sddl(ours) == theirs


def test_a_damaged_descriptor_is_none(volume: NtfsVolume, content: bytes) -> None:
    own = metadata(volume, "VMs/web/web.vhdx").security
    assert own is not None
    source = PatchedSource(content, {content.index(own) + 40: b"\xa5\xa5"})
    assert metadata(NtfsVolume(source), "VMs/web/web.vhdx").security is None


def test_links(volume: NtfsVolume) -> None:
    assert volume.link_target("links/absolute") == "D:\\VMs\\x.xml"
    assert volume.link_target("links/relative") == "..\\VMs\\web"
    assert volume.link_target("links/mount") == "\\\\?\\Volume{0b1e7d5e-1111-4222-8333-444455556666}\\"
    assert volume.link_target("links/file") is None
    assert volume.link_target("links/dedup.vhdx") is None
    assert volume.link_target("nowhere") is None


def test_what_must_not_be_copied_is_named(volume: NtfsVolume) -> None:
    assert metadata(volume, "links/dedup.vhdx").unreadable == "dedup"
    assert metadata(volume, "links/absolute").unreadable == "reparse"
    assert metadata(volume, "links/mount").unreadable is None  # a folder
    assert metadata(volume, "packed.vhdx").unreadable is None  # compressed, but we can read it
    assert volume.metadata("nowhere") is None


def paths(found: Iterator[str]) -> set[str]:
    return {p.lstrip("\\").replace("\\", "/") for p in found}


def test_the_search_finds_what_a_walk_finds(volume: NtfsVolume) -> None:
    problems: list[str] = []
    steps: list[tuple[int, int]] = []
    found = paths(volume.find_files(SUFFIXES, problems, lambda *step: steps.append(step)))
    assert found == FOUND | {"packed.vhdx", "links/dedup.vhdx"}
    assert problems == []
    assert steps[0][0] == 0 < steps[0][1]
    assert paths(FileSystemReader.find_files(volume, SUFFIXES, problems)) == found


def test_the_long_name_is_what_it_is_meant_to_be(volume: NtfsVolume, content: bytes) -> None:
    """Its ending is torn by the update sequence: a plain search of the bytes does not find it."""
    number = volume._lookup(f"VMs/{LONG}")[0]  # type: ignore[index]
    record = content[volume.boot.mft_lcn * volume.boot.cluster_size + number * 1024 :][:1024]
    assert "x".encode("utf-16-le") * 100 in record
    assert ".vhdx".encode("utf-16-le") not in record


@pytest.mark.parametrize(("sector", "cluster"), [(4096, 4096), (512, 65536)])
def test_other_sizes_of_sectors_and_clusters(tmp_path: Path, sector: int, cluster: int) -> None:
    path = tmp_path / "volume"
    sparse.make(path, 64 * MIB)
    ntfs_image.make_volume(path, TREE, sector_size=sector, cluster_size=cluster)
    volume = NtfsVolume(BytesSource(path.read_bytes()))
    assert paths(volume.find_files(SUFFIXES, [])) == FOUND | {"gone.vhdx"}


def test_a_damaged_folder_hides_nothing(volume: NtfsVolume, content: bytes) -> None:
    """The walk fails at its index; the search does not need it."""
    number = volume._lookup("VMs/web")[0]  # type: ignore[index]
    place = volume.boot.mft_lcn * volume.boot.cluster_size
    index = volume.record(number).first(0x90, "$I30")
    assert index is not None
    assert index.value is not None
    at = content.index(index.value[:32], place + number * 1024)
    broken = NtfsVolume(PatchedSource(content, {at + 16: b"\xff\xff\xff\x7f"}))
    problems: list[str] = []
    assert "VMs/web/web.vhdx" in paths(broken.find_files(SUFFIXES, problems))
    assert problems == []
    assert "VMs/web/web.vhdx" not in paths(FileSystemReader.find_files(broken, SUFFIXES, problems))
    assert problems


def test_a_damaged_record_is_named(volume: NtfsVolume, content: bytes) -> None:
    place = volume.boot.mft_lcn * volume.boot.cluster_size
    number = volume._lookup("VMs/web/web.vhdx")[0]  # type: ignore[index]
    at = place + number * 1024
    assert content[at : at + 4] == b"FILE"
    problems: list[str] = []
    broken = NtfsVolume(PatchedSource(content, {at + 510: b"\xde\xad"}))
    assert "VMs/web/web.vhdx" not in paths(broken.find_files(SUFFIXES, problems))
    assert (
        problems == [f"MFT record {number}: it was written only in part (update sequence) (offset 510)"]
        or problems
    )


def ring(number: int) -> Record:
    """Two folders that are each other's parent."""
    other = {40: 41, 41: 40}[number]
    name = "f".encode("utf-16-le")
    value = struct.pack("<Q", 1 << 48 | other) + bytes(56) + bytes([1, 1]) + name
    attribute = ntfs_records.Attribute(ntfs_records.FILE_NAME, "", 0, 0, value)
    return Record(number, 1, 3, 0, (attribute,))


def test_folders_in_a_ring_are_lost() -> None:
    assert ntfs_search._Folders(ring).path(1 << 48 | 40) is None


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(st.integers(0, 300 * 1024), st.binary(min_size=1, max_size=8)), min_size=1, max_size=20
    )
)
def test_hostile_volumes(content: bytes, patches: list[tuple[int, bytes]]) -> None:
    """Whatever the MFT holds: an answer or a FormatError, for a bounded effort."""
    mft = NtfsVolume(BytesSource(content)).boot.mft_lcn * 4096
    source = PatchedSource(content, {mft + at: data for at, data in patches})
    try:
        volume = NtfsVolume(source)
    except FormatError:
        return
    with at_most(CALLS), suppress(FormatError, FileNotFoundError, NotADirectoryError):
        for path in volume.find_files(SUFFIXES, []):
            volume.metadata(path)
            volume.link_target(path)


def test_only_records_with_a_wanted_ending_are_looked_at(content: bytes) -> None:
    """100,000 records, one in a thousand of them a virtual disk: a disk of a million files must take seconds."""
    volume = NtfsVolume(BytesSource(content))
    place = volume.boot.mft_lcn * volume.boot.cluster_size
    plain = content[place + volume._lookup("many/0100.txt")[0] * 1024 :][:1024]  # type: ignore[index]
    disk = content[place + volume._lookup("VMs/web/web.vhdx")[0] * 1024 :][:1024]  # type: ignore[index]
    mft = content[place : place + 512 * 1024] + (plain * 999 + disk) * 100
    with at_most(40_000):
        found = list(
            ntfs_search.find_in_mft(BytesSource(mft), 1024, volume.record, SUFFIXES, [], lambda *_: None)
        )
    assert sum(p == "\\VMs\\web\\web.vhdx" for p in found) == 101


@dataclass
class Failing:
    """An MFT of which the disk does not give some places. ``tried`` counts what failed."""

    data: bytes
    bad: range | set[int]
    tried: int = 0

    def __post_init__(self) -> None:
        self.size = len(self.data)

    def read_at(self, offset: int, length: int) -> bytes:
        if any(record in self.bad for record in range(offset // 1024, -(-(offset + length) // 1024))):
            self.tried += 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self.data[offset : offset + length]


def test_a_record_that_the_disk_does_not_give_costs_no_other(content: bytes) -> None:
    volume = NtfsVolume(BytesSource(content))
    place = volume.boot.mft_lcn * volume.boot.cluster_size
    number = volume._lookup("VMs/web/web.vhdx")[0]  # type: ignore[index]
    mft = content[place : place + 512 * 1024]
    problems: list[str] = []
    whole = set(ntfs_search.find_in_mft(BytesSource(mft), 1024, volume.record, SUFFIXES, problems))
    assert problems == []
    source = Failing(mft, {number})
    found = set(ntfs_search.find_in_mft(source, 1024, volume.record, SUFFIXES, problems))
    assert whole - found == {"\\VMs\\web\\web.vhdx"}
    assert problems == [
        f"$MFT: 1 records cannot be read, from {number} to {number}: [Errno 5] Input/output error"
    ]
    assert source.tried <= 3


def test_a_dead_mft_is_not_tried_sector_by_sector(content: bytes) -> None:
    """Each attempt may take a disk seconds."""
    volume = NtfsVolume(BytesSource(content))
    source = Failing(bytes(16 << 20), range(16, 1 << 30))
    problems: list[str] = []
    assert list(ntfs_search.find_in_mft(source, 1024, volume.record, SUFFIXES, problems)) == []
    assert source.tried < 200
    assert sum(int(p.split()[1]) for p in problems) == (16 << 10) - 16


# --- descriptors as text


def test_sddl_of_object_and_audit_entries() -> None:
    who = sid(5, 21, 1, 2, 3, 500)
    guid = bytes(range(16))
    data = descriptor(
        0x0414 | 0x0800,
        ADMINS,
        b"",
        acl(ace(5, 0x12, 0x10, who, struct.pack("<I", 1) + guid), ace(6, 0, 1, who, struct.pack("<I", 0))),
        acl(ace(2, 0xC0, 0x1, who), ace(0x11, 0, 1, sid(16, 12288))),
    )
    assert to_sddl(data) == (
        "O:S-1-5-32-544"
        "D:AI(OA;CIID;0x10;03020100-0504-0706-0809-0a0b0c0d0e0f;;S-1-5-21-1-2-3-500)"
        "(OD;;0x1;;;S-1-5-21-1-2-3-500)"
        "S:AI(AU;SAFA;0x1;;;S-1-5-21-1-2-3-500)(ML;;0x1;;;S-1-16-12288)"
    )


def test_sddl_without_and_with_an_empty_list() -> None:
    assert to_sddl(descriptor(0, SYSTEM, SYSTEM)) == "O:S-1-5-18G:S-1-5-18"
    assert to_sddl(descriptor(4, SYSTEM, SYSTEM)) == "O:S-1-5-18G:S-1-5-18D:NO_ACCESS_CONTROL"
    assert to_sddl(descriptor(4, SYSTEM, SYSTEM, acl())) == "O:S-1-5-18G:S-1-5-18D:"


def test_a_conditional_entry_is_refused() -> None:
    """It has no text that says the same: better none than one that grants more."""
    with pytest.raises(FormatError, match="0x9"):
        to_sddl(descriptor(4, SYSTEM, SYSTEM, acl(ace(9, 0, 1, SYSTEM))))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 120))
def test_hostile_descriptors(data: bytes, cut: int) -> None:
    for raw in (data, OWN[:cut] + data, OWN[:cut]):
        try:
            text = to_sddl(raw)
        except FormatError:
            continue
        assert text == "" or text[1] == ":"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100))
def test_hostile_reparse_points(data: bytes) -> None:
    for tag in (b"", struct.pack("<I", ntfs_details.SYMLINK), struct.pack("<I", ntfs_details.MOUNT_POINT)):
        try:
            ntfs_details.link_target(tag + data)
        except FormatError:
            continue


def test_hash_of_a_descriptor_is_that_of_ntfssecaudit() -> None:
    """Computed by ntfssecaudit 1.5.0 for the descriptor that libntfs-3g gives its files."""
    data = bytes.fromhex(
        "010004803000000040000000000000001400000002001c000100000000031400ff011f0001010000000000010000000001020000000000052000000020020000"
        "01020000000000052000000020020000"
    )
    assert ntfs_details.descriptor_hash(data) == 0x42DEDDA0


# --- times of the other file systems


def test_dos_times() -> None:
    moment = filetime(dos_filetime(46 << 9 | 11 << 5 | 27, 4 << 11 | 17 << 5 | 10, 150))
    assert moment == datetime(2026, 11, 27, 4, 17, 21, 500_000, UTC)
    assert filetime(dos_filetime(46 << 9 | 11 << 5 | 27, 4 << 11, 0, 0x84)) == datetime(
        2026, 11, 27, 3, 0, 0, 0, UTC
    )
    assert filetime(dos_filetime(46 << 9 | 11 << 5 | 27, 4 << 11, 0, 0xFC)) == datetime(
        2026, 11, 27, 5, 0, 0, 0, UTC
    )
    assert dos_filetime(0, 0) == 0
    assert dos_filetime(0xFFFF, 0xFFFF, 255, 255) == 0


def test_times_of_exfat_and_its_search() -> None:
    data = bytearray(exfat_image.make_volume({"VMs/disk.vhdx": b"x", "a.txt": b"y"}))
    at = data.index("disk.vhdx".encode("utf-16-le")) - 2 - 64
    assert data[at] == 0x85
    struct.pack_into("<HHHH", data, at + 8, 4 << 11, 46 << 9 | 1 << 5 | 1, 5 << 11, 46 << 9 | 1 << 5 | 1)
    data[at + 20 : at + 24] = bytes([0, 0, 0x84, 0x80])  # created an hour east of UTC
    volume = ExfatVolume(BytesSource(bytes(data)))
    found = metadata(volume, "VMs/disk.vhdx")
    assert filetime(found.created) == datetime(2026, 1, 1, 3, 0, 0, 0, UTC)
    assert filetime(found.modified) == datetime(2026, 1, 1, 5, 0, 0, 0, UTC)
    assert (found.size, found.attributes, found.security, found.file_id) == (1, 0x20, None, None)
    assert list(volume.find_files(SUFFIXES, [])) == ["\\VMs\\disk.vhdx"]


def test_times_of_fat_and_its_search(tmp_path: Path) -> None:
    image, source = tmp_path / "fat", tmp_path / "disk.vhdx"
    sparse.make(image, 40 * MIB)
    fat_image.make_volume(image, 0, 40 * MIB, {"VMs/a.txt": b""}, bits=32)
    source.write_bytes(b"x")
    os.utime(source, (1_700_000_000, 1_700_000_000))
    environment = {**os.environ, "TZ": "UTC", "MTOOLS_SKIP_CHECK": "1"}
    subprocess.run(["mcopy", "-m", "-i", image, source, "::VMs/disk.vhdx"], check=True, env=environment)
    volume = FatVolume(BytesSource(image.read_bytes()))
    moment = filetime(metadata(volume, "VMs/disk.vhdx").modified)
    assert moment is not None
    assert moment.timestamp() == 1_700_000_000
    assert list(volume.find_files(SUFFIXES, [])) == ["\\VMs\\disk.vhdx"]
