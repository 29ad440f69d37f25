"""Driver facts that no sane machine gives: the rules and the judge answer, and never contradict each other for the worse."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rehost_payload.formats.errors import FormatError
from rehost_payload.repair.diagnose import diagnose
from rehost_payload.repair.model import Verdict
from rehost_payload.repair.plan import plan
from rehost_payload.repair.verify import verify
from rehost_payload.survey.json import checked, from_json, to_json
from rehost_payload.survey.model import Controller, Survey
from support import offline, packages
from support.hives import dword, multi_sz, sz
from support.offline import AHCI, SERIES_8, SMART_3100, tree

from .test_hostile_surveys import healthy

pytestmark = pytest.mark.usefixtures("our_authority")

DISK_CLASS = "ControlSet001\\Control\\Class\\{4d36e967-e325-11ce-bfc1-08002be10318}"


@cache
def machines() -> tuple[Survey, ...]:
    """A healthy one, one with a demoted driver, and one with half a dozen faults and packages at hand."""
    folder = Path(mkdtemp())
    packages.signed(folder)
    broken = tree(
        system={
            DISK_CLASS: {"LowerFilters": multi_sz("gone", "EhStorClass")},
            "ControlSet001\\Services\\volmgr\\StartOverride": {"0": dword(3)},
            "ControlSet001\\Services\\left": {
                "Type": dword(1),
                "Start": dword(0),
                "ErrorControl": dword(3),
                "ImagePath": sz("System32\\drivers\\left.sys"),
            },
            "ControlSet002\\Services\\storahci": {"Type": dword(1), "Start": dword(3)},
        }
    )
    return (
        _complete(offline.surveyed(tree(), (AHCI, _second(SERIES_8)))),
        _complete(offline.surveyed(tree(), (SERIES_8, _second(AHCI)))),
        _complete(offline.surveyed(broken, (SMART_3100, _second(AHCI)), [folder])),
    )


def _second(card: Controller) -> Controller:
    return replace(card, address="0000:04:00.0")


def _complete(survey: Survey) -> Survey:
    """With the boot store of the other tests, so that the judge can pass the whole."""
    base = healthy()
    windows = base.windows[0]
    drivers = offline.only(survey).drivers
    assert drivers is not None
    disk = replace(base.disks[0], controller=survey.controllers[0].address)
    windows = replace(
        windows,
        drivers=drivers,
        control_sets=(1, 2),
        default_control_set=1,
        current_control_set=1,
    )
    return replace(base, disks=(disk,), controllers=survey.controllers, windows=(windows,))


def test_the_unchanged_ones() -> None:
    sound, demoted, broken = machines()
    assert diagnose(sound).healthy
    assert verify(sound).verdict is Verdict.PASS
    assert verify(demoted).verdict is Verdict.FAIL
    assert [f.id for f in diagnose(demoted).findings] == ["driver.not-at-boot"]
    assert verify(broken).verdict is Verdict.FAIL
    assert {"driver.missing", "driver.filter-dangling", "driver.chain-broken"} <= {
        f.id for f in diagnose(broken).findings
    }


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in JSON data that can be changed."""
    if path:
        yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


@st.composite
def hostile(draw: st.DrawFn) -> Survey:
    data = json.loads(to_json(draw(st.sampled_from(machines()))))
    facts = data["windows"][0]["drivers"]
    texts = [p for p in places(facts) if isinstance(_at(facts, p), str)]
    for _ in range(draw(st.integers(1, 5))):
        path = draw(st.sampled_from(list(places(facts))))
        parent, key = _at(facts, path[:-1]), path[-1]
        old = parent[key]
        if isinstance(old, bool):
            parent[key] = not old
        elif isinstance(old, int) or old is None:
            parent[key] = draw(st.sampled_from([0, 1, 2, 3, 4, -1, 2**32, None]))
        elif isinstance(old, str):
            other = _at(facts, draw(st.sampled_from(texts))) if draw(st.booleans()) else ""
            parent[key] = draw(st.sampled_from([str(other), old.upper(), old[:5], "zz", "\\", "00" * 48]))
        elif isinstance(old, list):
            if old and draw(st.booleans()):
                del old[draw(st.integers(0, len(old) - 1))]
            else:
                parent[key] = []
        elif isinstance(parent, list):
            del parent[key]
        texts = [p for p in texts if _there(facts, p)] or [("system_path",)]
    return from_json(json.dumps(data))


def _at(data: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        data = data[key]
    return data


def _there(data: Any, path: tuple[Any, ...]) -> bool:
    try:
        return isinstance(_at(data, path), str)
    except (LookupError, TypeError):
        return False


@st.composite
def accepted(draw: st.DrawFn) -> Survey | None:
    try:
        return checked(draw(hostile()))
    except FormatError:  # None where a number is a must
        return None


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(accepted())
def test_answers_whatever_it_is_given(survey: Survey | None) -> None:
    if survey is None:
        return
    before = copy.deepcopy(survey)
    diagnosis, first, verification = diagnose(survey), plan(survey), verify(survey)
    assert plan(survey) == first  # pure
    assert survey == before
    if verification.verdict is Verdict.PASS:
        assert not [f for f in diagnosis.findings if f.severity == "fatal"], diagnosis.findings
