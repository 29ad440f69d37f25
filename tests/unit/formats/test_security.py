"""What new files inherit, against descriptors as Windows has them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.security import inherited
from support.security import (
    ADMINS,
    CI,
    CREATOR,
    FULL,
    ID,
    IO,
    NP,
    OI,
    READ,
    SYSTEM,
    USERS,
    descriptor,
    entries,
)

# icacls of System32\drivers: what is for the folder alone, and what is handed down
DRIVERS = descriptor(
    (0, 0, 0x1301BF, SYSTEM),
    (0, OI | CI | IO, 0x10000000, SYSTEM),
    (0, CI | OI, FULL, ADMINS),
    (0, OI | CI | IO, 0xA0000000, USERS),
    (0, OI | CI | IO, 0x10000000, CREATOR),
)


def test_a_file() -> None:
    assert entries(inherited(DRIVERS, False)) == [
        (0, ID, FULL, SYSTEM),
        (0, ID, FULL, ADMINS),
        (0, ID, READ, USERS),
        (0, ID, FULL, ADMINS),
    ]


def test_a_folder_hands_on() -> None:
    assert entries(inherited(DRIVERS, True)) == [
        (0, ID, FULL, SYSTEM),
        (0, ID | OI | CI | IO, 0x10000000, SYSTEM),
        (0, ID | OI | CI, FULL, ADMINS),
        (0, ID, READ, USERS),
        (0, ID | OI | CI | IO, 0xA0000000, USERS),
        (0, ID, FULL, ADMINS),
        (0, ID | OI | CI | IO, 0x10000000, CREATOR),
    ]


def test_only_files_only_folders_and_no_further() -> None:
    folder = descriptor((1, OI, FULL, USERS), (0, CI | NP, FULL, ADMINS), (0, 0, FULL, SYSTEM))
    assert entries(inherited(folder, False)) == [(1, ID, FULL, USERS)]
    assert entries(inherited(folder, True)) == [(1, ID | OI | IO, FULL, USERS), (0, ID, FULL, ADMINS)]


def test_nothing_to_hand_down() -> None:
    own = [(0, 0, FULL, SYSTEM), (0, 0, FULL, ADMINS)]
    assert entries(inherited(descriptor((0, 0, FULL, USERS)), False)) == own
    assert entries(inherited(struct.pack("<BBHIIII", 1, 0, 0x8000, 0, 0, 0, 0), False)) == own


@pytest.mark.parametrize("data", [b"", bytes(20), DRIVERS[:40], DRIVERS[:100], b"\1\0\4\0" + bytes(16)])
def test_what_is_none(data: bytes) -> None:
    with pytest.raises(FormatError):
        inherited(data, False)


@given(st.binary(max_size=80), st.integers(0, len(DRIVERS)), st.booleans())
def test_hostile_descriptors(noise: bytes, at: int, is_folder: bool) -> None:
    data = DRIVERS[:at] + noise + DRIVERS[at + len(noise) :]
    try:
        result = inherited(data, is_folder)
    except FormatError:
        return
    inherited(result, is_folder)
