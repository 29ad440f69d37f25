"""`rehost drivers` on the workstation: the payload's commands, and `check`, which needs libraries of the builder."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from rehost_payload.ui.drivers_cmd import drivers, say
from rehost_payload.ui.paths import InputPath
from rehost_payload.ui.plain import dumps

EXIT_FAILED_CHECKS = 3


@drivers.command(short_help="Verify driver packages: usable for which Windows Server?")
@click.argument("packages", nargs=-1, required=True, type=InputPath())
@click.option("-v", "--verbose", is_flag=True, help="List what passed and every controller as well.")
@click.option("--json", "json_", is_flag=True, help="Machine-readable output.")
@click.pass_context
def check(ctx: click.Context, packages: tuple[Path, ...], verbose: bool, json_: bool) -> None:
    """Verify driver packages: for which Windows Server they are usable, and why not for others.

    PACKAGES are folders, or archives as vendors deliver them (ZIP, EXE, CAB, MSI, 7z), which are unpacked into a
    private folder. Nothing is changed. An archive that is hostile or damaged is named as unusable, and the others are
    checked all the same. Every file that the INF wants has to be there and to have the hash that the
    catalog holds; the catalog has to be signed, and by Microsoft; drivers have to be kernel drivers for x64.

    \b
    Examples:
      rehost drivers check drivers/packages
      rehost drivers check -v SmartPQI.zip
      rehost drivers check --json drivers/packages | jq '.[] | select(.failed) | .path'

    \b
    Exit codes:
      0  at least one package is usable, and none is unsound
      1  an error
      2  the command line is wrong
      3  a package is not usable, an archive could not be opened, or none holds a boot driver
    """
    from rehost_builder.drivers.folders import check_all
    from rehost_builder.drivers.report import as_json, as_text
    from rehost_payload.drivers.catalogue import load_catalogue
    from rehost_payload.drivers.check import Kind
    from rehost_payload.ui.progress import ProgressLine
    from rehost_payload.ui.texts import Texts

    progress = ProgressLine(sys.stderr, Texts(), terminal=sys.stderr.isatty())
    try:
        reports, notes = check_all(packages, progress)
    except OSError as e:
        raise click.ClickException(f"{e.filename}: {e.strerror or e}") from e
    finally:
        progress.close()
    for note in notes:
        click.echo(note, err=True)
    if json_:
        click.echo(dumps(as_json(reports)))
    else:
        say(as_text(reports, load_catalogue(), verbose))
    kinds = {r.kind for r in reports}
    some = Kind.USABLE in kinds or Kind.UNCLEAR in kinds
    ctx.exit(EXIT_FAILED_CHECKS if Kind.UNUSABLE in kinds or not some else 0)
