"""The report: report.json for programs, and one self-contained HTML page for people, rendered from the same data.

The page needs no network and no JavaScript. Jinja2 escapes whatever comes from a disk; it is imported only when a
page is made, because it takes longer than the menu.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rehost_payload import __version__
from rehost_payload.repair.model import ResultWord, RunResult, Severity, Verdict
from rehost_payload.survey import json as survey_json
from rehost_payload.survey.model import Survey
from rehost_payload.ui import describe, show
from rehost_payload.ui.describe import Names
from rehost_payload.ui.plain import dumps, from_plain, to_plain
from rehost_payload.ui.run import EXIT
from rehost_payload.ui.texts import LANGUAGES, Texts, clean

if TYPE_CHECKING:
    from jinja2 import Template

SCHEMA = "rehost-report/1"
HTML, JSON, SURVEY = "report.html", "report.json", "survey.json"
_TEMPLATES = Path(__file__).parent / "templates"

_RESULT_CLASS = {
    ResultWord.HEALTHY: "good",
    ResultWord.REPAIRED: "good",
    ResultWord.UNDONE: "good",
    ResultWord.CAPTURED: "good",
    ResultWord.PLANNED: "note",
    ResultWord.DECLINED: "note",
    ResultWord.CHOICE_NEEDED: "warn",
    ResultWord.INCOMPLETE: "bad",
    ResultWord.NOT_REPAIRED: "bad",
    ResultWord.BLOCKED: "bad",
    ResultWord.FAILED: "bad",
}
SEVERITY_CLASS = {
    Severity.FATAL.value: "bad",
    Severity.BLOCKER.value: "bad",
    Severity.WARNING.value: "warn",
    Severity.INFO.value: "note",
}


@dataclass(frozen=True)
class Report:
    """All that the page shows. ``survey`` is the one before anything was changed."""

    result: RunResult
    survey: Survey | None = None
    machine: str = ""
    version: str = __version__
    platform: str = ""


def platform_name() -> str:
    """The base that the run was made on. (`platform` asks WMI on Windows, which WinPE need not have.)"""
    python = ".".join(str(part) for part in sys.version_info[:3])
    if sys.platform == "win32":
        version = sys.getwindowsversion()
        return f"Windows {version.major}.{version.minor}.{version.build}, Python {python}"
    found = os.uname()
    return f"{found.sysname} {found.release}, Python {python}"


def to_json(report: Report) -> str:
    """report.json. The exit code is there for programs; it follows from the word."""
    data = {"schema": SCHEMA, "exit_code": EXIT[report.result.word], **to_plain(report)}
    return dumps(data) + "\n"


def from_json(text: str | bytes) -> Report:
    """ValueError for anything that is no report of this version."""
    try:
        data = json.loads(text)
    except RecursionError as e:
        raise ValueError("not a Rehost report: nested too deeply") from e
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise ValueError(f"not a Rehost report ({SCHEMA})")
    return from_plain(Report, data)


def to_html(report: Report, language: str) -> str:
    """The page in ``language`` ("en" or "de")."""
    if language not in LANGUAGES:
        raise ValueError(f"no such language: {language}")
    return _template().render(_context(report, language))


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=lambda value: clean(value) if type(value) is str else value,
    )
    return environment.get_template("report.html.j2")


def _context(report: Report, language: str) -> dict[str, Any]:
    t = Texts(language)
    result = report.result
    names = Names(report.survey, t)
    mode = f"report.subtitle-{result.mode}"
    code, detail = show.split_error(result.error) if result.error else ("", "")
    computers = (
        {w.computer_name for w in report.survey.windows if w.computer_name} if report.survey else set()
    )
    return {
        "t": t,
        "language": language,
        "names": names,
        "result": result,
        "survey": report.survey,
        "machine": report.machine,
        "version": report.version,
        "platform": report.platform,
        "computer": computers.pop() if len(computers) == 1 else "",
        "subtitle": t(mode) if t.has(mode) else result.mode,
        "exit_code": EXIT[result.word],
        "result_class": _RESULT_CLASS[result.word],
        "severity_class": SEVERITY_CLASS,
        "error_text": t(f"error.{code}") if code else "",
        "error_detail": detail,
        "grouped": show.grouped,
        "title": show.title,
        "part": show.part,
        "overall": show.overall,
        "remedy": show.remedy,
        "action_text": show.action_text,
        "action_details": show.action_details,
        "change_kind": show.change_kind,
        "note_text": show.note_text,
        "state_before": lambda state: show.before_text(state, t, None),
        "state_after": lambda state: show.after_text(state, t, None),
        "rolled_back_text": show.rolled_back_text,
        "next_step": show.next_step,
        "firmware_text": show.firmware_text,
        "volume_state": show.volume_state,
        "system_name": describe.system_name,
        "size": describe.size,
        "Verdict": Verdict,
    }


def files(report: Report, language: str) -> dict[str, bytes]:
    """The report's files by name."""
    out = {JSON: to_json(report).encode(), HTML: to_html(report, language).encode("utf-8", "replace")}
    if report.survey is not None:
        out[SURVEY] = survey_json.to_json(report.survey).encode()
    return out
