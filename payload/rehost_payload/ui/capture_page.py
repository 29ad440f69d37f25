"""index.html of a capture: what is in it, how good it is, what to heed, and the way back, in English and German.

One page without scripts and without anything from a network; the language is a choice in the page. Rendered from what
the capture's own files say, so that it can be made again at any time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rehost_payload import __version__
from rehost_payload.capture.contents import CaptureContents
from rehost_payload.capture.copy_state import UNSEEN, CaptureState, TargetState, UnitCopy, UnitState
from rehost_payload.capture.guardians import FOLDER
from rehost_payload.capture.model import NOT_WHOLE, Manifest
from rehost_payload.ui import describe, show
from rehost_payload.ui.describe import Names
from rehost_payload.ui.report import SEVERITY_CLASS
from rehost_payload.ui.texts import LANGUAGES, Texts, clean

if TYPE_CHECKING:
    from jinja2 import Template

PAGE = "index.html"
_STATES = {"complete": "good", "incomplete": "bad", "unfinished": "warn", UNSEEN: "warn"}
_MOST_REASONS = 5


def summary(state: CaptureState, machines: Sequence[UnitState], t: Texts) -> str:
    """ "2 good copies of 7 machines", or how far it is; and what that leaves out."""
    goods = [u.good_copies for u in machines or state.units]
    least = min(goods, default=0)
    whole = sum(1 for count in goods if count)
    if least:
        text = t("capture.copies", copies=least, count=len(goods))
    else:
        text = t("capture.copies-partly", good=whole, count=len(goods))
    if state.config_only:
        text = t("capture.copies-config", summary=text)
    names = ", ".join(_name(u, t) for u in machines if not u.whole)
    return t("capture.copies-not-whole", summary=text, names=names) if names else text


def to_html(contents: CaptureContents, first: str) -> str:
    """The page; ``first`` is the language that is shown at the start."""
    versions = [_context(contents, Texts(language)) for language in LANGUAGES]
    return _template().render(
        versions=versions,
        first=first if first in LANGUAGES else LANGUAGES[0],
        state=contents.state,
        version=__version__,
        clean=clean,
    )


def earlier_texts(copy: UnitCopy, t: Texts) -> list[str]:
    """Where complete copies of an earlier run are kept, as long as this one is not complete."""
    return [t("capture.earlier", date=e.taken[:10], folder=e.folder) for e in copy.earlier]


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=lambda value: clean(value) if type(value) is str else value,
    )
    return environment.get_template("capture.html.j2")


def _context(contents: CaptureContents, t: Texts) -> dict[str, Any]:
    state = contents.state
    names = Names(None, t)
    machines = contents.machines
    manifests = list(contents.units.values())
    findings = [*contents.findings, *(f for m in manifests for f in m.findings)]
    good = all(u.good_copies for u in machines or state.units)
    seen = [target for target in state.targets if target.code != UNSEEN]
    whole = all(u.good_copies >= len(seen) for u in state.units)
    fatal = any(f.severity in NOT_WHOLE for f in findings)
    return {
        "t": t,
        "language": t.language,
        "language_name": t("language.name"),
        "summary": summary(state, machines, t),
        "summary_class": "bad" if not good else "good" if whole and not fatal else "warn",
        "means": "bad" if not good else "warn" if not whole else "fatal" if fatal else "good",
        "lacking": ", ".join(_name(u, t) for u in state.units if not u.good_copies),
        "settings": contents.settings,
        "faults": [_fault(target, t) for target in state.targets if target.code],
        "targets": [
            (target, t("capture.here") if target.id == state.here else "") for target in state.targets
        ],
        "rows": [_row(contents, unit, t) for unit in state.units],
        "groups": show.grouped(findings),
        "title": lambda f: show.title(f, names),
        "part": lambda f, name: show.part(f, name, names) or "",
        "remedy": lambda f: show.remedy(f, names),
        "severity_class": SEVERITY_CLASS,
        # found on the host when it was captured: certificates that were not saved, and those that were
        "tpm_open": any(f.id == "capture.tpm" for f in findings),
        "tpm_saved": any(m.kind == "host" and _has_certificates(m) for m in manifests),
        "tpm": any(m.machine is not None and (m.machine.tpm or m.machine.shielded) for m in manifests),
        "without_disks": any(
            m.machine is not None and m.machine.disks and not _has_disks(m) for m in manifests
        ),
        "letters": list(_letters(contents)),
        "orphans": any(m.kind == "orphans" and m.files for m in manifests),
        "first_machine": next((u.name for u in machines), "NAME"),
    }


def _name(unit: UnitState, t: Texts) -> str:
    """Two machines of one name are told apart by their folders."""
    names = {"host": t("capture.unit-host"), "orphans": t("capture.unit-orphans")}
    return names.get(unit.id) or (unit.folder if unit.folder.startswith(unit.name) else unit.name)


def _fault(target: TargetState, t: Texts) -> str:
    if target.code == UNSEEN:
        return t("capture.unseen", name=target.name)
    parts = (t.part("capturerefused", code, "title") for code in (target.code, "other"))
    return f"{target.name}: {next(p for p in parts if p)} ({target.detail})"


def _letters(contents: CaptureContents) -> Iterator[str]:
    """The old drive letters that files go back to, with what helps to tell the volumes apart."""
    for old in contents.settings.letters if contents.settings is not None else ():
        if old.holds_machines:
            size = describe.size(old.size) if old.size else ""
            yield " ".join(
                [old.letter, ", ".join(x for x in (old.label, old.file_system, size) if x)]
            ).strip()


def _has_certificates(manifest: Manifest) -> bool:
    return any(f.path.startswith(f"{FOLDER}/") for f in manifest.files)


def _has_disks(manifest: Manifest) -> bool:
    return any(f.role.value in ("disk", "differencing-disk") for f in manifest.files)


def _row(contents: CaptureContents, unit: UnitState, t: Texts) -> dict[str, Any]:
    manifest = contents.units.get(unit.folder)
    machine = manifest.machine if manifest is not None else None
    facts: list[str] = []
    if machine is not None:
        facts += [t("capture.generation", number=machine.generation)] if machine.generation else []
        facts += [t("capture.version", version=machine.version)]
        facts += [t("capture.processors", count=machine.processors)] if machine.processors else []
        facts += [describe.size(machine.memory_mb << 20)] if machine.memory_mb else []
        facts += [t("capture.checkpoints", count=len(machine.checkpoints))] if machine.checkpoints else []
        facts += [t("capture.saved")] if machine.saved_state else []
    return {
        "name": _name(unit, t),
        "folder": unit.folder,
        "size": describe.size(unit.size),
        "facts": ", ".join(facts),
        "copies": [_copy(unit, target, t) for target in contents.state.targets],
        "missing": manifest.missing if manifest is not None else (),
        "failed": list(_failed(manifest)),
    }


def _copy(unit: UnitState, target: TargetState, t: Texts) -> dict[str, Any]:
    copy = next((c for c in unit.copies if c.target == target.id), UnitCopy(target.id, "unfinished"))
    reasons = list(copy.reasons[:_MOST_REASONS])
    if len(copy.reasons) > _MOST_REASONS:
        reasons.append(t("show.more", count=len(copy.reasons) - _MOST_REASONS))
    reasons += earlier_texts(copy, t)
    return {
        "word": t(f"capture.state-{copy.state}") if copy.state in _STATES else copy.state,
        "class": _STATES.get(copy.state, "warn"),
        "target": target.name,
        "reasons": reasons,
    }


def _failed(manifest: Manifest | None) -> Iterator[str]:
    for file in manifest.failed if manifest is not None else ():
        yield f"{file.original or file.path}: {file.reason}"
