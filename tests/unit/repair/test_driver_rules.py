"""Each thing that keeps a Windows from its disk behind another controller: found, remedied, and not seen where it is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from rehost_payload.formats.hive import DeleteKey, DeleteValue, SetValue, decode_strings
from rehost_payload.repair.diagnose import diagnose
from rehost_payload.repair.model import (
    CopyFile,
    EditHive,
    Finding,
    InjectDriver,
    Plan,
    Severity,
    Verdict,
)
from rehost_payload.repair.plan import plan
from rehost_payload.repair.verify_drivers import check_drivers
from rehost_payload.survey.model import Controller, Disk, Survey
from rehost_payload.system.hivex_edit import edit_hive
from support import driver_records, hives, infs, offline
from support.driver_image import make_driver
from support.driver_records import IN_BOX, Driver
from support.hives import binary, dword, multi_sz, sz
from support.offline import AHCI, NVME, SERIES_8, SMART_3100, controller, only, surveyed, tree
from support.pe_image import make_pe

DISK_CLASS = "ControlSet001\\Control\\Class\\{4d36e967-e325-11ce-bfc1-08002be10318}"
SERVICES = "ControlSet001\\Services"
DRIVERS = "Windows/System32/drivers"
OTHERS = ("boot.", "esp.", "firmware.", "bios.")  # there is no system partition in these surveys


def found(survey: Survey) -> dict[str, Finding]:
    return {f.id: f for f in diagnose(survey).findings if not f.id.startswith(OTHERS)}


def verdicts(survey: Survey) -> dict[str, Verdict]:
    return {c.id.removeprefix("verify."): c.verdict for c in check_drivers(survey, only(survey))}


def repaired(files: Mapping[str, bytes], actions: Plan) -> dict[str, bytes]:
    """The files after the actions, done here by hand for those that this file is about."""
    result = dict(files)
    for action in actions.actions:
        if isinstance(action, EditHive):
            result[offline.SYSTEM] = edit_hive(result[offline.SYSTEM], action.edits)
        elif isinstance(action, CopyFile):
            source = action.source_path.strip("\\").replace("\\", "/")
            target = action.path.strip("\\").replace("\\", "/")
            result[target] = next(v for k, v in result.items() if k.lower() == source.lower())
    return result


def mended(files: Mapping[str, bytes], *controllers: Controller) -> Survey:
    """The survey after what was planned; it has to be all right, and a second plan empty."""
    first = plan(surveyed(files, controllers))
    assert first.actions
    again = surveyed(repaired(files, first), controllers)
    assert not found(again), found(again)
    assert verdicts(again)["storage-driver"] is Verdict.PASS
    assert plan(again).actions == ()
    return again


@pytest.mark.parametrize("card", [AHCI, NVME, controller("1000:0060:1000:1013"), controller("1af4:1001")])
def test_control_a_windows_that_has_the_driver(card: Controller) -> None:
    survey = surveyed(tree(), (card,))
    assert found(survey) == {}
    assert set(verdicts(survey).values()) == {Verdict.PASS}
    assert plan(survey).actions == ()


def test_without_known_controller_nothing_is_said() -> None:
    survey = surveyed(tree(drivers=()), ())
    assert found(survey) == {}
    assert verdicts(survey) == {"storage-driver": Verdict.UNKNOWN}


# --- the driver is there, but not loaded at boot


def test_start_override_alone_is_removed() -> None:
    survey = surveyed(tree(), (SERIES_8,))
    (finding,) = found(survey).values()
    assert (finding.id, finding.severity, finding.repairable) == (
        "driver.not-at-boot",
        Severity.FATAL,
        True,
    )
    assert finding.params["service"] == "arcsas"
    assert "8805" in finding.params["controller"]
    assert any("StartOverride" in line for line in finding.evidence)
    assert verdicts(survey)["driver-service"] is Verdict.FAIL
    (action,) = plan(survey).actions
    assert isinstance(action, EditHive)
    assert action.edits == (DeleteKey(("ControlSet001", "Services", "arcsas", "StartOverride")),)
    drivers = only(survey).drivers
    assert drivers is not None
    assert action.before_sha256 == drivers.system_sha256
    mended(tree(), SERIES_8)


def test_every_control_set_is_mended() -> None:
    keys = {
        "ControlSet002\\Services\\arcsas": {"Type": dword(1), "Start": dword(3)},
        "ControlSet002\\Services\\arcsas\\StartOverride": {"0": dword(3)},
        "Select": {"LastKnownGood": dword(2)},
    }
    (action,) = plan(surveyed(tree(system=keys), (SERIES_8,))).actions
    assert isinstance(action, EditHive)
    assert {e.key[0] for e in action.edits} == {"ControlSet001", "ControlSet002"}
    assert SetValue(("ControlSet002", "Services", "arcsas"), "Start", 4, bytes(4)) in action.edits


@pytest.mark.parametrize("start", [1, 3, 4])
def test_a_driver_with_another_start_type(start: int) -> None:
    drivers = (*(replace(d, start=start) if d.service == "stornvme" else d for d in IN_BOX),)
    files = tree(drivers)
    assert set(found(surveyed(files, (NVME,)))) == {"driver.not-at-boot"}
    mended(files, NVME)


def test_an_override_of_zero_demotes_nothing() -> None:
    files = tree(system={f"{SERVICES}\\storahci\\StartOverride": {"0": dword(0)}})
    assert found(surveyed(files, (AHCI,))) == {}


def test_channels_of_an_ide_controller_and_filters_of_a_package() -> None:
    ide = controller("8086:7010", "010180")
    files = tree(system={f"{SERVICES}\\atapi\\StartOverride": {"0": dword(3)}})
    assert found(surveyed(files, (ide,)))["driver.not-at-boot"].params["service"] == "atapi"
    mended(files, ide)
    amd = controller("1022:7904", "010601")
    drivers = (
        *IN_BOX,
        Driver("amdsata", "amdsata.inf", ("PCI\\VEN_1022&DEV_7904&CC_0106",), upper_filters=("amdxata",)),
        Driver("amdxata", "amdsata.inf", (), override=True),
    )
    assert found(surveyed(tree(drivers), (amd,)))["driver.not-at-boot"].params["service"] == "amdxata"


# --- no driver


def package(folder: Path, text: str | None = None, image: bytes | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "exraid.inf").write_bytes(infs.encoded(text or infs.package()))
    (folder / "exraid.sys").write_bytes(image or make_driver({"ntoskrnl.exe": ["IoCreateDevice"]}))
    (folder / "exraid.cat").write_bytes(b"catalog")
    return folder


def test_no_driver_and_no_package_says_what_to_get() -> None:
    survey = surveyed(tree(), (SMART_3100,))
    (finding,) = found(survey).values()
    assert (finding.id, finding.severity, finding.repairable) == ("driver.missing", Severity.FATAL, False)
    assert "SmartPqi" in finding.params["service"]
    assert "Microchip" in finding.params["download"]
    assert plan(survey).actions == ()
    assert verdicts(survey) | {"driver-record": Verdict.FAIL, "storage-driver": Verdict.FAIL} == verdicts(
        survey
    )


def test_the_best_package_is_taken_and_the_others_explained(tmp_path: Path) -> None:
    package(tmp_path / "old")
    package(tmp_path / "new", infs.package(version="01/02/2024,2.0.0.0"))
    package(tmp_path / "later", infs.package(decoration="NTamd64.10.0...15063", version="1/1/2025,3.0.0.0"))
    brand_new = make_driver({"ntoskrnl.exe": ["KeOfTomorrow"]})
    package(tmp_path / "tomorrow", infs.package(version="01/02/2026,4.0.0.0"), brand_new)
    x86 = make_pe("x86", subsystem=1)
    package(tmp_path / "x86", infs.package(version="01/02/2026,5.0.0.0"), x86)
    survey = surveyed(tree(), (SMART_3100,), [tmp_path])
    (finding,) = found(survey).values()
    assert finding.id == "driver.missing"
    assert finding.repairable
    lines = "\n".join(finding.evidence)
    assert "new/exraid.inf: taken, exraid 2.0.0.0" in lines
    assert "old/exraid.inf: fits as well" in lines
    assert "15063" in lines
    assert "KeOfTomorrow" in lines
    assert "it is for x86" in lines
    (action,) = plan(survey).actions
    assert isinstance(action, InjectDriver)
    assert (Path(action.package).name, action.service, action.build, action.product_type) == (
        "new",
        "exraid",
        14393,
        3,
    )
    assert action.hardware_ids[0] == "PCI\\VEN_9005&DEV_028F&SUBSYS_08009005&REV_01"


def test_an_unsigned_package_without_catalog_is_not_taken(tmp_path: Path) -> None:
    (package(tmp_path / "p") / "exraid.cat").unlink()
    finding = found(surveyed(tree(), (SMART_3100,), [tmp_path]))["driver.missing"]
    assert not finding.repairable
    assert "not signed" in "\n".join(finding.evidence)


def test_windows_own_driver_comes_before_a_package(tmp_path: Path) -> None:
    text = infs.package(models=r"%Card.DeviceDesc% = Card_Inst, PCI\VEN_9005&DEV_028D&SUBSYS_05529005")
    package(tmp_path / "p", text)
    (action,) = plan(surveyed(tree(), (SERIES_8,), [tmp_path])).actions
    assert isinstance(action, EditHive)


def test_a_staged_package_is_no_driver(tmp_path: Path) -> None:
    staged = Driver("exraid", "oem9.inf", ("PCI\\VEN_9005&DEV_028F",), original="exraid.inf", complete=False)
    survey = surveyed(tree((*IN_BOX, staged)), (SMART_3100,), [package(tmp_path / "p")])
    finding = found(survey)["driver.missing"]
    assert any("staged only" in line for line in finding.evidence)
    assert verdicts(survey)["driver-record"] is Verdict.FAIL


def test_a_card_that_was_not_named() -> None:
    unknown = replace(SERIES_8, subsystem_vendor="", subsystem_device="")
    survey = surveyed(tree(), (unknown,))
    (finding,) = found(survey).values()
    assert (finding.id, finding.severity) == ("driver.card-unknown", Severity.WARNING)
    assert verdicts(survey)["storage-driver"] is Verdict.UNKNOWN


def test_a_configuration_that_excludes_the_card() -> None:
    own = "PCI\\VEN_1022&DEV_7901&SUBSYS_B0051458"
    drivers = tuple(replace(d, excluded=(own,)) if d.service == "storahci" else d for d in IN_BOX)
    survey = surveyed(tree(drivers), (AHCI,))
    assert any("excludes" in line for line in found(survey)["driver.missing"].evidence)
    assert verdicts(survey)["driver-record"] is Verdict.FAIL
    other = controller("1022:7901:1458:b006", "010601")
    assert found(surveyed(tree(drivers), (other,))) == {}


def test_a_newer_package_where_the_windows_own_driver_is_in_doubt(tmp_path: Path) -> None:
    """SmartSAMD of Windows names every 9005:028F, also cards that are years younger."""
    ultra = controller("9005:028f:9005:1400")
    generic = Driver("SmartSAMD", "smartsamd.inf", ("PCI\\VEN_9005&DEV_028F",), version=(1, 50, 0, 0))
    package(tmp_path / "p", infs.package(version="01/02/2024,1016.2.0.1"))
    survey = surveyed(tree((*IN_BOX, generic)), (ultra,), [tmp_path])
    assert set(found(survey)) == {"driver.better-package"}
    assert isinstance(plan(survey).actions[0], InjectDriver)
    newer = replace(generic, version=(1016, 2, 0, 1))
    assert found(surveyed(tree((*IN_BOX, newer)), (ultra,), [tmp_path])) == {}
    assert found(surveyed(tree((*IN_BOX, generic)), (ultra,))) == {}


# --- the driver's file


def test_a_lost_file_comes_back_from_the_driver_store() -> None:
    store = driver_records.package_name(next(d for d in IN_BOX if d.service == "stornvme"))
    good = make_driver({"ntoskrnl.exe": ["IoCreateDevice"]}, fill=b"store")
    files = tree(
        files={
            f"{DRIVERS}/stornvme.sys": None,
            f"Windows/System32/DriverStore/FileRepository/{store}/stornvme.sys": good,
        }
    )
    survey = surveyed(files, (NVME,))
    finding = found(survey)["driver.file-missing"]
    assert finding.repairable
    assert isinstance(plan(survey).actions[0], CopyFile)
    mended(files, NVME)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (None, "is missing"),
        (b"", "empty"),
        (make_pe("x86", subsystem=1), "x86"),
        (make_pe("x64"), "no driver"),
        (make_driver({"ntoskrnl.exe": ["KeOfTomorrow"]}), "KeOfTomorrow"),
        (make_driver({"newport.sys": ["X"]}), "newport.sys"),
    ],
)
def test_a_file_that_cannot_be_loaded(image: bytes | None, words: str) -> None:
    survey = surveyed(tree(files={f"{DRIVERS}/stornvme.sys": image}), (NVME,))
    finding = found(survey)["driver.file-missing"]
    assert not finding.repairable
    assert words in "\n".join(finding.evidence)
    assert verdicts(survey)["driver-file"] is Verdict.FAIL


def test_a_missing_service() -> None:
    drivers = tuple(replace(d, service="stornvme2") if d.service == "stornvme" else d for d in IN_BOX)
    files = tree(drivers)
    files[offline.SYSTEM] = edit_hive(
        files[offline.SYSTEM], [DeleteKey(("ControlSet001", "Services", "stornvme2"))]
    )
    survey = surveyed(files, (NVME,))
    assert "does not exist" in "\n".join(found(survey)["driver.file-missing"].evidence)
    assert verdicts(survey)["driver-service"] is Verdict.FAIL


def test_an_installed_driver_without_signature() -> None:
    catalog = "Windows/System32/CatRoot/{F750E6C3-38EE-11D1-85E5-00C04FC295EE}/oem0.cat"
    survey = surveyed(tree(files={catalog: None}), (controller("1af4:1001"),))
    assert "CatRoot" in "\n".join(found(survey)["driver.file-missing"].evidence)
    assert verdicts(survey)["driver-file"] is Verdict.FAIL


# --- data controllers


def two_disks(survey: Survey, address: str) -> Survey:
    first = survey.disks[0]
    table = replace(first.table, disk_guid="0" * 36, partitions=())
    second = Disk("disk1", "/dev/sdb", 1 << 40, 512, table, controller=address)
    return replace(survey, disks=(first, second))


def test_a_data_controller_is_a_warning() -> None:
    data = replace(SMART_3100, address="0000:04:00.0")
    survey = two_disks(surveyed(tree(), (AHCI, data)), data.address)
    (finding,) = found(survey).values()
    assert (finding.id, finding.severity) == ("driver.missing-data", Severity.WARNING)
    assert finding.params["disks"] == "disk1"


def test_a_data_controller_needs_no_boot_start() -> None:
    data = replace(SERIES_8, address="0000:04:00.0")
    assert found(two_disks(surveyed(tree(), (AHCI, data)), data.address)) == {}


def test_a_controller_without_disks_is_nobodys_business() -> None:
    assert found(surveyed(tree(), (AHCI, replace(SMART_3100, address="0000:04:00.0")))) == {}


def test_one_package_for_two_controllers_is_one_injection(tmp_path: Path) -> None:
    data = replace(controller("9005:028f:9005:0900"), address="0000:04:00.0")
    survey = two_disks(surveyed(tree(), (SMART_3100, data), [package(tmp_path / "p")]), data.address)
    (action,) = plan(survey).actions
    assert isinstance(action, InjectDriver)
    assert {"PCI\\VEN_9005&DEV_028F&SUBSYS_08009005", "PCI\\VEN_9005&DEV_028F&SUBSYS_09009005"} <= set(
        action.hardware_ids
    )


def test_behind_a_volume_management_device() -> None:
    vmd = controller("8086:467f:1043:8694", "010400", "0000:00:0e.0")
    nvme = replace(NVME, address="10000:e1:00.0")
    survey = surveyed(tree(), (nvme, vmd))
    assert "8086:467f" in found(survey)["driver.missing"].params["controller"]
    assert verdicts(survey)["storage-driver"] is Verdict.FAIL


# --- the stack above


def test_a_dangling_class_filter_goes_with_its_service() -> None:
    keys = {
        DISK_CLASS: {"LowerFilters": multi_sz("iaStorF", "EhStorClass")},
        f"{SERVICES}\\iaStorF": {
            "Type": dword(1),
            "Start": dword(0),
            "ErrorControl": dword(1),
            "ImagePath": sz("System32\\drivers\\iaStorF.sys"),
        },
    }
    files = tree(system=keys)
    survey = surveyed(files, (AHCI,))
    assert set(found(survey)) == {"driver.filter-dangling"}
    assert verdicts(survey)["driver-filters"] is Verdict.FAIL
    again = mended(files, AHCI)
    drivers = only(again).drivers
    assert drivers is not None
    assert next(f for f in drivers.class_filters if f.key.startswith("{4d36e967")).lower == ("EhStorClass",)


def test_two_dangling_filters_of_one_list() -> None:
    files = tree(system={DISK_CLASS: {"LowerFilters": multi_sz("one", "EhStorClass", "two")}})
    (action,) = plan(surveyed(files, (AHCI,))).actions
    assert isinstance(action, EditHive)
    (edit,) = action.edits
    assert isinstance(edit, SetValue)
    assert decode_strings(edit.data) == ("EhStorClass",)
    mended(files, AHCI)


def test_a_list_of_nothing_but_dangling_filters_goes() -> None:
    scsi = "ControlSet001\\Control\\Class\\{4d36e97b-e325-11ce-bfc1-08002be10318}"
    (action,) = plan(surveyed(tree(system={scsi: {"UpperFilters": multi_sz("gone")}}), (AHCI,))).actions
    assert isinstance(action, EditHive)
    (edit,) = action.edits
    assert isinstance(edit, DeleteValue)


def test_a_foreign_filter_that_works_stays() -> None:
    keys = {
        DISK_CLASS: {"LowerFilters": multi_sz("EhStorClass", "stdcfltn")},
        f"{SERVICES}\\stdcfltn": {
            "Type": dword(1),
            "Start": dword(0),
            "ErrorControl": dword(1),
            "ImagePath": sz("system32\\DRIVERS\\stdcfltn.sys"),
        },
    }
    assert found(surveyed(tree(system=keys, files={f"{DRIVERS}/stdcfltn.sys": make_driver()}), (AHCI,))) == {}


def test_device_filters_count_where_the_device_is_in_this_machine() -> None:
    ids = "VEN_1022&DEV_7901&SUBSYS_B0051458&REV_01"
    here = {f"ControlSet001\\Enum\\PCI\\{ids}\\3&1": {"UpperFilters": multi_sz("gone")}}
    elsewhere = {"ControlSet001\\Enum\\PCI\\VEN_8086&DEV_2829\\3&1": {"UpperFilters": multi_sz("gone")}}
    assert set(found(surveyed(tree(system=here), (AHCI,)))) == {"driver.filter-dangling"}
    mended(tree(system=here), AHCI)
    assert found(surveyed(tree(system=elsewhere), (AHCI,))) == {}


@pytest.mark.parametrize("service", ["pci", "partmgr", "volume"])
def test_a_link_of_the_chain_that_is_not_loaded(service: str) -> None:
    files = tree(system={f"{SERVICES}\\{service}\\StartOverride": {"0": dword(3)}})
    survey = surveyed(files, (AHCI,))
    assert set(found(survey)) == {"driver.chain-broken"}
    assert verdicts(survey)["driver-chain"] is Verdict.FAIL
    mended(files, AHCI)


def test_a_lost_link_of_the_chain() -> None:
    survey = surveyed(tree(files={f"{DRIVERS}/volmgr.sys": None}), (AHCI,))
    finding = found(survey)["driver.chain-broken"]
    assert not finding.repairable
    assert verdicts(survey)["driver-chain"] is Verdict.FAIL


@pytest.mark.parametrize(
    ("error_control", "owner", "severity", "repairable"),
    [
        (1, "oem5.inf", Severity.WARNING, False),
        (3, "oem5.inf", Severity.FATAL, True),
        (3, "spaceport.inf", Severity.FATAL, False),
    ],
)
def test_a_boot_driver_without_file(
    error_control: int, owner: str, severity: Severity, repairable: bool
) -> None:
    service = {
        "Type": dword(1),
        "Start": dword(0),
        "ErrorControl": dword(error_control),
        "ImagePath": sz("System32\\drivers\\backup.sys"),
        "Owners": multi_sz(owner),
    }
    files = tree(system={f"{SERVICES}\\backup": service})
    survey = surveyed(files, (AHCI,))
    (finding,) = found(survey).values()
    assert (finding.id, finding.severity, finding.repairable) == (
        "driver.boot-file-missing",
        severity,
        repairable,
    )
    assert (verdicts(survey)["driver-chain"] is Verdict.FAIL) is (severity is Severity.FATAL)
    if repairable:
        mended(files, AHCI)


# --- settings


def test_pending_servicing() -> None:
    survey = surveyed(tree(files={"Windows/WinSxS/pending.xml": b"<x/>"}), (AHCI,))
    assert set(found(survey)) == {"windows.pending-servicing"}
    temporary = {
        "ControlSet001\\Control\\Session Manager": {
            "PendingFileRenameOperations": multi_sz("\\??\\C:\\Temp\\a.tmp")
        }
    }
    assert found(surveyed(tree(system=temporary), (AHCI,))) == {}


def test_policies() -> None:
    top = "Policies\\Microsoft\\Windows\\DeviceInstall\\Restrictions"
    software = "Windows/System32/config/SOFTWARE"
    for values, expected in (
        ({"DenyUnspecified": dword(1)}, {"windows.device-policy"}),
        ({"DenyUnspecified": dword(0), "AllowAdminInstall": dword(1)}, set()),
    ):
        files = tree()
        files[software] = hives.make_hive({top: values}, files[software])
        assert set(found(surveyed(files, (AHCI,)))) == expected


@pytest.mark.parametrize("mbr", [False, True])
def test_the_letter_of_the_old_disk(mbr: bool) -> None:
    right = (
        b"\x01\x02\x03\x04" + (1 << 20).to_bytes(8, "little") if mbr else b"DMIO:ID:" + offline.GUID.bytes_le
    )
    wrong = right[:-9] + b"\xff" + right[-8:]
    name = "\\DosDevices\\C:"

    def survey(value: bytes) -> tuple[dict[str, bytes], Survey]:
        files = tree(system={"MountedDevices": {name: binary(value)}})
        return files, surveyed(files, (AHCI,), mounted=right)

    assert found(survey(right)[1]) == {}
    assert found(survey("\\??\\USBSTOR".encode("utf-16-le"))[1]) == {}
    files, moved = survey(wrong)
    assert set(found(moved)) == {"windows.letter-elsewhere"}
    again = surveyed(repaired(files, plan(moved)), (AHCI,), mounted=right)
    assert found(again) == {}
    assert not [a for a in plan(again).actions if isinstance(a, EditHive)]
    # a volume that must not be written is not written for this, and nothing else is held up by it
    dirty = replace(moved, volumes=(replace(moved.volumes[0], journal_unclean=True),))
    assert not found(dirty)["windows.letter-elsewhere"].repairable
    assert not [a for a in plan(dirty).actions if isinstance(a, EditHive)]


def test_the_letter_of_a_windows_that_is_not_on_c() -> None:
    files = tree(system={"MountedDevices": {"\\DosDevices\\C:": binary(b"DMIO:ID:" + bytes(16))}})
    software = "Windows/System32/config/SOFTWARE"
    files[software] = hives.make_hive(
        {"Microsoft\\Windows NT\\CurrentVersion": {"SystemRoot": sz("D:\\Windows")}}, files[software]
    )
    assert found(surveyed(files, (AHCI,))) == {}


def test_san_policy_matters_where_there_are_data_disks() -> None:
    files = tree(system={f"{SERVICES}\\partmgr\\Parameters": {"SanPolicy": dword(2)}})
    survey = surveyed(files, (AHCI,))
    assert found(survey) == {}
    first = survey.disks[0]
    part = replace(first.table.partitions[0], id="disk1p1")
    data = replace(first, id="disk1", path="/dev/sdb", table=replace(first.table, partitions=(part,)))
    assert "disk.san-policy" in found(replace(survey, disks=(first, data)))


def test_a_stop_error_stays_on_the_screen_where_drivers_are_changed() -> None:
    keys = {
        offline.CRASH_CONTROL: {"AutoReboot": dword(1)},
        "ControlSet002\\Control\\CrashControl": {"AutoReboot": dword(1)},
        "ControlSet002\\Services\\arcsas": {"Type": dword(1), "Start": dword(0)},
    }
    files = tree(system=keys)
    survey = surveyed(files, (SERIES_8,))
    assert set(found(survey)) == {"driver.not-at-boot", "windows.crash-reboot"}
    (action,) = plan(survey).actions
    assert isinstance(action, EditHive)
    for number in (1, 2):
        key = (f"ControlSet{number:03d}", "Control", "CrashControl")
        assert SetValue(key, "AutoReboot", 4, bytes(4)) in action.edits
    mended(files, SERIES_8)


def test_where_no_driver_is_changed_the_restart_is_left_alone() -> None:
    files = tree(system={offline.CRASH_CONTROL: {"AutoReboot": dword(1)}})
    assert found(surveyed(files, (AHCI,))) == {}
    filters = tree(system={offline.CRASH_CONTROL: {"AutoReboot": dword(0)}})
    assert "windows.crash-reboot" not in found(surveyed(filters, (SERIES_8,)))


# --- Windows 7 and Server 2008 R2


def test_the_database_of_windows_7() -> None:
    release = offline.windows.Release("Windows Server 2008 R2", 7601, 17514, "")
    key = "ControlSet001\\Control\\CriticalDeviceDatabase\\PCI#VEN_9005&DEV_028F"
    driver = Driver("exraid", "oem1.inf", ("PCI\\VEN_9005&DEV_028F",), override=False)
    files = tree((driver,), {key: {"Service": sz("exraid"), "ClassGUID": sz("{x}")}}, release=release)
    files[offline.SYSTEM] = edit_hive(files[offline.SYSTEM], [DeleteKey(("DriverDatabase",))])
    survey = surveyed(files, (SMART_3100,))
    assert found(survey) == {}
    assert verdicts(survey)["storage-driver"] is Verdict.PASS
    survey = surveyed(files, (AHCI,))
    assert set(found(survey)) == {"driver.missing"}
    assert verdicts(survey)["driver-record"] is Verdict.FAIL
