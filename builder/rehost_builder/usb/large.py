"""Files that FAT32, which UEFI firmware starts from, cannot hold: 4 GiB and more.

An installation image becomes a split one, as Windows Setup and DISM read it beside its usual place. Anything else is
found by its name only, a boot image must be one file: these are refused.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rehost_builder.environment import named
from rehost_builder.errors import BuildError
from rehost_builder.media.fat32 import MAX_FILE, Source
from rehost_builder.run import run

PROGRAM = "wimlib-imagex"
_INSTALL = re.compile(r"(?i)(.*/)?install\.wim")
_PART = 0.93  # of the limit: a part ends with a whole file of the image

_INSTEAD = "start the ISO itself: as virtual media of the server's management controller, or a DVD"


@dataclass(frozen=True)
class FromFile:
    """A file of this machine as a source."""

    path: Path

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def blocks(self) -> Iterator[bytes]:
        with self.path.open("rb") as f:
            while data := f.read(4 << 20):
                yield data


def too_large(files: Mapping[str, Source], limit: int = MAX_FILE) -> list[str]:
    return [path for path, source in sorted(files.items()) if source.size > limit]


def check_large(files: Mapping[str, Source], limit: int = MAX_FILE) -> None:
    """BuildError where the files cannot be put on FAT32, not in parts either."""
    for path in too_large(files, limit):
        what = (
            f"{path} has {files[path].size / 1e9:.1f} GB, and a stick for UEFI is FAT32, which ends at 4 GiB"
        )
        if not _INSTALL.fullmatch(path):
            raise BuildError(what, _INSTEAD)
        if shutil.which(PROGRAM) is None:
            raise BuildError(f"{what}; wimlib, which splits it, is missing", "apt-get install wimtools")


def in_parts(files: Mapping[str, Source], work: Path, limit: int = MAX_FILE) -> dict[str, Source]:
    """The files with install.wim as install.swm, install2.swm ... where it is too large; parts lie in ``work``.

    BuildError where there is no room for it in ``work``, or it is damaged.
    """
    found = dict(files)
    for number, path in enumerate(too_large(files, limit)):
        source = found.pop(path)
        if shutil.disk_usage(work).free < 2 * source.size + (16 << 20):
            raise BuildError(
                f"{work.parent} has too little space to split {path}: {2 * source.size >> 20} MB are needed",
                "set TMPDIR to a folder with more space",
            )
        folder = work / str(number)
        folder.mkdir()
        whole = folder / "install.wim"
        with named(whole), whole.open("wb") as out:
            for data in source.blocks():
                out.write(data)
        size = f"{limit * _PART / (1 << 20):.2f}"  # MiB
        run([PROGRAM, "split", whole, folder / "install.swm", size], what=f"{path} cannot be split by wimlib")
        whole.unlink()
        for part in sorted(folder.glob("install*.swm")):
            found[path[: -len("install.wim")] + part.name] = FromFile(part)
        if left := too_large(found, limit):
            raise BuildError(
                f"{path} cannot be split: {left[0]} would have {found[left[0]].size >> 20} MB",
                _INSTEAD,
            )
    return found
