"""The lock: which packages, to the byte, a medium is made of.

It lies beside the packages in the cache, not in the repository: security updates take the replaced packages
off the mirrors within weeks, so a lock is worth something only together with the packages themselves. Every
build with a network writes it anew; ``--offline`` builds from it; ``--lock FILE`` insists on one that was
kept (its packages must be in the cache or still on the mirror).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rehost_builder.debian.apt import Candidate
from rehost_builder.errors import BuildError

_FORMAT = 1


@dataclass(frozen=True)
class Lock:
    suite: str
    kernel: str
    """Name of the kernel package, which changes with every kernel."""
    packages: tuple[Candidate, ...]

    def text(self) -> str:
        body = {
            "format": _FORMAT,
            "suite": self.suite,
            "kernel": self.kernel,
            "packages": [asdict(p) for p in self.packages],
        }
        return json.dumps(body, indent=1) + "\n"

    def only(self, names: Iterable[str]) -> list[Candidate]:
        chosen = set(names)
        return [p for p in self.packages if p.name in chosen]


def read_lock(path: Path) -> Lock:
    """Raises BuildError where the file is missing or is no lock."""
    try:
        body: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BuildError(
            f"there is no package lock {path}", "build once with a network; it writes the lock"
        ) from None
    except (OSError, ValueError) as e:
        raise BuildError(
            f"the package lock {path} cannot be read: {e}", "delete it and build online"
        ) from None
    try:
        if body["format"] != _FORMAT:
            raise ValueError(f"format {body['format']}")
        packages = tuple(Candidate(**p) for p in body["packages"])
        for package in packages:
            # File names become paths below the cache: nothing in a lock may lead out of it.
            if Path(package.file).name != package.file or not package.file.endswith(".deb"):
                raise ValueError(f"file name {package.file!r}")
        return Lock(str(body["suite"]), str(body["kernel"]), packages)
    except (KeyError, TypeError, ValueError) as e:
        raise BuildError(f"{path} is not a package lock: {e}", "delete it and build online") from None


def wrong_packages(packages: Sequence[Candidate], archives: Path) -> list[str]:
    """The files among ``packages`` that are missing from ``archives`` or are not those of the lock."""

    def is_wrong(package: Candidate) -> bool:
        path = archives / package.file
        try:
            if path.stat().st_size != package.size:
                return True
            with path.open("rb") as f:
                return hashlib.file_digest(f, "sha256").hexdigest() != package.sha256
        except OSError:
            return True

    with ThreadPoolExecutor(2) as pool:
        return [p.file for p, wrong in zip(packages, pool.map(is_wrong, packages), strict=True) if wrong]


def newest_date(packages: Sequence[Candidate], archives: Path) -> int:
    """The newest build date among the packages, in seconds since 1970: the medium's date by default.

    A Debian package carries its changelog's date in the header of its first member (ar(5), bytes 24 to 36),
    so the date depends on the inputs alone, and two builds from the same lock are the same without
    SOURCE_DATE_EPOCH being set.
    """
    newest = 0
    for package in packages:
        with (archives / package.file).open("rb") as f:
            header = f.read(68)
        if header[:8] != b"!<arch>\n":
            raise BuildError(f"{package.file} is not a Debian package", "delete it from the cache")
        newest = max(newest, int(header[24:36].strip() or b"0"))
    return newest
