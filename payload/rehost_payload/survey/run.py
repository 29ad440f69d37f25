"""The survey itself: disks → partitions → volumes → Windows → boot stores → paths. Reads only.

A disk or volume that fails is named in `Survey.problems`; the rest is surveyed all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from rehost_payload import __version__
from rehost_payload.survey.cache import CachedSource
from rehost_payload.survey.driver_packages import survey_packages
from rehost_payload.survey.model import BootStore, Controller, Disk, Problem, Survey, WindowsInstallation
from rehost_payload.survey.paths import survey_paths
from rehost_payload.survey.stores import survey_stores
from rehost_payload.survey.volumes import OpenVolume, survey_disk, survey_volumes
from rehost_payload.survey.windows import survey_windows
from rehost_payload.system.protocol import DiskHandle, Progress, System


def survey_machine(system: System, progress: Progress | None = None) -> Survey:
    """Describes the machine as it stands. ``progress`` is called with (what, done, total)."""
    step = progress or _silent
    taken = datetime.now(UTC).replace(microsecond=0).isoformat()
    step("firmware", 0, 0)
    firmware, controllers = system.firmware(), tuple(system.controllers())
    problems: list[Problem] = []
    disks: list[Disk] = []
    opened: list[OpenVolume] = []
    with ExitStack() as stack:
        handles = system.disks()
        for handle in handles:
            stack.callback(handle.close)
        problems += [_problem(text) for text in system.problems()]
        for index, handle in enumerate(handles):
            step(handle.info.path, index, len(handles))
            _survey_one(handle, f"disk{index}", disks, opened, problems)
        windows: list[WindowsInstallation] = []
        stores: list[BootStore] = []
        for index, volume in enumerate(opened):
            step(volume.volume.id, index, len(opened))
            found = survey_windows(volume, problems, controllers)
            if found:
                windows += found
                opened[index] = replace(volume, volume=replace(volume.volume, windows_root=found[0].root))
            stores += survey_stores(volume)
        step("drivers", 0, 0)
        windows = survey_packages(windows, controllers, system.driver_folders(), opened, problems)
        step("paths", 0, 0)
        paths = survey_paths(stores, opened, problems)
    return Survey(
        version=__version__,
        taken=taken,
        system=system.name,
        firmware=firmware,
        controllers=controllers,
        disks=tuple(disks),
        volumes=tuple(volume.volume for volume in opened),
        windows=tuple(windows),
        boot_stores=tuple(stores),
        paths=paths,
        problems=tuple(problems),
        boot_code_writer=system.boot_code_writer(),
    )


def survey_images(
    images: Sequence[Path], progress: Progress | None = None, controllers: Sequence[Controller] = ()
) -> Survey:
    """Describes disk images (raw, qcow2, VHDX, VHD, VMDK) on a workstation, as if behind ``controllers``.

    Raises SystemError_ where none of them can be opened.
    """
    from rehost_payload.system.images import ImageSystem

    with ImageSystem(images, controllers) as system:
        return survey_machine(system, progress)


def _survey_one(
    handle: DiskHandle,
    disk_id: str,
    disks: list[Disk],
    opened: list[OpenVolume],
    problems: list[Problem],
) -> None:
    source = CachedSource(handle)
    try:
        disk = survey_disk(handle, source, disk_id)
        disks.append(disk)
        opened += survey_volumes(disk, source, problems)
    except OSError as error:
        problems.append(Problem("io", handle.info.path, str(error)))


def _problem(text: str) -> Problem:
    """A problem of the operating system's: "/dev/sdb: why"."""
    where, _, detail = text.partition(": ")
    return Problem("disk", where, detail or text)


def _silent(what: str, done: int, total: int) -> None:
    pass
