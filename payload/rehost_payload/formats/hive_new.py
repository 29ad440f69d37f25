"""An empty registry hive to start from."""

from __future__ import annotations

import struct

from rehost_payload.formats.hive_base import BASE_BLOCK_SIZE, NOWHERE, PAGE_SIZE, checksum

_SIDS = (
    bytes.fromhex("01 02 00000000 0005 20000000 20020000"),  # BUILTIN\Administrators
    bytes.fromhex("01 01 00000000 0005 12000000"),  # LOCAL SYSTEM
)


def _security_descriptor() -> bytes:
    """Self-relative descriptor: administrators own the key; they and the system have full, inherited access."""
    administrators, system = _SIDS
    entries = b"".join(
        # ACCESS_ALLOWED_ACE, OBJECT_INHERIT | CONTAINER_INHERIT, KEY_ALL_ACCESS
        struct.pack("<BBHI", 0, 3, 8 + len(sid), 0xF003F) + sid
        for sid in (administrators, system)
    )
    acl = struct.pack("<BBHHH", 2, 0, 8 + len(entries), 2, 0) + entries
    owner = 20 + len(acl)
    # revision 1; SE_DACL_PRESENT | SE_SELF_RELATIVE
    return struct.pack("<BBHIIII", 1, 0, 0x8004, owner, owner, 0, 20) + acl + administrators


def _cell(data: bytes) -> bytes:
    size = (4 + len(data) + 7) & ~7
    return struct.pack("<i", -size) + data.ljust(size - 4, b"\0")


def minimal_hive(root_name: str, *, file_name: str = "", minor: int = 5, written: int = 0) -> bytes:
    """A valid hive with nothing but its root key, into which a store is then written by edits.

    ``root_name`` and ``file_name`` (at most 31 characters, for information only) must be ASCII; ``written`` is
    a FILETIME. Version 1.5 is the default because it is the first that has hash leaves, the lists hivex writes.
    """
    name = root_name.encode("ascii")
    if not name or len(name) > 255 or len(file_name) > 31:
        raise ValueError("the root key needs a name of 1 to 255 characters, the file name at most 31")
    root = 32
    key = struct.pack(
        # KEY_HIVE_ENTRY | KEY_NO_DELETE | KEY_COMP_NAME
        "<2sHQIIIIIIIIIIIIIIIHH",
        *(b"nk", 0x2C, written, 0, 0xFFFFFFFF, 0, 0, NOWHERE, NOWHERE, 0, NOWHERE),
        *(root + len(_cell(bytes(76) + name)), NOWHERE, 0, 0, 0, 0, 0, len(name), 0),
    )
    cells = _cell(key + name)
    security = root + len(cells)
    descriptor = _security_descriptor()
    # the only entry of the list of descriptors points to itself
    cells += _cell(struct.pack("<2sHIIII", b"sk", 0, security, security, 1, len(descriptor)) + descriptor)
    free = PAGE_SIZE - 32 - len(cells)
    bin_ = struct.pack("<4sIIQQI", b"hbin", 0, PAGE_SIZE, 0, written, 0) + cells + struct.pack("<i", free)
    head = struct.pack("<4sIIQIIIIIII", b"regf", 1, 1, written, 1, minor, 0, 1, root, PAGE_SIZE, 1)
    head = (head + file_name.encode("utf-16-le")).ljust(508, b"\0")
    head += struct.pack("<I", checksum(head))
    return head.ljust(BASE_BLOCK_SIZE, b"\0") + bin_.ljust(PAGE_SIZE, b"\0")
