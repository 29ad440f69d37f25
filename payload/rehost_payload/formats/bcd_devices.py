"""Device elements of a boot store: which partition, image file or virtual disk an entry means.

No public specification exists; the layout follows 2171 device elements of 229 real stores, all of which encode back
to the same bytes. All integers are little endian, GUIDs mixed endian (uuid.bytes_le):

    +00 16  GUID of an options object (ramdisk settings), zero if none. At the outermost level only
    +10  4  device type: 0 block I/O (ramdisk, file), 5 boot, 6 partition, 8 locate
    +14  4  flags: 1 identifier unspecified (always set on ramdisks), others were not seen
    +18  4  size of this header and the body, without the options GUID
    +1c  4  0
    +20     body

A device that this does not understand, or would not encode back to the very same bytes, is an `UnknownDevice` and
kept as it is. Nothing here raises for bad bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from uuid import UUID

_BLOCK_IO, _BOOT, _PARTITION, _LOCATE = 0, 5, 6, 8  # device types
_HARD_DISK, _RAMDISK, _FILE, _VIRTUAL_DISK = 0, 3, 5, 6  # block I/O types
_GPT, _MBR, _RAW = 0, 1, 2  # styles of a disk
_HEAD = struct.Struct("<IIII")
_FILE_PATH = struct.Struct("<III")  # version 1, length of structure and all, type 5: device and path
_DEEPEST = 8  # locate on a virtual disk in a file on a partition needs 4
_NO_GUID = "00000000-0000-0000-0000-000000000000"

LOCATE_BY_ELEMENT = 0
LOCATE_BY_PATH = 1


@dataclass(frozen=True)
class GptIdentity:
    """A GPT partition: its unique GUID, which alone decides at boot, and the disk's GUID."""

    partition: str
    disk: str


@dataclass(frozen=True)
class MbrIdentity:
    """An MBR partition: NT disk signature and byte offset; both must match at boot."""

    signature: int
    offset: int


@dataclass(frozen=True)
class RawIdentity:
    """A disk without partition table, by number. Never seen in a real store."""

    number: int


Identity = GptIdentity | MbrIdentity | RawIdentity


@dataclass(frozen=True, kw_only=True)
class _Common:
    options: str | None = None  # GUID of the options object; outermost level only
    flags: int = 0
    reserved: int = 0
    slack: bytes = b""  # what the layout calls zero, where it is not; in its order
    trailing: bytes = b""  # what follows inside the size


@dataclass(frozen=True)
class PartitionDevice(_Common):
    identity: Identity


@dataclass(frozen=True)
class BootDevice(_Common):
    """The volume that the boot manager was started from."""


@dataclass(frozen=True)
class RamdiskDevice(_Common):
    """An image file that is loaded into memory (WinRE, WinPE)."""

    path: str
    parent: Device  # where the file is: a partition or boot
    base: int = 0
    size: int = 0
    offset: int = 0


@dataclass(frozen=True)
class FileDevice(_Common):
    """A file as a disk: what a virtual disk lies in."""

    path: str
    parent: Device


@dataclass(frozen=True)
class VhdDevice(_Common):
    """A virtual disk (``identity`` None) or a partition in it, whose identity moves with the file."""

    identity: Identity | None
    parent: Device  # a FileDevice


@dataclass(frozen=True)
class LocateDevice(_Common):
    """Whatever volume has a path: ``path`` itself (`kind` LOCATE_BY_PATH) or that of ``element``."""

    kind: int
    element: int
    path: str
    parent: Device | None = None  # search only there


@dataclass(frozen=True)
class UnknownDevice:
    """Kept byte by byte; ``raw`` includes the options GUID only at the outermost level."""

    raw: bytes


Device = PartitionDevice | BootDevice | RamdiskDevice | FileDevice | VhdDevice | LocateDevice | UnknownDevice


class _Unknown(Exception):
    """The bytes do not follow the layout."""


def decode_device(raw: bytes) -> Device:
    """The device of an element's data. Always succeeds, and `encode_device` gives the same bytes again."""
    try:
        device = _decode(raw[16:], 0)
        if raw[:16] != bytes(16) and not isinstance(device, UnknownDevice):
            device = replace(device, options=str(UUID(bytes_le=raw[:16])))
        if not isinstance(device, UnknownDevice) and encode_device(device) == raw:
            return device
    except (_Unknown, ValueError, struct.error):
        pass
    return UnknownDevice(raw)


def encode_device(device: Device) -> bytes:
    """The data of an element that names this device."""
    if isinstance(device, UnknownDevice):
        return device.raw
    return _guid(device.options or _NO_GUID) + _encode(device)


def walk_devices(device: Device) -> Iterator[Device]:
    """The device and all that it is nested in: ramdisk before its partition."""
    yield device
    parent = getattr(device, "parent", None)
    if parent is not None:
        yield from walk_devices(parent)


def partitions(device: Device) -> Iterator[Identity]:
    """The identities of all physical partitions in the device; not the one inside of a virtual disk."""
    for part in walk_devices(device):
        if isinstance(part, PartitionDevice):
            yield part.identity


def map_partitions(device: Device, change: Callable[[Identity], Identity]) -> Device:
    """The device with ``change`` applied to the identity of every physical partition in it.

    The partition inside of a virtual disk stays: it has moved together with the file.
    """
    if isinstance(device, PartitionDevice):
        new = change(device.identity)
        if new == device.identity:
            return device
        # reserved bytes of another partition style would mean nothing
        slack = device.slack if type(new) is type(device.identity) else b""
        return replace(device, identity=new, slack=slack)
    if isinstance(device, BootDevice | UnknownDevice) or device.parent is None:
        return device
    return replace(device, parent=map_partitions(device.parent, change))


def _guid(text: str) -> bytes:
    return UUID(text).bytes_le


def _zero(raw: bytes) -> bytes:
    """Reserved bytes as they are kept: nothing at all where they are zero."""
    return raw if any(raw) else b""


def _decode(raw: bytes, depth: int) -> Device:
    """``raw`` starts at the header and may go on after the device; its size says how far it reaches."""
    kind, flags, size, reserved = _HEAD.unpack_from(raw)
    if depth > _DEEPEST or not _HEAD.size <= size <= len(raw):
        raise _Unknown
    body = raw[_HEAD.size : size]
    device: Device
    if kind == _PARTITION:
        device = _decode_partition(body, depth)
    elif kind == _BOOT:
        if len(body) < 56:
            raise _Unknown
        device = BootDevice(slack=_zero(body[:56]), trailing=body[56:])
    elif kind == _BLOCK_IO:
        device = _decode_block_io(body, depth)
    elif kind == _LOCATE:
        device = _decode_locate(raw[:size], depth)
    else:
        if depth == 0:
            raise _Unknown
        return UnknownDevice(raw[:size])
    if isinstance(device, UnknownDevice):
        return device
    return replace(device, flags=flags, reserved=reserved)


def _decode_partition(body: bytes, depth: int) -> Device:
    if len(body) < 56:
        raise _Unknown
    place = body[:16]
    (block_io,) = struct.unpack_from("<I", body, 16)
    identity, slack = _decode_identity(place, body[20:40])
    if block_io == _HARD_DISK:
        return PartitionDevice(identity, slack=_zero(slack + body[40:56]), trailing=body[56:])
    if block_io == _VIRTUAL_DISK:
        return VhdDevice(identity, _decode(body[40:], depth + 1), slack=_zero(slack))
    raise _Unknown


def _decode_identity(place: bytes, disk: bytes) -> tuple[Identity, bytes]:
    (style,) = struct.unpack_from("<I", disk)
    if style == _GPT:
        partition = str(UUID(bytes_le=place))
        return GptIdentity(partition, str(UUID(bytes_le=disk[4:20]))), b""
    (number,) = struct.unpack_from("<I", disk, 4)
    if style == _MBR:
        return MbrIdentity(number, int.from_bytes(place[:8], "little")), place[8:] + disk[8:20]
    if style == _RAW:
        return RawIdentity(number), place + disk[8:20]
    raise _Unknown


def _decode_file_path(raw: bytes, depth: int) -> tuple[Device, str, bytes]:
    """Parent, path and what follows the structure."""
    version, length, kind = _FILE_PATH.unpack_from(raw)
    if version != 1 or kind != 5 or not _FILE_PATH.size + _HEAD.size <= length <= len(raw):
        raise _Unknown
    parent = _decode(raw[_FILE_PATH.size : length], depth + 1)
    path = raw[_FILE_PATH.size + len(_encode(parent)) : length]
    return parent, _decode_path(path), raw[length:]


def _decode_path(raw: bytes) -> str:
    text = raw.decode("utf-16-le")
    if not text.endswith("\0") or "\0" in text[:-1]:
        raise _Unknown
    return text[:-1]


def _decode_block_io(body: bytes, depth: int) -> Device:
    (block_io,) = struct.unpack_from("<I", body)
    if block_io == _RAMDISK:
        base, size, offset = struct.unpack_from("<QQI", body, 4)
        parent, path, rest = _decode_file_path(body[24:], depth)
        return RamdiskDevice(path, parent, base, size, offset, trailing=rest)
    if block_io == _FILE:
        parent, path, rest = _decode_file_path(body[4:], depth)
        return FileDevice(path, parent, trailing=rest)
    if block_io == _VIRTUAL_DISK:
        return VhdDevice(None, _decode(body[24:], depth + 1), slack=_zero(body[4:24]))
    raise _Unknown


def _decode_locate(raw: bytes, depth: int) -> Device:
    kind, element, at = struct.unpack_from("<III", raw, 16)
    if kind not in (LOCATE_BY_ELEMENT, LOCATE_BY_PATH):
        raise _Unknown
    if at == 0:
        return LocateDevice(kind, element, _decode_path(raw[28:]))
    if not 30 <= at <= len(raw):
        raise _Unknown
    parent = _decode(raw[at:], depth + 1)
    rest = raw[at + len(_encode(parent)) :]
    return LocateDevice(kind, element, _decode_path(raw[28:at]), parent, trailing=rest)


def _encode(device: Device) -> bytes:
    """Header and body, as it is nested; the options GUID comes before it at the outermost level."""
    if isinstance(device, UnknownDevice):
        return device.raw
    if isinstance(device, PartitionDevice):
        kind = _PARTITION
        place, disk, slack = _encode_identity(device.identity, device.slack)
        body = place + struct.pack("<I", _HARD_DISK) + disk + slack.ljust(16, b"\0")
    elif isinstance(device, VhdDevice):
        if device.identity is None:
            kind = _BLOCK_IO
            body = struct.pack("<I", _VIRTUAL_DISK) + device.slack.ljust(20, b"\0")
        else:
            kind = _PARTITION
            place, disk, _ = _encode_identity(device.identity, device.slack)
            body = place + struct.pack("<I", _VIRTUAL_DISK) + disk
        body += _encode(device.parent)
    elif isinstance(device, BootDevice):
        kind = _BOOT
        body = device.slack.ljust(56, b"\0")
    elif isinstance(device, RamdiskDevice):
        kind = _BLOCK_IO
        head = struct.pack("<IQQI", _RAMDISK, device.base, device.size, device.offset)
        body = head + _encode_file_path(device.parent, device.path)
    elif isinstance(device, FileDevice):
        kind = _BLOCK_IO
        body = struct.pack("<I", _FILE) + _encode_file_path(device.parent, device.path)
    else:
        kind = _LOCATE
        path = _encode_path(device.path)
        at = 0 if device.parent is None else _HEAD.size + 12 + len(path)
        body = struct.pack("<III", device.kind, device.element, at) + path
        if device.parent is not None:
            body += _encode(device.parent)
    body += device.trailing
    return _HEAD.pack(kind, device.flags, _HEAD.size + len(body), device.reserved) + body


def _encode_identity(identity: Identity, slack: bytes) -> tuple[bytes, bytes, bytes]:
    """The 16 bytes that name the partition, the 20 that name the disk, and reserved bytes left over."""
    if isinstance(identity, GptIdentity):
        return _guid(identity.partition), struct.pack("<I", _GPT) + _guid(identity.disk), slack
    if isinstance(identity, MbrIdentity):
        slack = slack.ljust(20, b"\0")
        disk = struct.pack("<II", _MBR, identity.signature) + slack[8:20]
        return struct.pack("<Q", identity.offset) + slack[:8], disk, slack[20:]
    slack = slack.ljust(28, b"\0")
    return slack[:16], struct.pack("<II", _RAW, identity.number) + slack[16:28], slack[28:]


def _encode_file_path(parent: Device, path: str) -> bytes:
    body = _encode(parent) + _encode_path(path)
    return _FILE_PATH.pack(1, _FILE_PATH.size + len(body), 5) + body


def _encode_path(path: str) -> bytes:
    return (path + "\0").encode("utf-16-le")


def describe_device(device: Device) -> str:
    """One line, in the manner of bcdedit, with identities instead of drive letters."""
    if isinstance(device, PartitionDevice):
        return f"partition={describe_identity(device.identity)}"
    if isinstance(device, BootDevice):
        return "boot"
    if isinstance(device, RamdiskDevice):
        options = "" if device.options is None else f",{{{device.options}}}"
        return f"ramdisk=[{_inner(device.parent)}]{device.path}{options}"
    if isinstance(device, FileDevice):
        return f"file=[{_inner(device.parent)}]{device.path}"
    if isinstance(device, VhdDevice):
        inner = "" if device.identity is None else f",{describe_identity(device.identity)}"
        if isinstance(device.parent, FileDevice):
            return f"vhd=[{_inner(device.parent.parent)}]{device.parent.path}{inner}"
        return f"vhd={_inner(device.parent)}{inner}"
    if isinstance(device, LocateDevice):
        what = device.path if device.kind == LOCATE_BY_PATH else f"custom:{device.element:08x}"
        where = "" if device.parent is None else f",{describe_device(device.parent)}"
        return f"locate={what}{where}"
    return f"unknown={device.raw.hex()}"


def _inner(device: Device) -> str:
    return describe_device(device).removeprefix("partition=")


def describe_identity(identity: Identity) -> str:
    if isinstance(identity, GptIdentity):
        return f"{{{identity.partition}}} on disk {{{identity.disk}}}"
    if isinstance(identity, MbrIdentity):
        return f"offset {identity.offset} on disk {identity.signature:08x}"
    return f"disk number {identity.number}"
