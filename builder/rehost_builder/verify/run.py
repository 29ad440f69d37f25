"""Judges a finished medium. Nothing is written."""

from __future__ import annotations

import time
from pathlib import Path

from rehost_builder.environment import clear_messages
from rehost_builder.errors import BuildError
from rehost_builder.media.iso_reader import open_iso
from rehost_builder.progress import Progress
from rehost_builder.verify import debian, image, winpe
from rehost_builder.verify.medium import Medium
from rehost_builder.verify.model import MediumReport
from rehost_payload.formats.errors import FormatError

STEPS = {"directories": 0.5, "files": 5.0, "contents": 3.0}


def verify_medium(iso: Path, progress: Progress | None = None, *, thorough: bool = False) -> MediumReport:
    """Every point of a medium. BuildError for what cannot be read, or is no ISO image.

    ``thorough``: wimlib-imagex, where installed, unpacks every file in the boot image as well.
    """
    begun = time.monotonic()
    progress = progress or Progress(STEPS, quiet=True)
    with clear_messages(iso), iso.open("rb") as file:
        with progress.step("directories"):
            try:
                medium = Medium(open_iso(file))
            except FormatError as e:
                raise BuildError(
                    f"{iso} is no ISO image, or is cut off: {e.problem}",
                    "copy it again; for the image of a disk: rehost verify --image",
                ) from None
        with progress.step("files"):
            medium.hash_all(progress.meter())
        with progress.step("contents"):
            _judge(medium, thorough, progress)
    described = medium.described
    return MediumReport(
        iso=str(iso),
        size=medium.image.size,
        base=described.base if described is not None else "",
        version=described.version if described is not None else "",
        points=tuple(medium.points),
        seconds=time.monotonic() - begun,
    )


def _judge(medium: Medium, thorough: bool, progress: Progress) -> None:
    medium.judge("whole", "image", lambda: image.whole(medium))
    medium.judge("catalog", "boot catalog", lambda: image.catalog(medium))
    medium.judge("description", "build.json", lambda: image.description(medium))
    medium.judge("trees", "directories", lambda: image.trees(medium))
    base = medium.described.base if medium.described is not None else _guess(medium)
    exceptions = image.catalog_files(medium) | (debian.exceptions() if base == "debian" else {})
    medium.judge("checksums", "checksums", lambda: image.checksums(medium, exceptions))
    if base == "debian":
        debian.judge(medium)
    elif base == "winpe":
        medium.judge("sealed", "every byte", lambda: image.sealed(medium, progress.meter()))
        winpe.judge(medium, thorough=thorough)


def _guess(medium: Medium) -> str:
    """Where build.json does not say it."""
    if medium.find("isolinux/isolinux.bin") is not None:
        return "debian"
    return "winpe" if medium.find("sources/boot.wim") is not None else ""
