"""Security descriptors of files: what a new file inherits from its folder.

Self-relative security descriptors as NTFS stores them, after [MS-DTYP] 2.4.6, 2.4.5, 2.4.4 and 2.5.3.4.4 (inheritance).
Drivers for NTFS that are not Windows' give every new file full access for everyone; a driver or registry hive that
anybody may change would be a hole.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from rehost_payload.formats.errors import FormatError

_WHAT = "security descriptor"
_SELF_RELATIVE, _DACL_PRESENT, _AUTO_INHERITED = 0x8000, 0x0004, 0x0400
_OBJECT_INHERIT, _CONTAINER_INHERIT, _NO_PROPAGATE, _INHERIT_ONLY, _INHERITED = 1, 2, 4, 8, 16
_FULL = 0x1F01FF
_SYSTEM = bytes.fromhex("010100000000000512000000")  # S-1-5-18
_ADMINISTRATORS = bytes.fromhex("01020000000000052000000020020000")  # S-1-5-32-544
_CREATOR_OWNER = bytes.fromhex("010100000000000300000000")  # S-1-3-0
_GENERIC = {0x10000000: _FULL, 0x80000000: 0x120089, 0x40000000: 0x120116, 0x20000000: 0x1200A0}
_ALLOWED, _DENIED = 0, 1


def inherited(folder: bytes, is_folder: bool) -> bytes:
    """The descriptor of a new file (or folder) below ``folder``, owned by the administrators. FormatError.

    Where the folder hands nothing down, system and administrators have full access, as of what these create.
    """
    aces = b""
    count = 0
    for kind, flags, mask, sid in _aces(folder):
        if kind not in (_ALLOWED, _DENIED):
            continue
        for ace in _handed_down(kind, flags, mask, sid, is_folder):
            aces += ace
            count += 1
    if not count:
        aces = _ace(_ALLOWED, 0, _FULL, _SYSTEM) + _ace(_ALLOWED, 0, _FULL, _ADMINISTRATORS)
        count = 2
    dacl = struct.pack("<BBHHH", 2, 0, 8 + len(aces), count, 0) + aces
    owner = 20
    group = owner + len(_ADMINISTRATORS)
    control = _SELF_RELATIVE | _DACL_PRESENT | _AUTO_INHERITED
    head = struct.pack("<BBHIIII", 1, 0, control, owner, group, 0, group + len(_ADMINISTRATORS))
    return head + _ADMINISTRATORS + _ADMINISTRATORS + dacl


def _handed_down(kind: int, flags: int, mask: int, sid: bytes, is_folder: bool) -> Iterator[bytes]:
    effective = bool(flags & (_CONTAINER_INHERIT if is_folder else _OBJECT_INHERIT))
    onward = 0
    if is_folder and not flags & _NO_PROPAGATE:
        onward = flags & (_OBJECT_INHERIT | _CONTAINER_INHERIT)
    if effective:
        who = _ADMINISTRATORS if sid == _CREATOR_OWNER else sid
        concrete = _concrete(mask)
        if who is not sid or concrete != mask:
            # the creator and generic rights mean something else further down: both forms stay
            if who[:8] != _CREATOR_OWNER[:8]:
                yield _ace(kind, _INHERITED, concrete, who)
            if onward:
                yield _ace(kind, onward | _INHERIT_ONLY | _INHERITED, mask, sid)
            return
        if sid[:8] != _CREATOR_OWNER[:8]:
            yield _ace(kind, onward | _INHERITED, mask, sid)
    elif onward:
        yield _ace(kind, onward | _INHERIT_ONLY | _INHERITED, mask, sid)


def _concrete(mask: int) -> int:
    for generic, rights in _GENERIC.items():
        if mask & generic:
            mask = mask & ~generic | rights
    return mask


def _ace(kind: int, flags: int, mask: int, sid: bytes) -> bytes:
    return struct.pack("<BBHI", kind, flags, 8 + len(sid), mask) + sid


def _aces(descriptor: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, mask, SID) of every entry of the DACL."""
    if len(descriptor) < 20 or descriptor[0] != 1:
        raise FormatError(_WHAT, "no security descriptor", 0)
    control, place = struct.unpack_from("<2xH12xI", descriptor)
    if not control & _SELF_RELATIVE:
        raise FormatError(_WHAT, "not self-relative", 2)
    if not control & _DACL_PRESENT or not place:
        return
    if place + 8 > len(descriptor):
        raise FormatError(_WHAT, "the DACL is outside of it", 16)
    size, count = struct.unpack_from("<2xHH", descriptor, place)
    end = place + size
    at = place + 8
    if end > len(descriptor):
        raise FormatError(_WHAT, "the DACL is cut off", place)
    for _ in range(count):
        if at + 16 > end:
            raise FormatError(_WHAT, "an entry is outside of the DACL", at)
        kind, flags, length, mask = struct.unpack_from("<BBHI", descriptor, at)
        if length < 16 or at + length > end:
            raise FormatError(_WHAT, "an entry does not fit", at)
        yield kind, flags, mask, descriptor[at + 8 : at + length]
        at += length
