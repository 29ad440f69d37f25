"""The judge itself: it must call a healthy disk healthy and every kind of broken one broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import disks, msboot, stores, windows
from support.disks import PartitionSpec

MIB = 1 << 20


def newest_efi(microsoft: msboot.Files) -> str:
    versions = microsoft.efi_versions()
    if not versions:
        pytest.skip(f"no efi/<version>/bootmgfw.efi in {microsoft.root}")
    return versions[-1]


def newest_bios(microsoft: msboot.Files) -> str:
    versions = microsoft.bios_versions()
    if not versions:
        pytest.skip(f"no bios/<version>/bootmgr, mbr.bin and ntfs_pbr.bin in {microsoft.root}")
    return versions[-1]


def test_a_healthy_disk_reaches_windows_and_a_restored_one_does_not(
    microsoft: msboot.Files, tmp_path: Path
) -> None:
    boot = microsoft.boot_files(efi=newest_efi(microsoft))
    disk = windows.gpt_server(tmp_path / "a.img", boot)
    assert msboot.judge(disk, tmp_path).reached_windows
    stale = msboot.judge(windows.restored(disk), tmp_path)
    assert stale.status in msboot.STALE
    assert (stale.file or "").lower() == "\\windows\\system32\\winload.efi"


def test_the_same_by_bios(microsoft: msboot.Files, tmp_path: Path) -> None:
    boot = microsoft.boot_files(bios=newest_bios(microsoft))
    disk = windows.mbr_server(tmp_path / "a.img", boot)
    assert msboot.judge(disk, tmp_path).reached_windows
    stale = msboot.judge(windows.restored(disk), tmp_path)
    assert stale.status == msboot.NO_DEVICE
    assert (stale.file or "").lower() == "\\windows\\system32\\winload.exe"


def test_osdevice_alone_being_wrong_is_noticed(microsoft: msboot.Files, tmp_path: Path) -> None:
    """The decoy has winload and no SYSTEM hive: an osdevice that points there must not pass."""
    boot = microsoft.boot_files(efi=newest_efi(microsoft))
    decoy = PartitionSpec("decoy", 32 * MIB, "ntfs", files=windows.decoy_tree(boot))
    disk = windows.gpt_server(tmp_path / "a.img", boot, extra=(decoy,))
    wrong = stores.changed(
        windows.read_store(disk),
        lambda h: stores.set_element(
            h, stores.LOADER, 0x21000001, stores.binary(stores.device(disk, disk["decoy"]))
        ),
    )
    disks.write_file(disk, disk.esp, windows.STORE, wrong)
    verdict = msboot.judge(disk, tmp_path)
    assert (verdict.status, verdict.reached_windows) == (msboot.NOT_FOUND, False)
    assert (verdict.file or "").lower() == "\\windows\\system32\\config\\system"


def test_a_missing_store_is_noticed(microsoft: msboot.Files, tmp_path: Path) -> None:
    boot = microsoft.boot_files(efi=newest_efi(microsoft))
    disk = windows.gpt_server(tmp_path / "a.img", boot, recovery=False)
    windows.delete_store(disk)
    verdict = msboot.judge(disk, tmp_path)
    assert verdict.status == msboot.NOT_FOUND
    assert (verdict.file or "").lower().endswith("\\boot\\bcd")


def test_the_recovery_environment_is_judged_too(microsoft: msboot.Files, tmp_path: Path) -> None:
    """Only the fallback store is left: the boot manager must find RAM disk image and boot.sdi through it."""
    boot = msboot.with_recovery(microsoft.boot_files(efi=newest_efi(microsoft)))
    disk = windows.gpt_server(tmp_path / "a.img", boot)
    windows.delete_store(disk)
    assert msboot.judge(disk, tmp_path).reached_windows
    stale = msboot.judge(windows.restored(disk), tmp_path)
    assert stale.status == msboot.NO_DEVICE
