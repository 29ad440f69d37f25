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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rehost_payload.drivers.packages import (
    Candidate,
    find_infs,
    inf_bytes,
    judge_inf,
    locate,
)
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.filesystem import FileSystemReader
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
    WindowsDrivers,
)
from rehost_payload.survey.model import Controller, Problem, WindowsInstallation
from rehost_payload.survey.volumes import OpenVolume

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


def survey_packages(
    windows: Sequence[WindowsInstallation],
    controllers: Sequence[Controller],
    folders: Sequence[Path],
    opened: Sequence[OpenVolume],
    problems: list[Problem],
) -> list[WindowsInstallation]:
    """The installations with what the packages in ``folders`` and on volumes labelled REHOST are to them."""
    judges = [j for w in windows if (j := _judge_of(w, opened)) is not None]
    if not controllers or not judges:
        return list(windows)
    devices = [(c.address, pci_device(c)) for c in controllers]
    places = [*folders, *_from_volumes(opened, [d for _, d in devices], problems)]
    for path in _infs(places, problems):
        try:
            data = inf_bytes(path)
            inf = parse_inf(data)
            digest = hashlib.sha256(data).hexdigest()
            for judge in judges:
                judge.take(path, inf, digest, devices)
        except (FormatError, OSError) as error:
            problems.append(Problem("driver-package", str(path), str(error)))
    done = {j.windows.id: j.result() for j in judges}
    return [done.get(w.id, w) for w in windows]


def _infs(places: Sequence[Path], problems: list[Problem]) -> Iterator[Path]:
    for place in places:
        try:
            yield from find_infs([place])
        except (FormatError, OSError) as error:
            problems.append(Problem("driver-package", str(place), str(error)))


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
    return _Judge(windows, windows.drivers, target, Binaries(reader, windows.root))


class _Judge:
    """Collects what every package is to one installation."""

    def __init__(
        self, windows: WindowsInstallation, drivers: WindowsDrivers, target: Target, binaries: Binaries
    ) -> None:
        self.windows = windows
        self._drivers = drivers
        self._target = target
        self._binaries = binaries
        self._found: list[tuple[tuple[object, ...], PackageCandidate]] = []
        self._refused: list[PackageRefusal] = []
        self._others = 0

    def take(self, path: Path, inf: Inf, digest: str, devices: Sequence[tuple[str, PciDevice]]) -> None:
        known = False
        for order, (address, device) in enumerate(devices):
            answer = judge_inf(path, inf, device, self._target)
            if isinstance(answer, Candidate):
                key = (order, bool(answer.subsystems), answer.rank.sort_key, str(path))
                self._found.append((key, self._candidate(address, answer, inf, digest)))
                known = True
            elif answer.knows_device:
                known = True
                if len(self._refused) < _MAX_REFUSALS:
                    place = str(path.parent)
                    self._refused.append(PackageRefusal(address, place, path.name, answer.reason))
        self._others += not known

    def _candidate(self, address: str, found: Candidate, inf: Inf, digest: str) -> PackageCandidate:
        driver = found.rank.driver
        return PackageCandidate(
            address=address,
            folder=str(found.path.parent),
            inf=found.path.name,
            inf_sha256=digest,
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
            binaries=tuple(self._images(found, inf)),
        )

    def _images(self, found: Candidate, inf: Inf) -> Iterator[BinaryFacts]:
        """The package's boot drivers: would they load in this Windows?"""
        install = inf.install(found.section, self._target.architecture)
        wanted = {(s.image_path or "").lower() for s in install.services if s.boot}
        for file in install.files:
            if f"{file.directory}\\{file.name}".lower() not in wanted:
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
            candidates=tuple(c for _, c in ordered),
            refusals=tuple(self._refused),
            other_packages=self._others,
        )
        return replace(self.windows, drivers=drivers)


# --- packages on a volume labelled REHOST -----------------------------------------------------------------------

_kept: dict[str, Path] = {}  # what was copied before: a second survey has to name the same folders


@dataclass
class _Budget:
    left: int = _MAX_TOTAL


def _from_volumes(
    opened: Sequence[OpenVolume], devices: Sequence[PciDevice], problems: list[Problem]
) -> list[Path]:
    found = []
    budget = _Budget()
    for volume in opened:
        if volume.reader is None or volume.volume.label.upper() != LABEL:
            continue
        for top in FOLDERS:
            try:
                for path in _walk(volume.reader, top):
                    copied = _copied(volume, path, devices, budget, problems)
                    if copied is not None:
                        found.append(copied)
            except (FormatError, OSError) as error:
                problems.append(Problem("driver-package", f"{volume.volume.id}:{top}", str(error)))
    return found


def _walk(reader: FileSystemReader, top: str) -> Iterator[str]:
    """The INF files below a folder."""
    if not reader.is_directory(top):
        return
    waiting, folders, infs = [(top, 0)], 0, 0
    while waiting:
        folder, depth = waiting.pop(0)
        folders += 1
        for entry in reader.listdir(folder):
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
        key = hashlib.sha256(data + repr((volume.volume.serial, path, sorted(sizes.items()))).encode())
        kept = _kept.get(key.hexdigest())
        if kept is not None and kept.is_dir():
            return kept
        if len(files) > _MAX_FILES or max(sizes.values()) > _MAX_FILE or sum(sizes.values()) > budget.left:
            detail = f"{len(files)} files with {sum(sizes.values())} bytes are more than can be copied"
            problems.append(Problem("driver-package", where, detail))
            return None
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
