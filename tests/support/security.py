"""Security descriptors, made and read by code that shares nothing with the product's."""

from __future__ import annotations

import struct

SYSTEM = bytes.fromhex("010100000000000512000000")
ADMINS = bytes.fromhex("01020000000000052000000020020000")
USERS = bytes.fromhex("01020000000000052000000021020000")
CREATOR = bytes.fromhex("010100000000000300000000")
OI, CI, NP, IO, ID = 1, 2, 4, 8, 16
FULL, READ = 0x1F01FF, 0x1200A9
Ace = tuple[int, int, int, bytes]


def descriptor(*aces: Ace) -> bytes:
    body = b"".join(struct.pack("<BBHI", k, f, 8 + len(s), m) + s for k, f, m, s in aces)
    acl = struct.pack("<BBHHH", 2, 0, 8 + len(body), len(aces), 0) + body
    owner = 20 + len(acl)
    return struct.pack("<BBHIIII", 1, 0, 0x8004, owner, owner, 0, 20) + acl + ADMINS


def entries(data: bytes) -> list[Ace]:
    owner, group, place = struct.unpack_from("<4xII4xI", data)
    assert data[owner : owner + 16] == data[group : group + 16] == ADMINS
    assert place + struct.unpack_from("<2xH", data, place)[0] == len(data)
    count = struct.unpack_from("<4xH", data, place)[0]
    at, found = place + 8, []
    for _ in range(count):
        kind, flags, size, mask = struct.unpack_from("<BBHI", data, at)
        found.append((kind, flags, mask, data[at + 8 : at + size]))
        at += size
    return found
