"""Configurations of virtual machines for tests, with what no real sample has, as a tree for both kinds of file."""

from __future__ import annotations

import base64
from xml.sax.saxutils import escape

from support.vmcx_image import Tree

MACHINE = "0a1b2c3d-1111-4222-8333-444455556666"
FIRST = "aaaaaaaa-0000-4000-8000-000000000001"
SECOND = "aaaaaaaa-0000-4000-8000-000000000002"
SCSI_A = "11111111-aaaa-4aaa-8aaa-000000000001"
SCSI_B = "11111111-aaaa-4aaa-8aaa-000000000002"
NIC_A = "22222222-bbbb-4bbb-8bbb-000000000001"
NIC_B = "22222222-bbbb-4bbb-8bbb-000000000002"
SWITCH = "33333333-CCCC-4CCC-8CCC-000000000001"
VLAN_BLOB = bytes(range(16))

_IDE = "83f8638b-8dca-4152-9eda-2ca8b33039b4"
_SCSI = "d422512d-2bf2-4752-809d-7b82b5fcb1b4"
_ETHERNET = "2fc216b0-d2e2-4967-9b6d-b8a5c9ca2778"
_VLAN = "952C5004-4465-451C-8CB8-FA9AB382B773"


def _drive(medium: str, path: str, **more: int) -> Tree:
    return [("type", medium), ("pathname", path), *more.items()]


def machine(
    *, kind: str = "Virtual Machines", guid: str = MACHINE, name: str = "Web 01", disk: str = "root.avhdx",
    parent: str = "", saved: str = "", generation: int = 2,
) -> Tree:  # fmt: skip
    """A machine with two SCSI controllers, IDE, two adapters, two checkpoints, a virtual TPM and a replica."""
    devices = [
        ("736e6aa9-a3f8-49c0-9550-a963214d259a", "736E6AA9-A3F8-49C0-9550-A963214D259A", "Virtual TPM"),
        (_SCSI, SCSI_B.upper(), "Synthetic SCSI Controller"),
        (_SCSI, SCSI_A.upper(), "Synthetic SCSI Controller"),
        (_ETHERNET, NIC_A.upper(), "Synthetic Ethernet Port"),
        ("85c0f9f5-0000-4000-8000-000000000000", NIC_B.upper(), "Emulated Ethernet Port"),
        (
            "99999999-0000-4000-8000-000000000000",
            "99999999-0000-4000-8000-00000000000A",
            "Virtual PCI Express Port",
        ),
    ]
    manifest: Tree = [
        ("size", len(devices)),
        *(
            (f"vdev{i:03}", [("device", d), ("instance", inst), ("name", n), ("flags", 1)])
            for i, (d, inst, n) in enumerate(devices, 1)
        ),
    ]
    properties: Tree = [
        ("name", name),
        ("global_id", guid.upper()),
        ("type_id", kind),
        ("subtype", generation - 1),
        ("version", 0x0800),
        ("notes", "zwei\nZeilen"),
        ("highly_available", True),
        ("last_powered_on_time", 133211067586606556),
        *([("parent_id", f"{{{parent.upper()}}}")] if parent else []),
    ]
    general: Tree = [
        ("data_root", "E:\\VMs\\Web 01"),
        ("slp_data_root", "F:\\Paging"),
        ("disk_merge_pending", True),
        ("power", [("host_startup", [("action", 2)]), ("host_shutdown", [("action", 7)])]),
        (
            "snapshots",
            [
                ("data_root", "G:\\Checkpoints"),
                ("enable_automatic", False),
                (
                    "list",
                    [
                        ("size", 2),
                        ("entry0", [("guid", FIRST.upper()), ("label", "before the update")]),
                        (f"_{SECOND}_", [("parent", FIRST)]),
                    ],
                ),
            ],
        ),
        ("metrics", [("metric", [("value", 1)]), ("metric", [("value", 2)])]),
        ("generation_id", "x"),
    ]
    configuration: Tree = [
        ("properties", properties),
        ("global_settings", general),
        (
            "settings",
            [
                ("global", [("logical_id", MACHINE.upper())]),
                (
                    "memory",
                    [
                        (
                            "bank",
                            [
                                ("size", 4096), ("reservation", 1024), ("limit", 8192),
                                ("dynamic_memory_enabled", True), ("target_memory_buffer", 25),
                            ],
                        )
                    ],
                ),
                ("processors", [("count", 6), ("features", [("limit", True)])]),
            ],
        ),
        ("manifest", manifest),
        (f"_{_IDE}_", [("controller1", [("drive0", _drive("ISO", "D:\\iso\\setup.iso"))])]),
        (
            f"_{SCSI_A}_",
            [
                (
                    "controller0",
                    [
                        ("drive10", _drive("VHD", "E:\\VMs\\data.vhdx", iops_limit=500)),
                        ("drive2", _drive("VHD", "\\\\.\\PHYSICALDRIVE3")),
                    ],
                )
            ],
        ),
        (f"_{SCSI_B}_", [("controller0", [("drive0", _drive("VHD", f"E:\\VMs\\{disk}"))])]),
        (
            f"_{NIC_A}_",
            [
                ("FriendlyName", "LAN"),
                ("MacAddress", "00-15-5D-01-02-03"),
                ("MacAddressIsStatic", True),
                ("IsConnected", True),
                ("SwitchName", SWITCH),
                ("PortName", "44444444-DDDD-4DDD-8DDD-000000000001"),
                (
                    "Connection",
                    [
                        ("AltSwitchName", "Extern"),
                        (f"Feature_{_VLAN}", [("Flags", 0), ("Setting_1", [("Data", VLAN_BLOB), ("Version", 256)])]),
                        ("Features", [("Id", _VLAN)]),
                    ],
                ),
            ],
        ),
        (f"_{NIC_B}_", [("FriendlyName", "Old"), ("MacAddress", "00-00-00-00-00-00"), ("IsConnected", False)]),
        (
            "_ac6b8dc1-3257-4a70-b1b2-a9c9215659ad_",
            [
                ("secure_boot_enabled", True),
                ("secure_boot_template_id", "272E7447-90A4-4563-A4B9-8E4AB00526CE"),
                ("boot", [("device0", "HardDrive"), ("device1", "Network")]),
                ("nvram", bytes(3000)),
            ],
        ),
        ("_917bd8cb-3bb6-4124-9383-b7d21ac07f79_", [("StateFilePath", "E:\\VMs\\state.vmgs")]),
        ("security", [("settings", [("tpm_enabled", True), ("shielding_requested", False)])]),
        ("replication", [("mode", 1), ("partner", [("name", "host2")])]),
        ("invented", [("thing", 1)]),
        *(
            [("savedstate", [("type", saved), ("vsvlocation", "E:\\VMs\\s.vsv"), ("memlocation", "E:\\VMs\\s.bin")])]
            if saved
            else []
        ),
    ]  # fmt: skip
    return [("configuration", configuration)]


def state(blocks: int) -> Tree:
    """The state file of a saved machine."""
    memory = [(f"RamBlock{i}", bytes(2048)) for i in range(blocks)]
    return [
        (
            "savedstate",
            [
                ("VmVersion", 0x0900), ("type", "Normal"), ("savedVM", [("partition_state", bytes(5000))]),
                ("RamMemoryBlock0", bytes(48)), *memory,
            ],
        ),
        ("configuration", [("properties", [("version", 0x0900)])]),
    ]  # fmt: skip


def as_xml(tree: Tree, encoding: str = "utf-16") -> bytes:
    """The tree as Windows Server 2012 R2 writes it."""

    def element(name: str, value: object, depth: int) -> str:
        pad = "  " * depth
        if isinstance(value, bool):
            return f'{pad}<{name} type="bool">{value}</{name}>\n'
        if isinstance(value, int):
            return f'{pad}<{name} type="integer">{value}</{name}>\n'
        if isinstance(value, bytes):
            return f'{pad}<{name} type="bytes">{base64.encodebytes(value).decode()}</{name}>\n'
        if isinstance(value, str):
            return f'{pad}<{name} type="string">{escape(value)}</{name}>\n'
        assert isinstance(value, list | tuple)
        inside = "".join(element(n, v, depth + 1) for n, v in value)
        return f"{pad}<{name}>\n{inside}{pad}</{name}>\n"

    text = '<?xml version="1.0" encoding="UTF-16" standalone="yes"?>\n'
    return (text + "".join(element(n, v, 0) for n, v in tree)).encode(encoding)
