"""Asking: choices first, then diagnosis and plan as they follow from them, then the word."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

import pytest

from rehost_payload.repair.diagnose import diagnose
from rehost_payload.repair.model import Choices, ResultWord, RunResult
from rehost_payload.repair.places import journal_places
from rehost_payload.repair.plan import plan
from rehost_payload.repair.session import Consent, Outcome
from rehost_payload.survey.model import Survey
from rehost_payload.ui import report
from rehost_payload.ui.console import Console, HungUp
from rehost_payload.ui.progress import ProgressLine
from rehost_payload.ui.texts import Texts
from rehost_payload.ui.work import Worker, is_yes, own_place
from support.image_system import ImageMachine

from . import sample


class Desk:
    """A worker whose operator types ``lines``; ``shown`` is what he saw."""

    def __init__(self, lines: str) -> None:
        read, write = os.pipe()
        os.write(write, lines.encode())
        os.close(write)
        self.fd = read
        self.out = io.StringIO()
        texts = Texts("en")
        self.worker = Worker(
            ImageMachine([]),
            texts,
            Console(read, self.out, utf8=True),
            ProgressLine(self.out, texts, terminal=False),
        )

    @property
    def shown(self) -> str:
        return " ".join(self.out.getvalue().split())

    def ask(self, survey: Survey, choices: Choices | None = None) -> Consent:
        choices = choices or Choices()
        places = journal_places(survey, choices)
        ask = self.worker.interactive(choices)
        return ask(survey, diagnose(survey, choices), plan(survey, choices), places[0] if places else None)


@pytest.fixture
def desk() -> type[Desk]:
    return Desk


def test_the_word_is_consent(desk: type[Desk]) -> None:
    d = desk("yes\n")
    assert d.ask(sample.survey()) == Consent(True, Choices())
    assert "5 values in 3 entries" in d.shown
    assert "- Windows Server 2016: device, osdevice" in d.shown
    assert "originals will be saved to disk0p3" in d.shown


@pytest.mark.parametrize("word", ["yes", "ja", " YES ", "Ja"])
def test_words(word: str) -> None:
    assert is_yes(word)


@pytest.mark.parametrize("word", ["", "y", "j", "yess", "oui", "yes!", "no", "1"])
def test_no_words(word: str) -> None:
    assert not is_yes(word)


def test_end_of_input_is_no_consent(desk: type[Desk]) -> None:
    with pytest.raises(HungUp):
        desk("").ask(sample.survey())


def test_without_a_place_for_the_originals_nobody_is_asked(desk: type[Desk]) -> None:
    survey = sample.survey()
    full = replace(survey, volumes=tuple(replace(v, free=1 << 20) for v in survey.volumes))
    d = desk("")
    assert d.ask(full).yes  # the pipeline refuses then, and says why
    assert "no volume where the originals could be kept" in d.shown


def test_choice_between_two_windows(desk: type[Desk]) -> None:
    survey = sample.two_windows_without_a_store()
    assert diagnose(survey).question == "windows"
    d = desk("0\n3\nx\n2\nyes\n")
    answer = d.ask(survey)
    assert answer.yes
    assert answer.choices == Choices(windows=diagnose(survey).candidates[1])
    assert d.shown.count("Which Windows shall start?") == 4
    assert d.shown.count("Please type a number from 1 to 2.") == 3
    assert "Write a new boot store" in d.shown
    assert d.shown.index("Which Windows") < d.shown.index("Write a new boot store")


def test_no_choice_is_no_consent(desk: type[Desk]) -> None:
    d = desk("\n")
    assert d.ask(sample.two_windows_without_a_store()) == Consent(False, Choices())
    assert "Write a new" not in d.shown


def test_unattended_consent_makes_no_choice(desk: type[Desk]) -> None:
    survey = sample.two_windows_without_a_store()
    d = desk("")
    ask = d.worker.consenting(Choices())
    assert ask(survey, diagnose(survey), plan(survey), None) == Consent(True, Choices())
    assert "Writing now" not in d.shown


def outcome(word: ResultWord, **more: object) -> Outcome:
    result = RunResult(word, "2025-01-07T02:58:11Z", "2025-01-07T02:58:20Z", "repair")
    return Outcome(replace(result, **more), sample.survey(), None)  # type: ignore[arg-type]


def test_own_place_is_the_volume_labelled_rehost() -> None:
    survey = sample.survey()
    assert own_place(survey) is None
    labelled = replace(survey, volumes=(*survey.volumes[:1], replace(survey.volumes[1], label="Rehost")))
    assert own_place(labelled) is not None


def test_a_fault_in_the_page_does_not_lose_the_run(
    desk: type[Desk], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object) -> str:
        raise ValueError("no template")

    monkeypatch.setattr(report, "to_html", broken)
    worker = desk("").worker
    worker.keep = tmp_path / "keep"
    files = worker.files(outcome(ResultWord.REPAIRED))
    assert report.from_json(files[report.JSON]).result.word is ResultWord.REPAIRED
    assert b"no template" in files["report-error.txt"]
    assert (tmp_path / "keep" / report.JSON).exists()
