"""bootsect on a made-up Windows: which one is run, on what, and that a repair with it can be undone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from rehost_payload.repair.model import ResultWord, Verdict
from rehost_payload.repair.session import Consent, Outcome, run_repair, run_undo
from rehost_payload.system.linux import LinuxSystem
from rehost_payload.system.protocol import SystemError_, WritableVolume
from rehost_payload.system.win32 import Win32
from rehost_payload.system.win_tools import ToolError
from rehost_payload.system.winpe import WinPeSystem
from support import bootsect, disks, windows
from support.disks import DiskLayout
from support.image_system import ImageVolume
from support.win32_machine import FakeDisk, Machine, Part

DISK = r"\\.\PhysicalDrive0"
SOURCE = (r"SYSTEM\CurrentControlSet\Control", "PEBootRamdiskSourceDrive")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> DiskLayout:
    """A server whose disk lost the code in its first sector and in its system volume."""
    disk = windows.mbr_server(tmp_path_factory.mktemp("bios") / "s.img")
    disks.write_bytes(disk.path, 0, bytes(440))
    disks.write_bytes(disk.path, disk.system.offset + 0x54, bytes(510 - 0x54))
    return disk


@pytest.fixture
def disk(original: DiskLayout, tmp_path: Path) -> DiskLayout:
    return windows.copy_disk(original, tmp_path / "s.img")


def image_volume(api: Win32, root: str) -> WritableVolume:
    assert isinstance(api, Machine)
    number, part = next((n, p) for n, p, name in api._parts() if name == root)
    return ImageVolume(api.disks[number].image, part.offset, part.size, lambda *_: None)


Program = Callable[[Path, int, int, bool], None]


class Bootsect:
    """Runs ``program`` in bootsect's place, on the disk that the letter leads to."""

    def __init__(self, machine: Machine, program: Program = bootsect.write, code: int = 0) -> None:
        self.machine, self.program, self.code = machine, program, code
        self.commands: list[tuple[str, ...]] = []

    def __call__(self, command: Sequence[str], log: Path | None = None, limit: float | None = None) -> int:
        assert limit is not None
        assert not self.machine.locked  # it locks for itself
        self.commands.append(tuple(command))
        _, how, letter, *more = command
        assert how == "/nt60"
        name = self.machine.letters[f"{letter}\\"]
        number, part = next((n, p) for n, p, volume in self.machine._parts() if volume == name)
        self.machine.log.append("bootsect")
        self.program(self.machine.disks[number].image, part.offset, part.size, more == ["/mbr"])
        return self.code


def machine_of(*layouts: DiskLayout) -> Machine:
    fake = {
        n: FakeDisk(d.path, tuple(Part(p.number, p.offset, p.size) for p in d.partitions))
        for n, d in enumerate(layouts)
    }
    return Machine(fake, firmware=1)


def environment(tmp_path: Path, inside: bool = True) -> dict[str, str]:
    folder = tmp_path / "Windows" / "System32"
    folder.mkdir(parents=True, exist_ok=True)
    if inside:
        (folder / "bootsect.exe").write_bytes(b"MZ")
    return {"SystemRoot": str(tmp_path / "Windows"), "SystemDrive": str(tmp_path)}


def system_of(machine: Machine, where: dict[str, str], run: Bootsect | None = None) -> WinPeSystem:
    return WinPeSystem(machine, where, image_volume, lambda _: None, run=run or Bootsect(machine))


def boot_places(disk: DiskLayout) -> bytes:
    part = disk.system
    end = disks.read_bytes(disk.path, part.offset + part.size - 4096, 4096)
    return disks.read_bytes(disk.path, 0, 512) + disks.read_bytes(disk.path, part.offset, 8192) + end


def repair(system: WinPeSystem) -> Outcome:
    return run_repair(system, lambda *_: Consent(True))


# --- the repair ----------------------------------------------------------------------------------------------


def test_a_repair_with_bootsect_and_its_undo(disk: DiskLayout, tmp_path: Path) -> None:
    before = boot_places(disk)
    machine = machine_of(disk)
    run = Bootsect(machine)
    system = system_of(machine, environment(tmp_path), run)
    outcome = repair(system)
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    program = str(tmp_path / "Windows" / "System32" / "bootsect.exe")
    assert run.commands == [(program, "/nt60", "R:", "/mbr")]
    assert disks.read_bytes(disk.path, 0, 440) == bootsect.MASTER
    assert machine.letters == {}  # the letter was for that moment
    at = machine.log.index("bootsect")
    assert f"lock 0/{disk.system.number}" in machine.log[:at]
    assert f"dismount 0/{disk.system.number}" in machine.log[:at]
    assert any(e.startswith("flush") for e in machine.log[at:])
    assert machine.idle()
    undone = run_undo(system)
    assert undone.result.word is ResultWord.UNDONE, undone.result
    assert boot_places(disk) == before
    assert machine.idle()


def test_without_bootsect_it_is_said(disk: DiskLayout, tmp_path: Path) -> None:
    before = boot_places(disk)
    outcome = repair(system_of(machine_of(disk), environment(tmp_path, inside=False)))
    assert outcome.result.word is ResultWord.NOT_REPAIRED
    assert outcome.before is not None
    assert not outcome.before.boot_code_writer
    assert outcome.result.verification is not None
    verdicts = {c.id: c.verdict for c in outcome.result.verification.checks}
    assert verdicts["verify.boot-code"] is verdicts["verify.volume-code"] is Verdict.FAIL
    assert boot_places(disk) == before


def failing(image: Path, offset: int, size: int, master: bool) -> None:
    bootsect.write(image, offset, size, False)


def never_ending(image: Path, offset: int, size: int, master: bool) -> None:
    bootsect.write(image, offset, size, False)
    raise ToolError("bootsect.exe: it did not end within 120 seconds and was stopped")


def destroying(image: Path, offset: int, size: int, master: bool) -> None:
    bootsect.write(image, offset, size, master)
    with image.open("r+b") as file:
        file.write(bytes(512))


@pytest.mark.parametrize(
    ("program", "code", "said"),
    [
        (failing, 3, "bootsect.exe ended with code 3; see "),
        (never_ending, 0, "did not end within 120 seconds"),
        (destroying, 0, "has changed where its partition table is"),
        (lambda *_: None, 0, "there is no boot code in the first sector"),
    ],
)
def test_a_bootsect_that_fails(
    program: Program, code: int, said: str, disk: DiskLayout, tmp_path: Path
) -> None:
    before = boot_places(disk)
    machine = machine_of(disk)
    outcome = repair(system_of(machine, environment(tmp_path), Bootsect(machine, program, code)))
    assert outcome.result.word is ResultWord.FAILED, outcome.result
    assert (outcome.result.error or "").startswith("boot-code: ")
    assert said in (outcome.result.error or "")
    assert outcome.result.rolled_back
    assert boot_places(disk) == before
    assert machine.letters == {}
    assert machine.idle()


def write(system: WinPeSystem, disk: DiskLayout) -> str:
    with pytest.raises(SystemError_) as error:
        system.write_boot_code(DISK, disk.system.offset, disk.system.size, master=True)
    return str(error.value)


def test_a_volume_in_use_is_left_alone(disk: DiskLayout, tmp_path: Path) -> None:
    """bootsect would write all the same, and Windows over it."""
    machine = machine_of(disk)
    machine.errors[0x90018] = [5] * 200
    run = Bootsect(machine)
    said = write(system_of(machine, environment(tmp_path), run), disk)
    assert said.startswith("boot-code: ")
    assert "is in use" in said
    assert run.commands == []
    assert machine.idle()


def test_a_volume_that_can_have_no_letter(disk: DiskLayout, tmp_path: Path) -> None:
    machine = machine_of(disk)
    machine.hidden = {machine.disks[0].parts[disk.system.number - 1].name(0)}

    def root(api: Win32, _: str) -> WritableVolume:
        return ImageVolume(disk.path, disk.system.offset, disk.system.size, lambda *_: None)

    run = Bootsect(machine)
    system = WinPeSystem(machine, environment(tmp_path), root, lambda _: None, run=run)
    assert "it cannot have a drive letter" in write(system, disk)
    machine.hidden = set()
    machine.errors["add_mount_point"] = [5]
    assert "a drive letter" in write(system_of(machine, environment(tmp_path), run), disk)
    assert run.commands == []
    assert machine.idle()


def test_a_volume_with_a_letter_keeps_it(disk: DiskLayout, tmp_path: Path) -> None:
    machine = machine_of(disk)
    machine.letters["C:\\"] = machine.disks[0].parts[disk.system.number - 1].name(0)
    run = Bootsect(machine)
    system_of(machine, environment(tmp_path), run).write_boot_code(
        DISK, disk.system.offset, disk.system.size, master=False
    )
    assert run.commands[0][1:] == ("/nt60", "C:")
    assert "C:\\" in machine.letters


def test_the_debian_base_has_none() -> None:
    system = LinuxSystem()
    assert not system.boot_code_writer()
    with pytest.raises(SystemError_, match="not on this base"):
        system.write_boot_code("/dev/sda", 0, 512, master=True)


# --- which bootsect --------------------------------------------------------------------------------------------


class WithDisc(Machine):
    """A machine with a disc in its drive: a volume on no disk."""

    disc = "\\\\?\\Volume{00000000-0000-0000-0000-00000000cd00}\\"

    def volumes(self) -> Sequence[str]:
        return [*super().volumes(), self.disc]


@pytest.fixture
def drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that stands for the drive E: with installation media in it."""
    monkeypatch.chdir(tmp_path)
    folder = Path("E:\\") / "boot"
    folder.mkdir(parents=True)
    (folder / "bootsect.exe").write_bytes(b"MZ")
    return folder


def test_that_of_the_disc(disk: DiskLayout, tmp_path: Path, drive: Path) -> None:
    machine = WithDisc({0: machine_of(disk).disks[0]}, firmware=1)
    machine.letters["E:\\"] = machine.disc
    system = system_of(machine, environment(tmp_path, inside=False))
    assert not system.boot_code_writer()  # nobody says that it is the disc that we were started from
    machine.values[SOURCE] = "E:\\\0".encode("utf-16-le")
    assert system.boot_code_writer()
    run = Bootsect(machine)
    outcome = repair(system_of(machine, environment(tmp_path, inside=False), run))
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    assert run.commands[0][0] == str(drive / "bootsect.exe")


def test_that_of_a_stick_but_not_that_of_a_servers_disk(
    disk: DiskLayout, tmp_path: Path, drive: Path
) -> None:
    """A recovery environment started from the server's disk: what lies beside it is the server's."""
    machine = machine_of(disk, windows.copy_disk(disk, tmp_path / "stick.img"))
    machine.letters["E:\\"] = machine.disks[1].parts[0].name(1)
    machine.values[SOURCE] = "E:\\\0".encode("utf-16-le")
    system = system_of(machine, environment(tmp_path, inside=False))
    assert not system.boot_code_writer()
    with pytest.raises(SystemError_, match="neither in this system nor on its medium"):
        system.write_boot_code(DISK, disk.system.offset, disk.system.size, master=True)
    machine.disks[1].bus = 7
    assert system.boot_code_writer()
    machine.disks[1].bus, machine.disks[1].removable = 11, True
    assert system.boot_code_writer()
    assert machine.idle()
