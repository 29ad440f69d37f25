"""restore.json: everything that the restore scripts need to know, decided here and not in PowerShell.

The scripts are the same for every capture. Names and paths reach them through this file only, as data, so that none
can become code. It is small (no chunk lists), because ConvertFrom-Json of Windows PowerShell 5.1 refuses large texts.
Pure functions of the manifests and the host's settings.
"""

from __future__ import annotations

import ipaddress
import json
import re
import struct
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rehost_payload import __version__, strictjson
from rehost_payload.capture.model import (
    AdapterUse,
    HostAdapter,
    HostSettings,
    Letter,
    MachineSummary,
    Manifest,
    ManifestFile,
    Role,
    Uplink,
    VirtualSwitch,
)

RESTORE = "restore.json"
FORMAT = 1
_MIB = 1 << 20
_READ_ONLY = 0x1  # FILE_ATTRIBUTE_READONLY
_NOT_BACK = frozenset({Role.HIVE, Role.EVIDENCE})
_DISKS = frozenset({Role.DISK, Role.DIFFERENCING_DISK})
# what a machine's account has to have on its files, all others in full
_RIGHTS = {Role.DISK: "Read, Write", Role.DIFFERENCING_DISK: "Read, Write", Role.IMAGE: "Read"}
# what a machine gets whose configuration is lost
_MEMORY, _PROCESSORS = 4096 * _MIB, 2
_LETTER_PATH = re.compile(r"[A-Za-z]:\\[^\\].*", re.DOTALL)
_VOLUME_PATH = re.compile(r"\\\\\?\\Volume\{[0-9A-Fa-f-]{36}\}\\[^\\].*", re.DOTALL)
_FORBIDDEN = re.compile(r'[\x00-\x1f<>:"/|?*]')
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KINDS = {"external": "External", "internal": "Internal", "private": "Private"}
_BANDWIDTH = {"absolute": "Absolute", "weight": "Weight", "none": "None"}
_START = {"nothing": "Nothing", "if it ran before": "StartIfRunning", "always": "Start"}
_STOP = {"turn off": "TurnOff", "save": "Save", "shut down": "ShutDown"}
_VIRTUAL_NAME = re.compile(r"vEthernet \((.*)\)", re.DOTALL)


# --- restore.json ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RestoreFile:
    """``path`` is below the capture's folder, ``original`` where it goes; ``modified`` is a FILETIME.

    ``read_only`` is the attribute, which keeps base disks from being changed. ``rights`` are those that the machine's own account needs, in the words of .NET's FileSystemRights; "" for none.
    """

    path: str
    original: str
    size: int
    sha256: str
    modified: int
    read_only: bool
    rights: str


@dataclass(frozen=True)
class RestoreDisk:
    controller: str  # "IDE" or "SCSI"
    number: int
    slot: int
    path: str


@dataclass(frozen=True)
class RestoreAdapter:
    """``mac``: twelve hex digits, "" for a new one. ``vlan`` is the one of access mode; ``vlan_by_hand`` says what else
    there was and is not set by the script."""

    name: str
    switch: str
    mac: str
    vlan: int | None
    vlan_by_hand: str
    legacy: bool


@dataclass(frozen=True)
class RestoreMachine:
    """``configuration`` is "" where there is none to register, ``version`` where it is not known.

    ``not_captured``: files that it needs and that must still be at their place. ``lost``: what was not there or not
    readable when the host was captured. ``physical``: disks and drives that are no files. Memory in bytes. ``sid`` is
    the account under which Windows runs the machine, "" where the identifier is no GUID.
    """

    id: str
    sid: str
    name: str
    complete: bool
    configuration: str
    version: str
    generation: int | None
    files: tuple[RestoreFile, ...]
    not_captured: tuple[str, ...]
    lost: tuple[str, ...]
    physical: tuple[str, ...]
    saved_state: bool
    processors: int
    memory: int
    memory_minimum: int
    memory_maximum: int
    dynamic_memory: bool
    secure_boot: bool | None
    secure_boot_template: str
    tpm: bool
    highly_available: bool
    replica: bool
    start_action: str
    stop_action: str
    notes: str
    disks: tuple[RestoreDisk, ...]
    adapters: tuple[RestoreAdapter, ...]


@dataclass(frozen=True)
class RestoreUplink:
    """``text`` is for whoever has to choose; ``mac`` and ``pnp_id`` as Get-NetAdapter writes them, "" if not known."""

    text: str
    mac: str
    pnp_id: str


@dataclass(frozen=True)
class RestoreSwitch:
    name: str
    kind: str
    host_adapter: bool
    set: bool
    sriov: bool
    bandwidth_mode: str
    notes: str
    uplinks: tuple[RestoreUplink, ...]


@dataclass(frozen=True)
class RestoreAddress:
    address: str
    prefix: int
    family: str  # "IPv4" or "IPv6"


@dataclass(frozen=True)
class RestoreGateway:
    address: str
    destination: str


@dataclass(frozen=True)
class RestoreHostAdapter:
    name: str
    switch: str
    addresses: tuple[RestoreAddress, ...]
    gateways: tuple[RestoreGateway, ...]
    dns: tuple[str, ...]


@dataclass(frozen=True)
class RestoreLetter:
    """``letter`` without colon; ``partition_guid`` in braces, as Get-Partition has it."""

    letter: str
    partition_guid: str | None
    signature: int | None
    offset: int | None
    label: str


@dataclass(frozen=True)
class RestoreHost:
    name: str
    machine_path: str
    disk_path: str
    mac_minimum: str
    mac_maximum: str
    live_migrations: int | None
    storage_migrations: int | None
    numa_spanning: bool | None
    enhanced_session: bool | None
    switches: tuple[RestoreSwitch, ...]
    adapters: tuple[RestoreHostAdapter, ...]
    letters: tuple[RestoreLetter, ...]


@dataclass(frozen=True)
class RestoreData:
    """``host`` is None where its settings were not captured; ``orphans`` belong to no machine."""

    format: int
    rehost: str
    host: RestoreHost | None
    machines: tuple[RestoreMachine, ...]
    orphans: tuple[RestoreFile, ...]


def to_json(data: RestoreData) -> str:
    """ASCII, so that no program can misread the encoding."""
    return json.dumps(strictjson.plain(data), indent=1) + "\n"


def restore_data(units: Mapping[str, Manifest], settings: HostSettings | None) -> RestoreData:
    """``units``: the manifests by the folders in which they stand."""
    index = _Index(units)
    found = [
        _machine(folder, manifest, index) for folder, manifest in units.items() if manifest.kind == "machine"
    ]
    machines = _shared_read_only(sorted(found, key=lambda m: (m.name.lower(), m.id)))
    host = None if settings is None else _host(settings)
    return RestoreData(FORMAT, __version__, host, machines, tuple(_orphans(units)))


def _orphans(units: Mapping[str, Manifest]) -> Iterator[RestoreFile]:
    for folder, manifest in units.items():
        for file in manifest.files if manifest.kind == "orphans" else ():
            if file.role not in _NOT_BACK and not file.bad_ranges and _can_go_back(folder, file):
                yield _restore_file(folder, file, "")


def machine_sid(identifier: str) -> str:
    """The account under which Hyper-V runs a machine: S-1-5-83-1 and its GUID as four 32-bit numbers.

    They are those of the GUID in memory, its first three fields in little-endian order. "" for what is no GUID.
    """
    if not _GUID.fullmatch(identifier):
        return ""
    return "S-1-5-83-1-" + "-".join(str(n) for n in struct.unpack("<4I", uuid.UUID(identifier).bytes_le))


# --- machines --------------------------------------------------------------------------------------------------


class _Index:
    """All captured files, by where they are and by where they were."""

    def __init__(self, units: Mapping[str, Manifest]) -> None:
        self._by_path: dict[str, tuple[str, ManifestFile]] = {}
        self._by_original: dict[str, tuple[str, ManifestFile]] = {}
        for folder, manifest in units.items():
            for file in manifest.files:
                self._by_path[f"{folder}/{file.path}"] = (folder, file)
                if file.original:
                    self._by_original.setdefault(file.original.lower(), (folder, file))

    def original(self, path: str) -> tuple[str, ManifestFile] | None:
        return self._by_original.get(path.lower())

    def parent(self, folder: str, file: ManifestFile) -> tuple[str, ManifestFile] | None:
        if file.parent is None:
            return None
        path = file.parent.removeprefix("../") if file.parent.startswith("../") else f"{folder}/{file.parent}"
        return self._by_path.get(path)


def _machine(folder: str, manifest: Manifest, index: _Index) -> RestoreMachine:
    summary = manifest.machine or MachineSummary(manifest.unit, manifest.name, None, "?", "")
    found: dict[str, tuple[str, ManifestFile]] = {}
    _collect([(folder, f) for f in manifest.files if f.role not in _NOT_BACK], index, found)
    named = [path for disk in summary.disks if not disk.pass_through for path in disk.chain or (disk.path,)]
    needed = [path for path in named if path]
    _collect([entry for path in needed if (entry := index.original(path))], index, found)
    files, lost = [], [*manifest.missing, *(f.original or f.path for f in manifest.failed)]
    for where, file in found.values():
        if not _can_go_back(where, file):
            lost.append(file.original or file.path)
            continue
        if file.bad_ranges:
            lost.append(file.original)
        files.append(_restore_file(where, file, _RIGHTS.get(file.role, "FullControl")))
    gone = {path.lower() for path in manifest.missing}
    absent = [p for p in needed if p.lower() not in gone and index.original(p) is None and _is_place(p)]
    present = {f.original.lower() for f in files}
    # a second machine with the GUID of another can only be made anew
    own = summary.configuration.lower() in present and manifest.unit == summary.id
    memory = (summary.memory_mb or 0) * _MIB or _MEMORY
    return RestoreMachine(
        id=manifest.unit,
        sid=machine_sid(manifest.unit),
        name=manifest.name,
        complete=manifest.complete,
        configuration=summary.configuration if own else "",
        version="" if summary.version == "?" else summary.version,
        generation=_generation(summary, manifest.files),
        files=tuple(files),
        not_captured=tuple(dict.fromkeys(absent)),
        lost=tuple(dict.fromkeys(lost)),
        physical=tuple(d.path for d in summary.disks if d.pass_through),
        saved_state=summary.saved_state or any(c.has_state for c in summary.checkpoints),
        processors=summary.processors or _PROCESSORS,
        memory=memory,
        memory_minimum=min((summary.memory_minimum_mb or 512) * _MIB, memory),
        memory_maximum=max((summary.memory_maximum_mb or 0) * _MIB, memory),
        dynamic_memory=bool(summary.dynamic_memory),
        secure_boot=summary.secure_boot,
        secure_boot_template=_template(summary.secure_boot_template),
        tpm=bool(summary.tpm or summary.shielded),
        highly_available=bool(summary.highly_available),
        replica=summary.replica,
        start_action=_START.get(summary.start_action, ""),
        stop_action=_STOP.get(summary.stop_action, ""),
        notes=summary.notes,
        disks=tuple(_disks(summary, manifest.files)),
        adapters=tuple(_adapter(a) for a in summary.adapters),
    )


def _can_go_back(folder: str, file: ManifestFile) -> bool:
    return _is_place(file.original) and _is_below(f"{folder}/{file.path}")


def _restore_file(folder: str, file: ManifestFile, rights: str) -> RestoreFile:
    return RestoreFile(
        path=f"{folder}/{file.path}",
        original=file.original,
        size=file.size,
        sha256=file.sha256,
        modified=file.modified,
        read_only=bool(file.attributes & _READ_ONLY),
        rights=rights,
    )


def _shared_read_only(machines: Sequence[RestoreMachine]) -> tuple[RestoreMachine, ...]:
    """A disk on which several machines are based is changed by none of them."""
    users = Counter(f.original.lower() for m in machines for f in m.files)
    return tuple(
        replace(
            m, files=tuple(replace(f, rights="Read") if users[f.original.lower()] > 1 else f for f in m.files)
        )
        for m in machines
    )


def _collect(
    start: Sequence[tuple[str, ManifestFile]], index: _Index, found: dict[str, tuple[str, ManifestFile]]
) -> None:
    """Adds files and all their parents, wherever in the capture they are."""
    waiting = list(start)
    while waiting:
        folder, file = waiting.pop(0)
        key = f"{folder}/{file.path}"
        if key in found:
            continue
        found[key] = (folder, file)
        parent = index.parent(folder, file)
        if parent is not None:
            waiting.append(parent)


def _is_place(path: str) -> bool:
    """An absolute path to which a script may copy: below a drive letter or a volume's GUID, and no trick in it."""
    if not (_LETTER_PATH.fullmatch(path) or _VOLUME_PATH.fullmatch(path)):
        return False
    tail = path[3:] if path[1] == ":" else path.partition("}\\")[2]
    parts = tail.split("\\")
    return not any(p in ("", ".", "..") or _FORBIDDEN.search(p) or p != p.rstrip(" .") for p in parts)


def _is_below(path: str) -> bool:
    """A path inside the capture's folder."""
    parts = path.split("/")
    return not any(p in ("", ".", "..") or _FORBIDDEN.search(p) or "\\" in p for p in parts)


def _template(text: str) -> str:
    """Set-VMFirmware takes a template by its identifier; what is none is left to Windows' default."""
    guid = text.strip("{}").lower()
    return guid if _GUID.fullmatch(guid) else _TEMPLATE_IDS.get(text, "")


_TEMPLATE_IDS = {
    "Microsoft Windows": "1734c6e8-3154-4dda-ba5f-a874cc483422",
    "Microsoft UEFI Certificate Authority": "272e7447-90a4-4563-a4b9-8e4ab00526ce",
    "Open Source Shielded VM": "4292ae2b-ee2c-42b5-a969-dd8f8689f6f3",
}


def _disks(summary: MachineSummary, files: Sequence[ManifestFile]) -> Iterator[RestoreDisk]:
    """Where the disks go in a machine that is made anew."""
    uses = [d for d in summary.disks if not d.pass_through and not d.path.lower().endswith((".iso", ".vfd"))]
    for use in uses:
        if use.controller.upper() in ("IDE", "SCSI"):
            yield RestoreDisk(use.controller.upper(), use.controller_number, use.slot, use.path)
    if not summary.disks:
        first = "IDE" if _generation(summary, files) == 1 else "SCSI"  # generation 1 starts from IDE only
        for slot, file in enumerate(_leaves(files)):
            yield RestoreDisk(first if slot == 0 else "SCSI", slot // 64, slot % 64, file.original)


def _leaves(files: Sequence[ManifestFile]) -> list[ManifestFile]:
    """Every disk on which no other one is based: what a machine had attached whose configuration is lost."""
    parents = {f.parent for f in files if f.parent}
    return [f for f in files if f.role in _DISKS and f.path not in parents]


def _generation(summary: MachineSummary, files: Sequence[ManifestFile]) -> int | None:
    """None: the script asks. A disk of the old format tells: generation 2 takes none."""
    if summary.generation in (1, 2):
        return summary.generation
    old = any(f.original.lower().endswith((".vhd", ".avhd")) for f in _leaves(files))
    return 1 if old and not summary.disks else None


def _adapter(use: AdapterUse) -> RestoreAdapter:
    digits = re.sub("[^0-9A-Fa-f]", "", use.mac).upper()
    mac = digits if len(digits) == 12 and int(digits, 16) else ""
    vlan = use.vlan if use.vlan is not None and 1 <= use.vlan <= 4094 else None
    return RestoreAdapter(use.name, use.switch, mac, vlan, use.vlan_by_hand, use.legacy)


# --- the host --------------------------------------------------------------------------------------------------


def _host(settings: HostSettings) -> RestoreHost:
    adapters = tuple(_host_adapter(a) for a in settings.adapters if a.switch)
    return RestoreHost(
        name=settings.name,
        machine_path=settings.machine_path if _is_place(settings.machine_path) else "",
        disk_path=settings.disk_path if _is_place(settings.disk_path) else "",
        mac_minimum=_pool(settings.mac_minimum) if _pool(settings.mac_maximum) else "",
        mac_maximum=_pool(settings.mac_maximum) if _pool(settings.mac_minimum) else "",
        live_migrations=settings.live_migrations,
        storage_migrations=settings.storage_migrations,
        numa_spanning=settings.numa_spanning,
        enhanced_session=settings.enhanced_session,
        switches=tuple(_switch(s, adapters) for s in settings.switches if s.kind in _KINDS),
        adapters=adapters,
        letters=tuple(letter for old in settings.letters for letter in _letter(old)),
    )


def _pool(text: str) -> str:
    digits = re.sub("[^0-9A-Fa-f]", "", text).upper()
    return digits if len(digits) == 12 else ""


def _switch(switch: VirtualSwitch, adapters: Sequence[RestoreHostAdapter]) -> RestoreSwitch:
    """The adapter that Windows makes together with a switch has the switch's name; others are added later."""
    mine = [a.name for a in adapters if a.switch == switch.name]
    return RestoreSwitch(
        name=switch.name,
        kind=_KINDS[switch.kind],
        host_adapter=switch.host_adapter and (not mine or switch.name in mine),
        set=switch.team == "set",
        sriov=bool(switch.sriov),
        bandwidth_mode=_BANDWIDTH.get(switch.bandwidth_mode.lower(), "Default"),
        notes=switch.notes,
        uplinks=tuple(_uplink(u) for u in switch.uplinks),
    )


def _uplink(uplink: Uplink) -> RestoreUplink:
    digits = _pool(uplink.mac)
    mac = "-".join(digits[i : i + 2] for i in range(0, 12, 2)) if digits else ""
    text = ", ".join(x for x in (uplink.name, uplink.description, mac, uplink.pnp_id) if x)
    return RestoreUplink(text or uplink.guid, mac, uplink.pnp_id)


def _host_adapter(adapter: HostAdapter) -> RestoreHostAdapter:
    virtual = _VIRTUAL_NAME.fullmatch(adapter.name)
    static = () if adapter.dhcp else adapter.addresses
    return RestoreHostAdapter(
        name=virtual[1] if virtual else adapter.name,
        switch=adapter.switch,
        addresses=tuple(a for text in static for a in _address(text)),
        gateways=tuple(g for text in (adapter.gateways if static else ()) for g in _gateway(text)),
        dns=tuple(text for text in adapter.dns if _is_ip(text)),
    )


def _address(text: str) -> Iterator[RestoreAddress]:
    try:
        found = ipaddress.ip_interface(text)
    except ValueError:
        return
    if not found.ip.is_link_local and not found.ip.is_unspecified and "/" in text:
        yield RestoreAddress(str(found.ip), found.network.prefixlen, f"IPv{found.version}")


def _gateway(text: str) -> Iterator[RestoreGateway]:
    if _is_ip(text):
        yield RestoreGateway(text, "::/0" if ":" in text else "0.0.0.0/0")


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def _letter(old: Letter) -> Iterator[RestoreLetter]:
    """Letters that can be found again. C: is the new Windows' own; A: and B: are diskette drives."""
    letter = old.letter.rstrip(":\\").upper()
    if not re.fullmatch("[D-Z]", letter):
        return
    guid = (old.partition_guid or "").lower()
    if _GUID.fullmatch(guid):
        yield RestoreLetter(letter, f"{{{guid}}}", None, None, old.label)
    elif old.signature is not None and old.offset is not None:
        yield RestoreLetter(letter, None, old.signature, old.offset, old.label)
