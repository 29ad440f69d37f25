"""Boot stores for tests, as Windows makes them for a disk of support/disks.py, and a reader of device elements.

Everything is written through hivex, with an encoder of its own: the product's is not used, so that both can be
compared. What each object holds follows stores of installed systems.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from support import hives
from support.disks import DiskLayout, PartitionLayout
from support.hives import Value, binary, dword, multi_sz, sz

BOOTMGR = "{9dea862c-5cdd-4e70-acc1-f32b344d4795}"
FWBOOTMGR = "{a5a30fa2-3d06-4e9f-b5f4-a01df9d1fcba}"
MEMDIAG = "{b2721d73-1db4-4c62-bf78-c548a880142d}"
GLOBAL = "{7ea2e1ac-2e61-4728-aaa3-896d9d0a9f0e}"
LOADER_SETTINGS = "{6efb52bf-1766-41db-a6b3-0ee5eff72bd7}"
RESUME_SETTINGS = "{1afa9c49-16ab-4a5c-901b-212802da9460}"
DEBUGGER = "{4636856e-540f-4170-a130-a84776f4c654}"
EMS = "{0ce4991b-e6b3-4b16-b23c-5e0d9250e5d9}"
BAD_MEMORY = "{5189b25c-5558-4bf2-bca4-289b11bd29e2}"
HYPERVISOR = "{7ff607e0-4395-11db-b0de-0800200c9a66}"
# random ones of the installation
LOADER = "{1c6f5e30-0b1a-11e7-93ae-92361f002671}"
RESUME = "{1c6f5e2f-0b1a-11e7-93ae-92361f002671}"
WINRE = "{1c6f5e32-0b1a-11e7-93ae-92361f002671}"
WINRE_OPTIONS = "{1c6f5e33-0b1a-11e7-93ae-92361f002671}"

WIM = "\\Recovery\\WindowsRE\\Winre.wim"
SDI = "\\Recovery\\WindowsRE\\boot.sdi"


# --- device elements


def partition_header(body: bytes, kind: int = 6, flags: int = 0) -> bytes:
    return struct.pack("<IIII", kind, flags, 16 + len(body), 0) + body


def partition(disk: DiskLayout, part: PartitionLayout) -> bytes:
    """The device "partition=...", 88 bytes, without a leading options object: header and body only (72)."""
    if disk.style == "gpt":
        assert disk.disk_guid is not None
        assert part.unique_guid is not None
        place = uuid.UUID(part.unique_guid).bytes_le
        identity = uuid.UUID(disk.disk_guid).bytes_le
        style = 0
    else:
        place = struct.pack("<QQ", part.offset, 0)
        identity = struct.pack("<I", disk.signature).ljust(16, b"\0")
        style = 1
    return partition_header(place + struct.pack("<II", 0, style) + identity + bytes(16))


def device(disk: DiskLayout, part: PartitionLayout) -> bytes:
    return bytes(16) + partition(disk, part)


def boot_device() -> bytes:
    return bytes(16) + partition_header(bytes(56), kind=5)


def ramdisk(disk: DiskLayout, part: PartitionLayout, path: str, options: str) -> bytes:
    nested = partition(disk, part)
    name = path.encode("utf-16-le") + b"\0\0"
    file_path = struct.pack("<III", 1, 12 + len(nested) + len(name), 5) + nested + name
    body = struct.pack("<IQQI", 3, 0, 0, 0) + file_path
    return uuid.UUID(options.strip("{}")).bytes_le + partition_header(body, kind=0, flags=1)


# --- whole stores


def integer(number: int) -> Value:
    return binary(struct.pack("<Q", number))


def boolean(flag: bool) -> Value:
    return binary(bytes([flag]))


@dataclass
class Objects:
    """Objects of a store by GUID: their type and their elements by number."""

    items: dict[str, tuple[int, dict[int, Value]]] = field(default_factory=dict)

    def add(self, guid: str, kind: int, elements: Mapping[int, Value]) -> None:
        self.items[guid] = (kind, dict(elements))

    def hive(self, key_name: str = "BCD00000000") -> bytes:
        keys: dict[str, dict[str, Value]] = {
            "Description": {"KeyName": sz(key_name), "System": dword(1), "TreatAsSystem": dword(1)}
        }
        for guid, (kind, elements) in self.items.items():
            keys[f"Objects\\{guid}\\Description"] = {"Type": dword(kind)}
            keys[f"Objects\\{guid}\\Elements"] = {}
            for number, value in elements.items():
                keys[f"Objects\\{guid}\\Elements\\{number:08x}"] = {"Element": value}
        return hives.make_hive(keys, name="\\Device\\Boot\\BCD")


def _settings(store: Objects) -> None:
    store.add(GLOBAL, 0x20100000, {0x14000006: multi_sz(DEBUGGER, EMS, BAD_MEMORY)})
    store.add(DEBUGGER, 0x20100000, {0x15000011: integer(4)})
    store.add(EMS, 0x20100000, {0x16000020: boolean(False)})
    store.add(BAD_MEMORY, 0x20100000, {})
    store.add(HYPERVISOR, 0x20200003, {0x250000F3: integer(0), 0x250000F4: integer(1)})
    store.add(LOADER_SETTINGS, 0x20200003, {0x14000006: multi_sz(GLOBAL, HYPERVISOR)})
    store.add(RESUME_SETTINGS, 0x20200004, {0x14000006: multi_sz(GLOBAL)})


def _winre(store: Objects, disk: DiskLayout, volume: PartitionLayout, locale: str, efi: bool) -> None:
    image = binary(ramdisk(disk, volume, WIM, WINRE_OPTIONS))
    loader = "\\windows\\system32\\winload.efi" if efi else "\\windows\\system32\\winload.exe"
    elements = {
        0x11000001: image,
        0x12000002: sz(loader),
        0x12000004: sz("Windows Recovery Environment"),
        0x12000005: sz(locale),
        0x14000006: multi_sz(LOADER_SETTINGS),
        0x15000065: integer(3),
        0x21000001: image,
        0x22000002: sz("\\windows"),
        0x25000020: integer(0),
        0x250000C2: integer(1),
        0x26000022: boolean(True),
        0x46000010: boolean(True),
    }
    store.add(WINRE, 0x10200003, elements)
    options = {
        0x12000004: sz("Windows Recovery"),
        0x31000003: binary(device(disk, volume)),
        0x32000004: sz(SDI),
    }
    store.add(WINRE_OPTIONS, 0x30000000, options)


def installed(
    disk: DiskLayout,
    *,
    windows: PartitionLayout | None = None,
    system: PartitionLayout | None = None,
    recovery: PartitionLayout | None = None,
    efi: bool | None = None,
    locale: str = "de-DE",
    description: str = "Windows Server 2016",
    root: str = "\\Windows",
) -> Objects:
    """The system store of an installed server. ``recovery``: the volume that holds the recovery environment."""
    efi = disk.style == "gpt" if efi is None else efi
    windows = windows or disk.windows
    if system is None:
        system = disk.esp if efi else next(p for p in disk.partitions if p.active)
    suffix = "efi" if efi else "exe"
    here, there = binary(device(disk, system)), binary(device(disk, windows))
    store = Objects()
    _settings(store)
    manager: dict[int, Value] = {
        0x11000001: here,
        0x12000004: sz("Windows Boot Manager"),
        0x12000005: sz(locale),
        0x14000006: multi_sz(GLOBAL),
        0x23000003: sz(LOADER),
        0x23000006: sz(RESUME),
        0x24000001: multi_sz(LOADER),
        0x24000010: multi_sz(MEMDIAG),
        0x25000004: integer(30),
    }
    if efi:
        manager[0x12000002] = sz("\\EFI\\Microsoft\\Boot\\bootmgfw.efi")
        store.add(FWBOOTMGR, 0x10100001, {0x24000001: multi_sz(BOOTMGR), 0x25000004: integer(0)})
    store.add(BOOTMGR, 0x10100002, manager)
    memory_test = "\\EFI\\Microsoft\\Boot\\memtest.efi" if efi else "\\boot\\memtest.exe"
    store.add(
        MEMDIAG,
        0x10200005,
        {
            0x11000001: here,
            0x12000002: sz(memory_test),
            0x12000004: sz("Windows Memory Diagnostic"),
            0x12000005: sz(locale),
            0x14000006: multi_sz(GLOBAL),
            0x1600000B: boolean(True),
        },
    )
    loader: dict[int, Value] = {
        0x11000001: there,
        0x12000002: sz(f"{root}\\system32\\winload.{suffix}"),
        0x12000004: sz(description),
        0x12000005: sz(locale),
        0x14000006: multi_sz(LOADER_SETTINGS),
        0x15000065: integer(1),
        0x17000077: binary(struct.pack("<Q", 0x15000075)),
        0x21000001: there,
        0x22000002: sz(root),
        0x23000003: sz(RESUME),
        0x25000020: integer(1),
        0x250000C2: integer(1),
    }
    if recovery is not None:
        loader[0x14000008] = multi_sz(WINRE)
        loader[0x16000009] = boolean(True)
    store.add(LOADER, 0x10200003, loader)
    resume: dict[int, Value] = {
        0x11000001: there,
        0x12000002: sz(f"{root}\\system32\\winresume.{suffix}"),
        0x12000004: sz("Windows Resume Application"),
        0x12000005: sz(locale),
        0x14000006: multi_sz(RESUME_SETTINGS),
        0x21000001: there,
        0x22000002: sz("\\hiberfil.sys"),
        0x21000026: there,
        0x25000008: integer(1),
    }
    if recovery is not None:
        resume[0x14000008] = multi_sz(WINRE)
        resume[0x16000009] = boolean(True)
    store.add(RESUME, 0x10200004, resume)
    if recovery is not None:
        _winre(store, disk, recovery, locale, efi)
    return store


def fallback(disk: DiskLayout, recovery: PartitionLayout, locale: str = "de-DE") -> Objects:
    """\\EFI\\Microsoft\\Recovery\\BCD: nothing but the boot manager and the recovery environment."""
    store = Objects()
    _settings(store)
    store.add(
        BOOTMGR,
        0x10100002,
        {
            0x11000001: binary(device(disk, disk.esp)),
            0x12000002: sz("\\EFI\\Microsoft\\Boot\\bootmgfw.efi"),
            0x12000004: sz("Windows Boot Manager"),
            0x12000005: sz(locale),
            0x14000006: multi_sz(GLOBAL),
            0x23000003: sz(WINRE),
            0x24000001: multi_sz(WINRE),
            0x25000004: integer(0),
        },
    )
    _winre(store, disk, recovery, locale, True)
    return store


# --- reading and changing


Elements = dict[tuple[str, int], Value]


def elements(store: bytes) -> Elements:
    """Every element of a store by (object, number), as hivex sees it."""
    result: Elements = {}
    for (path, name), value in hives.values(store).items():
        parts = path.split("\\")
        if len(parts) == 4 and parts[0].lower() == "objects" and name.lower() == "element":
            result[parts[1].lower(), int(parts[3], 16)] = value
    return result


def object_types(store: bytes) -> dict[str, int]:
    result = {}
    for (path, name), (_, data) in hives.values(store).items():
        parts = path.split("\\")
        if len(parts) == 3 and parts[0].lower() == "objects" and name.lower() == "type":
            result[parts[1].lower()] = struct.unpack("<I", data)[0]
    return result


def is_device(number: int) -> bool:
    return number >> 24 & 0xF == 1


def identities(element: bytes) -> set[str]:
    """What a device element refers to: "gpt:<partition>:<disk>" or "mbr:<signature>:<offset>" of every nested one.

    Found by the shape of a partition device (type 6, flags, size 0x48, 0), at any place in the element.
    """
    found: set[str] = set()
    for at in range(16, len(element) - 71):
        kind, _, size, reserved = struct.unpack_from("<IIII", element, at)
        if (kind, size, reserved) != (6, 0x48, 0):
            continue
        place = element[at + 16 : at + 32]
        media, style = struct.unpack_from("<II", element, at + 32)
        disk = element[at + 40 : at + 56]
        if media == 0 and style == 0:
            found.add(f"gpt:{uuid.UUID(bytes_le=place)}:{uuid.UUID(bytes_le=disk)}")
        elif media == 0 and style == 1:
            signature, offset = struct.unpack("<I", disk[:4])[0], struct.unpack("<Q", place[:8])[0]
            found.add(f"mbr:{signature:08x}:{offset}")
    return found


def identity(disk: DiskLayout, part: PartitionLayout) -> str:
    if disk.style == "gpt":
        return f"gpt:{part.unique_guid}:{disk.disk_guid}"
    return f"mbr:{disk.signature:08x}:{part.offset}"


def changed(store: bytes, change: Callable[[Any], None]) -> bytes:
    return hives.edited(store, change)


def set_element(handle: Any, guid: str, number: int, value: Value) -> None:
    node = hives.key(handle, f"Objects\\{guid}\\Elements\\{number:08x}", create=True)
    handle.node_set_value(node, {"key": "Element", "t": value[0], "value": value[1]})


def delete_element(handle: Any, guid: str, number: int) -> None:
    node = hives.key(handle, f"Objects\\{guid}\\Elements\\{number:08x}")
    if node is not None:
        handle.node_delete_child(node)
