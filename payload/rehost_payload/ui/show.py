"""Survey, diagnosis, plan and result as lines of plain text, for the menu, the command line and unattended runs."""

from __future__ import annotations

import re
import struct
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from rehost_payload.formats.hive import (
    REG_DWORD,
    REG_EXPAND_SZ,
    REG_MULTI_SZ,
    REG_SZ,
    CreateKey,
    DeleteKey,
    DeleteValue,
    HiveEdit,
    SetValue,
    decode_string,
    decode_strings,
)
from rehost_payload.repair.model import (
    Action,
    Change,
    CopyFile,
    CreateStore,
    Diagnosis,
    EditHive,
    EditStore,
    Finding,
    InjectDriver,
    Note,
    PatchBytes,
    Plan,
    RebuildGpt,
    ResultWord,
    RunResult,
    SetFirmwareVariable,
    Severity,
    Verdict,
    Verification,
    WriteBootCode,
)
from rehost_payload.survey.model import Disk, Survey, Volume
from rehost_payload.ui import describe
from rehost_payload.ui.describe import Names
from rehost_payload.ui.run import EXIT
from rehost_payload.ui.texts import Texts, ascii_fold

_ORDER = (Severity.BLOCKER, Severity.FATAL, Severity.WARNING, Severity.INFO)
# evidence of one group of findings on the screen; the report has all of it
_EVIDENCE = 2
_EVIDENCE_OF_DRIVERS = 8  # why each package at hand was or was not taken


@dataclass(frozen=True)
class Page:
    """Lays text out in ``width`` columns. Nothing here writes anything.

    ``ascii``: for a console that shows ä as ae, which makes lines longer.
    """

    names: Names
    width: int = 79
    ascii: bool = False

    @property
    def t(self) -> Texts:
        return self.names.texts

    def wrap(self, text: str, indent: int = 0, hanging: int = 0) -> list[str]:
        return textwrap.wrap(
            ascii_fold(text) if self.ascii else text,
            self.width,
            initial_indent=" " * indent,
            subsequent_indent=" " * (indent + hanging),
            break_on_hyphens=False,
        ) or [""]

    def heading(self, text: str) -> list[str]:
        lines = self.wrap(text)
        return ["", *lines, "-" * max(len(line) for line in lines)]

    def labelled(self, label: str, text: str, indent: int = 2) -> list[str]:
        return self.wrap(f"{label} {text}", indent, 2)

    # --- diagnosis -----------------------------------------------------------------------------------------

    def diagnosis(self, diagnosis: Diagnosis) -> list[str]:
        if not diagnosis.findings:
            return [*self.heading(self.t("show.findings")), *self.wrap(self.t("show.no-findings"))]
        out = self.heading(self.t("show.findings"))
        explained: set[tuple[str, bool]] = set()
        for group in grouped(diagnosis.findings):
            key = (group[0].id, group[0].repairable)
            out += self._group(group, key not in explained)
            explained.add(key)
        return out

    def _group(self, group: list[Finding], explain: bool) -> Iterator[str]:
        """Findings of one kind: each with its title and evidence, the explanation and the remedy once."""
        first = group[0]
        yield ""
        for f in group:
            yield from self.wrap(f"{self.t(f'severity.{f.severity.value}')}  {title(f, self.names)}", 0, 4)
        if explain:
            yield from self.labelled(self.t("show.cause"), part(first, "explain", self.names) or "")
            yield from self.labelled(*remedy(first, self.names))
        evidence = [line for f in group for line in f.evidence]
        most = _EVIDENCE_OF_DRIVERS if first.id.startswith("driver.") else _EVIDENCE
        for line in evidence[:most]:
            yield from self.labelled(self.t("show.evidence"), line)
        if len(evidence) > most:
            yield from self.wrap(self.t("show.more", count=len(evidence) - most), 4)

    # --- plan ----------------------------------------------------------------------------------------------

    def plan(self, plan: Plan) -> list[str]:
        out = self.heading(self.t("show.plan"))
        if not plan.actions:
            return [*out, *self.wrap(self.t("show.plan-empty"))]
        for number, action in enumerate(plan.actions, 1):
            out += self.wrap(f"{number}. {action_text(action, self.names)}", 0, 3)
            for detail in action_details(action, self.names):
                out += self.wrap(f"- {detail}", 3, 2)
        return [*out, *self.wrap(self.t("show.originals-first"))]

    # --- result --------------------------------------------------------------------------------------------

    def changes(self, changes: Iterable[Change]) -> list[str]:
        out = self.heading(self.t("show.changes"))
        lines = [line for c in changes for line in self.wrap(change_text(c, self.t), 0, 4)]
        return [*out, *(lines or self.wrap(self.t("show.no-changes")))]

    def verification(self, verification: Verification) -> list[str]:
        out = self.heading(self.t("show.verification"))
        for check in verification.checks:
            name = self.t.part("check", check.id, "title") or check.id
            out += self.wrap(f"{check.verdict.value:<8}{name}: {check.reason}", 0, 8)
        return [*out, *self.wrap(f"{verification.verdict.value:<8}{overall(verification, self.t)}", 0, 8)]

    def result(self, result: RunResult) -> list[str]:
        """Everything after the consent: changes, verification, what is left, what to do."""
        out: list[str] = []
        if result.changes:
            out += self.changes(result.changes)
        if result.verification is not None:
            out += self.verification(result.verification)
        left = result.diagnosis_after
        if (
            left is not None and left.findings and result.mode != "undo"
        ):  # an undone repair leaves what it found
            out += self.diagnosis(left)
        return out + self.outcome(result)

    def outcome(self, result: RunResult) -> list[str]:
        word = result.word.value
        shown = self.t.part("result", word, "word") or word
        out = self.heading(f"{self.t('show.result')}: {shown} ({EXIT[result.word]})")
        if result.error:
            out += self.error(result.error)
        if result.word is ResultWord.FAILED and result.mode == "repair":
            out += self.wrap(rolled_back_text(result, self.t))
        out += self.wrap(self.t.part("result", word, "title") or word)
        if result.journal:
            out += self.wrap(self.t("show.originals", where=result.journal))
        out += self.notes(result.notes)
        return out + self.wrap(f"{self.t('show.next')}: {next_step(result, self.t)}")

    def notes(self, notes: Iterable[Note]) -> list[str]:
        return [line for note in notes for line in self.wrap(note_text(note, self.t))]

    def error(self, error: str) -> list[str]:
        code, detail = split_error(error)
        out = self.wrap(f"{self.t('show.error')}: {self.t(f'error.{code}')}")
        return out + (self.wrap(detail, 2) if detail else [])

    # --- survey --------------------------------------------------------------------------------------------

    def survey(self, survey: Survey) -> list[str]:
        out = self.heading(self.t("survey.firmware"))
        out += self.wrap(firmware_text(survey, self.t))
        if survey.controllers:
            out += self.heading(self.t("survey.controllers"))
            for c in survey.controllers:
                driver = c.driver or self.t("survey.no-driver")
                ids = f"{c.vendor}:{c.device} ({c.subsystem_vendor}:{c.subsystem_device})"
                out += self.wrap(f"{c.address}  {ids}  class {c.class_code}  {driver}", 0, 4)
        out += self.heading(self.t("survey.disks"))
        if not survey.disks:
            out += self.wrap(self.t("survey.no-disks"))
        for disk in survey.disks:
            out += self._disk(survey, disk)
        out += self.heading(self.t("survey.windows"))
        if not survey.windows:
            out += self.wrap(self.t("survey.no-windows"))
        for w in survey.windows:
            more = [w.edition, w.display_version, w.architecture or ""]
            more += [self.t("survey.hyperv")] if w.hyperv_host else []
            out += self.wrap(" ".join([self.names.windows(w), *filter(None, more)]), 0, 4)
        if survey.boot_stores:
            out += self.heading(self.t("survey.stores"))
            for s in survey.boot_stores:
                count = self.t("survey.entries", count=len(s.objects))
                detail = f", {s.detail}" if s.detail else ""
                out += self.wrap(f"{s.id}: {self.t(f'store.{s.state.value}')}, {count}{detail}", 0, 4)
        if survey.problems:
            out += self.heading(self.t("survey.problems"))
            for p in survey.problems:
                out += self.wrap(f"{p.where}: {p.code}: {p.detail}", 0, 4)
        return out

    def _disk(self, survey: Survey, disk: Disk) -> Iterator[str]:
        table = disk.table.style.value
        style = self.t("survey.table-none") if table == "none" else table.upper()
        facts = [self.names.disk(disk), style, disk.transport]
        facts += [self.t("survey.read-only")] if disk.read_only else []
        facts += [self.t("survey.boot-medium")] if disk.boot_medium else []
        yield from self.wrap("  ".join(x for x in facts if x), 0, 4)
        active = {p.id for p in disk.table.partitions if p.active}
        for v in survey.volumes:
            if v.disk == disk.id:
                more = [self.t("survey.active")] if v.partition in active else []
                yield from self.wrap("  ".join([self.names.volume(v), *more, *volume_state(v, self.t)]), 2, 4)
        for line in disk.table.problems:
            yield from self.wrap(line, 4)


# --- pieces that the report uses as well -------------------------------------------------------------------


def overall(verification: Verification, t: Texts) -> str:
    """What the verdict on the whole is about; with what passed, where only the driver is open."""
    if verification.verdict is Verdict.UNKNOWN and verification.chain is Verdict.PASS:
        return t("show.overall-driver")
    if verification.verdict is Verdict.PASS and not verification.signer_known:
        return t("show.overall-signer")
    return t("show.overall")


def grouped(findings: Iterable[Finding]) -> list[list[Finding]]:
    """The worst first; findings that share kind, weight and remedy together."""
    groups: dict[tuple[int, str, bool], list[Finding]] = {}
    for f in findings:
        groups.setdefault((_ORDER.index(f.severity), f.id, f.repairable), []).append(f)
    return [groups[key] for key in sorted(groups, key=lambda k: k[0])]


def part(finding: Finding, name: str, names: Names) -> str | None:
    return names.texts.part("finding", finding.id, name, names.params(finding.params, finding.subject))


def title(finding: Finding, names: Names) -> str:
    return part(finding, "title", names) or finding.id


def remedy(finding: Finding, names: Names) -> tuple[str, str]:
    """(label, text): what Rehost does about it, or what the administrator can do."""
    if finding.repairable and (text := part(finding, "repair", names)):
        return names.texts("show.remedy"), text
    here = part(finding, "manual-winpe", names) if names.system == "winpe" else None
    return names.texts("show.manual"), here or part(finding, "manual", names) or ""


def action_text(action: Action, names: Names) -> str:
    t = names.texts
    match action:
        case EditStore():
            objects = {e.key[1] for e in action.edits if len(e.key) > 1}
            entries = t("show.entries", count=len(objects))
            volume = names.volume_ref(action.volume)
            return t(
                "action.edit-store",
                path=action.path,
                volume=volume,
                count=len(action.edits),
                entries=entries,
            )
        case CreateStore():
            key = "action.create-store" if action.before_sha256 is None else "action.replace-store"
            return t(key, path=action.path, volume=names.volume_ref(action.volume))
        case CopyFile():
            return t(
                "action.copy-file",
                source=action.source_path,
                size=describe.size(action.size),
                path=action.path,
                volume=names.volume_ref(action.volume),
            )
        case PatchBytes():
            return t(
                "action.patch-bytes",
                size=describe.size(len(action.after) // 2),
                offset=action.offset,
                disk=names.disk_ref(action.disk),
                what=_patch(action.what, t),
            )
        case RebuildGpt():
            return t(
                "action.rebuild-gpt", disk=names.disk_ref(action.disk), what=_patch(f"gpt-{action.copy}", t)
            )
        case WriteBootCode():
            key = "action.write-boot-code" if action.master else "action.write-volume-code"
            return t(key, disk=names.disk_ref(action.disk), volume=names.volume_ref(action.volume))
        case EditHive():
            volume = names.volume_ref(action.volume)
            return t("action.edit-hive", path=action.path, volume=volume, count=len(action.edits))
        case InjectDriver():
            package = f"{action.package}/{action.inf}"
            volume = names.volume_ref(action.volume)
            return t("action.inject-driver", service=action.service, package=package, volume=volume)
        case SetFirmwareVariable():
            return t(
                "action.delete-variable" if action.after is None else "action.set-variable", name=action.name
            )


def next_step(result: RunResult, t: Texts) -> str:
    """What the operator does now."""
    part = "next-unsaved" if result.word is ResultWord.FAILED and not result.journal else "next"
    return t.part("result", result.word.value, part) or ""


def _patch(what: str, t: Texts) -> str:
    return t(f"patch.{what}") if t.has(f"patch.{what}") else what


def action_details(action: Action, names: Names) -> Iterator[str]:
    """The single values that change, in words."""
    if isinstance(action, SetFirmwareVariable) and action.after is not None:
        yield from _variable(action)
    if isinstance(action, EditStore | CreateStore | EditHive | InjectDriver):
        if not isinstance(action, CreateStore) and action.replay:
            yield names.texts("action.replay")
        if isinstance(action, EditStore):
            yield from _edited(action, names)
        elif isinstance(action, EditHive):
            yield from dict.fromkeys(_registry_edit(e, names.texts) for e in action.edits)
        elif isinstance(action, InjectDriver):
            yield names.texts("action.for-device", id=action.hardware_ids[0] if action.hardware_ids else "")
        else:
            objects = dict.fromkeys(
                e.key[1] for e in action.edits if len(e.key) > 1 and e.key[0] == "Objects"
            )
            created = _descriptions(action)
            yield from (created.get(o, names.object(o)) for o in objects)
        if action.remove_logs:
            yield names.texts("action.remove-logs", files=", ".join(action.remove_logs))


def _variable(action: SetFirmwareVariable) -> Iterator[str]:
    """What a boot entry is called (EFI_LOAD_OPTION, UEFI 2.10 section 3.1.3), or the boot order."""
    with suppress(ValueError):
        data = bytes.fromhex(action.after or "")
        if action.name == "BootOrder":
            yield ", ".join(f"Boot{n:04X}" for (n,) in struct.iter_unpack("<H", data[: len(data) // 2 * 2]))
        elif re.fullmatch(r"Boot[0-9A-Fa-f]{4}", action.name):
            yield data[6:].decode("utf-16-le", "replace").split("\0")[0]


def _edited(action: EditStore, names: Names) -> Iterator[str]:
    """One line per entry: "Windows Server 2016: device, osdevice"."""
    entries: dict[str, list[str]] = {}
    for edit in action.edits:
        key = edit.key  # ("Objects", "{...}", "Elements", "21000001")
        if len(key) < 2 or key[0] != "Objects":
            entries.setdefault("\\".join(key), [])
            continue
        changed = entries.setdefault(key[1], [])
        if len(key) >= 4:
            found = names.store_object(key[1])
            changed.append(describe.element(key[3], found.type if found else None))
    for guid, elements in entries.items():
        name = names.object(guid) if guid.startswith("{") else guid
        yield f"{name}: {', '.join(dict.fromkeys(elements))}" if elements else name


def _registry_edit(edit: HiveEdit, t: Texts) -> str:
    """What changes in the registry: "ControlSet001\\Services\\arcsas: Start = 0"."""
    key = "\\".join(edit.key)
    if isinstance(edit, CreateKey):
        return key
    if isinstance(edit, DeleteKey):
        return t("action.registry-removed", key=key)
    if isinstance(edit, DeleteValue):
        return t("action.registry-removed", key=f"{key}: {edit.name}")
    if edit.type == REG_DWORD and len(edit.data) == 4:
        value = str(int.from_bytes(edit.data, "little"))
    elif edit.type == REG_MULTI_SZ:
        value = ", ".join(decode_strings(edit.data))
    elif edit.type in (REG_SZ, REG_EXPAND_SZ):
        value = decode_string(edit.data)
    else:
        value = edit.data[:16].hex(" ")
    return f"{key}: {edit.name} = {value}"


def _descriptions(action: CreateStore) -> dict[str, str]:
    """What the entries of a new store will be called."""
    out = {}
    for e in action.edits:
        if isinstance(e, SetValue) and len(e.key) == 4 and e.key[3] == "12000004" and e.name == "Element":
            out[e.key[1]] = e.data.decode("utf-16-le", "replace").rstrip("\0")
    return out


def change_kind(change: Change, t: Texts) -> str:
    return t(f"change.{change.kind}") if t.has(f"change.{change.kind}") else change.kind


def change_text(change: Change, t: Texts) -> str:
    before, after = before_text(change.before, t), after_text(change.after, t)
    return f"{change_kind(change, t)} {change.where}: {before} -> {after}"


def before_text(state: str, t: Texts, limit: int | None = 16) -> str:
    """A hash, cut to ``limit`` digits, or the words for "absent" and "present"."""
    if state in ("absent", "present"):
        return t(f"change.{state}")
    return state if limit is None or len(state) <= limit + 4 else f"{state[:limit]}..."


def after_text(state: str, t: Texts, limit: int | None = 16) -> str:
    return t("change.removed") if state == "absent" else before_text(state, t, limit)


def note_text(note: Note, t: Texts) -> str:
    return t(f"note.{note.id}", **note.params)


def split_error(error: str) -> tuple[str, str]:
    """ "no-space: 3 bytes free" -> ("no-space", "3 bytes free"); what has no known code is "other"."""
    from rehost_payload.ui.registry import ERRORS

    if error.startswith("the report could not be written"):  # the run itself did not fail
        return "report", error
    code, _, detail = error.partition(":")
    return (code.strip(), detail.strip()) if code.strip() in ERRORS else ("other", error)


def rolled_back_text(result: RunResult, t: Texts) -> str:
    if result.rolled_back and result.journal is None:
        return t("error.nothing-written")
    return t("error.rolled-back" if result.rolled_back else "error.not-rolled-back")


def firmware_text(survey: Survey, t: Texts) -> str:
    mode = t(f"survey.firmware-{survey.firmware.mode.value}")
    if survey.firmware.secure_boot is None:
        return mode
    return (
        f"{mode}, {t('survey.secure-boot-on' if survey.firmware.secure_boot else 'survey.secure-boot-off')}"
    )


def volume_state(volume: Volume, t: Texts) -> list[str]:
    """What is special about a volume: free space, and every reason not to read or write it."""
    out = [t("survey.free", size=describe.size(volume.free))] if volume.free is not None else []
    codes = [volume.unreadable, volume.unwritable]
    codes += ["hibernated"] if volume.hibernated else []
    codes += ["dirty"] if volume.dirty else []
    codes += ["journal-unclean"] if volume.journal_unclean else []
    for code in dict.fromkeys(c for c in codes if c):
        out.append(t(f"state.{code}") if t.has(f"state.{code}") else code)
    return out
