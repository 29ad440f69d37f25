"""The menu as a person meets it: a program on a terminal, over disk images, with everything that goes wrong there."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable

import pexpect
import pytest

from support import disks, fat_image, stores, windows
from support.disks import DiskLayout

from .conftest import PATIENCE, PROGRAM, PROMPT, Medium

Make = Callable[..., Medium]


def image_hash(disk: DiskLayout) -> str:
    with disk.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def choose(child: pexpect.spawn, key: str) -> None:
    child.expect(PROMPT)
    child.sendline(key)


def reports(stick: DiskLayout) -> list[str]:
    part = stick["stick"]
    return [n for n in fat_image.listing(stick.path, part.offset) if n.lower().startswith("rehost/")]


def test_header_and_items(medium: Make, server: DiskLayout) -> None:
    child = medium(server).start()
    child.expect("Contoso Rack 7000")
    child.expect("Firmware: BIOS")
    for number, letter in enumerate("sruclxbp", 1):
        child.expect(f"{number}  {letter}  ")
    child.expect(PROMPT)
    child.expect(r"Windows:  Windows Server 2016 .*disk0p3")  # found while the menu was waiting
    child.close()


def test_repair_then_undo(medium: Make, server: DiskLayout, stick: DiskLayout) -> None:
    before = image_hash(server)
    child = medium(server, stick).start()
    choose(child, "2")
    child.expect("Windows Server 2016 points to a partition that does not exist")
    child.expect("What will be written")
    child.expect("The originals will be saved to disk1p1")
    child.expect("Type yes and press Enter")
    assert image_hash(server) == before
    child.sendline("yes")
    child.expect("What was changed")
    child.expect(r"Result: repaired \(0\)")
    child.expect("Remove the stick or CD and restart")
    child.expect(r"Report: disk1p1 \\Rehost\\\d+T\d+Z\r")
    child.sendline("")
    assert image_hash(server) != before
    names = reports(stick)
    assert [n for n in names if n.endswith("report.html")]
    assert [n for n in names if n.endswith("report.json")]
    assert [n for n in names if n.endswith("journal.jsonl")]

    choose(child, "u")
    child.expect("Which run shall be taken back")
    child.expect(r"1  \d+T\d+Z: \d+ changes, complete \(disk1p1\)")
    child.sendline("1")
    child.expect("Type yes and press Enter to take this back")
    child.sendline("yes")
    child.expect(r"Result: undone \(0\)")
    child.sendline("")
    assert stale(server)
    choose(child, "u")
    child.expect("nothing to undo")
    child.close()


def stores_of(server: DiskLayout) -> list[bytes]:
    return [disks.read_file(server, server.esp, n) for n in (windows.STORE, windows.FALLBACK_STORE)]


def stale(server: DiskLayout) -> bool:
    """Whether the store names partitions that the disk does not have, as hivex reads it."""
    elements = stores.elements(disks.read_file(server, server.esp, windows.STORE))
    own = {stores.identity(server, p) for p in server.partitions}
    return any(stores.is_device(k[1]) and stores.identities(d) - own for k, (_, d) in elements.items())


def test_anything_but_the_word_writes_nothing(medium: Make, server: DiskLayout) -> None:
    before = image_hash(server)
    child = medium(server).start()
    for answer in ("", "y", "j", "yes please"):
        choose(child, "r")
        child.expect("Type yes and press Enter")
        child.sendline(answer)
        child.expect(r"Result: declined \(4\)")
        child.expect("Press Enter")
        child.sendline("")
    choose(child, "r")
    child.expect("Type yes and press Enter")
    child.send("\x03")
    child.expect("Interrupted")
    child.expect(PROMPT)
    child.close()
    assert image_hash(server) == before


def test_healthy_server_is_not_asked_about_and_not_written(
    medium: Make, healthy: DiskLayout, stick: DiskLayout
) -> None:
    before = image_hash(healthy)
    child = medium(healthy, stick).start()
    choose(child, "r")
    child.expect("No findings")
    child.expect(r"Result: healthy \(0\)")
    child.expect("Report: disk1p1")
    child.close()
    assert image_hash(healthy) == before


def test_blocked_server_is_explained(medium: Make, server: DiskLayout, stick: DiskLayout) -> None:
    disks.set_hibernated(server, server.windows)
    before = image_hash(server)
    child = medium(server, stick).start()
    choose(child, "r")
    child.expect("BLOCKED  Windows on .* is hibernated")
    child.expect("hiberfil.sys")
    child.expect(r"Result: blocked \(5\)")
    child.close()
    assert image_hash(server) == before


def test_survey_in_german_on_a_console_without_umlauts(
    medium: Make, server: DiskLayout, stick: DiskLayout
) -> None:
    os.environ["REHOST_ASCII"] = "1"
    try:
        machine = medium(server, stick)
        command = [sys.executable, str(PROGRAM), str(machine.root), str(machine.state), "main"]
        master, slave = pty.openpty()
        process = subprocess.Popen(
            [*command, *map(str, machine.images)], stdin=slave, stdout=slave, stderr=slave, close_fds=True
        )
    finally:
        del os.environ["REHOST_ASCII"]
    os.close(slave)
    seen = b""
    for wanted, send in ((PROMPT.encode(), b"5\n"), (b"Eingabetaste: ", b"s\n"), (b"Report", b"")):
        end = time.monotonic() + PATIENCE
        while wanted not in seen and time.monotonic() < end and b"Bericht:" not in seen:
            seen += os.read(master, 4096)
            if b"weiter, q:" in seen[-60:]:
                os.write(master, b"q\n")
        os.write(master, send)
    process.kill()
    process.wait()
    os.close(master)
    assert all(b < 0x80 for b in seen)
    assert b"Rueckgaengig" in seen
    assert "Datentraeger" in seen.decode("ascii")


def test_junk_is_not_on_the_list(medium: Make, server: DiskLayout) -> None:
    child = medium(server).start()
    for junk in ("9", "0", "-1", "9" * 30, "zz", "\u00b2", "repair", "\u00e4" * 300):
        choose(child, junk)
        child.expect("is not on the list")
    child.close()


def test_line_noise_and_control_keys_do_nothing(medium: Make, server: DiskLayout) -> None:
    before = image_hash(server)
    child = medium(server).start()
    child.expect(PROMPT)
    child.expect(r"Windows:  Windows Server 2016")  # found; from here on nothing is said by itself
    child.expect(PROMPT)
    for noise, answer in (
        ("\x00\xff\xfe\x80\x1b[99;99H\x04\n", "is not on the list"),
        ("\x03", "Rehost"),
        ("\x1a" + "%" * 5000 + "\n", "is not on the list"),
        ("\x07\x08\x08\n", "Rehost"),
        ("\n", "Rehost"),
    ):
        child.send(noise)
        child.expect(answer)
        child.expect(PROMPT)
    child.sendline("c")
    child.expect("no disk to which")
    child.close()
    assert image_hash(server) == before


def test_an_interrupt_while_something_is_shown_leads_back_to_the_menu(
    medium: Make, server: DiskLayout
) -> None:
    machine = medium(server)
    (machine.root / "pressed").write_text("is not on the list")
    child = machine.start()
    choose(child, "zz")
    choose(child, "zz")
    child.expect("is not on the list")
    assert not (machine.root / "pressed").exists()
    child.close()


def test_the_shell_comes_back(medium: Make, server: DiskLayout) -> None:
    machine = medium(server)
    child = machine.start()
    choose(child, "l")
    child.expect("Nummer oder Buchstabe")
    child.sendline("x")
    child.expect("ck im Men")
    child.expect("Nummer oder Buchstabe")
    # commands there speak the language that was chosen here
    assert (machine.root / "shell").read_text() == "de"
    child.close()


@pytest.mark.parametrize(("key", "how"), [("b", "reboot"), ("8", "poweroff")])
def test_power(medium: Make, server: DiskLayout, key: str, how: str) -> None:
    machine = medium(server)
    child = machine.start()
    child.expect(PROMPT)
    child.sendline(key)
    child.expect(r"Restarting\.|Switching off\.")
    child.expect(PROMPT)
    assert machine.power == how
    child.close()


def test_no_power_and_no_shell_on_a_workstation(medium: Make, server: DiskLayout) -> None:
    machine = medium(server)
    (machine.root / "etc/os-release").write_text("ID=debian\n")
    child = machine.start(cmdline="rehost.run=repair rehost.yes=1 rehost.poweroff=1")
    child.expect("6  q  Quit")
    choose(child, "6")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert machine.power is None


def test_end_of_input_ends_the_menu(medium: Make, server: DiskLayout) -> None:
    machine = medium(server)
    command = [sys.executable, str(PROGRAM), str(machine.root), str(machine.state), "main"]
    result = subprocess.run(
        [*command, *map(str, machine.images)], input=b"c\n", capture_output=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert b"no disk to which" in result.stdout


def test_two_consoles_and_one_repair(medium: Make, server: DiskLayout, stick: DiskLayout) -> None:
    machine = medium(server, stick)
    one, two = machine.start(), machine.start(role="other")
    choose(one, "r")
    one.expect("Type yes and press Enter")
    for key in "rups":
        choose(two, key)
        two.expect("Another console is at work")
    assert machine.power is None
    one.sendline("no")
    one.expect("Result: declined")
    one.sendline("")
    choose(two, "p")
    two.expect(r"Restarting\.|Switching off\.")
    two.expect(PROMPT)
    assert machine.power == "poweroff"
    one.close()
    two.close()


def test_ctrl_c_while_writing_takes_everything_back(
    medium: Make, server: DiskLayout, stick: DiskLayout
) -> None:
    machine = medium(server, stick)
    before = stores_of(server)
    (machine.root / "fail").write_text("replace \\EFI\\Microsoft\\Recovery\\BCD")
    child = machine.start()
    choose(child, "r")
    child.expect("Type yes and press Enter")
    child.sendline("yes")
    child.expect("Interrupted. Nothing is half-done")
    child.close()
    assert not (machine.root / "fail").exists()  # it came that far
    assert stores_of(server) == before


def test_a_fault_of_ours_ends_in_the_menu(medium: Make, server: DiskLayout) -> None:
    """The disk goes away: one message, and the menu again."""
    machine = medium(server)
    child = machine.start()
    child.expect(r"Windows:  Windows Server")
    server.path.unlink()
    child.sendline("s")
    child.expect("That did not work: FileNotFoundError")
    child.expect(PROMPT)
    assert "FileNotFoundError" in (machine.state / "error.log").read_text()
    child.close()


def test_disks_that_cannot_be_looked_at(medium: Make, server: DiskLayout) -> None:
    machine = medium(server)
    server.path.unlink()
    child = machine.start()
    child.expect("Windows:  still looking")
    child.expect("Windows:  not known")
    child.expect(PROMPT)
    child.close()


def test_report_json_says_what_the_screen_said(medium: Make, server: DiskLayout, stick: DiskLayout) -> None:
    machine = medium(server, stick)
    child = machine.start()
    choose(child, "s")
    child.expect(r"Report: disk1p1 \\Rehost\\\d+T\d+Z-survey")
    child.close()
    data = json.loads((machine.state / "report" / "report.json").read_text())
    assert data["result"]["mode"] == "survey"
    assert data["machine"] == "Contoso Rack 7000"
    assert [n for n in reports(stick) if n.endswith("survey.json")]
