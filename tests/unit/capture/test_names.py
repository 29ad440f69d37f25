"""Names for the targets: taken by NTFS, exFAT and Windows' tools, unique, and the original is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rehost_payload.capture.names import MOST_FILE, Names, fold, safe_name
from support.hyperv_host import TEST_A, TEST_B, WEB, Vm, configuration, make_host, vhdx, vmcx
from unit.capture.conftest import look

FORBIDDEN = set('<>:"/\\|?*') | {chr(i) for i in range(32)}
RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{p}{d}" for p in ("COM", "LPT") for d in "0123456789")}


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("web01", "web01"),
        ("web 01.vhdx", "web 01.vhdx"),
        ("a/b\\c:d", "a_b_c_d"),
        ("dots...", "dots"),
        ("blanks  ", "blanks"),
        ("CON", "CON_"),
        ("nul.vhdx", "nul_.vhdx"),
        ("Com1.old.vhdx", "Com1_.old.vhdx"),
        ("CONSOLE", "CONSOLE"),
        ("..", "_"),
        ("", "_"),
        ("Größe 日本 😀", "Größe 日本 😀"),
        ("\ud800x", "_x"),
        ("\u202etxt.exe\u2066", "_txt.exe_"),
        ("a\x85\u2028b\x9b", "a__b_"),
        ("\U0001f468\u200d\U0001f469", "\U0001f468\u200d\U0001f469"),
        ("-rf", "_-rf"),
        (".hidden", "_.hidden"),
        ("disk.vhdx.rehost-part", "disk.vhdx.rehost-par_"),
        ("a" * 98 + ".rehost-partial", "a" * 98 + ".rehost-par_"),
        ("..\\..\\x", "_.._.._x"),
        ("nul\0byte", "nul_byte"),
        ("x" * 300 + ".vhdx", "x" * (MOST_FILE - 5) + ".vhdx"),
    ],
)
def test_safe_names(name: str, safe: str) -> None:
    assert safe_name(name) == safe


@given(st.lists(st.text(max_size=400), min_size=1, max_size=12), st.sampled_from(["", "web", "0a1b2c3d"]))
@example(["A", "a", "Ä", "A\u0308", "ä"], "")
@example(["con", "CON.", "CON_", "con "], "x")
@example(["-", ".", "-" * 200, "a" * 200 + ".rehost-part", "." * 300 + "x"], "-x")
@example(["😀" * 200, "😀" * 201], "")
def test_any_names_become_different_ones_that_windows_takes(names: list[str], hint: str) -> None:
    taken = Names(("host",))
    made = [taken.take(name, hint=hint) for name in names]
    assert len({fold(m) for m in (*made, "host")}) == len(names) + 1
    for name in made:
        assert name
        assert not FORBIDDEN & set(name)
        assert name[-1] not in ". "
        assert name[0] not in "-. "
        assert not name.endswith(".rehost-part")
        assert name.split(".")[0].strip().upper() not in RESERVED
        assert len(name.encode("utf-16-le")) // 2 <= MOST_FILE
        assert len(name.encode("utf-8")) <= 255


def test_the_same_name_in_two_folders_is_no_collision() -> None:
    names = Names()
    assert [names.take("a", folder) for folder in ("x", "y", "X")] == ["a", "a", "a (2)"]


def test_machines_that_are_called_anything(tmp_path: Path) -> None:
    """Forbidden characters, names of devices and of our own folders, and a path of 300 characters."""
    deep = "D:\\" + "\\".join(["x" * 60] * 4) + "\\" + "y" * 50
    more = {f"{deep}\\{'z' * 100}.vhdx": vhdx("deep"), f"D:\\A\\{'z' * 100}.vhdx": vhdx("deep 2")}
    for identifier, name, path in (
        (TEST_A, "aux", f"D:\\A\\{'z' * 100}.vhdx"),
        (TEST_B, "HOST", f"{deep}\\{'z' * 100}.vhdx"),
        (WEB, 'Web: "01" <ä>/..', "D:\\Golden\\base.vhdx"),
    ):
        folder = {TEST_A: "D:\\A\\test", TEST_B: "D:\\B\\test", WEB: "D:\\VMs\\web01"}[identifier]
        vm = Vm(identifier, name, [("SCSI", 0, 0, "VHD", path)])
        more[f"{folder}\\Virtual Machines\\{identifier.upper()}.vmcx"] = vmcx(configuration(vm))
    host = make_host(tmp_path, more=more)
    _, plan = look(host.images)
    units = {u.id: u for u in plan.units}
    assert units[TEST_A].folder == "aux_"
    assert units[TEST_B].folder == f"HOST ({TEST_B[:8]})"
    assert units[WEB].folder == "Web_ _01_ _ä__"
    assert units[WEB].name == 'Web: "01" <ä>/..'
    files = [f for u in plan.units for f in u.files]
    assert {p for p in host.files if not p.endswith(".iso")} <= {f.original for f in files}
    assert max(len(f.original) for f in files) > 300
    assert max(len(f"E:\\{plan.name}\\{f.target}") for f in files) < 260
