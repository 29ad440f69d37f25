"""Real SYSTEM hives behind many controllers: the judge before a repair, and after it; a second one changes nothing.

What the plan asks for is carried out in memory: EditHive by the writer of hives, InjectDriver by the injection engine with
packages that the test makes. The judge shares no code with either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rehost_payload.drivers.inject import inject
from rehost_payload.drivers.inject_package import read_package
from rehost_payload.formats.hive import Hive
from rehost_payload.formats.inf_target import target_of
from rehost_payload.repair.diagnose import diagnose
from rehost_payload.repair.model import Check, EditHive, InjectDriver, Verdict
from rehost_payload.repair.plan import plan
from rehost_payload.repair.verify_drivers import check_drivers
from rehost_payload.survey.model import Controller, Survey
from rehost_payload.system.hivex_edit import edit_hive
from support import infs, offline, packages
from support.driver_image import make_driver
from support.offline import controller
from support.real_windows import HIVES, clean_hive, mounted, real_tree
from support.tables import DRIVERS

CONTROLLERS = {
    "AMD FCH AHCI": controller("1022:7901:1458:b005", "010601"),
    "Samsung NVMe": controller("144d:a808:144d:a801", "010802"),
    "PIIX IDE": controller("8086:7010:0000:0000", "010180"),
    "VirtualBox AHCI": controller("8086:2829:0000:0000", "010601"),
    "VMware LSI SAS": controller("1000:0054:15ad:1976", "010700"),
    "Adaptec 5805": controller("9005:0285:9005:02b6"),
    "Adaptec 6805": controller("9005:028b:9005:0301"),
    "Adaptec 7805": controller("9005:028c:9005:0500"),
    "Adaptec 8805": controller("9005:028d:9005:0552"),
    "Adaptec Series 8, late": controller("9005:028d:9005:0558"),
    "Adaptec 6H": controller("9005:8088:9005:0800"),
    "SmartRAID 3154-8i": controller("9005:028f:9005:0800"),
    "SmartRAID Ultra 3254": controller("9005:028f:9005:1400"),
    "HPE P408i": controller("9005:028f:103c:0602"),
    "HPE P440": controller("103c:3239:103c:21bd"),
    "MegaRAID 9361": controller("1000:005d:1000:9361"),
    "MegaRAID 9271": controller("1000:005b:1000:9271"),
    "LSI SAS 9211": controller("1000:0072:1000:3020", "010700"),
    "LSI SAS 9300": controller("1000:0097:1000:3090", "010700"),
    "Intel RST RAID": controller("8086:2822:1043:8534"),
    "Intel VMD": controller("8086:467f:1043:8694"),
    "virtio-blk": controller("1af4:1001:1af4:0002", "010000"),
    "VMware pvscsi": controller("15ad:07c0:15ad:07c0", "010700"),
}
CONTROLLERS = {
    name: replace(c, address=f"0000:{number:02x}:00.0")
    for number, (name, c) in enumerate(CONTROLLERS.items(), 1)
}
pytestmark = pytest.mark.usefixtures("our_authority")
BOOT_FILES = ("bios.", "boot.", "esp.", "firmware.", "windows.files-missing")  # these are not in the hives


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One package for every card: of course no real one is."""
    folder = tmp_path_factory.mktemp("package") / "exraid"
    names = {f"{c.vendor}&DEV_{c.device}".upper() for c in CONTROLLERS.values()}
    models = "\n".join(f"%Card.DeviceDesc% = Card_Inst, PCI\\VEN_{name}" for name in sorted(names))
    return packages.signed(folder, infs.package(models=models), make_driver())


def surveyed(
    name: str, files: dict[str, bytes], cards: Sequence[Controller], package: Path | None = None
) -> Survey:
    places = [package.parent] if package is not None else []
    return offline.surveyed(files, cards, places, mounted=mounted(name))


def behind(survey: Survey, card: Controller) -> Survey:
    """The same machine with its disk on that controller."""
    return replace(survey, disks=(replace(survey.disks[0], controller=card.address),))


def driver_findings(survey: Survey) -> list[str]:
    return [f.id for f in diagnose(survey).findings if not f.id.startswith(BOOT_FILES)]


def judged(survey: Survey) -> Check:
    return check_drivers(survey, offline.only(survey))[-1]


def carried_out(survey: Survey, files: dict[str, bytes], hive: bytes) -> tuple[dict[str, bytes], str]:
    """The files after the plan's actions on the hive, and what they were. ``hive``: SYSTEM with its logs applied."""
    after, done = dict(files), []
    for action in plan(survey).actions:
        if isinstance(action, EditHive):
            hive = edit_hive(hive, action.edits)
            done.append("registry" if len(action.edits) > 1 else str(action.edits[0].key[-1]))
        elif isinstance(action, InjectDriver):
            injection = _injected(action, after, hive)
            hive = edit_hive(hive, injection.edits)
            after |= {"Windows/" + f.path.replace("\\", "/"): f.data for f in injection.files}
            done.append(f"{action.service} injected")
            second = _injected(action, after, hive)
            assert (second.edits, second.files) == ((), ())
        else:
            continue
        for path in action.remove_logs:
            after.pop(path.strip("\\").replace("\\", "/"), None)
    after[offline.SYSTEM] = hive
    return after, ", ".join(done)


def _injected(action: InjectDriver, files: dict[str, bytes], hive: bytes):  # type: ignore[no-untyped-def]
    lower = {k.lower(): v for k, v in files.items()}
    read = lambda path: lower.get("windows/" + path.replace("\\", "/").lower())  # noqa: E731
    target = target_of(str(action.build), action.product_type)
    return inject(
        read_package(Path(action.package), action.inf), action.hardware_ids, target, Hive.parse(hive), read
    )


@pytest.mark.parametrize("name", HIVES)
def test_before_and_after(name: str, package: Path) -> None:
    files, hive = real_tree(name, clean=True), clean_hive(name)
    demoted = 0
    machine = surveyed(name, files, tuple(CONTROLLERS.values()), package)
    for label, card in CONTROLLERS.items():
        survey = behind(machine, card)
        before, findings = judged(survey), driver_findings(survey)
        # the diagnosis and the judge, who share nothing, agree
        assert (before.verdict is Verdict.PASS) is (findings == []), (label, before, findings)
        demoted += "StartOverride" in before.reason
        after_files, done = carried_out(survey, files, hive)
        again = surveyed(name, after_files, (card,), package)
        after = judged(again)
        DRIVERS.add(
            name,
            label,
            before.verdict.value,
            ", ".join(findings) or "-",
            done or "-",
            after.verdict.value,
            after.reason.rpartition("-> ")[2][:30],
        )
        assert after.verdict is Verdict.PASS, (label, after)
        assert driver_findings(again) == []
        assert not [a for a in plan(again).actions if isinstance(a, EditHive | InjectDriver)]
    assert demoted > 10 or name.startswith("win7")


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("win7-x86", "VMware LSI SAS"),
        ("win7-x86", "PIIX IDE"),
        ("win81-x64", "VirtualBox AHCI"),
        ("win81-x64", "AMD FCH AHCI"),
        ("win10-1709-x64", "Intel RST RAID"),
    ],
)
def test_the_controller_that_a_machine_had_gives_no_finding(name: str, card: str) -> None:
    survey = surveyed(name, real_tree(name), (CONTROLLERS[card],))
    assert driver_findings(survey) == []
    assert {c.verdict for c in check_drivers(survey, offline.only(survey))} == {Verdict.PASS}


@pytest.mark.parametrize("name", HIVES)
def test_without_package_what_is_missing_is_fatal_and_named(name: str) -> None:
    survey = surveyed(name, real_tree(name, clean=True), (CONTROLLERS["SmartRAID 3154-8i"],))
    (finding,) = (f for f in diagnose(survey).findings if not f.id.startswith(BOOT_FILES))
    assert (finding.id, finding.repairable) == ("driver.missing", False)
    assert "SmartPqi" in finding.params["service"]
