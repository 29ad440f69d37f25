r"""A Windows machine whose disks are raw image files: implements system/win32.py as Windows would answer.

Every answer is packed byte by byte as winioctl.h lays it out, independently of the parsers in the payload. It is as
strict as Windows: unbuffered access that is not aligned is refused, and so are writes below a mounted file system that
is not locked, and unloading a hive whose keys are open. Standard library alone, so that it runs under Wine as well;
hives need hivex.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rehost_payload.system.win32 import VolumeFacts, Win32Error

_NO_BUFFERING = 0x20000000
_WRITE = 0x40000000
_SATA = 11
_GLOBAL = "{8be4df61-93ca-11d2-aa0d-00e098032b8c}"


@dataclass(frozen=True)
class Part:
    number: int
    offset: int
    size: int

    def name(self, disk: int) -> str:
        return "\\\\?\\Volume{" + str(uuid.uuid5(uuid.NAMESPACE_OID, f"{disk}/{self.offset}")) + "}\\"


@dataclass
class FakeDisk:
    image: Path
    parts: Sequence[Part] = ()
    sector: int = 512
    vendor: bytes = b"ATA     "
    product: bytes = b"Samsung SSD 860 "
    serial: bytes = b"S3Z8NB0K"
    bus: int = _SATA
    removable: bool = False
    write_protected: bool = False
    attributes: int = 0  # 1 offline, 2 read-only
    instance: str = ""

    @property
    def size(self) -> int:
        return self.image.stat().st_size


@dataclass
class Device:
    parent: str | None
    properties: Mapping[int, bytes] = field(default_factory=dict)


@dataclass
class _Handle:
    path: str
    access: int
    flags: int
    disk: int | None = None
    volume: str | None = None
    file: Path | None = None


def pci(parent: str, hardware: str, code: str, bus: int, address: int, service: str) -> Device:
    """A PCI device by its instance ID."""
    vendor = hardware.partition("\\")[2].partition("&SUBSYS")[0]
    ids = multi(rf"PCI\{hardware.partition(chr(92))[2].rpartition(chr(92))[0]}", rf"PCI\{vendor}&CC_{code}")
    return Device(
        parent,
        {
            2: ids,
            3: multi(rf"PCI\{vendor}", rf"PCI\{vendor[:8]}", rf"PCI\CC_{code}", rf"PCI\CC_{code[:4]}"),
            5: (service + "\0").encode("utf-16-le"),
            0x16: struct.pack("<I", bus),
            0x1D: struct.pack("<I", address),
        },
    )


def multi(*texts: str) -> bytes:
    return ("\0".join([*texts, "", ""])).encode("utf-16-le")


@dataclass
class Machine:
    """``log`` notes every call that changes something. ``errors`` answers a call (by its method's name, or by the
    control code) with an error, as often as it is in the list."""

    disks: dict[int, FakeDisk]
    devices: dict[str, Device] = field(default_factory=dict)
    variables: dict[str, bytes] = field(default_factory=dict)
    values: dict[tuple[str, str], bytes] = field(default_factory=dict)
    letters: dict[str, str] = field(default_factory=dict)  # "D:\\" -> name of the volume
    firmware: int = 2
    privileged: bool = True
    hidden: set[str] = field(default_factory=set)  # volumes without a name in the mount manager
    flags: dict[str, int] = field(default_factory=dict)
    systems: dict[str, str] = field(default_factory=dict)  # name of a volume -> its file system
    unmountable: set[str] = field(default_factory=set)
    descriptors: dict[str, bytes] = field(default_factory=dict)  # name of a file -> its security descriptor
    log: list[str] = field(default_factory=list)
    errors: dict[str | int, list[int]] = field(default_factory=dict)
    dismounted: set[str] = field(default_factory=set)
    locked: set[str] = field(default_factory=set)
    handles: dict[int, _Handle] = field(default_factory=dict)
    hives: dict[str, Any] = field(default_factory=dict)
    keys: dict[int, tuple[str, Any]] = field(default_factory=dict)
    _next: int = 100

    def _fail(self, what: str | int, function: str) -> None:
        waiting = self.errors.get(what)
        if waiting:
            raise Win32Error(function, waiting.pop(0))

    def _new(self) -> int:
        self._next += 4
        return self._next

    def _parts(self) -> list[tuple[int, Part, str]]:
        return [(n, p, p.name(n)) for n, d in self.disks.items() if not d.attributes & 1 for p in d.parts]

    # --- Devices ---

    def open(self, path: str, access: int, flags: int = 0) -> int:
        self._fail("open", "CreateFileW")
        handle = _Handle(path, access, flags)
        for number, disk in self.disks.items():
            if path == rf"\\.\PhysicalDrive{number}" or path == rf"\\?\disk#{number}":
                handle.disk = number
                if access & _WRITE and disk.write_protected:
                    raise Win32Error("CreateFileW", 19)
        for number, part, name in self._parts():
            global_root = rf"\\?\GLOBALROOT\Device\Harddisk{number}\Partition{part.number}"
            if path == global_root or (path + "\\" == name and name not in self.hidden):
                handle.volume = name
        if handle.disk is None and handle.volume is None:
            if not Path(path).is_file():
                raise Win32Error("CreateFileW", 2)
            handle.file = Path(path)
        key = self._new()
        self.handles[key] = handle
        return key

    def close(self, handle: int) -> None:
        closed = self.handles.pop(handle)
        if closed.volume is not None:
            self.locked.discard(closed.volume)

    def control(self, handle: int, code: int, data: bytes = b"", room: int = 0) -> bytes:
        self._fail(code, "DeviceIoControl")
        there = self.handles[handle]
        if there.volume is not None:
            return self._volume_control(there.volume, code, room)
        assert there.disk is not None
        number, disk = there.disk, self.disks[there.disk]
        answer = b""
        if code == 0x7405C:
            answer = struct.pack("<Q", disk.size)
        elif code == 0x700A0:
            cylinders = disk.size // (255 * 63 * disk.sector)
            answer = struct.pack("<QIIII", cylinders, 12, 255, 63, disk.sector) + struct.pack("<Q", disk.size)
            answer += bytes(80)  # what MBR or GPT and BIOS say follows
        elif code == 0x70024:
            if disk.write_protected or disk.attributes & 3:
                raise Win32Error("DeviceIoControl", 19)
        elif code == 0x2D1400:
            assert struct.unpack("<III", data) == (0, 0, 0)
            answer = self._descriptor(disk)
        elif code == 0x2D1080:
            answer = struct.pack("<III", 7, number, 0)
        elif code == 0x700F0:
            answer = struct.pack("<IIQ", 16, 0, disk.attributes)
        elif code == 0x7C0F4:
            size, persist, attributes, mask = struct.unpack_from("<IB3xQQ", data)
            assert (size, len(data), persist) == (40, 40, 0)
            assert there.access & _WRITE
            disk.attributes = disk.attributes & ~mask | attributes & mask
            self.log.append(f"attributes {number} {disk.attributes}")
        elif code == 0x70140:
            self.log.append(f"reread {number}")
        elif code == 0x70050:
            answer = struct.pack("<II", 1, len(disk.parts)) + bytes(40)
            for part in disk.parts:
                entry = struct.pack("<I4xqqIBB", 1, part.offset, part.size, part.number, 0, 0)
                answer += entry.ljust(144, b"\0")
        else:
            raise Win32Error("DeviceIoControl", 1)
        return answer[:room]

    def _volume_control(self, name: str, code: int, room: int) -> bytes:
        number, part = next((n, p) for n, p, volume in self._parts() if volume == name)
        if code == 0x560000:
            answer = struct.pack("<I4x", 1) + struct.pack("<I4xqq", number, part.offset, part.size)
            if room < len(answer):
                raise Win32Error("DeviceIoControl", 234)
            return answer
        if code == 0x90018:
            self.locked.add(name)
            self.log.append(f"lock {number}/{part.number}")
        elif code == 0x90020:
            self.dismounted.add(name)
            self.log.append(f"dismount {number}/{part.number}")
        elif code == 0x9001C:
            self.locked.discard(name)
            self.log.append(f"unlock {number}/{part.number}")
        else:
            raise Win32Error("DeviceIoControl", 1)
        return b""

    @staticmethod
    def _descriptor(disk: FakeDisk) -> bytes:
        head = 36 + 4
        texts, places = b"", []
        for text in (disk.vendor, disk.product, b"RVT0", disk.serial):
            places.append(head + len(texts) if text else 0)
            texts += text + b"\0"
        fields = struct.pack(
            "<IIBBBB4III", 40, head + len(texts), 0, 0, disk.removable, 1, *places, disk.bus, 0
        )
        return fields.ljust(head, b"\0") + texts

    def read(self, handle: int, offset: int, length: int) -> bytes:
        self._fail("read", "ReadFile")
        there = self.handles[handle]
        place, sector = there.file, 512
        if there.disk is not None:
            place, sector = self.disks[there.disk].image, self.disks[there.disk].sector
        assert place is not None
        if there.flags & _NO_BUFFERING and (offset % sector or length % sector):
            raise Win32Error("ReadFile", 87)
        with place.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def read_into(self, handle: int, offset: int, buffer: memoryview) -> int:
        data = self.read(handle, offset, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def write_from(self, handle: int, offset: int, buffer: memoryview) -> int:
        return self.write(handle, offset, bytes(buffer))

    def reserve(self, handle: int, size: int) -> None:
        self._fail("reserve", "SetFileInformationByHandle")
        self.log.append(f"reserve {size}")

    def set_times(self, handle: int, created: int, modified: int) -> None:
        self.log.append(f"times {created} {modified}")

    def write(self, handle: int, offset: int, data: bytes) -> int:
        self._fail("write", "WriteFile")
        there = self.handles[handle]
        if there.file is not None:
            if there.flags & _NO_BUFFERING and (offset % 512 or len(data) % 512):
                raise Win32Error("WriteFile", 87)
            with there.file.open("r+b") as file:
                file.seek(offset)
                return file.write(data)
        assert there.disk is not None
        number, disk = there.disk, self.disks[there.disk]
        if not there.access & _WRITE or disk.attributes & 3:
            raise Win32Error("WriteFile", 19 if disk.attributes & 3 else 5)
        if there.flags & _NO_BUFFERING and (offset % disk.sector or len(data) % disk.sector):
            raise Win32Error("WriteFile", 87)
        for n, part, name in self._parts():
            inside = n == number and part.offset < offset + len(data) and offset < part.offset + part.size
            if inside and name not in self.locked & self.dismounted:
                raise Win32Error("WriteFile", 5)
        with disk.image.open("r+b") as file:
            file.seek(offset)
            file.write(data)
        self.log.append(f"write {number} {offset} {len(data)}")
        return len(data)

    def flush(self, handle: int) -> None:
        self._fail("flush", "FlushFileBuffers")
        assert self.handles[handle].access & _WRITE
        self.log.append(f"flush {self.handles[handle].path}")

    def volumes(self) -> Sequence[str]:
        return [name for _, _, name in self._parts() if name not in self.hidden]

    def volume_facts(self, root: str) -> VolumeFacts:
        self._fail("volume_facts", "GetVolumeInformationW")
        if root in self.unmountable:
            raise Win32Error("GetVolumeInformationW", 1005)
        return VolumeFacts(
            "VOLUME", 0x12345678, self.flags.get(root, 0x3E706FF), self.systems.get(root, "NTFS")
        )

    def mount_points(self, volume: str) -> Sequence[str]:
        return [root for root, name in self.letters.items() if name == volume]

    def add_mount_point(self, root: str, volume: str) -> None:
        self._fail("add_mount_point", "SetVolumeMountPointW")
        assert root not in self.letters
        self.letters[root] = volume
        self.log.append(f"mount {root}")

    def remove_mount_point(self, root: str) -> None:
        del self.letters[root]
        self.log.append(f"unmount {root}")

    def drive_letters(self) -> int:
        return 0x800004 | sum(1 << (ord(root[0]) - 65) for root in self.letters)

    def move(self, source: str, target: str) -> None:
        self._fail("move", "MoveFileExW")
        Path(source).replace(target)

    def security(self, path: str) -> bytes | None:
        self._fail("security", "GetFileSecurityW")
        return self.descriptors.get(Path(path).name)

    def keep_security(self, source: str, target: str) -> None:
        self.log.append(f"security {Path(source).name}")

    # --- DeviceTree ---

    def pci_devices(self) -> Sequence[str]:
        self._fail("pci_devices", "CM_Get_Device_ID_ListW")
        return [name for name in self.devices if name.startswith("PCI\\")]

    def property(self, device: str, number: int) -> bytes | None:
        return self.devices[device].properties.get(number)

    def parent(self, device: str) -> str | None:
        return self.devices[device].parent if device in self.devices else None

    def disk_interfaces(self) -> Sequence[tuple[str, str]]:
        self._fail("disk_interfaces", "CM_Get_Device_Interface_ListW")
        return [(rf"\\?\disk#{n}", d.instance) for n, d in self.disks.items()]

    # --- FirmwareCalls ---

    def firmware_type(self) -> int:
        self._fail("firmware_type", "GetFirmwareType")
        return self.firmware

    def may_use_variables(self) -> bool:
        return self.privileged

    def variable(self, name: str, guid: str) -> bytes | None:
        assert guid == _GLOBAL
        self._fail("variable", "GetFirmwareEnvironmentVariableW")
        if name not in self.variables:
            raise Win32Error("GetFirmwareEnvironmentVariableW", 203)
        return self.variables[name]

    def set_variable(self, name: str, guid: str, data: bytes, attributes: int) -> None:
        assert (guid, attributes) == (_GLOBAL, 7)
        self._fail("set_variable", "SetFirmwareEnvironmentVariableExW")
        if data:
            self.variables[name] = data
        elif self.variables.pop(name, None) is None:
            raise Win32Error("SetFirmwareEnvironmentVariableExW", 203)
        self.log.append(f"variable {name}")

    # --- Registry ---

    def load(self, name: str, path: str) -> None:
        self._fail("load", "RegLoadKeyW")
        import hivex

        try:
            handle = hivex.Hivex(path, write=True)
        except RuntimeError as error:
            raise Win32Error("RegLoadKeyW", 1009) from error  # ERROR_BADDB
        self.hives[name] = handle
        for log in (".LOG1", ".LOG2"):  # Windows makes them at once
            Path(path + log).write_bytes(b"")
        self.log.append("load")

    def unload(self, name: str) -> None:
        self._fail("unload", "RegUnLoadKeyW")
        if any(hive == name for hive, _ in self.keys.values()):
            raise Win32Error("RegUnLoadKeyW", 5)
        self.hives.pop(name).commit(None)
        self.log.append("unload")

    def loaded(self) -> Sequence[str]:
        return ["HARDWARE", "SAM", "SECURITY", "SOFTWARE", "SYSTEM", *self.hives]

    def open_key(self, path: str, create: bool = False) -> int:
        self._fail("open_key", "RegCreateKeyExW")
        name, *names = path.split("\\")
        handle = self.hives[name]
        node = handle.root()
        for part in names:
            child = self._child(handle, node, part)
            if child is None and not create:
                raise Win32Error("RegOpenKeyExW", 2)
            node = handle.node_add_child(node, part) if child is None else child
        key = self._new()
        self.keys[key] = (name, node)
        return key

    @staticmethod
    def _child(handle: Any, node: Any, name: str) -> Any:
        for child in handle.node_children(node):
            if handle.node_name(child).upper() == name.upper():
                return child
        return None

    def close_key(self, key: int) -> None:
        del self.keys[key]

    def set_value(self, key: int, name: str, kind: int, data: bytes) -> None:
        self._fail("set_value", "NtSetValueKey")
        hive, node = self.keys[key]
        self.hives[hive].node_set_value(node, {"key": name, "t": kind, "value": data})

    def delete_value(self, key: int, name: str) -> None:
        hive, node = self.keys[key]
        handle = self.hives[hive]
        kept, found = [], False
        for value in handle.node_values(node):
            kind, data = handle.value_value(value)
            if handle.value_key(value).upper() == name.upper():
                found = True
            else:
                kept.append({"key": handle.value_key(value), "t": kind, "value": data})
        if not found:
            raise Win32Error("RegDeleteValueW", 2)
        handle.node_set_values(node, kept)

    def delete_tree(self, key: int, name: str) -> None:
        hive, node = self.keys[key]
        child = self._child(self.hives[hive], node, name)
        if child is None:
            raise Win32Error("RegDeleteTreeW", 2)
        self.hives[hive].node_delete_child(child)

    def flush_key(self, key: int) -> None:
        self.log.append("flush key")

    def value(self, path: str, name: str) -> bytes | None:
        return self.values.get((path, name))

    # --- for tests ---

    def idle(self) -> bool:
        """Nothing is left open, locked or loaded."""
        return not (self.handles or self.locked or self.hives or self.keys)
