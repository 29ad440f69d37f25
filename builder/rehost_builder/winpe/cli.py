"""`rehost media`: what a source of Windows media is, before anything is built from it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from rehost_builder.environment import clear_messages, workspace
from rehost_builder.winpe.inspect import report_lines
from rehost_builder.winpe.opened import opened_media
from rehost_payload.ui.paths import InputPath

EXIT_UNUSABLE = 3
_WORKSPACE = 16 << 20


@click.group()
def media() -> None:
    """Windows media that a recovery medium can be built from."""


@media.command(short_help="Say what Windows media are, and what is missing.")
@click.argument("source", nargs=-1, required=True, type=InputPath(disks=True, exists=True))
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
@click.pass_context
def inspect(ctx: click.Context, source: tuple[Path, ...], as_json: bool) -> None:
    """Say what SOURCE is: product, build, images, tools inside, boot files and who signed them, what is missing.

    SOURCE is the ISO of Windows Server or Windows, a folder with its files, the ADK's WinPE add-on, another maker's
    recovery ISO based on WinPE, or a boot image (boot.wim, winre.wim, winpe.wim). Nothing is changed.

    \b
    Examples:
      rehost media inspect SERVER_2022.iso
      rehost media inspect winre.wim SERVER_2016.iso     image and boot files from two sources
      rehost media inspect --json SERVER_2022.iso

    \b
    Exit codes:
      0  a medium can be built from it
      1  an error: it is no Windows medium, cut short, for another architecture ...
      3  it can be read, but something that we need is missing
    """
    with (
        clear_messages(source[0]),
        workspace(_WORKSPACE) as work,
        opened_media(source, work) as (_, _, report),
    ):
        if as_json:
            click.echo(json.dumps(asdict(report), indent=1))
        else:
            for line in report_lines(report):
                click.echo(line)
        usable = report.usable
    ctx.exit(0 if usable else EXIT_UNUSABLE)
