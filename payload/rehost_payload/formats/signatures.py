"""What a volume is, told by its signatures. Nothing is opened; the readers do that.

Sources: the NTFS, exFAT, FAT, ReFS and BitLocker boot sectors; ECMA-119 and ECMA-167; the superblocks of ext,
LVM2, md and swap as the Linux kernel documents them; the LDM and Storage Spaces headers.
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass

from . import fat
from .errors import FormatError
from .source import ByteSource

_HEAD = 68 * 1024  # reaches behind the ISO 9660, ext and btrfs-like superblocks and Storage Spaces' header
_BITLOCKER_GUIDS = (
    uuid.UUID("4967d63b-2e29-4ad8-8399-f6a339e3d001").bytes_le,
    uuid.UUID("92a84d3b-dd80-4d0e-9e4e-b1e3284eaed8").bytes_le,
)
_MD_MAGIC = 0xA92B4EFC


@dataclass(frozen=True)
class Signature:
    """``kind`` is a value of survey.model.FileSystem; ``backup`` says that only a backup boot sector is
    there."""

    kind: str
    label: str = ""
    serial: str = ""
    backup: bool = False


def identify(source: ByteSource) -> Signature:
    """Never raises FormatError; reads about 70 KiB at the start and a few sectors at the end."""
    head = source.read_at(0, _HEAD)
    return _boot_sector(head) or _superblock(head) or _at_the_end(source) or _nothing(head)


def _boot_sector(head: bytes) -> Signature | None:
    name = head[3:11]
    if name == b"-FVE-FS-" or any(head[place : place + 16] in _BITLOCKER_GUIDS for place in (160, 424)):
        return Signature("bitlocker")
    if name == b"NTFS    ":
        return Signature("ntfs")
    if name == b"EXFAT   ":
        return Signature("exfat", serial=_short_serial(head, 100))
    if name[:4] == b"ReFS" and head[16:20] == b"FSRS":
        serial = f"{int.from_bytes(head[56:64], 'little'):016X}"
        return Signature("refs", serial=serial)
    try:
        boot = fat.parse_boot_sector(head[:512])
    except FormatError:
        return None
    return Signature(f"fat{boot.bits}")


def _short_serial(head: bytes, place: int) -> str:
    serial = int.from_bytes(head[place : place + 4], "little")
    return f"{serial >> 16:04X}-{serial & 0xFFFF:04X}"


def _superblock(head: bytes) -> Signature | None:
    for sector in range(4):
        label = head[sector * 512 : sector * 512 + 32]
        if label[:8] == b"LABELONE" and label[24:32] == b"LVM2 001":
            return Signature("lvm")
    if head[4096:4104] == b"SPACEDB " or head[:8] == b"SPACEDB ":
        return Signature("storage-spaces")
    for sector in (0, 1, 6):
        if head[sector * 512 : sector * 512 + 8] == b"PRIVHEAD":
            return Signature("ldm")
    if any(head[place : place + 4] == _MD_MAGIC.to_bytes(4, "little") for place in (0, 4096)):
        return Signature("mdraid")
    for page in (4096, 65536):
        if head[page - 10 : page] in (b"SWAPSPACE2", b"SWAP-SPACE"):
            return Signature("swap", label=_text(head[1052:1068]), serial=_uuid(head[1036:1052]))
    if head[1080:1082] == b"\x53\xef":
        return Signature("ext", label=_text(head[1144:1160]), serial=_uuid(head[1128:1144]))
    return _optical(head)


def _optical(head: bytes) -> Signature | None:
    """Volume descriptors stand in sectors of 2048 bytes from the 16th on; NSR02 or NSR03 among them is
    UDF."""
    names = [head[place + 1 : place + 6] for place in range(32768, len(head) - 2047, 2048)]
    iso = names[0] == b"CD001" if names else False
    label = head[32808:32840].decode("ascii", "replace").strip(" \0") if iso else ""
    if b"NSR02" in names or b"NSR03" in names:
        return Signature("udf", label=label)
    return Signature("iso9660", label=label) if iso else None


def _at_the_end(source: ByteSource) -> Signature | None:
    """The backup of an NTFS boot sector, md's old superblocks, and LDM's private header."""
    for sector in (512, 4096):
        if source.size >= 2 * sector:
            last = source.read_at(source.size - source.size % sector - sector, 512)
            if last[3:11] == b"NTFS    ":
                return Signature("ntfs", backup=True)
            if last[:8] == b"PRIVHEAD":
                return Signature("ldm")
    sectors = source.size // 512
    for place in ((sectors - 16) & ~7, (sectors & ~127) - 128):
        if place > 0 and source.read_at(place * 512, 4) == struct.pack("<I", _MD_MAGIC):
            return Signature("mdraid")
    return None


def _nothing(head: bytes) -> Signature:
    return Signature("unknown" if any(head) else "empty")


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")


def _uuid(raw: bytes) -> str:
    return str(uuid.UUID(bytes=raw)) if len(raw) == 16 else ""
