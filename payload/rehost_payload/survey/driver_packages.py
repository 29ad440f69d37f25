"""Driver packages at hand, judged for this machine's controllers and each Windows on it.

They lie in folders of this system (on the medium, or named by the operator) and in \\drivers or \\Rehost\\drivers of a
volume labelled REHOST. Of the latter, packages that name one of the controllers are copied to a private folder, since
nothing is mounted: the INF, its catalogs and the files that it installs, within limits that a machine with 512 MB has.
"""

from __future__ import annotations

import atexit
import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from rehost_payload.drivers.check import Level, check_package
from rehost_payload.drivers.inject import inject
from rehost_payload.drivers.inject_model import InjectError, files_of_windows
from rehost_payload.drivers.inject_package import read_package
from rehost_payload.drivers.manifest import CONSENT, Bundled, consents, read_manifest
from rehost_payload.drivers.packages import (
    Candidate,
    archives_among,
    archives_in,
    find_infs,
    inf_bytes,
    judge_inf,
    locate,
)
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.filesystem import FileSystemReader
from rehost_payload.formats.hive import Hive
from rehost_payload.formats.inf import Inf, Model, parse_inf
from rehost_payload.formats.inf_install import unsafe_path
from rehost_payload.formats.inf_rank import PciDevice
from rehost_payload.formats.inf_target import SERVER, Target, target_of
from rehost_payload.formats.inf_text import MAX_SIZE
from rehost_payload.formats.source import BytesSource
from rehost_payload.survey.binaries import Binaries
from rehost_payload.survey.drivers import pci_device
from rehost_payload.survey.drivers_model import (
    BinaryFacts,
    PackageCandidate,
    PackageRefusal,
    PackageVerification,
    WindowsDrivers,
)
from rehost_payload.survey.model import Controller, Problem, WindowsInstallation
from rehost_payload.survey.volumes import OpenVolume
from rehost_payload.survey.windows import open_system

LABEL = "REHOST"
FOLDERS = ("\\drivers", "\\Rehost\\drivers")
_ARCHITECTURES = {"x64": "amd64", "x86": "x86", "arm64": "arm64"}
_MAX_DEPTH = 8
_MAX_FOLDERS = 2000
_MAX_INFS = 1000
_MAX_FILE = 48 << 20
_MAX_TOTAL = 96 << 20
_MAX_FILES = 200  # of one package
_MAX_REFUSALS = 200
_MAX_REASONS = 6
_MAX_ARCHIVES = 20
_MAX_TRIED = 8  # packages for one controller that could be written: the best of them is wanted


def survey_packages(
    windows: Sequence[WindowsInstallation],
    controllers: Sequence[Controller],
    folders: Sequence[Path],
    opened: Sequence[OpenVolume],
    problems: list[Problem],
) -> list[WindowsInstallation]:
    """The installations with what the packages in ``folders`` and on volumes labelled REHOST are to them."""
    folders = [f for f in folders if _is_folder(f, problems)]
    judges = [j for w in windows if (j := _judge_of(w, opened)) is not None]
    if not controllers or not judges:
        return list(windows)
    devices = [(c.address, pci_device(c)) for c in controllers]
    places = [_folder(f, problems) for f in folders]
    places += _from_volumes(opened, [d for _, d in devices], problems)
    for place in places:
        for path in _infs(place.path, problems):
            try:
                data = inf_bytes(path)
                package = _Package(path, parse_inf(data), hashlib.sha256(data).hexdigest(), place)
                for judge in judges:
                    judge.take(package, devices)
            except (FormatError, OSError) as error:
                problems.append(Problem("driver-package", str(path), str(error)))
    done = {j.windows.id: j.result() for j in judges}
    return [done.get(w.id, w) for w in windows]


@dataclass(frozen=True)
class _Place:
    """A folder with packages, and what whoever filled it says of them."""

    path: Path
    consent: bool = False
    bundled: Mapping[str, Bundled] = field(default_factory=dict)


def _is_folder(path: Path, problems: list[Problem]) -> bool:
    if not path.is_dir():
        what = "it is no folder" if path.exists() else "there is no such folder"
        problems.append(Problem("driver-folder", str(path), f"{what}: no driver packages are taken from it"))
        return False
    try:
        names = [p.relative_to(path).as_posix() for p in archives_in(path, _MAX_ARCHIVES)]
    except OSError:  # whoever looks for the packages says so
        names = []
    problems += [_archive(f"{path}/{name}") for name in names]
    return True


def _archive(where: str) -> Problem:
    return Problem("driver-archive", where, "an archive, which is not opened here: unpack it into the folder")


def _folder(path: Path, problems: list[Problem]) -> _Place:
    try:
        return _Place(path, consents(path), read_manifest(path))
    except (FormatError, OSError) as error:
        problems.append(Problem("driver-package", str(path), str(error)))
        return _Place(path)


def _infs(place: Path, problems: list[Problem]) -> Iterator[Path]:
    try:
        yield from find_infs([place])
    except (FormatError, OSError) as error:
        problems.append(Problem("driver-package", str(place), str(error)))


@dataclass(frozen=True)
class _Package:
    path: Path
    inf: Inf
    digest: str
    place: _Place

    @cached_property
    def sha256(self) -> str:
        """Of all its files, read once for all controllers."""
        try:
            return read_package(self.path.parent, self.path.name).sha256
        except InjectError as error:
            raise FormatError("driver package", str(error)) from error

    @property
    def _folder(self) -> str:
        """Its folder in the place; empty where it lies in the place itself."""
        inside = self.path.relative_to(self.place.path).parts
        return inside[0] if len(inside) > 1 else ""

    @property
    def _bundled(self) -> Bundled | None:
        return self.place.bundled.get(self._folder) if self._folder else None

    @cached_property
    def _changed(self) -> str | None:
        """A file that is not what the builder has put there."""
        return None if self._bundled is None else self._bundled.changed(self.place.path / self._folder)

    def verified(self, target: Target, device: PciDevice) -> PackageVerification:
        """Checked anew, also where the builder has done so: the folder may not be what it was."""
        bundled = self._bundled
        if self._changed is not None:
            why = f"{self._changed} is not the file that the medium was made with"
            return PackageVerification(Level.FAIL.value, (why,))
        report = check_package(self.path, None, (target,), device)
        signer = report.signature.signer if report.signature is not None else ""
        level, reasons = report.summary
        return PackageVerification(
            level=level.value,
            reasons=reasons[:_MAX_REASONS],
            signer=signer,
            only_signature=report.only_signature,
            secure_boot=report.secure_boot,
            allowed=self.place.consent or (bundled is not None and bundled.allowed),
        )


def target_for(windows: WindowsInstallation) -> Target | None:
    """The Windows as INF sections name it; None where its version is not known."""
    if windows.build is None:
        return None
    kind = windows.drivers.product_type if windows.drivers is not None else None
    architecture = _ARCHITECTURES.get(windows.architecture or "", "amd64")
    try:
        return target_of(str(windows.build), kind or SERVER, architecture)
    except ValueError:
        return None


def _judge_of(windows: WindowsInstallation, opened: Sequence[OpenVolume]) -> _Judge | None:
    target = target_for(windows)
    reader = next((o.reader for o in opened if o.volume.id == windows.volume), None)
    if windows.drivers is None or target is None or reader is None:
        return None
    return _Judge(windows, windows.drivers, target, reader)


class _Judge:
    """Collects what every package is to one installation."""

    def __init__(
        self,
        windows: WindowsInstallation,
        drivers: WindowsDrivers,
        target: Target,
        reader: FileSystemReader,
    ) -> None:
        self.windows = windows
        self._drivers = drivers
        self._target = target
        self._reader = reader
        self._binaries = Binaries(reader, windows.root)
        self._found: list[tuple[tuple[object, ...], PackageCandidate, PciDevice]] = []
        self._refused: list[PackageRefusal] = []
        self._others = 0

    def take(self, package: _Package, devices: Sequence[tuple[str, PciDevice]]) -> None:
        known, path = False, package.path
        for order, (address, device) in enumerate(devices):
            answer = judge_inf(path, package.inf, device, self._target)
            if isinstance(answer, Candidate):
                key = (order, bool(answer.subsystems), answer.rank.sort_key, str(path))
                self._found.append((key, self._candidate(address, device, answer, package), device))
                known = True
            elif answer.knows_device:
                known = True
                if len(self._refused) < _MAX_REFUSALS:
                    place = str(path.parent)
                    self._refused.append(PackageRefusal(address, place, path.name, answer.reason))
        self._others += not known

    def _candidate(
        self, address: str, device: PciDevice, found: Candidate, package: _Package
    ) -> PackageCandidate:
        driver = found.rank.driver
        return PackageCandidate(
            address=address,
            folder=str(found.path.parent),
            inf=found.path.name,
            inf_sha256=package.digest,
            rank=found.rank.value,
            date=driver.date.isoformat() if driver.date else None,
            version=".".join(map(str, driver.version)) if driver.version else None,
            device_id=found.device_id,
            section=found.section,
            description=found.description,
            service=found.service,
            further_services=found.further_services,
            catalog=found.catalog,
            subsystems=found.subsystems,
            warnings=found.warnings,
            binaries=tuple(self._images(found, package.inf)),
            package_sha256=package.sha256,  # before they are verified: what changes meanwhile is not installed
            verification=package.verified(self._target, device),
        )

    def _images(self, found: Candidate, inf: Inf) -> Iterator[BinaryFacts]:
        """The package's boot drivers: would they load in this Windows?"""
        install = inf.install(found.section, self._target.architecture)
        boot = [s for s in install.services if s.boot]
        for file in install.files:
            if not any(service.brought_by(file) for service in boot):
                continue
            place = locate(found.path.parent, file.source)
            if place is None:
                continue
            size = place.stat().st_size
            facts = BinaryFacts(file.source, True, size)
            if size > _MAX_FILE:
                yield replace(facts, problem=f"{size} bytes are too many for a driver")
            else:
                yield self._binaries.examined(facts, BytesSource(place.read_bytes()), compare=True)

    def result(self) -> WindowsInstallation:
        ordered = sorted(self._found, key=lambda f: f[0])
        drivers = replace(
            self._drivers,
            candidates=tuple(self._tried((c, device) for _, c, device in ordered)),
            refusals=tuple(self._refused),
            other_packages=self._others,
        )
        return replace(self.windows, drivers=drivers)

    def _tried(self, candidates: Iterable[tuple[PackageCandidate, PciDevice]]) -> Iterator[PackageCandidate]:
        """Each with the reason why the engine would refuse to write it, by computing all that it would write."""
        hive: Hive | None = None
        taken: dict[str, int] = {}  # how many could be written, by controller
        read = files_of_windows(self._reader, self.windows.root)
        for c, device in candidates:
            fit = taken.get(c.address, 0)
            if c.verification is None or c.verification.refused or c.subsystems or fit >= _MAX_TRIED:
                yield c
                continue
            # read anew where a package fits, and gone afterwards: two large hives are too much for a small machine
            hive = hive or open_system(self._reader, self.windows.root, self.windows.id, []).hive
            if hive is None:
                yield c
                continue
            ids = tuple(dict.fromkeys((*device.hardware_ids, *device.compatible_ids)))
            try:
                package = read_package(Path(c.folder), c.inf)
                made = inject(package, ids, self._target, hive, read, self._drivers.oem_numbers)
                taken[c.address] = fit + 1
                yield replace(c, replaces=made.replaces)
            except InjectError as error:
                yield replace(c, refusal_code=error.code, refusal=error.detail)
            except (FormatError, OSError) as error:
                yield replace(c, refusal_code="unreadable", refusal=str(error))


# --- packages on a volume labelled REHOST -----------------------------------------------------------------------

_kept: dict[str, Path] = {}  # what was copied before: a second survey has to name the same folders


@dataclass
class _Budget:
    left: int = _MAX_TOTAL


def _from_volumes(
    opened: Sequence[OpenVolume], devices: Sequence[PciDevice], problems: list[Problem]
) -> list[_Place]:
    found = []
    budget = _Budget()
    for volume in opened:
        if volume.reader is None or volume.volume.label.upper() != LABEL:
            continue
        for top in FOLDERS:
            archives: list[str] = []
            try:
                consent = volume.reader.exists(f"{top}\\{CONSENT}")
                for path in _walk(volume.reader, top, archives):
                    copied = _copied(volume, path, devices, budget, problems)
                    if copied is not None:
                        found.append(_Place(copied, consent))
            except (FormatError, OSError) as error:
                problems.append(Problem("driver-package", f"{volume.volume.id}:{top}", str(error)))
            problems += [_archive(f"{volume.volume.id}:{a}") for a in archives[:_MAX_ARCHIVES]]
    return found


def _walk(reader: FileSystemReader, top: str, archives: list[str]) -> Iterator[str]:
    """The INF files below a folder. ``archives`` gets the paths of what may hold further ones."""
    if not reader.is_directory(top):
        return
    waiting, folders, infs = [(top, 0)], 0, 0
    while waiting:
        folder, depth = waiting.pop(0)
        folders += 1
        entries = list(reader.listdir(folder))
        names = archives_among(e.name for e in entries if not e.is_directory)
        archives += [f"{folder}\\{name}" for name in names]
        for entry in entries:
            path = f"{folder}\\{entry.name}"
            if entry.is_directory:
                if depth < _MAX_DEPTH and not entry.reparse_tag and folders + len(waiting) < _MAX_FOLDERS:
                    waiting.append((path, depth + 1))
            elif entry.name.lower().endswith(".inf"):
                infs += 1
                if infs > _MAX_INFS:
                    raise FormatError("driver folder", f"{top} has more than {_MAX_INFS} INF files")
                yield path


def _copied(
    volume: OpenVolume, path: str, devices: Sequence[PciDevice], budget: _Budget, problems: list[Problem]
) -> Path | None:
    """The folder with the package's copy; None for one that is for other devices or cannot be copied."""
    assert volume.reader is not None
    reader, where = volume.reader, f"{volume.volume.id}:{path}"
    try:
        data = reader.read(path, MAX_SIZE)
        inf = parse_inf(data)
        models = _models_for(inf, devices)
        if not models:
            return None
        source = path.rpartition("\\")[0]
        files = {path.rpartition("\\")[2]: path}
        for name in _files_of(inf, models):
            if reader.exists(f"{source}\\{name}") and not reader.is_directory(f"{source}\\{name}"):
                files.setdefault(name, f"{source}\\{name}")
        sizes = {name: reader.size(place) for name, place in files.items()}
        if len(files) > _MAX_FILES or max(sizes.values()) > _MAX_FILE or sum(sizes.values()) > budget.left:
            detail = f"{len(files)} files with {sum(sizes.values())} bytes are more than can be copied"
            problems.append(Problem("driver-package", where, detail))
            return None
        # by content: a file that was replaced by one of the same size is another package
        key = hashlib.sha256(repr((volume.volume.serial, path)).encode())
        for name, place in sorted(files.items()):
            key.update(f"\0{name}\0".encode() + hashlib.sha256(reader.read(place, _MAX_FILE)).digest())
        kept = _kept.get(key.hexdigest())
        if kept is not None and kept.is_dir():
            return kept
        target = _store(reader, files, key.hexdigest()[:16])
        budget.left -= sum(sizes.values())
        _kept[key.hexdigest()] = target
        return target
    except (FormatError, OSError) as error:
        problems.append(Problem("driver-package", where, str(error)))
        return None


def _models_for(inf: Inf, devices: Sequence[PciDevice]) -> list[Model]:
    """Every model, for whichever Windows, that one of the devices could have; also for another card of its kind."""
    prefixes = tuple(f"pci\\ven_{d.vendor}&dev_{d.device}".lower() for d in devices)
    exact = {i.lower() for d in devices for i in (*d.hardware_ids, *d.compatible_ids)}
    models = (m for sections in inf.manufacturers for s in sections for m in s.models)
    return [m for m in models if any(i.lower() in exact or i.lower().startswith(prefixes) for i in m.ids)]


def _files_of(inf: Inf, models: Sequence[Model]) -> Iterator[str]:
    """Paths below the INF's folder: catalogs, and what the install sections of these models copy."""
    yield from (c for c in inf.version.catalogs.values() if unsafe_path(c) is None)
    for architecture in _ARCHITECTURES.values():
        for name in dict.fromkeys(m.install_section for m in models):
            for file in inf.install(name, architecture).files:
                if file.problem is None and unsafe_path(file.source) is None:
                    yield file.source


def _store(reader: FileSystemReader, files: Mapping[str, str], name: str) -> Path:
    top = Path(tempfile.mkdtemp(prefix=f"rehost-drivers-{name}-"))
    atexit.register(shutil.rmtree, top, ignore_errors=True)
    for relative, place in files.items():
        target = top.joinpath(*relative.split("\\"))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(reader.read(place, _MAX_FILE))
    return top
