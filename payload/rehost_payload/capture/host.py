r"""The host's own settings from its offline hives: switches, adapters, default paths, MAC pool, letters, roles.

Only the names of keys and values that are published or measured are relied on; what is absent is Windows' default, and
every value below the keys of Hyper-V is kept as evidence, so that what is not understood today can be read later.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from rehost_payload import __version__
from rehost_payload.capture.found import FoundVolume
from rehost_payload.capture.model import (
    FORMAT,
    Evidence,
    HostAdapter,
    HostSettings,
    Letter,
    Uplink,
    VirtualSwitch,
)
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.filesystem import FileSystemReader
from rehost_payload.formats.hive import Hive, Key, Value
from rehost_payload.formats.mounted_devices import MountedDevice, parse_mounted_device
from rehost_payload.survey.model import Problem, WindowsInstallation
from rehost_payload.survey.windows import open_software, open_system

VIRTUALIZATION = "Microsoft\\Windows NT\\CurrentVersion\\Virtualization"
_NETWORK_CLASS = "{4D36E972-E325-11CE-BFC1-08002BE10318}"
_DEFAULT_SWITCH = "c08cb7b8-9b3c-408e-8e30-5e16a3aeb444"  # made by Windows itself on clients
_GUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_VIRTUAL_NAME = re.compile(r"vEthernet \((.*)\)", re.DOTALL)
_TEAM = ("multiplexor", "ms_implat")
_MOST_EVIDENCE = 2000
_MOST_BYTES = 4096  # of one value
_DEPTH = 6
_ROLES = {
    "vmms": "Hyper-V",
    "NTDS": "Active Directory Domain Services",
    "DNS": "DNS Server",
    "DHCPServer": "DHCP Server",
    "ClusSvc": "Failover Clustering",
    "ddpsvc": "Data Deduplication",
    "W3SVC": "Web Server (IIS)",
    "CertSvc": "Active Directory Certificate Services",
    "WinTarget": "iSCSI Target Server",
    "DFSR": "DFS Replication",
    "WDSServer": "Windows Deployment Services",
    "WsusService": "Windows Server Update Services",
    "IAS": "Network Policy Server",
    "TermServLicensing": "Remote Desktop Licensing",
}
_DISABLED = 4


@dataclass(frozen=True)
class HostHives:
    """The hives of the host, opened; None where they cannot be read."""

    system: Hive | None = None
    software: Hive | None = None
    control_set: str = ""
    mounted: tuple[MountedDevice, ...] = ()
    system_letter: tuple[str, str] | None = None  # volume, letter


def open_hives(reader: FileSystemReader, host: WindowsInstallation, problems: list[Problem]) -> HostHives:
    """Opens SYSTEM and SOFTWARE of the installation on the volume of ``reader``."""
    mine: list[Problem] = []
    system = open_system(reader, host.root, host.id, mine)
    software = open_software(reader, host.root, host.id, mine, complete=True)
    problems += [p for p in mine if p not in problems]
    number = host.current_control_set or host.default_control_set or next(iter(host.control_sets), 1)
    mounted: list[MountedDevice] = []
    letter = None
    try:
        key = system.hive.find("MountedDevices") if system.hive is not None else None
        for value in key.values() if key is not None else ():
            device = parse_mounted_device(value.name, value.data)
            if device is not None:
                mounted.append(device)
        root = _text(_find(software.hive, "Microsoft\\Windows NT\\CurrentVersion"), "SystemRoot")
        if re.match(r"[A-Za-z]:\\", root):
            letter = (host.volume, root[:2].upper())
    except FormatError as error:
        problems.append(Problem("damaged", f"{host.id} SYSTEM", str(error)))
    return HostHives(system.hive, software.hive, f"ControlSet{number:03d}", tuple(mounted), letter)


def host_settings(
    hives: HostHives,
    host: WindowsInstallation,
    volumes: Sequence[FoundVolume],
    holding: AbstractSet[str],
    taken: str,
) -> HostSettings:
    """What the hives say; ``holding`` are the volumes with files of machines.

    Damage costs the part that it struck, which is then named in ``unread``."""
    settings = HostSettings(
        format=FORMAT,
        rehost=__version__,
        taken=taken,
        name=host.computer_name,
        product=host.product_name,
        build=host.build,
        locale=host.locale,
        letters=_letters(hives.mounted, volumes, holding),
    )
    reader = _Reader(hives)
    for part in (reader.letters, reader.virtualization, reader.network, reader.roles):
        try:
            settings = part(settings)
        except FormatError as error:
            reader.unread.append(str(error))
    if hives.system is None:
        reader.unread.append("SYSTEM could not be read")
    if hives.software is None:
        reader.unread.append("SOFTWARE could not be read")
    return replace(settings, evidence=tuple(reader.evidence), unread=tuple(reader.unread))


def _find(hive: Hive | None, path: str) -> Key | None:
    return None if hive is None else hive.key(path)


def _text(key: Key | None, name: str) -> str:
    value = key.value(name) if key is not None else None
    try:
        return value.as_string() if value is not None else ""
    except FormatError:
        return ""


def _texts(key: Key | None, name: str) -> tuple[str, ...]:
    value = key.value(name) if key is not None else None
    try:
        return tuple(t for t in value.as_strings() if t) if value is not None else ()
    except FormatError:
        return ()


def _number(key: Key | None, *names: str) -> int | None:
    for name in names:
        value = key.value(name) if key is not None else None
        try:
            if value is not None:
                return value.as_int()
        except FormatError:
            continue
    return None


def _flag(key: Key | None, *names: str) -> bool | None:
    number = _number(key, *names)
    return None if number is None else bool(number)


def _mac(key: Key | None, name: str) -> str:
    value = key.value(name) if key is not None else None
    return value.data.hex("-").upper() if value is not None and value.size == 6 else ""


def _guid(text: str) -> str:
    found = _GUID.search(text)
    return found[0].lower() if found else ""


def _letters(
    mounted: Sequence[MountedDevice], volumes: Sequence[FoundVolume], holding: AbstractSet[str]
) -> tuple[Letter, ...]:
    """Every letter that pointed to a partition, whether that is here or not; optical drives are left out."""
    by_letter = {letter: v for v in volumes for letter in (v.letters or ((v.root,) if v.guessed else ()))}
    found: dict[str, Letter] = {}
    for device in mounted:
        if device.letter is None or (device.partition_guid is None and device.signature is None):
            continue
        found[device.letter] = Letter(device.letter, device.partition_guid, device.signature, device.offset)
    for letter, volume in by_letter.items():
        known = found.get(letter) or Letter(letter, volume.ref.partition_guid, volume.ref.signature)
        found[letter] = replace(
            known,
            label=volume.label,
            size=volume.size,
            file_system=volume.file_system,
            holds_machines=volume.id in holding,
        )
    return tuple(found[letter] for letter in sorted(found))


class _Reader:
    """Reads keys and keeps what they held."""

    def __init__(self, hives: HostHives) -> None:
        self._hives = hives
        self.evidence: list[Evidence] = []
        self.unread: list[str] = []

    def _control(self, path: str) -> Key | None:
        return _find(self._hives.system, f"{self._hives.control_set}\\{path}")

    def _keep(self, hive: str, key: Key, path: str, depth: int = 0) -> None:
        """All values below a key, as stored."""
        for value in key.values():
            self._keep_value(hive, path, value)
        if depth < _DEPTH:
            for child in key.subkeys():
                self._keep(hive, child, f"{path}\\{child.name}", depth + 1)

    def _keep_value(self, hive: str, path: str, value: Value) -> None:
        if len(self.evidence) >= _MOST_EVIDENCE:
            more = f"more than {_MOST_EVIDENCE} values: the rest is in the hives only"
            if more not in self.unread:
                self.unread.append(more)
            return
        data = value.data[:_MOST_BYTES] if value.size <= 1 << 20 else b""
        self.evidence.append(Evidence(hive, path, value.name, value.type, data.hex()))
        if len(data) < value.size:
            self.unread.append(f"{path}\\{value.name}: {value.size} bytes are in the hive only")

    def letters(self, settings: HostSettings) -> HostSettings:
        key = _find(self._hives.system, "MountedDevices")
        if key is not None:
            self._keep("SYSTEM", key, "MountedDevices")
        return settings

    # --- Hyper-V's own settings

    def virtualization(self, settings: HostSettings) -> HostSettings:
        key = _find(self._hives.software, VIRTUALIZATION)
        if key is None:
            return settings
        self._keep("SOFTWARE", key, VIRTUALIZATION)
        migration = key.subkey("Migration")
        return replace(
            settings,
            machine_path=_text(key, "DefaultExternalDataRoot"),
            disk_path=_text(key, "DefaultVirtualHardDiskPath"),
            mac_minimum=_mac(key, "MinimumMacAddress"),
            mac_maximum=_mac(key, "MaximumMacAddress"),
            live_migrations=_number(migration, "MaximumActiveVirtualMachineMigration"),
            storage_migrations=_number(migration, "MaximumActiveStorageMigration"),
            numa_spanning=_flag(key, "NumaSpanningEnabled"),
            enhanced_session=_flag(key, "EnableEnhancedSessionMode"),
        )

    def roles(self, settings: HostSettings) -> HostSettings:
        services = self._control("Services")
        found: list[str] = []
        for service, role in _ROLES.items():
            key = services.subkey(service) if services is not None else None
            if key is not None and _number(key, "Start") != _DISABLED:
                found.append(role)
        parameters = self._control("Services\\Tcpip\\Parameters")
        domain = _text(parameters, "Domain") or _text(parameters, "NV Domain")
        return replace(settings, roles=tuple(found), domain=domain)

    # --- network

    def network(self, settings: HostSettings) -> HostSettings:
        cards = self._cards()
        switches: list[VirtualSwitch] = []
        owners: dict[str, str] = {}  # host adapter to switch name
        parameters = self._control("Services\\vmsmp\\parameters")
        if parameters is not None:
            where = f"{self._hives.control_set}\\Services\\vmsmp\\parameters"
            self._keep("SYSTEM", parameters, where)
            uplinks = self._uplinks(parameters.subkey("NicList"), cards)
            listed = parameters.subkey("SwitchList")
            for key in listed.subkeys() if listed is not None else ():
                identifier = _guid(key.name)
                if not identifier or identifier == _DEFAULT_SWITCH:
                    continue
                switch = self._switch(key, identifier, uplinks.get(identifier, ()), cards, owners)
                switches.append(switch)
        for path in ("Services\\MsLbfoProvider\\Parameters\\NdisAdapters",):
            team = self._control(path)
            if team is not None:
                self._keep("SYSTEM", team, f"{self._hives.control_set}\\{path}")
        adapters = tuple(self._adapters(cards, owners))
        return replace(settings, switches=tuple(switches), adapters=adapters)

    def _cards(self) -> dict[str, _Card]:
        """Every adapter that Windows has a connection for, by its NetCfgInstanceId in lower case."""
        cards: dict[str, _Card] = {}
        connections = self._control(f"Control\\Network\\{_NETWORK_CLASS}")
        for key in connections.subkeys() if connections is not None else ():
            identifier = _guid(key.name)
            connection = key.subkey("Connection") if identifier else None
            if connection is not None:
                cards[identifier] = _Card(
                    identifier, _text(connection, "Name"), pnp_id=_text(connection, "PnPInstanceId")
                )
        drivers = self._control(f"Control\\Class\\{_NETWORK_CLASS}")
        for key in drivers.subkeys() if drivers is not None else ():
            identifier = _guid(_text(key, "NetCfgInstanceId"))
            if identifier in cards:
                cards[identifier] = replace(
                    cards[identifier],
                    description=_text(key, "DriverDesc"),
                    component=_text(key, "ComponentId"),
                    mac=_address(_text(key, "NetworkAddress")),
                )
        return cards

    def _uplinks(self, listed: Key | None, cards: dict[str, _Card]) -> dict[str, tuple[Uplink, ...]]:
        """The physical adapters below each switch. Their keys are called /DEVICE/{NetCfgInstanceId}."""
        found: dict[str, tuple[Uplink, ...]] = {}
        for key in listed.subkeys() if listed is not None else ():
            switch = _guid(_text(key, "SwitchName"))
            identifier = _guid(key.name)
            if not key.name.upper().replace("\\", "/").startswith("/DEVICE/") or not switch or not identifier:
                continue
            card = cards.get(identifier) or _Card(identifier, "")
            description = card.description or _text(key, "FriendlyName")
            uplink = Uplink(identifier, card.name, description, card.pnp_id, card.mac)
            found[switch] = (*found.get(switch, ()), uplink)
        return found

    def _switch(
        self,
        key: Key,
        identifier: str,
        uplinks: tuple[Uplink, ...],
        cards: dict[str, _Card],
        owners: dict[str, str],
    ) -> VirtualSwitch:
        name = _text(key, "FriendlyName") or identifier
        host = False
        for port in key.subkeys():
            label = _text(port, "FriendlyName")
            if label.lower().startswith("host vnic"):
                host = True
                if _guid(label) in cards:
                    owners[_guid(label)] = name
        for card in cards.values():
            virtual = _VIRTUAL_NAME.fullmatch(card.name)
            if virtual is not None and virtual[1] == name:
                host = True
                owners.setdefault(card.guid, name)
        is_team = any(_is_team(cards.get(u.guid)) for u in uplinks)
        return VirtualSwitch(
            id=identifier,
            name=name,
            kind="external" if uplinks else "internal" if host else "private",
            uplinks=uplinks,
            host_adapter=host,
            team="lbfo" if is_team else "set" if len(uplinks) > 1 else "",
            sriov=_flag(key, "IovPreferred", "IovEnabled"),
            notes=_text(key, "Notes") or _text(key, "Description"),
        )

    def _adapters(self, cards: dict[str, _Card], owners: dict[str, str]) -> Iterator[HostAdapter]:
        """Adapters with a switch or with settings of their own."""
        interfaces = self._control("Services\\Tcpip\\Parameters\\Interfaces")
        keys = {_guid(k.name): k for k in interfaces.subkeys()} if interfaces is not None else {}
        where = f"{self._hives.control_set}\\Services\\Tcpip\\Parameters\\Interfaces"
        for card in sorted(cards.values(), key=lambda c: c.name):
            key = keys.get(card.guid)
            addresses = tuple(self._addresses(key))
            if card.guid not in owners and not addresses and key is None:
                continue
            if key is not None and (addresses or card.guid in owners):
                self._keep("SYSTEM", key, f"{where}\\{key.name}")
            servers = _text(key, "NameServer")
            yield HostAdapter(
                card.guid,
                card.name,
                owners.get(card.guid, ""),
                addresses,
                tuple(g for g in _texts(key, "DefaultGateway") if g != "0.0.0.0"),
                tuple(s for s in re.split(r"[ ,]+", servers) if s),
                _flag(key, "EnableDHCP"),
                card.mac,
            )

    def _addresses(self, key: Key | None) -> Iterator[str]:
        """Static addresses with the length of their prefix."""
        masks = _texts(key, "SubnetMask")
        for index, address in enumerate(_texts(key, "IPAddress")):
            mask = masks[index] if index < len(masks) else ""
            try:
                if int(ipaddress.ip_address(address)):
                    yield str(ipaddress.ip_interface(f"{address}/{mask}" if mask else address))
            except ValueError:
                self.unread.append(f"address {address!r} with mask {mask!r}")


@dataclass(frozen=True)
class _Card:
    """A network adapter as Windows keeps it. ``guid`` is its NetCfgInstanceId."""

    guid: str
    name: str
    pnp_id: str = ""
    description: str = ""
    component: str = ""
    mac: str = ""


def _is_team(card: _Card | None) -> bool:
    return card is not None and any(word in f"{card.description} {card.component}".lower() for word in _TEAM)


def _address(text: str) -> str:
    """A MAC address that was set by hand, as "00-15-5D-01-02-03"; "" for anything else."""
    digits = re.sub("[^0-9A-Fa-f]", "", text).upper()
    return "-".join(digits[i : i + 2] for i in range(0, 12, 2)) if len(digits) == 12 else ""
