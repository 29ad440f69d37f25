"""Packages as careless hands write them, from the folder to the judge: taken, written, and found by Windows' own way."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rehost_payload.drivers.inject import inject
from rehost_payload.drivers.inject_model import Injection
from rehost_payload.drivers.inject_package import read_package
from rehost_payload.formats.hive import Hive
from rehost_payload.formats.inf_target import target_of
from rehost_payload.repair.diagnose import diagnose
from rehost_payload.repair.model import InjectDriver, Verdict
from rehost_payload.repair.plan import plan
from rehost_payload.repair.verify_drivers import check_drivers
from rehost_payload.survey.json import to_json
from rehost_payload.system.hivex_edit import edit_hive
from support import infs, packages
from support.catalogs import make_catalog
from support.driver_image import make_driver
from support.offline import SMART_3100, SYSTEM, only, surveyed, tree

pytestmark = pytest.mark.usefixtures("our_authority")

TEXT = infs.package()
IMAGE = make_driver({"ntoskrnl.exe": ["IoCreateDevice"]})
GUID = "{4D36E97B-E325-11CE-BFC1-08002BE10318}"


@dataclass(frozen=True)
class Odd:
    """A package: the INF's text as bytes, and where its driver lies."""

    inf: bytes
    places: tuple[str, ...] = ("exraid.sys",)
    name: str = "exraid.inf"
    catalog: str = "exraid.cat"
    service: str = "exraid"
    extra: dict[str, bytes] = field(default_factory=dict)

    def put(self, folder: Path) -> Path:
        files = {**dict.fromkeys(self.places, IMAGE), **self.extra}
        members = {n: packages.digest(data) for n, data in files.items()}
        members[self.name] = packages.digest(self.inf)
        files |= {self.name: self.inf, self.catalog: make_catalog(members, packages.SERVER)}
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return folder


def crlf(text: str) -> bytes:
    return infs.encoded(text, "cp1252")


def changed(*pairs: tuple[str, str]) -> bytes:
    text = TEXT
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return crlf(text)


ODD = {
    "utf-16 without mark": Odd(TEXT.replace("\n", "\r\n").encode("utf-16-le")),
    "utf-16 big-endian": Odd(b"\xfe\xff" + TEXT.encode("utf-16-be")),
    "utf-8 with mark": Odd(infs.encoded(TEXT, "utf-8-sig")),
    "ansi umlauts": Odd(changed(("Example Storage, Inc.", "M\xfcller Speicher"))),
    "all kinds of line ends": Odd(
        "".join(line + end for line, end in zip(TEXT.split("\n"), ("\r\n", "\r", "\n") * 999, strict=False)).encode()
    ),
    "Ctrl-Z at the end": Odd(crlf(TEXT) + b"\x1a"),
    "everything in capitals": Odd(crlf(TEXT.upper().replace(r"%12%\EXRAID", r"%12%\ExRaid")), service="EXRAID"),
    "sections in pieces": Odd(
        crlf(TEXT + "\n[Version]\nPnpLockdown=1\n[card_inst]\nFeatureScore=F0\n[CARD_SERVICE]\nDescription=x\n")
    ),
    "comments and quotes": Odd(
        changed(
            ('"Example RAID 8000; 8 ports"', '"Example ""RAID"" 8000; 8 ports" ; ports; "many'),
            ("LoadOrderGroup = \"SCSI Miniport\"", 'LoadOrderGroup = "SCSI Miniport ; no comment'),
        )
    ),
    "continued lines": Odd(
        changed(("CopyFiles = @exraid.sys", "CopyFiles = \\ ; goes on\n   @exraid.sys"), ("StartType      = ", "StartType      = \\\n"))
    ),
    "undefined token": Odd(changed(('Vendor = "Example Storage, Inc."\n', ""))),
    "odd case of the target": Odd(changed(("Models,NTamd64", "Models , nTaMD64.10.0 "), ("[Models.NTamd64]", "[MODELS.ntAMD64.10.0]"))),
    "files of amd64 in a folder": Odd(
        changed(("[SourceDisksFiles]\nexraid.sys = 1", "[SourceDisksFiles.AMD64]\nexraid.sys = 1,\\x64\n[SourceDisksFiles]\nexraid.sys = 1,x86")),
        ("x64/exraid.sys",),
        extra={"x86/exraid.sys": packages.driver("x86")},
    ),
    "slashes and dots": Odd(changed(("1 = %Disk%,,,", "1 = %Disk%,,,./drv/"), ("exraid.sys = 1", "exraid.sys = 1,a/./b")), ("drv/a/b/exraid.sys",)),
    "another spelling on disk": Odd(crlf(TEXT), ("EXRAID.Sys",), "ExRaid.INF", "EXRAID.CAT"),
    "a list of files": Odd(
        changed(("CopyFiles = @exraid.sys", "CopyFiles = Files\n[Files]\nexraid.sys,source.sy,,0x10\n[Card_Inst]"), ("exraid.sys = 1", "source.sy = 1"), ("DefaultDestDir = 12", "Files = 10,System32\\Drivers")),
        ("source.sy",),
    ),
    "compatible IDs only": Odd(changed((r"Card_Inst, PCI\VEN_9005&DEV_028F", r"Card_Inst,,PCI\ven_9005&dev_028f"))),
    "no class GUID": Odd(changed((f"ClassGuid   = {GUID}\n", ""))),
    "class hdc": Odd(changed(("= SCSIAdapter", "= hdc"), ("4D36E97B", "4D36E96A"))),
    "service in capitals": Odd(changed(("AddService = exraid", "AddService = EXRAID")), service="EXRAID"),
    "catalog for its architecture": Odd(changed(("CatalogFile = exraid.cat", "CatalogFile.NTx86 = no.cat\nCatalogFile.ntAMD64 = exraid.cat"))),
    "excludes another card": Odd(changed(("CopyFiles = @exraid.sys", "CopyFiles = @exraid.sys\nExcludeID = PCI\\VEN_9005&DEV_028F&SUBSYS_FFFF9005"))),
    "thousands of strings": Odd(crlf(TEXT + "\n".join(f's{i} = "x"' for i in range(5000)))),
}  # fmt: skip


def written(
    files: dict[str, bytes], folder: Path, action: InjectDriver
) -> tuple[dict[str, bytes], Injection]:
    """What the injection makes of the files, done by hand."""

    def read(path: str) -> bytes | None:
        wanted = f"Windows/{path}".replace("\\", "/").lower()
        return next((data for name, data in files.items() if name.lower() == wanted), None)

    assert action.package == str(folder)
    package = read_package(folder, action.inf)
    made = inject(package, action.hardware_ids, target_of("2016"), Hive.parse(files[SYSTEM]), read)
    after = {**files, SYSTEM: edit_hive(files[SYSTEM], made.edits)}
    for file in made.files:
        name = f"Windows/{file.path}".replace("\\", "/")
        after = {k: v for k, v in after.items() if k.lower() != name.lower()}
        after[name] = file.data
    return after, made


@pytest.mark.parametrize("name", ODD)
def test_it_is_taken_and_windows_finds_it(name: str, tmp_path: Path) -> None:
    odd, files = ODD[name], tree()
    folder = odd.put(tmp_path / "p")
    (action,) = plan(surveyed(files, (SMART_3100,), [tmp_path])).actions
    assert isinstance(action, InjectDriver)
    assert action.service == odd.service
    after, made = written(files, folder, action)
    again = surveyed(after, (SMART_3100,), [tmp_path])
    checks = {c.id: c for c in check_drivers(again, only(again))}
    assert {c.verdict for c in checks.values()} == {Verdict.PASS}, checks
    assert plan(again).actions == ()
    # a second time nothing is left to be done
    assert written(after, folder, action)[1].edits == ()
    assert made.published == "oem2.inf"


def test_a_name_in_no_known_encoding_ends_nothing(tmp_path: Path) -> None:
    """As an archive made on Windows and unpacked on Linux leaves it: said, and the other package is taken."""
    packages.signed(tmp_path / "p")
    packages.signed(tmp_path / "q", infs.package(version="01/01/2010,0.0.0.1"))
    os.rename(tmp_path / "p" / "exraid.inf", os.fsencode(tmp_path / "p") + b"/exr\xe4id.inf")  # noqa: PTH104
    survey = surveyed(tree(), (SMART_3100,), [tmp_path])
    (action,) = plan(survey).actions
    assert isinstance(action, InjectDriver)
    assert Path(action.package).name == "q"
    (finding,) = (f for f in diagnose(survey).findings if f.id == "driver.missing")
    assert any("is no valid file name" in line for line in finding.evidence)
    to_json(survey).encode()
