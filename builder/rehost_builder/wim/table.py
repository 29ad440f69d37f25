"""The look-up table: where the content of each file is, by its SHA-1, and the images' metadata in their order."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from rehost_builder.wim.header import METADATA, Resource
from rehost_payload.formats.errors import FormatError

WHAT = "WIM look-up table"
ENTRY = 50
_LAYOUT = struct.Struct("<24sHI20s")


@dataclass(frozen=True)
class Blob:
    """``references`` counts the names in all images that have this content."""

    resource: Resource
    part: int
    references: int
    sha1: bytes

    @property
    def is_metadata(self) -> bool:
        return bool(self.resource.flags & METADATA)


def parse_table(raw: bytes) -> list[Blob]:
    """FormatError for a table that is no multiple of 50 bytes."""
    if len(raw) % ENTRY:
        raise FormatError(WHAT, f"{len(raw)} bytes are no whole number of entries")
    return [
        Blob(Resource.unpack(where), part, references, sha1)
        for where, part, references, sha1 in _LAYOUT.iter_unpack(raw)
    ]


def pack_table(blobs: Iterable[Blob]) -> bytes:
    return b"".join(_LAYOUT.pack(b.resource.pack(), b.part, b.references, b.sha1) for b in blobs)
