"""`rehost bcd show`: what an administrator and a script get to see."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rehost_payload.formats import bcd_names as n
from rehost_payload.formats.bcd import create_object, parse_store, set_element
from rehost_payload.formats.bcd_devices import UnknownDevice
from rehost_payload.ui.bcd_show import bcd
from support import boot_stores, regf


def show(*args: str | Path) -> Result:
    return CliRunner().invoke(bcd, ["show", *map(str, args)])


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "BCD"
    path.write_bytes(boot_stores.as_hive(boot_stores.installed_uefi()))
    return path


def test_text(store: Path) -> None:
    result = show(store)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0] == f"Boot store {store} ({store.stat().st_size} bytes, 13 objects)"
    assert "note:" not in result.output
    # boot manager first, then the entry that it starts
    titles = [lines[i - 1] for i, line in enumerate(lines) if line.startswith("---")]
    assert titles[:3] == ["Windows Boot Manager", "Windows Boot Loader", "Resume from Hibernate"]
    assert f"device                  partition={{{boot_stores.ESP.partition}}} on disk" in result.output
    assert "nx                      OptOut (1)" in lines
    assert "recoveryenabled         Yes" in lines
    assert "timeout                 30 (0x1e)" in lines
    assert "toolsdisplayorder       {memdiag}" in lines
    assert "hypervisorlaunchtype    Auto (1)" in lines
    assert "                        {hypervisorsettings}" in lines
    assert "]\\Recovery\\WindowsRE\\Winre.wim,{" in result.output


def test_json_has_every_byte(store: Path) -> None:
    result = show("--json", store)
    assert result.exit_code == 0
    document = json.loads(result.output)
    assert document["dirty"] is False
    raw = {
        (o["guid"], int(e["type"], 16)): (e["reg_type"], bytes.fromhex(e["raw"]))
        for o in document["objects"]
        for e in o["elements"]
    }
    ours = parse_store(store.read_bytes())
    assert raw == {(o.guid, e.type): (e.reg_type, e.data) for o, e in ours.elements()}
    manager = document["objects"][0]
    assert manager["name"] == "bootmgr"
    device = next(e for e in manager["elements"] if e["name"] == "device")
    assert device["value"] == [
        {
            "kind": "partition",
            "partition_guid": boot_stores.ESP.partition,
            "disk_guid": boot_stores.ESP.disk,
        }
    ]


@pytest.mark.parametrize("kind", sorted(boot_stores.all_kinds()))
def test_every_kind_of_store(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "BCD"
    path.write_bytes(boot_stores.as_hive(boot_stores.all_kinds()[kind]))
    text, document = show(path), show(path, "--json")
    assert text.exit_code == document.exit_code == 0
    assert len(json.loads(document.output)["objects"]) == len(parse_store(path.read_bytes()).objects)
    if kind == "virtual-disk":
        assert "locate=custom:22000002,vhd=[{1a0fd95a-" in text.output
    if kind == "installed-bios":
        assert "partition=offset 608174080 on disk d7da5d02" in text.output
    if kind == "odd":
        assert "note: {default} has no type" in text.output
        assert "data of type 3: 62696e617279" in text.output


def dirty_store(folder: Path) -> Path:
    old = boot_stores.as_hive(boot_stores.installed_uefi())
    new = boot_stores.as_hive(
        [*boot_stores.installed_uefi(), *set_element(n.BOOTMGR, n.DESCRIPTION, "From the log")]
    )
    size = int.from_bytes(new[40:44], "little")
    pages = {at: new[4096 + at : 8192 + at] for at in regf.difference(old, new)}
    path = folder / "BCD"
    path.write_bytes(regf.dirty(old, (8, 7)))
    (folder / "bcd.log").write_bytes(regf.new_log(7, size, [regf.entry(7, size, pages)]))
    return path


def test_a_dirty_store_is_shown_with_its_log(tmp_path: Path) -> None:
    path = dirty_store(tmp_path)
    before = path.read_bytes()
    result = show(path)
    assert result.exit_code == 0
    assert "From the log" in result.output
    assert "note: dirty: an interrupted write; logs beside it: bcd.log; applied: 1" in result.output
    assert path.read_bytes() == before
    assert json.loads(show(path, "--json").output)["log_entries_applied"] == 1


def test_a_dirty_store_without_logs_says_what_is_lost(tmp_path: Path) -> None:
    path = dirty_store(tmp_path)
    (tmp_path / "bcd.log").unlink()
    result = show(path)
    assert result.exit_code == 0
    assert "From the log" not in result.output
    assert "no log could be applied" in result.output


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no regf signature"),
        (b"version https://git-lfs.github.com/spec/v1\n", "no regf signature"),
        (boot_stores.as_hive(boot_stores.media())[:-4096], "truncated"),
        (regf.hive(regf.K("ROOT")), "no key Objects"),
    ],
)
def test_what_is_no_store(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "BCD"
    path.write_bytes(content)
    result = show(path)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert message in result.stderr


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing = show(tmp_path / "nothing")
    assert missing.exit_code == 1
    assert "No such file" in missing.stderr
    assert show(tmp_path).exit_code == 1


def test_a_store_cannot_write_on_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "BCD"
    edits = create_object(n.BOOTMGR, n.TYPE_BOOTMGR)
    edits += set_element(n.BOOTMGR, n.DESCRIPTION, "\x1b[2Jgone\r\n\u202eright to left")
    edits += set_element(n.BOOTMGR, n.DEVICE, UnknownDevice(b"\x1b"))
    path.write_bytes(boot_stores.as_hive(edits))
    result = show(path)
    assert "\x1b" not in result.output
    assert "\\u001b[2Jgone\\u000d\\u000a\\u202eright to left" in result.output


def test_help_has_an_example() -> None:
    result = show("--help")
    assert result.exit_code == 0
    assert "rehost bcd show /mnt/EFI/Microsoft/Boot/BCD" in result.output
