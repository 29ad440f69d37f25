"""Hyper-V's files that claim to be enormous, in a file that is: no more is read, or done, than a real one needs.

Each number of the heads and tables is set to large values in turn, under right checksums where these would hide it.
What is read is what is held in memory, so it is counted at the source.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import pytest

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.vhd import parse_vhd
from rehost_payload.formats.vhdx import parse_vhdx
from rehost_payload.formats.vm_tree import Blob
from rehost_payload.formats.vmcx import parse_vmcx
from rehost_payload.formats.vmgs import parse_vmgs
from support import vhd_image, vhdx_image, vmcx_image
from support.effort import at_most
from support.hyperv_host import guest_state
from support.vhdx_image import BAT, LOG, METADATA, MIB
from support.vmcx_image import PAGE

VAST = 1 << 40
_PIECE, _ALL, _CALLS = 16 << 20, 64 << 20, 2_000_000
LARGE = [
    *((4, n) for n in (0x7FFFFFFF, 0xFFFFFFFF, 0x10000000)),
    *((8, n) for n in (1 << 39, 0x7FFFFFFFFFFFFFFF, (1 << 64) - 1)),
]


@dataclass
class Vast:
    """``head``, then zeros up to a terabyte; ``tail`` is at the very end."""

    head: bytes
    tail: bytes = b""
    read: int = 0
    size: int = VAST

    def read_at(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self.size - offset))
        self.read += length
        assert length <= _PIECE, f"{length} bytes in one piece"
        assert self.read <= _ALL, f"{self.read} bytes in all"
        made = bytearray(length)
        for start, data in ((0, self.head), (self.size - len(self.tail), self.tail)):
            first, last = max(start, offset), min(start + len(data), offset + length)
            if first < last:
                made[first - offset : last - offset] = data[first - start : last - start]
        return bytes(made)


def with_large_numbers(
    data: bytes, spots: Iterable[int], order: Literal["little", "big"] = "little"
) -> Iterator[bytearray]:
    for at in spots:
        for width, number in LARGE:
            if at + width <= len(data):
                made = bytearray(data)
                made[at : at + width] = number.to_bytes(width, order)
                yield made


def test_configurations() -> None:
    image = vmcx_image.build(
        [("configuration", [("name", "x"), ("notes", "y" * 2000), ("raw", bytes(5000))])]
    )
    spots = sorted({place + o for place in image.places.values() for o in range(0, 48, 2)})
    for made in with_large_numbers(image.bytes, spots):
        for at, size, field in ((0, 46, 4), (PAGE, 46, 4), (image.places["log"], 34, 4)):
            made[at : at + size] = vmcx_image.crc(made[at : at + size], field)
        for number in range(6):
            at = image.places["objects0"] + 8 + 18 * number
            made[at : at + 18] = vmcx_image.crc(made[at : at + 18], 1)
        with at_most(_CALLS), suppress(FormatError):
            for _, node in parse_vmcx(Vast(bytes(made)), lenient=True).root.leaves():
                if isinstance(node.value, Blob):
                    with suppress(FormatError):
                        node.value.read()


def heads(dirty: bool) -> bytes:
    log = vhdx_image.log_entry(7, [(BAT, bytes(4096))]) if dirty else b""
    return bytes(vhdx_image.build(log=log, log_guid=vhdx_image.LOG_GUID if dirty else None))[: 4 * MIB]


# sequence, version, log; number, place and length of the regions; lengths and places of the log's entry
@pytest.mark.parametrize(
    ("dirty", "start", "size", "places"),
    [
        (False, 0x20000, 4096, (8, 64, 68, 72)),
        (False, 0x30000, 0x10000, (8, 32, 40, 64, 72)),
        (True, LOG, 8192, (8, 12, 16, 24, 48, 56, 68, 72, 80)),
    ],
)
def test_vhdx(dirty: bool, start: int, size: int, places: tuple[int, ...]) -> None:
    for made in with_large_numbers(heads(dirty), (start + place for place in places)):
        made[start : start + size] = vhdx_image.sealed(made[start : start + size])
        with at_most(_CALLS), suppress(FormatError):
            parse_vhdx(Vast(bytes(made)))


def test_metadata_of_vhdx() -> None:
    for made in with_large_numbers(heads(False), [METADATA + 8, *range(METADATA + 48, METADATA + 144, 8)]):
        with at_most(_CALLS), suppress(FormatError):
            parse_vhdx(Vast(bytes(made)))


def test_vhd() -> None:
    data = vhd_image.sparse()[:4096]
    for made in with_large_numbers(
        data, [*range(8, 84, 4), *range(512, 640, 4), *range(1088, 1160, 4)], "big"
    ):
        made[:512] = vhd_image.sealed(bytes(made[:512]), 64)
        made[512:1536] = vhd_image.sealed(bytes(made[512:1536]), 36)
        with at_most(_CALLS), suppress(FormatError):
            parse_vhd(Vast(bytes(made), bytes(made[:512])))


def test_guest_states() -> None:
    for made in with_large_numbers(guest_state({1: 5000, 3: 100}), [*range(0, 64, 2), *range(8192, 8400, 4)]):
        with at_most(_CALLS), suppress(FormatError):
            parse_vmgs(Vast(bytes(made)))
