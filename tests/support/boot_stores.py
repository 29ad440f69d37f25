"""Boot stores of every kind, made by the product's own builders and element encoders.

For the boot stores of whole test disks there is support/stores.py, which shares nothing with the product. These here
are for reading, showing and changing: installed, recovery, media, virtual disk, located, and odd ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from rehost_payload.formats import bcd_names as n
from rehost_payload.formats.bcd import create_object, set_element
from rehost_payload.formats.bcd_build import Recovery, bcdboot_store, recovery_store
from rehost_payload.formats.bcd_devices import (
    LOCATE_BY_ELEMENT,
    LOCATE_BY_PATH,
    BootDevice,
    FileDevice,
    GptIdentity,
    LocateDevice,
    MbrIdentity,
    PartitionDevice,
    RamdiskDevice,
    VhdDevice,
)
from rehost_payload.formats.hive import CreateKey, DeleteKey, DeleteValue, HiveEdit, SetValue, minimal_hive
from rehost_payload.system.hivex_edit import edit_hive
from support import regf

SEED = UUID("5e9d3b6c-3a51-4b0e-9d55-8d0e4b6a7c11")
DISK = "776df1f6-7e12-49ce-99f6-ff2e5dfe3933"
ESP = GptIdentity("c1909b2f-33ff-49f6-9556-08827df9b418", DISK)
WINDOWS = GptIdentity("1a0fd95a-5e1d-4ab8-b9fd-4369ff7b502f", DISK)
RECOVERY = GptIdentity("84f1db4e-dbaf-4d9c-bd69-932fb8a05b33", DISK)
ACTIVE = MbrIdentity(0xD7DA5D02, 1 << 20)
WINDOWS_MBR = MbrIdentity(0xD7DA5D02, 580 << 20)
MEDIA_LOADER = "7619dcc9-fafe-11d9-b411-000476eba25f"
MEDIA_OPTIONS = "7619dcc8-fafe-11d9-b411-000476eba25f"
VHD_LOADER = "19260817-6666-8888-abcd-000000000000"


def installed_uefi() -> list[HiveEdit]:
    """Server on GPT with the recovery environment on a partition of its own."""
    return bcdboot_store(
        firmware="uefi",
        system=ESP,
        windows=WINDOWS,
        seed=SEED,
        locale="de-DE",
        description="Windows Server 2016",
        hypervisor=True,
        recovery=Recovery(RECOVERY),
    )


def installed_bios() -> list[HiveEdit]:
    return bcdboot_store(
        firmware="bios", system=ACTIVE, windows=WINDOWS_MBR, seed=SEED, recovery=Recovery(WINDOWS_MBR)
    )


def recovery_uefi() -> list[HiveEdit]:
    return recovery_store(system=ESP, seed=SEED, recovery=Recovery(RECOVERY))


def media() -> list[HiveEdit]:
    """Installation media: everything on the boot volume, and Microsoft's integers of 1 and 3 bytes."""
    image = RamdiskDevice("\\sources\\boot.wim", BootDevice(), options=MEDIA_OPTIONS, flags=1)
    edits = create_object(n.BOOTMGR, n.TYPE_BOOTMGR)
    edits += set_element(n.BOOTMGR, n.BOOTMGR_DEFAULT, MEDIA_LOADER)
    edits += set_element(n.BOOTMGR, n.BOOTMGR_DISPLAY_ORDER, (MEDIA_LOADER,))
    edits += set_element(n.BOOTMGR, n.BOOTMGR_TIMEOUT, b"\x1e")
    edits += create_object(MEDIA_LOADER, n.TYPE_OSLOADER)
    edits += set_element(MEDIA_LOADER, n.DEVICE, image)
    edits += set_element(MEDIA_LOADER, n.OSLOADER_OS_DEVICE, image)
    edits += set_element(MEDIA_LOADER, n.PATH, "\\windows\\system32\\boot\\winload.exe")
    edits += create_object(MEDIA_OPTIONS, n.TYPE_DEVICE)
    edits += set_element(MEDIA_OPTIONS, n.RAMDISK_SDI_DEVICE, BootDevice())
    edits += set_element(MEDIA_OPTIONS, n.RAMDISK_SDI_PATH, "\\boot\\boot.sdi")
    edits += create_object(n.DEBUGGER_SETTINGS, n.TYPE_INHERIT)
    return edits + set_element(n.DEBUGGER_SETTINGS, 0x15000014, bytes.fromhex("00c201"))


def virtual_disk() -> list[HiveEdit]:
    """Boots from a VHDX: by its inner partition, and located in it."""
    file = FileDevice("\\vm\\server.vhdx", PartitionDevice(WINDOWS))
    inner = GptIdentity("0f2d9d5e-8f3b-4f04-a6f7-04c0c0a8a001", "0f2d9d5e-8f3b-4f04-a6f7-04c0c0a8a000")
    edits = create_object(VHD_LOADER, n.TYPE_OSLOADER)
    edits += set_element(VHD_LOADER, n.DEVICE, VhdDevice(inner, file))
    return edits + set_element(
        VHD_LOADER,
        n.OSLOADER_OS_DEVICE,
        LocateDevice(LOCATE_BY_ELEMENT, n.OSLOADER_SYSTEM_ROOT, "", VhdDevice(None, file)),
    )


def located() -> list[HiveEdit]:
    edits = create_object(VHD_LOADER, n.TYPE_OSLOADER)
    edits += set_element(
        VHD_LOADER, n.DEVICE, LocateDevice(LOCATE_BY_PATH, 0, "\\Windows\\System32\\winload.efi")
    )
    return edits + set_element(
        VHD_LOADER, n.OSLOADER_OS_DEVICE, LocateDevice(LOCATE_BY_ELEMENT, n.OSLOADER_SYSTEM_ROOT, "")
    )


def odd() -> list[HiveEdit]:
    """What real stores have that they should not: no type, garbage keys, wrong types, upper-case element keys."""
    loader = ("Objects", "{9DEA862C-5CDD-4E70-ACC1-F32B344D4795}")
    return [
        SetValue((*loader, "Description"), "Type", 4, n.TYPE_BOOTMGR.to_bytes(4, "little")),
        SetValue((*loader, "Elements", "250000C2"), "Element", 3, bytes([1])),
        SetValue((*loader, "Elements", "21000152"), "Element", 3, b"\x01\x02"),
        SetValue(
            (*loader, "Elements", "14000006"), "Element", 1, f"{{{n.GLOBAL_SETTINGS}}}\0".encode("utf-16-le")
        ),
        SetValue((*loader, "Elements", "12000004"), "Element", 3, b"binary"),
        SetValue((*loader, "Elements", "no element"), "Element", 3, b""),
        CreateKey((*loader, "Elements", "22000002")),
        CreateKey(("Objects", "{default}", "Elements")),
    ]


def all_kinds() -> dict[str, list[HiveEdit]]:
    return {
        "installed-uefi": installed_uefi(),
        "installed-bios": installed_bios(),
        "recovery-uefi": recovery_uefi(),
        "media": media(),
        "virtual-disk": virtual_disk(),
        "located": located(),
        "odd": odd(),
    }


def make(edits: Iterable[HiveEdit]) -> bytes:
    """A store as the product writes it: through hivex, on an empty hive."""
    return edit_hive(minimal_hive("NewStoreRoot"), edits)


def as_hive(edits: Sequence[HiveEdit], *, minor: int = 3, sequence: tuple[int, int] = (7, 7)) -> bytes:
    """The same store without hivex, laid out as Windows lays it out (version 1.3, lf lists)."""
    keys: dict[str, dict[str, tuple[int, bytes]]] = {}
    for edit in edits:
        assert not isinstance(edit, DeleteKey | DeleteValue)
        values = keys.setdefault("\\".join(edit.key), {})
        if isinstance(edit, SetValue):
            values[edit.name] = (edit.type, edit.data)
    root = regf.tree(keys, "NewStoreRoot")
    return regf.hive(root, leaf="lf", minor=minor, sequence=sequence)
