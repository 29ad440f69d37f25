"""undo: puts back what a journal holds, newest change first; also after a power cut in the middle of apply or undo.

Each step is judged by what is there now. Old already: nothing to do. New: the original goes back. Neither: somebody
has changed it since; nothing at all is written then, unless ``force`` is given. What is lost by that is kept beside the
originals.

Where a program that is not ours failed or was cut off, nobody knows what is new: the original goes back, and before
anything else is judged, because the partition table by which volumes are found may be among it. But if there is now
another table or another volume, or Windows was started meanwhile, that is somebody's change as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress

from rehost_payload.formats import boot_code
from rehost_payload.formats.errors import FormatError
from rehost_payload.repair.errors import ApplyError
from rehost_payload.repair.journal import (
    Entry,
    FileStep,
    FolderStep,
    Journal,
    JournalContent,
    SectorsStep,
    Step,
    TreeStep,
    VariableStep,
    sha256,
)
from rehost_payload.repair.locate import locate_disk, reading
from rehost_payload.repair.model import Change
from rehost_payload.repair.tree import (
    TreeRecord,
    read_record,
    restore_tree,
    signs_of_a_start,
    tree_conflicts,
)
from rehost_payload.repair.writing import Mounts, overlaid, put_sectors, put_variable, remove_leftover
from rehost_payload.system.protocol import Progress, System, SystemError_, WritableVolume

_EMPTY = sha256(b"")


def undo(
    journal: Journal,
    system: System,
    progress: Progress | None = None,
    force: bool = False,
    *,
    rolling_back: bool = False,
) -> tuple[Change, ...]:
    """Restores everything that ``journal`` says was changed. Returns what was put back.

    ``rolling_back``: the run itself does it, so that nobody else can have written since.
    Raises ApplyError("conflict") before anything is written if something was changed since by somebody else; only what a
    program of somebody else's was interrupted at is back then.
    Safe to run again: what is back already is left alone. Putting back goes on where the journal cannot be added to (its
    volume is full, or gone read-only): its lines only save the next undo work.
    """
    content = journal.reopen()
    if content.all_undone:
        return ()
    if content.complete and not force and _nothing_of_it_is_here(content, system):
        raise ApplyError(
            "journal",
            "nothing is left to undo: all is as it was before that run; was it another server's?",
            False,
        )
    changes: list[Change] = []
    number = 0
    with ExitStack() as stack:
        mounts = Mounts(system, stack)
        for entries in _stages(content.open_entries):
            conflicts = [*_conflicts(entries, mounts, system), *_in_trees(entries, content, journal, mounts)]
            if not rolling_back:
                conflicts += _since_a_cut(entries, journal, system)
            if conflicts and not force:
                raise ApplyError("conflict", "changed since by somebody else: " + "; ".join(conflicts), False)
            for entry in entries:
                if progress is not None:
                    progress(_where(entry), number, len(content.entries))
                if isinstance(entry.step, SectorsStep):
                    mounts.close()
                changes += put_back(entry.step, journal, mounts, system, keep=force)
                with suppress(SystemError_):
                    journal.undone(entry.seq)
                number += 1
        mounts.close()
    with suppress(SystemError_):
        journal.all_undone()
    if progress is not None:
        progress("", len(content.entries), len(content.entries))
    return tuple(changes)


def _nothing_of_it_is_here(content: JournalContent, system: System) -> bool:
    """Whether a run that was completed, and of which nothing was taken back, has left no trace: servers that were made of
    one image have the same identities, and the journal is to stay good for the one it belongs to."""
    if not content.entries or any(e.undone for e in content.entries):
        return False
    with ExitStack() as stack:
        mounts = Mounts(system, stack)
        return all(_is_old(e.step, mounts, system) for e in content.open_entries)


def _is_old(step: Step, mounts: Mounts, system: System) -> bool:
    if isinstance(step, FileStep):
        return _file_hash(mounts.of(step.volume), step.path) == step.before_sha256
    if isinstance(step, FolderStep):
        return not mounts.of(step.volume).exists(step.path)
    if isinstance(step, SectorsStep):
        before = bytes.fromhex(step.before)
        with locate_disk(system, step.disk) as disk:
            return disk.read_at(step.offset, len(before)) == before
    if isinstance(step, VariableStep):
        now = system.firmware_variable(step.name)
        return (None if now is None else now.hex()) == step.before
    return False


def _stages(entries: Sequence[Entry]) -> Sequence[Sequence[Entry]]:
    """Newest first: what is put back before the rest is judged, down to the oldest step that does not know what was
    written; and the rest."""
    unknown = [n for n, e in enumerate(entries) if isinstance(e.step, SectorsStep) and not e.step.after]
    first = unknown[-1] + 1 if unknown else 0
    return entries[:first], entries[first:]


def _where(entry: Entry) -> str:
    step = entry.step
    if isinstance(step, FileStep | FolderStep):
        return step.path
    return step.name if isinstance(step, VariableStep) else step.what


def _file_hash(volume: WritableVolume, path: str) -> str | None:
    return sha256(volume.read(path)) if volume.exists(path) else None


def _conflicts(entries: Sequence[Entry], mounts: Mounts, system: System) -> list[str]:
    """What stands in the way of putting these steps back, newest first. Steps may concern the same sectors: each is judged
    by what will be there when the newer ones have been put back."""
    found: list[str] = []
    restored: list[SectorsStep] = []
    for entry in entries:
        if isinstance(entry.step, SectorsStep):
            conflict = _sector_conflict(entry.step, restored, system)
            restored.append(entry.step)
        else:
            conflict = _conflict(entry, mounts, system)
        if conflict is not None:
            found.append(conflict)
    return found


def _in_trees(
    entries: Sequence[Entry], content: JournalContent, journal: Journal, mounts: Mounts
) -> Iterator[str]:
    """Files that somebody has changed since a tool of Windows' own did. What we wrote after it is judged for itself."""
    for entry in entries:
        if isinstance(entry.step, TreeStep):
            ours = {
                e.step.path.lower()
                for e in content.open_entries
                if e.seq > entry.seq and isinstance(e.step, FileStep) and e.step.volume == entry.step.volume
            }
            record = read_record(journal, entry.step)
            yield from tree_conflicts(record, entry.step.after, mounts.of(entry.step.volume), ours)


def _since_a_cut(entries: Sequence[Entry], journal: Journal, system: System) -> Iterator[str]:
    """Signs that somebody went on working where a program that is not ours was cut off, and nobody knows what it wrote."""
    for entry in entries:
        step = entry.step
        if isinstance(step, SectorsStep) and not step.after:
            before = bytes.fromhex(step.before)
            with locate_disk(system, step.disk) as disk:
                now = disk.read_at(step.offset, len(before))
            if _is_another(step.offset, before, now):
                what = "volume" if step.offset else "partition table"
                yield f"{step.what} on {step.disk.path} (another {what} is there now)"
        elif isinstance(step, TreeStep) and step.after is None:
            changed = changed_by_a_start(read_record(journal, step), step, system)
            if changed:
                yield f"{step.what}: Windows was started since it was cut off ({', '.join(changed)} changed)"


def changed_by_a_start(record: TreeRecord, step: TreeStep, system: System) -> list[str]:
    """The files by which it is seen that Windows was started since the step was begun. SystemError_, OSError."""
    try:
        with reading(system, step.volume) as reader:
            now = signs_of_a_start(reader, (path for path, _ in record.signs))
    except FormatError as e:
        raise SystemError_("mount", f"{step.volume.disk} at {step.volume.offset:#x}: {e}") from e
    return [path for path, digest in record.signs if now[path] != digest]


def _is_another(offset: int, before: bytes, now: bytes) -> bool:
    """Whether sectors with boot code have another partition table, or are of another volume, than they were when saved.
    One that is empty or damaged is not another: that may be the work of the program that was cut off."""
    kind = boot_code.kind_of(before)
    if kind is not None:
        same = boot_code.kind_of(now) == kind
        return same and boot_code.parameters(kind, now) != boot_code.parameters(kind, before)
    if offset:
        return False  # a later stage of the code
    table = slice(boot_code.MASTER_CODE, 510)
    entries = now[446:510]
    whole = now[510:512] == before[510:512] and any(entries) and not any(e & 0x7F for e in entries[::16])
    return whole and now[table] != before[table]


def _sector_conflict(step: SectorsStep, newer: Sequence[SectorsStep], system: System) -> str | None:
    if not step.after:
        return None
    before, after = bytes.fromhex(step.before), bytes.fromhex(step.after)
    with locate_disk(system, step.disk) as disk:
        now = disk.read_at(step.offset, len(before))
    now = overlaid(
        now, step.offset, ((s.offset, bytes.fromhex(s.before)) for s in newer if s.disk == step.disk)
    )
    # a cut in the middle of several sectors leaves some old and some new ones
    return None if _mixed(now, before, after) else f"{step.what} on {step.disk.path}"


def _conflict(entry: Entry, mounts: Mounts, system: System) -> str | None:
    """Says what stands in the way of putting this step back, or None."""
    step = entry.step
    if isinstance(step, FileStep):
        allowed = {step.before_sha256, step.after_sha256}
        if step.before_sha256 is None:
            # Linux' vfat gives a new file its name before its size: what a power cut leaves of it is empty
            allowed.add(_EMPTY)
        return None if _file_hash(mounts.of(step.volume), step.path) in allowed else step.path
    if isinstance(step, VariableStep):
        now_value = system.firmware_variable(step.name)
        current = None if now_value is None else now_value.hex()
        return None if current in (step.before, step.after) else step.name
    return None


def _mixed(now: bytes, before: bytes, after: bytes, sector: int = 512) -> bool:
    return all(
        now[i : i + sector] in (before[i : i + sector], after[i : i + sector])
        for i in range(0, len(before), sector)
    )


def put_back(
    step: Step, journal: Journal, mounts: Mounts, system: System, *, keep: bool = False
) -> list[Change]:
    """Undoes one step, whatever is there now. ``keep``: files that somebody else has changed since are saved before."""
    if isinstance(step, TreeStep):
        record, volume = read_record(journal, step), mounts.of(step.volume)
        return restore_tree(record, step.after, volume, journal, keep=keep)
    change = _restore(step, journal, mounts, system, keep)
    return [] if change is None else [change]


def _restore(
    step: FileStep | FolderStep | SectorsStep | VariableStep,
    journal: Journal,
    mounts: Mounts,
    system: System,
    keep: bool,
) -> Change | None:
    if isinstance(step, FileStep):
        return _restore_file(step, journal, mounts.of(step.volume), keep)
    if isinstance(step, FolderStep):
        volume = mounts.of(step.volume)
        if not volume.exists(step.path) or volume.listdir(step.path):
            return None  # never made, or in use by others since
        volume.remove_directory(step.path)
        return Change("folder", step.path, "present", "absent")
    if isinstance(step, SectorsStep):
        before = bytes.fromhex(step.before)
        with locate_disk(system, step.disk) as disk:
            now = disk.read_at(step.offset, len(before))
        if now == before:
            return None
        put_sectors(step, before, system)
        where = f"{step.what} ({step.disk.path} at {step.offset})"
        return Change("sectors", where, sha256(now), sha256(before))
    now_value = system.firmware_variable(step.name)
    if (None if now_value is None else now_value.hex()) == step.before:
        return None
    put_variable(step.name, step.before, system)
    return Change("variable", step.name, step.after or "absent", step.before or "absent")


def _restore_file(step: FileStep, journal: Journal, volume: WritableVolume, keep: bool) -> Change | None:
    remove_leftover(volume, step.path)
    now = _file_hash(volume, step.path)
    if now == step.before_sha256:
        return None
    if keep and now is not None and now != step.after_sha256:
        journal.keep_replaced(now, volume.read(step.path))
    if step.before_sha256 is None:
        volume.remove(step.path)
    else:
        original = journal.original(step)
        volume.replace(step.path, original)
        if volume.read(step.path) != original:
            raise ApplyError("verify-write", f"{step.path} does not read back as it was restored", False)
    return Change("file", step.path, now or "absent", step.before_sha256 or "absent")
