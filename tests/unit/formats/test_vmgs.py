"""Guest state files, made by code."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.source import BytesSource
from rehost_payload.formats.vmgs import KEY_PROTECTOR, TPM_NVRAM, is_vmgs, parse_vmgs
from support.hyperv_host import guest_state


def test_parts_in_use() -> None:
    source = BytesSource(guest_state({1: 5000, TPM_NVRAM: 20, KEY_PROTECTOR: 2048}))
    assert is_vmgs(source)
    found = parse_vmgs(source)
    assert (found.version, found.encrypted, found.files) == (0x30000, False, {1: 5000, 3: 20, 6: 2048})


def test_the_newer_header_counts() -> None:
    data = bytearray(guest_state({TPM_NVRAM: 20}))
    struct.pack_into("<I", data, 4096 + 16, 9)  # the second header is newer, and its table is empty
    struct.pack_into("<I", data, 4096 + 24, 3)
    assert parse_vmgs(BytesSource(bytes(data))).files == {}
    data[:8] = bytes(8)
    assert parse_vmgs(BytesSource(bytes(data))).files == {}
    data[4096 : 4096 + 8] = bytes(8)
    assert not is_vmgs(BytesSource(bytes(data)))
    with pytest.raises(FormatError):
        parse_vmgs(BytesSource(bytes(data)))


def test_an_encrypted_one_tells_nothing_more() -> None:
    found = parse_vmgs(BytesSource(guest_state({TPM_NVRAM: 20}, algorithm=1)))
    assert (found.encrypted, found.files) == (True, {})


@given(
    st.dictionaries(st.integers(0, 5 * 4096), st.binary(min_size=1, max_size=16), max_size=8),
    st.integers(0, 5 * 4096),
)
def test_hostile_ones(patches: Mapping[int, bytes], length: int) -> None:
    data = bytearray(guest_state({TPM_NVRAM: 20}))
    for at, raw in patches.items():
        data[at : at + len(raw)] = raw
    with contextlib.suppress(FormatError):
        parse_vmgs(BytesSource(bytes(data[:length])))
