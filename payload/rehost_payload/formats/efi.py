"""UEFI load options (the Boot#### variables) and the device paths in them, after UEFI 2.10 sections 3.1.3
and 10."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import FormatError

ACTIVE = 0x00000001
_MEDIA, _HARD_DRIVE, _FILE_PATH = 4, 1, 4
_END = 0x7F
_GUID_SIGNATURE = 2


@dataclass(frozen=True)
class LoadOption:
    """``partition_guid`` is that of the first HD() node, ``path`` the joined file path nodes behind it."""

    attributes: int
    description: str
    partition_guid: str | None
    path: str | None

    @property
    def active(self) -> bool:
        return bool(self.attributes & ACTIVE)


def parse_load_option(data: bytes) -> LoadOption:
    """``data`` is the variable's content without the attributes that efivarfs puts in front."""
    if len(data) < 8:
        raise FormatError("EFI load option", "truncated")
    attributes, length = struct.unpack_from("<IH", data)
    end = 6
    while data[end : end + 2] != b"\0\0":
        end += 2
        if end + 2 > len(data):
            raise FormatError("EFI load option", "its description has no end", 6)
    description = data[6:end].decode("utf-16-le", "replace")
    paths = data[end + 2 : end + 2 + length]
    if len(paths) != length:
        raise FormatError("EFI load option", "its device path is cut off", end + 2)
    guid: str | None = None
    names: list[str] = []
    for kind, subtype, body in device_path_nodes(paths):
        if (kind, subtype) == (_MEDIA, _HARD_DRIVE) and len(body) >= 38 and guid is None:
            if body[37] == _GUID_SIGNATURE:
                guid = str(uuid.UUID(bytes_le=body[20:36]))
        elif (kind, subtype) == (_MEDIA, _FILE_PATH):
            names.append(body.decode("utf-16-le", "replace").split("\0", 1)[0])
    path = "\\".join(name.strip("\\") for name in names) if names else None
    return LoadOption(attributes, description, guid, None if path is None else "\\" + path)


def device_path_nodes(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(type, subtype, body) of the nodes of the first device path."""
    position = 0
    while position + 4 <= len(data):
        kind, subtype, length = struct.unpack_from("<BBH", data, position)
        if length < 4 or position + length > len(data):
            raise FormatError("EFI device path", f"an impossible node of {length} bytes", position)
        if kind == _END:
            return
        yield kind, subtype, data[position + 4 : position + length]
        position += length


def parse_boot_order(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // 2}H", data[: len(data) // 2 * 2])
