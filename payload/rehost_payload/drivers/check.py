"""Verification of an unpacked driver package: its files, its catalog and who signed it, its binaries. Reads only.

Each statement is about one file and, where that matters, about certain Windows only: the verdict for a Windows is the
worst of those that concern it. On a workstation every server is asked about; the survey of a server asks about its own
Windows and its own controllers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import date
from enum import Enum
from pathlib import Path

from rehost_payload.drivers.binary import BOOT_LIBRARIES, Binary, read_binary
from rehost_payload.drivers.packages import Candidate, Refusal, find_infs, is_for, locate, missing, not_copied
from rehost_payload.drivers.releases import Release, releases_of
from rehost_payload.formats.authenticode import file_digests, read_signature
from rehost_payload.formats.catalog import Catalog, parse_catalog
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.inf import DriverVersion, Inf, Model, is_guid, parse_inf
from rehost_payload.formats.inf_install import FIRST_FROM_STORE, FileCopy, Install, source_files
from rehost_payload.formats.inf_rank import PciDevice
from rehost_payload.formats.inf_target import SERVERS, WORKSTATION, Target, target_of
from rehost_payload.formats.pkcs7 import SYSTEM_COMPONENT, Signature, Trust

MAX_FILE = 256 << 20  # bytes; driver packages hold no larger ones
TARGETS = tuple(target_of(str(build)) for build in SERVERS)
_ALL = frozenset(SERVERS)
_POLICY_BUILD = (
    14393  # Server 2016: from here on drivers have to be signed by Microsoft after passing its tests
)
_CROSS_SIGNING_ENDS = date(2015, 7, 29)  # certificates issued later do not count from Windows 10 1607 on
_MAX_SECTIONS = 500
_Say = Callable[..., None]


class Level(Enum):
    """In the order from good to bad."""

    PASS = "pass"
    WARN = "warn"
    UNKNOWN = "unknown"
    FAIL = "fail"


_ORDER = list(Level)


class Kind(Enum):
    USABLE = "usable"  # a boot driver that at least one Windows Server would load
    UNCLEAR = "not known"  # as before, if only its signer is who it says to be
    UNUSABLE = "unusable"
    OTHER = "no boot driver"  # nothing is wrong with it, but no server could start by it


@dataclass(frozen=True)
class Check:
    """One statement about one file of the package; ``file`` is its path in the package.

    ``builds``: the Windows that it concerns. ``signature``: it says who vouches for the bytes, not what they are.
    ``secure_boot`` is False where a machine with Secure Boot on refuses the package for it.
    """

    file: str
    level: Level
    text: str
    builds: frozenset[int] = _ALL
    signature: bool = False
    secure_boot: bool = True

    @property
    def sentence(self) -> str:
        return f"{self.file} {self.text}"


@dataclass(frozen=True)
class Verdict:
    """``level`` FAIL: the package is not usable on this Windows; ``reasons`` are empty where it passes.

    ``secure_boot`` is False where a machine with Secure Boot on refuses it.
    """

    target: Target
    level: Level
    reasons: tuple[str, ...]
    secure_boot: bool = True


@dataclass(frozen=True)
class PackageReport:
    """What is known of one INF and its files. ``other`` says why it holds no boot driver; empty where it does.

    ``ids``: device IDs that its boot drivers are for, of all servers. ``files``: paths in the package that are there and
    that a server would install, the INF and its catalog among them. ``refused``: the servers that the INF itself is not
    for; ``offered``: the others.
    """

    path: Path  # of the INF
    provider: str = ""
    class_name: str = ""
    driver: DriverVersion = field(default_factory=lambda: DriverVersion(None, None))
    services: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    feature_score: int = 0xFF
    files: tuple[str, ...] = ()
    signature: Signature | None = None
    systems: tuple[Release, ...] = ()
    other: str = ""
    refused: tuple[Verdict, ...] = ()
    offered: tuple[Target, ...] = ()
    checks: tuple[Check, ...] = ()

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One for each server; none where it holds no boot driver."""
        made = (*self.refused, *(_verdict(t, self.checks) for t in self.offered))
        return tuple(sorted(made, key=lambda v: v.target.build))

    @property
    def kind(self) -> Kind:
        if self.other and not any(c.level is Level.FAIL for c in self.checks):
            return Kind.OTHER
        if not self.usable:
            return Kind.UNUSABLE
        levels = {v.level for v in self.verdicts}
        return Kind.USABLE if levels & {Level.PASS, Level.WARN} else Kind.UNCLEAR

    @property
    def summary(self) -> tuple[Level, tuple[str, ...]]:
        """The verdict of a report that was made for one Windows, and its reasons."""
        if len(self.verdicts) == 1:
            return self.verdicts[0].level, self.verdicts[0].reasons
        return Level.FAIL, tuple(c.sentence for c in self.checks if c.level is Level.FAIL) or (self.other,)

    @property
    def secure_boot(self) -> bool:
        """False where a machine with Secure Boot on refuses it, in a report that was made for one Windows."""
        return all(v.secure_boot for v in self.verdicts)

    @property
    def failed(self) -> bool:
        return self.kind is Kind.UNUSABLE

    @property
    def usable(self) -> tuple[Target, ...]:
        """The servers on which nothing speaks against it for certain."""
        return tuple(v.target for v in self.verdicts if v.level is not Level.FAIL)

    def shown_as(self, place: Path, folder: Path) -> PackageReport:
        """The same for a reader who knows the archive ``place``, not the ``folder`` into which it was unpacked."""
        if folder == place:
            return self
        return replace(self, path=place / self.path.relative_to(folder))

    @property
    def only_signature(self) -> bool:
        """It failed, and would not if nobody asked who vouches for its bytes."""
        plain = replace(self, checks=tuple(c for c in self.checks if not c.signature))
        return self.failed and not plain.failed


def check_folder(
    place: Path,
    microsoft: Iterable[str] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[PackageReport]:
    """Every package in a folder and below. OSError and FormatError as `find_infs`.

    ``progress`` gets the folder's name and how many of how many packages are done.
    """
    known = None if microsoft is None else frozenset(microsoft)
    infs = list(find_infs([place]))
    reports = []
    for path in infs:
        reports.append(check_package(path, known))
        if progress is not None:
            progress(place.name, len(reports), len(infs))
    return reports


def verified(
    candidates: Iterable[Candidate], device: PciDevice, target: Target
) -> tuple[list[Candidate], list[Refusal]]:
    """The candidates that Windows would load, or of which that is not known; and the others with the reason.

    The order stays. Never raises for what is wrong with them.
    """
    sound: list[Candidate] = []
    refused: list[Refusal] = []
    for candidate in candidates:
        report = check_package(candidate.path, None, (target,), device)
        level, reasons = report.summary
        if level is Level.FAIL:
            refused.append(Refusal(candidate.path, "; ".join(reasons[:3]), True))
        else:
            signer = report.signature.signer if report.signature is not None else ""
            sound.append(replace(candidate, level=level.value, remarks=reasons, signer=signer))
    return sound, refused


def check_package(
    path: Path,
    microsoft: Iterable[str] | None = None,
    targets: tuple[Target, ...] = TARGETS,
    device: PciDevice | None = None,
) -> PackageReport:
    """One package, by the path of its INF. Never raises for what is wrong with it.

    ``microsoft``: fingerprints of certificates that are known to be Microsoft's, None for those in `pkcs7`. ``device``:
    only what is installed for it has to be there; whatever else of the package is there has to be sound all the same.
    """
    try:
        data = _read(path)
        inf = parse_inf(data)
        return _Package(path, data, inf, microsoft, targets, device).report()
    except (FormatError, OSError) as e:
        return PackageReport(path, checks=(Check(path.name, Level.FAIL, str(e)),))


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise FormatError("file", f"{path.name} is larger than {MAX_FILE >> 20} MiB")
    return data


class _Package:
    """One run over a package; ``checks`` grows as files are looked at."""

    def __init__(
        self,
        path: Path,
        data: bytes,
        inf: Inf,
        microsoft: Iterable[str] | None,
        targets: tuple[Target, ...],
        device: PciDevice | None,
    ) -> None:
        self.path, self.data, self.inf, self.microsoft = path, data, inf, microsoft
        self.targets, self.device = targets, device
        self.today = date.today()
        self.all = frozenset(t.build for t in targets)
        # the stricter rules are those of servers
        self.modern = {t.build for t in targets if t.build >= _POLICY_BUILD and t.product_type != WORKSTATION}
        self.old = self.all - self.modern
        self.checks: list[Check] = []
        self.systems: tuple[Release, ...] = ()
        # what each server would do with it
        self.models: dict[int, list[Model]] = {
            t.build: [m for m in inf.models(t) if device is None or is_for(m, device)] for t in targets
        }
        self.installs = self._installs()
        self.files: dict[str, None] = {path.name: None}

    def say(
        self,
        file: str,
        level: Level,
        text: str,
        builds: Iterable[int] | None = None,
        signature: bool = False,
        secure_boot: bool = True,
    ) -> None:
        concerned = self.all if builds is None else frozenset(builds) & self.all
        if concerned:
            self.checks.append(Check(file, level, text, concerned, signature, secure_boot))

    def report(self) -> PackageReport:
        inf = self.inf
        catalog = None
        builds = [t.build for t in self.targets if self.models[t.build]]
        boot = [b for b in builds if any(_boot_driver(i) for i in self.used_by(b))]
        other = self._other(builds, boot)
        if boot:
            self._class()
        if builds:
            catalog = self._catalog()
            self._vouched(self.path.name, self.data, catalog, None)
            self._files(catalog)
        services = [s.name for b in boot for i in self.used_by(b) for s in i.services if s.boot]
        return PackageReport(
            path=self.path,
            provider=inf.version.provider,
            class_name=inf.version.class_name,
            driver=inf.version.driver,
            services=tuple(dict.fromkeys(services)),
            ids=self._ids(boot),
            feature_score=min(
                (i.feature_score for b in boot for i in self.used_by(b) if _boot_driver(i)), default=0xFF
            ),
            files=tuple(self.files),
            signature=catalog.signature if catalog is not None else None,
            systems=self.systems,
            other=other,
            refused=() if other else tuple(self._refused(t) for t in self.targets if t.build not in boot),
            offered=() if other else tuple(t for t in self.targets if t.build in boot),
            checks=tuple(self.checks),
        )

    # --- what it is ----------------------------------------------------------------------------------------

    def _installs(self) -> dict[str, Install]:
        names: dict[str, str] = {}
        for models in self.models.values():
            for model in models:
                names.setdefault(model.install_section.lower(), model.install_section)
        if len(names) > _MAX_SECTIONS:
            raise FormatError("INF", f"{len(names)} install sections, which no storage driver has")
        return {lower: self.inf.install(name, self.architecture) for lower, name in names.items()}

    @property
    def architecture(self) -> str:
        return self.targets[-1].architecture

    def used_by(self, build: int) -> list[Install]:
        names = dict.fromkeys(m.install_section.lower() for m in self.models[build])
        return [self.installs[name] for name in names]

    def _other(self, builds: list[int], boot: list[int]) -> str:
        if self.inf.version.extension:
            return "an Extension INF: it adds to the driver of another package"
        if not builds:
            reasons = dict.fromkeys(
                f"[{section.name}] {why}"
                for choice in self.inf.choices(self.targets[-1])
                for section, why in choice.refused
            )
            return f"for no Windows Server on x64{f': {next(iter(reasons))}' if reasons else ''}"
        if boot:
            return ""
        installs = [i for b in builds for i in self.used_by(b)]
        names = dict.fromkeys(s.name for i in installs for s in i.services)
        if names:
            return f"{', '.join(names)} does not start at boot"
        return "installs no driver" + (" (null driver)" if any(i.null_driver for i in installs) else "")

    def _ids(self, boot: list[int]) -> tuple[str, ...]:
        sections = {name for name, install in self.installs.items() if _boot_driver(install)}
        # servers share their models as a rule
        models = {id(m): m for build in boot for m in self.models[build]}
        ids: dict[str, str] = {}
        for model in models.values():
            if model.install_section.lower() in sections:
                for one in model.ids:
                    ids.setdefault(one.lower(), one)
        return tuple(ids.values())

    def _refused(self, target: Target) -> Verdict:
        if self.models[target.build]:
            return Verdict(target, Level.FAIL, ("installs no boot driver there",))
        reasons = [f"[{s.name}] {why}" for c in self.inf.choices(target) for s, why in c.refused]
        return Verdict(target, Level.FAIL, tuple(dict.fromkeys(reasons)) or ("the INF has no models for it",))

    def _class(self) -> None:
        """Windows finds the devices of an INF by its class."""
        guid, name = self.inf.version.class_guid, self.inf.version.class_name
        if not guid:
            which = f"a class that is not known ({name})" if name else "no class"
            self.say(self.path.name, Level.FAIL, f"names {which} and no ClassGuid: Windows cannot install it")
        elif not is_guid(guid):
            self.say(self.path.name, Level.FAIL, f"names {guid!r} as its ClassGuid, which is none")

    # --- catalog -------------------------------------------------------------------------------------------

    def _catalog(self) -> Catalog | None:
        name = self.inf.version.catalog(self.architecture)
        if name is None:
            self.say(
                self.path.name, Level.FAIL, "names no catalog: the package is not signed", signature=True
            )
            return None
        found = locate(self.path.parent, name)
        if found is None:
            self.say(name, Level.FAIL, "is missing: the package is not signed", signature=True)
            return None
        self.files[name] = None
        try:
            catalog = parse_catalog(_read(found), self.microsoft)
        except (FormatError, OSError) as e:
            self.say(name, Level.FAIL, f"cannot be read: {e}", signature=True)
            return None
        if catalog.signature is None:
            self.say(name, Level.FAIL, "carries no signature", signature=True)
        else:
            self._signer(name, catalog.signature)
        self._systems(name, catalog.attributes.get("OS", ""))
        return catalog

    def _signer(self, name: str, signature: Signature) -> None:
        def say(level: Level, text: str, builds: Iterable[int] | None = None) -> None:
            self.say(name, level, text, builds, signature=True)

        chain = " < ".join(signature.chain) or signature.signer
        if signature.problem is not None:
            say(Level.FAIL, f"has a signature that is not valid: {signature.problem}")
            return
        if signature.trust is Trust.TEST:
            say(Level.FAIL, f"is test-signed ({chain}): Windows loads it in test mode only")
            return
        say(Level.PASS, f"has a valid signature of {signature.signer}")
        if signature.trust is Trust.MICROSOFT:
            self._microsoft(signature, chain, say)
        elif signature.trust is Trust.NAMED_MICROSOFT:
            say(
                Level.UNKNOWN, f"is signed in the name of Microsoft by a certificate not known here ({chain})"
            )
        elif signature.trust is Trust.CROSS_SIGNED:
            say(
                Level.UNKNOWN,
                f"is signed by the vendor, and the root of the chain is not at hand ({chain})",
                self.old,
            )
            # "Kernel-mode code signing policy": the exceptions from 1607 on are a certificate from before this day,
            # and Secure Boot that is off; servers with Secure Boot on load what Microsoft has signed
            kind = f"is signed by the vendor, not by Microsoft, with a certificate of {signature.issued}"
            if signature.issued < _CROSS_SIGNING_ENDS:
                text = f"{kind}: a machine with Secure Boot on refuses it, one without loads it"
                self.say(name, Level.WARN, text, self.modern, signature=True, secure_boot=False)
            else:
                text = (
                    f"{kind}: Windows takes those from before {_CROSS_SIGNING_ENDS}, with Secure Boot on none"
                )
                self.say(name, Level.FAIL, text, self.modern, signature=True, secure_boot=False)
        else:
            say(Level.FAIL, f"is not signed by Microsoft, nor by a vendor that it vouches for ({chain})")
        self._dates(name, signature, say)
        if signature.digest != "sha1":
            say(Level.WARN, "is signed with SHA-256, which needs update KB3033929 there", {7601})

    def _dates(self, name: str, signature: Signature, say: _Say) -> None:
        """When it was signed, as far as somebody else vouches for that: else an expired certificate counts for nothing."""
        stamp, valid = (
            signature.timestamp,
            f"its certificate is valid from {signature.issued} to {signature.expires}",
        )
        if stamp is not None and stamp.problem is None:
            when = f"was signed on {stamp.day} (timestamp of {stamp.by})"
            inside = signature.issued <= stamp.day <= signature.expires
            say(Level.PASS if inside else Level.WARN, f"{when}, {valid}{'' if inside else ' only'}")
            return
        without = (
            "has no timestamp" if stamp is None else f"has a timestamp that is not valid ({stamp.problem})"
        )
        if signature.expires < self.today:
            say(
                Level.WARN,
                f"{without}, and its certificate expired on {signature.expires}: that it was signed before is not known, "
                "and Windows may refuse it",
            )
        else:
            say(Level.PASS if stamp is None else Level.WARN, f"{without}; {valid}")

    def _microsoft(self, signature: Signature, chain: str, say: _Say) -> None:
        if signature.attested:
            say(
                Level.FAIL,
                "is signed by attestation, without Microsoft's tests: for clients only",
                self.modern,
            )
            say(Level.WARN, "is signed by attestation, which is meant for Windows 10 clients", self.old)
        elif signature.whql or SYSTEM_COMPONENT in signature.usages:
            say(Level.PASS, f"is signed by Microsoft ({signature.usage_text}; {chain})")
        else:
            say(Level.UNKNOWN, f"is signed by Microsoft, but not as a driver ({chain})")

    def _systems(self, name: str, attribute: str) -> None:
        self.systems = releases_of(attribute)
        if not self.systems:
            self.say(name, Level.WARN, "does not say for which Windows it was tested")
            return
        ours = [r for r in self.systems if r.amd64]
        said = f"was tested for {attribute}"
        if not ours:
            self.say(name, Level.WARN, f"{said}: nothing of it is Windows on x64")
            return
        servers = [r for r in ours if r.server]
        if not servers:
            self.say(name, Level.WARN, f"{said}: no server, and Server 2016 and later may refuse it")
            return
        first = min((r.build for r in servers if r.build is not None), default=None)
        if first is None:
            self.say(name, Level.WARN, f"{said}: which servers these are is not known here")
            return
        self.say(name, Level.PASS, said, {b for b in self.all if b >= first})
        self.say(name, Level.WARN, f"{said}: for later servers only", {b for b in self.all if b < first})

    # --- files ---------------------------------------------------------------------------------------------

    def _files(self, catalog: Catalog | None) -> None:
        lacking: dict[str, set[int]] = {}
        wanted: dict[str, set[int]] = {}
        first: dict[str, FileCopy] = {}
        early: set[str] = set()
        stored: dict[str, set[int]] = {}
        for build in sorted(self.all):
            for install in self.used_by(build):
                boot = [s for s in install.services if s.boot]
                early |= {f.source.lower() for s in boot for f in install.files if s.brought_by(f)}
                for service in boot:
                    if service.in_store is not None and build < FIRST_FROM_STORE:
                        stored.setdefault(service.name, set()).add(build)
                for reason in not_copied(install):
                    lacking.setdefault(f"[{install.section}]: {reason}", set()).add(build)
                for file in install.files:
                    wanted.setdefault(file.source.lower(), set()).add(build)
                    first.setdefault(file.source.lower(), file)
        # no more than a warning: other sections of the package may be sound, and match says which device is concerned
        for reason in sorted(lacking):
            self.say(self.path.name, Level.WARN, reason, lacking[reason])
        for name, builds in stored.items():
            self.say(
                self.path.name,
                Level.FAIL,
                f"has {name} loaded from the driver store: since Windows 10 1709 and Server 2019 only",
                builds,
            )
        for key in sorted(wanted):
            file, builds = first[key], wanted[key]
            if file.problem is not None:
                self.say(file.source, Level.FAIL, file.problem)
                continue
            found = locate(self.path.parent, file.source)
            if found is None:
                self.say(file.source, Level.FAIL, missing(self.path.parent, file.source), builds)
                continue
            self.files[file.source] = None
            try:
                content = _read(found)
            except (OSError, FormatError) as e:
                self.say(file.source, Level.FAIL, str(e), builds)
                continue
            held = self._vouched(file.source, content, catalog, builds)
            if file.source.lower().endswith(".sys"):
                self._binary(file.source, content, file.source.lower() in early, held, builds)

        self._listed(catalog, set(wanted))

    def _listed(self, catalog: Catalog | None, known: set[str]) -> None:
        """Further files that the INF lists and none of the Windows installs.

        The driver store takes them where they are sound. From a package that is judged for a device they could not be left
        out any more.
        """
        for file in source_files(self.inf.text, self.architecture):
            if file.source.lower() in known or file.problem is not None:
                continue
            found = locate(self.path.parent, file.source)
            if found is None:
                continue
            try:
                sound = catalog is not None and catalog.holds(file_digests(_read(found)))
            except (OSError, FormatError):
                sound = False
            if sound:
                self.files[file.source] = None
            elif catalog is not None and self.device is None:
                self.say(file.source, Level.WARN, "is listed, but not as the catalog has it: it is left out")
            elif catalog is not None:
                self.say(file.source, Level.FAIL, "is listed, but not as the catalog has it", signature=True)

    def _vouched(self, name: str, data: bytes, catalog: Catalog | None, builds: set[int] | None) -> bool:
        """Whether the catalog holds the file's hash; says so."""
        if catalog is None:
            return False
        if catalog.holds(file_digests(data)):
            self.say(name, Level.PASS, "has the hash that the catalog holds", builds, signature=True)
            return True
        restored = _with_crlf(data)
        if restored != data and catalog.holds(file_digests(restored)):
            text = "has other line endings than were signed (git changes them, for instance): fetch the package again as it was delivered"
        elif catalog.names(name.rpartition("\\")[2]):
            text = "is not the file that was signed: its hash differs from the one in the catalog"
        else:
            text = "is not in the catalog"
        self.say(name, Level.FAIL, text, builds, signature=True)
        return False

    def _binary(self, name: str, data: bytes, early: bool, held: bool, builds: set[int]) -> None:
        def say(level: Level, text: str, which: set[int] | None = None, signature: bool = False) -> None:
            self.say(name, level, text, builds if which is None else which & builds, signature)

        try:
            binary: Binary = read_binary(data)
        except FormatError as e:
            say(Level.FAIL, str(e))
            return
        before = len(self.checks)
        if binary.machine != self.architecture:
            say(Level.FAIL, f"is for {binary.machine}, not for {self.architecture}")
        if not binary.native:
            say(Level.FAIL, "is no kernel driver (its subsystem is not native)")
        if binary.checksum_ok is not True and early:
            bad = "a wrong checksum" if binary.checksum_ok is False else "no checksum"
            say(
                Level.FAIL if binary.checksum_ok is False else Level.WARN,
                f"has {bad}: Windows checks it at boot",
            )
        too_old = [t for t in self.targets if binary.minimum_os > (t.major, t.minor) and self.models[t.build]]
        if too_old:
            needs = ".".join(map(str, binary.minimum_os))
            names = ", ".join(t.name for t in too_old)
            say(
                Level.WARN,
                f"needs Windows {needs}: not for {names}, although the INF offers it to them",
                {t.build for t in too_old},
            )
        strange = [i for i in binary.imports if i.lower() not in BOOT_LIBRARIES]
        if early and strange:
            say(Level.WARN, f"is linked to {', '.join(strange)}, which Windows may not load at boot")
        inside = self._inside(binary, data, early, held, say)
        version = self.inf.version.driver.version
        if binary.version is not None and version is not None and binary.version != version:
            own = ".".join(map(str, binary.version))
            say(Level.WARN, f"is version {own}, the INF says {'.'.join(map(str, version))}")
        if len(self.checks) == before:
            say(Level.PASS, f"is an amd64 kernel driver, {inside}")

    def _inside(self, binary: Binary, data: bytes, early: bool, held: bool, say: _Say) -> str:
        """Looks at the signature inside the file; returns how the file is signed, in words."""
        signature = None
        if binary.signed_inside:
            try:
                signature = read_signature(data, self.microsoft)
                problem = "it cannot be found" if signature is None else signature.problem
            except FormatError as e:
                problem = e.problem
            if problem is not None:
                # a boot driver is checked by what is inside it first
                say(
                    Level.FAIL if early or not held else Level.WARN,
                    f"has a signature inside that is not valid: {problem}",
                    signature=True,
                )
                return ""
        if signature is not None:
            return f"signed inside by {signature.signer}"
        if not held:
            say(Level.FAIL, "is not signed: neither inside nor by the catalog", signature=True)
        return "signed by the catalog alone"


def _boot_driver(install: Install) -> bool:
    driver = install.function_driver
    return driver is not None and driver.boot and driver.type in (1, None)


def _verdict(target: Target, checks: Iterable[Check]) -> Verdict:
    concerned = [c for c in checks if target.build in c.builds]
    level = max((c.level for c in concerned), key=_ORDER.index, default=Level.PASS)
    bad = [c for c in concerned if c.level is level] if level is not Level.PASS else []
    secure_boot = all(c.secure_boot for c in concerned)
    return Verdict(target, level, tuple(dict.fromkeys(c.sentence for c in bad)), secure_boot)


def _with_crlf(data: bytes) -> bytes:
    """A text as it was before somebody turned its CRLF into LF."""
    lf, crlf = b"\n", b"\r\n"
    if data.startswith(b"\xff\xfe"):
        lf, crlf = lf.decode().encode("utf-16-le"), crlf.decode().encode("utf-16-le")
    return data.replace(crlf, lf).replace(lf, crlf)
