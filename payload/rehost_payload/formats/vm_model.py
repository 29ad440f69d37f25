"""One model of a virtual machine, from either kind of configuration.

The keys are those of real configurations of versions 5.0 and 9.0. No sample had a checkpoint, a saved state or a
virtual TPM in use: their keys are known by name only, so they are read where they are found and never needed. What
is not understood is named in ``unread`` and stays in the tree.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.vm_devices import (
    TPM,
    Device,
    Drive,
    NetworkAdapter,
    read_adapters,
    read_drives,
    read_manifest,
)
from rehost_payload.formats.vm_keys import Keys
from rehost_payload.formats.vm_tree import Node, Value

_GUID = re.compile(r"\{?([0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})\}?")
_KINDS = {
    "virtual machines": "machine",
    "snapshots": "checkpoint",
    "planned virtual machines": "planned machine",
    "resource types": "resource type",
}
_TEMPLATES = {
    "1734c6e8-3154-4dda-ba5f-a874cc483422": "Microsoft Windows",
    "272e7447-90a4-4563-a4b9-8e4ab00526ce": "Microsoft UEFI Certificate Authority",
    "4292ae2b-ee2c-42b5-a969-dd8f8689f6f3": "Open Source Shielded VM",
}
_FIRMWARE = "_ac6b8dc1-3257-4a70-b1b2-a9c9215659ad_"
_GUEST_STATE = "_917bd8cb-3bb6-4124-9383-b7d21ac07f79_"


@dataclass(frozen=True)
class Memory:
    """MiB. With dynamic memory ``startup`` may grow to ``maximum`` and shrink to ``minimum``."""

    startup: int | None
    minimum: int | None
    maximum: int | None
    dynamic: bool | None
    buffer_percent: int | None
    priority: int | None


@dataclass(frozen=True)
class Processors:
    """``limit`` and ``reservation`` in thousandths of a percent. ``compatible``: features limited for migration."""

    count: int | None
    limit: int | None
    reservation: int | None
    weight: int | None
    compatible: bool | None
    limit_cpuid: bool | None
    nested: bool | None


@dataclass(frozen=True)
class Firmware:
    """``boot_order`` as stored: words for BIOS machines, device paths for UEFI ones."""

    secure_boot: bool | None
    template_id: str
    template: str
    boot_order: tuple[str, ...]
    bios_guid: str
    serial: str
    nvram_bytes: int | None
    guest_state_file: str  # .vmgs: variables and TPM of newer machines


@dataclass(frozen=True)
class Security:
    """None where the configuration does not say. ``tpm_listed``: the device is there, used or not."""

    tpm_listed: bool
    tpm: bool | None
    shielded: bool | None
    data_protection: bool | None
    encrypted_migration: bool | None


@dataclass(frozen=True)
class SavedState:
    """What says that a machine was saved. In a configuration type and paths, in a state file the state itself."""

    type: str = ""  # Normal, Snapshot, Fast
    state_file: str = ""
    memory_file: str = ""
    version: int | None = None
    has_processors: bool = False
    memory_blocks: int = 0

    @property
    def present(self) -> bool:
        return bool(
            self.type or self.state_file or self.memory_file or self.has_processors or self.memory_blocks
        )


@dataclass(frozen=True)
class CheckpointEntry:
    """One entry of ``snapshots/list``. Its layout is not documented: the GUIDs found in it, in their order."""

    key: str
    guids: tuple[str, ...]


@dataclass(frozen=True)
class Checkpoints:
    """``parent`` is the checkpoint this configuration continues; ``parent_key`` is where that was found."""

    count: int | None
    entries: tuple[CheckpointEntry, ...]
    automatic: bool | None
    user_type: int | None
    merge_pending: bool | None
    parent: str | None = None
    parent_key: str = ""


@dataclass(frozen=True)
class Places:
    """Folders that were set for this machine; "" is the host's default."""

    configuration: str
    checkpoints: str
    smart_paging: str


@dataclass(frozen=True)
class VirtualMachine:
    """A configuration. GUIDs in lower case; ``kind`` "machine", "checkpoint", ... or the unknown type's own name."""

    kind: str
    name: str
    id: str
    machine_id: str  # settings/global/logical_id: for a checkpoint presumably the machine it belongs to
    generation: int | None
    subtype: int | None
    version: int | None  # major << 8 | minor
    notes: str
    highly_available: bool | None
    created: datetime | None
    last_on: datetime | None
    last_off: datetime | None
    memory: Memory
    processors: Processors
    drives: tuple[Drive, ...]
    adapters: tuple[NetworkAdapter, ...]
    firmware: Firmware
    security: Security
    saved_state: SavedState
    checkpoints: Checkpoints
    places: Places
    replica: dict[str, Value]
    start_action: str
    stop_action: str
    owner: str
    generation_id: str
    devices: tuple[Device, ...]
    unread: tuple[str, ...]

    @property
    def version_text(self) -> str:
        """ "9.0"; "?" where the configuration does not say."""
        return "?" if self.version is None else f"{self.version >> 8}.{self.version & 0xFF}"


@dataclass(frozen=True)
class KnownMachines:
    """The host's list data.vmcx: full paths of configurations by GUID, in the letters of that Windows."""

    machines: dict[str, str]
    cached: dict[str, str]
    resource_types: dict[str, str]
    unread: tuple[str, ...]


def content_of(root: Node) -> str:
    """What a tree holds: "machine" (any kind of configuration), "known machines", "state", or "unknown"."""
    if root.child("Configurations") is not None:
        return "known machines"
    properties = root.find("configuration/properties")
    if properties is not None and any(properties.child(n) for n in ("name", "global_id", "type_id")):
        return "machine"
    if (
        root.child("savedstate") is not None
        or root.child("configuration") is not None
        or root.child("savedVM")
    ):
        return "state"
    return "unknown"


def read_machine(root: Node) -> VirtualMachine:
    """The machine or checkpoint that a configuration describes. FormatError where it describes none."""
    configuration = root.child("configuration")
    properties = None if configuration is None else configuration.child("properties")
    if configuration is None or properties is None:
        raise FormatError("virtual machine", "the file has no configuration/properties")
    keys = Keys()
    settings, general = configuration.child("settings"), configuration.child("global_settings")
    devices = read_manifest(keys, configuration)
    type_id = keys.text(properties, "type_id") or ""
    subtype = keys.number(properties, "subtype")
    machine = VirtualMachine(
        kind=_KINDS.get(type_id.lower(), type_id or "machine"),
        name=keys.text(properties, "name") or "",
        id=_guid(keys.text(properties, "global_id")),
        machine_id=_guid(keys.text(settings, "global/logical_id")),
        generation={0: 1, 1: 2}.get(-1 if subtype is None else subtype),
        subtype=subtype,
        version=keys.number(properties, "version"),
        notes=keys.text(properties, "notes") or "",
        highly_available=keys.flag(properties, "highly_available"),
        created=keys.time(properties, "creation_time"),
        last_on=keys.time(properties, "last_powered_on_time"),
        last_off=keys.time(properties, "last_powered_off_time"),
        memory=_memory(keys, settings),
        processors=_processors(keys, settings),
        drives=read_drives(keys, configuration, devices),
        adapters=read_adapters(keys, configuration, devices),
        firmware=_firmware(keys, configuration),
        security=_security(keys, configuration, devices),
        saved_state=_saved_state(keys, root),
        checkpoints=_checkpoints(keys, properties, general),
        places=Places(
            keys.text(general, "data_root") or "",
            keys.text(general, "snapshots/data_root") or "",
            keys.text(general, "slp_data_root") or "",
        ),
        replica=_replica(keys, configuration),
        start_action=_action(
            keys, general, "power/host_startup/action", ("nothing", "if it ran before", "always")
        ),
        stop_action=_action(keys, general, "power/host_shutdown/action", ("turn off", "save", "shut down")),
        owner=keys.text(general, "owner/sid") or "",
        generation_id=keys.text(general, "devices/generation_id") or "",
        devices=devices,
        unread=(),
    )
    keys.skip(None if general is None else general.child("metrics"))
    # last, when all the others have been read
    return replace(machine, unread=tuple(p for p in keys.unread(root) if not p.endswith("/VDEVVersion")))


def read_known_machines(root: Node) -> KnownMachines:
    """The content of data.vmcx. FormatError for another file."""
    base = root.child("Configurations")
    if base is None:
        raise FormatError("list of virtual machines", "the file has no key Configurations")
    keys = Keys()
    keys.number(base, "FormatVersion")
    keys.text(base, "RegID")

    def paths(name: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for part in base.all(name):
            for node in part.children:
                if isinstance(node.value, str):
                    keys.take(node)
                    found[node.name.strip("_").lower()] = node.value
        return found

    machines, cached, types = (paths(n) for n in ("VirtualMachines", "VirtualMachinesCache", "ResourceTypes"))
    return KnownMachines(machines, cached, types, tuple(keys.unread(root)))


def read_saved_state(root: Node) -> SavedState:
    """What a state file (.vmrs, .vsv) holds; ``present`` is False for that of a machine that was shut down."""
    return _saved_state(Keys(), root)


def _guid(text: str | None) -> str:
    return (text or "").strip("{}").lower()


def _memory(keys: Keys, settings: Node | None) -> Memory:
    bank = None if settings is None else settings.find("memory/bank")
    return Memory(
        keys.number(bank, "size"),
        keys.number(bank, "reservation"),
        keys.number(bank, "limit"),
        keys.flag(bank, "dynamic_memory_enabled"),
        keys.number(bank, "target_memory_buffer"),
        keys.number(bank, "priority"),
    )


def _processors(keys: Keys, settings: Node | None) -> Processors:
    base = None if settings is None else settings.child("processors")
    return Processors(
        keys.number(base, "count"),
        keys.number(base, "limit"),
        keys.number(base, "reservation"),
        keys.number(base, "weight"),
        keys.flag(base, "features/limit"),
        keys.flag(base, "limit_cpuid"),
        keys.flag(base, "nested_virtualization/enabled"),
    )


def _firmware(keys: Keys, configuration: Node) -> Firmware:
    base = configuration.child(_FIRMWARE)
    boot = None if base is None else base.child("boot")
    order = [keys.take(node) for node in boot.children] if boot is not None else []
    template = _guid(keys.text(base, "secure_boot_template_id"))
    return Firmware(
        keys.flag(base, "secure_boot_enabled"),
        template,
        _TEMPLATES.get(template, ""),
        tuple(entry for entry in order if isinstance(entry, str)),
        _guid(keys.text(base, "bios_guid")),
        keys.text(base, "bios_serial_number") or "",
        keys.size(base, "nvram"),
        keys.text(configuration.child(_GUEST_STATE), "StateFilePath") or "",
    )


def _security(keys: Keys, configuration: Node, devices: tuple[Device, ...]) -> Security:
    base = configuration.find("security/settings")
    return Security(
        any(device.device == TPM for device in devices),
        keys.flag(base, "tpm_enabled"),
        keys.flag(base, "shielding_requested"),
        keys.flag(base, "data_protection_requested"),
        keys.flag(base, "encrypt_state_migration"),
    )


def _saved_state(keys: Keys, root: Node) -> SavedState:
    listed = root.find("configuration/savedstate")
    # versions up to 5.0 have no key "savedstate" above the state
    state = root.child("savedstate") or root
    partition = state.find("savedVM/partition_state")
    if partition is not None:
        keys.take(partition)
    blocks = 0
    for node in state.children:
        name = node.name.lower()
        if re.fullmatch(r"ram(memory)?block[0-9]*", name):
            keys.skip(Node("", children=[node]))
            if name.startswith("ramblock"):
                blocks += len(node.children) or 1
    return SavedState(
        keys.text(listed, "type") or keys.text(root, "savedstate/type") or "",
        keys.text(listed, "vsvlocation") or "",
        keys.text(listed, "memlocation") or "",
        keys.number(state, "VmVersion"),
        partition is not None,
        blocks,
    )


def _checkpoints(keys: Keys, properties: Node, general: Node | None) -> Checkpoints:
    base = None if general is None else general.child("snapshots")
    listed = None if base is None else base.child("list")
    entries: list[CheckpointEntry] = []
    for node in listed.children if listed is not None else ():
        if node.name.lower() == "size":
            continue
        found: list[str] = []
        for _, leaf in Node("", children=[node]).leaves():
            match = _GUID.fullmatch(leaf.value) if isinstance(leaf.value, str) else None
            if match:
                keys.take(leaf)
                found.append(match[1].lower())
        name = _GUID.fullmatch(node.name.strip("_"))
        if name:
            found.insert(0, name[1].lower())
        entries.append(CheckpointEntry(node.name, tuple(found)))
    parent, parent_key = _parent(keys, properties, base)
    return Checkpoints(
        keys.number(listed, "size"),
        tuple(entries),
        keys.flag(base, "enable_automatic"),
        keys.number(base, "user_type"),
        keys.flag(general, "disk_merge_pending"),
        parent,
        parent_key,
    )


def _parent(keys: Keys, properties: Node, snapshots: Node | None) -> tuple[str | None, str]:
    """The GUID of a key that calls itself a parent. Its exact name is in no sample, so it is named with it."""
    for prefix, base in (("properties", properties), ("global_settings/snapshots", snapshots)):
        for path, node in base.leaves() if base is not None else ():
            if "parent" not in node.name.lower() or path.lower().startswith("list/"):
                continue
            match = _GUID.fullmatch(node.value) if isinstance(node.value, str) else None
            if match and match[1].strip("0-"):
                keys.take(node)
                return match[1].lower(), f"{prefix}/{path}"
    return None, ""


def _replica(keys: Keys, configuration: Node) -> dict[str, Value]:
    """Everything below a key called after replication, wherever it lies in the first two levels."""
    found: dict[str, Value] = {}
    for above in (configuration, *configuration.children):
        for node in above.children:
            if node.name.lower().startswith("replica") and node.children:
                found |= {f"{node.name}/{path}": value for path, value in keys.rest(node).items()}
    return found


def _action(keys: Keys, general: Node | None, path: str, words: tuple[str, ...]) -> str:
    """The word for a number; the numbers are those of WMI's enumerations counted from 0."""
    number = keys.number(general, path)
    if number is None:
        return ""
    return words[number] if 0 <= number < len(words) else f"unknown action {number}"
