"""Storage controllers as Windows' Plug and Play knows them, and which disk hangs on which.

IDs come from the hardware and compatible IDs ("PCI\\VEN_9005&DEV_028D&SUBSYS_05569005&REV_01", "PCI\\CC_010700"),
addresses from the bus number and address of the device; nothing of it is in any language.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rehost_payload.survey.model import Controller
from rehost_payload.system.win32 import DeviceTree, Win32Error

_HARDWARE_ID, _COMPATIBLE_IDS, _SERVICE, _BUS_NUMBER, _ADDRESS = 2, 3, 5, 0x16, 0x1D  # CM_DRP_...
_ID = re.compile(
    r"PCI\\VEN_([0-9A-F]{4})&DEV_([0-9A-F]{4})&SUBSYS_([0-9A-F]{4})([0-9A-F]{4})&REV_([0-9A-F]{2})$"
)
_CLASS = re.compile(r"(?:PCI\\|&)CC_([0-9A-F]{6})$")
_STORAGE_CLASS = "01"
_DEEPEST = 32  # parents between a disk and the root


def controllers(tree: DeviceTree) -> list[Controller]:
    """PCI functions of the storage class (01xxxx) that are present, by address."""
    found = (_controller(tree, device) for device in tree.pci_devices())
    return sorted((c for c in found if c is not None), key=lambda c: c.address)


def _controller(tree: DeviceTree, device: str) -> Controller | None:
    try:
        ids = _strings(tree.property(device, _HARDWARE_ID))
        codes = ids + _strings(tree.property(device, _COMPATIBLE_IDS))
        class_code = next((m[1] for i in codes if (m := _CLASS.search(i))), "")
        whole = next((m for i in ids if (m := _ID.match(i))), None)
        address = _address(tree, device)
        if not class_code.startswith(_STORAGE_CLASS) or whole is None or address is None:
            return None
        service = "".join(_strings(tree.property(device, _SERVICE))[:1])
    except Win32Error:
        return None  # has vanished meanwhile
    vendor, name, subsystem, subsystem_vendor, revision = (part.lower() for part in whole.groups())
    return Controller(
        address=address,
        vendor=vendor,
        device=name,
        subsystem_vendor=subsystem_vendor,
        subsystem_device=subsystem,
        class_code=class_code.lower(),
        revision=revision,
        driver=service or None,
    )


def _strings(data: bytes | None) -> list[str]:
    """REG_SZ and REG_MULTI_SZ alike, in upper case as IDs are compared; a service keeps its own spelling."""
    text = (data or b"").decode("utf-16-le", "replace")
    return [part.upper() if part.upper().startswith("PCI\\") else part for part in text.split("\0") if part]


def _address(tree: DeviceTree, device: str) -> str | None:
    """dddd:bb:dd.f. Windows counts the segment in the upper bytes of the bus number."""
    bus, place = tree.property(device, _BUS_NUMBER), tree.property(device, _ADDRESS)
    if bus is None or place is None or len(bus) != 4 or len(place) != 4:
        return None
    number, where = int.from_bytes(bus, "little"), int.from_bytes(place, "little")
    return f"{number >> 8 & 0xFFFF:04x}:{number & 0xFF:02x}:{where >> 16 & 0x1F:02x}.{where & 7}"


def controller_of(tree: DeviceTree, device: str, known: Sequence[Controller]) -> str | None:
    """The address of the controller that a disk's device hangs on: the nearest PCI function above it."""
    current: str | None = device
    try:
        for _ in range(_DEEPEST):
            current = tree.parent(current) if current else None
            if current is None:
                return None
            if current.upper().startswith("PCI\\"):
                address = _address(tree, current)
                return address if any(c.address == address for c in known) else None
    except Win32Error:
        return None
    return None
