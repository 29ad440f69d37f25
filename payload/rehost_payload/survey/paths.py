"""Which volumes hold the paths that boot stores refer to: what a repair decides its targets by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rehost_payload.formats.bcd import FORMAT_STRING, Element, element_format
from rehost_payload.formats.bcd_devices import FileDevice, LocateDevice, RamdiskDevice, walk_devices
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.filesystem import join_path
from rehost_payload.survey.model import BootStore, PathOnVolume, Problem, StoreElement
from rehost_payload.survey.volumes import OpenVolume


def referred_paths(stores: Iterable[BootStore]) -> list[str]:
    """Every path in every element, lower case, each once: strings that start with a backslash, and the paths
    inside of devices (ramdisk, file, virtual disk, locate)."""
    found: dict[str, None] = {}
    for store in stores:
        for entry in store.objects:
            for element in entry.elements:
                for path in _paths(element):
                    found.setdefault(join_path(path).lower(), None)
    return [path for path in found if path != "\\"]


def _paths(raw: StoreElement) -> Iterator[str]:
    element = Element(raw.type, raw.reg_type, bytes.fromhex(raw.raw))
    if element_format(element.type) == FORMAT_STRING:
        value = element.value
        if isinstance(value, str) and value.startswith("\\"):
            yield value
    device = element.device
    if device is not None:
        for part in walk_devices(device):
            if isinstance(part, RamdiskDevice | FileDevice | LocateDevice) and part.path:
                yield part.path


def survey_paths(
    stores: Iterable[BootStore], volumes: Sequence[OpenVolume], problems: list[Problem]
) -> tuple[PathOnVolume, ...]:
    found: list[PathOnVolume] = []
    wanted = referred_paths(stores)
    for opened in volumes:
        if opened.reader is None:
            continue
        for path in wanted:
            try:
                stat = opened.reader.stat(path)
            except (FormatError, OSError) as error:
                problems.append(Problem("damaged", f"{opened.volume.id}:{path}", str(error)))
                continue
            if stat is not None:
                found.append(PathOnVolume(path, opened.volume.id, stat.size, stat.is_directory))
    return tuple(found)
