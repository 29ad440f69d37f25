"""Hashes of files as catalogs hold them, and the signature inside a program.

After Microsoft's "Windows Authenticode Portable Executable Signature Format".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from .catalog import INDIRECT_DATA, indirect_digest
from .certificates import digest_name
from .der import SEQUENCE, encoded, value_at
from .errors import FormatError
from .pkcs7 import Signature, verify
from .signed_data import signed_data

WHAT = "driver binary"
_SECURITY = 4  # index of the attribute certificate table


def read_signature(data: bytes, microsoft: Iterable[str] | None = None) -> Signature | None:
    """The signature inside a program, verified against its bytes; None where there is none.

    FormatError for one that cannot be read. ``microsoft``: as in `pkcs7.verify`.
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
        signed = signed_data(data[at + 8 : at + length], INDIRECT_DATA, WHAT)
        algorithm, expected = indirect_digest(value_at(encoded(SEQUENCE, signed.content)))
        name = digest_name(algorithm)
        if name not in hashlib.algorithms_guaranteed:
            raise FormatError(WHAT, f"a hash that is not known ({name})")
        digest = hashlib.new(name, usedforsecurity=False)
        for part in parts:
            digest.update(part)
        found = verify(signed, microsoft)
    except FormatError as e:
        raise FormatError(WHAT, f"its signature cannot be read: {e.problem}") from None
    if found is not None and digest.digest() != expected:
        return replace(found, problem="the file was changed after it was signed")
    return found


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
