"""--pci: an image looked at as if its disk were connected to another controller."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest

from rehost_payload.ui.cli import rehost, run
from rehost_payload.ui.pretend import pretended
from support import packages, signing, windows
from support.disks import MIB, DiskLayout


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> DiskLayout:
    folder = tmp_path_factory.mktemp("pretend")
    return windows.gpt_server(folder / "server.img", windows_size=64 * MIB, recovery=False)


@pytest.mark.parametrize(
    ("pci", "device", "subsystem", "class_code"),
    [
        ("9005:028D", "028d", "", ""),
        ("9005:028d:9005:0552", "028d", "0552", ""),
        ("1022:7804", "7804", "", "010601"),
        ("PCI\\VEN_1022&DEV_7901&CC_010601", "7901", "", "010601"),
    ],
)
def test_what_is_pretended(pci: str, device: str, subsystem: str, class_code: str) -> None:
    found = pretended(pci)
    assert (found.device, found.subsystem_device, found.class_code) == (device, subsystem, class_code)


@pytest.mark.parametrize(("pci", "says"), [("nonsense", "no PCI ID"), ("1234:5678", "class is not known")])
def test_what_cannot_be(pci: str, says: str) -> None:
    with pytest.raises(click.BadParameter, match=says):
        pretended(pci)


def findings(
    capsys: pytest.CaptureFixture[str], server: DiskLayout, *arguments: str
) -> tuple[int, list[str]]:
    code = run(rehost, ["diagnose", "--json", "--image", str(server.path), *arguments])
    return code, [f["id"] for f in json.loads(capsys.readouterr().out)["diagnosis"]["findings"]]


def test_would_it_start_behind_that_card(
    capsys: pytest.CaptureFixture[str], server: DiskLayout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("REHOST_DRIVERS", raising=False)
    assert findings(capsys, server) == (0, [])
    assert findings(capsys, server, "--pci", "PCI\\VEN_1022&DEV_7901&CC_010601") == (0, [])
    assert findings(capsys, server, "--pci", "9005:028D:9005:0552")[1] == [
        "driver.not-at-boot",
        "windows.crash-reboot",
    ]
    # without its subsystem the card is not known: nobody says that Windows starts on it
    assert findings(capsys, server, "--pci", "9005:028D") == (3, ["driver.card-unknown"])
    assert run(rehost, ["diagnose", "--image", str(server.path), "--pci", "9005:028D"]) == 3
    assert "the subsystem by which a card is told is missing" in " ".join(capsys.readouterr().out.split())
    assert run(rehost, ["verify", "--image", str(server.path), "--pci", "9005:028D"]) == 3
    assert "the subsystem of 9005:028d is missing" in " ".join(capsys.readouterr().out.split())
    assert findings(capsys, server, "--pci", "9005:028F:9005:0800") == (3, ["driver.missing"])
    assert run(rehost, ["verify", "--image", str(server.path), "--pci", "9005:028F:9005:0800"]) == 3
    assert "FAIL" in capsys.readouterr().out
    assert run(rehost, ["diagnose", "--image", str(server.path)]) == 0
    assert "Not checked: whether Windows has the driver" in " ".join(capsys.readouterr().out.split())
    assert run(rehost, ["verify", "--image", str(server.path)]) == 3
    out = capsys.readouterr().out
    assert "--pci names it" in " ".join(out.split())
    assert not re.search("^PASS +Overall", out, re.MULTILINE)
    assert (
        run(rehost, ["verify", "--image", str(server.path), "--pci", "PCI\\VEN_1022&DEV_7901&CC_010601"]) == 0
    )
    assert re.search("^PASS +Overall$", capsys.readouterr().out, re.MULTILINE)
    for command in ("diagnose", "survey", "verify"):
        assert run(rehost, [command, "--pci", "9005:028D"]) == 2
        assert "--image" in capsys.readouterr().err
        twice = [command, "--image", str(server.path), "--pci", "9005:028F:9005:0800", "--pci", "9005:028D"]
        assert run(rehost, twice) == 2
        assert "given 2 times" in capsys.readouterr().err


def test_why_a_package_is_not_taken_is_on_the_screen(
    capsys: pytest.CaptureFixture[str], server: DiskLayout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    packages.put(tmp_path / "p", signer=signing.vendor())
    monkeypatch.setenv("REHOST_DRIVERS", f"{tmp_path}:/nothing/here")
    arguments = ["--lang", "en", "--image", str(server.path), "--pci", "9005:028F:9005:0800"]
    assert run(rehost, ["diagnose", *arguments]) == 3
    out = "".join(capsys.readouterr().out.split())  # long paths are broken anywhere
    assert "exraid.inf:nottaken,exraid.catisnotsignedbyMicrosoft" in out
    assert "/nothing/here:thereisnosuchfolder" in out
