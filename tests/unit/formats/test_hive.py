"""The hive reader: every layout it may meet, and what it must refuse."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from rehost_payload.formats import hive as h
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.hive import Hive, Key
from rehost_payload.formats.hive_base import filetime
from support import regf
from support.effort import at_most
from support.regf import K, V

SAMPLE = K(
    "ROOT",
    keys=[
        K("Select", values=[V("Current", 4, struct.pack("<I", 2)), V("Default", 4, b"\1\0\0\0")]),
        K(
            "Strings",
            values=[
                V("", 1, "default\0".encode("utf-16-le")),
                V("expand", 2, "%SystemRoot%\0rest".encode("utf-16-le")),
                V("many", 7, "one\0two\0\0".encode("utf-16-le")),
                V("empty list", 7, b"\0\0"),
                V("no terminator", 1, "abc".encode("utf-16-le")),
                V("odd", 1, b"a\0b\0c"),
                V("surrogate", 1, b"a\0\x00\xd8\0\0"),
                V("Größe", 3, b"latin"),
                V("内存", 3, b"wide"),
                V("forced", 3, b"utf-16 name", wide=True),
            ],
        ),
        K(
            "Numbers",
            values=[
                V("qword", 11, struct.pack("<Q", 1 << 40)),
                V("big", 5, struct.pack(">I", 7)),
                V("short", 4, b"\1\0"),
                V("none", 0, b""),
                V("one byte", 3, b"\xff"),
                V("five bytes", 3, b"12345"),
            ],
        ),
        K("Übung", keys=[K("Kind")]),
        K("内存", keys=[K("x", wide=True)]),
    ],
)


@pytest.fixture(params=["lf", "lh", "li"])
def sample(request: pytest.FixtureRequest) -> Hive:
    return Hive.parse(regf.hive(SAMPLE, leaf=request.param, minor=3 if request.param == "lf" else 5))


def key(hive: Hive, *path: str) -> Key:
    found = hive.find(*path)
    assert found is not None
    return found


def value(hive: Hive, path: str, name: str) -> h.Value:
    found = key(hive, *path.split("\\")).value(name)
    assert found is not None
    return found


def test_keys_are_found_without_case(sample: Hive) -> None:
    assert sample.root.name == "ROOT"
    assert [k.name for k in sample.root.subkeys()] == ["Numbers", "Select", "Strings", "Übung", "内存"]
    assert key(sample, "sELECT").name == "Select"
    assert key(sample, "üBUNG", "KIND").name == "Kind"
    assert key(sample, "内存", "X").name == "x"
    assert sample.key("Select") is not None
    assert sample.key("内存\\x") is not None
    assert sample.find("Select", "nothing") is None
    assert sample.find("Nothing", "below") is None
    assert sample.find() is not None


def test_values_in_every_encoding(sample: Hive) -> None:
    assert value(sample, "Strings", "").as_string() == "default"
    assert value(sample, "Strings", "EXPAND").as_string() == "%SystemRoot%"
    assert value(sample, "Strings", "many").as_strings() == ("one", "two")
    assert value(sample, "Strings", "empty list").as_strings() == ()
    assert value(sample, "Strings", "expand").as_strings() == ("%SystemRoot%",)
    assert value(sample, "Strings", "no terminator").as_string() == "abc"
    assert value(sample, "Strings", "odd").as_string() == "ab"
    assert value(sample, "Strings", "surrogate").as_string() == "a\ufffd"
    assert value(sample, "Strings", "gRÖSSE".replace("SS", "ß")).data == b"latin"
    assert value(sample, "Strings", "内存").data == b"wide"
    assert value(sample, "Strings", "FORCED").data == b"utf-16 name"
    assert value(sample, "Select", "Current").as_int() == 2
    assert value(sample, "Numbers", "qword").as_int() == 1 << 40
    assert value(sample, "Numbers", "big").as_int() == 7
    assert value(sample, "Numbers", "none").data == b""
    assert value(sample, "Numbers", "one byte").data == b"\xff"
    assert value(sample, "Numbers", "five bytes").size == 5
    assert key(sample, "Select").value("nothing") is None


def test_values_of_the_wrong_type_are_refused(sample: Hive) -> None:
    with pytest.raises(FormatError, match="not a number"):
        value(sample, "Numbers", "short").as_int()
    with pytest.raises(FormatError, match="not a string"):
        value(sample, "Numbers", "qword").as_string()
    with pytest.raises(FormatError, match="not a string"):
        value(sample, "Numbers", "qword").as_strings()


@pytest.mark.parametrize("leaf", ["lf", "lh", "li"])
def test_index_roots(leaf: str) -> None:
    """1200 keys in leaves of 500: the list is an ri record."""
    hive = Hive.parse(regf.hive(K("R", keys=[K(f"key{i:04}") for i in range(1200)]), leaf=leaf))
    assert [k.name for k in hive.root.subkeys()] == [f"key{i:04}" for i in range(1200)]
    assert hive.find("KEY1199") is not None


@pytest.mark.parametrize("size", [16344, 16345, 16344 * 2, 100_000])
def test_big_data(size: int) -> None:
    data = bytes(i % 251 for i in range(size))
    hive = Hive.parse(regf.hive(K("R", values=[V("big", 3, data)])))
    found = hive.root.value("big")
    assert found is not None
    assert found.data == data


def test_large_data_is_one_cell_before_version_1_4() -> None:
    data = b"db" + bytes(20_000)
    hive = Hive.parse(regf.hive(K("R", values=[V("big", 3, data)]), minor=3))
    found = hive.root.value("big")
    assert found is not None
    assert found.data == data


def test_header_fields() -> None:
    built = regf.build(SAMPLE, sequence=(7, 6), written=0x01D0_0000_0000_0000)
    hive = Hive.parse(bytes(built.data))
    assert hive.dirty
    assert (hive.sequence1, hive.sequence2, hive.major, hive.minor) == (7, 6, 1, 5)
    assert hive.header_intact
    assert hive.last_written is not None
    assert hive.last_written.year == 2014
    assert hive.root.last_written == hive.last_written
    assert filetime(0) is None
    assert filetime(0xFFFFFFFFFFFFFFFF) is None


def test_other_readers_agree_on_the_generated_hive(tmp_path: Path) -> None:
    """hivex and regipy judge the generator, and with it our reader."""
    import hivex  # type: ignore[import-untyped]
    from regipy.registry import RegistryHive

    path = tmp_path / "hive"
    path.write_bytes(regf.hive(K("R", keys=[K("a", keys=[K(f"k{i}") for i in range(700)])]), leaf="lh"))
    ours = Hive.parse(path.read_bytes())
    names = [k.name for k in key(ours, "a").subkeys()]
    handle = hivex.Hivex(str(path))
    child = handle.node_get_child(handle.root(), "a")
    assert [handle.node_name(n) for n in handle.node_children(child)] == names
    assert [k.name for k in RegistryHive(str(path)).get_key("\\a").iter_subkeys()] == names


def test_minimal_hive(tmp_path: Path) -> None:
    import hivex
    from regipy.registry import RegistryHive

    data = h.minimal_hive("NewStoreRoot", file_name="\\EFI\\Microsoft\\Boot\\BCD")
    ours = Hive.parse(data)
    assert not ours.dirty
    assert ours.root.name == "NewStoreRoot"
    assert list(ours.root.subkeys()) == []
    assert list(ours.root.values()) == []
    path = tmp_path / "hive"
    path.write_bytes(data)
    assert RegistryHive(str(path)).root.name == "NewStoreRoot"
    handle = hivex.Hivex(str(path), write=True)
    for i in range(200):
        node = handle.node_add_child(handle.root(), f"key{i}")
        handle.node_set_value(node, {"key": "v", "t": 3, "value": bytes(100)})
    handle.commit(None)
    assert len(list(Hive.parse(path.read_bytes()).root.subkeys())) == 200
    with pytest.raises(ValueError, match="root key needs a name"):
        h.minimal_hive("")
    with pytest.raises(UnicodeEncodeError):
        h.minimal_hive("Größe€")


def test_strings_are_encoded_as_windows_stores_them() -> None:
    assert h.encode_string("ab") == b"a\0b\0\0\0"
    assert h.encode_strings(["a", "b"]) == b"a\0\0\0b\0\0\0\0\0"
    assert h.encode_strings([]) == b"\0\0"
    assert h.decode_strings(h.encode_strings(["x", "y z"])) == ("x", "y z")


# --- what is no hive


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda d: d[:4095], "too few"),
        (lambda d: b"", "signature"),
        (lambda d: b"version https://git-lfs", "signature"),
        (lambda d: d[:300] + b"\x01" + d[301:], "checksum"),
        (lambda d: d[:-4096], "truncated"),
    ],
)
def test_refused(change: Callable[[bytes], bytes], problem: str) -> None:
    data = regf.hive(SAMPLE)
    with pytest.raises(FormatError, match=problem):
        Hive.parse(change(data))


@pytest.mark.parametrize(
    ("offset", "number", "problem"),
    [
        (20, 2, "version 2.5"),
        (24, 2, "version 1.2"),
        (28, 6, "primary file"),
        (32, 0, "primary file"),
        (36, 33, "cell offset"),
        (36, 0xFFFFFFFF, "cell offset"),
        (40, 0, "bins data size"),
        (40, 4097, "bins data size"),
        (40, 0xFFFFF000, "truncated"),
    ],
)
def test_refused_header_fields(offset: int, number: int, problem: str) -> None:
    built = regf.build(SAMPLE)
    struct.pack_into("<I", built.data, offset, number)
    with pytest.raises(FormatError, match=problem):
        Hive.parse(built.seal())


def test_lenient_accepts_damage_that_still_can_be_looked_at() -> None:
    built = regf.build(K("R", keys=[K("a"), K("z", values=[V("v", 3, bytes(9000))])]))
    built.data[300] ^= 1
    with pytest.raises(FormatError):
        Hive.parse(bytes(built.data))
    hive = Hive.parse(bytes(built.data[:-4096]), lenient=True)
    assert not hive.header_intact
    assert hive.find("a") is not None
    with pytest.raises(FormatError):
        key(hive, "z").value("v").data  # type: ignore[union-attr]  # noqa: B018


def test_a_file_longer_than_its_bins_is_fine() -> None:
    """Real stores are padded with zeros up to 256 KiB."""
    assert Hive.parse(regf.hive(SAMPLE) + bytes(100_000)).find("Select") is not None


# --- hostile hives


def hostile(change: Callable[[regf.Built], None], root: K = SAMPLE) -> Hive:
    built = regf.build(root)
    change(built)
    return Hive.parse(built.seal())


def walk(hive: Hive) -> int:
    """Visits everything; returns the number of keys."""
    pending, count = [hive.root], 0
    while pending:
        found = pending.pop()
        count += 1
        for item in found.values():
            assert item.data is not None
        pending += found.subkeys()
    return count


def poke(path: str, offset: int, fmt: str, number: int) -> Callable[[regf.Built], None]:
    return lambda built: struct.pack_into(fmt, built.data, built.places[path] + offset, number)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (poke("", 20, "<I", 0xFFFFFFFF), "subkeys in a hive"),
        (poke("", 20, "<I", 2), "more than the 2 subkeys"),
        (poke("", 28, "<I", 0x7FFFFFF8), "outside"),
        (poke("", 28, "<I", 4), "outside"),
        (poke("Select", 0, "<H", 0), "no key node"),
        (poke("Select", 16, "<I", 4096), "not its parent"),
        (poke("Select", 36, "<I", 0x10000000), "bytes in a cell"),
        (poke("Select", 36, "<I", 0xFFFFFFFF), "bytes in a cell"),
        (poke("Select", 40, "<I", 0xFFFFFFF8), "outside"),
        (poke("Select", 72, "<H", 0xFFFF), "name of 65535"),
        (poke("Select:Current", 0, "<H", 0), "no value"),
        (poke("Select:Current", 2, "<H", 0x8000), "name of 32768"),
        (poke("Select:Current", 4, "<I", 0x80000005), "5 bytes"),
        (poke("Select:Current", 4, "<I", 0x7FFFFFFF), "value data"),
        (poke("Numbers:five bytes", 4, "<I", 0x01000000), "16777216 bytes in a cell"),
        (poke("Numbers:five bytes", 8, "<I", 0xFFFFFFF8), "outside"),
        (poke("Select", -4, "<i", 96), "not in use"),
        (poke("Select", -4, "<i", -(1 << 31)), "does not fit"),
        (poke("Select", -4, "<i", -4), "does not fit"),
    ],
)
def test_damaged_structures(change: Callable[[regf.Built], None], problem: str) -> None:
    hive = hostile(change)
    with pytest.raises(FormatError, match=problem):
        walk(hive)


def test_a_list_that_names_a_key_twice() -> None:
    def twice(built: regf.Built) -> None:
        at = built.lists[""] + 4
        built.data[at + 8 : at + 12] = built.data[at : at + 4]

    with pytest.raises(FormatError, match="listed twice"):
        walk(hostile(twice))


def test_a_child_that_is_its_own_grandparent() -> None:
    """Parent pointers that agree with the loop: only the root's place in it gives it away."""
    root = K("R", keys=[K("a", keys=[K("b")])])

    def loop(built: regf.Built) -> None:
        root_cell = built.places[""] - 4 - regf.PAGE
        a_cell = built.places["a"] - 4 - regf.PAGE
        struct.pack_into("<I", built.data, built.lists["a"] + 4, root_cell)
        struct.pack_into("<I", built.data, built.places[""] + 16, a_cell)

    with pytest.raises(FormatError, match="not its parent"):
        walk(hostile(loop, root))


def test_an_index_root_of_index_roots() -> None:
    root = K("R", keys=[K(f"k{i}") for i in range(4)])
    built = regf.build(root, per_leaf=2)
    at = built.lists[""]
    struct.pack_into("<I", built.data, at + 4, at - 4 - regf.PAGE)
    with pytest.raises(FormatError, match="signature b'ri'"):
        walk(Hive.parse(built.seal()))


def test_an_index_root_that_repeats_a_leaf() -> None:
    """65535 times 500 keys would keep a reader busy that believes it."""
    root = K("R", keys=[K(f"k{i}") for i in range(1000)])
    built = regf.build(root)
    at = built.lists[""]
    (first,) = struct.unpack_from("<I", built.data, at + 4)
    struct.pack_into("<I", built.data, at + 8, first)
    with pytest.raises(FormatError, match="listed twice"):
        walk(Hive.parse(built.seal()))


def test_big_data_with_a_wrong_number_of_segments() -> None:
    built = regf.build(K("R", values=[V("big", 3, bytes(20_000))]))
    (where,) = struct.unpack_from("<I", built.data, built.places[":big"] + 8)
    struct.pack_into("<H", built.data, regf.PAGE + where + 4 + 2, 60_000)
    with pytest.raises(FormatError, match="60000 segments"):
        walk(Hive.parse(built.seal()))


def test_a_deep_hive_is_walked_without_recursion() -> None:
    built = regf.build(_chain(400))
    hive = Hive.parse(bytes(built.data))
    assert walk(hive) == 401
    assert hive.find(*["k"] * 400) is not None


def _chain(depth: int) -> K:
    key = K("k")
    for _ in range(depth - 1):
        key = K("k", keys=[key])
    return K("R", keys=[key])


def test_a_large_hive_costs_what_is_looked_at() -> None:
    """64 MiB behind one small tree: opening it must not read them."""
    small = regf.build(SAMPLE)
    size = 64 << 20
    struct.pack_into("<I", small.data, 40, size)
    data = small.seal().ljust(regf.PAGE + size, b"\0")
    with at_most(1000):
        hive = Hive.parse(data)
        assert key(hive, "Select").value("Current") is not None
