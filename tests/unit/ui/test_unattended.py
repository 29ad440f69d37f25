"""Runs without an operator: orders from the command line and the stick, one result line, and what comes after."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable

import pexpect
import pytest

from support import disks, fat_image
from support.disks import DiskLayout

from .conftest import PROMPT, Medium, write_answer

Make = Callable[..., Medium]
RESULT = re.compile(r"^REHOST-RESULT (\d+) ([a-z-]+)$", re.MULTILINE)


def image_hash(disk: DiskLayout) -> str:
    with disk.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def result(machine: Medium) -> list[tuple[int, str]]:
    return [(int(code), word) for code, word in RESULT.findall(machine.announced.replace("\r", ""))]


def start(machine: Medium, **more: str) -> pexpect.spawn:
    """On a console of the usual size: nobody is there to turn its pages."""
    return machine.start(rows=24, **more)  # type: ignore[arg-type]


def finish(child: pexpect.spawn) -> None:
    child.expect(pexpect.EOF)
    child.close()


def report(stick: DiskLayout) -> dict[str, object]:
    part = stick["stick"]
    names = [n for n in fat_image.listing(stick.path, part.offset) if n.endswith("report.json")]
    assert len(names) == 1
    data = json.loads(fat_image.read(stick.path, part.offset, names[0]))
    assert isinstance(data, dict)
    return data


def test_repair_by_command_line(medium: Make, server: DiskLayout, stick: DiskLayout) -> None:
    machine = medium(server, stick)
    child = start(machine, cmdline="quiet rehost.run=repair rehost.yes=1 rehost.poweroff=1 rehost.lang=de")
    child.expect("Unbeaufsichtigt: repair")
    child.expect("Was geschrieben wird")
    child.expect("Ergebnis: repariert")
    finish(child)
    assert result(machine) == [(0, "repaired")]
    assert machine.power == "poweroff"
    data = report(stick)
    assert data["exit_code"] == 0
    assert '<html lang="de">' in (machine.state / "report" / "report.html").read_text()


def test_repair_by_answer_file(medium: Make, server: DiskLayout, stick: DiskLayout) -> None:
    write_answer(stick, '[run]\nmode = "repair"\nyes = true\nafter = "reboot"\nlanguage = "de"\n')
    machine = medium(server, stick)
    child = start(machine)
    child.expect("Ergebnis: repariert")
    finish(child)
    assert result(machine) == [(0, "repaired")]
    assert machine.power == "reboot"


def test_without_consent_nothing_is_written_to_the_server(
    medium: Make, server: DiskLayout, stick: DiskLayout
) -> None:
    before = image_hash(server)
    machine = medium(server, stick)
    child = start(machine, cmdline="rehost.run=repair rehost.poweroff=1")
    child.expect("yes is not set")
    finish(child)
    assert result(machine) == [(0, "planned")]
    assert image_hash(server) == before
    assert report(stick)["result"]["mode"] == "survey"  # type: ignore[index]


def test_the_command_line_goes_before_the_file(medium: Make, server: DiskLayout, stick: DiskLayout) -> None:
    write_answer(stick, '[run]\nmode = "repair"\nyes = true\nafter = "reboot"\n')
    before = image_hash(server)
    machine = medium(server, stick)
    finish(start(machine, cmdline="rehost.run=repair rehost.yes=0"))
    assert machine.power == "reboot"  # what it does not say comes from the file
    assert image_hash(server) == before


def test_undo(medium: Make, server: DiskLayout, stick: DiskLayout) -> None:
    before = disks.read_file(server, server.esp, "EFI/Microsoft/Boot/BCD")
    machine = medium(server, stick)
    finish(start(machine, cmdline="rehost.run=repair rehost.yes=1 rehost.poweroff=1"))
    assert disks.read_file(server, server.esp, "EFI/Microsoft/Boot/BCD") != before
    (machine.state / "unattended.claimed").unlink()  # switched off and on
    finish(start(machine, cmdline="rehost.run=undo rehost.yes=1 rehost.poweroff=1"))
    assert result(machine) == [(0, "repaired"), (0, "undone")]
    assert disks.read_file(server, server.esp, "EFI/Microsoft/Boot/BCD") == before


def test_blocked(medium: Make, server: DiskLayout, stick: DiskLayout) -> None:
    disks.set_hibernated(server, server.windows)
    before = image_hash(server)
    machine = medium(server, stick)
    finish(start(machine, cmdline="rehost.run=repair rehost.yes=1 rehost.poweroff=1"))
    assert result(machine) == [(5, "blocked")]
    assert image_hash(server) == before


@pytest.mark.parametrize("bad", ["rehost.run=repiar rehost.yes=1", "rehost.ye=1 rehost.run=repair"])
def test_a_command_line_that_is_not_understood(medium: Make, server: DiskLayout, bad: str) -> None:
    machine = medium(server)
    child = start(machine, cmdline=f"{bad} rehost.poweroff=1")
    child.expect("not usable, nothing was run: kernel command line")
    child.expect(PROMPT)
    child.close()
    assert result(machine) == [(2, "usage")]
    assert machine.power is None


def test_an_answer_file_that_is_not_understood(medium: Make, server: DiskLayout, stick: DiskLayout) -> None:
    write_answer(stick, '[run]\nmode = "repair"\nyes = true\nafer = "poweroff"\n')
    before = image_hash(server)
    machine = medium(server, stick)
    child = start(machine)
    child.expect("unknown key 'afer'")
    child.sendline("c")
    child.expect("no disk to which")
    child.close()
    assert result(machine) == [(2, "usage")]
    assert image_hash(server) == before


def test_the_menu_stays_where_it_is_wanted(medium: Make, server: DiskLayout, stick: DiskLayout) -> None:
    write_answer(stick, '[run]\nmode = "menu"\nlanguage = "de"\n')
    machine = medium(server, stick)
    child = start(machine)
    child.expect("Eingabetaste: ")
    child.close()
    assert result(machine) == []


def test_only_one_console_obeys(medium: Make, server: DiskLayout, stick: DiskLayout) -> None:
    machine = medium(server, stick)
    cmdline = "rehost.run=repair rehost.yes=1"
    two = start(machine, role="other", cmdline=cmdline)
    two.expect(PROMPT)
    one = start(machine, cmdline=cmdline)
    one.expect("Result: repaired")
    one.expect(PROMPT)  # after = menu
    one.close()
    again = start(machine, cmdline=cmdline)  # init starts the menu again
    again.expect(PROMPT)
    again.close()
    two.close()
    assert result(machine) == [(0, "repaired")]


def test_a_choice_that_names_nothing_is_not_taken_for_another(
    medium: Make, server: DiskLayout, stick: DiskLayout
) -> None:
    machine = medium(server, stick)
    before = image_hash(server)
    child = machine.start(
        cmdline="rehost.run=repair rehost.yes=1 rehost.windows=disk7p7:\\Windows rehost.poweroff=1"
    )
    child.expect(r"windows = disk7p7:\\Windows: there is none \(known: disk0p3:\\Windows\)")
    child.expect(PROMPT)
    child.close()
    assert result(machine) == [(2, "usage")]
    assert machine.power is None
    assert image_hash(server) == before


def test_a_fault_is_announced_too(medium: Make, server: DiskLayout) -> None:
    machine = medium(server)
    server.path.unlink()
    child = start(machine, cmdline="rehost.run=survey rehost.poweroff=1")
    finish(child)
    assert result(machine) == [(1, "failed")]
    assert machine.power == "poweroff"
    assert "FileNotFoundError" in (machine.state / "error.log").read_text()
