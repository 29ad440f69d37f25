"""Tiny real-mode programs for tests of what starts a machine."""

from __future__ import annotations

import struct


def serial_printer(text: bytes) -> bytes:
    """Code for any address below 64 KiB: writes ``text`` to the first serial port, and halts.

    call next; next: pop si; add si, 15; cld; mov dx, 0x3f8; lodsb; test al, al; jz halt; out dx, al; jmp lodsb;
    halt: hlt; jmp halt. The text lies behind the code and is found relative to it (CS = DS is set first).
    """
    code = bytes.fromhex(
        "0e1f"  # push cs; pop ds
        "e80000"  # call next
        "5e"  # next: pop si
        "83c613"  # add si, 0x13
        "fc"  # cld
        "baf803"  # mov dx, 0x3f8
        "ac"  # again: lodsb
        "84c0"  # test al, al
        "7403"  # jz halt
        "ee"  # out dx, al
        "ebf8"  # jmp again
        "f4"  # halt: hlt
        "ebfd"  # jmp halt
    )
    assert len(code) - 5 == 0x13
    return code + text + b"\0"


def boot_sector(text: bytes) -> bytes:
    """A disk's first sector that says ``text``."""
    return serial_printer(text).ljust(510, b"\0") + b"\x55\xaa"


def sector_reader(sector: int, length: int) -> bytes:
    """El Torito code, 2,048 bytes: reads the medium's ``sector`` by INT 13h, AH=42h, and writes its first ``length``
    bytes (below 256) to the first serial port. The boot drive is in DL, as the BIOS leaves it.
    """
    code = bytes.fromhex(
        "0e1f"  # push cs; pop ds
        "e80000"  # call next
        "5d"  # next: pop bp
        "8d7625"  # lea si, [bp + packet]
        "8d86fb07"  # lea ax, [bp + 0x7fb]: behind the code
        "894404"  # mov [si + 4], ax
        "8c4c06"  # mov [si + 6], cs
        "b442"  # mov ah, 0x42
        "cd13"  # int 0x13
        "720e"  # jc halt
        "8db6fb07"  # lea si, [bp + 0x7fb]
        f"b9{length:02x}00"  # mov cx, length
        "baf803"  # mov dx, 0x3f8
        "ac"  # again: lodsb
        "ee"  # out dx, al
        "e2fc"  # loop again
        "f4"  # halt: hlt
        "ebfd"  # jmp halt
    )
    assert len(code) == 5 + 0x25
    packet = struct.pack("<BBHHHQ", 16, 0, 1, 0, 0, sector)
    return (code + packet).ljust(2048, b"\0")


def efi_printer(text: bytes) -> bytes:
    """An EFI application for x64 that writes ``text`` to the first serial port by itself, and stays."""
    code = bytes.fromhex(
        "488d350e000000"  # lea rsi, [rip + text]
        "66baf803"  # mov dx, 0x3f8
        "ac"  # again: lodsb
        "84c0"  # test al, al
        "7403"  # jz halt
        "ee"  # out dx, al
        "ebf8"  # jmp again
        "ebfe"  # halt: jmp halt
    )
    assert len(code) == 7 + 0x0E
    section = (code + text + b"\0").ljust(0x200, b"\0")
    assert len(section) == 0x200
    head = struct.pack("<4sHHIIIHH", b"PE\0\0", 0x8664, 1, 0, 0, 0, 240, 0x22E)
    optional = struct.pack("<HBBIIIII", 0x20B, 1, 0, 0x200, 0, 0, 0x1000, 0x1000)
    optional += struct.pack(
        "<QIIHHHHHHIIIIHH", 0, 0x1000, 0x200, 0, 0, 0, 0, 0, 0, 0, 0x2000, 0x200, 0, 10, 0
    )
    optional += struct.pack("<QQQQII", 1 << 20, 1 << 12, 1 << 20, 1 << 12, 0, 16) + bytes(128)
    assert len(optional) == 240
    table = struct.pack("<8sIIIIIIHHI", b".text", 0x200, 0x1000, 0x200, 0x200, 0, 0, 0, 0, 0x60000020)
    image = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40) + head + optional + table
    return image.ljust(0x200, b"\0") + section
