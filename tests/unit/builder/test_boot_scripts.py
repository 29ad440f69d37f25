"""The shell functions of the first process, on a made-up /sys and /proc."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rehost_builder.templates import iso_folder

ROOT = iso_folder() / "debian/root"
BOOT_SH = ROOT / "usr/lib/rehost/boot.sh"


class Machine:
    """A folder with sys and proc in it, and a place for programs that stand in for the real ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("sys/bus/scsi/devices", "sys/class/block", "sys/class/tty/console", "proc", "bin"):
            (folder / name).mkdir(parents=True)
        self.write("proc/uptime", "5.07 1.00\n")
        self.write("sys/class/tty/console/active", "ttyS0 tty0\n")
        # usleep moves the clock, so that nothing has to wait
        self.program(
            "usleep",
            'read -r s _ <"$PROC/uptime"; c=$(( ${s%.*} * 100 + 1${s#*.} - 100 + 10 ))\n'
            'printf "%d.%02d 0\\n" $((c / 100)) $((c % 100)) >"$PROC/uptime"; echo >>"$PROC/slept"',
        )

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def program(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        text = BOOT_SH.read_text().replace("/usr/sbin/modprobe", "modprobe")
        self.write("boot.sh", text)
        return subprocess.run(
            ["sh", "-u", "-c", f'. "{self.folder}/boot.sh"\n{script}'],
            env={
                "PATH": f"{self.folder}/bin:/usr/bin:/bin",
                "SYS": str(self.folder / "sys"),
                "PROC": str(self.folder / "proc"),
            },
            capture_output=True,
            text=True,
            timeout=300,
        )

    def slept(self) -> int:
        path = self.folder / "proc/slept"
        return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("name", "code", "value"),
    [
        ("rehost.keymap", 0, "de\n"),
        ("rehost.shell", 0, ""),
        ("rehost.run", 1, ""),
        ("quiet", 0, ""),
        ("console", 0, "tty0\n"),
        ("rehost.key", 1, ""),
    ],
)
def test_options_of_the_kernel_command_line(machine: Machine, name: str, code: int, value: str) -> None:
    machine.write("proc/cmdline", "quiet rehost.keymap=de rehost.shell console=tty0 console=ttyS0,115200n8\n")
    done = machine.run(f"option {name}")
    assert (done.returncode, done.stdout) == (code, value)


def test_the_last_console_starts_and_the_others_wait_for_enter(machine: Machine) -> None:
    lines = machine.run("write_inittab").stdout.splitlines()
    assert lines[:2] == [
        "ttyS0::askfirst:-/usr/lib/rehost/console other",
        "tty1::respawn:-/usr/lib/rehost/console main",
    ]
    machine.write("sys/class/tty/console/active", "tty0 ttyS0\n")
    assert "ttyS0::respawn:-/usr/lib/rehost/console main" in machine.run("write_inittab").stdout.splitlines()


def test_drivers_are_asked_for_once_per_new_device(machine: Machine) -> None:
    machine.program("modprobe", 'echo "$@" >>"$PROC/loaded"')
    machine.write("sys/bus/pci/devices/0/modalias", "pci:v1bc01sc06\n")
    machine.write("sys/bus/acpi/devices/1/modalias", "acpi:PNP0A03:\n")
    machine.run("load_drivers; load_drivers")
    assert (machine.folder / "proc/loaded").read_text() == "-abq acpi:PNP0A03: pci:v1bc01sc06\n"
    machine.write("sys/bus/scsi/devices/1/modalias", "scsi:t-0x00\n")
    machine.run("load_drivers")
    assert (machine.folder / "proc/loaded").read_text().endswith("pci:v1bc01sc06 scsi:t-0x00\n")


@pytest.mark.parametrize(
    ("action", "alias", "asked"),
    [
        ("add", "usb:v1p2", "-abq usb:v1p2\n"),
        ("remove", "usb:v1p2", ""),
        ("add", "", ""),
        ("change", "x", ""),
    ],
)
def test_what_is_plugged_in_later_gets_its_driver(
    machine: Machine, action: str, alias: str, asked: str
) -> None:
    machine.program("modprobe", 'echo "$@"')
    script = (ROOT / "usr/lib/rehost/hotplug").read_text().replace("/usr/sbin/modprobe", "modprobe")
    done = subprocess.run(
        ["sh", "-c", script],
        env={"PATH": f"{machine.folder}/bin:/usr/bin:/bin", "ACTION": action, "MODALIAS": alias},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, asked)


def test_usb_hubs_alone_are_not_waited_for(machine: Machine) -> None:
    machine.program("modprobe", ":")
    for name in ("usb1", "1-0:1.0"):
        (machine.folder / "sys/bus/usb/devices" / name).mkdir(parents=True)
    assert machine.run("wait_for_disks").returncode == 0
    assert machine.slept() == 3


def test_waiting_ends_after_0_3_s_without_a_new_device(machine: Machine) -> None:
    machine.program("modprobe", ":")
    assert machine.run("wait_for_disks").returncode == 0
    assert machine.slept() == 3


def test_usb_devices_are_given_a_second(machine: Machine) -> None:
    machine.program("modprobe", ":")
    machine.write("sys/bus/usb/devices/1-1/modalias", "usb:v1\n")
    assert machine.run("wait_for_disks").returncode == 0
    assert machine.slept() == 10


def test_a_new_disk_starts_the_wait_again(machine: Machine) -> None:
    machine.program(
        "modprobe",
        'mkdir -p "$SYS/class/block/sda"; [ -e "$SYS/bus/scsi/devices/1" ] || echo x >"$SYS/bus/scsi/devices/1"',
    )
    assert machine.run("wait_for_disks").returncode == 0
    assert machine.slept() == 3
    machine.write("proc/slept", "")
    # a disk that appears in the second round
    machine.program(
        "usleep",
        (machine.folder / "bin/usleep").read_text().partition("\n")[2] + 'mkdir -p "$SYS/class/block/sdb"',
    )
    assert machine.run("wait_for_disks").returncode == 0
    assert machine.slept() == 4


@pytest.mark.parametrize("state", ["new", "connecting", "resetting"])
def test_an_nvme_controller_that_starts_is_waited_for_but_not_for_ever(machine: Machine, state: str) -> None:
    machine.program("modprobe", ":")
    machine.write("sys/class/nvme/nvme0/state", f"{state}\n")
    assert machine.run("wait_for_disks").returncode == 1
    assert machine.slept() == 150
    machine.write("sys/class/nvme/nvme0/state", "live\n")
    assert machine.run("wait_for_disks").returncode == 0


def test_a_usb_disk_that_has_not_looked_yet_is_waited_for(machine: Machine) -> None:
    (machine.folder / "sys/bus/usb/devices/1-1:1.0/host3").mkdir(parents=True)
    assert machine.run("devices_busy").returncode == 0
    (machine.folder / "sys/bus/usb/devices/1-1:1.0/host3/target3:0:0").mkdir()
    assert machine.run("devices_busy").returncode == 1


def test_every_script_parses() -> None:
    scripts = [p for p in sorted(ROOT.rglob("*")) if p.is_file() and p.read_bytes().startswith(b"#!")]
    assert {p.name for p in scripts} >= {"init", "console", "rehost", "keymap"}
    for path in [*scripts, BOOT_SH]:
        done = subprocess.run(["sh", "-n", str(path)], capture_output=True, text=True)
        assert done.returncode == 0, (path, done.stderr)
