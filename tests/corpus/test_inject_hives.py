"""Packages injected into real SYSTEM hives; hivex, hivexregedit and regipy say what is in them afterwards."""

from __future__ import annotations

import io
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from regipy.exceptions import RegistryKeyNotFoundException
from regipy.registry import RegistryHive

from rehost_payload.drivers.inject import inject
from rehost_payload.drivers.inject_model import Injection, Package
from rehost_payload.formats.hive import DeleteKey, Hive, SetValue
from rehost_payload.formats.inf import parse_inf
from rehost_payload.formats.inf_install import source_files
from rehost_payload.formats.inf_target import Target
from rehost_payload.system.hivex_edit import edit_hive
from support import hives
from support.corpus import corpus
from support.driver_packages import IDS, driver, package, two_services
from support.real_windows import clean_hive

FOLDER = corpus("hives")
# the hive of Windows 7 is that of a 32-bit system; its database has the same form in both
TARGETS = {
    "win7-x86": Target(6, 1, 7601, 1),
    "win81-x64": Target(6, 3, 9600, 1),
    "win10-1709-x64": Target(10, 0, 16299, 1),
}
PACKAGES = {"one service": package(), "two services": two_services()}
Case = tuple[str, bytes, bytes, Injection, Package]


@cache
def clean(name: str) -> bytes:
    return clean_hive(name)


@cache
def untouched(name: str) -> dict[tuple[str, str], hives.Value]:
    return hives.values(clean(name))


def computed(data: bytes, what: Package, target: Target, files: dict[str, bytes]) -> Injection:
    return inject(what, IDS, target, Hive.parse(data), lambda path: files.get(path.lower()), {0, 1, 2, 3})


@pytest.fixture(scope="module", params=[(h, p) for h in TARGETS for p in PACKAGES], ids="-".join)
def case(request: pytest.FixtureRequest) -> Case:
    name, kind = request.param
    before = clean(name)
    injection = computed(before, PACKAGES[kind], TARGETS[name], {})
    return name, before, edit_hive(before, injection.edits), injection, PACKAGES[kind]


def test_hivex_sees_what_was_intended_and_nothing_else(case: Case) -> None:
    name, _, after, injection, _ = case
    old, new = untouched(name), hives.values(after)
    wanted = {("\\".join(e.key).lower(), e.name): e for e in injection.edits if isinstance(e, SetValue)}
    gone = ["\\".join(e.key).lower() for e in injection.edits if isinstance(e, DeleteKey)]
    changed = {
        (k.lower(), n): v for (k, n), v in new.items() if old.get((k, n)) != v and (n or v != (0, b""))
    }
    assert changed == {place: (e.type, e.data) for place, e in wanted.items()}
    assert all(k.lower().startswith(tuple(gone)) for k, _ in old.keys() - new.keys()), old.keys() - new.keys()
    assert len(wanted) > 15


def test_a_second_injection_changes_nothing(case: Case) -> None:
    name, _, after, injection, what = case
    files = {f.path.lower(): f.data for f in injection.files}
    again = inject(
        what,
        IDS,
        TARGETS[name],
        Hive.parse(after),
        lambda path: files.get(path.lower()),
        {0, 1, 2, 3, int(injection.published[3:-4])},
    )
    assert (again.edits, again.files, again.published) == ((), (), injection.published)


def test_regipy_reads_every_new_value(case: Case, tmp_path: Path) -> None:
    _, _, after, injection, _ = case
    (tmp_path / "SYSTEM").write_bytes(after)
    hive = RegistryHive(str(tmp_path / "SYSTEM"))
    for edit in injection.edits:
        path = "\\" + "\\".join(edit.key)
        if isinstance(edit, DeleteKey):
            with pytest.raises(RegistryKeyNotFoundException):
                hive.get_key(path)
            continue
        assert isinstance(edit, SetValue)
        if edit.type == 0 and not edit.data:
            continue  # regipy knows no values without type and data
        values = {v.name: v.value for v in hive.get_key(path).iter_values(as_json=True)}
        found = values["(default)" if not edit.name else edit.name]
        if edit.type == 4:
            assert found == int.from_bytes(edit.data, "little")
        elif edit.type in (1, 2):
            assert found == edit.data.decode("utf-16-le").rstrip("\0")


def told(kind: int, data: bytes) -> tuple[int, bytes]:
    """Of one to three bytes, which are stored in the place of their address, libregf gives the length only, in Windows'
    own hives too.
    """
    return kind, data if len(data) >= 4 else bytes(len(data))


def by_libregf(data: bytes) -> dict[tuple[str, str], tuple[int, bytes]]:
    """Every value of a hive, by a third reader; see `told`."""
    pyregf = pytest.importorskip("pyregf", reason="libregf-python is not installed")
    hive = pyregf.file()
    hive.open_file_object(io.BytesIO(data))
    try:
        assert not hive.is_corrupted()
        found: dict[tuple[str, str], tuple[int, bytes]] = {}
        waiting = [("", hive.get_root_key())]
        while waiting:
            path, key = waiting.pop()
            for value in key.values:
                found[path.lower(), (value.name or "").lower()] = told(value.type, value.data or b"")
            waiting += [(f"{path}\\{k.name}".lstrip("\\"), k) for k in key.sub_keys]
    finally:
        hive.close()
    return found


@cache
def untouched_by_libregf(name: str) -> dict[tuple[str, str], tuple[int, bytes]]:
    return by_libregf(clean(name))


def test_libregf_sees_what_was_intended_and_nothing_else(case: Case) -> None:
    name, _, after, injection, _ = case
    old, new = untouched_by_libregf(name), by_libregf(after)
    edits = {
        ("\\".join(e.key).lower(), e.name.lower()): e for e in injection.edits if isinstance(e, SetValue)
    }
    gone = tuple("\\".join(e.key).lower() for e in injection.edits if isinstance(e, DeleteKey))
    assert {p: new.get(p) for p in edits} == {p: told(e.type, e.data) for p, e in edits.items()}
    assert {p for p, v in new.items() if old.get(p) != v and p not in edits} == set()
    assert [p for p in old.keys() - new.keys() if not p[0].startswith(gone)] == []
    assert len(old) > 10_000


@pytest.mark.skipif(shutil.which("hivexregedit") is None, reason="hivexregedit is not installed")
def test_hivexregedit_exports_the_services(case: Case, tmp_path: Path) -> None:
    _, _, after, injection, _ = case
    (tmp_path / "SYSTEM").write_bytes(after)
    for service in injection.services:
        text = subprocess.run(
            ["hivexregedit", "--export", str(tmp_path / "SYSTEM"), f"ControlSet001\\Services\\{service}"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert '"Start"=dword:00000000' in text
        assert '"Type"=dword:00000001' in text
        path = ",".join(f"{b:02x}" for b in f"System32\\drivers\\{service}.sys\0".encode("utf-16-le"))
        assert f'"ImagePath"=hex(2):{path}' in text
        assert "StartOverride" not in text


VENDORS = {
    "adaptec-arcsas/arcsas.inf": (r"PCI\VEN_9005&DEV_028B&SUBSYS_03019005", ("arcsas",)),
    "amd-sata/amd_sata.inf": (r"PCI\VEN_1022&DEV_7801&CC_0106", ("amd_sata", "amd_xata")),
    "intel-rst-16/iaStorAC.inf": (r"PCI\VEN_8086&DEV_2822&CC_0104", ("iaStorAC",)),
}


@pytest.mark.parametrize("inf", VENDORS)
@pytest.mark.parametrize("name", ["win81-x64", "win10-1709-x64"])
def test_a_vendors_package_with_drivers_made_by_the_test(inf: str, name: str) -> None:
    """Also where Windows has the driver itself, and has demoted it."""
    device_id, services = VENDORS[inf]
    path = corpus("inf") / inf
    text = parse_inf(path.read_bytes())
    files = {p.name: p.read_bytes() for p in path.parent.iterdir() if p.suffix in (".inf", ".cat")}
    files |= {
        f.source: driver(fill=b"new") for f in source_files(text.text, "amd64") if f.name[-4:] == ".sys"
    }
    before = clean(name)
    in_box = {"system32\\drivers\\arcsas.sys": driver(fill=b"in-box")}
    injection = inject(
        Package(path.name, files),
        [device_id],
        TARGETS[name],
        Hive.parse(before),
        lambda p: in_box.get(p.lower()),
    )
    assert injection.services[: len(services)] == services
    values = hives.values(edit_hive(before, injection.edits))
    owner = injection.published
    for service in injection.services:
        key = f"ControlSet001\\Services\\{service}"
        assert values[key, "Owners"][1].decode("utf-16-le").startswith(owner + "\0")
        assert (f"{key}\\StartOverride", "") not in values
        assert values[key, "Start"] == hives.dword(0)
    assert injection.edits
    assert f"System32\\drivers\\{services[0]}.sys".lower() in {f.path.lower() for f in injection.files}
    assert owner not in {n for _, n in untouched(name)}
