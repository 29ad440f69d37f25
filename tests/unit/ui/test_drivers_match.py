"""`rehost drivers match`: the answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rehost_payload.ui.drivers_cmd import drivers
from support.infs import encoded, package


def match(*args: str | Path) -> Result:
    return CliRunner().invoke(drivers, ["match", *map(str, args)])


def headline(result: Result) -> str:
    return result.output.splitlines()[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (
        ("good", package()),
        ("later", package(decoration="NTamd64.10.0...15063")),
        ("other", package(models=r"x = Card_Inst, PCI\VEN_1000&DEV_0001")),
        ("broken", "x"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "exraid.inf").write_bytes(encoded(text))
        (tmp_path / name / "exraid.sys").write_bytes(b"")
        (tmp_path / name / "exraid.cat").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "answer", "code"),
    [
        (
            "--pci 9005:028D",
            "Windows Server 2016 (10.0.14393): most likely in-box arcsas, only StartOverride has to go",
            0,
        ),
        (
            "--pci 9005:028D:9005:0552 --windows 2012R2",
            "Windows Server 2012 R2 (6.3.9600): in-box arcsas, only StartOverride has to go",
            0,
        ),
        (
            "--pci 9005:028F --windows 14393",
            "Windows Server 2016 (10.0.14393): most likely needs SmartPqi; no package at hand (--drivers)",
            3,
        ),
        (
            "--pci 9005:028F --windows 2019",
            "Windows Server 2019 (10.0.17763): in-box SmartSAMD, only StartOverride has to go",
            0,
        ),
        (
            "--pci 9005:028D:9005:0552 --windows 2025",
            "Windows Server 2025 (10.0.26100): most likely in-box arcsas, only StartOverride has to go",
            0,
        ),
        (
            "--pci 9005:028D:9005:0558",
            "Windows Server 2016 (10.0.14393): not known; no package at hand (--drivers)",
            3,
        ),
        (
            "--pci 1022:7901 --class 010601 --windows 2012R2",
            "Windows Server 2012 R2 (6.3.9600): in-box storahci, nothing is needed",
            0,
        ),
        (
            "--pci 1022:43BD --class 0104",
            "Windows Server 2016 (10.0.14393): most likely needs rcbottom, rcraid, rccfg; no package at hand (--drivers)",
            3,
        ),
        (
            "--pci 1234:5678",
            "Windows Server 2016 (10.0.14393): not known; no package at hand (--drivers)",
            3,
        ),
    ],
)
def test_without_packages(arguments: str, answer: str, code: int) -> None:
    result = match(*arguments.split())
    assert headline(result) == answer
    assert result.exit_code == code


def test_a_package_is_chosen_and_the_others_have_reasons(folder: Path) -> None:
    result = match("--pci", "9005:028F:9005:0800", "--drivers", folder)
    assert result.exit_code == 0
    assert result.output.startswith(
        "9005:028F:9005:0800  Adaptec (PMC-Sierra, Microsemi, Microchip), SmartRAID 3100"
    )
    assert headline(result).endswith(f"needs exraid from package {folder}/good/exraid.inf")
    assert f"{folder}/later/exraid.inf: [Models.NTamd64.10.0...15063] is for build 15063" in result.output
    assert f"{folder}/broken/exraid.inf: INF: line 1: text before the first section" in result.output
    assert "1 package is for other devices" in result.output


def test_windows_first_unless_the_catalogue_prefers_the_package(folder: Path) -> None:
    arguments = ("--windows", "2019", "--drivers", folder)
    known = match("--pci", "9005:028F:9005:0800", *arguments)
    assert "in-box SmartSAMD" in headline(known)
    assert "fits as well and is not needed" in known.output
    newer = match("--pci", "9005:028F:9005:1400", *arguments)
    assert "needs exraid from package" in headline(newer)
    assert "prefer the package" in newer.output


def test_json(folder: Path) -> None:
    result = match("--pci", "9005:028F:9005:0800", "--drivers", folder, "--json")
    document = json.loads(result.output)
    assert (document["answer"], document["build"]) == ("package", 14393)
    assert document["controller"]["card"] == "SmartRAID 3154-8i"
    assert document["in_box"]["present"] is False
    assert document["in_box"]["known"] == "between"
    (chosen,) = document["packages"]
    assert (chosen["service"], chosen["version"], chosen["rank"]) == ("exraid", "1.2.3.4", "00FF0001")
    assert len(document["refused"]) == 3


def test_a_card_that_is_not_known_is_asked_for(folder: Path) -> None:
    models = r"x = Card_Inst, PCI\VEN_9005&DEV_028F&SUBSYS_08009005"
    (folder / "good" / "exraid.inf").write_bytes(encoded(package(models=models)))
    result = match("--pci", "9005:028F", "--drivers", folder / "good")
    assert result.exit_code == 3
    assert headline(result).endswith("needs SmartPqi; whether a package at hand fits depends on the card")
    assert "fits only cards with the subsystem 08009005" in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("", 2, "Missing option '--pci'"),
        ("--pci 9005", 2, "is no PCI ID"),
        ("--pci 9005:028D --windows 3.11", 2, "is no Windows build"),
        ("--pci 9005:028D --class RAID", 2, "4 or 6 hex digits"),
        ("--pci 9005:028D --drivers /nothing/here", 1, "/nothing/here: No such file"),
    ],
)
def test_wrong_usage(arguments: str, code: int, message: str) -> None:
    result = match(*arguments.split())
    assert result.exit_code == code
    assert message in result.stderr


def test_an_archive_is_no_package_that_does_not_fit(tmp_path: Path) -> None:
    archive = tmp_path / "SmartPQI.zip"
    archive.write_bytes(b"PK\x05\x06" + bytes(18))
    result = match("--pci", "9005:028F", "--drivers", archive)
    assert result.exit_code == 2
    assert "has to be unpacked first" in result.stderr
    assert result.stdout == ""
