"""`rehost hyperv list`: the virtual machines of a host that is not running, and what stands against a capture."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from rehost_payload.capture.found import FoundHost
from rehost_payload.capture.model import CaptureChoices, CapturePlan
from rehost_payload.capture.plan import find_and_plan
from rehost_payload.repair.model import Severity
from rehost_payload.system.here import PRIVILEGE, this_machine
from rehost_payload.system.protocol import Progress, SystemError_
from rehost_payload.ui.capture_show import CapturePage
from rehost_payload.ui.console import Console, speaks_utf8
from rehost_payload.ui.exit_codes import FAILED
from rehost_payload.ui.paths import InputPath
from rehost_payload.ui.plain import dumps
from rehost_payload.ui.progress import ProgressLine
from rehost_payload.ui.texts import Texts, language_of

FATAL, BLOCKED = 3, 5


@click.command("list")
@click.option(
    "--image",
    "images",
    multiple=True,
    type=InputPath(folders=False, disks=True),
    metavar="FILE",
    help="A disk image of the host instead of this machine's disks; may be given several times.",
)
@click.option("--windows", metavar="ID", help=r'The Windows that is the host ("disk0p3:\Windows").')
@click.option(
    "--json", "json_", is_flag=True, help="Machine-readable output, with every file of every machine."
)
@click.option(
    "--lang",
    "--language",
    "language",
    type=click.Choice(["en", "de"]),
    help="Language of the text; default: your locale.",
)
def list_(images: tuple[Path, ...], windows: str | None, json_: bool, language: str | None) -> None:
    """Show the virtual machines on a host's disks, and what stands against a capture. Nothing is changed.

    All volumes are searched, not only the places that the host knows of. Give every disk of the host: a machine's
    files may be scattered over several. Without --image the disks of this machine are looked at, for which root is
    needed.

    \b
    Examples:
      rehost hyperv list --image system.img --image array.vhdx
      rehost hyperv list --json --image disk.img | jq '.plan.units[].machine.name'
      sudo rehost hyperv list

    \b
    Exit codes:
      0    done; nothing stands against a capture
      1    nothing could be read
      2    the command line is wrong
      3    a machine is damaged already, or cannot be captured whole from here
      5    going on would lose something (a locked volume, a virtual TPM)
      130  interrupted with Ctrl-C
    """
    texts = Texts(language_of(language))
    utf8 = speaks_utf8(2, getattr(sys.stderr, "encoding", None))
    progress = ProgressLine(sys.stderr, texts, terminal=sys.stderr.isatty(), utf8=utf8)
    progress.label = texts("progress.machines")
    taken = datetime.now(UTC).replace(microsecond=0).isoformat()
    try:
        found, plan = _look(images, CaptureChoices(taken, windows=windows), progress)
    except (SystemError_, OSError) as error:
        progress.close()
        click.echo(f"rehost: {error.detail if isinstance(error, SystemError_) else error}", err=True)
        sys.exit(FAILED)
    finally:
        progress.close()
    if windows is not None and (found.windows is None or found.windows.id != windows):
        raise click.UsageError(f"--windows {windows}: there is no such Windows")
    code = exit_code(plan)
    if json_:
        click.echo(dumps(as_json(found, plan, code)))
    else:
        Console().say_all(CapturePage(texts).plan(plan, found.settings)[1:])
    if not found.disks:
        click.echo("rehost: no disk could be read" + ("" if images else f"; {PRIVILEGE}"), err=True)
        sys.exit(FAILED)
    sys.exit(code)


def _look(
    images: tuple[Path, ...], choices: CaptureChoices, progress: Progress
) -> tuple[FoundHost, CapturePlan]:
    if images:
        from rehost_payload.system.images import ImageSystem

        with ImageSystem(images) as system:
            return find_and_plan(system, progress, choices)
    return find_and_plan(this_machine(), progress, choices)


def exit_code(plan: CapturePlan) -> int:
    """What a script needs to know of the findings."""
    severities = {f.severity for f in plan.findings} | {f.severity for u in plan.units for f in u.findings}
    return BLOCKED if Severity.BLOCKER in severities else FATAL if Severity.FATAL in severities else 0


def as_json(found: FoundHost, plan: CapturePlan, code: int) -> dict[str, object]:
    return {
        "exit_code": code,
        "windows": None if found.windows is None else found.windows.id,
        "volumes": found.volumes,
        "settings": found.settings,
        "known": found.known,
        "lost": found.lost,
        "left_out": found.left_out,
        "problems": found.problems,
        "plan": plan,
    }
