"""Makes one plan of many issues: what concerns one store becomes one write of that store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rehost_payload.formats.hive import HiveEdit
from rehost_payload.repair.issue import Issue, SettleFix, StoreFix
from rehost_payload.repair.model import (
    Action,
    CopyFile,
    CreateStore,
    EditHive,
    EditStore,
    Plan,
    WriteBootCode,
)
from rehost_payload.repair.view import View
from rehost_payload.survey.model import StoreState

# Files before the stores that need them, disk sectors after all volumes, the firmware last: at any instant of a
# power cut the machine starts at least as well as before.
_ORDER = (
    "copy-file",
    "create-store",
    "edit-store",
    "inject-driver",
    "edit-hive",
    "patch-bytes",
    "rebuild-gpt",
    "write-boot-code",
    "set-firmware-variable",
)


def compile_plan(view: View, issues: Sequence[Issue]) -> Plan:
    """The actions of all issues, without repetitions, in the order in which they are to be carried out."""
    actions: list[Action] = []
    edits: dict[str, list[HiveEdit]] = {}
    first_finding: dict[str, str] = {}
    findings: list[str] = []
    for issue in issues:
        if issue.fixes:
            findings.append(issue.finding.id)
        for fix in issue.fixes:
            if isinstance(fix, StoreFix):
                known = edits.setdefault(fix.store, [])
                known += [e for e in fix.edits if e not in known]
                first_finding.setdefault(fix.store, issue.finding.id)
            elif isinstance(fix, SettleFix):
                edits.setdefault(fix.store, [])
                first_finding.setdefault(fix.store, issue.finding.id)
            elif isinstance(fix, EditHive):
                _merge(fix, actions)
            elif isinstance(fix, WriteBootCode):
                _merge_boot_code(fix, actions)
            elif fix not in actions and not _repeated(fix, actions):
                actions.append(fix)
    stores = {s.id: s for s in view.survey.boot_stores}
    created = {(a.volume, a.path) for a in actions if isinstance(a, CreateStore)}
    for store_id, list_of_edits in edits.items():
        store = stores[store_id]
        volume = view.ref(view.volumes[store.volume])
        if (volume, store.path) in created:
            continue  # it is made anew anyway
        dirty = store.state is StoreState.DIRTY
        actions.append(
            EditStore(
                volume,
                store.path,
                store.sha256 or "",
                tuple(list_of_edits),
                first_finding[store_id],
                replay=dirty,
                remove_logs=store.logs if dirty else (),
            )
        )
    ordered = tuple(sorted(actions, key=lambda a: _ORDER.index(a.kind)))
    return Plan(ordered, tuple(dict.fromkeys(findings)))


def _merge(fix: EditHive, actions: list[Action]) -> None:
    """What several findings change in one hive is one action."""
    for number, action in enumerate(actions):
        if isinstance(action, EditHive) and (action.volume, action.path) == (fix.volume, fix.path):
            edits = (*action.edits, *(e for e in fix.edits if e not in action.edits))
            logs = tuple(dict.fromkeys((*action.remove_logs, *fix.remove_logs)))
            both = replace(action, edits=edits, replay=action.replay or fix.replay, remove_logs=logs)
            actions[number] = both
            return
    actions.append(fix)


def _merge_boot_code(fix: WriteBootCode, actions: list[Action]) -> None:
    """The code of a disk and of its volume are written in one go."""
    for number, action in enumerate(actions):
        if isinstance(action, WriteBootCode) and action.volume == fix.volume:
            actions[number] = replace(action, master=action.master or fix.master)
            return
    actions.append(fix)


def _repeated(fix: Action, actions: list[Action]) -> bool:
    """The same file copied for two findings."""
    return isinstance(fix, CopyFile) and any(
        isinstance(a, CopyFile) and (a.volume, a.path) == (fix.volume, fix.path) for a in actions
    )
