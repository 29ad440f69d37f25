"""Named pipes and devices in place of files: refused before anything opens them, whichever command was given them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = [
    "bcd show {}",
    "hyperv show {}",
    "hyperv list --image {}",
    "drivers show {}",
    "drivers match --pci 9005:028D --drivers {}",
    "drivers check {}",
    "media inspect {}",
    "verify {}",
    "verify --image {}",
    "verify --survey {}",
    "diagnose --survey {}",
    "survey --image {}",
    "report --from {} -o page.html",
    "capture verify {}",
    "capture list {}",
    "capture --dry-run --image {}",
    "build --media {} --dry-run",
    "build --drivers {} --dry-run",
    "boot {}",
]
# every command in one process: each start of the program takes a second
RUN = """
import sys
from rehost_builder.cli import main
for line in sys.stdin.read().splitlines():
    try:
        main(line.split("\\t"), prog_name="rehost")
    except SystemExit as end:
        print("code", end.code, flush=True)
"""


def codes(folder: Path, place: Path) -> list[str]:
    lines = "\n".join("\t".join(c.format(place).split(" ")) for c in COMMANDS)
    done = subprocess.run(
        [sys.executable, "-c", RUN], input=lines, capture_output=True, text=True, timeout=300, cwd=folder
    )
    assert done.stderr.count(str(place)) >= len(COMMANDS), done.stderr
    assert "Traceback" not in done.stderr
    return [line.split()[1] for line in done.stdout.splitlines() if line.startswith("code ")]


def test_a_named_pipe_keeps_nobody_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found = dict(zip(COMMANDS, codes(tmp_path, pipe), strict=True))
    assert {c: code for c, code in found.items() if code not in ("1", "2")} == {}
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_device_without_end_is_not_read(tmp_path: Path) -> None:
    found = dict(zip(COMMANDS, codes(tmp_path, Path("/dev/zero")), strict=True))
    assert {c: code for c, code in found.items() if code not in ("1", "2")} == {}


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_what_it_is_is_said(kind: str, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from rehost_payload.ui.cli import rehost

    place, words = (
        tmp_path / "x",
        {"pipe": "a named pipe", "socket": "a socket"}.get(kind, "a character device"),
    )
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(str(place))
    else:
        place = Path("/dev/null")
    result = CliRunner().invoke(rehost, ["bcd", "show", str(place)])
    assert result.exit_code == 2
    assert f"{place} is {words}; a file or a folder is needed" in result.stderr
