"""WIM files that are damaged or made to harm: every reader says FormatError, in bounded time and memory."""

from __future__ import annotations

import contextlib
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_builder.wim.append import append
from rehost_builder.wim.header import Resource, read_header
from rehost_builder.wim.info import image_infos, pack_xml, parse_xml
from rehost_builder.wim.integrity import parse_integrity
from rehost_builder.wim.reader import Wim
from rehost_builder.wim.table import pack_table, parse_table
from rehost_builder.wim.tree import DIRECTORY, Entry, Tree, new_entry, pack_tree, parse_tree
from rehost_payload.formats.errors import FormatError
from support.wim_files import capture, needs_wimlib, write_files


def _tree() -> Tree:
    """Three folders, a file with a further stream, a descriptor: what append must not touch."""
    security = struct.pack("<IIQ", 36, 1, 20) + b"S" * 20
    root = new_entry("root", sha1=None, filetime=1)
    root = Entry("", root.raw[:102].ljust(104, b"\0"), DIRECTORY, has_list=True)
    root.raw = struct.pack("<Q", 104) + root.raw[8:0x64] + bytes(4)
    windows = new_entry("Windows", sha1=None, filetime=2)
    windows.raw = windows.raw[:12] + struct.pack("<i", 0) + windows.raw[16:]
    root.add(windows)
    file = new_entry("two.txt", sha1=b"a" * 20, filetime=3)
    stream = struct.pack("<QQ20sH", 48, 0, b"b" * 20, 6) + "ads".encode("utf-16-le") + b"\0\0\0\0"
    file.raw = file.raw[:0x60] + struct.pack("<H", 1) + file.raw[0x62:] + stream
    windows.add(file)
    root.add(new_entry("Empty", sha1=None, filetime=4))
    return Tree(security.ljust(40, b"\0"), root)


def test_a_tree_is_written_as_it_was_read() -> None:
    packed = pack_tree(_tree())
    tree = parse_tree(packed)
    assert pack_tree(tree) == packed
    assert [path for path, _ in tree.root.walk()] == ["Empty", "Windows", "Windows/two.txt"]
    found = tree.find("WINDOWS\\Two.TXT")
    assert found is not None
    assert found.hashes == (b"a" * 20, b"b" * 20)
    assert tree.resolve("windows/TWO.txt") == "Windows/two.txt"
    assert tree.security[16:36] == b"S" * 20
    assert tree.resolve("windows/three.txt") is None
    folder = tree.find("Windows")
    assert folder is not None
    assert folder.raw[12:16] == bytes(4)  # its security ID


def test_folders_that_contain_each_other() -> None:
    packed = bytearray(pack_tree(_tree()))
    at = packed.index("Windows".encode("utf-16-le")) - 102
    packed[at + 0x10 : at + 0x18] = struct.pack("<Q", struct.unpack_from("<Q", packed, 40 + 0x10)[0])
    with pytest.raises(FormatError, match="share"):
        parse_tree(bytes(packed))


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_metadata(data: st.DataObject) -> None:
    packed = bytearray(pack_tree(_tree()))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(
            st.sampled_from([0, 1, 8, 0x66, 0x7F, 0xFF])
        )
    del packed[data.draw(st.integers(0, len(packed))) :]
    with contextlib.suppress(FormatError):
        pack_tree(parse_tree(bytes(packed)))


@given(raw=st.binary(max_size=600))
@settings(max_examples=80, deadline=None)
def test_any_bytes_as_a_part(raw: bytes) -> None:
    for read in (parse_tree, parse_table, parse_integrity, lambda r: image_infos(parse_xml(r))):
        with contextlib.suppress(FormatError):
            read(raw)


def test_xml_that_expands() -> None:
    bomb = '<!DOCTYPE WIM [<!ENTITY a "aaaaaaaaaa">]><WIM>&a;</WIM>'
    with pytest.raises(FormatError, match="document type"):
        parse_xml(b"\xff\xfe" + bomb.encode("utf-16-le"))
    text = '<WIM><TOTALBYTES>1</TOTALBYTES><IMAGE INDEX="1"><NAME>Ä &amp; B</NAME></IMAGE></WIM>'
    root = parse_xml(b"\xff\xfe" + text.encode("utf-16-le"))
    assert image_infos(root)[0].name == "Ä & B"
    assert image_infos(parse_xml(pack_xml(root))) == image_infos(root)


def test_a_table_is_written_as_it_was_read() -> None:
    raw = random.Random(5).randbytes(200)
    assert pack_table(parse_table(raw)) == raw
    assert Resource.unpack(raw[:24]).pack() == raw[:24]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    tree = write_files(folder / "tree", {"Windows/System32/a.dll": b"abc" * 5000, "b": b"b" * 40000})
    return capture(folder / "small.wim", tree, "PE", "--boot")


@needs_wimlib
def test_damaged_files(small: Path, tmp_path: Path) -> None:
    """Every byte of header, table and XML matters little to us or is refused; none is an accident."""
    original = small.read_bytes()
    rng = random.Random(6)
    target = tmp_path / "x.wim"
    refused = 0
    for _ in range(250):
        data = bytearray(original)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(208) if rng.random() < 0.5 else rng.randrange(len(data))
            data[at] = rng.choice([0, 1, 0x10, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        if rng.random() < 0.2:
            del data[rng.randrange(len(data)) :]
        target.write_bytes(data)
        with target.open("rb") as f:
            try:
                wim = Wim(f)
                _ = wim.images
                for name in ("Windows/System32/a.dll", "b"):
                    wim.read_file(wim.tree(1), name)
                append(wim, target, 1, {"x": b"x"}, epoch=1)
            except FormatError:
                refused += 1
    assert refused > 100


@needs_wimlib
def test_a_length_that_is_a_lie(small: Path, tmp_path: Path) -> None:
    data = bytearray(small.read_bytes())
    data[48:72] = Resource(1 << 40, 0, 208, 1 << 40).pack()  # the look-up table
    (tmp_path / "x.wim").write_bytes(data)
    with (tmp_path / "x.wim").open("rb") as f, pytest.raises(FormatError, match="more than"):
        _ = Wim(f).blobs
    (tmp_path / "short.wim").write_bytes(data[:100])
    with (tmp_path / "short.wim").open("rb") as f, pytest.raises(FormatError, match="ends inside"):
        read_header(f)
    (tmp_path / "text.wim").write_bytes(b"hello")
    with (tmp_path / "text.wim").open("rb") as f, pytest.raises(FormatError, match="not a WIM"):
        read_header(f)
