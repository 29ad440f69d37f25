"""A machine that is switched on in a second: booted once to a shell, its memory saved, restored for every test.

Disks are plugged into the running machine. What is left out is the start from firmware to shell, which other tests
cover; the programs, the kernel and its drivers are those of the medium.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from support.product import CONSOLE, Product
from support.qemu import BUSY, Disk, Firmware, Machine, MachineError

PROMPT = r"rehost:\S*# ?"


@dataclass(frozen=True)
class Lab:
    product: Product
    firmware: Firmware
    work: Path
    state: Path
    memory: int

    def _machine(self, work: Path, incoming: Path | None, disks: list[Disk] | None = None) -> Machine:
        return Machine(
            work,
            firmware=self.firmware,
            disks=disks or [],
            kernel=self.product.kernel,
            initrd=self.product.initrd,
            append=f"{CONSOLE} quiet rehost.shell",
            memory=self.memory,
            hot_plug=True,
            incoming=incoming,
            name="lab",
        )

    def prepare(self) -> None:
        with self._machine(self.work, None) as vm:
            vm.open_shell(PROMPT, 240)
            # functions of the start-up script, to load drivers as it does
            code, output = vm.shell(". /usr/lib/rehost/boot.sh; export REHOST_ASCII=1")
            if code:
                raise MachineError(output)
            vm.save_state(self.state)

    @contextmanager
    def machine(self, work: Path, disks: list[Disk]) -> Iterator[Machine]:
        """A running machine with these disks (virtio-blk, nvme or usb-storage), in this order."""
        with self._machine(work, self.state) as vm:
            for index, disk in enumerate(disks):
                vm.plug(disk, str(index))
            self._wait_for_disks(vm, len(disks))
            yield vm

    def save_at(
        self, work: Path, disks: list[Disk], command: str, answers: dict[str, str], stop: str
    ) -> Path:
        """Runs a command on these disks up to the prompt ``stop`` and saves the machine there.

        ``answers``: what to type at the prompts (patterns) on the way. Nothing may have been written so far, since
        `resume` starts from other copies of the disks. Returns the state.
        """
        state = work / "at-prompt"
        with self.machine(work, disks) as vm:
            vm.send(command + "\n")
            while True:
                match = vm.wait_for("|".join([*answers, stop]), 120)
                answer = next((a for p, a in answers.items() if re.fullmatch(p, match[0])), None)
                if answer is None:
                    break
                vm.send(answer + "\n")
            vm.save_state(state)
        return state

    def resume(self, work: Path, state: Path, disks: list[Disk]) -> Machine:
        """The machine that `save_at` saved, with copies of its disks in the same order."""
        return self._machine(work, state, [replace(disk, port=i) for i, disk in enumerate(disks)])

    @staticmethod
    def _wait_for_disks(vm: Machine, count: int) -> None:
        deadline = time.monotonic() + 60 * BUSY
        while True:
            _, output = vm.shell("load_drivers; ls -d /sys/block/*/device 2>/dev/null | wc -l")
            if int(output.split()[-1]) >= count:
                break
            if time.monotonic() > deadline:
                raise MachineError(f"{count} disks were plugged, {output} are there")
            time.sleep(0.2)


def make_lab(product: Product, firmware: Firmware, work: Path, memory: int = 768) -> Lab:
    lab = Lab(product, firmware, work, work / "state", memory)
    lab.prepare()
    return lab
