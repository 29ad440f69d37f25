"""What is wrong with disks and partition tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from rehost_payload.repair.issue import Issue
from rehost_payload.repair.model import Finding, RebuildGpt, Severity
from rehost_payload.repair.view import View
from rehost_payload.survey.model import Disk, TableStyle


def rules(view: View) -> Iterator[Issue]:
    yield from _duplicates(view)
    for disk in view.our_disks:
        if disk.raid:
            seen = f"{disk.path}: {disk.raid} at the end of the disk"
            params = {"disk": disk.path, "kind": disk.raid}
            yield Issue(Finding("disk.raid-member", Severity.WARNING, disk.id, params, (seen,)))
    for disk in view.our_disks:
        if disk.table.style is not TableStyle.GPT:
            continue
        evidence = disk.table.problems or (disk.path,)
        params = {"disk": disk.path}
        if not disk.table.primary_ok:
            sure = disk.table.backup_ok and not disk.table.outdated
            fix = RebuildGpt(view.disk_ref(disk), "primary", "disk.gpt-primary-damaged")
            yield Issue(
                Finding("disk.gpt-primary-damaged", Severity.WARNING, disk.id, params, evidence, sure),
                (fix,) if sure else (),
            )
        elif not disk.table.backup_ok:
            # usual after a restore to a larger disk; Windows puts it right itself
            yield Issue(Finding("disk.gpt-backup-damaged", Severity.INFO, disk.id, params, evidence))


def not_alone(view: View) -> frozenset[str]:
    """Those of our disks that share an identity with another one of ours, or are members of an array of which another
    member is there. Writing to one of them is writing to half of something, or to somebody's copy."""
    by_identity, by_signature = _identities(view)
    arrays: dict[str, list[Disk]] = defaultdict(list)
    for disk in view.our_disks:
        if disk.raid:
            arrays[disk.raid].append(disk)
    ours = {d.id for d in view.our_disks}
    groups = [[d.id for d in g] for g in (*by_identity.values(), *by_signature.values(), *arrays.values())]
    return frozenset(d for g in groups if len(ours & set(g)) > 1 for d in g)


def _identities(view: View) -> tuple[dict[str, list[Disk]], dict[int, list[Disk]]]:
    by_signature: dict[int, list[Disk]] = defaultdict(list)
    by_guid: dict[str, list[Disk]] = defaultdict(list)
    for disk in view.survey.disks:
        if disk.boot_medium:
            continue
        if disk.table.style is TableStyle.MBR and disk.table.signature:
            by_signature[disk.table.signature].append(disk)
        for guid in {disk.table.disk_guid, *(p.unique_guid for p in disk.table.partitions)} - {None}:
            by_guid[str(guid)].append(disk)
    return by_guid, by_signature


def _duplicates(view: View) -> Iterator[Issue]:
    """Two disks of one identity: Windows takes one of them offline, and a boot manager may start the wrong one."""
    by_guid, by_signature = _identities(view)
    for signature, disks in by_signature.items():
        if len(disks) > 1:
            names = ", ".join(d.path for d in disks)
            params = {"disks": names, "signature": f"{signature:08x}"}
            yield Issue(
                Finding("disk.duplicate-signature", Severity.WARNING, disks[0].id, params, _who(disks))
            )
    reported: set[str] = set()
    for guid, disks in by_guid.items():
        names = ", ".join(d.path for d in disks)
        if len(disks) > 1 and names not in reported:
            reported.add(names)
            params = {"disks": names, "guid": guid}
            yield Issue(Finding("disk.duplicate-guid", Severity.WARNING, disks[0].id, params, _who(disks)))


def _who(disks: list[Disk]) -> tuple[str, ...]:
    return tuple(f"{d.path}: {d.model} {d.serial}, {d.size} bytes" for d in disks)
