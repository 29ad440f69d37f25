"""Made-up boot code, with the names in it that Microsoft's has, and a program like bootsect that writes it.

`write` does to an image what `bootsect /nt60 R: /mbr` does to a disk: the disk's 440 bytes, an NTFS volume's 16 sectors
without its parameters, or the boot sector, its second stage and the copies of FAT32.
"""

from __future__ import annotations

import struct
from pathlib import Path

MASTER = b"\x33\xc0\x8e\xd0" + b"a made-up master boot record".ljust(436, b"\x90")


def ntfs_code(name: str) -> bytes:
    """16 sectors; the first has a jump and the file system's name, and zeros where the parameters are."""
    code = bytearray(b"\x90" * 8192)
    code[:11] = b"\xeb\x52\x90NTFS    "
    code[11:0x54] = bytes(0x54 - 11)
    code[510:512] = b"\x55\xaa"
    counted = struct.pack("<H", len(name)) + name.encode("utf-16-le")
    code[512 : 512 + len(counted)] = counted
    return bytes(code)


def write(image: Path, offset: int, size: int, master: bool) -> None:
    with image.open("r+b") as file:
        if master:
            file.seek(0)
            file.write(MASTER)
        file.seek(offset)
        first = file.read(512)
        if first[3:7] == b"NTFS":
            code = bytearray(ntfs_code("BOOTMGR"))
            code[11:0x54] = first[11:0x54]
            file.seek(offset)
            file.write(code)
            (total,) = struct.unpack_from("<Q", first, 0x28)
            file.seek(offset + total * 512)
            file.write(code[:512])
        else:
            code = bytearray(first)
            code[0x5A:510] = b"BOOTMGR    ".ljust(510 - 0x5A, b"\x90")
            for sector in (0, 6):
                file.seek(offset + sector * 512)
                file.write(code)
            file.seek(offset + 12 * 512)
            file.write(b"second stage".ljust(512, b"\x90"))
