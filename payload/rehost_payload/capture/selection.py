"""Which machines the operator means."""

from __future__ import annotations

from rehost_payload.capture.found import FoundHost, FoundMachine
from rehost_payload.capture.model import CaptureChoices


def unit_ids(found: FoundHost) -> dict[str, str]:
    """The id of each machine's unit by its configuration's path: the GUID, for a second one of it with "~2"."""
    ids: dict[str, str] = {}
    count: dict[str, int] = {}
    for machine in found.machines:
        number = count[machine.id] = count.get(machine.id, 0) + 1
        original = machine.configuration.file.original
        ids[original] = machine.id if number == 1 else f"{machine.id}~{number}"
    return ids


def selected(found: FoundHost, choices: CaptureChoices) -> list[FoundMachine]:
    """The machines to be captured, by id (GUID or unit) or by name, whatever the case."""
    if choices.machines is None:
        return list(found.machines)
    wanted = {text.strip("{}").casefold() for text in choices.machines}
    ids = unit_ids(found)
    return [m for m in found.machines if wanted & _called(m, ids)]


def unknown_machines(found: FoundHost, choices: CaptureChoices) -> list[str]:
    """What the operator named and no machine is called."""
    ids = unit_ids(found)
    known = {word for m in found.machines for word in _called(m, ids)}
    return [text for text in choices.machines or () if text.strip("{}").casefold() not in known]


def _called(machine: FoundMachine, ids: dict[str, str]) -> set[str]:
    return {machine.id, ids[machine.configuration.file.original], machine.name.casefold()}
