"""What `rehost hyperv show` prints of a file: configurations, the list of machines, states, virtual disks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from rehost_payload.formats.disk_chain import parent_paths
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.source import ByteSource
from rehost_payload.formats.vhd import Vhd, is_vhd, parse_vhd
from rehost_payload.formats.vhdx import Vhdx, is_vhdx, parse_vhdx
from rehost_payload.formats.vm_devices import Drive, NetworkAdapter, parse_vlan, vlan_text
from rehost_payload.formats.vm_model import (
    KnownMachines,
    SavedState,
    VirtualMachine,
    content_of,
    read_known_machines,
    read_machine,
    read_saved_state,
)
from rehost_payload.formats.vm_tree import Blob, Node
from rehost_payload.formats.vm_xml import is_vm_xml, parse_vm_xml
from rehost_payload.formats.vmcx import is_vmcx, parse_vmcx

_COLUMN = 24
_MOST_LINES = 10  # of one kind of note
_LONGEST_VALUE = 200  # characters of a value in the tree

Content = VirtualMachine | KnownMachines | SavedState | Vhdx | Vhd | None


@dataclass(frozen=True)
class Shown:
    """A file that was read. ``format`` names the kind of file, ``root`` is the tree of a configuration."""

    path: str
    size: int
    format: str
    content: Content
    root: Node | None
    notes: tuple[str, ...]
    problems: tuple[str, ...]


def read_file(path: str, source: ByteSource) -> Shown:
    """Reads any file of Hyper-V that this program knows. FormatError where it is none, or too damaged."""
    if is_vhdx(source):
        vhdx = parse_vhdx(source)
        return Shown(path, source.size, "VHDX", vhdx, None, vhdx.notes, vhdx.problems)
    if is_vmcx(source):
        return _read_storage(path, source)
    if is_vm_xml(source):
        parsed = parse_vm_xml(source)
        return Shown(path, source.size, "XML", _content(parsed.root), parsed.root, parsed.notes, ())
    if is_vhd(source):
        vhd = parse_vhd(source)
        return Shown(path, source.size, "VHD", vhd, None, vhd.notes, vhd.problems)
    raise FormatError("file", "no configuration, state or virtual disk of Hyper-V")


def _read_storage(path: str, source: ByteSource) -> Shown:
    """Damage costs only the keys that it struck."""
    try:
        storage = parse_vmcx(source)
    except FormatError:
        storage = parse_vmcx(source, lenient=True)
    word = f"Hyper-V storage {storage.format_text}"
    return Shown(path, source.size, word, _content(storage.root), storage.root, storage.notes, storage.damage)


def _content(root: Node) -> Content:
    kind = content_of(root)
    if kind == "machine":
        return read_machine(root)
    if kind == "known machines":
        return read_known_machines(root)
    return read_saved_state(root) if kind == "state" else None


# --- text


def as_text(shown: Shown, tree: bool = False) -> Iterator[str]:
    """The lines; with ``tree`` every value of a configuration as well."""
    yield plain(f"{_title(shown.content)} {shown.path} ({shown.format}, {shown.size} bytes)")
    for word, lines in (("note", shown.notes), ("problem", shown.problems)):
        for text in lines[:_MOST_LINES]:
            yield plain(f"  {word}: {text}")
        if len(lines) > _MOST_LINES:
            yield f"  {word}: {len(lines) - _MOST_LINES} more"
    yield ""
    content = shown.content
    if isinstance(content, VirtualMachine):
        yield from _machine(content)
    elif isinstance(content, KnownMachines):
        yield from _known(content)
    elif isinstance(content, SavedState):
        yield from _state(content)
    elif isinstance(content, Vhdx):
        yield from _vhdx(content)
    elif isinstance(content, Vhd):
        yield from _vhd(content)
    if shown.root is not None and (tree or content is None):
        yield ""
        for path, node in shown.root.leaves():
            yield plain(f"{path} = {_short(node.value)} ({node.kind.value})")


def _title(content: Content) -> str:
    if isinstance(content, VirtualMachine):
        return {"machine": "Virtual machine", "checkpoint": "Checkpoint"}.get(content.kind, "Configuration")
    if isinstance(content, KnownMachines):
        return "List of virtual machines"
    if isinstance(content, SavedState):
        return "State of a virtual machine"
    return "Unknown content" if content is None else "Virtual disk"


def plain(text: str) -> str:
    """Control characters would let a file write on the terminal as it likes."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def _line(name: str, *parts: object) -> str:
    """One line of what is known of ``parts``."""
    return plain(f"{name:<{_COLUMN}}{', '.join(str(p) for p in parts if p not in (None, ''))}").rstrip()


def _size(number: int) -> str:
    for unit, width in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if number >= 1 << width:
            amount = number / (1 << width)
            return f"{amount:.1f} {unit}" if number % (1 << width) else f"{number >> width} {unit}"
    return f"{number} bytes"


def _yes(value: bool | None) -> str:
    return "not stated" if value is None else "yes" if value else "no"


def _time(value: datetime | None) -> str:
    return "" if value is None else f"{value:%Y-%m-%d %H:%M:%S} UTC"


def _machine(vm: VirtualMachine) -> Iterator[str]:
    yield _line("name", vm.name)
    if vm.kind != "machine":
        yield _line("kind", vm.kind)
    yield _line("identifier", vm.id)
    if vm.machine_id not in ("", vm.id):
        yield _line("of machine", vm.machine_id)
    generation = "not known" if vm.generation is None else vm.generation
    yield _line("generation", f"{generation}", f"configuration version {vm.version_text}")
    memory, cpu = vm.memory, vm.processors
    dynamic = f"{memory.minimum} to {memory.maximum} MiB" if memory.dynamic else "fixed"
    yield _line("memory", "not stated" if memory.startup is None else f"{memory.startup} MiB", dynamic)
    yield _line(
        "processors",
        "not stated" if cpu.count is None else cpu.count,
        "compatibility mode" if cpu.compatible else "",
        "nested virtualization" if cpu.nested else "",
    )
    for drive in vm.drives:
        yield _line(f"{drive.bus} {drive.controller}:{drive.slot}", _medium(drive))
    for adapter in vm.adapters:
        yield _line("network adapter", *_adapter(adapter))
    yield from _firmware(vm)
    yield _line("saved state", *_saved(vm.saved_state))
    yield from _checkpoints(vm)
    yield _line("at start of the host", vm.start_action or "not stated")
    yield _line("at its shutdown", vm.stop_action or "not stated")
    for name, text in (
        ("configuration in", vm.places.configuration),
        ("checkpoints in", vm.places.checkpoints),
        ("smart paging in", vm.places.smart_paging),
        ("replication", f"{len(vm.replica)} settings" if vm.replica else ""),
        ("cluster", "yes" if vm.highly_available else ""),
        ("created", _time(vm.created)),
        ("last started", _time(vm.last_on)),
        ("last stopped", _time(vm.last_off)),
        ("notes", vm.notes),
    ):
        if text:
            yield _line(name, text)
    yield from _unread(vm.unread, 2)


def _medium(drive: Drive) -> str:
    if drive.empty:
        return "empty"
    return (
        drive.path if drive.is_file else f"{drive.path or drive.medium} (no file: it cannot be copied as one)"
    )


def _adapter(adapter: NetworkAdapter) -> Iterator[str]:
    yield adapter.name + (" (legacy)" if adapter.legacy else "")
    static = " (static)" if adapter.mac_static else " (dynamic)"
    yield f"MAC {adapter.mac}{static}" if adapter.mac else "no MAC address yet"
    if adapter.connected:
        yield f"switch {adapter.switch_name or adapter.switch or 'not named'}"
    else:
        yield "not connected"
    vlan = None if adapter.vlan is None else parse_vlan(adapter.vlan)
    if vlan is not None:
        yield f"VLAN: {vlan_text(vlan)}"
    for feature in adapter.features:
        if feature.name != "offload":
            yield f"{feature.name or feature.id} settings: {' '.join(d.hex() for d in feature.data) or 'none'}"


def _firmware(vm: VirtualMachine) -> Iterator[str]:
    firmware, security = vm.firmware, vm.security
    if vm.generation != 1:
        template = firmware.template or firmware.template_id
        yield _line("secure boot", _yes(firmware.secure_boot), template if firmware.secure_boot else "")
        used = (
            "listed, use not stated" if security.tpm is None and security.tpm_listed else _yes(security.tpm)
        )
        yield _line("virtual TPM", used)
        yield _line("shielded", _yes(security.shielded))
    if firmware.guest_state_file:
        yield _line("guest state", firmware.guest_state_file)
    if firmware.boot_order:
        yield _line("boot order", *firmware.boot_order)


def _saved(state: SavedState) -> Iterator[str]:
    yield "none" if not state.present else state.type or "yes"
    yield from (state.state_file, state.memory_file)
    if state.memory_blocks:
        yield f"{state.memory_blocks} blocks of memory"


def _checkpoints(vm: VirtualMachine) -> Iterator[str]:
    checkpoints = vm.checkpoints
    count = checkpoints.count if checkpoints.count is not None else len(checkpoints.entries)
    merge = "a merge of disks is pending" if checkpoints.merge_pending else ""
    yield _line("checkpoints", count or "none", merge)
    for entry in checkpoints.entries:
        yield _line("", entry.key, *entry.guids)
    if checkpoints.parent:
        yield _line("continues", f"{checkpoints.parent} ({checkpoints.parent_key})")


def _unread(paths: tuple[str, ...], depth: int) -> Iterator[str]:
    if not paths:
        return
    groups = Counter("/".join(path.split("/")[:depth]) for path in paths)
    yield _line("not understood", f"{len(paths)} values (--tree shows them)")
    for group, count in list(groups.items())[:_MOST_LINES]:
        yield _line("", f"{group}: {count}")
    if len(groups) > _MOST_LINES:
        yield _line("", f"and {len(groups) - _MOST_LINES} more groups")


def _known(known: KnownMachines) -> Iterator[str]:
    for guid, path in known.machines.items():
        yield _line("machine", guid, path)
    yield _line("cached", f"{len(known.cached)} configurations")
    yield _line("resource types", len(known.resource_types))
    yield from _unread(known.unread, 2)


def _state(state: SavedState) -> Iterator[str]:
    yield _line("saved state", *_saved(state))
    if state.version is not None:
        yield _line("version", f"{state.version >> 8}.{state.version & 0xFF}")
    if state.has_processors:
        yield _line("processors", "their state is saved: it cannot be resumed on another maker's processor")


def _vhdx(disk: Vhdx) -> Iterator[str]:
    yield _line("type", disk.kind)
    yield _line("size of the disk", _size(disk.virtual_size), f"{disk.virtual_size} bytes")
    yield _line("sectors", f"{disk.logical_sector} bytes", f"physical {disk.physical_sector} bytes")
    states = [f"{count} {state}" for state, count in disk.blocks.states.items()]
    yield _line("blocks", f"{_size(disk.block_size)} each", *states)
    yield _line("identifier", disk.disk_id)
    yield _line("data write GUID", disk.header.data_write_guid)
    yield _line("file write GUID", disk.header.file_write_guid)
    log = disk.log
    pending = f"pending: {log.active} entries, {log.sectors} blocks of 4 KiB" if log.dirty else "clean"
    yield _line("log", pending, disk.header.log_guid)
    yield _line("created by", disk.creator)
    if disk.parent is not None:
        second = disk.parent.linkage2
        yield _line("parent's GUID", disk.parent.linkage, second if second.strip("0-") else "")
        yield from _paths(disk)


def _vhd(disk: Vhd) -> Iterator[str]:
    yield _line("type", disk.kind)
    yield _line("size of the disk", _size(disk.virtual_size), f"{disk.virtual_size} bytes")
    if disk.block_size:
        yield _line("blocks", f"{_size(disk.block_size)} each", f"{disk.allocated_blocks} present")
    yield _line("identifier", disk.id)
    yield _line("created by", disk.creator, _time(disk.written))
    if disk.parent is not None:
        yield _line("parent's identifier", disk.parent.id)
        yield _line("parent changed", _time(disk.parent.modified))
        yield _line("parent's name", disk.parent.name)
        yield from _paths(disk)


def _paths(disk: Vhdx | Vhd) -> Iterator[str]:
    for number, path in enumerate(parent_paths(disk)):
        yield _line("" if number else "parent", path)


def _short(value: object) -> str:
    text = value.hex() if isinstance(value, bytes) else str(value)
    if isinstance(value, Blob):
        text = f"{value.size} bytes at {value.offset:#x}"
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


# --- JSON


def as_json(shown: Shown, tree: bool = False) -> dict[str, Any]:
    """The same for programs. With ``tree`` every value, as a list: siblings may have the same name."""
    kind = "unknown" if shown.content is None else type(shown.content).__name__
    result: dict[str, Any] = {
        "path": shown.path,
        "size": shown.size,
        "format": shown.format,
        "kind": {"VirtualMachine": "machine", "KnownMachines": "machines", "SavedState": "state"}.get(kind, kind.lower()),
        "notes": list(shown.notes),
        "problems": list(shown.problems),
        "content": _plain_data(shown.content),
    }  # fmt: skip
    if shown.root is not None and (tree or shown.content is None):
        result["tree"] = [
            {"path": path, "type": node.kind.value, "value": _plain_data(node.value)}
            for path, node in shown.root.leaves()
        ]
    return result


def _plain_data(value: object) -> Any:
    if isinstance(value, Blob):
        return {"offset": value.offset, "size": value.size}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float):
        return value if value - value == 0 else str(value)  # JSON has neither NaN nor infinity
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain_data(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain_data(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_data(entry) for entry in value]
    return value
