"""What the way back needs to know of a machine, from its configuration."""

from __future__ import annotations

from collections.abc import Mapping

from rehost_payload.capture.found import FoundMachine
from rehost_payload.capture.model import AdapterUse, CheckpointUse, MachineSummary
from rehost_payload.formats.vm_devices import NetworkAdapter, parse_vlan, vlan_text
from rehost_payload.formats.vm_model import VirtualMachine
from rehost_payload.formats.vmgs import KEY_PROTECTOR


def summarize(found: FoundMachine, switches: Mapping[str, str]) -> MachineSummary:
    """``switches`` are the names of the host's switches by their ids."""
    file, machine = found.configuration.file, found.configuration.machine
    saved = found.state is not None and found.state.present
    if machine is None:
        return MachineSummary(
            id=found.id,
            name=found.name,
            generation=None,
            version="?",
            configuration=file.original,
            saved_state=saved,
            registered=found.registered,
            disks=found.disks,
            unread=(f"configuration: {found.configuration.problem}",),
        )
    memory = machine.memory
    firmware, security = machine.firmware, machine.security
    return MachineSummary(
        id=found.id,
        name=found.name,
        generation=machine.generation,
        version=machine.version_text,
        configuration=file.original,
        processors=machine.processors.count,
        memory_mb=memory.startup,
        memory_minimum_mb=memory.minimum,
        memory_maximum_mb=memory.maximum,
        dynamic_memory=memory.dynamic,
        secure_boot=firmware.secure_boot,
        secure_boot_template=firmware.template or firmware.template_id,
        tpm=_tpm(found, machine),
        shielded=security.shielded,
        saved_state=saved,
        registered=found.registered,
        start_action=machine.start_action,
        stop_action=machine.stop_action,
        notes=machine.notes,
        highly_available=machine.highly_available,
        replica=bool(machine.replica),
        disks=found.disks,
        adapters=tuple(_adapter(a, switches) for a in machine.adapters),
        checkpoints=tuple(_checkpoints(found)),
        unread=(*found.configuration.damage, *_blobs(machine), *machine.unread),
    )


def _tpm(found: FoundMachine, machine: VirtualMachine) -> bool | None:
    """What the configuration says; where it does not, a key protector in the guest state file says yes."""
    state = found.guest_state
    protected = state is not None and (state.encrypted or KEY_PROTECTOR in state.files)
    return True if machine.security.tpm is None and protected else machine.security.tpm


def switch_name(adapter: NetworkAdapter, switches: Mapping[str, str]) -> str:
    """The switch by its name where the host's list has it; else as the configuration calls it."""
    if adapter.connected is False:
        return ""
    return switches.get(adapter.switch.lower()) or adapter.switch_name or adapter.switch


def _adapter(adapter: NetworkAdapter, switches: Mapping[str, str]) -> AdapterUse:
    feature = adapter.vlan
    vlan = None if feature is None else parse_vlan(feature)
    by_hand = "" if vlan is None else vlan_text(vlan)
    if feature is not None and vlan is None:
        by_hand = f"VLAN settings that could not be read: {' '.join(d.hex() for d in feature.data)}"
    access = None if vlan is None else vlan.access or None
    return AdapterUse(
        adapter.name,
        adapter.mac or "",
        adapter.mac_static,
        switch_name(adapter, switches),
        vlan=access,
        legacy=adapter.legacy,
        vlan_by_hand="" if access else by_hand,
    )


def _checkpoints(found: FoundMachine) -> list[CheckpointUse]:
    uses = []
    for checkpoint in found.checkpoints:
        machine = checkpoint.machine
        uses.append(
            CheckpointUse(
                checkpoint.id,
                machine.name if machine else checkpoint.id,
                machine.checkpoints.parent if machine else None,
                checkpoint.file.original,
                checkpoint.id in found.checkpoint_states,
            )
        )
    return uses


def _blobs(machine: VirtualMachine) -> list[str]:
    """Settings of switch ports: their bytes are not documented, so they are shown as they are."""
    return [
        f"{adapter.name}: {feature.name or feature.id} settings {' '.join(d.hex() for d in feature.data)}"
        for adapter in machine.adapters
        for feature in adapter.features
        if feature.name != "offload" and parse_vlan(feature) is None
    ]
