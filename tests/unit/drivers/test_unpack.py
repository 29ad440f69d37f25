"""Archives that vendors deliver, and archives that nobody should unpack."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_builder.drivers import unpack
from rehost_builder.drivers.unpack import Limits, may_be_none, opened, with_archives
from rehost_builder.errors import BuildError
from support.cabs import stored_cab
from support.pe_image import make_pe

FILES = {"amd64/a.inf": b"[Version]\r\n", "amd64/a.sys": b"MZ" + bytes(3000), "readme.txt": b"x"}
SMALL = Limits(total=1 << 20, file=1 << 19, count=50, ratio=50, ratio_from=1 << 18, seconds=300)


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left behind would be ours alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))


def make_zip(path: Path, files: dict[str, bytes] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (FILES if files is None else files).items():
            archive.writestr(name, data)
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def unpacked(path: Path, limits: Limits = SMALL) -> dict[str, bytes]:
    with opened(path, limits) as folder:
        found = tree(folder)
    assert not folder.exists()
    return found


def refusal(path: Path, limits: Limits = SMALL) -> str:
    with pytest.raises(BuildError) as caught, opened(path, limits):
        pass
    assert list(Path(tempfile.gettempdir()).iterdir()) == []
    assert caught.value.hint
    return caught.value.message


def test_a_folder_is_itself(tmp_path: Path) -> None:
    with opened(tmp_path) as folder:
        assert folder == tmp_path
    assert tmp_path.exists()


def test_zip(tmp_path: Path) -> None:
    assert unpacked(make_zip(tmp_path / "driver.zip")) == FILES


def test_a_zip_is_known_by_its_bytes(tmp_path: Path) -> None:
    assert unpacked(make_zip(tmp_path / "driver.bin")) == FILES


def test_a_self_extracting_zip_is_never_started(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "setup.exe")
    path.write_bytes(b"MZ" + bytes(4094) + path.read_bytes())
    assert unpacked(path) == FILES


def test_backslashes_are_folders(tmp_path: Path) -> None:
    assert unpacked(make_zip(tmp_path / "d.zip", {"amd64\\a.inf": b"x"})) == {"amd64/a.inf": b"x"}


def test_an_archive_in_an_archive(tmp_path: Path) -> None:
    inner = make_zip(tmp_path / "inner.zip")
    outer = make_zip(tmp_path / "outer.zip", {"sub/inner.zip": inner.read_bytes(), "readme.txt": b"x"})
    found = unpacked(outer)
    assert found["sub/inner.zip.unpacked/amd64/a.inf"] == FILES["amd64/a.inf"]
    # but not without end
    data = inner.read_bytes()
    for i in range(4):
        data = make_zip(tmp_path / f"{i}.zip", {"x.zip": data}).read_bytes()
    assert not any(name.endswith(".inf") for name in unpacked(tmp_path / "3.zip"))


# --- refused ------------------------------------------------------------------------------------------------


def special(name: str, mode: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, "/etc/passwd")

    return make


def named(*names: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(zipfile.ZipInfo(name), b"x")

    return make


def bomb(path: Path) -> None:
    make_zip(path, {"a.sys": bytes(400 << 10)})


def many(path: Path) -> None:
    make_zip(path, {f"{i}": b"" for i in range(60)})


def encrypted(path: Path) -> None:
    make_zip(path, {"a.inf": b"x"})
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    make_zip(path)
    path.write_bytes(path.read_bytes()[:-40])


def wrong_sum(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.inf", b"x" * 100)
    path.write_bytes(path.read_bytes().replace(b"x" * 100, b"x" * 99 + b"y"))


def longer_than_announced(path: Path) -> None:
    """The directory says 10 bytes, the data comes to a million."""
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = packed.compress(bytes(1 << 20)) + packed.flush()
    head = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 0, zlib.crc32(bytes(10)), len(data), 10, 1, 0)
    local = b"PK\x03\x04" + head + b"a" + data
    entry = b"PK\x01\x02" + struct.pack("<H", 20) + head + struct.pack("<HHHII", 0, 0, 0, 0, 0) + b"a"
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(entry), len(local), 0)
    path.write_bytes(local + entry + end)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (special("a.inf", stat.S_IFLNK | 0o777), "is a link or a device"),
        (special("a.inf", stat.S_IFCHR | 0o777), "is a link or a device"),
        (special("a.inf", stat.S_IFIFO | 0o777), "is a link or a device"),
        (named("../a.inf"), "leads out of its folder"),
        (named("x/..\\..\\a.inf"), "leads out of its folder"),
        (named("x/.. /a.inf"), "leads out of its folder"),
        (named("/etc/a.inf"), "has an absolute name"),
        (named("\\\\server\\a.inf"), "has an absolute name"),
        (named("C:\\a.inf"), "has an absolute name"),
        (named("a.inf:stream"), "does not allow"),
        (named("a\x01.inf"), "does not allow"),
        (named("x" * 250), "does not allow"),
        (named("a.sys", "A.SYS"), "is there twice"),
        (bomb, "no driver package does that"),
        (many, "holds more than 50 files"),
        (
            lambda p: make_zip(p, {str(i): os.urandom(300 << 10) for i in range(4)}),
            "unpacks to more than 1 MB",
        ),
        (lambda p: make_zip(p, {"a": os.urandom(600 << 10)}), "is larger than 0 MB"),
        (encrypted, "is encrypted"),
        (cut, "is damaged"),
        (wrong_sum, "is damaged"),
        (named("a", "a/b"), "is damaged"),
        (lambda p: p.write_bytes(b"PK\x05\x06"), "is damaged"),
        (lambda p: p.write_bytes(b""), "is no archive that is known"),
        (lambda p: p.write_bytes(b"Rar!\x1a\x07"), "is no archive that is known"),
        (os.mkfifo, "is a named pipe"),
    ],
)
def test_refused(make: Callable[[Path], None], text: str, tmp_path: Path) -> None:
    path = tmp_path / "driver.zip"
    make(path)
    message = refusal(path)
    assert text in message
    assert message.startswith("driver.zip")
    assert [p.name for p in tmp_path.iterdir()] == ["driver.zip"]


def test_no_more_is_written_than_was_announced(tmp_path: Path) -> None:
    longer_than_announced(tmp_path / "d.zip")
    assert unpacked(tmp_path / "d.zip") == {"a": bytes(10)}


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"), opened(tmp_path / "nothing.zip"):
        pass


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_zips_are_unpacked_or_refused(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = make_zip(Path(name, "d.zip"))
        image = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            image[data.draw(st.integers(4, len(image) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(image)
        try:
            with opened(path, SMALL) as folder:
                assert all(folder in p.resolve().parents for p in folder.rglob("*"))
        except BuildError as e:
            assert "d.zip" in e.message  # noqa: PT017
        assert os.listdir(name) == ["d.zip"]  # noqa: PTH208


# --- by programs --------------------------------------------------------------------------------------------


def program(*names: str) -> str:
    for name in names:
        if found := shutil.which(name):
            return found
    pytest.skip(f"{names[0]} is not installed")


def fill(folder: Path) -> Path:
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_7z(tmp_path: Path) -> None:
    seven = program("7zz", "7z")
    source = fill(tmp_path / "source")
    subprocess.run([seven, "a", tmp_path / "d.7z", "."], cwd=source, check=True, capture_output=True)
    assert unpacked(tmp_path / "d.7z") == FILES


def test_a_self_extracting_7z_is_never_started(tmp_path: Path) -> None:
    """A program as vendors put it before the archive: here one that does nothing."""
    seven = program("7zz", "7z")
    source = fill(tmp_path / "source")
    subprocess.run([seven, "a", tmp_path / "d.7z", "."], cwd=source, check=True, capture_output=True)
    path = tmp_path / "setup.exe"
    path.write_bytes(make_pe() + (tmp_path / "d.7z").read_bytes())
    assert unpacked(path) == FILES


def test_a_program_that_is_no_archive(tmp_path: Path) -> None:
    """7-Zip takes the sections of any program for files; no INF is among them."""
    path = tmp_path / "setup.exe"
    path.write_bytes(make_pe())
    program("7zz", "7z")
    try:
        assert not any(name.endswith(".inf") for name in unpacked(path))
    except BuildError as e:
        assert "setup.exe" in e.message  # noqa: PT017


def make_msi(path: Path, files: dict[str, bytes]) -> Path:
    """An installer database with its cabinet inside, made by msitools; the files go into a folder amd64."""
    program("msiextract")
    build = program("msibuild")
    cab = path.with_suffix(".cab")
    cab.write_bytes(stored_cab({f"f{i}": data for i, data in enumerate(files.values())}))
    tables = {
        "Directory": ("Directory|Directory_Parent|DefaultDir", "CCC", [("TARGETDIR", "", "SourceDir"), ("D", "TARGETDIR", "amd64")]),
        "Component": ("Component|ComponentId|Directory_|Attributes|Condition|KeyPath", "CCCSCC", [("C", "{11111111-2222-3333-4444-555555555556}", "D", 0, "", "f0")]),
        "File": (
            "File|Component_|FileName|FileSize|Version|Language|Attributes|Sequence",
            "CCCLCCSS",
            [(f"f{i}", "C", name, len(data), "", "", 0, i + 1) for i, (name, data) in enumerate(files.items())],
        ),
        "Media": ("DiskId|LastSequence|DiskPrompt|Cabinet|VolumeLabel|Source", "SSCCCC", [(1, len(files), "", "#d.cab", "", "")]),
    }  # fmt: skip
    kinds = {"C": "CHAR(72)", "S": "SHORT", "L": "LONG"}
    queries = []
    for table, (columns, types, rows) in tables.items():
        names = [f"`{c}`" for c in columns.split("|")]
        parts = [
            f"{n} {kinds[t]}{'' if i else ' NOT NULL'}"
            for i, (n, t) in enumerate(zip(names, types, strict=True))
        ]
        queries.append(f"CREATE TABLE `{table}` ({', '.join(parts)} PRIMARY KEY {names[0]})")
        for row in rows:
            values = ", ".join(str(v) if isinstance(v, int) else f"'{v}'" for v in row)
            queries.append(f"INSERT INTO `{table}` ({', '.join(names)}) VALUES ({values})")
    made = [build, path, "-s", "Driver", "Example", ";1033", "{11111111-2222-3333-4444-555555555555}"]
    subprocess.run(made, check=True, capture_output=True)
    asked = [part for query in queries for part in ("-q", query)]
    subprocess.run([build, path, *asked, "-a", "d.cab", cab], check=True, capture_output=True)
    cab.unlink()
    return path


def test_msi(tmp_path: Path) -> None:
    files = {"a.inf": FILES["amd64/a.inf"], "a.sys": FILES["amd64/a.sys"]}
    assert unpacked(make_msi(tmp_path / "d.msi", files)) == {f"amd64/{n}": d for n, d in files.items()}


def test_cab(tmp_path: Path) -> None:
    program("cabextract", "7zz", "7z", "bsdtar")
    path = tmp_path / "d.cab"
    path.write_bytes(stored_cab({n.replace("/", "\\"): d for n, d in FILES.items()}))
    assert unpacked(path) == FILES


def test_links_in_other_archives_are_found_afterwards(tmp_path: Path) -> None:
    seven = program("7zz", "7z")
    source = fill(tmp_path / "source")
    (source / "b.inf").symlink_to("/etc/passwd")
    subprocess.run([seven, "a", "-snl", tmp_path / "d.7z", "."], cwd=source, check=True, capture_output=True)
    assert "b.inf" in refusal(tmp_path / "d.7z")


def test_a_bomb_is_stopped_while_it_is_unpacked(tmp_path: Path) -> None:
    seven = program("7zz", "7z")
    (tmp_path / "big").write_bytes(bytes(64 << 20))
    subprocess.run([seven, "a", tmp_path / "d.7z", tmp_path / "big"], check=True, capture_output=True)
    refusal(tmp_path / "d.7z")


def test_a_damaged_archive_says_so(tmp_path: Path) -> None:
    program("cabextract", "7zz", "7z", "bsdtar")
    path = tmp_path / "d.cab"
    path.write_bytes(stored_cab(FILES)[:200])
    assert refusal(path).startswith("d.cab cannot be unpacked: ")


@pytest.mark.parametrize(
    ("head", "package"),
    [
        (b"MSCF", "cabextract"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "msitools"),
        (b"7z\xbc\xaf\x27\x1c", "7zip"),
        (b"MZ", "7zip"),
    ],
)
def test_a_missing_program_is_named_with_its_package(
    head: bytes, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "driver").write_bytes(head + bytes(100))
    with pytest.raises(BuildError) as caught, opened(tmp_path / "driver"):
        pass
    assert caught.value.hint == f"apt-get install {package}"


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ('ln -s /etc/passwd "$PWD/a.inf"', "is a link or a device"),
        ("mkfifo a.inf", "is a link or a device"),
        ("echo x >a.inf; ln a.inf b.inf", "is a link or a device"),
        ("echo x >../a.inf", "writes outside of its folder"),
        ("while :; do head -c 100000 /dev/zero >>a; cat a >b; done", "cannot be unpacked|unpacks to more"),
        ("i=0; while :; do i=$((i+1)); : >$i; done", "holds more than 50 files"),
        ("sleep 60", "was not unpacked within"),
        ("echo 'ERROR: bad headers' >&2; exit 2", "ERROR: bad headers"),
    ],
)
def test_what_a_program_must_not_do(
    script: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that does what a hostile archive might make it do."""
    fake = tmp_path / "bin" / "cabextract"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    (tmp_path / "d.cab").write_bytes(b"MSCF" + bytes(100))
    seconds = (
        1 if script.startswith("sleep") else 300
    )  # the others end by what they do, on a busy computer too
    limits = Limits(total=1 << 20, file=1 << 20, count=50, seconds=seconds)
    message = refusal(tmp_path / "d.cab", limits)
    assert any(t in message for t in text.split("|")), message


def test_archives_in_a_folder(tmp_path: Path) -> None:
    make_zip(tmp_path / "b.zip")
    (tmp_path / "a").mkdir()
    make_zip(tmp_path / "a" / "c.zip")
    (tmp_path / "l.zip").symlink_to("b.zip")
    (tmp_path / "setup.EXE").write_bytes(b"MZ")
    (tmp_path / "p").mkdir()
    for name in ("x.inf", "tool.exe", "data.cab", "x.7z"):
        (tmp_path / "p" / name).touch()
    found = [
        "b.zip",
        "setup.EXE",
        "a/c.zip",
        "p/x.7z",
    ]  # beside an INF programs and cabinets are parts of its package
    assert with_archives(tmp_path) == [tmp_path, *(tmp_path / name for name in found)]
    assert with_archives(tmp_path / "b.zip") == [tmp_path / "b.zip"]
    meant = [
        p.relative_to(tmp_path).as_posix() for p in with_archives(tmp_path) if not may_be_none(p, tmp_path)
    ]
    assert meant == [".", "b.zip"]


def test_the_limits_leave_room_for_real_packages() -> None:
    assert unpack.LIMITS.file >= 64 << 20
    assert unpack.LIMITS.total >= 512 << 20
