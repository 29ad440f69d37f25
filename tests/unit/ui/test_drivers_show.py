"""`rehost drivers show`: what an administrator and a script get to see of an INF."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rehost_payload.ui.drivers_cmd import drivers
from support.infs import encoded, package


def show(*args: str | Path) -> Result:
    return CliRunner().invoke(drivers, ["show", *map(str, args)])


def write(folder: Path, text: str, catalog: bool = True) -> Path:
    path = folder / "exraid.inf"
    path.write_bytes(encoded(text))
    if catalog:
        (folder / "EXRAID.CAT").write_bytes(b"not looked into")
    return path


def test_text(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        package(
            decoration="NTamd64.10.0...17763",
            install="AddReg = R\nCopyFiles = @exraid.sys",
            more="[R]\nHKR,,X,0x10001,200",
        ),
    )
    result = show(path)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0] == f"Driver package {path} ({path.stat().st_size} bytes, utf-16-le)"
    assert "  version           1.2.3.4 of 2020-01-02" in lines
    assert "  catalog           exraid.cat (is beside it; not verified)" in lines
    assert (
        "  Windows Server 2016 (10.0.14393)        "
        "no: [Models.NTamd64.10.0...17763] is for build 17763 and later, not for 14393" in lines
    )
    assert "  Windows Server 2019 (10.0.17763)        1 model of [Models.NTamd64.10.0...17763]" in lines
    assert r"  models            PCI\VEN_9005&DEV_028F  Example RAID 8000; 8 ports" in lines
    assert (
        "  service           exraid: function driver, boot start, kernel driver, "
        r"System32\drivers\exraid.sys, group SCSI Miniport" in lines
    )
    assert r"                    HKR\Parameters: BusType = 8 (dword)" in lines
    assert "  registry          HKR: X = 200 (0xc8) (dword)" in lines
    assert r"  files             exraid.sys to System32\drivers" in lines


def test_one_windows(tmp_path: Path) -> None:
    path = write(tmp_path, package(decoration="NTamd64.10.0.3"))
    server = show("--windows", "2016", path).output
    client = show("--windows", "14393", "--product", "workstation", path).output
    assert server.count("Windows Server") == 1
    assert "1 model of" in server
    assert "is for server only, not for workstation" in client
    assert "Install section" not in client


def test_what_demotes_or_endangers_is_said(tmp_path: Path) -> None:
    text = package(
        more="[Card_Parameters]\nHKR,StartOverride,0,0x10001,3", install=r"CopyFiles = @..\exraid.sys"
    )
    output = show(write(tmp_path, text, catalog=False)).output
    assert 'StartOverride "0" = 3: starts demand nevertheless' in output
    assert r'REFUSED: the target "..\exraid.sys" leads out of its folder (..)' in output
    assert "exraid.cat (is missing)" in output


def test_many_models_are_shortened(tmp_path: Path) -> None:
    models = "\n".join(rf"d{i} = Card_Inst, PCI\VEN_9005&DEV_{i:04X}" for i in range(20))
    path = write(tmp_path, package(models=models))
    assert "and 8 more (--all)" in show(path).output
    assert "DEV_0013" not in show(path).output
    assert "DEV_0013" in show("--all", path).output


def test_json(tmp_path: Path) -> None:
    path = write(tmp_path, package())
    result = show("--json", "--windows", "2016", path)
    assert result.exit_code == 0
    document = json.loads(result.output)
    assert (document["class"], document["version"], document["date"]) == (
        "SCSIAdapter",
        "1.2.3.4",
        "2020-01-02",
    )
    assert (document["catalog"], document["catalog_present"]) == ("exraid.cat", True)
    (windows,) = document["windows"]
    assert (windows["build"], windows["sections"]) == (14393, ["Models.NTamd64"])
    assert windows["models"][0]["hardware_id"] == r"PCI\VEN_9005&DEV_028F"
    (section,) = document["install_sections"]
    assert (section["section"], section["function_driver"]) == ("Card_Inst", "exraid")
    assert section["services"][0]["start"] == 0
    assert section["files"][0]["directory"] == r"System32\drivers"


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"MZ\0\0", "NUL character"), (b"", "no section [Version]"), (b"[Version]\n", "Signature")],
)
def test_what_is_no_inf(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.inf"
    path.write_bytes(content)
    result = show(path)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert message in result.stderr


def test_wrong_usage(tmp_path: Path) -> None:
    assert show(tmp_path / "none.inf").exit_code == 1
    result = show("--windows", "95", write(tmp_path, package()))
    assert result.exit_code == 2
    assert "no Windows has the build number 95" in result.stderr


def test_an_inf_cannot_write_on_the_terminal(tmp_path: Path) -> None:
    path = write(tmp_path, package(models='"\x1b[2Jgone" = Card_Inst, PCI\\VEN_9005&DEV_028F'))
    assert "\x1b" not in show(path).output
    assert "\\u001b[2Jgone" in show(path).output


def test_help_has_examples() -> None:
    result = show("--help")
    assert "rehost drivers show --windows 2016 arcsas.inf" in result.output


def test_devices_that_are_excluded(tmp_path: Path) -> None:
    text = package(
        install="CopyFiles = @exraid.sys\nExcludeID = PCI\\VEN_9005&DEV_028F&SUBSYS_00019005, PCI\\X"
    )
    lines = show(write(tmp_path, text)).output.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("  excludes"))
    assert "PCI\\VEN_9005&DEV_028F&SUBSYS_00019005: a device with this ID is not installed by it" in lines[at]
    assert "PCI\\X: a device" in lines[at + 1]
