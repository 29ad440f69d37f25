"""Certificates as the registry keeps them: the value Blob below SystemCertificates, named by its thumbprint.

A row of properties, each with its number, a 1, its length, and its bytes; the certificate itself is number 32
(CERT_CERT_PROP_ID of wincrypt.h), and one whose private key is on the machine has number 2 (CERT_KEY_PROV_INFO_PROP_ID).
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from .certificates import Certificate
from .der import value_at
from .errors import FormatError

_WHAT = "stored certificate"
_HEAD = struct.Struct("<III")
_KEY, _CERTIFICATE = 2, 32
_MOST = 64


@dataclass(frozen=True)
class StoredCertificate:
    """``thumbprint`` in upper case, computed from the certificate; ``has_key``: the private key is on that machine."""

    thumbprint: str
    name: str
    has_key: bool


def parse_stored(blob: bytes) -> StoredCertificate:
    """FormatError for what is none."""
    properties: dict[int, bytes] = {}
    place = 0
    while place < len(blob):
        if place + _HEAD.size > len(blob) or len(properties) >= _MOST:
            raise FormatError(_WHAT, "cut off, or too many properties", place)
        number, _, length = _HEAD.unpack_from(blob, place)
        place += _HEAD.size
        if length > len(blob) - place:
            raise FormatError(_WHAT, f"property {number} of {length} bytes does not fit", place)
        properties[number] = blob[place : place + length]
        place += length
    der = properties.get(_CERTIFICATE)
    if der is None:
        raise FormatError(_WHAT, "no certificate in it")
    name = Certificate(value_at(der)).name
    return StoredCertificate(hashlib.sha1(der).hexdigest().upper(), name, _KEY in properties)
