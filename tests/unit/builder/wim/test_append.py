"""Files put into an image; wimlib is the judge of what comes out."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from rehost_builder.content import Content, Joined, open_content, size_of
from rehost_builder.wim.append import append
from rehost_builder.wim.header import read_header, why_unfit
from rehost_builder.wim.integrity import check_integrity
from rehost_builder.wim.reader import Wim
from rehost_payload.formats.errors import FormatError
from support.wim_files import (
    capture,
    details,
    extract,
    facts,
    listing,
    needs_wimlib,
    verify,
    wimlib,
    write_files,
)

pytestmark = needs_wimlib
EPOCH = 1_700_000_000
OLD = {
    "Windows/System32/startnet.cmd": b"wpeinit\r\n",
    "Windows/System32/winpeshl.ini": b"[LaunchApp]\r\n",
    "Windows/System32/cmd.exe": b"MZ" + bytes(50_000),
    "Windows/System32/big.dll": random.Random(1).randbytes(90_000),
    "Windows/empty.txt": b"",
    "autorun.inf": b"[autorun]\r\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tree = write_files(tmp_path / "tree", OLD)
    (tree / "Windows/System32/linked.dll").hardlink_to(tree / "Windows/System32/big.dll")
    (tree / "Windows/hollow").mkdir()
    return tree


def put(
    wim: Path, target: Path, image: int, files: Mapping[str, Content], remove: tuple[str, ...] = ()
) -> Joined:
    with wim.open("rb") as f:
        result = append(Wim(f), wim, image, files, epoch=EPOCH, remove=remove)
    with open_content(result.content) as source, target.open("wb") as out:
        shutil.copyfileobj(source, out)
    assert target.stat().st_size == size_of(result.content) == wim.stat().st_size + result.added
    return result.content


@pytest.mark.parametrize("options", [("--compress=none",), ("--compress=XPRESS",), (), ("--check",)], ids=str)
def test_the_image_is_the_old_one_and_the_new_files(
    tmp_path: Path, folder: Path, options: tuple[str, ...]
) -> None:
    wim, out = capture(tmp_path / "boot.wim", folder, "PE", *options), tmp_path / "out.wim"
    program = tmp_path / "python.exe"
    program.write_bytes(random.Random(2).randbytes(300_000))
    new: dict[str, Content] = {
        "windows/SYSTEM32/Startnet.CMD": b"wpeinit\r\ncall rehost\r\n",
        "Rehost\\python\\python.exe": program,
        "Rehost/python/Lib/leer.txt": b"",
        "Rehost/same.dll": OLD["Windows/System32/big.dll"],
        "Rehost/again.dll": program.read_bytes(),
        "Rehost/Üben.txt": b"x",
    }
    put(wim, out, 1, new, remove=("WINDOWS/system32/WinPEshl.ini", "Windows/absent.txt"))

    verify(out)
    found = extract(out, tmp_path / "applied")
    expected = OLD | {"Windows/System32/linked.dll": OLD["Windows/System32/big.dll"]}
    expected |= {
        "Windows/System32/startnet.cmd": b"wpeinit\r\ncall rehost\r\n",
        "Rehost/python/python.exe": program.read_bytes(),
        "Rehost/python/Lib/leer.txt": b"",
        "Rehost/same.dll": OLD["Windows/System32/big.dll"],
        "Rehost/again.dll": program.read_bytes(),
        "Rehost/Üben.txt": b"x",
    }
    del expected["Windows/System32/winpeshl.ini"]
    assert found == expected
    assert (tmp_path / "applied/Windows/hollow").is_dir()
    # a content that is there already, or comes twice, is stored once
    assert details(out, "/Rehost/same.dll")["Reference Count"] == "3"
    assert details(out, "/Rehost/again.dll")["Reference Count"] == "2"
    assert details(out, "/Windows/System32/linked.dll")["Link Count"] == "2"
    assert details(out, "/Rehost/Üben.txt")["Last Write Time"] == "Tue Nov 14 22:13:20 2023 UTC"
    assert facts(out)["Boot Index"] == "1"
    assert ("Integrity info" in facts(out)["Attributes"]) is ("--check" in options)


def test_counts_are_those_of_wimlib(tmp_path: Path, folder: Path) -> None:
    wim, out, theirs = capture(tmp_path / "a.wim", folder), tmp_path / "b.wim", tmp_path / "c.wim"
    shutil.copy(wim, theirs)
    for name in ("new", "other"):  # two, since wimlib keeps one file added twice as a pair of links
        (tmp_path / name).write_bytes(b"12345")
    commands = f"add {tmp_path}/new /Windows/new.txt\ndelete /autorun.inf\ndelete /Windows/System32/big.dll\n"
    commands += f"add {tmp_path}/other /Windows/System32/big.dll\n"
    wimlib("update", theirs, "1", stdin=commands)
    put(wim, out, 1, {"Windows/new.txt": b"12345", "Windows/System32/BIG.DLL": b"12345"}, ("autorun.inf",))
    for name in ("File Count", "Total Bytes", "Hard Link Bytes", "Directory Count"):
        assert facts(out)[name] == facts(theirs)[name], name
    # what stays behind of a pair of hard links is the content of the other name
    assert details(out, "/Windows/System32/linked.dll")["Reference Count"] == "1"


def test_only_the_chosen_image_changes(tmp_path: Path, folder: Path) -> None:
    wim, out = tmp_path / "boot.wim", tmp_path / "out.wim"
    setup = write_files(
        tmp_path / "setup", {"sources/setup.exe": b"MZ", "Windows/System32/startnet.cmd": b"old"}
    )
    capture(wim, folder)
    capture(wim, setup, "Microsoft Windows Setup (x64)", "--flags=2", "--boot")
    put(wim, out, 1, {"Rehost/x": b"x", "Windows/System32/startnet.cmd": b"new"})
    verify(out)
    assert extract(out, tmp_path / "two", 2) == {
        "sources/setup.exe": b"MZ",
        "Windows/System32/startnet.cmd": b"old",
    }
    assert extract(out, tmp_path / "one", 1)["Windows/System32/startnet.cmd"] == b"new"
    assert facts(out)["Boot Index"] == "1"
    put(out, tmp_path / "again.wim", 2, {"Rehost/y": b"y"})  # and once more, onto the result
    verify(tmp_path / "again.wim")
    assert "/Rehost/y" in listing(tmp_path / "again.wim", 2)
    assert "/Rehost/x" in listing(tmp_path / "again.wim", 1)


def test_the_integrity_table_covers_old_and_new(tmp_path: Path, folder: Path) -> None:
    rng = random.Random(3)
    for n in range(3):  # more than one chunk of 10 MiB
        (folder / f"noise{n}").write_bytes(rng.randbytes(8 << 20))
    wim, out = capture(tmp_path / "a.wim", folder, "PE", "--compress=none", "--check"), tmp_path / "b.wim"
    put(wim, out, 1, {"new": rng.randbytes(4 << 20)})
    verify(out)
    with out.open("r+b") as f:
        header = read_header(f)
        end = header.table.offset + header.table.stored
        f.seek(header.integrity.offset)
        raw = f.read(header.integrity.stored)
        assert check_integrity(f, raw, end) == []
        f.seek(25 << 20)
        byte = f.read(1)
        f.seek(25 << 20)
        f.write(bytes([byte[0] ^ 1]))
        assert check_integrity(f, raw, end) == [2]


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, folder: Path) -> None:
    wim = capture(tmp_path / "a.wim", folder)
    files: dict[str, Content] = {"Rehost/a": b"a", "Rehost/b/c": b"c"}
    put(wim, tmp_path / "1.wim", 1, files)
    os.utime(wim, (1, 1))
    put(wim, tmp_path / "2.wim", 1, dict(reversed(files.items())))
    assert (tmp_path / "1.wim").read_bytes() == (tmp_path / "2.wim").read_bytes()


def test_names_that_cannot_be(tmp_path: Path, folder: Path) -> None:
    wim = capture(tmp_path / "a.wim", folder)
    for name in ("Windows", "autorun.inf/x", "Rehost/con?", "Rehost/dot.", "Rehost/a:b", "x" * 256):
        with wim.open("rb") as f, pytest.raises(ValueError, match=r"image|file name"):
            append(Wim(f), wim, 1, {name: b"x"}, epoch=EPOCH)
    with wim.open("rb") as f, pytest.raises(FormatError, match="no image 2"):
        append(Wim(f), wim, 2, {"a": b"x"}, epoch=EPOCH)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--compress=LZMS",), "LZMS"),
        (("--compress=LZX", "--chunk-size=128K"), "128 KiB"),
        (("--solid",), "solid"),
        (("--pipable",), "pipable"),
        ((), None),
        (("--compress=XPRESS",), None),
        (("--compress=none",), None),
    ],
    ids=str,
)
def test_what_the_boot_manager_refuses_is_named(
    tmp_path: Path, folder: Path, options: tuple[str, ...], words: str | None
) -> None:
    with capture(tmp_path / "a.wim", folder, "PE", *options).open("rb") as f:
        reason = why_unfit(read_header(f))
    assert reason is None if words is None else reason is not None and words in reason


def test_a_split_wim_is_named(tmp_path: Path, folder: Path) -> None:
    (folder / "noise").write_bytes(random.Random(4).randbytes(3 << 20))
    wimlib("split", capture(tmp_path / "a.wim", folder), tmp_path / "s.swm", "1")
    with (tmp_path / "s.swm").open("rb") as f:
        wim = Wim(f)
        assert "part 1 of" in (why_unfit(wim.header) or "")
        with pytest.raises(FormatError, match="split"):
            append(wim, tmp_path / "s.swm", 1, {"a": b"x"}, epoch=EPOCH)
