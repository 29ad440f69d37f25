"""Starts a medium in QEMU and watches it: serial console and screen go to files.

KVM is used where the processor offers it and the firmware runs under it; where QEMU then reports an internal error
of KVM (nested hosts), the machine is started again under emulation.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rehost_builder.emulator.command import FIRMWARE_FILES, OVMF, MachineOptions, qemu_command
from rehost_builder.emulator.qmp import QmpClient, QmpError
from rehost_builder.errors import BuildError
from rehost_builder.run import require

_POLL = 0.25  # seconds
_FIRST_SIGN = 20.0  # seconds in which a machine under KVM must have failed, if it does
_LAST_WORDS = 30.0  # seconds for a QEMU that no longer answers to end
Tick = Callable[[float, int], None]


@dataclass(frozen=True)
class Watched:
    """How the machine ended: "text" was seen on the serial console, "off", "time" was over, or "crashed".

    ``seconds`` since its start. ``screen`` is the last picture (PNG), None where there was none.
    """

    end: str
    seconds: float
    accelerator: str
    serial: Path
    screen: Path | None
    said: str = ""


def pick_accelerator(wish: str) -> str:
    """ "kvm" where it can be used here, else "tcg". A wish other than "auto" is taken as it is.

    Hosts that offer /dev/kvm without the processor's own virtualisation emulate what they cannot run, badly.
    """
    if wish != "auto":
        return wish
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return "tcg"
    return "kvm" if "vmx" in flags or "svm" in flags else "tcg"


def start(
    options: MachineOptions,
    folder: Path,
    *,
    accelerator: str = "auto",
    until: str | None = None,
    seconds: float | None = None,
    tick: Tick | None = None,
) -> Watched:
    """Runs the machine until it switches itself off, says ``until`` on its console, or ``seconds`` are over.

    Writes serial.log, screen.png and qemu.log into ``folder``. Raises BuildError where QEMU or its firmware is
    missing or does not start. Ctrl-C ends the machine and goes on to the caller.
    """
    require("qemu-system-x86_64", "qemu-system-x86")
    if options.firmware != "bios":
        for name in FIRMWARE_FILES[options.firmware]:
            if not (OVMF / name).exists():
                raise BuildError(f"the UEFI firmware {OVMF / name} is missing", "apt-get install ovmf")
    folder.mkdir(parents=True, exist_ok=True)
    chosen = pick_accelerator(accelerator)
    watched = _run(options, folder, chosen, until, seconds, tick)
    if watched.end == "crashed" and chosen == "kvm" and accelerator == "auto":
        watched = _run(options, folder, "tcg", until, seconds, tick)
    return watched


def _run(
    options: MachineOptions,
    folder: Path,
    accelerator: str,
    until: str | None,
    seconds: float | None,
    tick: Tick | None,
) -> Watched:
    serial, log = folder / "serial.log", folder / "qemu.log"
    screen = folder / "screen.png"
    for old in (serial, screen):
        old.unlink(missing_ok=True)
    serial.touch()
    with tempfile.TemporaryDirectory(prefix="rehost-vm-") as name:
        sockets = Path(name)
        variables = None
        if options.firmware != "bios":
            variables = sockets / "vars.fd"
            shutil.copyfile(OVMF / FIRMWARE_FILES[options.firmware][1], variables)
        command = qemu_command(
            options, accelerator=accelerator, qmp=sockets / "qmp", serial=serial, variables=variables
        )
        began = time.monotonic()
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            monitor = _monitor(process, sockets / "qmp", log)
            with contextlib.closing(monitor):
                end = _watch(process, monitor, serial, began, accelerator, until, seconds, tick)
                took = time.monotonic() - began
                seen = screen if _picture(monitor, screen) else None
                with contextlib.suppress(QmpError, TimeoutError):
                    monitor.command("quit")
        finally:
            _end(process)
    return Watched(end, took, accelerator, serial, seen, _tail(log))


def _monitor(process: subprocess.Popen[bytes], socket: Path, log: Path) -> QmpClient:
    try:
        return QmpClient(socket, alive=lambda: process.poll() is None)
    except (QmpError, TimeoutError) as error:
        # the connection may break a moment before the process has ended
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LAST_WORDS)
        if process.poll() is None:
            raise BuildError(f"QEMU does not answer: {error}", "its whole output is in qemu.log") from None
        raise BuildError(f"QEMU did not start: {_tail(log)}", "its whole output is in qemu.log") from None


def _watch(
    process: subprocess.Popen[bytes],
    monitor: QmpClient,
    serial: Path,
    began: float,
    accelerator: str,
    until: str | None,
    seconds: float | None,
    tick: Tick | None,
) -> str:
    wanted = until.encode() if until else None
    while True:
        now = time.monotonic() - began
        if wanted is not None and wanted in serial.read_bytes():
            return "text"
        if process.poll() is not None:
            return "off" if process.returncode == 0 else "crashed"
        if accelerator == "kvm" and now < _FIRST_SIGN and _internal_error(monitor):
            return "crashed"
        if seconds is not None and now >= seconds:
            return "time"
        if tick is not None:
            tick(now, serial.stat().st_size)
        time.sleep(_POLL)


def _internal_error(monitor: QmpClient) -> bool:
    try:
        return bool(monitor.command("query-status")["status"] == "internal-error")
    except (QmpError, TimeoutError):
        return False


def _picture(monitor: QmpClient, target: Path) -> bool:
    try:
        monitor.command("screendump", filename=str(target.resolve()), format="png")
    except (QmpError, TimeoutError):  # switched off, or a QEMU before 7.1 that writes no PNG
        target.unlink(missing_ok=True)
        return False
    return target.exists()


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(log: Path) -> str:
    lines = [x for x in log.read_text("utf-8", "replace").splitlines() if x.strip()]
    return "; ".join(lines[-2:])
