"""Tiny real-mode programs for tests of what starts a machine."""

from __future__ import annotations


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
