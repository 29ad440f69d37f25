"""TargetOS decorations against target systems."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_payload.formats.inf_target import (
    DOMAIN_CONTROLLER,
    SERVER,
    WORKSTATION,
    Target,
    closeness,
    parse_decoration,
    target_of,
    why_not,
)

T2012R2, T2016, T2019, T2025 = (target_of(b) for b in ("9600", "14393", "17763", "26100"))


@pytest.mark.parametrize(
    ("text", "version", "name"),
    [
        ("14393", (10, 0, 14393), "Windows Server 2016 (10.0.14393)"),
        ("2016", (10, 0, 14393), "Windows Server 2016 (10.0.14393)"),
        ("2012 R2", (6, 3, 9600), "Windows Server 2012 R2 (6.3.9600)"),
        ("2008r2", (6, 1, 7601), "Windows Server 2008 R2 (6.1.7601)"),
        ("10.0.16299", (10, 0, 16299), "Windows 10.0.16299"),
        ("10.0.14393.693", (10, 0, 14393), "Windows Server 2016 (10.0.14393)"),
        ("3790", (5, 2, 3790), "Windows 5.2.3790"),
    ],
)
def test_targets(text: str, version: tuple[int, int, int], name: str) -> None:
    target = target_of(text)
    assert (target.major, target.minor, target.build) == version
    assert target.name == name


@pytest.mark.parametrize("text", ["", "windows", "10.0", "8000", "1.2.3.4.5", "-1", "99999999"])
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(ValueError, match="build"):
        target_of(text)


@pytest.mark.parametrize(
    ("text", "fits", "reason"),
    [
        ("NTamd64", True, ""),
        ("ntAMD64.", True, ""),
        ("NTamd64.6.2", True, ""),
        ("NTamd64.10.0", True, ""),
        ("NTamd64.10", True, ""),
        ("NTamd64.10.0...14393", True, ""),
        ("NTamd64.0x0a.0...0x3839", True, ""),
        ("NTamd64.6.1...99999", True, ""),  # the build of an older version does not count
        ("NTamd64.10.0.3", True, ""),
        ("NTamd64.10.0...15063", False, "for build 15063 and later, not for 14393"),
        ("NTamd64.10.1", False, "for Windows 10.1 and later, not for 10.0"),
        ("NTamd64.10.0.1", False, "for workstation only, not for server"),
        ("NTamd64.10.0..0x80", False, "product suite 0x80"),
        ("NTx86", False, "for x86, not for amd64"),
        ("NT", False, "names no architecture"),
        ("NT.6.0", False, "names no architecture"),
        ("", False, "names no architecture"),
    ],
)
def test_server_2016(text: str, fits: bool, reason: str) -> None:
    decoration = parse_decoration(text)
    assert decoration is not None
    why = why_not(decoration, T2016)
    assert (why is None) is fits
    assert reason in (why or "")


@pytest.mark.parametrize(
    "text", ["amd64", "NTsparc", "NTamd64.x", "NTamd64.1.2.3.4.5.6", "NTamd64-6.1", "NTamd64.1e9"]
)
def test_what_is_no_decoration(text: str) -> None:
    assert parse_decoration(text) is None


def test_builds_before_14310_pass_over_build_numbers() -> None:
    for text in ("NTamd64.10.0...14393", "NTamd64.6.1...7601"):
        decoration = parse_decoration(text)
        assert decoration is not None
        for target in (T2012R2, target_of("10586")):
            assert "does not understand" in (why_not(decoration, target) or "")
        assert why_not(decoration, T2019) is None


def test_product_types() -> None:
    decoration = parse_decoration("NTamd64.5.2.3")
    assert decoration is not None
    fits = {
        p: why_not(decoration, target_of("2016", p)) is None for p in (WORKSTATION, DOMAIN_CONTROLLER, SERVER)
    }
    assert fits == {WORKSTATION: False, DOMAIN_CONTROLLER: False, SERVER: True}


def test_x86_takes_sections_without_an_architecture() -> None:
    target = target_of("2600", WORKSTATION, "x86")
    for text in ("", "NT", "NT.5.1"):
        decoration = parse_decoration(text)
        assert decoration is not None
        assert why_not(decoration, target) is None


def test_the_closest() -> None:
    order = [
        "",
        "NTamd64",
        "NTamd64.5.2",
        "NTamd64.6.1",
        "NTamd64.10.0",
        "NTamd64.10.0.3",
        "NTamd64.10.0...14393",
        "NTamd64.10.0.3..14393",
        "NTamd64.10.0...17763",
    ]
    decorations = [parse_decoration(t) for t in order]
    shuffled = decorations[::-1]
    assert sorted(shuffled, key=lambda d: closeness(d) if d else ()) == decorations


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 12), st.integers(0, 4), st.integers(14310, 30000), st.sampled_from([T2016, T2019, T2025])
)
def test_a_decoration_that_fits_a_server_fits_every_later_one(
    major: int, minor: int, build: int, target: Target
) -> None:
    decoration = parse_decoration(f"NTamd64.{major}.{minor}...{build}")
    assert decoration is not None
    if why_not(decoration, target) is None:
        assert why_not(decoration, T2025) is None
