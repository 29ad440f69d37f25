"""The marks of arrays' members are found at the end of a disk, and nothing else is taken for one."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rehost_payload.formats.raid_member import member_of
from rehost_payload.formats.source import BytesSource

SIZE = 4 << 20


def disk(place: int, mark: bytes) -> BytesSource:
    """``place`` counts from the end."""
    data = bytearray(SIZE)
    data[SIZE - place : SIZE - place + len(mark)] = mark
    return BytesSource(bytes(data))


ADAPTEC = struct.pack(">I", 0x37FC4D1E).ljust(0x100, b"\0") + b"DPTM"
INTEL = b"Intel Raid ISM Cfg Sig. 1.3.00"


@pytest.mark.parametrize(
    ("place", "mark", "sector", "kind"),
    [
        (1024, INTEL, 512, "Intel RST"),
        (8192, INTEL, 4096, "Intel RST"),
        (1024, INTEL, 4096, "Intel RST"),  # written when the disk was used with sectors of 512 bytes
        (512, b"\xde\x11\xde\x11", 512, "DDF"),
        (257 * 512, b"\xde\x11\xde\x11", 512, "DDF"),
        (4096, b"\xde\x11\xde\x11", 4096, "DDF"),
        (512, ADAPTEC, 512, "Adaptec HostRAID"),
        (512, ADAPTEC[:-4], 512, ""),
        (1024, b"NVIDIA  ", 512, "NVIDIA"),
        (8192, struct.pack("<I", 0xA92B4EFC), 512, "Linux md"),
        (65536, struct.pack("<I", 0xA92B4EFC), 512, "Linux md"),
        (2048, INTEL, 512, ""),
        (512, INTEL[:10], 512, ""),
    ],
)
def test_marks(place: int, mark: bytes, sector: int, kind: str) -> None:
    assert member_of(disk(place, mark), sector) == kind


@given(
    st.binary(max_size=700),
    st.sampled_from([0, 1, 1 << 20, (2 << 20) - 1, 2 << 20, (3 << 20) + 511]),
    st.sampled_from([512, 4096]),
)
def test_anything(tail: bytes, size: int, sector: int) -> None:
    """No bytes and no size make it fail."""
    data = bytes(size) + tail
    assert isinstance(member_of(BytesSource(data[-size:]), sector), str)
