"""New stores: what bcdboot and reagentc would have written, judged by readers that are not ours."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from rehost_payload.formats import bcd_names as n
from rehost_payload.formats.bcd import Store, parse_store
from rehost_payload.formats.bcd_build import NX_OPT_IN, Recovery, bcdboot_store, recovery_store, store_guids
from rehost_payload.formats.bcd_devices import PartitionDevice, RamdiskDevice, partitions
from support import boot_stores
from support.boot_stores import ACTIVE, ESP, RECOVERY, SEED, WINDOWS, WINDOWS_MBR

GUIDS = store_guids(SEED)
INHERITED = {
    n.EMS_SETTINGS,
    n.RESUMELOADER_SETTINGS,
    n.DEBUGGER_SETTINGS,
    n.BAD_MEMORY,
    n.BOOTLOADER_SETTINGS,
    n.GLOBAL_SETTINGS,
    n.HYPERVISOR_SETTINGS,
}


def elements(store: Store, guid: str) -> set[int]:
    found = store.get(guid)
    assert found is not None
    return set(found.elements)


@pytest.fixture(scope="module")
def uefi() -> Store:
    return parse_store(boot_stores.make(boot_stores.installed_uefi()))


@pytest.fixture(scope="module")
def bios() -> Store:
    return parse_store(boot_stores.make(boot_stores.installed_bios()))


def test_objects_of_a_main_store(uefi: Store, bios: Store) -> None:
    for store in (uefi, bios):
        assert store.objects.keys() == INHERITED | {
            n.BOOTMGR,
            n.MEMDIAG,
            GUIDS.loader,
            GUIDS.resume,
            GUIDS.recovery,
            GUIDS.recovery_options,
        }
        assert store.key_name == "BCD00000000"
        assert store.oddities == ()


def test_elements_of_a_main_store(uefi: Store, bios: Store) -> None:
    """Exactly what installed systems have (Windows 10 1607 on GPT, 19041 on MBR)."""
    manager = {0x11000001, 0x12000004, 0x12000005, 0x14000006, 0x23000003, 0x23000006, 0x24000001, 0x24000010}
    manager |= {0x25000004}
    assert elements(bios, n.BOOTMGR) == manager
    assert elements(uefi, n.BOOTMGR) == manager | {0x12000002}
    loader = {0x11000001, 0x12000002, 0x12000004, 0x12000005, 0x14000006, 0x14000008, 0x16000009, 0x17000077}
    loader |= {0x21000001, 0x22000002, 0x23000003, 0x25000020, 0x250000C2}
    assert elements(bios, GUIDS.loader) == loader
    assert elements(uefi, GUIDS.loader) == loader | {0x16000060, 0x250000F0}
    resume = {0x11000001, 0x12000002, 0x12000004, 0x12000005, 0x14000006, 0x14000008, 0x16000009, 0x17000077}
    resume |= {0x21000001, 0x22000002, 0x25000008, 0x26000006}
    assert elements(bios, GUIDS.resume) == resume
    assert elements(uefi, GUIDS.resume) == resume | {0x16000060}
    memory = {0x11000001, 0x12000002, 0x12000004, 0x12000005, 0x14000006, 0x1600000B}
    assert elements(bios, n.MEMDIAG) == elements(uefi, n.MEMDIAG) == memory


def test_paths_and_devices(uefi: Store, bios: Store) -> None:
    for store, suffix, folder, system, windows in (
        (uefi, "efi", "\\EFI\\Microsoft\\Boot", ESP, WINDOWS),
        (bios, "exe", "\\boot", ACTIVE, WINDOWS_MBR),
    ):
        loader = store.get(GUIDS.loader)
        resume = store.get(GUIDS.resume)
        memory = store.get(n.MEMDIAG)
        assert loader is not None
        assert resume is not None
        assert memory is not None
        assert loader.string(n.PATH) == f"\\Windows\\system32\\winload.{suffix}"
        assert resume.string(n.PATH) == f"\\Windows\\system32\\winresume.{suffix}"
        assert memory.string(n.PATH) == f"{folder}\\memtest.{suffix}"
        assert loader.device(n.DEVICE) == PartitionDevice(windows)
        assert resume.device(n.RESUME_FILE_DEVICE) == PartitionDevice(windows)
        assert memory.device(n.DEVICE) == PartitionDevice(system)


def test_every_reference_is_there(uefi: Store, bios: Store) -> None:
    recovery = parse_store(boot_stores.make(boot_stores.recovery_uefi()))
    for store in (uefi, bios, recovery):
        for entry, element in store.elements():
            value = element.value
            if element.type >> 24 & 0xF == 3:
                assert value in store.objects
            if element.type >> 24 & 0xF == 4:
                assert set(entry.objects(element.type)) <= store.objects.keys()
            if isinstance(value, RamdiskDevice):
                assert value.options in store.objects


def test_recovery_store() -> None:
    store = parse_store(boot_stores.make(boot_stores.recovery_uefi()))
    assert store.objects.keys() == INHERITED | {n.BOOTMGR, GUIDS.recovery, GUIDS.recovery_options}
    assert store.key_name == "BCD00000001"
    loader = store.get(GUIDS.recovery)
    options = store.get(GUIDS.recovery_options)
    assert loader is not None
    assert options is not None
    recovery_loader = {0x11000001, 0x12000002, 0x12000004, 0x12000005, 0x14000006, 0x15000065, 0x21000001}
    recovery_loader |= {0x22000002, 0x25000020, 0x250000C2, 0x26000022, 0x46000010}
    assert set(loader.elements) == recovery_loader
    assert set(options.elements) == {0x12000004, 0x31000003, 0x32000004}
    ramdisk = loader.device(n.DEVICE)
    assert isinstance(ramdisk, RamdiskDevice)
    assert ramdisk.path == "\\Recovery\\WindowsRE\\Winre.wim"
    assert ramdisk.options == GUIDS.recovery_options
    assert list(partitions(ramdisk)) == [RECOVERY]
    assert options.device(n.RAMDISK_SDI_DEVICE) == PartitionDevice(RECOVERY)
    empty = parse_store(boot_stores.make(recovery_store(system=ESP, seed=SEED)))
    assert empty.objects.keys() == INHERITED | {n.BOOTMGR}
    assert elements(empty, n.BOOTMGR) == {
        0x11000001,
        0x12000002,
        0x12000004,
        0x12000005,
        0x14000006,
        0x25000004,
    }


def test_the_same_arguments_give_the_same_edits() -> None:
    def build(seed: int) -> object:
        return bcdboot_store(firmware="uefi", system=ESP, windows=WINDOWS, seed=UUID(int=seed))

    assert build(1) == build(1)
    assert build(1) != build(2)


def test_options() -> None:
    store = parse_store(
        boot_stores.as_hive(
            bcdboot_store(
                firmware="uefi",
                system=ESP,
                windows=WINDOWS,
                seed=SEED,
                locale="fr-FR",
                description="Ersatz",
                windows_root="\\WINNT",
                nx=NX_OPT_IN,
                timeout=5,
            )
        )
    )
    loader = store.get(GUIDS.loader)
    assert loader is not None
    assert loader.string(n.OSLOADER_SYSTEM_ROOT) == "\\WINNT"
    assert loader.string(n.PATH) == "\\WINNT\\system32\\winload.efi"
    assert loader.string(n.LOCALE) == "fr-FR"
    assert loader.string(n.DESCRIPTION) == "Ersatz"
    assert loader.integer(n.OSLOADER_NX) == 0
    assert n.RECOVERY_SEQUENCE not in loader.elements
    assert n.OSLOADER_HYPERVISOR_LAUNCH_TYPE not in loader.elements
    assert GUIDS.recovery not in store.objects
    manager = store.get(n.BOOTMGR)
    assert manager is not None
    assert manager.integer(n.BOOTMGR_TIMEOUT) == 5


def test_a_recovery_image_elsewhere() -> None:
    recovery = Recovery(RECOVERY, "\\re\\my.wim", "\\re\\my.sdi")
    store = parse_store(boot_stores.as_hive(recovery_store(system=ESP, seed=SEED, recovery=recovery)))
    options = store.get(GUIDS.recovery_options)
    assert options is not None
    assert options.string(n.RAMDISK_SDI_PATH) == "\\re\\my.sdi"


def test_hivex_and_regipy_read_it(tmp_path: Path) -> None:
    import hivex  # type: ignore[import-untyped]
    from regipy.registry import RegistryHive

    path = tmp_path / "BCD"
    data = boot_stores.make(boot_stores.installed_uefi())
    path.write_bytes(data)
    ours = {(o.guid, e.type): e.data for o, e in parse_store(data).elements()}

    handle = hivex.Hivex(str(path))
    theirs = {}
    objects = handle.node_get_child(handle.root(), "Objects")
    for node in handle.node_children(objects):
        for element in handle.node_children(handle.node_get_child(node, "Elements")):
            value = handle.node_get_value(element, "Element")
            guid = handle.node_name(node).strip("{}")
            theirs[guid, int(handle.node_name(element), 16)] = handle.value_value(value)[1]
    assert theirs == ours

    names = {key.name for key in RegistryHive(str(path)).get_key("\\Objects").iter_subkeys()}
    assert names == {f"{{{guid}}}" for guid, _ in ours} | {f"{{{n.BAD_MEMORY}}}"}
