"""The declarations of Windows' functions, called for real under Wine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from support import windows_python, wine

SCRIPT = Path(__file__).parent / "on_windows.py"


@pytest.fixture
def check(medium: Path, tmp_path: Path) -> Any:
    def run(name: str) -> dict[str, Any]:
        done = wine.run_python(medium, [SCRIPT, name, tmp_path])
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return run


def test_sectors(check: Any) -> None:
    assert check("sectors") == {
        "read": (bytes(range(256)) * 4).hex(),
        "written": 512,
        "back": "ab" * 512,
        "end": 512,
        "behind": 0,
        "absent": 2,
    }


def test_a_volume(check: Any, tmp_path: Path) -> None:
    assert check("volume") == {
        "before": "old",
        "after": "new",
        "journal": "12",
        "big": (3 << 20) + 4,
        "list": ["BCD", "big", "journal"],
        "directory": [True, False],
        "absent": [False, False, "absent"],
        "onto a folder": "permission",
        "not empty": "io",
        "left": ["BCD", "big", "journal"],
        "free": True,
        "gone": [],
    }
    assert list(tmp_path.iterdir()) == []


def test_the_registry(check: Any) -> None:
    assert check("registry") == {
        "old": "value\0",
        "found": [["", 3, ""], ["odd", 0xFFFF0012, "0102"], ["text", 1, "e400"]],
        "again": [2, 2, 2],
        "unloaded": True,
        "twice": 2,
    }


def test_the_machine(check: Any) -> None:
    found = check("machine")
    assert found["name"] == "winpe"
    assert found["firmware"] == "unknown"  # Wine has none
    assert all(path.startswith("\\\\.\\PhysicalDrive") for path in found["disks"])
    assert found["volumes"] == []
    assert "C:\\" in found["points"]
    assert found["flags"]
    assert found["letters"] == "1"


def test_a_target_for_captures(check: Any, tmp_path: Path) -> None:
    found = check("target")
    got = found.pop("got")
    assert 8192 + 5000 <= got <= 16384
    assert found == {
        "unbuffered": True,
        "same": True,
        "size": [13192, None],
        "modified": True,
        "names": [["disks", "m.json"], []],
        "small": "{} ",
        "free": True,
        "absent": "absent",
        "left": ["disks"],
    }
    data = (tmp_path / "VM" / "disks" / "a.vhdx").read_bytes()
    assert data == (bytes(range(256)) * 32) + (bytes(range(256)) * 32)[:5000]


def test_files_of_a_volume(check: Any) -> None:
    found = check("files")
    assert found.pop("system")
    assert found == {
        "root": ["VMs"],
        "found": ["\\VMs\\Größe\\Disk.vhdx"],
        "problems": [],
        "name": "Disk.vhdx",
        "size": 1 << 20,
        "modified": True,
        "attributes": True,
        "rights": True,
        "bytes": "ff0001",
        "end": "feff",
        "beyond": "",
        "absent": True,
    }


# Python imports this before anything else, and so it is the whole program
STAND_IN = """
import json, os, pathlib, subprocess, sys, time
here = pathlib.Path(sys.executable).parent
code = (here / "code").read_text()
if code == "beat":
    while True:
        with open(here / "beats", "a") as file:
            file.write("x")
        time.sleep(0.2)
given = json.dumps(sys.orig_argv[1:])
(here / "given.json").write_text(given, encoding="utf-8")
sys.stdout.buffer.write("Fehler: ü\\r\\n".encode())
sys.stdout.flush()
if code == "hang":
    (here / "code").write_text("beat")
    subprocess.Popen([sys.executable])
    time.sleep(3600)
os._exit(int(code))
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> None:
    """A dism.exe in a Windows PE whose folder has a blank and an umlaut: Python's own program, with another name."""
    folder = tmp_path / "Windows PE für Server" / "System32"
    shutil.copytree(windows_python.runtime(), folder)
    (folder / "python.exe").rename(folder / "dism.exe")
    (folder / "wpeutil.exe").touch()
    (paths,) = folder.glob("*._pth")
    # our own sitecustomize goes before that of the library
    paths.write_text(".\r\n" + paths.read_text().replace(".\n", "") + "import site\r\n", newline="")
    (folder / "sitecustomize.py").write_text(STAND_IN, encoding="utf-8")
    (folder / "code").write_text("0")


def test_dism_is_given_what_we_mean(check: Any, stand_in: None) -> None:
    found = check("dism")
    driver, log = found.pop("expected")
    assert "für Server" in driver
    assert found.pop("given") == [
        "/English",
        "/Image:S:\\",
        "/Add-Driver",
        driver,
        log,
        "/LogLevel:3",
    ]
    assert found.pop("refused").endswith("dism.exe ended with code 50")
    word, builds = found.pop("refusal")
    assert word == "older"
    assert builds.pop("running").isdecimal()  # what Wine pretends to be
    assert builds == {"target": "99999"}
    assert found == {"said": True, "keys": True}


def test_a_dism_that_hangs_is_ended_with_its_helpers(check: Any, stand_in: None) -> None:
    assert check("hang") == {"ended": True, "quiet": True}
