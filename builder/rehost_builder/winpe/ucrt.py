"""The Universal C Runtime, put beside Python for boot images that lack it (Windows 8.1 / Server 2012 R2: 6.3.9600).

Microsoft documents this as local deployment ("Universal CRT deployment"): ucrtbase.dll and the api-ms-win-*.dll that lead
to it lie in the program's own folder. Windows SDKs bring them for that purpose (Redist\\ucrt\\DLLs\\x64; since 10.0.17763
Redist\\<version>\\ucrt\\DLLs\\x64), and the update KB2999226 installs the same files into Windows 8.1. Windows 10 and later
always take their own.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rehost_builder.drivers.unpack import opened
from rehost_builder.errors import BuildError
from rehost_payload.formats.authenticode import read_signature
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.pe import read_facts
from rehost_payload.formats.source import BytesSource

BASE = "ucrtbase.dll"
WHERE = "the folder Redist\\<version>\\ucrt\\DLLs\\x64 of a Windows SDK, or Microsoft's Windows8.1-KB2999226-x64.msu"
_MEMBER = re.compile(r"api-ms-win-[a-z0-9-]+-l\d+-\d+-\d+\.dll")
_COUNT = 50_000  # files looked at
_LARGEST = 16 << 20


@dataclass(frozen=True)
class UcrtFile:
    """``signed_by`` is empty where the file carries no signature; one that is not over its bytes is refused."""

    name: str
    data: bytes
    version: str
    signed_by: str


@dataclass(frozen=True)
class Ucrt:
    """``source`` is the name of what was given, without its folders; ``version`` that of ucrtbase.dll."""

    source: str
    version: str
    parts: tuple[UcrtFile, ...]

    @property
    def files(self) -> Mapping[str, bytes]:
        return {part.name: part.data for part in self.parts}

    def described(self) -> dict[str, object]:
        """For build.json."""
        return {
            "source": self.source,
            "version": self.version,
            "files": [
                {
                    "name": part.name,
                    "version": part.version,
                    "sha256": hashlib.sha256(part.data).hexdigest(),
                    "signed_by": part.signed_by,
                }
                for part in self.parts
            ],
        }

    def notes(self) -> list[str]:
        """What whoever builds should know."""
        found = [f"the C runtime {self.version} of {self.source} lies beside Python"]
        unsigned = [part.name for part in self.parts if not part.signed_by]
        if unsigned:
            found.append(f"not signed: {', '.join(unsigned[:3])}{' ...' if len(unsigned) > 3 else ''}")
        return found


def read_ucrt(place: Path) -> Ucrt:
    """The runtime for x64 out of a folder, or an .msu or .cab (or ZIP). Raises BuildError where there is none, or one of its files is damaged.

    Where a folder holds several versions, as an SDK does, the newest counts.
    """
    with opened(place) as folder:
        found = _files(folder, place)
        bases = [path for path in found if path.name.lower() == BASE]
        if not bases:
            raise BuildError(f"{place} holds no {BASE}", f"give {WHERE}")
        best = max((part for path in bases if (part := _for_x64(path, place))), default=None)
        if best is None:
            raise BuildError(f"the {BASE} in {place} is not for x64", f"give {WHERE}")
        home = best[1].parent
        # a component of an update may lie in a folder of its own beside that of ucrtbase.dll
        beside = [p for p in found if p.parent == home]
        beside += [
            p for p in found if p.parent.parent == home.parent and p.parent.name.lower().startswith("amd64_")
        ]
        paths: dict[str, Path] = {BASE: best[1]}
        for path in beside:
            if _MEMBER.fullmatch(path.name.lower()):
                paths.setdefault(path.name.lower(), path)
        if not any(name.startswith("api-ms-win-crt-") for name in paths):
            raise BuildError(
                f"{place} holds {BASE} without the api-ms-win-crt-*.dll that lead to it", f"give {WHERE}"
            )
        parts = [_part(name, path, place) for name, path in sorted(paths.items())]
    return Ucrt(place.name or str(place), next(p.version for p in parts if p.name == BASE), tuple(parts))


def _files(folder: Path, place: Path) -> list[Path]:
    found, count = [], 0
    for top, folders, names in os.walk(folder):
        folders.sort()
        count += len(names)
        if count > _COUNT:
            raise BuildError(f"{place} holds more than {_COUNT} files", f"give {WHERE}")
        found += [
            Path(top, n) for n in sorted(names) if n.lower() == BASE or n.lower().startswith("api-ms-win-")
        ]
    return found


def _for_x64(path: Path, place: Path) -> tuple[tuple[int, ...], Path] | None:
    """(version, path) of a file for x64; None for another architecture."""
    machine, version = _facts(_data(path, place), path, place)
    return (tuple(int(n) for n in version.split(".") if n), path) if machine == "x64" else None


def _data(path: Path, place: Path) -> bytes:
    try:
        if path.stat().st_size > _LARGEST:
            raise BuildError(f"{path.name} in {place} has more than {_LARGEST >> 20} MB", f"give {WHERE}")
        return path.read_bytes()
    except OSError as e:
        raise BuildError(f"{path}: {e.strerror or e}", f"give {WHERE}") from None


def _facts(data: bytes, path: Path, place: Path) -> tuple[str, str]:
    try:
        facts = read_facts(BytesSource(data))
    except FormatError as e:
        raise BuildError(f"{path.name} in {place} is damaged: {e.problem}", f"give {WHERE}") from None
    if facts.truncated:
        raise BuildError(f"{path.name} in {place} is cut off", "copy it again")
    return facts.machine, facts.version or ""


def _part(name: str, path: Path, place: Path) -> UcrtFile:
    data = _data(path, place)
    machine, version = _facts(data, path, place)
    if machine != "x64":
        raise BuildError(f"{name} in {place} is for {machine}, and {BASE} beside it for x64", f"give {WHERE}")
    try:
        signature = read_signature(data)
    except FormatError as e:
        raise BuildError(f"{name} in {place}: {e.problem}", "copy it again") from None
    if signature is not None and signature.problem:
        raise BuildError(f"{name} in {place}: {signature.problem}", "copy it again")
    return UcrtFile(name, data, version, signature.signer if signature is not None else "")
