"""The whole pipeline on CPython for Windows: repair and undo through rehost's commands, judged on Linux."""

from __future__ import annotations

import base64
import json
import shutil
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rehost_payload.repair.model import Verdict
from rehost_payload.repair.verify import verify
from rehost_payload.survey.run import survey_images
from rehost_payload.system.hivex_edit import edit_hive
from rehost_payload.system.protocol import SystemError_
from rehost_payload.ui.plain import _EDITS, from_plain
from support import bootsect, disks, windows, windows_python, wine
from support.disks import MIB, DiskLayout
from support.image_system import ImageVolume

SCRIPT = Path(__file__).parent / "rehost_on_windows.py"
TESTS = Path(__file__).parents[1]


class Answers(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            question = json.loads(line)
            try:
                result = self._answer(question)
            except SystemError_ as error:
                answer: dict[str, Any] = {"error": [error.code, error.detail]}
            else:
                is_data = isinstance(result, bytes)
                answer = {"data": base64.b64encode(result).decode()} if is_data else {"value": result}
            self.wfile.write(json.dumps(answer).encode() + b"\n")

    @staticmethod
    def _answer(question: dict[str, Any]) -> Any:
        if "hive" in question:
            edits = [from_plain(_EDITS[e["edit"]], e) for e in question["edits"]]
            return edit_hive(base64.b64decode(question["hive"]), edits)
        image, offset, size = question["volume"]
        volume = ImageVolume(Path(image), offset, size, lambda *_: None)
        arguments = question["arguments"]
        if question["method"] in ("replace", "append"):
            arguments[1] = base64.b64decode(arguments[1])
        return getattr(volume, question["method"])(*arguments)


@pytest.fixture
def port() -> Iterator[int]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answers) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def describe(folder: Path, *disks: DiskLayout, firmware: int = 2, **environment: str) -> Path:
    path = folder / "machine.json"
    about = [
        {
            "path": wine.windows_path(d.path),
            "image": str(d.path),
            "parts": [(p.number, p.offset, p.size) for p in d.partitions],
        }
        for d in disks
    ]
    path.write_text(json.dumps({"disks": about, "firmware": firmware, "environment": environment}))
    return path


def test_a_repair_and_its_undo_on_windows(medium: Path, tmp_path: Path, port: int) -> None:
    disk = windows.restored(windows.gpt_server(tmp_path / "disk.img", windows_size=32 * MIB))
    before = windows.read_store(disk)
    assert verify(survey_images([disk.path])).verdict is Verdict.FAIL
    machine = describe(tmp_path, disk)

    def rehost(*arguments: str) -> tuple[int, str]:
        done = wine.run_python(medium, [SCRIPT, TESTS, str(port), machine, *arguments])
        return done.returncode, done.stdout.decode() + done.stderr.decode()

    code, said = rehost("diagnose", "--lang", "de")
    assert code == 3, said
    code, said = rehost("repair", "--yes", "--lang", "de")
    assert code == 0, said
    assert "Repariert" in said or "repariert" in said
    assert windows.read_store(disk) != before
    after = survey_images([disk.path])
    assert verify(after).chain is Verdict.PASS, verify(after)
    code, said = rehost("undo", "--yes", "--json")
    assert code == 0, said
    assert windows.read_store(disk) == before


STAND_IN = """
import json, os, sys
from pathlib import Path
about = json.loads((Path(sys.executable).parent / "about.json").read_text())
print("Zielvolumes werden aktualisiert")
if sys.orig_argv[1:] != ["/nt60", "R:", "/mbr"]:
    os._exit(2)
sys.path.append(about["tests"])
from support.bootsect import write
write(Path(about["image"]), about["offset"], about["size"], True)
sys.stdout.flush()
os._exit(about["code"])
"""


@pytest.mark.parametrize("code", [0, 1])
def test_bootsect_is_a_program_of_windows(code: int, medium: Path, tmp_path: Path, port: int) -> None:
    """A real process: another program with bootsect's name and arguments, in the folder where Windows has it."""
    disk = windows.mbr_server(tmp_path / "disk.img")
    disks.write_bytes(disk.path, 0, bytes(440))
    disks.write_bytes(disk.path, disk.system.offset + 0x54, bytes(510 - 0x54))
    before = disks.read_bytes(disk.path, 0, 512), disks.read_bytes(disk.path, disk.system.offset, 8192)
    folder = tmp_path / "Windows" / "System32"
    shutil.copytree(windows_python.runtime(), folder)
    (folder / "python.exe").rename(folder / "bootsect.exe")
    (pth,) = folder.glob("*._pth")
    pth.write_text(f".\n{pth.read_text()}import site\n")
    (folder / "sitecustomize.py").write_text(STAND_IN)
    about = {"tests": wine.windows_path(TESTS), "image": wine.windows_path(disk.path), "code": code}
    about |= {"offset": disk.system.offset, "size": disk.system.size}
    (folder / "about.json").write_text(json.dumps(about))
    where = {"SystemRoot": wine.windows_path(folder.parent), "SystemDrive": wine.windows_path(tmp_path)}
    machine = describe(tmp_path, disk, firmware=1, **where)

    def rehost(*arguments: str) -> tuple[int, str]:
        done = wine.run_python(medium, [SCRIPT, TESTS, str(port), machine, *arguments])
        return done.returncode, done.stdout.decode() + done.stderr.decode()

    ended, said = rehost("repair", "--yes", "--lang", "en")
    now = disks.read_bytes(disk.path, 0, 512), disks.read_bytes(disk.path, disk.system.offset, 8192)
    log = (tmp_path / "Rehost" / "logs" / "bootsect-output.log").read_text()
    assert "Zielvolumes" in log
    if code:
        assert ended == 1, said
        assert "bootsect.exe ended with code 1; see " in " ".join(said.split())
        assert now == before
        return
    assert ended == 0, said
    assert now[0][:440] == bootsect.MASTER
    ended, said = rehost("undo", "--yes")
    assert ended == 0, said
    assert disks.read_bytes(disk.path, 0, 512) == before[0]
    assert disks.read_bytes(disk.path, disk.system.offset, 8192) == before[1]
