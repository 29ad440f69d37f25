"""What a console is, on Linux and on Windows: waiting for a key, and reading bytes.

On Windows a line is read through Python's own console reader, which asks for Unicode: whatever the code page is, ä
arrives as UTF-8. Waiting there means looking for keys that have been pressed, because a mouse or a window makes the
console "ready" as well, and a read would then wait for Enter.
"""

from __future__ import annotations

import os
import sys
from typing import BinaryIO


def reader(fd: int) -> BinaryIO:
    """Reads what is there, at most as much as was asked for; b"" is the end. The descriptor stays open."""
    return open(fd, "rb", buffering=0, closefd=False)


if sys.platform == "win32":
    import ctypes
    import msvcrt
    import time

    _TICK = 0.05  # seconds between two looks
    _LINE_MODE = 0x0001 | 0x0002 | 0x0004  # processed input (Ctrl-C), whole lines, echo
    _QUICK_EDIT, _EXTENDED = 0x0040, 0x0080
    _kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)

    def is_terminal(fd: int) -> bool:
        """isatty is true of NUL as well, from which no line ever comes."""
        mode = ctypes.c_uint32()
        return os.isatty(fd) and bool(_kernel32.GetConsoleMode(_handle(fd), ctypes.byref(mode)))

    def tame(fd: int) -> None:
        """Line by line, and no "quick edit", in which a stray click stops whoever writes to the console."""
        if not is_terminal(fd):
            return
        handle, mode = _handle(fd), ctypes.c_uint32()
        if _kernel32.GetConsoleMode(handle, ctypes.byref(mode)):
            wanted = (mode.value | _LINE_MODE | _EXTENDED) & ~_QUICK_EDIT
            _kernel32.SetConsoleMode(handle, ctypes.c_uint32(wanted))

    def is_ready(fd: int, seconds: float) -> bool:
        """Whether something can be read before the time is over."""
        deadline = time.monotonic() + seconds
        while not (msvcrt.kbhit() if is_terminal(fd) else _filled(fd)):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_TICK)
        return True

    def _filled(fd: int) -> bool:
        """True for what is no pipe, or a broken one: reading says what it is."""
        there = ctypes.c_uint32()
        peeked = _kernel32.PeekNamedPipe(_handle(fd), None, 0, None, ctypes.byref(there), None)
        return not peeked or there.value > 0

    def _handle(fd: int) -> ctypes.c_void_p:
        return ctypes.c_void_p(msvcrt.get_osfhandle(fd))

else:

    def is_terminal(fd: int) -> bool:
        return os.isatty(fd)

    def tame(fd: int) -> None:
        """The kernel's line editing is there already."""

    def is_ready(fd: int, seconds: float) -> bool:
        """Whether something can be read before the time is over. Raises OSError for a terminal that is gone."""
        import select

        return bool(select.select([fd], [], [], seconds)[0])
