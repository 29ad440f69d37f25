"""The command line: what it prints, how it ends, and that it starts quickly."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rehost_payload.repair.model import ResultWord, RunResult
from rehost_payload.survey.json import to_json
from rehost_payload.survey.model import Survey
from rehost_payload.system import linux
from rehost_payload.ui import cli, report
from rehost_payload.ui.cli import rehost, run
from support import disks, packages
from support.disks import DiskLayout
from support.image_system import ImageMachine
from support.offline import SMART_3100

from . import sample

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _english(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LC_ALL", "LC_MESSAGES", "LANG", "REHOST_ASCII"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[Survey], str]:
    def save(survey: Survey) -> str:
        path = tmp_path / "survey.json"
        path.write_text(to_json(survey))
        return str(path)

    return save


def test_diagnose_a_saved_survey(saved: Callable[[Survey], str], capsys: Capture) -> None:
    assert run(rehost, ["diagnose", "--survey", saved(sample.survey())]) == 3
    out = capsys.readouterr().out
    assert out.startswith("Findings\n")
    assert "Windows Server 2016 points to a partition that does not exist" in out
    assert "What will be written" in out
    assert run(rehost, ["diagnose", "--survey", saved(sample.survey(stale=False))]) == 0
    assert "No findings" in capsys.readouterr().out


def test_diagnose_as_json(saved: Callable[[Survey], str], capsys: Capture) -> None:
    assert run(rehost, ["diagnose", "--json", "--survey", saved(sample.survey())]) == 3
    data = json.loads(capsys.readouterr().out)
    assert data["word"] == "not-repaired"
    assert data["exit_code"] == 3
    assert {f["id"] for f in data["diagnosis"]["findings"]} == {"boot.device-stale"}
    assert [a["kind"] for a in data["plan"]["actions"]] == ["edit-store"]


def test_diagnose_needs_a_choice(saved: Callable[[Survey], str], capsys: Capture) -> None:
    file = saved(sample.two_windows_without_a_store())
    assert run(rehost, ["diagnose", "--survey", file]) == 4
    assert run(rehost, ["diagnose", "--survey", file, "--windows", "disk1p1:\\Windows"]) == 3
    assert "Write a new boot store" in capsys.readouterr().out


def test_diagnose_blocked(saved: Callable[[Survey], str]) -> None:
    survey = sample.survey()
    sleeping = replace(
        survey, volumes=tuple(replace(v, hibernated=v.id == "disk0p3") for v in survey.volumes)
    )
    assert run(rehost, ["diagnose", "--survey", saved(sleeping)]) == 5


def test_verify(saved: Callable[[Survey], str], capsys: Capture) -> None:
    assert run(rehost, ["verify", "--survey", saved(sample.survey())]) == 3
    assert re.search(r"^FAIL +Windows partition", capsys.readouterr().out, re.MULTILINE)
    sound = sample.survey(stale=False)
    assert run(rehost, ["verify", "--json", "--survey", saved(sound)]) == 0
    assert json.loads(capsys.readouterr().out)["verification"]["verdict"] == "PASS"
    # the same disk, and nobody says behind which controller it will be
    sound = replace(sound, controllers=())
    assert run(rehost, ["verify", "--json", "--survey", saved(sound)]) == 3
    data = json.loads(capsys.readouterr().out)["verification"]
    assert (data["verdict"], data["chain"]) == ("UNKNOWN", "PASS")
    assert "verify.storage-driver" in [c["id"] for c in data["checks"] if c["verdict"] == "UNKNOWN"]
    assert run(rehost, ["verify", "--lang", "en", "--survey", saved(sound)]) == 3
    out = capsys.readouterr().out
    assert re.search(r"^UNKNOWN Overall: the way from the firmware to the loader passed", out, re.MULTILINE)
    assert not re.search(r"^PASS +Overall", out, re.MULTILINE)


def test_german(saved: Callable[[Survey], str], capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    run(rehost, ["diagnose", "--lang", "de", "--survey", saved(sample.survey())])
    assert "zeigt auf eine Partition, die es nicht gibt" in capsys.readouterr().out
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    run(rehost, ["diagnose", "--survey", saved(sample.survey())])
    assert "Befunde" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["diagnose", "--survey", "/no/such/file"], 1, "No such file"),
        (["diagnose", "--survey", __file__], 1, "not JSON"),
        (["diagnose", "--survey", "x", "--image", "y"], 2, "exclude each other"),
        (["diagnose", "--image", "/no/such/image"], 1, "/no/such/image"),
        (["diagnose", "--lang", "fr"], 2, "'fr'"),
        (["nonsense"], 2, "nonsense"),
        (["repair", "--nonsense"], 2, "--nonsense"),
        (["report", "--from", __file__, "-o", "/dev/null"], 1, "test_cli.py"),
        (["report", "--from", "/no/such/file", "-o", "/dev/null"], 1, "No such file"),
        (["report", "--from", __file__, "-o", "/dev/null"], 1, "not a report.json of Rehost"),
        (["report"], 2, "--from"),
    ],
)
def test_mistakes_are_one_message(arguments: list[str], code: int, says: str, capsys: Capture) -> None:
    assert run(rehost, arguments) == code
    err = capsys.readouterr().err
    assert says in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "arguments", [["undo"], ["undo", "--list"], ["capture", "--dry-run"], ["capture", "list"], ["verify"]]
)
def test_disks_that_may_not_be_read_are_not_empty(
    arguments: list[str], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without root's rights nothing was seen: not that there is nothing to undo and no machine to capture."""

    class Forbidden(ImageMachine):
        def problems(self) -> list[str]:
            return ["/dev/sda: Permission denied"]

    monkeypatch.setattr(linux, "LinuxSystem", lambda: Forbidden([]))
    assert run(rehost, arguments) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "no disk could be read: /dev/sda: Permission denied (are you root?)" in shown.err


def test_a_choice_that_names_nothing(saved: Callable[[Survey], str], capsys: Capture) -> None:
    assert run(rehost, ["diagnose", "--survey", saved(sample.survey()), "--system-volume", "disk9p9"]) == 2
    assert "--system-volume = disk9p9: there is none (known: disk0p1)" in capsys.readouterr().err


def test_report_again_in_the_other_language(tmp_path: Path) -> None:
    result = RunResult(ResultWord.HEALTHY, "a", "b", "repair")
    (tmp_path / "report.json").write_text(report.to_json(report.Report(result, sample.survey())))
    target = tmp_path / "bericht.html"
    assert (
        run(rehost, ["report", "--from", str(tmp_path / "report.json"), "-o", str(target), "--lang", "de"])
        == 0
    )
    assert "Es gibt nichts zu reparieren" in target.read_text(encoding="utf-8")


# --- on a machine ------------------------------------------------------------------------------------------


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """The commands work on these images instead of this machine's disks; nobody is at the keyboard."""

    def use(*layouts: DiskLayout) -> None:
        monkeypatch.setattr(linux, "LinuxSystem", lambda: ImageMachine([d.path for d in layouts]))
        monkeypatch.setattr("rehost_payload.ui.lock.state_folder", lambda: tmp_path)
        monkeypatch.setattr(sys, "stdin", (tmp_path / "empty").open("w+"))

    return use


def store(server: DiskLayout) -> bytes:
    return disks.read_file(server, server.esp, "EFI/Microsoft/Boot/BCD")


def test_repair_and_undo(
    on: Callable[..., None], server: DiskLayout, stick: DiskLayout, capsys: Capture
) -> None:
    on(server, stick)
    before = store(server)
    assert run(rehost, ["repair"]) == 4  # nobody to ask
    out = capsys.readouterr().out
    assert "What will be written" in out
    assert "Not confirmed: nothing was written." in out
    assert run(rehost, ["repair", "--dry-run"]) == 0
    assert "Result: planned" in capsys.readouterr().out
    assert store(server) == before
    assert run(rehost, ["repair", "--yes", "--json"]) == 0
    captured = capsys.readouterr()
    data = json.loads(captured.out)
    assert data["result"]["word"] == "repaired"
    assert "What will be written" in captured.err
    assert store(server) != before
    assert run(rehost, ["repair", "--yes"]) == 0
    assert "Result: healthy" in capsys.readouterr().out

    assert run(rehost, ["undo", "--list"]) == 0
    stamp = capsys.readouterr().out.split(":")[0]
    assert run(rehost, ["undo", "--list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["run"] == stamp
    assert run(rehost, ["undo"]) == 4
    assert run(rehost, ["undo", "--yes", "--run", "20010101T000000Z"]) == 1
    assert store(server) != before
    assert run(rehost, ["undo", "--yes", "--run", stamp]) == 0
    assert "Result: undone" in capsys.readouterr().out
    assert store(server) == before
    assert run(rehost, ["undo", "--yes"]) == 1


def test_a_choice_that_names_nothing_writes_nothing(
    on: Callable[..., None], server: DiskLayout, stick: DiskLayout, capsys: Capture
) -> None:
    on(server, stick)
    before = store(server)
    assert run(rehost, ["repair", "--yes", "--windows", "disk3p3:\\Windows"]) == 2
    assert "there is none (known: disk0p3:\\Windows)" in capsys.readouterr().err
    assert store(server) == before


@pytest.mark.parametrize("more", [["--dry-run"], ["--yes"], []])
def test_disks_that_cannot_be_read_are_no_machine_without_windows(
    on: Callable[..., None], more: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    on()

    class Unreadable(ImageMachine):
        def problems(self) -> list[str]:
            return ["/dev/sda: Operation not permitted"]

    monkeypatch.setattr(linux, "LinuxSystem", lambda: Unreadable([]))
    assert run(rehost, ["repair", *more]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "None of the disks could be read" in out
    assert "/dev/sda: Operation not permitted" in out
    assert "Nothing was written." in out
    for wrong in ("No Windows", "taken back", "Something unexpected"):
        assert wrong not in out


def test_engine_dism_elsewhere_than_in_windows_pe(
    on: Callable[..., None],
    our_authority: None,
    server: DiskLayout,
    stick: DiskLayout,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    """Our own engine does it, and that is said before the consent, after the work and to programs."""
    on()
    folder = packages.signed(tmp_path / "packages" / "exraid")
    machine = ImageMachine([server.path, stick.path], controllers_=(SMART_3100,), drivers=(folder.parent,))
    monkeypatch.setattr(linux, "LinuxSystem", lambda: machine)
    said = "DISM was asked for, but it may only be used in Windows PE"
    assert run(rehost, ["repair", "--engine", "dism", "--dry-run"]) == 0
    assert said in " ".join(capsys.readouterr().out.split())
    assert run(rehost, ["repair", "--engine", "dism", "--yes", "--json"]) == 0
    captured = capsys.readouterr()
    assert said in " ".join(captured.err.split())
    assert json.loads(captured.out)["result"]["notes"] == [{"id": "dism-platform", "params": {}}]
    assert run(rehost, ["repair", "--engine", "magic"]) == 2


def test_another_process_at_work(
    on: Callable[..., None], server: DiskLayout, tmp_path: Path, capsys: Capture
) -> None:
    import fcntl

    on(server)
    with (tmp_path / "work.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert run(rehost, ["repair", "--yes"]) == 1
    assert "another process is at work" in capsys.readouterr().err


def test_interrupted(on: Callable[..., None], server: DiskLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    on(server)

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(linux, "LinuxSystem", stopped)
    assert run(rehost, ["verify"]) == 130


# --- as a program ------------------------------------------------------------------------------------------


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LANG": "C.UTF-8"}
    command = [sys.executable, "-m", "rehost_payload", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)


@pytest.mark.parametrize("command", [c.name for c in cli.commands])
def test_help_has_examples_and_exit_codes(command: str) -> None:
    result = program(command, "--help")
    assert result.returncode == 0
    assert result.stdout.startswith(f"Usage: rehost {command}")
    if command != "bcd":
        assert "Example" in result.stdout
        assert "rehost " + command in result.stdout


def test_version_and_help() -> None:
    assert program("--version").stdout.startswith("rehost, version ")
    listing = program("--help").stdout
    for command in cli.commands:
        assert re.search(rf"^  {command.name} +\S", listing, re.MULTILINE)


def imported(*arguments: str) -> set[str]:
    code = f"import sys; sys.argv = {['rehost', *arguments]!r}\n"
    code += "import atexit; atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr))\n"
    code += "from rehost_payload.__main__ import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code], input="", capture_output=True, text=True, timeout=300, check=False
    )
    return set(result.stderr.split())


def test_help_imports_nothing_slow() -> None:
    modules = imported("--help")
    assert "click" in modules
    assert not {
        m for m in modules if m.startswith(("jinja2", "rehost_payload.survey", "rehost_payload.formats"))
    }


def test_the_menu_is_on_the_screen_before_anything_slow_is_imported() -> None:
    code = "import sys; import rehost_payload.ui.menu; print(*sorted(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(result.stdout.split())
    assert "rehost_payload.ui.menu" in modules
    slow = (
        "click",
        "jinja2",
        "rehost_payload.survey",
        "rehost_payload.formats",
        "rehost_payload.repair",
        "subprocess",
    )
    assert not {m for m in modules if m.startswith(slow)}
