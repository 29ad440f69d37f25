"""`rehost survey`: what is on the disks of this machine, or on disk images. Nothing is changed."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import click

from rehost_payload.survey import survey_images, survey_machine
from rehost_payload.survey.json import to_json
from rehost_payload.survey.model import Controller, Survey
from rehost_payload.system.here import PRIVILEGE
from rehost_payload.system.protocol import Progress, SystemError_
from rehost_payload.ui.console import Console, speaks_utf8
from rehost_payload.ui.describe import Names
from rehost_payload.ui.options import only_one
from rehost_payload.ui.paths import InputPath
from rehost_payload.ui.pretend import controllers_of
from rehost_payload.ui.progress import ProgressLine
from rehost_payload.ui.show import Page
from rehost_payload.ui.texts import Texts, ascii_fold, clean, language_of


@click.command()
@click.option(
    "--image",
    "images",
    multiple=True,
    type=InputPath(folders=False, disks=True),
    metavar="FILE",
    help="A disk image instead of this machine's disks; may be given several times.",
)
@click.option(
    "--pci",
    multiple=True,
    callback=only_one,
    metavar="ID",
    help="Look at the images as if they were connected to this controller (9005:028D:9005:0552).",
)
@click.option("--json", "json_", is_flag=True, help="The whole survey as JSON, to be kept or sent.")
@click.option(
    "--lang",
    "--language",
    "language",
    metavar="LANG",
    help="Language of the text, en or de; default: your locale.",
)
def survey(images: tuple[Path, ...], pci: str | None, json_: bool, language: str | None) -> None:
    """Show disks, volumes, Windows installations and boot stores. Nothing is changed.

    Without --image the disks of this machine are looked at, for which root (Windows: an administrator) is needed. Images may be raw,
    qcow2, VHDX, VHD or VMDK; all but raw need qemu-nbd (package qemu-utils).

    \b
    Examples:
      rehost survey --image server.img
      rehost survey --image os.vhdx --image data.vhdx
      rehost survey --json --image server.qcow2 > survey.json
      rehost survey --image server.img --pci 9005:028D:9005:0552
      sudo rehost survey

    \b
    Exit codes:
      0    done (what could not be read is listed)
      1    nothing could be read
      2    the command line is wrong
    """
    texts = Texts(language_of(language))
    terminal = sys.stderr.isatty()
    utf8 = speaks_utf8(2, getattr(sys.stderr, "encoding", None))
    progress = ProgressLine(sys.stderr, texts, terminal=terminal, utf8=utf8)
    controllers = controllers_of(pci, bool(images))
    try:
        found = _survey(images, progress, controllers)
    except SystemError_ as error:
        click.echo(f"rehost: {error.detail}", err=True)
        sys.exit(1)
    finally:
        progress.close()
    if json_:
        click.echo(to_json(found), nl=False)
    else:
        print_lines(Page(Names(found, texts)).survey(found))
    if not found.disks:
        for problem in found.problems:
            click.echo(f"rehost: {problem.where}: {problem.detail}", err=True)
        click.echo("rehost: no disk could be read" + ("" if images else f"; {PRIVILEGE}"), err=True)
        sys.exit(1)


def _survey(images: tuple[Path, ...], progress: Progress, controllers: tuple[Controller, ...]) -> Survey:
    if images:
        return survey_images(images, progress, controllers)
    from rehost_payload.system.here import this_machine

    return survey_machine(this_machine(), progress)


def print_lines(lines: list[str]) -> None:
    """On standard output, without umlauts where it has none; on a terminal no line is longer than it is wide."""
    text = clean("\n".join(lines).strip("\n")) + "\n"
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    terminal = sys.stdout.isatty()
    utf8 = encoding.lower().replace("-", "") == "utf8"
    if not utf8 or (terminal and not speaks_utf8(sys.stdout.fileno(), encoding)):
        text = ascii_fold(text)
    if terminal:
        width = Console().width
        text = "".join(f"{part}\n" for line in text.splitlines() for part in _fitting(line, width))
    click.echo(text.encode(encoding, "replace").decode(encoding), nl=False)


def _fitting(line: str, width: int) -> list[str]:
    if len(line) <= width:
        return [line]
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.wrap(line, width, subsequent_indent=f"{indent}    ", break_on_hyphens=False)
