"""The command line: exit codes, messages with a next step, nothing half-done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from rehost_builder import cli
from rehost_builder.debian import build
from rehost_builder.debian.build import BuildResult, DebianOptions
from rehost_builder.errors import BuildError
from rehost_builder.progress import Progress


def _run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli.main, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def test_help_shows_examples_and_the_payloads_commands() -> None:
    code, out, _ = _run("--help")
    assert code == 0
    for word in ("build", "survey", "diagnose", "undo", "bcd"):
        assert f"\n  {word} " in out
    assert "\n  menu " not in out
    assert "rehost build --offline -o out/rehost.iso" in _run("build", "--help")[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["biuld"],
        ["build", "--base", "winpe"],
        ["build", "--compression", "40"],
        ["build", "--lock", "/nowhere"],
        ["build", "--drivers", "/nowhere"],
    ],
)
def test_usage_errors_are_2(arguments: list[str]) -> None:
    assert _run(*arguments)[0] == 2


def test_a_file_without_an_option_is_told_which_there_are() -> None:
    code, _, err = _run("build", "SERVER 2022.iso")
    assert code == 2
    assert "SERVER 2022.iso: Windows media are named with --media, driver packages with --drivers" in err


def test_a_build_that_fails_says_why_and_what_next(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(options: DebianOptions, progress: Progress) -> BuildResult:
        raise BuildError("the mirror does not answer", "check the network")

    monkeypatch.setattr(build, "build_debian_iso", fail)
    code, out, err = _run("build", "-q", "-o", str(tmp_path / "x.iso"))
    assert (code, out) == (1, "")
    assert err == "rehost: the mirror does not answer\n        check the network\n"


def test_the_result_as_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = []

    def succeed(options: DebianOptions, progress: Progress) -> BuildResult:
        seen.append(options)
        return BuildResult(options.output, 50, "ab" * 32, "trixie", "6.12", 67, 1)

    monkeypatch.setattr(build, "build_debian_iso", succeed)
    code, out, _ = _run(
        "build", "--json", "-q", "--append", "rehost.keymap=de", "-o", str(tmp_path / "x.iso")
    )
    assert code == 0
    assert json.loads(out)["sha256"] == "ab" * 32
    assert seen[0].append == "rehost.keymap=de"


def test_offline_without_a_cache_changes_nothing(tmp_path: Path) -> None:
    target = tmp_path / "out/x.iso"
    code, _, err = _run("build", "-q", "--offline", "--cache", str(tmp_path / "cache"), "-o", str(target))
    assert code == 1
    assert "no package lock" in err
    assert not target.exists()


def test_a_target_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = _run(
        "build", "-q", "--offline", "--cache", str(tmp_path / "c"), "-o", str(tmp_path / "file/x.iso")
    )
    assert code == 1
    assert str(tmp_path / "file") in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_ends_with_130_and_leaves_no_file(number: signal.Signals, tmp_path: Path) -> None:
    code = (
        "import time, sys\n"
        "from rehost_builder import cli\n"
        "from rehost_builder.debian import build\n"
        "def slow(options, cache, progress):\n"
        "    with build.workspace(0) as work:\n"
        "        (work / 'x').write_text('x'); print(work, flush=True); time.sleep(60)\n"
        "build._packages = slow\n"
        "from rehost_builder.__main__ import main\n"
        "main()\n"
    )
    arguments = ["build", "-q", "--cache", str(tmp_path / "c"), "-o", str(tmp_path / "x.iso")]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None
    work = Path(process.stdout.readline().strip())
    assert (work / "x").exists()
    process.send_signal(number)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err.strip() == "rehost: interrupted; nothing half-done is left"
    assert not work.exists()
    assert not (tmp_path / "x.iso").exists()


def test_progress_gives_the_rest_of_the_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with (tmp_path / "log").open("w+") as stream:
        progress = Progress({"one": 4.0, "two": 10.0}, stream)
        with progress.step("one"):
            clock[0] += 8.0
        assert progress.remaining() == 20.0  # twice as slow as expected
        with progress.step("two"):
            clock[0] += 20.0
        assert progress.remaining() == 0.0
        stream.seek(0)
        assert stream.read().splitlines() == [
            "[1/2] one ...",
            "[1/2] one: 8.0 s   (about 20 s to go)",
            "[2/2] two ...",
            "[2/2] two: 20.0 s",
        ]
    assert progress.measured == {"one": 8.0, "two": 20.0}


def test_a_failed_step_is_not_said_to_be_done(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+") as stream:
        progress = Progress({"one": 1.0}, stream)
        with pytest.raises(BuildError), progress.step("one"):
            raise BuildError("no")
        stream.seek(0)
        assert stream.read() == "[1/1] one ...\n"
