"""The devices of a virtual machine: drives with controller and slot, network adapters, and the list of all.

``manifest/vdevNNN`` names each device's class and instance; a device's own keys lie in ``_<instance>_``. IDE and
floppy controllers exist once, so their instance is their class and the manifest may leave them out.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from rehost_payload.formats.vm_keys import Keys
from rehost_payload.formats.vm_tree import Node, Value

IDE = "83f8638b-8dca-4152-9eda-2ca8b33039b4"
SCSI = "d422512d-2bf2-4752-809d-7b82b5fcb1b4"
FLOPPY = "8f0d2762-0b00-4e04-af4f-19010527cb93"
ETHERNET = "2fc216b0-d2e2-4967-9b6d-b8a5c9ca2778"
TPM = "736e6aa9-a3f8-49c0-9550-a963214d259a"

VLAN_FEATURE = "952c5004-4465-451c-8cb8-fa9ab382b773"
_FEATURES = {  # identifiers of the WMI classes Msvm_EthernetSwitchPort...SettingData
    VLAN_FEATURE: "VLAN",
    "c885bfd1-abb7-418f-8163-9f379c9f7166": "offload",
    "24ad3ce1-69bd-4978-b2ac-daad389d699c": "bandwidth",
    "776e0ba7-94a1-41c8-8f28-951f524251b5": "security",
    "998bef4a-5d55-492a-9c43-8b2f5eae9f2b": "access list",
    "9940cd46-8b06-43bb-b9d5-93d50381fd56": "profile",
}
_VLAN = struct.Struct(
    "<IHHIHH"
)  # OperationMode, AccessVlanId, NativeVlanId, PvlanMode, PrimaryVlanId, SecondaryVlanId
_LAST_VLAN = 4094
_PROMISCUOUS = 3
_PRIVATE = {1: "isolated", 2: "community", _PROMISCUOUS: "promiscuous"}
_CONTROLLERS = {IDE: "IDE", SCSI: "SCSI", FLOPPY: "floppy"}
_INSTANCE = re.compile(r"_([0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})_")
_NUMBERED = {
    name: re.compile(rf"{name}([0-9]{{1,4}})", re.IGNORECASE) for name in ("controller", "drive", "vdev")
}
_DEVICE_FILE = re.compile(
    r"(\\\\[.?]\\(physicaldrive|cdrom|globalroot\\device\\harddisk)|[0-9]+$|$)", re.IGNORECASE
)


@dataclass(frozen=True)
class Device:
    """An entry of the manifest. GUIDs in lower case. ``flags`` as stored."""

    device: str
    instance: str
    name: str
    flags: int | None = None


@dataclass(frozen=True)
class Drive:
    """A slot of a controller, empty or not. ``controller`` counts the controllers of one ``bus`` from 0.

    ``medium`` is the configuration's own word: VHD (also for AVHDX), ISO, VFD, NONE, or what a pass-through disk
    has. ``settings`` are all further values of the drive.
    """

    bus: str  # "IDE", "SCSI", "floppy", else the device's name or class
    controller: int
    slot: int
    medium: str
    path: str
    instance: str
    settings: dict[str, Value] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        return self.medium.upper() == "NONE" or (
            not self.path and self.medium.upper() in ("VHD", "ISO", "VFD", "")
        )

    @property
    def is_file(self) -> bool:
        """Whether the medium is a file that can be copied: no pass-through disk, no drive of the host."""
        return (
            not self.empty
            and self.medium.upper() in ("VHD", "ISO", "VFD")
            and _DEVICE_FILE.match(self.path) is None
        )


@dataclass(frozen=True)
class Vlan:
    """``mode``: "access", "trunk", "isolated", "community" or "promiscuous"; numbers that it has no use for are 0.

    The VLANs that a trunk lets through and the secondary ones of promiscuous mode are not read.
    """

    mode: str
    access: int = 0
    native: int = 0
    primary: int = 0
    secondary: int = 0


@dataclass(frozen=True)
class PortFeature:
    """Settings of a switch port. Their bytes are kept as stored: no specification of their layout is public."""

    id: str
    name: str  # "VLAN", "bandwidth", ...; "" where the identifier is not known
    data: tuple[bytes, ...]


@dataclass(frozen=True)
class NetworkAdapter:
    """``mac`` is None until the machine was started for the first time. ``switch`` as stored: often a GUID."""

    name: str
    instance: str
    legacy: bool
    mac: str | None
    mac_static: bool | None
    connected: bool | None
    switch: str
    switch_name: str  # Connection/AltSwitchName: the name that finds the switch again
    port: str
    features: tuple[PortFeature, ...] = ()
    settings: dict[str, Value] = field(default_factory=dict)

    @property
    def vlan(self) -> PortFeature | None:
        """The VLAN settings where the adapter has some; None is untagged."""
        return next((f for f in self.features if f.id == VLAN_FEATURE), None)


def parse_vlan(feature: PortFeature) -> Vlan | None:
    """The settings of a VLAN feature; None for bytes that make no sense, which have to be kept as they are.

    The layout is inferred. In real files the settings of offloads, the one feature of which there are samples, are all
    properties of their WMI class in the order of their WmiDataId, aligned as in C and without a head (versions 1.0 and
    4.0, 5 and 16 properties). By the same rule those of Msvm_EthernetSwitchPortVlanSettingData begin with the mode and
    five numbers; the form of the three arrays behind them is not known. So nothing is taken that is not consistent: the
    numbers of one mode are VLANs, all others 0. A layout with other offsets does not pass.
    """
    if len(feature.data) != 1 or len(feature.data[0]) < _VLAN.size:
        return None
    mode, access, native, private, primary, secondary = _VLAN.unpack_from(feature.data[0])
    if mode == 1 and _tagged(access) and not any((native, private, primary, secondary)):
        return Vlan("access", access=access)
    if mode == 2 and native <= _LAST_VLAN and not any((access, private, primary, secondary)):
        return Vlan("trunk", native=native)
    if mode == 3 and private in _PRIVATE and _tagged(primary) and not any((access, native)):
        one = private != _PROMISCUOUS
        if one == bool(secondary) and secondary <= _LAST_VLAN:
            return Vlan(_PRIVATE[private], primary=primary, secondary=secondary)
    return None


def vlan_text(vlan: Vlan) -> str:
    """The settings in the words of Set-VMNetworkAdapterVlan."""
    if vlan.mode == "access":
        return f"access, VLAN {vlan.access}"
    if vlan.mode == "trunk":
        return f"trunk, native VLAN {vlan.native}, allowed VLANs not read"
    if vlan.mode == "promiscuous":
        return f"promiscuous, primary VLAN {vlan.primary}, secondary VLANs not read"
    return f"{vlan.mode}, primary VLAN {vlan.primary}, secondary VLAN {vlan.secondary}"


def _tagged(number: int) -> bool:
    return 1 <= number <= _LAST_VLAN


def read_manifest(keys: Keys, configuration: Node) -> tuple[Device, ...]:
    """The devices in the order of their numbers."""
    manifest = configuration.child("manifest")
    if manifest is None:
        return ()
    for name in ("size", "version"):
        keys.number(manifest, name)
    return tuple(
        Device(
            (keys.text(node, "device") or "").lower().strip("{}"),
            (keys.text(node, "instance") or "").lower().strip("{}"),
            keys.text(node, "name") or "",
            keys.number(node, "flags"),
        )
        for _, node in _numbered(manifest, "vdev")
    )


def read_drives(keys: Keys, configuration: Node, devices: tuple[Device, ...]) -> tuple[Drive, ...]:
    """Every slot that the configuration names, controllers in the order of the manifest."""
    drives: list[Drive] = []
    used: dict[str, int] = {}
    for device, node in _instances(configuration, devices):
        kind, instance = device.device, device.instance
        bus = _CONTROLLERS.get(kind, device.name or kind)
        controllers = list(_numbered(node, "controller"))
        if not any(True for _, c in controllers for _ in _numbered(c, "drive")) and kind not in _CONTROLLERS:
            continue
        # an instance has controllers of its own numbers; a second SCSI instance goes on counting
        first = used.get(bus, 0)
        for number, controller in controllers:
            for slot, drive in _numbered(controller, "drive"):
                medium, path = keys.text(drive, "type") or "", keys.text(drive, "pathname") or ""
                drives.append(Drive(bus, first + number, slot, medium, path, instance, keys.rest(drive)))
        used[bus] = first + max((n for n, _ in controllers), default=0) + 1
    return tuple(drives)


def read_adapters(keys: Keys, configuration: Node, devices: tuple[Device, ...]) -> tuple[NetworkAdapter, ...]:
    """Every device with a MAC address."""
    adapters: list[NetworkAdapter] = []
    for device, node in _instances(configuration, devices):
        mac = keys.text(node, "MacAddress")
        if mac is None and device.device != ETHERNET:
            continue
        digits = re.sub("[^0-9A-Fa-f]", "", mac or "").upper()
        known = len(digits) == 12 and digits.strip("0") != ""
        adapters.append(
            NetworkAdapter(
                keys.text(node, "FriendlyName") or device.name,
                device.instance,
                device.device != ETHERNET,
                "-".join(digits[i : i + 2] for i in range(0, 12, 2)) if known else None,
                keys.flag(node, "MacAddressIsStatic"),
                keys.flag(node, "IsConnected"),
                keys.text(node, "SwitchName") or "",
                keys.text(node, "Connection/AltSwitchName") or "",
                keys.text(node, "PortName") or "",
                tuple(_features(keys, node.child("Connection"))),
                keys.rest(node),
            )
        )
    return tuple(adapters)


def _features(keys: Keys, connection: Node | None) -> Iterator[PortFeature]:
    for node in connection.children if connection is not None else ():
        prefix, _, feature = node.name.partition("_")
        if prefix.lower() != "feature":
            continue
        feature = feature.lower().strip("{}")
        blobs: list[bytes] = []
        for setting in node.children:
            data = setting.child("Data")
            if (
                setting.name.lower().startswith("setting_")
                and data is not None
                and isinstance(data.value, bytes)
            ):
                keys.take(data)
                blobs.append(data.value)
        yield PortFeature(feature, _FEATURES.get(feature, ""), tuple(blobs))


def _instances(configuration: Node, devices: tuple[Device, ...]) -> list[tuple[Device, Node]]:
    """The devices' own keys: in the order of the manifest, then those that it leaves out, each its own class."""
    order = {device.instance: number for number, device in reversed(list(enumerate(devices)))}
    found = []
    for node in configuration.children:
        match = _INSTANCE.fullmatch(node.name)
        if match:
            instance = match[1].lower()
            number = order.get(instance, len(devices))
            device = devices[number] if instance in order else Device(instance, instance, "")
            found.append((number, device, node))
    return [(device, node) for _, device, node in sorted(found, key=lambda f: f[0])]


def _numbered(node: Node, name: str) -> Iterator[tuple[int, Node]]:
    """The children called ``name`` and a number, by that number."""
    found = [(int(m[1]), c) for c in node.children if (m := _NUMBERED[name].fullmatch(c.name))]
    return iter(sorted(found, key=lambda f: f[0]))
