"""Ctrl-C while Rehost is still starting: one line, exit code 130, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rehost_payload import __main__ as program

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are sent the POSIX way")

# the signal comes when a module is looked for: every moment of the start can be met, on a machine of any speed
CODE = """
import signal, sys
module, program, *arguments = sys.argv[1:]
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            print("met", flush=True)
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder())
sys.argv = ["rehost", *arguments]
if program == "rehost_builder":
    from rehost_builder.__main__ import main
else:
    from rehost_payload.__main__ import main
main()
"""

LOUD = """
import time
from rehost_payload.interrupts import run
class Loud:
    def __del__(self):
        raise KeyboardInterrupt
def program():
    print("met", flush=True)
    Loud()
    for _ in range(30000):  # a signal just before a wait begins ends none of them, Python's own neither
        time.sleep(0.01)
run(lambda: program)
"""


def interrupted(code: str, *arguments: str) -> str:
    """What was said on standard error, one line."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert done.returncode == 130, done.stderr
    assert done.stdout == "met\n"
    said = done.stderr.strip()
    assert said.startswith("rehost: interrupted"), said
    assert "\n" not in said
    return said


@pytest.mark.parametrize("module", ["click", "rehost_payload.ui.exit_codes"])
@pytest.mark.parametrize("program", ["rehost_builder", "rehost_payload"])
def test_while_the_program_is_loaded(program: str, module: str) -> None:
    assert "nothing was begun" in interrupted(CODE, module, program, "--help")


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("rehost_payload.ui.menu", "menu"),
        ("rehost_payload.ui.survey_cmd", "survey --image x"),
        ("rehost_payload.repair.diagnose", "diagnose --image x"),
        ("rehost_payload.repair.verify", "verify --image x"),
        ("rehost_payload.ui.answer", "repair --dry-run"),
        ("rehost_payload.ui.answer", "undo"),
        ("rehost_payload.ui.bcd_show", "bcd show x"),
        ("rehost_payload.ui.hyperv_cmd", "hyperv show x"),
        ("rehost_payload.ui.capture_cmd", "capture --dry-run"),
        ("rehost_payload.ui.capture_page", "capture --dry-run --image x"),
        ("rehost_payload.capture.judge", "capture verify x"),
        ("rehost_payload.ui.drivers_cmd", "drivers match --pci 9005:028D"),
        ("rehost_payload.ui.report", "report --from x -o y"),
    ],
)
def test_while_a_command_is_loaded(module: str, arguments: str) -> None:
    interrupted(CODE, module, "rehost_payload", *arguments.split())


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("rehost_builder.debian.build", "build"),
        ("rehost_builder.verify.cli", "verify x.iso"),
        ("rehost_builder.usb.cli", "usb x.iso /dev/null"),
        ("rehost_builder.winpe.cli", "media inspect x"),
        ("rehost_payload.ui.capture_cmd", "capture --dry-run"),
    ],
)
def test_while_a_command_of_the_workstation_is_loaded(module: str, arguments: str) -> None:
    interrupted(CODE, module, "rehost_builder", *arguments.split())


def test_an_interrupt_where_python_can_only_print_it_is_not_lost() -> None:
    interrupted(LOUD)


def test_nor_is_one_that_comes_again_before_it_was_printed() -> None:
    """A busy computer may stop us anywhere, for longer than anything should take."""
    slow = """
import _thread, time
start = _thread.start_new_thread
def slow(*arguments):
    start(*arguments)
    time.sleep(0.3)
_thread.start_new_thread = slow
"""
    interrupted(slow + LOUD)


def test_one_that_runs_in_the_background_of_a_script_does_not_hear_it() -> None:
    code = """
import os, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
from rehost_payload.interrupts import run
def load():
    os.kill(os.getpid(), signal.SIGINT)
    return lambda: 7
run(load)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 7


def test_what_nohup_started_does_not_hear_the_terminal_close() -> None:
    code = """
import os, signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
from rehost_payload.interrupts import run
def program():
    os.kill(os.getpid(), signal.SIGHUP)
    return 7
run(lambda: program)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 7


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_kill_comes_once_and_is_not_heard_while_things_are_cleaned_up(name: str) -> None:
    code = f"""
import os, signal, time
from rehost_payload.interrupts import run
def kill():
    os.kill(os.getpid(), signal.{name})
    time.sleep(0.2)
def program():
    try:
        kill()
    finally:
        kill()
        print("met", flush=True)
run(lambda: program)
"""
    interrupted(code)


@pytest.mark.parametrize(("words", "kept"), [(["menu"], True), ([], True), (["survey"], False)])
def test_the_menu_still_ends_with_its_terminal(
    words: list[str], kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes Ctrl-C for "back", so that a SIGHUP that came like that would not end it."""
    said: list[bool] = []
    monkeypatch.setattr(program, "run", lambda load, *, polite: said.append(not polite))
    monkeypatch.setattr(sys, "argv", ["rehost", *words])
    program.main()
    assert said == [kept]
