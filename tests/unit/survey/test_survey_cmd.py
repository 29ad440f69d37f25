"""`rehost survey` as an operator types it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rehost_payload.survey.json import from_json
from rehost_payload.ui.survey_cmd import survey
from support import windows


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return windows.gpt_server(tmp_path_factory.mktemp("cmd") / "server.img").path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(survey, [str(a) for a in arguments])


def test_text(image: Path) -> None:
    result = run("--language", "en", "--image", image)
    assert result.exit_code == 0
    assert result.stderr == ""
    text = result.stdout
    assert "Windows Server 2016 Standard" in text
    assert "disk0p1:\\EFI\\Microsoft\\Boot\\BCD" in text
    assert "Could not be read" not in text
    assert max(len(line) for line in text.splitlines() if str(image) not in line) <= 80
    assert "\x1b" not in text


def test_json(image: Path) -> None:
    result = run("--json", "--image", image)
    assert result.exit_code == 0
    assert from_json(result.stdout).windows[0].build == 14393


def test_errors(image: Path, tmp_path: Path) -> None:
    result = run("--image", tmp_path / "absent")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert "absent" in result.stderr
    assert run("--nonsense").exit_code == 2
    result = run("--image", image, "--image", tmp_path / "absent", "--language", "en")
    assert result.exit_code == 0
    assert "Could not be read" in result.stdout


def test_help_shows_examples() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert "rehost survey --image server.img" in result.stdout
    assert "Exit codes" in result.stdout
