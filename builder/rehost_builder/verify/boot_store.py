"""What a medium's boot store starts: its default entry, a boot image in memory."""

from __future__ import annotations

from dataclasses import dataclass

from rehost_builder.verify.model import Broken
from rehost_payload.formats.bcd import parse_store
from rehost_payload.formats.bcd_devices import BootDevice, RamdiskDevice
from rehost_payload.formats.bcd_names import BOOTMGR, BOOTMGR_DEFAULT, DEVICE, PATH

_OSDEVICE, _SDI_DEVICE, _SDI_PATH = 0x21000001, 0x31000003, 0x32000004


@dataclass(frozen=True)
class Start:
    """Paths on the medium (``wim``, ``sdi``) and in the image (``loader``), with slashes, no leading one."""

    wim: str
    sdi: str
    loader: str


def default_start(data: bytes, name: str) -> Start:
    """Broken where the default entry does not load a boot image from the medium; FormatError for what is no store."""
    store = parse_store(data)
    manager = store.get(BOOTMGR)
    default = manager.string(BOOTMGR_DEFAULT) if manager is not None else None
    if default is None:
        raise Broken(f"{name} has no default entry")
    entry = store.get(default)
    if entry is None:
        raise Broken(f"{name}: the default entry {default} does not exist")
    device, system, loader = entry.device(DEVICE), entry.device(_OSDEVICE), entry.string(PATH)
    if not isinstance(device, RamdiskDevice) or not isinstance(system, RamdiskDevice) or not loader:
        raise Broken(f"{name}: the default entry {default} starts no boot image in memory")
    if device.path != system.path:
        raise Broken(f"{name}: loader and system come from two images, {device.path} and {system.path}")
    options = store.get(device.options) if device.options else None
    sdi = options.string(_SDI_PATH) if options is not None else None
    if options is None or not sdi:
        raise Broken(f"{name}: the entry names no ramdisk options with a boot.sdi")
    if not isinstance(options.device(_SDI_DEVICE), BootDevice):
        raise Broken(f"{name}: boot.sdi is not looked for on the medium")
    return Start(_slashes(device.path), _slashes(sdi), _slashes(loader))


def _slashes(path: str) -> str:
    return path.replace("\\", "/").strip("/")
