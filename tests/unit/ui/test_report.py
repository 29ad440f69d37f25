"""The report: the same content as JSON and as a page that needs nothing, and nothing from a disk gets into its code."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_payload.repair.diagnose import diagnose
from rehost_payload.repair.model import Change, Check, Finding, Note, ResultWord, RunResult, Severity, Verdict
from rehost_payload.repair.plan import plan
from rehost_payload.repair.verify import verify
from rehost_payload.survey.json import from_json as survey_from_json
from rehost_payload.ui import report
from rehost_payload.ui.registry import CHECKS, FINDINGS, NOTES
from rehost_payload.ui.report import Report, from_json, to_html, to_json
from rehost_payload.ui.run import EXIT

from . import sample

VOID = {"meta", "br", "link", "hr", "img", "input"}


def repaired() -> Report:
    before, after = sample.survey(), sample.survey(stale=False)
    result = RunResult(
        ResultWord.REPAIRED,
        "2025-01-07T02:58:11Z",
        "2025-01-07T02:58:20Z",
        "repair",
        diagnose(before),
        plan(before),
        (
            Change("file", "\\EFI\\Microsoft\\Boot\\BCD", "3b" * 32, "7c" * 32),
            Change("folder", "\\EFI\\Boot", "absent", "present"),
        ),
        verify(after),
        diagnose(after),
        journal="disk0p3 \\Rehost\\20250107T025811Z\\journal",
    )
    return Report(result, before, "Contoso Rack 7000", "0.1.0", "Linux 6.12, Python 3.13")


class Page(HTMLParser):
    """Checks that every element is closed in order, and collects text and what would be loaded or run."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.outside: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "action") or name.startswith("on"):
                self.outside.append(f"{name}={value}")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += " " + " ".join(data.split())


@pytest.mark.parametrize("language", ["en", "de"])
def test_page_is_self_contained(language: str) -> None:
    html = to_html(repaired(), language)
    page = Page(html)
    assert page.outside == []
    assert "script" not in page.tags
    assert "url(" not in html
    assert "@import" not in html
    assert f'<html lang="{language}">' in html


def test_page_says_it_all() -> None:
    text = Page(to_html(repaired(), "en")).text
    for wanted in (
        "Rehost report: HV01",
        "Repaired, and verified",
        "Windows Server 2016 points to a partition that does not exist (device, osdevice)",
        "Nothing is left.",
        "5 values in 3 entries",
        "3b" * 32,
        "7c" * 32,
        "was not there",
        "PASS",
        "UNKNOWN",
        "Driver of the disk controller",
        "disk0p3 \\Rehost\\20250107T025811Z\\journal",
        "rehost undo",
        "9005:028d",
        "Contoso Rack 7000",
        "Linux 6.12, Python 3.13",
        "boot.device-stale",
        "exit code 0".title()[:4],
    ):
        assert wanted in text, wanted


def test_german_page() -> None:
    text = Page(to_html(repaired(), "de")).text
    assert "Befunde vorher" in text
    assert "Ersatz-BCD-Speicher" in text
    assert "Prüfung" in text


def test_json_round_trip() -> None:
    original = repaired()
    text = to_json(original)
    assert text.isascii()
    assert from_json(text) == original
    data = json.loads(text)
    assert data["exit_code"] == 0
    assert data["result"]["word"] == "repaired"
    assert to_html(from_json(text), "de") == to_html(original, "de")


@pytest.mark.parametrize("word", list(ResultWord))
@pytest.mark.parametrize("mode", ["repair", "survey", "undo"])
def test_every_way_to_end_has_a_page(word: ResultWord, mode: str) -> None:
    result = RunResult(word, "a", "b", mode, error="no-space: 3 bytes" if word is ResultWord.FAILED else None)
    text = Page(to_html(Report(result), "en")).text
    assert f"{word.value} , Exit code {EXIT[word]}" in text
    assert ("There is not enough room" in text) is (word is ResultWord.FAILED)


def test_an_error_that_was_not_rolled_back_says_so() -> None:
    result = RunResult(ResultWord.FAILED, "a", "b", "repair", error="write: io", rolled_back=False)
    assert "NOT everything could be taken back" in Page(to_html(Report(result), "en")).text
    result = replace(result, rolled_back=True, journal="disk1p1 \\Rehost\\1\\journal")
    assert "was taken back: the disk is as it was" in Page(to_html(Report(result), "en")).text


def test_an_error_before_the_first_write_says_so() -> None:
    result = RunResult(ResultWord.FAILED, "a", "b", "repair", error="disks: none could be read: x")
    text = Page(to_html(Report(result), "en")).text
    assert "Nothing was written." in text
    assert "taken back" not in text
    assert "None of the disks could be read" in text


@pytest.mark.parametrize("language", ["en", "de"])
@pytest.mark.parametrize("note", sorted(NOTES))
def test_every_note_is_in_the_report(note: str, language: str) -> None:
    params = {name: f"<{name}>" for name in NOTES[note]}
    base = repaired()
    document = replace(base, result=replace(base.result, notes=(Note(note, params),)))
    text = Page(to_html(document, language)).text
    assert "DISM" in text
    assert all(value in text for value in params.values())
    assert from_json(to_json(document)) == document


@pytest.mark.parametrize("finding", sorted(FINDINGS))
@pytest.mark.parametrize("language", ["en", "de"])
def test_every_finding_can_be_shown(finding: str, language: str) -> None:
    base = repaired()
    before = base.result.diagnosis_before
    assert before is not None
    params = {name: f"<{name}>" for name in FINDINGS[finding]}
    for repairable in (True, False):
        found = Finding(finding, Severity.FATAL, "disk0p1", params, ("seen",), repairable)
        result = replace(base.result, diagnosis_before=replace(before, findings=(found,)))
        text = Page(to_html(replace(base, result=result), language)).text
        assert finding in text
        assert "{" not in text.split(finding)[0].split("seen")[0].rpartition("FATAL")[2]


def test_every_check_can_be_shown() -> None:
    base = repaired()
    assert base.result.verification is not None
    checks = tuple(Check(c, v, "why") for c in sorted(CHECKS) for v in Verdict)
    result = replace(base.result, verification=replace(base.result.verification, checks=checks))
    assert Page(to_html(replace(base, result=result), "en")).text.count("why") == len(checks)


EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)>{{7*7}}\x1b[2J\u202e'


def test_nothing_from_a_disk_becomes_code() -> None:
    base = repaired()
    survey = base.survey
    assert survey is not None
    survey = replace(
        survey,
        volumes=tuple(replace(v, label=EVIL) for v in survey.volumes),
        windows=tuple(replace(w, product_name=EVIL, computer_name=EVIL) for w in survey.windows),
        disks=tuple(replace(d, model=EVIL, serial=EVIL) for d in survey.disks),
    )
    found = Finding("boot.store-damaged", Severity.FATAL, EVIL, {"detail": EVIL, "path": EVIL}, (EVIL,))
    before = base.result.diagnosis_before
    assert before is not None
    result = replace(
        base.result, diagnosis_before=replace(before, findings=(found,)), error=EVIL, journal=EVIL
    )
    html = to_html(Report(result, survey, EVIL, EVIL, EVIL), "en")
    page = Page(html)
    assert page.outside == []
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert "49" not in page.text
    assert "\x1b" not in html
    assert "\u202e" not in html


@given(st.text())
@settings(max_examples=15, deadline=None)
def test_any_text_survives(text: str) -> None:
    document = Report(RunResult(ResultWord.FAILED, text, text, "repair", error=text), None, text)
    Page(to_html(document, "en"))
    assert from_json(to_json(document)) == document


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"schema": "rehost-report/2"}',
        '{"schema": "rehost-report/1"}',
        '{"schema": "rehost-report/1", "result": 3}',
        '{"schema": "rehost-report/1", "result": {"word": "splendid"}}',
        '{"schema": "rehost-report/1", "result": {"word": "healthy", "started": 1}}',
        "[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_what_is_no_report(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_json(text)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_report_is_a_value_error(data: st.DataObject) -> None:
    """Any part of it replaced by anything: refused, or taken and shown."""
    tree = json.loads(to_json(repaired()))
    node, key = tree, "result"
    for _ in range(data.draw(st.integers(0, 6))):
        child = node[key]
        if not isinstance(child, dict | list) or not child:
            break
        node, key = (
            child,
            data.draw(st.sampled_from(sorted(child) if isinstance(child, dict) else range(len(child)))),
        )
    node[key] = data.draw(st.sampled_from([None, 1, "x", [], {}, True, {"kind": "edit-store"}, -1]))
    try:
        document = from_json(json.dumps(tree))
    except ValueError:
        return
    Page(to_html(document, "en"))


def test_files() -> None:
    files = report.files(repaired(), "de")
    assert set(files) == {"report.html", "report.json", "survey.json"}
    assert survey_from_json(files["survey.json"].decode()) == repaired().survey
    assert "größ".encode() in files["report.html"] or "Größe".encode() in files["report.html"]
    assert len(files["report.html"]) < 100_000
