"""survey.json: without loss, and strict about what it does not know."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_payload.formats.errors import FormatError
from rehost_payload.survey.json import from_json, to_json
from rehost_payload.survey.model import Firmware, FirmwareMode, Problem, Survey

EMPTY = Survey("0.1.0", "2026-01-01T00:00:00+00:00", "linux", Firmware(FirmwareMode.UEFI))


@settings(max_examples=20, deadline=None)
@given(st.from_type(Survey))
def test_any_survey_comes_back(survey: Survey) -> None:
    survey = dataclasses.replace(survey, schema=1)
    assert from_json(to_json(survey)) == survey


def test_ascii_only_and_lone_surrogates() -> None:
    survey = dataclasses.replace(EMPTY, problems=(Problem("damaged", "disk0p1:\\\udc80ä", "x"),))
    text = to_json(survey)
    assert text.isascii()
    assert from_json(text) == survey


def changed(change: Any) -> str:
    data = json.loads(to_json(EMPTY))
    change(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not a survey"),
        ("{}", "not a survey"),
        (changed(lambda d: d.update(schema=2)), "schema 2"),
        (changed(lambda d: d.update(more=1)), "survey.more is not known"),
        (changed(lambda d: d.pop("firmware")), "survey.firmware is missing"),
        (changed(lambda d: d.update(disks={})), "survey.disks must be a list"),
        (changed(lambda d: d.update(version=1)), "survey.version must be of type str"),
        (changed(lambda d: d["firmware"].update(mode="coreboot")), "survey.firmware.mode"),
        (changed(lambda d: d["firmware"].update(variables_writable=1)), "must be of type bool"),
        (changed(lambda d: d["firmware"].update(boot_order=["1"])), r"boot_order\[0\] must be of type int"),
        (changed(lambda d: d["firmware"].update(boot_entries=[7])), r"boot_entries\[0\] must be an object"),
    ],
)
def test_junk_is_refused_with_its_place(text: str, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        from_json(text)


def test_fields_with_defaults_may_be_missing() -> None:
    """What an older Rehost of the same schema did not know yet."""
    assert from_json(changed(lambda d: d.pop("paths"))) == EMPTY
