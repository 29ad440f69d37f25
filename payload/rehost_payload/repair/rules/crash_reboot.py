"""Where drivers are changed, a stop error shall stay on the screen: its code is all that a next attempt could go by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rehost_payload.formats.hive import REG_DWORD, SetValue
from rehost_payload.repair.issue import Issue
from rehost_payload.repair.model import EditHive, Finding, InjectDriver, Severity, VolumeRef
from rehost_payload.repair.rules.drivers import hive_edit
from rehost_payload.repair.view import View


def rules(view: View, issues: Sequence[Issue]) -> Iterator[Issue]:
    """``issues`` are those of all other rules: without a change of drivers the setting is left alone."""
    changed = {
        (fix.volume, _root(fix))
        for issue in issues
        if issue.finding.id.startswith("driver.")
        for fix in issue.fixes
        if isinstance(fix, EditHive | InjectDriver)
    }
    for windows in view.windows:
        drivers = windows.drivers
        if drivers is None or not _among(changed, view.ref(view.volumes[windows.volume]), windows.root):
            continue
        on = [s for s in drivers.auto_reboot if s.value not in (None, 0)]
        edits = tuple(
            SetValue(
                (f"ControlSet{s.control_set:03d}", "Control", "CrashControl"),
                "AutoReboot",
                REG_DWORD,
                bytes(4),
            )
            for s in on
        )
        if edits:
            lines = tuple(f"ControlSet{s.control_set:03d}: AutoReboot is {s.value}" for s in on)
            finding = Finding(
                "windows.crash-reboot", Severity.INFO, windows.id, {"windows": windows.id}, lines, True
            )
            yield Issue(finding, (hive_edit(view, windows, edits, finding.id),))


def _root(fix: EditHive | InjectDriver) -> str:
    path = fix.root if isinstance(fix, InjectDriver) else fix.path.split("\\System32\\")[0]
    return path.casefold()


def _among(changed: set[tuple[VolumeRef, str]], volume: VolumeRef, root: str) -> bool:
    return (volume, root.casefold()) in changed
