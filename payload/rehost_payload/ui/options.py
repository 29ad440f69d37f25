"""Options that the commands share. Imports nothing but click: --help needs it."""

from __future__ import annotations

from typing import Any

import click


def only_one(ctx: click.Context, param: click.Parameter, values: tuple[Any, ...]) -> Any:
    """Callback of an option with ``multiple=True``: its value, None where it is not given.

    click.BadParameter for more than one, of which click by itself takes the last and drops the others without a word.
    """
    if len(values) > 1:
        raise click.BadParameter(f"given {len(values)} times; run the command once for each", ctx, param)
    return values[0] if values else None
