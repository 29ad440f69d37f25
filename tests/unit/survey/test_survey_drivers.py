"""Facts about drivers: from generated hives with drivers in the shape of real ones, and from odd ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rehost_payload.survey import driver_packages
from rehost_payload.survey.drivers import image_file
from rehost_payload.survey.drivers_model import PackageVerification, WindowsDrivers
from rehost_payload.survey.json import from_json, to_json
from rehost_payload.survey.model import FileSystem, HiveState, Problem, Survey, Volume
from rehost_payload.survey.volumes import OpenVolume
from support import driver_records, hives, infs, offline, packages
from support.driver_image import make_driver
from support.driver_records import Driver
from support.hives import binary, dword, multi_sz, sz
from support.memory_volume import MemoryVolume
from support.offline import AHCI, NVME, SERIES_8, SMART_3100, tree

pytestmark = pytest.mark.usefixtures("our_authority")


def facts(survey: Survey) -> WindowsDrivers:
    assert from_json(to_json(survey)) == survey
    drivers = offline.only(survey).drivers
    assert drivers is not None
    return drivers


def test_the_way_from_a_controller_to_its_file() -> None:
    found = facts(offline.surveyed(tree(), (SERIES_8, AHCI)))
    raid, ahci = found.controllers
    assert raid.hardware_ids[:2] == (
        "PCI\\VEN_9005&DEV_028D&SUBSYS_05529005&REV_01",
        "PCI\\VEN_9005&DEV_028D&SUBSYS_05529005",
    )
    assert [(h.device_id, h.inf, h.data) for h in raid.hits] == [
        ("PCI\\VEN_9005&DEV_028D&SUBSYS_05529005", "arcsas.inf", "01ff0000")
    ]
    assert [h.inf for h in ahci.hits] == ["mshdc.inf"]
    assert {i.inf for i in found.infs} == {"arcsas.inf", "mshdc.inf"}
    package = next(p for p in found.packages if p.inf == "arcsas.inf")
    assert bytes.fromhex(package.version)[32:40] == bytes.fromhex("307d000005000700")
    assert package.configurations[0].service == "arcsas"
    service = next(s for s in found.services if s.name == "arcsas")
    assert (service.type, service.start, service.binary) == (1, 0, "\\Windows\\System32\\drivers\\arcsas.sys")
    assert [(v.name, v.value) for v in service.start_override] == [("0", 3)]
    file = next(b for b in found.binaries if b.path == service.binary)
    assert (file.machine, file.subsystem, file.problem) == ("x64", 1, None)
    assert file.imports == ("ntoskrnl.exe",)
    assert file.imports_compared
    assert not file.missing_symbols
    assert (found.product_type, found.architecture, found.last_known_good) == (3, 9, 1)
    assert found.oem_numbers == (0, 1)
    assert found.database
    assert not found.critical_database
    assert not found.cut


def test_the_hash_is_that_of_the_file_and_logs_are_named() -> None:
    files = tree()
    old = files[offline.SYSTEM]
    new = hives.make_hive({"ControlSet001\\Services\\storahci\\StartOverride": {"0": dword(3)}}, old)
    dirty, log = hives.make_dirty(old, new)
    survey = offline.surveyed(files | {offline.SYSTEM: dirty, offline.SYSTEM + ".LOG1": log})
    found = facts(survey)
    import hashlib

    assert offline.only(survey).system_hive is HiveState.DIRTY
    assert found.system_sha256 == hashlib.sha256(dirty).hexdigest()
    assert found.system_logs == ("\\Windows\\System32\\config\\SYSTEM.LOG1",)
    assert found.replayed
    # what only the log knows
    assert next(s for s in found.services if s.name == "storahci").start_override


def test_another_card_of_the_kind_is_named() -> None:
    unknown = replace(SERIES_8, subsystem_vendor="", subsystem_device="", revision="")
    found = facts(offline.surveyed(tree(), (unknown,)))
    assert found.controllers[0].hits == ()
    assert found.controllers[0].other_cards == ("PCI\\VEN_9005&DEV_028D&SUBSYS_05529005",)


def test_windows_7_looks_elsewhere() -> None:
    place = "ControlSet001\\Control\\CriticalDeviceDatabase\\PCI#CC_010601"
    files = tree(system={place: {"Service": sz("msahci"), "ClassGUID": sz("{x}")}}, drivers=())
    found = facts(offline.surveyed(files))
    assert found.critical_database
    assert [(c.control_set, c.device_id, c.service) for c in found.controllers[0].critical] == [
        (1, "PCI\\CC_010601", "msahci")
    ]
    assert "msahci" in found.absent_services


def test_settings_that_a_move_meets() -> None:
    manager = "ControlSet001\\Control\\Session Manager"
    restrictions = "Policies\\Microsoft\\Windows\\DeviceInstall\\Restrictions"
    files = tree(
        system={
            "MountedDevices": {"\\DosDevices\\C:": binary(b"\x01\x02\x03\x04" + bytes(8))},
            manager: {
                "PendingFileRenameOperations": multi_sz(
                    "\\??\\C:\\Temp\\x", "\\??\\C:\\Windows\\System32\\drivers\\a.sys"
                )
            },
            "ControlSet001\\Enum\\PCI\\VEN_1\\0": {"UpperFilters": multi_sz("gone")},
            "ControlSet001\\Services\\partmgr\\Parameters": {"SanPolicy": dword(2)},
        },
        files={"Windows/WinSxS/pending.xml": b"<x/>", "Windows/INF/oem17.inf": b""},
    )
    software = "Windows/System32/config/SOFTWARE"
    files[software] = hives.make_hive(
        {restrictions: {"DenyUnspecified": dword(1)}, f"{restrictions}\\DenyDeviceIDs": {"1": sz("PCI\\X")}},
        files[software],
    )
    found = facts(offline.surveyed(files))
    assert [(x.letter, x.data) for x in found.letters] == [("C", "010203040000000000000000")]
    assert found.system_root == "C:\\Windows"
    assert found.pending_xml
    assert found.pending_renames == 2
    assert found.pending_drivers == ("\\??\\C:\\Windows\\System32\\drivers\\a.sys",)
    assert [(f.key, f.upper) for f in found.device_filters] == [("PCI\\VEN_1\\0", ("gone",))]
    assert "gone" in found.absent_services
    assert [s.value for s in found.san_policy] == [2]
    assert [(p.key, p.name, p.value) for p in found.restrictions] == [
        ("", "DenyUnspecified", "1"),
        ("DenyDeviceIDs", "1", "PCI\\X"),
    ]
    assert found.oem_numbers == (0, 1, 17)


@pytest.mark.parametrize(
    ("image_path", "file"),
    [
        (None, "\\Windows\\System32\\drivers\\x.sys"),
        ("", "\\Windows\\System32\\drivers\\x.sys"),
        ("System32\\drivers\\y.sys", "\\Windows\\System32\\drivers\\y.sys"),
        ("\\SystemRoot\\System32\\y.sys", "\\Windows\\System32\\y.sys"),
        ("%SystemRoot%\\y.sys", "\\Windows\\y.sys"),
        ("\\??\\C:\\Windows\\y.sys", "\\Windows\\y.sys"),
        ("D:\\Windows\\y.sys", "\\Windows\\y.sys"),
        ("\\??\\C:\\Program Files\\y.sys", None),
        ("\\Device\\y.sys", None),
    ],
)
def test_where_a_driver_is_looked_for(image_path: str | None, file: str | None) -> None:
    assert image_file(image_path, "x", "\\Windows") == file


def test_what_this_windows_does_not_export() -> None:
    name = "Windows/System32/drivers/storahci.sys"
    new = make_driver({"ntoskrnl.exe": ["IoCreateDevice", "KeBrandNew", "#7"], "absent.sys": ["X"]})
    found = facts(offline.surveyed(tree(files={name: new})))
    file = next(b for b in found.binaries if b.path.endswith("storahci.sys"))
    assert file.missing_symbols == ("ntoskrnl.exe!KeBrandNew",)
    assert file.missing_modules == ("absent.sys",)


@pytest.mark.parametrize(("content", "problem"), [(b"", "empty"), (b"text" * 100, "MZ")])
def test_a_file_that_is_no_driver(content: bytes, problem: str) -> None:
    found = facts(offline.surveyed(tree(files={"Windows/System32/drivers/storahci.sys": content})))
    file = next(b for b in found.binaries if b.path.endswith("storahci.sys"))
    assert problem in (file.problem or "")


ODD = st.one_of(
    st.tuples(st.integers(0, 12), st.binary(max_size=40)),
    st.text(max_size=20).map(sz),
    st.integers(0, 2**32 - 1).map(dword),
)
PLACES = (
    "DriverDatabase\\DeviceIds\\PCI\\CC_010601",
    "DriverDatabase\\DriverInfFiles\\mshdc.inf",
    "ControlSet001\\Services\\storahci",
    "ControlSet001\\Services\\storahci\\StartOverride",
    "ControlSet001\\Control\\Class\\{4d36e967-e325-11ce-bfc1-08002be10318}",
    "ControlSet001\\Enum\\PCI\\VEN_1\\0",
    "ControlSet001\\Control\\Session Manager",
    "MountedDevices",
    "Select",
)
NAMES = (
    *("", "mshdc.inf", "Active", "Configurations", "Start", "Type", "ImagePath", "Owners", "UpperFilters"),
    *("LowerFilters", "PendingFileRenameOperations", "0", "\\DosDevices\\C:", "LastKnownGood", "Service"),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from(NAMES), ODD), min_size=1, max_size=6),
)
def test_values_of_any_type_are_surveyed(values: list[tuple[str, str, tuple[int, bytes]]]) -> None:
    keys: dict[str, dict[str, tuple[int, bytes]]] = {}
    for place, name, value in values:
        keys.setdefault(place, {})[name] = value
    facts(offline.surveyed(tree(system=keys)))


# --- packages -----------------------------------------------------------------------------------------------


def test_packages_in_a_folder(tmp_path: Path) -> None:
    packages.signed(tmp_path / "fits")
    packages.signed(tmp_path / "newer", infs.package(version="01/02/2024,2.0.0.0"))
    packages.signed(tmp_path / "later", infs.package(decoration="NTamd64.10.0...15063"))
    packages.signed(
        tmp_path / "other", infs.package(models=r"%Card.DeviceDesc% = Card_Inst, PCI\VEN_1234&DEV_5678")
    )
    (tmp_path / "broken.inf").write_bytes(b"no inf")
    problems: list[Problem] = []
    found = facts(offline.surveyed(tree(), (SMART_3100, AHCI), [tmp_path], problems=problems))
    assert [Path(c.folder).name for c in found.candidates] == ["newer", "fits"]
    best = found.candidates[0]
    assert (best.address, best.service, best.version, best.date) == (
        SMART_3100.address,
        "exraid",
        "2.0.0.0",
        "2024-01-02",
    )
    assert best.binaries[0].machine == "x64"
    assert best.binaries[0].imports_compared
    assert [Path(r.folder).name for r in found.refusals] == ["later"]
    assert "15063" in found.refusals[0].reason
    assert found.other_packages == 1
    assert [p.code for p in problems] == ["driver-package"]


def stick(files: dict[str, bytes], label: str = "REHOST") -> OpenVolume:
    volume = Volume("disk1p1", "disk1", "disk1p1", 1 << 20, 1 << 26, FileSystem.FAT32, label=label)
    return OpenVolume(volume, MemoryVolume(files))


STICK = {
    **{f"drivers/raid/{name}": data for name, data in packages.files().items()},
    "drivers/raid/setup.exe": b"not referred to",
    "Rehost/drivers/other/x.inf": infs.encoded(
        infs.package(models=r"%Card.DeviceDesc% = Card_Inst, PCI\VEN_1234&DEV_5678")
    ),
}


def test_packages_on_a_volume_labelled_rehost_are_copied_once() -> None:
    first = facts(offline.surveyed(tree(), (SMART_3100,), volumes=[stick(STICK)]))
    (candidate,) = first.candidates
    folder = Path(candidate.folder)
    assert sorted(p.name for p in folder.iterdir()) == ["exraid.cat", "exraid.inf", "exraid.sys"]
    assert folder.stat().st_mode & 0o077 == 0
    assert facts(offline.surveyed(tree(), (SMART_3100,), volumes=[stick(STICK)])) == first
    changed = STICK | {"drivers/raid/exraid.sys": make_driver(fill=b"longer" * 200)}
    again = facts(offline.surveyed(tree(), (SMART_3100,), volumes=[stick(changed)]))
    assert again.candidates[0].folder != candidate.folder
    assert facts(offline.surveyed(tree(), (SMART_3100,), volumes=[stick(STICK, "DATA")])).candidates == ()
    assert facts(offline.surveyed(tree(), (NVME,), volumes=[stick(STICK)])).candidates == ()


def test_a_package_that_is_too_large_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_packages, "_MAX_FILE", 100)
    large = STICK | {"drivers/raid/exraid.sys": make_driver(fill=b"another size" * 300)}
    problems: list[Problem] = []
    found = facts(offline.surveyed(tree(), (SMART_3100,), volumes=[stick(large)], problems=problems))
    assert found.candidates == ()
    assert "more than can be copied" in problems[0].detail


@pytest.mark.parametrize("folder", ["..\\..", "C:\\drivers"])
def test_paths_that_lead_out_are_not_followed(folder: str) -> None:
    text = infs.package().replace("exraid.sys = 1", f"exraid.sys = 1,{folder}")
    files = STICK | {"drivers/raid/exraid.inf": infs.encoded(text), "exraid.sys": make_driver()}
    found = facts(offline.surveyed(tree(), (SMART_3100,), volumes=[stick(files)]))
    assert found.candidates == ()


def test_a_staged_package_has_no_descriptors() -> None:
    staged = Driver("exraid", "oem9.inf", ("PCI\\VEN_9005&DEV_028F",), original="exraid.inf", complete=False)
    found = facts(offline.surveyed(tree((*driver_records.IN_BOX, staged)), (SMART_3100,)))
    assert [h.inf for h in found.controllers[0].hits] == ["oem9.inf"]
    (package_,) = found.packages
    assert package_.original == "exraid.inf"
    assert package_.descriptors == ()


def test_a_package_on_a_stick_is_verified_and_consent_lies_beside_it() -> None:
    changed = STICK | {
        "drivers/raid/exraid.sys": make_driver({"ntoskrnl.exe": ["IoCreateDevice"]}, fill=b"new")
    }

    def verification(files: dict[str, bytes]) -> PackageVerification:
        found = facts(offline.surveyed(tree(), (SMART_3100,), volumes=[stick(files)]))
        (candidate,) = found.candidates
        assert candidate.verification is not None
        return candidate.verification

    assert verification(STICK).level == "warn"  # its driver has no checksum
    assert not verification(STICK).allowed
    found = verification(changed)
    assert (found.level, found.only_signature, found.allowed) == ("fail", True, False)
    assert "is not the file that was signed" in found.reasons[0]
    assert verification(changed | {"drivers/allow-unverified.txt": b""}).allowed
    assert not verification(changed | {"drivers/raid/allow-unverified.txt": b""}).allowed


def test_archives_on_a_stick_are_named() -> None:
    files = STICK | {
        "drivers/SmartPQI.zip": b"PK",
        "drivers/new/setup.exe": b"MZ",
        "Rehost/drivers/a.cab": b"",
    }
    problems: list[Problem] = []
    facts(offline.surveyed(tree(), (SMART_3100,), volumes=[stick(files)], problems=problems))
    assert {(p.code, p.where) for p in problems} == {
        ("driver-archive", "disk1p1:\\drivers\\SmartPQI.zip"),
        ("driver-archive", "disk1p1:\\drivers\\new\\setup.exe"),
        ("driver-archive", "disk1p1:\\Rehost\\drivers\\a.cab"),
    }
