"""What goes where on a stick. Pure: a medium's size and files in, partitions out.

Two kinds of media. An image with a partition table of its own (the Debian base) is copied as it is. Of any other
(WinPE) the files are put on a FAT32 volume, with boot code of ours for BIOS. Behind either comes a FAT32 volume
labelled REHOST, which takes journals and reports.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from rehost_builder.media.boot_code import MBR
from rehost_builder.media.fat32 import SMALLEST

ALIGNMENT = 1 << 20
DATA_LABEL, BOOT_LABEL = "REHOST", "REHOST-BOOT"
_FAT32_LBA = 0x0C
_PROTECTIVE = 0xEE
_SMALLEST_DATA = 64 << 20
_LARGEST = (1 << 32) * 512 - ALIGNMENT  # what a table of 32-bit sectors reaches
_ROOM = 64 << 20  # on the volume with the files: for what its owner adds (drivers, an answer file)


@dataclass(frozen=True)
class Part:
    """A partition we make. Bytes."""

    offset: int
    size: int
    label: str


@dataclass(frozen=True)
class StickLayout:
    """``kind``: "image" (copied as it is) or "files" (on ``boot``). ``data`` is None where there is no room."""

    kind: str
    needed: int  # the least size of a stick
    boot: Part | None
    data: Part | None


def layout(size: int, image_size: int, hybrid: bool, files_size: int, *, extend: bool = True) -> StickLayout:
    """The layout for a stick of ``size`` bytes. Raises ValueError where it is too small; the text says by how much.

    ``files_size``: bytes of clusters that the medium's files take. ``extend``: a partition may be added to an image's own.
    """
    usable = min(size, _LARGEST) // ALIGNMENT * ALIGNMENT
    if hybrid:
        end = _aligned(image_size)
        if end > usable:
            raise ValueError(f"the medium has {image_size} bytes, the stick {size}")
        return StickLayout("image", image_size, None, _data(end, usable) if extend else None)
    wanted = _aligned(max(SMALLEST, files_size + files_size // 50 + _ROOM))
    least = _aligned(max(SMALLEST, files_size + files_size // 50 + (4 << 20)))
    if ALIGNMENT + least > usable:
        raise ValueError(f"the medium's files need {ALIGNMENT + least} bytes, the stick has {size}")
    end = min(ALIGNMENT + wanted, usable)
    data = _data(end, usable)
    if data is None:
        end = usable
    return StickLayout("files", ALIGNMENT + least, Part(ALIGNMENT, end - ALIGNMENT, BOOT_LABEL), data)


def _data(start: int, end: int) -> Part | None:
    return Part(start, end - start, DATA_LABEL) if end - start >= _SMALLEST_DATA else None


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def is_hybrid(start: bytes) -> bool:
    """Whether an image's first 512 bytes hold a partition table: it can be copied to a stick as it is."""
    return len(start) >= 512 and start[510:512] == b"\x55\xaa" and any(start[446 + 4 : 510 : 16])


def is_extendable(start: bytes) -> bool:
    """Whether a partition can be added to an image's table: there is room, and it does not stand for a GPT."""
    entries = [start[n : n + 16] for n in range(446, 510, 16)]
    return not all(any(e) for e in entries) and all(e[4] != _PROTECTIVE for e in entries)


def boot_record(plan: StickLayout, first: bytes, disk_id: int) -> bytes:
    """The stick's first 512 bytes. ``first`` are the image's own; raises ValueError where its table is full."""
    data = plan.data
    if plan.kind == "image":
        record = bytearray(first[:512])
        if data is not None:
            free = next((n for n in range(4) if not any(record[446 + 16 * n : 462 + 16 * n])), None)
            if free is None:
                raise ValueError("the image's partition table has no free entry")
            record[446 + 16 * free : 462 + 16 * free] = _entry(0, data)
        return bytes(record)
    assert plan.boot is not None
    record = bytearray(MBR.ljust(512, b"\0"))
    struct.pack_into("<I", record, 440, disk_id & 0xFFFFFFFF)
    record[446:462] = _entry(0x80, plan.boot)
    if data is not None:
        record[462:478] = _entry(0, data)
    record[510:512] = b"\x55\xaa"
    return bytes(record)


def _entry(status: int, part: Part) -> bytes:
    """Cylinders are not given: nothing that starts from these sticks asks for them."""
    chs = b"\xfe\xff\xff"
    return struct.pack("<B3sB3sII", status, chs, _FAT32_LBA, chs, part.offset // 512, part.size // 512)
