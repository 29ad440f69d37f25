"""The two hosts that most tests look at, made once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from rehost_payload.capture.found import FoundHost
from rehost_payload.capture.model import CaptureChoices, CapturePlan
from rehost_payload.capture.plan import find_and_plan
from rehost_payload.system.images import ImageSystem
from support.hyperv_host import Host, make_host

TAKEN = "2026-11-27T04:00:00+00:00"


def look(paths: Sequence[Path], **choices: object) -> tuple[FoundHost, CapturePlan]:
    with ImageSystem(paths) as system:
        return find_and_plan(system, lambda *_: None, CaptureChoices(TAKEN, **choices))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def host_2016(tmp_path_factory: pytest.TempPathFactory) -> Host:
    return make_host(tmp_path_factory.mktemp("hv2016"))


@pytest.fixture(scope="session")
def host_2012(tmp_path_factory: pytest.TempPathFactory) -> Host:
    return make_host(tmp_path_factory.mktemp("hv2012"), "2012")


@pytest.fixture(scope="session")
def found_2016(host_2016: Host) -> tuple[FoundHost, CapturePlan]:
    return look(host_2016.images)


@pytest.fixture(scope="session")
def found_2012(host_2012: Host) -> tuple[FoundHost, CapturePlan]:
    return look(host_2012.images)
