"""Between the boot store as formats/bcd.py reads it and as the survey describes it.

Lives here and not in formats/, which imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Iterable

from rehost_payload.formats.bcd import BcdObject, Element, Store
from rehost_payload.survey.model import StoreElement, StoreObject


def to_survey_objects(store: Store) -> tuple[StoreObject, ...]:
    """Every object with every element, as stored."""
    return tuple(
        StoreObject(
            guid=o.guid,
            type=o.type,
            elements=tuple(StoreElement(e.type, e.data.hex(), e.reg_type) for e in o.elements.values()),
            firmware_variable=None if o.firmware_variable is None else o.firmware_variable.hex(),
        )
        for o in store.objects.values()
    )


def from_survey_objects(objects: Iterable[StoreObject]) -> Store:
    """The same store again, except for how its keys are spelled, which does not matter to anybody."""
    return Store(
        {
            o.guid: BcdObject(
                o.guid,
                o.type,
                {e.type: Element(e.type, e.reg_type, bytes.fromhex(e.raw)) for e in o.elements},
                None if o.firmware_variable is None else bytes.fromhex(o.firmware_variable),
            )
            for o in objects
        }
    )
