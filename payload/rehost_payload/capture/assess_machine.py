"""Findings about one machine: its state, its checkpoints, what ties it to the old host."""

from __future__ import annotations

from collections.abc import Iterator

from rehost_payload.capture.found import FoundHost, FoundMachine
from rehost_payload.capture.guardians import compare
from rehost_payload.capture.model import Role
from rehost_payload.capture.versions import hosts_for, refused_by
from rehost_payload.formats.vm_model import VirtualMachine
from rehost_payload.formats.vmgs import KEY_PROTECTOR, TPM_NVRAM
from rehost_payload.repair.model import Finding, Severity

_TIED = ("pci express", "fibre", "fiberchannel", "gpu", "remotefx", "3d video")
_CLUSTER = ":\\clusterstorage\\"


def machine_findings(found: FoundHost, machine: FoundMachine, unit: str) -> Iterator[Finding]:
    """``unit`` is the subject of all of them."""
    name = {"machine": machine.name}
    yield from _configuration(found, machine, unit, name)
    yield from _states(machine, unit, name)
    vm = machine.configuration.machine
    if vm is not None:
        yield from _ties(found, machine, vm, unit, name)
        yield from _version(vm, unit, name)
    places = sorted({e.file.original.rpartition("\\")[0] for e in machine.files if e.role is not Role.IMAGE})
    volumes = {e.file.volume for e in machine.files if e.role is not Role.IMAGE}
    if len(volumes) > 1:
        params = {**name, "count": str(len(places)), "volumes": str(len(volumes))}
        yield Finding("capture.scattered", Severity.INFO, unit, params, tuple(places))
    if machine.images:
        params = {**name, "images": ", ".join(machine.images)}
        yield Finding("capture.image-missing", Severity.INFO, unit, params, machine.images)


def _configuration(
    found: FoundHost, machine: FoundMachine, unit: str, name: dict[str, str]
) -> Iterator[Finding]:
    configuration = machine.configuration
    path = configuration.file.original
    if configuration.machine is None:
        params = {**name, "path": path, "detail": configuration.problem}
        yield Finding(
            "capture.configuration-unread",
            Severity.FATAL,
            unit,
            params,
            (f"{path}: {configuration.problem}",),
        )
    for one in (configuration, *machine.checkpoints):
        if one.damage:
            params = {**name, "path": one.file.original, "count": str(len(one.damage))}
            # a disk that only the damaged part names is not known to be this machine's
            weight = Severity.FATAL if one is configuration else Severity.WARNING
            yield Finding("capture.configuration-damaged", weight, unit, params, one.damage)
    unread = [c for c in machine.checkpoints if c.machine is None]
    if unread:
        params = {**name, "count": str(len(unread))}
        lines = tuple(f"{c.file.original}: {c.problem}" for c in unread)
        yield Finding("capture.checkpoint-unread", Severity.WARNING, unit, params, lines)
    if machine.registered is False:
        yield Finding("capture.not-registered", Severity.INFO, unit, {**name, "path": path}, (path,))
    twins = [m.configuration.file.original for m in found.machines if m.id == machine.id]
    if len(twins) > 1:
        params = {**name, "count": str(len(twins)), "id": machine.id}
        yield Finding("capture.same-id", Severity.WARNING, unit, params, tuple(twins))


def _states(machine: FoundMachine, unit: str, name: dict[str, str]) -> Iterator[Finding]:
    if machine.state is not None and machine.state.present:
        files = tuple(e.file.original for e in machine.files if e.role is Role.STATE)
        params = {**name, "maker": machine.state_vendor or "?"}
        yield Finding("capture.saved-state", Severity.WARNING, unit, params, files)
    if machine.checkpoint_states:
        params = {**name, "count": str(len(machine.checkpoint_states))}
        states = (e.file.original for e in machine.files if e.role is Role.CHECKPOINT_STATE)
        files = tuple(f for f in states if any(i in f.lower() for i in machine.checkpoint_states))
        yield Finding("capture.checkpoint-state", Severity.WARNING, unit, params, files)


def _ties(
    found: FoundHost, machine: FoundMachine, vm: VirtualMachine, unit: str, name: dict[str, str]
) -> Iterator[Finding]:
    """What does not come along with the files."""
    yield from _tpm(found, machine, vm, unit, name)
    through = tuple(
        f"{d.controller} {d.controller_number}:{d.slot}: {d.path}" for d in machine.disks if d.pass_through
    )
    if through:
        params = {**name, "disks": ", ".join(through)}
        yield Finding("capture.pass-through", Severity.FATAL, unit, params, through)
    shared = tuple(
        dict.fromkeys(
            [e.file.original for e in machine.files if e.file.path.lower().endswith(".vhds")]
            + [
                d.path
                for d in vm.drives
                if any("persist" in k.lower() and v is True for k, v in d.settings.items())
            ]
        )
    )
    if shared:
        yield Finding(
            "capture.shared-disk", Severity.WARNING, unit, {**name, "disks": ", ".join(shared)}, shared
        )
    clustered = tuple(d.path for d in machine.disks if _CLUSTER in d.path.lower())
    if vm.highly_available or clustered:
        lines = clustered or ("properties/highly_available",)
        yield Finding("capture.clustered", Severity.WARNING, unit, name, lines)
    if vm.replica or any(e.role is Role.REPLICA_LOG for e in machine.files):
        yield Finding("capture.replica", Severity.INFO, unit, name, tuple(vm.replica))
    tied = tuple(d.name for d in vm.devices if any(word in d.name.lower() for word in _TIED))
    if tied:
        params = {**name, "devices": ", ".join(tied)}
        yield Finding("capture.host-devices", Severity.WARNING, unit, params, tied)


def _tpm(
    found: FoundHost, machine: FoundMachine, vm: VirtualMachine, unit: str, name: dict[str, str]
) -> Iterator[Finding]:
    """Without the guardian's keys the machine's own keys cannot be unwrapped, and the old host is about to go.

    The configuration's keys for it are known by name only, so the guest state file is asked as well. A TPM's memory
    alone may be left over from one that was switched off.

    Saved certificates count for a virtual TPM. A shielded machine may be locked by a Host Guardian Service, of which the
    host has no certificate: nothing that is found here says that it will start.
    """
    signs: list[str] = []
    weight = Severity.WARNING
    for stated, key in ((vm.security.shielded, "shielding_requested"), (vm.security.tpm, "tpm_enabled")):
        if stated:
            signs.append(f"configuration/security/settings/{key}")
            weight = Severity.BLOCKER
    state = machine.guest_state
    if state is not None and (state.encrypted or KEY_PROTECTOR in state.files):
        signs.append("guest state: encrypted" if state.encrypted else "guest state: key protector")
        weight = Severity.BLOCKER
    if state is not None and TPM_NVRAM in state.files and vm.security.tpm is not False:
        signs.append(f"guest state: {state.files[TPM_NVRAM]} bytes of a TPM")
    if not signs:
        return
    saved = compare(found.guardians, found.guardian_files)
    evidence = (*signs, *saved.lines)
    if saved.whole and not vm.security.shielded:
        params = {**name, "guardians": ", ".join(saved.names)}
        yield Finding("capture.tpm-saved", Severity.WARNING, unit, params, evidence)
    else:
        params = {**name, "what": "shielded" if vm.security.shielded else "vTPM"}
        yield Finding("capture.tpm", weight, unit, params, evidence)


def _version(vm: VirtualMachine, unit: str, name: dict[str, str]) -> Iterator[Finding]:
    if vm.version is None:
        return
    refused = refused_by(vm.version)
    if refused:
        params = {
            **name,
            "version": vm.version_text,
            "refused": ", ".join(refused),
            "accepted": ", ".join(hosts_for(vm.version)) or "-",
        }
        line = f"configuration version {vm.version_text}"
        yield Finding("capture.version", Severity.WARNING, unit, params, (line,))
