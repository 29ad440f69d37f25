"""Settings of a Windows that a move to other hardware meets: servicing, policies, drive letters, SAN policy."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator

from rehost_payload.formats.bcd_devices import GptIdentity, MbrIdentity
from rehost_payload.formats.hive import REG_BINARY, SetValue
from rehost_payload.repair.issue import Issue
from rehost_payload.repair.model import Finding, Severity
from rehost_payload.repair.rules.drivers import hive_edit, starting
from rehost_payload.repair.view import View
from rehost_payload.survey.drivers_model import WindowsDrivers
from rehost_payload.survey.model import WindowsInstallation

_DMIO = b"DMIO:ID:"
_SAN_POLICIES = {2: "offline shared", 3: "offline", 4: "offline internal"}


def rules(view: View) -> Iterator[Issue]:
    for windows in starting(view):
        if windows.drivers is None:
            continue
        yield from _servicing(windows, windows.drivers)
        yield from _policies(windows, windows.drivers)
        yield from _letter(view, windows, windows.drivers)
        yield from _san_policy(view, windows, windows.drivers)


def _servicing(windows: WindowsInstallation, drivers: WindowsDrivers) -> Iterator[Issue]:
    """Updates that were to be finished at the next start; renames of temporary files are everyday life."""
    evidence = []
    if drivers.pending_xml:
        evidence.append(f"{windows.root}\\WinSxS\\pending.xml exists")
    evidence += [f"PendingFileRenameOperations: {entry}" for entry in drivers.pending_drivers]
    if evidence:
        finding = Finding(
            "windows.pending-servicing",
            Severity.WARNING,
            windows.id,
            {"windows": windows.id},
            tuple(evidence),
        )
        yield Issue(finding)


def _policies(windows: WindowsInstallation, drivers: WindowsDrivers) -> Iterator[Issue]:
    denied = [
        p for p in drivers.restrictions if p.name.lower().startswith("deny") and p.value not in ("", "0")
    ]
    denied += [p for p in drivers.restrictions if p.key.lower().startswith("deny") and p.value]
    if denied:
        lines = tuple(
            dict.fromkeys("\\".join(x for x in (p.key, p.name) if x) + f" = {p.value}" for p in denied)
        )
        finding = Finding(
            "windows.device-policy", Severity.WARNING, windows.id, {"windows": windows.id}, lines[:12]
        )
        yield Issue(finding)


def _letter(view: View, windows: WindowsInstallation, drivers: WindowsDrivers) -> Iterator[Issue]:
    """The drive letter of Windows leads to a partition that is not the one it is on."""
    letter = drivers.system_root[:1].upper() if drivers.system_root[1:3] == ":\\" else ""
    known = next((x for x in drivers.letters if x.letter == letter), None)
    volume = view.volumes[windows.volume]
    identity = view.identity(volume)
    if known is None or not isinstance(identity, GptIdentity | MbrIdentity):
        return
    try:
        data = bytes.fromhex(known.data)
    except ValueError:
        return
    if not (len(data) == 12 or (len(data) == 24 and data.startswith(_DMIO))):
        return  # a removable drive or something newer: not ours to judge
    right = _mounted(identity)
    if right is None or data == right:
        return
    name = f"\\DosDevices\\{letter}:"
    evidence = (f"MountedDevices {name} is {data.hex()}, {volume.id} would be {right.hex()}",)
    params = {"windows": windows.id, "letter": f"{letter}:", "volume": volume.id}
    # worth a write only where the volume can take one; it alone must not stand in the way of a repair
    usable = volume.unwritable is None and not (volume.dirty or volume.journal_unclean or volume.hibernated)
    edit = SetValue(("MountedDevices",), name, REG_BINARY, right)
    finding = Finding("windows.letter-elsewhere", Severity.WARNING, windows.id, params, evidence, usable)
    yield Issue(finding, (hive_edit(view, windows, (edit,), finding.id),) if usable else ())


def _mounted(identity: GptIdentity | MbrIdentity) -> bytes | None:
    """How MountedDevices writes a partition; None where its identity is none (an edited survey)."""
    try:
        if isinstance(identity, GptIdentity):
            return _DMIO + uuid.UUID(identity.partition).bytes_le
        return struct.pack("<IQ", identity.signature, identity.offset)
    except (ValueError, struct.error):
        return None


def _san_policy(view: View, windows: WindowsInstallation, drivers: WindowsDrivers) -> Iterator[Issue]:
    """Data disks stay offline after a move; a disk that Windows has not seen before counts as new."""
    default = windows.default_control_set
    policy = next((s.value for s in drivers.san_policy if s.control_set == default), None)
    boot = view.disk_of(windows.volume).id
    data = [d for d in view.our_disks if d.id != boot and not d.removable and d.table.partitions]
    if policy not in _SAN_POLICIES or not data:
        return
    params = {"windows": windows.id, "disks": ", ".join(d.id for d in data)}
    evidence = (f"SanPolicy is {policy} ({_SAN_POLICIES[policy]})",)
    yield Issue(Finding("disk.san-policy", Severity.INFO, windows.id, params, evidence))
