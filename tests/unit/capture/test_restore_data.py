"""restore.json: what the scripts are told, also for hostile names and for captures with holes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rehost_payload import strictjson
from rehost_payload.capture.found import FoundHost
from rehost_payload.capture.model import (
    BadRange,
    CapturePlan,
    CaptureUnit,
    HostAdapter,
    HostSettings,
    Letter,
    Manifest,
    ManifestFile,
    Role,
    Uplink,
    VirtualSwitch,
)
from rehost_payload.capture.restore.data import RestoreData, RestoreMachine, restore_data, to_json
from support.hyperv_host import DC, SQL, TEST_A, TEST_B, WEB

Found = tuple[FoundHost, CapturePlan]


def manifest_of(unit: CaptureUnit) -> Manifest:
    """What the copy engine leaves of a unit that went well."""
    inside = len(unit.folder) + 1
    files = []
    for f in unit.files:
        parent = f.parent
        if parent is not None:
            parent = parent[inside:] if parent.startswith(f"{unit.folder}/") else f"../{parent}"
        digest = f"{len(files):064x}"
        files.append(
            ManifestFile(
                f.target[inside:],
                f.original,
                f.role,
                f.size,
                digest,
                (digest,),
                modified=f.modified,
                parent=parent,
            )
        )
    return Manifest(
        1,
        "0",
        unit.id,
        unit.name,
        unit.kind,
        "HV01",
        "",
        64 << 20,
        True,
        tuple(files),
        unit.machine,
        unit.missing,
    )


def manifests(plan: CapturePlan) -> dict[str, Manifest]:
    return {u.folder: manifest_of(u) for u in plan.units}


def machine(data: RestoreData, identifier: str) -> RestoreMachine:
    return next(m for m in data.machines if m.id == identifier)


@pytest.fixture
def data(found_2016: Found) -> RestoreData:
    found, plan = found_2016
    return restore_data(manifests(plan), found.settings)


def test_every_machine_has_all_its_files_at_their_old_places(found_2016: Found, data: RestoreData) -> None:
    _, plan = found_2016
    assert {m.id for m in data.machines} == {WEB, SQL, DC, TEST_A, TEST_B}
    for unit in plan.units:
        if unit.kind != "machine":
            continue
        mine = machine(data, unit.id)
        assert {f.original for f in unit.files} <= {f.original for f in mine.files}
        assert {f.path for f in mine.files} >= {f.target for f in unit.files}
        assert mine.configuration in {f.original for f in mine.files}
        assert (mine.complete, mine.lost, mine.not_captured) == (True, (), ())


def test_a_common_parent_is_brought_back_with_each_child(data: RestoreData) -> None:
    for identifier in (TEST_A, TEST_B):
        originals = [f.original for f in machine(data, identifier).files]
        assert originals.count("D:\\Golden\\base.vhdx") == 1


def test_a_checkpoint_chain_is_whole_and_the_newest_disk_is_attached(data: RestoreData) -> None:
    web = machine(data, WEB)
    assert sum(f.original.endswith("vhdx") for f in web.files) == 3
    assert [(d.controller, d.number, d.slot) for d in web.disks] == [("SCSI", 0, 0)]
    assert web.disks[0].path.endswith(".avhdx")
    assert web.saved_state  # one of the checkpoints holds a memory state
    assert web.version == "8.0"


def test_what_is_no_file_is_named_and_not_asked_of_the_new_host(data: RestoreData) -> None:
    sql = machine(data, SQL)
    assert sql.physical == ("\\\\.\\PHYSICALDRIVE3",)
    assert [d.path for d in sql.disks] == ["D:\\Disks\\sql-os.vhdx", "E:\\Data\\sql-data.vhdx"]
    assert not sql.saved_state
    assert machine(data, DC).saved_state
    assert machine(data, DC).start_action == "Start"


def test_an_image_left_out_is_expected_at_its_place(found_2016: Found) -> None:
    """ISO images are copied on request only; the machine can be registered without."""
    found, plan = found_2016
    sql = machine(restore_data(manifests(plan), found.settings), SQL)
    assert not any(f.original.endswith(".iso") for f in sql.files)


def test_a_capture_of_the_configuration_expects_the_disks_in_place(found_2016: Found) -> None:
    found, plan = found_2016
    small = {
        folder: replace(
            m, files=tuple(f for f in m.files if f.role not in (Role.DISK, Role.DIFFERENCING_DISK))
        )
        for folder, m in manifests(plan).items()
    }
    web = machine(restore_data(small, found.settings), WEB)
    assert len(web.not_captured) == 3
    assert web.configuration
    assert not any(f.original.lower().endswith("vhdx") for f in web.files)


def test_a_lost_configuration_means_a_new_machine_around_the_last_disks(found_2016: Found) -> None:
    found, plan = found_2016
    units = manifests(plan)
    folder = next(u.folder for u in plan.units if u.id == WEB)
    lost = replace(
        units[folder],
        machine=None,
        files=tuple(f for f in units[folder].files if f.role is not Role.CONFIGURATION),
    )
    web = machine(restore_data({**units, folder: lost}, found.settings), WEB)
    assert (web.configuration, web.version, web.generation) == ("", "", None)

    assert web.disks[0].path == next(
        d.chain[0] for m in found.machines if m.id == WEB for d in m.disks
    )  # the child, not its parents
    assert web.memory > 0


def test_holes_are_named(found_2016: Found) -> None:
    found, plan = found_2016
    units = manifests(plan)
    folder = next(u.folder for u in plan.units if u.id == DC)
    first, *rest = units[folder].files
    damaged = replace(first, bad_ranges=(BadRange(0, 512, "EIO"),))
    units[folder] = replace(units[folder], complete=False, missing=("E:\\gone.vhd",), files=(damaged, *rest))
    dc = machine(restore_data(units, found.settings), DC)
    assert not dc.complete
    assert set(dc.lost) == {"E:\\gone.vhd", first.original}


def test_a_second_machine_with_the_same_guid_is_made_anew(found_2016: Found) -> None:
    found, plan = found_2016
    units = manifests(plan)
    folder = next(u.folder for u in plan.units if u.id == DC)
    units["copy"] = replace(units[folder], unit=f"{DC}~2")
    data = restore_data(units, found.settings)
    assert machine(data, DC).configuration
    assert machine(data, f"{DC}~2").configuration == ""


# --- the host


def test_the_host_of_2016(data: RestoreData) -> None:
    host = data.host
    assert host is not None
    switches = {s.name: s for s in host.switches}
    assert {n: s.kind for n, s in switches.items()} == {
        "Extern": "External",
        "Intern": "Internal",
        "Labor": "Private",
        "Team": "External",
    }
    assert switches["Team"].set
    assert len(switches["Team"].uplinks) == 2
    assert (switches["Extern"].host_adapter, switches["Team"].host_adapter) == (True, False)
    assert (host.mac_minimum, host.mac_maximum) == ("00155D000A00", "00155D000AFF")
    assert (host.machine_path, host.disk_path) == ("D:\\VMs", "D:\\Disks")
    assert [x.letter for x in host.letters] == ["D", "E"]
    gpt, mbr = host.letters
    assert gpt.partition_guid is not None
    assert gpt.partition_guid.startswith("{")
    assert (mbr.partition_guid, mbr.signature is None, mbr.offset is None) == (None, False, False)
    extern = next(a for a in host.adapters if a.switch == "Extern")
    assert extern.name == "Extern"
    assert [(a.address, a.prefix) for a in extern.addresses] == [("192.0.2.10", 24), ("198.51.100.7", 16)]
    assert [(g.address, g.destination) for g in extern.gateways] == [("192.0.2.1", "0.0.0.0/0")]
    assert extern.dns == ("192.0.2.2", "192.0.2.3")


def settings(**more: Any) -> HostSettings:
    return HostSettings(1, "0", "", "HV", "Windows Server 2016", 14393, "de-DE", **more)


def test_what_cannot_be_right_is_left_out() -> None:
    host = restore_data(
        {},
        settings(
            machine_path="..\\VMs",
            disk_path="D:",
            mac_minimum="00-15-5D-00-0A-00",
            letters=(
                Letter("C:", partition_guid="11111111-1111-1111-1111-111111111111"),
                Letter("D:"),
                Letter("E:", partition_guid="'; Format-Volume"),
                Letter("F:", signature=0xAE4645DF, offset=1 << 20),
            ),
            switches=(VirtualSwitch("1", "odd", "nat"),),
            adapters=(
                HostAdapter(
                    "1", "a", "S", ("fe80::1/64", "300.1.1.1/8", "192.0.2.1", "2001:db8::1/64"), ("x",)
                ),
                HostAdapter("2", "dhcp", "S", ("192.0.2.9/24",), ("192.0.2.1",), dhcp=True),
                HostAdapter("3", "physical", "", ("192.0.2.8/24",)),
            ),
        ),
    ).host
    assert host is not None
    assert (host.machine_path, host.disk_path, host.mac_minimum, host.mac_maximum) == ("", "", "", "")
    assert [(x.letter, x.signature, x.offset) for x in host.letters] == [("F", 0xAE4645DF, 1 << 20)]
    assert host.switches == ()
    assert [[a.address for a in x.addresses] for x in host.adapters] == [["2001:db8::1"], []]
    assert [x.gateways for x in host.adapters] == [(), ()]


def test_an_uplink_is_known_by_its_address_only_if_all_are() -> None:
    uplinks = (Uplink("1", "A", "Intel", mac="001122aabbcc"), Uplink("2", "B", "Intel"))
    switch = VirtualSwitch("1", "S", "external", uplinks, team="lbfo")
    host = restore_data({}, settings(switches=(switch, replace(switch, uplinks=uplinks[:1])))).host
    assert host is not None
    assert [s.uplink_macs for s in host.switches] == [(), ("00-11-22-AA-BB-CC",)]
    assert not host.switches[0].set  # teams of the old kind are not made again below a switch


def test_no_settings_no_host(found_2016: Found) -> None:
    assert restore_data(manifests(found_2016[1]), None).host is None


# --- hostile names

HOSTILE = [
    "a'; Remove-Item C:\\ -Recurse; '",
    'x" + (Get-Date) + "',
    "$(Stop-Computer)",
    "`n`$env:USERNAME",
    "‘smart’ “quotes”",
    "line\r\nbreak",
    "@{a=1}",
    "--%",
    "\ud800 lone",
    "../../../Windows",
    "[*?]",
    "",
    "名前",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_data(name: str) -> None:
    file = ManifestFile("disk.vhdx", f"D:\\{name}\\disk.vhdx", Role.DISK, 1, "0" * 64, ("0" * 64,))
    units = {"vm": Manifest(1, "0", "id", name, "machine", name, "", 1, True, (file,), missing=(name,))}
    switch = VirtualSwitch("1", name, "private", notes=name)
    text = to_json(restore_data(units, settings(machine_path=name, switches=(switch,))))
    assert text.isascii()
    data = json.loads(text)
    assert data["machines"][0]["name"] == name
    assert data["host"]["switches"][0]["name"] == name


@given(st.text(max_size=30), st.text(max_size=30))
def test_a_script_never_writes_beside_the_old_places(original: str, path: str) -> None:
    for place in (original, f"D:\\{original}", f"D:\\VMs\\{original}\\x.vhdx"):
        file = ManifestFile(path, place, Role.DISK, 1, "0" * 64, ("0" * 64,))
        units = {"vm": Manifest(1, "0", "id", "n", "machine", "h", "", 1, True, (file,))}
        (vm,) = restore_data(units, None).machines
        for f in vm.files:
            assert f.original[1:3] == ":\\" or f.original.startswith("\\\\?\\Volume{")
            assert not {"..", ".", ""} & set(f.original[3:].split("\\"))
            assert not any(ord(c) < 32 for c in f.original)
            assert f.path.startswith("vm/")
            assert not {"..", ".", ""} & set(f.path.split("/"))
            assert not {":", "\\"} & set(f.path)
        assert len(vm.files) + len(vm.lost) == 1


@pytest.mark.parametrize(
    "original",
    [
        "\\\\server\\share\\x",
        "D:x",
        "D:\\..\\x",
        "D:\\a\\\\b",
        "D:\\a:stream",
        "D:\\a ",
        "\\\\.\\PhysicalDrive0",
        "x",
    ],
)
def test_places_that_are_none(original: str) -> None:
    file = ManifestFile("d", original, Role.DISK, 1, "0" * 64, ("0" * 64,))
    units = {"vm": Manifest(1, "0", "id", "n", "machine", "h", "", 1, True, (file,))}
    (vm,) = restore_data(units, None).machines
    assert (vm.files, vm.lost) == ((), (original,))


def test_a_volume_without_letter_is_named_by_its_guid() -> None:
    original = "\\\\?\\Volume{11111111-2222-3333-4444-555555555555}\\VMs\\x.vhdx"
    file = ManifestFile("d", original, Role.DISK, 1, "0" * 64, ("0" * 64,))
    units = {"vm": Manifest(1, "0", "id", "n", "machine", "h", "", 1, True, (file,))}
    (vm,) = restore_data(units, None).machines
    assert [f.original for f in vm.files] == [original]


def test_parents_in_a_circle_end() -> None:
    files = tuple(
        ManifestFile(a, f"D:\\{a}", Role.DIFFERENCING_DISK, 1, "0" * 64, ("0" * 64,), parent=b)
        for a, b in (("a", "b"), ("b", "a"))
    )
    (vm,) = restore_data(
        {"vm": Manifest(1, "0", "i", "n", "machine", "h", "", 1, True, files)}, None
    ).machines
    assert len(vm.files) == 2


# --- the scripts and the data know each other


def test_scripts_read_only_what_is_there(data: RestoreData) -> None:
    """In strict mode a property that is not there ends a script."""
    import re

    from rehost_payload.capture.restore.scripts import scripts

    known: set[str] = set()

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            known.update(value)
            for item in value.values():
                collect(item)
        elif isinstance(value, list):
            for item in value:
                collect(item)

    collect(strictjson.plain(data))
    used = r"\$(?:machine|file|disk|adapter|old|data|data\.host|address|gateway)\.([a-z][a-z_]+)\b"
    for name in ("Restore-Host.ps1", "Restore-VM.ps1"):
        names = set(re.findall(used, scripts()[name].decode()))
        assert names
        assert names <= known, names - known
