"""`rehost drivers ...`: look into driver packages, and find the one that a controller needs."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.inf import parse_inf
from rehost_payload.formats.inf_rank import PciDevice, parse_pci
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
from rehost_payload.ui.options import only_one
from rehost_payload.ui.paths import InputPath
from rehost_payload.ui.plain import dumps

F = TypeVar("F", bound=Callable[..., Any])
_MOST_ARCHIVES = 20
_PRODUCTS = {"server": SERVER, "dc": DOMAIN_CONTROLLER, "workstation": WORKSTATION}


class _Pci(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A PCI ID as lspci or Windows write it."""

    name = "pci"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> PciDevice:
        if isinstance(value, PciDevice):
            return value
        try:
            return parse_pci(str(value))
        except ValueError as e:
            self.fail(str(e), param, ctx)


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


WINDOWS, PCI = _Windows(), _Pci()


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
    """Look into driver packages, and find the one that a controller needs.

    \b
    Examples:
      rehost drivers show arcsas.inf
      rehost drivers match --pci 9005:028D --windows 2016
    """


@drivers.command()
@click.argument("file", type=InputPath())
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


@drivers.command()
@click.option(
    "--pci",
    "device",
    type=PCI,
    required=True,
    multiple=True,
    callback=only_one,
    metavar="ID",
    help="9005:028D, or with subsystem 9005:028D:9005:0552.",
)
@click.option(
    "--class",
    "class_code",
    metavar="CODE",
    default="",
    help="PCI class: 0104 RAID, 010601 AHCI, 010802 NVMe.",
)
@click.option(
    "--windows",
    "target",
    type=WINDOWS,
    default=["2016"],
    show_default=True,
    multiple=True,
    callback=only_one,
    metavar="BUILD",
    help="The Windows: 14393, 10.0.14393 or 2016.",
)
@product_option
@click.option(
    "--drivers",
    "places",
    multiple=True,
    type=InputPath(),
    metavar="DIR",
    help="Folder with driver packages, or an INF; may be repeated.",
)
@click.option("--json", "json_", is_flag=True, help="Machine-readable output.")
@click.pass_context
def match(
    ctx: click.Context,
    device: PciDevice,
    class_code: str,
    target: Target,
    product: str,
    places: tuple[Path, ...],
    json_: bool,
) -> None:
    """Say what a storage controller needs in a Windows. Nothing is changed.

    Whether Windows brings the driver itself, which of the packages at hand fits best and why the others do not. Those that
    fit are verified as by rehost drivers check: files, hashes, signature, binaries; what fails is refused. A
    device ID of Windows (PCI\\VEN_9005&DEV_028D&SUBSYS_05529005) does as well.

    \b
    Examples:
      rehost drivers match --pci 9005:028D:9005:0552
      rehost drivers match --pci 9005:028F --windows 2016 --drivers drivers/packages
      rehost drivers match --pci 1022:7901 --class 010601 --json | jq .answer

    \b
    Exit codes:
      0  Windows has the driver, or a package at hand fits
      1  an error
      2  the command line is wrong
      3  a package is needed and none fits, or it is not known
    """
    from rehost_payload.drivers.advice import advise
    from rehost_payload.drivers.catalogue import load_catalogue
    from rehost_payload.drivers.check import verified
    from rehost_payload.drivers.packages import archives_in, find_infs, judge
    from rehost_payload.ui import drivers_match

    if class_code and not re.fullmatch("[0-9A-Fa-f]{4}([0-9A-Fa-f]{2})?", class_code):
        raise click.BadParameter("4 or 6 hex digits", param_hint="--class")
    if class_code:
        device = dataclasses.replace(device, class_code=class_code.upper())
    for place in places:
        if place.is_file() and place.suffix.lower() != ".inf":
            raise click.BadParameter(
                f"{place} is neither a folder nor an INF; an archive has to be unpacked first "
                "(rehost drivers check and rehost build take it as it is)",
                param_hint="--drivers",
            )
    target = with_product(target, product)
    try:
        archives = [a for place in places for a in archives_in(place, _MOST_ARCHIVES)]
        candidates, refusals = judge(find_infs(places), device, target)
        candidates, refused = verified(candidates, device, target)
        advice = advise(load_catalogue(), device, target, candidates, [*refused, *refusals])
    except OSError as e:
        raise click.ClickException(f"{e.filename}: {e.strerror or e}") from e
    except FormatError as e:
        raise click.ClickException(str(e)) from e
    for archive in archives:
        click.echo(
            f"{archive} was not opened: unpack it, or give it to rehost drivers check or rehost build",
            err=True,
        )
    if json_:
        click.echo(dumps(drivers_match.as_json(advice, device, target)))
    else:
        say(drivers_match.as_text(advice, device, target))
    ctx.exit(drivers_match.EXIT[advice.answer])
