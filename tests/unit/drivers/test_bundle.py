"""Driver packages on their way to the medium."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from rehost_builder.cli import main
from rehost_builder.debian import build
from rehost_builder.debian.build import DebianOptions, expected_steps
from rehost_builder.drivers import bundle
from rehost_builder.drivers.bundle import collect, default_sources
from rehost_builder.errors import BuildError
from rehost_builder.progress import Progress
from rehost_payload.drivers.packages import Candidate, judge_one
from rehost_payload.formats import pkcs7
from rehost_payload.formats.inf_rank import parse_pci
from rehost_payload.formats.inf_target import target_of
from support import signing
from support.infs import encoded, package
from support.packages import INF, OURS, driver, put


@pytest.fixture(autouse=True)
def _our_authority(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pkcs7, "MICROSOFT", OURS)


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def zipped(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in tree(folder).items():
            archive.writestr(name, data)
    return path


def refusal(*sources: Path, place: Path, allow: bool = False) -> BuildError:
    with pytest.raises(BuildError) as caught:
        collect(sources, place, allow_unverified=allow)
    return caught.value


def test_a_package_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    source = tmp_path / "in" / "vendor"
    put(source / "x64")
    (source / "x64" / "readme.txt").write_bytes(b"not part of the package")
    found = collect([source], tmp_path / "out")
    (one,) = found.packages
    assert one.folder.startswith("exraid_1.2.3.4_")
    manifest = json.loads((tmp_path / "out" / "packages.json").read_bytes())
    assert [(p["folder"], p["verified"]) for p in manifest["packages"]] == [(one.folder, "yes")]
    assert {f["path"]: f["sha256"] for f in manifest["packages"][0]["files"]} == {
        f.path: f.sha256 for f in one.files
    }
    (tmp_path / "out" / "packages.json").unlink()
    assert tree(tmp_path / "out") == {
        f"{one.folder}/{p.name}": p.read_bytes() for p in (source / "x64").iterdir() if p.suffix != ".txt"
    }
    assert (one.verified, one.problems) == ("yes", ())
    assert one.source == "vendor/x64/exraid.inf"
    assert [f.path for f in one.files] == ["exraid.cat", "exraid.inf", "exraid.sys"]
    assert one.files[1].sha256 == hashlib.sha256(INF).hexdigest()
    assert one.size == found.size == sum(f.size for f in one.files)
    assert one.windows[3:] == ("Windows Server 2016 (10.0.14393)", *one.windows[4:])
    # what the payload will make of it
    inf = found.place / one.folder / one.inf
    assert isinstance(judge_one(inf, parse_pci("9005:028F"), target_of("2016")), Candidate)


def test_the_same_packages_give_the_same_folders(tmp_path: Path) -> None:
    put(tmp_path / "a" / "p")
    put(tmp_path / "a" / "q", inf=encoded(package(version="01/01/2021,2.0.0.0")))
    first = collect([tmp_path / "a"], tmp_path / "1")
    archive = zipped(tmp_path / "b.zip", tmp_path / "a")
    second = collect([archive, tmp_path / "a", archive], tmp_path / "2")
    assert tree(tmp_path / "1") == tree(tmp_path / "2")
    assert [p.folder for p in first.packages] == [p.folder for p in second.packages]
    assert [p.source for p in second.packages] == ["b.zip/p/exraid.inf", "b.zip/q/exraid.inf"]
    # nothing of this machine in what the medium says of itself
    assert str(tmp_path) not in json.dumps(second.described())


def test_two_versions_do_not_share_a_folder(tmp_path: Path) -> None:
    put(tmp_path / "a" / "p")
    put(tmp_path / "a" / "q", sys=driver(fill=b"other"))
    found = collect([tmp_path / "a"], tmp_path / "out")
    assert len({p.folder for p in found.packages}) == 2


def test_subfolders_of_a_package_are_kept(tmp_path: Path) -> None:
    text = package().replace("1 = %Disk%,,,", r"1 = %Disk%,,,\x64")
    inf = encoded(text, "cp1252")
    put(tmp_path / "a", inf=inf)
    (tmp_path / "a" / "X64").mkdir()
    (tmp_path / "a" / "exraid.sys").rename(tmp_path / "a" / "X64" / "exraid.sys")
    (one,) = collect([tmp_path / "a"], tmp_path / "out").packages
    assert "X64/exraid.sys" in [f.path for f in one.files]
    assert (tmp_path / "out" / one.folder / "X64" / "exraid.sys").is_file()


def test_what_is_no_boot_driver_is_left_out_and_named(tmp_path: Path) -> None:
    source = tmp_path / "vendor"
    put(source / "x64")
    put(source / "x86", inf=encoded(package(decoration="NTx86")))
    found = collect([source], tmp_path / "out")
    assert len(found.packages) == 1
    assert [(one.source, one.reason.partition(":")[0]) for one in found.left_out] == [
        ("vendor/x86/exraid.inf", "for no Windows Server on x64")
    ]
    (note,) = found.notes()
    assert note.startswith("left out: vendor/x86/exraid.inf: for no Windows Server on x64")


def test_a_source_without_any_boot_driver_is_an_error(tmp_path: Path) -> None:
    put(tmp_path / "x86", inf=encoded(package(decoration="NTx86")))
    error = refusal(tmp_path / "x86", place=tmp_path / "out")
    assert "x86 holds no boot driver for Windows Server on x64: for no Windows Server" in error.message
    (tmp_path / "empty").mkdir()
    assert "holds no boot driver" in refusal(tmp_path / "empty", place=tmp_path / "out").message
    assert "No such file" in refusal(tmp_path / "nothing", place=tmp_path / "out").message


def test_programs_in_a_folder_are_opened_or_named(tmp_path: Path) -> None:
    """A vendor's self-extracting archive is unpacked; a program that is none is said to be left out."""
    put(tmp_path / "source")
    folder = tmp_path / "in"
    (folder / "tools").mkdir(parents=True)
    zipped(folder / "SmartPQI.exe", tmp_path / "source")
    data = (folder / "SmartPQI.exe").read_bytes()
    (folder / "SmartPQI.exe").write_bytes(b"MZ" + bytes(62) + data)
    (folder / "tools" / "arcconf.exe").write_bytes(b"MZ" + bytes(600))
    found = collect([folder], tmp_path / "out")
    assert [p.source for p in found.packages] == ["in/SmartPQI.exe/exraid.inf"]
    (left,) = found.left_out
    assert left.source == "in/tools/arcconf.exe"
    assert left.reason.startswith("not opened: arcconf.exe")
    assert any("in/tools/arcconf.exe" in note for note in found.notes())
    result = CliRunner().invoke(main, ["drivers", "check", str(folder)])
    assert result.exit_code == 0, result.output
    assert f"{folder}/tools/arcconf.exe was not opened: arcconf.exe" in result.stderr
    assert f"{folder}/SmartPQI.exe/exraid.inf: usable" in result.stdout
    # one that was named for itself is an error
    error = refusal(folder / "tools" / "arcconf.exe", place=tmp_path / "other")
    assert "arcconf.exe" in error.message


def test_unsound_packages_are_refused_all_at_once(tmp_path: Path) -> None:
    put(tmp_path / "a" / "good")
    put(tmp_path / "a" / "tweaked").write_bytes(INF.replace(b"Example RAID", b"Tweaked RAID"))
    put(tmp_path / "a" / "wrong", sys=driver("x86"))
    error = refusal(tmp_path / "a", place=tmp_path / "out")
    assert "a/tweaked/exraid.inf: exraid.inf is not the file that was signed" in error.message
    assert "a/wrong/exraid.inf: exraid.sys is for x86, not for amd64" in error.message
    assert "good" not in error.message
    assert "--allow-unverified-drivers" in error.hint


def test_only_signatures_may_be_overridden(tmp_path: Path) -> None:
    put(tmp_path / "a" / "test-signed", signer=signing.test_signer())
    found = collect([tmp_path / "a"], tmp_path / "out", allow_unverified=True)
    (one,) = found.packages
    assert one.verified == "no"
    (note,) = found.notes()
    assert note.startswith("warning: a/test-signed/exraid.inf: is not verified: exraid.cat is test-signed")
    assert "exraid.cat is test-signed" in one.problems[0]
    assert len(one.windows) == 7
    put(tmp_path / "a" / "wrong", sys=driver("x86"), signer=signing.test_signer())
    error = refusal(tmp_path / "a", place=tmp_path / "out2", allow=True)
    assert "a/wrong/exraid.inf: exraid.sys is for x86" in error.message
    assert "test-signed" not in error.message


def test_a_signer_that_is_not_known_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pkcs7, "MICROSOFT", frozenset())
    put(tmp_path / "a", signer=signing.vendor(root_name="Microsoft Root Certificate Authority 2030"))
    (one,) = collect([tmp_path / "a"], tmp_path / "out").packages
    assert one.verified == "signer not known"
    assert "by a certificate not known here" in one.problems[0]


def test_links_are_not_followed(tmp_path: Path) -> None:
    put(tmp_path / "a")
    (tmp_path / "a" / "exraid.sys").unlink()
    (tmp_path / "a" / "exraid.sys").symlink_to("/etc/passwd")
    assert "exraid.sys is missing" in refusal(tmp_path / "a", place=tmp_path / "out").message


def test_too_much_for_a_medium(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "a")
    monkeypatch.setattr(bundle, "MAX_TOTAL", 1000)
    assert "held in memory" in refusal(tmp_path / "a", place=tmp_path / "out").message


# --- the command -------------------------------------------------------------------------------------------


def test_the_folder_of_the_project_is_taken_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_sources() == ()
    (tmp_path / "drivers/packages").mkdir(parents=True)
    (tmp_path / "drivers/packages/.gitkeep").touch()
    assert default_sources() == ()
    put(tmp_path / "drivers/packages/vendor")
    assert default_sources() == (Path("drivers/packages"),)
    (one,) = collect(default_sources(), tmp_path / "out").packages
    assert one.source == "packages/vendor/exraid.inf"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], (Path("drivers/packages"),)),
        (["--no-drivers"], ()),
        (["--drivers", "a", "--drivers", "b.zip"], (Path("a"), Path("b.zip"))),
    ],
)
def test_options(
    arguments: list[str], expected: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "drivers/packages/vendor")
    (tmp_path / "a").mkdir()
    (tmp_path / "b.zip").touch()
    given: list[DebianOptions] = []

    def stop(options: DebianOptions, progress: Progress) -> None:
        given.append(options)
        raise BuildError("stop")

    monkeypatch.setattr(build, "build_debian_iso", stop)
    assert CliRunner().invoke(main, ["build", "-q", *arguments]).exit_code == 1
    assert given[0].drivers == expected
    assert given[0].allow_unverified_drivers is False
    assert ("drivers" in expected_steps(given[0])) is bool(expected)


def test_options_that_exclude_each_other() -> None:
    result = CliRunner().invoke(main, ["build", "--no-drivers", "--drivers", "x"])
    assert result.exit_code == 2


def test_a_bad_package_stops_the_build_before_anything_else(tmp_path: Path) -> None:
    put(tmp_path / "a", sys=driver("x86"))
    output = tmp_path / "out" / "x.iso"
    arguments = ["build", "-q", "--cache", tmp_path / "cache", "--drivers", tmp_path / "a", "-o", output]
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == 1
    assert "exraid.sys is for x86" in result.stderr
    assert os.listdir(tmp_path / "out") == []  # noqa: PTH208
