"""Findings about a machine's virtual disks and files: what is not there, does not fit together, or cannot be read."""

from __future__ import annotations

from collections.abc import Iterator

from rehost_payload.capture.found import ChainFault, FoundDisk, FoundMachine
from rehost_payload.formats.vhdx import Vhdx
from rehost_payload.repair.model import Finding, Severity


def disk_findings(machine: FoundMachine, unit: str) -> Iterator[Finding]:
    """``unit`` is the subject of all of them."""
    name = {"machine": machine.name}
    yield from _chains(machine, unit, name)
    yield from _files(machine, unit, name)
    for disk in _disks(machine):
        path = disk.file.original
        if isinstance(disk.disk, Vhdx) and disk.dirty:
            log = disk.disk.log
            line = f"{path}: log {disk.disk.header.log_guid}, {log.active} entries, {log.sectors} sectors pending"
            yield Finding("capture.disk-dirty", Severity.WARNING, unit, {**name, "path": path}, (line,))
        problems = disk.disk.problems if disk.disk is not None else ()
        if problems:
            params = {**name, "path": path, "detail": problems[0]}
            yield Finding(
                "capture.disk-damaged",
                Severity.FATAL,
                unit,
                params,
                tuple(f"{path}: {p}" for p in problems),
            )
    vm = machine.configuration.machine
    if vm is not None and vm.checkpoints.merge_pending:
        line = "global_settings/disk_merge_pending"
        yield Finding("capture.merge-pending", Severity.INFO, unit, name, (line,))
    if machine.stray:
        params = {**name, "disks": ", ".join(machine.stray)}
        yield Finding("capture.stray-disk", Severity.WARNING, unit, params, machine.stray)


def _disks(machine: FoundMachine) -> list[FoundDisk]:
    found = {d.file.original: d for chain in machine.chains.values() for d in chain.disks}
    return list(found.values())


def _chains(machine: FoundMachine, unit: str, name: dict[str, str]) -> Iterator[Finding]:
    faults: dict[ChainFault, None] = {}
    warnings: dict[str, None] = {}
    for chain in machine.chains.values():
        faults.update(dict.fromkeys(chain.faults))
        warnings.update(dict.fromkeys(chain.warnings))
    stored = {d.file.original for d in _disks(machine) if d.file.unreadable}  # said of the file itself
    for fault in faults:
        if fault.kind == "unreadable" and fault.child in stored:
            continue
        params = {**name, "child": fault.child, "parent": fault.parent, "detail": fault.detail}
        line = (f"{fault.kind}: {fault.child} -> {fault.parent or '?'}: {fault.detail}",)
        if fault.kind == "moved":
            yield Finding("capture.parent-moved", Severity.WARNING, unit, params, line)
        elif fault.kind == "unreadable":
            params = {**name, "path": fault.child, "detail": fault.detail}
            yield Finding("capture.disk-unread", Severity.FATAL, unit, params, line)
        elif fault.kind == "missing":
            yield Finding("capture.parent-missing", Severity.FATAL, unit, params, line)
        else:
            yield Finding("capture.chain-broken", Severity.FATAL, unit, params, line)
    if warnings:
        params = {**name, "count": str(len(warnings))}
        yield Finding("capture.chain-warnings", Severity.INFO, unit, params, tuple(warnings))


def _files(machine: FoundMachine, unit: str, name: dict[str, str]) -> Iterator[Finding]:
    parents = {f.parent for c in machine.chains.values() for f in c.faults if f.kind == "missing"}
    gone = tuple(path for path in machine.missing if path not in parents)
    if gone:
        params = {**name, "files": ", ".join(gone)}
        yield Finding("capture.file-missing", Severity.FATAL, unit, params, gone)
    remote = tuple(path for path in machine.unreached if _is_remote(path))
    if remote:
        params = {**name, "files": ", ".join(remote)}
        yield Finding("capture.file-remote", Severity.FATAL, unit, params, remote)
    locked = tuple(path for path in machine.unreached if not _is_remote(path))
    if locked:
        params = {**name, "files": ", ".join(locked)}
        yield Finding("capture.file-locked", Severity.BLOCKER, unit, params, locked)
    stored = [e.file for e in machine.files if e.file.unreadable]
    for file in stored:
        params = {**name, "path": file.original, "reason": file.unreadable or ""}
        yield Finding(
            "capture.file-unreadable", Severity.FATAL, unit, params, (f"{file.original}: {file.unreadable}",)
        )


def _is_remote(path: str) -> bool:
    return path.startswith("\\\\") and not path.startswith(("\\\\?\\", "\\\\.\\"))
