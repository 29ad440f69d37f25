"""Real INFs: all are read, and what they come to is what Windows itself has stored in a real hive."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

import pytest

from rehost_payload.formats.hive import Hive, Key
from rehost_payload.formats.inf import Inf, parse_inf
from rehost_payload.formats.inf_install import RegistryEntry
from rehost_payload.formats.inf_target import WORKSTATION, target_of
from support.corpus import corpus, read

FOLDER = corpus("inf")
FILES = sorted(FOLDER.rglob("*.inf"))
IN_BOX = sorted((FOLDER / "inbox-win81").glob("*.inf"))
WIN81 = target_of("9600", WORKSTATION)


def load(path: str) -> Inf:
    return parse_inf((FOLDER / path).read_bytes())


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
@pytest.mark.parametrize("target", ["7601", "9600", "14393", "26100"])
def test_every_inf_is_read(path: Path, target: str) -> None:
    inf = parse_inf(path.read_bytes())
    for model in inf.models(target_of(target)):
        install = inf.install(model.install_section)
        assert install.present
        assert install.services or install.null_driver or inf.version.extension
        for service in install.services:
            assert service.start is not None
            assert service.type is not None


# what a human reads in the files: models for Server 2016, services and start types of the first model's section
EXPECTED = {
    "adaptec-arcsas/arcsas.inf": (69, {"arcsas": 0}),
    "amd-sata/amd_sata.inf": (4, {"amd_sata": 0, "amd_xata": 0}),
    "intel-rst-16/iaStorAC.inf": (
        11,
        {"iaStorAC": 0, "iaStorAfs": 0, "iaStorAfsService": 2, "RstMwService": 2, "HfcDisableService": 2},
    ),
    "inbox-win81/arcsas.inf": (86, {"arcsas": 0}),
    "inbox-win81/adp80xx.inf": (10, {"ADP80XX": 0}),
    "inbox-win81/amdsata.inf": (2, {"amdsata": 0, "amdxata": 0}),
    "inbox-win81/amdsbs.inf": (5, {"amdsbs": 0}),
    "inbox-win81/3ware.inf": (1, {"3ware": 0}),
    "odd/MegaSR1.inf": (503, {"megasr1": 0}),
    "odd/ahcix64.inf": (4, {"ahcix64": 0}),
    "odd/ahcix64s.inf": (4, {"ahcix64s": 0}),
    "odd/7x64-ahcix64s.inf": (4, {"ahcix64s": 0}),
    "odd/aec67162.inf": (1, {"aec67162": 0}),
    "odd/iaStorSwExt.inf": (10, {}),  # an extension
    "odd/iaStorVD.inf": (0, {}),  # NTamd64.10.0...19041
    "odd/AAATIMEO.inf": (0, {}),  # undecorated
    "odd/asahxp_PRE.inf": (0, {}),  # no [Manufacturer]
    "odd/hpcissx2.inf": (0, {}),  # x86 only
    "odd/lsipseud.inf": (0, {}),  # ia64 only
}


@pytest.mark.parametrize("path", EXPECTED)
def test_on_server_2016(path: str) -> None:
    inf = load(path)
    models = list(inf.models(target_of("14393")))
    services = inf.install(models[0].install_section).services if models else ()
    assert (len(models), {s.name: s.start for s in services}) == EXPECTED[path]
    for service in services:
        if service.boot:
            assert service.image_path is not None
            assert service.image_path.lower().startswith("system32\\drivers\\")


def test_every_inf_has_an_expectation() -> None:
    assert {str(p.relative_to(FOLDER)) for p in FILES} == set(EXPECTED)


def test_a_build_number_decides() -> None:
    inf = load("odd/iaStorVD.inf")
    (choice,) = inf.choices(target_of("14393"))
    assert choice.refused[0][1] == "for build 19041 and later, not for 14393"
    assert len(list(inf.models(target_of("20348")))) == 4


def test_odd_ones() -> None:
    assert load("odd/iaStorSwExt.inf").version.extension
    assert load("odd/MegaSR1.inf").version.catalog() == "MegaSR1.cat"
    assert load("odd/lsipseud.inf").install("NODRV").null_driver
    assert load("odd/iaStorVD.inf").install("VMD_dummy_function_inst").null_driver
    assert load("amd-sata/amd_sata.inf").install("amd_sata_inst").filters == {"UpperFilters": ("amd_xata",)}
    assert load("intel-rst-16/iaStorAC.inf").install("iaStorAC_inst_8").feature_score == 0x80
    (file,) = load("odd/aec67162.inf").install("AEC67162_Inst").files
    assert file.source == "x64\\aec67162.sys"


@pytest.fixture(scope="module")
def database() -> Key:
    hive = Hive.parse(read(corpus("hives") / "win81-x64.SYSTEM.xz"))
    key = hive.find("DriverDatabase")
    assert key is not None
    return key


def child(key: Key, *path: str) -> Key:
    for name in path:
        found = key.subkey(name)
        assert found is not None, name
        key = found
    return key


def package_key(database: Key, name: str) -> Key:
    packages = child(database, "DriverPackages")
    (key,) = (k for k in packages.subkeys() if k.name.lower().startswith(f"{name}_amd64_"))
    return key


def pci(inf: Inf) -> list[tuple[str, int, str]]:
    """(ID below PCI\\, index on its line, install section) for every PCI ID, as Windows names the section."""
    return [
        (device_id[4:], index, inf.install(model.install_section).section)
        for model in inf.models(WIN81)
        for index, device_id in enumerate(model.ids)
        if device_id.upper().startswith("PCI\\")
    ]


def test_descriptors_and_device_ids_as_windows_stored_them(database: Key) -> None:
    """103 Descriptors and 103 values of DeviceIds, of the five in-box INFs that are at hand."""
    stored: dict[tuple[str, str], tuple[str, str, str]] = {}
    ours: dict[tuple[str, str], tuple[str, str, str]] = {}
    matches = 0
    for path in IN_BOX:
        inf, name = parse_inf(path.read_bytes()), path.name.lower()
        texts = {m.hardware_id[4:].lower(): m for m in inf.models(WIN81)}
        for device_id, index, section in pci(inf):
            model = texts[device_id.lower()]
            ours[name, device_id.lower()] = (
                section,
                model.raw_manufacturer.lower(),
                model.raw_description.lower(),
            )
            value = child(database, "DeviceIds", "PCI", device_id).value(name)
            assert value is not None
            kind, score, position = struct.unpack("<BBH", value.data)
            assert (kind, position) == ((1, 0) if index == 0 else (2, index - 1))
            assert score == inf.install(model.install_section).feature_score
            matches += 1
        for key in child(package_key(database, name), "Descriptors", "PCI").subkeys():
            values = {v.name: v.as_string() for v in key.values()}
            stored[name, key.name.lower()] = (
                values["Configuration"],
                values["Manufacturer"].lower(),
                values["Description"].lower(),
            )
    assert ours == stored
    assert matches == len(stored) == 103


def below(key: Key | None, path: str = "") -> dict[tuple[str, str], tuple[int, bytes]]:
    """Every value below a key by path and name, both in lower case."""
    if key is None:
        return {}
    result = {(path, v.name.lower()): (v.type, v.data) for v in key.values()}
    for sub in key.subkeys():
        result |= below(sub, f"{path}\\{sub.name.lower()}".lstrip("\\"))
    return result


def as_stored(entries: Iterable[RegistryEntry], prefix: str = "") -> dict[tuple[str, str], tuple[int, bytes]]:
    def data(entry: RegistryEntry) -> bytes:
        if isinstance(entry.data, int):
            return struct.pack("<I", entry.data)
        if isinstance(entry.data, tuple):
            return ("\0".join(entry.data) + "\0\0").encode("utf-16-le")
        assert isinstance(entry.data, str)
        return (entry.data + "\0").encode("utf-16-le")

    return {
        (f"{prefix}{e.key.lower()}", e.name.lower()): (e.type, data(e)) for e in entries if not e.key_only
    }


def test_configurations_as_windows_stored_them(database: Key) -> None:
    """Service, parameters and device settings of every install section of the five INFs, value by value."""
    hive = Hive.parse(read(corpus("hives") / "win81-x64.SYSTEM.xz"))
    seen = []
    for path in IN_BOX:
        inf = parse_inf(path.read_bytes())
        stored = {
            k.name: k for k in child(package_key(database, path.name.lower()), "Configurations").subkeys()
        }
        bases = dict.fromkeys(m.install_section for m in inf.models(WIN81) if m.ids[0].startswith("PCI"))
        for install in map(inf.install, bases):
            driver = install.function_driver
            assert driver is not None
            key = stored[install.section]
            name = key.value("Service")
            assert name is not None
            assert name.as_string() == driver.name
            service = hive.find("ControlSet001", "Services", driver.name)
            assert service is not None
            start, image = service.value("Start"), service.value("ImagePath")
            assert start is not None
            assert image is not None
            assert start.as_int() == driver.start == 0
            assert image.as_string().lower() == (driver.image_path or "").lower()
            # filters stand in the configuration itself, all else below Device
            filters = [e for e in install.hardware if e.name == "UpperFilters"]
            settings = [e for e in install.hardware if e not in filters]
            assert below(key.subkey("Device")) == as_stored(settings)
            upper = key.value("UpperFilters")
            assert ({} if upper is None else {("", "upperfilters"): (upper.type, upper.data)}) == as_stored(
                filters
            )
            parameters = {
                k: v
                for s in install.services
                for k, v in as_stored(s.registry, f"{s.name.lower()}\\").items()
                if not k[0].endswith("\\")  # the service key's own values, such as Tag, are not among them
            }
            assert below(key.subkey("Services")) == parameters
            seen.append(install.section)
    assert seen == [
        "Install.NT",
        "DriverInstall",
        "amdsata_inst",
        "Napa_Inst",
        "arcsas_Inst.NT",
        "arcsas_MSIX.NT",
    ]
