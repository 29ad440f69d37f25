"""The payload as it stands on the medium, run by the real CPython for Windows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rehost_payload.survey.json import to_json
from rehost_payload.survey.run import survey_images
from support import windows, wine
from support.disks import MIB

_IMPORT_ALL = """
import importlib, pkgutil, sys, traceback
import rehost_payload
failed = 0
names = [m.name for m in pkgutil.walk_packages(rehost_payload.__path__, "rehost_payload.")]
for name in names:
    try:
        importlib.import_module(name)
    except BaseException:
        failed += 1
        traceback.print_exc(file=sys.stdout)
print(len(names), failed, sys.platform, sys.flags.isolated, sys.version_info[:2])
"""


def test_every_module_imports(medium: Path) -> None:
    sources = [p for p in (wine.PAYLOAD / "rehost_payload").rglob("*.py") if p.name != "__main__.py"]
    script = _IMPORT_ALL.replace(
        "for name in names:", "for name in names:\n    if name.endswith('__main__'): continue"
    )
    done = wine.run_python(medium, ["-c", script])
    said = done.stdout.decode()
    assert done.returncode == 0, said + done.stderr.decode()
    count, failed, platform, isolated = said.strip().splitlines()[-1].split()[:4]
    assert (failed, platform, isolated) == ("0", "win32", "1"), said
    assert int(count) == len(sources)  # the package itself is not among its modules, __main__ is


def test_help(medium: Path) -> None:
    done = wine.run_python(medium, ["-m", "rehost_payload", "--help"])
    assert done.returncode == 0, done.stderr.decode()
    assert b"rehost survey" in done.stdout


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return windows.gpt_server(tmp_path_factory.mktemp("server") / "disk.raw", windows_size=32 * MIB).path


def test_a_survey_of_an_image_is_the_same_as_on_linux(medium: Path, server: Path) -> None:
    done = wine.run_python(medium, ["-m", "rehost_payload", "survey", "--json", "--image", server])
    assert done.returncode == 0, done.stderr.decode()
    here = json.loads(to_json(survey_images([server])))
    there = json.loads(done.stdout)
    for found, path in ((here, str(server)), (there, wine.windows_path(server))):
        assert found["disks"][0].pop("path") == path
        found.pop("taken")
    assert there == here
    assert there["windows"]


def test_the_menu_comes_up_and_ends(medium: Path) -> None:
    done = wine.run_python(medium, ["-m", "rehost_payload", "menu"], stdin=b"l\r\nq\r\n")
    said = done.stdout.decode()
    assert done.returncode == 0, said + done.stderr.decode()
    assert re.search(r"\d  s  ", said)
    assert "Untersuchen" in said or "Deutsch" in said
