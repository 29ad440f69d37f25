"""The plan of a WinPE medium as data: what lies where, what it comes from, and its SHA-256. Printed by --dry-run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rehost_builder.winpe.inspect import MediaReport, program_line


@dataclass(frozen=True)
class PlannedFile:
    """``origin`` is what it comes from, without folders of this machine. ``size`` in bytes."""

    path: str
    size: int
    sha256: str
    origin: str


@dataclass(frozen=True)
class Plan:
    """``added`` and ``removed`` are paths in the boot image, ``medium`` those of the ISO. ``epoch`` dates everything."""

    version: str
    source: MediaReport
    boot_files: str
    runtime: dict[str, Any]
    ucrt: dict[str, Any]
    """The C runtime beside Python, with the signers of its files; empty where the boot image has its own."""
    python: tuple[dict[str, Any], ...]
    drivers: dict[str, Any]
    loaded: tuple[str, ...]
    starts: str
    settings: dict[str, Any]
    wim_added: int
    added: tuple[PlannedFile, ...]
    removed: tuple[str, ...]
    medium: tuple[PlannedFile, ...]
    label: str
    boot_images: dict[str, str]
    """SHA-256 of the boot images, "bios" and "efi": they need not be among the files of the medium."""
    udf_only: tuple[str, ...]
    """Files of the medium that ISO 9660 and Joliet do not show."""
    epoch: int
    notes: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of all files on the medium."""
        return sum(f.size for f in self.medium)


def plan_lines(plan: Plan) -> Iterator[str]:
    """The plan for people: what is added file by file where that says something, else in sums."""
    report = plan.source
    chosen = next((i for i in report.images if i.chosen), None)
    yield f"from        {report.place} ({report.product or 'unknown product'}, {report.architecture})"
    if chosen is not None:
        yield f"boot image  {report.wim}, image {chosen.index} ({chosen.name or 'no name'})"
    yield f"boot files  {plan.boot_files}"
    yield f"starts by   {', '.join(report.boots_by)}"
    for program in report.boot_programs:
        yield f"              {program_line(program)}"
    pinned = "" if plan.runtime["pinned"] else ", not the pinned package"
    yield f"Python      {plan.runtime['version']}{pinned}"
    if plan.ucrt:
        yield f"C runtime   {plan.ucrt['version']} of {plan.ucrt['source']}, {len(plan.ucrt['files'])} files"
    for package in plan.python:
        yield f"              {package['name']} {package['version']}"
    packages = plan.drivers.get("packages", [])
    yield f"drivers     {len(packages)} packages, {len(plan.loaded)} loaded by this medium itself"
    for path in plan.loaded:
        yield f"              {path}"
    yield f"shows       {plan.starts}"
    yield f"into image  {len(plan.added)} files, {sum(f.size for f in plan.added) / 1e6:.1f} MB" + (
        f"; without {', '.join(plan.removed)}" if plan.removed else ""
    )
    yield f"on medium   {len(plan.medium)} files, {plan.size / 1e6:,.1f} MB, label {plan.label}"
    for file in plan.medium:
        if "/fonts/" not in file.path.lower() and file.path.count("/") < 3 and file.size > 0:
            yield f"              {file.path:<44} {file.size:>13,}  {file.origin}"
    if plan.udf_only:
        yield f"UDF only    {', '.join(plan.udf_only)}"
    for note in plan.notes:
        yield f"note        {note}"
