"""`rehost drivers match`: the answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rehost_payload.ui.drivers_cmd import drivers
from support import packages, signing
from support.infs import package
from support.pe_image import make_pe

pytestmark = pytest.mark.usefixtures("our_authority")


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
        packages.signed(tmp_path / name, text)
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


def test_a_class_that_is_not_known_is_asked_for() -> None:
    asked = match("--pci", "1022:7901")
    assert asked.exit_code == 3
    assert "say its class (--class 010601 for AHCI" in asked.output
    answered = match("--pci", "1022:7901", "--class", "010601")
    assert answered.exit_code == 0
    assert headline(answered).endswith("in-box storahci, only StartOverride has to go")
    unknown = match("--pci", "1022:7901", "--class", "010400")
    assert unknown.exit_code == 3
    assert "--class" not in unknown.output


def test_a_card_that_is_not_known_is_asked_for(folder: Path) -> None:
    models = r"x = Card_Inst, PCI\VEN_9005&DEV_028F&SUBSYS_08009005"
    packages.signed(folder / "good", package(models=models))
    result = match("--pci", "9005:028F", "--drivers", folder / "good")
    assert result.exit_code == 3
    assert headline(result).endswith("needs SmartPqi; whether a package at hand fits depends on the card")
    assert "fits only cards with the subsystem 08009005" in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("", 2, "Missing option '--pci'"),
        ("--pci 9005", 2, "is no PCI ID"),
        ("--pci 9005:028D --pci 9005:028F", 2, "'--pci': given 2 times; run the command once for each"),
        ("--pci 9005:028D --windows 2016 --windows 2019", 2, "'--windows': given 2 times"),
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


def test_what_does_not_verify_is_refused_with_its_reason(tmp_path: Path) -> None:
    """Every one of them fits by its INF alone."""
    sound = packages.files()
    lf = sound["exraid.inf"].decode("utf-16").replace("\r\n", "\n").encode("utf-16")
    stranger = signing.vendor(root_name="Example Public CA")
    cases = {
        "i386": ({"exraid.sys": make_pe("x86", subsystem=1)}, "exraid.sys is for x86, not for amd64"),
        "lf": ({"exraid.inf": lf}, "has other line endings than were signed"),
        "other-catalog": (
            {"exraid.cat": packages.files(image=make_pe(subsystem=1))["exraid.cat"]},
            "is not the file",
        ),
        "no-catalog": ({"exraid.cat": None}, "exraid.cat is missing: the package is not signed"),
        "broken-catalog": ({"exraid.cat": sound["exraid.cat"][:200]}, "exraid.cat cannot be read"),
        "changed-catalog": (
            {"exraid.cat": sound["exraid.cat"].replace("RS1".encode("utf-16-le"), "RS9".encode("utf-16-le"))},
            "the content was changed after it was signed",
        ),
    }
    for name, (changes, _) in cases.items():
        packages.signed(tmp_path / name)
        for file, data in changes.items():
            if data is None:
                (tmp_path / name / file).unlink()
            else:
                (tmp_path / name / file).write_bytes(data)
    packages.put(tmp_path / "stranger", signer=stranger)
    result = match("--pci", "9005:028F:9005:0800", "--drivers", tmp_path)
    assert result.exit_code == 3
    assert headline(result).endswith("most likely needs SmartPqi; no package at hand fits")
    assert "Packages that fit" not in result.output
    lines = result.output.splitlines()
    for name, (_, reason) in {**cases, "stranger": ({}, "is not signed by Microsoft")}.items():
        (line,) = [x for x in lines if x.startswith(f"  {tmp_path}/{name}/exraid.inf: ")]
        assert reason in line
    one = match("--pci", "9005:028F:9005:0800", "--drivers", tmp_path / "i386", "--json")
    document = json.loads(one.output)
    assert (one.exit_code, document["answer"], document["packages"]) == (3, "download", [])
    assert "is for x86" in document["refused"][0]["reason"]


def test_the_verdict_on_a_package_that_fits_is_said(folder: Path) -> None:
    result = match("--pci", "9005:028F:9005:0800", "--drivers", folder / "good")
    assert (
        f"    verified    yes, signed by {signing.PUBLISHER}, but: exraid.sys has no checksum"
        in result.output
    )


def test_a_signer_that_is_not_known_is_said_in_the_headline(tmp_path: Path) -> None:
    top = signing.certify("Microsoft Example Root", ca=True, in_file=False, key=5)
    signer = signing.certify("Microsoft Example Publisher", top, usages=(signing.WHQL,), key=6)
    packages.put(tmp_path, signer=signer)
    result = match("--pci", "9005:028F:9005:0800", "--drivers", tmp_path)
    assert result.exit_code == 0
    assert headline(result).endswith("and whether Windows accepts its signature is not known")
    assert "verified    not known" in result.output


def test_archives_in_a_folder_are_named(folder: Path) -> None:
    (folder / "SmartPQI.zip").write_bytes(b"PK")
    (folder / "good" / "setup.exe").write_bytes(b"MZ")  # beside an INF: a part of that package
    result = match("--pci", "9005:028F:9005:0800", "--drivers", folder)
    assert result.stderr.splitlines() == [
        f"{folder}/SmartPQI.zip was not opened: unpack it, or give it to rehost drivers check or rehost build"
    ]
