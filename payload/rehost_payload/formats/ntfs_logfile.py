"""Whether $LogFile was closed: the restart pages of the NTFS journal, nothing of its records.

Layout as in the Linux-NTFS documentation of $LogFile, for versions 1.x and 2.x.
"""

from __future__ import annotations

import struct

_NO_CLIENT = 0xFFFF
_CLEAN = 0x0002
_PAGE_SIZES = (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)


def is_unclean(start: bytes) -> bool:
    """True when the journal has an open client and the last restart area does not say "clean".

    ``start`` are the first 128 KiB of $LogFile (or all of it). A journal of nothing but FF bytes was emptied
    and is clean. One without a readable restart page counts as unclean: Windows would have to decide.
    """
    if not start.strip(b"\xff"):
        return False
    best: tuple[int, bool] | None = None
    for position in (0, *(size for size in _PAGE_SIZES if size < len(start))):
        area = _restart_area(start, position)
        if area is not None and (best is None or area[0] > best[0]):
            best = area
    return True if best is None else best[1]


def _restart_area(start: bytes, position: int) -> tuple[int, bool] | None:
    """(current LSN, unclean) of the restart page at ``position``, or None where there is no page."""
    page = start[position : position + 4096]
    if len(page) < 512 or page[:4] not in (b"RSTR", b"CHKD"):
        return None
    system_page, _, offset = struct.unpack_from("<IIH", page, 16)
    # A second page stands one system page into the file; anything else at that place is a log record's
    # content.
    if position not in (0, system_page) or offset < 0x1E or offset + 0x30 > 510:
        return None
    lsn, _, _, in_use, flags = struct.unpack_from("<QHHHH", page, offset)
    return lsn, in_use != _NO_CLIENT and not flags & _CLEAN
