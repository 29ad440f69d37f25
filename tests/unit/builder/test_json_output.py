"""With --json a script finds one JSON document on standard output, or nothing: then the reason is on standard error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from rehost_builder.cli import main
from rehost_payload.ui.cli import rehost, run
from rehost_payload.ui.lazy import Lazy

GARBAGE = (
    "bcd show",
    "hyperv show",
    "drivers show",
    "media inspect",
    "drivers check",
    "usb",
    "boot",
    "verify",
)
REFUSED = {
    # what is wrong with the orders is found out by the command itself, after they were read
    "survey": ["--image", "FILE", "--pci", "not an id"],
    "diagnose": ["--survey", "FILE"],
    "repair": ["--engine", "none"],
    "undo": ["--run"],
    "build": ["--media", "FILE"],
    "capture": ["--image", "FILE"],
    "capture list": ["FILE/below"],
    "capture verify": ["FOLDER"],
    "hyperv list": ["--image", "FILE", "--windows", "nowhere"],
    "drivers match": ["--pci", "nonsense"],
    "usb": ["FILE", "FILE"],
} | {name: ["FILE"] for name in GARBAGE if name != "usb"}


def commands(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        whole = command.load() if isinstance(command, Lazy) else command
        if any("--json" in parameter.opts for parameter in whole.params):
            yield before + name, whole
        if isinstance(whole, click.Group):
            yield from commands(whole, f"{before}{name} ")


COMMANDS = sorted({name for group in (rehost, main) for name, _ in commands(group)})


def call(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def test_every_command_that_speaks_json_is_here() -> None:
    assert set(COMMANDS) == set(REFUSED)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_wrong_command_line(name: str) -> None:
    result = call(*name.split(), "--json", "--no-such-option")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no-such-option" in result.stderr


@pytest.mark.parametrize("name", sorted(name for name, _ in commands(rehost)))
def test_a_wrong_command_line_on_the_server(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(rehost, [*name.split(), "--json", "--no-such-option"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "no-such-option" in said.err


@pytest.mark.parametrize("name", COMMANDS)
def test_what_the_command_itself_refuses(name: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"this is no file of any kind that Rehost knows\n" * 100)
    places = {"FILE": str(file), "FOLDER": str(tmp_path), "FILE/below": str(file / "below")}
    result = call(*name.split(), "--json", *(places.get(w, w) for w in REFUSED[name]))
    assert result.exit_code in (1, 2, 3, 5), result.output
    if result.stdout:
        json.loads(result.stdout)
    else:
        assert result.stderr.strip()
        assert result.exit_code != 3  # a verdict is a result
