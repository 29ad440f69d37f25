"""`rehost hyperv show`: what an administrator and a script get to see."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rehost_payload.ui.hyperv_cmd import hyperv
from support import vhd_image, vhdx_image, vm_configurations, vmcx_image


def show(*args: str | Path) -> Result:
    return CliRunner().invoke(hyperv, ["show", *map(str, args)])


@pytest.fixture
def vmcx(tmp_path: Path) -> Path:
    path = tmp_path / "machine.vmcx"
    path.write_bytes(vmcx_image.build(vm_configurations.machine(saved="Normal")).bytes)
    return path


def line(name: str, text: str) -> str:
    return f"{name:<24}{text}"


def test_a_machine(vmcx: Path) -> None:
    result = show(vmcx)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0] == f"Virtual machine {vmcx} (Hyper-V storage 4.0, {vmcx.stat().st_size} bytes)"
    for expected in (
        line("name", "Web 01"),
        line("generation", "2, configuration version 8.0"),
        line("memory", "4096 MiB, 1024 to 8192 MiB"),
        line("processors", "6, compatibility mode"),
        line("SCSI 0:0", "E:\\VMs\\root.avhdx"),
        line("SCSI 1:2", "\\\\.\\PHYSICALDRIVE3 (no file: it cannot be copied as one)"),
        line(
            "network adapter",
            "LAN, MAC 00-15-5D-01-02-03 (static), switch Extern, "
            "VLAN settings: 000102030405060708090a0b0c0d0e0f",
        ),
        line("network adapter", "Old (legacy), no MAC address yet, not connected"),
        line("virtual TPM", "yes"),
        line("saved state", "Normal, E:\\VMs\\s.vsv, E:\\VMs\\s.bin"),
        line("checkpoints", "2, a merge of disks is pending"),
        line("replication", "2 settings"),
        line("notes", "zwei\\u000aZeilen"),
        line("not understood", "3 values (--tree shows them)"),
    ):
        assert expected in lines


def test_a_vlan_is_named_and_its_bytes_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        vm_configurations, "VLAN_BLOB", bytes.fromhex("01000000 1400 0000 00000000 0000 0000")
    )
    xml = tmp_path / "machine.xml"
    xml.write_bytes(vm_configurations.as_xml(vm_configurations.machine()))
    assert "switch Extern, VLAN: access, VLAN 20, VLAN settings: 01000000140000" in show(xml).output


def test_both_kinds_of_configuration_look_the_same(vmcx: Path, tmp_path: Path) -> None:
    xml = tmp_path / "machine.xml"
    xml.write_bytes(vm_configurations.as_xml(vm_configurations.machine(saved="Normal")))
    assert show(xml).output.splitlines()[1:] == show(vmcx).output.splitlines()[1:]
    assert (
        json.loads(show("--json", xml).output)["content"]
        == json.loads(show("--json", vmcx).output)["content"]
    )


def test_json(vmcx: Path) -> None:
    document = json.loads(show("--json", vmcx).output)
    assert (document["kind"], document["problems"]) == ("machine", [])
    assert document["content"]["drives"][2]["settings"] == {"iops_limit": 500}
    assert document["content"]["adapters"][0]["features"][0]["data"] == ["000102030405060708090a0b0c0d0e0f"]
    assert document["content"]["last_on"].startswith("2023-02-17T11:25:58")
    assert "tree" not in document
    tree = json.loads(show("--json", "--tree", vmcx).output)["tree"]
    assert {"path": "configuration/invented/thing", "type": "int", "value": 1} in tree


def test_tree(vmcx: Path) -> None:
    assert "configuration/invented/thing = 1 (int)" in show("--tree", vmcx).output.splitlines()
    assert "nvram = 3000 bytes at 0x" in show("--tree", vmcx).output


def test_damage_costs_only_what_it_struck(vmcx: Path) -> None:
    data = bytearray(vmcx.read_bytes())
    at = data.index(b"FriendlyName\0")
    data[at] ^= 1
    vmcx.write_bytes(data)
    result = show(vmcx)
    assert result.exit_code == 1
    assert "  problem: key entry" in result.output
    assert line("name", "Web 01") in result.output.splitlines()


def test_the_list_of_machines_and_states(tmp_path: Path) -> None:
    path = tmp_path / "data.vmcx"
    path.write_bytes(
        vmcx_image.build([("Configurations", [("VirtualMachines", [("_ABC_", "E:\\a.vmcx")])])]).bytes
    )
    assert line("machine", "abc, E:\\a.vmcx") in show(path).output.splitlines()
    path.write_bytes(vmcx_image.build(vm_configurations.state(3)).bytes)
    lines = show(path).output.splitlines()
    assert line("saved state", "Normal, 3 blocks of memory") in lines
    assert any("another maker" in text for text in lines)
    path.write_bytes(vmcx_image.build([("new", [("x", float("nan"))])]).bytes)
    assert "new/x = nan (double)" in show(path).output
    assert json.loads(show("--json", path).output)["tree"][0]["value"] == "nan"


def test_virtual_disks(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(
        vhdx_image.build(
            vhdx_image.items(parent={"parent_linkage": "{A}", "absolute_win32_path": "E:\\p.vhdx"}),
            log=vhdx_image.log_entry(1, []),
            log_guid=vhdx_image.LOG_GUID,
        )
    )
    result = show(path)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert line("type", "differencing") in lines
    assert line("size of the disk", "64 MiB, 67108864 bytes") in lines
    assert line("parent's GUID", "a") in lines
    assert line("parent", "E:\\p.vhdx") in lines
    assert line("log", f"pending: 1 entries, 0 blocks of 4 KiB, {vhdx_image.LOG_GUID}") in lines
    assert json.loads(show("--json", path).output)["content"]["log"]["dirty"] is True

    path.write_bytes(vhdx_image.build(bat={0: (6, 99)}))
    result = show(path)
    assert result.exit_code == 1
    assert "  problem: truncated: 1 blocks" in result.output

    path.write_bytes(vhd_image.sparse(guid=vhd_image.SECOND, parent=vhd_image.FIRST, name="base.vhd"))
    lines = show(path).output.splitlines()
    assert line("parent's identifier", str(vhd_image.FIRST)) in lines
    assert json.loads(show("--json", path).output)["kind"] == "vhd"
    path.write_bytes(vhd_image.fixed())
    assert line("type", "fixed") in show(path).output.splitlines()


def test_what_cannot_be_shown(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for data, problem in (
        (b"", "no configuration, state or virtual disk"),
        (b"MZ" * 999, "no configuration, state or virtual disk"),
        (b"vhdxfile" + bytes(9), "VHDX header"),
        (b"<configuration>", "line 1"),
    ):
        path.write_bytes(data)
        result = show(path)
        assert result.exit_code == 1
        assert problem in result.output
        assert "Traceback" not in result.output
    assert "No such file" in show(tmp_path / "none").output
    assert show(tmp_path).exit_code == 1


def test_names_cannot_write_on_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "x.xml"
    path.write_bytes(vm_configurations.as_xml(vm_configurations.machine(name="a\u202eb\u009bc")))
    for arguments in ((path,), ("--tree", path)):
        assert "\u202e" not in show(*arguments).output
        assert "a\\u202eb\\u009bc" in show(*arguments).output
