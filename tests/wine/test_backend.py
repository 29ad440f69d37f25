"""The declarations of Windows' functions, called for real under Wine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support import wine

SCRIPT = Path(__file__).parent / "on_windows.py"


@pytest.fixture
def check(medium: Path, tmp_path: Path) -> Any:
    def run(name: str) -> dict[str, Any]:
        done = wine.run_python(medium, [SCRIPT, name, tmp_path])
        assert done.returncode == 0, done.stderr.decode()
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
