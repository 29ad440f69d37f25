"""Made-up boot code, with the names in it that Microsoft's has, and a program like bootsect that writes it.

A `Program` does to an image what `bootsect /nt60 R: /mbr` does to a disk: the disk's 440 bytes, an NTFS volume's 16 sectors
without its parameters, or the boot sector, its second stage and the copies of FAT32. Standard library alone: it runs under
Wine as well.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class Program:
    """``master``: 440 bytes of code at most; ``volume``: 16 sectors for NTFS."""

    master: bytes = MASTER
    volume: bytes = field(default_factory=lambda: ntfs_code("BOOTMGR"))

    def __call__(self, image: Path, offset: int, size: int, master: bool) -> None:
        """``offset``: where the volume begins in the image. ``master``: the disk's code as well."""
        with image.open("r+b") as file:
            if master:
                file.write(self.master[:440])
            file.seek(offset)
            first = file.read(512)
            for sector, content in self._ntfs(first) if first[3:7] == b"NTFS" else self._fat32(first):
                file.seek(offset + sector * 512)
                file.write(content)

    def _ntfs(self, first: bytes) -> Iterator[tuple[int, bytes]]:
        code = bytearray(self.volume)
        code[:0x54] = first[:0x54]
        (total,) = struct.unpack_from("<Q", first, 0x28)
        yield 0, bytes(code)
        yield total, bytes(code[:512])

    @staticmethod
    def _fat32(first: bytes) -> Iterator[tuple[int, bytes]]:
        code = first[:0x5A] + b"\x90" * 0x10F + b"BOOTMGR    "
        code = code.ljust(510, b"\x90") + b"\x55\xaa"
        yield from ((0, code), (6, code), (12, b"second stage".ljust(512, b"\x90")))


write = Program()
