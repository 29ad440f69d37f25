"""Ranks: which package Windows would take."""

from __future__ import annotations

from datetime import date

import pytest

from rehost_payload.formats.inf import DriverVersion, Model
from rehost_payload.formats.inf_rank import (
    UNSIGNED,
    IdMatch,
    PciDevice,
    match_ids,
    parse_pci,
    rank,
    subsystems_wanted,
)

DEVICE = PciDevice("9005", "028D", "05529005", "01", "010400")


def model(hardware: str, *compatible: str) -> Model:
    return Model("d", "s", hardware, compatible, "m", "%d%", "%m%", 1)


def test_ids_in_the_order_of_windows() -> None:
    base = r"PCI\VEN_9005&DEV_028D"
    assert DEVICE.hardware_ids == (
        f"{base}&SUBSYS_05529005&REV_01",
        f"{base}&SUBSYS_05529005",
        f"{base}&REV_01",
        base,
        f"{base}&CC_010400",
        f"{base}&CC_0104",
    )
    assert DEVICE.compatible_ids == (
        f"{base}&REV_01",
        base,
        r"PCI\VEN_9005&CC_010400",
        r"PCI\VEN_9005&CC_0104",
        r"PCI\VEN_9005",
        r"PCI\CC_010400",
        r"PCI\CC_0104",
    )


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("9005:028d", PciDevice("9005", "028D")),
        (" 9005:028D:9005:0552 ", PciDevice("9005", "028D", "05529005")),
        ("9005:028D/9005:0552", PciDevice("9005", "028D", "05529005")),
        (r"PCI\VEN_9005&DEV_028D&SUBSYS_05529005&REV_01&CC_010400", DEVICE),
        ("ven_9005&dev_028d", PciDevice("9005", "028D")),
        (r"PCI\VEN_8086&DEV_2822&CC_0104", PciDevice("8086", "2822", class_code="0104")),
    ],
)
def test_pci_ids(text: str, device: PciDevice) -> None:
    assert parse_pci(text) == device


@pytest.mark.parametrize(
    "text", ["", "9005", "9005:28D", "9005:028D:9005", "xxxx:yyyy", r"USB\VID_1234", "9005:028D:"]
)
def test_what_is_no_pci_id(text: str) -> None:
    with pytest.raises(ValueError, match="no PCI ID"):
        parse_pci(text)


@pytest.mark.parametrize(
    ("hardware", "compatible", "score"),
    [
        (r"PCI\VEN_9005&DEV_028D&SUBSYS_05529005&REV_01", (), 0x0000),
        (r"pci\ven_9005&dev_028d&subsys_05529005", (), 0x0001),
        (r"PCI\VEN_9005&DEV_028D", (), 0x0003),
        (r"PCI\VEN_9005&DEV_028D", (r"PCI\VEN_9005&DEV_028D&SUBSYS_05529005",), 0x0003),
        (r"PCI\VEN_1000&DEV_0001", (r"PCI\VEN_9005&DEV_028D",), 0x1003),
        (r"PCI\CC_0104", (), 0x2006),
        ("", (r"PCI\CC_0104",), 0x3006),
        (r"PCI\VEN_9005&DEV_028D&SUBSYS_05519005", (), None),
        (r"PCI\VEN_9005&DEV_028D0", (), None),
        ("", (), None),
    ],
)
def test_matches(hardware: str, compatible: tuple[str, ...], score: int | None) -> None:
    found = match_ids(model(hardware, *compatible), DEVICE.hardware_ids, DEVICE.compatible_ids)
    assert (found and found.score) == score


def test_subsystems_of_a_device_whose_subsystem_is_not_known() -> None:
    device = parse_pci("9005:028D")
    ids = (
        r"PCI\VEN_9005&DEV_028D&SUBSYS_05529005",
        r"PCI\VEN_9005&DEV_028C&SUBSYS_05009005",
        r"PCI\VEN_9005&DEV_028D",
    )
    assert subsystems_wanted(model(*ids), device) == ("05529005",)
    assert subsystems_wanted(model(*ids), DEVICE) == ()


def version(day: date | None, *parts: int) -> DriverVersion:
    return DriverVersion(day, (parts[0], parts[1], parts[2], parts[3]) if parts else None)


def test_order_of_ranks() -> None:
    exact, device = IdMatch(0x0001, "x"), IdMatch(0x0003, "x")
    old, new = date(2013, 6, 22), date(2018, 4, 17)
    best_first = [
        rank(device, 0x80, version(old, 1, 0, 0, 0)),  # a better feature score beats a better ID
        rank(exact, 0xFF, version(old, 1, 0, 0, 0)),
        rank(device, 0xFF, version(new, 1, 0, 0, 0)),  # the date decides before the version
        rank(device, 0xFF, version(old, 9, 0, 0, 1)),
        rank(device, 0xFF, version(old, 9, 0, 0, 0)),
        rank(device, 0xFF, version(None)),
        rank(exact, 0x00, version(new, 9, 9, 9, 9), UNSIGNED),
    ]
    shuffled = best_first[::-1]
    assert sorted(shuffled, key=lambda r: r.sort_key) == best_first
    assert best_first[0].text == "00800003"
    assert best_first[-1].text == "C0000001"
