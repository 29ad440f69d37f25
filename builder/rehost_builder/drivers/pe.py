"""Driver binaries: would Windows load this .sys, and what is its hash in a catalog.

The Authenticode hash follows Microsoft's "Windows Authenticode Portable Executable Signature Format".
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, replace

import pefile

from rehost_builder.drivers.catalog import IndirectData
from rehost_builder.drivers.signature import (
    Signature,
    as_sequence,
    content_of,
    signed_data,
    verify,
)
from rehost_payload.formats.errors import FormatError

WHAT = "driver binary"
AMD64 = 0x8664
NATIVE = 1
_MACHINES = {0x14C: "x86", 0x8664: "amd64", 0x200: "ia64", 0xAA64: "arm64"}
_INDIRECT_DATA = "1.3.6.1.4.1.311.2.1.4"
_SECURITY = 4  # index of the attribute certificate table
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

    machine: int
    native: bool
    minimum_os: tuple[int, int]
    checksum_ok: bool | None
    signed_inside: bool
    version: tuple[int, int, int, int] | None
    imports: tuple[str, ...]

    @property
    def machine_name(self) -> str:
        return _MACHINES.get(self.machine, f"machine {self.machine:#x}")


def read_binary(data: bytes) -> Binary:
    """FormatError for what is no PE file."""
    try:
        pe = pefile.PE(data=data, fast_load=True)
        pe.parse_data_directories([1, 2])  # imports and resources
        header = pe.OPTIONAL_HEADER
        directories = header.DATA_DIRECTORY
        fixed = getattr(pe, "VS_FIXEDFILEINFO", None)
        version = None
        if fixed:
            high, low = fixed[0].FileVersionMS, fixed[0].FileVersionLS
            version = (high >> 16, high & 0xFFFF, low >> 16, low & 0xFFFF)
        imports = [
            entry.dll.decode("ascii", "replace") for entry in getattr(pe, "DIRECTORY_ENTRY_IMPORT", [])
        ]
        return Binary(
            machine=pe.FILE_HEADER.Machine,
            native=header.Subsystem == NATIVE,
            minimum_os=max(
                (header.MajorOperatingSystemVersion, header.MinorOperatingSystemVersion),
                (header.MajorSubsystemVersion, header.MinorSubsystemVersion),
            ),
            checksum_ok=_checksum(data, pe) == header.CheckSum if header.CheckSum else None,
            signed_inside=len(directories) > _SECURITY and directories[_SECURITY].Size > 0,
            version=version,
            imports=tuple(imports),
        )
    except (pefile.PEFormatError, AttributeError, IndexError, ValueError, TypeError, OverflowError) as e:
        raise FormatError(WHAT, str(e).strip("'\"") or type(e).__name__) from None


def _checksum(data: bytes, pe: pefile.PE) -> int:
    """What CheckSum of the header should be: the file's 16-bit words added with carry, its own four bytes left out, and
    the file's length. Words of 64 bits give the same sum, in a fraction of the time.
    """
    place = pe.OPTIONAL_HEADER.get_file_offset() + 64
    words = array("Q", data[:place] + bytes(4) + data[place + 4 :] + bytes(-len(data) % 8))
    if sys.byteorder == "big":
        words.byteswap()
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total + len(data)


def read_signature(data: bytes, microsoft: Iterable[str] | None = None) -> Signature | None:
    """The signature inside a program, verified against its bytes; None where there is none.

    FormatError for one that cannot be read. ``microsoft``: as in `signature.verify`.
    """
    parts = _authenticode_parts(data)
    if parts is None:
        return None
    pointer = len(parts[0]) + 4 + len(parts[1])
    at, size = (int.from_bytes(data[i : i + 4], "little") for i in (pointer, pointer + 4))
    if not size:
        return None
    # WIN_CERTIFICATE: length, revision, type (2 is PKCS #7)
    length, kind = int.from_bytes(data[at : at + 4], "little"), data[at + 6 : at + 8]
    if not 8 < length <= size or kind != b"\2\0":
        raise FormatError(WHAT, "its signature is damaged")
    try:
        signed = signed_data(data[at + 8 : at + length], WHAT)
        content = IndirectData.load(as_sequence(content_of(signed, _INDIRECT_DATA, WHAT)))
        algorithm = str(content["digest"]["digest_algorithm"]["algorithm"].native)
        digest = hashlib.new(algorithm, usedforsecurity=False)
        for part in parts:
            digest.update(part)
        found = verify(signed, microsoft)
        if found is not None and digest.digest() != content["digest"]["digest"].native:
            found = replace(found, problem="the file was changed after it was signed")
        return found
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as e:
        if isinstance(e, FormatError):
            raise
        raise FormatError(WHAT, f"its signature cannot be read: {str(e).partition(chr(10))[0]}") from None


def file_digests(data: bytes) -> set[bytes]:
    """Every hash under which a catalog may hold these bytes: flat, and for programs Authenticode; SHA-1 and SHA-256."""
    digests = {hashlib.sha1(data, usedforsecurity=False).digest(), hashlib.sha256(data).digest()}
    parts = _authenticode_parts(data)
    if parts is not None:
        for name in ("sha1", "sha256"):
            digest = hashlib.new(name, usedforsecurity=False)
            for part in parts:
                digest.update(part)
            digests.add(digest.digest())
    return digests


def _authenticode_parts(data: bytes) -> list[bytes] | None:
    """The file without its checksum, the pointer to its signature and the signature; None for other files."""
    if data[:2] != b"MZ" or len(data) < 0x40:
        return None
    start = int.from_bytes(data[0x3C:0x40], "little") + 24  # of the optional header
    wide = int.from_bytes(data[start : start + 2], "little") == 0x20B
    pointer = start + (112 if wide else 96) + 8 * _SECURITY
    if pointer + 8 > len(data) or data[start - 24 : start - 20] != b"PE\0\0":
        return None
    at, size = (int.from_bytes(data[i : i + 4], "little") for i in (pointer, pointer + 4))
    end = len(data)
    if size:
        if at < pointer + 8 or at + size > len(data):
            return None
        end = at
    body = data[start + 68 : pointer], data[pointer + 8 : end], data[end + size :]
    parts = [data[: start + 64], *body]
    # what is hashed is filled up to a multiple of 8 bytes, as the signing tools do before they append
    if not size:
        parts.append(b"\0" * (-len(data) % 8))
    return parts
