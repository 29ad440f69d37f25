"""What is copied, and whether it may be: a plan's files as jobs, and the refusals before the first byte."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rehost_payload.capture.copy_journal import JOURNAL
from rehost_payload.capture.copy_source import BytesOpener, SourceOpener
from rehost_payload.capture.copy_state import STATE
from rehost_payload.capture.manifest import MANIFEST, SUMS
from rehost_payload.capture.model import CaptureFile, CapturePlan, CaptureUnit, Role, SourceRef
from rehost_payload.repair.model import VolumeRef
from rehost_payload.system.capture_target import TargetInfo
from rehost_payload.system.protocol import TEMPORARY_NAME

PART = ".rehost-part"
"""Ends the name of a file until it was read back and found equal."""

_OURS = {MANIFEST.lower(), SUMS.lower(), STATE.lower(), JOURNAL.lower(), TEMPORARY_NAME}
_DOCUMENT = SourceRef(VolumeRef("", 0, 0, ""), "")

Documents = Mapping[str, Mapping[str, bytes]]
"""Unit id -> path below the unit's folder -> content: small files made for the capture, copied with the others."""


class CaptureRefused(Exception):
    """Nothing was copied. ``code`` is a stable word, ``subject`` the file or target that is to blame.

    "plan", "no-target", "fat32", "source-disk", "same-disk", "holds-source", "inside-capture", "no-space",
    "other-capture", and those of SystemError_.
    """

    def __init__(self, code: str, subject: str, detail: str) -> None:
        self.code = code
        self.subject = subject
        self.detail = detail
        super().__init__(f"{code}: {subject}: {detail}")


@dataclass(frozen=True)
class Job:
    """One file to copy. ``path`` is below the capture's folder, ``inside`` below the unit's."""

    unit: CaptureUnit
    file: CaptureFile
    opener: SourceOpener

    @property
    def path(self) -> str:
        return self.file.target

    @property
    def inside(self) -> str:
        return self.file.target[len(self.unit.folder) + 1 :]


def jobs_of(unit: CaptureUnit, opener: SourceOpener, documents: Documents) -> list[Job]:
    jobs = [Job(unit, file, opener) for file in unit.files]
    for path, data in documents.get(unit.id, {}).items():
        target = f"{unit.folder}/{path}"
        file = CaptureFile(_DOCUMENT, "", target, Role.EVIDENCE, len(data))
        jobs.append(Job(unit, file, BytesOpener(data)))
    return jobs


def identity(plan: CapturePlan) -> str:
    """The same for plans of the same machines of the same host, chosen in the same way: what goes on as one capture.

    Which files they have may change while the host runs between two runs; `layout` tells that of each unit.
    """
    machines = sorted([u.id, u.folder] for u in plan.units if u.kind == "machine")
    chosen = [plan.config_only, plan.images, plan.orphans]
    return hashlib.sha256(json.dumps([plan.host, chosen, machines]).encode()).hexdigest()


def layout(unit: CaptureUnit) -> str:
    """The same while a unit has the same files, whatever is in them."""
    files = sorted([f.original, f.target] for f in unit.files)
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def check_plan(plan: CapturePlan, jobs: Sequence[Job]) -> None:
    """Raises CaptureRefused("plan", ...) for names that would leave the capture's folder or meet each other."""
    _check_name(plan.name, plan.name)
    folders: set[str] = set()
    for unit in plan.units:
        _check_name(unit.folder, unit.folder)
        if unit.folder.lower() in folders or unit.folder.lower() in _OURS:
            raise CaptureRefused("plan", unit.folder, "two units have this folder")
        folders.add(unit.folder.lower())
    seen: set[str] = set()
    for job in jobs:
        if not job.path.startswith(f"{job.unit.folder}/"):
            raise CaptureRefused("plan", job.path, f"it is not below its unit's folder {job.unit.folder}")
        for part in job.path.split("/"):
            _check_name(part, job.path)
        if job.inside.lower() in _OURS or job.path.lower().endswith(PART):
            raise CaptureRefused("plan", job.path, "the name is one that the capture itself uses")
        if job.path.lower() in seen:
            raise CaptureRefused("plan", job.path, "two files have this name")
        seen.add(job.path.lower())
    for job in jobs:
        if job.file.parent is not None and job.file.parent.lower() not in seen:
            raise CaptureRefused("plan", job.path, f"its parent {job.file.parent} is not in the plan")
    for path in seen:
        if any(other in seen for other in above(path)):
            raise CaptureRefused("plan", path, "a file and a folder have the same name")


def above(path: str) -> list[str]:
    """The folders on the way to a path."""
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


def _check_name(name: str, where: str) -> None:
    try:
        name.encode()
        good = name not in ("", ".", "..") and not any(c in '/\\:*?"<>|' or ord(c) < 32 for c in name)
    except UnicodeEncodeError:
        good = False
    if not good:
        raise CaptureRefused("plan", where, f"{name!r} cannot be the name of a file on every target")


def check_targets(plan: CapturePlan, targets: Sequence[TargetInfo]) -> None:
    """Raises CaptureRefused for targets that no copy may lie on."""
    if not targets:
        raise CaptureRefused("no-target", plan.name, "no target was given")
    sources = {file.source.volume for unit in plan.units for file in unit.files}
    for index, target in enumerate(targets):
        if target.file_system.lower() in ("fat", "fat12", "fat16", "fat32", "vfat"):
            raise CaptureRefused("fat32", target.name, f"{target.file_system} holds no file of 4 GiB or more")
        for volume in sources:
            if volume.disk in target.below or _same_disk(
                target, volume.disk, volume.disk_serial, volume.disk_size
            ):
                raise CaptureRefused(
                    "source-disk", target.name, f"files that are copied lie on {volume.disk} too"
                )
        for other in targets[:index]:
            below = {*target.below, target.disk} & {*other.below, other.disk} - {""}
            if (
                target.id == other.id
                or below
                or _same_disk(target, other.disk, other.disk_serial, other.disk_size)
            ):
                raise CaptureRefused("same-disk", target.name, f"{other.name} is on the same disk")


def _same_disk(target: TargetInfo, disk: str, serial: str, size: int) -> bool:
    if target.disk and target.disk == disk:
        return True
    return bool(serial) and (serial, size) == (target.disk_serial, target.disk_size)
