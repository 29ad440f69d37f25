"""One plan of many issues: what concerns one hive becomes one action."""

from __future__ import annotations

from rehost_payload.formats.hive import DeleteKey, SetValue
from rehost_payload.repair.compile import compile_plan
from rehost_payload.repair.issue import Issue
from rehost_payload.repair.model import (
    EditHive,
    Finding,
    InjectDriver,
    SetFirmwareVariable,
    Severity,
    VolumeRef,
)
from rehost_payload.repair.view import View
from rehost_payload.survey.model import Firmware, FirmwareMode, Survey

VOLUME = VolumeRef("/dev/sda", 1 << 20, 1 << 30, "ntfs")
OTHER = VolumeRef("/dev/sdb", 1 << 20, 1 << 30, "ntfs")
START, OVERRIDE = SetValue(("S",), "Start", 4, bytes(4)), DeleteKey(("S", "StartOverride"))


def edit(volume: VolumeRef, *edits: SetValue | DeleteKey, replay: bool = False) -> EditHive:
    logs = ("\\SYSTEM.LOG1",) if replay else ()
    return EditHive(volume, "\\SYSTEM", "0", edits, "f", replay, logs)


def test_edits_of_one_hive_are_merged_and_ordered() -> None:
    inject = InjectDriver(VOLUME, "\\W", "/p", "a.inf", "0", (), "s", 14393, 3, "0", "f")
    variable = SetFirmwareVariable("BootOrder", None, "00", "f")
    fixes = (variable, edit(VOLUME, START), edit(OTHER, START), inject)
    issues = [
        Issue(Finding("a", Severity.FATAL, "x"), fixes),
        Issue(Finding("b", Severity.FATAL, "x"), (edit(VOLUME, START, OVERRIDE, replay=True), inject)),
    ]
    plan = compile_plan(View(Survey("0", "", "linux", Firmware(FirmwareMode.UNKNOWN))), issues)
    assert plan.actions == (
        inject,
        edit(VOLUME, START, OVERRIDE, replay=True),
        edit(OTHER, START),
        variable,
    )
    assert plan.findings == ("a", "b")
