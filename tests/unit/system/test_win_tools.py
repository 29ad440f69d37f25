"""Microsoft's tools by their exit codes, drive letters for them, and the host that the menu asks."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from rehost_payload.system import win_host, win_tools
from rehost_payload.system.host import HostError
from rehost_payload.system.protocol import SystemError_
from rehost_payload.system.win_host import WindowsHost
from rehost_payload.system.win_tools import (
    Done,
    ToolError,
    add_driver,
    dism_may_service,
    find_bootsect,
    lettered,
    run_tool,
    tool,
    write_boot_code,
)
from support.win32_machine import FakeDisk, Machine, Part

PE = {"SystemRoot": "X:\\Windows", "SystemDrive": "X:"}


class Runs:
    """Notes commands instead of running them."""

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.commands: list[list[str]] = []
        self.limits: list[float | None] = []

    def __call__(
        self, command: Sequence[str], log: Path | None = None, limit: float | None = None, *more: object
    ) -> int:
        self.commands.append(list(command))
        self.limits.append(limit)
        return self.code


def test_dism_adds_a_signed_driver_and_logs(tmp_path: Path) -> None:
    runs = Runs()
    done = add_driver("S:\\", "X:\\Rehost\\drivers\\a\\arcsas.inf", tmp_path, environment=PE, run=runs)
    (command,) = runs.commands
    assert command[0] == str(tool("dism.exe", PE))
    assert command[1:] == [
        "/English",
        "/Image:S:\\",
        "/Add-Driver",
        "/Driver:X:\\Rehost\\drivers\\a\\arcsas.inf",
        f"/LogPath:{tmp_path / 'dism.log'}",
        "/LogLevel:3",
    ]
    assert "/ForceUnsigned" not in command
    assert done.ok
    assert Done(("dism.exe",), 3010).ok
    failed = Done(("X:\\Windows\\System32\\dism.exe",), 50, tmp_path / "dism.log")
    assert not failed.ok
    assert str(failed) == f"dism.exe ended with code 50; see {tmp_path / 'dism.log'}"


def test_an_older_dism_does_not_service_a_newer_windows() -> None:
    assert dism_may_service(20348, 14393)
    assert dism_may_service(14393, 14393)
    assert not dism_may_service(14393, 20348)


def test_bootsect_is_run_for_one_volume_and_not_for_ever(tmp_path: Path) -> None:
    runs = Runs(1)
    media = tmp_path / "media"
    (media / "boot").mkdir(parents=True)
    (media / "boot" / "bootsect.exe").write_bytes(b"MZ")
    found = find_bootsect([tmp_path, media])
    assert found == media / "boot" / "bootsect.exe"
    assert not write_boot_code(found, "R:", tmp_path, run=runs).ok
    write_boot_code(found, "R:", tmp_path, master=False, run=runs)
    assert runs.commands == [[str(found), "/nt60", "R:", "/mbr"], [str(found), "/nt60", "R:"]]
    assert all(limit is not None and 0 < limit <= 600 for limit in runs.limits)
    (media / "bootsect.exe").write_bytes(b"MZ")
    assert find_bootsect([media]) == media / "bootsect.exe"
    assert find_bootsect([tmp_path]) is None


def test_a_program_is_run_and_its_words_go_to_a_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "x.log"
    script = "import sys; print('Fehler: äöü'); sys.exit(87)"
    assert run_tool([sys.executable, "-c", script], log) == 87
    assert run_tool([sys.executable, "-c", "pass"], log) == 0
    assert log.read_bytes().count(b"> ") == 2
    assert b"Fehler" in log.read_bytes()
    assert run_tool([sys.executable, "-c", "import sys; sys.exit(3)"]) == 3
    with pytest.raises(ToolError, match="absent"):
        run_tool([str(tmp_path / "absent.exe")], log)
    for where in (log, None):
        with pytest.raises(ToolError, match=r"did not end within 0\.2 seconds"):
            run_tool([sys.executable, "-c", "import time; time.sleep(60)"], where, 0.2)


CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(60)
"""


def nothing() -> None:
    pass


def has_ended(pid: int) -> bool:
    """A process that was killed takes a moment to go, and then waits for whoever started it."""
    for _ in range(300):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.1)
    return False


def test_a_program_with_a_time_limit(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert run_tool([sys.executable, "-c", "import sys; print('ü'); sys.exit(50)"], log, 60, nothing) == 50
    assert run_tool([sys.executable, "-c", "pass"], log, 60, nothing) == 0
    assert log.read_bytes().count(b"> ") == 2
    with pytest.raises(ToolError, match="absent"):
        run_tool([str(tmp_path / "absent.exe")], log, 60, nothing)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_what_hangs_is_ended_with_what_it_has_started(
    tmp_path: Path, error: type[BaseException] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = tmp_path / "pid"

    def started() -> bool:
        return note.exists() and note.read_text() != ""

    def waiting() -> None:
        if error is not None and started():
            raise error

    # without an error the time is over as soon as it hangs, and not before
    monkeypatch.setattr(win_tools.time, "monotonic", lambda: 5.0 if error is None and started() else 0.0)
    with pytest.raises(error or ToolError, match=None if error else "did not end within 5 seconds"):
        run_tool([sys.executable, "-c", CHILD, str(note)], tmp_path / "log", 5.0, waiting)
    assert has_ended(int(note.read_text()))


# --- drive letters -------------------------------------------------------------------------------------------


def test_a_volume_keeps_its_letter_or_gets_one_for_a_moment(tmp_path: Path) -> None:
    part = Part(1, 1 << 20, 1 << 20)
    image = tmp_path / "i"
    image.write_bytes(b"")
    machine = Machine({0: FakeDisk(image, (part,))})
    name = part.name(0)
    with lettered(machine, name) as letter:
        assert letter == "R:"
        assert machine.letters == {"R:\\": name}
    assert machine.letters == {}
    machine.letters["C:\\"] = name
    with lettered(machine, name) as letter:
        assert letter == "C:"
    assert machine.log == ["mount R:\\", "unmount R:\\"]
    machine.letters.clear()
    with pytest.raises(RuntimeError), lettered(machine, name):
        raise RuntimeError
    assert machine.letters == {}
    machine.errors["add_mount_point"] = [145]
    with pytest.raises(SystemError_), lettered(machine, name):
        pass


def test_no_letter_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine({})
    monkeypatch.setattr(machine, "drive_letters", lambda: (1 << 26) - 1)
    with pytest.raises(SystemError_, match="drive letter"), lettered(machine, "\\\\?\\Volume{x}\\"):
        pass


# --- the host ------------------------------------------------------------------------------------------------


class PeMachine(Machine):
    def user_locale(self) -> str:
        return "de-DE"


def host(tmp_path: Path, run: Runs, machine: PeMachine | None = None) -> WindowsHost:
    root = tmp_path / "Windows"
    (root / "System32").mkdir(parents=True)
    (root / "System32" / "wpeutil.exe").touch()
    found = machine or PeMachine({})
    return WindowsHost(lambda: found, {"SystemRoot": str(root), "SystemDrive": "X:"}, run)


def test_the_machines_name_comes_from_the_registry(tmp_path: Path) -> None:
    machine = PeMachine({})
    place = r"HARDWARE\DESCRIPTION\System\BIOS"
    machine.values[place, "SystemManufacturer"] = "FUJITSU\0".encode("utf-16-le")
    machine.values[place, "SystemProductName"] = "PRIMERGY TX1330\0".encode("utf-16-le")
    found = host(tmp_path, Runs(), machine)
    assert found.machine() == "FUJITSU PRIMERGY TX1330"
    machine.values[place, "SystemProductName"] = "To be filled by O.E.M.\0".encode("utf-16-le")
    assert found.machine() == "FUJITSU"
    assert (found.firmware(), found.language(), found.is_medium) == ("uefi", "de-DE", True)


def test_a_windows_that_is_no_medium(tmp_path: Path) -> None:
    assert not WindowsHost(lambda: PeMachine({}), {"SystemRoot": str(tmp_path)}, Runs()).is_medium
    assert not WindowsHost(lambda: PeMachine({}), {}, Runs()).is_medium


@pytest.mark.parametrize(("how", "word"), [("reboot", "reboot"), ("poweroff", "shutdown")])
def test_power(how: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(win_host.time, "sleep", lambda _: None)
    runs = Runs()
    found = host(tmp_path, runs)
    found.power(how)
    assert [Path(c[0]).name for c in runs.commands] == ["wpeutil.exe"]
    assert runs.commands[0][1:] == [word]
    runs.code = 31
    with pytest.raises(HostError, match="31"):
        found.power(how)


def test_the_shell_gets_its_own_interrupts(tmp_path: Path) -> None:
    heard = []

    def run(command: Sequence[str]) -> int:
        heard.append((command[-1], signal.getsignal(signal.SIGINT)))
        return 0

    before = signal.getsignal(signal.SIGINT)
    found = WindowsHost(lambda: PeMachine({}), {"SystemRoot": str(tmp_path), "ComSpec": "cmd"}, run)
    found.shell()
    assert heard == [("/k", signal.SIG_IGN)]
    assert signal.getsignal(signal.SIGINT) is before

    def fail(command: Sequence[str]) -> int:
        raise ToolError("cmd: not found")

    with pytest.raises(HostError, match="not found"):
        WindowsHost(lambda: PeMachine({}), {"ComSpec": "cmd"}, fail).shell()


def test_tools_are_never_taken_from_the_search_path() -> None:
    assert win_tools.tool("dism.exe", PE) == Path("X:\\Windows", "System32", "dism.exe")
