"""Injection of synthetic packages: what is written, what is refused, and that a second time nothing is."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rehost_payload.drivers.inject import CATALOGS, STORE, inject
from rehost_payload.drivers.inject_model import CODES, InjectError, Injection, Package
from rehost_payload.drivers.inject_package import read_package, safe_name
from rehost_payload.formats.hive import Hive, SetValue, decode_strings
from rehost_payload.formats.inf_target import Target, target_of
from rehost_payload.system.hivex_edit import edit_hive
from support import hives, infs
from support.driver_packages import (
    CARD,
    DISK_CLASS,
    IDS,
    critical_hive,
    database_hive,
    driver,
    package,
    two_services,
)
from support.hives import Value, binary, dword, multi_sz, sz

T2016 = target_of("2016")
SETS = ("ControlSet001", "ControlSet002")
Tree = dict[str, Value]


def expand(text: str) -> Value:
    return 2, sz(text)[1]


class Installation:
    """A hive and the files of a Windows folder; `take` writes an injection into it."""

    def __init__(self, hive: bytes | None = None, files: Mapping[str, bytes] | None = None) -> None:
        self.hive = hive or database_hive()
        self.files = {k.lower(): v for k, v in (files or {}).items()}

    def read(self, path: str) -> bytes | None:
        return self.files.get(path.lower())

    def inject(
        self, what: Package, ids: tuple[str, ...] = IDS, target: Target = T2016, **more: object
    ) -> Injection:
        return inject(what, ids, target, Hive.parse(self.hive), self.read, **more)  # type: ignore[arg-type]

    def take(self, injection: Injection) -> tuple[Tree, Tree]:
        """(new or changed values, values that are gone) as hivex sees them."""
        before = self.tree()
        self.hive = edit_hive(self.hive, injection.edits)
        self.files |= {f.path.lower(): f.data for f in injection.files}
        after = self.tree()
        return (
            {k: v for k, v in after.items() if before.get(k) != v},
            {k: v for k, v in before.items() if k not in after},
        )

    def tree(self) -> Tree:
        empty = (0, b"")
        return {f"{k}:{n}": v for (k, n), v in hives.values(self.hive).items() if v != empty or n}


def refused(what: Package, code: str, on: Installation | None = None, **more: object) -> str:
    with pytest.raises(InjectError) as caught:
        (on or Installation()).inject(what, **more)  # type: ignore[arg-type]
    assert caught.value.code == code, caught.value
    assert code in CODES
    return caught.value.detail


def service(name: str = "exraid", **more: Value) -> Tree:
    return {
        "Type": dword(1),
        "Start": dword(0),
        "ErrorControl": dword(1),
        "ImagePath": expand(f"System32\\drivers\\{name}.sys"),
        "Owners": multi_sz("oem2.inf"),
        **more,
    }


def under(key: str, values: Tree) -> Tree:
    return {f"{key}{'' if ':' in name else ':'}{name}": value for name, value in values.items()}


# --- what is written


def test_every_record_of_a_package() -> None:
    windows = Installation()
    injection = windows.inject(package())
    assert (injection.published, injection.services) == ("oem2.inf", ("exraid",))
    name = injection.name
    new, gone = windows.take(injection)
    folder = f"DriverDatabase\\DriverPackages\\{name}"
    configuration = f"{folder}\\Configurations\\Card_Inst"
    descriptor = f"{folder}\\Descriptors\\PCI\\VEN_9005&DEV_028F"
    # 2 January 2020 and version 1.2.3.4, the class in little-endian form
    version = bytes.fromhex("00ff090000000000" + "7be9364d25e3ce11bfc108002be10318")
    version += struct.pack("<Q4HQ", 132223968000000000, 4, 3, 2, 1, 0)
    expected: Tree = {
        "DriverDatabase:OemInfMap": binary(b"\xe0"),
        **under(
            folder,
            {
                "": sz("oem2.inf"),
                "Version": binary(version),
                "Provider": sz("Example Storage, Inc."),
                "InfName": sz("exraid.inf"),
                "OemPath": sz(f"C:\\Windows\\{STORE}\\{name}"),
                "SignerScore": dword(0x0F000000),
                "StatusFlags": dword(0x12),
            },
        ),
        **under(
            configuration,
            {"Service": sz("exraid"), "ConfigFlags": dword(0), "ConfigScope": dword(7)},
        ),
        f"{configuration}\\Services\\exraid\\Parameters\\PnpInterface:5": dword(1),
        f"{configuration}\\Services\\exraid\\Parameters:BusType": dword(8),
        **under(
            descriptor,
            {
                "Configuration": sz("Card_Inst"),
                "Manufacturer": sz("%vendor%"),
                "Description": sz("%card.devicedesc%"),
            },
        ),
        **under(
            f"{folder}\\Strings",
            {"vendor": sz("Example Storage, Inc."), "card.devicedesc": sz("Example RAID 8000; 8 ports")},
        ),
        **under(
            "DriverDatabase\\DriverInfFiles\\oem2.inf",
            {"": multi_sz(name), "Active": sz(name), "Configurations": multi_sz("Card_Inst")},
        ),
        "DriverDatabase\\DeviceIds\\PCI\\VEN_9005&DEV_028F:oem2.inf": binary(bytes.fromhex("01ff0000")),
        f"DriverDatabase\\DeviceIds\\{DISK_CLASS}:oem2.inf": (0, b""),
    }
    for control_set in SETS:
        key = f"{control_set}\\Services\\exraid"
        display = "@oem2.inf,%Card.DeviceDesc%;Example RAID 8000; 8 ports"
        expected |= under(key, service(Group=sz("SCSI Miniport"), DisplayName=sz(display)))
        expected[f"{key}\\Parameters\\PnpInterface:5"] = dword(1)
        expected[f"{key}\\Parameters:BusType"] = dword(8)
        expected |= under(
            f"{control_set}\\Services\\EventLog\\System\\exraid",
            {
                "EventMessageFile": expand("%SystemRoot%\\System32\\IoLogMsg.dll"),
                "TypesSupported": dword(7),
            },
        )
    assert new == expected
    # the bus driver of the controller must not be demoted either
    assert gone == {"ControlSet001\\Services\\pci\\StartOverride:0": dword(3)}


def test_every_file_of_a_package() -> None:
    what = package()
    injection = Installation().inject(what)
    files = {f.path: f.data for f in injection.files}
    inf, catalog, binary_ = (what.files[f"exraid.{e}"] for e in ("inf", "cat", "sys"))
    folder = f"{STORE}\\{injection.name}"
    assert files == {
        f"{folder}\\exraid.inf": inf,
        f"{folder}\\exraid.cat": catalog,
        f"{folder}\\exraid.sys": binary_,
        "INF\\oem2.inf": inf,
        f"{CATALOGS}\\oem2.cat": catalog,
        "System32\\drivers\\exraid.sys": binary_,
    }
    assert list(files)[-1] == "System32\\drivers\\exraid.sys"
    assert injection.name.startswith("exraid.inf_amd64_")
    assert len(injection.name.rpartition("_")[2]) == 16


@pytest.mark.parametrize("what", [package(), two_services()], ids=["one service", "two services"])
@pytest.mark.parametrize("build", ["2016", "2012", "2025"])
def test_a_second_injection_changes_nothing(what: Package, build: str) -> None:
    windows = Installation()
    target = target_of(build)
    first = windows.inject(what, target=target)
    windows.take(first)
    again = windows.inject(what, target=target, taken={0, 1, 2, 3})
    assert (again.edits, again.files) == ((), ())
    assert (again.published, again.name) == (first.published, first.name)


def test_half_of_an_injection_is_completed() -> None:
    windows = Installation()
    injection = windows.inject(package())
    windows.take(
        Injection(injection.name, injection.published, (), injection.edits[::2], injection.files[:2])
    )
    rest = windows.inject(package())
    assert rest.published == injection.published
    windows.take(rest)
    assert windows.inject(package()).edits == ()


def test_several_services_and_a_filter_of_the_device() -> None:
    windows = Installation()
    injection = windows.inject(two_services())
    assert injection.services == ("ex_sata", "ex_xata")
    new, _ = windows.take(injection)
    configuration = f"DriverDatabase\\DriverPackages\\{injection.name}\\Configurations\\Card_Inst"
    assert new[f"{configuration}:UpperFilters"] == multi_sz("ex_xata")
    assert new[f"{configuration}:Service"] == sz("ex_sata")
    assert new[f"{configuration}\\Device:xata"] == dword(1)
    # a security descriptor is a property of the device, not a value
    assert not any("Security" in key for key in new)
    for control_set in SETS:
        for name in ("ex_sata", "ex_xata"):
            assert new[f"{control_set}\\Services\\{name}:Start"] == dword(0)
    # the INF's own StartOverride would demote the driver again
    assert not any("StartOverride" in key for key in new)
    assert {f.path for f in injection.files} >= {
        "System32\\drivers\\ex_sata.sys",
        "System32\\drivers\\ex_xata.sys",
    }


def test_start_override_goes_from_the_service_in_every_control_set() -> None:
    keys = {f"{s}\\Services\\exraid\\StartOverride": {"0": dword(3)} for s in SETS}
    windows = Installation(hives.make_hive(keys, database_hive()))
    _, gone = windows.take(windows.inject(package()))
    assert {k for k in gone if "exraid" in k} == {f"{s}\\Services\\exraid\\StartOverride:0" for s in SETS}


def test_a_filter_of_windows_is_woken() -> None:
    text = two_services().files["exraid.inf"].decode("utf-16").replace("\r\n", "\n")
    text = text.replace("AddService = ex_xata,, Filter_Service\n", "").replace('"ex_xata"', '"inbox"')
    what = Package("exraid.inf", {**two_services().files, "exraid.inf": infs.encoded(text)})
    windows = Installation()
    _, gone = windows.take(windows.inject(what))
    assert {k for k in gone if "inbox" in k} == {f"{s}\\Services\\inbox\\StartOverride:0" for s in SETS}
    dangling = Package(
        "exraid.inf", {**what.files, "exraid.inf": infs.encoded(text.replace('"inbox"', '"absent"'))}
    )
    assert "absent" in refused(dangling, "file-missing")


def test_only_sections_whose_services_are_installed_are_configured() -> None:
    models = "\n".join(
        (
            rf"%Card.DeviceDesc% = Card_Inst, {CARD}",
            r"%Card.DeviceDesc% = Card_Msix, PCI\VEN_9005&DEV_028F, PCI\VEN_9005&CC_0104",
            r"%Card.DeviceDesc% = Other_Inst, PCI\VEN_9005&DEV_0290",
        )
    )
    more = infs.SERVICE.replace("Card_Inst.Services", "Card_Msix.Services").partition("[Card_Service]")[0]
    more += "[Card_Msix]\nFeatureScore = 80\nCopyFiles=@exraid.sys\n[Other_Inst]\n"
    more += "[Other_Inst.Services]\nAddService=other,2,Other_Service\n"
    more += "[Other_Service]\nServiceType=1\nStartType=0\nServiceBinary=%12%\\other.sys\n"
    windows = Installation()
    new, _ = windows.take(windows.inject(package(models=models, more=more)))
    ids = {k.partition("DeviceIds\\PCI\\")[2]: v[1].hex() for k, v in new.items() if "DeviceIds\\PCI" in k}
    assert ids == {
        "VEN_9005&DEV_028F&SUBSYS_08009005:oem2.inf": "01ff0000",
        "VEN_9005&DEV_028F:oem2.inf": "01800000",
        "VEN_9005&CC_0104:oem2.inf": "02800000",
        "VEN_9005&DEV_0290:oem2.inf": "01ff0000",
    }
    described = {k.partition("Descriptors\\PCI\\")[2] for k in new if k.endswith(":Configuration")}
    assert described == {
        "VEN_9005&DEV_028F&SUBSYS_08009005:Configuration",
        "VEN_9005&DEV_028F:Configuration",
        "VEN_9005&CC_0104:Configuration",
    }
    assert not any("Services\\other" in key for key in new)


def test_before_windows_8_it_is_the_critical_device_database() -> None:
    windows = Installation(critical_hive())
    injection = windows.inject(two_services(), target=target_of("2008R2"), taken={0})
    new, gone = windows.take(injection)
    assert (injection.name, injection.published) == ("", "oem1.inf")
    for control_set in SETS:
        key = f"{control_set}\\Control\\CriticalDeviceDatabase\\PCI#VEN_9005&DEV_028F"
        assert new[f"{key}:Service"] == sz("ex_sata")
        assert new[f"{key}:ClassGUID"] == sz(DISK_CLASS.upper())
        assert new[f"{key}:UpperFilters"] == multi_sz("ex_xata")
        assert new[f"{control_set}\\Services\\ex_xata:Start"] == dword(0)
    assert not any("DriverDatabase" in k or "Owners" in k for k in new)
    assert gone == {}
    assert {f.path for f in injection.files} == {
        "INF\\oem1.inf",
        f"{CATALOGS}\\oem1.cat",
        "System32\\drivers\\ex_sata.sys",
        "System32\\drivers\\ex_xata.sys",
    }
    again = windows.inject(two_services(), target=target_of("2008R2"), taken={0, 1})
    assert (again.edits, again.files, again.published) == ((), (), "oem1.inf")


def test_two_packages_for_one_id() -> None:
    """Each has its own records; the second one takes nothing from the first."""
    windows = Installation()
    windows.take(windows.inject(package()))
    text = infs.package(version="01/02/2024,2.0.0.0").replace("exraid", "exnew")
    other = Package(
        "exnew.inf", {"exnew.inf": infs.encoded(text), "exnew.cat": b"c", "exnew.sys": driver(fill=b"new")}
    )
    injection = windows.inject(other)
    new, gone = windows.take(injection)
    assert injection.published == "oem3.inf"
    assert gone == {}
    assert {k for k in new if "DeviceIds\\PCI" in k} == {
        "DriverDatabase\\DeviceIds\\PCI\\VEN_9005&DEV_028F:oem3.inf"
    }
    tree = windows.tree()
    assert "DriverDatabase\\DeviceIds\\PCI\\VEN_9005&DEV_028F:oem2.inf" in tree
    assert tree["ControlSet001\\Services\\exraid:Start"] == dword(0)


def test_a_newer_package_of_the_same_driver() -> None:
    windows = Installation()
    windows.take(windows.inject(package()))
    newer = package(version="01/02/2024,2.0.0.0")
    newer = Package(newer.inf, {**newer.files, "exraid.sys": driver(fill=b"newer")})
    injection = windows.inject(newer)
    assert "System32\\drivers\\exraid.sys" in {f.path for f in injection.files}
    windows.take(injection)
    assert windows.tree()["ControlSet001\\Services\\exraid:Owners"] == multi_sz("oem3.inf", "oem2.inf")


def test_numbers_that_are_taken() -> None:
    injection = Installation().inject(package(), taken={2, 3, 5})
    assert injection.published == "oem4.inf"
    with pytest.raises(InjectError, match="no-number"):
        Installation().inject(package(), taken=range(10_000))


def test_needs_of_windows_own_infs() -> None:
    hardware = "[Card_Inst.HW]\nInclude=machine.inf\nNeeds=PciASPMOptOut, Special\n"
    windows = Installation()
    injection = windows.inject(package(more=hardware))
    assert any("[Special]" in n for n in injection.notes)
    machine = b"[Version]\n[Special]\nAddReg=X\n[X]\nHKR,,Turbo,0x00010001,5\n[PciASPMOptOut]\nAddReg=Y\n"
    machine += b'[Y]\nHKR,"e5b3b5ac-9725-4f78-963f-03dfb1d828c7",ASPMOptOut,0x00010001,1\n'
    windows = Installation(files={"INF\\machine.inf": machine})
    injection = windows.inject(package(more=hardware))
    new, _ = windows.take(injection)
    configuration = f"DriverDatabase\\DriverPackages\\{injection.name}\\Configurations\\Card_Inst"
    assert new[f"{configuration}\\Device:Turbo"] == dword(5)
    assert new[f"{configuration}\\Device\\e5b3b5ac-9725-4f78-963f-03dfb1d828c7:ASPMOptOut"] == dword(1)
    assert new[f"{configuration}:IncludedInfs"] == multi_sz("machine.inf")


def test_loaded_from_the_driver_store() -> None:
    text = infs.package().replace("%12%\\exraid.sys", "%13%\\exraid.sys")
    what = Package("exraid.inf", {**package().files, "exraid.inf": infs.encoded(text)})
    refused(what, "run-from-store")
    injection = Installation().inject(what, target=target_of("2019"))
    windows = Installation()
    new, _ = windows.take(injection)
    assert new["ControlSet001\\Services\\exraid:ImagePath"] == expand(
        f"{STORE}\\{injection.name}\\exraid.sys"
    )


def test_an_embedded_signature_makes_a_catalog_unnecessary() -> None:
    what = package({"exraid.sys": driver(signature=b"PKCS #7 " * 8)})
    injection = Installation().inject(what)
    assert not any("CatRoot" in f.path for f in injection.files)
    assert "exraid.cat" in refused(package({"exraid.sys": driver()}), "catalog-missing")


def test_the_signer_that_windows_trusts_is_named() -> None:
    name = "Microsoft Windows Hardware Compatibility Publisher"
    what = package({"exraid.sys": driver(), "exraid.cat": b"..." + name.encode() + b"..."})
    windows = Installation()
    injection = windows.inject(what, target=target_of("2022"))
    new, _ = windows.take(injection)
    folder = f"DriverDatabase\\DriverPackages\\{injection.name}"
    assert new[f"{folder}:SignerName"] == sz(name)
    assert new[f"{folder}:SignerScore"] == dword(0x0D000005)
    assert new[f"{folder}:Catalog"] == sz("exraid.cat")


# --- what is refused


def test_i386_driver_in_an_x64_package() -> None:
    assert "x86" in refused(package({"exraid.sys": driver("x86"), "exraid.cat": b"c"}), "wrong-architecture")


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"no program", "MZ"), (driver(subsystem=2), "subsystem is 2"), (driver()[:700], "cut off")],
)
def test_what_is_no_driver(data: bytes, reason: str) -> None:
    assert reason in refused(package({"exraid.sys": data, "exraid.cat": b"c"}), "not-a-driver")


def test_missing_files() -> None:
    assert "exraid.sys" in refused(package({"exraid.cat": b"c"}), "file-missing")
    assert "other.inf" in refused(Package("other.inf", package().files), "file-missing")
    no_copy = package(install="")
    assert "neither copied nor" in refused(no_copy, "file-missing")


def test_models_that_do_not_apply() -> None:
    reason = refused(package(decoration="NTamd64.10.0...15063"), "no-model")
    assert "for build 15063 and later, not for 14393" in reason
    reason = refused(package(), "no-model", ids=(r"PCI\VEN_1234&DEV_5678",))
    assert r"PCI\VEN_1234&DEV_5678" in reason
    refused(package(), "no-model", ids=())


def test_null_drivers_and_extensions() -> None:
    refused(package(service="[Card_Inst.Services]\nAddService=,2\n"), "null-driver")
    refused(package(service=""), "no-driver")
    extension = "Class = Extension\nExtensionId = {f6af7d7e-c7d4-4aff-8e5b-0b2d0a3d5a0c}\n"
    refused(package(extra_version=extension), "extension")


def test_services_that_cannot_start_a_server() -> None:
    assert "start type 3" in refused(
        package(service=infs.SERVICE.replace("%SERVICE_BOOT_START%", "3")), "not-boot"
    )
    refused(package(service=infs.SERVICE.replace("%SERVICE_KERNEL_DRIVER%", "0x10")), "not-a-driver")
    refused(package(service=infs.SERVICE.replace("exraid,", "ex\\raid,")), "bad-inf")


def test_ids_that_a_section_excludes() -> None:
    """Stored beside the configuration, as Windows does; for the card itself there is nothing to be installed."""
    other = r"PCI\VEN_9005&DEV_028F&SUBSYS_09009005"
    install = f"CopyFiles = @exraid.sys\nExcludeID = {other}"
    windows = Installation()
    injection = windows.inject(package(install=install))
    (edit,) = (e for e in injection.edits if isinstance(e, SetValue) and e.name == "ExcludeIds")
    assert edit.key[-2:] == ("Configurations", "Card_Inst")
    assert decode_strings(edit.data) == (other,)
    refused(package(install=install.replace("09009005", "08009005")), "no-model")


def test_another_drivers_file_and_service() -> None:
    users = {
        "ControlSet001\\Services\\theirs": {
            "ImagePath": expand("\\SystemRoot\\System32\\drivers\\EXRAID.SYS")
        }
    }
    windows = Installation(
        hives.make_hive(users, database_hive()), {"System32\\drivers\\exraid.sys": b"theirs"}
    )
    assert "THEIRS" in refused(package(), "foreign-file", windows).upper()
    text = infs.package().replace("exraid", "inbox")
    files = {"inbox.inf": infs.encoded(text), "inbox.cat": b"c", "inbox.sys": driver()}
    assert "Somebody Else" in refused(Package("inbox.inf", files), "foreign-file")
    text = infs.package().replace("exraid", "storport")
    files = {"storport.inf": infs.encoded(text), "storport.cat": b"c", "storport.sys": driver()}
    windows = Installation(files={"System32\\drivers\\storport.sys": b"Windows' own"})
    assert "part of Windows" in refused(Package("storport.inf", files), "foreign-file", windows)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("@exraid.sys", "@..\\..\\config\\SYSTEM"),
        ("@exraid.sys", "@C:\\Windows\\System32\\exraid.sys"),
        ("exraid.sys = 1", "exraid.sys = 1,..\\.."),
        ("exraid.sys = 1", 'exraid.sys = 1\n"..\\evil.sys" = 1'),
        ("exraid.sys = 1", 'exraid.sys = 1\n"C:evil.sys" = 1'),
        ("exraid.sys = 1", "exraid.sys = 1\nnul = 1"),
        ("exraid.sys = 1", "exraid.sys = 1\nrehost.tmp = 1"),
        ("CatalogFile = exraid.cat", "CatalogFile = ..\\exraid.cat"),
        ("DefaultDestDir = 12", "DefaultDestDir = 12,..\\config"),
    ],
)
def test_paths_that_lead_elsewhere(old: str, new: str) -> None:
    text = infs.package()
    assert old in text
    what = Package("exraid.inf", {**package().files, "exraid.inf": infs.encoded(text.replace(old, new))})
    refused(what, "unsafe-path")


def test_endless_and_broken_infs() -> None:
    many = "\n".join(rf"%Card.DeviceDesc% = Card_Inst, PCI\VEN_9005&DEV_028F&REV_{i}" for i in range(5001))
    refused(package(models=many), "too-large")
    lines = "\n".join(f"HKR, Parameters, V{i}, 0x00010001, 1" for i in range(20_001))
    service_ = infs.SERVICE.replace("[Card_Parameters]", "[Card_Parameters]\n" + lines)
    refused(package(service=service_), "bad-inf")
    refused(Package("exraid.inf", {"exraid.inf": b"\x00\x01"}), "bad-inf")
    deep = infs.SERVICE.replace('"Parameters",', '"' + "\\".join(["a"] * 40) + '",')
    refused(package(service=deep), "bad-inf")
    text = infs.package().replace("{4D36E97B-E325-11CE-BFC1-08002BE10318}", "SCSIAdapter")
    refused(Package("exraid.inf", {**package().files, "exraid.inf": infs.encoded(text)}), "bad-inf")


def test_hives_that_are_not_fit() -> None:
    refused(package(), "damaged-hive", Installation(hives.make_hive({"A": {}})))
    refused(package(), "damaged-hive", Installation(critical_hive()))
    arm = hives.make_hive({"DriverDatabase": {"Architecture": dword(12)}}, database_hive())
    refused(package(), "wrong-architecture", Installation(arm))


# --- reading a folder


def test_a_folder_is_read_without_following_links(tmp_path: Path) -> None:
    folder = tmp_path / "package"
    folder.mkdir()
    for name, data in package().files.items():
        (folder / name.upper()).write_bytes(data)
    (folder / "unlisted.exe").write_bytes(b"not wanted")
    found = read_package(folder, "exraid.inf")
    assert {n.lower() for n in found.files} == {"exraid.inf", "exraid.cat", "exraid.sys"}
    assert Installation().inject(found).name == Installation().inject(package()).name
    (folder / "EXRAID.SYS").unlink()
    (tmp_path / "outside.sys").write_bytes(driver())
    (folder / "EXRAID.SYS").symlink_to(tmp_path / "outside.sys")
    assert "exraid.sys" not in {n.lower() for n in read_package(folder, "exraid.inf").files}
    with pytest.raises(InjectError, match="file-missing"):
        read_package(folder, "absent.inf")


# --- hostile INFs

_WORDS = st.sampled_from(
    [
        *("..", "\\", "/", "C:", "exraid.sys", "@", "%12%", "%13%", "%-1%", "12", "13", "10", "11", "HKR"),
        *("HKLM", ",", '"', "config\\SYSTEM", "con", "\x01", "a" * 300, "0x00010008", "0x10", "AddReg"),
        *("\n", "=", "Card_Inst", "%Vendor%"),
    ]
)
_TARGETS = [
    "@exraid.sys",
    "exraid.sys = 1",
    "1 = %Disk%,,,",
    "DefaultDestDir = 12",
    "CatalogFile = exraid.cat",
    "%12%\\exraid.sys",
    r"PCI\VEN_9005&DEV_028F",
    'HKR, "Parameters", "BusType"',
    "AddService = exraid,",
    "{4D36E97B-E325-11CE-BFC1-08002BE10318}",
]


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(_TARGETS), st.lists(_WORDS, max_size=5)), min_size=1, max_size=3))
def test_hostile_infs_end_in_a_refusal_or_stay_in_the_windows_folder(
    changes: list[tuple[str, list[str]]],
) -> None:
    text = infs.package()
    for old, words in changes:
        text = text.replace(old, "".join(words))
    what = Package("exraid.inf", {**package().files, "exraid.inf": infs.encoded(text)})
    windows = Installation()
    try:
        injection = windows.inject(what)
    except InjectError:
        return
    for file in injection.files:
        assert safe_name(file.path) is None
        folder = file.path.rpartition("\\")[0].lower()
        assert folder.startswith(
            (f"{STORE}\\{injection.name}".lower(), CATALOGS.lower(), "inf", "system32\\drivers")
        )
    windows.take(injection)  # hivex writes it, and our reader has compared
    assert windows.inject(what).edits == ()
