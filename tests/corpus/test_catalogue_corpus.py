"""The catalogue against the real hives that it was made from: every statement about build 9600 and 16299."""

from __future__ import annotations

from collections import defaultdict

import pytest

from rehost_payload.drivers.catalogue import Controller, InBox, load_catalogue
from rehost_payload.formats.hive import Hive, replay
from support.corpus import corpus, read

FOLDER = corpus("hives")
HIVES = {9600: "win81-x64", 16299: "win10-1709-x64"}
# INFs of Windows itself whose records do not mean a driver for the disk controller: buses and chipsets
_NO_DRIVERS = {"machine.inf", "pci.inf"}


@pytest.fixture(scope="module", params=HIVES)
def windows(request: pytest.FixtureRequest) -> tuple[int, Hive]:
    name = HIVES[request.param]
    data = read(FOLDER / f"{name}.SYSTEM.xz")
    logs = [read(p) for p in sorted(FOLDER.glob(f"{name}.SYSTEM.LOG*.xz"))]
    return request.param, Hive.parse(replay(data, logs).data if logs else data)


def observations(build: int) -> list[tuple[Controller, InBox]]:
    return [(c, f) for c in load_catalogue() for f in c.in_box if f.build == build and f.evidence == "hive"]


def stored_ids(hive: Hive) -> dict[str, set[str]]:
    """IDs below PCI\\ in upper case by INF in lower case."""
    key = hive.find("DriverDatabase", "DeviceIds", "PCI")
    assert key is not None
    result: dict[str, set[str]] = defaultdict(set)
    for device_id in key.subkeys():
        for value in device_id.values():
            if value.name and value.name.lower() not in _NO_DRIVERS:
                result[value.name.lower()].add(device_id.name.upper())
    return result


def prefix(pci: str) -> str:
    vendor, device = pci.split(":")[:2]
    return f"VEN_{vendor}&DEV_{device}"


def full(card: str) -> str:
    parts = card.split(":")
    return f"{prefix(card)}&SUBSYS_{parts[3]}{parts[2]}"


def test_ids(windows: tuple[int, Hive]) -> None:
    build, hive = windows
    stored = stored_ids(hive)
    everything = set().union(*stored.values())
    checked = 0
    for controller, found in observations(build):
        if not found.present:
            # nothing in Windows names it; an entry by class means the class
            for pci in controller.pci:
                here = {i for i in everything if i.startswith(prefix(pci))}
                modes = tuple(f"CC_{c}" for c in controller.class_codes)
                assert not [i for i in here if not modes or any(m in i for m in modes)], (controller.id, pci)
            if not controller.pci:
                assert not {f"CC_{c}" for c in controller.class_codes} & everything, controller.id
            checked += 1
            continue
        own = stored[found.inf.lower()]
        if found.covers == "listed":
            listed = {full(c) for c in controller.cards}
            here = {i for i in own if i.startswith(tuple(prefix(p) for p in controller.pci))}
            assert here == listed - {full(c) for c in found.lacks}, controller.id
        elif found.covers == "all" and found.inf != "mshdc.inf" and controller.pci:
            for pci in controller.pci:
                general = {prefix(pci), *(f"{prefix(pci)}&CC_{c}" for c in controller.class_codes)}
                assert general & own, (controller.id, pci)
        elif found.covers == "some":
            for pci in controller.pci:
                assert [i for i in own if i.startswith(prefix(pci))], (controller.id, pci)
        else:
            codes = {f"CC_{c}" for c in controller.class_codes} | ({"CC_010601"} if controller.pci else set())
            assert codes & own, controller.id
        checked += 1
    assert checked >= 25


def test_services(windows: tuple[int, Hive]) -> None:
    build, hive = windows
    services = hive.find("ControlSet001", "Services")
    packages = hive.find("DriverDatabase", "DriverPackages")
    assert services is not None
    assert packages is not None
    versions = {}
    for package in packages.subkeys():
        blob = package.value("Version")
        if blob is not None:
            numbers = [int.from_bytes(blob.data[i : i + 2], "little") for i in (38, 36, 34, 32)]
            versions[package.name.lower().partition("_amd64")[0]] = ".".join(map(str, numbers))
    for controller, found in observations(build):
        if not found.present:
            continue
        key = services.subkey(found.service)
        assert key is not None, controller.id
        start = key.value("Start")
        assert start is not None
        assert start.as_int() == 0, controller.id
        assert (key.subkey("StartOverride") is not None) is found.start_override, (
            controller.id,
            found.service,
        )
        assert versions[found.inf.lower()] == found.version, controller.id
