"""The catalogue of controllers: that ours is sound, and what it says about a Windows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_builder.python_files import TARGET, install_payload
from rehost_payload.drivers.catalogue import (
    Known,
    card_key,
    cards_left_out,
    find_controller,
    in_box,
    load_catalogue,
    parse_catalogue,
)
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.inf_rank import parse_pci

CATALOGUE = load_catalogue()


def test_ours_is_sound() -> None:
    assert len(CATALOGUE) >= 30
    for controller in CATALOGUE:
        assert all(re.fullmatch("[0-9A-F]{4}:[0-9A-F]{4}", p) for p in controller.pci), controller.id
        assert all(re.fullmatch("[0-9A-F]{4}([0-9A-F]{2})?", c) for c in controller.class_codes), (
            controller.id
        )
        for card in controller.cards:
            assert card_key(parse_pci(card)) == card
            assert card[:9] in controller.pci, card
        builds = [f.build for f in controller.in_box]
        assert builds == sorted(set(builds)), controller.id
        for found in controller.in_box:
            assert set(found.lacks) <= set(controller.cards), controller.id
            assert found.covers != "listed" or controller.cards, controller.id
        # where Windows may have nothing, it says what to look for
        if any(not f.present for f in controller.in_box):
            assert controller.download, controller.id


def test_it_is_on_the_medium(tmp_path: Path) -> None:
    install_payload(tmp_path, "1")
    text = (tmp_path / TARGET / "rehost_payload/data/controllers.toml").read_text(encoding="utf-8")
    assert parse_catalogue(text) == CATALOGUE


@pytest.mark.parametrize(
    ("pci", "controller"),
    [
        ("9005:028D", "adaptec-series-8"),
        ("9005:028D:9005:0552", "adaptec-series-8"),
        ("9005:028F", "smartraid-3100"),
        ("9005:028F:9005:0800", "smartraid-3100"),
        ("9005:028F:9005:1400", "smartraid-3200"),
        ("9005:028F:103C:0602", "hpe-gen10-smart-array"),
        ("9005:028F:1234:5678", "smartraid-3100"),
        ("9005:8081", "adaptec-hba-6h-7h-8h"),
        ("8086:2822", "intel-rst-raid"),
        (r"PCI\VEN_8086&DEV_2822&CC_0104", "intel-rst-raid"),
        (r"PCI\VEN_8086&DEV_2822&CC_010601", "ahci"),
        (r"PCI\VEN_1022&DEV_7901&CC_010601", "ahci"),
        (r"PCI\VEN_144D&DEV_A808&CC_010802", "nvme"),
        (r"PCI\VEN_1234&DEV_5678&CC_0104", "raid-mode"),
        ("1234:5678", None),
    ],
)
def test_find(pci: str, controller: str | None) -> None:
    found = find_controller(CATALOGUE, parse_pci(pci))
    assert (found and found.id) == controller


@pytest.mark.parametrize(
    ("pci", "build", "present", "known"),
    [
        ("9005:028D:9005:0552", 9600, True, Known.OBSERVED),
        ("9005:028D:9005:0552", 14393, True, Known.BETWEEN),
        ("9005:028D:9005:0552", 26100, True, Known.LATER),
        ("9005:028D:9005:0552", 7601, None, Known.UNKNOWN),
        ("9005:028D:9005:0558", 9600, False, Known.OBSERVED),
        ("9005:028D:9005:0558", 14393, None, Known.UNKNOWN),
        ("9005:028D:9005:0558", 16299, True, Known.OBSERVED),
        ("9005:028D:9005:FFFF", 16299, False, Known.OBSERVED),  # a card that Windows does not list
        ("9005:028D", 14393, True, Known.BETWEEN),
        ("9005:8076", 9600, False, Known.OBSERVED),
        ("9005:8076", 16299, True, Known.OBSERVED),
        ("9005:028F", 9600, False, Known.OBSERVED),
        ("9005:028F", 14393, False, Known.BETWEEN),
        ("9005:028F", 17000, None, Known.UNKNOWN),
        ("9005:028F", 17763, True, Known.OBSERVED),
        ("9005:028F", 20348, True, Known.LATER),
        ("1000:005B", 9600, True, Known.OBSERVED),
        ("1000:005B", 14393, True, Known.BETWEEN),
        ("1028:0015", 9600, None, Known.UNKNOWN),  # it depends on the card
        ("1000:10E2", 14393, False, Known.BETWEEN),
        ("8086:9A0B", 14393, False, Known.BETWEEN),
    ],
)
def test_what_windows_has(pci: str, build: int, present: bool | None, known: Known) -> None:
    device = parse_pci(pci)
    controller = find_controller(CATALOGUE, device)
    assert controller is not None
    answer = in_box(controller, device, build)
    assert (answer.present, answer.known) == (present, known)
    assert str(build) in answer.reason or known in (Known.LATER, Known.UNKNOWN)


def test_services_and_override() -> None:
    device = parse_pci("9005:028D:9005:0552")
    controller = find_controller(CATALOGUE, device)
    assert controller is not None
    answer = in_box(controller, device, 14393)
    assert answer.services == ("arcsas",)
    assert answer.start_override
    assert controller.card(device) == "Adaptec RAID 8805"


def test_cards_that_came_later_are_named_when_the_card_is_not_known() -> None:
    controller = find_controller(CATALOGUE, parse_pci("9005:028D"))
    assert controller is not None
    for pci, count in (("9005:028D", 4), ("9005:028D:9005:0552", 0)):
        device = parse_pci(pci)
        assert len(cards_left_out(controller, device, in_box(controller, device, 14393))) == count


GOOD = """format = 1
[[controller]]
id = "a"
vendor = "v"
family = "f"
pci = ["1000:0001"]
[[controller.in_box]]
build = 9600
service = "s"
inf = "s.inf"
covers = "all"
evidence = "hive"
"""


def test_good() -> None:
    (controller,) = parse_catalogue(GOOD)
    assert controller.in_box[0].service == "s"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "format None"),
        ("format = 2", "format 2"),
        ("format =", "Invalid value"),
        ("format = 1", "no \\[\\[controller"),
        ("format = 1\ncontroller = [1]", "no \\[\\[controller"),
        (GOOD.replace('id = "a"\n', ""), "controller 1: id has to be"),
        (GOOD.replace('family = "f"', "family = 1"), "controller a: family"),
        (GOOD.replace('pci = ["1000:0001"]', "pci = [1]"), "list of texts"),
        (GOOD.replace('pci = ["1000:0001"]', "pci = []"), "neither pci nor class_codes"),
        (GOOD.replace("build = 9600", "build = true"), "build has to be of type int"),
        (GOOD.replace('service = "s"\n', ""), "service has to be"),
        (GOOD.replace('covers = "all"', 'covers = "most"'), "covers or evidence"),
        (GOOD.replace('vendor = "v"', 'vendor = "v"\nvender = "w"'), "unknown field vender"),
        (GOOD + GOOD.removeprefix("format = 1\n"), "two controllers are called a"),
    ],
)
def test_what_is_no_catalogue(text: str, problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        parse_catalogue(text)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(GOOD.splitlines()),
    st.sampled_from(["", "x = 1", "[[controller]]", "[controller.cards]", "a = ["]),
)
def test_damaged_catalogues_are_read_or_refused(line: str, instead: str) -> None:
    try:
        parse_catalogue(GOOD.replace(line, instead))
    except FormatError as e:
        assert e.what == "catalogue"  # noqa: PT017
