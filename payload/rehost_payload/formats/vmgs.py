"""Guest state files (.vmgs) of newer machines: which of their parts are in use. The contents are not read.

Follows openvmm's vmgs_format: two headers in the first two blocks of 4 KiB, the higher sequence counts; a table of 64
entries by a fixed number, each with the block where its file begins, its blocks and its bytes. Header checksums are
not compared: their kind is not documented, and nothing but a warning depends on this.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.source import ByteSource

TPM_NVRAM, KEY_PROTECTOR = 3, 6
_BLOCK = 4096
_HEADER = struct.Struct("<8sIIIIIIH")
_ENTRY = struct.Struct("<IIQ48x")
_ENTRIES = 64
_WHAT = "guest state"


@dataclass(frozen=True)
class GuestState:
    """``files`` are the sizes in bytes of the parts in use by their number; none are known where it is ``encrypted``."""

    version: int  # major << 16 | minor
    encrypted: bool
    files: dict[int, int]


def is_vmgs(source: ByteSource) -> bool:
    return any(source.read_at(at, 8) == b"GUESTRTS" for at in (0, _BLOCK) if at < source.size)


def parse_vmgs(source: ByteSource) -> GuestState:
    """FormatError where neither header can be used, or the table lies outside of the file."""
    headers = []
    for at in (0, _BLOCK):
        raw = source.read_at(at, _HEADER.size) if at < source.size else b""
        if len(raw) == _HEADER.size and raw[:8] == b"GUESTRTS":
            _, version, _, sequence, _, table, size, algorithm = _HEADER.unpack(raw)
            if version >> 16 in (2, 3) and table >= 2 and size >= 1:
                headers.append((sequence, version, table, algorithm))
    if not headers:
        raise FormatError(_WHAT, "no usable header", 0)
    _, version, table, algorithm = max(headers)
    if version >> 16 >= 3 and algorithm:
        return GuestState(version, True, {})
    raw = source.read_at(table * _BLOCK, _BLOCK) if (table + 1) * _BLOCK <= source.size else b""
    if len(raw) < _BLOCK:
        raise FormatError(_WHAT, "its table lies outside of the file", table * _BLOCK)
    entries = (_ENTRY.unpack_from(raw, i * _ENTRY.size) for i in range(_ENTRIES))
    files = {i: size for i, (place, blocks, size) in enumerate(entries) if i and place and blocks and size}
    return GuestState(version, False, files)
