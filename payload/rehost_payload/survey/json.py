"""A survey as JSON and back, without loss.

Reading is strict, see strictjson.py; another schema is a FormatError too.
"""

from __future__ import annotations

import json

from rehost_payload import strictjson
from rehost_payload.formats.errors import FormatError
from rehost_payload.survey.model import Survey

SCHEMA = 1


def to_json(survey: Survey) -> str:
    """Indented, ASCII only: names from disks may hold anything, consoles and mail may not."""
    return json.dumps(strictjson.plain(survey), indent=1) + "\n"


def from_json(text: str) -> Survey:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError("survey JSON", f"not JSON: {error}") from error
    if not isinstance(data, dict) or "schema" not in data:
        raise FormatError("survey JSON", "not a survey of Rehost")
    if data["schema"] != SCHEMA:
        raise FormatError(
            "survey JSON", f"schema {data['schema']!r} is not {SCHEMA}, the one understood here"
        )
    survey = strictjson.read(Survey, data, "survey JSON", "survey")
    assert isinstance(survey, Survey)
    return survey


def checked(survey: Survey) -> Survey:
    """The survey, if all that is named in it is there and hex is hex (it may have been edited): else FormatError."""
    disks = {d.id for d in survey.disks}
    volumes = {v.id for v in survey.volumes}
    named = [(v.disk, disks) for v in survey.volumes]
    named += [(w.volume, volumes) for w in survey.windows]
    named += [(s.volume, volumes) for s in survey.boot_stores]
    named += [(p.volume, volumes) for p in survey.paths]
    for name, known in named:
        if name not in known:
            raise FormatError("survey JSON", f"{name!r} is referred to, but not described")
    try:
        for store in survey.boot_stores:
            for obj in store.objects:
                bytes.fromhex(obj.firmware_variable or "")
                for element in obj.elements:
                    bytes.fromhex(element.raw)
    except ValueError as error:
        raise FormatError("survey JSON", f"{store.id}: an element is not hexadecimal") from error
    return survey
