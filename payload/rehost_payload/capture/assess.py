"""What the operator must know before it is too late. Pure functions of what was found and chosen.

Severities: BLOCKER where going on would lose something that nobody would miss until it is gone; FATAL where a machine
cannot be captured whole from here, or is not whole on the server already; WARNING where it can, but not everything will
work as before; INFO otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator

from rehost_payload.capture.assess_disks import disk_findings
from rehost_payload.capture.assess_host import host_findings
from rehost_payload.capture.assess_machine import machine_findings
from rehost_payload.capture.found import FoundHost
from rehost_payload.capture.model import CaptureChoices
from rehost_payload.capture.selection import selected, unit_ids
from rehost_payload.repair.model import Finding


def assess(found: FoundHost, choices: CaptureChoices) -> tuple[Finding, ...]:
    """All findings; those of a machine have its unit's id as their subject, the others "host" or a volume's id."""
    return tuple(_findings(found, choices))


def _findings(found: FoundHost, choices: CaptureChoices) -> Iterator[Finding]:
    machines = selected(found, choices)
    ids = unit_ids(found)
    orphans = choices.orphans and choices.machines is None
    # where disks of no machine are not captured, nothing is said of how they are
    yield from (f for f in host_findings(found, machines) if orphans or f.id != "capture.orphan-disks")
    for machine in machines:
        unit = ids[machine.configuration.file.original]
        yield from machine_findings(found, machine, unit)
        yield from disk_findings(machine, unit)
