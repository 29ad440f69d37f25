"""The payload's commands. On the server they are the whole of ``rehost``; on a workstation the builder adds its own.

Only click is imported here: each command imports what it needs when it runs, so that ``rehost --help`` and the
start of the menu are quick. Exit codes are those of ui/run.py.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from rehost_payload import __version__
from rehost_payload.ui.exit_codes import EXIT_HELP, FAILED, INTERRUPTED, USAGE
from rehost_payload.ui.lazy import Lazy
from rehost_payload.ui.options import only_one
from rehost_payload.ui.paths import InputPath

if TYPE_CHECKING:
    from rehost_payload.repair.model import Choices
    from rehost_payload.survey.model import Survey
    from rehost_payload.system.protocol import System
    from rehost_payload.ui.progress import ProgressLine
    from rehost_payload.ui.show import Page
    from rehost_payload.ui.texts import Texts
    from rehost_payload.ui.work import Worker

F = TypeVar("F", bound=Callable[..., Any])
_FILE = InputPath(folders=False)
_DISK = InputPath(folders=False, disks=True)


def _with_exit_codes(function: F) -> F:
    function.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\n{EXIT_HELP}"
    return function


def language_option(function: F) -> F:
    return click.option(
        "--lang",
        "--language",
        "language",
        type=click.Choice(["en", "de"]),
        help="Language of the text; default: rehost.lang of the kernel command line, else the locale.",
    )(function)


def _json(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")(function)


def _choices(function: F) -> F:
    for option in (
        click.option("--disk", metavar="ID", help='Look at the Windows of this disk only ("disk0").'),
        click.option("--system-volume", metavar="ID", help='The system partition to be used ("disk0p1").'),
        click.option("--windows", metavar="ID", help=r'The Windows that shall start ("disk0p3:\Windows").'),
    ):
        function = option(function)
    return function


def _sources(function: F) -> F:
    for option in (
        click.option(
            "--pci",
            multiple=True,
            callback=only_one,
            metavar="ID",
            help="Look at the images as if they were connected to this controller (9005:028D:9005:0552).",
        ),
        click.option(
            "--image", "images", multiple=True, type=_DISK, metavar="FILE", help="Disk images instead."
        ),
        click.option(
            "--survey", "survey_file", type=_FILE, metavar="FILE", help="A saved survey.json instead."
        ),
    ):
        function = option(function)
    return function


# --- diagnose ----------------------------------------------------------------------------------------------


@click.command()
@_sources
@_choices
@_json
@language_option
@click.pass_context
@_with_exit_codes
def diagnose(
    ctx: click.Context,
    survey_file: Path | None,
    images: tuple[Path, ...],
    pci: str | None,
    windows: str | None,
    system_volume: str | None,
    disk: str | None,
    as_json: bool,
    language: str | None,
) -> None:
    """Say why Windows does not start, and what a repair would write. Nothing is changed.

    Looks at this machine, at disk images, or at a survey that was saved elsewhere (rehost survey --json).

    \b
    Examples:
      rehost diagnose
      rehost diagnose --image server.vhdx
      rehost diagnose --image server.vhdx --pci 9005:028D:9005:0552
      rehost diagnose --survey survey.json --lang de
      rehost diagnose --json | jq '.diagnosis.findings[].id'
    """
    from rehost_payload.repair.diagnose import diagnose as make_diagnosis
    from rehost_payload.repair.model import Choices
    from rehost_payload.repair.plan import plan as make_plan
    from rehost_payload.ui.run import EXIT, word_of

    texts = texts_of(language)
    survey = _survey(survey_file, images, texts, pci)
    choices = Choices(windows, system_volume, disk)
    _check_choices(survey, choices)
    diagnosis, plan = make_diagnosis(survey, choices), make_plan(survey, choices)
    word = word_of(diagnosis)
    unseen = ["storage-driver"] if images and pci is None else []
    if as_json:
        facts = {"diagnosis": diagnosis, "plan": plan, "not_checked": unseen}
        _echo_json({"word": word, "exit_code": EXIT[word], **facts})
    else:
        page = _page(survey, texts)
        lines = page.diagnosis(diagnosis)
        lines += page.plan(plan) if plan.actions else []
        lines += page.wrap(texts("show.driver-not-checked")) if unseen else []
        _echo(lines)
    ctx.exit(EXIT[word])


# --- verify ------------------------------------------------------------------------------------------------


@click.command()
@_sources
@_choices
@_json
@language_option
@click.pass_context
@_with_exit_codes
def verify(
    ctx: click.Context,
    survey_file: Path | None,
    images: tuple[Path, ...],
    pci: str | None,
    windows: str | None,
    system_volume: str | None,
    disk: str | None,
    as_json: bool,
    language: str | None,
) -> None:
    """Judge whether Windows would start, point by point: PASS, FAIL or UNKNOWN. Nothing is changed.

    PASS is said of what was looked at, never of what was not.

    \b
    Examples:
      rehost verify
      rehost verify --image server.img --json
      rehost verify --image server.img --pci 'PCI\\VEN_1022&DEV_7901&CC_010601'
    """
    from rehost_payload.repair.model import Choices
    from rehost_payload.repair.verify import verify as make_verification
    from rehost_payload.ui.run import exit_of_verdict

    texts = texts_of(language)
    survey = _survey(survey_file, images, texts, pci)
    choices = Choices(windows, system_volume, disk)
    _check_choices(survey, choices)
    verification = make_verification(survey, choices)
    code = exit_of_verdict(verification.verdict)
    if as_json:
        _echo_json({"exit_code": code, "verification": verification})
    else:
        _echo(_page(survey, texts).verification(verification))
    ctx.exit(code)


# --- repair ------------------------------------------------------------------------------------------------


@click.command()
@click.option("--yes", is_flag=True, help="The consent: write without asking.")
@click.option("--dry-run", is_flag=True, help="Show what would be written, and write nothing.")
@click.option(
    "--engine",
    type=click.Choice(["portable", "dism"]),
    default="portable",
    show_default=True,
    help="What installs driver packages. portable: Rehost itself, on every medium, each write old or new even in a power "
    "cut. dism: Windows' own tool, in a Windows PE that is at least as new as the Windows to be repaired; Rehost saves "
    "before what it may change, and does it itself where DISM may not or fails.",
)
@_choices
@_json
@language_option
@click.pass_context
@_with_exit_codes
def repair(
    ctx: click.Context,
    yes: bool,
    dry_run: bool,
    engine: str,
    windows: str | None,
    system_volume: str | None,
    disk: str | None,
    as_json: bool,
    language: str | None,
) -> None:
    """Diagnose this machine, show the plan, ask, and carry it out. Originals are saved before anything changes.

    Originals and report go to a volume labelled REHOST if there is one, else to \\Rehost on the Windows volume.
    Without --yes the question is asked on the terminal; where there is none, nothing is written.

    \b
    Examples:
      rehost repair
      rehost repair --dry-run
      rehost repair --yes --json
      rehost repair --windows 'disk0p3:\\Windows'
      rehost repair --engine dism --dry-run
    """
    from rehost_payload.repair.model import Choices, Engine
    from rehost_payload.repair.session import Consent
    from rehost_payload.ui.run import EXIT

    worker = _worker(texts_of(language), quiet=as_json)
    worker.attended = not yes
    worker.engine = Engine(engine)
    choices = Choices(windows, system_volume, disk)
    if yes:
        ask = worker.consenting(choices)
    elif sys.stdin.isatty() and not as_json:
        ask = worker.interactive(choices)
    else:

        def ask(*_: object) -> Consent:
            return Consent(False, choices)

    with alone("rehost repair"):
        outcome = worker.repair(ask, choices, dry_run)
    if as_json:
        _echo_json({"exit_code": EXIT[outcome.result.word], "result": outcome.result})
    else:
        page = worker.page(outcome.after or outcome.before)
        shown = bool(outcome.result.changes) or yes or (sys.stdin.isatty() and not dry_run)
        lines = []
        if outcome.result.diagnosis_before is not None and (
            not shown or outcome.result.diagnosis_before.healthy
        ):
            lines += page.diagnosis(outcome.result.diagnosis_before)
        if outcome.result.plan is not None and outcome.result.plan.actions and not shown:
            lines += page.plan(outcome.result.plan)
        worker.console.say_all(lines + page.result(outcome.result))
        worker.say_report(outcome)
    ctx.exit(EXIT[outcome.result.word])


# --- undo --------------------------------------------------------------------------------------------------


@click.command(short_help="Put back every byte that a repair has changed.")
@click.option(
    "--list", "as_list", is_flag=True, help="List the runs whose originals are there; change nothing."
)
@click.option("--run", "stamp", metavar="STAMP", help="The run to take back; default: the newest.")
@click.option("--yes", is_flag=True, help="The consent: do not ask.")
@click.option("--force", is_flag=True, help="Put the originals back even over what was changed since.")
@_json
@language_option
@click.pass_context
@_with_exit_codes
def undo(
    ctx: click.Context,
    as_list: bool,
    stamp: str | None,
    yes: bool,
    force: bool,
    as_json: bool,
    language: str | None,
) -> None:
    """Put back every byte that a repair has changed; also after a power cut in the middle of one.

    \b
    Examples:
      rehost undo --list
      rehost undo
      rehost undo --run 20250107T025811Z --yes
    """
    from rehost_payload.repair.session import past_runs
    from rehost_payload.ui.run import EXIT
    from rehost_payload.ui.work import is_yes, run_text

    texts = texts_of(language)
    worker = _worker(texts, quiet=as_json)
    require_disks(worker.system)
    if as_list or not yes:
        with refusals():
            runs = past_runs(worker.system)
        worker.progress.close()
        if as_list and as_json:
            facts = [
                {"run": r.stamp, "volume": r.volume_id, "folder": r.folder, "undoable": r.undoable}
                for r in runs
            ]
            _echo_json(facts)
            ctx.exit(0)
        worker.console.say_all([run_text(r, texts) for r in runs] or [texts("menu.undo-none")])
        if as_list:
            ctx.exit(0)
        if not any(r.undoable and stamp in (None, r.stamp) for r in runs):
            ctx.exit(FAILED)
        if not sys.stdin.isatty() or not is_yes(worker.console.ask(texts("menu.consent-undo"))):
            from rehost_payload.repair.model import ResultWord

            worker.console.say(texts.part("result", "declined", "title") or "")
            ctx.exit(EXIT[ResultWord.DECLINED])
    with alone("rehost undo"):
        outcome = worker.undo(stamp, force)
    if as_json:
        _echo_json({"exit_code": EXIT[outcome.result.word], "result": outcome.result})
    else:
        worker.console.say_all(worker.page(outcome.after or outcome.before).result(outcome.result))
        worker.say_report(outcome)
    ctx.exit(EXIT[outcome.result.word])


# --- report ------------------------------------------------------------------------------------------------


@click.command(short_help="Make the HTML page of a run again, also in the other language.")
@click.option("--from", "source", type=_FILE, required=True, metavar="FILE", help="The report.json of a run.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="The page to be written.",
)
@language_option
def report(source: Path, output: Path, language: str | None) -> None:
    """Make the HTML page of a run again from its report.json, for instance in the other language.

    \b
    Examples:
      rehost report --from report.json -o report.html
      rehost report --from report.json -o bericht.html --lang de
    """
    from rehost_payload.ui import report as pages

    try:
        document = pages.from_json(source.read_bytes())
    except OSError as e:
        raise click.ClickException(f"{source}: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise click.ClickException(f"{source}: not a report.json of Rehost") from e
    except ValueError as e:
        raise click.ClickException(f"{source}: not a report.json of Rehost: {e}") from e
    if output.exists() and output.samefile(source):
        raise click.ClickException(
            f"{output}: the page would replace the run's own record; name another file"
        )
    page = pages.to_html(document, texts_of(language).language)
    try:
        output.write_text(page, encoding="utf-8", errors="replace")
    except OSError as e:
        raise click.ClickException(f"{output}: {e.strerror}") from e


# --- menu --------------------------------------------------------------------------------------------------


@click.command()
@language_option
@click.pass_context
def menu(ctx: click.Context, language: str | None) -> None:
    """The menu that the recovery medium starts: survey, repair, undo. Obeys an answer file first.

    \b
    Examples:
      rehost menu
      rehost menu --lang de
    """
    from rehost_payload.ui.menu import start

    ctx.exit(start(language))


# --- pieces ------------------------------------------------------------------------------------------------


commands: list[click.Command] = [
    Lazy(
        "survey", "rehost_payload.ui.survey_cmd:survey", "Show disks, Windows installations and boot stores."
    ),
    diagnose,
    repair,
    verify,
    undo,
    Lazy("bcd", "rehost_payload.ui.bcd_show:bcd", "Look at Windows boot stores (BCD)."),
    Lazy(
        "hyperv", "rehost_payload.ui.hyperv_cmd:hyperv", "Look at the files of Hyper-V: machines and disks."
    ),
    Lazy(
        "capture",
        "rehost_payload.ui.capture_cmd:capture",
        "Secure virtual machines; verify what was captured.",
    ),
    Lazy(
        "drivers",
        "rehost_payload.ui.drivers_cmd:drivers",
        "Driver packages: what they are, which one is needed.",
    ),
    report,
    menu,
]


def texts_of(language: str | None) -> Texts:
    from rehost_payload.ui.answer import OrdersError, command_line_orders
    from rehost_payload.ui.texts import Texts, language_of

    wish = None
    if language is None:
        try:
            wish = command_line_orders().language
        except OrdersError:  # the menu's business; for a language it is not worth a word
            wish = None
    return Texts(language_of(language, wish))


def _fail(message: str, code: int = FAILED) -> NoReturn:
    click.echo(f"rehost: {message}", err=True)
    click.get_current_context().exit(code)


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """What the operating system or another process refuses is one message, not a traceback."""
    from rehost_payload.system.protocol import SystemError_
    from rehost_payload.ui.lock import Busy
    from rehost_payload.ui.work import UnknownChoice

    try:
        yield
    except UnknownChoice as e:
        raise click.UsageError(f"--{str(e).replace('_', '-', 1) if '_' in e.name else e}") from e
    except Busy as e:
        raise click.ClickException(f"another process is at work on the disks ({e})") from e
    except SystemError_ as e:
        raise click.ClickException(e.detail) from e
    except OSError as e:
        raise click.ClickException(str(e)) from e


@contextlib.contextmanager
def alone(what: str) -> Iterator[None]:
    """Only one process may change anything at a time."""
    from rehost_payload.ui.lock import work_lock

    with refusals(), work_lock(what):
        yield


def _progress(texts: Texts) -> ProgressLine:
    from rehost_payload.ui.console import speaks_utf8
    from rehost_payload.ui.progress import ProgressLine

    utf8 = speaks_utf8(2, getattr(sys.stderr, "encoding", None))
    return ProgressLine(sys.stderr, texts, terminal=sys.stderr.isatty(), utf8=utf8)


def _system() -> System:
    from rehost_payload.system.here import this_machine
    from rehost_payload.system.protocol import SystemError_

    try:
        return this_machine()
    except SystemError_ as e:
        _fail(e.detail, USAGE)


def require_disks(system: System) -> None:
    """Ends the command where no disk of this machine may be read: what is on them is not known then, and not nothing."""
    with refusals():
        handles = system.disks()
    for handle in handles:
        handle.close()
    if not handles and (problems := system.problems()):
        _fail(_no_disk("; ".join(problems)))


def _no_disk(reasons: str, of_images: bool = False) -> str:
    from rehost_payload.system.here import PRIVILEGE

    return f"no disk could be read{': ' + reasons if reasons else ''}{'' if of_images else f' ({PRIVILEGE})'}"


def _survey(saved: Path | None, images: tuple[Path, ...], texts: Texts, pci: str | None = None) -> Survey:
    """The survey that a command works on: saved, of images, or of this machine. Ends the command if there is none."""
    from rehost_payload.formats.errors import FormatError
    from rehost_payload.survey import survey_images, survey_machine
    from rehost_payload.survey.json import checked, from_json
    from rehost_payload.system.protocol import SystemError_
    from rehost_payload.ui.pretend import controllers_of

    if saved is not None and images:
        raise click.UsageError("--survey and --image exclude each other")
    controllers = controllers_of(pci, bool(images))
    if saved is not None:
        try:
            return checked(from_json(saved.read_text(encoding="utf-8")))
        except OSError as e:
            _fail(f"{saved}: {e.strerror}")
        except (FormatError, UnicodeDecodeError) as e:
            _fail(f"{saved} is no survey, as rehost survey --json writes it: {e}")
    progress = _progress(texts)
    progress.label = texts("progress.survey")
    try:
        if images:
            found = survey_images(images, progress, controllers)
        else:
            found = survey_machine(_system(), progress)
    except SystemError_ as e:
        progress.close()
        _fail(e.detail)
    progress.close()
    if not found.disks:
        reasons = "; ".join(f"{p.where}: {p.detail}" for p in found.problems)
        _fail(_no_disk(reasons, bool(images)))
    return found


def _check_choices(survey: Survey, choices: Choices) -> None:
    with refusals():
        from rehost_payload.ui.work import check_choices

        check_choices(survey, choices)


def make_worker(language: str | None, quiet: bool, system: System | None = None) -> Worker:
    """A worker for a command that stands in another module."""
    return _worker(texts_of(language), quiet, system)


def _worker(texts: Texts, quiet: bool, system: System | None = None) -> Worker:
    """With ``quiet`` nothing but the JSON goes to standard output. ``system``: instead of this machine."""
    from rehost_payload.system.here import this_host
    from rehost_payload.ui.console import Console
    from rehost_payload.ui.work import Worker

    console = Console(out=sys.stderr if quiet else sys.stdout)
    return Worker(system or _system(), texts, console, _progress(texts), this_host().machine())


def _page(survey: Survey, texts: Texts) -> Page:
    from rehost_payload.ui.console import Console
    from rehost_payload.ui.describe import Names
    from rehost_payload.ui.show import Page

    console = Console()
    return Page(Names(survey, texts), console.width, not console.utf8)


def _echo(lines: list[str]) -> None:
    from rehost_payload.ui.console import Console

    while lines and not lines[0]:
        lines = lines[1:]
    Console().say_all(lines)


def _echo_json(value: object) -> None:
    from rehost_payload.ui.plain import dumps

    click.echo(dumps(value))


# --- the program on the server -----------------------------------------------------------------------------


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="rehost")
def rehost() -> None:
    """Finds out why a Windows server does not start, and mends it.

    \b
    rehost menu                 the menu that the medium starts
    rehost survey               what is in this machine
    rehost diagnose             why Windows does not start
    rehost repair               diagnosis, plan, question, repair, verification
    rehost undo                 takes a repair back
    """


for _command in commands:
    rehost.add_command(_command)


def run(group: click.Group, arguments: list[str] | None = None) -> int:
    """Runs a command group and returns its exit code; every error is one message on standard error."""
    try:
        code = group.main(args=arguments, prog_name="rehost", standalone_mode=False)
    except click.ClickException as e:
        e.show()
        return e.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo(
            "\nrehost: interrupted; nothing is half-done (rehost undo takes a finished repair back)", err=True
        )
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone (rehost ... | head)
        sys.stderr.close()
        return FAILED
    return code if isinstance(code, int) else 0


def main() -> int:
    return run(rehost)
