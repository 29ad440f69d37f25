"""Stores that the product makes from nothing: every boot manager at hand must start Windows from them."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from rehost_payload.formats.bcd_build import Recovery, bcdboot_store, recovery_store
from rehost_payload.formats.bcd_devices import GptIdentity, Identity, MbrIdentity
from rehost_payload.formats.hive import minimal_hive
from rehost_payload.system.hivex_edit import edit_hive
from support import disks, msboot, windows
from support.disks import DiskLayout, PartitionLayout

SEED = UUID("5e9d3b6c-3a51-4b0e-9d55-8d0e4b6a7c11")


def identity(disk: DiskLayout, part: PartitionLayout) -> Identity:
    if disk.style == "gpt":
        assert part.unique_guid is not None
        assert disk.disk_guid is not None
        return GptIdentity(part.unique_guid, disk.disk_guid)
    return MbrIdentity(disk.signature, part.offset)


def recovery_of(disk: DiskLayout) -> Recovery:
    return Recovery(identity(disk, next(p for p in disk.partitions if p.role == "recovery")))


def some(versions: list[str], microsoft: msboot.Files) -> list[str]:
    """The versions, of which there must be one: a loop over nothing would pass."""
    if not versions:
        pytest.skip(f"no such boot manager in {microsoft.root}")
    return versions


def main_store(disk: DiskLayout) -> bytes:
    system, _ = windows.store_place(disk)
    return edit_hive(
        minimal_hive("NewStoreRoot"),
        bcdboot_store(
            firmware="uefi" if disk.style == "gpt" else "bios",
            system=identity(disk, system),
            windows=identity(disk, disk.windows),
            seed=SEED,
            locale="de-DE",
            recovery=recovery_of(disk),
        ),
    )


def test_main_store_by_uefi(microsoft: msboot.Files, tmp_path: Path) -> None:
    for version in some(microsoft.efi_versions(), microsoft):
        disk = windows.gpt_server(tmp_path / "disk.img", microsoft.boot_files(efi=version))
        disks.write_file(disk, *windows.store_place(disk), main_store(disk))
        verdict = msboot.judge(disk, tmp_path)
        assert verdict.reached_windows, (version, str(verdict))


def test_main_store_by_bios(microsoft: msboot.Files, tmp_path: Path) -> None:
    for version in some(microsoft.bios_versions(), microsoft):
        disk = windows.mbr_server(tmp_path / "disk.img", microsoft.boot_files(bios=version))
        disks.write_file(disk, *windows.store_place(disk), main_store(disk))
        verdict = msboot.judge(disk, tmp_path)
        assert verdict.reached_windows, (version, str(verdict))


def recovery_disk(microsoft: msboot.Files, version: str, path: Path) -> tuple[DiskLayout, bytes]:
    disk = windows.gpt_server(path, msboot.with_recovery(microsoft.boot_files(efi=version)))
    edits = recovery_store(system=identity(disk, disk.esp), seed=SEED, recovery=recovery_of(disk))
    return disk, edit_hive(minimal_hive("NewStoreRoot"), edits)


def test_recovery_store(microsoft: msboot.Files, tmp_path: Path) -> None:
    """In the main store's place: its one entry is the recovery environment."""
    for version in some(microsoft.efi_versions(), microsoft):
        disk, store = recovery_disk(microsoft, version, tmp_path / "disk.img")
        disks.write_file(disk, *windows.store_place(disk), store)
        verdict = msboot.judge(disk, tmp_path)
        assert verdict.reached_windows, (version, str(verdict))


def test_recovery_store_as_fallback(microsoft: msboot.Files, tmp_path: Path) -> None:
    """The main store is gone. Newest boot manager only: that of Server 2016 says nothing as text in this case."""
    versions = some(microsoft.efi_versions(), microsoft)
    disk, store = recovery_disk(microsoft, versions[-1], tmp_path / "disk.img")
    disks.write_file(disk, disk.esp, windows.FALLBACK_STORE, store)
    windows.delete_store(disk)
    verdict = msboot.judge(disk, tmp_path)
    assert verdict.reached_windows, str(verdict)
