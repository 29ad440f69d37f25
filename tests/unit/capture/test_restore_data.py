"""restore.json: what the scripts are told, also for hostile names and for captures with holes."""

from __future__ import annotations

import json
from dataclasses import is_dataclass, replace
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rehost_payload.capture.found import FoundHost
from rehost_payload.capture.model import (
    AdapterUse,
    BadRange,
    CapturePlan,
    CaptureUnit,
    HostAdapter,
    HostSettings,
    Letter,
    MachineSummary,
    Manifest,
    ManifestFile,
    Role,
    Uplink,
    VirtualSwitch,
)
from rehost_payload.capture.restore.data import (
    RestoreData,
    RestoreMachine,
    machine_sid,
    restore_data,
    to_json,
)
from rehost_payload.capture.restore.scripts import scripts
from support.hyperv_host import DC, SQL, TEST_A, TEST_B, WEB
from support.powershell import Script
from support.powershell_names import Types

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


def test_an_uplink_is_told_by_address_and_device() -> None:
    uplinks = (
        Uplink("1", "A", "Intel", "PCI\\VEN_8086&DEV_1533\\A0369FFFFF9E8A5200", "001122aabbcc"),
        Uplink("2"),
    )
    switch = VirtualSwitch("1", "S", "external", uplinks, team="lbfo")
    host = restore_data({}, settings(switches=(switch,))).host
    assert host is not None
    first, second = host.switches[0].uplinks
    assert (first.mac, first.pnp_id) == ("00-11-22-AA-BB-CC", uplinks[0].pnp_id)
    assert first.text == f"A, Intel, 00-11-22-AA-BB-CC, {uplinks[0].pnp_id}"
    assert (second.text, second.mac, second.pnp_id) == ("2", "", "")
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


# --- words that Windows knows: "Accepted values" of the parameters in Microsoft's reference, flags of FileSystemRights


def test_only_words_that_windows_accepts(data: RestoreData) -> None:
    assert data.host is not None
    everything = settings(
        switches=tuple(
            VirtualSwitch("1", f"{kind} {mode}", kind, bandwidth_mode=mode)
            for kind in ("external", "internal", "private", "nat")
            for mode in ("", "absolute", "Weight", "none", "other")
        )
    )
    host = restore_data({}, everything).host
    assert host is not None
    assert {s.kind for s in host.switches} == {"External", "Internal", "Private"}
    assert {s.bandwidth_mode for s in host.switches} == {"Default", "Absolute", "Weight", "None"}
    for vm in data.machines:
        assert vm.start_action in ("", "Nothing", "StartIfRunning", "Start")
        assert vm.stop_action in ("", "TurnOff", "Save", "ShutDown")
        assert vm.generation in (None, 1, 2)
        assert {d.controller for d in vm.disks} <= {"IDE", "SCSI"}
        assert {f.rights for f in vm.files} <= {"Read", "Read, Write", "FullControl"}
    for adapter in data.host.adapters:
        assert {a.family for a in adapter.addresses} <= {"IPv4", "IPv6"}


# --- what a machine's account may do


def test_the_account_of_a_machine() -> None:
    """The pair of identifier and account is from an event of the Hyper-V worker process."""
    assert machine_sid("d9e0eb0a-5b37-508e-9173-67e9ade83acf") == (
        "S-1-5-83-1-3655396106-1351506743-3915871121-3476744365"
    )
    for other in ("", "host", f"{WEB}~2", "{" + WEB + "}"):
        assert machine_sid(other) == ""


def test_machines_may_change_their_own_disks_and_only_read_common_ones(data: RestoreData) -> None:
    for vm in data.machines:
        assert vm.sid == machine_sid(vm.id) != ""
        for f in vm.files:
            if f.original == "D:\\Golden\\base.vhdx":
                assert f.rights == "Read"
            elif f.original.lower().endswith(("vhd", "vhdx")):
                assert f.rights == "Read, Write"
            else:
                assert f.rights == "FullControl"


def test_a_write_protected_base_stays_so() -> None:
    base = ManifestFile("b", "D:\\b.vhdx", Role.DISK, 1, "0" * 64, ("0" * 64,), attributes=0x21)
    own = replace(base, path="c", original="D:\\c.vhdx", attributes=0x20)
    (vm,) = restore_data(
        {"vm": Manifest(1, "0", WEB, "n", "machine", "h", "", 1, True, (base, own))}, None
    ).machines
    assert [f.read_only for f in vm.files] == [True, False]


def test_forgotten_disks_of_the_host_can_go_back(found_2016: Found, data: RestoreData) -> None:
    _, plan = found_2016
    captured = {f.original for u in plan.units if u.kind == "orphans" for f in u.files}
    assert {f.original for f in data.orphans} == captured != set()
    assert not captured & {f.original for vm in data.machines for f in vm.files}


def test_files_that_belong_to_no_machine_can_go_back_and_are_given_to_none() -> None:
    good = ManifestFile("d/a.vhdx", "D:\\a.vhdx", Role.DISK, 1, "0" * 64, ("0" * 64,))
    holes = replace(good, path="d/b.vhdx", original="D:\\b.vhdx", bad_ranges=(BadRange(0, 1, "EIO"),))
    nowhere = replace(good, path="d/c.vhdx", original="c.vhdx")
    units = {"orphans": Manifest(1, "0", "orphans", "o", "orphans", "h", "", 1, True, (good, holes, nowhere))}
    data = restore_data(units, None)
    assert data.machines == ()
    assert [(f.path, f.original, f.rights) for f in data.orphans] == [("orphans/d/a.vhdx", "D:\\a.vhdx", "")]


@pytest.mark.parametrize(
    ("name", "generation", "controllers"),
    [("disk.vhd", 1, ["IDE", "SCSI"]), ("disk.vhdx", None, ["SCSI", "SCSI"])],
)
def test_a_disk_of_the_old_format_tells_the_generation(
    name: str, generation: int | None, controllers: list[str]
) -> None:
    first = ManifestFile("a", f"D:\\{name}", Role.DISK, 1, "0" * 64, ("0" * 64,))
    second = replace(first, path="b", original="D:\\data.vhdx")
    units = {"vm": Manifest(1, "0", WEB, "n", "machine", "h", "", 1, True, (first, second))}
    (vm,) = restore_data(units, None).machines
    assert vm.generation == generation
    assert [d.controller for d in vm.disks] == controllers


def test_vlans_that_cannot_be_set_are_told() -> None:
    adapters = (
        AdapterUse("a", "", None, "S", vlan=20),
        AdapterUse("b", "", None, "S", vlan=4095),
        AdapterUse("c", "", None, "S", vlan_by_hand="trunk, native VLAN 5"),
    )
    summary = MachineSummary(WEB, "n", 2, "9.0", "", adapters=adapters)
    units = {"vm": Manifest(1, "0", WEB, "n", "machine", "h", "", 1, True, (), summary)}
    (vm,) = restore_data(units, None).machines
    assert [(a.vlan, a.vlan_by_hand) for a in vm.adapters] == [
        (20, ""),
        (None, ""),
        (None, "trunk, native VLAN 5"),
    ]


# --- the scripts and the data know each other


TYPES = {name: Types(Script(text), "data", RestoreData) for name, text in scripts().items()}


@pytest.mark.parametrize("name", TYPES)
def test_scripts_read_only_what_is_there(name: str) -> None:
    """In strict mode a property that is not there ends a script."""
    assert TYPES[name].faults() == []


def test_everything_that_is_written_is_read() -> None:
    """A field that no script reads is a decision that nobody carries out."""

    def fields(kind: Any, found: set[tuple[str, str]]) -> set[tuple[str, str]]:
        for name, hint in get_type_hints(kind).items():
            found.add((kind.__name__, name))
            for inner in (hint, *get_args(hint)):
                if is_dataclass(inner):
                    fields(inner, found)
        return found

    read = set().union(*(t.read() for t in TYPES.values()))
    assert {(name, member) for name, member in read if name.startswith("Restore")} == fields(
        RestoreData, set()
    )


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("Restore-VM.ps1", "$machine.sid", "$machine.sids"),
        ("Restore-VM.ps1", "$file.original)", "$file.orginal)"),
        ("Restore-VM.ps1", "$_.switch }", "$_.swich }"),
        ("Restore-VM.ps1", "$data.orphans.Count", "$data.orphan.Count"),
        ("Restore-VM.ps1", "$adapter.vlan_by_hand)", "$adapter.vlan_hand)"),
        # of Windows' own objects
        ("Restore-VM.ps1", "$volume.FreeSpace", "$volume.SizeRemaining"),
        ("Restore-VM.ps1", "$_.Version.Major", "$_.Version.Mayor"),
        ("Restore-VM.ps1", "$problem.MessageId", "$problem.Id"),
        ("Restore-VM.ps1", "$report.Incompatibilities", "$report.Incompatibility"),
        ("Restore-Host.ps1", "$found[0].PartitionNumber", "$found[0].Number"),
        ("Restore-Host.ps1", "$nic.PnPDeviceID", "$nic.PnPInstanceID"),
        ("Restore-Host.ps1", "$now.MacAddressMinimum", "$now.MinimumMacAddress"),
        ("Restore-Host.ps1", "$_.NextHop", "$_.Gateway"),
    ],
)
def test_a_misspelt_property_is_noticed(name: str, right: str, wrong: str) -> None:
    text = scripts()[name]
    assert right.encode() in text
    assert Types(Script(text.replace(right.encode(), wrong.encode())), "data", RestoreData).faults()
