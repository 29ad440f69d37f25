"""What the tests of repair have in common: consent, and the state of a disk as tools that are not ours see it."""

from __future__ import annotations

import hashlib

from rehost_payload.repair.model import Choices, Verdict
from rehost_payload.repair.session import Consent, Outcome, run_repair
from support import disks, stores, windows
from support.disks import DiskLayout
from support.image_system import ImageMachine


def repair(machine: ImageMachine, choices: Choices | None = None) -> Outcome:
    return run_repair(machine, lambda *_: Consent(True), choices, files=lambda _: {"report.json": b"{}"})


def found(outcome: Outcome) -> set[str]:
    assert outcome.result.diagnosis_before is not None
    return {f.id for f in outcome.result.diagnosis_before.findings}


def driver_verdicts(outcome: Outcome) -> set[Verdict]:
    """What the judge said of the points that concern drivers."""
    assert outcome.result.verification is not None
    return {c.verdict for c in outcome.result.verification.checks if c.id.startswith("verify.driver")}


def image_hash(disk: DiskLayout) -> str:
    with disk.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def store_elements(disk: DiskLayout, path: str | None = None) -> stores.Elements:
    part, place = windows.store_place(disk)
    return stores.elements(disks.read_file(disk, part, path or place))


def set_in_store(disk: DiskLayout, change, path: str | None = None) -> None:  # type: ignore[no-untyped-def]
    """Edits the store with hivex: ``change`` gets the handle."""
    part, place = windows.store_place(disk)
    old = disks.read_file(disk, part, path or place)
    disks.write_file(disk, part, path or place, stores.changed(old, change))
