"""What the boot store of a medium starts: read as a hive, never changed. Stock stores of Windows media fit as they are."""

from __future__ import annotations

from dataclasses import dataclass

from rehost_payload.formats.bcd import parse_store
from rehost_payload.formats.bcd_devices import RamdiskDevice
from rehost_payload.formats.errors import FormatError

_BOOTMGR = "9dea862c-5cdd-4e70-acc1-f32b344d4795"
_DEFAULT, _DISPLAY_ORDER = 0x23000003, 0x24000001
_DEVICE, _PATH = 0x11000001, 0x12000002
_SDI_PATH = 0x32000004


@dataclass(frozen=True)
class RamdiskEntry:
    """Paths on the medium, with slashes and no leading one; ``loader`` inside of the image."""

    wim: str
    sdi: str
    loader: str


def ramdisk_entries(data: bytes) -> list[RamdiskEntry]:
    """The entries that load a boot image, the default one first. FormatError for what is no boot store."""
    store = parse_store(data)
    manager = store.get(_BOOTMGR)
    order: list[str] = []
    if manager is not None:
        default = manager.string(_DEFAULT)
        order = [*([default] if default else []), *manager.objects(_DISPLAY_ORDER)]
    found: dict[str, RamdiskEntry] = {}
    for guid in [*order, *store.objects]:
        entry = store.get(guid)
        device = entry.device(_DEVICE) if entry is not None else None
        if entry is None or not isinstance(device, RamdiskDevice) or guid in found:
            continue
        options = store.get(device.options) if device.options else None
        sdi = options.string(_SDI_PATH) if options is not None else None
        found[guid] = RamdiskEntry(
            _slashes(device.path), _slashes(sdi or ""), _slashes(entry.string(_PATH) or "")
        )
    return list(found.values())


def default_ramdisk(data: bytes | None) -> RamdiskEntry | None:
    """The first of them; None where the store is missing, damaged or starts something else."""
    if data is None:
        return None
    try:
        entries = ramdisk_entries(data)
    except FormatError:
        return None
    return entries[0] if entries else None


def _slashes(path: str) -> str:
    return path.replace("\\", "/").strip("/")
