"""The store model: values by format, odd stores, edits, and the way into the survey and back."""

from __future__ import annotations

import struct

import pytest

from rehost_payload.formats import bcd_names as n
from rehost_payload.formats.bcd import (
    BcdObject,
    Element,
    ElementValue,
    Store,
    create_object,
    delete_element,
    delete_object,
    encode_value,
    normal_guid,
    parse_store,
    set_element,
)
from rehost_payload.formats.bcd_devices import BootDevice, PartitionDevice, UnknownDevice
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.hive import CreateKey, DeleteKey, SetValue
from rehost_payload.survey.store_objects import from_survey_objects, to_survey_objects
from support import boot_stores, regf
from support.regf import K, V

ODD = parse_store(boot_stores.as_hive(boot_stores.odd()))
SERVER = parse_store(boot_stores.as_hive(boot_stores.installed_uefi()))


def get(store: Store, guid: str) -> BcdObject:
    found = store.get(guid)
    assert found is not None
    return found


def test_an_installed_store() -> None:
    manager = get(SERVER, n.BOOTMGR)
    assert manager.type == n.TYPE_BOOTMGR
    assert manager.device(n.DEVICE) == PartitionDevice(boot_stores.ESP)
    assert manager.integer(n.BOOTMGR_TIMEOUT) == 30
    (loader_guid,) = manager.objects(n.BOOTMGR_DISPLAY_ORDER)
    assert manager.string(n.BOOTMGR_DEFAULT) == loader_guid
    loader = get(SERVER, loader_guid)
    assert loader.device(n.OSLOADER_OS_DEVICE) == PartitionDevice(boot_stores.WINDOWS)
    assert loader.string(n.PATH) == "\\Windows\\system32\\winload.efi"
    assert loader.value(n.RECOVERY_ENABLED) is True
    assert loader.value(n.ALLOWED_IN_MEMORY_SETTINGS) == (0x15000075,)
    assert loader.value(0x26000099) is None
    assert loader.string(n.DEVICE) is None
    assert loader.objects(n.PATH) == ()
    assert SERVER.key_name == "BCD00000000"
    assert not SERVER.dirty
    assert SERVER.oddities == ()
    assert get(SERVER, f"{{{loader_guid.upper()}}}") is loader


def test_odd_stores_are_read_and_say_so() -> None:
    manager = get(ODD, n.BOOTMGR)
    assert manager.key_name == "{9DEA862C-5CDD-4E70-ACC1-F32B344D4795}"
    assert manager.value(0x250000C2) == 1
    assert manager.value(0x21000152) == UnknownDevice(b"\x01\x02")
    assert manager.objects(n.INHERIT) == (n.GLOBAL_SETTINGS,)
    assert manager.value(n.DESCRIPTION) == b"binary"
    assert n.OSLOADER_SYSTEM_ROOT not in manager.elements
    default = get(ODD, "{default}")
    assert default.type is None
    assert default.elements == {}
    assert ODD.oddities == (
        "{9DEA862C-5CDD-4E70-ACC1-F32B344D4795}: 22000002 is no element",
        "{9DEA862C-5CDD-4E70-ACC1-F32B344D4795}: no element is no element",
        "{default} has no type",
    )
    assert ODD.key_name is None


@pytest.mark.parametrize(
    ("element_type", "reg_type", "data", "value"),
    [
        (0x25000004, 3, b"\x1e", 30),
        (0x15000014, 3, bytes.fromhex("00c201"), 115200),
        (0x25000004, 3, bytes(9), bytes(9)),
        (0x25000004, 3, b"", b""),
        (0x25000004, 4, b"\x1e\0\0\0", b"\x1e\0\0\0"),
        (0x26000022, 3, b"\x01", True),
        (0x26000022, 3, b"\x00", False),
        (0x26000022, 3, b"\x00\x01", b"\x00\x01"),
        (0x17000077, 3, struct.pack("<QQ", 5, 6), (5, 6)),
        (0x17000077, 3, bytes(7), bytes(7)),
        (0x12000002, 1, "\\x\0\0".encode("utf-16-le"), "\\x"),
        (0x23000003, 1, "{9DEA862C-5CDD-4E70-ACC1-F32B344D4795}\0".encode("utf-16-le"), n.BOOTMGR),
        (0x23000003, 3, b"raw", b"raw"),
        (0x24000001, 7, f"{{{n.MEMDIAG}}}\0\0".encode("utf-16-le"), (n.MEMDIAG,)),
        (0x24000001, 1, f"{{{n.MEMDIAG}}}\0".encode("utf-16-le"), (n.MEMDIAG,)),
        (0x24000001, 7, b"\0\0", ()),
        (0x1F000001, 3, b"format 15", b"format 15"),
    ],
)
def test_values_by_format(element_type: int, reg_type: int, data: bytes, value: ElementValue) -> None:
    found = Element(element_type, reg_type, data).value
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("element_type", "value", "reg_type", "data"),
    [
        (n.DEVICE, BootDevice(), 3, bytes(16) + b"\5\0\0\0\0\0\0\0\x48" + bytes(63)),
        (n.PATH, "\\a", 1, b"\\\0a\0\0\0"),
        (n.BOOTMGR_DEFAULT, n.MEMDIAG, 1, f"{{{n.MEMDIAG}}}\0".encode("utf-16-le")),
        (n.BOOTMGR_DEFAULT, f"{{{n.MEMDIAG.upper()}}}", 1, f"{{{n.MEMDIAG}}}\0".encode("utf-16-le")),
        (n.INHERIT, [n.MEMDIAG], 7, f"{{{n.MEMDIAG}}}\0\0".encode("utf-16-le")),
        (n.BOOTMGR_TIMEOUT, 30, 3, b"\x1e" + bytes(7)),
        (n.OSLOADER_WINPE, True, 3, b"\1"),
        (n.ALLOWED_IN_MEMORY_SETTINGS, (1, 2), 3, struct.pack("<QQ", 1, 2)),
        (n.BOOTMGR_TIMEOUT, b"\x1e", 3, b"\x1e"),
    ],
)
def test_encoding(element_type: int, value: ElementValue, reg_type: int, data: bytes) -> None:
    assert encode_value(element_type, value) == (reg_type, data)


@pytest.mark.parametrize(
    ("element_type", "value"),
    [
        (n.DEVICE, "\\Windows"),
        (n.PATH, 3),
        (n.BOOTMGR_DEFAULT, "not a guid"),
        (n.INHERIT, n.MEMDIAG),
        (n.INHERIT, ["{default}"]),
        (n.BOOTMGR_TIMEOUT, -1),
        (n.BOOTMGR_TIMEOUT, 1 << 64),
        (n.BOOTMGR_TIMEOUT, True),
        (n.OSLOADER_WINPE, 1),
        (n.ALLOWED_IN_MEMORY_SETTINGS, 5),
        (0x1F000001, 5),
    ],
)
def test_values_that_do_not_fit_are_refused(element_type: int, value: ElementValue) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - UUID says it in its own words
        encode_value(element_type, value)


def test_edits_use_the_keys_of_the_store() -> None:
    (edit,) = set_element(n.BOOTMGR, 0x250000C2, 0, store=ODD)
    assert edit == SetValue(
        ("Objects", "{9DEA862C-5CDD-4E70-ACC1-F32B344D4795}", "Elements", "250000C2"), "Element", 3, bytes(8)
    )
    assert delete_element(n.BOOTMGR, 0x250000C2, store=ODD) == [
        DeleteKey(("Objects", "{9DEA862C-5CDD-4E70-ACC1-F32B344D4795}", "Elements", "250000C2"))
    ]
    assert delete_element(n.BOOTMGR, 0x250000C2) == [
        DeleteKey(("Objects", f"{{{n.BOOTMGR}}}", "Elements", "250000c2"))
    ]
    assert delete_object("{default}", store=ODD) == [DeleteKey(("Objects", "{default}"))]
    assert create_object(n.MEMDIAG, n.TYPE_MEMDIAG) == [
        SetValue(("Objects", f"{{{n.MEMDIAG}}}", "Description"), "Type", 4, bytes.fromhex("05002010")),
        CreateKey(("Objects", f"{{{n.MEMDIAG}}}", "Elements")),
    ]


def test_an_element_that_has_the_value_is_not_touched() -> None:
    """Also where it is stored in another way: an integer of one byte, a list as one string."""
    assert set_element(n.BOOTMGR, 0x250000C2, 1, store=ODD) == []
    assert set_element(n.BOOTMGR, n.INHERIT, (n.GLOBAL_SETTINGS,), store=ODD) == []
    assert set_element(n.BOOTMGR, n.INHERIT, (n.GLOBAL_SETTINGS, n.MEMDIAG), store=ODD) != []
    assert set_element(n.BOOTMGR, n.DESCRIPTION, "binary", store=ODD) != []
    assert set_element(n.BOOTMGR, n.DEVICE, PartitionDevice(boot_stores.ESP), store=SERVER) == []


@pytest.mark.parametrize("kind", sorted(boot_stores.all_kinds()))
def test_survey_and_back(kind: str) -> None:
    store = parse_store(boot_stores.as_hive(boot_stores.all_kinds()[kind]))
    described = to_survey_objects(store)
    again = from_survey_objects(described)
    assert to_survey_objects(again) == described
    assert again.objects.keys() == store.objects.keys()
    for entry, element in store.elements():
        assert get(again, entry.guid).elements[element.type].data == element.data
        assert get(again, entry.guid).value(element.type) == element.value


def test_firmware_variables_are_kept() -> None:
    edits = [
        *create_object(n.FWBOOTMGR, n.TYPE_FWBOOTMGR),
        SetValue(("Objects", f"{{{n.FWBOOTMGR}}}", "Description"), "FirmwareVariable", 3, b"\1\2\3"),
    ]
    store = parse_store(boot_stores.as_hive(edits))
    assert get(store, n.FWBOOTMGR).firmware_variable == b"\1\2\3"
    (described,) = to_survey_objects(store)
    assert described.firmware_variable == "010203"
    assert get(from_survey_objects([described]), n.FWBOOTMGR).firmware_variable == b"\1\2\3"


def test_what_is_no_store() -> None:
    with pytest.raises(FormatError, match="no key Objects"):
        parse_store(regf.hive(K("ROOT", keys=[K("Select")])))
    with pytest.raises(FormatError, match="signature"):
        parse_store(b"version https://git-lfs.github.com/spec/v1\n")


def test_a_dirty_store_says_so() -> None:
    assert parse_store(regf.dirty(boot_stores.as_hive(boot_stores.odd()))).dirty


def test_elements_cannot_share_one_large_cell() -> None:
    """A store of 1 MB that claims a gigabyte: every element points to the same data."""
    objects = K("{object}", keys=[K("Elements")])
    elements = [K(f"{0x12000000 + i:08x}", values=[V("Element", 1, bytes(8))]) for i in range(2000)]
    objects.keys[0].keys = elements
    built = regf.build(
        K("R", keys=[K("Objects", keys=[objects]), K("z", values=[V("big", 3, bytes(500_000))])]), minor=3
    )
    size_and_place = built.data[built.places["z:big"] + 4 : built.places["z:big"] + 12]
    for element in elements:
        at = built.places[f"Objects\\{{object}}\\Elements\\{element.name}:Element"]
        built.data[at + 4 : at + 12] = size_and_place
    with pytest.raises(FormatError, match="more data than the hive"):
        parse_store(built.seal())


def test_names() -> None:
    assert n.element_name(0x21000001, n.TYPE_OSLOADER) == "osdevice"
    assert n.element_name(0x21000001, n.TYPE_RESUME) == "filedevice"
    assert n.element_name(0x21000001, n.TYPE_INHERIT_OSLOADER) == "osdevice"
    assert n.element_name(0x21000001) == "custom:21000001"
    assert n.element_name(0x11000001) == "device"
    assert n.object_name(n.BOOTMGR) == "{bootmgr}"
    assert n.object_name("7619dcc9-fafe-11d9-b411-000476eba25f") == "{7619dcc9-fafe-11d9-b411-000476eba25f}"
    assert n.object_type_title(n.TYPE_OSLOADER) == "Windows Boot Loader"
    assert n.object_type_title(0x10FFFFF1) == "Object of type 10fffff1"
    assert n.object_type_title(None) == "Object without type"
    assert n.integer_name(n.OSLOADER_NX, 1, n.TYPE_OSLOADER) == "OptOut"
    assert n.integer_name(n.OSLOADER_NX, 99, n.TYPE_OSLOADER) is None
    assert n.integer_name(n.BOOTMGR_TIMEOUT, 1, n.TYPE_BOOTMGR) is None
    assert normal_guid("{9DEA862C-5CDD-4E70-ACC1-F32B344D4795}") == n.BOOTMGR
