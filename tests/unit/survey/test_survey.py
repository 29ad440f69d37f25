"""The whole survey of generated servers: what it says is what the generator made."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from rehost_payload.survey import survey_images
from rehost_payload.survey.json import from_json, to_json
from rehost_payload.survey.model import (
    BootCode,
    FileSystem,
    FirmwareMode,
    HiveState,
    StoreRole,
    StoreState,
    Survey,
    TableStyle,
    Volume,
)
from rehost_payload.system.handles import FileDisk
from support import corpus, disks, hives, stores, windows
from support.disks import MIB, DiskLayout, PartitionSpec
from support.pe_image import make_pe


def survey(*images: DiskLayout) -> Survey:
    found = survey_images([disk.path for disk in images])
    assert from_json(to_json(found)) == found
    return found


def volume(found: Survey, disk: DiskLayout, role: str, index: int = 0) -> Volume:
    return next(v for v in found.volumes if v.disk == f"disk{index}" and v.offset == disk[role].offset)


@pytest.fixture(scope="module")
def gpt_server(tmp_path_factory: pytest.TempPathFactory) -> DiskLayout:
    return windows.gpt_server(tmp_path_factory.mktemp("gpt") / "server.img")


@pytest.fixture
def server(gpt_server: DiskLayout, tmp_path: Path) -> DiskLayout:
    """A copy to break."""
    return windows.copy_disk(gpt_server, tmp_path / "copy.img")


def test_gpt_server(gpt_server: DiskLayout) -> None:
    found = survey(gpt_server)
    assert found.problems == ()
    assert (found.system, found.firmware.mode) == ("images", FirmwareMode.UNKNOWN)
    (disk,) = found.disks
    assert (disk.path, disk.size, disk.sector_size) == (str(gpt_server.path), gpt_server.size, 512)
    assert disk.table.style is TableStyle.GPT
    assert disk.table.disk_guid == gpt_server.disk_guid
    assert (disk.table.primary_ok, disk.table.backup_ok, disk.table.problems) == (True, True, ())
    assert [(p.id, p.offset, p.size, p.unique_guid, p.type) for p in disk.table.partitions] == [
        (f"disk0p{p.number}", p.offset, p.size, p.unique_guid, p.type) for p in gpt_server.partitions
    ]
    names = ["EFI system", "Microsoft reserved", "Basic data", "Windows recovery"]
    assert [p.type_name for p in disk.table.partitions] == names
    kinds = [FileSystem.FAT32, FileSystem.EMPTY, FileSystem.NTFS, FileSystem.NTFS]
    assert [v.file_system for v in found.volumes] == kinds
    esp = volume(found, gpt_server, "esp")
    assert esp.hidden_sectors == gpt_server.esp.offset // 512
    assert esp.free
    assert esp.free < esp.size
    files = {f.path.lower(): f for f in esp.boot_files}
    loader = files["\\efi\\microsoft\\boot\\bootmgfw.efi"]
    assert (loader.machine, loader.version, loader.problem) == ("x64", "10.0.14393.1198", None)
    content = disks.read_file(gpt_server, gpt_server.esp, "EFI/Microsoft/Boot/bootmgfw.efi")
    assert loader.sha256 == hashlib.sha256(content).hexdigest()
    recovery = {f.path.lower() for f in volume(found, gpt_server, "recovery").boot_files}
    assert "\\recovery\\windowsre\\winre.wim" in recovery


def test_the_installation(gpt_server: DiskLayout) -> None:
    (found,) = survey(gpt_server).windows
    assert (found.id, found.volume, found.root) == ("disk0p3:\\Windows", "disk0p3", "\\Windows")
    assert found.product_name == "Windows Server 2016 Standard"
    assert (found.edition, found.installation_type) == ("ServerStandard", "Server")
    assert (found.build, found.revision, found.display_version) == (14393, 1198, "1607")
    assert (found.architecture, found.computer_name, found.locale) == ("x64", "ALTERSERVER", "de-DE")
    assert (found.system_hive, found.software_hive) == (HiveState.OK, HiveState.OK)
    assert (found.control_sets, found.current_control_set, found.default_control_set) == ((1,), 1, 1)
    assert found.hyperv_host is True
    assert found.winload_efi is not None
    assert found.winload_efi.version == "10.0.14393.1198"
    assert found.winload_exe is not None
    tree = windows.windows_tree(windows.BootFiles())
    expected = {
        "\\" + path.replace("/", "\\"): len(data)
        for path, data in tree.items()
        if path.startswith("Windows/Boot/") and not path.endswith("/")
    }
    assert {f.path: f.size for f in found.source_files} == expected


def test_stores_and_paths(gpt_server: DiskLayout) -> None:
    found = survey(gpt_server)
    assert [(s.volume, s.role, s.state) for s in found.boot_stores] == [
        ("disk0p1", StoreRole.EFI_SYSTEM, StoreState.OK),
        ("disk0p1", StoreRole.EFI_RECOVERY, StoreState.OK),
    ]
    main = found.boot_stores[0]
    data = windows.read_store(gpt_server)
    assert (main.id, main.size) == ("disk0p1:\\EFI\\Microsoft\\Boot\\BCD", len(data))
    assert main.sha256 == hashlib.sha256(data).hexdigest()
    ours = {
        (f"{{{entry.guid}}}", element.type): (element.reg_type, bytes.fromhex(element.raw))
        for entry in main.objects
        for element in entry.elements
    }
    assert ours == stores.elements(data)  # as hivex reads it
    assert {f"{{{o.guid}}}": o.type for o in main.objects} == stores.object_types(data)
    where = {(p.path, p.volume) for p in found.paths}
    assert ("\\windows\\system32\\winload.efi", "disk0p3") in where
    assert ("\\windows", "disk0p3") in where
    assert ("\\recovery\\windowsre\\winre.wim", "disk0p4") in where
    assert ("\\recovery\\windowsre\\boot.sdi", "disk0p4") in where
    assert ("\\efi\\microsoft\\boot\\bootmgfw.efi", "disk0p1") in where
    assert next(p for p in found.paths if p.path == "\\windows").is_directory


def test_mbr_server(tmp_path: Path) -> None:
    disk = windows.mbr_server(tmp_path / "m.img")
    found = survey(disk)
    table = found.disks[0].table
    assert (table.style, table.signature, table.boot_code) == (TableStyle.MBR, disk.signature, BootCode.OTHER)
    assert [(p.number, p.offset, p.active, p.type) for p in table.partitions] == [
        (p.number, p.offset, p.active, p.type) for p in disk.partitions
    ]
    assert [(s.volume, s.role, s.state) for s in found.boot_stores] == [
        ("disk0p1", StoreRole.BIOS_SYSTEM, StoreState.OK)
    ]
    files = [f.path for f in volume(found, disk, "system").boot_files]
    assert files == ["\\bootmgr", "\\BOOTNXT", "\\Boot\\memtest.exe"]
    assert [w.id for w in found.windows] == ["disk0p2:\\Windows"]
    assert volume(found, disk, "windows").windows_root == "\\Windows"


def test_4096_byte_sectors(tmp_path: Path) -> None:
    disk = windows.gpt_server(tmp_path / "a.img", sector_size=4096)
    found = survey(disk)
    assert found.disks[0].sector_size == 4096
    assert found.problems == ()
    assert [w.build for w in found.windows] == [14393]
    assert [s.state for s in found.boot_stores] == [StoreState.OK, StoreState.OK]
    assert volume(found, disk, "windows").hidden_sectors == disk.windows.offset // 4096


def test_several_disks_keep_their_order(gpt_server: DiskLayout, tmp_path: Path) -> None:
    other = windows.mbr_server(tmp_path / "m.img")
    found = survey(other, gpt_server)
    assert [d.path for d in found.disks] == [str(other.path), str(gpt_server.path)]
    assert [w.id for w in found.windows] == ["disk0p2:\\Windows", "disk1p3:\\Windows"]


# --- bad states
# -------------------------------------------------------------------------------------------------


def test_damaged_primary_table_changes_nothing_else(server: DiskLayout, gpt_server: DiskLayout) -> None:
    disks.damage_gpt(server, primary=True)
    found, healthy = survey(server), survey(gpt_server)
    assert found.disks[0].table.primary_ok is False
    assert found.disks[0].table.backup_ok is True
    assert found.volumes == healthy.volumes
    assert found.windows == healthy.windows
    assert found.boot_stores == healthy.boot_stores
    disks.damage_gpt(server, backup=True)
    table = survey(server).disks[0].table
    assert (table.style, table.primary_ok, table.backup_ok) == (TableStyle.GPT, False, False)


@pytest.mark.parametrize(
    ("make", "fact", "unwritable"),
    [
        (disks.set_dirty, "dirty", "dirty"),
        (disks.set_hibernated, "hibernated", "hibernated"),
        (disks.set_journal_open, "journal_unclean", None),
    ],
)
def test_states_of_the_windows_volume(
    server: DiskLayout, make: Callable[[DiskLayout, object], None], fact: str, unwritable: str | None
) -> None:
    make(server, server.windows)
    found = survey(server)
    state = volume(found, server, "windows")
    assert getattr(state, fact) is True
    assert state.unwritable == unwritable
    assert state.unreadable is None
    assert len(found.windows) == 1
    others = {"dirty", "hibernated", "journal_unclean"} - {fact}
    assert not any(getattr(state, other) for other in others)


@pytest.mark.parametrize("magic", [b"", b"wake", b"RSTR"])
def test_not_hibernated(server: DiskLayout, magic: bytes) -> None:
    disks.set_hibernated(server, server.windows, magic)
    assert volume(survey(server), server, "windows").hibernated is False


def test_what_we_left_dirty_ourselves_may_be_written(server: DiskLayout) -> None:
    disks.set_dirty(server, server.windows)
    disks.write_file(server, server.windows, "rehost.busy", b"")
    state = volume(survey(server), server, "windows")
    assert (state.dirty, state.unwritable) == (True, None)


@pytest.mark.parametrize(
    ("content", "kind", "code"),
    [
        ({0: b"\xeb\x58\x90-FVE-FS-"}, FileSystem.BITLOCKER, "bitlocker"),
        ({3: b"ReFS", 16: b"FSRS"}, FileSystem.REFS, "refs"),
        ({0: b"?"}, FileSystem.NTFS, "damaged"),  # known by the copy of its boot sector at the end
        ({0: b"?", 128 * MIB - 512: bytes(512)}, FileSystem.UNKNOWN, "unknown-file-system"),
        ({0: b"\xeb\x52\x90NTFS    "}, FileSystem.NTFS, "damaged"),
    ],
)
def test_volumes_that_cannot_be_read(
    server: DiskLayout, content: dict[int, bytes], kind: FileSystem, code: str
) -> None:
    disks.write_bytes(server.path, server.windows.offset, bytes(70_000))
    for place, data in content.items():
        disks.write_bytes(server.path, server.windows.offset + place, data)
    found = survey(server)
    state = volume(found, server, "windows")
    assert (state.file_system, state.unreadable) == (kind, code)
    assert found.windows == ()
    assert len(found.boot_stores) == 2


@pytest.mark.parametrize(
    ("data", "state"),
    [
        (b"", StoreState.EMPTY),
        (bytes(28672), StoreState.EMPTY),
        (b"no hive at all" * 100, StoreState.NOT_A_HIVE),
        (b"regf" + bytes(8000), StoreState.DAMAGED),
        (None, StoreState.MISSING),
    ],
)
def test_stores_that_cannot_be_read(server: DiskLayout, data: bytes | None, state: StoreState) -> None:
    if data is None:
        windows.delete_store(server)
    else:
        disks.write_file(server, server.esp, windows.STORE, data)
    main, recovery = survey(server).boot_stores
    assert (main.role, main.state, main.objects) == (StoreRole.EFI_SYSTEM, state, ())
    assert main.path == "\\EFI\\Microsoft\\Boot\\BCD"
    assert recovery.state is StoreState.OK


def test_dirty_store_is_shown_with_its_log_replayed(server: DiskLayout) -> None:
    def rename(data: bytes) -> bytes:
        name = hives.sz("From the log")
        return stores.changed(data, lambda h: stores.set_element(h, stores.LOADER, 0x12000004, name))

    windows.make_store_dirty(server, rename)
    main = survey(server).boot_stores[0]
    assert (main.state, main.replayed) == (StoreState.DIRTY, True)
    assert main.logs == ("\\EFI\\Microsoft\\Boot\\BCD.LOG",)
    loader = next(o for o in main.objects if f"{{{o.guid}}}" == stores.LOADER)
    name = next(e for e in loader.elements if e.type == 0x12000004)
    assert bytes.fromhex(name.raw).decode("utf-16-le").rstrip("\0") == "From the log"
    disks.delete_file(server, server.esp, windows.STORE + ".LOG")
    main = survey(server).boot_stores[0]
    assert (main.state, main.replayed, main.logs) == (StoreState.DIRTY, False, ())


def test_boot_folder_without_a_boot_manager_misses_no_store(tmp_path: Path) -> None:
    disk = disks.make_mbr_disk(
        tmp_path / "d.img", windows_files={"Boot/something": b"x"}, windows_size=16 * MIB
    )
    assert survey(disk).boot_stores == ()
    disks.write_file(disk, disk.windows, "bootmgr", b"x")
    assert [s.state for s in survey(disk).boot_stores] == [StoreState.MISSING]


@pytest.mark.parametrize(
    ("data", "state"),
    [(None, HiveState.MISSING), (b"\x8a" * 8192, HiveState.DAMAGED), (b"regf", HiveState.DAMAGED)],
)
def test_broken_system_hive(server: DiskLayout, data: bytes | None, state: HiveState) -> None:
    path = "Windows/System32/config/SYSTEM"
    if data is None:
        disks.delete_file(server, server.windows, path)
    else:
        disks.write_file(server, server.windows, path, data)
    (found,) = survey(server).windows
    assert (found.system_hive, found.software_hive, found.build) == (state, HiveState.OK, 14393)
    assert (found.hyperv_host, found.architecture) == (None, "x64")


def test_dirty_system_hive_is_read_with_its_logs(server: DiskLayout) -> None:
    folder = "Windows/System32/config"
    old, new = windows.system_hive("ALT"), windows.system_hive("NEU")
    dirty, log = hives.make_dirty(old, new)
    disks.write_files(server, server.windows, {f"{folder}/SYSTEM": dirty, f"{folder}/SYSTEM.LOG1": log})
    (found,) = survey(server).windows
    assert (found.system_hive, found.computer_name) == (HiveState.DIRTY, "NEU")


def test_dirty_software_hive(server: DiskLayout) -> None:
    """Read as it stands where it shows the version, with its logs where it does not."""
    path = "Windows/System32/config/SOFTWARE"
    old, new = windows.software_hive(), windows.software_hive(windows.SERVER_2022)
    dirty, log = hives.make_dirty(old, new)
    disks.write_files(server, server.windows, {path: dirty, f"{path}.LOG1": log})
    (found,) = survey(server).windows
    assert (found.software_hive, found.build) == (HiveState.DIRTY, 14393)
    dirty, log = hives.make_dirty(hives.make_hive({"Microsoft": {}}, name="SOFTWARE"), new)
    disks.write_files(server, server.windows, {path: dirty, f"{path}.LOG1": log})
    (found,) = survey(server).windows
    assert (found.software_hive, found.build) == (HiveState.DIRTY, 20348)


def test_other_folder_names_and_second_installations(tmp_path: Path) -> None:
    tree = windows.windows_tree(windows.BootFiles())
    renamed = {path.replace("Windows/", "WINNT.2/", 1): data for path, data in tree.items()}
    nested = {f"Windows.old/{path}": data for path, data in tree.items() if "config" in path}
    disk = disks.make_gpt_disk(tmp_path / "d.img", esp_files={}, windows_files=tree | renamed | nested)
    assert [w.root for w in survey(disk).windows] == ["\\Windows", "\\WINNT.2"]


def test_damaged_boot_files_are_named(server: DiskLayout) -> None:
    whole = make_pe(fill=b"x" * 3000)
    files = {
        "EFI/Boot/bootx64.efi": whole[:-600],
        "EFI/Microsoft/Boot/bootmgfw.efi": bytes(5000),
        "EFI/Microsoft/Boot/memtest.efi": b"",
        "EFI/Microsoft/Boot/bootmgr.efi": make_pe("arm64"),
    }
    disks.write_files(server, server.esp, files)
    found = {f.path.rpartition("\\")[2]: f for f in volume(survey(server), server, "esp").boot_files}
    assert found["bootx64.efi"].problem == "truncated"
    assert found["bootmgfw.efi"].problem == "no MZ signature"
    assert found["memtest.efi"].problem == "empty"
    assert (found["bootmgr.efi"].problem, found["bootmgr.efi"].machine) == (None, "arm64")


def test_damaged_ntfs_metadata_is_a_problem_not_a_crash(server: DiskLayout) -> None:
    boot = disks.read_bytes(server.path, server.windows.offset, 512)
    (cluster,) = struct.unpack_from("<Q", boot, 48)
    mft = server.windows.offset + cluster * 4096
    disks.write_bytes(server.path, mft + 16 * 1024, b"\xa5" * (256 * 1024))
    found = survey(server)
    assert found.problems
    assert len(found.boot_stores) == 2


def test_extended_partitions_and_whole_disk_volumes(tmp_path: Path) -> None:
    logical = [PartitionSpec(f"data{i}", 8 * MIB, "ntfs", "07", {"x": b"1"}, label=f"D{i}") for i in range(3)]
    disk = disks.make_mbr_disk(tmp_path / "d.img", windows_files={}, windows_size=16 * MIB, logical=logical)
    found = survey(disk)
    assert [p.number for p in found.disks[0].table.partitions] == [1, 5, 6, 7]
    assert [v.label for v in found.volumes] == ["", "D0", "D1", "D2"]
    whole = tmp_path / "whole.img"
    whole.write_bytes(disks.read_bytes(disk.path, disk["data1"].offset, 8 * MIB))
    found = survey_images([whole])
    assert found.disks[0].table.style is TableStyle.NONE
    assert [(v.id, v.partition, v.label) for v in found.volumes] == [("disk0", None, "D1")]


def test_survey_reads_little(gpt_server: DiskLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full scan of anything would show."""
    read = 0
    original = FileDisk.read_at

    def counted(disk: FileDisk, offset: int, length: int) -> bytes:
        nonlocal read
        read += length
        return original(disk, offset, length)

    monkeypatch.setattr(FileDisk, "read_at", counted)
    survey_images([gpt_server.path])
    assert 0 < read < 8 * MIB


@pytest.mark.parametrize("name", ["win7-x86", "win81-x64", "win10-1709-x64"])
def test_real_system_hives(tmp_path: Path, name: str) -> None:
    folder = corpus.corpus("hives")
    files = {}
    for suffix in ("", ".LOG1", ".LOG2"):
        path = folder / f"{name}.SYSTEM{suffix}.xz"
        if path.exists():
            files[f"Windows/System32/config/SYSTEM{suffix}"] = corpus.read(path)
    disk = disks.make_mbr_disk(tmp_path / "d.img", windows_files=files)
    (found,) = survey(disk).windows
    expected = {
        "win7-x86": ("WKS-WIN732BITA", "x86", HiveState.OK),
        "win81-x64": ("SENSEI", "x64", HiveState.DIRTY),
        "win10-1709-x64": ("DESKTOP-PM6C56D", "x64", HiveState.DIRTY),
    }
    assert (found.computer_name, found.architecture, found.system_hive) == expected[name]
    assert (found.locale, found.default_control_set, found.hyperv_host) == ("en-US", 1, False)
