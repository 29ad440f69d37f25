"""Virtual machines for tests: build the command line, watch the serial console, talk QMP, always clean up.

    with Machine(tmp_path, firmware="uefi", disks=[Disk(image, "nvme", bootindex=1)], cdrom=iso) as vm:
        vm.wait_for(r"REHOST-RESULT (\\d+)", 120)
        vm.wait_exit(30)

Everything is emulated (TCG): a nested KVM may open and then stop the guest, and the difference for a machine that
does little is small. One processor only: with two, emulation now and then runs stale code where the kernel patches
itself, and the guest dies of it. No network card is ever there. A machine that is left for whatever reason is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from rehost_builder.emulator.command import FIRMWARE_FILES, OVMF
from rehost_builder.emulator.qmp import QmpClient, QmpError

Firmware = Literal["bios", "uefi", "secure-boot"]
Bus = Literal[
    "ahci", "nvme", "virtio-blk", "virtio-scsi", "megasas", "megasas-gen2", "pvscsi", "usb-storage", "uas"
]

BUSY = 5
"""Time limits are those of a computer with nothing else to do; one that is slow and busy gets this many times as much.
Only what never comes takes so long."""
_HOT_PLUG_PORTS = 4
# CSI sequences, character set selection, and the few one-letter escapes of a terminal
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?=]*[A-Za-z]|[()][A-Z0-9]|[=>78cDEM])")


class MachineError(RuntimeError):
    """The machine did not do what it should; the message ends with the last lines of its console."""


@dataclass(frozen=True)
class Disk:
    """A disk of the machine. OVMF looks only at disks that have a ``bootindex``.

    ``snapshot`` keeps all writes away from the file. ``log`` names a file in which QEMU notes every write and
    flush (dm-log-writes format), see support/write_log.py.
    """

    path: Path
    bus: Bus = "ahci"
    bootindex: int | None = None
    format: str = "raw"
    snapshot: bool = False
    read_only: bool = False
    serial: str = ""
    sector_size: int = 512
    log: Path | None = None
    port: int | None = None  # of `hot_plug`, as if it had been plugged there (virtio-blk, nvme)


def missing_tools() -> list[str]:
    """What a test machine needs and is not installed."""
    missing = [name for name in ("qemu-system-x86_64", "qemu-img") if shutil.which(name) is None]
    files = {f for pair in FIRMWARE_FILES.values() for f in pair}
    return missing + [str(OVMF / f) for f in sorted(files) if not (OVMF / f).exists()]


def plain_text(raw: bytes) -> str:
    """Console output without the terminal's control sequences; cursor movements count as line ends."""
    text = raw.decode("utf-8", "replace")
    text = re.sub(r"\x1b\[[0-9;]*[Hf]", "\n", text)
    return _ESCAPES.sub("", text).replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")


class Console:
    """The serial port: a thread reads it, so that the guest never waits for us."""

    def __init__(self, path: Path, log: Path) -> None:
        self._raw = bytearray()
        self._changed = threading.Condition()
        self._closed = False
        self._log = log
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._log.open("wb", buffering=0) as log:
            while True:
                try:
                    data = self._socket.recv(65536)
                except OSError:
                    data = b""
                with self._changed:
                    self._raw += data
                    self._closed = not data
                    self._changed.notify_all()
                if not data:
                    return
                log.write(data)

    @property
    def raw(self) -> bytes:
        with self._changed:
            return bytes(self._raw)

    @property
    def closed(self) -> bool:
        return self._closed

    def wait(self, seconds: float) -> None:
        """Until more has come, the machine is gone, or the time is over."""
        with self._changed:
            if not self._closed:
                self._changed.wait(seconds)

    def send(self, text: str) -> None:
        """Types slowly enough for a guest that has only a 16-byte FIFO and no flow control."""
        data = text.encode()
        for start in range(0, len(data), 8):
            self._socket.sendall(data[start : start + 8])
            if start + 8 < len(data):
                time.sleep(0.02)

    def close(self) -> None:
        # shutdown wakes the reader, close alone would not
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._socket.close()


def _die_with_parent() -> None:
    """In the child: be killed when the test process dies, however it dies."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Machine:
    """A q35 machine. ``work`` keeps its logs (serial.log, qemu.log) and its UEFI variables (vars.fd).

    ``cpu`` "Nehalem" is what Microsoft's boot managers want, "qemu64" is the fastest for Linux. ``vars`` is a
    variable store to start from; it is copied. ``incoming`` restores what `save_state` wrote: the machine must be
    built with the same arguments. ``hot_plug`` adds ports for `plug`. ``boot_menu`` ms of firmware wait: none.
    """

    def __init__(
        self,
        work: Path,
        *,
        firmware: Firmware = "bios",
        disks: Sequence[Disk] = (),
        cdrom: Path | None = None,
        usb_stick: Path | None = None,
        kernel: Path | None = None,
        initrd: Path | None = None,
        append: str = "",
        memory: int = 1024,
        cores: int = 1,
        cpu: str = "qemu64",
        vars: Path | None = None,
        incoming: Path | None = None,
        hot_plug: bool = False,
        name: str = "machine",
    ) -> None:
        self.work = work
        self.firmware = firmware
        self._name = name
        self._disks = list(disks)
        self._cdrom, self._usb_stick = cdrom, usb_stick
        self._kernel, self._initrd, self._append = kernel, initrd, append
        self._memory, self._cores, self._cpu = memory, cores, cpu
        self._vars, self._incoming, self._hot_plug = vars, incoming, hot_plug
        self._mark = 0
        self._free_ports = list(range(_HOT_PLUG_PORTS)) if hot_plug else []
        self.started = 0.0

    # --- command line

    def _command(self, sockets: Path) -> list[str]:
        smm = ",smm=on" if self.firmware == "secure-boot" else ""
        command = ["qemu-system-x86_64", "-name", self._name, "-machine", f"q35{smm}", "-cpu", self._cpu]
        command += ["-accel", "tcg,thread=multi", "-smp", str(self._cores), "-m", str(self._memory)]
        command += ["-nodefaults", "-no-user-config", "-nic", "none", "-display", "none", "-vga", "std"]
        command += ["-no-reboot", "-rtc", "base=utc", "-qmp", f"unix:{sockets}/qmp,server=on,wait=off"]
        command += ["-chardev", f"socket,id=serial,path={sockets}/serial,server=on,wait=on"]
        command += ["-serial", "chardev:serial", "-device", "qemu-xhci,id=xhci"]
        if self.firmware != "bios":
            command += self._flash()
        if self._hot_plug:
            for port in range(_HOT_PLUG_PORTS):
                command += ["-device", f"pcie-root-port,id=port{port},chassis={port + 1},slot={port + 1}"]
        for index, disk in enumerate(self._disks):
            command += self._disk(index, disk)
        if self._cdrom:
            command += ["-drive", f"file={self._cdrom},format=raw,if=none,id=cd,readonly=on"]
            command += ["-device", "ide-cd,drive=cd,bus=ide.5,bootindex=0"]
        if self._usb_stick:
            command += ["-drive", f"file={self._usb_stick},format=raw,if=none,id=stick"]
            command += ["-device", "usb-storage,drive=stick,bus=xhci.0,removable=on,bootindex=0"]
        if self._kernel:
            command += ["-kernel", str(self._kernel), "-append", self._append]
        if self._initrd:
            command += ["-initrd", str(self._initrd)]
        if self._incoming:
            command += ["-incoming", "defer"]
        return command

    @property
    def vars(self) -> Path:
        """The machine's own UEFI variables."""
        return self.work / f"{self._name}.vars.fd"

    def _flash(self) -> list[str]:
        code, template = FIRMWARE_FILES[self.firmware]
        shutil.copyfile(self._vars or OVMF / template, self.vars)
        arguments = ["-drive", f"if=pflash,format=raw,readonly=on,file={OVMF / code}"]
        arguments += ["-drive", f"if=pflash,format=raw,file={self.vars}"]
        if self.firmware == "secure-boot":
            arguments += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
        return arguments

    @staticmethod
    def _disk(index: int, disk: Disk) -> list[str]:
        if disk.log:
            disk.log.write_bytes(b"")
            backend = (
                f"driver=blklogwrites,file.driver=raw,file.file.driver=file,file.file.filename={disk.path},"
                f"log.driver=file,log.filename={disk.log}"
            )
        else:
            backend = f"file={disk.path},format={disk.format}"
        drive = f"{backend},if=none,id=drive{index}"
        drive += ",snapshot=on" if disk.snapshot else ""
        drive += ",readonly=on" if disk.read_only else ""
        arguments = ["-drive", drive]
        options = f"drive=drive{index}"
        if disk.bootindex is not None:
            options += f",bootindex={disk.bootindex}"
        if disk.sector_size != 512:
            options += f",logical_block_size={disk.sector_size},physical_block_size={disk.sector_size}"
        if disk.port is not None:
            options += f",bus=port{disk.port}"
        serial = disk.serial or f"TEST{index:04d}"
        scsi_host = {
            "virtio-scsi": "virtio-scsi-pci",
            "megasas": "megasas",
            "megasas-gen2": "megasas-gen2",
            "pvscsi": "pvscsi",
        }
        if disk.bus == "ahci":
            arguments += ["-device", f"ide-hd,{options},serial={serial},bus=ide.{index}"]
        elif disk.bus == "nvme":
            arguments += ["-device", f"nvme,{options},serial={serial}"]
        elif disk.bus == "virtio-blk":
            arguments += ["-device", f"virtio-blk-pci,{options},serial={serial}"]
        elif disk.bus == "usb-storage":
            arguments += ["-device", f"usb-storage,{options},serial={serial},bus=xhci.0,removable=on"]
        elif disk.bus == "uas":
            arguments += ["-device", f"usb-uas,id=uas{index},bus=xhci.0"]
            arguments += ["-device", f"scsi-hd,{options},serial={serial},bus=uas{index}.0"]
        else:
            arguments += ["-device", f"{scsi_host[disk.bus]},id=host{index}"]
            arguments += ["-device", f"scsi-hd,{options},serial={serial},bus=host{index}.0"]
        return arguments

    # --- life

    def __enter__(self) -> Machine:
        self.work.mkdir(parents=True, exist_ok=True)
        # socket paths must be short, which pytest's folders are not
        self._sockets = Path(tempfile.mkdtemp(prefix="rq-"))
        self._output = (self.work / f"{self._name}.qemu.log").open("wb")
        self.started = time.monotonic()
        try:
            self._process = subprocess.Popen(
                self._command(self._sockets),
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent,
            )
            self.console = self._open_console()
            self.qmp = QmpClient(self._sockets / "qmp", timeout=30.0 * BUSY)
            if self._incoming:
                self._restore(self._incoming)
        except BaseException as error:
            self._destroy()
            if isinstance(error, Exception):
                raise MachineError(f"{self._name} did not start: {error}\n{self._qemu_log()}") from error
            raise
        return self

    def _open_console(self) -> Console:
        deadline = time.monotonic() + 30 * BUSY
        while True:
            try:
                return Console(self._sockets / "serial", self.work / f"{self._name}.serial.log")
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._destroy()

    def _destroy(self) -> None:
        process = getattr(self, "_process", None)
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()
        if hasattr(self, "qmp"):
            self.qmp.close()
        if hasattr(self, "console"):
            self.console.close()
        self._output.close()
        shutil.rmtree(self._sockets, ignore_errors=True)

    def kill(self) -> None:
        """The power is cut: what the guest has not handed to its disk is lost."""
        self._process.kill()
        self._process.wait()

    def quit(self) -> None:
        """Ends QEMU in order, without telling the guest."""
        with contextlib.suppress(QmpError):
            self.qmp.command("quit")
        self._process.wait(30 * BUSY)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait_exit(self, timeout: float) -> int:
        """Until the guest has switched itself off (a reset counts too). Returns QEMU's exit code."""
        try:
            return self._process.wait(timeout * BUSY)
        except subprocess.TimeoutExpired:
            self._fail(f"still running after {timeout * BUSY:.0f} s")
        raise AssertionError  # unreachable

    @property
    def elapsed(self) -> float:
        """Seconds since QEMU was started."""
        return time.monotonic() - self.started

    # --- console

    @property
    def text(self) -> str:
        return plain_text(self.console.raw)

    def last_lines(self, count: int = 25) -> str:
        lines = [line.rstrip() for line in self.text.splitlines() if line.strip()]
        return "\n".join(lines[-count:])

    def _qemu_log(self) -> str:
        return (self.work / f"{self._name}.qemu.log").read_text(errors="replace")[-2000:]

    def _fail(self, what: str) -> None:
        raise MachineError(
            f"{self._name}: {what}\n--- console\n{self.last_lines()}\n--- QEMU\n{self._qemu_log()}"
        )

    def wait_for(self, pattern: str, timeout: float) -> re.Match[str]:
        """Waits for the pattern in what the console says after the last match. Raises `MachineError`."""
        deadline = time.monotonic() + timeout * BUSY
        expression = re.compile(pattern)
        while True:
            closed = self.console.closed
            match = expression.search(self.text, self._mark)
            if match:
                self._mark = match.end()
                return match
            if closed:
                self._fail(f"ended without saying {pattern!r}")
            left = deadline - time.monotonic()
            if left <= 0:
                self._fail(f"did not say {pattern!r} in {timeout * BUSY:.0f} s")
            self.console.wait(min(left, 1.0))

    def send(self, text: str) -> None:
        self.console.send(text)

    def open_shell(self, prompt: str, timeout: float) -> None:
        """Waits for the shell's prompt on the serial console and makes it fit for `shell`: no echo, no prompt."""
        self.wait_for(prompt, timeout)
        self.send("stty -echo; PS1=; echo rea''dy\n")
        self.wait_for("ready", 30)

    def shell(self, command: str, timeout: float = 60) -> tuple[int, str]:
        """Runs a command in the shell that `open_shell` found: its exit code and what it wrote."""
        tag = f"{time.monotonic_ns():x}"
        start = self._mark
        self.send(f'{command}; echo "<$?-{tag}>"\n')
        match = self.wait_for(rf"<(\d+)-{tag}>", timeout)
        return int(match[1]), self.text[start : match.start()].strip("\n")

    # --- QMP

    def screendump(self, path: Path) -> None:
        self.qmp.command("screendump", filename=str(path))

    def send_key(self, *keys: str) -> None:
        """Presses keys together ("ret", "down", "ctrl", ...)."""
        self.qmp.command("send-key", keys=[{"type": "qcode", "data": key} for key in keys])

    def physical_memory(self, address: int, size: int) -> bytes:
        file = self._sockets / "memory"
        self.qmp.command("pmemsave", val=address, size=size, filename=str(file))
        try:
            return file.read_bytes()
        finally:
            file.unlink()

    def vga_text(self) -> str:
        """The 80x25 text screen, which lies at 0xb8000 as pairs of character and attribute."""
        cells = self.physical_memory(0xB8000, 80 * 25 * 2)[::2]
        rows = [cells[row * 80 : row * 80 + 80] for row in range(25)]
        return "\n".join(row.decode("cp437").replace("\0", " ").rstrip() for row in rows)

    def plug(self, disk: Disk, key: str) -> None:
        """Adds a disk to the running machine (nvme, virtio-blk or usb-storage); ``key`` names it for `unplug`."""
        file: dict[str, Any] = {"driver": "file", "filename": str(disk.path)}
        node: dict[str, Any] = {"driver": "raw", "read-only": disk.read_only, "file": file}
        if disk.log:
            disk.log.write_bytes(b"")
            log = {"driver": "file", "filename": str(disk.log)}
            node = {"driver": "blklogwrites", "file": {"driver": "raw", "file": file}, "log": log}
        node["node-name"] = f"node-{key}"
        self.qmp.command("blockdev-add", **node)
        options: dict[str, Any] = {"id": f"disk-{key}", "drive": f"node-{key}"}
        options["serial"] = disk.serial or f"TEST-{key}"
        if disk.bus == "usb-storage":
            options |= {"driver": "usb-storage", "bus": "xhci.0", "removable": True}
        elif disk.bus in ("nvme", "virtio-blk"):
            port = self._free_ports.pop(0)
            driver = {"nvme": "nvme", "virtio-blk": "virtio-blk-pci"}[disk.bus]
            options |= {"driver": driver, "bus": f"port{port}"}
        else:
            raise ValueError(f"cannot plug {disk.bus}")
        self.qmp.command("device_add", **options)

    def unplug(self, key: str, timeout: float = 20) -> None:
        self.qmp.command("device_del", id=f"disk-{key}")
        self.qmp.wait_event("DEVICE_DELETED", timeout * BUSY)

    def save_state(self, path: Path, timeout: float = 120) -> None:
        """Stops the machine and writes its memory and devices (not its disks) to a file."""
        self.qmp.command("migrate-set-parameters", max_bandwidth=1 << 40)
        self.qmp.command("migrate", uri=f"exec:cat > '{path}'")
        self._migrated(timeout)

    def _restore(self, path: Path, timeout: float = 120) -> None:
        self.qmp.command("migrate-incoming", uri=f"exec:cat '{path}'")
        deadline = time.monotonic() + timeout * BUSY
        while self.qmp.command("query-status")["status"] in ("inmigrate", "postmigrate"):
            if time.monotonic() > deadline:
                raise MachineError(f"{path} was not restored in {timeout * BUSY:.0f} s")
            time.sleep(0.05)
        self.qmp.command("cont")

    def _migrated(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout * BUSY
        while True:
            status = self.qmp.command("query-migrate").get("status")
            if status == "completed":
                return
            if status in ("failed", "cancelled") or time.monotonic() > deadline:
                raise MachineError(f"the state was not saved: {status}")
            time.sleep(0.05)


def free_space(path: Path) -> int:
    return os.statvfs(path).f_bavail * os.statvfs(path).f_frsize
