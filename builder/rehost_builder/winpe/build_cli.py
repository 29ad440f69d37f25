"""What `rehost build --media` prints."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from rehost_builder.environment import clear_messages
from rehost_builder.progress import Progress
from rehost_builder.winpe.build import STEPS, WinpeOptions, build_winpe_iso, prepare
from rehost_builder.winpe.plan import plan_lines


def build_winpe(options: WinpeOptions, *, dry_run: bool, as_json: bool, quiet: bool) -> None:
    """Builds, or shows the plan. BuildError as `build_winpe_iso`."""
    if dry_run:
        steps = {title: seconds for title, seconds in STEPS.items() if title != "ISO"}
        progress = Progress(steps, quiet=quiet or as_json)
        with clear_messages(options.output, *options.media), prepare(options, progress) as prepared:
            if as_json:
                click.echo(json.dumps(asdict(prepared.plan), indent=1, default=str))
            else:
                click.echo("\n".join(plan_lines(prepared.plan)))
                click.echo("Nothing was written (--dry-run).")
        return
    result = build_winpe_iso(options, Progress(STEPS, quiet=quiet))
    if as_json:
        click.echo(json.dumps(asdict(result), default=str, indent=1))
        return
    for note in result.notes:
        click.echo(f"note: {note}")
    click.echo(
        f"{result.iso}: {result.size / 1e6:,.1f} MB in {result.seconds:.1f} s from {result.product or 'your media'}, "
        f"Python {result.python}, {result.drivers} driver packages\n"
        f"starts by {' and '.join(result.boots_by)}; {result.boot_files}\n"
        f"It holds Microsoft's software from your media: for deployment and recovery only, not to be passed on.\n"
        f"sha256 {result.sha256}"
    )
