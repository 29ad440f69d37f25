"""Driver packages in folders: which of them Windows could start a controller with, in which order, and why not others.

Only the INF is judged here, and whether the files it wants are there; `check` looks into them. Read only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.inf import Inf, Model, parse_inf
from rehost_payload.formats.inf_install import FIRST_FROM_STORE, Install
from rehost_payload.formats.inf_rank import (
    UNSIGNED,
    UNSIGNED_DECORATED,
    IdMatch,
    PciDevice,
    Rank,
    match_ids,
    rank,
    subsystems_wanted,
)
from rehost_payload.formats.inf_target import Target
from rehost_payload.formats.inf_text import MAX_SIZE

MAX_INFS = 5000
_ARCHIVES = (".zip", ".7z")
_PERHAPS_ARCHIVES = (".exe", ".cab", ".msi")


@dataclass(frozen=True)
class Candidate:
    """A package that fits. ``subsystems`` is not empty where it fits these cards only and the card is not known.

    ``level`` is what `check.verified` found ("pass", "warn", "unknown"), with ``remarks`` of this level and the
    ``signer``; empty before.
    """

    path: Path
    rank: Rank
    device_id: str
    description: str
    section: str
    service: str
    further_services: tuple[str, ...]
    catalog: str | None
    warnings: tuple[str, ...]
    subsystems: tuple[str, ...] = ()
    level: str = ""
    remarks: tuple[str, ...] = ()
    signer: str = ""


@dataclass(frozen=True)
class Refusal:
    """``knows_device``: it names the device, so the reason is worth reading."""

    path: Path
    reason: str
    knows_device: bool


def find_infs(places: Iterable[Path]) -> Iterator[Path]:
    """INFs in folders and below, in a fixed order; links are not followed. OSError where a place cannot be read.

    FormatError for folders with more than MAX_INFS: a whole disk was named by mistake; and for a place that is no file. What is called .inf and is no
    plain file is left out: whoever opens a named pipe waits for ever.
    """
    count = 0
    for place in places:
        if not place.is_dir():
            place.stat()  # says which place is missing
            if not place.is_file():
                raise FormatError("driver folder", f"{place} is neither a folder nor a file")
            yield place
            continue

        def failed(error: OSError) -> None:
            raise error

        for folder, folders, names in os.walk(place, onerror=failed):
            folders.sort()
            for name in sorted(names):
                path = Path(folder, name)
                if name.lower().endswith(".inf") and not path.is_symlink() and path.is_file():
                    count += 1
                    if count > MAX_INFS:
                        raise FormatError("driver folder", f"{place} has more than {MAX_INFS} INF files")
                    yield path


def archives_among(names: Iterable[str]) -> list[str]:
    """Of the names in one folder those that may hold packages, sorted.

    Beside an INF lie programs and cabinets that belong to its package; alone they are how vendors deliver them.
    """
    lower = [(n.lower(), n) for n in names]
    suffixes = _ARCHIVES if any(n.endswith(".inf") for n, _ in lower) else (*_ARCHIVES, *_PERHAPS_ARCHIVES)
    return sorted(name for n, name in lower if n.endswith(suffixes))


def archives_in(folder: Path, most: int) -> list[Path]:
    """Archives in a folder and below, no more than ``most``; links are not followed. OSError."""
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders.sort()
        paths = (Path(place, name) for name in archives_among(names))
        found += [p for p in paths if not p.is_symlink() and p.is_file()]
        if len(found) > most:
            break
    return found[:most]


def judge(infs: Iterable[Path], device: PciDevice, target: Target) -> tuple[list[Candidate], list[Refusal]]:
    """Candidates, the best first, and every other package with its reason."""
    candidates: list[Candidate] = []
    refusals: list[Refusal] = []
    for path in infs:
        found = judge_one(path, device, target)
        if isinstance(found, Candidate):
            candidates.append(found)
        else:
            refusals.append(found)
    # a package that fits for certain comes before one that depends on the card
    candidates.sort(key=lambda c: (bool(c.subsystems), c.rank.sort_key, str(c.path)))
    refusals.sort(key=lambda r: (not r.knows_device, str(r.path)))
    return candidates, refusals


def judge_one(path: Path, device: PciDevice, target: Target) -> Candidate | Refusal:
    """One package. What cannot be read is a refusal as well."""
    try:
        return judge_inf(path, parse_inf(inf_bytes(path)), device, target)
    except OSError as e:
        return Refusal(path, f"cannot be read: {e.strerror or e}", False)
    except FormatError as e:
        return Refusal(path, str(e), False)


def inf_bytes(path: Path) -> bytes:
    """The file, or one byte more than an INF may have, which `parse_inf` refuses. OSError."""
    with path.open("rb") as file:
        return file.read(MAX_SIZE + 1)


def judge_inf(path: Path, inf: Inf, device: PciDevice, target: Target) -> Candidate | Refusal:
    """The package of ``inf``, which was read from ``path``: its files are looked for beside it. May raise FormatError."""
    matches = list(_matches(inf.models(target), device))
    if not matches:
        return _no_model(path, inf, device, target)
    if inf.version.extension:
        return Refusal(path, "an Extension INF: it adds to another package's driver and is none itself", True)
    own = (*device.hardware_ids, *device.compatible_ids)
    sections = dict.fromkeys(m.install_section for _, m, _ in matches)
    excluded = {
        n: i for n in sections if (i := inf.install(n, target.architecture).excludes(own)) is not None
    }
    matches = [found for found in matches if found[1].install_section not in excluded]
    if not matches:
        section, one = next(iter(excluded.items()))
        return Refusal(path, f"[{section}] excludes {one}", True)
    # a model that fits for certain, then the best ID; of several Windows takes the first
    certain, model, match = min(matches, key=lambda m: (not m[0], m[2].score))
    subsystems = (
        ()
        if certain
        else tuple(dict.fromkeys(s for _, m, _ in matches for s in subsystems_wanted(m, device)))
    )
    install = inf.install(model.install_section, target.architecture)
    reason = _unusable(path, install, target)
    if reason is not None:
        return Refusal(path, reason, True)
    driver = install.function_driver
    assert driver is not None  # _unusable has looked
    catalog = inf.version.catalog(target.architecture)
    signature, warnings = 0, list(install.notes)
    warnings += [f"[{need}] of another INF is needed and not at hand" for need in install.unresolved]
    if catalog is None or locate(path.parent, catalog) is None:
        signature = UNSIGNED_DECORATED if ".nt" in install.section.lower() else UNSIGNED
        warnings.append(f"the catalog {catalog} is missing" if catalog else "it names no catalog")
    if driver.start_override:
        warnings.append("its INF sets StartOverride")
    return Candidate(
        path=path,
        rank=rank(match, install.feature_score, inf.driver_version(model.install_section), signature),
        device_id=match.device_id,
        description=model.description,
        section=install.section,
        service=driver.name,
        further_services=tuple(s.name for s in install.services if s is not driver),
        catalog=catalog,
        warnings=tuple(warnings),
        subsystems=subsystems,
    )


def is_for(model: Model, device: PciDevice) -> bool:
    """Whether a model is for the device, or for a card of its kind where the card is not known."""
    return next(_matches([model], device), None) is not None


def _matches(models: Iterable[Model], device: PciDevice) -> Iterator[tuple[bool, Model, IdMatch]]:
    """Models for the device; False in front where that depends on its subsystem, which is not known."""
    hardware, compatible = device.hardware_ids, device.compatible_ids
    for model in models:
        match = match_ids(model, hardware, compatible)
        if match is not None:
            yield True, model, match
            continue
        wanted = subsystems_wanted(model, device)
        if wanted:
            own = next(i for i in model.ids if wanted[0] in i.upper())
            yield False, model, IdMatch(0x0001, own)


def _no_model(path: Path, inf: Inf, device: PciDevice, target: Target) -> Refusal:
    """Why no model applies: another Windows, or another device."""
    reasons: dict[str, None] = {}
    knows = False
    for choice in inf.choices(target):
        for section, why in choice.refused:
            if next(_matches(section.models, device), None) is not None:
                knows = True
                reasons[
                    f"[{section.name}] is {why}" if why.startswith("for") else f"[{section.name}] {why}"
                ] = None
    if knows:
        return Refusal(path, "; ".join(reasons), True)
    return Refusal(path, "is not for this device", False)


def _unusable(path: Path, install: Install, target: Target) -> str | None:
    if not install.present:
        return f"there is no install section [{install.section}]"
    driver = install.function_driver
    if driver is None:
        return "installs no driver (null driver)" if install.null_driver else "installs no driver"
    if driver.type != 1:
        return f"{driver.name} is no kernel driver"
    if not driver.boot:
        return f"{driver.name} does not start at boot: Windows could not start from this controller"
    if driver.in_store is not None and target.build < FIRST_FROM_STORE:
        return f"{driver.name} {from_store(target)}"
    if driver.image_path is None and driver.in_store is None:
        return (
            f"{driver.binary or 'its driver'} is not in the Windows folder: Windows could not load it at boot"
        )
    for file in install.files:
        if file.problem is not None:
            return file.problem
    for reason in not_copied(install):
        return reason
    for file in install.files:
        if locate(path.parent, file.source) is None:
            return f"{file.source} {missing(path.parent, file.source)}"
    return None


def from_store(target: Target) -> str:
    return (
        f"is loaded from the driver store, which {target.name} cannot (Windows 10 1709 and Server 2019 can)"
    )


def not_copied(install: Install) -> Iterator[str]:
    """Boot drivers that a section registers and does not bring, in words."""
    for service in install.services:
        if service.boot and not any(service.brought_by(f) for f in install.files):
            yield f"the driver of {service.name}, {service.binary}, is not among the files that it copies"


def missing(folder: Path, source: str) -> str:
    """What is to be said of a file that `locate` does not find: on installation disks files are compressed (x.sy_)."""
    compressed = locate(folder, f"{source[:-1]}_")
    if compressed is None:
        return "is missing: the package is incomplete"
    return f"is there only compressed, as {compressed.name}: unpack it (expand {compressed.name} {source.rpartition(chr(92))[2]})"


def locate(folder: Path, source: str) -> Path | None:
    """A file of the package, whatever the case of its name; None where it is missing or a link. Never leaves the folder."""
    place = folder
    for part in source.split("\\"):
        try:
            found = next((p for p in sorted(place.iterdir()) if p.name.lower() == part.lower()), None)
        except OSError:
            return None
        if found is None or found.is_symlink():
            return None
        place = found
    return place if place.is_file() else None
