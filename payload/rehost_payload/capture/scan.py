"""Every file of Hyper-V's on a machine's volumes, wherever it lies."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from rehost_payload.capture.configurations import GUID, stem
from rehost_payload.capture.places import Place, Places
from rehost_payload.formats.errors import FormatError
from rehost_payload.system.protocol import Progress

SUFFIXES = frozenset(
    {".vmcx", ".xml", ".vmrs", ".bin", ".vsv", ".vmgs", ".slp", ".vfd"}
    | {".vhd", ".vhdx", ".avhd", ".avhdx", ".vhds", ".rct", ".mrt", ".hrl"}
)
# names that other programs use as well: only those called by a GUID can be Hyper-V's
_BY_GUID = (".xml", ".bin")
_BACKUPS = re.compile(
    r"\\(?:Rehost-[^\\]+|WindowsImageBackup|System Volume Information|\$RECYCLE\.BIN)\\", re.IGNORECASE
)
_DISK = re.compile(r"\.a?vhdx?$|\.vmcx$", re.IGNORECASE)


@dataclass(frozen=True)
class Scan:
    """``left_out`` are disks and configurations in backups, earlier captures and recycle bins (original paths)."""

    files: tuple[Place, ...]
    left_out: tuple[Place, ...]


def scan_volumes(places: Places, progress: Progress, skip: Callable[[str], bool]) -> Scan:
    """Looks through all readable volumes but those to ``skip`` (by id)."""
    files: list[Place] = []
    left_out: list[Place] = []
    for volume in places.readable:
        if skip(volume):
            continue
        problems: list[str] = []

        def step(done: int, total: int, volume: str = volume) -> None:
            progress(volume, done, total)

        try:
            for path in places.reader(volume).find_files(SUFFIXES, problems, step):
                if path.lower().endswith(_BY_GUID) and not GUID.fullmatch(stem(path)):
                    continue
                place = Place(volume, path)
                if places.is_link(place):
                    continue
                if not _BACKUPS.match(path):
                    files.append(place)
                elif _DISK.search(path):
                    left_out.append(place)
        except (FormatError, OSError) as error:
            problems.append(f"$MFT: {error}")
        for problem in problems:
            # what stood in the part that was not read is not known: nobody may take the rest for everything
            places.trouble("unsearched" if problem.startswith("$MFT") else "scan", volume, problem)
    files.sort(key=lambda p: (p.volume, p.path.lower()))
    return Scan(tuple(files), tuple(left_out))
