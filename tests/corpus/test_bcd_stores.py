"""Real boot stores: all are read, every element comes back byte by byte, one edit changes one element."""

from __future__ import annotations

import csv
import struct
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_payload.formats import bcd_names as n
from rehost_payload.formats.bcd import Store, encode_value, parse_store, set_element
from rehost_payload.formats.bcd_build import Recovery, bcdboot_store, recovery_store
from rehost_payload.formats.bcd_devices import (
    GptIdentity,
    Identity,
    PartitionDevice,
    UnknownDevice,
    VhdDevice,
    decode_device,
    encode_device,
    map_partitions,
    walk_devices,
)
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.hive import Hive, HiveEdit, SetValue, replay
from rehost_payload.survey.store_objects import from_survey_objects, to_survey_objects
from rehost_payload.system.hivex_edit import edit_hive
from rehost_payload.ui.bcd_show import bcd
from support import boot_stores, regf
from support.corpus import corpus
from support.hives import values as as_hivex_sees_it

FOLDER = corpus("bcd")
STORES = sorted(p for p in FOLDER.glob("*.bcd") if not p.name.startswith("nothive"))
LOGGED = [p for p in STORES if list(FOLDER.glob(f"{p.name}.LOG*"))]
INDEX = {
    row["file"]: row
    for row in csv.DictReader((FOLDER / "INDEX.tsv").read_text("utf-8").splitlines(), delimiter="\t")
}
# logs that are older than the store, or another store's: they must not be applied
STALE = {"boot-af8d406285.bcd", "mbr-b5c2e114ad.bcd", "none-2d7cc5b6c2.bcd"}
TARGET = GptIdentity("11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-aaaaaaaaaaaa")

each_store = pytest.mark.parametrize("path", STORES, ids=lambda p: p.name)


def stores() -> list[tuple[Path, Store]]:
    return [(path, parse_store(path.read_bytes())) for path in STORES]


def test_the_corpus_is_whole() -> None:
    assert len(STORES) == 53


@each_store
def test_every_store_parses(path: Path) -> None:
    store = parse_store(path.read_bytes())
    assert len(store.objects) == int(INDEX[path.name]["objects"])
    assert len(store.elements()) == int(INDEX[path.name]["elements"])
    assert not store.dirty
    assert store.oddities == ()


@pytest.mark.parametrize("path", sorted(FOLDER.glob("nothive*")), ids=lambda p: p.name)
def test_what_is_no_hive(path: Path) -> None:
    with pytest.raises(FormatError):
        parse_store(path.read_bytes())
    result = CliRunner().invoke(bcd, ["show", str(path)])
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1


def test_every_device_is_understood_and_comes_back() -> None:
    count = 0
    for path, store in stores():
        for entry, element in store.elements():
            if element.device is None:
                continue
            count += 1
            assert encode_device(decode_device(element.data)) == element.data
            for part in walk_devices(element.device):
                assert not isinstance(part, UnknownDevice), (path.name, entry.guid, f"{element.type:08x}")
    assert count > 390


def test_every_value_fits_its_format_and_writing_it_changes_nothing() -> None:
    for path, store in stores():
        for entry, element in store.elements():
            value = element.value
            assert not isinstance(value, bytes), (path.name, entry.guid, f"{element.type:08x}")
            encode_value(element.type, value)
            assert set_element(entry.guid, element.type, value, store=store) == []


def test_partitions_are_rewritten_and_written_back() -> None:
    for _, store in stores():
        for _, element in store.elements():
            if element.device is None:
                continue
            olds: list[Identity] = []

            def away(identity: Identity, olds: list[Identity] = olds) -> Identity:
                olds.append(identity)
                return TARGET

            new = map_partitions(element.device, away)
            identities = [p.identity for p in walk_devices(new) if hasattr(p, "identity")]
            inner = [p.identity for p in walk_devices(element.device) if isinstance(p, VhdDevice)]
            assert [i for i in identities if i not in inner] == [TARGET] * len(olds)
            data = encode_device(new)
            assert len(data) == len(element.data)
            back = map_partitions(decode_device(data), lambda _, olds=olds: olds.pop(0))  # type: ignore[misc]
            if all(isinstance(i, GptIdentity) for i in olds):
                assert encode_device(back) == element.data


@each_store
def test_survey_and_back(path: Path) -> None:
    store = parse_store(path.read_bytes())
    described = to_survey_objects(store)
    again = from_survey_objects(described)
    assert to_survey_objects(again) == described
    assert [(o.guid, e.type, e.data) for o, e in again.elements()] == [
        (o.guid, e.type, e.data) for o, e in store.elements()
    ]


@each_store
def test_an_edit_changes_one_element(path: Path) -> None:
    """The last device element of the store, or where there is none any element; hivex says what has changed."""
    data = path.read_bytes()
    store = parse_store(data)
    devices = [(o, e) for o, e in store.elements() if e.device is not None]
    entry, element = (devices or store.elements())[-1]
    value = PartitionDevice(TARGET) if devices else b"x"
    edits = set_element(entry.guid, element.type, value, store=store)
    (edit,) = edits
    assert isinstance(edit, SetValue)
    after = edit_hive(data, edits)
    old, new = as_hivex_sees_it(data), as_hivex_sees_it(after)
    place = ("\\".join(edit.key), "Element")
    assert new.pop(place) == (edit.type, edit.data)
    del old[place]
    assert new == old
    changed = parse_store(after)
    assert changed.objects[entry.guid].elements[element.type].data == edit.data
    assert not changed.dirty


def test_stores_as_bcdboot_writes_them() -> None:
    """Built with a real store's identities, a store differs from it in nothing but what the builder documents."""
    cases = [
        ("gpt-90a5161612.bcd", "uefi"),
        ("mbr-ad6eafcab7.bcd", "bios"),
        ("gpt-028e7d3745.bcd", "recovery"),
    ]
    for name, kind in cases:
        real = parse_store((FOLDER / name).read_bytes())
        manager = real.objects[n.BOOTMGR]
        system = identity_of(real, n.BOOTMGR, n.DEVICE)
        options = next(o for o in real.objects.values() if o.type == n.TYPE_DEVICE)
        recovery = Recovery(identity_of(real, options.guid, n.RAMDISK_SDI_DEVICE))
        locale = manager.string(n.LOCALE) or ""
        edits: list[HiveEdit]
        if kind == "recovery":
            edits = recovery_store(system=system, seed=boot_stores.SEED, locale=locale, recovery=recovery)
        else:
            loader = manager.string(n.BOOTMGR_DEFAULT) or ""
            edits = bcdboot_store(
                firmware="uefi" if kind == "uefi" else "bios",
                system=system,
                windows=identity_of(real, loader, n.OSLOADER_OS_DEVICE),
                seed=boot_stores.SEED,
                locale=locale,
                description="Windows 10",
                nx=0,
                recovery=recovery,
            )
        ours = normalised(parse_store(boot_stores.as_hive(edits)))
        theirs = normalised(real)
        theirs.pop("fwbootmgr", None)
        # set by later boots, not by bcdboot
        for elements in theirs.values():
            elements.pop(0x15000066, None)
        assert ours == theirs, name


def identity_of(store: Store, guid: str, element_type: int) -> Identity:
    device = store.objects[guid].device(element_type)
    assert device is not None
    return next(p.identity for p in walk_devices(device) if hasattr(p, "identity"))


def normalised(store: Store) -> dict[str, dict[int, object]]:
    """Objects by role and elements by value, with roles instead of GUIDs and strings without case."""
    roles = {}
    for entry in store.objects.values():
        role = n.WELL_KNOWN.get(entry.guid) or n.object_type_title(entry.type)
        roles[entry.guid] = role + (" recovery" if n.RECOVERY_OS in entry.elements else "")
    result: dict[str, dict[int, object]] = {}
    for entry in store.objects.values():
        elements: dict[int, object] = {n.TYPE_BOOTMGR: entry.type}
        for element in entry.elements.values():
            value: object = element.value
            if isinstance(value, str):
                value = roles.get(value, value.lower())
            elif isinstance(value, tuple):
                value = tuple(roles.get(v, v) if isinstance(v, str) else v for v in value)
            elif element.device is not None:
                value = (
                    encode_device(element.device)[16:],
                    roles.get(getattr(element.device, "options", None) or ""),
                )
            elements[element.type] = value
        result[roles[entry.guid]] = elements
    return result


@pytest.mark.parametrize("path", LOGGED, ids=lambda p: p.name)
def test_a_store_is_recovered_from_its_own_log(path: Path) -> None:
    """The last write is taken back: dirty, and every sector that the log holds is lost. Replay restores the file."""
    data = path.read_bytes()
    logs = [Path(f"{path}{suffix}") for suffix in (".LOG", ".LOG1", ".LOG2")]
    contents = [log.read_bytes() for log in logs if log.exists()]
    (sequence,) = struct.unpack_from("<I", data, 4)
    crashed = bytearray(regf.dirty(data, (sequence, sequence - 1)))
    if path.name not in STALE:
        for offset, length in pages(contents[0]):
            crashed[4096 + offset : 4096 + offset + length] = bytes(length)
    result = replay(bytes(crashed), contents)
    assert result.data[4096:] == data[4096:]
    assert result.applied == (0 if path.name in STALE else 1)
    assert not Hive.parse(result.data).dirty
    assert Hive.parse(result.data).sequence1 > sequence


def pages(log: bytes) -> list[tuple[int, int]]:
    (count,) = struct.unpack_from("<I", log, 512 + 20)
    return [struct.unpack_from("<II", log, 512 + 40 + 8 * i) for i in range(count)]  # type: ignore[misc]


@each_store
def test_show(path: Path) -> None:
    for options in ([], ["--json"]):
        result = CliRunner().invoke(bcd, ["show", str(path), *options])
        assert result.exit_code == 0
        assert result.stderr == ""
        assert n.BOOTMGR in result.output or "{bootmgr}" in result.output


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_mutated_real_stores(data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.sampled_from(STORES)).read_bytes())
    for _ in range(data.draw(st.integers(1, 20))):
        raw[data.draw(st.integers(4096, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        store = parse_store(bytes(raw[: data.draw(st.none() | st.integers(0, len(raw)))]))
    except FormatError:
        return
    for _, element in store.elements():
        _ = element.value
        if element.device is not None:
            assert encode_device(element.device) == element.data
