"""What a BIOS needs before it reaches the boot manager: boot code, one active partition, right hidden sectors."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from rehost_payload.repair.issue import Issue
from rehost_payload.repair.model import Finding, PatchBytes, Severity, WriteBootCode
from rehost_payload.repair.view import View
from rehost_payload.survey.model import BootCode, Disk, FileSystem, Partition, Volume

_TABLE = 446
_ENTRY = 16
_LINUX_TYPES = ("83", "8e", "fd", "82")
_HIDDEN_SECTORS = 0x1C  # in the BIOS parameter block, 32 bits, for NTFS and FAT alike


def rules(view: View) -> Iterator[Issue]:
    for disk in view.bios_starts:
        system = view.bios_system_volume(disk)
        if system is None:
            continue
        yield from _master_code(view, disk, system)
        yield from _volume_code(view, disk, system)
        yield from _active(view, disk, system)
        yield from _hidden_sectors(view, disk, system)


def _master_code(view: View, disk: Disk, system: Volume) -> Iterator[Issue]:
    code = disk.table.boot_code
    if code is BootCode.NONE:
        finding, params = "bios.boot-code-missing", {"disk": disk.path}
        evidence = f"{disk.path}: the first 440 bytes hold no boot code"
    elif code is BootCode.GRUB and not _has_linux(view):
        finding, params = "bios.boot-code-foreign", {"disk": disk.path, "code": "GRUB"}
        evidence = f"{disk.path}: GRUB in the first sector, and no Linux on any disk"
    else:
        return
    yield _code_issue(view, disk, system, True, finding, disk.id, params, evidence)


def _volume_code(view: View, disk: Disk, system: Volume) -> Iterator[Issue]:
    code = system.boot_code
    params = {"volume": system.id}
    if code in (BootCode.NONE, BootCode.NOT_BOOTABLE):
        finding = "bios.volume-code-missing"
        says = "no boot code" if code is BootCode.NONE else "a program that says 'not a bootable disk'"
        evidence = f"{system.id}: {says} in the boot sector"
    elif code in (BootCode.NTLDR, BootCode.GRUB):
        finding, params = "bios.volume-code-foreign", params | {"code": code.upper()}
        evidence = f"{system.id}: the boot sector starts {code.upper()}, not bootmgr"
    else:
        return
    yield _code_issue(view, disk, system, False, finding, system.id, params, evidence)


def _code_issue(
    view: View,
    disk: Disk,
    system: Volume,
    master: bool,
    finding: str,
    subject: str,
    params: dict[str, str],
    evidence: str,
) -> Issue:
    own = view.partition_of(system)
    can = (
        view.survey.boot_code_writer and own is not None and own.number <= 4 and system.boot_code is not None
    )
    fix = WriteBootCode(view.disk_ref(disk), view.ref(system), master, finding)
    return Issue(Finding(finding, Severity.FATAL, subject, params, (evidence,), can), (fix,) if can else ())


def _has_linux(view: View) -> bool:
    """GRUB in a disk's first sector loads the rest of itself from a Linux, and may start Windows from there."""
    kinds = (FileSystem.EXT, FileSystem.LINUX_SWAP, FileSystem.LVM, FileSystem.RAID)
    found = any(v.file_system in kinds and not view.disks[v.disk].boot_medium for v in view.survey.volumes)
    return found or any(p.type in _LINUX_TYPES for d in view.survey.disks for p in d.table.partitions)


def _flag(view: View, disk: Disk, partition: Partition, active: bool, finding: str) -> PatchBytes:
    offset = _TABLE + (partition.number - 1) * _ENTRY
    before, after = ("00", "80") if active else ("80", "00")
    return PatchBytes(view.disk_ref(disk), offset, before, after, "active-flag", finding)


def _active(view: View, disk: Disk, system: Volume) -> Iterator[Issue]:
    primary = [p for p in disk.table.partitions if p.number <= 4]
    active = [p for p in primary if p.active]
    own = view.partition_of(system)
    if own is None or own.number > 4:
        return
    evidence = tuple(f"{p.id}: type {p.type}, {'active' if p.active else 'not active'}" for p in primary)
    if not active:
        params = {"disk": disk.path, "partition": own.id}
        finding = Finding("bios.no-active-partition", Severity.FATAL, disk.id, params, evidence, True)
        yield Issue(finding, (_flag(view, disk, own, True, finding.id),))
    elif len(active) > 1:
        others = [p for p in active if p.id != own.id]
        finding = Finding(
            "bios.several-active", Severity.FATAL, disk.id, {"disk": disk.path}, evidence, own.active
        )
        fixes = tuple(_flag(view, disk, p, False, finding.id) for p in others) if own.active else ()
        yield Issue(finding, fixes)


def _hidden_sectors(view: View, disk: Disk, system: Volume) -> Iterator[Issue]:
    """The boot sector of the active partition reads bootmgr relative to this value: wrong means a dead cursor."""
    own = view.partition_of(system)
    if system.hidden_sectors is None or own is None or own.number > 4:
        return  # a logical partition starts nothing, and counts from its extended boot record
    expected = system.offset // disk.sector_size
    found = system.hidden_sectors
    if found == expected or expected > 0xFFFFFFFF:
        return
    params = {"volume": system.id, "found": str(found), "expected": str(expected)}
    finding = Finding(
        "bios.hidden-sectors-wrong",
        Severity.FATAL,
        system.id,
        params,
        (f"{system.id}: boot sector says {found}, the partition starts at {expected}",),
        True,
    )
    patch = PatchBytes(
        view.disk_ref(disk),
        system.offset + _HIDDEN_SECTORS,
        struct.pack("<I", found).hex(),
        struct.pack("<I", expected).hex(),
        "hidden-sectors",
        finding.id,
    )
    yield Issue(finding, (patch,))
