"""Large hives: what no edit concerns is not read key by key, and yet nothing wrong gets by."""

from __future__ import annotations

import random
import struct

import pytest

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.hive import DeleteKey, DeleteValue, Hive, HiveEdit, SetValue
from rehost_payload.system import hive_verify
from rehost_payload.system.hive_verify import verify_edits
from rehost_payload.system.hivex_edit import edit_hive
from rehost_payload.system.protocol import SystemError_
from support import hives, regf
from support.regf import K, V

pytest.importorskip("hivex", reason="python3-hivex is not installed")

EDITS: tuple[HiveEdit, ...] = (
    SetValue(("Set001", "Services", "svc7"), "Start", 4, bytes(4)),
    SetValue(("Set001", "Services", "new", "Parameters"), "BusType", 4, b"\x08\0\0\0"),
    DeleteKey(("Set001", "Services", "svc9")),
    DeleteValue(("Set001", "Services", "svc11"), "Path"),
)


def services(count: int) -> K:
    return K(
        "Services",
        keys=[
            K(
                f"svc{i}",
                keys=[K("Parameters", keys=[K("Device", values=[V("v", 3, bytes([i % 251]) * 40)])])],
                values=[V("Start", 4, struct.pack("<I", i % 5)), V("Path", 2, b"s\0y\0s\0" * 30)],
            )
            for i in range(count)
        ],
    )


BIG = regf.hive(K("ROOT", keys=[K("Set001", keys=[services(1500)]), K("Set002", keys=[services(700)])]))


@pytest.fixture(scope="module")
def result() -> bytes:
    return edit_hive(BIG, EDITS)


def quickly(result: bytes) -> bool:
    expected = hive_verify._expectation(EDITS)
    return hive_verify._only_touched_cells_differ(Hive.parse(BIG), Hive.parse(result), BIG, result, expected)


def test_the_short_way_is_taken(result: bytes) -> None:
    assert len(BIG) > 1 << 20
    assert quickly(result)
    verify_edits(BIG, result, EDITS)


def same(damaged: bytes, result: bytes) -> bool:
    """As hivex sees it; False where it does not read it."""
    try:
        return hives.values(damaged) == hives.values(result)
    except (RuntimeError, OSError):
        return False


def test_no_byte_changes_unnoticed(result: bytes) -> None:
    """Flips bytes all over the cells in use: what passes the short way must not make a difference."""
    used = []
    start = 4096
    while start < len(BIG):
        length = struct.unpack_from("<I", BIG, start + 8)[0]
        used += list(hive_verify._used_cells(BIG, start + 32, start + length))[:-1]
        start += length
    chance = random.Random(4)
    caught = 0
    for first, last in chance.sample(used, 150):
        damaged = bytearray(result)
        damaged[chance.randrange(first, last)] ^= 0x10
        try:
            passed = quickly(bytes(damaged))
        except (FormatError, SystemError_):
            passed = False
        caught += not passed
        assert not passed or same(bytes(damaged), result)
    assert caught > 120


@pytest.mark.parametrize(
    "edit",
    [
        SetValue(("Set002", "Services", "svc3"), "Start", 4, b"\x09\0\0\0"),
        SetValue(("Set001", "Services", "svc8", "Parameters"), "more", 4, bytes(4)),
        DeleteKey(("Set002", "Services", "svc4")),
        SetValue(("Set001", "Services", "svc7"), "Start", 4, b"\x03\0\0\0"),
    ],
)
def test_an_edit_too_many_is_caught(result: bytes, edit: HiveEdit) -> None:
    with pytest.raises(SystemError_, match="not as they should be"):
        verify_edits(BIG, edit_hive(result, [edit]), EDITS)


def test_an_edit_too_few_is_caught() -> None:
    for i in range(len(EDITS)):
        done = edit_hive(BIG, EDITS[:i] + EDITS[i + 1 :])
        with pytest.raises(SystemError_, match="not as they should be"):
            verify_edits(BIG, done, EDITS)
