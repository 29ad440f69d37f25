"""What survey reads of drivers out of real SYSTEM hives, behind controllers that they have and have not."""

from __future__ import annotations

import pytest

from rehost_payload.survey.drivers_model import ControllerFacts, WindowsDrivers
from support import offline
from support.offline import AHCI, NVME, SERIES_8, controller
from support.real_windows import HIVES, real_tree

VIRTUALBOX = controller("8086:2829:0000:0000", "010601")
LSI_SAS = controller("1000:0054:15ad:1976")


def facts(name: str, *controllers: offline.Controller) -> WindowsDrivers:
    drivers = offline.only(offline.surveyed(real_tree(name), controllers)).drivers
    assert drivers is not None
    assert not drivers.cut
    return drivers


def infs(found: ControllerFacts) -> list[str]:
    return [h.inf for h in found.hits]


@pytest.mark.parametrize("name", ["win81-x64", "win10-1709-x64"])
def test_the_database(name: str) -> None:
    found = facts(name, SERIES_8, AHCI, NVME)
    assert [infs(c) for c in found.controllers] == [["arcsas.inf"], ["mshdc.inf"], ["stornvme.inf"]]
    services = [c.service for p in found.packages for c in p.configurations]
    assert sorted(services) == ["arcsas", "storahci", "stornvme"]
    demoted = {s.name for s in found.services if s.start_override}
    assert {"arcsas", "stornvme"} <= demoted
    assert ("storahci" in demoted) is (name == "win10-1709-x64")
    assert all(len(p.version) == 96 for p in found.packages)
    assert all(b.exists for b in found.binaries)
    # what runs between controller and volume is there; the exceptions are those of the version
    lacks = {"volume", "iorate"} if name == "win81-x64" else set()
    assert set(found.absent_services) == lacks


def test_windows_7() -> None:
    found = facts("win7-x86", LSI_SAS, AHCI, SERIES_8)
    assert not found.database
    services = [{c.service for c in f.critical} for f in found.controllers]
    assert services == [{"LSI_SAS"}, {"msahci"}, set()]
    assert {c.control_set for c in found.controllers[0].critical} == {1, 2}
    start = {(s.control_set, s.name): s.start for s in found.services}
    assert (start[1, "LSI_SAS"], start[1, "msahci"]) == (0, 3)


def test_the_hive_of_a_running_machine_has_nothing_pending() -> None:
    for name in HIVES:
        found = facts(name, AHCI)
        assert found.pending_drivers == ()
        assert not found.restrictions
        assert "C" in {x.letter for x in found.letters}
