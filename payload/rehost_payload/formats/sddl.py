"""Security descriptors as text, in the form that Windows' own tools read back (SDDL).

Follows [MS-DTYP] 2.4.6 (SECURITY_DESCRIPTOR), 2.4.4 (ACEs) and 2.5.1 (SDDL). SIDs and rights are written in full
("S-1-5-18", "0x1f01ff"): the short names of some depend on the domain that reads them.
"""

from __future__ import annotations

import struct
from uuid import UUID

from .errors import FormatError

_WHAT = "security descriptor"
_SELF_RELATIVE = 0x8000
_FLAGS = ((0x01, "OI"), (0x02, "CI"), (0x04, "NP"), (0x08, "IO"), (0x10, "ID"), (0x40, "SA"), (0x80, "FA"))
_PLAIN = {0: "A", 1: "D", 2: "AU", 3: "AL", 0x11: "ML", 0x13: "SP"}
_OBJECT = {5: "OA", 6: "OD", 7: "OU", 8: "OL"}
# (present, protected, auto-inherit required, auto-inherited) bits of the control field
_DACL = (0x0004, 0x1000, 0x0100, 0x0400)
_SACL = (0x0010, 0x2000, 0x0200, 0x0800)


def to_sddl(data: bytes) -> str:
    """The text of a self-relative descriptor. FormatError for what is none, or holds an ACE that has no such text."""
    if len(data) < 20:
        raise FormatError(_WHAT, f"{len(data)} bytes")
    revision, _, control, owner, group, sacl, dacl = struct.unpack_from("<BBHIIII", data)
    if revision != 1 or not control & _SELF_RELATIVE:
        raise FormatError(_WHAT, f"revision {revision}, control {control:#x}")
    text = ""
    if owner:
        text += f"O:{_sid(data, owner)[0]}"
    if group:
        text += f"G:{_sid(data, group)[0]}"
    if control & _DACL[0]:
        text += "D:" + _acl(data, dacl, control, _DACL)
    if control & _SACL[0]:
        text += "S:" + _acl(data, sacl, control, _SACL)
    return text


def _sid(data: bytes, at: int) -> tuple[str, int]:
    """The SID as text, and where it ends."""
    if at + 8 > len(data) or data[at] != 1 or data[at + 1] > 15:
        raise FormatError(_WHAT, "an impossible SID", at)
    count = data[at + 1]
    end = at + 8 + 4 * count
    if end > len(data):
        raise FormatError(_WHAT, "a SID is cut off", at)
    authority = int.from_bytes(data[at + 2 : at + 8], "big")
    name = str(authority) if authority < 1 << 32 else f"{authority:#014x}"
    parts = struct.unpack_from(f"<{count}I", data, at + 8)
    return "-".join(("S", "1", name, *map(str, parts))), end


def _acl(data: bytes, at: int, control: int, bits: tuple[int, int, int, int]) -> str:
    flags = "".join(word for bit, word in zip(bits[1:], ("P", "AR", "AI"), strict=True) if control & bit)
    if at == 0:
        return flags + "NO_ACCESS_CONTROL"
    if at + 8 > len(data):
        raise FormatError(_WHAT, "an ACL is cut off", at)
    _, _, size, count, _ = struct.unpack_from("<BBHHH", data, at)
    if size < 8 or at + size > len(data) or count * 8 > size:
        raise FormatError(_WHAT, f"an ACL of {size} bytes with {count} entries", at)
    text, place, end = flags, at + 8, at + size
    for _ in range(count):
        if place + 8 > end:
            raise FormatError(_WHAT, "an ACE is cut off", place)
        (length,) = struct.unpack_from("<H", data, place + 2)
        if length < 16 or place + length > end:
            raise FormatError(_WHAT, f"an ACE of {length} bytes", place)
        text += _ace(data[place : place + length])
        place += length
    return text


def _ace(ace: bytes) -> str:
    kind, bits, _, mask = struct.unpack_from("<BBHI", ace)
    flags = "".join(word for bit, word in _FLAGS if bits & bit)
    at, first, second = 8, "", ""
    if kind in _OBJECT:
        word = _OBJECT[kind]
        (present,) = struct.unpack_from("<I", ace, 8)
        at = 12
        guids = []
        for bit in (1, 2):
            guid = ""
            if present & bit:
                if at + 16 > len(ace):
                    raise FormatError(_WHAT, "an object ACE is cut off")
                guid = str(UUID(bytes_le=ace[at : at + 16]))
                at += 16
            guids.append(guid)
        first, second = guids
    elif kind in _PLAIN:
        word = _PLAIN[kind]
    else:
        raise FormatError(_WHAT, f"an ACE of type {kind:#x} cannot be written as text")
    sid, _ = _sid(ace, at)
    return f"({word};{flags};{mask:#x};{first};{second};{sid})"
