"""The drivers of an installation, read from its SYSTEM hive and its files: facts only, repair/ judges them.

What Windows does with them: DeviceIds lead to an INF, DriverInfFiles to its package, the package's Descriptors to a
Configuration and this to a service (Windows 8 and Server 2012 on); Windows 7 and Server 2008 R2 look into
CriticalDeviceDatabase. Everything is bounded, since a hive may hold anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rehost_payload.formats.authenticode import file_digests, read_signature
from rehost_payload.formats.catalog import parse_catalog
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.filesystem import FileSystemReader
from rehost_payload.formats.hive import Hive, Key
from rehost_payload.formats.inf_rank import PciDevice
from rehost_payload.formats.pkcs7 import Signature
from rehost_payload.survey.binaries import Binaries
from rehost_payload.survey.drivers_model import (
    BinaryFacts,
    CatalogFacts,
    Configuration,
    ControllerFacts,
    CriticalDevice,
    Descriptor,
    DriveLetter,
    DriverInf,
    DriverPackage,
    Filters,
    IdHit,
    OverrideValue,
    PolicyValue,
    ServiceFacts,
    SetNumber,
    SignerFacts,
    StoreCopy,
    WindowsDrivers,
)
from rehost_payload.survey.model import Controller, Problem
from rehost_payload.survey.values import number, string, strings, sub

# services between the controller and the volume of Windows; which of them a version has differs
CHAIN = (
    *("ACPI", "acpiex", "pci", "msisadrv", "vdrvroot", "disk", "partmgr", "mountmgr", "volmgr", "volmgrx"),
    *("volsnap", "volume", "CLFS", "fvevol", "rdyboost", "iorate", "EhStorClass", "spaceport", "FltMgr"),
)
COMPANIONS = ("atapi", "amdxata", "vmbus", "storvsc", "vpci")
"""Drivers that others cannot do without and that no record names: channels of IDE controllers, buses of VMs."""
FILTER_CLASSES = (
    "{4d36e96a-e325-11ce-bfc1-08002be10318}",  # hdc
    "{4d36e967-e325-11ce-bfc1-08002be10318}",  # DiskDrive
    "{4d36e97b-e325-11ce-bfc1-08002be10318}",  # SCSIAdapter
    "{71a27cdd-812a-11d0-bec7-08002be2092f}",  # Volume
    "{4d36e965-e325-11ce-bfc1-08002be10318}",  # CDROM
)
_BUSES = ("PCI", "SCSI", "IDE")  # below Enum
_PRODUCT_TYPES = {"winnt": 1, "lanmannt": 2, "servernt": 3}
_KERNEL_TYPES = (1, 2)  # SERVICE_KERNEL_DRIVER, SERVICE_FILE_SYSTEM_DRIVER
_MAX_SETS = 8
_MAX_CONTROLLERS = 64
_MAX_HITS = 64  # of one ID
_OTHER_CARDS = 8
_MAX_DEVICES = 5000  # instances below one bus of Enum
_MAX_SERVICES = 600  # over all control sets
_MAX_POLICIES = 200
_PENDING_SIZE = 4 << 20
_PENDING_SHOWN = 20
_MAX_CATALOG = 4 << 20
_MAX_MEMBERS = 2000  # of a catalog; those of storage drivers have a dozen
_MAX_DRIVER = 48 << 20
_CATALOGS = "System32\\CatRoot\\{F750E6C3-38EE-11D1-85E5-00C04FC295EE}"
_OEM = re.compile(r"oem([0-9]{1,5})\.inf", re.IGNORECASE)
_LETTER = re.compile(r"\\DosDevices\\([A-Za-z]):")
_CONCERNS = re.compile(r"\\(drivers|driverstore|winsxs|servicing)\\", re.IGNORECASE)


def pci_device(controller: Controller) -> PciDevice:
    """A controller of the survey by the IDs that Windows gives it."""
    subsystem = (controller.subsystem_device + controller.subsystem_vendor).upper()
    return PciDevice(
        controller.vendor.upper(),
        controller.device.upper(),
        subsystem if len(subsystem) == 8 else "",
        controller.revision.upper(),
        controller.class_code.upper(),
    )


@dataclass(frozen=True)
class SystemHive:
    """The SYSTEM hive of an installation, its logs applied, and what its file is."""

    hive: Hive
    path: str
    sha256: str
    logs: tuple[str, ...]
    replayed: bool
    sets: tuple[int, ...]
    default: int  # the set that the next start takes


@dataclass
class _Reader:
    system: SystemHive
    reader: FileSystemReader
    root: str
    place: str
    problems: list[Problem]
    binaries: Binaries
    cut: dict[str, None] = field(default_factory=dict)

    # --- the hive ---------------------------------------------------------------------------------------------

    def find(self, *path: str) -> Key | None:
        return self.system.hive.find(*path)

    def in_set(self, number_: int, *path: str) -> Key | None:
        return self.find(f"ControlSet{number_:03d}", *path)

    @property
    def sets(self) -> tuple[int, ...]:
        return self.system.sets[:_MAX_SETS]

    # --- controllers ------------------------------------------------------------------------------------------

    def controllers(self, controllers: Sequence[Controller]) -> tuple[ControllerFacts, ...]:
        table = self.find("DriverDatabase", "DeviceIds", "PCI")
        found = []
        if len(controllers) > _MAX_CONTROLLERS:
            self.cut[f"controllers: more than {_MAX_CONTROLLERS}"] = None
        for controller in controllers[:_MAX_CONTROLLERS]:
            device = pci_device(controller)
            ids = tuple(dict.fromkeys((*device.hardware_ids, *device.compatible_ids)))
            hits = tuple(hit for i in ids for hit in self._hits(table, i))
            critical = tuple(c for i in ids for c in self._critical(i))
            others = () if hits or critical else self._other_cards(table, device)
            identity = (controller.address, device.hardware_ids, device.compatible_ids)
            found.append(ControllerFacts(*identity, hits, critical, others))
        return tuple(found)

    def _other_cards(self, table: Key | None, device: PciDevice) -> tuple[str, ...]:
        prefix = f"ven_{device.vendor}&dev_{device.device}&subsys_".lower()
        places = [table]
        places += [self.in_set(n, "Control", "CriticalDeviceDatabase") for n in self.sets]
        found: dict[str, None] = {}
        for place in places:
            for key in place.subkeys() if place is not None else ():
                name = key.name.lower().removeprefix("pci#")
                if name.startswith(prefix):
                    found[f"PCI\\{name.upper()}"] = None
                if len(found) >= _OTHER_CARDS:
                    break
        return tuple(found)

    def _hits(self, table: Key | None, device_id: str) -> Iterator[IdHit]:
        key = sub(table, device_id.partition("\\")[2])
        for count, value in enumerate(key.values() if key is not None else ()):
            if count >= _MAX_HITS:
                self.cut[f"{device_id}: more than {_MAX_HITS} INFs"] = None
                return
            if value.name:
                yield IdHit(device_id, value.name, value.data.hex() if value.size <= 64 else "")

    def _critical(self, device_id: str) -> Iterator[CriticalDevice]:
        for n in self.sets:
            key = self.in_set(n, "Control", "CriticalDeviceDatabase", device_id.replace("\\", "#"))
            if key is not None and (service := string(key, "Service")):
                yield CriticalDevice(n, device_id, service, string(key, "ClassGUID"))

    # --- the database -------------------------------------------------------------------------------------------

    def infs(self, controllers: Sequence[ControllerFacts]) -> tuple[DriverInf, ...]:
        names = dict.fromkeys(hit.inf.lower() for c in controllers for hit in c.hits)
        found = []
        for name in names:
            key = self.find("DriverDatabase", "DriverInfFiles", name)
            if key is not None:
                active, configurations = string(key, "Active"), strings(key, "Configurations")
                found.append(DriverInf(key.name, strings(key, ""), active, configurations))
        return tuple(found)

    def packages(
        self, controllers: Sequence[ControllerFacts], infs: Sequence[DriverInf]
    ) -> tuple[DriverPackage, ...]:
        ids = tuple(
            dict.fromkeys(i for c in controllers for i in (*c.hardware_ids, *c.compatible_ids) if c.hits)
        )
        names = dict.fromkeys(n for i in infs for n in (*i.packages, i.active) if n)
        keys = ((n, self.find("DriverDatabase", "DriverPackages", n)) for n in names)
        return tuple(self._package(key, ids) for _, key in keys if key is not None)

    def _package(self, key: Key, ids: Sequence[str]) -> DriverPackage:
        table, settings = key.subkey("Descriptors"), key.subkey("Configurations")
        descriptors = []
        for device_id in ids:
            entry = sub(table, *device_id.split("\\", 1))
            if entry is not None:
                descriptors.append(Descriptor(device_id, string(entry, "Configuration")))
        configurations = []
        for name in dict.fromkeys(d.configuration for d in descriptors if d.configuration):
            entry = sub(settings, name)
            if entry is not None:
                configurations.append(
                    Configuration(
                        entry.name,
                        string(entry, "Service"),
                        number(entry, "ConfigFlags"),
                        strings(entry, "UpperFilters"),
                        strings(entry, "LowerFilters"),
                        strings(entry, "ExcludeIds"),
                    )
                )
        version = key.value("Version")
        inf = string(key, "")
        catalog = self._catalog(inf)
        return DriverPackage(
            name=key.name,
            inf=inf,
            catalog=catalog is not None,
            catalog_facts=catalog,
            version=version.data.hex() if version is not None and version.size <= 256 else "",
            provider=string(key, "Provider"),
            original=string(key, "InfName"),
            oem_path=string(key, "OemPath"),
            signer=string(key, "SignerName"),
            folder=self._exists(f"{self.root}\\System32\\DriverStore\\FileRepository\\{key.name}"),
            descriptors=tuple(descriptors),
            configurations=tuple(configurations),
        )

    def _catalog(self, inf: str) -> CatalogFacts | None:
        match = _OEM.fullmatch(inf)
        path = f"{self.root}\\{_CATALOGS}\\oem{match[1]}.cat" if match is not None else ""
        if not path or not self._exists(path):
            return None
        try:
            found = parse_catalog(self.reader.read(path, _MAX_CATALOG))
        except (FormatError, OSError) as error:
            return CatalogFacts(path, problem=str(error))
        if len(found.members) > _MAX_MEMBERS:
            return CatalogFacts(path, problem=f"it has {len(found.members)} members")
        digests = dict.fromkeys(m.digest.hex() for m in found.members)
        return CatalogFacts(path, tuple(digests), _signer(found.signature))

    def signed(self, facts: BinaryFacts) -> BinaryFacts:
        """With its hashes and the signature inside of it, where it can be read."""
        if not facts.exists or facts.unreadable is not None or facts.size > _MAX_DRIVER:
            return facts
        try:
            data = self.reader.read(facts.path, _MAX_DRIVER)
        except (FormatError, OSError):
            return facts
        facts = replace(facts, digests=tuple(sorted(d.hex() for d in file_digests(data))))
        try:
            return replace(facts, signer=_signer(read_signature(data)))
        except FormatError as error:
            return replace(facts, signer=SignerFacts("unnamed", "other", problem=str(error)))

    # --- services -----------------------------------------------------------------------------------------------

    def services(self, wanted: Iterable[str]) -> tuple[ServiceFacts, ...]:
        """Those asked for in every set, and everything else that the next start loads at boot."""
        found: dict[tuple[int, str], ServiceFacts] = {}
        names = {n.lower() for n in wanted if n}
        for n in self.sets:
            table = self.in_set(n, "Services")
            for key in table.subkeys() if table is not None else ():
                asked = key.name.lower() in names
                if not asked and (n != self.system.default or number(key, "Start") != 0):
                    continue
                if not asked and number(key, "Type") not in _KERNEL_TYPES:
                    continue
                if len(found) >= _MAX_SERVICES:
                    self.cut[f"services: more than {_MAX_SERVICES}"] = None
                    break
                found[n, key.name.lower()] = self._service(n, key)
        return tuple(found.values())

    def _service(self, set_number: int, key: Key) -> ServiceFacts:
        override = key.subkey("StartOverride")
        values: list[OverrideValue] = []
        for value in override.values() if override is not None else ():
            try:
                values.append(OverrideValue(value.name, value.as_int()))
            except FormatError:
                values.append(OverrideValue(value.name, None))
            if len(values) >= 16:
                break
        path = string(key, "ImagePath") if key.value("ImagePath") is not None else None
        return ServiceFacts(
            control_set=set_number,
            name=key.name,
            type=number(key, "Type"),
            start=number(key, "Start"),
            error_control=number(key, "ErrorControl"),
            image_path=path,
            binary=image_file(path, key.name, self.root),
            group=string(key, "Group"),
            owners=strings(key, "Owners"),
            start_override=tuple(values),
        )

    # --- filters ------------------------------------------------------------------------------------------------

    def class_filters(self) -> tuple[Filters, ...]:
        found = []
        for n in self.sets:
            for guid in FILTER_CLASSES:
                key = self.in_set(n, "Control", "Class", guid)
                upper, lower = strings(key, "UpperFilters"), strings(key, "LowerFilters")
                if upper or lower:
                    found.append(Filters(n, guid, upper, lower))
        return tuple(found)

    def device_filters(self) -> tuple[Filters, ...]:
        found = []
        for n in self.sets:
            for bus in _BUSES:
                table = self.in_set(n, "Enum", bus)
                devices = table.subkeys() if table is not None else ()
                instances = ((d.name, i) for d in devices for i in d.subkeys())
                for count, (device, instance) in enumerate(instances):
                    if count >= _MAX_DEVICES:
                        self.cut[f"Enum\\{bus}: more than {_MAX_DEVICES} devices"] = None
                        break
                    upper, lower = strings(instance, "UpperFilters"), strings(instance, "LowerFilters")
                    if upper or lower:
                        found.append(Filters(n, f"{bus}\\{device}\\{instance.name}", upper, lower))
        return tuple(found)

    # --- what else a move needs ---------------------------------------------------------------------------------

    def numbers(self, *path: str) -> tuple[SetNumber, ...]:
        """A value (the last name) in every control set."""
        return tuple(SetNumber(n, number(self.in_set(n, *path[:-1]), path[-1])) for n in self.sets)

    def pending(self) -> tuple[int, tuple[str, ...]]:
        key = self.in_set(self.system.default, "Control", "Session Manager")
        value = key.value("PendingFileRenameOperations") if key is not None else None
        if value is None:
            return 0, ()
        if value.size > _PENDING_SIZE:
            self.cut[f"PendingFileRenameOperations: {value.size} bytes"] = None
            return 1, ()
        entries = [e for e in strings(key, "PendingFileRenameOperations", keep=1 << 20) if e]
        concerned = [e[:300] for e in entries if _CONCERNS.search(e)]
        return len(entries), tuple(concerned[:_PENDING_SHOWN])

    def oem_numbers(self) -> tuple[int, ...]:
        names: list[str] = []
        table = self.find("DriverDatabase", "DriverInfFiles")
        names += [k.name for k in table.subkeys()] if table is not None else []
        folder = f"{self.root}\\INF"
        if self.reader.is_directory(folder):
            names += [entry.name for entry in self.reader.listdir(folder)]
        return tuple(sorted({int(m[1]) for name in names if (m := _OEM.fullmatch(name))}))

    def letters(self) -> tuple[DriveLetter, ...]:
        key = self.find("MountedDevices")
        found: list[DriveLetter] = []
        for value in key.values() if key is not None else ():
            match = _LETTER.fullmatch(value.name)
            if match and value.size <= 1024 and len(found) < 26:
                found.append(DriveLetter(match[1].upper(), value.data.hex()))
        return tuple(found)

    def _exists(self, path: str) -> bool:
        return self.reader.exists(path)


def _signer(found: Signature | None) -> SignerFacts | None:
    if found is None:
        return None
    return SignerFacts(found.signer, found.trust.value, found.usages, found.problem)


def image_file(image_path: str | None, service: str, root: str) -> str | None:
    """Where the boot loader looks for a driver's file on the volume of Windows; None where that is elsewhere.

    Without an ImagePath it is System32\\drivers\\<service>.sys.
    """
    path = (image_path or "").strip().strip('"').replace("/", "\\")
    if not path:
        return f"{root}\\System32\\drivers\\{service}.sys"
    lower = path.lower()
    for prefix in ("\\systemroot\\", "%systemroot%\\", "%windir%\\"):
        if lower.startswith(prefix):
            return f"{root}\\{path[len(prefix) :]}"
    if match := re.match(r"(?:\\\?\?\\)?[a-z]:\\", lower):
        rest = "\\" + path[match.end() :]
        # the letter is not known here; a path into the folder of Windows means this Windows
        return rest if rest.lower().startswith(root.lower() + "\\") else None
    if path.startswith("\\"):
        return None
    return f"{root}\\{path}"


def survey_drivers(
    system: SystemHive,
    reader: FileSystemReader,
    root: str,
    place: str,
    controllers: Sequence[Controller],
    problems: list[Problem],
) -> WindowsDrivers:
    """The facts. Damage in one place is a problem of the survey, and the rest is told all the same."""
    r = _Reader(system, reader, root, place, problems, Binaries(reader, root))
    facts = WindowsDrivers(system.path, system.sha256, system.logs, system.replayed)
    for part in (_database, _filters, _settings, _services):
        try:
            facts = part(r, facts, controllers)
        except (FormatError, OSError) as error:
            problems.append(Problem("damaged", f"{place} drivers", str(error)))
    return replace(facts, cut=tuple(r.cut))


def _database(r: _Reader, facts: WindowsDrivers, controllers: Sequence[Controller]) -> WindowsDrivers:
    database = r.find("DriverDatabase")
    critical = any(r.in_set(n, "Control", "CriticalDeviceDatabase") is not None for n in r.sets)
    found = r.controllers(controllers)
    infs = r.infs(found)
    return replace(
        facts,
        database=database is not None,
        critical_database=critical,
        architecture=number(database, "Architecture"),
        controllers=found,
        infs=infs,
        packages=r.packages(found, infs),
        oem_numbers=r.oem_numbers(),
    )


def _filters(r: _Reader, facts: WindowsDrivers, _: Sequence[Controller]) -> WindowsDrivers:
    return replace(facts, class_filters=r.class_filters(), device_filters=r.device_filters())


def _settings(r: _Reader, facts: WindowsDrivers, _: Sequence[Controller]) -> WindowsDrivers:
    options = r.in_set(r.system.default, "Control", "ProductOptions")
    renames, concerned = r.pending()
    return replace(
        facts,
        product_type=_PRODUCT_TYPES.get(string(options, "ProductType").lower()),
        last_known_good=number(r.find("Select"), "LastKnownGood"),
        san_policy=r.numbers("Services", "partmgr", "Parameters", "SanPolicy"),
        auto_reboot=r.numbers("Control", "CrashControl", "AutoReboot"),
        letters=r.letters(),
        pending_xml=r.reader.exists(f"{r.root}\\WinSxS\\pending.xml"),
        pending_renames=renames,
        pending_drivers=concerned,
    )


def _services(r: _Reader, facts: WindowsDrivers, _: Sequence[Controller]) -> WindowsDrivers:
    configurations = [c for p in facts.packages for c in p.configurations]
    drivers = [n for c in configurations for n in (c.service, *c.upper_filters, *c.lower_filters)]
    drivers += [c.service for f in facts.controllers for c in f.critical]
    filters = [n for f in (*facts.class_filters, *facts.device_filters) for n in (*f.upper, *f.lower)]
    wanted = dict.fromkeys(n for n in (*drivers, *filters, *CHAIN, *COMPANIONS) if n)
    services = r.services(wanted)
    present = {s.name.lower() for s in services}
    looked_into = {n.lower() for n in wanted}
    compared = {n.lower() for n in drivers} | {n.lower() for n in COMPANIONS}
    bought = {
        n.lower()
        for p in facts.packages
        if _OEM.fullmatch(p.inf)
        for c in p.configurations
        for n in (c.service, *c.upper_filters, *c.lower_filters)
    }
    binaries = {}
    for s in services:
        if s.binary is not None and s.binary.lower() not in binaries:
            name = s.name.lower()
            binaries[s.binary.lower()] = r.binaries.facts(
                s.binary, look=name in looked_into, compare=name in compared
            )
            if name in bought:
                binaries[s.binary.lower()] = r.signed(binaries[s.binary.lower()])
    return replace(
        facts,
        services=services,
        absent_services=tuple(n for n in wanted if n.lower() not in present),
        binaries=tuple(binaries.values()),
        store_copies=tuple(_store_copies(r, facts, services, binaries)),
    )


def _store_copies(
    r: _Reader,
    facts: WindowsDrivers,
    services: Sequence[ServiceFacts],
    binaries: Mapping[str, BinaryFacts],
) -> Iterator[StoreCopy]:
    """For drivers of this machine's controllers whose file is gone or no image: the copy that Windows keeps."""
    paths = {s.name.lower(): s.binary for s in services if s.binary is not None}
    for package in facts.packages:
        if not package.folder:
            continue
        names = [n for c in package.configurations for n in (c.service, *c.upper_filters, *c.lower_filters)]
        for target in dict.fromkeys(paths[n.lower()] for n in names if n.lower() in paths):
            file = binaries[target.lower()]
            if file.exists and file.problem is None:
                continue
            folder = f"{r.root}\\System32\\DriverStore\\FileRepository\\{package.name}"
            copy = r.binaries.facts(f"{folder}\\{target.rpartition(chr(92))[2]}", look=True, compare=False)
            if copy.exists:
                yield StoreCopy(copy.path, target, copy.size, copy.machine, copy.problem or copy.unreadable)


# --- SOFTWARE ---------------------------------------------------------------------------------------------------


def install_restrictions(software: Hive) -> tuple[PolicyValue, ...]:
    """Policies that keep Windows from installing devices. May raise FormatError."""
    top = software.find("Policies", "Microsoft", "Windows", "DeviceInstall", "Restrictions")
    if top is None:
        return ()
    found: list[PolicyValue] = []
    for key, path in [(top, ""), *((k, k.name) for k in top.subkeys())]:
        for value in key.values():
            if len(found) >= _MAX_POLICIES:
                return tuple(found)
            text = number(key, value.name)
            found.append(
                PolicyValue(path, value.name, str(text) if text is not None else string(key, value.name))
            )
    return tuple(found)
