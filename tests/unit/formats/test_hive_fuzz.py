"""Mutated and cut-off hives and stores: read, or FormatError; never anything else, never for long."""

from __future__ import annotations

import struct
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_payload.formats.bcd import parse_store
from rehost_payload.formats.bcd_devices import describe_device, encode_device
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.hive import Hive
from support import boot_stores, regf
from support.effort import at_most
from support.regf import K, V

HIVE = regf.build(
    K(
        "R",
        keys=[
            K("many", keys=[K(f"key{i:03}") for i in range(60)]),
            K("big", values=[V("big", 3, bytes(40_000)), V("sz", 1, b"a\0b\0\0\0"), V("d", 4, bytes(4))]),
            K("deep", keys=[K("a", keys=[K("b", keys=[K("c", values=[V("", 7, bytes(2))])])])]),
            K("内存", values=[V("内存", 1, b"x\0\0\0")]),
        ],
    ),
    per_leaf=20,
)
STORES = [boot_stores.as_hive(store) for store in boot_stores.all_kinds().values()]
# where structures lie: keys, values, lists, and the headers of their cells
SPOTS = sorted({p + o for p in [*HIVE.places.values(), *HIVE.lists.values()] for o in range(-4, 80)})
CALLS = 1_000_000  # a hundred times what such a small hive takes


def read_everything(data: bytes) -> None:
    with at_most(CALLS), suppress(FormatError):
        pending = [Hive.parse(data, lenient=True).root]
        while pending:
            key = pending.pop()
            assert isinstance(key.name, str)
            _ = key.last_written
            for value in key.values():
                _ = value.data
            _ = key.value("x"), key.subkey("x")
            pending += key.subkeys()


@settings(max_examples=300, deadline=None)
@given(
    changes=st.lists(st.tuples(st.sampled_from(SPOTS), st.integers(0, 255)), min_size=1, max_size=8),
    cut=st.none() | st.integers(0, len(HIVE.data)),
)
def test_mutated_hives(changes: list[tuple[int, int]], cut: int | None) -> None:
    data = bytearray(HIVE.data)
    for at, byte in changes:
        data[at] = byte
    read_everything(bytes(data[:cut]))


@settings(max_examples=200, deadline=None)
@given(
    changes=st.lists(
        st.tuples(
            st.sampled_from(SPOTS),
            st.sampled_from([0, 0x20, 0x28, 0x1000, 0x7FFFFFF8, 0xFFFFFFF8, 0xFFFFFFFF]),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_hives_with_hostile_numbers(changes: list[tuple[int, int]]) -> None:
    """Whole 32-bit fields: offsets to the root, to the end, negative sizes."""
    data = bytearray(HIVE.data)
    for at, number in changes:
        struct.pack_into("<I", data, at & ~3, number)
    read_everything(bytes(data))


@settings(max_examples=100, deadline=None)
@given(
    first=st.sampled_from(sorted(HIVE.lists)),
    second=st.sampled_from(sorted(HIVE.lists)),
    at=st.integers(0, 9),
)
def test_lists_that_point_to_each_other(first: str, second: str, at: int) -> None:
    """Loops and shared branches: a key that is reachable twice must not be walked twice."""
    data = bytearray(HIVE.data)
    target = HIVE.places.get(second, HIVE.lists[second]) - 4 - regf.PAGE
    struct.pack_into("<I", data, HIVE.lists[first] + 4 + 4 * at, target)
    read_everything(bytes(data))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_mutated_stores(data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.sampled_from(STORES)))
    for _ in range(data.draw(st.integers(1, 12))):
        raw[data.draw(st.integers(4096, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(raw[: data.draw(st.none() | st.integers(0, len(raw)))])
    with at_most(CALLS), suppress(FormatError):
        store = parse_store(cut)
        for _, element in store.elements():
            _ = element.value
            if element.device is not None:
                assert encode_device(element.device) == element.data
                assert describe_device(element.device)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=9000))
def test_random_bytes(data: bytes) -> None:
    read_everything(data)
    read_everything(bytes(HIVE.data[:4096]) + data)
