"""Editing through hivex: exactly what was asked for, or a clear refusal."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rehost_payload.formats import bcd_names as n
from rehost_payload.formats.bcd import delete_element, parse_store, set_element
from rehost_payload.formats.bcd_build import store_guids
from rehost_payload.formats.bcd_devices import GptIdentity, PartitionDevice, map_partitions
from rehost_payload.formats.hive import (
    CreateKey,
    DeleteKey,
    DeleteValue,
    Hive,
    HiveEdit,
    Key,
    SetValue,
    minimal_hive,
)
from rehost_payload.system import hivex_edit
from rehost_payload.system.hivex_edit import edit_hive
from rehost_payload.system.protocol import SystemError_
from support import boot_stores, regf
from support.regf import K, V

hivex = pytest.importorskip("hivex", reason="python3-hivex is not installed")

BASE = regf.hive(
    K(
        "ROOT",
        keys=[
            K(
                "A",
                keys=[K("B", keys=[K("C", values=[V("v", 1, b"x\0\0\0")])])],
                values=[V("one", 4, bytes(4))],
            ),
            K("Größe", values=[V("Wert", 3, b"1"), V("other", 3, b"2")]),
            K("big", values=[V("big", 3, bytes(20_000)), V("small", 4, bytes(4))]),
        ],
    ),
    leaf="lh",
)


def dump(data: bytes) -> dict[str, tuple[int, bytes] | None]:
    """Keys and values by path, as our reader sees them."""
    result: dict[str, tuple[int, bytes] | None] = {}

    def walk(key: Key, path: str) -> None:
        for value in key.values():
            result[f"{path}:{value.name}"] = (value.type, value.data)
        for child in key.subkeys():
            result[f"{path}\\{child.name}"] = None
            walk(child, f"{path}\\{child.name}")

    walk(Hive.parse(data).root, "")
    return result


def refused(data: bytes, *edits: HiveEdit) -> str:
    with pytest.raises(SystemError_) as error:
        edit_hive(data, edits)
    return error.value.code


def test_every_kind_of_edit() -> None:
    edits: list[HiveEdit] = [
        SetValue(("a", "b"), "new", 1, b"y\0\0\0"),
        SetValue(("A",), "ONE", 4, b"\1\0\0\0"),
        SetValue(("Neu", "darin"), "", 3, b"default"),
        CreateKey(("empty", "below")),
        DeleteKey(("A", "B", "c")),
        DeleteValue(("GRÖßE",), "WERT"),
    ]
    before = dump(BASE)
    after = dump(edit_hive(BASE, edits))
    expected = dict(before)
    del expected["\\A\\B\\C"], expected["\\A\\B\\C:v"], expected["\\Größe:Wert"]
    expected["\\A\\B:new"] = (1, b"y\0\0\0")
    expected["\\A:one"] = (4, b"\1\0\0\0")
    expected |= {"\\Neu": None, "\\Neu\\darin": None, "\\Neu\\darin:": (3, b"default")}
    expected |= {"\\empty": None, "\\empty\\below": None}
    assert {k.lower(): v for k, v in after.items()} == {k.lower(): v for k, v in expected.items()}


def test_the_order_of_edits_counts() -> None:
    again = [DeleteKey(("A",)), SetValue(("A", "B"), "only", 3, b"1")]
    after = dump(edit_hive(BASE, again))
    assert [k for k in after if k.startswith("\\A")] == ["\\A", "\\A\\B", "\\A\\B:only"]
    gone = dump(edit_hive(BASE, [SetValue(("A", "B"), "only", 3, b"1"), DeleteKey(("A",))]))
    assert not [k for k in gone if k.startswith("\\A")]


def test_what_is_not_there_is_deleted_without_complaint() -> None:
    edits = [DeleteKey(("nothing", "below")), DeleteValue(("A",), "nothing"), DeleteValue(("nothing",), "x")]
    assert dump(edit_hive(BASE, edits)) == dump(BASE)


def test_an_empty_hive_becomes_a_store() -> None:
    data = edit_hive(minimal_hive("NewStoreRoot"), boot_stores.installed_uefi())
    assert not Hive.parse(data).dirty
    assert (
        parse_store(data).objects.keys()
        == parse_store(boot_stores.as_hive(boot_stores.installed_uefi())).objects.keys()
    )


@pytest.mark.parametrize("kind", ["installed-uefi", "installed-bios", "odd"])
def test_one_element_changes_and_nothing_else(kind: str, tmp_path: Path) -> None:
    """hivexml, a program that shares no code with us, compares the stores."""
    data = boot_stores.as_hive(boot_stores.all_kinds()[kind])
    store = parse_store(data)
    entry, element = next((o, e) for o, e in store.elements() if e.type == 0x14000006)
    edits = set_element(entry.guid, element.type, (n.BAD_MEMORY, n.MEMDIAG), store=store)
    after = edit_hive(data, edits)

    def lines(name: str, content: bytes) -> list[str]:
        path = tmp_path / name
        path.write_bytes(content)
        text = subprocess.run(["hivexml", str(path)], capture_output=True, check=True).stdout.decode()
        # times of writing and places in the file are nobody's content
        return [
            line
            for line in text.replace("<", "\n<").splitlines()
            if line and not line.startswith(("<byte_run", "</byte_run", "<mtime", "</mtime"))
        ]

    old, new = lines("old", data), lines("new", after)
    assert new != old
    differing = [i for i in range(min(len(old), len(new))) if old[i] != new[i]]
    # nothing but <string> lines of one value: same number of nodes and values, no other attribute
    assert sum(line.startswith("<node") for line in old) == sum(line.startswith("<node") for line in new)
    assert sum(line.startswith("<value") for line in old) == sum(line.startswith("<value") for line in new)
    changed_old = [line for line in old if line not in new]
    assert differing
    assert all(line.startswith(("<string", "<value")) for line in changed_old), changed_old


def test_stale_devices_are_rewritten_everywhere() -> None:
    """The repair of the project in small: every nested partition, and only those."""
    data = boot_stores.as_hive(boot_stores.installed_uefi())
    store = parse_store(data)
    target = GptIdentity("11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-aaaaaaaaaaaa")
    edits: list[HiveEdit] = []
    for entry, element in store.elements():
        if element.device is not None:
            new = map_partitions(element.device, lambda identity: target)
            edits += set_element(entry.guid, element.type, new, store=store)
    after = parse_store(edit_hive(data, edits))
    assert len(edits) == 9
    for entry, element in after.elements():
        old = store.objects[entry.guid].elements[element.type]
        if element.type >> 24 & 0xF == 1:
            assert element.data != old.data
            assert len(element.data) == len(old.data)
        else:
            assert element.data == old.data
    loader = after.get(store_guids(boot_stores.SEED).loader)
    assert loader is not None
    assert loader.device(n.DEVICE) == PartitionDevice(target)


def test_element_keys_in_upper_case_are_found() -> None:
    data = boot_stores.as_hive(boot_stores.odd())
    after = parse_store(edit_hive(data, set_element(n.BOOTMGR, 0x250000C2, 0)))
    manager = after.get(n.BOOTMGR)
    assert manager is not None
    assert manager.integer(0x250000C2) == 0
    assert manager.elements[0x250000C2].key_name == "250000C2"
    gone = parse_store(edit_hive(data, delete_element(n.BOOTMGR, 0x250000C2))).get(n.BOOTMGR)
    assert gone is not None
    assert 0x250000C2 not in gone.elements


def test_refusals() -> None:
    edit = SetValue(("A",), "x", 3, b"1")
    assert refused(regf.dirty(BASE), edit) == "dirty"
    assert refused(BASE[:200] + b"torn" + BASE[204:], edit) == "dirty"
    assert refused(b"no hive at all" * 1000, edit) == "damaged"
    assert refused(BASE[:-4096], edit) == "damaged"
    assert refused(BASE, SetValue(("A",), "x", 3, bytes(16345))) == "unsupported"
    assert refused(BASE, SetValue(("big",), "small", 4, bytes(4))) == "unsupported"
    assert refused(BASE, DeleteValue(("big",), "small")) == "unsupported"
    assert refused(BASE, DeleteKey(())) == "unsupported"
    # beside big data, keys may change
    assert "\\big\\below" in dump(edit_hive(BASE, [CreateKey(("big", "below"))]))


def test_damage_that_only_hivex_or_the_comparison_sees() -> None:
    built = regf.build(K("R", keys=[K("a"), K("b", values=[V("v", 3, bytes(20))])]))
    struct.pack_into("<I", built.data, built.places["b:v"] + 8, 0x7FFFFFF8)
    assert refused(built.seal(), CreateKey(("a", "below"))) in ("hivex", "verify", "damaged")


def test_hivex_errors_are_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hivex_edit, "_apply", fail)
    assert refused(BASE, CreateKey(("x",))) == "hivex"


def _other_data(handle: Any) -> None:
    node = handle.node_get_child(handle.root(), "A")
    handle.node_set_value(node, {"key": "x", "t": 3, "value": b"2"})


def _lost_key(handle: Any) -> None:
    handle.node_delete_child(handle.node_get_child(handle.root(), "big"))


def _extra_key(handle: Any) -> None:
    handle.node_add_child(handle.root(), "extra")


@pytest.mark.parametrize("wrong", [None, _other_data, _lost_key, _extra_key])
def test_a_writer_that_does_something_else_is_caught(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """None: the edit is lost altogether."""
    original = hivex_edit._apply

    def apply(handle: Any, edit: HiveEdit) -> None:
        if wrong is not None:
            original(handle, edit)
            wrong(handle)

    monkeypatch.setattr(hivex_edit, "_apply", apply)
    assert refused(BASE, SetValue(("A",), "x", 3, b"1")) == "verify"


def test_the_input_is_not_touched() -> None:
    data = bytes(BASE)
    edit_hive(data, [CreateKey(("x",))])
    assert data == BASE


def test_an_edited_hive_is_clean_and_newer() -> None:
    before = Hive.parse(BASE)
    after = Hive.parse(edit_hive(BASE, [CreateKey(("x",))]))
    assert not after.dirty
    assert after.sequence1 > before.sequence1
