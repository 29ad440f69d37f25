"""apply: executes a plan, saving every original first; what fails half-way is rolled back.

Three passes. *Prepare* reads everything, computes every new content in memory and checks it: a plan that
cannot be carried out whole (stale survey, damaged source) fails here, before anything is written. *Check* asks
the mounted target volumes for space. *Commit* announces each change in the journal, makes it, reads it back; where DISM
was chosen it installs the driver packages first (dism.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace

from rehost_payload.formats import gpt
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.hive import minimal_hive
from rehost_payload.repair import dism
from rehost_payload.repair.boot_code import BOOT_CODE, check_boot_code, write_boot_code
from rehost_payload.repair.errors import ApplyError
from rehost_payload.repair.hives import cleaned, hive_groups, hive_path, prepare_hive
from rehost_payload.repair.journal import (
    FileStep,
    FolderStep,
    Journal,
    SectorsStep,
    VariableStep,
    sha256,
)
from rehost_payload.repair.locate import locate_disk, read_file
from rehost_payload.repair.model import (
    Action,
    Change,
    CopyFile,
    CreateStore,
    EditHive,
    EditStore,
    InjectDriver,
    Note,
    PatchBytes,
    Plan,
    RebuildGpt,
    SetFirmwareVariable,
    VolumeRef,
    WriteBootCode,
)
from rehost_payload.repair.prepared import Installation, Prepared, PreparedFile
from rehost_payload.repair.undo import put_back, undo
from rehost_payload.repair.writing import Mounts, overlaid, put_sectors, put_variable, remove_leftover
from rehost_payload.system.protocol import DriverTool, Progress, System, SystemError_, WritableVolume

STORE_ROOT = "NewStoreRoot"
# what a folder entry, a temporary file and cluster rounding may take beside the bytes themselves
_SLACK_PER_FILE = 64 * 1024


@dataclass(frozen=True)
class Applied:
    """What was changed. ``by_tool``: packages were installed by the tool of Windows' own."""

    changes: tuple[Change, ...]
    notes: tuple[Note, ...] = ()
    by_tool: bool = False


def apply_plan(
    plan: Plan,
    system: System,
    journal: Journal,
    progress: Progress | None = None,
    tool: DriverTool | None = None,
) -> Applied:
    """Carries out ``plan``, driver packages by ``tool`` where there is one and it succeeds.

    Returns what was changed; raises ApplyError and rolls back where a step fails. KeyboardInterrupt is treated like a
    failure: rolled back, then raised again.
    """
    prepared = prepare(plan, system)
    return commit(prepared, system, journal, progress, tool)


def prepare(plan: Plan, system: System) -> Prepared:
    """Reads, computes and checks everything that the plan needs; writes nothing."""
    files: list[PreparedFile] = []
    sectors: list[SectorsStep] = []
    boot_code: list[WriteBootCode] = []
    variables: list[SetFirmwareVariable] = []
    for action in plan.actions:
        with _named(action):
            if isinstance(action, EditStore | CreateStore):
                files += _prepare_store(action, system)
            elif isinstance(action, CopyFile):
                files.append(_prepare_copy(action, system))
            elif isinstance(action, PatchBytes | RebuildGpt):
                sectors += _prepare_sectors(action, system, sectors)
            elif isinstance(action, WriteBootCode):
                check_boot_code(action, system)
                boot_code.append(action)
            elif isinstance(action, SetFirmwareVariable):
                _check_variable(action, system)
                variables.append(action)
    installations: list[Installation] = []
    for group in hive_groups(plan.actions):
        with _named(group[0]):
            own = _changed(prepare_hive(group, system))
        if own and any(isinstance(a, InjectDriver) for a in group):
            installations.append(Installation(tuple(group), own))
        files += own
    return Prepared(_changed(files), tuple(sectors), tuple(boot_code), tuple(variables), tuple(installations))


def _changed(files: Iterable[PreparedFile]) -> tuple[PreparedFile, ...]:
    """A file that already has the wanted content is not written."""
    return tuple(f for f in files if f.before != f.after)


@contextmanager
def _named(action: Action) -> Iterator[None]:
    """Says in which action an error was."""
    try:
        yield
    except SystemError_ as e:
        raise ApplyError(_code(e), f"{_name(action)}: {e.detail}") from e
    except FormatError as e:
        raise ApplyError("verify-write", f"{_name(action)}: {e}") from e
    except OSError as e:
        raise ApplyError("volume-gone", f"{_name(action)}: {e}") from e


def _prepare_store(action: EditStore | CreateStore, system: System) -> list[PreparedFile]:
    current = read_file(system, action.volume, action.path)
    found = None if current is None else sha256(current)
    if found != action.before_sha256:
        raise ApplyError("stale-survey", f"{action.path} has changed since the survey")
    logs = []
    for path in action.remove_logs:
        data = read_file(system, action.volume, path)
        if data is not None:
            logs.append(PreparedFile(action.volume, path, data, None))
    if isinstance(action, CreateStore):
        base = minimal_hive(STORE_ROOT)
    else:
        assert current is not None
        base = cleaned(action.path, current, logs, allowed=action.replay)
    new = system.edit_hive(base, action.edits)
    # the store first: without its logs the old dirty one would be worth less than the new clean one
    return [PreparedFile(action.volume, action.path, current, new), *logs]


def _prepare_copy(action: CopyFile, system: System) -> PreparedFile:
    data = read_file(system, action.source, action.source_path)
    if data is None:
        raise ApplyError("stale-survey", f"{action.source_path} is not there any more")
    if len(data) != action.size:
        raise ApplyError("stale-survey", f"{action.source_path} has changed its size since the survey")
    current = read_file(system, action.volume, action.path)
    keep = current is not None and not action.replace
    return PreparedFile(action.volume, action.path, current, current if keep else data)


def _prepare_sectors(
    action: PatchBytes | RebuildGpt, system: System, earlier: Sequence[SectorsStep]
) -> list[SectorsStep]:
    """``earlier``: what will have been written then; two actions may concern one sector."""
    with locate_disk(system, action.disk) as disk:
        if disk.info.read_only:
            raise ApplyError("read-only", f"{disk.info.path} is read-only")
        size = disk.info.sector_size
        known = [(s.offset, bytes.fromhex(s.after)) for s in earlier if s.disk == action.disk]

        def read(offset: int, length: int) -> bytes:
            return overlaid(disk.read_at(offset, length), offset, known)

        if isinstance(action, PatchBytes):
            writes = [_patched(action, read, disk.info.path, size)]
            what = action.what
        else:
            table = gpt.parse(disk, size)
            writes = gpt.rebuild_primary(table) if action.copy == "primary" else gpt.rebuild_backup(table)
            what = f"gpt-{action.copy}"
        return [
            SectorsStep(action.disk, w.offset, read(w.offset, len(w.data)).hex(), w.data.hex(), what)
            for w in writes
        ]


def _patched(action: PatchBytes, read: Callable[[int, int], bytes], disk: str, sector_size: int) -> gpt.Write:
    before, after = bytes.fromhex(action.before), bytes.fromhex(action.after)
    if len(before) != len(after):
        raise ApplyError("write", f"{action.what}: the plan's bytes differ in length")
    start = action.offset // sector_size * sector_size
    end = -(-(action.offset + len(before)) // sector_size) * sector_size
    sectors = bytearray(read(start, end - start))
    place = slice(action.offset - start, action.offset - start + len(before))
    if bytes(sectors[place]) != before:
        raise ApplyError("stale-survey", f"{action.what}: {disk} has changed since the survey")
    sectors[place] = after
    return gpt.Write(start, bytes(sectors))


def _check_variable(action: SetFirmwareVariable, system: System) -> None:
    current = system.firmware_variable(action.name)
    if current != (None if action.before is None else bytes.fromhex(action.before)):
        raise ApplyError("stale-survey", f"the firmware variable {action.name} has changed since the survey")


def commit(
    prepared: Prepared,
    system: System,
    journal: Journal,
    progress: Progress | None = None,
    tool: DriverTool | None = None,
) -> Applied:
    """Writes what was prepared. All or nothing, as far as the machine lets us."""
    changes: list[Change] = []
    notes: list[Note] = []
    by_tool = False
    begun: list[_Made] = []
    with ExitStack() as stack:
        mounts = Mounts(system, stack)
        try:
            _check_journal(prepared.files, journal)
            _check_space(prepared.files, mounts)
            if tool is not None and prepared.installations:
                mounts.close()  # what the tool has written is then seen by whoever mounts the volume next
                prepared, made, notes = _by_tool(prepared, system, tool, journal, progress)
                changes += made
                by_tool = bool(made)
                _check_journal(prepared.files, journal)
                _check_space(prepared.files, mounts)
            total = sum(
                len(x) for x in (prepared.files, prepared.sectors, prepared.boot_code, prepared.variables)
            )
            numbers = itertools.count()
            for item in prepared.files:
                _report(progress, item.path, next(numbers), total)
                changes += _write_file(item, mounts.of(item.volume), journal, begun)
            for patch in prepared.sectors:
                _report(progress, patch.what, next(numbers), total)
                mounts.close()  # the table of a disk is not changed under a mounted volume
                changes.append(_write_sectors(patch, system, journal, begun))
            for code in prepared.boot_code:
                _report(progress, code.kind, next(numbers), total)
                mounts.close()
                changes += write_boot_code(code, system, journal)
            for variable in prepared.variables:
                _report(progress, variable.name, next(numbers), total)
                changes.append(_write_variable(variable, system, journal, begun))
            mounts.close()  # unmounting is part of the work: it may fail too
            journal.complete()
            _report(progress, "", total, total)
        except BaseException as e:
            with suppress(SystemError_):
                mounts.close()
            try:
                _roll_back(e, system, journal, begun)
            except ApplyError as error:
                error.notes = tuple(notes)
                raise
            raise
    return Applied(tuple(changes), tuple(notes), by_tool)


def _by_tool(
    prepared: Prepared, system: System, tool: DriverTool, journal: Journal, progress: Progress | None
) -> tuple[Prepared, list[Change], list[Note]]:
    """Packages installed by the tool, and what is left to be written then; where it fails all is left to us."""
    files = list(prepared.files)
    changes: list[Change] = []
    notes: list[Note] = []
    for installation in prepared.installations:
        try:
            left, made = dism.install(
                installation.actions, system, tool, journal, lambda: _report(progress, "dism", 0, 0)
            )
        except dism.DismError as e:
            notes.append(Note("dism-failed", {"detail": str(e)}))
            continue
        files = [f for f in files if f not in installation.files] + list(_changed(left))
        changes += made
    return replace(prepared, files=tuple(files)), changes, notes


_Made = PreparedFile | FolderStep | SectorsStep | VariableStep
"""What was begun by us ourselves, with what was there before."""


def _roll_back(cause: BaseException, system: System, journal: Journal, made: Sequence[_Made]) -> None:
    """Undoes what this run has done; raises ApplyError for ``cause`` unless that is an interruption."""
    error = _as_apply_error(cause)
    try:
        undo(journal, system, rolling_back=True)
    except (ApplyError, SystemError_, OSError) as e:
        if not _put_back_from_memory(made, journal, system):
            raise ApplyError(
                error.code, f"{error.detail}; rolling back failed as well: {e}", rolled_back=False
            ) from cause
    if isinstance(cause, Exception):
        raise ApplyError(error.code, error.detail, rolled_back=True) from cause


def _put_back_from_memory(made: Sequence[_Made], journal: Journal, system: System) -> bool:
    """The stick with the originals was pulled out in the middle, say. False where that does not bring all back: what a
    program of somebody else's has changed is not held in memory."""
    if journal.open_ended:
        return False
    try:
        with ExitStack() as stack:
            mounts = Mounts(system, stack)
            for step in reversed(made):
                if isinstance(step, PreparedFile):
                    _put_file_back(step, mounts.of(step.volume))
                    continue
                if isinstance(step, SectorsStep):
                    mounts.close()
                put_back(step, journal, mounts, system)
            mounts.close()
    except (ApplyError, SystemError_, OSError):
        return False
    return True


def _put_file_back(item: PreparedFile, volume: WritableVolume) -> None:
    remove_leftover(volume, item.path)
    now = volume.read(item.path) if volume.exists(item.path) else None
    if item.before is None:
        if now is not None:
            volume.remove(item.path)
    elif now != item.before:
        volume.replace(item.path, item.before)
        if volume.read(item.path) != item.before:
            raise ApplyError("verify-write", f"{item.path} does not read back as it was", False)


def _as_apply_error(cause: BaseException) -> ApplyError:
    if isinstance(cause, ApplyError):
        return cause
    if isinstance(cause, SystemError_):
        return ApplyError(_code(cause), cause.detail)
    return ApplyError("write", f"{type(cause).__name__}: {cause}")


def _check_journal(files: Sequence[PreparedFile], journal: Journal) -> None:
    """The originals must fit: the registry of a Windows alone may have 100 MB."""
    wanted = sum(len(f.before) + _SLACK_PER_FILE for f in files if f.before is not None)
    free = journal.volume.free()
    if free < wanted:
        raise ApplyError("journal", f"{free} bytes are free for the originals, {wanted} are needed")


def _check_space(files: Sequence[PreparedFile], mounts: Mounts) -> None:
    """Before the first write: the new files beside the old ones, plus one temporary file, must fit."""
    need: dict[VolumeRef, int] = {}
    largest: dict[VolumeRef, int] = {}
    for f in files:
        if f.after is not None:
            grown = max(0, len(f.after) - len(f.before or b""))
            need[f.volume] = need.get(f.volume, 0) + grown + (_SLACK_PER_FILE if f.before is None else 0)
            largest[f.volume] = max(largest.get(f.volume, 0), len(f.before or b"") + _SLACK_PER_FILE)
    for ref, size in need.items():
        wanted = size + largest[ref]
        free = mounts.of(ref).free()
        if free < wanted:
            name = ref.label or ref.partition_guid or ref.disk
            raise ApplyError("no-space", f"{name}: {free} bytes are free, {wanted} are needed")


def _write_file(
    item: PreparedFile, volume: WritableVolume, journal: Journal, made: list[_Made]
) -> list[Change]:
    current = volume.read(item.path) if volume.exists(item.path) else None
    if current != item.before:
        raise ApplyError("stale-survey", f"{item.path} reads differently through the mounted volume")
    changes = []
    if item.after is not None:
        for folder in _missing_folders(volume, item.path):
            seq = journal.begin(FolderStep(item.volume, folder))
            made.append(FolderStep(item.volume, folder))
            volume.make_directory(folder)
            journal.done(seq)
            changes.append(Change("folder", folder, "absent", "present"))
    before = None if item.before is None else sha256(item.before)
    after = None if item.after is None else sha256(item.after)
    seq = journal.begin(FileStep(item.volume, item.path, before, after), item.before)
    made.append(item)
    if item.after is None:
        volume.remove(item.path)
    else:
        volume.replace(item.path, item.after)
        if volume.read(item.path) != item.after:
            raise ApplyError("verify-write", f"{item.path} does not read back as it was written")
    journal.done(seq)
    changes.append(Change("file", item.path, before or "absent", after or "absent"))
    return changes


def _missing_folders(volume: WritableVolume, path: str) -> list[str]:
    parts = path.strip("\\").split("\\")[:-1]
    folders = ["\\" + "\\".join(parts[: i + 1]) for i in range(len(parts))]
    return [f for f in folders if not volume.exists(f)]


def _write_sectors(step: SectorsStep, system: System, journal: Journal, made: list[_Made]) -> Change:
    seq = journal.begin(step)
    made.append(step)
    put_sectors(step, bytes.fromhex(step.after), system)
    journal.done(seq)
    where = f"{step.what} ({step.disk.path} at {step.offset})"
    return Change("sectors", where, sha256(bytes.fromhex(step.before)), sha256(bytes.fromhex(step.after)))


def _write_variable(
    variable: SetFirmwareVariable, system: System, journal: Journal, made: list[_Made]
) -> Change:
    step = VariableStep(variable.name, variable.before, variable.after)
    seq = journal.begin(step)
    made.append(step)
    put_variable(variable.name, variable.after, system)
    journal.done(seq)
    return Change("variable", variable.name, variable.before or "absent", variable.after or "absent")


def _report(progress: Progress | None, what: str, done: int, total: int) -> None:
    if progress is not None:
        progress(what, done, total)


def _name(action: Action) -> str:
    match action:
        case PatchBytes():
            return action.what
        case WriteBootCode():
            return BOOT_CODE
        case RebuildGpt():
            return f"gpt-{action.copy}"
        case SetFirmwareVariable():
            return action.name
        case EditHive() | InjectDriver():
            return hive_path(action)
        case _:
            return action.path


_CODES = {
    "no-space": "no-space",
    "read-only": "read-only",
    "dirty": "dirty",
    "hibernated": "hibernated",
    "gone": "volume-gone",
    "volume-gone": "volume-gone",
    "firmware": "firmware",
    "boot-code": "boot-code",
}


def _code(e: SystemError_) -> str:
    return _CODES.get(e.code, "write")
