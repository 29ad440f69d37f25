"""The catalogue of storage controllers (data/controllers.toml): reading it, finding a card, what Windows has for it.

What Windows has is known for the builds that were looked at. Between two that agree the answer is taken for granted
and said to be so; where they disagree, or before the first, it is unknown. After the last it is expected to stay.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib.resources import files
from typing import Any

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.inf_rank import PciDevice

FORMAT = 1
_COVERS = ("all", "listed", "some")
_EVIDENCE = ("hive", "listing")


@dataclass(frozen=True)
class InBox:
    """What was found, or looked for and not found, in a Windows of this build."""

    build: int
    present: bool
    service: str
    inf: str
    version: str
    covers: str  # "all", "listed", "some"
    lacks: tuple[str, ...]
    start_override: bool
    evidence: str


@dataclass(frozen=True)
class Controller:
    """An entry of the catalogue; the fields are described at the head of data/controllers.toml."""

    id: str
    vendor: str
    family: str
    pci: tuple[str, ...]
    class_codes: tuple[str, ...]
    only_cards: bool
    prefer_package: bool
    cards: Mapping[str, str]
    linux: str
    needs: tuple[str, ...]
    download: str
    download_file: str
    notes: tuple[str, ...]
    unverified: tuple[str, ...]
    in_box: tuple[InBox, ...]

    def card(self, device: PciDevice) -> str:
        """The marketing name of the card, where its subsystem is known and listed; else an empty string."""
        return self.cards.get(card_key(device), "")


class Known(Enum):
    """How sure an answer is."""

    OBSERVED = "observed"  # in this very build
    BETWEEN = "between"  # the builds before and after say the same
    LATER = "later"  # after the last build that was looked at
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class InBoxAnswer:
    """``present`` is None where it is not known. ``found``: the observations that it rests on, older ones first."""

    present: bool | None
    known: Known
    found: tuple[InBox, ...]
    reason: str

    @property
    def services(self) -> tuple[str, ...]:
        """More than one where the service has been renamed between the builds that were looked at."""
        return tuple(dict.fromkeys(f.service for f in self.found if f.present))

    @property
    def start_override(self) -> bool:
        """Whether the service was found demoted by StartOverride in any of them."""
        return any(f.start_override for f in self.found)


def card_key(device: PciDevice) -> str:
    """ "9005:028D:9005:0552"; without a subsystem an empty string."""
    if not device.subsystem:
        return ""
    return f"{device.vendor}:{device.device}:{device.subsystem[4:]}:{device.subsystem[:4]}"


def load_catalogue() -> tuple[Controller, ...]:
    """The catalogue that comes with the program."""
    return parse_catalogue(
        (files("rehost_payload") / "data" / "controllers.toml").read_text(encoding="utf-8")
    )


@cache
def known_controllers() -> tuple[Controller, ...]:
    """The same, read once."""
    return load_catalogue()


def parse_catalogue(text: str) -> tuple[Controller, ...]:
    """FormatError, naming the entry and the field, for what is no catalogue."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise FormatError("catalogue", str(e)) from None
    if document.get("format") != FORMAT:
        raise FormatError("catalogue", f"format {document.get('format')!r} is not {FORMAT}")
    entries = document.get("controller")
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise FormatError("catalogue", "no [[controller]]")
    result = tuple(_controller(_Table(e, f"controller {e.get('id', i + 1)}")) for i, e in enumerate(entries))
    ids = [c.id for c in result]
    for one in ids:
        if ids.count(one) > 1:
            raise FormatError("catalogue", f"two controllers are called {one}")
    return result


class _Table:
    """A TOML table whose values are taken by type, and which must be empty in the end."""

    def __init__(self, values: dict[str, Any], where: str) -> None:
        self.values, self.where = dict(values), where

    def take(self, key: str, kind: type, default: Any = None) -> Any:
        value = self.values.pop(key, default)
        # a bool is an int, but true is no build number
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise FormatError("catalogue", f"{self.where}: {key} has to be of type {kind.__name__}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        values = self.take(key, list, [])
        if not all(isinstance(v, str) for v in values):
            raise FormatError("catalogue", f"{self.where}: {key} has to be a list of texts")
        return tuple(values)

    def end(self) -> None:
        if self.values:
            raise FormatError("catalogue", f"{self.where}: unknown field {next(iter(self.values))}")


def _controller(table: _Table) -> Controller:
    cards = table.take("cards", dict, {})
    if not all(isinstance(v, str) for v in cards.values()):
        raise FormatError("catalogue", f"{table.where}: the names of cards have to be texts")
    in_box = table.take("in_box", list, [])
    found = [_in_box(_Table(e if isinstance(e, dict) else {}, f"{table.where}, in_box")) for e in in_box]
    controller = Controller(
        id=table.take("id", str),
        vendor=table.take("vendor", str),
        family=table.take("family", str),
        pci=tuple(p.upper() for p in table.texts("pci")),
        class_codes=tuple(c.upper() for c in table.texts("class_codes")),
        only_cards=table.take("only_cards", bool, False),
        prefer_package=table.take("prefer_package", bool, False),
        cards={k.upper(): v for k, v in cards.items()},
        linux=table.take("linux", str, ""),
        needs=table.texts("needs"),
        download=table.take("download", str, ""),
        download_file=table.take("download_file", str, ""),
        notes=table.texts("notes"),
        unverified=table.texts("unverified"),
        in_box=tuple(sorted(found, key=lambda f: f.build)),
    )
    table.end()
    if not controller.pci and not controller.class_codes:
        raise FormatError("catalogue", f"{table.where}: neither pci nor class_codes")
    return controller


def _in_box(table: _Table) -> InBox:
    present = table.take("present", bool, True)
    result = InBox(
        build=table.take("build", int),
        present=present,
        service=table.take("service", str, None if present else ""),
        inf=table.take("inf", str, None if present else ""),
        version=table.take("version", str, ""),
        covers=table.take("covers", str, None if present else "all"),
        lacks=tuple(c.upper() for c in table.texts("lacks")),
        start_override=table.take("start_override", bool, False),
        evidence=table.take("evidence", str),
    )
    table.end()
    if result.covers not in _COVERS or result.evidence not in _EVIDENCE:
        raise FormatError("catalogue", f"{table.where}: covers or evidence has a word that is not known")
    return result


def find_controller(catalogue: tuple[Controller, ...], device: PciDevice) -> Controller | None:
    """The entry for a device: one that lists the card, then one with its ID, then one for its class."""
    key, short = card_key(device), f"{device.vendor}:{device.device}"
    by_id = [c for c in catalogue if short in c.pci and _class_fits(c, device)]
    for controller in by_id:
        if key and key in controller.cards:
            return controller
    for controller in by_id:
        if not controller.only_cards:
            return controller
    by_class = [c for c in catalogue if not c.pci and device.class_code and _class_fits(c, device)]
    return max(by_class, key=lambda c: max(map(len, c.class_codes)), default=None)


def _class_fits(controller: Controller, device: PciDevice) -> bool:
    """A device whose class is not known may be anything that its ID allows."""
    if not controller.class_codes or not device.class_code:
        return True
    return any(device.class_code.startswith(code) for code in controller.class_codes)


def in_box(controller: Controller, device: PciDevice, build: int) -> InBoxAnswer:
    """Whether Windows of this build has a driver for the device, and how that is known."""
    observed = [(found, _covers(found, controller, device)) for found in controller.in_box]
    below = [o for o in observed if o[0].build <= build]
    above = [o for o in observed if o[0].build > build]
    if below and below[-1][0].build == build:
        found, has = below[-1]
        reason = (
            f"build {build} was looked at" if has is not None else f"in build {build} it depends on the card"
        )
        return InBoxAnswer(has, Known.OBSERVED if has is not None else Known.UNKNOWN, (found,), reason)
    if not observed:
        return InBoxAnswer(None, Known.UNKNOWN, (), "no Windows was looked at")
    if not below:
        return InBoxAnswer(
            None, Known.UNKNOWN, (above[0][0],), f"no Windows before build {above[0][0].build} was looked at"
        )
    found, has = below[-1]
    if not above:
        reason = f"concluded from build {found.build}, the last one that was looked at"
        return InBoxAnswer(has, Known.LATER if has is not None else Known.UNKNOWN, (found,), reason)
    both = (found, above[0][0])
    between = f"builds {found.build} and {above[0][0].build} were looked at, {build} lies between them"
    if has is None or has is not above[0][1]:
        why = "they differ" if has is not above[0][1] else "there it depends on the card"
        return InBoxAnswer(None, Known.UNKNOWN, both, f"{between}, and {why}")
    return InBoxAnswer(has, Known.BETWEEN, both, f"{between}, and they agree")


def _covers(found: InBox, controller: Controller, device: PciDevice) -> bool | None:
    """None where it depends on the card, and the card or the list is not known."""
    if not found.present:
        return False
    if found.covers == "all":
        return True
    if found.covers == "some":
        return None
    key = card_key(device)
    if key:
        return key in controller.cards and key not in found.lacks
    # cards of other vendors with the same ID may exist: without the subsystem the listed ones stand for all
    listed = _listed(controller, device)
    return bool(listed - set(found.lacks)) if listed else None


def cards_left_out(controller: Controller, device: PciDevice, answer: InBoxAnswer) -> tuple[str, ...]:
    """Where the card is not known: the cards of this ID for which the answer is not true of every build it rests on."""
    if device.subsystem:
        return ()
    lacks = {card for found in answer.found for card in found.lacks}
    return tuple(sorted(_listed(controller, device) & lacks))


def _listed(controller: Controller, device: PciDevice) -> set[str]:
    short = f"{device.vendor}:{device.device}:"
    return {card for card in controller.cards if card.startswith(short)}
