"""UEFI variables in a folder that looks like efivarfs."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from rehost_payload.survey.model import FirmwareMode
from rehost_payload.system.efivars import GLOBAL_GUID, Variables
from rehost_payload.system.linux import LinuxSystem
from rehost_payload.system.protocol import SystemError_


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "sys/firmware/efi/efivars"
    place.mkdir(parents=True)
    return place


def put(folder: Path, name: str, data: bytes, guid: str = GLOBAL_GUID) -> None:
    (folder / f"{name}-{guid}").write_bytes(struct.pack("<I", 7) + data)


def option(description: str, active: bool = True) -> bytes:
    end = bytes.fromhex("7fff0400")
    return struct.pack("<IH", active, len(end)) + description.encode("utf-16-le") + b"\0\0" + end


def test_firmware(folder: Path, tmp_path: Path) -> None:
    put(folder, "Boot0000", option("Windows Boot Manager"))
    put(folder, "Boot001A", option("PXE", False))
    put(folder, "Boot0002", b"\1")  # damaged
    put(folder, "BootOrder", struct.pack("<HH", 0x1A, 0))
    put(folder, "BootCurrent", struct.pack("<H", 0x1A))
    put(folder, "SecureBoot", b"\1")
    put(folder, "Boot0003", option("of somebody else"), "11111111-2222-3333-4444-555555555555")
    put(folder, "BootOptionSupport", b"\1\0\0\0")
    found = LinuxSystem(tmp_path).firmware()
    assert found.mode is FirmwareMode.UEFI
    assert (found.secure_boot, found.boot_order, found.boot_current) == (True, (0x1A, 0), 0x1A)
    entries = {e.id: e for e in found.boot_entries}
    assert set(entries) == {0, 2, 0x1A}
    assert (entries[0].description, entries[0].active) == ("Windows Boot Manager", True)
    assert entries[0].raw == option("Windows Boot Manager").hex()
    assert (entries[0x1A].description, entries[0x1A].active) == ("PXE", False)
    assert (entries[2].description, entries[2].raw) == ("", "01")
    assert found.variables_writable


def test_read_write_delete(folder: Path) -> None:
    variables = Variables(folder)
    assert variables.read("Boot0004") is None
    variables.write("Boot0004", b"content")
    assert (folder / f"Boot0004-{GLOBAL_GUID}").read_bytes() == b"\7\0\0\0content"
    assert variables.read("Boot0004") == b"content"
    variables.write("Boot0004", None)
    variables.write("Boot0004", None)
    assert variables.read("Boot0004") is None


@pytest.mark.parametrize("name", ["", "../Boot0000", "Boot 0000", "Boot0000-x"])
def test_odd_names_are_refused(folder: Path, name: str) -> None:
    with pytest.raises(SystemError_):
        Variables(folder).write(name, b"x")


def test_without_efivarfs(tmp_path: Path) -> None:
    variables = Variables(tmp_path / "absent")
    assert variables.read("BootOrder") is None
    assert not variables.writable()
    assert variables.firmware().boot_entries == ()
    with pytest.raises(SystemError_) as error:
        variables.write("BootOrder", b"")
    assert error.value.code == "firmware"
