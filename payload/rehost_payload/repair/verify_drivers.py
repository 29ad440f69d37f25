"""verify: will this Windows find its boot disk on this controller? A checklist over the survey's raw facts.

Shares no code with the rules and with what installs drivers: it ranks, resolves and looks up by itself. Windows 8 and
Server 2012 on: DeviceIds -> DriverInfFiles -> DriverPackages -> Descriptors -> Configurations -> Services -> file;
before: CriticalDeviceDatabase -> Services -> file. Then the chain of services up to the volume, and filters. What
cannot be seen is UNKNOWN. A driver that is not of Windows itself has to be the file that its catalog in CatRoot, or the
signature inside it, vouches for; who has signed that is a point of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rehost_payload.repair.model import Check, Verdict
from rehost_payload.survey.drivers_model import (
    BinaryFacts,
    ControllerFacts,
    DriverPackage,
    ServiceFacts,
    SignerFacts,
    WindowsDrivers,
)
from rehost_payload.survey.model import Controller, Survey, WindowsInstallation

SIGNATURE = "verify.driver-signature"
_PASS, _FAIL, _UNKNOWN = Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN
_FIRST_WITH_DATABASE = 9200  # Windows 8, Server 2012
_MICROSOFT = "Microsoft"  # where a chain of certificates leads, in the survey's words
_LEADS_TO = {
    "named Microsoft": "a certificate that bears Microsoft's name and is not known here",
    "cross-signed": "a public authority for which Microsoft vouched until 2021",
    "test": "a certificate for tests",
    "other": "somebody else than Microsoft",
}
_AMD64 = 9  # PROCESSOR_ARCHITECTURE_AMD64
_PROCESSORS = {"x86": 0, "x64": 9, "arm64": 12}
# without one of these no disk becomes a volume; `volume` is a driver of its own since Windows 10
_BELOW_THE_VOLUME = {
    "acpi": 0,
    "pci": 0,
    "disk": 0,
    "partmgr": 0,
    "volmgr": 0,
    "volmgrx": 0,
    "mountmgr": 0,
    "volsnap": 0,
    "volume": 10240,
}
_IDE_DRIVERS = {"pciide", "intelide", "amdide", "viaide", "cmdide", "aliide"}


def boot_controller(survey: Survey, windows: WindowsInstallation) -> Controller | None:
    """The controller that Windows will see in front of its own disk; None where that is not known."""
    disk_id = next((v.disk for v in survey.volumes if v.id == windows.volume), None)
    address = next((d.controller for d in survey.disks if d.id == disk_id), None)
    if address is None:
        return None
    found = [c for c in survey.controllers if c.address == address]
    domain, _, rest = address.partition(":")
    if rest and len(domain.lstrip("0")) > 4:
        # behind Intel's volume management device, which is then the controller
        found = [c for c in survey.controllers if c.vendor == "8086" and c.class_code.startswith("0104")]
    return found[0] if len(found) == 1 else None


def check_drivers(survey: Survey, windows: WindowsInstallation) -> tuple[Check, ...]:
    """The points, and last "verify.storage-driver" as their sum."""
    controller = boot_controller(survey, windows)
    if controller is None:
        return (
            _sum(
                _UNKNOWN,
                "not checked: which controller the disk of Windows will be connected to is not known (for an image, --pci names it)",
            ),
        )
    facts = windows.drivers
    own = None
    if facts is not None:
        own = next((c for c in facts.controllers if c.address == controller.address), None)
    if facts is None or own is None:
        return (_sum(_UNKNOWN, f"what {windows.id} has for {_ids(controller)} could not be read"),)
    points = tuple(_Judge(windows, facts, own, controller).points())
    failed = [c for c in points if c.verdict is _FAIL]
    # by whom a driver is signed is said, and does not hide that all the rest was looked at
    unseen = [c for c in points if c.verdict is _UNKNOWN and c.id != SIGNATURE]
    if failed:
        return (*points, _sum(_FAIL, f"{_ids(controller)}: {failed[0].reason}"))
    if unseen:
        return (*points, _sum(_UNKNOWN, f"{_ids(controller)}: {unseen[0].reason}"))
    return (*points, _sum(_PASS, f"{_ids(controller)}: {points[0].reason}"))


def _sum(verdict: Verdict, reason: str) -> Check:
    return Check("verify.storage-driver", verdict, reason)


def _ids(controller: Controller) -> str:
    return f"{controller.vendor}:{controller.device}"


@dataclass(frozen=True)
class _Record:
    """An INF that names the device, decoded from the database's value, and where it leads."""

    order: tuple[int, ...]
    text: str
    package: DriverPackage | None
    service: str | None
    filters: tuple[str, ...]
    why_not: str


class _Judge:
    def __init__(
        self,
        windows: WindowsInstallation,
        facts: WindowsDrivers,
        own: ControllerFacts,
        controller: Controller,
    ) -> None:
        self._windows = windows
        self._facts = facts
        self._own = own
        self._controller = controller
        self._files = {b.path.casefold(): b for b in facts.binaries}
        sets = windows.control_sets
        wanted = (windows.default_control_set, windows.current_control_set)
        self._sets = sorted({n for n in wanted if n is not None and n in sets}) or list(sets[:1])

    def points(self) -> Iterator[Check]:
        record, services, package = self._record()
        yield record
        if record.verdict is _PASS:
            yield self._services(services)
            yield self._driver_files(services, package)
            yield from self._signatures(services, package)
        yield self._chain()
        yield self._filters()

    # --- which driver -----------------------------------------------------------------------------------------

    def _record(self) -> tuple[Check, list[str], DriverPackage | None]:
        name = "verify.driver-record"
        build = self._windows.build
        if self._facts.database:
            records = sorted(self._records(), key=lambda r: r.order)
        elif build is not None and build >= _FIRST_WITH_DATABASE:
            return Check(name, _FAIL, "SYSTEM has no DriverDatabase, where this Windows looks"), [], None
        elif self._facts.critical_database:
            return self._critical_record()
        else:
            return Check(name, _UNKNOWN, "SYSTEM has no database of boot drivers"), [], None
        if not records:
            if self._own.other_cards and not self._controller.subsystem_vendor:
                reason = (
                    f"the subsystem of {_ids(self._controller)} is missing, and Windows knows this kind by its cards: "
                    f"one of them is {self._own.other_cards[0]}"
                )
                return Check(name, _UNKNOWN, reason), [], None
            count = len({*self._own.hardware_ids, *self._own.compatible_ids})
            reason = f"none of its {count} IDs is in the database, {_ids(self._controller)} for one"
            return Check(name, _FAIL, reason), [], None
        best = records[0]
        if best.service is None:
            usable = [r for r in records if r.service is not None]
            if usable:
                reason = (
                    f"{best.text}: {best.why_not}; whether Windows then takes {usable[0].text} is not known"
                )
                return Check(name, _UNKNOWN, reason), [], None
            return Check(name, _FAIL, f"{best.text}: {best.why_not}"), [], None
        text = f"{best.text} -> {best.service}"
        if len(records) > 1:
            text += f" (before {records[1].text})"
        return Check(name, _PASS, text), [best.service, *best.filters], best.package

    def _records(self) -> Iterator[_Record]:
        infs = {i.inf.casefold(): i for i in self._facts.infs}
        packages = {p.name.casefold(): p for p in self._facts.packages}
        for hit in self._own.hits:
            text = f"{hit.device_id} -> {hit.inf}"
            inf = infs.get(hit.inf.casefold())
            package = packages.get(inf.active.casefold()) if inf is not None and inf.active else None
            if package is None:
                yield _Record(
                    self._order(hit.device_id, hit.data, ""), text, None, None, (), "no such package"
                )
                continue
            order = self._order(hit.device_id, hit.data, package.version)
            service, filters, why_not = self._configured(package, hit.device_id)
            yield _Record(order, f"{text} {package.name}", package, service, filters, why_not)

    def _configured(self, package: DriverPackage, device_id: str) -> tuple[str | None, tuple[str, ...], str]:
        """The service and filters that a package sets up for an ID, or why it sets up none."""
        blob = _hex(package.version)
        if len(blob) != 48:
            return None, (), f"its Version value has {len(blob)} bytes"
        wanted = _PROCESSORS.get(self._windows.architecture or "x64", _AMD64)
        if int.from_bytes(blob[2:4], "little") != wanted:
            return None, (), f"it is for processor architecture {int.from_bytes(blob[2:4], 'little')}"
        named = [
            d.configuration for d in package.descriptors if d.device_id.casefold() == device_id.casefold()
        ]
        if not named or not named[0]:
            return None, (), "it has no descriptor for the ID (staged, not installed)"
        for configuration in package.configurations:
            if configuration.name.casefold() == named[0].casefold():
                ids = {i.casefold() for i in (*self._own.hardware_ids, *self._own.compatible_ids)}
                if ids & {i.casefold() for i in configuration.exclude_ids}:
                    return None, (), "it excludes this very controller"
                filters = configuration.upper_filters + configuration.lower_filters
                return configuration.service or None, filters, "its configuration names no service"
        return None, (), f"its configuration {named[0]} does not exist"

    def _order(self, device_id: str, value: str, version: str) -> tuple[int, ...]:
        """Signature and feature, hardware before compatible ID, place in the list; then date and version, newest first."""
        data, blob = _hex(value).ljust(4, b"\xff"), _hex(version).ljust(48, b"\0")
        first_of_model = data[0] == 1
        lists = (self._own.hardware_ids, self._own.compatible_ids)
        place = (9, 0)
        for number, listed in enumerate(lists):
            folded = [i.casefold() for i in listed]
            if device_id.casefold() in folded:
                place = (2 * number + (not first_of_model), folded.index(device_id.casefold()))
                break
        date = int.from_bytes(blob[24:32], "little")
        version_words = [int.from_bytes(blob[at : at + 2], "little") for at in (38, 36, 34, 32)]
        return (data[1], *place, -date, *(-w for w in version_words))

    def _critical_record(self) -> tuple[Check, list[str], DriverPackage | None]:
        name = "verify.driver-record"
        for device_id in (*self._own.hardware_ids, *self._own.compatible_ids):
            entries = {
                c.control_set: c.service
                for c in self._own.critical
                if c.device_id.casefold() == device_id.casefold()
            }
            here = [entries[n] for n in self._sets if n in entries]
            if here:
                if len(here) < len(self._sets):
                    return Check(name, _FAIL, f"{device_id} is not in every control set"), [], None
                return Check(name, _PASS, f"{device_id} -> {here[0]}"), list(dict.fromkeys(here)), None
        reason = f"CriticalDeviceDatabase has none of its IDs, {_ids(self._controller)} for one"
        return Check(name, _FAIL, reason), [], None

    # --- is it loaded -----------------------------------------------------------------------------------------

    def _with_channels(self, services: Sequence[str]) -> list[str]:
        ide = any(s.casefold() in _IDE_DRIVERS for s in services)
        return list(dict.fromkeys([*services, *(["atapi"] if ide else [])]))

    def _key(self, name: str, control_set: int) -> ServiceFacts | None:
        for s in self._facts.services:
            if s.control_set == control_set and s.name.casefold() == name.casefold():
                return s
        return None

    def _services(self, services: Sequence[str]) -> Check:
        name, wrong = "verify.driver-service", []
        for service in self._with_channels(services):
            for n in self._sets:
                reason = self._not_at_boot(service, n)
                if reason is not None:
                    wrong.append(f"ControlSet{n:03d} {service}: {reason}")
        if wrong:
            return Check(name, _FAIL, "; ".join(wrong[:4]))
        sets = ", ".join(f"ControlSet{n:03d}" for n in self._sets)
        listed = ", ".join(self._with_channels(services))
        return Check(name, _PASS, f"{listed}: boot start in {sets}, no StartOverride")

    def _not_at_boot(self, service: str, control_set: int) -> str | None:
        key = self._key(service, control_set)
        if key is None:
            return "no such service"
        if key.type != 1:
            return f"Type {key.type} is no kernel driver"
        if key.start != 0:
            return f"Start {key.start}"
        demoted = [f"{v.name}={v.value}" for v in key.start_override if v.value != 0]
        return f"StartOverride {', '.join(demoted)}" if demoted else None

    def _file(self, service: ServiceFacts) -> BinaryFacts | None:
        return self._files.get(service.binary.casefold()) if service.binary else None

    def _driver_files(self, services: Sequence[str], package: DriverPackage | None) -> Check:
        """Present, for this processor, native, with imports that this Windows has, and signed in some way."""
        name = "verify.driver-file"
        seen: list[str] = []
        reasons: list[str] = []
        bought = package is not None and _hex(package.version)[:1] == b"\0"  # not of Windows itself
        verdict = _PASS
        for service in self._with_channels(services):
            key = next((k for n in self._sets if (k := self._key(service, n)) is not None), None)
            file = self._file(key) if key is not None else None
            answer, reason = self._usable(file, compared=bought)
            if answer is _FAIL or (answer is _UNKNOWN and verdict is _PASS):
                verdict = answer
            where = file.path if file is not None else service
            (seen if answer is _PASS else reasons).append(f"{where}: {reason}")
        return Check(name, verdict, "; ".join(reasons or seen))

    def _signatures(self, services: Sequence[str], package: DriverPackage | None) -> Iterator[Check]:
        """Of a driver that was added to Windows: is each file the one that was signed, and who has signed it?"""
        if package is None or _hex(package.version)[:1] != b"\0":
            return
        answers = []
        for service in self._with_channels(services):
            key = next((k for n in self._sets if (k := self._key(service, n)) is not None), None)
            file = self._file(key) if key is not None else None
            # the channels of an IDE controller are Windows' own
            if file is not None and file.exists and service in services:
                answers.append((file.path, *self._vouched(file, package)))
        if not answers:
            return
        worst = next((v for v in (_FAIL, _UNKNOWN) if any(a[1] is v for a in answers)), _PASS)
        reasons = [f"{path}: {reason}" for path, verdict, reason in answers if verdict is worst]
        yield Check(SIGNATURE, worst, "; ".join(reasons))

    def _vouched(self, file: BinaryFacts, package: DriverPackage) -> tuple[Verdict, str]:
        catalog = package.catalog_facts
        if not package.catalog and not file.signature:
            return _FAIL, "neither a signature in the file nor a catalog in CatRoot"
        if not file.digests or (package.catalog and catalog is None):
            return _UNKNOWN, "it could not be read: neither its hash nor a signature was checked"
        if catalog is not None and set(file.digests) & set(catalog.digests):
            return _trusted(f"its hash is in {catalog.path}", catalog.signer)
        if file.signer is not None and file.signer.problem is None:
            return _trusted("its hash is that of the signature inside it", file.signer)
        if catalog is not None:
            why = catalog.problem or "it is not the file that was signed: its hash is not in the catalog"
            return _FAIL, f"{catalog.path}: {why}"
        problem = file.signer.problem if file.signer is not None else "it cannot be found"
        return _FAIL, f"the signature inside it is not valid: {problem}"

    def _usable(self, file: BinaryFacts | None, *, compared: bool) -> tuple[Verdict, str]:
        if file is None or not file.exists:
            return _FAIL, "the file is missing"
        if file.problem is not None:
            return _FAIL, file.problem
        if not file.examined:
            return _UNKNOWN, f"it could not be looked into ({file.unreadable or 'not examined'})"
        if file.machine != (self._windows.architecture or "x64"):
            return _FAIL, f"for {file.machine}, Windows is {self._windows.architecture or 'x64'}"
        if file.subsystem != 1:
            return _FAIL, f"subsystem {file.subsystem} is not native"
        if file.missing_modules:
            return _FAIL, f"it imports from {file.missing_modules[0]}, which this Windows does not have"
        if file.missing_symbols:
            return _FAIL, f"it imports {file.missing_symbols[0]}, which this Windows does not have"
        if compared and not file.imports_compared:
            return _UNKNOWN, "its imports could not be compared with the kernel of this Windows"
        return _PASS, f"{file.machine}, {file.size} bytes, {file.version or 'no version'}"

    # --- up to the volume -------------------------------------------------------------------------------------

    def _chain(self) -> Check:
        name = "verify.driver-chain"
        if not self._facts.services:
            return Check(name, _UNKNOWN, "no services could be read")
        build = self._windows.build or 0
        needed = [s for s, first in _BELOW_THE_VOLUME.items() if build >= first]
        wrong = []
        for service in needed:
            for n in self._sets:
                reason = self._not_at_boot(service, n) or self._bad_file(service, n)
                if reason is not None:
                    wrong.append(f"ControlSet{n:03d} {service}: {reason}")
        for key in self._facts.services:
            file = self._file(key)
            severe = key.error_control in (2, 3) and key.start == 0 and key.control_set in self._sets
            demoted = any(v.value for v in key.start_override)
            if severe and not demoted and key.image_path and file is not None and not file.exists:
                wrong.append(f"{key.name}: loaded at boot, critical, and {file.path} is missing")
        if wrong:
            return Check(name, _FAIL, "; ".join(wrong[:4]))
        return Check(name, _PASS, f"{', '.join(needed)} are loaded at boot")

    def _bad_file(self, service: str, control_set: int) -> str | None:
        key = self._key(service, control_set)
        file = self._file(key) if key is not None else None
        answer, reason = self._usable(file, compared=False)
        return reason if answer is _FAIL else None

    def _filters(self) -> Check:
        name, wrong, seen = "verify.driver-filters", [], 0
        instances = {i.casefold() for i in self._own.hardware_ids}
        lists = list(self._facts.class_filters)
        lists += [f for f in self._facts.device_filters if f.key.rpartition("\\")[0].casefold() in instances]
        for entry in lists:
            if entry.control_set not in self._sets:
                continue
            for service in (*entry.upper, *entry.lower):
                seen += 1
                key = self._key(service, entry.control_set)
                reason = self._bad_file(service, entry.control_set)
                if key is None:
                    reason = "no such service"
                elif key.start == 4:
                    reason = "disabled"
                if reason is not None:
                    wrong.append(f"ControlSet{entry.control_set:03d} {entry.key}: {service}: {reason}")
        if wrong:
            return Check(name, _FAIL, "; ".join(wrong[:4]))
        return Check(name, _PASS, f"{seen} entries of filter lists lead to a service and a file")


def _trusted(where: str, signer: SignerFacts | None) -> tuple[Verdict, str]:
    if signer is None:
        return _FAIL, f"{where}, which is not signed"
    if signer.problem is not None:
        return _FAIL, f"{where}, whose signature is not valid: {signer.problem}"
    if signer.trust != _MICROSOFT:
        checked = f"{where} (checked), and the signature of {signer.name} is valid (checked)"
        return (
            _UNKNOWN,
            f"{checked}; it leads to {_LEADS_TO.get(signer.trust, signer.trust)}: whether Windows accepts that is not known",
        )
    return _PASS, f"{where}, signed by {signer.name}, whom Microsoft has certified"


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
