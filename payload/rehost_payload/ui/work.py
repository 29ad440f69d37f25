"""What the menu, the command line and the unattended run do in the same way: ask, run the pipeline, keep the report.

Imported only when there is work to do: the menu comes up without it.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from rehost_payload.repair.diagnose import diagnose
from rehost_payload.repair.dism import chosen_tool
from rehost_payload.repair.journal import make_folders
from rehost_payload.repair.model import Choices, Diagnosis, Engine, Plan
from rehost_payload.repair.places import JournalPlace, journal_places
from rehost_payload.repair.plan import plan as make_plan
from rehost_payload.repair.session import Consent, Outcome, PastRun, run_repair, run_survey, run_undo
from rehost_payload.repair.view import View
from rehost_payload.repair.writing import mounted
from rehost_payload.survey.model import Survey
from rehost_payload.system.protocol import System, SystemError_
from rehost_payload.ui import report
from rehost_payload.ui.console import Console
from rehost_payload.ui.describe import Names
from rehost_payload.ui.progress import ProgressLine
from rehost_payload.ui.show import Page
from rehost_payload.ui.texts import LANGUAGES, Texts

REPORTS = "\\Rehost"


class UnknownChoice(Exception):
    """A choice that was given beforehand names nothing in this machine."""

    def __init__(self, name: str, value: str, known: list[str]) -> None:
        self.name = name
        super().__init__(f"{name} = {value}: there is none (known: {', '.join(known) or 'none'})")


def check_choices(survey: Survey, choices: Choices) -> None:
    """Raises UnknownChoice: what was misspelt must not be taken for something else."""
    known = {
        "windows": [w.id for w in survey.windows],
        "system_volume": [v.id for v in View(survey).system_candidates],
        "disk": [d.id for d in survey.disks],
    }
    for name, values in known.items():
        value = getattr(choices, name)
        if value is not None and value not in values:
            raise UnknownChoice(name, value, values)


def is_yes(answer: str) -> bool:
    """The word in full, in any of our languages: a stray key is no consent."""
    return answer.strip().casefold() in {Texts(language)("menu.yes") for language in LANGUAGES}


@contextlib.contextmanager
def one_interrupt() -> Iterator[None]:
    """Ctrl-C (or a polite kill) interrupts once; while what was written is taken back, it is not heard again.

    A terminal that goes away (SIGHUP) does not interrupt at all.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        for which in caught:
            signal.signal(which, signal.SIG_IGN)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # no signal ever arrives here
        yield
        return
    caught = [signal.SIGINT, signal.SIGTERM]
    old = {s: signal.signal(s, stop) for s in caught}
    if hasattr(signal, "SIGHUP"):
        old[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        for which, handler in old.items():
            signal.signal(which, handler)


@dataclass
class Worker:
    """Runs the pipeline for one face. ``keep`` is a folder in memory for a copy of the last report, or None."""

    system: System
    texts: Texts
    console: Console
    progress: ProgressLine
    machine: str = ""
    keep: Path | None = None
    attended: bool = True  # False: nobody is there to turn pages
    kept: str | None = None  # where the last survey's report went
    engine: Engine = Engine.PORTABLE

    # --- showing -------------------------------------------------------------------------------------------

    def page(self, survey: Survey | None) -> Page:
        return Page(Names(survey, self.texts), self.console.width, not self.console.utf8)

    def show(self, lines: list[str], skip_to: int | None = None) -> None:
        """A page at a time where somebody reads along; see `Console.page`."""
        self.progress.close()
        if self.attended:
            self.console.page(lines, self.texts("menu.more"), skip_to)
        else:
            self.console.say_all(lines)

    def say(self, text: str, survey: Survey | None = None) -> None:
        self.console.say_all(self.page(survey).wrap(text))

    # --- asking --------------------------------------------------------------------------------------------

    def interactive(self, choices: Choices) -> Callable[..., Consent]:
        """An `Ask` that talks to the operator: shows, lets him choose where that is needed, asks for the word."""

        def ask(survey: Survey, diagnosis: Diagnosis, plan: Plan, place: JournalPlace | None) -> Consent:
            check_choices(survey, choices)
            chosen = choices
            while diagnosis.question is not None:
                self.show(self.page(survey).diagnosis(diagnosis))
                pick = self._choose(survey, diagnosis)
                if pick is None:
                    return Consent(False, chosen)
                field = "windows" if diagnosis.question == "windows" else "system_volume"
                chosen = replace(chosen, **{field: pick})
                asked, diagnosis, plan = diagnosis, diagnose(survey, chosen), make_plan(survey, chosen)
                if diagnosis.question == asked.question and diagnosis.candidates == asked.candidates:
                    break  # the choice did not settle it: asking again would not either
            places = journal_places(survey, chosen)
            self._show_plan(survey, diagnosis, plan, places[0] if places else None)
            if not plan.actions or not places:
                return Consent(True, chosen)  # nothing will be written; the run says why
            self.console.say()
            answer = self.console.ask(self.texts("menu.consent"))
            if not is_yes(answer):
                return Consent(False, chosen)
            self._writing()
            return Consent(True, chosen)

        return ask

    def consenting(self, choices: Choices) -> Callable[..., Consent]:
        """An `Ask` for runs whose consent was given beforehand. Choices are not made for the operator."""

        def ask(survey: Survey, diagnosis: Diagnosis, plan: Plan, place: JournalPlace | None) -> Consent:
            check_choices(survey, choices)
            self._show_plan(survey, diagnosis, plan, place)
            if plan.actions and diagnosis.question is None:
                self._writing()
            return Consent(True, choices)

        return ask

    def _show_plan(
        self, survey: Survey, diagnosis: Diagnosis, plan: Plan, place: JournalPlace | None
    ) -> None:
        page = self.page(survey)
        lines = page.diagnosis(diagnosis)
        findings = len(lines)
        if plan.actions:
            lines += page.plan(plan)
            lines += page.notes(chosen_tool(plan, self.system, self.engine)[1])
            if place is None:
                lines += page.wrap(self.texts("menu.originals-nowhere"))
            else:
                lines += page.wrap(self.texts("menu.originals-at", where=page.names.identifier(place.id)))
        self.show(lines, findings)  # whoever skips findings still sees what will be written

    def _writing(self) -> None:
        self.console.say(self.texts("menu.writing"))
        self.progress.label = self.texts("progress.apply")

    def _choose(self, survey: Survey, diagnosis: Diagnosis) -> str | None:
        names = Names(survey, self.texts)
        options = [(c, names.identifier(c)) for c in diagnosis.candidates]
        return self.choose(self.texts(f"show.question-{diagnosis.question}"), options)

    def choose(self, question: str, options: list[tuple[str, str]]) -> str | None:
        """One of ``options`` (value, text) by its number; None for an empty answer."""
        page = self.page(None)
        while True:
            self.console.say()
            self.console.say(question)
            for number, (_, text) in enumerate(options, 1):
                self.console.say_all(page.wrap(f"{number:>3}  {text}", 0, 5))
            answer = self.console.ask(self.texts("menu.choose"))
            if not answer:
                return None
            if answer.isdecimal() and 1 <= int(answer) <= len(options):
                return options[int(answer) - 1][0]
            self.console.say(self.texts("menu.choose-again", count=len(options)))

    # --- running -------------------------------------------------------------------------------------------

    def survey(self) -> Outcome:
        """Survey and diagnosis; the report goes to a volume labelled REHOST if there is one."""
        self.progress.label = self.texts("progress.survey")
        outcome = run_survey(self.system, self.progress)
        self.progress.close()
        self.kept = self.keep_report(outcome)
        return outcome

    def repair(self, ask: Callable[..., Consent], choices: Choices, dry_run: bool = False) -> Outcome:
        self.progress.label = self.texts("progress.survey")
        with one_interrupt():
            outcome = run_repair(self.system, ask, choices, self.progress, dry_run, self.files, self.engine)
        self.progress.close()
        return outcome

    def undo(self, stamp: str | None, force: bool = False) -> Outcome:
        self.progress.label = self.texts("progress.undo")
        with one_interrupt():
            outcome = run_undo(self.system, stamp, self.progress, force, self.files)
        self.progress.close()
        return outcome

    # --- the report ----------------------------------------------------------------------------------------

    def files(self, outcome: Outcome) -> dict[str, bytes]:
        """The report's files. A fault in rendering loses the page, never the run."""
        document = report.Report(
            outcome.result, outcome.before, self.machine, platform=report.platform_name()
        )
        try:
            content = report.files(document, self.texts.language)
        except Exception as e:
            content = {report.JSON: report.to_json(document).encode(), "report-error.txt": repr(e).encode()}
        if self.keep is not None:
            with contextlib.suppress(OSError):
                self.keep.mkdir(parents=True, exist_ok=True)
                for name, data in content.items():
                    (self.keep / name).write_bytes(data)
        return content

    def keep_report(self, outcome: Outcome) -> str | None:
        """Writes the report of a run that keeps none itself to the operator's own volume; returns where."""
        content = self.files(outcome)
        place = own_place(outcome.before)
        if place is None:
            return None
        folder = f"{REPORTS}\\{stamp(outcome)}-{outcome.result.mode}"
        try:
            with mounted(self.system, place.volume) as volume:
                make_folders(volume, folder)
                for name, data in content.items():
                    volume.replace(f"{folder}\\{name}", data)
        except (SystemError_, OSError) as e:
            self.say(self.texts("menu.report-none", reason=e))
            return None
        return f"{place.id} {folder}"

    def say_report(self, outcome: Outcome) -> None:
        """Where the report lies, if it lies anywhere."""
        where = self.kept if outcome.result.mode == "survey" else outcome.report
        if where is not None:
            self.say(self.texts("menu.report-at", where=where))
        elif self.keep is not None and (self.keep / report.HTML).exists():
            self.say(self.texts("menu.report-memory", where=self.keep / report.HTML))


def own_place(survey: Survey | None) -> JournalPlace | None:
    """The operator's own volume (labelled REHOST), where reports of runs without changes go."""
    places = journal_places(survey) if survey is not None else ()
    return places[0] if places and places[0].reason == "label" else None


def stamp(outcome: Outcome) -> str:
    return outcome.result.started.replace("-", "").replace(":", "")


def run_text(run: PastRun, texts: Texts) -> str:
    """A past run as the undo list shows it."""
    content = run.content
    key = "undo-done" if content.all_undone else "undo-complete" if content.complete else "undo-broken-off"
    state = texts(f"menu.{key}")
    return f"{texts('menu.undo-run', stamp=run.stamp, count=len(content.entries), state=state)} ({run.volume_id})"
