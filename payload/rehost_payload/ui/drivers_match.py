"""`rehost drivers match`: the answer for a controller as text or JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rehost_payload.drivers.advice import Advice, Answer
from rehost_payload.drivers.catalogue import card_key
from rehost_payload.drivers.packages import Candidate
from rehost_payload.formats.inf_rank import PciDevice
from rehost_payload.formats.inf_target import Target

_REMAINS = 3  # findings remain, as ui/run.py has it
EXIT = {Answer.IN_BOX: 0, Answer.PACKAGE: 0, Answer.DOWNLOAD: _REMAINS, Answer.UNCLEAR: _REMAINS}
_COLUMN = 12


def as_text(advice: Advice, device: PciDevice, target: Target) -> Iterator[str]:
    """The answer first, then why, then the packages."""
    controller = advice.controller
    name = "not in the catalogue"
    if controller is not None:
        card = controller.card(device)
        name = f"{controller.vendor}, {controller.family}{f': {card}' if card else ''}"
    yield f"{card_key(device) or f'{device.vendor}:{device.device}'}  {name}"
    yield f"{target.name}: {advice.headline}"
    yield ""
    for reason in advice.reasons:
        yield f"  - {reason}"
    if controller is not None and controller.linux:
        yield f"  - this medium drives it with the Linux module {controller.linux}"
    if advice.candidates:
        yield ""
        yield "Packages that fit, the best first"
        for candidate in advice.candidates:
            yield from _candidate(candidate)
    named = [r for r in advice.refusals if r.knows_device]
    others = [r for r in advice.refusals if not r.knows_device and r.reason != "is not for this device"]
    if named or others:
        yield ""
        yield "Refused"
        for refusal in (*named, *others):
            yield f"  {refusal.path}: {refusal.reason}"
    rest = len(advice.refusals) - len(named) - len(others)
    if rest:
        yield ""
        yield f"{rest} {'package is' if rest == 1 else 'packages are'} for other devices"


def _candidate(candidate: Candidate) -> Iterator[str]:
    yield f"  {candidate.path}"
    lines = [
        ("driver", ", ".join((candidate.service, *candidate.further_services))),
        ("version", candidate.rank.driver.text),
        ("matches", f"{candidate.device_id}  {candidate.description}"),
        ("rank", f"{candidate.rank.text} (lowest wins)"),
        ("verified", _verified(candidate)),
        *(("warning", text) for text in candidate.warnings),
    ]
    if candidate.subsystems:
        lines.append(("only", f"for the subsystems {', '.join(candidate.subsystems)}"))
    for name, text in lines:
        yield f"    {name:<{_COLUMN}}{text}"


def _verified(candidate: Candidate) -> str:
    words = {"pass": "yes", "warn": "yes", "unknown": "not known"}
    signer = f", signed by {candidate.signer}" if candidate.signer else ""
    but = ", but" if candidate.level == "warn" else ""
    remarks = f"{but}: {'; '.join(candidate.remarks)}" if candidate.remarks else ""
    return f"{words.get(candidate.level, 'no')}{signer}{remarks}"


def as_json(advice: Advice, device: PciDevice, target: Target) -> dict[str, Any]:
    """The same for programs."""
    controller, has = advice.controller, advice.in_box
    return {
        "pci": card_key(device) or f"{device.vendor}:{device.device}",
        "hardware_ids": list(device.hardware_ids),
        "compatible_ids": list(device.compatible_ids),
        "windows": target.name,
        "build": target.build,
        "answer": advice.answer.value,
        "headline": advice.headline,
        "reasons": list(advice.reasons),
        "controller": None
        if controller is None
        else {
            "id": controller.id,
            "vendor": controller.vendor,
            "family": controller.family,
            "card": controller.card(device) or None,
            "linux": controller.linux or None,
            "needs": list(controller.needs),
            "download": controller.download or None,
            "download_file": controller.download_file or None,
        },
        "in_box": None
        if has is None
        else {
            "present": has.present,
            "known": has.known.value,
            "services": list(has.services),
            "start_override": has.start_override,
            "reason": has.reason,
        },
        "packages": [
            {
                "path": str(c.path),
                "rank": c.rank.text,
                "service": c.service,
                "further_services": list(c.further_services),
                "version": ".".join(map(str, c.rank.driver.version)) if c.rank.driver.version else None,
                "date": c.rank.driver.date.isoformat() if c.rank.driver.date else None,
                "device_id": c.device_id,
                "install_section": c.section,
                "catalog": c.catalog,
                "subsystems": list(c.subsystems),
                "warnings": list(c.warnings),
                "verified": c.level,
                "remarks": list(c.remarks),
                "signer": c.signer or None,
            }
            for c in advice.candidates
        ],
        "refused": [
            {"path": str(r.path), "reason": r.reason, "knows_device": r.knows_device} for r in advice.refusals
        ],
    }
