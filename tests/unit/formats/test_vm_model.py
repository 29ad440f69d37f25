"""The model of a virtual machine from both kinds of configuration, and the XML reader itself."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.source import BytesSource
from rehost_payload.formats.vm_devices import PortFeature, Vlan, parse_vlan
from rehost_payload.formats.vm_model import (
    VirtualMachine,
    content_of,
    read_known_machines,
    read_machine,
    read_saved_state,
)
from rehost_payload.formats.vm_tree import Kind, Node
from rehost_payload.formats.vm_xml import LARGEST, is_vm_xml, parse_vm_xml
from rehost_payload.formats.vmcx import parse_vmcx
from support import vm_configurations as configurations
from support import vmcx_image
from support.vmcx_image import Tree


def binary(tree: Tree) -> Node:
    return parse_vmcx(BytesSource(vmcx_image.build(tree).bytes)).root


def xml(tree: Tree, encoding: str = "utf-16") -> Node:
    parsed = parse_vm_xml(BytesSource(configurations.as_xml(tree, encoding)))
    assert not parsed.notes
    return parsed.root


@pytest.fixture(params=[binary, xml], ids=["vmcx", "xml"])
def machine(request: pytest.FixtureRequest) -> VirtualMachine:
    root = request.param(configurations.machine())
    assert content_of(root) == "machine"
    return read_machine(root)


def test_what_it_is(machine: VirtualMachine) -> None:
    assert (machine.kind, machine.name, machine.id) == ("machine", "Web 01", configurations.MACHINE)
    assert (machine.generation, machine.version_text, machine.notes) == (2, "8.0", "zwei\nZeilen")
    assert machine.highly_available
    assert machine.last_on is not None
    assert machine.last_on.year == 2023
    assert (machine.memory.startup, machine.memory.minimum, machine.memory.maximum) == (4096, 1024, 8192)
    assert machine.memory.dynamic
    assert (machine.processors.count, machine.processors.compatible, machine.processors.nested) == (
        6,
        True,
        None,
    )
    assert (machine.start_action, machine.stop_action) == ("always", "unknown action 7")
    assert machine.places.checkpoints == "G:\\Checkpoints"
    assert machine.places.smart_paging == "F:\\Paging"
    assert machine.replica == {"replication/mode": 1, "replication/partner/name": "host2"}


def test_drives_have_controller_and_slot(machine: VirtualMachine) -> None:
    """SCSI controllers count in the order of the manifest, slots by their number, not their spelling."""
    assert [(d.bus, d.controller, d.slot, d.path) for d in machine.drives] == [
        ("SCSI", 0, 0, "E:\\VMs\\root.avhdx"),
        ("SCSI", 1, 2, "\\\\.\\PHYSICALDRIVE3"),
        ("SCSI", 1, 10, "E:\\VMs\\data.vhdx"),
        ("IDE", 1, 0, "D:\\iso\\setup.iso"),
    ]
    assert [d.is_file for d in machine.drives] == [True, False, True, True]
    assert not any(d.empty for d in machine.drives)
    assert machine.drives[2].settings == {"iops_limit": 500}


def test_empty_slots() -> None:
    drive = read_machine(binary(configurations.machine())).drives[0]
    assert replace(drive, medium="NONE").empty
    assert replace(drive, medium="ISO", path="").empty
    assert not replace(drive, path="").is_file


def test_network_adapters(machine: VirtualMachine) -> None:
    lan, old = machine.adapters
    assert (lan.name, lan.mac, lan.mac_static, lan.connected) == ("LAN", "00-15-5D-01-02-03", True, True)
    assert (lan.switch, lan.switch_name, lan.legacy) == (configurations.SWITCH, "Extern", False)
    assert lan.vlan is not None
    assert (lan.vlan.name, lan.vlan.data) == ("VLAN", (configurations.VLAN_BLOB,))
    assert (old.name, old.mac, old.legacy, old.vlan) == ("Old", None, True, None)


def vlan_bytes(*numbers: int, rest: bytes = b"") -> bytes:
    """Mode, access, native, private mode, primary, secondary."""
    return struct.pack("<IHHIHH", *numbers) + rest


@pytest.mark.parametrize(
    ("data", "vlan"),
    [
        (vlan_bytes(1, 20, 0, 0, 0, 0), Vlan("access", access=20)),
        (vlan_bytes(1, 4094, 0, 0, 0, 0, rest=bytes(1536)), Vlan("access", access=4094)),
        (vlan_bytes(2, 0, 10, 0, 0, 0, rest=b"\xff" * 64), Vlan("trunk", native=10)),
        (vlan_bytes(3, 0, 0, 1, 10, 200), Vlan("isolated", primary=10, secondary=200)),
        (vlan_bytes(3, 0, 0, 2, 10, 201), Vlan("community", primary=10, secondary=201)),
        (vlan_bytes(3, 0, 0, 3, 10, 0, rest=b"\x01"), Vlan("promiscuous", primary=10)),
        (vlan_bytes(1, 0, 0, 0, 0, 0), None),
        (vlan_bytes(1, 4095, 0, 0, 0, 0), None),
        (vlan_bytes(1, 20, 1, 0, 0, 0), None),
        (vlan_bytes(3, 0, 0, 4, 10, 200), None),
        (vlan_bytes(3, 0, 0, 1, 10, 0), None),
        (vlan_bytes(0, 0, 0, 0, 0, 0), None),
        (vlan_bytes(1, 20, 0, 0, 0, 0)[:-1], None),
        # as the driver's NDIS_SWITCH_PORT_PROPERTY_VLAN has it: with a head, or without one but aligned to 8 bytes
        (struct.pack("<BBHII4xHH1024x", 0x80, 1, 1040, 0, 1, 20, 0), None),
        (struct.pack("<I4xHH1024x", 1, 20, 0), None),
        (configurations.VLAN_BLOB, None),
    ],
)
def test_vlans_are_read_only_where_all_numbers_make_sense(data: bytes, vlan: Vlan | None) -> None:
    assert parse_vlan(PortFeature("", "VLAN", (data,))) == vlan


def test_several_or_no_vlan_settings_are_not_guessed() -> None:
    one = vlan_bytes(1, 20, 0, 0, 0, 0)
    assert parse_vlan(PortFeature("", "VLAN", ())) is None
    assert parse_vlan(PortFeature("", "VLAN", (one, one))) is None


@given(st.binary(max_size=64))
def test_any_bytes_are_a_vlan_or_none(data: bytes) -> None:
    found = parse_vlan(PortFeature("", "VLAN", (data,)))
    assert found is None or all(0 <= n < 4095 for n in (found.access, found.native, found.primary))


def test_firmware_and_security(machine: VirtualMachine) -> None:
    assert machine.firmware.secure_boot
    assert machine.firmware.template == "Microsoft UEFI Certificate Authority"
    assert machine.firmware.boot_order == ("HardDrive", "Network")
    assert machine.firmware.nvram_bytes == 3000
    assert machine.firmware.guest_state_file == "E:\\VMs\\state.vmgs"
    security = machine.security
    assert (security.tpm_listed, security.tpm, security.shielded) == (True, True, False)
    assert security.data_protection is None


def test_checkpoints_of_a_machine(machine: VirtualMachine) -> None:
    checkpoints = machine.checkpoints
    assert (checkpoints.count, checkpoints.merge_pending, checkpoints.automatic) == (2, True, False)
    assert [e.guids for e in checkpoints.entries] == [
        (configurations.FIRST,),
        (configurations.SECOND, configurations.FIRST),
    ]
    assert checkpoints.parent is None
    assert not machine.saved_state.present


def test_what_is_not_understood_is_named(machine: VirtualMachine) -> None:
    assert set(machine.unread) == {
        "configuration/invented/thing",
        "configuration/global_settings/generation_id",  # not where it belongs
        "configuration/global_settings/snapshots/list/entry0/label",
    }


def test_the_parent_of_a_checkpoint() -> None:
    text = configurations.machine(guid=configurations.SECOND, parent=configurations.FIRST, kind="Snapshots")
    second = read_machine(xml(text))
    assert (second.kind, second.machine_id) == ("checkpoint", configurations.MACHINE)
    assert (second.checkpoints.parent, second.checkpoints.parent_key) == (
        configurations.FIRST,
        "properties/parent_id",
    )


@pytest.mark.parametrize("form", [binary, xml])
def test_saved_machines(form: object) -> None:
    assert callable(form)
    saved = read_machine(form(configurations.machine(saved="Normal"))).saved_state
    assert saved.present
    assert (saved.type, saved.memory_file) == ("Normal", "E:\\VMs\\s.bin")


def test_state_files() -> None:
    root = binary(configurations.state(30))
    assert content_of(root) == "state"
    state = read_saved_state(root)
    assert (state.present, state.version, state.has_processors, state.memory_blocks) == (
        True,
        0x0900,
        True,
        30,
    )
    idle = binary([("configuration", [("properties", [("version", 0x0900)])])])
    assert content_of(idle) == "state"
    assert not read_saved_state(idle).present


def test_the_list_of_machines() -> None:
    root = binary(
        [
            (
                "Configurations",
                [
                    ("FormatVersion", 2),
                    ("VirtualMachines", [(f"_{configurations.MACHINE.upper()}_", "E:\\VMs\\x.vmcx")]),
                    ("New", 1),
                ],
            )
        ]
    )
    assert content_of(root) == "known machines"
    known = read_known_machines(root)
    assert known.machines == {configurations.MACHINE: "E:\\VMs\\x.vmcx"}
    assert known.unread == ("Configurations/New",)
    with pytest.raises(FormatError, match="configuration/properties"):
        read_machine(root)
    with pytest.raises(FormatError, match="Configurations"):
        read_known_machines(binary(configurations.state(1)))


def test_values_of_unexpected_types_are_not_taken() -> None:
    tree: Tree = [("configuration", [("properties", [("name", 7), ("version", "nine"), ("subtype", True)])])]
    machine = read_machine(binary(tree))
    assert (machine.name, machine.version, machine.version_text, machine.generation) == ("", None, "?", None)
    assert len(machine.unread) == 3


# --- XML


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-8", "utf-8-sig"])
def test_encodings(encoding: str) -> None:
    data = configurations.as_xml(configurations.machine(name="Größe 内存 <&>"), encoding)
    assert is_vm_xml(BytesSource(data))
    assert read_machine(parse_vm_xml(BytesSource(data)).root).name == "Größe 内存 <&>"
    # big endian with its mark as well
    swapped = b"\xfe\xff" + data.decode(encoding).encode("utf-16-be")
    assert read_machine(parse_vm_xml(BytesSource(swapped)).root).name == "Größe 内存 <&>"


def test_odd_values_are_kept_as_text_and_named() -> None:
    text = """<configuration><a type="integer">1x</a><b type="bool">maybe</b><c type="bytes">*</c><d>bare</d>
    <e type="string">5</e><f type="integer"> -3 </f><g type="new">v</g><h type="string">x<i/></h><j/></configuration>"""
    parsed = parse_vm_xml(BytesSource(text.encode()))
    configuration = parsed.root.children[0]
    values = {n.name: (n.kind, n.value) for n in configuration.children}
    assert values["a"] == (Kind.STRING, "1x")
    assert values["f"] == (Kind.INT, -3)
    assert values["e"] == (Kind.STRING, "5")
    assert values["j"] == (Kind.NODE, None)
    assert [n.split()[0] for n in parsed.notes] == ["a", "b", "c", "d", "g", "h"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no element"),
        ("<configuration>", "line 1"),
        ("<domain/>", "root element"),
        ("<configuration/><configuration/>", "junk"),
        ('<!DOCTYPE c [<!ENTITY a "b">]><configuration>&a;</configuration>', "document type"),
        ('<!DOCTYPE configuration SYSTEM "file:///etc/passwd"><configuration/>', "document type"),
        ("<configuration>&a;</configuration>", "undefined entity"),
        ("<configuration>" + "<a>" * 100, "levels"),
        ("<configuration>" + "<a/>" * 500_001 + "</configuration>", "levels or elements"),
        ("<configuration>\0</configuration>", "line 1"),
    ],
)
def test_xml_that_is_refused(text: str, problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        parse_vm_xml(BytesSource(text.encode()))


def test_bytes_that_are_no_text() -> None:
    for data in (b"\xff\xfe<\0\x00\xd8", b"\xc3(", b"\xff\xfe<"):
        with pytest.raises(FormatError):
            parse_vm_xml(BytesSource(data))
        assert not is_vm_xml(BytesSource(data))
    with pytest.raises(FormatError, match="more than any"):
        parse_vm_xml(BytesSource(bytes(LARGEST + 1)))


SAMPLE = configurations.as_xml(configurations.machine(), "utf-8")


@settings(max_examples=150, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255)), max_size=8),
    cut=st.none() | st.integers(0, len(SAMPLE)),
)
def test_mutated_xml(changes: list[tuple[int, int]], cut: int | None) -> None:
    data = bytearray(SAMPLE)
    for at, byte in changes:
        data[at] = byte
    try:
        root = parse_vm_xml(BytesSource(bytes(data[:cut]))).root
        content_of(root)
        read_saved_state(root)
        read_machine(root)
    except FormatError:
        pass


NAMES = st.sampled_from(
    ["configuration", "properties", "name", "manifest", "vdev001", "settings", "memory", "bank", "size", "boot",
     "snapshots", "list", "parent_id", "controller0", "drive0", "MacAddress", "Connection", "savedstate", "RamBlock0",
     f"_{configurations.SCSI_A}_", f"_{configurations.NIC_A}_", "global_settings", "Configurations"]
)  # fmt: skip
LEAVES = st.one_of(st.booleans(), st.integers(-9, 9), st.text(max_size=5), st.binary(max_size=9), st.floats())
TREES = st.recursive(
    st.lists(st.tuples(NAMES, LEAVES), max_size=4),
    lambda below: st.lists(st.tuples(NAMES, below | LEAVES), max_size=5),
    max_leaves=30,
)


@settings(max_examples=150, deadline=None)
@given(TREES)
def test_trees_of_any_shape(tree: Tree) -> None:
    """Any value at any known place: the model is made of what fits, or there is no machine."""

    def node(name: str, value: object) -> Node:
        if isinstance(value, list):
            return Node(name, children=[node(n, v) for n, v in value])
        assert isinstance(value, bool | int | float | str | bytes)
        return Node(name, Kind.STRING, value)

    for root in (
        node("", tree),
        Node("", children=[Node("configuration", children=[node("properties", tree)])]),
    ):
        content_of(root)
        read_saved_state(root)
        for read in (read_machine, read_known_machines):
            try:
                read(root)
            except FormatError:
                continue
