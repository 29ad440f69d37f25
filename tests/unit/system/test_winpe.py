"""The Windows backend on a made-up Windows (support/win32_machine.py): what it asks, in which order, and what it leaves."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from rehost_payload.formats.hive import CreateKey, DeleteKey, DeleteValue, Hive, SetValue
from rehost_payload.repair.model import ResultWord
from rehost_payload.repair.session import Consent, run_repair, run_undo
from rehost_payload.survey.model import Controller, FirmwareMode
from rehost_payload.survey.run import survey_images, survey_machine
from rehost_payload.system import win32_layouts, win_hive
from rehost_payload.system.capture_target import AlignedBuffer
from rehost_payload.system.hivex_edit import edit_hive as hivex_edit
from rehost_payload.system.protocol import SystemError_, WritableVolume
from rehost_payload.system.win32 import Win32, Win32Error
from rehost_payload.system.win_volume import WindowsVolume
from rehost_payload.system.winpe import WinPeSystem
from support import disks, regf, windows
from support.disks import MIB, DiskLayout
from support.image_system import ImageVolume
from support.regf import K, V
from support.win32_machine import Device, FakeDisk, Machine, Part, pci

RAID = r"PCI\VEN_9005&DEV_028D&SUBSYS_05569005&REV_01\4&1&0&0008"
AHCI = r"PCI\VEN_1022&DEV_7901&SUBSYS_7C371462&REV_51\4&2&0&0009"
NETWORK = r"PCI\VEN_8086&DEV_1539&SUBSYS_15398086&REV_03\4&3&0&000A"
DISK = r"SCSI\Disk&Ven_Adaptec&Prod_Array\5&1&0&000000"


def tree() -> dict[str, Device]:
    bridge = r"PCI\VEN_1022&DEV_1453&SUBSYS_14531022&REV_00\3&1&0&08"
    return {
        bridge: pci(r"ACPI\PNP0A08\0", bridge, "060400", 0, 0x10001, "pci"),
        RAID: pci(bridge, RAID, "010400", 3, 0, "arcsas"),
        AHCI: pci(bridge, AHCI, "010601", 0x100 | 2, 0x170003, "storahci"),
        NETWORK: pci(bridge, NETWORK, "020000", 1, 0, "e1i65x64"),
        DISK: Device(RAID),
        r"ACPI\PNP0A08\0": Device(None),
    }


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> DiskLayout:
    return windows.gpt_server(tmp_path_factory.mktemp("winpe") / "s.img", windows_size=32 * MIB)


@pytest.fixture
def disk(original: DiskLayout, tmp_path: Path) -> DiskLayout:
    return windows.copy_disk(original, tmp_path / "s.img")


def machine_of(*layouts: DiskLayout, **more: object) -> Machine:
    fake = {
        n: FakeDisk(d.path, tuple(Part(p.number, p.offset, p.size) for p in d.partitions), instance=DISK)
        for n, d in enumerate(layouts)
    }
    return Machine(fake, tree(), **more)  # type: ignore[arg-type]


def without_controllers(machine: Machine) -> Machine:
    """The made-up Windows on these disks has no driver for a RAID controller, which is not what is tested here."""
    machine.devices.clear()
    return machine


def image_volume(api: Win32, root: str) -> WritableVolume:
    """The volume of that name, written through mtools and libntfs-3g."""
    assert isinstance(api, Machine)
    for number, part, name in api._parts():
        if root in (name, rf"\\?\GLOBALROOT\Device\Harddisk{number}\Partition{part.number}" + "\\"):
            return ImageVolume(api.disks[number].image, part.offset, part.size, lambda *_: None)
    raise AssertionError(root)


def system_of(machine: Machine) -> WinPeSystem:
    return WinPeSystem(machine, {}, image_volume, sleep=lambda _: None)


# --- what is there -------------------------------------------------------------------------------------------


def test_the_survey_of_a_disk_is_that_of_its_image(disk: DiskLayout) -> None:
    machine = machine_of(disk)
    found = survey_machine(system_of(machine))
    image = survey_images([disk.path], controllers=found.controllers)
    assert found.volumes == image.volumes
    assert found.windows == image.windows
    assert found.boot_stores == image.boot_stores
    assert found.problems == image.problems == ()
    (there,) = found.disks
    assert (there.path, there.model, there.serial, there.transport) == (
        r"\\.\PhysicalDrive0",
        "Samsung SSD 860",
        "S3Z8NB0K",
        "sata",
    )
    assert (there.size, there.sector_size, there.controller) == (disk.size, 512, "0000:03:00.0")
    assert [p.path for p in there.table.partitions] == [
        rf"\Device\Harddisk0\Partition{p.number}" for p in disk.partitions
    ]
    assert machine.idle()
    assert machine.log == []  # a survey changes nothing


def test_controllers_by_their_ids_and_addresses(disk: DiskLayout) -> None:
    assert list(system_of(machine_of(disk)).controllers()) == [
        Controller("0000:03:00.0", "9005", "028d", "9005", "0556", "010400", "01", "arcsas"),
        Controller("0001:02:17.3", "1022", "7901", "1462", "7c37", "010601", "51", "storahci"),
    ]


def test_a_usb_disk_hangs_on_no_storage_controller(disk: DiskLayout) -> None:
    machine = machine_of(disk)
    machine.disks[0].bus, machine.disks[0].removable = 7, True
    (found,) = system_of(machine).disks()
    assert (found.info.transport, found.info.removable, found.info.controller) == ("usb", True, None)
    found.close()


def test_where_plug_and_play_does_not_answer_the_numbers_are_tried(disk: DiskLayout) -> None:
    machine = machine_of(disk, errors={"disk_interfaces": [50], "pci_devices": []})
    machine.disks[7] = machine.disks.pop(0)
    found = system_of(machine).disks()
    assert [d.info.path for d in found] == [r"\\.\PhysicalDrive7"]
    assert found[0].info.controller is None
    for handle in found:
        handle.close()


def test_a_disk_that_does_not_open_is_named(disk: DiskLayout) -> None:
    machine = machine_of(disk, errors={"disk_interfaces": [50], "open": [5] + [2] * 63})
    system = system_of(machine)
    assert system.disks() == []
    assert [p.partition(":")[0] for p in system.problems()] == [r"\\.\PhysicalDrive0"]
    assert machine.idle()


def test_any_part_of_a_disk_can_be_read(disk: DiskLayout) -> None:
    (found,) = system_of(machine_of(disk)).disks()
    content = disk.path.read_bytes()
    for offset, length in ((0, 1), (511, 2), (510, 5000), (disk.size - 3, 100), (disk.size + 5, 1), (700, 0)):
        assert found.read_at(offset, length) == content[offset : offset + length]
    found.close()


def test_a_read_error_is_an_oserror(disk: DiskLayout) -> None:
    machine = machine_of(disk)
    (found,) = system_of(machine).disks()
    machine.errors["read"] = [23]  # ERROR_CRC
    with pytest.raises(OSError, match="error 23"):
        found.read_at(0, 512)
    found.close()


def test_the_stick_that_we_were_started_from(disk: DiskLayout, tmp_path: Path) -> None:
    machine = machine_of(disk, windows.copy_disk(disk, tmp_path / "stick.img"))
    stick = machine.disks[1].parts[0].name(1)
    machine.letters["E:\\"] = stick
    place = (r"SYSTEM\CurrentControlSet\Control", "PEBootRamdiskSourceDrive")
    machine.values[place] = "e:\\\0".encode("utf-16-le")
    found = system_of(machine).disks()
    assert [d.info.boot_medium for d in found] == [False, True]
    for handle in found:
        handle.close()


def test_write_protection_and_windows_own_policy_are_two_things(disk: DiskLayout) -> None:
    machine = machine_of(disk)
    machine.disks[0].write_protected = True
    (found,) = system_of(machine).disks()
    assert found.info.read_only
    found.close()
    machine.disks[0].write_protected, machine.disks[0].attributes = False, 3
    (found,) = system_of(machine).disks()
    assert not found.info.read_only
    found.close()


# --- layouts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parse",
    [
        win32_layouts.parse_geometry,
        win32_layouts.parse_length,
        win32_layouts.parse_device,
        win32_layouts.parse_device_number,
        win32_layouts.parse_extents,
        win32_layouts.parse_layout,
        win32_layouts.parse_attributes,
    ],
)
def test_answers_that_are_too_short(parse: object) -> None:
    with pytest.raises(ValueError, match="bytes"):
        parse(b"\1\0\0")  # type: ignore[operator]


def test_an_answer_that_claims_more_than_it_holds() -> None:
    with pytest.raises(ValueError, match="needed"):
        win32_layouts.parse_extents(struct.pack("<I4x", 1_000_000) + bytes(24))
    with pytest.raises(ValueError, match="needed"):
        win32_layouts.parse_layout(struct.pack("<II", 1, 500) + bytes(40 + 144))


def test_texts_of_a_device() -> None:
    def device(vendor: bytes, product: bytes, bus: int) -> tuple[str, str]:
        fake = FakeDisk(Path(), vendor=vendor, product=product, bus=bus)
        found = win32_layouts.parse_device(Machine._descriptor(fake))
        return found.model, found.transport

    assert device(b"Adaptec ", b"Array           ", 8) == ("Adaptec Array", "raid")
    assert device(b"", b"QEMU HARDDISK   ", 11) == ("QEMU HARDDISK", "sata")
    assert device(b"NVMe    ", b"INTEL SSDPE2KX010T8     ", 17) == ("INTEL SSDPE2KX010T8", "nvme")
    assert device(b"", b"", 99) == ("", "")


# --- writing -------------------------------------------------------------------------------------------------


def test_a_repair_and_its_undo(disk: DiskLayout) -> None:
    restored = windows.restored(disk)
    before = windows.read_store(restored)
    machine = without_controllers(machine_of(restored))
    outcome = run_repair(system_of(machine), lambda *_: Consent(True))
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    assert outcome.before is not None
    assert outcome.before.system == "winpe"
    assert windows.read_store(restored) != before
    assert machine.idle()
    # every volume that was written was flushed, and closed where nobody else used it
    assert any(entry.startswith("flush \\\\?\\Volume") for entry in machine.log)
    assert any(entry.startswith("dismount 0/") for entry in machine.log)
    assert machine.log.count("load") == machine.log.count("unload") > 0
    undone = run_undo(system_of(machine))
    assert undone.result.word is ResultWord.UNDONE, undone.result
    assert windows.read_store(restored) == before


def test_a_damaged_partition_table_is_written_without_touching_volumes(disk: DiskLayout) -> None:
    disks.write_bytes(disk.path, 512, bytes(512))
    machine = without_controllers(machine_of(disk))
    outcome = run_repair(system_of(machine), lambda *_: Consent(True))
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    writes = [e for e in machine.log if e.startswith("write")]
    assert writes
    assert all(int(e.split()[2]) < 34 * 512 for e in writes)
    assert "reread 0" in machine.log


def test_sectors_of_a_volume_are_written_while_it_is_locked(disk: DiskLayout) -> None:
    machine = machine_of(disk, errors={0x90018: [5, 5]})  # two tries find somebody else's file open
    part = disk.windows
    data = disk.path.read_bytes()[part.offset : part.offset + 512]
    changed = data[:3] + b"REHOST  " + data[11:]
    system_of(machine).write_sectors(r"\\.\PhysicalDrive0", part.offset, changed)
    assert disk.path.read_bytes()[part.offset : part.offset + 512] == changed
    number = part.number
    assert machine.log == [
        f"lock 0/{number}",
        f"dismount 0/{number}",
        f"write 0 {part.offset} 512",
        r"flush \\.\PhysicalDrive0",
        f"unlock 0/{number}",
    ]
    assert machine.idle()


def test_a_volume_in_use_is_not_written_below_its_file_system(disk: DiskLayout) -> None:
    machine = machine_of(disk, errors={0x90018: [5] * 100})
    with pytest.raises(SystemError_) as error:
        system_of(machine).write_sectors(r"\\.\PhysicalDrive0", disk.windows.offset, bytes(512))
    assert error.value.code == "busy"
    assert not [e for e in machine.log if e.startswith("write")]
    assert machine.idle()


def test_sectors_that_read_back_differently(disk: DiskLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = machine_of(disk)
    monkeypatch.setattr(machine, "write", lambda handle, offset, data: len(data))
    with pytest.raises(SystemError_) as error:
        system_of(machine).write_sectors(r"\\.\PhysicalDrive0", 0, b"\1" * 512)
    assert error.value.code == "verify"
    assert machine.idle()


def test_a_disk_kept_offline_is_in_use_only_while_it_is_written(disk: DiskLayout) -> None:
    machine = machine_of(disk)
    machine.disks[0].attributes = 3
    with system_of(machine).writable(r"\\.\PhysicalDrive0", disk.windows.offset, disk.windows.size) as volume:
        assert machine.disks[0].attributes == 0
        volume.replace("\\new.txt", b"x")
    assert machine.disks[0].attributes == 3
    assert disks.read_file(disk, disk.windows, "new.txt") == b"x"
    assert machine.log[0] == "attributes 0 0"
    assert machine.log[-1] == "attributes 0 3"
    assert machine.idle()


def test_a_hidden_volume_is_reached_by_its_partition(disk: DiskLayout) -> None:
    machine = machine_of(disk)
    machine.hidden = {machine.disks[0].parts[disk.esp.number - 1].name(0)}
    with system_of(machine).writable(r"\\.\PhysicalDrive0", disk.esp.offset, disk.esp.size) as volume:
        assert volume.is_directory("\\EFI")
    assert machine.idle()


def refused(machine: Machine, offset: int, size: int) -> str:
    with (
        pytest.raises(SystemError_) as error,
        system_of(machine).writable(r"\\.\PhysicalDrive0", offset, size),
    ):
        pass
    assert machine.idle()
    return error.value.code


def test_refusals_leave_nothing_behind(disk: DiskLayout) -> None:
    part = disk.windows
    machine = machine_of(disk)
    name = machine.disks[0].parts[part.number - 1].name(0)
    machine.flags[name] = 0x80000
    assert refused(machine, part.offset, part.size) == "read-only"
    machine.flags.clear()
    machine.errors["volume_facts"] = [1005]  # ERROR_UNRECOGNIZED_VOLUME
    assert refused(machine, part.offset, part.size) == "mount"
    machine.disks[0].write_protected = True
    assert refused(machine, part.offset, part.size) == "read-only"
    machine.disks[0].write_protected = False
    machine.errors["flush"] = [1167]
    assert refused(machine, part.offset, part.size) == "gone"
    machine.disks.clear()
    assert refused(machine, part.offset, part.size) == "gone"


def test_a_hibernated_windows_is_not_touched(disk: DiskLayout) -> None:
    disks.write_file(disk, disk.windows, "hiberfil.sys", b"HIBR" + bytes(8188))
    machine = machine_of(disk)
    assert refused(machine, disk.windows.offset, disk.windows.size) == "hibernated"
    assert machine.log == []


def test_a_volume_that_is_written_twice_is_closed_once(disk: DiskLayout) -> None:
    machine = machine_of(disk)
    system = system_of(machine)
    place = (r"\\.\PhysicalDrive0", disk.esp.offset, disk.esp.size)
    with system.writable(*place) as outer:
        with system.writable(*place) as inner:
            assert inner is outer
        assert machine.log == []
    assert len([e for e in machine.log if e.startswith("dismount")]) == 1


# --- the volume itself, in a folder --------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "volume"
    path.mkdir()
    return path


def volume_in(folder: Path, machine: Machine | None = None) -> WindowsVolume:
    return WindowsVolume(machine or Machine({}), f"{folder}/", "/")


def test_files_are_replaced_appended_and_removed(folder: Path) -> None:
    volume = volume_in(folder)
    volume.make_directory("\\EFI")
    volume.replace("\\EFI\\a", b"one")
    volume.replace("\\EFI\\a", b"two")
    volume.append("\\EFI\\log", b"1")
    volume.append("\\EFI\\log", b"2")
    assert (volume.read("\\EFI\\a"), volume.read("\\EFI\\log")) == (b"two", b"12")
    assert volume.listdir("\\EFI") == ["a", "log"]
    assert volume.is_directory("\\EFI")
    assert not volume.is_directory("\\EFI\\a")
    assert not volume.exists("\\EFI\\a\\below")
    volume.remove("\\EFI\\a")
    volume.remove("\\EFI\\log")
    volume.remove_directory("\\EFI")
    assert volume.listdir("\\") == []
    assert volume.free() > 0


def test_a_replacement_that_fails_leaves_the_old_file(folder: Path) -> None:
    machine = Machine({})
    volume = volume_in(folder, machine)
    volume.replace("\\a", b"old")
    machine.errors["move"] = [112]
    with pytest.raises(SystemError_) as error:
        volume.replace("\\a", b"new")
    assert error.value.code == "no-space"
    assert volume.read("\\a") == b"old"
    assert volume.listdir("\\") == ["a"]


def test_a_replaced_file_keeps_its_attributes_and_access_list(folder: Path) -> None:
    machine = Machine({})
    volume = volume_in(folder, machine)
    volume.replace("\\a", b"old")
    assert machine.log == []
    volume.replace("\\a", b"new")
    assert machine.log == ["security a"]


@pytest.mark.parametrize("path", ["\\..\\x", "\\a/b", "\\C:\\x", "\\a\0b", "\\.\\x"])
def test_what_is_no_path_on_a_volume(folder: Path, path: str) -> None:
    with pytest.raises(SystemError_) as error:
        volume_in(folder).replace(path, b"")
    assert error.value.code == "absent"


def test_what_is_not_there(folder: Path) -> None:
    for call in (lambda v: v.read("\\x"), lambda v: v.remove("\\x"), lambda v: v.replace("\\x\\y", b"")):
        with pytest.raises(SystemError_) as error:
            call(volume_in(folder))
        assert error.value.code == "absent"


# --- a target for captures -----------------------------------------------------------------------------------


def capture_system(machine: Machine, folder: Path) -> WinPeSystem:
    return WinPeSystem(machine, {}, lambda api, _: WindowsVolume(api, f"{folder}/", "/"), lambda _: None)


def test_a_capture_is_written_to_a_marked_volume(disk: DiskLayout, folder: Path) -> None:
    machine = machine_of(disk)
    machine.letters["E:\\"] = machine.disks[0].parts[disk.windows.number - 1].name(0)
    place = (r"\\.\PhysicalDrive0", disk.windows.offset, disk.windows.size)
    before = [entry.name for entry in folder.iterdir()]
    with capture_system(machine, folder).capture_target(*place) as target:
        assert (folder / "rehost.busy").exists()
        info = target.info
        assert (info.file_system, info.disk, info.disk_serial) == ("ntfs", place[0], "S3Z8NB0K")
        assert info.name.startswith("E:")
        target.make_folders("VM/a")
        with_buffer = AlignedBuffer(8192)
        with_buffer.view[:] = b"\1" * 8192
        file = target.open("VM/a/disk.part")
        file.reserve(1 << 20)
        file.write_at(0, with_buffer.view, 5000)
        file.finish(5000, 0, 1)
        file.close()
        target.rename("VM/a/disk.part", "VM/a/disk")
        assert target.size("VM/a/disk") == 5000
        with_buffer.close()
        target.rename("VM", "VM (earlier)")
        target.remove_folder("VM (earlier)/a")  # not empty: it stays
        target.remove_folder("VM")  # there is none
        target.make_folders("VM/b")
        target.remove_folder("VM/b")
        target.remove_folder("VM")
        assert target.names("") == sorted(["VM (earlier)", *before, "rehost.busy"])
        target.rename("VM (earlier)", "VM")
    assert (folder / "VM" / "a" / "disk").read_bytes() == b"\1" * 5000
    assert not (folder / "rehost.busy").exists()
    assert "reserve 1048576" in machine.log
    assert machine.idle()


def test_a_file_system_that_cannot_reserve_just_grows(disk: DiskLayout, folder: Path) -> None:
    machine = machine_of(disk, errors={"reserve": [50, 112]})
    place = (r"\\.\PhysicalDrive0", disk.windows.offset, disk.windows.size)
    with capture_system(machine, folder).capture_target(*place) as target:
        file = target.open("x")
        file.reserve(1 << 20)
        with pytest.raises(SystemError_) as error:
            file.reserve(1 << 40)
        assert error.value.code == "no-space"
        file.close()


def test_the_system_partition_takes_no_capture(disk: DiskLayout, folder: Path) -> None:
    machine = machine_of(disk)
    place = (r"\\.\PhysicalDrive0", disk.esp.offset, disk.esp.size)
    with pytest.raises(SystemError_) as error, capture_system(machine, folder).capture_target(*place):
        pass
    assert error.value.code == "file-system"
    assert list(folder.iterdir()) == []
    assert machine.idle()


def test_a_disk_that_was_pulled_out_is_said_to_be(disk: DiskLayout, folder: Path) -> None:
    machine = machine_of(disk)
    place = (r"\\.\PhysicalDrive0", disk.windows.offset, disk.windows.size)
    unplugged = machine.disks[0]
    buffer = AlignedBuffer(4096)
    with capture_system(machine, folder).capture_target(*place) as target:
        file = target.open("x")
        machine.errors["write"] = [31]  # ERROR_GEN_FAILURE
        del machine.disks[0]
        with pytest.raises(SystemError_) as error:
            file.write_at(0, buffer.view, 4096)
        file.close()
        machine.disks[0] = unplugged
    buffer.close()
    assert error.value.code == "gone"


# --- hives ---------------------------------------------------------------------------------------------------

BASE = regf.hive(
    K(
        "ROOT",
        keys=[
            K(
                "A",
                keys=[K("B", keys=[K("C", values=[V("v", 1, b"x\0\0\0")])])],
                values=[V("one", 4, bytes(4))],
            ),
            K("Größe", values=[V("Wert", 3, b"1"), V("other", 3, b"2")]),
        ],
    ),
    leaf="lh",
)
EDITS = [
    SetValue(("a", "b"), "new", 1, b"y\0\0\0"),
    SetValue(("A",), "ONE", 0xFFFF0012, b"\1\0\0\0"),
    SetValue(("Neu", "darin"), "", 3, b"default"),
    CreateKey(("empty", "below")),
    DeleteKey(("A", "B", "c")),
    DeleteValue(("GRÖßE",), "WERT"),
    DeleteKey(("nothing", "below")),
    DeleteValue(("A",), "nothing"),
    DeleteKey(("nothing",)),
]


def content(data: bytes) -> dict[str, object]:
    found: dict[str, object] = {}

    def walk(key: object, path: str) -> None:
        for value in key.values():  # type: ignore[attr-defined]
            found[f"{path}:{value.name}".lower()] = (value.type, value.data)
        for child in key.subkeys():  # type: ignore[attr-defined]
            found[f"{path}\\{child.name}".lower()] = None
            walk(child, f"{path}\\{child.name}")

    walk(Hive.parse(data).root, "")
    return found


def test_windows_edits_a_hive_as_hivex_does() -> None:
    machine = Machine({})
    after = win_hive.edit_hive(machine, BASE, EDITS)
    assert content(after) == content(hivex_edit(BASE, EDITS))
    assert content(after) != content(BASE)
    assert machine.log == ["load", "flush key", "unload"]
    assert machine.idle()


def hive_refused(machine: Machine, data: bytes, *edits: object) -> str:
    with pytest.raises(SystemError_) as error:
        win_hive.edit_hive(machine, data, edits)  # type: ignore[arg-type]
    return error.value.code


def test_hives_that_are_not_edited() -> None:
    edit = SetValue(("A",), "x", 3, b"1")
    assert hive_refused(Machine({}), regf.dirty(BASE), edit) == "dirty"
    assert hive_refused(Machine({}), b"no hive" * 1000, edit) == "damaged"
    assert hive_refused(Machine({}), BASE, DeleteKey(())) == "unsupported"


def test_a_refusal_in_the_middle_still_unloads() -> None:
    for what in ("set_value", "open_key"):
        machine = Machine({}, errors={what: [5]})
        assert hive_refused(machine, BASE, SetValue(("A",), "x", 3, b"1")) == "registry"
        assert machine.log == ["load", "unload"]
        assert machine.idle()
    machine = Machine({}, errors={"load": [1314]})  # ERROR_PRIVILEGE_NOT_HELD
    assert hive_refused(machine, BASE, CreateKey(("x",))) == "registry"
    assert machine.idle()


def test_unloading_waits_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(win_hive.time, "sleep", lambda _: None)
    machine = Machine({}, errors={"unload": [5, 5]})
    assert "\\x" in content(win_hive.edit_hive(machine, BASE, [CreateKey(("x",))]))
    machine = Machine({}, errors={"unload": [5] * 100})
    assert hive_refused(machine, BASE, CreateKey(("x",))) == "registry"


def test_what_windows_left_in_the_log_is_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush since Windows 8.1 may go to the log alone."""
    edited = hivex_edit(BASE, [CreateKey(("x",))])
    machine = Machine({})
    paths: list[str] = []
    load = machine.load

    def note(name: str, path: str) -> None:
        paths.append(path)
        load(name, path)

    def unload(name: str) -> None:
        del machine.hives[name]
        size = struct.unpack_from("<I", edited, 40)[0]
        pages = {p: edited[4096 + p : 4096 + p + 512] for p in range(0, size, 512)}
        old = bytearray(regf.dirty(BASE, (2, 1)))
        Path(paths[0]).write_bytes(bytes(old))
        Path(paths[0] + ".LOG1").write_bytes(regf.new_log(1, size, [regf.entry(1, size, pages)]))

    monkeypatch.setattr(machine, "load", note)
    monkeypatch.setattr(machine, "unload", unload)
    after = win_hive.edit_hive(machine, BASE, [CreateKey(("x",))])
    assert "\\x" in content(after)
    assert not Path(paths[0]).exists()


def test_a_writer_that_does_something_else_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine({})
    monkeypatch.setattr(machine, "set_value", lambda *_: None)
    assert hive_refused(machine, BASE, SetValue(("A",), "x", 3, b"1")) == "verify"


# --- firmware ------------------------------------------------------------------------------------------------


def test_variables_of_the_firmware(disk: DiskLayout) -> None:
    option = struct.pack("<IH", 1, 4) + "Windows Boot Manager\0".encode("utf-16-le") + b"\x7f\xff\4\0"
    variables = {
        "Boot0000": option,
        "Boot1234": option,
        "BootOrder": b"\x34\x12\0\0",
        "BootCurrent": b"\0\0",
        "SecureBoot": b"\1",
    }
    machine = machine_of(disk, variables=variables)
    system = system_of(machine)
    found = system.firmware()
    assert found.mode is FirmwareMode.UEFI
    assert (found.boot_order, found.boot_current, found.secure_boot) == ((0x1234, 0), 0, True)
    assert [e.id for e in found.boot_entries] == [0, 0x1234]
    assert found.boot_entries[0].description == "Windows Boot Manager"
    assert found.variables_writable
    system.set_firmware_variable("Boot0001", b"x")
    assert system.firmware_variable("Boot0001") == b"x"
    system.set_firmware_variable("Boot0001", None)
    system.set_firmware_variable("Boot0001", None)
    assert system.firmware_variable("Boot0001") is None


def test_firmware_that_refuses(disk: DiskLayout) -> None:
    machine = machine_of(disk, errors={"set_variable": [19, 5], "variable": [1314]})
    system = system_of(machine)
    for code in ("read-only", "firmware"):
        with pytest.raises(SystemError_) as error:
            system.set_firmware_variable("Boot0001", b"x")
        assert error.value.code == code
    with pytest.raises(SystemError_):
        system.firmware_variable("BootOrder")
    with pytest.raises(SystemError_):
        system.set_firmware_variable("a b", b"x")


def test_a_bios_has_no_variables(disk: DiskLayout) -> None:
    machine = machine_of(disk, firmware=1)
    assert system_of(machine).firmware().mode is FirmwareMode.BIOS
    machine.errors["firmware_type"] = [50]
    assert system_of(machine).firmware().mode is FirmwareMode.UNKNOWN


def test_drivers_of_the_medium(tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    system = WinPeSystem(Machine({}), {"REHOST_DRIVERS": str(packages)})
    assert list(system.driver_folders()) == [packages]
    assert WinPeSystem(Machine({}), {"SystemDrive": "Q:"}).driver_folders() == ()


def test_errors_of_windows_as_words() -> None:
    from rehost_payload.system.win32 import refused as translated

    words = {
        2: "absent",
        5: "permission",
        19: "read-only",
        32: "busy",
        112: "no-space",
        1167: "gone",
        9999: "io",
    }
    for code, word in words.items():
        assert translated(Win32Error("F", code), "x").code == word
