"""Orders without an operator: what is understood, and that everything else stops the run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rehost_payload.ui.answer import (
    Orders,
    OrdersError,
    command_line_orders,
    keymap,
    parse_answer,
    parse_command_line,
    split_command_line,
)
from rehost_payload.ui.find_answer import answer_orders
from support import disks, exfat_image, windows
from support.disks import MIB, DiskLayout, PartitionSpec
from support.image_system import ImageMachine

from .conftest import write_answer

FULL = """
[run]
mode = "repair"
yes = true
language = "de"
after = "poweroff"
windows = 'disk0p4:\\Windows'
system_volume = "disk0p1"
engine = "dism"
"""


def test_the_whole_schema() -> None:
    orders = parse_answer(FULL.encode(), "here")
    assert orders == Orders(
        "repair", True, "de", "poweroff", "disk0p4:\\Windows", "disk0p1", ("here",), engine="dism"
    )
    assert orders.unattended


def test_windows_editor_puts_a_mark_in_front() -> None:
    assert parse_answer(b"\xef\xbb\xbf" + FULL.replace("\n", "\r\n").encode(), "x").mode == "repair"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"\[run\]"),
        ("run = 1", r"\[run\]"),
        ("[run]\nmod = 'repair'", "unknown key 'mod'"),
        ("[run]\n[other]\n", "unknown: other"),
        ("[run]\nmode = 'format'", "must be one of repair, survey, undo, capture, menu, not 'format'"),
        ("[run]\nyes = 'true'", "'yes' must be true or false"),
        ("[run]\nyes = 1", "'yes' must be true or false"),
        ("[run]\nlanguage = 'fr'", "must be one of en, de"),
        ("[run]\nafter = 'explode'", "must be one of reboot"),
        ("[run]\nwindows = ''", "'windows' is empty"),
        ("[run]\nengine = 'magic'", "'engine' must be one of portable, dism, not 'magic'"),
        ("[run]\nmode = 'survey'\nengine = 'dism'", "'engine' belongs to mode 'repair', not to 'survey'"),
        ("[run]\nwindows = 3", "'windows' must be a text"),
        ("[run", "not valid TOML"),
        ("\x00", "not valid TOML"),
    ],
)
def test_what_is_not_understood_stops_everything(text: str, says: str) -> None:
    with pytest.raises(OrdersError, match=says):
        parse_answer(text.encode(), "rehost.toml")


def test_not_text() -> None:
    with pytest.raises(OrdersError, match="not UTF-8"):
        parse_answer(b"[run]\nmode = '\xff\xfe'", "x")


@given(st.binary(max_size=200))
def test_junk_is_an_orders_error(data: bytes) -> None:
    try:
        parse_answer(data, "x")
    except OrdersError:
        return
    assert b"run" in data


@pytest.mark.parametrize(
    ("line", "orders"),
    [
        ("quiet", Orders()),
        ("", Orders()),
        ("rehost.run=repair rehost.yes=1", Orders("repair", True)),
        ("rehost.run=survey rehost.yes=0 rehost.lang=de", Orders("survey", False, "de")),
        ("rehost.run=undo rehost.yes rehost.poweroff", Orders("undo", True, after="poweroff")),
        ("rehost.poweroff=0 rehost.run=menu", Orders("menu")),
        ("rehost.after=reboot rehost.run=repair", Orders("repair", after="reboot")),
        ("rehost.poweroff=1 rehost.after=poweroff", Orders(after="poweroff")),
        ("rehost.engine=dism", Orders(engine="dism")),
        ('rehost.windows="disk0p4:\\My Windows"', Orders(windows="disk0p4:\\My Windows")),
        ('"rehost.windows=disk0p4:\\My Windows" x', Orders(windows="disk0p4:\\My Windows")),
        ("rehost.keymap=de rehost.shell", Orders()),
        ("norehost.run=repair", Orders()),
        ("rehost.run=repair rehost.run=repair", Orders("repair")),
    ],
)
def test_command_line(line: str, orders: Orders) -> None:
    found = parse_command_line(line, "x")
    assert found.over(Orders(sources=())) == Orders(**{**orders._asdict(), "sources": found.sources})


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("rehost.run=format", "must be one of"),
        ("rehost.run", "must be one of"),
        ("rehost.yes=maybe", "'rehost.yes' must be 1 or 0"),
        ("rehost.ye=1", "unknown word 'rehost.ye'"),
        ("rehost.windws=x", "unknown word"),
        ("rehost.poweroff=1 rehost.after=reboot", "contradict"),
        ("rehost.after=reboot rehost.poweroff=1", "contradict"),
        ("rehost.run=repair rehost.run=undo", "contradict"),
        ("rehost.windows=", "is empty"),
        ("rehost.engine=none", "must be one of portable, dism"),
    ],
)
def test_command_line_that_is_not_understood(line: str, says: str) -> None:
    with pytest.raises(OrdersError, match=says):
        parse_command_line(line)


def test_every_word_that_the_medium_uses_is_known() -> None:
    """One that is not would make every unattended run end in "usage"."""
    root = Path(__file__).parents[3]
    files = [f for folder in ("iso", "builder") for f in (root / folder).rglob("*") if f.is_file()]
    text = "\n".join(f.read_text(encoding="utf-8") for f in files if f.suffix != ".pyc")
    words = set(re.findall(r"\brehost\.([a-z_]+)=", text)) | set(
        re.findall(r"option rehost\.([a-z_]+)", text)
    )
    assert words >= {"keymap", "medium", "shell"}
    values = {"run": "repair", "yes": "1", "lang": "de", "after": "reboot", "poweroff": "0"}
    for word in words:
        parse_command_line(f"rehost.{word}={values.get(word, 'x')}")


def test_the_command_line_goes_first() -> None:
    file = parse_answer(FULL.encode(), "file")
    line = parse_command_line("rehost.run=survey rehost.yes=0")
    merged = line.over(file)
    assert (merged.mode, merged.yes, merged.language, merged.after) == ("survey", False, "de", "poweroff")
    assert merged.sources == ("kernel command line", "file")


@given(st.text(max_size=100))
def test_any_command_line_ends_in_orders_or_an_orders_error(line: str) -> None:
    assert all(split_command_line(line))
    try:
        parse_command_line(line)
    except OrdersError:
        assert "rehost." in line


def test_no_such_file(tmp_path: Path) -> None:
    assert command_line_orders(tmp_path / "cmdline") == Orders()
    assert keymap(tmp_path / "cmdline") is None
    (tmp_path / "cmdline").write_text("quiet rehost.keymap=de-latin1\n")
    assert keymap(tmp_path / "cmdline") == "de-latin1"


# --- on disks ----------------------------------------------------------------------------------------------


def machine(*layouts: DiskLayout) -> ImageMachine:
    return ImageMachine([d.path for d in layouts])


def test_found_on_a_stick(stick: DiskLayout, healthy: DiskLayout) -> None:
    assert answer_orders(machine(healthy, stick)) == Orders()
    write_answer(stick, FULL)
    assert answer_orders(machine(healthy, stick)).system_volume == "disk0p1"


@pytest.mark.parametrize("fs", ["fat32", "ntfs", "exfat"])
@pytest.mark.parametrize("style", ["gpt", "mbr"])
def test_found_on_any_file_system_and_table(tmp_path: Path, fs: str, style: str) -> None:
    kind = disks.BASIC_DATA if style == "gpt" else "07"
    files = {"rehost.toml": b"[run]\nmode='survey'\n"}
    if fs == "exfat":
        spec = PartitionSpec(
            "stick", 4 * MIB, "", kind, content=exfat_image.make_volume(files, label="Rehost")
        )
    else:
        spec = PartitionSpec("stick", 48 * MIB, fs, kind, files, label="rehost")
    make = disks.make_gpt_disk if style == "gpt" else disks.make_mbr_disk
    options = {"extra": (spec,)} | ({"msr": False} if style == "gpt" else {})
    assert answer_orders(machine(make(tmp_path / "stick.img", **options))).mode == "survey"


def test_only_on_a_volume_labelled_rehost(healthy: DiskLayout) -> None:
    disks.write_file(healthy, healthy.windows, "rehost.toml", b"[run]\nmode='repair'\nyes=true\n")
    assert answer_orders(machine(healthy)) == Orders()


def test_two_that_differ(stick: DiskLayout, tmp_path: Path) -> None:
    other = windows.copy_disk(stick, tmp_path / "other.img")
    write_answer(stick, FULL)
    write_answer(other, FULL)
    assert answer_orders(machine(stick, other)).mode == "repair"
    write_answer(other, "[run]\nmode = 'survey'\n")
    with pytest.raises(OrdersError, match="differ"):
        answer_orders(machine(stick, other))


def test_a_folder_or_a_huge_file_of_that_name(stick: DiskLayout, tmp_path: Path) -> None:
    folder = windows.copy_disk(stick, tmp_path / "folder.img")
    disks.write_file(folder, folder["stick"], "rehost.toml/x", b"")
    with pytest.raises(OrdersError, match="cannot be read"):
        answer_orders(machine(folder))
    write_answer(stick, "#" * 100_000)
    with pytest.raises(OrdersError, match="cannot be read"):
        answer_orders(machine(stick))


def test_a_disk_of_junk_has_no_orders(tmp_path: Path) -> None:
    path = tmp_path / "junk.img"
    path.write_bytes(bytes(range(256)) * 8192)
    assert answer_orders(ImageMachine([path])) == Orders()


CAPTURE = """
[run]
mode = "capture"
yes = true
targets = ["label:BACKUP1", "disk3p1"]
vms = ["web01", "db01"]
config_only = true
with_iso = false
"""


def test_a_capture() -> None:
    orders = parse_answer(CAPTURE.encode(), "here")
    assert orders == Orders(
        "capture",
        True,
        targets=("label:BACKUP1", "disk3p1"),
        vms=("web01", "db01"),
        config_only=True,
        with_iso=False,
        sources=("here",),
    )
    words = "rehost.run=capture rehost.yes rehost.targets=label:BACKUP1,disk3p1 rehost.vms=web01,db01"
    assert parse_command_line(f"{words} rehost.config_only rehost.with_iso=0", "here") == orders
    assert parse_command_line('"rehost.targets=label:MY DISK" rehost.run=capture').targets == (
        "label:MY DISK",
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('mode = "capture"\ntargets = "label:A"', "'targets' must be a list of texts"),
        ('mode = "capture"\ntargets = [1]', "'targets' must be a list of texts"),
        ('mode = "capture"\ntargets = []', "'targets' is empty"),
        ('mode = "capture"\ntargets = [""]', "'targets' must be a list of texts"),
        ('mode = "capture"\ntargets = ["a", "b", "c"]', "'targets' names more than two"),
        ('mode = "repair"\nvms = ["a"]', "'vms' belongs to mode 'capture'"),
        ('mode = "capture"\nconfig_only = "yes"', "'config_only' must be true or false"),
    ],
)
def test_a_capture_that_is_not_understood(text: str, problem: str) -> None:
    with pytest.raises(OrdersError, match=re.escape(problem)):
        parse_answer(f"[run]\n{text}\n".encode(), "here")
