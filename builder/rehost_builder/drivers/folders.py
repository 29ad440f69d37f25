"""Every package of several folders and archives, verified; what cannot be opened is named and ends nothing."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from pathlib import Path

from rehost_builder.drivers.unpack import LIMITS, PROGRAMS, NotAnArchiveError, opened, with_archives
from rehost_builder.errors import BuildError
from rehost_payload.drivers.check import Check, Level, PackageReport, check_folder
from rehost_payload.formats.errors import FormatError

_OF_THIS_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENOMEM)


def check_all(
    places: Sequence[Path], progress: Callable[[str, int, int], None] | None = None
) -> tuple[list[PackageReport], list[str]]:
    """Reports of all packages, and remarks on what holds none.

    An archive or folder that cannot be opened is a report of its own, which has failed. OSError where one of ``places`` is
    not there, or where this machine cannot go on (no room for what is unpacked).
    """
    reports: list[PackageReport] = []
    notes: list[str] = []
    for given, place in ((g, p) for g in places for p in with_archives(g)):
        place.stat()  # what is not there is said as it was given
        try:
            with opened(place) as folder:
                found = _checked(place, folder, progress)
        except BuildError as e:
            # any program is called .exe; but what was opened and is hostile is named, wherever it lies
            program = place != given and place.suffix.lower() in PROGRAMS
            if program and isinstance(e, NotAnArchiveError):
                notes.append(f"{place} was not opened: {e.message}")
                continue
            found = [_failed(place, e.message, e.hint)]
        except OSError as e:
            if e.errno in _OF_THIS_MACHINE:
                raise
            found = [_failed(place, f"cannot be read: {e.strerror or e}")]
        reports += found
        if not found and (place not in places or with_archives(place) == [place]):
            notes.append(
                f"{place} holds no driver package: no INF file is in it (links are not followed, "
                f"archives in archives opened {LIMITS.depth} deep)"
            )
    return reports, notes


def _checked(
    place: Path, folder: Path, progress: Callable[[str, int, int], None] | None
) -> list[PackageReport]:
    try:
        return [r.shown_as(place, folder) for r in check_folder(folder, None, progress)]
    except FormatError as e:
        # the archive's name, not that of the private folder, which is gone when this is read
        return [_failed(place, str(e).replace(str(folder), place.name))]


def _failed(place: Path, message: str, hint: str = "") -> PackageReport:
    text = message.removeprefix(f"{place.name}: ").removeprefix(f"{place.name} ")
    return PackageReport(place, checks=(Check(place.name, Level.FAIL, f"{text}; {hint}" if hint else text),))
