"""Packages with the name of a driver that this Windows has: a vendor's update of it, and somebody else's by chance.

Adaptec's is the usual case: arcsas is in-box, and a card that came later needs the vendor's newer arcsas.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rehost_payload.drivers.inject import inject
from rehost_payload.repair.diagnose import diagnose
from rehost_payload.repair.model import Finding, InjectDriver, ResultWord, Severity, Verdict
from rehost_payload.repair.plan import plan
from rehost_payload.repair.session import run_undo
from rehost_payload.survey import driver_packages
from rehost_payload.survey.model import PartitionTable, Survey, TableStyle
from support import disks, driver_records, hives, infs, packages, windows
from support.catalogs import make_catalog
from support.driver_image import make_driver
from support.driver_records import IN_BOX, Driver
from support.hives import dword, expand_sz, multi_sz, sz
from support.image_system import ImageMachine
from support.offline import SMART_3100, controller, surveyed, tree

from .helpers import driver_verdicts, found, image_hash, repair

pytestmark = pytest.mark.usefixtures("our_authority")

HIVE = "Windows/System32/config/SYSTEM"
DRIVER = "Windows/System32/drivers/arcsas.sys"
STORE = "Windows/System32/DriverStore/FileRepository"
LATER_CARD = controller("9005:028d:9005:0558")
"""A Series 8 card that came after this Windows: its arcsas.inf names other cards only."""
LATER = r"%Card.DeviceDesc% = Card_Inst, PCI\VEN_9005&DEV_028D&SUBSYS_05589005"
SERVICES = "ControlSet001\\Services"


def put(
    folder: Path,
    name: str = "arcsas",
    *,
    models: str = LATER,
    version: str = "06/01/2019,7.5.0.57011",
    files: dict[str, bytes] | None = None,
    **parts: str,
) -> bytes:
    """A soundly signed package of another provider than Windows names; the driver's bytes."""
    image = make_driver({"ntoskrnl.exe": ["IoCreateDevice"]}, fill=f"{folder.name} {version}".encode())
    text = infs.package(models=models, version=version, **parts).replace("exraid", name)
    content = {f"{name}.inf": infs.encoded(text), f"{name}.sys": image, **(files or {})}
    members = {n: packages.digest(data) for n, data in content.items()}
    content[f"{name}.cat"] = make_catalog(members, packages.SERVER)
    folder.mkdir(parents=True)
    for file, data in content.items():
        (folder / file).write_bytes(data)
    return image


def findings(survey: Survey) -> dict[str, Finding]:
    return {f.id: f for f in diagnose(survey).findings if f.id.startswith("driver.")}


# --- the vendor's update of a driver that Windows has


def test_a_newer_driver_of_the_vendor_replaces_that_of_windows(gpt, stick, tmp_path):
    """Another provider's name, none of the old cards: the same driver all the same, as Windows sees it."""
    image = put(tmp_path / "packages" / "arcsas")
    before = disks.read_file(gpt, gpt.windows, DRIVER)
    hive = disks.read_file(gpt, gpt.windows, HIVE)
    in_box = {
        k: v
        for k, v in hives.values(hive).items()
        if "arcsas" in k[0].lower() and k[0].startswith("DriverDatabase")
    }
    assert in_box
    machine = ImageMachine(
        [gpt.path, stick.path], controllers_=(LATER_CARD,), drivers=(tmp_path / "packages",)
    )
    outcome = repair(machine)
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    assert outcome.result.diagnosis_before is not None
    (missing,) = (f for f in outcome.result.diagnosis_before.findings if f.id == "driver.missing")
    assert any(
        r"System32\drivers\arcsas.sys without version takes the place of " in e for e in missing.evidence
    )
    assert "driver.package-conflict" not in found(outcome)
    # the new file in its place, and in a folder of its own in the driver store
    assert disks.read_file(gpt, gpt.windows, DRIVER) == image
    values = hives.values(disks.read_file(gpt, gpt.windows, HIVE))
    assert values[f"{SERVICES}\\arcsas", "Start"] == dword(0)
    assert values[f"{SERVICES}\\arcsas", "ImagePath"] == expand_sz("System32\\drivers\\arcsas.sys")
    assert values[f"{SERVICES}\\arcsas", "Owners"] == multi_sz("oem2.inf", "arcsas.inf")
    assert not [p for p, _ in values if p.startswith(f"{SERVICES}\\arcsas\\StartOverride")]
    assert {k: values.get(k) for k in in_box} == in_box  # what Windows has of its own stays
    store = values["DriverDatabase\\DriverInfFiles\\oem2.inf", "Active"][1].decode("utf-16-le").rstrip("\0")
    assert disks.read_file(gpt, gpt.windows, f"{STORE}/{store}/arcsas.sys") == image
    assert driver_verdicts(outcome) == {Verdict.PASS}
    # a second run writes nothing, and everything comes back
    again = image_hash(gpt)
    assert repair(machine).result.word is ResultWord.HEALTHY
    assert image_hash(gpt) == again
    assert run_undo(machine).result.word is ResultWord.UNDONE
    assert disks.read_file(gpt, gpt.windows, DRIVER) == before
    assert disks.read_file(gpt, gpt.windows, HIVE) == hive


def test_the_old_cards_take_the_newer_driver_as_well(tmp_path: Path) -> None:
    """Windows ranks the newer package before its own; nothing is wanted where its own does."""
    old = controller("9005:028d:9005:0552")
    put(tmp_path / "p", models=LATER.replace("05589005", "05529005"))
    assert set(findings(surveyed(tree(), (old,), [tmp_path]))) == {"driver.not-at-boot"}


def test_an_update_of_a_package_that_brings_more_files(tmp_path: Path) -> None:
    """A file in System32\\drivers that is no service's: known as the old package's by its copy in the driver store."""
    installed = Driver("arcsas", "oem7.inf", ("PCI\\VEN_9005&DEV_028C",), original="arcsas.inf")
    drivers = (*(d for d in IN_BOX if d.service != "arcsas"), installed)
    old = {
        f"{STORE}/{driver_records.package_name(installed)}/arcdata.bin": b"old",
        "Windows/System32/drivers/arcdata.bin": b"old",
    }
    more = {
        "files": {"arcdata.bin": b"new"},
        "install": "CopyFiles = @arcsas.sys, @arcdata.bin",
        "more": "[SourceDisksFiles]\narcdata.bin = 1\n",
    }
    put(tmp_path / "p", **more)  # type: ignore[arg-type]
    survey = surveyed(tree(drivers, files=old), (LATER_CARD,), [tmp_path])
    assert set(findings(survey)) == {"driver.missing"}
    assert len(plan(survey).actions) == 1
    # the same file, of which nobody knows whose it is
    survey = surveyed(
        tree(drivers, files={**old, "Windows/System32/drivers/arcdata.bin": b"?"}), (LATER_CARD,), [tmp_path]
    )
    assert (
        "arcdata.bin is there with other contents" in findings(survey)["driver.package-conflict"].evidence[0]
    )
    assert plan(survey).actions == ()


def test_an_update_that_is_loaded_from_the_driver_store(stick, tmp_path):
    """The file of Windows stays, the service is pointed to the package's folder; and back."""
    disk = windows.gpt_server(tmp_path / "server.img", release=windows.SERVER_2019, recovery=False)
    service = infs.SERVICE.replace("%12%", "%13%")
    image = put(tmp_path / "packages" / "arcsas", service=service)
    inf = tmp_path / "packages" / "arcsas" / "arcsas.inf"
    text = inf.read_bytes().decode("utf-16").replace("DefaultDestDir = 12", "DefaultDestDir = 13")
    inf.write_bytes(text.encode("utf-16"))
    members = {n: packages.digest((inf.parent / n).read_bytes()) for n in ("arcsas.inf", "arcsas.sys")}
    (inf.parent / "arcsas.cat").write_bytes(make_catalog(members, packages.SERVER))
    before, hive = disks.read_file(disk, disk.windows, DRIVER), disks.read_file(disk, disk.windows, HIVE)
    machine = ImageMachine(
        [disk.path, stick.path], controllers_=(LATER_CARD,), drivers=(tmp_path / "packages",)
    )
    outcome = repair(machine)
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    assert driver_verdicts(outcome) == {Verdict.PASS}
    assert disks.read_file(disk, disk.windows, DRIVER) == before
    values = hives.values(disks.read_file(disk, disk.windows, HIVE))
    path = values[f"{SERVICES}\\arcsas", "ImagePath"][1].decode("utf-16-le").rstrip("\0")
    assert path.startswith("System32\\DriverStore\\FileRepository\\arcsas.inf_amd64_")
    assert disks.read_file(disk, disk.windows, "Windows/" + path.replace("\\", "/")) == image
    assert repair(machine).result.word is ResultWord.HEALTHY
    assert run_undo(machine).result.word is ResultWord.UNDONE
    assert disks.read_file(disk, disk.windows, HIVE) == hive


# --- somebody else's driver of the same name


def of_somebody_else(tmp_path: Path) -> None:
    """The package with the best rank has the service of an LSI driver; the next best has a name of its own."""
    models = r"%Card.DeviceDesc% = Card_Inst, PCI\VEN_9005&DEV_028F&SUBSYS_08009005"
    put(tmp_path / "megasas", "megasas", models=models, version="01/01/2025,9.0.0.0")


@pytest.mark.parametrize("second", [True, False])
def test_the_next_best_package_is_taken_and_the_conflict_said(second: bool, tmp_path: Path) -> None:
    of_somebody_else(tmp_path)
    if second:
        packages.signed(tmp_path / "exraid")
    survey = surveyed(tree(), (SMART_3100,), [tmp_path])
    result = findings(survey)
    assert set(result) == {"driver.missing", "driver.package-conflict"}
    conflict = result["driver.package-conflict"]
    assert (conflict.severity, conflict.repairable) == (Severity.WARNING, False)
    assert conflict.params["package"] == f"{tmp_path}/megasas/megasas.inf"
    assert "the service megasas belongs to megasas.inf_amd64_" in conflict.evidence[0]
    assert "(Microsoft), for other devices" in conflict.evidence[0]
    lines = "\n".join(result["driver.missing"].evidence)
    assert "megasas/megasas.inf: not taken, the service megasas belongs to" in lines
    actions = plan(survey).actions
    if second:
        (action,) = actions
        assert isinstance(action, InjectDriver)
        assert action.service == "exraid"
    else:
        assert actions == ()
        assert not result["driver.missing"].repairable


def test_a_repair_takes_the_next_best_and_says_nothing_of_it_afterwards(gpt, stick, tmp_path):
    of_somebody_else(tmp_path / "packages")
    packages.signed(tmp_path / "packages" / "exraid")
    machine = ImageMachine(
        [gpt.path, stick.path], controllers_=(SMART_3100,), drivers=(tmp_path / "packages",)
    )
    before = disks.read_file(gpt, gpt.windows, "Windows/System32/drivers/megasas.sys")
    outcome = repair(machine)
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    assert "driver.package-conflict" in found(outcome)
    assert disks.read_file(gpt, gpt.windows, "Windows/System32/drivers/megasas.sys") == before
    assert disks.file_exists(gpt, gpt.windows, "Windows/System32/drivers/exraid.sys")
    assert repair(machine).result.word is ResultWord.HEALTHY


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        # its file, under whatever spelling of the path
        ({"ImagePath": expand_sz("\\SystemRoot\\System32\\drivers\\EXRAID.sys")}, "is the driver of THEIRS"),
        (
            {"ImagePath": expand_sz("\\??\\C:\\Windows\\system32\\Drivers\\exraid.sys")},
            "is the driver of THEIRS",
        ),
        ({"ImagePath": sz("%SystemRoot%\\system32\\drivers\\exraid.sys")}, "is the driver of THEIRS"),
    ],
)
def test_a_file_of_another_service(keys: dict, text: str, tmp_path: Path) -> None:  # type: ignore[type-arg]
    packages.signed(tmp_path / "p")
    files = {"Windows/System32/drivers/exraid.sys": b"theirs"}
    installed = tree(
        system={f"{SERVICES}\\theirs": {"Type": dword(1), "Start": dword(3), **keys}}, files=files
    )
    survey = surveyed(installed, (SMART_3100,), [tmp_path])
    assert text in findings(survey)["driver.package-conflict"].evidence[0].replace("theirs", "THEIRS")
    assert plan(survey).actions == ()


def test_a_service_of_the_name_that_no_package_knows(tmp_path: Path) -> None:
    """A filter of some program: with its file it is somebody's, without it a remainder."""
    packages.signed(tmp_path / "p")
    key = {
        f"{SERVICES}\\exraid": {
            "Type": dword(1),
            "Start": dword(1),
            "ImagePath": sz("System32\\drivers\\av.sys"),
        }
    }
    survey = surveyed(
        tree(system=key, files={"Windows/System32/drivers/av.sys": b"x"}), (SMART_3100,), [tmp_path]
    )
    assert (
        "the service exraid is there with another driver"
        in findings(survey)["driver.package-conflict"].evidence[0]
    )
    assert plan(survey).actions == ()
    survey = surveyed(tree(system=key), (SMART_3100,), [tmp_path])
    assert set(findings(survey)) == {"driver.missing"}
    assert len(plan(survey).actions) == 1


def test_parts_of_windows_are_never_replaced(tmp_path: Path) -> None:
    put(tmp_path / "p", "storport")
    files = {"Windows/System32/drivers/storport.sys": b"Windows' own"}
    survey = surveyed(tree(files=files), (LATER_CARD,), [tmp_path])
    assert "storport.sys is a part of Windows" in findings(survey)["driver.package-conflict"].evidence[0]


def test_what_else_the_engine_would_refuse_is_said_beforehand(tmp_path: Path) -> None:
    """No conflict, but no plan that fails while it is written either."""
    packages.signed(tmp_path / "p")
    installed = tree(system={"DriverDatabase": {"Architecture": dword(0)}})
    survey = surveyed(installed, (SMART_3100,), [tmp_path])
    assert "driver.package-conflict" not in findings(survey)
    assert any("architecture 0, not 9" in line for line in findings(survey)["driver.missing"].evidence)
    assert plan(survey).actions == ()


def test_two_versions_of_one_driver_for_two_controllers(tmp_path: Path) -> None:
    """The boot disk's gets its own; the other version would replace that, and what Windows does later is its affair."""
    put(tmp_path / "newer", models=LATER)
    put(tmp_path / "older", models=LATER.replace("05589005", "05619005"), version="01/01/2016,7.5.0.1")
    second = controller("9005:028d:9005:0561", address="0000:04:00.0")
    survey = surveyed(tree(), (LATER_CARD, second), [tmp_path])
    empty = PartitionTable(TableStyle.NONE)
    disk = replace(survey.disks[0], id="disk1", path="/dev/sdb", controller=second.address, table=empty)
    survey = replace(survey, disks=(*survey.disks, disk))
    (action,) = [a for a in plan(survey).actions if isinstance(a, InjectDriver)]
    assert Path(action.package).name == "newer"
    lines = findings(survey)["driver.missing-data"].evidence
    assert any("its arcsas would replace that of" in line for line in lines)


def test_of_many_packages_the_best_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that would be refused do not count: the first that can be written is found behind any number of them."""
    models = r"%Card.DeviceDesc% = Card_Inst, PCI\VEN_9005&DEV_028F&SUBSYS_08009005"
    for i in range(3):
        put(tmp_path / f"foreign{i}", "megasas", models=models, version="01/01/2025,9.0.0.0")
    for i in range(4):
        packages.signed(tmp_path / f"p{i}", infs.package(version=f"01/02/2020,1.0.0.{i}"))
    tried = []
    monkeypatch.setattr(driver_packages, "_MAX_TRIED", 2)
    monkeypatch.setattr(
        driver_packages,
        "inject",
        lambda package, *args: (tried.append(package.inf), inject(package, *args))[1],
    )
    survey = surveyed(tree(), (SMART_3100,), [tmp_path])
    assert tried == ["megasas.inf"] * 3 + ["exraid.inf"] * 2
    (action,) = plan(survey).actions
    assert isinstance(action, InjectDriver)
    assert Path(action.package).name == "p3"
