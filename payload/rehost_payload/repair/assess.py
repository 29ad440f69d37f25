"""All rules over one survey: the common ground of diagnose and plan, which therefore cannot disagree. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from rehost_payload.repair.compile import compile_plan
from rehost_payload.repair.issue import Issue
from rehost_payload.repair.model import (
    Choices,
    CopyFile,
    CreateStore,
    DiskRef,
    EditHive,
    EditStore,
    Finding,
    InjectDriver,
    PatchBytes,
    Plan,
    RebuildGpt,
    Severity,
    VolumeRef,
    WriteBootCode,
)
from rehost_payload.repair.rules import (
    bios,
    crash_reboot,
    disks,
    driver_settings,
    driver_stack,
    drivers,
    elements,
    firmware,
    rebuild,
    volumes,
)
from rehost_payload.repair.view import View
from rehost_payload.survey.model import Survey

_RULES = (
    *(volumes.rules, disks.rules, rebuild.rules, elements.rules, bios.rules, firmware.rules),
    *(drivers.rules, driver_stack.rules, driver_settings.rules),
)
_ORDER = (Severity.BLOCKER, Severity.FATAL, Severity.WARNING, Severity.INFO)
# bytes of a new store and of its temporary twin, and what a folder entry and cluster rounding take per file
_STORE_SIZE = 64 * 1024
_PER_FILE = 8 * 1024
# a hive's temporary twin, or a driver package; apply asks the volume itself for the exact room
_HIVE_SIZE = 32 * 1024 * 1024


@dataclass(frozen=True)
class Assessment:
    """``plan`` holds the actions of every repairable issue; it is not to be applied while something blocks."""

    issues: tuple[Issue, ...]
    plan: Plan

    @property
    def blocked(self) -> bool:
        return any(i.finding.severity is Severity.BLOCKER for i in self.issues)


def assess(survey: Survey, choices: Choices | None = None) -> Assessment:
    """Every issue of a machine, worst first, and the plan that remedies what can be remedied."""
    view = View(survey, choices or Choices())
    issues = [i for rule in _RULES for i in rule(view)]
    issues += crash_reboot.rules(view, issues)
    plan = compile_plan(view, issues)
    issues += _obstacles(view, plan)
    issues = [_raised(view, i, plan) for i in issues]
    ordered = sorted(issues, key=lambda i: _ORDER.index(i.finding.severity))
    return Assessment(tuple(ordered), plan)


def _raised(view: View, issue: Issue, plan: Plan) -> Issue:
    """What is a mere warning on a machine that needs no writes stands in the way where some are needed.

    A hibernated Windows holds parts of its system partition and its boot store in memory: whatever is changed
    below it, it would overwrite or break on when it resumes.
    """
    finding = issue.finding
    hibernated = finding.id == "volume.hibernated" and plan.actions
    dirty = finding.id == "volume.dirty" and _writes_ntfs(view, plan, finding.subject)
    half = finding.id == "volume.mirrored" and view.ref(view.volumes[finding.subject]) in _targets(plan)
    if not hibernated and not dirty and not half and not _one_of_several(view, finding, plan):
        return issue
    return replace(issue, finding=replace(finding, severity=Severity.BLOCKER))


def _one_of_several(view: View, finding: Finding, plan: Plan) -> bool:
    """Which of several disks is meant, or whether they are one, is not for us to guess. A disk that was chosen is."""
    if finding.id not in ("disk.duplicate-guid", "disk.duplicate-signature", "disk.raid-member"):
        return False
    several = disks.not_alone(view)
    written = {v.disk for v in _targets(plan)} | {d.path for d in _touched(plan)}
    return finding.subject in several and any(d.path in written for d in view.our_disks if d.id in several)


def _touched(plan: Plan) -> set[DiskRef]:
    return {a.disk for a in plan.actions if isinstance(a, PatchBytes | RebuildGpt | WriteBootCode)}


def _targets(plan: Plan) -> set[VolumeRef]:
    kinds = EditStore | CreateStore | CopyFile | EditHive | InjectDriver | WriteBootCode
    return {a.volume for a in plan.actions if isinstance(a, kinds)}


def _writes_ntfs(view: View, plan: Plan, volume: str) -> bool:
    """FAT volumes are written whatever their dirty flag says, as Windows does it; NTFS volumes are not."""
    ref = view.ref(view.volumes[volume])
    return ref in _targets(plan) and ref.file_system == "ntfs"


def _obstacles(view: View, plan: Plan) -> Iterator[Issue]:
    """What makes the plan impossible: too little room, a disk that cannot be written."""
    targets = _targets(plan)
    touched = _touched(plan)
    for disk in view.our_disks:
        of_disk = [v for v in view.survey.volumes if v.disk == disk.id and view.ref(v) in targets]
        if disk.read_only and (of_disk or view.disk_ref(disk) in touched):
            yield Issue(
                Finding(
                    "disk.read-only",
                    Severity.BLOCKER,
                    disk.id,
                    {"disk": disk.path},
                    (f"{disk.path}: read-only",),
                )
            )
        for volume in of_disk:
            needed = _needed(plan, view.ref(volume))
            if volume.free is not None and volume.free < needed:
                params = {"volume": volume.id, "free": str(volume.free), "needed": str(needed)}
                evidence = (
                    f"{volume.id}: {volume.free} of {volume.size} bytes are free, {needed} are needed",
                )
                yield Issue(Finding("esp.full", Severity.BLOCKER, volume.id, params, evidence))


def _needed(plan: Plan, ref: VolumeRef) -> int:
    total = 0
    for action in plan.actions:
        if isinstance(action, CopyFile) and action.volume == ref:
            total += action.size + _PER_FILE
        elif isinstance(action, EditStore | CreateStore) and action.volume == ref:
            total += 2 * _STORE_SIZE
        elif isinstance(action, EditHive | InjectDriver) and action.volume == ref:
            total += _HIVE_SIZE
    return total
