"""Names for people: what "disk0p1" is, how big, and which element of a boot store "21000001" means.

The identifier stays in front, because it is what --windows and --system-volume take.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

from rehost_payload.formats import bcd_names
from rehost_payload.repair.model import DiskRef, VolumeRef
from rehost_payload.survey.model import (
    BootStore,
    Disk,
    FirmwareMode,
    Partition,
    StoreObject,
    StoreRole,
    Survey,
    Volume,
    WindowsInstallation,
)
from rehost_payload.ui.texts import Texts

BOOTMGR = "{bootmgr}"

_ELEMENT = re.compile(r"(?:0x)?([0-9a-fA-F]{8})(?: \(([\w:]+)\))?")
_IDENTIFIER_PARAMS = ("volume", "disk", "partition", "windows", "used", "disks", "candidates")


def size(count: int | None) -> str:
    """1536 -> "1.5 KiB"."""
    if count is None or count < 0:
        return "?"
    value, units = float(count), ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    if value < 1024:
        return f"{count} B"
    unit = ""
    while round(value, 1) >= 1024 and units:
        value /= 1024
        unit = units.pop(0)
    return f"{value:.0f} {unit}" if value >= 100 or value == int(value) else f"{value:.1f} {unit}"


def element(name: str, object_type: int | None = bcd_names.TYPE_OSLOADER) -> str:
    """ "0x21000001" or "21000001 (osdevice)" -> "osdevice"; what has no name stays as it is."""
    match = _ELEMENT.fullmatch(name)
    if match is None:
        return name
    return match[2] or bcd_names.element_name(int(match[1], 16), object_type)


def system_name(windows: WindowsInstallation) -> str:
    return windows.product_name or "Windows"


@dataclass(frozen=True)
class Names:
    """Names from one survey (or from none: then identifiers stay as they are)."""

    survey: Survey | None
    texts: Texts

    @property
    def system(self) -> str:
        """The base of the survey: "linux", "winpe", "images", or "" where there is none."""
        return self.survey.system if self.survey else ""

    @cached_property
    def _disks(self) -> dict[str, Disk]:
        return {d.id: d for d in self.survey.disks} if self.survey else {}

    @cached_property
    def _disks_by_path(self) -> dict[str, Disk]:
        return {d.path: d for d in self._disks.values()}

    @cached_property
    def _partitions(self) -> dict[str, Partition]:
        return {p.id: p for d in self._disks.values() for p in d.table.partitions}

    @cached_property
    def _volumes(self) -> dict[str, Volume]:
        return {v.id: v for v in self.survey.volumes} if self.survey else {}

    @property
    def _stores(self) -> tuple[BootStore, ...]:
        return self.survey.boot_stores if self.survey else ()

    @cached_property
    def _windows(self) -> dict[str, WindowsInstallation]:
        return {w.id: w for w in self.survey.windows} if self.survey else {}

    def disk(self, disk: Disk) -> str:
        return f"{disk.id} ({', '.join(x for x in (disk.model, size(disk.size), disk.path) if x)})"

    def volume(self, volume: Volume) -> str:
        partition = self._partitions.get(volume.partition or "")
        label = f"'{volume.label}'" if volume.label else ""
        kind = partition.type_name if partition else ""
        details = ", ".join(x for x in (kind, volume.file_system.value, label, size(volume.size)) if x)
        return f"{volume.id} ({details})"

    def windows(self, windows: WindowsInstallation) -> str:
        build = self.texts("survey.build", build=windows.build) if windows.build else ""
        details = ", ".join(x for x in (system_name(windows), build, windows.computer_name) if x)
        return f"{windows.id} ({details})"

    def identifier(self, value: str) -> str:
        """The name for an identifier of the survey; anything else comes back as it is."""
        if value in self._windows:
            return self.windows(self._windows[value])
        if value in self._volumes:
            return self.volume(self._volumes[value])
        if disk := self._disks.get(value) or self._disks_by_path.get(value):
            return self.disk(disk)
        if value in self._partitions:
            p = self._partitions[value]
            return f"{p.id} ({', '.join(x for x in (p.type_name, size(p.size)) if x)})"
        return value

    def volume_ref(self, ref: VolumeRef) -> str:
        for v in self._volumes.values():
            if v.offset == ref.offset and self._disks[v.disk].path == ref.disk:
                return self.volume(v)
        details = ", ".join(x for x in (ref.file_system, ref.label and f"'{ref.label}'", size(ref.size)) if x)
        return f"{ref.disk} @ {ref.offset} ({details})"

    def disk_ref(self, ref: DiskRef) -> str:
        found = self._disks_by_path.get(ref.path)
        return self.disk(found) if found else f"{ref.path} ({size(ref.size)})"

    def store_object(self, guid: str) -> StoreObject | None:
        guid = guid.strip("{}").lower()
        return next((o for s in self._stores for o in s.objects if o.guid == guid), None)

    def object(self, guid: str) -> str:
        """What an operator knows an entry of a boot store by: its description, else "{memdiag}" or its GUID."""
        found = self.store_object(guid)
        for e in found.elements if found else ():
            if e.type == bcd_names.DESCRIPTION and len(e.raw) >= 4:
                with suppress(ValueError):  # a survey that somebody edited
                    return bytes.fromhex(e.raw).decode("utf-16-le", "replace").rstrip("\0")
        return self.entry(bcd_names.object_name(guid.strip("{}").lower()))

    def entry(self, name: str) -> str:
        return self.texts("show.bootmgr") if name == BOOTMGR else name

    def reason(self, code: str) -> str:
        return self.texts(f"state.{code}") if self.texts.has(f"state.{code}") else code

    def params(self, params: Mapping[str, str], subject: str = "") -> dict[str, str]:
        """A finding's parameters as an operator can read them; its subject stands in for what is not given."""
        out = {}
        fallback = any(s.id == subject and s.role is StoreRole.EFI_RECOVERY for s in self._stores)
        for name, value in {**self._of_subject(subject), **params}.items():
            if name in _IDENTIFIER_PARAMS:
                value = ", ".join(self.identifier(v.strip()) for v in value.split(","))
            elif name == "element":
                value = ", ".join(element(v) for v in value.split(", "))
            elif name == "entry":
                value = self.entry(value)
                if fallback:  # its entries have the names of those in the main store
                    value = f"{value} ({self.texts('show.fallback-store')})"
            elif name == "reason":
                value = self.reason(value)
            elif name in ("free", "needed") and value.isdecimal():
                value = size(int(value))
            elif name in ("firmware", "needed") and value in tuple(FirmwareMode):
                value = self.texts(f"survey.firmware-{value}")
            out[name] = value
        return out

    def _of_subject(self, subject: str) -> dict[str, str]:
        for store in self._stores:
            if store.id == subject:
                return {"volume": store.volume, "path": store.path}
        if subject in self._volumes:
            return {"volume": subject, "disk": self._volumes[subject].disk}
        if subject in self._disks:
            return {"disk": subject}
        return {"windows": subject} if subject in self._windows else {}
