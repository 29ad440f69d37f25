"""Configuration files: read where that is possible, named and kept where it is not."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rehost_payload.capture.found import FoundConfiguration
from rehost_payload.capture.places import Place, Places
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.source import ByteSource
from rehost_payload.formats.vm_model import KnownMachines, content_of, read_known_machines, read_machine
from rehost_payload.formats.vm_tree import Node
from rehost_payload.formats.vm_xml import parse_vm_xml
from rehost_payload.formats.vmcx import is_vmcx, parse_vmcx

HYPERV = "\\ProgramData\\Microsoft\\Windows\\Hyper-V"
GUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_CACHES = re.compile(r"\\[^\\]* cache\\|\\resource types\\|\\groups[^\\]*\\", re.IGNORECASE)
_CHECKPOINTS = re.compile(r"\\snapshots\\[^\\]*$", re.IGNORECASE)


def stem(path: str) -> str:
    """A file's name without its last extension."""
    name = path.rpartition("\\")[2]
    return name.rpartition(".")[0] or name


def is_configuration(path: str) -> bool:
    """Whether a path looks like that of a machine's or checkpoint's configuration: a GUID, and not in a cache."""
    ending = path[-5:].lower()
    return (
        (ending == ".vmcx" or ending.endswith(".xml"))
        and GUID.fullmatch(stem(path)) is not None
        and _CACHES.search(path) is None
    )


def read_configurations(places: Places, found: Iterable[Place]) -> list[FoundConfiguration]:
    """Those of machines and checkpoints; other files that are called by a GUID are left out.

    A .vmcx that cannot be read is kept as what its folder says. An .xml that cannot be read is none of ours unless it
    lies in a folder of Hyper-V's.
    """
    result: list[FoundConfiguration] = []
    seen: set[tuple[str, str]] = set()
    for place in found:
        key = (place.volume, place.path.lower())
        if key in seen:
            continue
        seen.add(key)
        configuration = _read(places, place)
        if configuration is not None:
            result.append(configuration)
    return result


def _read(places: Places, place: Place) -> FoundConfiguration | None:
    file = places.file(place)
    if file is None:
        return None
    identifier = stem(place.path).lower()
    by_folder = "checkpoint" if _CHECKPOINTS.search(place.path) else "machine"
    if file.unreadable:
        why = f"stored in a way that cannot be read here ({file.unreadable})"
        return FoundConfiguration(identifier, file, None, by_folder, why)
    try:
        root, damage = read_tree(places.reader(place.volume).open(place.path), place.path)
        kind = content_of(root)
        if kind != "machine":
            if kind == "unknown" and damage:
                return FoundConfiguration(identifier, file, None, by_folder, "nothing of it is left", damage)
            return None
        machine = read_machine(root)
    except (FormatError, OSError) as error:
        ours = place.path.lower().endswith(".vmcx") or re.search(
            r"\\(virtual machines|snapshots)\\[^\\]+$", place.path, re.IGNORECASE
        )
        return FoundConfiguration(identifier, file, None, by_folder, str(error)) if ours else None
    if machine.kind not in ("machine", "checkpoint", "planned machine"):
        return None
    return FoundConfiguration(identifier, file, machine, machine.kind, damage=damage)


def read_tree(source: ByteSource, path: str) -> tuple[Node, tuple[str, ...]]:
    """The tree of either kind of file, and what of it is damaged. FormatError where nothing can be read."""
    if not is_vmcx(source) and path.lower().endswith(".xml"):
        return parse_vm_xml(source).root, ()
    try:
        return parse_vmcx(source).root, ()
    except FormatError:
        storage = parse_vmcx(source, lenient=True)
        return storage.root, storage.damage


def read_list(places: Places, volume: str) -> dict[str, str] | None:
    """The machines that the host on this volume knows, paths by GUID: from data.vmcx, or from the links of older ones.

    None where there is neither. A list that cannot be read counts as none and is named as a problem.
    """
    found: dict[str, str] | None = None
    place = places.resolve(places.original(volume, HYPERV + "\\data.vmcx"))
    if place is not None:
        known = _known(places, place)
        if known is not None:
            found = known.machines
    for name in places.listdir(volume, HYPERV + "\\Virtual Machines"):
        if not is_configuration(f"\\{name}") or stem(name).lower() in (found or {}):
            continue
        path = f"{HYPERV}\\Virtual Machines\\{name}"
        target = places.link(volume, path)
        if found is None:
            found = {}
        if target is not None:
            found[stem(name).lower()] = target
        elif place is None:
            found[stem(name).lower()] = places.original(volume, path)
    return found


def checkpoint_links(places: Places, volume: str) -> list[str]:
    """Configurations of checkpoints that the links of 2008 to 2012 R2 lead to."""
    names = places.listdir(volume, HYPERV + "\\Snapshots")
    paths = (f"{HYPERV}\\Snapshots\\{name}" for name in names if is_configuration(f"\\{name}"))
    return [target for path in paths if (target := places.link(volume, path)) is not None]


def _known(places: Places, place: Place) -> KnownMachines | None:
    try:
        root, _ = read_tree(places.reader(place.volume).open(place.path), place.path)
        return read_known_machines(root)
    except (FormatError, OSError) as error:
        places.trouble("list-damaged", places.original(place.volume, place.path), str(error))
        return None
