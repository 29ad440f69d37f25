"""`rehost drivers ...`: look into driver packages, and find the one that a controller needs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.inf import parse_inf
from rehost_payload.formats.inf_target import (
    DOMAIN_CONTROLLER,
    SERVER,
    SERVERS,
    WORKSTATION,
    Target,
    target_of,
)
from rehost_payload.formats.inf_text import MAX_SIZE
from rehost_payload.ui.drivers_show import LoadedInf, as_json, as_text
from rehost_payload.ui.plain import dumps

F = TypeVar("F", bound=Callable[..., Any])
_PRODUCTS = {"server": SERVER, "dc": DOMAIN_CONTROLLER, "workstation": WORKSTATION}


class _Windows(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A build number, a version or the year of a server."""

    name = "windows"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Target:
        if isinstance(value, Target):
            return value
        try:
            return target_of(str(value))
        except ValueError as e:
            self.fail(str(e), param, ctx)


WINDOWS = _Windows()


def product_option(function: F) -> F:
    return click.option(
        "--product",
        type=click.Choice(list(_PRODUCTS)),
        default="server",
        show_default=True,
        help="What the Windows is: some packages are for one of them only.",
    )(function)


def with_product(target: Target, product: str) -> Target:
    return Target(target.major, target.minor, target.build, _PRODUCTS[product])


def say(lines: Iterable[str]) -> None:
    """Prints lines; what a terminal would obey, or cannot show, is replaced."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    for line in lines:
        plain = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in line)
        click.echo(plain.encode(encoding, "replace").decode(encoding))


def load(path: Path) -> LoadedInf:
    """Reads an INF and looks whether its catalog is beside it. ClickException where it cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SIZE + 1)
        inf = parse_inf(data)
        catalog = inf.version.catalog()
        names = {p.name.lower() for p in path.parent.iterdir()} if catalog else set()
    except OSError as e:
        raise click.ClickException(f"{path}: {e.strerror or e}") from e
    except FormatError as e:
        raise click.ClickException(f"{path}: {e}") from e
    return LoadedInf(path, len(data), inf, catalog.lower() in names if catalog else None)


@click.group()
def drivers() -> None:
    """Look into driver packages.

    \b
    Example:
      rehost drivers show arcsas.inf
    """


@drivers.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--windows",
    "targets",
    type=WINDOWS,
    multiple=True,
    metavar="BUILD",
    help="For this Windows only: 14393, 10.0.14393 or 2016. Default: every server since 2008 R2.",
)
@product_option
@click.option("--all", "everything", is_flag=True, help="List every model.")
@click.option("--json", "json_", is_flag=True, help="Machine-readable output.")
def show(file: Path, targets: tuple[Target, ...], product: str, everything: bool, json_: bool) -> None:
    """Print what the driver package with the setup file FILE.inf means. Nothing is changed.

    For which Windows and which devices it is, which services it installs and when they start, its files and its
    registry settings.

    \b
    Examples:
      rehost drivers show arcsas.inf
      rehost drivers show --windows 2016 arcsas.inf
      rehost drivers show --json arcsas.inf | jq '.install_sections[].services[].name'
    """
    loaded = load(file)
    wanted = [with_product(t, product) for t in targets or (target_of(str(b)) for b in SERVERS)]
    try:
        if json_:
            click.echo(dumps(as_json(loaded, wanted)))
        else:
            say(as_text(loaded, wanted, everything))
    except FormatError as e:  # an install section without end
        raise click.ClickException(f"{file}: {e}") from e
