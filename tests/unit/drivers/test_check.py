"""Verification of packages: catalogs, hashes and binaries, with packages made here for every trap."""

from __future__ import annotations

import errno
import json
import re
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pefile
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_builder.drivers.cli import drivers
from rehost_payload.drivers import packages as packages_module
from rehost_payload.drivers.binary import read_binary
from rehost_payload.drivers.check import Kind, Level, PackageReport, check_folder, check_package
from rehost_payload.formats import pkcs7
from rehost_payload.formats.authenticode import file_digests, read_signature
from rehost_payload.formats.catalog import parse_catalog
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.pkcs7 import WHQL, Trust
from support import catalogs, signing
from support.catalogs import make_catalog
from support.driver_image import make_driver
from support.infs import SERVICE, encoded, package
from support.packages import INF, OURS, SERVER, digest, driver, put
from support.pe_image import make_pe
from support.signing import PUBLISHER, Authority


def judged(path: Path) -> PackageReport:
    """With the tests' own authority in the place of Microsoft's."""
    return check_package(path, OURS)


def says(report: PackageReport, level: Level, text: str) -> bool:
    return any(c.level is level and text in c.text for c in report.checks)


def test_a_sound_package(tmp_path: Path) -> None:
    report = judged(put(tmp_path))
    assert report.kind is Kind.USABLE
    assert report.services == ("exraid",)
    assert len(report.usable) == 7
    assert {v.target.build: v.level for v in report.verdicts if v.level is not Level.WARN} == {
        14393: Level.PASS,
        17763: Level.PASS,
        20348: Level.PASS,
        26100: Level.PASS,
    }
    assert says(report, Level.PASS, f"has a valid signature of {PUBLISHER}")
    assert says(report, Level.PASS, f"is signed by Microsoft (WHQL; {PUBLISHER} < Example Third Party")
    assert says(report, Level.PASS, "was tested for Server_v100_X64_RS1")
    assert says(report, Level.WARN, "for later servers only")
    assert says(report, Level.PASS, "is an amd64 kernel driver, signed by the catalog")
    assert report.files == ("exraid.inf", "exraid.cat", "exraid.sys")
    assert report.ids == (r"PCI\VEN_9005&DEV_028F",)


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_line_endings_that_git_has_changed(encoding: str, tmp_path: Path) -> None:
    inf = encoded(package(), encoding)
    path = put(tmp_path, inf=inf)
    path.write_bytes(package().encode(encoding))
    report = judged(path)
    assert report.failed
    assert says(report, Level.FAIL, "has other line endings than were signed")


def test_a_changed_inf(tmp_path: Path) -> None:
    path = put(tmp_path)
    path.write_bytes(INF.replace(b"Example RAID", b"Tweaked RAID"))
    assert says(judged(path), Level.FAIL, "is not the file that was signed")


def test_a_changed_driver(tmp_path: Path) -> None:
    path = put(tmp_path)
    sys = driver()
    (tmp_path / "exraid.sys").write_bytes(sys[:-1] + b"\1")
    report = judged(path)
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
        (b"no program", Level.FAIL, "MZ"),
        (b"", Level.FAIL, "MZ"),
    ],
)
def test_binaries(sys: bytes, level: Level, text: str, tmp_path: Path) -> None:
    assert says(judged(put(tmp_path, sys=sys)), level, text)


@pytest.mark.parametrize(
    "data",
    [
        driver(),
        driver("x86"),
        driver("arm64", version="9.8.7.6", subsystem=2, needs=(10, 0)),
        driver(checksum=0),
        driver(checksum=7),
        make_driver({"ntoskrnl.exe": ["IoCreateDevice", "#7"], "storport.sys": ["StorPortInitialize"]}),
        signing.with_signature(driver(), signing.whql()),
    ],
)
def test_binaries_as_pefile_has_them(data: bytes) -> None:
    ours, theirs = read_binary(data), pefile.PE(data=data)
    header = theirs.OPTIONAL_HEADER
    assert {"x86": 0x14C, "amd64": 0x8664, "arm64": 0xAA64}[ours.machine] == theirs.FILE_HEADER.Machine
    assert ours.native is (header.Subsystem == 1)
    assert ours.minimum_os == (header.MajorOperatingSystemVersion, header.MinorOperatingSystemVersion)
    assert ours.checksum_ok == (theirs.verify_checksum() if header.CheckSum else None)
    assert ours.signed_inside is (header.DATA_DIRECTORY[4].Size > 0)
    assert list(ours.imports) == [i.dll.decode() for i in getattr(theirs, "DIRECTORY_ENTRY_IMPORT", [])]
    fixed = getattr(theirs, "VS_FIXEDFILEINFO", None)
    words = (fixed[0].FileVersionMS, fixed[0].FileVersionLS) if fixed else None
    assert ours.version == (tuple(n >> s & 0xFFFF for n in words for s in (16, 0)) if words else None)


def test_a_minimum_windows_is_said(tmp_path: Path) -> None:
    assert read_binary(driver(needs=(10, 0))).minimum_os == (10, 0)
    report = judged(put(tmp_path, sys=driver(needs=(10, 0))))
    assert says(report, Level.WARN, "needs Windows 10.0: not for Windows Server 2008 R2")
    assert not report.failed


@pytest.mark.parametrize(
    ("catalog", "level", "text"),
    [
        (lambda: make_catalog({}, SERVER, signed=False), Level.FAIL, "carries no signature"),
        (lambda: make_catalog({}, {}), Level.WARN, "does not say for which Windows"),
        (
            lambda: make_catalog({}, {"OS": "_v100_X64_Vb"}),
            Level.WARN,
            "no server, and Server 2016 and later may refuse it",
        ),
        (lambda: make_catalog({}, {"OS": "XPX86,7X86"}), Level.WARN, "nothing of it is Windows on x64"),
        (lambda: make_catalog({}, {"OS": "Server_v100_X64_29H9"}), Level.WARN, "which servers these are"),
        (lambda: make_catalog({}, SERVER), Level.FAIL, "is not in the catalog"),
        (lambda: b"", Level.FAIL, "catalog"),
        (lambda: b"\n", Level.FAIL, "catalog"),
        (lambda: b"version https://git-lfs.github.com/spec/v1\n", Level.FAIL, "catalog"),
        (lambda: make_catalog({}, SERVER)[:-30], Level.FAIL, "catalog"),
    ],
)
def test_catalogs(catalog: Callable[[], bytes], level: Level, text: str, tmp_path: Path) -> None:
    assert says(judged(put(tmp_path, catalog=catalog())), level, text)


def test_what_is_missing(tmp_path: Path) -> None:
    path = put(tmp_path)
    (tmp_path / "exraid.cat").unlink()
    (tmp_path / "exraid.sys").unlink()
    report = judged(path)
    assert says(report, Level.FAIL, "is missing: the package is not signed")
    assert [c.text for c in report.checks if c.file == "exraid.sys"] == [
        "is missing: the package is incomplete"
    ]


def test_hostile_paths_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"")
    text = package(install=r"CopyFiles = @exraid.sys, @..\secret")
    report = judged(put(tmp_path / "package", inf=encoded(text)))
    assert says(report, Level.FAIL, "leads out of its folder")


def test_one_bad_package_among_many(tmp_path: Path) -> None:
    put(tmp_path / "00")
    for i in range(1, 30):
        shutil.copytree(tmp_path / "00", tmp_path / f"{i:02}")
    (tmp_path / "15" / "exraid.sys").write_bytes(b"MZ")
    reports = check_folder(tmp_path, OURS)
    assert [r.path.parent.name for r in reports if r.failed] == ["15"]
    assert len(reports) == 30


# --- who signed it -----------------------------------------------------------------------------------------


def sealed(signer: Authority | None, **kwargs: Any) -> bytes:
    return make_catalog(
        {"exraid.inf": digest(INF), "exraid.sys": digest(driver())}, SERVER, signer=signer, **kwargs
    )


def levels(report: PackageReport) -> dict[int, Level]:
    return {v.target.build: v.level for v in report.verdicts}


OLD, MODERN = (7601, 9200, 9600), (14393, 17763, 20348, 26100)


@pytest.mark.parametrize(
    ("signer", "old", "modern", "text"),
    [
        (signing.test_signer, Level.FAIL, Level.FAIL, "is test-signed (WDKTestCert tester)"),
        (signing.vendor, Level.FAIL, Level.FAIL, "is not signed by Microsoft"),
        (signing.attested, Level.WARN, Level.FAIL, "is signed by attestation"),
        (
            lambda: signing.vendor(2014, "Microsoft Code Verification Root"),
            Level.UNKNOWN,
            Level.WARN,
            "with a certificate of 2014-01-01: a machine with Secure Boot on refuses it",
        ),
        (
            lambda: signing.vendor(2018, "Microsoft Code Verification Root"),
            Level.UNKNOWN,
            Level.FAIL,
            "with a certificate of 2018-01-01: Windows takes those from before 2015-07-29, with Secure Boot on none",
        ),
        (
            lambda: signing.vendor(root_name="Microsoft Root Certificate Authority 2030"),
            Level.UNKNOWN,
            Level.UNKNOWN,
            "by a certificate not known here",
        ),
    ],
    ids=["test", "vendor", "attested", "cross-signed", "cross-signed too late", "new Microsoft CA"],
)
def test_signers(
    signer: Callable[[], Authority], old: Level, modern: Level, text: str, tmp_path: Path
) -> None:
    report = judged(put(tmp_path, catalog=sealed(signer())))
    assert levels(report) == dict.fromkeys(OLD, old) | dict.fromkeys(MODERN, modern)
    assert any(text in c.text for c in report.checks)


def test_a_machine_with_secure_boot_refuses_what_the_vendor_alone_has_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = signing.vendor(2014, "Microsoft Code Verification Root")
    report = judged(put(tmp_path, catalog=sealed(signer)))
    assert {v.target.build: v.secure_boot for v in report.verdicts} == dict.fromkeys(
        OLD, True
    ) | dict.fromkeys(MODERN, False)
    assert not any(v.secure_boot is False for v in judged(put(tmp_path / "sound")).verdicts)
    monkeypatch.setattr(pkcs7, "MICROSOFT", OURS)
    table = run(tmp_path).stdout
    assert "Server 2016, 2019, 2022, 2025: yes, but\n" in table
    assert "a machine with Secure Boot on refuses it, one without loads it" in table
    document = {Path(p["path"]).parent.name: p for p in json.loads(run("--json", tmp_path).stdout)}
    assert [w["secure_boot_refuses"] for w in document[tmp_path.name]["windows"]] == [False] * 3 + [True] * 4
    assert not any(w["secure_boot_refuses"] for w in document["sound"]["windows"])


STAMPED = datetime(2019, 4, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("signer", "stamp", "level", "text"),
    [
        (
            signing.whql,
            None,
            Level.PASS,
            "has no timestamp; its certificate is valid from 2020-01-01 to 2049-01-01",
        ),
        (
            signing.expired,
            signing.Stamp(STAMPED),
            Level.PASS,
            "was signed on 2019-04-02 (timestamp of Example Time-Stamp Service 2015 2049 1), its certificate is valid from 2018-01-01 to 2020-01-01",
        ),
        (signing.expired, None, Level.WARN, "has no timestamp, and its certificate expired on 2020-01-01"),
        (
            signing.expired,
            signing.Stamp(datetime(2021, 1, 1, tzinfo=UTC)),
            Level.WARN,
            "was signed on 2021-01-01 (timestamp of Example Time-Stamp Service 2015 2049 1), its certificate is valid from 2018-01-01 to 2020-01-01 only",
        ),
        (
            signing.expired,
            signing.Stamp(STAMPED, over=b"another"),
            Level.WARN,
            "has a timestamp that is not valid (it is that of another signature), and its certificate expired",
        ),
        (
            signing.whql,
            signing.Stamp(STAMPED, over=b"another"),
            Level.WARN,
            "has a timestamp that is not valid (it is that of another signature); its certificate is valid",
        ),
    ],
)
def test_dates(
    signer: Callable[[], Authority], stamp: signing.Stamp | None, level: Level, text: str, tmp_path: Path
) -> None:
    """An expired certificate is as good as ever where somebody else vouches for the day; else that is said."""
    report = judged(put(tmp_path, catalog=sealed(signer(), stamp=stamp)))
    assert says(report, level, text), [c.text for c in report.checks]
    assert report.kind is Kind.USABLE
    assert levels(report)[14393] is level


def test_dates_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pkcs7, "MICROSOFT", OURS)
    put(tmp_path, catalog=sealed(signing.expired(), stamp=signing.Stamp(STAMPED, token=False)))
    result = run(tmp_path)
    assert result.exit_code == 0
    assert "signed 2019-04-02 (timestamp), certificate valid 2018-01-01 to 2020-01-01\n" in result.stdout
    assert "expired" not in result.stdout
    (one,) = json.loads(run("--json", tmp_path).stdout)
    assert one["signature"]["expires"] == "2020-01-01"
    assert one["signature"]["timestamp"] == {
        "day": "2019-04-02",
        "by": "Example Time-Stamp Service 2015 2049 1",
        "problem": None,
    }


def test_a_name_alone_makes_nobody_microsoft(tmp_path: Path) -> None:
    """The same names all the way up, other keys."""
    forged_ca = signing.certify(
        "Example Third Party Component CA", signing.root(), ca=True, key=7, issued=2021
    )
    forged = signing.certify(PUBLISHER, forged_ca, usages=(WHQL,), key=8)
    report = judged(put(tmp_path, catalog=sealed(forged)))
    assert report.signature is not None
    assert report.signature.trust is not Trust.MICROSOFT
    assert levels(report)[14393] is Level.FAIL


def test_a_publisher_that_issues_certificates_is_not_believed(tmp_path: Path) -> None:
    below = signing.certify("Example Vendor, Inc.", signing.whql(), usages=(WHQL,), key=9)
    report = judged(put(tmp_path, catalog=sealed(below)))
    assert report.kind is Kind.UNUSABLE
    assert says(report, Level.FAIL, "may not issue others")


def test_signatures_that_are_not_valid(tmp_path: Path) -> None:
    """Every byte that matters: the list itself, the hash of it, the signature, the certificate."""
    whole = sealed(None)
    member = digest(INF)
    at = whole.index(member)
    changed = whole[:at] + bytes(32) + whole[at + 32 :]
    assert says(judged(put(tmp_path / "a", catalog=changed)), Level.FAIL, "changed after it was signed")
    broken = whole[:-1] + bytes([whole[-1] ^ 1])
    report = judged(put(tmp_path / "b", catalog=broken))
    assert says(report, Level.FAIL, "the signature is not that of the certificate it names")
    assert report.only_signature
    name = whole.index(PUBLISHER.encode())
    renamed = whole[:name] + b"Y" + whole[name + 1 :]
    report = judged(put(tmp_path / "c", catalog=renamed))
    assert says(report, Level.FAIL, "is not signed by its issuer")
    assert report.kind is Kind.UNUSABLE


def test_signatures_of_other_shapes(tmp_path: Path) -> None:
    """SHA-1 and no signed attributes, as old catalogs have it."""
    members = {"exraid.inf": digest(INF), "exraid.sys": digest(driver())}
    plain = catalogs.trust_list(members, SERVER)
    for i, options in enumerate(({"digest": "sha1"}, {"attributes": False})):
        signed = signing.signed_data(catalogs.CTL, plain, signing.whql(), **options)  # type: ignore[arg-type]
        report = judged(put(tmp_path / str(i), catalog=signed))
        assert report.signature is not None
        assert report.signature.problem is None
        assert levels(report)[14393] is Level.PASS
    assert says(report, Level.WARN, "is signed with SHA-256, which needs update KB3033929")


def test_osslsigncode_agrees_about_our_catalogs(tmp_path: Path) -> None:
    if not shutil.which("osslsigncode"):
        pytest.skip("osslsigncode is not installed (tools/setup.sh test)")
    good = sealed(None)
    at = good.index(digest(INF))
    (tmp_path / "root.pem").write_bytes(signing.root().pem)
    for name, data in (("good", good), ("bad", good[:at] + bytes(32) + good[at + 32 :])):
        (tmp_path / f"{name}.cat").write_bytes(data)
        argv = ["osslsigncode", "verify", "-CAfile", "root.pem", "-in", f"{name}.cat"]
        theirs = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
        ours = parse_catalog(data, OURS).signature
        assert ours is not None
        assert (theirs.returncode == 0) is (ours.problem is None) is (name == "good"), theirs.stdout
    for name, data in (("held", driver()), ("changed", driver(fill=b"changed"))):
        (tmp_path / f"{name}.sys").write_bytes(data)
        argv = ["osslsigncode", "verify", "-CAfile", "root.pem", "-catalog", "good.cat", "-in", f"{name}.sys"]
        theirs = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
        held = parse_catalog(good, OURS).holds(file_digests(data))
        assert (theirs.returncode == 0) is held is (name == "held"), theirs.stdout


def test_signatures_inside_drivers(tmp_path: Path) -> None:
    signed = signing.with_signature(driver(), signing.whql())
    found = read_signature(signed, OURS)
    assert found is not None
    assert (found.problem, found.trust) == (None, Trust.MICROSOFT)
    assert read_signature(driver()) is None
    pe = pefile.PE(data=signed, fast_load=True)
    pe.OPTIONAL_HEADER.CheckSum = pe.generate_checksum()
    signed = bytes(pe.write())
    report = judged(put(tmp_path / "good", sys=signed))
    assert says(report, Level.PASS, f"signed inside by {PUBLISHER}")
    other = signing.with_signature(driver(checksum=0), signing.whql(), of=driver("x86"))
    report = judged(put(tmp_path / "other", sys=other))
    assert says(report, Level.FAIL, "a signature inside that is not valid: the file was changed")
    assert report.only_signature


# --- other traps -------------------------------------------------------------------------------------------


def test_an_inf_for_newer_builds_only(tmp_path: Path) -> None:
    """Intel's packages look like this, and are handed out for Server 2016 nevertheless."""
    inf = encoded(package(decoration="NTamd64.10.0...15063"), "cp1252")
    report = judged(put(tmp_path, inf=inf))
    assert [t.build for t in report.usable] == [17763, 20348, 26100]
    refused = {v.target.build: v.reasons for v in report.verdicts if v.level is Level.FAIL}
    assert "for build 15063 and later, not for 14393" in refused[14393][0]
    assert "does not understand" in refused[9600][0]


@pytest.mark.parametrize(
    ("inf", "why"),
    [
        (package(extra_version="ExtensionId = {11111111-2222-3333-4444-555555555555}"), "an Extension INF"),
        (package(service="[Card_Inst.Services]\nAddService = ,2\n"), "null driver"),
        (package(decoration="NTx86"), "for no Windows Server on x64: [Models.NTx86] for x86"),
        (package(service=SERVICE.replace("%SERVICE_BOOT_START%", "3")), "exraid does not start at boot"),
    ],
    ids=["extension", "null driver", "x86", "demand start"],
)
def test_what_is_no_boot_driver_is_said_and_no_fault(inf: str, why: str, tmp_path: Path) -> None:
    data = encoded(inf, "cp1252")
    report = judged(put(tmp_path, inf=data))
    assert report.kind is Kind.OTHER
    assert why in report.other
    assert report.usable == ()
    assert run(tmp_path).exit_code == 3


def test_a_driver_that_is_not_copied_is_said_as_by_match(tmp_path: Path) -> None:
    text = package().replace("DefaultDestDir = 12", "DefaultDestDir = 10,System32")
    report = judged(put(tmp_path, inf=encoded(text, "cp1252")))
    assert says(
        report, Level.WARN, "the driver of exraid, %12%\\exraid.sys, is not among the files that it copies"
    )


def test_a_library_that_windows_may_not_load_at_boot_is_said(tmp_path: Path) -> None:
    plain = make_driver({"ntoskrnl.exe": ["IoCreateDevice"], "storport.sys": ["StorPortInitialize"]})
    odd = make_driver({"ntoskrnl.exe": ["IoCreateDevice"], "vendor.sys": ["Helper"]})
    text = "is linked to vendor.sys, which Windows may not load at boot"
    assert not says(judged(put(tmp_path / "a", sys=plain)), Level.WARN, "is linked to")
    assert says(judged(put(tmp_path / "b", sys=odd)), Level.WARN, text)


def test_several_services_of_a_section(tmp_path: Path) -> None:
    more = SERVICE.replace(
        "[Card_Service]", "AddService = exfilter,, Filter_Service\n[Card_Service]", 1
    ) + SERVICE.split("[Card_Service]")[1].split("[Card_Parameters]")[0].replace(
        "exraid.sys", "exfilter.sys"
    ).join(("[Filter_Service]", ""))
    report = judged(put(tmp_path, inf=encoded(package(service=more), "cp1252")))
    assert report.services == ("exraid", "exfilter")


def test_two_packages_for_one_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pkcs7, "MICROSOFT", OURS)
    for name, version in (("a-old", "01/01/2015,9.0.0.0"), ("b-new", "01/01/2019,1.0.0.0")):
        put(tmp_path / name, inf=encoded(package(version=version), "cp1252"))
    lines = run(tmp_path).output.splitlines()
    at = lines.index(r"PCI\VEN_9005&DEV_028F is in several packages; Windows takes them in this order:")
    assert [line.split()[0] for line in lines[at + 1 : at + 3]] == [
        f"{tmp_path}/b-new/exraid.inf",
        f"{tmp_path}/a-old/exraid.inf",
    ]
    assert not any("no better" in line for line in lines)
    two = "%Card.DeviceDesc% = Card_Inst, PCI\\VEN_9005&DEV_028F, PCI\\VEN_9005&DEV_028D"
    for name in ("c-same", "d-same"):
        put(tmp_path / name, inf=encoded(package(models=two, version="01/01/2020,1.0.0.0"), "cp1252"))
    text = run(tmp_path).output
    assert "DEV_028D is in several packages" in text
    assert f"{tmp_path}/d-same/exraid.inf (1.0.0.0 of 2020-01-01), no better than the one before it\n" in text
    run_alone = run(tmp_path / "c-same", tmp_path / "d-same").output
    assert "and 1 more ID are in several packages" in run_alone


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
        inside = read_signature(signed.read_bytes())
        assert inside is not None
        assert (inside.problem, inside.trust, inside.signer) == (None, Trust.TEST, "Test")
        assert read_binary(signed.read_bytes()).signed_inside
        assert not read_binary(data).signed_inside


DRIVER, CATALOG = driver(), make_catalog({"a.sys": b"\1" * 32}, SERVER)
SIGNED = signing.with_signature(DRIVER, signing.whql())


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


@settings(max_examples=10, deadline=None)
@given(st.binary(min_size=8, max_size=300), st.integers(0, 0xFFFFFFFF))
def test_checksums_are_those_of_pefile(fill: bytes, old: int) -> None:
    pe = pefile.PE(data=make_pe(fill=fill), fast_load=True)
    for value in (pe.generate_checksum(), old):
        pe.OPTIONAL_HEADER.CheckSum = value
        data = bytes(pe.write())
        theirs = pefile.PE(data=data, fast_load=True).verify_checksum() if value else None
        assert read_binary(data).checksum_ok is theirs


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_damaged_signatures_are_read_or_refused(data: st.DataObject) -> None:
    image = bytearray(SIGNED)
    start = len(driver())
    for _ in range(data.draw(st.integers(1, 4))):
        image[data.draw(st.integers(start, len(image) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_signature(bytes(image))
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


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pkcs7, "MICROSOFT", OURS)
    put(tmp_path / "good")
    good = run(tmp_path)
    assert good.exit_code == 0
    assert f"{tmp_path}/good/exraid.inf: usable" in good.output
    assert "controllers  9005:028F  Adaptec" in good.output
    assert "Server 2016, 2019, 2022, 2025: yes\n" in good.output
    assert "Server 2008 R2: yes, but\n" in good.output
    assert "Server 2012, 2012 R2: yes, but\n" in good.output
    assert "PASS" not in good.output
    assert "PASS         exraid.sys has the hash that the catalog holds" in run("-v", tmp_path).output
    put(tmp_path / "bad", sys=driver("x86"))
    bad = run(tmp_path)
    assert bad.exit_code == 3
    assert f"{tmp_path}/bad/exraid.inf: unusable" in bad.output
    assert "exraid.sys is for x86, not for amd64" in bad.output
    assert "2 packages: 1 usable, 1 not" in bad.output
    document = json.loads(run("--json", tmp_path).output)
    assert [p["failed"] for p in document] == [True, False]
    assert document[1]["signature"]["trust"] == "Microsoft"
    assert [w["level"] for w in document[1]["windows"]][3:] == ["pass"] * 4


def test_a_signer_that_is_not_known_is_no_pass(tmp_path: Path) -> None:
    put(tmp_path)
    result = run(tmp_path)
    assert result.exit_code == 3
    assert "is not signed by Microsoft" in result.output


def test_nothing_to_check(tmp_path: Path) -> None:
    empty = run(tmp_path)
    assert empty.exit_code == 3
    assert f"{tmp_path} holds no driver package: no INF file is in it" in empty.stderr
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        archive.writestr("readme.txt", "")
    assert run("--json", tmp_path).stdout.strip() == "[]"
    assert run(tmp_path).stderr.splitlines() == [
        f"{tmp_path}/d.zip holds no driver package: no INF file is in it (links are not followed, "
        "archives in archives opened 2 deep)"
    ]
    missing = run(tmp_path / "nothing")
    assert missing.exit_code == 1
    assert "No such file" in missing.stderr


def zipped(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def test_a_hostile_or_damaged_archive_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is named with its reason, in the table and in JSON; everything else of the folder is checked."""
    monkeypatch.setattr(pkcs7, "MICROSOFT", OURS)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    folder = tmp_path / "packages"
    put(tmp_path / "sound")
    put(folder / "z-last")
    link = zipfile.ZipInfo("a.inf")
    link.external_attr = 0o120777 << 16
    reasons = {
        "a-escape.zip": "'../../a.inf' has a name that leads out of its folder; check where the file comes from",
        "b-link.zip": "'a.inf' is a link or a device; check where the file comes from",
        "c-cut.zip": "is damaged: ",
        "d-other.7z": "is no archive that is known",
        "setup.exe": "'../../a.inf' has a name that leads out of its folder",
        "deep.zip": "is damaged: ",
    }
    zipped(folder / "a-escape.zip", ("../../a.inf", b"x"))
    zipped(folder / "b-link.zip", (link, b"/etc/passwd"))
    cut = zipped(folder / "c-cut.zip", ("a.inf", b"x" * 300))
    cut.write_bytes(cut.read_bytes()[:-30])
    (folder / "d-other.7z").write_bytes(b"Rar!\x1a\x07")
    zipped(folder / "setup.exe", ("../../a.inf", b"x"))  # a self-extracting one
    (folder / "setup.exe").write_bytes(b"MZ" + bytes(62) + (folder / "setup.exe").read_bytes())
    (folder / "tool.exe").write_bytes(b"MZ" + bytes(600))  # a program: said, and no failure
    (folder / "sub").mkdir()
    (folder / "sub" / "deep.zip").write_bytes(b"PK\x03\x04" + bytes(40))
    zipped(folder / "e-good.zip", *((p.name, p.read_bytes()) for p in (tmp_path / "sound").iterdir()))
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}

    result = run(folder)
    assert result.exit_code == 3
    for name, reason in reasons.items():
        assert re.search(
            rf"^{re.escape(str(folder))}/(sub/)?{re.escape(name)}: unusable$", result.stdout, re.M
        )
        assert f"FAIL         {name} {reason}" in result.stdout
    assert f"{folder}/e-good.zip/exraid.inf: usable" in result.stdout
    assert f"{folder}/z-last/exraid.inf: usable" in result.stdout
    assert "8 packages: 2 usable, 6 not" in result.stdout
    assert "tool.exe was not opened" in result.stderr or "tool.exe holds no driver" in result.stderr

    document = json.loads(run("--json", folder).stdout)
    failed = {Path(p["path"]).name: p["checks"] for p in document if p["failed"]}
    assert failed.keys() == reasons.keys()
    for name, reason in reasons.items():
        (check,) = failed[name]
        assert (check["file"], check["level"]) == (name, "fail")
        assert reason in check["text"]
    assert sum(not p["failed"] for p in document) == 2

    # the same for archives that are named one by one
    named = run(folder / "a-escape.zip", folder / "e-good.zip")
    assert named.exit_code == 3
    assert "2 packages: 1 usable, 1 not" in named.stdout
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == before
    assert list(temporary.iterdir()) == []


def test_an_archive_with_too_many_infs_is_named_by_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages_module, "MAX_INFS", 2)
    zipped(tmp_path / "many.zip", *((f"{n}/a.inf", b"x") for n in range(3)))
    put(tmp_path / "p")
    result = run("--json", tmp_path)
    assert result.exit_code == 3
    first = next(p for p in json.loads(result.stdout) if p["path"] == f"{tmp_path}/many.zip")
    assert first["checks"][0]["text"] == "driver folder: many.zip has more than 2 INF files"


def test_no_room_for_what_is_unpacked_is_an_error_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not the archive's fault, and says nothing about it."""
    zipped(tmp_path / "d.zip", ("a.inf", b"x"))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/x")

    monkeypatch.setattr("rehost_builder.drivers.unpack._write", full)
    result = run(tmp_path)
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr


def test_a_class_that_windows_would_not_find(tmp_path: Path) -> None:
    guid = "ClassGuid   = {4D36E97B-E325-11CE-BFC1-08002BE10318}\n"
    assert guid in package()
    for name, text, problem in (
        ("known", package().replace(guid, ""), ""),
        (
            "none",
            package().replace(guid, "").replace("= SCSIAdapter", "= Storage"),
            "that is not known (Storage)",
        ),
        ("wrong", package().replace(guid, "ClassGuid = {4D36E97B}\n"), "names '{4d36e97b}' as its ClassGuid"),
    ):
        report = judged(put(tmp_path / name, inf=encoded(text)))
        assert report.failed is bool(problem)
        assert not problem or says(report, Level.FAIL, problem)


def test_hundreds_of_reasons_do_not_fill_the_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pkcs7, "MICROSOFT", OURS)
    listed = "\n".join(f"more{i}.sys" for i in range(300))
    text = package(install="CopyFiles = @exraid.sys, List", more=f"[List]\n{listed}\n")
    put(tmp_path, inf=encoded(text))
    short = run(tmp_path).stdout
    assert "and 280 more (-v)" in short
    assert short.count("is missing") == 20
    assert run("-v", tmp_path).stdout.count("is missing") == 300
    (one,) = json.loads(run("--json", tmp_path).stdout)
    assert sum("is missing" in c["text"] for c in one["checks"]) == 300


def test_a_driver_that_is_loaded_from_the_store(tmp_path: Path) -> None:
    text = package(service=SERVICE.replace("%12%", "%13%")).replace(
        "DefaultDestDir = 12", "DefaultDestDir = 13"
    )
    report = judged(put(tmp_path / "a", inf=encoded(text)))
    assert {b for b, level in levels(report).items() if level is Level.FAIL} == {7601, 9200, 9600, 14393}
    assert says(
        report, Level.FAIL, "has exraid loaded from the driver store: since Windows 10 1709 and Server 2019"
    )
    assert levels(report)[17763] is Level.PASS
    # and it is looked into as the boot driver that it is
    assert says(
        judged(put(tmp_path / "b", inf=encoded(text), sys=driver(checksum=0))), Level.WARN, "has no checksum"
    )
