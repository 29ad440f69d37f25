"""Findings about the host, its volumes and its disks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rehost_payload.capture.found import FoundHost, FoundMachine, FoundVolume
from rehost_payload.capture.model import Role
from rehost_payload.capture.volumes import BY_SYSTEM
from rehost_payload.capture.words import in_gib
from rehost_payload.repair.model import Finding, Severity
from rehost_payload.survey.model import FileSystem

_LOCKED = {
    FileSystem.BITLOCKER: "BitLocker",
    FileSystem.REFS: "ReFS",
    FileSystem.STORAGE_SPACES: "Storage Spaces",
    FileSystem.LDM: "dynamic disk",
    FileSystem.RAID: "software RAID",
}
_RAID_CLASS = "0104"
_DISKS = (Role.DISK, Role.DIFFERENCING_DISK)


def host_findings(found: FoundHost, machines: Sequence[FoundMachine]) -> Iterator[Finding]:
    """``machines`` are those to be captured."""
    yield from _windows(found)
    if not found.machines:
        yield Finding("capture.no-machines", Severity.WARNING, "host")
    for identifier, path in found.lost.items():
        params = {"id": identifier, "path": path}
        yield Finding("capture.machine-lost", Severity.FATAL, "host", params, (f"{identifier}: {path}",))
    yield from _volumes(found, machines)
    yield from _problems(found)
    yield from _folders(machines)
    yield from _arrays(found, machines)
    if found.left_out:
        params = {"count": str(len(found.left_out))}
        yield Finding("capture.left-out", Severity.INFO, "host", params, found.left_out)
    if found.orphan_chains:
        lines = tuple(
            "; ".join((c.disks[0].file.original, *(f"{f.kind}: {f.detail}" for f in c.faults)))
            for c in found.orphan_chains
        )
        params = {"count": str(len(lines))}
        yield Finding("capture.orphan-disks", Severity.INFO, "host", params, lines)
    if machines:
        yield Finding("capture.domain-controllers", Severity.INFO, "host")


def _windows(found: FoundHost) -> Iterator[Finding]:
    if found.windows is None or not found.windows.hyperv_host:
        yield Finding("capture.no-host", Severity.WARNING, "host")
    if len(found.hosts) > 1 and found.windows is not None:
        names = tuple(f"{w.id} ({w.computer_name}, {w.product_name})" for w in found.hosts)
        params = {"used": found.windows.id, "candidates": ", ".join(names)}
        yield Finding("capture.several-hosts", Severity.WARNING, "host", params, names)
    if found.settings is not None and "Failover Clustering" in found.settings.roles:
        yield Finding("capture.cluster-host", Severity.WARNING, "host")
    if found.settings is not None and found.settings.unread:
        params = {"count": str(len(found.settings.unread))}
        yield Finding("capture.settings-unread", Severity.INFO, "host", params, found.settings.unread)


def _volumes(found: FoundHost, machines: Sequence[FoundMachine]) -> Iterator[Finding]:
    """What lies on a volume that cannot be read is lost without a word unless everything is known to lie elsewhere."""
    asked = {path[:2].upper() for m in found.machines for path in m.unreached}
    complete = _complete(found)
    for volume in found.volumes:
        where = volume.letters[0] if volume.letters else volume.id
        line = f"{volume.id}: {volume.file_system}, {volume.size} bytes, letters {volume.letters}"
        if volume.file_system == FileSystem.REFS and volume.unreadable is None:
            yield Finding("capture.refs-mounted", Severity.WARNING, volume.id, {"volume": where}, (line,))
        reason = _reason(volume)
        if reason is None:
            continue
        needed = bool(asked & set(volume.letters)) or not complete
        weight = Severity.BLOCKER if needed else Severity.WARNING
        params = {"volume": where, "reason": reason, "size": in_gib(volume.size)}
        yield Finding("capture.volume-unreadable", weight, volume.id, params, (line,))


def _complete(found: FoundHost) -> bool:
    """Whether every machine that the host knows was found."""
    return found.known is not None and not found.lost


def _reason(volume: FoundVolume) -> str | None:
    kind = FileSystem(volume.file_system)
    if kind in BY_SYSTEM and volume.unreadable is None:
        return None
    if kind in _LOCKED:
        return _LOCKED[kind]
    if volume.unreadable in ("damaged", "io"):
        return volume.unreadable
    return volume.unreadable if volume.letters else None


def _problems(found: FoundHost) -> Iterator[Finding]:
    behind = Severity.WARNING if _complete(found) else Severity.BLOCKER  # as for a volume that cannot be read
    for code, finding, weight in (
        ("disk", "capture.disk-unreadable", behind),
        ("list-damaged", "capture.list-damaged", Severity.WARNING),
    ):
        for problem in found.problems:
            if problem.code == code or (code == "disk" and problem.code == "io"):
                params = {"where": problem.where, "detail": problem.detail}
                evidence = (f"{problem.where}: {problem.detail}",)
                yield Finding(finding, weight, "host", params, evidence)
    for volume in dict.fromkeys(p.where for p in found.problems if p.code == "unsearched"):
        lines = tuple(p.detail for p in found.problems if (p.code, p.where) == ("unsearched", volume))
        yield Finding("capture.search-incomplete", Severity.FATAL, "host", {"where": volume}, lines)
    rest = [p for p in found.problems if p.code not in ("disk", "io", "list-damaged", "unsearched")]
    if rest:
        lines = tuple(f"{p.where}: {p.detail}" for p in rest)
        params = {"count": str(len(rest))}
        yield Finding("capture.read-problems", Severity.WARNING, "host", params, lines)


def _folders(machines: Sequence[FoundMachine]) -> Iterator[Finding]:
    """Several machines whose disks lie in one folder: who copies by folders copies them all, or mixes them up."""
    folders: dict[str, set[str]] = {}
    for machine in machines:
        for entry in machine.files:
            if entry.role in _DISKS:
                folders.setdefault(entry.file.original.rpartition("\\")[0], set()).add(machine.name)
    for folder, names in sorted(folders.items()):
        if len(names) > 1:
            params = {"folder": folder, "machines": ", ".join(sorted(names)), "count": str(len(names))}
            yield Finding("capture.common-folder", Severity.INFO, "host", params, (folder,))


def _arrays(found: FoundHost, machines: Sequence[FoundMachine]) -> Iterator[Finding]:
    """Disks with machines that are an array of a RAID controller: another controller cannot read them."""
    raid = {c.address: c for c in found.controllers if c.class_code.startswith(_RAID_CLASS)}
    volumes = {e.file.volume for m in machines for e in m.files}
    holding = {v.disk for v in found.volumes if v.id in volumes}
    lines = tuple(
        f"{d.id} {d.path}: {d.model}, {in_gib(d.size)}, controller {d.controller} ({raid[d.controller].driver})"
        for d in found.disks
        if d.id in holding and d.controller in raid
    )
    if lines:
        params = {"disks": ", ".join(line.partition(":")[0] for line in lines)}
        yield Finding("capture.raid-array", Severity.WARNING, "host", params, lines)
