"""The NTFS reader against volumes by mkntfs and libntfs-3g, judged by ntfsls, ntfscat and ntfsinfo."""

from __future__ import annotations

import contextlib
import random
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rehost_payload.formats import hiberfil, lznt1
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.filesystem import UnreadableFile
from rehost_payload.formats.ntfs import NtfsVolume
from rehost_payload.formats.ntfs_logfile import is_unclean
from rehost_payload.formats.ntfs_records import decode_runs
from rehost_payload.formats.source import BytesSource
from support import ntfs_image, sparse
from support.ntfs_image import NtfsImage, restart_page
from support.sources import PatchedSource

MIB = 1 << 20
NOISE = random.Random(7).randbytes(300_000)
TREE = {
    "Windows/System32/config/SYSTEM": NOISE,
    "Windows/empty.txt": b"",
    "Windows/small.txt": b"resident",
    "Windows/Ünïcödé ω.txt": b"names",
    "leerer Ordner/": b"",
    **{f"many/File number {i:04}.dat": b"%d" % i for i in range(600)},
}


def fill(volume: NtfsImage) -> None:
    volume.write(
        "compressed", b"abcabcabd" * 20000 + NOISE[:100_000] + bytes(200_000) + b"q", compressed=True
    )
    volume.write("sparse", b"start", sparse_size=5_000_000)
    volume.write("fragmented", b"")
    volume.write_pieces("fragmented", {i * 40960: bytes([i % 251]) * 4096 for i in range(900)})


@pytest.fixture(scope="module")
def volume_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ntfs") / "volume"
    sparse.make(path, 24 * MIB)
    ntfs_image.make_volume(path, TREE, label="System ä", start_sector=2048)
    with NtfsImage(path) as volume:
        fill(volume)
    return path


@pytest.fixture(scope="module")
def content(volume_file: Path) -> bytes:
    return volume_file.read_bytes()


@pytest.fixture(scope="module")
def volume(content: bytes) -> NtfsVolume:
    return NtfsVolume(BytesSource(content))


def tool(*command: str | Path) -> bytes:
    return subprocess.run([str(c) for c in command], capture_output=True, check=True).stdout


def test_facts_are_those_of_ntfsinfo(volume_file: Path, volume: NtfsVolume) -> None:
    said = tool("ntfsinfo", "-m", volume_file).decode()

    def fact(name: str) -> str:
        found = re.search(rf"{name}: *(.*)", said)
        assert found, said
        return found[1].strip()

    assert volume.label == "System ä" == fact("Volume Name")
    assert volume.cluster_size == int(fact("Cluster Size"))
    free = int(fact("Free Clusters").split()[0])
    assert volume.free() == free * volume.cluster_size
    assert volume.hidden_sectors == 2048
    assert not volume.dirty
    assert not volume.journal_unclean()
    assert re.fullmatch(r"[0-9A-F]{16}", volume.serial)


@pytest.mark.parametrize("path", ["Windows/System32/config/SYSTEM", "compressed", "sparse", "fragmented"])
def test_files_read_as_ntfscat_reads_them(volume_file: Path, volume: NtfsVolume, path: str) -> None:
    theirs = tool("ntfscat", volume_file, path)
    assert volume.read(path) == theirs
    source = volume.open(path)
    places = random.Random(path)
    for _ in range(50):
        start = places.randrange(source.size + 10)
        length = places.randrange(100_000)
        assert source.read_at(start, length) == theirs[start : start + length]


def test_the_samples_are_what_they_are_meant_to_be(volume: NtfsVolume) -> None:
    """Otherwise the test above would show less than it says."""
    fragmented = volume.record(volume._lookup("fragmented")[0])  # type: ignore[index]
    assert fragmented.first(0x20) is not None  # an attribute list
    compressed = volume.record(volume._lookup("compressed")[0]).first(0x80)  # type: ignore[index]
    assert compressed is not None
    assert compressed.compression_unit == 16
    assert any(run.lcn is None for run in compressed.runs)
    many = volume.record(volume._lookup("many")[0])  # type: ignore[index]
    assert many.first(0xA0, "$I30") is not None  # an index of several blocks


def test_listing_is_that_of_ntfsls(volume_file: Path, volume: NtfsVolume) -> None:
    for folder in ("/", "/Windows", "/many", "/leerer Ordner"):
        theirs = set(tool("ntfsls", "-p", folder, volume_file).decode().splitlines()) - {"", ".", ".."}
        assert {entry.name for entry in volume.listdir(folder)} == theirs


def test_names_are_matched_without_case(volume: NtfsVolume) -> None:
    for number in range(0, 600, 37):
        assert volume.read(f"\\MANY\\file NUMBER {number:04}.DAT") == b"%d" % number
    found = volume.stat("windows/ÜNÏCÖDÉ Ω.TXT")
    assert found is not None
    assert found.name == "Ünïcödé ω.txt"
    assert volume.exact_path("/wINDOWS/system32/CONFIG/system") == "\\Windows\\System32\\config\\SYSTEM"
    assert volume.stat("Windows/absent") is None
    assert volume.stat("Windows/small.txt/below a file") is None
    assert volume.stat("\\") is not None


def test_errors_say_what_is_wrong(volume: NtfsVolume) -> None:
    with pytest.raises(FileNotFoundError):
        volume.open("nowhere")
    with pytest.raises(IsADirectoryError):
        volume.open("Windows")
    with pytest.raises(NotADirectoryError):
        volume.listdir("Windows/small.txt")
    with pytest.raises(FormatError, match="expected at most"):
        volume.read("Windows/System32/config/SYSTEM", limit=1000)


def test_volume_states(volume_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "volume"
    path.write_bytes(volume_file.read_bytes())
    with NtfsImage(path) as image:
        image.set_volume_flags(ntfs_image.VOLUME_IS_DIRTY)
        image.write("hiberfil.sys", b"HIBR".ljust(8192, b"\1"))
        image.write("wof", b"x" * 5000)
        image.set_reparse("wof", 0x80000017, bytes(16))
        image.write("dedup", b"x" * 5000)
        image.set_reparse("dedup", 0x80000013, bytes(16))
        image.set_journal_open()
    volume = NtfsVolume(BytesSource(path.read_bytes()))
    assert volume.dirty
    assert volume.journal_unclean()
    assert hiberfil.is_hibernated(volume)
    for name in ("wof", "dedup"):
        with pytest.raises(UnreadableFile) as error:
            volume.open(name)
        assert error.value.code == name
    assert volume.stat("wof").reparse_tag == 0x80000017  # type: ignore[union-attr]
    with NtfsImage(path) as image:
        image.write("hiberfil.sys", bytes(8192))
    assert not hiberfil.is_hibernated(NtfsVolume(BytesSource(path.read_bytes())))


@pytest.mark.parametrize(
    ("magic", "state"),
    [
        (b"hibr", "hibernated"),
        (b"HIBR", "hibernated"),
        (b"wake", "resumed"),
        (b"RSTR", "resumed"),
        (b"\0\0\0\0", "none"),
        (b"", "none"),
        (b"HI", "none"),
    ],
)
def test_hibernation_by_its_first_bytes(magic: bytes, state: str) -> None:
    assert hiberfil.state(magic).value == state


def test_journal_states() -> None:
    assert not is_unclean(b"\xff" * 131072)
    assert is_unclean(restart_page(clean=False) * 2 + bytes(100_000))
    assert not is_unclean(restart_page(clean=True) * 2 + bytes(100_000))
    # the later of the two pages counts
    old, new = restart_page(clean=False, lsn=5), restart_page(clean=True, lsn=6)
    assert not is_unclean(old + new + bytes(8192))
    assert not is_unclean(new + old + bytes(8192))
    assert is_unclean(restart_page(clean=True, lsn=5) + restart_page(clean=False, lsn=6) + bytes(8192))
    assert is_unclean(bytes(131072))  # no page at all: Windows would have to decide


def test_damaged_first_mft_record_is_taken_from_the_mirror(content: bytes, volume: NtfsVolume) -> None:
    damaged = bytearray(content)
    place = volume.boot.mft_lcn * volume.cluster_size
    damaged[place : place + 1024] = b"BAAD" + bytes(1020)
    # the rest of the MFT is good, record 0 itself is not needed any more
    assert NtfsVolume(BytesSource(bytes(damaged))).read("Windows/small.txt") == b"resident"


@pytest.mark.parametrize("sector_size", [512, 4096])
@pytest.mark.parametrize("cluster_size", [4096, 65536])
def test_other_geometries(tmp_path: Path, sector_size: int, cluster_size: int) -> None:
    path = tmp_path / "volume"
    sparse.make(path, 32 * MIB)
    files = {"a/b/c.bin": NOISE, **{f"many/{i}": b"" for i in range(300)}}
    ntfs_image.make_volume(path, files, sector_size=sector_size, cluster_size=cluster_size)
    volume = NtfsVolume(BytesSource(path.read_bytes()))
    assert volume.cluster_size == cluster_size
    assert volume.read("a/b/c.bin") == NOISE
    assert len(volume.listdir("many")) == 300
    assert volume.stat("many/299") is not None


def test_truncated_volume_is_an_error(content: bytes) -> None:
    volume = NtfsVolume(BytesSource(content))
    end = max(run.lcn or 0 for run in volume.record(0).first(0x80).runs)  # type: ignore[union-attr]
    short = NtfsVolume(BytesSource(content[: (end + 200) * 4096]))
    failures = 0
    for name in ("Windows/System32/config/SYSTEM", "fragmented"):
        try:
            short.read(name)
        except FormatError:
            failures += 1
    assert failures
    for size in (0, 100, 512, 4096, 20000):
        with pytest.raises(FormatError):
            NtfsVolume(BytesSource(content[:size]))


# --- pieces
# -----------------------------------------------------------------------------------------------------


def test_lznt1_tokens() -> None:
    """Worked out by hand after [MS-XCA] 2.5; whole files are compared with ntfscat above."""
    stream = (
        b"\x04ab\x03\x10"  # flags, "a", "b", then 6 bytes from 2 back: displacement bits 0x1, length 0x003
    )
    header = (0xB000 | len(stream) - 1).to_bytes(2, "little")
    assert lznt1.decompress(header + stream, 8) == b"abababab"
    assert lznt1.decompress(header + stream, 5000) == b"abababab".ljust(5000, b"\0")
    stored = (0x3000 | 4095).to_bytes(2, "little") + b"x" * 4096
    assert lznt1.decompress(stored + header + stream, 4100) == b"x" * 4096 + b"abab"
    with pytest.raises(FormatError):
        lznt1.decompress(b"\x03\xb0\x01\xff\xff\0", 100)  # refers to before its chunk
    with pytest.raises(FormatError):
        lznt1.decompress(b"\xff\xb0\0", 100)  # longer than the data


def test_run_lists() -> None:
    runs = list(decode_runs(bytes.fromhex("2118340a 21 05 fcff 01 03 00".replace(" ", "")), 0))
    assert [(r.vcn, r.count, r.lcn) for r in runs] == [(0, 0x18, 0x0A34), (0x18, 5, 0x0A30), (0x1D, 3, None)]
    for bad in ("0f", "1100", "210500", "9101", "11058001ff"):
        with pytest.raises(FormatError):
            list(decode_runs(bytes.fromhex(bad) + b"\0" * (bad == "1100"), 0))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_any_run_list_ends(data: bytes) -> None:
    try:
        runs = list(decode_runs(data, 0))
    except FormatError:
        return
    assert len(runs) <= len(data) / 2


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 70000))
def test_any_lznt1_stream_ends(data: bytes, size: int) -> None:
    with contextlib.suppress(FormatError):
        assert len(lznt1.decompress(data, size)) == size


# --- anything at all
# --------------------------------------------------------------------------------------------


def use(volume: NtfsVolume) -> None:
    """What a survey does with a volume, every failure being a FormatError."""

    def attempt(action: object, *arguments: object) -> object:
        try:
            return action(*arguments)  # type: ignore[operator]
        except (FormatError, FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    attempt(volume.free)
    attempt(volume.journal_unclean)
    attempt(hiberfil.is_hibernated, volume)
    for folder in ("\\", "\\Windows", "\\many"):
        listed = attempt(volume.listdir, folder)
        assert listed is None or len(listed) < 5000  # type: ignore[arg-type]
    for name in (
        "Windows/System32/config/SYSTEM",
        "compressed",
        "sparse",
        "fragmented",
        "many/File number 0300.dat",
    ):
        attempt(volume.stat, name)
        source = attempt(volume.open, name)
        if source is not None:
            for offset in (0, 70_000, source.size - 100):  # type: ignore[attr-defined]
                data = attempt(source.read_at, max(0, offset), 100_000)  # type: ignore[attr-defined]
                assert data is None or len(data) <= 100_000  # type: ignore[arg-type]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_metadata_never_crashes(content: bytes, volume: NtfsVolume, data: st.DataObject) -> None:
    patches: dict[int, bytes] = {}
    mft = volume.boot.mft_lcn * volume.cluster_size
    numbers = [0, 2, 3, 5, 6, 10]
    numbers += [volume._lookup(name)[0] for name in ("many", "fragmented", "compressed", "Windows")]  # type: ignore[index]
    allocation = volume.record(numbers[6]).first(0xA0, "$I30")
    assert allocation is not None
    index = (allocation.runs[0].lcn or 0) * volume.cluster_size
    for _ in range(data.draw(st.integers(1, 5))):
        kind = data.draw(st.sampled_from(["boot", "record", "record", "record", "index"]))
        if kind == "boot":
            place = data.draw(st.integers(11, 80))
        elif kind == "index":
            place = index + data.draw(st.integers(0, 8191))
        else:
            place = mft + data.draw(st.sampled_from(numbers)) * 1024 + data.draw(st.integers(0, 500))
        junk = data.draw(
            st.sampled_from([b"\xff", b"\0", b"\xff" * 8, bytes(8)]) | st.binary(min_size=1, max_size=8)
        )
        patches[place] = junk
    try:
        damaged = NtfsVolume(PatchedSource(content, patches))
    except FormatError:
        return
    use(damaged)
