"""The boot store (BCD): its objects and elements, read from a hive, and the edits that change them.

A store is a registry hive (measured on 229 real ones):

    Description                                   KeyName, System, TreatAsSystem, ...: never relied on
    Objects\\{guid}\\Description\\Type              DWORD, see bcd_names; FirmwareVariable on firmware entries
    Objects\\{guid}\\Elements\\XXXXXXXX\\Element     one value; XXXXXXXX is the element's type in hex

The format nibble of the type says how the data are to be read: 1 device, 2 string, 3 object, 4 object list,
5 integer, 6 boolean, 7 integer list. What does not fit its format is shown as bytes and left alone: nothing but the
wanted elements is ever written.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from rehost_payload.formats.bcd_devices import (
    BootDevice,
    Device,
    FileDevice,
    LocateDevice,
    PartitionDevice,
    RamdiskDevice,
    UnknownDevice,
    VhdDevice,
    decode_device,
    encode_device,
)
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.hive import (
    REG_BINARY,
    REG_DWORD,
    REG_MULTI_SZ,
    REG_SZ,
    CreateKey,
    DeleteKey,
    Hive,
    HiveEdit,
    Key,
    SetValue,
    Value,
    decode_string,
    decode_strings,
    encode_string,
    encode_strings,
)

FORMAT_DEVICE = 1
FORMAT_STRING = 2
FORMAT_OBJECT = 3
FORMAT_OBJECT_LIST = 4
FORMAT_INTEGER = 5
FORMAT_BOOLEAN = 6
FORMAT_INTEGER_LIST = 7

ElementValue = Device | str | int | tuple[str, ...] | tuple[int, ...] | bytes
"""A boolean is a bool (an int); objects are GUIDs in lower case without braces."""

_DEVICES = (
    PartitionDevice,
    BootDevice,
    RamdiskDevice,
    FileDevice,
    VhdDevice,
    LocateDevice,
    UnknownDevice,
)
_LONGEST_NAME = 1024  # bytes of Description\\KeyName; real ones have 24
_ELEMENT_KEY = re.compile("[0-9A-Fa-f]{8}")


def element_format(element_type: int) -> int:
    """The format nibble of an element's type."""
    return element_type >> 24 & 0xF


def normal_guid(text: str) -> str:
    """Lower case, no braces. What is no GUID ("{default}") is treated alike."""
    return text.strip().removeprefix("{").removesuffix("}").lower()


@dataclass(frozen=True)
class Element:
    """``data`` are the bytes of the registry value ``Element``, ``reg_type`` its registry type."""

    type: int
    reg_type: int
    data: bytes
    key_name: str = ""  # as spelled in the hive; "" for the usual %08x

    @property
    def value(self) -> ElementValue:
        """What the data mean; the bytes themselves where they do not fit the format."""
        kind, data = element_format(self.type), self.data
        if self.reg_type == REG_BINARY:
            if kind == FORMAT_DEVICE:
                return decode_device(data)
            # installation media by Microsoft have integers of 1 and 3 bytes
            if kind == FORMAT_INTEGER and 1 <= len(data) <= 8:
                return int.from_bytes(data, "little")
            if kind == FORMAT_BOOLEAN and len(data) == 1:
                return data != b"\0"
            if kind == FORMAT_INTEGER_LIST and len(data) % 8 == 0:
                return struct.unpack(f"<{len(data) // 8}Q", data)
        elif self.reg_type == REG_SZ:
            if kind == FORMAT_STRING:
                return decode_string(data)
            if kind == FORMAT_OBJECT:
                return normal_guid(decode_string(data))
            if kind == FORMAT_OBJECT_LIST:
                return (normal_guid(decode_string(data)),)
        elif self.reg_type == REG_MULTI_SZ and kind == FORMAT_OBJECT_LIST:
            return tuple(normal_guid(text) for text in decode_strings(data))
        return data

    @property
    def device(self) -> Device | None:
        """The device of an element of that format, else None."""
        value = self.value
        return value if isinstance(value, _DEVICES) else None


@dataclass(frozen=True)
class BcdObject:
    """One entry. ``type`` is None where Description\\Type is absent or no number: some tools forget it."""

    guid: str
    type: int | None
    elements: Mapping[int, Element]
    firmware_variable: bytes | None = None
    key_name: str = ""  # as spelled in the hive; "" for {guid}

    def value(self, element_type: int) -> ElementValue | None:
        """The element's value, None where the object does not have it."""
        element = self.elements.get(element_type)
        return None if element is None else element.value

    def device(self, element_type: int) -> Device | None:
        value = self.value(element_type)
        return value if isinstance(value, _DEVICES) else None

    def string(self, element_type: int) -> str | None:
        """The value of a string or object element."""
        value = self.value(element_type)
        return value if isinstance(value, str) else None

    def integer(self, element_type: int) -> int | None:
        """The value of an integer or boolean element."""
        value = self.value(element_type)
        return value if isinstance(value, int) else None

    def objects(self, element_type: int) -> tuple[str, ...]:
        """The value of an object list; empty where there is none."""
        value = self.value(element_type)
        if not isinstance(value, tuple):
            return ()
        return tuple(guid for guid in value if isinstance(guid, str))


@dataclass(frozen=True)
class Store:
    """A boot store. ``oddities`` name keys that were passed over, for the reader of a report."""

    objects: Mapping[str, BcdObject]
    key_name: str | None = None  # Description\KeyName: "BCD00000000" is the system store. Often garbage
    dirty: bool = False
    oddities: tuple[str, ...] = ()

    def get(self, guid: str) -> BcdObject | None:
        return self.objects.get(normal_guid(guid))

    def elements(self) -> list[tuple[BcdObject, Element]]:
        """Every element of every object: a repair walks them all, not those of a fixed list."""
        return [(o, e) for o in self.objects.values() for e in o.elements.values()]


def parse_store(data: bytes) -> Store:
    """Reads a store from a hive's bytes; raises FormatError where it is no hive, damaged or no boot store.

    A dirty hive is read as it stands: apply its logs first (`hive.replay`).
    """
    return store_from_hive(Hive.parse(data))


def store_from_hive(hive: Hive) -> Store:
    """As `parse_store`, for a hive that is already open."""
    objects_key = hive.find("Objects")
    if objects_key is None:
        raise FormatError("boot store", "the hive has no key Objects")
    oddities: list[str] = []
    objects: dict[str, BcdObject] = {}
    data = 0
    for key in objects_key.subkeys():
        parsed, size = _object(key, oddities, hive.size - data)
        objects[parsed.guid] = parsed
        data += size
    description = hive.find("Description")
    value = None if description is None else description.value("KeyName")
    key_name = None if value is None or value.size > _LONGEST_NAME else decode_string(value.data)
    return Store(objects, key_name, hive.dirty, tuple(oddities))


def _object(key: Key, oddities: list[str], budget: int) -> tuple[BcdObject, int]:
    """The object, and how many bytes of data it holds: never more than ``budget``.

    Values of a sound hive do not share their data, so all together they are smaller than the hive. Without this, a
    small hostile store could claim its one large cell for every element.
    """
    object_type: int | None = None
    firmware_variable: bytes | None = None
    taken = 0

    def take(value: Value) -> bytes:
        nonlocal taken
        taken += value.size
        if taken > budget:
            raise FormatError("boot store", "its elements hold more data than the hive")
        return value.data

    description = key.subkey("Description")
    if description is not None:
        value = description.value("Type")
        if value is not None and value.type == REG_DWORD and value.size == 4:
            object_type = int.from_bytes(value.data, "little")
        value = description.value("FirmwareVariable")
        if value is not None:
            firmware_variable = take(value)
    if object_type is None:
        oddities.append(f"{key.name} has no type")
    elements: dict[int, Element] = {}
    container = key.subkey("Elements")
    for child in container.subkeys() if container is not None else ():
        value = child.value("Element")
        if value is None or not _ELEMENT_KEY.fullmatch(child.name):
            oddities.append(f"{key.name}: {child.name} is no element")
            continue
        number = int(child.name, 16)
        elements[number] = Element(number, value.type, take(value), child.name)
    return BcdObject(normal_guid(key.name), object_type, elements, firmware_variable, key.name), taken


def encode_value(element_type: int, value: ElementValue | Sequence[str] | Sequence[int]) -> tuple[int, bytes]:
    """Registry type and data for an element's value. Raises ValueError where it does not fit the format.

    Bytes are taken as they are (REG_BINARY) whatever the format. Integers become 8 bytes.
    """
    kind = element_format(element_type)
    if isinstance(value, bytes):
        return REG_BINARY, value
    if kind == FORMAT_DEVICE and isinstance(value, _DEVICES):
        return REG_BINARY, encode_device(value)
    if kind == FORMAT_STRING and isinstance(value, str):
        return REG_SZ, encode_string(value)
    if kind == FORMAT_OBJECT and isinstance(value, str):
        return REG_SZ, encode_string(_braced(value))
    if kind == FORMAT_BOOLEAN and isinstance(value, bool):
        return REG_BINARY, bytes([value])
    if kind == FORMAT_INTEGER and isinstance(value, int) and not isinstance(value, bool):
        return REG_BINARY, _integer(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        if kind == FORMAT_OBJECT_LIST:
            return REG_MULTI_SZ, encode_strings([_braced(v) for v in value if isinstance(v, str)])
        if kind == FORMAT_INTEGER_LIST:
            return REG_BINARY, b"".join(_integer(v) for v in value if isinstance(v, int))
    raise ValueError(f"{value!r} does not fit element {element_type:08x}")


def _braced(guid: str) -> str:
    return f"{{{UUID(normal_guid(guid))}}}"


def _integer(value: int) -> bytes:
    if not 0 <= value < 1 << 64:
        raise ValueError(f"{value} does not fit 8 bytes")
    return value.to_bytes(8, "little")


def set_element(
    guid: str,
    element_type: int,
    value: ElementValue | Sequence[str] | Sequence[int],
    *,
    store: Store | None = None,
) -> list[HiveEdit]:
    """Sets one element of an object, creating it where it is absent.

    With ``store`` the keys are spelled as they are there, and nothing is done where the element has this value
    already, however it is stored. Without it the usual spelling is used, which finds them just as well, because
    keys are compared without case.
    """
    reg_type, data = encode_value(element_type, value)
    if store is not None:
        known = store.get(guid)
        element = None if known is None else known.elements.get(element_type)
        if element is not None and element.value == Element(element_type, reg_type, data).value:
            return []
    return [SetValue(_element_key(guid, element_type, store), "Element", reg_type, data)]


def delete_element(guid: str, element_type: int, *, store: Store | None = None) -> list[HiveEdit]:
    """Removes one element of an object."""
    return [DeleteKey(_element_key(guid, element_type, store))]


def create_object(guid: str, object_type: int) -> list[HiveEdit]:
    """An object without elements."""
    key = ("Objects", _braced(guid))
    return [
        SetValue((*key, "Description"), "Type", REG_DWORD, object_type.to_bytes(4, "little")),
        CreateKey((*key, "Elements")),
    ]


def delete_object(guid: str, *, store: Store | None = None) -> list[HiveEdit]:
    """Removes an object with its elements. References to it are not looked for."""
    return [DeleteKey(_object_key(guid, store))]


def _object_key(guid: str, store: Store | None) -> tuple[str, ...]:
    known = None if store is None else store.get(guid)
    if known is not None and known.key_name:
        return ("Objects", known.key_name)
    return ("Objects", f"{{{normal_guid(guid)}}}")


def _element_key(guid: str, element_type: int, store: Store | None) -> tuple[str, ...]:
    known = None if store is None else store.get(guid)
    element = None if known is None else known.elements.get(element_type)
    name = f"{element_type:08x}" if element is None or not element.key_name else element.key_name
    return (*_object_key(guid, store), "Elements", name)
