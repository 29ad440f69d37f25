"""Boot code that the repair had written really starts the boot manager; and Microsoft's own is known for what it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from rehost_payload.formats import boot_code
from rehost_payload.repair.model import ResultWord
from rehost_payload.repair.session import Consent, run_repair, run_undo
from support import bootsect, disks, msboot, windows
from support.image_system import ImageMachine


def test_code_written_by_the_repair_starts_windows(microsoft: msboot.Files, tmp_path: Path) -> None:
    """The code is Microsoft's, the program that writes it is not: bootsect itself needs a Windows."""
    versions = microsoft.bios_versions()
    if not versions:
        pytest.skip(f"no bios/<version>/bootmgr, mbr.bin and ntfs_pbr.bin in {microsoft.root}")
    boot = microsoft.boot_files(bios=versions[-1])
    assert boot_code.volume_kind("ntfs", boot.pbr) == boot_code.BOOTMGR
    assert boot_code.master_kind(boot.mbr) == boot_code.OTHER
    disk = windows.mbr_server(tmp_path / "server.img", boot)
    disks.write_bytes(disk.path, 0, bytes(440))
    disks.write_bytes(disk.path, disk.system.offset + 0x54, bytes(8192 - 0x54))
    disks.write_bytes(disk.path, disk.system.offset + 510, b"\x55\xaa")
    disk = windows.restored(disk)
    with pytest.raises(msboot.NoVerdict):
        msboot.judge(disk, tmp_path, name="before", timeout=15)
    machine = ImageMachine([disk.path], bootsect=bootsect.Program(boot.mbr, boot.pbr))
    outcome = run_repair(machine, lambda *_: Consent(True))
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    assert msboot.judge(disk, tmp_path, name="after").reached_windows
    assert run_undo(machine).result.word is ResultWord.UNDONE
    with pytest.raises(msboot.NoVerdict):
        msboot.judge(disk, tmp_path, name="undone", timeout=15)
