r"""The values of SYSTEM\MountedDevices: what each drive letter and each volume GUID of a Windows pointed to.

Measured on real hives: a volume of an MBR disk is 12 bytes, disk signature (32 bits) and byte offset (64 bits); one
of a GPT disk is "DMIO:ID:" and its partition's GUID; anything else is a device path in UTF-16.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from uuid import UUID

_LETTER = re.compile(r"\\DosDevices\\([A-Z]:)", re.IGNORECASE)
_VOLUME = re.compile(r"\\\?\?\\Volume\{([0-9a-f-]{36})\}", re.IGNORECASE)


@dataclass(frozen=True)
class MountedDevice:
    """One value. ``letter`` ("D:") or ``volume`` (a volume GUID); and a partition, or a ``device`` path."""

    letter: str | None = None
    volume: str | None = None
    partition_guid: str | None = None
    signature: int | None = None
    offset: int | None = None
    device: str = ""


def parse_mounted_device(name: str, data: bytes) -> MountedDevice | None:
    """The device of one value; None for names that are neither a letter nor a volume."""
    letter, volume = _LETTER.fullmatch(name), _VOLUME.fullmatch(name)
    if letter is None and volume is None:
        return None
    partition_guid, signature, offset, device = None, None, None, ""
    if len(data) == 12:
        signature, offset = struct.unpack("<IQ", data)
    elif len(data) == 24 and data.startswith(b"DMIO:ID:"):
        partition_guid = str(UUID(bytes_le=data[8:]))
    else:
        device = data[: len(data) & ~1].decode("utf-16-le", "replace").rstrip("\0")
    return MountedDevice(
        letter[1].upper() if letter else None,
        volume[1].lower() if volume else None,
        *(partition_guid, signature, offset, device),
    )
