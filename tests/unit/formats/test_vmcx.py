"""Hyper-V's binary storage, on files of our own writer: values, order, log, damage, hostile files."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.source import BytesSource
from rehost_payload.formats.vm_tree import MAX_DEPTH, Blob, Kind, Node
from rehost_payload.formats.vmcx import Storage, is_vmcx, parse_vmcx
from support import vmcx_image
from support.effort import at_most
from support.sources import PatchedSource
from support.vmcx_image import PAGE, Image, Tree

TREE: Tree = [
    (
        "configuration",
        [
            (
                "properties",
                [
                    ("version", 2304),
                    ("name", "Größe 内存"),
                    ("shared", True),
                    ("negative", -5),
                    ("ratio", 0.5),
                ],
            ),
            ("metric", [("id", "first")]),
            ("metric", [("id", "second"), ("extra", b"\x01\x02")]),
            ("empty", []),
            ("notes", "x" * 1500),
            ("memory", bytes(range(256)) * 20),
            ("many", [(f"key{i:03}", i) for i in range(200)]),
        ],
    )
]
IMAGE = vmcx_image.build(TREE)


def parse(image: Image | bytes, *, lenient: bool = False) -> Storage:
    data = image if isinstance(image, bytes) else image.bytes
    return parse_vmcx(BytesSource(data), lenient=lenient)


def value(root: Node, path: str) -> object:
    node = root.find(path)
    assert node is not None, path
    return node.value


def copy(image: Image = IMAGE) -> Image:
    return Image(bytearray(image.data), dict(image.places))


def leaves(storage: Storage) -> list[tuple[str, object]]:
    return [(p, n.value.read() if isinstance(n.value, Blob) else n.value) for p, n in storage.root.leaves()]


def test_every_type_of_value() -> None:
    storage = parse(IMAGE)
    root = storage.root
    assert storage.format_text == "4.0"
    assert not storage.notes
    assert not storage.damage
    assert value(root, "configuration/properties/name") == "Größe 内存"
    assert value(root, "CONFIGURATION/Properties/Shared") is True
    assert value(root, "configuration/properties/negative") == -5
    assert value(root, "configuration/properties/ratio") == 0.5
    assert value(root, "configuration/notes") == "x" * 1500
    empty = root.find("configuration/empty")
    assert empty is not None
    assert empty.kind is Kind.NODE
    assert root.find("configuration/none") is None


def test_large_values_stay_in_the_file_until_asked_for() -> None:
    memory = value(parse(IMAGE).root, "configuration/memory")
    assert isinstance(memory, Blob)
    assert (memory.offset, memory.size) == (IMAGE.places["blob1"], 5120)
    assert memory.read() == bytes(range(256)) * 20


def test_repeated_siblings_and_order_are_kept() -> None:
    root = parse(IMAGE).root
    configuration = root.child("configuration")
    assert configuration is not None
    assert [n.children[0].value for n in configuration.all("metric")] == ["first", "second"]
    # the second one is found as well, where only it has the key
    assert value(root, "configuration/metric/extra") == b"\x01\x02"
    many = configuration.child("many")
    assert many is not None
    assert [n.value for n in many.children] == list(range(200))
    assert len([p for p in IMAGE.places if p.startswith("table")]) > 1


@pytest.mark.parametrize("version", [0x0200, 0x0300, 0x0301, 0x0400])
def test_formats_two_to_four(version: int) -> None:
    assert leaves(parse(vmcx_image.build(TREE, version=version))) == leaves(parse(IMAGE))


@pytest.mark.parametrize("version", [0x0100, 0x0101, 0x0500])
def test_other_formats_are_refused(version: int) -> None:
    with pytest.raises(FormatError, match="not supported"):
        parse(vmcx_image.build(TREE, version=version))


def test_before_3_1_the_checksum_of_an_object_says_nothing() -> None:
    for version, fails in ((0x0300, False), (0x0301, True)):
        image = vmcx_image.build(TREE, version=version)
        image.data[image.places["objects0"] + 8 + 1] ^= 0xFF
        if fails:
            with pytest.raises(FormatError, match="object table entry"):
                parse(image)
        else:
            assert leaves(parse(image)) == leaves(parse(IMAGE))


def test_objects_continue_in_further_tables() -> None:
    image = vmcx_image.build(TREE, capacity=3)
    assert "objects1" in image.places
    assert leaves(parse(image)) == leaves(parse(IMAGE))


@pytest.mark.parametrize(
    ("sequences", "chosen"), [((7, 6), 7), ((6, 7), 7), ((0xFFFF, 0), 0), ((0, 0xFFFF), 0), ((5, 5), 5)]
)
def test_the_newer_header_counts(sequences: tuple[int, int], chosen: int) -> None:
    assert parse(vmcx_image.build(TREE, sequences=sequences)).header.sequence == chosen


def test_one_damaged_header_is_enough() -> None:
    for number in (0, 1):
        image = copy()
        image.data[number * PAGE + 9] ^= 1
        storage = parse(image)
        assert storage.header.sequence == (6, 7)[number]
        assert storage.notes == (f"header at {number * PAGE:#x}: wrong checksum",)
        image.data[(1 - number) * PAGE] ^= 1
        with pytest.raises(FormatError, match="no signature"):
            parse(image)
        assert is_vmcx(BytesSource(image.bytes))


def test_damage_is_an_error_or_named_and_left_out() -> None:
    image = copy()
    image.data[image.places["configuration/properties/name"] + 30] ^= 1
    with pytest.raises(FormatError, match=r"key entry at byte .*: wrong checksum") as error:
        parse(image)
    assert error.value.offset == image.places["configuration/properties/name"]
    storage = parse(image, lenient=True)
    assert len(storage.damage) == 1
    assert storage.root.find("configuration/properties/name") is None
    assert value(storage.root, "configuration/properties/version") == 2304


@pytest.mark.parametrize("place", ["table2", "objects0"])
def test_damaged_tables(place: str) -> None:
    image = copy()
    image.data[image.places[place]] ^= 1
    with pytest.raises(FormatError, match="no signature"):
        parse(image)
    if place == "objects0":
        with pytest.raises(FormatError, match="no signature"):
            parse(image, lenient=True)
    else:
        assert 0 < parse(image, lenient=True).entries < parse(IMAGE).entries


def test_a_lost_parent_is_named() -> None:
    image = copy()
    image.data[image.places["configuration/many"] + 22] ^= 1
    storage = parse(image, lenient=True)
    assert any("200 entries have no parent" in line for line in storage.damage)


def test_pending_writes_are_applied() -> None:
    """Three blocks are damaged on the disk; the log still has what they should be."""
    image = copy()
    spots = [image.places["table1"], image.places["table2"], image.places["objects0"]]
    vmcx_image.set_log(image, [(at, bytes(image.data[at : at + PAGE])) for at in spots])
    for at in spots:
        image.data[at : at + PAGE] = b"\xa5" * PAGE
    storage = parse(image)
    assert storage.replay.applied == 3
    assert leaves(storage) == leaves(parse(IMAGE))


def test_later_writes_win() -> None:
    image = copy()
    at = image.places["blob1"]
    vmcx_image.set_log(image, [(at, b"aaaa"), (at + 2, b"bb")])
    memory = value(parse(image).root, "configuration/memory")
    assert isinstance(memory, Blob)
    assert memory.read()[:6] == b"aabb\x04\x05"


@pytest.mark.parametrize("spot", [4, 34 + 20, PAGE])
def test_a_torn_log_is_not_applied(spot: int) -> None:
    """It was never finished, so nothing of it was written to its place either: the old state is whole."""
    image = copy()
    at = image.places["table1"]
    vmcx_image.set_log(image, [(at, b"\xa5" * PAGE)])
    image.data[image.places["log"] + spot] ^= 1
    storage = parse(image)
    assert storage.replay.applied == 0
    assert "nothing of it was applied" in storage.notes[0]
    assert leaves(storage) == leaves(parse(IMAGE))


def test_log_entries_that_point_outside() -> None:
    image = copy()
    vmcx_image.set_log(image, [(len(image.data) - 2, b"abcd")])
    assert "points outside" in parse(image).notes[0]


def test_a_log_that_claims_more_entries_than_it_has_room_for() -> None:
    for count, most in ((0x92, 0x91), (1 << 31, 1 << 31), (0x91, 0x91)):
        image = copy()
        at = image.places["log"]
        image.data[at + 8 : at + 17] = struct.pack("<IBI", count, 0, most)
        image.data[at : at + 34] = vmcx_image.crc(image.data[at : at + 34], 4)
        storage = parse(image)
        assert storage.replay.applied == 0
        assert storage.notes[0].startswith("replay log: ")
        assert leaves(storage) == leaves(parse(IMAGE))


def test_entries_whose_size_takes_in_the_slack() -> None:
    """The padding is not part of the checksum."""
    image = copy()
    at = image.places["table2"]
    table = bytes(image.data[at : at + PAGE])
    place = 10
    while table[place] != 1:
        last, size = place, struct.unpack_from("<I", table, place + 2)[0]
        place += size
    made = bytearray(table[last:place])
    struct.pack_into("<I", made, 2, PAGE - last)
    image.data[at + last : at + PAGE] = vmcx_image.crc(made, 12) + b"\xee" * (PAGE - place)
    assert leaves(parse(image)) == leaves(parse(IMAGE))


def test_too_many_levels() -> None:
    tree: Tree = [("leaf", 1)]
    for _ in range(MAX_DEPTH + 1):
        tree = [("n", tree)]
    with pytest.raises(FormatError, match="levels"):
        parse(vmcx_image.build(tree))


def test_a_ring_of_nodes_is_not_followed() -> None:
    image = copy()
    at = image.places["configuration"]
    size = struct.unpack_from("<I", image.data, at + 2)[0]
    made = bytearray(image.data[at : at + size])
    struct.pack_into("<HI", made, 6, 1, 10)  # its own parent
    image.data[at : at + size] = vmcx_image.crc(made, 12)
    with pytest.raises(FormatError, match="have no parent"):
        parse(image)
    assert parse(image, lenient=True).root.children == []


def test_key_tables_cannot_be_listed_twice() -> None:
    image = copy()
    start = image.places["objects0"] + 8
    image.data[start + 18 : start + 36] = image.data[start : start + 18]
    with pytest.raises(FormatError, match="listed twice"):
        parse(image)


def test_truncated_anywhere() -> None:
    for length in [*range(0, 200), *range(200, len(IMAGE.data), 517)]:
        for lenient in (False, True):
            try:
                parse(IMAGE.bytes[:length], lenient=lenient)
            except FormatError:
                continue


SPOTS = sorted({p + o for p in IMAGE.places.values() for o in range(60) if p + o < len(IMAGE.data)})


def fix(data: bytearray) -> bytes:
    """With right checksums on headers and log, so that what lies behind them is reached."""
    for at, size, field in ((0, 46, 4), (PAGE, 46, 4), (IMAGE.places["log"], 34, 4)):
        data[at : at + size] = vmcx_image.crc(data[at : at + size], field)
    for place in ("table1", "table2"):
        at = IMAGE.places[place]
        data[at : at + 10] = vmcx_image.crc(data[at : at + 10], 6)
    for i in range(6):
        at = IMAGE.places["objects0"] + 8 + 18 * i
        data[at : at + 18] = vmcx_image.crc(data[at : at + 18], 1)
    return bytes(data)


@settings(max_examples=300, deadline=None)
@given(
    changes=st.lists(st.tuples(st.sampled_from(SPOTS), st.integers(0, 255)), min_size=1, max_size=6),
    fixed=st.booleans(),
    lenient=st.booleans(),
)
def test_mutated_files(changes: list[tuple[int, int]], fixed: bool, lenient: bool) -> None:
    data = bytearray(IMAGE.data)
    for at, byte in changes:
        data[at] = byte
    with at_most(1_000_000), suppress(FormatError):
        storage = parse_vmcx(PatchedSource(fix(data) if fixed else bytes(data), {}), lenient=lenient)
        for _, node in storage.root.leaves():
            if isinstance(node.value, Blob):
                node.value.read()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=3000), st.booleans())
def test_random_bytes(data: bytes, headed: bool) -> None:
    head = IMAGE.bytes[: vmcx_image.TABLE] if headed else b""
    with pytest.raises(FormatError):
        parse_vmcx(PatchedSource(head + data, {}))
