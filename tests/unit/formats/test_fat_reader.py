"""The FAT reader against volumes by mkfs.vfat and mtools, and what a power cut leaves of a rename."""

from __future__ import annotations

import contextlib
import os
import random
import re
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.fat import FatVolume, parse_boot_sector
from rehost_payload.formats.fat_leftover import shared_leftovers
from rehost_payload.formats.source import BytesSource
from support import fat_image, sparse
from support.sources import PatchedSource

MIB = 1 << 20
NOISE = random.Random(3).randbytes(70_000)
TREE = {
    "EFI/Boot/bootx64.efi": NOISE,
    "EFI/Microsoft/Boot/BCD": NOISE[:30_000],
    "EFI/Microsoft/Boot/de-DE/bootmgfw.efi.mui": b"mui",
    "EFI/Microsoft/Boot/A long name with Ünïcödé.txt": b"long",
    "lower.txt": b"8.3 in lower case",
    "empty": b"",
    "folder/": b"",
    **{f"many/File number {i}.dat": b"%d" % i for i in range(120)},
}
SHAPES = {"fat12": (12, 4 * MIB, 4), "fat16": (16, 16 * MIB, 2), "fat32": (32, 40 * MIB, 1)}


def make(path: Path, kind: str, **more: object) -> bytes:
    bits, size, per_cluster = SHAPES[kind]
    sparse.make(path, size)
    fat_image.make_volume(path, 0, size, TREE, bits=bits, sectors_per_cluster=per_cluster, **more)  # type: ignore[arg-type]
    return path.read_bytes()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("fat")
    for kind in SHAPES:
        make(folder / kind, kind, label="SYSTEM")
    return {kind: folder / kind for kind in SHAPES}


def volume_of(path: Path) -> FatVolume:
    return FatVolume(BytesSource(path.read_bytes()))


@pytest.mark.parametrize("kind", SHAPES)
def test_files_and_facts(images: dict[str, Path], kind: str) -> None:
    volume = volume_of(images[kind])
    assert volume.kind == kind
    assert volume.label == "SYSTEM"
    assert volume.serial == "1234-ABCD"
    assert not volume.dirty
    for path, data in TREE.items():
        if path.endswith("/"):
            assert volume.is_directory(path)
        else:
            assert volume.read(path) == data, path
    assert volume.read("efi\\MICROSOFT\\boot\\a LONG name with ünïcödé.TXT") == b"long"
    assert volume.exact_path("efi/boot/BOOTX64.EFI") == "\\EFI\\Boot\\bootx64.efi"
    assert volume.exact_path("LOWER.TXT") == "\\lower.txt"
    assert volume.stat("absent") is None
    assert volume.stat("empty/below a file") is None
    source = volume.open("EFI/Boot/bootx64.efi")
    for start, length in ((0, 10), (511, 3), (60_000, 50_000), (70_000, 5), (80_000, 5)):
        assert source.read_at(start, length) == NOISE[start : start + length]


@pytest.mark.parametrize("kind", SHAPES)
def test_mtools_agree(images: dict[str, Path], kind: str) -> None:
    volume, path = volume_of(images[kind]), images[kind]
    found: list[str] = []

    def walk(folder: str) -> None:
        for entry in volume.listdir(folder):
            name = f"{folder}/{entry.name}".lstrip("/")
            found.append(name + "/" * entry.is_directory)
            if entry.is_directory:
                walk(name)

    walk("")
    assert sorted(found) == fat_image.listing(path, 0)
    environment = {**os.environ, "MTOOLS_SKIP_CHECK": "1"}
    said = subprocess.run(
        ["mdir", "-i", path, "::"], capture_output=True, text=True, env=environment, check=True
    )
    free = re.search(r"([\d ]+) bytes free", said.stdout)
    assert free
    assert volume.free() == int(free[1].replace(" ", ""))


def test_dirty_marks(images: dict[str, Path]) -> None:
    data = bytearray(images["fat32"].read_bytes())
    boot = parse_boot_sector(bytes(data[:512]))
    entry = boot.fat_sector * 512 + 4
    clean = bytes(data)
    data[entry + 3] &= ~0x08
    assert FatVolume(BytesSource(bytes(data))).dirty
    data = bytearray(clean)
    data[0x41] |= 1
    assert FatVolume(BytesSource(bytes(data))).dirty
    assert not FatVolume(BytesSource(clean)).dirty


def test_looping_chain_is_an_error(images: dict[str, Path]) -> None:
    volume = volume_of(images["fat32"])
    entry = volume._lookup("EFI/Boot/bootx64.efi")
    assert entry is not None
    chain = list(volume.chain(entry.first))
    place = volume.boot.fat_sector * 512 + chain[5] * 4
    looped = PatchedSource(images["fat32"].read_bytes(), {place: struct.pack("<I", chain[2])})
    with pytest.raises(FormatError, match="loops"):
        list(FatVolume(looped).chain(entry.first))
    assert FatVolume(looped).read("EFI/Boot/bootx64.efi")[:1000] == NOISE[:1000]


def test_4096_byte_sectors(tmp_path: Path) -> None:
    path = tmp_path / "v"
    sparse.make(path, 300 * MIB)
    fat_image.make_volume(path, 0, 300 * MIB, {"EFI/a": NOISE}, sector_size=4096)
    with path.open("rb") as file:

        class Source:
            size = 300 * MIB

            def read_at(self, offset: int, length: int) -> bytes:
                return os.pread(file.fileno(), length, offset)

        volume = FatVolume(Source())
        assert volume.cluster_size == 4096
        assert volume.read("efi/A") == NOISE


# --- a power cut within a rename
# --------------------------------------------------------------------------------


def cross_linked(data: bytes, folder: str, target: str, temporary: str) -> bytes:
    """The state between the two writes of a rename: the target's entry names the temporary's clusters
    already."""
    volume = FatVolume(BytesSource(data))
    changed = bytearray(data)
    entry = volume._lookup(folder)
    assert entry is not None
    places = {
        volume.short_name(raw): (at, raw) for at, raw in volume.entry_places(entry.first) if raw[11] != 15
    }
    at, raw = places[target]
    _, source = places[temporary]
    changed[at : at + 32] = raw[:20] + source[20:22] + raw[22:26] + source[26:32]
    return bytes(changed)


def test_shared_leftover_is_found_and_removed_alone(tmp_path: Path) -> None:
    path = tmp_path / "v"
    make(path, "fat32")
    new = NOISE[40_000:]
    fat_image.write_tree(path, 0, {"EFI/Microsoft/Boot/rehost.tmp": new})
    data = cross_linked(path.read_bytes(), "EFI/Microsoft/Boot", "BCD", "REHOST.TMP")
    volume = FatVolume(BytesSource(data))
    assert volume.read("EFI/Microsoft/Boot/BCD") == volume.read("EFI/Microsoft/Boot/rehost.tmp") == new
    marks = shared_leftovers(BytesSource(data), "rehost.tmp")
    assert marks
    mended = bytearray(data)
    for place, byte in marks:
        mended[place : place + 1] = byte
    path.write_bytes(mended)
    volume = volume_of(path)
    assert not volume.exists("EFI/Microsoft/Boot/rehost.tmp")
    assert volume.read("EFI/Microsoft/Boot/BCD") == new
    names = [e.name for e in volume.listdir("EFI/Microsoft/Boot")]
    assert names == ["A long name with Ünïcödé.txt", "BCD", "de-DE"]
    # new files do not get the clusters of the good one
    fat_image.write_tree(path, 0, {"EFI/Microsoft/Boot/other": bytes(100_000)})
    assert volume_of(path).read("EFI/Microsoft/Boot/BCD") == new


def test_ordinary_leftovers_and_healthy_volumes_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "v"
    make(path, "fat32")
    assert shared_leftovers(BytesSource(path.read_bytes()), "rehost.tmp") == []
    fat_image.write_tree(path, 0, {"EFI/Microsoft/Boot/rehost.tmp": b"x" * 5000, "EFI/Boot/rehost.tmp": b""})
    assert shared_leftovers(BytesSource(path.read_bytes()), "rehost.tmp") == []


# --- anything at all
# --------------------------------------------------------------------------------------------


def use(volume: FatVolume) -> None:
    def attempt(action: object, *arguments: object) -> object:
        try:
            return action(*arguments)  # type: ignore[operator]
        except (FormatError, FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    attempt(volume.free)
    attempt(lambda: volume.label)
    for folder in ("\\", "\\EFI\\Microsoft\\Boot", "\\many"):
        attempt(volume.listdir, folder)
    for name in ("EFI/Boot/bootx64.efi", "EFI/Microsoft/Boot/BCD", "many/File number 77.dat"):
        source = attempt(volume.open, name)
        if source is not None:
            attempt(source.read_at, 0, 100_000)  # type: ignore[attr-defined]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_metadata_never_crashes(images: dict[str, Path], data: st.DataObject) -> None:
    content = images[data.draw(st.sampled_from(sorted(SHAPES)))].read_bytes()
    boot = parse_boot_sector(content[:512])
    root = boot.root_sector if boot.bits != 32 else boot.data_sector
    patches: dict[int, bytes] = {}
    for _ in range(data.draw(st.integers(1, 6))):
        area = data.draw(st.sampled_from([(11, 90), (boot.fat_sector * 512, 3000), (root * 512, 30_000)]))
        place = area[0] + data.draw(st.integers(0, area[1]))
        patches[place] = data.draw(
            st.sampled_from([b"\xff", b"\0", b"\x0f", b"\xff" * 4, bytes(4)])
            | st.binary(min_size=1, max_size=8)
        )
    source = PatchedSource(content, patches)
    try:
        use(FatVolume(source))
        shared_leftovers(source, "rehost.tmp")
    except FormatError:
        pass


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=90))
def test_any_boot_sector(junk: bytes) -> None:
    sector = (b"\xeb\x3c\x90" + junk).ljust(510, b"\0")[:510] + b"\x55\xaa"
    with contextlib.suppress(FormatError):
        use(FatVolume(BytesSource(sector + bytes(4096))))
