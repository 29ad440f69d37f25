"""verify: walks the way that firmware and boot manager will go, and judges every step of it.

This shares no code with what wrote: it takes a fresh survey, reads the device elements' bytes at their offsets (the
boot manager's view: BOOT_ENVIRONMENT_DEVICE) and looks up partitions in the survey's tables by itself. What it cannot
see it calls UNKNOWN, with the reason; it never says PASS for what it did not look at.
"""

from __future__ import annotations

import re
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from rehost_payload.repair.model import Check, Choices, Verdict, Verification
from rehost_payload.repair.verify_drivers import SIGNATURE, boot_controller, check_drivers
from rehost_payload.survey.model import (
    BootCode,
    BootStore,
    Disk,
    FirmwareMode,
    HiveState,
    Partition,
    StoreObject,
    StoreRole,
    StoreState,
    Survey,
    TableStyle,
    Volume,
    WindowsInstallation,
)

_BOOTMGR = "9dea862c-5cdd-4e70-acc1-f32b344d4795"
_ESP_TYPES = ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "ef")
_EFI_LOADER = "\\efi\\microsoft\\boot\\bootmgfw.efi"
_EFI_FALLBACK = "\\efi\\boot\\bootx64.efi"
_PASS, _FAIL, _UNKNOWN = Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN
# without these being passed nobody can say that Windows will start; the others are good to know
_CHAIN = {
    "verify.firmware-entry",
    "verify.boot-file",
    "verify.active-partition",
    "verify.boot-code",
    "verify.volume-code",
    "verify.store-readable",
    "verify.default-entry",
    "verify.device",
    "verify.loader",
    "verify.osdevice",
    "verify.system-hive",
}
_DRIVER = "verify.storage-driver"


def verify(survey: Survey, choices: Choices | None = None) -> Verification:
    """Judges whether this machine's Windows will be found and started, as far as a survey can tell."""
    walk = _Walk(survey, choices or Choices())
    checks = tuple(walk.checks())
    known = walk.windows is None or boot_controller(survey, walk.windows) is not None
    unsure = any(c.id == SIGNATURE and c.verdict is _UNKNOWN for c in checks)
    return Verification(_all(checks, _CHAIN | {_DRIVER}), checks, _all(checks, _CHAIN), known, not unsure)


def _all(checks: tuple[Check, ...], needed: set[str]) -> Verdict:
    verdicts = {c.verdict for c in checks if c.id in needed}
    if _FAIL in verdicts:
        return _FAIL
    return _UNKNOWN if _UNKNOWN in verdicts or not verdicts else _PASS


@dataclass(frozen=True)
class _Start:
    """The partition that the firmware starts from."""

    disk: Disk
    partition: Partition
    efi: bool


class _Walk:
    def __init__(self, survey: Survey, choices: Choices) -> None:
        self._survey = survey
        self._choices = choices
        self._volumes = {v.partition: v for v in survey.volumes if v.partition}
        self.windows: WindowsInstallation | None = None  # the one that will start, once it was found

    # --- the way ---------------------------------------------------------------------------------------------

    def checks(self) -> Iterator[Check]:
        starts = list(self._starts())
        if not starts:
            yield Check("verify.boot-file", _FAIL, "no partition that a firmware could start a Windows from")
            return
        start = starts[0]
        yield from self._firmware(start) if start.efi else self._bios(start)
        store = self._store(start)
        if store is None:
            yield Check("verify.store-readable", _FAIL, f"no usable boot store on {start.partition.id}")
            return
        yield self._store_check(start, store)
        if store.state is not StoreState.OK:
            return
        yield from self._entry(start, store)
        if start.efi:
            yield self._fallback_store(start)
        if self.windows is not None:
            yield from check_drivers(self._survey, self.windows)
        else:
            yield Check(_DRIVER, _UNKNOWN, "the Windows that will start was not found")

    def _starts(self) -> Iterator[_Start]:
        """ESPs and active partitions of disks that are not the medium we run from, the likeliest first."""
        found: list[tuple[tuple[bool, ...], _Start]] = []
        windows = {w.volume for w in self._survey.windows if self._choices.windows in (None, w.id)}
        with_windows = {v.disk for v in self._survey.volumes if v.id in windows}
        here = any(d.id in with_windows and not _may_go(d) for d in self._survey.disks)
        for disk in self._survey.disks:
            if disk.boot_medium or disk.removable:
                continue
            if self._choices.disk not in (None, disk.id):
                continue
            for p in disk.table.partitions:
                efi = p.type.lower() in _ESP_TYPES
                if not efi and not (disk.table.style is TableStyle.MBR and p.active):
                    continue
                volume = self._volumes.get(p.id)
                rank = (
                    volume is None or volume.id != self._choices.system_volume,
                    here and _may_go(disk),  # the old disk, still plugged in, starts as well as ever
                    not self._named_by_firmware(p),
                    disk.id not in with_windows,
                    volume is None
                    or not any(s.volume == volume.id and s.objects for s in self._survey.boot_stores),
                )
                found.append((rank, _Start(disk, p, efi)))
        yield from (s for _, s in sorted(found, key=lambda f: f[0]))

    def _named_by_firmware(self, partition: Partition) -> bool:
        return partition.unique_guid is not None and any(
            e.active and e.partition_guid == partition.unique_guid and (e.path or "").lower() == _EFI_LOADER
            for e in self._survey.firmware.boot_entries
        )

    def _file(self, start: _Start, path: str) -> tuple[bool, str | None]:
        """(exists, problem) of a boot file on the start partition."""
        volume = self._volumes.get(start.partition.id)
        for f in volume.boot_files if volume else ():
            if f.path.lower() == path:
                wrong = None if f.machine in (None, "x64", "x86", "arm64") else f"machine {f.machine}"
                return True, f.problem or wrong
        return False, None

    def _firmware(self, start: _Start) -> Iterator[Check]:
        loader, loader_problem = self._file(start, _EFI_LOADER)
        fallback, fallback_problem = self._file(start, _EFI_FALLBACK)
        firmware = self._survey.firmware
        if firmware.mode is FirmwareMode.UEFI:
            if self._named_by_firmware(start.partition) and loader:
                yield Check(
                    "verify.firmware-entry", _PASS, f"an entry names {_EFI_LOADER} on {start.partition.id}"
                )
            elif fallback:
                reason = f"no entry for {start.partition.id}; firmwares start {_EFI_FALLBACK} then"
                yield Check("verify.firmware-entry", _PASS, reason)
            else:
                yield Check(
                    "verify.firmware-entry",
                    _FAIL,
                    f"no entry for {start.partition.id} and no fallback loader",
                )
        else:
            unseen = "an image does not show the firmware's entries"
            if firmware.mode is FirmwareMode.BIOS:
                unseen = "the firmware's entries cannot be seen in BIOS mode"
            if fallback:
                yield Check("verify.firmware-entry", _PASS, f"{unseen}; {_EFI_FALLBACK} is there")
            else:
                yield Check("verify.firmware-entry", _UNKNOWN, unseen)
        if not loader and not fallback:
            yield Check("verify.boot-file", _FAIL, f"neither {_EFI_LOADER} nor {_EFI_FALLBACK}")
        elif problem := (loader_problem if loader else fallback_problem):
            yield Check("verify.boot-file", _FAIL, problem)
        elif firmware.secure_boot and (missing := self._no_list_of_revoked(start)):
            yield Check("verify.boot-file", _FAIL, missing)
        else:
            yield Check("verify.boot-file", _PASS, _EFI_LOADER if loader else _EFI_FALLBACK)

    def _no_list_of_revoked(self, start: _Start) -> str | None:
        """Under Secure Boot, boot managers of Server 2025 and later start nothing without \\EFI\\Microsoft\\Boot\\boot.stl."""
        volume = self._volumes.get(start.partition.id)
        files = {f.path.lower(): f for f in volume.boot_files} if volume else {}
        manager = files.get(_EFI_LOADER) or files.get(_EFI_FALLBACK)
        parts = re.findall(r"\d+", manager.version or "") if manager else []
        stl = files.get("\\efi\\microsoft\\boot\\boot.stl")
        if len(parts) < 3 or int(parts[2]) < 26100 or (stl and not stl.problem):
            return None
        return f"{manager.version if manager else ''} wants boot.stl beside it: {stl.problem if stl else 'missing'}"

    def _bios(self, start: _Start) -> Iterator[Check]:
        active = [p for p in start.disk.table.partitions if p.active]
        verdict = _PASS if len(active) == 1 else _FAIL
        yield Check("verify.active-partition", verdict, ", ".join(p.id for p in active) or "none")
        yield self._master_code(start)
        yield self._volume_code(start)
        there, problem = self._file(start, "\\bootmgr")
        yield Check("verify.boot-file", _FAIL if problem or not there else _PASS, problem or "\\bootmgr")

    def _master_code(self, start: _Start) -> Check:
        """The code is there: it was not executed, and Microsoft's cannot be told by a word in it."""
        code = start.disk.table.boot_code
        if code is BootCode.NONE:
            return Check("verify.boot-code", _FAIL, "the master boot record holds no code")
        if code is BootCode.GRUB:
            reason = "GRUB is in the master boot record; what it starts was not followed"
            return Check("verify.boot-code", _UNKNOWN, reason)
        return Check("verify.boot-code", _PASS, "the master boot record holds code, which was not executed")

    def _volume_code(self, start: _Start) -> Check:
        name = "verify.volume-code"
        volume = self._volumes.get(start.partition.id)
        code = volume.boot_code if volume else None
        if volume is None or code is None:
            return Check(name, _UNKNOWN, f"the boot sector of {start.partition.id} could not be looked at")
        lba = start.partition.offset // start.disk.sector_size
        if volume.hidden_sectors not in (None, lba):
            found = f"the boot sector counts from {volume.hidden_sectors}, the partition starts at {lba}"
            return Check(name, _FAIL, found)
        if code is BootCode.BOOTMGR:
            reason = "the boot sector's code looks for bootmgr; it was not executed; hidden sectors right"
            return Check(name, _PASS, reason)
        if code is BootCode.OTHER:
            return Check(name, _UNKNOWN, "the boot sector holds code that names no boot manager")
        says = {BootCode.NONE: "holds no code", BootCode.NOT_BOOTABLE: "says that the disk is not bootable"}
        return Check(name, _FAIL, f"the boot sector {says.get(code, f'starts {code.upper()}, not bootmgr')}")

    def _store(self, start: _Start) -> BootStore | None:
        volume = self._volumes.get(start.partition.id)
        wanted = StoreRole.EFI_SYSTEM if start.efi else StoreRole.BIOS_SYSTEM
        return next(
            (s for s in self._survey.boot_stores if volume and s.volume == volume.id and s.role is wanted),
            None,
        )

    def _store_check(self, start: _Start, store: BootStore) -> Check:
        if store.state is StoreState.OK:
            return Check("verify.store-readable", _PASS, f"{store.path}: {len(store.objects)} objects")
        return Check(
            "verify.store-readable", _FAIL, f"{store.path}: {store.state.value} {store.detail}".strip()
        )

    def _entry(self, start: _Start, store: BootStore) -> Iterator[Check]:
        objects = {o.guid: o for o in store.objects}
        manager = objects.get(_BOOTMGR)
        if manager is None:
            yield Check("verify.default-entry", _FAIL, "the store has no {bootmgr}")
            return
        default = _text(manager, 0x23000003).strip("{}").lower()
        order = [g.strip("{}").lower() for g in _texts(manager, 0x24000001)]
        chosen = default if default in objects else next((g for g in order if g in objects), None)
        if chosen is None:
            yield Check("verify.default-entry", _FAIL, "neither default nor display order names an entry")
            return
        entry = objects[chosen]
        params = {"entry": _text(entry, 0x12000004) or chosen}
        if entry.type != 0x10200003:
            reason = f"{{{chosen}}} starts no Windows of this disk (type {entry.type or 0:08x})"
            yield Check("verify.default-entry", _UNKNOWN, reason, params)
            return
        yield Check("verify.default-entry", _PASS, f"{{{chosen}}} {params['entry']}", params)
        yield from self._loader(start, entry, params)
        yield from self._recovery(start, objects, entry)

    def _loader(self, start: _Start, entry: StoreObject, params: dict[str, str]) -> Iterator[Check]:
        path = _text(entry, 0x12000002)
        device, why = self._resolve(start, _raw(entry, 0x11000001))
        if device is None:
            yield Check("verify.device", _UNKNOWN if why.startswith("?") else _FAIL, why.lstrip("?"), params)
        else:
            yield Check("verify.device", _PASS, f"{device.id}: {why}", params)
            yield self._loader_file(start, device, path, params)
        osdevice, why = self._resolve(start, _raw(entry, 0x21000001))
        if osdevice is None:
            yield Check(
                "verify.osdevice", _UNKNOWN if why.startswith("?") else _FAIL, why.lstrip("?"), params
            )
            return
        yield Check("verify.osdevice", _PASS, f"{osdevice.id}: {why}", params)
        yield self._system_hive(osdevice, _text(entry, 0x22000002))

    def _loader_file(self, start: _Start, device: Volume, path: str, params: dict[str, str]) -> Check:
        suffix = ".efi" if start.efi else ".exe"
        if not path.lower().endswith(suffix):
            return Check(
                "verify.loader",
                _FAIL,
                f"{path or 'no path'}: this firmware mode starts {suffix} files",
                params,
            )
        if device.unreadable:
            return Check(
                "verify.loader", _UNKNOWN, f"{device.id} cannot be read ({device.unreadable})", params
            )
        for w in self._survey.windows:
            found = w.winload_efi if start.efi else w.winload_exe
            if w.volume == device.id and found is not None and found.path.lower() == path.lower():
                if found.problem:
                    # stored compressed by the overlay filter: there, but its content is not seen from here
                    verdict = _UNKNOWN if "cannot be read here" in found.problem else _FAIL
                    return Check("verify.loader", verdict, f"{path}: {found.problem}", params)
                return Check(
                    "verify.loader", _PASS, f"{path} {found.version or ''} ({found.machine})".strip(), params
                )
        for p in self._survey.paths:
            if p.volume == device.id and p.path == path.lower() and not p.is_directory and p.size:
                return Check("verify.loader", _PASS, f"{path}, {p.size} bytes", params)
        return Check("verify.loader", _FAIL, f"{device.id} has no {path}", params)

    def _system_hive(self, volume: Volume, root: str) -> Check:
        if volume.unreadable:
            return Check("verify.system-hive", _UNKNOWN, f"{volume.id} cannot be read ({volume.unreadable})")
        for w in self._survey.windows:
            if w.volume == volume.id and w.root.lower() == (root or "\\windows").lower():
                path = f"{w.root}\\System32\\config\\SYSTEM"
                if w.system_hive in (HiveState.OK, HiveState.DIRTY):
                    self.windows = w
                    return Check("verify.system-hive", _PASS, f"{path}: {w.system_hive.value}")
                return self._bad_hive(volume, path, w.system_hive)
        return Check("verify.system-hive", _FAIL, f"{volume.id} holds no {root}\\System32\\config\\SYSTEM")

    def _bad_hive(self, volume: Volume, path: str, state: HiveState) -> Check:
        """The file, what is wrong with it, and what was seen."""
        seen = [
            p.detail
            for p in self._survey.problems
            if p.where.startswith(volume.id) and p.where.lower().endswith(path.lower())
        ]
        reason = ": ".join([f"{path} on {volume.id} is {state.value}", *seen[:1]])
        verdict = _UNKNOWN if state is HiveState.UNREADABLE else _FAIL
        return Check("verify.system-hive", verdict, reason)

    def _recovery(
        self, start: _Start, objects: dict[str, StoreObject], entry: StoreObject
    ) -> Iterator[Check]:
        for guid in (g.strip("{}").lower() for g in _texts(entry, 0x14000008)):
            other = objects.get(guid)
            if other is None:
                yield Check("verify.winre", _FAIL, f"{{{guid}}} is not in the store")
                continue
            volume, why = self._resolve(start, _raw(other, 0x11000001))
            if volume is None:
                yield Check("verify.winre", _UNKNOWN if why.startswith("?") else _FAIL, why.lstrip("?"))
                continue
            image = _ramdisk_path(_raw(other, 0x11000001)).lower()
            there = any(p.volume == volume.id and p.path == image for p in self._survey.paths)
            yield Check(
                "verify.winre",
                _PASS if there else _FAIL,
                f"{volume.id}: {image}" + ("" if there else " missing"),
            )

    def _fallback_store(self, start: _Start) -> Check:
        volume = self._volumes.get(start.partition.id)
        for s in self._survey.boot_stores:
            if volume and s.volume == volume.id and s.role is StoreRole.EFI_RECOVERY:
                if s.state is not StoreState.OK:
                    return Check("verify.fallback-store", _FAIL, f"{s.path}: {s.state.value}")
                lost = [o for o in s.objects if o.type == 0x10200003 and not self._found(start, o)]
                if lost:
                    names = ", ".join(_text(o, 0x12000004) or o.guid for o in lost)
                    return Check("verify.fallback-store", _FAIL, f"{s.path}: no partition for {names}")
                return Check("verify.fallback-store", _PASS, f"{s.path}: {len(s.objects)} objects")
        return Check(
            "verify.fallback-store", _UNKNOWN, "there is none; it is used only when the main store is lost"
        )

    def _found(self, start: _Start, entry: StoreObject) -> bool:
        """Whether an entry's device names something that is there, as far as we can follow it."""
        volume, why = self._resolve(start, _raw(entry, 0x11000001))
        return volume is not None or why.startswith("?")

    # --- the boot manager's view of a device element --------------------------------------------------------------

    def _resolve(self, start: _Start, raw: bytes) -> tuple[Volume | None, str]:
        """The volume that a device element means. A reason that begins with "?" says that we cannot tell."""
        if not raw:
            return None, "the element is missing"
        if len(raw) < 0x20:
            return None, "the element is cut off"
        kind = struct.unpack_from("<I", raw, 0x10)[0]
        if kind == 5:
            return self._volumes.get(start.partition.id), "boot"
        if kind == 6:
            return self._partition(start, raw, 0x10)
        if kind == 0 and len(raw) > 0x54 and struct.unpack_from("<I", raw, 0x20)[0] == 3:
            if struct.unpack_from("<I", raw, 0x44)[0] == 5:
                return self._volumes.get(start.partition.id), "ramdisk on boot"
            return self._partition(start, raw, 0x44)
        return None, f"?device type {kind} was not followed"

    def _partition(self, start: _Start, raw: bytes, at: int) -> tuple[Volume | None, str]:
        """``at``: where the device header is (0x10 at the top level, 0x44 inside a ramdisk)."""
        if len(raw) < at + 0x48:
            return None, "the element is cut off"
        if struct.unpack_from("<I", raw, at)[0] != 6 or struct.unpack_from("<I", raw, at + 0x20)[0] != 0:
            return None, "?a device inside of a file was not followed"
        style = struct.unpack_from("<I", raw, at + 0x24)[0]
        found: list[tuple[Disk, Partition]] = []
        everything = [(d, p) for d in self._survey.disks for p in d.table.partitions]
        if style == 0:
            guid = str(uuid.UUID(bytes_le=raw[at + 0x10 : at + 0x20]))
            name, lost = f"partition {guid}", f"no partition {guid}"
            found = [
                (d, p) for d, p in everything if d.table.style is TableStyle.GPT and p.unique_guid == guid
            ]
        elif style == 1:
            (offset,) = struct.unpack_from("<Q", raw, at + 0x10)
            (signature,) = struct.unpack_from("<I", raw, at + 0x28)
            name = f"signature {signature:08x} offset {offset}"
            lost = f"no partition at {offset} of a disk {signature:08x}"
            mbr = [(d, p) for d, p in everything if d.table.style is TableStyle.MBR]
            found = [(d, p) for d, p in mbr if d.table.signature == signature and p.offset == offset]
        else:
            return None, f"?disk style {style} was not followed"
        # of several with one identity the boot manager takes that of the disk it was started from (measured)
        found.sort(key=lambda f: (f[0].id != start.disk.id, _may_go(f[0])))
        if not found:
            return None, lost
        disk, partition = found[0]
        if disk.id != start.disk.id and _may_go(disk):
            return None, f"?{name} is on {disk.path} alone, which is no disk of the server's own"
        return self._volumes.get(partition.id), name


def _may_go(disk: Disk) -> bool:
    """A disk that may be unplugged before the next start."""
    return disk.boot_medium or disk.removable or disk.transport == "usb"


def _raw(obj: StoreObject, element_type: int) -> bytes:
    return next((bytes.fromhex(e.raw) for e in obj.elements if e.type == element_type), b"")


def _texts(obj: StoreObject, element_type: int) -> list[str]:
    raw = _raw(obj, element_type)
    return [t for t in raw[: len(raw) // 2 * 2].decode("utf-16-le", "replace").split("\0") if t]


def _text(obj: StoreObject, element_type: int) -> str:
    return next(iter(_texts(obj, element_type)), "")


def _ramdisk_path(raw: bytes) -> str:
    """The path of a ramdisk on a partition or on boot: it follows the nested 72-byte device."""
    tail = raw[0x8C:]
    return tail[: len(tail) // 2 * 2].decode("utf-16-le", "replace").split("\0")[0]
