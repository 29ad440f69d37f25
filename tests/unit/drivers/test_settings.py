"""Edits of SYSTEM that need no package, applied by hivex and looked at with hivex."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from rehost_payload.drivers import settings
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.hive import Hive, HiveEdit
from rehost_payload.system.hivex_edit import edit_hive
from support import hives
from support.hives import Value, dword, multi_sz, sz

SERVICES = "ControlSet001\\Services"
DISKS = "Control\\Class\\{4d36e967-e325-11ce-bfc1-08002be10318}"


def system(more: Mapping[str, Mapping[str, Value]]) -> bytes:
    return hives.make_hive(
        {"Select": {"Default": dword(1)}, "ControlSet001": {}, "ControlSet002": {}, **more}, name="SYSTEM"
    )


def changed(
    data: bytes, edits: Callable[[Hive], tuple[HiveEdit, ...]]
) -> tuple[dict[str, Value], dict[str, Value]]:
    """(what is new or different, what is gone) by "key:value"; the second run must find nothing to do."""
    after = edit_hive(data, edits(Hive.parse(data)))
    assert edits(Hive.parse(after)) == ()
    old = {f"{k}:{n}": v for (k, n), v in hives.values(data).items()}
    new = {f"{k}:{n}": v for (k, n), v in hives.values(after).items()}
    return (
        {k: v for k, v in new.items() if old.get(k) != v},
        {k: v for k, v in old.items() if k not in new},
    )


def test_a_demoted_driver_starts_again_in_every_control_set() -> None:
    data = system(
        {
            f"{SERVICES}\\arcsas": {"Start": dword(0), "ImagePath": sz("x")},
            f"{SERVICES}\\arcsas\\StartOverride": {"0": dword(3)},
            f"{SERVICES}\\amdsata": {"Start": dword(3)},
            f"{SERVICES}\\amdsata\\StartOverride": {"0": dword(3)},
            "ControlSet002\\Services\\arcsas": {"Start": dword(3)},
            "ControlSet002\\Services\\arcsas\\StartOverride": {"0": dword(3), "1": dword(3)},
        }
    )
    new, gone = changed(data, lambda h: settings.enable_service(h, "ARCSAS"))
    assert new == {"ControlSet002\\Services\\arcsas:Start": dword(0)}
    assert set(gone) == {
        f"{SERVICES}\\arcsas\\StartOverride:",
        f"{SERVICES}\\arcsas\\StartOverride:0",
        "ControlSet002\\Services\\arcsas\\StartOverride:",
        "ControlSet002\\Services\\arcsas\\StartOverride:0",
        "ControlSet002\\Services\\arcsas\\StartOverride:1",
    }


def test_what_starts_already_needs_nothing() -> None:
    data = system({f"{SERVICES}\\storahci": {"Start": dword(0)}, f"{SERVICES}\\usb": {"Start": dword(3)}})
    hive = Hive.parse(data)
    assert settings.enable_service(hive, "storahci") == ()
    assert settings.enable_service(hive, "absent") == ()
    assert settings.enable_service(hive, "usb", start=3) == ()


def test_a_filter_goes_with_its_service() -> None:
    data = system(
        {
            f"ControlSet001\\{DISKS}": {
                "LowerFilters": multi_sz("EhStorClass", "iaStorF"),
                "UpperFilters": multi_sz("partmgr"),
            },
            f"ControlSet002\\{DISKS}": {"LowerFilters": multi_sz("IASTORF")},
            "ControlSet001\\Enum\\PCI\\VEN_8086&DEV_2822\\3&1": {"UpperFilters": multi_sz("iaStorF")},
            "ControlSet001\\Enum\\PCI\\VEN_8086&DEV_2822\\3&2": {"UpperFilters": multi_sz("other")},
            f"{SERVICES}\\iaStorF": {"Start": dword(0)},
        }
    )
    new, gone = changed(data, lambda h: settings.remove_filter(h, "iaStorF"))
    assert new == {
        f"ControlSet001\\{DISKS}:LowerFilters": multi_sz("EhStorClass"),
        f"{SERVICES}\\iaStorF:Start": dword(4),
    }
    assert set(gone) == {
        f"ControlSet002\\{DISKS}:LowerFilters",
        "ControlSet001\\Enum\\PCI\\VEN_8086&DEV_2822\\3&1:UpperFilters",
    }


def test_a_filter_without_service() -> None:
    data = system({f"ControlSet001\\{DISKS}": {"UpperFilters": sz("gone")}})
    new, gone = changed(data, lambda h: settings.remove_filter(h, "gone"))
    assert (new, set(gone)) == ({}, {f"ControlSet001\\{DISKS}:UpperFilters"})
    lists = list(settings.filter_lists(Hive.parse(data), "ControlSet001"))
    assert lists == [(("ControlSet001", *DISKS.split("\\")), "UpperFilters", ("gone",))]


def test_crash_and_san_policy() -> None:
    data = system({"ControlSet001\\Control\\CrashControl": {"AutoReboot": dword(1)}})
    new, gone = changed(data, settings.crash_reboot_off)
    assert {k: v for k, v in new.items() if not k.endswith(":")} == {
        "ControlSet001\\Control\\CrashControl:AutoReboot": dword(0),
        "ControlSet002\\Control\\CrashControl:AutoReboot": dword(0),
    }
    assert gone == {}
    new, gone = changed(data, settings.san_policy_online)
    assert new["ControlSet001\\Services\\partmgr\\Parameters:SanPolicy"] == dword(1)
    assert gone == {}


def test_a_drive_letter_is_forgotten() -> None:
    data = system(
        {"MountedDevices": {"\\DosDevices\\C:": (3, b"123456789012"), "\\DosDevices\\D:": (3, b"x")}}
    )
    new, gone = changed(data, settings.forget_drive_letter)
    assert (new, set(gone)) == ({}, {"MountedDevices:\\DosDevices\\C:"})


def test_a_hive_without_control_sets() -> None:
    with pytest.raises(FormatError, match="no control set"):
        settings.crash_reboot_off(Hive.parse(hives.make_hive({"A": {}})))
