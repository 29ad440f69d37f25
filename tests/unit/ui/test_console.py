"""Lines in, text out, on consoles that cannot be trusted."""

from __future__ import annotations

import io
import os
import pty
import sys
import termios
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rehost_payload.ui.console import MAX_LINE, Console, HungUp, clean_line, speaks_utf8
from rehost_payload.ui.survey_cmd import print_lines


def piped(data: bytes, out: io.StringIO | None = None, **more: object) -> Console:
    read, write = os.pipe()
    os.write(write, data)
    os.close(write)
    return Console(read, out or io.StringIO(), utf8=True, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b"yes", "yes"),
        (b"  yes\t", "yes"),
        (b"y\x1b[A\x1b[1;5Des\x1bOP", "yes"),
        (b"nox\x08\x08\x08yes", "yes"),
        (b"\x7f\x7fyes", "yes"),
        (b"\xff\xfeyes\x00", "yes"),
        ("größe".encode(), "größe"),
        (b"\x1b", ""),
        (b"\x1b[", ""),
        (b"a\x07b\x9bc", "abc"),
    ],
)
def test_what_was_meant(raw: bytes, line: str) -> None:
    assert clean_line(raw) == line


@given(st.binary(max_size=600))
def test_no_line_controls_anything(raw: bytes) -> None:
    line = clean_line(raw)
    assert len(line) <= MAX_LINE
    assert all(c.isprintable() for c in line)
    assert clean_line(line.encode()) == line


def test_lines_end_as_they_may() -> None:
    console = piped(b"one\ntwo\rthree\r\n\nfour")
    assert [console.read_line() for _ in range(5)] == ["one", "two", "three", "", "four"]
    with pytest.raises(HungUp):
        console.read_line()


def test_an_endless_line_is_thrown_away_whole() -> None:
    console = piped(b"yes" * 5000 + b"\nno\n")
    assert console.read_line() == "no"


def test_ticks_while_nothing_comes() -> None:
    read, write = os.pipe()
    console = Console(read, io.StringIO(), utf8=True)
    ticks = []

    def tick() -> None:
        ticks.append(1)
        if len(ticks) == 3:
            os.write(write, b"x\n")

    assert console.read_line(tick, every=0.01) == "x"
    assert len(ticks) == 3


def test_output_is_folded_and_cannot_control_the_terminal() -> None:
    out = io.StringIO()
    console = Console(0, out, utf8=False)
    console.say("Rückgängig \x1b]0;evil\x07 größer\u202e")
    assert out.getvalue() == "Rueckgaengig ?]0;evil? groesser?\n"


def test_a_dead_terminal_is_no_exception() -> None:
    class Dead(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    console = Console(0, Dead(), utf8=True)
    console.say("nobody reads this")


def test_width_and_size() -> None:
    assert Console(0, io.StringIO(), utf8=True, size=(80, 24)).width == 79
    assert Console(0, io.StringIO(), utf8=True, size=(300, 24)).width == 99
    assert Console(0, io.StringIO(), utf8=True, size=(10, 5)).width == 40
    read, _ = os.pipe()
    assert Console(read, io.StringIO(), utf8=True).size == (80, 24)


def on_terminal(typed: bytes) -> tuple[Console, io.StringIO]:
    master, slave = pty.openpty()
    os.write(master, typed)
    out = io.StringIO()
    return Console(slave, out, utf8=True, size=(80, 10)), out


def test_pages() -> None:
    console, out = on_terminal(b"\n\n")
    console.page([f"line {i}" for i in range(20)], "more? ")
    assert out.getvalue().count("more? ") == 2
    assert "line 19" in out.getvalue()


def test_a_heading_is_not_the_last_on_a_page() -> None:
    console, out = on_terminal(b"\n")
    lines = [*(f"line {i}" for i in range(5)), "", "Result", "------", "text", "more text"]
    console.page(lines, "more? ")
    assert out.getvalue() == "".join(f"{line}\n" for line in lines).replace("line 4\n", "line 4\nmore? ")


def test_pages_of_empty_lines_come_to_an_end() -> None:
    console, out = on_terminal(b"\n" * 8)
    console.page([""] * 20, "more? ")
    assert out.getvalue().replace("more? ", "") == "\n" * 20


def test_the_rest_of_the_pages_can_be_skipped() -> None:
    console, out = on_terminal(b"Q\n")
    console.page([f"line {i}" for i in range(20)], "more? ")
    assert "line 7" in out.getvalue()
    assert "line 8" not in out.getvalue()


def test_skipping_goes_on_where_it_matters() -> None:
    console, out = on_terminal(b"q\nq\n")
    console.page([f"line {i}." for i in range(40)], "more? ", skip_to=20)
    shown = out.getvalue()
    assert "line 7." in shown
    assert "line 8." not in shown
    assert "line 20." in shown
    assert "line 27." in shown
    assert "line 28." not in shown


def test_a_pipe_is_not_paged() -> None:
    out = io.StringIO()
    piped(b"", out, size=(80, 10)).page([f"line {i}" for i in range(20)], "more? ")
    assert out.getvalue().count("\n") == 20


def test_a_terminal_that_goes_away() -> None:
    master, slave = pty.openpty()
    console = Console(slave, io.StringIO(), utf8=True)
    os.close(master)
    with pytest.raises((HungUp, EOFError)):
        console.read_line()


@pytest.mark.parametrize(
    ("name", "active", "default_utf8", "encoding", "expected"),
    [
        ("/dev/tty1", "", "1", "utf-8", True),
        ("/dev/tty1", "", "0", "utf-8", False),
        ("/dev/tty1", "", None, "utf-8", False),
        ("/dev/ttyS0", "", "1", "utf-8", False),
        ("/dev/hvc0", "", "1", "utf-8", False),
        ("/dev/console", "tty0 ttyS0", "1", "utf-8", False),
        ("/dev/console", "ttyS0 tty0", "1", "utf-8", True),
        ("/dev/console", None, "1", "utf-8", False),
        ("/dev/pts/3", "", None, "UTF-8", True),
        ("/dev/pts/3", "", None, "latin-1", False),
    ],
)
def test_which_console_knows_umlauts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    active: str | None,
    default_utf8: str | None,
    encoding: str,
    expected: bool,
) -> None:
    monkeypatch.delenv("REHOST_ASCII", raising=False)
    monkeypatch.setattr(os, "ttyname", lambda fd: name)
    for path, content in (
        ("class/tty/console/active", active),
        ("module/vt/parameters/default_utf8", default_utf8),
    ):
        if content is not None:
            (tmp_path / path).parent.mkdir(parents=True)
            (tmp_path / path).write_text(content + "\n")
    assert speaks_utf8(0, encoding, tmp_path) is expected


def test_ascii_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REHOST_ASCII", "1")
    assert not speaks_utf8(0, "utf-8")


def test_lines_of_commands_fit_the_terminal_and_its_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    with os.fdopen(slave, "w", encoding="utf-8") as out:
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setenv("REHOST_ASCII", "1")
        print_lines(["gute Kopien " * 20, "  Größe"])
        out.flush()
        lines = os.read(master, 4096).decode().split("\r\n")
    os.close(master)
    assert max(map(len, lines)) <= 79
    assert " ".join(" ".join(lines).split()) == "gute Kopien " * 20 + "Groesse"
    assert lines[-2] == "  Groesse"
