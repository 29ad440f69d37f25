"""Volumes that we cannot read, or must not write, and the installations on them."""

from __future__ import annotations

from collections.abc import Iterator

from rehost_payload.formats.bcd_devices import VhdDevice, walk_devices
from rehost_payload.formats.gpt import LDM_DATA
from rehost_payload.repair.issue import Issue
from rehost_payload.repair.model import Finding, Severity
from rehost_payload.repair.view import View
from rehost_payload.survey.model import FileSystem, HiveState, Volume

_MBR_DYNAMIC = "42"


def rules(view: View) -> Iterator[Issue]:
    ours = [v for v in view.survey.volumes if view.ours(v.id)]
    locked = [v for v in ours if v.file_system is FileSystem.BITLOCKER]
    for v in locked:
        # without another installation in sight, the one we are asked about is behind this lock
        weight = Severity.INFO if view.windows else Severity.BLOCKER
        yield Issue(Finding("volume.bitlocker", weight, v.id, {"volume": v.id}, (_line(v),)))
    for v in ours:
        if v.hibernated:
            yield Issue(Finding("volume.hibernated", Severity.WARNING, v.id, {"volume": v.id}, (_line(v),)))
        if v.dirty or v.journal_unclean:
            what = "dirty flag" if v.dirty else "unclean $LogFile"
            yield Issue(
                Finding("volume.dirty", Severity.INFO, v.id, {"volume": v.id}, (f"{_line(v)}: {what}",))
            )
        other = other_half(view, v)
        if other is not None:
            params, evidence = {"volume": v.id, "other": other.id}, (_line(v), _line(other))
            yield Issue(Finding("volume.mirrored", Severity.WARNING, v.id, params, evidence))
        if v.unreadable and v.file_system is not FileSystem.BITLOCKER and not _expected(v):
            params = {"volume": v.id, "reason": v.unreadable}
            yield Issue(Finding("volume.unreadable", Severity.INFO, v.id, params, (_line(v),)))
    if not view.windows and not locked:
        weight = Severity.WARNING if _in_virtual_disk(view) else Severity.FATAL
        yield Issue(Finding("windows.none", weight, "machine", {}, tuple(_line(v) for v in ours)))
    if len(view.windows) > 1:
        names = tuple(f"{w.id} ({w.product_name}, {w.build})" for w in view.windows)
        params = {"count": str(len(names)), "candidates": ", ".join(names)}
        yield Issue(Finding("windows.several", Severity.INFO, "machine", params, names))
    for w in view.windows:
        if w.system_hive in (HiveState.DAMAGED, HiveState.MISSING):
            hive = w.root + "\\System32\\config\\SYSTEM"
            yield Issue(
                Finding(
                    "windows.hive-damaged",
                    Severity.FATAL,
                    w.id,
                    {"windows": w.id, "hive": hive},
                    (f"{w.volume} {hive}: {w.system_hive.value}",),
                )
            )


def other_half(view: View, volume: Volume) -> Volume | None:
    """The other half of a mirrored volume of dynamic disks. The boot volume keeps a partition of its own there, in which
    its file system can be read like any other."""
    if not volume.serial or not _is_dynamic(view, volume):
        return None
    same = (volume.file_system, volume.serial)
    others = (v for v in view.survey.volumes if v.disk != volume.disk and (v.file_system, v.serial) == same)
    return next((v for v in others if _is_dynamic(view, v)), None)


def _is_dynamic(view: View, volume: Volume) -> bool:
    partition = view.partition_of(volume)
    return partition is not None and partition.type in (LDM_DATA, _MBR_DYNAMIC)


def _in_virtual_disk(view: View) -> bool:
    """Whether an entry starts a Windows from a VHD(X), into which survey does not look."""
    elements = (e for s in view.stores for _, e in view.content(s).elements())
    return any(isinstance(d, VhdDevice) for e in elements if e.device for d in walk_devices(e.device))


def _line(volume: Volume) -> str:
    return f"{volume.id}: {volume.file_system.value} {volume.label!r}, {volume.size} bytes".replace("'", '"')


def _expected(volume: Volume) -> bool:
    """Nothing to report: no file system that a Windows start could need."""
    return volume.file_system in (
        FileSystem.EMPTY,
        FileSystem.UNKNOWN,
        FileSystem.LINUX_SWAP,
        FileSystem.EXT,
        FileSystem.LVM,
        FileSystem.RAID,
        FileSystem.ISO9660,
        FileSystem.UDF,
        FileSystem.EXFAT,
    )
