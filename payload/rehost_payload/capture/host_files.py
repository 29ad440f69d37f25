"""The host's own files that are kept raw: hives with their logs, Hyper-V's folder, networks, keys."""

from __future__ import annotations

from collections.abc import Iterator

from rehost_payload.capture.configurations import HYPERV
from rehost_payload.capture.found import MachineFile
from rehost_payload.capture.machines import DISKS
from rehost_payload.capture.model import Role
from rehost_payload.capture.places import Place, Places
from rehost_payload.formats.filesystem import has_suffix
from rehost_payload.survey.model import WindowsInstallation

_HIVES = ("SYSTEM", "SOFTWARE", "SECURITY", "SAM")
_LOGS = ("", ".LOG", ".LOG1", ".LOG2")
# states and disks belong to their machines, and may be as large as these
_NOT_HERE = DISKS | {".vmrs", ".bin", ".vsv", ".slp", ".iso", ".vfd"}
_LARGEST = 64 << 20
_MOST = 5000
_DEPTH = 8


def host_files(places: Places, host: WindowsInstallation) -> Iterator[tuple[MachineFile, str]]:
    """The files, each with its place below the host's folder in the capture (with forward slashes).

    The keys below Crypto and Protect are kept as evidence: what a virtual TPM is sealed with lies there, encrypted for
    this host. That it can be opened elsewhere is not promised.
    """
    for name in _HIVES:
        for suffix in _LOGS:
            place = Place(host.volume, f"{host.root}\\System32\\config\\{name}{suffix}")
            yield from _one(places, place, f"hives/{name}{suffix}", Role.HIVE)
    programs = "\\ProgramData\\Microsoft"
    hns = Place(host.volume, f"{programs}\\Windows\\HNS\\HNS.data")
    yield from _one(places, hns, "HNS/HNS.data", Role.EVIDENCE)
    for folder, target in (
        (HYPERV, "Hyper-V"),
        (f"{programs}\\Crypto", "Crypto"),
        (f"{host.root}\\System32\\Microsoft\\Protect\\S-1-5-18", "Protect/S-1-5-18"),
    ):
        yield from _tree(places, host.volume, folder, target)


def _one(places: Places, place: Place, target: str, role: Role) -> Iterator[tuple[MachineFile, str]]:
    if not places.exists(place):
        return
    file = places.file(place)
    if file is not None:
        yield MachineFile(file, role), target


def _tree(places: Places, volume: str, folder: str, target: str) -> Iterator[tuple[MachineFile, str]]:
    waiting = [(folder, target, 0)]
    count = 0
    while waiting:
        current, below, depth = waiting.pop()
        for name in places.listdir(volume, current):
            if name.endswith("\\"):
                if depth < _DEPTH:
                    waiting.append((f"{current}\\{name[:-1]}", f"{below}/{name[:-1]}", depth + 1))
                continue
            count += 1
            if count > _MOST:
                places.trouble("too-many", places.original(volume, folder), f"more than {_MOST} files")
                return
            if has_suffix(name, _NOT_HERE):
                continue
            for found, place in _one(
                places, Place(volume, f"{current}\\{name}"), f"{below}/{name}", Role.EVIDENCE
            ):
                if found.file.size <= _LARGEST and found.file.unreadable != "reparse":
                    yield found, place
