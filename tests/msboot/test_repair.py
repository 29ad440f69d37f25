"""Restore simulation: a healthy disk gets other identities, Rehost repairs it, Microsoft's boot manager judges.

Every case is judged before the repair as well, so that a judge that is always content would be noticed.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from support import disks, msboot, product, stores, windows
from support.disks import DiskLayout, PartitionSpec
from support.msboot import NoVerdict, Verdict
from support.product import Product
from support.qemu import Firmware
from support.tables import Table

MIB = 1 << 20
# of installed systems, builds 14393, 17763 and 26100
REAL_STORES = ("gpt-90a5161612", "gpt-179ec6cd6c", "gpt-50a5f6bb02")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for every boot manager that REHOST_MSBOOT holds; one, which is skipped, where it holds none."""
    files, why = msboot.files()
    for name, versions in (
        ("efi", files.efi_versions() if files else []),
        ("bios", files.bios_versions() if files else []),
    ):
        if name in metafunc.fixturenames:
            reason = why or f"no {name} boot manager in REHOST_MSBOOT"
            missing = [pytest.param("none", marks=pytest.mark.skip(reason=reason))]
            metafunc.parametrize(name, versions or missing)
    if "corpus_store" in metafunc.fixturenames:
        folder = Path(os.environ.get("REHOST_CORPUS", product.ROOT.parent / "shared" / "corpus")) / "bcd"
        found = [folder / f"{name}.bcd" for name in REAL_STORES]
        found = [path for path in found if path.exists()]
        reason = f"no real boot stores in {folder} (REHOST_CORPUS)"
        absent = [pytest.param(folder, marks=pytest.mark.skip(reason=reason))]
        metafunc.parametrize("corpus_store", found or absent, ids=lambda p: p.stem)


class Case:
    """Judges, repairs, judges again, and notes the row of the table."""

    def __init__(self, medium: Product, verdicts: Table, work: Path) -> None:
        self.medium, self.table, self.work = medium, verdicts, work

    def run(
        self,
        disk: DiskLayout,
        version: str,
        name: str,
        *,
        others: tuple[DiskLayout, ...] = (),
        firmware: Firmware | None = None,
        change: Callable[[DiskLayout], None] | None = None,
    ) -> tuple[Verdict | None, Verdict]:
        firmware = firmware or ("uefi" if disk.style == "gpt" else "bios")
        boot_firmware: Firmware = "uefi" if firmware == "secure-boot" else firmware
        try:
            before: Verdict | None = msboot.judge(
                disk, self.work, firmware=firmware, others=others, change=change, name="before"
            )
        except NoVerdict:
            before = None
        run = product.run_unattended(self.medium, self.work, [disk, *others], firmware=boot_firmware)
        assert run.code == 0, run.console[-3000:]
        after = msboot.judge(disk, self.work, firmware=firmware, others=others, change=change, name="after")
        self.table.add(f"{version} {disk.style}", name, before or "nothing", after, f"{after.seconds:.0f}")
        return before, after


@pytest.fixture
def case(microsoft: msboot.Files, medium: Product, verdicts: Table, tmp_path: Path) -> Case:
    # `microsoft` comes first: without its files no medium has to be built
    return Case(medium, verdicts, tmp_path)


def test_uefi_restored_to_other_hardware(
    case: Case, microsoft: msboot.Files, efi: str, tmp_path: Path
) -> None:
    disk = windows.restored(windows.gpt_server(tmp_path / "server.img", microsoft.boot_files(efi=efi)))
    before, after = case.run(disk, efi, "other GUIDs")
    assert before is not None
    assert before.status in msboot.STALE
    assert after.reached_windows


def test_bios_restored_to_other_hardware(
    case: Case, microsoft: msboot.Files, bios: str, tmp_path: Path
) -> None:
    disk = windows.restored(windows.mbr_server(tmp_path / "server.img", microsoft.boot_files(bios=bios)))
    before, after = case.run(disk, bios, "other signature")
    assert before is not None
    assert before.status == msboot.NO_DEVICE
    assert after.reached_windows


def newest(versions: list[str], kind: str) -> str:
    if not versions:
        pytest.skip(f"no {kind} boot manager in REHOST_MSBOOT")
    return versions[-1]


def test_uefi_store_deleted(case: Case, microsoft: msboot.Files, tmp_path: Path) -> None:
    """The store is rebuilt from nothing but the installation."""
    version = newest(microsoft.efi_versions(), "efi")
    disk = windows.gpt_server(tmp_path / "server.img", microsoft.boot_files(efi=version))
    windows.delete_store(disk)
    disks.delete_file(disk, disk.esp, windows.FALLBACK_STORE)
    before, after = case.run(disk, version, "no store")
    assert before is not None
    assert before.status == msboot.NOT_FOUND
    assert after.reached_windows


def test_uefi_system_partition_emptied(case: Case, microsoft: msboot.Files, tmp_path: Path) -> None:
    """Boot manager, fonts, stores: everything comes back from \\Windows\\Boot."""
    version = newest(microsoft.efi_versions(), "efi")
    disk = windows.gpt_server(tmp_path / "server.img", microsoft.boot_files(efi=version))
    disks.delete_file(disk, disk.esp, "EFI")
    disks.write_files(disk, disk.esp, {"EFI/": b""})
    _, after = case.run(disk, version, "ESP emptied")
    assert after.reached_windows


def test_bios_store_and_boot_manager_deleted(case: Case, microsoft: msboot.Files, tmp_path: Path) -> None:
    version = newest(microsoft.bios_versions(), "bios")
    disk = windows.mbr_server(tmp_path / "server.img", microsoft.boot_files(bios=version))
    windows.delete_store(disk)
    disks.delete_file(disk, disk.system, "bootmgr")
    before, after = case.run(disk, version, "no store, no bootmgr")
    assert before is not None
    assert before.status is None
    assert after.reached_windows


def test_uefi_store_crashed_with_its_log(case: Case, microsoft: msboot.Files, tmp_path: Path) -> None:
    """The boot manager refuses a store that needs its log; repair applies the log and mends the store."""
    version = newest(microsoft.efi_versions(), "efi")
    boot = microsoft.boot_files(efi=version)
    disk = windows.restored(windows.gpt_server(tmp_path / "server.img", boot, recovery=False))
    windows.make_store_dirty(disk, set_timeout)
    before, after = case.run(disk, version, "dirty store, other GUIDs")
    assert before is not None
    assert not before.reached_windows
    assert after.reached_windows


def set_timeout(store: bytes) -> bytes:
    value = stores.binary(struct.pack("<Q", 7))
    return stores.changed(store, lambda h: stores.set_element(h, stores.BOOTMGR, 0x25000004, value))


def test_two_disks_and_a_decoy(case: Case, microsoft: msboot.Files, tmp_path: Path) -> None:
    """Before Windows lies a volume with winload and no registry, and the second disk holds another one."""
    version = newest(microsoft.efi_versions(), "efi")
    boot = microsoft.boot_files(efi=version)
    decoy = PartitionSpec("decoy", 32 * MIB, "ntfs", files=windows.decoy_tree(boot), label="Old")
    disk = windows.restored(windows.gpt_server(tmp_path / "server.img", boot, extra=(decoy,)))
    other = disks.make_disk(
        tmp_path / "data.img",
        [PartitionSpec("data", 32 * MIB, "ntfs", files={**windows.decoy_tree(boot), "Backup/": b""})],
    )
    before, after = case.run(disk, version, "two disks, decoys", others=(other,))
    assert before is not None
    assert before.status in msboot.STALE
    assert after.reached_windows


def test_fallback_store_and_recovery_environment(case: Case, microsoft: msboot.Files, tmp_path: Path) -> None:
    """Judged without the main store: the fallback store must lead to RAM disk image and boot.sdi."""
    version = newest(microsoft.efi_versions(), "efi")
    boot = msboot.with_recovery(microsoft.boot_files(efi=version))
    disk = windows.restored(windows.gpt_server(tmp_path / "server.img", boot))

    def drop_main_store(copy: DiskLayout) -> None:
        windows.delete_store(copy)

    before, after = case.run(disk, version, "fallback store only", change=drop_main_store)
    assert before is not None
    assert before.status == msboot.NO_DEVICE
    assert after.reached_windows


def test_recovery_entry_of_the_main_store(case: Case, microsoft: msboot.Files, tmp_path: Path) -> None:
    """Judged with the recovery environment as default entry."""
    version = newest(microsoft.efi_versions(), "efi")
    boot = msboot.with_recovery(microsoft.boot_files(efi=version))
    disk = windows.restored(windows.gpt_server(tmp_path / "server.img", boot))

    def start_recovery(copy: DiskLayout) -> None:
        store = stores.changed(
            windows.read_store(copy),
            lambda h: stores.set_element(h, stores.BOOTMGR, 0x23000003, stores.sz(stores.WINRE)),
        )
        disks.write_file(copy, copy.esp, windows.STORE, store)

    before, after = case.run(disk, version, "WinRE as default", change=start_recovery)
    assert before is not None
    assert before.status == msboot.NO_DEVICE
    assert after.reached_windows


def test_secure_boot(case: Case, microsoft: msboot.Files, tmp_path: Path) -> None:
    """Judged with Secure Boot on: the boot manager that is started must still be Microsoft's, byte for byte."""
    version = newest(microsoft.efi_versions(), "efi")
    disk = windows.restored(windows.gpt_server(tmp_path / "server.img", microsoft.boot_files(efi=version)))
    disks.delete_file(disk, disk.esp, "EFI/Boot/bootx64.efi")
    _, after = case.run(disk, version, "Secure Boot, no fallback loader", firmware="secure-boot")
    assert after.reached_windows


def test_secure_boot_without_the_list_of_revoked_signatures(
    case: Case, microsoft: msboot.Files, tmp_path: Path
) -> None:
    """From build 26100 on the boot manager starts nothing without boot.stl, which Windows\\Boot\\EFI still has."""
    version = newest(microsoft.efi_versions(), "efi")
    boot = microsoft.boot_files(efi=version)
    if boot.stl is None:
        pytest.skip(f"no boot.stl in {microsoft.root}")
    disk = windows.gpt_server(tmp_path / "server.img", boot)
    disks.delete_file(disk, disk.esp, "EFI/Microsoft/Boot/boot.stl")
    before, after = case.run(disk, version, "Secure Boot, no boot.stl", firmware="secure-boot")
    assert before is not None
    assert (before.status, before.file) == (msboot.NOT_FOUND, None)
    assert after.reached_windows


def test_real_stores_of_other_machines(
    case: Case, microsoft: msboot.Files, corpus_store: Path, tmp_path: Path
) -> None:
    """A store as a real installation left it, on a disk of which it knows nothing."""
    version = newest(microsoft.efi_versions(), "efi")
    disk = windows.gpt_server(tmp_path / "server.img", microsoft.boot_files(efi=version))
    disks.write_file(disk, disk.esp, windows.STORE, corpus_store.read_bytes())
    before, after = case.run(disk, version, corpus_store.stem)
    assert before is not None
    assert before.status in msboot.STALE
    assert after.reached_windows
