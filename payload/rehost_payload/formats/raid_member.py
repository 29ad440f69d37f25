"""Whether a disk is a member of a RAID array whose own software or firmware is not at work: then what its partition table
shows is the array's, and a write to one member alone makes it differ from the others.

What is looked for lies at the end of a disk: SNIA's Common RAID Disk Data Format (DDF, its anchor header), Intel's (RST,
the block that mdadm's super-intel.c reads), Adaptec's HostRAID and NVIDIA's as util-linux's libblkid knows them, and md's
superblocks 0.90 and 1.0. Nothing of it is interpreted.
"""

from __future__ import annotations

from .source import ByteSource

_INTEL = b"Intel Raid ISM Cfg Sig. "
_DDF = b"\xde\x11\xde\x11"
_ADAPTEC, _ADAPTEC_MIRROR = b"\x37\xfc\x4d\x1e", b"DPTM"
_MD = b"\xfc\x4e\x2b\xa9"
_ADAPTEC_DDF = 257  # sectors from the end, where some of Adaptec's controllers have their anchor
_SMALLEST = 2 << 20


def member_of(source: ByteSource, sector_size: int) -> str:
    """The kind of array ("Intel RST", "DDF", "Adaptec HostRAID", "NVIDIA", "Linux md"), or "". Raises OSError."""
    if source.size < _SMALLEST:
        return ""
    for sector in dict.fromkeys((sector_size, 512)):
        total = source.size // sector
        last = source.read_at((total - 1) * sector, sector)
        before = source.read_at((total - 2) * sector, len(_INTEL))
        if before.startswith(_INTEL):
            return "Intel RST"
        if before.startswith(b"NVIDIA"):
            return "NVIDIA"
        if last.startswith(_DDF) or source.read_at((total - _ADAPTEC_DDF) * sector, 4) == _DDF:
            return "DDF"
        if last.startswith(_ADAPTEC) and _ADAPTEC_MIRROR in last:
            return "Adaptec HostRAID"
    sectors = source.size // 512
    for place in ((sectors - 16) & ~7, (sectors & ~127) - 128):
        if source.read_at(place * 512, 4) == _MD:
            return "Linux md"
    return ""
