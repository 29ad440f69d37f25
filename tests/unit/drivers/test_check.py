"""Verification of packages: catalogs, hashes and binaries, with packages made here for every trap."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pefile
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_builder.drivers.catalog import parse_catalog
from rehost_builder.drivers.check import Level, PackageReport, check_folder, check_package
from rehost_builder.drivers.cli import drivers
from rehost_builder.drivers.pe import file_digests, read_binary
from rehost_payload.formats.errors import FormatError
from support.catalogs import make_catalog
from support.infs import encoded, package
from support.pe_image import make_pe

SERVER = {"OS": "Server_v100_X64_RS1,_v100_X64_RS3"}
INF = encoded(package(), "cp1252")


def driver(
    machine: str = "x64",
    version: str = "1.2.3.4",
    subsystem: int = 1,
    checksum: int | None = None,
    needs: tuple[int, int] = (6, 1),
) -> bytes:
    pe = pefile.PE(data=make_pe(machine, version, subsystem=subsystem), fast_load=True)
    pe.OPTIONAL_HEADER.MajorOperatingSystemVersion, pe.OPTIONAL_HEADER.MinorOperatingSystemVersion = needs
    pe.OPTIONAL_HEADER.CheckSum = pe.generate_checksum() if checksum is None else checksum
    return bytes(pe.write())


def digest(data: bytes) -> bytes:
    """The hash that a catalog holds: Authenticode for programs, which `file_digests` gives beside the flat one."""
    flat = hashlib.sha256(data).digest()
    others = {d for d in file_digests(data) if len(d) == 32} - {flat}
    return others.pop() if others else flat


def put(folder: Path, *, inf: bytes = INF, sys: bytes | None = None, catalog: bytes | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    sys = driver() if sys is None else sys
    if catalog is None:
        catalog = make_catalog({"exraid.inf": digest(inf), "exraid.sys": digest(sys)}, SERVER)
    (folder / "exraid.inf").write_bytes(inf)
    (folder / "exraid.sys").write_bytes(sys)
    (folder / "exraid.cat").write_bytes(catalog)
    return folder / "exraid.inf"


def says(report: PackageReport, level: Level, text: str) -> bool:
    return any(c.level is level and text in c.text for c in report.checks)


def test_a_sound_package(tmp_path: Path) -> None:
    report = check_package(put(tmp_path))
    assert not report.failed
    assert {c.level for c in report.checks} == {Level.PASS, Level.UNKNOWN}
    assert report.services == ("exraid",)
    assert len(report.usable) == 7
    assert says(
        report, Level.UNKNOWN, "names Example Publisher as its signer; that signature is not verified"
    )
    assert says(report, Level.PASS, "was tested for Server_v100_X64_RS1")
    assert says(report, Level.PASS, "is an amd64 kernel driver, signed by the catalog")


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_line_endings_that_git_has_changed(encoding: str, tmp_path: Path) -> None:
    inf = encoded(package(), encoding)
    path = put(tmp_path, inf=inf)
    path.write_bytes(package().encode(encoding))
    report = check_package(path)
    assert report.failed
    assert says(report, Level.FAIL, "its line endings were changed")


def test_a_changed_inf(tmp_path: Path) -> None:
    path = put(tmp_path)
    path.write_bytes(INF.replace(b"Example RAID", b"Tweaked RAID"))
    assert says(check_package(path), Level.FAIL, "is not the file that was signed")


def test_a_changed_driver(tmp_path: Path) -> None:
    path = put(tmp_path)
    sys = driver()
    (tmp_path / "exraid.sys").write_bytes(sys[:-1] + b"\1")
    report = check_package(path)
    assert says(report, Level.FAIL, "is not the file that was signed")
    assert says(report, Level.FAIL, "is not signed: neither inside nor by the catalog")


@pytest.mark.parametrize(
    ("sys", "level", "text"),
    [
        (driver("x86"), Level.FAIL, "is for x86, not for amd64"),
        (driver("arm64"), Level.FAIL, "is for arm64, not for amd64"),
        (driver(subsystem=3), Level.FAIL, "is no kernel driver"),
        (driver(version="1.2.3.5"), Level.WARN, "is version 1.2.3.5, the INF says 1.2.3.4"),
        (driver(checksum=1), Level.FAIL, "has a wrong checksum"),
        (driver(checksum=0), Level.WARN, "has no checksum"),
        (b"no program", Level.FAIL, "DOS"),
        (b"", Level.FAIL, "DOS"),
    ],
)
def test_binaries(sys: bytes, level: Level, text: str, tmp_path: Path) -> None:
    assert says(check_package(put(tmp_path, sys=sys)), level, text)


def test_a_minimum_windows_is_said(tmp_path: Path) -> None:
    assert read_binary(driver(needs=(10, 0))).minimum_os == (10, 0)
    report = check_package(put(tmp_path, sys=driver(needs=(10, 0))))
    assert says(report, Level.WARN, "needs Windows 10.0: not for Windows Server 2008 R2")
    assert not report.failed


@pytest.mark.parametrize(
    ("catalog", "level", "text"),
    [
        (make_catalog({}, SERVER, signer=""), Level.FAIL, "carries no signature"),
        (make_catalog({}, {}), Level.WARN, "does not say for which Windows"),
        (
            make_catalog({}, {"OS": "_v100_X64_Vb"}),
            Level.WARN,
            "no server, and Server 2016 and later may refuse it",
        ),
        (make_catalog({}, SERVER), Level.FAIL, "is not in the catalog"),
        (b"", Level.FAIL, "catalog"),
        (b"\n", Level.FAIL, "catalog"),
        (b"version https://git-lfs.github.com/spec/v1\n", Level.FAIL, "catalog"),
        (make_catalog({}, SERVER)[:-30], Level.FAIL, "catalog"),
    ],
)
def test_catalogs(catalog: bytes, level: Level, text: str, tmp_path: Path) -> None:
    assert says(check_package(put(tmp_path, catalog=catalog)), level, text)


def test_what_is_missing(tmp_path: Path) -> None:
    path = put(tmp_path)
    (tmp_path / "exraid.cat").unlink()
    (tmp_path / "exraid.sys").unlink()
    report = check_package(path)
    assert says(report, Level.FAIL, "is missing: the package is not signed")
    assert [c.text for c in report.checks if c.file == "exraid.sys"] == ["is missing"]


def test_hostile_paths_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"")
    text = package(install=r"CopyFiles = @exraid.sys, @..\secret")
    report = check_package(put(tmp_path / "package", inf=encoded(text)))
    assert says(report, Level.FAIL, "leads out of its folder")


def test_one_bad_package_among_many(tmp_path: Path) -> None:
    put(tmp_path / "00")
    for i in range(1, 30):
        shutil.copytree(tmp_path / "00", tmp_path / f"{i:02}")
    (tmp_path / "15" / "exraid.sys").write_bytes(b"MZ")
    reports = check_folder(tmp_path)
    assert [r.path.parent.name for r in reports if r.failed] == ["15"]
    assert len(reports) == 30


# --- hashes ------------------------------------------------------------------------------------------------


def test_osslsigncode_computes_the_same_hash(tmp_path: Path) -> None:
    if not shutil.which("osslsigncode") or not shutil.which("openssl"):
        pytest.skip("osslsigncode or openssl is not installed (tools/setup.sh test)")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=Test", "-days", "2"]
    subprocess.run([*request, "-keyout", key, "-out", cert], check=True, capture_output=True)
    for i, data in enumerate([driver(), driver("x86"), driver() + b"odd"]):
        plain, signed = tmp_path / f"{i}.sys", tmp_path / f"{i}-signed.sys"
        plain.write_bytes(data)
        sign = [
            "osslsigncode",
            "sign",
            "-h",
            "sha256",
            "-certs",
            cert,
            "-key",
            key,
            "-in",
            plain,
            "-out",
            signed,
        ]
        subprocess.run(sign, check=True, capture_output=True)
        verify = ["osslsigncode", "verify", "-in", signed]
        output = subprocess.run(verify, check=False, capture_output=True, text=True).stdout
        match = re.search(r"Calculated message digest\s*:\s*([0-9A-F]{64})", output)
        assert match is not None, output
        theirs = bytes.fromhex(match.group(1))
        assert theirs in file_digests(data)
        assert theirs in file_digests(signed.read_bytes())
        assert read_binary(signed.read_bytes()).signed_inside
        assert not read_binary(data).signed_inside


DRIVER, CATALOG = driver(), make_catalog({"a.sys": b"\1" * 32}, SERVER)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_damaged_binaries_are_read_or_refused(data: st.DataObject) -> None:
    image = bytearray(DRIVER)
    for _ in range(data.draw(st.integers(1, 6))):
        image[data.draw(st.integers(0, 0x300))] = data.draw(st.integers(0, 255))
    cut = bytes(image[: data.draw(st.integers(0, len(image)))])
    file_digests(cut)
    try:
        read_binary(cut)
    except FormatError as e:
        assert e.what == "driver binary"  # noqa: PT017


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_damaged_catalogs_are_read_or_refused(data: st.DataObject) -> None:
    catalog = bytearray(CATALOG)
    for _ in range(data.draw(st.integers(1, 6))):
        catalog[data.draw(st.integers(0, len(catalog) - 1))] = data.draw(st.integers(0, 255))
    try:
        parse_catalog(bytes(catalog[: data.draw(st.integers(0, len(catalog)))]))
    except FormatError as e:
        assert e.what == "catalog"  # noqa: PT017


# --- command -----------------------------------------------------------------------------------------------


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(drivers, ["check", *map(str, args)])


def test_command(tmp_path: Path) -> None:
    put(tmp_path / "good")
    good = run(tmp_path)
    assert good.exit_code == 0
    assert f"{tmp_path}/good/exraid.inf: no fault found" in good.output
    assert "Windows Server 2008 R2, 2012, 2012 R2, 2016, 2019, 2022, 2025" in good.output
    assert "PASS" not in good.output
    assert "PASS     exraid.sys has the hash that the catalog holds" in run("-v", tmp_path).output
    put(tmp_path / "bad", sys=driver("x86"))
    bad = run(tmp_path)
    assert bad.exit_code == 3
    assert "FAIL     exraid.sys is for x86, not for amd64" in bad.output
    assert "2 packages, 1 failed" in bad.output
    document = json.loads(run("--json", tmp_path).output)
    assert [p["failed"] for p in document] == [True, False]


def test_nothing_to_check(tmp_path: Path) -> None:
    assert run(tmp_path).exit_code == 3
    missing = run(tmp_path / "nothing")
    assert missing.exit_code == 1
    assert "No such file" in missing.stderr
