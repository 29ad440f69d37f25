"""`rehost capture`: secures the virtual machines of a Hyper-V host, and judges what was secured."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rehost_payload.capture.judge import CaptureVerdict, Fault, UnitVerdict
    from rehost_payload.ui.texts import Texts

NOT_PASSED = 3
_MOST_EXTRA = 10


@click.group()
def capture() -> None:
    """Secure virtual machines before a reinstall, and verify what was secured.

    \b
    Example:
      rehost capture verify /mnt/disk/Rehost-HV01-2026-03-01
    """


@capture.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--json", "json_", is_flag=True, help="Machine-readable output.")
@click.option(
    "--lang",
    "--language",
    "language",
    type=click.Choice(["en", "de"]),
    help="Language of the text; default: your locale.",
)
def verify(folder: Path, json_: bool, language: str | None) -> None:
    """Read a whole capture, or one machine's folder of it, and say whether it is what was captured.

    Needs nothing of the old host and works years later, on any computer. Nothing is changed. Every file is hashed
    and compared with the manifest and SHA256SUMS; what is missing, changed, unreadable or was never finished is named.
    `sha256sum -c SHA256SUMS` in each machine's folder checks the same files without Rehost.

    \b
    Examples:
      rehost capture verify /mnt/disk/Rehost-HV01-2026-03-01
      rehost capture verify --json D:/Rehost-HV01-2026-03-01/web01

    \b
    Exit codes:
      0    PASS: every file of every unit is good
      1    the folder cannot be read or holds no capture
      2    the command line is wrong
      3    FAIL or UNKNOWN for at least one unit
      130  interrupted with Ctrl-C
    """
    from rehost_payload.capture.judge import NoCapture, verify_capture
    from rehost_payload.repair.model import Verdict
    from rehost_payload.strictjson import plain
    from rehost_payload.ui.console import speaks_utf8
    from rehost_payload.ui.progress import ProgressLine
    from rehost_payload.ui.survey_cmd import print_lines
    from rehost_payload.ui.texts import Texts, language_of

    texts = Texts(language_of(language))
    utf8 = speaks_utf8(2, getattr(sys.stderr, "encoding", None))
    progress = ProgressLine(sys.stderr, texts, terminal=sys.stderr.isatty(), utf8=utf8)
    try:
        verdict = verify_capture(folder, progress)
    except NoCapture as error:
        key = "no-capture-inside" if error.inside else "no-capture"
        message = texts(f"capturecheck.{key}", folder=folder, inside=", ".join(error.inside))
        raise click.ClickException(message) from error
    except OSError as error:
        raise click.ClickException(f"{folder}: {error.strerror or error}") from error
    finally:
        progress.close()
    if json_:
        click.echo(json.dumps(plain(verdict), indent=1))
    else:
        print_lines(list(_lines(verdict, texts)))
    sys.exit(0 if verdict.verdict is Verdict.PASS else NOT_PASSED)


def _lines(verdict: CaptureVerdict, t: Texts) -> Iterator[str]:
    for unit in verdict.units:
        yield from _unit_lines(unit, t)
    for fault in verdict.faults:
        yield _fault(fault, t)
    yield ""
    yield t("capturecheck.overall", verdict=t(f"verdict.{verdict.verdict.value}"))
    key = {"PASS": "passed", "FAIL": "failed", "UNKNOWN": "unknown"}[verdict.verdict.value]
    yield t(f"capturecheck.{key}")


def _unit_lines(unit: UnitVerdict, t: Texts) -> Iterator[str]:
    from rehost_payload.ui.describe import size

    word = t(f"verdict.{unit.verdict.value}")
    name = unit.name if unit.name == unit.folder else f"{unit.name} ({unit.folder})"
    key = "unit-one" if unit.files == 1 else "unit"
    yield t(f"capturecheck.{key}", verdict=f"{word:<7}", name=name, files=unit.files, size=size(unit.size))
    yield from (f"         {_fault(fault, t)}" for fault in unit.faults)
    yield from ("         " + t("capturecheck.absent", path=path) for path in unit.missing)
    yield from ("         " + t("capturecheck.extra", path=path) for path in unit.extra[:_MOST_EXTRA])
    if len(unit.extra) > _MOST_EXTRA:
        yield "         " + t("show.more", count=len(unit.extra) - _MOST_EXTRA)


def _fault(fault: Fault, t: Texts) -> str:
    text = f"{fault.path}: " if fault.path else ""
    return text + t(f"capturecheck.{fault.code}") + (f" ({fault.detail})" if fault.detail else "")
