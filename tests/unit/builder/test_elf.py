"""DT_NEEDED and .modinfo, on files of our own and on this machine's."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rehost_builder.debian.elf import is_elf, modinfo, needed

from .elf_files import module, program


def test_libraries_of_a_program() -> None:
    data = program(["libc.so.6", "libudev.so.1"])
    assert is_elf(data)
    assert needed(data) == ["libc.so.6", "libudev.so.1"]
    assert needed(program([])) == []


def test_objdump_agrees_on_real_files() -> None:
    objdump = shutil.which("objdump")
    if objdump is None:
        pytest.skip("objdump is not installed")
    compared = 0
    for path in [Path(sys.executable).resolve(), *sorted(Path("/usr/bin").iterdir())[:60]]:
        data = path.read_bytes() if path.is_file() else b""
        if is_elf(data):
            text = subprocess.run([objdump, "-p", str(path)], capture_output=True, text=True).stdout
            assert needed(data) == re.findall(r"NEEDED\s+(\S+)", text), path
            compared += 1
    assert compared


def test_what_a_module_says_of_itself() -> None:
    data = module(["license=GPL", "depends=scsi_mod,libata", "alias=pci:a", "alias=pci:b"])
    assert modinfo(data) == {
        "license": ["GPL"],
        "depends": ["scsi_mod,libata"],
        "alias": ["pci:a", "pci:b"],
    }


@given(st.data())
def test_damaged_files_are_refused_or_read_but_never_crash(data: st.DataObject) -> None:
    good = data.draw(st.sampled_from([program(["libc.so.6"]), module(["depends=a"])]))
    cut = bytearray(good[: data.draw(st.integers(0, len(good)))])
    for _ in range(data.draw(st.integers(0, 8))):
        if cut:
            cut[data.draw(st.integers(0, len(cut) - 1))] = data.draw(st.integers(0, 255))
    for read in (needed, modinfo):
        try:
            read(bytes(cut))
        except ValueError:
            continue


def test_a_module_without_information_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no section \.modinfo"):
        modinfo(module(["depends=a"]).replace(b".modinfo", b".comment"))
