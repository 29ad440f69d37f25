"""A Hyper-V host made by code: three "arrays" with five virtual machines, as Windows Server 2016 or 2012 R2 keeps them.

    host = make_host(folder)                  # disk0.img (C:), disk1.img (D:, GPT), disk2.img (E:, MBR)
    host.images, host.files["D:\\VMs\\web01\\Virtual Hard Disks\\web01.vhdx"]

* web01: two checkpoints, so a chain of three disks; change tracking files
* sql: its files are scattered over three volumes; smart paging, an ISO image, a pass-through disk
* dc01: saved, on an Intel processor; autostart
* test and test: two of one name, whose disks have one parent (a golden image)
* and a disk that belongs to nobody.

Nothing is Microsoft's: configurations, states and disks are written by the writers of tests/support. Contents of the
disks are noise, so that a copy can be compared.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid5

from support import disks, hives, vhd_image, vhdx_image, vmcx_image, windows
from support.disks import DiskLayout, PartitionLayout, PartitionSpec
from support.hives import Value, binary, dword, multi_sz, sz
from support.ntfs_image import NtfsImage
from support.vhdx_image import MIB, PRESENT
from support.vm_configurations import as_xml
from support.vmcx_image import Tree
from support.windows import Release, noise

_NAMESPACE = UUID("7f3a1f5e-2d0e-4b58-9a0e-0d7a5f6f0c11")
_SCSI = "d422512d-2bf2-4752-809d-7b82b5fcb1b4"
_IDE = "83f8638b-8dca-4152-9eda-2ca8b33039b4"
_ETHERNET = "2fc216b0-d2e2-4967-9b6d-b8a5c9ca2778"
_GUEST_STATE = "917bd8cb-3bb6-4124-9383-b7d21ac07f79"
HYPERV = "C:\\ProgramData\\Microsoft\\Windows\\Hyper-V"
SYMLINK = 0xA000000C
SERVER_2012_R2 = Release("Windows Server 2012 R2 Standard", 9600, 17415, "")

EXTERN, INTERN = "5a000000-0000-4000-8000-000000000001", "5a000000-0000-4000-8000-000000000002"
PRIVATE, TEAMED = "5a000000-0000-4000-8000-000000000003", "5a000000-0000-4000-8000-000000000004"
CARDS = tuple(f"ca000000-0000-4000-8000-00000000000{i}" for i in range(1, 7))


def guid(name: str) -> str:
    return str(uuid5(_NAMESPACE, name))


WEB, SQL, DC = guid("web01"), guid("sql"), guid("dc01")
TEST_A, TEST_B = guid("test A"), guid("test B")
FIRST, SECOND = guid("checkpoint 1"), guid("checkpoint 2")


# --- configurations


@dataclass(frozen=True)
class Vm:
    """What a configuration is written from. ``disks``: (bus, controller, slot, medium, path)."""

    id: str
    name: str
    disks: Sequence[tuple[str, int, int, str, str]]
    generation: int = 2
    version: int = 0x0800
    memory: int = 2048
    processors: int = 2
    switch: str = EXTERN
    start: int = 1
    stop: int = 1
    more: Tree = ()
    general: Tree = ()


def configuration(vm: Vm, *, kind: str = "Virtual Machines", of: str = "", parent: str = "") -> Tree:
    """The tree of a configuration with the keys of real ones."""
    devices: dict[str, dict[int, list[tuple[str, Tree]]]] = {}
    for bus, controller, slot, medium, path in vm.disks:
        drive: Tree = [("type", medium), ("pathname", path)]
        devices.setdefault(bus, {}).setdefault(controller, []).append((f"drive{slot}", drive))
    nic = guid(f"{vm.id} nic")
    manifest: list[tuple[str, str, str]] = [(_ETHERNET, nic, "Synthetic Ethernet Port")]
    nodes: list[tuple[str, Tree]] = []
    for bus, controllers in devices.items():
        instance = _IDE if bus == "IDE" else guid(f"{vm.id} scsi")
        if bus != "IDE":
            manifest.append((_SCSI, instance, "Synthetic SCSI Controller"))
        nodes.append((f"_{instance}_", [(f"controller{n}", d) for n, d in controllers.items()]))
    mac = "-".join(f"{b:02X}" for b in (0x00, 0x15, 0x5D, *bytes.fromhex(vm.id[:6])))
    nodes.append(
        (
            f"_{nic}_",
            [
                ("FriendlyName", "LAN"),
                ("MacAddress", mac),
                ("MacAddressIsStatic", False),
                ("IsConnected", bool(vm.switch)),
                ("SwitchName", vm.switch.upper()),
            ],
        )
    )
    properties: Tree = [
        ("name", vm.name),
        ("global_id", vm.id.upper()),
        ("type_id", kind),
        ("subtype", vm.generation - 1),
        ("version", vm.version),
        ("notes", ""),
        *([("parent_id", f"{{{parent.upper()}}}")] if parent else []),
    ]
    general: Tree = [
        ("power", [("host_startup", [("action", vm.start)]), ("host_shutdown", [("action", vm.stop)])]),
        *vm.general,
    ]
    memory: Tree = [
        ("size", vm.memory),
        ("reservation", 512),
        ("limit", 1 << 20),
        ("dynamic_memory_enabled", False),
    ]
    return [
        (
            "configuration",
            [
                ("properties", properties),
                ("global_settings", general),
                (
                    "settings",
                    [
                        ("global", [("logical_id", (of or vm.id).upper())]),
                        ("memory", [("bank", memory)]),
                        ("processors", [("count", vm.processors)]),
                    ],
                ),
                (
                    "manifest",
                    [
                        ("size", len(manifest)),
                        *(
                            (
                                f"vdev{i:03}",
                                [("device", d), ("instance", inst.upper()), ("name", n), ("flags", 1)],
                            )
                            for i, (d, inst, n) in enumerate(manifest, 1)
                        ),
                    ],
                ),
                *nodes,
                *vm.more,
            ],
        )
    ]


def vmcx(tree: Tree) -> bytes:
    return vmcx_image.build(tree).bytes


def idle_state(version: int = 0x0800) -> bytes:
    """The state file of a machine that was shut down."""
    return vmcx([("configuration", [("properties", [("version", version)])])])


def saved_state(maker: bytes = b"GenuineIntel", blocks: int = 20) -> bytes:
    """The state file of a saved machine: the processor's name, and some memory."""
    leaf = struct.pack("<I4s4s4s", 0x16, maker[:4], maker[8:], maker[4:8])  # EAX, EBX, ECX, EDX
    partition = bytes(3000) + leaf + bytes(1000)
    memory = [(f"RamBlock{i}", noise(f"ram{i}", 4096)) for i in range(blocks)]
    return vmcx(
        [
            ("savedstate", [("VmVersion", 0x0800), ("type", "Normal"), ("savedVM", [("partition_state", partition)]), *memory]),
            ("configuration", [("properties", [("version", 0x0800)])]),
        ]
    )  # fmt: skip


def guest_state(files: Mapping[int, int], algorithm: int = 0) -> bytes:
    """A guest state file (.vmgs) with these sizes by number; block 2 has the table, block 3 nothing."""
    head = struct.pack("<8sIIIIIIH", b"GUESTRTS", 0x30000, 0, 1, 168, 2, 1, algorithm).ljust(4096, b"\0")
    entries = (struct.pack("<IIQ48x", 4, 1, files[i]) if i in files else bytes(64) for i in range(64))
    return head * 2 + b"".join(entries) + bytes(2 * 4096)


# --- virtual disks


def vhdx(name: str, parent: Mapping[str, str] | None = None) -> bytes:
    """A disk of 64 MiB with one block of noise. Its data write GUID follows from ``name``."""
    items = vhdx_image.items(block_size=MIB, parent=parent)
    data = vhdx_image.build(items, bat={0: (PRESENT, 4)}, size=5 * MIB, data_write=UUID(guid(name)))
    data[4 * MIB :] = noise(name, MIB)
    return bytes(data)


def child_of(parent: str, path: str, absolute: str = "") -> dict[str, str]:
    """The locator of a child: ``path`` is the relative path of its parent, whose name was ``parent``."""
    found = {"parent_linkage": f"{{{guid(parent).upper()}}}", "relative_path": path}
    return found | ({"absolute_win32_path": absolute} if absolute else {})


def vhd(name: str) -> bytes:
    data = noise(name, MIB)
    return data + vhd_image.footer(vhd_image.FIXED, MIB, UUID(guid(name)))


# --- the host


@dataclass
class Host:
    """What was made. ``files`` are all files of Hyper-V by their path under the old Windows."""

    layouts: tuple[DiskLayout, ...]
    files: dict[str, bytes]
    links: dict[str, str] = field(default_factory=dict)

    @property
    def images(self) -> list[Path]:
        return [layout.path for layout in self.layouts]

    def place(self, letter: str) -> tuple[DiskLayout, PartitionLayout]:
        layout = self.layouts["CDE".index(letter[0])]
        return layout, layout["windows" if letter[0] == "C" else "data"]


def files_2016() -> dict[str, bytes]:
    """Everything of Hyper-V on the host of 2016."""
    web, disks_ = "D:\\VMs\\web01", "D:\\VMs\\web01\\Virtual Hard Disks"
    first, second = f"web01_{FIRST.upper()}.avhdx", f"web01_{SECOND.upper()}.avhdx"

    def web_at(disk: str, **more: object) -> Vm:
        name = more.pop("name", "web01")
        drives = [("SCSI", 0, 0, "VHD", f"{disks_}\\{disk}")]
        state = (f"_{_GUEST_STATE}_", [("StateFilePath", f"{web}\\Virtual Machines\\{WEB.upper()}.vmgs")])
        return Vm(str(more.pop("id", WEB)), str(name), drives, more=[state] if "own" in more else [])

    known = {
        WEB: f"{web}\\Virtual Machines\\{WEB.upper()}.vmcx",
        SQL: f"{HYPERV}\\Virtual Machines\\{SQL.upper()}.vmcx",
        DC: f"E:\\VMs\\dc01\\Virtual Machines\\{DC.upper()}.vmcx",
        TEST_A: f"D:\\A\\test\\Virtual Machines\\{TEST_A.upper()}.vmcx",
        TEST_B: f"D:\\B\\test\\Virtual Machines\\{TEST_B.upper()}.vmcx",
    }
    sql = Vm(
        SQL,
        "sql",
        [
            ("SCSI", 0, 0, "VHD", "D:\\Disks\\sql-os.vhdx"),
            ("SCSI", 0, 1, "VHD", "E:\\Data\\sql-data.vhdx"),
            ("SCSI", 0, 2, "VHD", "\\\\.\\PHYSICALDRIVE3"),
            ("SCSI", 0, 3, "ISO", "D:\\ISO\\setup.iso"),
        ],
        memory=8192,
        processors=4,
        switch=TEAMED,
        general=[("slp_data_root", "E:\\Paging")],
    )
    dc = Vm(DC, "dc01", [("IDE", 0, 0, "VHD", "E:\\VMs\\dc01\\dc01.vhd")], generation=1, start=2)
    listing: Tree = [
        (
            "Configurations",
            [
                ("FormatVersion", 2),
                ("VirtualMachines", [(f"_{g.upper()}_", path) for g, path in known.items()]),
                ("VirtualMachinesCache", []),
                ("ResourceTypes", []),
            ],
        )
    ]
    files = {
        f"{HYPERV}\\data.vmcx": vmcx(listing),
        # web01
        known[WEB]: vmcx(configuration(web_at(second, own=True), parent=SECOND)),
        known[WEB][:-4] + "vmrs": idle_state(),
        known[WEB][:-4] + "vmgs": guest_state({1: 5000}),
        f"{web}\\Snapshots\\{FIRST.upper()}.vmcx": vmcx(
            configuration(web_at("web01.vhdx", id=FIRST, name="before the update"), kind="Snapshots", of=WEB)
        ),
        f"{web}\\Snapshots\\{FIRST.upper()}.vmrs": saved_state(blocks=3),
        f"{web}\\Snapshots\\{SECOND.upper()}.vmcx": vmcx(
            configuration(web_at(first, id=SECOND, name="after it"), kind="Snapshots", of=WEB, parent=FIRST)
        ),
        f"{web}\\Snapshots\\{SECOND.upper()}.vmrs": idle_state(),
        f"{disks_}\\web01.vhdx": vhdx("web01"),
        f"{disks_}\\{first}": vhdx("web01 1", child_of("web01", ".\\web01.vhdx")),
        f"{disks_}\\{second}": vhdx("web01 2", child_of("web01 1", f".\\{first}", f"{disks_}\\{first}")),
        f"{disks_}\\{second}.rct": noise("rct", 3000),
        f"{disks_}\\{second}.mrt": noise("mrt", 3000),
        # sql
        known[SQL]: vmcx(configuration(sql)),
        known[SQL][:-4] + "vmrs": idle_state(),
        "D:\\Disks\\sql-os.vhdx": vhdx("sql-os"),
        "E:\\Data\\sql-data.vhdx": vhdx("sql-data"),
        f"E:\\Paging\\{SQL.upper()}.slp": noise("paging", 5000),
        "D:\\ISO\\setup.iso": noise("iso", 70_000),
        # dc01
        known[DC]: vmcx(configuration(dc)),
        known[DC][:-4] + "vmrs": saved_state(),
        "E:\\VMs\\dc01\\dc01.vhd": vhd("dc01"),
        # two of one name
        "D:\\Golden\\base.vhdx": vhdx("golden"),
        "D:\\old\\forgotten.vhdx": vhdx("forgotten"),
    }
    for letter, identifier in (("A", TEST_A), ("B", TEST_B)):
        disk = f"D:\\{letter}\\test\\Virtual Hard Disks\\test.vhdx"
        files[known[identifier]] = vmcx(configuration(Vm(identifier, "test", [("SCSI", 0, 0, "VHD", disk)])))
        files[known[identifier][:-4] + "vmrs"] = idle_state()
        files[disk] = vhdx(f"test {letter}", child_of("golden", "..\\..\\..\\Golden\\base.vhdx"))
    return files


def files_2012() -> tuple[dict[str, bytes], dict[str, str]]:
    """Everything of Hyper-V on the host of 2012 R2, and the links by which it knows its machines."""
    avhdx = f"web01_{FIRST.upper()}.avhdx"
    web, saved = "D:\\VMs\\web01", f"E:\\VMs\\dc01\\Virtual Machines\\{DC.upper()}"

    def xml(vm: Vm, **more: str) -> bytes:
        return as_xml(configuration(vm, **more))

    def web_vm(identifier: str, name: str, disk: str) -> Vm:
        return Vm(identifier, name, [("IDE", 0, 0, "VHD", f"{web}\\{disk}")], 1, 0x0500)

    dc = Vm(DC, "dc01", [("IDE", 0, 0, "VHD", "E:\\VMs\\dc01\\dc01.vhd")], 1, 0x0500)
    files = {
        f"{web}\\Virtual Machines\\{WEB.upper()}.xml": xml(web_vm(WEB, "web01", avhdx), parent=FIRST),
        f"{web}\\Snapshots\\{FIRST.upper()}.xml": xml(
            web_vm(FIRST, "checkpoint", "web01.vhdx"), kind="Snapshots", of=WEB
        ),
        f"{web}\\web01.vhdx": vhdx("web01"),
        f"{web}\\{avhdx}": vhdx("web01 1", child_of("web01", ".\\web01.vhdx")),
        f"{saved}.xml": xml(dc),
        f"{saved}\\{DC.upper()}.bin": noise("memory", 200_000),
        f"{saved}\\{DC.upper()}.vsv": noise("state", 20_000),
        "E:\\VMs\\dc01\\dc01.vhd": vhd("dc01"),
    }
    links = {
        f"{HYPERV}\\Virtual Machines\\{WEB.upper()}.xml": f"{web}\\Virtual Machines\\{WEB.upper()}.xml",
        f"{HYPERV}\\Virtual Machines\\{DC.upper()}.xml": f"{saved}.xml",
        f"{HYPERV}\\Snapshots\\{FIRST.upper()}.xml": f"{web}\\Snapshots\\{FIRST.upper()}.xml",
    }
    return files, links


def make_host(
    folder: Path,
    style: str = "2016",
    *,
    more: Mapping[str, bytes] = {},
    without: Sequence[str] = (),
    letters: bool = True,
    name: str = "HV01",
) -> Host:
    """Writes the three disks into ``folder``. ``more`` adds or replaces files, ``without`` leaves some out.

    Without ``letters`` MountedDevices is that of other disks, as after a restore to new ones.
    """
    files, links = (files_2016(), {}) if style == "2016" else files_2012()
    files = {path: data for path, data in (files | dict(more)).items() if path not in without}
    release = windows.SERVER_2016 if style == "2016" else SERVER_2012_R2
    system = windows.gpt_server(folder / "disk0.img", release=release, recovery=False)
    size = {d: 48 * MIB + sum(len(data) for p, data in files.items() if p[0] == d) for d in "DE"}
    data = disks.make_disk(
        folder / "disk1.img", [PartitionSpec("data", _whole(size["D"]), "ntfs", label="Data")]
    )
    archive = disks.make_disk(
        folder / "disk2.img",
        [PartitionSpec("data", _whole(size["E"]), "ntfs", "07", label="Archive")],
        style="mbr",
    )
    host = Host((system, data, archive), files, links)
    own = {
        "C:\\Windows\\System32\\config\\SYSTEM": system_hive(host, letters, name),
        "C:\\Windows\\System32\\config\\SOFTWARE": software_hive(release),
        "C:\\Windows\\System32\\config\\SECURITY": hives.empty_hive("SECURITY"),
        "C:\\Windows\\System32\\config\\SAM": hives.empty_hive("SAM"),
        "C:\\ProgramData\\Microsoft\\Crypto\\Keys\\key": noise("key", 700),
        "C:\\Windows\\System32\\Microsoft\\Protect\\S-1-5-18\\Preferred": noise("protect", 24),
    }
    for letter in "CDE":
        with disks.ntfs_volume(*host.place(letter)) as volume:
            for path, content in (files | own).items():
                if path[0] == letter:
                    volume.write(path[2:], content)
            for path, target in links.items():
                if path[0] == letter:
                    make_link(volume, path[2:], target)
    return host


def _whole(size: int) -> int:
    return -(-size // MIB) * MIB


def make_link(volume: NtfsImage, path: str, target: str, *, relative: bool = False) -> None:
    """A symbolic link as Windows makes it."""
    volume.write(path, b"")
    shown = target.encode("utf-16-le")
    stored = shown if relative else f"\\??\\{target}".encode("utf-16-le")
    head = struct.pack("<HHHHI", 0, len(stored), len(stored), len(shown), int(relative))
    volume.set_reparse(path, SYMLINK, head + stored + shown)


# --- hives


def mounted_devices(host: Host) -> dict[str, Value]:
    """The values of the three letters, a volume GUID, and an optical drive."""
    found: dict[str, Value] = {}
    for letter in "CDE":
        layout, part = host.place(letter)
        if layout.style == "gpt":
            assert part.unique_guid is not None
            data = b"DMIO:ID:" + UUID(part.unique_guid).bytes_le
        else:
            data = struct.pack("<IQ", layout.signature, part.offset)
        found[f"\\DosDevices\\{letter}:"] = binary(data)
        found[f"\\??\\Volume{{{guid(f'volume {letter}')}}}"] = binary(data)
    found["\\DosDevices\\F:"] = binary("\\??\\IDE#CdRomMsft____Virtual_CD".encode("utf-16-le"))
    return found


def system_hive(host: Host, letters: bool = True, name: str = "HV01") -> bytes:
    """Four switches (a team of two, external, internal, private), the host's adapters and roles."""
    control, services = "ControlSet001\\Control", "ControlSet001\\Services"
    network = f"{control}\\Network\\{{4D36E972-E325-11CE-BFC1-08002BE10318}}"
    drivers = f"{control}\\Class\\{{4D36E972-E325-11CE-BFC1-08002BE10318}}"
    switches = f"{services}\\vmsmp\\parameters"
    names = ("Ethernet", "Ethernet 2", "Ethernet 3", "vEthernet (Extern)", "vEthernet (Intern)", "Backup")
    keys: dict[str, dict[str, Value]] = {
        "MountedDevices": mounted_devices(host) if letters else {"\\DosDevices\\C:": binary(bytes(12))},
        f"{control}\\ComputerName\\ComputerName": {"ComputerName": sz(name)},
        f"{services}\\Tcpip\\Parameters": {"Domain": sz("example.net"), "Hostname": sz(name)},
        f"{services}\\DNS": {"Start": dword(2)},
        f"{services}\\W3SVC": {"Start": dword(4)},
        f"{switches}\\SwitchList\\{EXTERN.upper()}": {"FriendlyName": sz("Extern")},
        f"{switches}\\SwitchList\\{EXTERN.upper()}\\{guid('port 1').upper()}": {
            "FriendlyName": sz(f"Host Vnic {CARDS[3].upper()}")
        },
        f"{switches}\\SwitchList\\{INTERN.upper()}": {"FriendlyName": sz("Intern")},
        f"{switches}\\SwitchList\\{PRIVATE.upper()}": {"FriendlyName": sz("Labor")},
        f"{switches}\\SwitchList\\{TEAMED.upper()}": {"FriendlyName": sz("Team"), "Unknown": dword(7)},
        f"{switches}\\NicList\\/DEVICE/{{{CARDS[0].upper()}}}": {
            "FriendlyName": sz("Intel(R) I350"),
            "SwitchName": sz(EXTERN.upper()),
        },
        f"{switches}\\NicList\\{guid('vm nic').upper()}": {
            "FriendlyName": sz("web01"),
            "SwitchName": sz(EXTERN.upper()),
        },
    }
    for card in CARDS[1:3]:
        keys[f"{switches}\\NicList\\/DEVICE/{{{card.upper()}}}"] = {"SwitchName": sz(TEAMED.upper())}
    for number, (card, shown) in enumerate(zip(CARDS, names, strict=True)):
        brace = f"{{{card.upper()}}}"
        keys[f"{network}\\{brace}\\Connection"] = {
            "Name": sz(shown),
            "PnPInstanceId": sz(f"PCI\\VEN_8086\\{number}"),
        }
        keys[f"{drivers}\\{number:04}"] = {"NetCfgInstanceId": sz(brace), "DriverDesc": sz("Intel(R) I350")}
    interfaces = f"{services}\\Tcpip\\Parameters\\Interfaces"
    keys[f"{interfaces}\\{{{CARDS[3].upper()}}}"] = {
        "EnableDHCP": dword(0),
        "IPAddress": multi_sz("192.0.2.10", "198.51.100.7"),
        "SubnetMask": multi_sz("255.255.255.0", "255.255.0.0"),
        "DefaultGateway": multi_sz("192.0.2.1"),
        "NameServer": sz("192.0.2.2,192.0.2.3"),
    }
    keys[f"{interfaces}\\{{{CARDS[5].upper()}}}"] = {"EnableDHCP": dword(1), "IPAddress": multi_sz("0.0.0.0")}
    return hives.make_hive(keys, base=windows.system_hive(name))


def software_hive(release: Release) -> bytes:
    virtualization = "Microsoft\\Windows NT\\CurrentVersion\\Virtualization"
    keys = {
        virtualization: {
            "DefaultExternalDataRoot": sz("D:\\VMs"),
            "DefaultVirtualHardDiskPath": sz("D:\\Disks"),
            "MinimumMacAddress": binary(bytes.fromhex("00155D000A00")),
            "MaximumMacAddress": binary(bytes.fromhex("00155D000AFF")),
        },
        f"{virtualization}\\Worker": {"Something": dword(1)},
    }
    return hives.make_hive(keys, base=windows.software_hive(release))
