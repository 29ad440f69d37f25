"""What an INF means: version, models per target, services, registry, files."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.inf import Inf, parse_inf
from rehost_payload.formats.inf_install import (
    MAX_ENTRIES,
    REG_BINARY,
    REG_DWORD,
    REG_EXPAND_SZ,
    REG_MULTI_SZ,
    REG_NONE,
    REG_QWORD,
    REG_SZ,
    Install,
    RegistryEntry,
    image_path,
    unsafe_path,
)
from rehost_payload.formats.inf_target import target_of
from support.infs import encoded, package

T2012R2, T2016, T2019 = (target_of(b) for b in ("9600", "14393", "17763"))


def read(text: str) -> Inf:
    return parse_inf(encoded(text))


def install(more: str = "", section: str = "Card_Inst", **parts: str) -> Install:
    return read(package(more=more, **parts)).install(section)


def registry(*lines: str) -> list[RegistryEntry]:
    body = "\n".join(lines)
    return list(install(f"[R]\n{body}", install="AddReg = R").registry)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "cp1252"])
def test_version(encoding: str) -> None:
    inf = parse_inf(encoded(package(), encoding))
    v = inf.version
    assert (v.provider, v.class_name) == ("Example Storage, Inc.", "SCSIAdapter")
    assert v.class_guid == "{4d36e97b-e325-11ce-bfc1-08002be10318}"
    assert (v.driver.date, v.driver.version) == (date(2020, 1, 2), (1, 2, 3, 4))
    assert v.driver.text == "1.2.3.4 of 2020-01-02"
    assert v.catalog() == "exraid.cat"
    assert not v.extension
    assert not v.pnp_lockdown
    assert inf.notes == ()


@pytest.mark.parametrize(
    ("written", "day", "version"),
    [
        ("09/22/2008, 3.100.0.1", date(2008, 9, 22), (3, 100, 0, 1)),
        (" 1/2/2013 ,1.3.001.0068", date(2013, 1, 2), (1, 3, 1, 68)),
        ("06/03/2008,6.5.0", date(2008, 6, 3), (6, 5, 0, 0)),
        ("06/03/2008", date(2008, 6, 3), None),
        ("22/09/2008,1.0", None, (1, 0, 0, 0)),
        ("yesterday,1.0", None, (1, 0, 0, 0)),
        ("01/01/2020,1.0.0.65536", date(2020, 1, 1), None),
        ("01/01/2020,1.0-beta", date(2020, 1, 1), None),
    ],
)
def test_driver_versions(written: str, day: date | None, version: tuple[int, ...] | None) -> None:
    inf = read(package(version=written))
    assert (inf.version.driver.date, inf.version.driver.version) == (day, version)
    complete = day is not None and (version is not None or "," not in written)
    assert any("DriverVer" in note for note in inf.notes) is not complete


def test_the_install_section_may_have_a_version_of_its_own() -> None:
    inf = read(package(install="DriverVer = 03/04/2021,9.8.7.6"))
    assert inf.driver_version("Card_Inst").version == (9, 8, 7, 6)
    assert read(package()).driver_version("Card_Inst").version == (1, 2, 3, 4)


def test_catalogs_by_architecture() -> None:
    version = read(
        package(extra_version="CatalogFile.NTamd64 = x64.cat\nCatalogFile.NTx86 = x86.cat")
    ).version
    assert version.catalog("amd64") == "x64.cat"
    assert version.catalog("x86") == "x86.cat"
    assert version.catalog("arm64") == "exraid.cat"


def test_a_catalog_elsewhere_is_noted() -> None:
    inf = read(package(extra_version=r"CatalogFile.NTamd64 = ..\x64.cat"))
    assert "is no plain file name" in inf.notes[0]


def test_extensions_and_lockdown() -> None:
    version = read(package(extra_version="ExtensionId = {0A}\nPnpLockdown=1")).version
    assert version.extension
    assert version.extension_id == "{0a}"
    assert version.pnp_lockdown


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "no section"),
        (b"[Strings]\na=b", "no section"),
        (b"[Version]\nClass=x", "Signature"),
        (b'[Version]\nSignature="$Linux$"', "Signature"),
    ],
)
def test_what_is_no_inf(data: bytes, problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        parse_inf(data)


# --- models ------------------------------------------------------------------------------------------------


def test_models() -> None:
    models = "\n".join(
        [
            r"%Card.DeviceDesc% = Card_Inst, PCI\VEN_9005&DEV_028F&SUBSYS_08009005, PCI\VEN_9005&DEV_028F",
            r'"Plain" = Card_Inst,, PCI\CC_0104',
            r"%Card.DeviceDesc% = Card_Inst",
            r"Card_Inst, PCI\VEN_9005&DEV_028F",  # no description: no model
        ]
    )
    inf = read(package(models=models))
    first, second, third = inf.models(T2016)
    assert first.description == "Example RAID 8000; 8 ports"
    assert first.raw_description == "%Card.DeviceDesc%"
    assert (first.manufacturer, first.raw_manufacturer) == ("Example Storage, Inc.", "%Vendor%")
    assert first.ids == (r"PCI\VEN_9005&DEV_028F&SUBSYS_08009005", r"PCI\VEN_9005&DEV_028F")
    assert (second.description, second.hardware_id, second.ids) == ("Plain", "", (r"PCI\CC_0104",))
    assert third.ids == ()


def several(*decorations: str) -> Inf:
    text = package().replace("= Models,NTamd64", "= Models," + ",".join(decorations))
    sections = "\n".join(
        f"[Models.{d}]\n%Card.DeviceDesc% = Card_Inst, PCI\\VEN_9005&DEV_028F"
        for d in decorations
        if d != "NTamd64"
    )
    return read(text + "\n" + sections)


@pytest.mark.parametrize(
    ("decorations", "chosen"),
    [
        (("NTamd64",), ["Models.NTamd64"] * 3),
        (("NTamd64", "NTamd64.6.1"), ["Models.NTamd64.6.1"] * 3),
        (("NTx86", "NTamd64.10.0"), [None, "Models.NTamd64.10.0", "Models.NTamd64.10.0"]),
        (("NTamd64.10.0...15063",), [None, None, "Models.NTamd64.10.0...15063"]),
        (
            ("NTamd64.6.3", "NTamd64.10.0...15063"),
            ["Models.NTamd64.6.3", "Models.NTamd64.6.3", "Models.NTamd64.10.0...15063"],
        ),
        (("NTx86",), [None] * 3),
        (("NTia64.wrong",), [None] * 3),
    ],
)
def test_one_section_per_target(decorations: tuple[str, ...], chosen: list[str | None]) -> None:
    inf = several(*decorations)
    found = [inf.choices(t)[0].chosen for t in (T2012R2, T2016, T2019)]
    assert [c and c.name for c in found] == chosen


def test_every_refused_section_has_a_reason() -> None:
    (choice,) = several("NTamd64.10.0...15063", "NTx86", "NTamd64.6.1", "NTamd64.6.2").choices(T2016)
    assert choice.chosen is not None
    assert choice.chosen.name == "Models.NTamd64.6.2"
    reasons = {section.name: why for section, why in choice.refused}
    assert reasons["Models.NTamd64.10.0...15063"] == "for build 15063 and later, not for 14393"
    assert reasons["Models.NTx86"] == "for x86, not for amd64"
    assert reasons["Models.NTamd64.6.1"] == "another section is closer"


def test_lines_of_manufacturer_count_each_for_itself() -> None:
    text = package().replace("[Models.NTamd64]", "%Other% = More, NTamd64\nPlainName\n[Models.NTamd64]")
    inf = read(
        text
        + "\n[More.NTamd64]\nx = Card_Inst, PCI\\VEN_1000&DEV_0001\n[PlainName]\ny = Card_Inst, ROOT\\Y\n"
    )
    assert [m.description for m in inf.models(T2016)] == ["Example RAID 8000; 8 ports", "x"]
    assert [c.manufacturer for c in inf.choices(T2016)] == ["Example Storage, Inc.", "%Other%", "PlainName"]


def test_a_section_that_is_named_but_missing_is_noted() -> None:
    inf = several("NTamd64", "NTamd64.6.1")
    text = package().replace("= Models,NTamd64", "= Models,NTamd64,NTamd64.6.1")
    missing = read(text)
    assert inf.notes == ()
    assert "there is no section [Models.ntamd64.6.1]" in missing.notes[0]
    assert list(missing.models(T2016)) == []


def test_no_manufacturer() -> None:
    inf = parse_inf(b'[Version]\nSignature="$Chicago$"\n')
    assert list(inf.models(T2016)) == []
    assert any("installs no device" in note for note in inf.notes)


# --- install sections --------------------------------------------------------------------------------------


def test_service() -> None:
    found = install()
    (service,) = found.services
    assert found.function_driver is service
    assert (service.name, service.type, service.start, service.error_control) == ("exraid", 1, 0, 1)
    assert (service.group, service.binary) == ("SCSI Miniport", r"%12%\exraid.sys")
    assert service.image_path == r"System32\drivers\exraid.sys"
    assert service.boot
    assert service.display_name == "Example RAID 8000; 8 ports"
    assert service.registry == (
        RegistryEntry("HKR", r"Parameters\PnpInterface", "5", REG_DWORD, 1, 0x10001),
        RegistryEntry("HKR", "Parameters", "BusType", REG_DWORD, 8, 0x10001),
    )
    assert service.event_log[0].data == r"%SystemRoot%\System32\IoLogMsg.dll"
    assert service.event_log[0].type == REG_EXPAND_SZ
    assert service.start_override == {}
    assert not found.null_driver
    assert found.notes == ()


@pytest.mark.parametrize(
    ("present", "picked", "service"),
    [
        (["Card_Inst", "Card_Inst.NT", "Card_Inst.NTamd64"], "Card_Inst.NTamd64", ["s2"]),
        (["Card_Inst", "CARD_INST.nt"], "Card_Inst.nt", ["s1"]),
        (["Card_Inst"], "Card_Inst", ["s0"]),
        (["Other"], "Card_Inst", []),
    ],
)
def test_decorated_install_sections(present: list[str], picked: str, service: list[str]) -> None:
    text = package(service="").replace("[Card_Inst]\nCopyFiles = @exraid.sys", "")
    for i, name in enumerate(present):
        text += f"\n[{name}]\n[{name}.Services]\nAddService = s{i}, 2, X\n"
    found = read(text).install("Card_Inst")
    assert found.section == picked
    assert found.present is bool(service)
    assert [s.name for s in found.services] == service


def test_several_services_and_a_device_filter() -> None:
    more = r"""
[Card_Inst.Services]
AddService = exfilter,, Filter_Service
AddService = exhelper, 0x000000F0 , Helper_Service
[Filter_Service]
ServiceType = 1
StartType = 0x0
ServiceBinary = %12%\exfilter.sys
[Helper_Service]
ServiceType = 0x10
StartType = 0x02   ; SERVICE_AUTO_START
ServiceBinary = %13%\exhelper.exe
[Card_Inst.HW]
AddReg = Card_HW
[Card_HW]
HKR,,"UpperFilters",0x00010000,"exfilter"
"""
    found = install(more)
    assert [(s.name, s.function_driver, s.start) for s in found.services] == [
        ("exraid", True, 0),
        ("exfilter", False, 0),
        ("exhelper", False, 2),
    ]
    assert found.services[2].image_path is None
    assert found.function_driver is not None
    assert found.function_driver.name == "exraid"
    assert found.filters == {"UpperFilters": ("exfilter",)}


@pytest.mark.parametrize(
    "service",
    [
        "[Card_Inst.Services]\nAddService = , %SPSVCINST_ASSOCSERVICE%   ; null service install",
        "[Card_Inst.Services]\nInclude = machine.inf\nNeeds = NO_DRV.Services",
    ],
)
def test_null_drivers(service: str) -> None:
    found = install(service=service)
    assert found.null_driver
    assert found.function_driver is None
    assert found.unresolved == ()


def test_a_package_without_services_is_no_null_driver() -> None:
    assert not install(service="").null_driver


def test_start_override_in_the_inf() -> None:
    more = "[Card_Parameters]\nHKR, StartOverride, 0, 0x00010001, 3"
    (service,) = install(more).services
    assert service.start_override == {"0": 3}


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        ("HKR,,A,,text", RegistryEntry("HKR", "", "A", REG_SZ, "text")),
        ("hklm,K,A,0x00020000,%%X%%", RegistryEntry("HKLM", "K", "A", REG_EXPAND_SZ, "%X%", 0x20000)),
        ("HKR,K,A,0x10000,a,b", RegistryEntry("HKR", "K", "A", REG_MULTI_SZ, ("a", "b"), 0x10000)),
        ("HKR,K,A,0x10008,a", RegistryEntry("HKR", "K", "A", REG_MULTI_SZ, ("a",), 0x10008)),
        ("HKR,K,A,0x10001,0x41", RegistryEntry("HKR", "K", "A", REG_DWORD, 0x41, 0x10001)),
        ("HKR,K,A,65537,00000008", RegistryEntry("HKR", "K", "A", REG_DWORD, 8, 65537)),
        ("HKR,K,A,0x10001,-1", RegistryEntry("HKR", "K", "A", REG_DWORD, 0xFFFFFFFF, 0x10001)),
        ("HKR,K,A,0x10001,01,02,00,00", RegistryEntry("HKR", "K", "A", REG_DWORD, 0x201, 0x10001)),
        ("HKR,K,A,0x10003,20", RegistryEntry("HKR", "K", "A", REG_DWORD, 20, 0x10003)),
        ("HKR,K,A,0xB0001,1", RegistryEntry("HKR", "K", "A", REG_QWORD, 1, 0xB0001)),
        ("HKR,K,A,1,0xde,AD,1", RegistryEntry("HKR", "K", "A", REG_BINARY, b"\xde\xad\x01", 1)),
        ("HKR,K,A,0x20001", RegistryEntry("HKR", "K", "A", REG_NONE, b"", 0x20001)),
        ("HKR,K,A,0x50001,1,2", RegistryEntry("HKR", "K", "A", 5, b"\1\2", 0x50001)),
        ("HKR,K,,0x10", RegistryEntry("HKR", "K", "", REG_SZ, "", 0x10, key_only=True)),
        ("HKR,K,A,4", RegistryEntry("HKR", "K", "A", REG_SZ, "", 4, delete=True)),
        # the third field is the name of the value, whatever its author meant
        ("HKR,K,0x00000010", RegistryEntry("HKR", "K", "0x00000010", REG_SZ, "")),
        ("HKR", RegistryEntry("HKR", "", "", REG_SZ, "")),
    ],
)
def test_registry_entries(line: str, entry: RegistryEntry) -> None:
    assert registry(line) == [entry]


def test_delreg() -> None:
    (entry,) = install("[R]\nHKR,K,A", install="DelReg = R").registry
    assert entry.delete


def test_files() -> None:
    text = package(
        install="CopyFiles = @exraid.sys\nCopyFiles = Tools, Missing",
        more="[Tools]\ntarget.dll,source.dll,,0x10\nplain.exe\n",
    )
    text = text.replace("[DestinationDirs]", "[DestinationDirs]\nTools = 10,Sub\\Folder")
    text = text.replace(
        "[SourceDisksFiles]", "[SourceDisksFiles.amd64]\nsource.dll = 1,\\bin\n[SourceDisksFiles]"
    )
    text = text.replace("1 = %Disk%,,,", "1 = %Disk%,,,\\x64")
    found = read(text).install("Card_Inst")
    assert [(f.name, f.source, f.listed, f.dirid, f.directory, f.problem) for f in found.files] == [
        ("exraid.sys", r"x64\exraid.sys", True, 12, r"System32\drivers", None),
        ("target.dll", r"x64\bin\source.dll", True, 10, r"Sub\Folder", None),
        ("plain.exe", "plain.exe", False, 10, r"Sub\Folder", None),
    ]
    assert found.files[1].flags == 0x10
    assert "there is no section [Missing]" in found.notes[0]


@pytest.mark.parametrize(
    ("copy", "place", "problem"),
    [
        (r"@..\evil.sys", "", "leads out of its folder"),
        ("@C:evil.sys", "", "is absolute"),
        ("@sub\\evil.sys", "", "no plain file name"),
        ("@exraid.sys", r"DefaultDestDir = 12,..\..", "leads out of its folder"),
        ("@exraid.sys", r"DefaultDestDir = 12,C:\Users", "is absolute"),
    ],
)
def test_hostile_paths_are_marked(copy: str, place: str, problem: str) -> None:
    text = package(install=f"CopyFiles = {copy}")
    if place:
        text = text.replace("DefaultDestDir = 12", place)
    (file,) = read(text).install("Card_Inst").files
    assert problem in (file.problem or "")


@pytest.mark.parametrize(
    ("disk", "folder", "source"),
    [
        ("", "", "exraid.sys"),
        (".", "", "exraid.sys"),
        (r"\.", r".\x64", r"x64\exraid.sys"),
        ("x64/a", "", r"x64\a\exraid.sys"),
        (r"\x64", "a/./b/", r"x64\a\b\exraid.sys"),
    ],
)
def test_folders_of_a_source(disk: str, folder: str, source: str) -> None:
    text = package().replace("1 = %Disk%,,,", f'1 = %Disk%,,,"{disk}"')
    text = text.replace("exraid.sys = 1", f'exraid.sys = 1,"{folder}"')
    (file,) = read(text).install("Card_Inst").files
    assert (file.source, file.problem) == (source, None)


@pytest.mark.parametrize("folder", [r"..\..", "../..", r"a\..\..", "C:", r"x\C:\y"])
def test_a_folder_outside_of_the_package_is_marked(folder: str) -> None:
    for text in (
        package().replace("exraid.sys = 1", f'exraid.sys = 1,"{folder}"'),
        package().replace("1 = %Disk%,,,", f'1 = %Disk%,,,"{folder}"'),
    ):
        (file,) = read(text).install("Card_Inst").files
        assert "the source" in (file.problem or "")


def test_ids_that_a_section_excludes() -> None:
    card = r"PCI\VEN_9005&DEV_028F&SUBSYS_08009005"
    install = read(
        package(install=f"CopyFiles = @exraid.sys\nExcludeID = {card}, PCI\\X\nExcludeID = PCI\\Y")
    )
    found = install.install("Card_Inst")
    assert found.exclude_ids == (card, "PCI\\X", "PCI\\Y")
    assert found.excludes(["PCI\\A", card.lower()]) == card.lower()
    assert found.excludes(["PCI\\A"]) is None


@pytest.mark.parametrize(
    ("name", "guid"),
    [
        ("SCSIAdapter", "{4d36e97b-e325-11ce-bfc1-08002be10318}"),
        ("HDC", "{4d36e96a-e325-11ce-bfc1-08002be10318}"),
        ("Net", ""),
    ],
)
def test_a_class_without_guid(name: str, guid: str) -> None:
    text = package().replace("ClassGuid   = {4D36E97B-E325-11CE-BFC1-08002BE10318}\n", "")
    assert read(text.replace("= SCSIAdapter", f"= {name}")).version.class_guid == guid


def test_a_source_outside_of_the_package_is_marked() -> None:
    text = package().replace("exraid.sys = 1", r"exraid.sys = 1,..\..")
    (file,) = read(text).install("Card_Inst").files
    assert "the source" in (file.problem or "")


@pytest.mark.parametrize(
    ("binary", "path"),
    [
        (r"%12%\x.sys", r"System32\drivers\x.sys"),
        (r"%10%\System32\Drivers\x.sys", r"System32\Drivers\x.sys"),
        (r"%11%\x.exe", r"System32\x.exe"),
        (r"%13%\x.exe", None),
        (r"%12%\..\x.sys", None),
        (r"%12%", None),
        (r"C:\x.sys", None),
        (r"%99999999999999%\x", None),
        ("", None),
    ],
)
def test_image_paths(binary: str, path: str | None) -> None:
    assert image_path(binary) == path


@pytest.mark.parametrize(
    "path", ["..", r"a\..\b", "a/../b", r"\a", "/a", "C:a", "a:stream", r"a\.. \b", "a\x01"]
)
def test_unsafe_paths(path: str) -> None:
    assert unsafe_path(path) is not None


@pytest.mark.parametrize("path", ["", "a.sys", r"x64\a.sys", "a..b", ".hidden"])
def test_safe_paths(path: str) -> None:
    assert unsafe_path(path) is None


@pytest.mark.parametrize(
    ("text", "score"), [("0x80", 0x80), ("FE", 0xFE), ("0", 0), ("100", 0xFF), ("x", 0xFF)]
)
def test_feature_scores(text: str, score: int) -> None:
    found = install(install=f"FeatureScore = {text}")
    assert found.feature_score == score
    assert bool(found.notes) is (text in ("100", "x"))


# --- Include and Needs -------------------------------------------------------------------------------------


def test_needs_in_the_same_inf_even_in_circles() -> None:
    more = "[A]\nNeeds = B\nCopyFiles = @a.sys\n[B]\nNeeds = A, Card_Inst\nCopyFiles = @b.sys"
    found = install(more, install="Needs = A")
    assert [f.name for f in found.files] == ["a.sys", "b.sys"]
    assert found.needs == ("A", "B", "Card_Inst")
    assert found.unresolved == ()


def test_needs_of_machine_inf() -> None:
    found = install(
        "[Card_Inst.HW]\nInclude = machine.inf\nNeeds = PciASPMOptOut, PciIoSpaceNotRequired, Other"
    )
    key = "e5b3b5ac-9725-4f78-963f-03dfb1d828c7"
    assert [(e.key, e.name, e.data) for e in found.hardware] == [
        (key, "ASPMOptOut", 1),
        (key, "IoNotRequired", 1),
    ]
    assert found.includes == ("machine.inf",)
    assert found.unresolved == ("Other",)


def test_needs_of_an_inf_that_is_at_hand() -> None:
    other = parse_inf(
        encoded('[Version]\nSignature="$Windows NT$"\n[Shared]\nAddReg=R\n[R]\nHKR,,X,0x10001,5')
    )
    inf = read(package(more="[Card_Inst.HW]\nInclude = Machine.inf\nNeeds = Shared"))
    assert inf.install("Card_Inst").unresolved == ("Shared",)
    found = inf.install("Card_Inst", others={"machine.inf": other.text})
    assert found.unresolved == ()
    assert [(e.name, e.data) for e in found.hardware] == [("X", 5)]


# --- hostile -----------------------------------------------------------------------------------------------


def test_endless_lists_are_refused() -> None:
    many = "[R]\n" + "HKR,,X\n" * 2000
    with pytest.raises(FormatError, match=f"more than {MAX_ENTRIES} entries"):
        install(many, install="AddReg = " + ",".join(["R"] * 2000))
    models = "\n".join(r"x = Card_Inst, PCI\VEN_9005&DEV_028F" for _ in range(2000))
    text = package(models=models).replace(
        "[Models.NTamd64]", "".join(f"m{i} = Models,NTamd64\n" for i in range(100)) + "[Models.NTamd64]"
    )
    with pytest.raises(FormatError, match="more than 100000 models"):
        read(text)


LINES = st.sampled_from(
    [
        *package().splitlines(),
        "[Card_Inst.NT]",
        "Needs = Card_Inst",
        "Include = x.inf",
        "AddService = ,2",
        "AddReg = Card_Log_Reg",
        "CopyFiles = @..\\x",
        "[Card_Inst.HW]",
        "[Manufacturer]",
        "a = Models, NTamd64.10.0...15063",
        "a = ,",
        "HKR,,x,0xFFFFFFFF,1",
    ]
)


@settings(max_examples=80, deadline=None)
@given(st.lists(LINES, min_size=5, max_size=80))
def test_shuffled_infs_are_read_or_refused(shuffled: list[str]) -> None:
    text = '[Version]\nSignature="$Windows NT$"\n' + "\n".join(shuffled)
    try:
        inf = read(text)
        for target in (T2012R2, T2016):
            for model in inf.models(target):
                inf.install(model.install_section)
        inf.install("Card_Inst")
    except FormatError:
        pass


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_infs_are_read_or_refused(data: st.DataObject) -> None:
    original = bytearray(encoded(package(), "cp1252"))
    for _ in range(data.draw(st.integers(1, 8))):
        original[data.draw(st.integers(0, len(original) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(original)))
    try:
        inf = parse_inf(bytes(original[:cut]))
        for model in inf.models(T2016):
            inf.install(model.install_section)
    except FormatError:
        pass
