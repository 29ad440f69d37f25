"""How a Windows would find the driver of a controller, as the diagnosis sees it. Pure functions of the survey's facts.

From Windows 8 and Server 2012 on: DeviceIds name INFs, an INF its active package, the package's Descriptors a
Configuration, and this a service. Before: CriticalDeviceDatabase names the service. Of several the best rank counts,
0xTHHH of "How Windows Ranks Driver Packages", then the feature score, the newer date and the higher version.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from rehost_payload.survey.drivers_model import (
    BinaryFacts,
    ControllerFacts,
    DriverPackage,
    IdHit,
    PackageCandidate,
    ServiceFacts,
    WindowsDrivers,
)
from rehost_payload.survey.model import WindowsInstallation

NATIVE = 1  # IMAGE_SUBSYSTEM_NATIVE
_IDE = ("pciide", "intelide", "amdide", "viaide", "cmdide", "aliide")
_IDE_CHANNELS = "atapi"


@dataclass(frozen=True)
class Match:
    """The driver that Windows takes. ``filters`` are those that its package puts on the device."""

    service: str
    way: str  # for evidence: the steps from the ID to the service
    filters: tuple[str, ...] = ()
    package: DriverPackage | None = None

    @property
    def version(self) -> tuple[int, ...] | None:
        """Of the package; None where it is not known."""
        return version_of(self.package) if self.package is not None else None


@dataclass(frozen=True)
class Resolution:
    """``dead_ends``: INFs that name the device and lead to no service, and why."""

    match: Match | None
    dead_ends: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trouble:
    """What keeps a service from being loaded at boot. ``kind``: "absent", "start", "override", "file", "image"."""

    kind: str
    service: str
    evidence: str


@dataclass(frozen=True)
class Drivers:
    """The facts of one installation, with the look-ups that rules need."""

    windows: WindowsInstallation
    facts: WindowsDrivers
    secure_boot: bool | None = None  # of this machine; None: not known

    @cached_property
    def sets(self) -> tuple[int, ...]:
        """The control sets that the next start may take: Default, and Current where it is another one."""
        w = self.windows
        known = [n for n in (w.default_control_set, w.current_control_set) if n in w.control_sets]
        chosen = tuple(dict.fromkeys(n for n in known if n is not None))
        return chosen or w.control_sets[:1]

    @cached_property
    def _services(self) -> dict[tuple[int, str], ServiceFacts]:
        return {(s.control_set, s.name.lower()): s for s in self.facts.services}

    @cached_property
    def _binaries(self) -> dict[str, BinaryFacts]:
        return {b.path.lower(): b for b in self.facts.binaries}

    @cached_property
    def _packages(self) -> dict[str, DriverPackage]:
        return {p.name.lower(): p for p in self.facts.packages}

    def service(self, name: str, control_set: int) -> ServiceFacts | None:
        return self._services.get((control_set, name.lower()))

    def everywhere(self, name: str) -> tuple[ServiceFacts, ...]:
        """The service in every control set that has it."""
        return tuple(s for s in self.facts.services if s.name.lower() == name.lower())

    def binary(self, service: ServiceFacts) -> BinaryFacts | None:
        return self._binaries.get((service.binary or "").lower())

    # --- from the controller to the service --------------------------------------------------------------------

    def resolve(self, controller: ControllerFacts) -> Resolution:
        if not self.facts.database:
            return self._critical(controller)
        found: list[tuple[tuple[int, ...], Match]] = []
        dead: list[str] = []
        for hit in controller.hits:
            way = self._follow(controller, hit)
            if isinstance(way, str):
                dead.append(f"{hit.device_id} -> {hit.inf}: {way}")
            else:
                found.append((_order(controller, hit, way), way))
        best = min(found, key=lambda f: f[0])[1] if found else None
        return Resolution(best, tuple(dead))

    def _critical(self, controller: ControllerFacts) -> Resolution:
        order = (*controller.hardware_ids, *controller.compatible_ids)
        here = [c for c in controller.critical if c.control_set in self.sets[:1]]
        here.sort(key=lambda c: order.index(c.device_id) if c.device_id in order else len(order))
        if not here:
            return Resolution(None)
        best = here[0]
        return Resolution(Match(best.service, f"{best.device_id} -> {best.service}"))

    def _follow(self, controller: ControllerFacts, hit: IdHit) -> Match | str:
        inf = next((i for i in self.facts.infs if i.inf.lower() == hit.inf.lower()), None)
        if inf is None:
            return "no DriverInfFiles key"
        package = self._packages.get(inf.active.lower())
        if package is None:
            return f"its active package {inf.active or '(none)'} is not in DriverPackages"
        descriptor = next(
            (d for d in package.descriptors if d.device_id.lower() == hit.device_id.lower()), None
        )
        if descriptor is None:
            return f"{package.name} has no descriptor for it: staged only"
        configuration = next(
            (c for c in package.configurations if c.name.lower() == descriptor.configuration.lower()), None
        )
        if configuration is None or not configuration.service:
            return f"{package.name}: configuration {descriptor.configuration or '(none)'} names no service"
        own = {i.lower() for i in (*controller.hardware_ids, *controller.compatible_ids)}
        excluded = [i for i in configuration.exclude_ids if i.lower() in own]
        if excluded:
            return f"{configuration.name} excludes {excluded[0]}"
        way = " -> ".join((hit.device_id, hit.inf, package.name, configuration.name, configuration.service))
        filters = (*configuration.upper_filters, *configuration.lower_filters)
        return Match(configuration.service, way, filters, package)

    def needed(self, match: Match) -> tuple[str, ...]:
        """Every service that the controller needs: its driver, filters on it, and the channels of an IDE controller."""
        more = (_IDE_CHANNELS,) if match.service.lower() in _IDE else ()
        return tuple(dict.fromkeys((match.service, *match.filters, *more)))

    # --- can it be loaded ---------------------------------------------------------------------------------------

    def troubles(self, name: str) -> tuple[Trouble, ...]:
        """Why a service would not be loaded at boot, in the control sets that count."""
        return tuple(dict.fromkeys(t for n in self.sets for t in self._in_set(name, n)))

    def _in_set(self, name: str, control_set: int) -> Iterator[Trouble]:
        place = f"ControlSet{control_set:03d}\\Services\\{name}"
        service = self.service(name, control_set)
        if service is None:
            yield Trouble("absent", name, f"{place} does not exist")
            return
        if service.start != 0:
            yield Trouble("start", name, f"{place}: Start is {service.start}, 0 is needed")
        for value in service.start_override:
            if value.value != 0:
                yield Trouble("override", name, f"{place}\\StartOverride: {value.name} is {value.value}")
        problem = self.image_problem(service)
        if problem is not None:
            yield problem

    def image_problem(self, service: ServiceFacts) -> Trouble | None:
        """What is wrong with its file; None where it is right, or cannot be looked into."""
        if service.binary is None:
            text = f"{service.name}: {service.image_path} is not on the volume of Windows"
            return Trouble("file", service.name, text)
        file = self.binary(service)
        if file is None or file.unreadable is not None:
            return None
        if not file.exists:
            return Trouble("file", service.name, f"{file.path} is missing")
        wrong = unfit(file, self.windows.architecture)
        return Trouble("image", service.name, f"{file.path}: {wrong}") if wrong is not None else None

    def unsigned(self, match: Match) -> tuple[Trouble, ...]:
        """A driver that is not of Windows itself, without any signature: the loader refuses it."""
        if match.package is None or not is_oem(match.package) or match.package.catalog:
            return ()
        return tuple(
            Trouble("image", name, f"{file.path}: neither a signature in it nor a catalog in CatRoot")
            for name in self.needed(match)
            if (service := self.service(name, self.sets[0])) is not None
            and (file := self.binary(service)) is not None
            and file.examined
            and file.problem is None
            and not file.signature
        )

    # --- packages at hand ---------------------------------------------------------------------------------------

    def candidates(self, controller: ControllerFacts) -> Iterator[tuple[PackageCandidate, str | None]]:
        """Packages for the controller, the best first, each with what speaks against it."""
        for c in self.facts.candidates:
            if c.address != controller.address:
                continue
            reason = unverified(c) if c.verification is not None and c.verification.refused else None
            if c.subsystems:
                reason = f"it is for the cards {', '.join(c.subsystems[:6])} only, and the card is not known"
            for file in c.binaries:
                wrong = unfit(file, self.windows.architecture)
                if wrong is not None:
                    reason = f"{file.path}: {wrong}"
                elif c.rank >> 24 and not file.signature:
                    reason = f"{file.path} is not signed, and the catalog {c.catalog or ''} is missing"
            if (
                reason is None
                and self.secure_boot
                and c.verification is not None
                and not c.verification.secure_boot
            ):
                reason = "Secure Boot is on, and with it Windows refuses what the vendor alone has signed"
            yield c, reason or c.refusal or None


def unverified(candidate: PackageCandidate) -> str | None:
    """Why nobody can say that Windows will load it; None where its files, catalog and signature are right."""
    found = candidate.verification
    if found is None:
        return "its files, catalog and signature were not checked"
    return "; ".join(found.reasons[:3]) if found.level in ("fail", "unknown") else None


def unfit(file: BinaryFacts, architecture: str | None) -> str | None:
    """Why an image that was looked into cannot be loaded as a driver of this Windows."""
    if file.problem is not None:
        return file.problem
    if not file.examined:
        return None
    if architecture is not None and file.machine is not None and file.machine != architecture:
        return f"it is for {file.machine}, Windows is {architecture}"
    if file.subsystem is not None and file.subsystem != NATIVE:
        return f"it is no driver (subsystem {file.subsystem})"
    if file.missing_modules:
        return f"it needs {', '.join(file.missing_modules)}, which this Windows does not have"
    if file.missing_symbols:
        return f"this Windows does not have {', '.join(file.missing_symbols[:3])}"
    return None


def is_oem(package: DriverPackage) -> bool:
    """Whether a package was added to Windows; the first byte of its Version value tells."""
    return package.version.startswith("00")


def version_of(package: DriverPackage) -> tuple[int, ...] | None:
    """The version in a package's Version value: four words from byte 32, the last part first."""
    try:
        data = bytes.fromhex(package.version)
    except ValueError:
        return None
    if len(data) < 40:
        return None
    return tuple(int.from_bytes(data[i : i + 2], "little") for i in (38, 36, 34, 32))


def _order(controller: ControllerFacts, hit: IdHit, match: Match) -> tuple[int, ...]:
    """The smallest is the best."""
    try:
        data = bytes.fromhex(hit.data)
    except ValueError:
        data = b""
    kind, feature = (data[0], data[1]) if len(data) >= 2 else (0xFF, 0xFF)
    hardware = [i.lower() for i in controller.hardware_ids]
    compatible = [i.lower() for i in controller.compatible_ids]
    wanted = hit.device_id.lower()
    second = kind != 1  # the ID is one of the compatible IDs of its model
    if wanted in hardware:
        place = (0x1000 if second else 0) + hardware.index(wanted)
    elif wanted in compatible:
        place = (0x3000 if second else 0x2000) + compatible.index(wanted)
    else:
        place = 0xFFFF
    assert match.package is not None
    blob = match.package.version
    date = int.from_bytes(bytes.fromhex(blob)[24:32], "little") if len(blob) >= 80 and _is_hex(blob) else 0
    return feature << 16 | place, -date, *(-p for p in version_of(match.package) or (0, 0, 0, 0))


def _is_hex(text: str) -> bool:
    try:
        bytes.fromhex(text)
    except ValueError:
        return False
    return True
