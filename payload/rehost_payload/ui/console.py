"""A line-oriented console: works on a VGA text console, in a Windows console window, on a serial line and a pipe, and
trusts none of them.

No cursor movement, no colours, no escape sequences, no single-key mode: the kernel's line editing does what is needed, and noise on a
serial line does nothing before somebody presses Enter.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, TextIO

from rehost_payload.system import terminal
from rehost_payload.ui.texts import ascii_fold, clean

MAX_LINE = 200
_BUFFER = 4096
_HEADING = 3  # lines: an empty one, the title, what underlines it
_ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]?|O.?|.?)", re.DOTALL)


class HungUp(Exception):
    """The terminal is gone (EIO), or is no terminal and has nothing more to say."""


def clean_line(raw: bytes) -> str:
    """What somebody meant to type: without escape sequences, control characters and line noise."""
    text = _ESCAPE.sub("", raw[:_BUFFER].decode("utf-8", "ignore"))
    out: list[str] = []
    for c in text:
        if c in "\b\x7f":
            del out[-1:]
        elif c.isprintable():
            out.append(c)
        elif c == "\t":
            out.append(" ")
    return "".join(out).strip()[:MAX_LINE]


def speaks_utf8(fd: int, stream_encoding: str | None, system: Path = Path("/sys")) -> bool:
    """Whether ä may be sent to this console. In doubt, on a serial line, it may not."""
    if os.environ.get("REHOST_ASCII"):
        return False
    if (stream_encoding or "").lower().replace("-", "") != "utf8":
        return False
    try:
        name = os.ttyname(fd)
    except (OSError, AttributeError):
        return True  # a file or a pipe, or Windows, whose consoles take Unicode
    if name == "/dev/console":
        try:
            name = "/dev/" + (system / "class/tty/console/active").read_text().split()[-1]
        except (OSError, IndexError):
            return False
    if re.fullmatch(r"/dev/tty\d+", name):
        try:
            return (system / "module/vt/parameters/default_utf8").read_text().strip() in ("1", "Y")
        except OSError:
            return False
    return name.startswith("/dev/pts/")


def _stdin() -> int:
    """-1 where there is none (a service): reading from it says so."""
    try:
        return sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):
        return -1


def _descriptor(stream: TextIO) -> list[int]:
    try:
        return [stream.fileno()]
    except (AttributeError, OSError, ValueError):
        return []


def _page_end(lines: list[str], start: int, end: int) -> int:
    """Where a page that could go to ``end`` ends: not right behind a heading, whose text would be on the next."""
    for at in range(end - 1, max(start, end - 1 - _HEADING), -1):
        if not lines[at].strip():
            return at
    return end


class Console:
    """Reads lines from ``fd`` and writes text to ``out``."""

    def __init__(
        self,
        fd: int | None = None,
        out: TextIO | None = None,
        *,
        utf8: bool | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        self.fd = _stdin() if fd is None else fd
        self._out = sys.stdout if out is None else out
        self._in: BinaryIO | None = None
        if utf8 is None:
            utf8 = speaks_utf8(self.fd, getattr(self._out, "encoding", None))
        self.utf8 = utf8
        self._size = size
        self._pending = b""
        self._overflow = False

    @property
    def stream(self) -> TextIO:
        return self._out

    @property
    def is_terminal(self) -> bool:
        return terminal.is_terminal(self.fd)

    @property
    def size(self) -> tuple[int, int]:
        """(columns, rows); a serial line says 0 x 0 and is taken for 80 x 24."""
        if self._size is not None:
            return self._size
        for fd in (self.fd, *_descriptor(self._out)):  # Windows knows the size of what is written to only
            with contextlib.suppress(OSError, ValueError):
                found = os.get_terminal_size(fd)
                return (found.columns or 80, found.lines or 24)
        return 80, 24

    @property
    def width(self) -> int:
        """Columns for text: the last one is left free, since some terminals wrap when it is written."""
        return max(40, min(self.size[0], 100) - 1)

    # --- output --------------------------------------------------------------------------------------------

    def write(self, text: str) -> None:
        """Errors of a dead terminal are ignored: the work goes on without it."""
        text = clean(text)
        if not self.utf8:
            text = ascii_fold(text)
        try:
            self._out.write(text)
            self._out.flush()
        except (OSError, ValueError, UnicodeError):
            pass

    def say(self, text: str = "") -> None:
        self.write(text + "\n")

    def say_all(self, lines: Iterable[str]) -> None:
        self.write("".join(line + "\n" for line in lines))

    def page(self, lines: Iterable[str], more: str, skip_to: int | None = None) -> None:
        """A screenful at a time: a VGA console cannot be scrolled back. ``more`` is the prompt in between.

        "q" skips the rest, or goes on at line ``skip_to`` if that is still ahead.
        """
        waiting = list(lines)
        skip = len(waiting) if skip_to is None else skip_to
        rows = max(5, self.size[1] - 2)
        shown = 0
        while self.is_terminal and len(waiting) - shown > rows:
            end = _page_end(waiting, shown, shown + rows)
            self.say_all(waiting[shown:end])
            shown = end
            if self.ask(more).lower() == "q":
                shown = skip if shown < skip else len(waiting)
        self.say_all(waiting[shown:])

    # --- input ---------------------------------------------------------------------------------------------

    def ask(self, prompt: str) -> str:
        """One line; an end of input (Ctrl-D) counts as an empty one. Raises HungUp, KeyboardInterrupt."""
        self.write(prompt)
        try:
            return self.read_line()
        except EOFError:
            self.say()
            return ""

    def read_line(self, tick: Callable[[], None] | None = None, every: float = 0.5) -> str:
        """The next line, cleaned. ``tick`` is called every ``every`` seconds while nothing comes.

        Raises EOFError for Ctrl-D on a terminal, HungUp where no line will ever come.
        """
        while True:
            line = self._take()
            if line is not None:
                return clean_line(line)
            if tick is not None and not self._ready(every):
                tick()
                continue
            try:
                data = self._reader().read(1024)
            except OSError as e:
                raise HungUp(str(e)) from e
            if not data:
                if self.is_terminal:
                    self._pending = b""
                    raise EOFError
                if self._pending:  # the last line of a file, without its newline
                    self._pending += b"\n"
                    continue
                raise HungUp("end of input")
            self._pending += data
            if len(self._pending) > _BUFFER and not re.search(rb"[\r\n]", self._pending):
                self._pending, self._overflow = b"", True

    def _reader(self) -> BinaryIO:
        if self._in is None:
            terminal.tame(self.fd)
            self._in = terminal.reader(self.fd)
        return self._in

    def _take(self) -> bytes | None:
        """A whole line from what was read; the rest of an oversized one is thrown away."""
        while match := re.search(rb"\r\n|\r|\n", self._pending):
            line, self._pending = self._pending[: match.start()], self._pending[match.end() :]
            if self._overflow:
                self._overflow = False
                continue
            return line
        return None

    def _ready(self, seconds: float) -> bool:
        try:
            return terminal.is_ready(self.fd, seconds)
        except OSError as e:
            raise HungUp(str(e)) from e
