"""`rehost verify`: a finished medium, or (the payload's own command) the disk of a server."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Any

import click

from rehost_builder.progress import Progress
from rehost_builder.verify.model import report_lines
from rehost_payload.ui.cli import verify as verify_disk
from rehost_payload.ui.exit_codes import EXIT_HELP
from rehost_payload.ui.paths import InputPath

EXIT_NOT_PASSED = 3
_HELP = f"""Judge a medium, or whether the Windows on a disk would start: PASS, FAIL or UNKNOWN, point by point.

With ISO the medium is read back by code that shares nothing with what wrote it: boot entries and stores, every
file by its hash, the boot image, that each module which Rehost imports is in it. Without ISO this computer's disks are
judged, or those of --image or --survey. Nothing is changed. PASS is said of what was looked at, never of what was not.

\b
Examples:
  rehost verify rehost.iso
  rehost verify rehost.iso --json
  rehost verify --image server.img
  rehost verify --image server.img --pci 'PCI\\VEN_1022&DEV_7901&CC_010601'

{EXIT_HELP}

\b
Of a medium: 0 every needed point passed, 1 it cannot be read, 3 a point failed or is not known.
"""


def _of_disk(ctx: click.Context) -> list[str]:
    """Options of the other command that were given."""
    return [
        parameter.opts[0]
        for parameter in verify_disk.params
        if parameter.name not in (None, "as_json")
        and ctx.get_parameter_source(str(parameter.name)) is click.core.ParameterSource.COMMANDLINE
    ]


def _run(ctx: click.Context, /, **values: Any) -> None:
    iso: Path | None = values.pop("iso")
    thorough: bool = values.pop("thorough")
    quiet: bool = values.pop("quiet")
    if iso is None:
        if thorough:
            raise click.UsageError("--thorough is for a medium: rehost verify --thorough rehost.iso")
        assert verify_disk.callback is not None
        verify_disk.callback(**values)
        return
    given = _of_disk(ctx)
    if given:
        raise click.UsageError(
            f"{given[0]} is for the disk of a server, {iso} is a medium: verify one of them"
        )
    from rehost_builder.verify.run import STEPS, verify_medium

    report = verify_medium(iso, Progress(STEPS, quiet=quiet or values["as_json"]), thorough=thorough)
    code = 0 if report.passed else EXIT_NOT_PASSED
    if values["as_json"]:
        click.echo(json.dumps({"exit_code": code, "verification": asdict(report)}, default=_plain, indent=1))
    else:
        for line in report_lines(report):
            click.echo(line)
    ctx.exit(code)


def _plain(value: object) -> str:
    return str(value.value) if isinstance(value, Enum) else str(value)


verify = click.Command(
    "verify",
    callback=click.pass_context(_run),
    params=[
        click.Argument(
            ["iso"], required=False, metavar="[ISO]", type=InputPath(folders=False, disks=True, exists=True)
        ),
        click.Option(
            ["--thorough"], is_flag=True,
            help="With ISO, on Windows PE: wimlib-imagex unpacks every file of the boot image, too.",
        ),
        click.Option(["-q", "--quiet"], is_flag=True, help="With ISO: no progress."),
        *verify_disk.params,
    ],
    help=_HELP,
)  # fmt: skip
