"""What a controller needs in a Windows: the catalogue's knowledge and the packages at hand, as one answer in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from rehost_payload.drivers.catalogue import (
    Controller,
    InBox,
    InBoxAnswer,
    Known,
    card_key,
    cards_left_out,
    find_controller,
    in_box,
)
from rehost_payload.drivers.packages import Candidate, Refusal
from rehost_payload.formats.inf_rank import PciDevice
from rehost_payload.formats.inf_target import Target


class Answer(Enum):
    IN_BOX = "in-box"  # Windows has the driver; at most StartOverride has to go
    PACKAGE = "package"  # a package at hand is needed and fits
    DOWNLOAD = "download"  # a package is needed and none at hand fits
    UNCLEAR = "unclear"  # only a look into that very Windows, or the card's subsystem, can tell


@dataclass(frozen=True)
class Advice:
    answer: Answer
    headline: str
    reasons: tuple[str, ...]
    controller: Controller | None
    in_box: InBoxAnswer | None
    candidates: tuple[Candidate, ...]
    refusals: tuple[Refusal, ...]

    @property
    def chosen(self) -> Candidate | None:
        """The package to take, where the answer is one."""
        return self.candidates[0] if self.answer is Answer.PACKAGE else None


def advise(
    catalogue: tuple[Controller, ...],
    device: PciDevice,
    target: Target,
    candidates: Sequence[Candidate] = (),
    refusals: Sequence[Refusal] = (),
) -> Advice:
    """A pure function of what is known. ``candidates`` come best first."""
    controller = find_controller(catalogue, device)
    has = in_box(controller, device, target.build) if controller is not None else None
    best = candidates[0] if candidates else None
    # a package that may fit is no answer as long as the card is not known
    certain = best if best is not None and not best.subsystems else None
    reasons: list[str] = []
    if controller is None:
        ask = "" if device.class_code else "; say its class (--class 010601 for AHCI, 010802 for NVMe)"
        reasons.append(
            f"the controller is not in the catalogue: whether Windows has a driver for it is not known{ask}"
        )
    else:
        assert has is not None
        reasons.append(_about_windows(has, device, target))
        left_out = cards_left_out(controller, device, has)
        if left_out:
            reasons.append(
                f"Windows learned to know the cards {', '.join(left_out)} later: say with --pci which card it is"
            )
        reasons += controller.notes
        reasons += [f"not verified: {text}" for text in controller.unverified]
    if best is not None and best.subsystems:
        reasons.append(
            f"{best.path} fits only cards with the subsystem {', '.join(best.subsystems[:6])}"
            f"{' and others' if len(best.subsystems) > 6 else ''}; give it with --pci vendor:device:vendor:device"
        )
    prefers = controller is not None and controller.prefer_package and certain is not None
    if has is not None and has.present and not prefers:
        answer, headline = Answer.IN_BOX, _in_box_headline(has)
        if certain is not None:
            reasons.append(f"{certain.path} fits as well and is not needed")
    elif certain is not None:
        answer, headline = Answer.PACKAGE, f"needs {certain.service} from package {certain.path}"
        if certain.level == "unknown":
            headline += ", and whether Windows accepts its signature is not known"
        if has is None or has.present is None:
            reasons.append("the package does in any case; the driver of Windows itself might do as well")
        missing = [n for n in _further(controller) if n.lower() not in _services(certain)]
        if missing:
            reasons.append(f"it takes {', '.join(missing)} too, which this package does not bring")
    elif has is not None and has.present is False:
        answer = Answer.DOWNLOAD
        headline = f"{_doubt(has)}needs {_wanted(controller)}; {_none_fits(candidates, refusals)}"
        reasons += _download(controller)
    else:
        answer, headline = Answer.UNCLEAR, f"not known; {_none_fits(candidates, refusals)}"
        reasons += _download(controller)
    return Advice(answer, headline, tuple(reasons), controller, has, tuple(candidates), tuple(refusals))


def _in_box_headline(has: InBoxAnswer) -> str:
    services = " or ".join(has.services)
    rest = "only StartOverride has to go" if has.start_override else "nothing is needed"
    return f"{_doubt(has)}in-box {services}, {rest}"


def _doubt(has: InBoxAnswer) -> str:
    """What was concluded from other builds is said to be so."""
    return "" if has.known is Known.OBSERVED else "most likely "


def _about_windows(has: InBoxAnswer, device: PciDevice, target: Target) -> str:
    if has.present is None:
        verb = "may or may not have a driver for it"
    else:
        verb = f"{_doubt(has)}has {'a' if has.present else 'no'} driver for it"
    found = "; ".join(_seen(f, device) for f in has.found)
    return f"{target.name} {verb}: {has.reason}{f' ({found})' if found else ''}"


def _seen(found: InBox, device: PciDevice) -> str:
    if not found.present:
        return f"build {found.build}: none"
    without = " without this card" if card_key(device) in found.lacks else ""
    return f"build {found.build}: {found.service} {found.version} of {found.inf}{without}"


def _further(controller: Controller | None) -> tuple[str, ...]:
    return controller.needs[1:] if controller is not None else ()


def _services(candidate: Candidate) -> set[str]:
    return {s.lower() for s in (candidate.service, *candidate.further_services)}


def _wanted(controller: Controller | None) -> str:
    return (
        ", ".join(controller.needs) if controller is not None and controller.needs else "the vendor's driver"
    )


def _none_fits(candidates: Sequence[Candidate], refusals: Sequence[Refusal]) -> str:
    if candidates:
        return "whether a package at hand fits depends on the card"
    return "no package at hand fits" if refusals else "no package at hand (--drivers)"


def _download(controller: Controller | None) -> list[str]:
    if controller is None or not controller.download:
        return []
    name = f"; the file is called {controller.download_file}" if controller.download_file else ""
    return [f"to download: {controller.download}{name}"]
