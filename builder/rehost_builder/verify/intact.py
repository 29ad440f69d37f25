"""Whether a medium still has the bytes it was built with: the short check before it is written to a stick."""

from __future__ import annotations

from collections.abc import Callable

from rehost_builder.media.iso_reader import IsoImage
from rehost_builder.verify import debian, image
from rehost_builder.verify.medium import Medium
from rehost_builder.verify.model import Broken, NotSeen


def is_ours(iso: IsoImage) -> bool:
    """Whether `rehost build` says that it has made this medium, whatever has become of it. Raises FormatError."""
    medium = Medium(iso)
    return image.has_seal(medium) or medium.find(image.BUILD) is not None


def intact(iso: IsoImage, progress: Callable[[float, float], None]) -> None:
    """Returns where every file of a medium of ours is as it was built.

    Reads the image once. Raises Broken or FormatError with the first damage found; `verify_medium` judges the rest.
    """
    medium = Medium(iso)
    try:
        if image.has_seal(medium):
            image.sealed(medium, progress)
            return
        medium.hash_all(progress)
        image.description(medium)
        if medium.described is not None and medium.described.base == "winpe":
            image.sealed(medium)  # raises: there is no seal
        image.checksums(medium, image.catalog_files(medium) | debian.exceptions())
        debian.bios_entry(medium)
    except NotSeen as e:
        raise Broken(str(e)) from None
