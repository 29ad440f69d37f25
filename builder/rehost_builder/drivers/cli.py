"""`rehost drivers` on the workstation: the payload's commands, and `check`, which needs libraries of the builder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from rehost_builder.drivers.check import Level, PackageReport, check_folder
from rehost_payload.formats.errors import FormatError
from rehost_payload.ui.drivers_cmd import drivers, say
from rehost_payload.ui.plain import dumps

EXIT_FAILED_CHECKS = 3


def as_text(reports: list[PackageReport], verbose: bool) -> Iterator[str]:
    """A block for each package; what passed is only listed with ``verbose``."""
    for report in reports:
        verdict = "FAIL" if report.failed else "no fault found"
        yield f"{report.path}: {verdict}"
        yield f"  for      {_servers(report.usable)}"
        yield f"  at boot  {', '.join(report.services) or 'no service'}"
        for check in report.checks:
            if verbose or check.level is not Level.PASS:
                yield f"  {check.level.value.upper():<8} {check.file} {check.text}"
        yield ""
    failed = sum(r.failed for r in reports)
    yield f"{len(reports)} {'package' if len(reports) == 1 else 'packages'}, {failed} failed"


def _servers(names: tuple[str, ...]) -> str:
    years = [n.removeprefix("Windows Server ").partition(" (")[0] for n in names]
    return f"Windows Server {', '.join(years)}" if years else "no Windows Server"


@drivers.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("-v", "--verbose", is_flag=True, help="List what passed as well.")
@click.option("--json", "json_", is_flag=True, help="Machine-readable output.")
@click.pass_context
def check(ctx: click.Context, folder: Path, verbose: bool, json_: bool) -> None:
    """Verify the unpacked driver packages in FOLDER and below. Nothing is changed.

    Every file that the INF wants has to be there and to have the hash that the catalog holds; drivers have to be
    kernel drivers for x64. The signature of the catalog itself is not verified.

    \b
    Examples:
      rehost drivers check drivers/packages
      rehost drivers check -v drivers/packages/smartpqi

    \b
    Exit codes:
      0  no fault was found in any package
      1  an error
      3  a package failed, or there is none
    """
    try:
        reports = check_folder(folder)
    except OSError as e:
        raise click.ClickException(f"{e.filename}: {e.strerror or e}") from e
    except FormatError as e:
        raise click.ClickException(str(e)) from e
    if json_:
        plain = [
            {
                "path": str(r.path),
                "failed": r.failed,
                "usable": r.usable,
                "services": r.services,
                "checks": r.checks,
            }
            for r in reports
        ]
        click.echo(dumps(plain))
    else:
        say(as_text(reports, verbose))
    ctx.exit(EXIT_FAILED_CHECKS if not reports or any(r.failed for r in reports) else 0)
