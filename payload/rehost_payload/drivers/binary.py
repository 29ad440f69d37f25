"""Driver binaries: would Windows load this .sys at boot?"""

from __future__ import annotations

import sys
from array import array
from dataclasses import dataclass

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.pe import read_facts
from rehost_payload.formats.pe_symbols import read_symbols
from rehost_payload.formats.source import BytesSource

WHAT = "driver binary"
AMD64 = "amd64"
NATIVE = 1
_NAMES = {"x64": AMD64}  # as INF files call it
# what a boot-start storage driver may be linked to; others are not loaded this early
BOOT_LIBRARIES = frozenset(
    [
        "ntoskrnl.exe",
        "hal.dll",
        "storport.sys",
        "scsiport.sys",
        "ataport.sys",
        "classpnp.sys",
        "wmilib.sys",
        "fltmgr.sys",
        "wdfldr.sys",
        "ntfs.sys",
        "msrpc.sys",
        "cng.sys",
        "ksecdd.sys",
        "bootvid.dll",
        "tdi.sys",
    ]
)


@dataclass(frozen=True)
class Binary:
    """``checksum_ok`` is None where the file carries no checksum; ``version`` where it has no version resource."""

    machine: str  # "amd64", "x86", ...
    native: bool
    minimum_os: tuple[int, int]
    checksum_ok: bool | None
    signed_inside: bool
    version: tuple[int, int, int, int] | None
    imports: tuple[str, ...]


def read_binary(data: bytes) -> Binary:
    """FormatError for what is no PE file, or one whose imports cannot be followed."""
    source = BytesSource(data)
    try:
        facts, symbols = read_facts(source), read_symbols(source)
    except FormatError as e:
        raise FormatError(WHAT, e.problem, e.offset) from None
    optional = int.from_bytes(data[0x3C:0x40], "little") + 24
    words = [int.from_bytes(data[optional + at : optional + at + 2], "little") for at in (40, 42, 48, 50)]
    recorded = int.from_bytes(data[optional + 64 : optional + 68], "little")
    version = tuple(map(int, facts.version.split("."))) if facts.version else None
    return Binary(
        machine=_NAMES.get(facts.machine, facts.machine),
        native=facts.subsystem == NATIVE,
        minimum_os=max((words[0], words[1]), (words[2], words[3])),
        checksum_ok=checksum(data, optional + 64) == recorded if recorded else None,
        signed_inside=facts.signature > 0,
        version=(version[0], version[1], version[2], version[3]) if version else None,
        imports=tuple(module for module, _ in symbols.modules),
    )


def checksum(data: bytes, place: int) -> int:
    """What CheckSum of the header, at ``place``, should be: the file's 16-bit words added with carry, its own four bytes
    left out, and the file's length. Words of 64 bits give the same sum, in a fraction of the time.
    """
    words = array("Q", data[:place] + bytes(4) + data[place + 4 :] + bytes(-len(data) % 8))
    if sys.byteorder == "big":
        words.byteswap()
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total + len(data)
