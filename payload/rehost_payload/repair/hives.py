"""Prepares the actions that change an installation's registry: EditHive and InjectDriver.

All actions on one hive become one write of it. Files that a driver package brings are written before the hive that
refers to them, and the hive's logs go after it: a power cut in between leaves files that nothing refers to, or the new hive
with logs that no longer belong to it and are passed over because it is clean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rehost_payload.drivers.hive_edits import still_needed
from rehost_payload.drivers.inject import CATALOGS, PUBLISHED, complete, inject
from rehost_payload.drivers.inject_model import InjectError, Injection, Package, files_of_windows
from rehost_payload.drivers.inject_names import oem_number, taken_numbers
from rehost_payload.drivers.inject_package import read_package
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.filesystem import FileSystemReader
from rehost_payload.formats.hive import Hive, HiveEdit, needs_replay, replay
from rehost_payload.formats.inf_target import Target, target_of
from rehost_payload.repair.errors import ApplyError
from rehost_payload.repair.journal import sha256
from rehost_payload.repair.locate import reading
from rehost_payload.repair.model import EditHive, InjectDriver, VolumeRef
from rehost_payload.repair.prepared import HiveAction, PreparedFile
from rehost_payload.system.protocol import System

SYSTEM_HIVE = r"System32\config\SYSTEM"
_DRIVERS_HIVE = r"System32\config\DRIVERS"


def hive_path(action: HiveAction) -> str:
    """The hive that an action changes, on its volume."""
    return action.path if isinstance(action, EditHive) else f"{action.root}\\{SYSTEM_HIVE}"


def surveyed_hash(action: HiveAction) -> str:
    """What the hive's file was when it was surveyed."""
    return action.before_sha256 if isinstance(action, EditHive) else action.system_sha256


def hive_groups(actions: Iterable[object]) -> list[list[HiveAction]]:
    """The actions on each hive, packages first: what they bring may be the subject of the edits."""
    groups: dict[tuple[VolumeRef, str], list[HiveAction]] = {}
    for action in actions:
        if isinstance(action, EditHive | InjectDriver):
            groups.setdefault((action.volume, hive_path(action).lower()), []).append(action)
    return [sorted(g, key=lambda a: isinstance(a, EditHive)) for g in groups.values()]


def prepare_hive(
    group: Sequence[HiveAction], system: System, *, installed: bool = False
) -> list[PreparedFile]:
    """Computes the files and the hive that the actions of one group make. Raises ApplyError; writes nothing.

    ``installed``: a tool of Windows' own has installed the group's packages since the survey; what it leaves to be done
    is computed.
    """
    volume, path = group[0].volume, hive_path(group[0])
    with reading(system, volume) as reader:
        current = reader.read(path) if reader.exists(path) else None
        found = None if current is None else sha256(current)
        if current is None or (not installed and any(surveyed_hash(a) != found for a in group)):
            raise ApplyError("stale-survey", f"{path} has changed since the survey")
        names = [log for a in group for log in a.remove_logs]
        if installed:
            names = [f"{path}{ending}" for ending in (".LOG1", ".LOG2")]
        logs = [
            PreparedFile(volume, log, reader.read(log), None)
            for log in dict.fromkeys(names)
            if reader.exists(log)
        ]
        new = cleaned(path, current, logs, allowed=installed or any(a.replay for a in group))
        files: dict[str, PreparedFile] = {}
        pending: list[HiveEdit] = []
        for action in group:
            if isinstance(action, EditHive):
                pending += [e for e in action.edits if e not in pending]
                continue
            if pending:  # the next package has to see what the one before it has taken
                new, pending = system.edit_hive(new, pending), []
            injection = _inject(action, reader, Hive.parse(new), files, installed=installed)
            pending += injection.edits
            for file in injection.files:
                full = f"{action.root}\\{file.path}"
                before = reader.read(full) if reader.exists(full) else None
                files[full.lower()] = PreparedFile(volume, full, before, file.data)
        # what an earlier run has done is not done again: hives are not rewritten for nothing
        if next(still_needed(Hive.parse(new), pending), None) is not None:
            new = system.edit_hive(new, pending)
    if new == current:
        logs = []  # nothing to write: they stay with their hive
    return [*files.values(), PreparedFile(volume, path, current, new), *logs]


def cleaned(path: str, current: bytes, logs: Sequence[PreparedFile], *, allowed: bool) -> bytes:
    """A hive or boot store with its logs applied, where it needs them. ApplyError ("dirty") unless that is ``allowed``."""
    if not needs_replay(current):
        return current
    if not allowed:
        raise ApplyError("dirty", f"{path} is dirty and the plan does not replay its logs")
    return replay(current, [log.before for log in logs if log.before]).data


def surveyed_package(action: InjectDriver) -> Package:
    """The package, as it was when it was verified. ApplyError ("stale-survey") where it is another; InjectError, OSError."""
    package = read_package(Path(action.package), action.inf)
    found = package.find(action.inf)
    other = bool(action.package_sha256) and package.sha256 != action.package_sha256
    if found is None or sha256(found[1]) != action.inf_sha256 or other:
        raise ApplyError("stale-survey", f"{action.inf} in {action.package} has changed since the survey")
    return package


def _inject(
    action: InjectDriver,
    reader: FileSystemReader,
    hive: Hive,
    written: dict[str, PreparedFile],
    *,
    installed: bool,
) -> Injection:
    """``written``: files of the packages before this one."""

    on_disk = files_of_windows(reader, action.root)

    def read(path: str) -> bytes | None:
        known = written.get(f"{action.root}\\{path}".lower())
        return known.after if known is not None else on_disk(path)

    try:
        package = surveyed_package(action)
        if installed:
            injection = complete(package, action.hardware_ids, _target(action), hive, read)
        else:
            taken = set(_taken(reader, action.root))
            taken |= {n for path in written if (n := oem_number(path.rpartition("\\")[2])) is not None}
            injection = inject(package, action.hardware_ids, _target(action), hive, read, taken)
    except InjectError as e:
        raise ApplyError(f"driver-{e.code}", f"{action.inf} in {action.package}: {e.detail}") from e
    except OSError as e:
        raise ApplyError("driver-file-missing", f"{action.package}: {e}") from e
    if injection.services[0].lower() != action.service.lower():
        raise ApplyError(
            "stale-survey", f"{action.inf} installs {injection.services[0]}, not {action.service}"
        )
    return injection


def _target(action: InjectDriver) -> Target:
    try:
        return target_of(str(action.build), action.product_type)
    except ValueError as e:
        raise InjectError("no-model", str(e)) from e


def _taken(reader: FileSystemReader, root: str) -> Iterator[int]:
    """Numbers of oemNN.inf in use: as INF, as catalog, and in the database of the drivers that are not for booting."""
    for folder in (PUBLISHED, CATALOGS):
        path = f"{root}\\{folder}"
        for entry in reader.listdir(path) if reader.is_directory(path) else ():
            number = oem_number(f"{entry.name.rpartition('.')[0]}.inf")
            if number is not None:
                yield number
    path = f"{root}\\{_DRIVERS_HIVE}"
    if reader.exists(path):
        try:
            yield from taken_numbers(Hive.parse(reader.read(path)))
        except FormatError:
            return  # the files' names say the same
