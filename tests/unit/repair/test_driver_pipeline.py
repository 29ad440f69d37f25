"""The whole pipeline on a disk image: restored to a server with another controller, mended, judged, and undone."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from rehost_payload.repair.model import Choices, ResultWord, Verdict
from rehost_payload.repair.session import Consent, run_repair, run_undo
from rehost_payload.survey.run import survey_machine
from support import disks, hives, packages, windows
from support.disks import DiskLayout
from support.driver_image import make_driver
from support.image_system import ImageMachine
from support.offline import SERIES_8, SMART_3100

from .helpers import driver_verdicts, found, image_hash, repair

pytestmark = pytest.mark.usefixtures("our_authority")

HIVE = "Windows/System32/config/SYSTEM"


def hive_hash(disk: DiskLayout) -> str:
    return hashlib.sha256(disks.read_file(disk, disk.windows, HIVE)).hexdigest()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return packages.signed(tmp_path / "packages" / "exraid")


def test_boot_store_and_start_override_in_one_run(gpt, stick):
    disk = windows.restored(gpt)
    before = hive_hash(disk)
    machine = ImageMachine([disk.path, stick.path], controllers_=(SERIES_8,))
    outcome = repair(machine)
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    assert {"boot.device-stale", "driver.not-at-boot"} <= found(outcome)
    assert outcome.result.verification is not None
    judged = {c.id: c.verdict for c in outcome.result.verification.checks}
    assert judged["verify.storage-driver"] is Verdict.PASS
    keys = hives.values(disks.read_file(disk, disk.windows, HIVE))
    assert not [path for path, _ in keys if path.startswith("ControlSet001\\Services\\arcsas\\StartOverride")]
    again = image_hash(disk)
    second = repair(machine)
    assert second.result.word is ResultWord.HEALTHY, second.result
    assert image_hash(disk) == again
    assert run_undo(machine).result.word is ResultWord.UNDONE
    assert hive_hash(disk) == before


def test_a_package_is_installed_and_judged(gpt, stick, package):
    before = hive_hash(gpt)
    machine = ImageMachine([gpt.path, stick.path], controllers_=(SMART_3100,), drivers=(package.parent,))
    outcome = repair(machine)
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    assert found(outcome) == {"driver.missing", "windows.crash-reboot"}
    assert disks.file_exists(gpt, gpt.windows, "Windows/System32/drivers/exraid.sys")
    assert driver_verdicts(outcome) == {Verdict.PASS}
    again = image_hash(gpt)
    assert repair(machine).result.word is ResultWord.HEALTHY
    assert image_hash(gpt) == again
    assert run_undo(machine).result.word is ResultWord.UNDONE
    assert hive_hash(gpt) == before
    assert not disks.file_exists(gpt, gpt.windows, "Windows/System32/drivers/exraid.sys")


def test_a_good_boot_store_is_not_called_repaired_without_driver(gpt, stick):
    """0xc000000e is over and 0x7B would follow: that has to be said, and is no success."""
    disk = windows.restored(gpt)
    machine = ImageMachine([disk.path, stick.path], controllers_=(SMART_3100,))
    outcome = repair(machine)
    assert outcome.result.word is ResultWord.NOT_REPAIRED
    assert outcome.result.changes  # the boot store is mended all the same
    left = outcome.result.diagnosis_after
    assert left is not None
    assert [f.id for f in left.findings] == ["driver.missing"]
    assert "SmartPqi" in left.findings[0].params["service"]


def test_a_full_volume_of_windows_blocks(gpt, stick, package):
    """The package has no room there; the system partition has."""
    machine = ImageMachine([gpt.path, stick.path], controllers_=(SMART_3100,), drivers=(package.parent,))
    place = f"disk0p{gpt.windows.number}"
    free = next(v.free for v in survey_machine(machine).volumes if v.id == place)
    disks.write_file(gpt, gpt.windows, "filler.bin", bytes((free or 0) - 20 * disks.MIB))
    before = image_hash(gpt)
    outcome = repair(machine)
    assert outcome.result.word is ResultWord.BLOCKED, outcome.result
    assert outcome.result.diagnosis_before is not None
    (full,) = (f for f in outcome.result.diagnosis_before.findings if f.id == "esp.full")
    assert full.subject == full.params["volume"] == place
    assert image_hash(gpt) == before


def test_of_two_installations_only_the_chosen_one_is_changed(gpt, stick, tmp_path):
    other = windows.gpt_server(tmp_path / "other.img", windows_size=64 * disks.MIB, recovery=False)
    machine = ImageMachine([gpt.path, other.path, stick.path], controllers_=(SERIES_8,))
    before = hive_hash(other)
    outcome = repair(machine, Choices(windows=f"disk0p{gpt.windows.number}:\\Windows"))
    assert "driver.not-at-boot" in found(outcome)
    assert hive_hash(other) == before


def damaged(disk: DiskLayout) -> tuple[bytes, bytes | None]:
    """A SYSTEM hive whose first bin is overwritten."""
    data = bytearray(disks.read_file(disk, disk.windows, HIVE))
    data[0x1000:0x1800] = b"\xa5" * 0x800
    return bytes(data), None


def cut(disk: DiskLayout) -> tuple[bytes, bytes | None]:
    data = disks.read_file(disk, disk.windows, HIVE)
    return data[: len(data) // 3], None


def dirty_without_log(disk: DiskLayout) -> tuple[bytes, bytes | None]:
    old = disks.read_file(disk, disk.windows, HIVE)
    new = hives.edited(old, lambda h: hives.set_value(h, "ControlSet001\\Control", "X", hives.dword(1)))
    return hives.make_dirty(old, new)[0], None


def dirty_with_a_foreign_log(disk: DiskLayout) -> tuple[bytes, bytes | None]:
    return dirty_without_log(disk)[0], b"\0" * 4096


@pytest.mark.parametrize("make", [dirty_without_log, dirty_with_a_foreign_log])
def test_a_dirty_hive_without_its_log_is_edited_as_it_stands_and_comes_back(make, gpt, stick, package):
    """Its bins are whole: what the lost log held is gone for Windows, too."""
    hive, log = make(gpt)
    disks.write_files(gpt, gpt.windows, {HIVE: hive} | ({f"{HIVE}.LOG1": log} if log is not None else {}))
    before = hive_hash(gpt)
    machine = ImageMachine([gpt.path, stick.path], controllers_=(SMART_3100,), drivers=(package.parent,))
    assert repair(machine).result.word is ResultWord.REPAIRED
    assert not disks.file_exists(gpt, gpt.windows, f"{HIVE}.LOG1")
    assert run_undo(machine).result.word is ResultWord.UNDONE
    assert hive_hash(gpt) == before
    assert disks.file_exists(gpt, gpt.windows, f"{HIVE}.LOG1") is (log is not None)


@pytest.mark.parametrize("make", [damaged, cut])
def test_a_hive_that_cannot_be_trusted_gets_no_driver(make, gpt, stick, package):
    """Said, and no byte of the disk is changed."""
    hive, log = make(gpt)
    files = {HIVE: hive} | ({f"{HIVE}.LOG1": log} if log is not None else {})
    disks.write_files(gpt, gpt.windows, files)
    before = image_hash(gpt)
    machine = ImageMachine([gpt.path, stick.path], controllers_=(SMART_3100,), drivers=(package.parent,))
    outcome = repair(machine)
    assert outcome.result.word in (ResultWord.NOT_REPAIRED, ResultWord.BLOCKED), outcome.result
    assert outcome.result.changes == ()
    assert outcome.result.verification is None or outcome.result.verification.verdict is not Verdict.PASS
    assert found(outcome)
    assert image_hash(gpt) == before


def test_a_package_that_is_changed_after_the_survey_is_not_installed(gpt, stick, package):
    """Between diagnosis and consent somebody replaces the driver: what was verified is not what lies there."""
    before = hive_hash(gpt)
    machine = ImageMachine([gpt.path, stick.path], controllers_=(SMART_3100,), drivers=(package.parent,))

    def exchanging(*_: object) -> Consent:
        (package / "exraid.sys").write_bytes(make_driver({"ntoskrnl.exe": ["IoCreateDevice"]}, fill=b"other"))
        return Consent(True)

    outcome = run_repair(machine, exchanging, files=lambda _: {"report.json": b"{}"})
    assert outcome.result.word is ResultWord.FAILED, outcome.result
    assert hive_hash(gpt) == before
    assert not disks.file_exists(gpt, gpt.windows, "Windows/System32/drivers/exraid.sys")
