"""The whole pipeline on CPython for Windows: repair and undo through rehost's commands, judged on Linux."""

from __future__ import annotations

import base64
import json
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
from support import windows, wine
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


def describe(folder: Path, *disks: DiskLayout) -> Path:
    path = folder / "machine.json"
    about = [
        {
            "path": wine.windows_path(d.path),
            "image": str(d.path),
            "parts": [(p.number, p.offset, p.size) for p in d.partitions],
        }
        for d in disks
    ]
    path.write_text(json.dumps({"disks": about, "firmware": 2}))
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
