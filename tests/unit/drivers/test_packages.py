"""Packages in folders: which fits, in which order, and why not the others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rehost_payload.drivers import packages
from rehost_payload.drivers.packages import Candidate, Refusal, find_infs, judge, judge_one
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.inf_rank import parse_pci
from rehost_payload.formats.inf_target import target_of
from support.infs import SERVICE, encoded, package

DEVICE = parse_pci("9005:028F:9005:0800")
T2016 = target_of("2016")


def put(folder: Path, text: str, *, name: str = "exraid.inf", without: tuple[str, ...] = ()) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file in {"EXRAID.SYS", "exraid.cat"} - set(without):
        (folder / file).write_bytes(b"")
    path = folder / name
    path.write_bytes(encoded(text))
    return path


def refusal(path: Path) -> str:
    found = judge_one(path, DEVICE, T2016)
    assert isinstance(found, Refusal)
    return found.reason


def test_a_package_that_fits(tmp_path: Path) -> None:
    found = judge_one(put(tmp_path, package()), DEVICE, T2016)
    assert isinstance(found, Candidate)
    assert (found.service, found.section, found.rank.text) == ("exraid", "Card_Inst", "00FF0001")
    assert found.device_id == r"PCI\VEN_9005&DEV_028F"
    assert found.warnings == ()


def test_order(tmp_path: Path) -> None:
    exact = r"%Card.DeviceDesc% = Card_Inst, PCI\VEN_9005&DEV_028F&SUBSYS_08009005"
    put(tmp_path / "a-old", package(version="01/01/2015,9.0.0.0"))
    put(tmp_path / "b-new", package(version="01/01/2019,1.0.0.0"))
    put(tmp_path / "c-exact", package(models=exact, version="01/01/2010,0.0.0.1"))
    put(tmp_path / "d-unsigned", package(models=exact, version="01/01/2024,1.0.0.0"), without=("exraid.cat",))
    put(
        tmp_path / "e-feature",
        package(install="CopyFiles=@exraid.sys\nFeatureScore=80", version="01/01/2010,0.0.0.1"),
    )
    candidates, refusals = judge(find_infs([tmp_path]), DEVICE, T2016)
    assert [c.path.parent.name for c in candidates] == [
        "e-feature",
        "c-exact",
        "b-new",
        "a-old",
        "d-unsigned",
    ]
    assert candidates[-1].warnings == ("the catalog exraid.cat is missing",)
    assert refusals == []


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"decoration": "NTamd64.10.0...15063"}, "is for build 15063 and later, not for 14393"),
        ({"decoration": "NTx86"}, "is for x86, not for amd64"),
        ({"decoration": ""}, "names no architecture"),
        ({"models": r"x = Card_Inst, PCI\VEN_1000&DEV_0001"}, "is not for this device"),
        ({"models": r"x = Card_Inst, PCI\VEN_9005&DEV_028F&SUBSYS_08019005"}, "is not for this device"),
        ({"models": r"x = Nothing, PCI\VEN_9005&DEV_028F"}, "there is no install section [Nothing]"),
        ({"extra_version": "ExtensionId = {1}"}, "an Extension INF"),
        ({"service": ""}, "installs no driver"),
        ({"service": "[Card_Inst.Services]\nAddService = ,2"}, "null driver"),
        ({"service": SERVICE.replace("%SERVICE_BOOT_START%", "3")}, "does not start at boot"),
        ({"service": SERVICE.replace("%SERVICE_KERNEL_DRIVER%", "0x10")}, "is no kernel driver"),
        ({"service": SERVICE.replace("%12%", "%16422%")}, "is not in the Windows folder"),
        (
            {"service": SERVICE.replace(r"%12%\exraid", r"%12%\other")},
            "is not among the files that it copies",
        ),
        ({"install": r"CopyFiles = @exraid.sys, @..\x.sys"}, "leads out of its folder"),
        ({"install": "CopyFiles = @exraid.sys, @tool.exe"}, "tool.exe is missing: the package is incomplete"),
    ],
)
def test_refusals(parts: dict[str, str], reason: str, tmp_path: Path) -> None:
    assert reason in refusal(put(tmp_path, package(**parts)))


def test_unreadable_ones_are_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "no INF")
    assert "text before the first section" in refusal(path)
    assert "cannot be read" in refusal(tmp_path / "missing.inf")


def test_the_driver_file_has_to_be_there(tmp_path: Path) -> None:
    assert (
        refusal(put(tmp_path, package(), without=("EXRAID.SYS",)))
        == "exraid.sys is missing: the package is incomplete"
    )


def test_a_link_is_no_file_of_the_package(tmp_path: Path) -> None:
    path = put(tmp_path / "package", package(), without=("EXRAID.SYS",))
    (tmp_path / "elsewhere.sys").write_bytes(b"")
    (tmp_path / "package" / "exraid.sys").symlink_to(tmp_path / "elsewhere.sys")
    assert "exraid.sys is missing" in refusal(path)


def test_a_card_that_is_not_known(tmp_path: Path) -> None:
    models = "\n".join(rf"c{i} = Card_Inst, PCI\VEN_9005&DEV_028F&SUBSYS_080{i}9005" for i in range(3))
    path = put(tmp_path, package(models=models))
    found = judge_one(path, parse_pci("9005:028F"), T2016)
    assert isinstance(found, Candidate)
    assert found.subsystems == ("08009005", "08019005", "08029005")
    certain = judge_one(path, DEVICE, T2016)
    assert isinstance(certain, Candidate)
    assert certain.subsystems == ()


def test_folders_are_searched_in_order_and_links_are_not_followed(tmp_path: Path) -> None:
    for name in ("b/two.INF", "a/x/one.inf", "c.inf", "a/readme.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "link.inf").symlink_to(tmp_path / "c.inf")
    (tmp_path / "folder.inf").mkdir()
    os.mkfifo(tmp_path / "pipe.inf")
    found = [str(p.relative_to(tmp_path)) for p in find_infs([tmp_path, tmp_path / "c.inf"])]
    assert found == ["c.inf", "a/x/one.inf", "b/two.INF", "c.inf"]
    with pytest.raises(FileNotFoundError):
        list(find_infs([tmp_path / "nothing"]))


def test_a_whole_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "MAX_INFS", 3)
    for i in range(4):
        (tmp_path / f"{i}.inf").write_bytes(b"")
    with pytest.raises(FormatError, match="more than 3 INF files"):
        list(find_infs([tmp_path]))


def test_a_file_that_is_there_compressed_only(tmp_path: Path) -> None:
    """As on installation disks of old; the next step is said."""
    path = put(tmp_path, package(), without=("EXRAID.SYS",))
    (tmp_path / "Exraid.sy_").write_bytes(b"SZDD")
    assert refusal(path) == (
        "exraid.sys is there only compressed, as Exraid.sy_: unpack it (expand Exraid.sy_ exraid.sys)"
    )


def test_a_card_that_the_package_excludes(tmp_path: Path) -> None:
    card = r"PCI\VEN_9005&DEV_028F&SUBSYS_08009005"
    excluding = f"CopyFiles = @exraid.sys\nExcludeID = {card}"
    assert refusal(put(tmp_path / "a", package(install=excluding))) == f"[Card_Inst] excludes {card}"
    # another section of the same package is for it
    models = "\n".join(
        rf"%Card.DeviceDesc% = {section}, PCI\VEN_9005&DEV_028F" for section in ("Card_Inst", "Other_Inst")
    )
    other = (
        "[Other_Inst]\nCopyFiles = @exraid.sys\n[Other_Inst.Services]\nAddService = exraid, 2, Card_Service\n"
    )
    found = judge_one(
        put(tmp_path / "b", package(models=models, install=excluding, more=other)), DEVICE, T2016
    )
    assert isinstance(found, Candidate)
    assert found.section == "Other_Inst"
    assert isinstance(judge_one(tmp_path / "a" / "exraid.inf", parse_pci("9005:028F"), T2016), Candidate)


def test_a_driver_that_is_loaded_from_the_store(tmp_path: Path) -> None:
    """As newer packages have it; Server 2016 cannot do that."""
    text = package(service=SERVICE.replace("%12%", "%13%")).replace(
        "DefaultDestDir = 12", "DefaultDestDir = 13"
    )
    path = put(tmp_path, text)
    assert refusal(path) == (
        "exraid is loaded from the driver store, which Windows Server 2016 (10.0.14393) cannot "
        "(Windows 10 1709 and Server 2019 can)"
    )
    found = judge_one(path, DEVICE, target_of("2019"))
    assert isinstance(found, Candidate)
    elsewhere = text.replace("%13%\\exraid.sys", "%13%\\x64\\exraid.sys")
    assert elsewhere != text
    other = judge_one(put(tmp_path / "other", elsewhere), DEVICE, target_of("2019"))
    assert isinstance(other, Refusal)
    assert "is not among the files that it copies" in other.reason
