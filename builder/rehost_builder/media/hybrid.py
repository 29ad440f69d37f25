"""Makes an ISO image start from a USB stick as well: a boot sector and partition table in its first 512 bytes.

ISO 9660 leaves the first 32 KiB unused. The code is SYSLINUX's ``isohdpfx.bin``; it expects at byte 432 the
512-byte sector where isolinux.bin begins (SYSLINUX utils/isohybrid.c). UEFI firmware finds the EFI system
partition by type 0xEF in the same table (UEFI 2.10, 5.2.2). No GPT: pycdlib's own has wrong checksums, and a
table that covers the ISO from sector 0 cannot be a valid GPT anyway.
"""

from __future__ import annotations

import struct

_CODE_LENGTH = 432
_HEADS, _SECTORS = 64, 32
ALIGNMENT = 1 << 20
"""Length of a cylinder of 64 heads and 32 sectors: what BIOSes that look at the geometry want to see whole."""


def hybrid_boot_sector(
    code: bytes, *, image_size: int, loader_offset: int, efi_offset: int, efi_size: int, disk_id: int
) -> bytes:
    """The 512 bytes to put at the start of the image. Offsets and sizes are in bytes, multiples of 512.

    Partition 1 (type 0x17, active) is the whole image, partition 2 (0xEF) the FAT image inside it.
    Raises ValueError where a number does not fit.
    """
    if len(code) < _CODE_LENGTH or len(code) > 512:
        raise ValueError(f"isohdpfx code has {len(code)} bytes, wants 432 to 512")
    for value in (image_size, loader_offset, efi_offset, efi_size):
        if value <= 0 or value % 512 or value // 512 > 0xFFFFFFFF:
            raise ValueError(f"{value} is not a place in a disk of 512-byte sectors")
    if efi_offset + efi_size > image_size or loader_offset >= image_size:
        raise ValueError("boot images lie outside of the image")
    sector = bytearray(512)
    sector[:_CODE_LENGTH] = code[:_CODE_LENGTH]
    struct.pack_into("<QI", sector, 432, loader_offset // 512, disk_id & 0xFFFFFFFF)
    sector[446:462] = _partition(0x80, 0x17, 0, image_size // 512)
    sector[462:478] = _partition(0x00, 0xEF, efi_offset // 512, efi_size // 512)
    sector[510:] = b"\x55\xaa"
    return bytes(sector)


def _partition(status: int, kind: int, start: int, count: int) -> bytes:
    first, last = _chs(start), _chs(start + count - 1)
    return struct.pack("<B3sB3sII", status, first, kind, last, start, count)


def _chs(sector: int) -> bytes:
    cylinder, rest = divmod(sector, _HEADS * _SECTORS)
    head, number = divmod(rest, _SECTORS)
    if cylinder > 1023:
        cylinder, head, number = 1023, _HEADS - 1, _SECTORS - 1
    return bytes((head, number + 1 | (cylinder >> 8) << 6, cylinder & 0xFF))
