"""Runs on CPython for Windows, under Wine: rehost's own commands on a made-up Windows over disk images.

usage: python -I rehost_on_windows.py TESTS PORT MACHINE.json ARGUMENT...

Disks are read and written here, as Windows would let us. What Wine cannot do (its drivers know no NTFS, its registry no
hives of Windows) is done by the test at 127.0.0.1:PORT: files of volumes, and the editing of a hive.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.append(sys.argv[1])

from rehost_payload.formats.hive import HiveEdit
from rehost_payload.system import here
from rehost_payload.system.protocol import SystemError_
from rehost_payload.system.win32 import Win32
from rehost_payload.system.winpe import WinPeSystem
from rehost_payload.ui.cli import rehost, run
from rehost_payload.ui.plain import to_plain
from support.win32_machine import FakeDisk, Machine, Part


class Test:
    """The other end: one question and one answer, each a line of JSON."""

    def __init__(self, port: int) -> None:
        self._stream = socket.create_connection(("127.0.0.1", port)).makefile("rwb")

    def ask(self, **question: Any) -> Any:
        self._stream.write(json.dumps(question).encode() + b"\n")
        self._stream.flush()
        answer = json.loads(self._stream.readline())
        if "error" in answer:
            raise SystemError_(*answer["error"])
        return base64.b64decode(answer["data"]) if "data" in answer else answer["value"]


class Volume:
    """Implements WritableVolume by asking."""

    def __init__(self, test: Test, image: str, offset: int, size: int) -> None:
        self._test, self._place = test, (image, offset, size)

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            plain = [base64.b64encode(a).decode() if isinstance(a, bytes) else a for a in arguments]
            return self._test.ask(volume=self._place, method=name, arguments=plain)

        return call


class System(WinPeSystem):
    def __init__(
        self, machine: Machine, test: Test, images: dict[int, str], environment: dict[str, str]
    ) -> None:
        def volume(api: Win32, root: str) -> Any:
            number, part = next((n, p) for n, p, name in machine._parts() if name == root)
            return Volume(test, images[number], part.offset, part.size)

        super().__init__(machine, environment, make_volume=volume, sleep=lambda _: None)
        self._test = test

    def edit_hive(self, hive: bytes, edits: Iterable[HiveEdit]) -> bytes:
        data = base64.b64encode(hive).decode()
        edited: bytes = self._test.ask(hive=data, edits=[to_plain(e) for e in edits])
        return edited


def main() -> int:
    port, description, *arguments = sys.argv[2:]
    about = json.loads(Path(description).read_text(encoding="utf-8"))
    # the lock by which one alone works on the disks lies there, and two test processes share Wine's own folder
    tempfile.tempdir = str(Path(description).parent)
    disks = {
        n: FakeDisk(Path(d["path"]), [Part(*p) for p in d["parts"]], instance="SCSI\\Disk\\0")
        for n, d in enumerate(about["disks"])
    }
    images = {n: d["image"] for n, d in enumerate(about["disks"])}
    machine = Machine(disks, firmware=about["firmware"])
    environment = {**os.environ, **about.get("environment", {})}
    here.this_machine = lambda: System(machine, Test(int(port)), images, environment)  # type: ignore[assignment]
    code = run(rehost, arguments)
    if not machine.idle():
        print("handles were left open", file=sys.stderr)
        return 99
    return code


if __name__ == "__main__":
    sys.exit(main())
