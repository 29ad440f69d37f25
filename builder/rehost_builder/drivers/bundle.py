"""The driver packages that go on a medium: verified, each in a folder of its own, the same bytes for the same input.

`collect` is for every base: it copies the packages into a folder and says what is in them; where they lie on the medium
is the base's affair. A package that Windows would not load stops the build. What is no boot driver at all (a filter's
extension, another architecture) is left out and named: vendors' archives are full of it.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from rehost_builder.drivers.unpack import may_be_none, opened, with_archives
from rehost_builder.errors import BuildError
from rehost_payload.drivers.check import Kind, Level, PackageReport, check_folder
from rehost_payload.drivers.manifest import FORMAT, MANIFEST, NOT_VERIFIED
from rehost_payload.drivers.packages import locate
from rehost_payload.formats.errors import FormatError

DEFAULT_FOLDER = Path("drivers/packages")
MAX_TOTAL = 512 << 20  # bytes; the system on the medium is held in memory
VERIFIED, SIGNER_NOT_KNOWN = "yes", "signer not known"


@dataclass(frozen=True)
class PackageFile:
    """``path`` is relative to the package's folder, with slashes."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class BundledPackage:
    """A package on the medium: ``folder`` is its name there, ``inf`` the file in it that is installed.

    ``source`` is where it came from, without the folders above. ``verified`` is one of the words of this module;
    ``problems`` are the reasons where it is not "yes".
    """

    folder: str
    inf: str
    source: str
    provider: str
    version: str | None
    date: str | None
    services: tuple[str, ...]
    windows: tuple[str, ...]
    ids: tuple[str, ...]
    verified: str
    problems: tuple[str, ...]
    files: tuple[PackageFile, ...]

    @property
    def size(self) -> int:
        return sum(f.size for f in self.files)


@dataclass(frozen=True)
class LeftOut:
    source: str
    reason: str


@dataclass(frozen=True)
class Bundle:
    """``place`` holds one folder for each package, by its name, and the manifest that the medium checks them by."""

    place: Path
    packages: tuple[BundledPackage, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    @property
    def size(self) -> int:
        return sum(p.size for p in self.packages)

    def notes(self) -> Iterator[str]:
        """What whoever builds the medium should know: packages that were left out, or are not verified."""
        for one in self.left_out:
            yield f"left out: {one.source}: {one.reason}"
        for package in self.packages:
            if package.verified != VERIFIED:
                why = "; ".join(package.problems[:3])
                what = "is not verified" if package.verified == NOT_VERIFIED else package.verified
                yield f"warning: {package.source}: {what}: {why}"

    def described(self) -> dict[str, Any]:
        """For build.json."""
        return {
            "packages": [asdict(p) for p in self.packages],
            "left_out": [asdict(one) for one in self.left_out],
        }


def default_sources() -> tuple[Path, ...]:
    """The folder for packages below the current one, where it is there and anything is in it."""
    if DEFAULT_FOLDER.is_dir() and any(not p.name.startswith(".") for p in DEFAULT_FOLDER.iterdir()):
        return (DEFAULT_FOLDER,)
    return ()


def collect(
    sources: Sequence[Path],
    place: Path,
    *,
    allow_unverified: bool = False,
    microsoft: Iterable[str] | None = None,
) -> Bundle:
    """Verifies the packages of folders and archives and copies them into ``place``, which is made.

    ``allow_unverified`` lets those pass that fail by their signature alone, and notes it. BuildError names every package
    that must not go on a medium, and why; nothing else is raised for what is wrong with the input. ``microsoft``: as in
    `signature.verify`.
    """
    place.mkdir(parents=True, exist_ok=True)
    packages: dict[str, BundledPackage] = {}
    left_out: list[LeftOut] = []
    refused: list[str] = []
    for source in sources:
        found = False
        for archive in _places(source):
            with _opened(archive, source, left_out) as folder:
                if folder is None:
                    continue
                for report in _reports(folder, archive, microsoft):
                    shown = _shown(report, folder, source, archive)
                    reason = _why_not(report, allow_unverified)
                    if report.kind is Kind.OTHER:
                        left_out.append(LeftOut(shown, report.other))
                        continue
                    found = True
                    if reason:
                        refused.append(f"{shown}: {reason}")
                        continue
                    package = _bundled(report, shown)
                    if package.folder not in packages:
                        _copy(report, package, place)
                        packages[package.folder] = package
        if not found and source != DEFAULT_FOLDER:
            reasons = dict.fromkeys(one.reason for one in left_out)
            raise BuildError(
                f"{source} holds no boot driver for Windows Server on x64"
                + (f": {'; '.join(list(reasons)[:3])}" if reasons else ""),
                f"rehost drivers check {source}",
            )
    if refused:
        raise BuildError(
            "these driver packages must not go on the medium:\n          " + "\n          ".join(refused),
            "rehost drivers check shows the details; --allow-unverified-drivers takes those of which only "
            "the signature is missing or wrong",
        )
    bundle = Bundle(place, tuple(packages[name] for name in sorted(packages)), tuple(left_out))
    if bundle.size > MAX_TOTAL:
        raise BuildError(
            f"the driver packages have {bundle.size >> 20} MB, and the medium's system is held in memory",
            f"take those of your controllers only (rehost drivers match); {MAX_TOTAL >> 20} MB are allowed",
        )
    if bundle.packages:
        (place / MANIFEST).write_bytes(_manifest(bundle.packages).encode())
    return bundle


@contextmanager
def _opened(archive: Path, source: Path, left_out: list[LeftOut]) -> Iterator[Path | None]:
    """As `opened`; None for a program that lies in a folder and is no archive, which is named."""
    with ExitStack() as stack:
        folder = None
        try:
            folder = stack.enter_context(opened(archive))
        except BuildError as e:
            if not may_be_none(archive, source):
                raise
            name = PurePosixPath(source.resolve().name, archive.relative_to(source))
            left_out.append(LeftOut(str(name), f"not opened: {e.message}"))
        yield folder


def _places(source: Path) -> list[Path]:
    try:
        source.stat()
        return with_archives(source)
    except OSError as e:
        raise BuildError(f"{source}: {e.strerror or e}", "--drivers takes a folder or an archive") from None


def _reports(folder: Path, archive: Path, microsoft: Iterable[str] | None) -> list[PackageReport]:
    try:
        return check_folder(folder, microsoft)
    except FormatError as e:
        raise BuildError(f"{archive}: {e}", "give a folder with driver packages only") from None


def _shown(report: PackageReport, folder: Path, source: Path, archive: Path) -> str:
    """Where the INF was, from the name of the source on: not where that lies on this machine."""
    inside = PurePosixPath() if folder == report.path else PurePosixPath(report.path.relative_to(folder))
    top = PurePosixPath(source.resolve().name)
    if archive != source:
        top = top / archive.relative_to(source).as_posix()
    return str(top / inside)


def _why_not(report: PackageReport, allow_unverified: bool) -> str:
    """Why the package must not go on a medium; empty where it may."""
    if not report.failed or (allow_unverified and report.only_signature):
        return ""
    found = [c for c in report.checks if c.level is Level.FAIL]
    reasons = dict.fromkeys(c.sentence for c in found if not (allow_unverified and c.signature))
    if not reasons:
        reasons = dict.fromkeys(r for v in report.verdicts for r in v.reasons)
    listed = list(reasons)
    return "; ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


def _bundled(report: PackageReport, shown: str) -> BundledPackage:
    files = []
    for name in report.files:
        found = locate(report.path.parent, name)
        assert found is not None  # check has looked
        with found.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        relative = found.relative_to(report.path.parent).as_posix()
        files.append(PackageFile(relative, found.stat().st_size, digest))
    files.sort(key=lambda f: f.path)
    whole = hashlib.sha256("\n".join(f"{f.sha256} {f.path}" for f in files).encode()).hexdigest()
    version = ".".join(map(str, report.driver.version)) if report.driver.version else None
    stem = re.sub(r"[^a-z0-9.-]+", "-", report.path.stem.lower()).strip(".-") or "driver"
    level, problems = VERIFIED, []
    if report.failed:
        level, problems = NOT_VERIFIED, [c for c in report.checks if c.level is Level.FAIL]
    elif report.kind is Kind.UNCLEAR:
        level, problems = SIGNER_NOT_KNOWN, [c for c in report.checks if c.level is Level.UNKNOWN]
    offered = report.offered if report.failed else report.usable
    return BundledPackage(
        folder=f"{stem}_{version or '0'}_{whole[:8]}",
        inf=report.path.name,
        source=shown,
        provider=report.provider,
        version=version,
        date=report.driver.date.isoformat() if report.driver.date else None,
        services=report.services,
        windows=tuple(t.name for t in offered),
        ids=report.ids,
        verified=level,
        problems=tuple(dict.fromkeys(c.sentence for c in problems)),
        files=tuple(files),
    )


def _manifest(packages: Iterable[BundledPackage]) -> str:
    """What the server checks the packages by; the same for the same packages, wherever they came from."""
    kept = ("folder", "inf", "verified", "files")
    listed = [{k: v for k, v in asdict(p).items() if k in kept} for p in packages]
    return json.dumps({"format": FORMAT, "packages": listed}, indent=1) + "\n"


def _copy(report: PackageReport, package: BundledPackage, place: Path) -> None:
    for file in package.files:
        target = place / package.folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(report.path.parent / file.path, target)
