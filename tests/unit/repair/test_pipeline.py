"""The whole pipeline on disk images: what is broken is found and mended, and nothing else is touched."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from rehost_payload.repair.model import Choices, ResultWord, Verdict
from rehost_payload.repair.session import run_survey
from rehost_payload.survey.model import Firmware, FirmwareBootEntry, FirmwareMode
from support import disks, stores, windows
from support.disks import PartitionSpec
from support.image_system import ImageMachine
from support.pe_image import make_pe

from .helpers import found, image_hash, repair, set_in_store, store_elements

MIB = 1 << 20


def wrong_identities(disk, elements):
    """The elements that name a partition which the disk does not have."""
    own = {stores.identity(disk, p) for p in disk.partitions}
    return {
        k for k, (_, data) in elements.items() if stores.is_device(k[1]) and stores.identities(data) - own
    }


@pytest.mark.parametrize("style", ["gpt", "mbr"])
def test_healthy_disk_gets_no_writes(style, request, machine):
    disk = request.getfixturevalue(style)
    before = image_hash(disk)
    outcome = repair(machine(disk))
    assert outcome.result.word is ResultWord.HEALTHY
    assert outcome.result.verification is not None
    # which controller the disk is connected to this machine does not know
    assert outcome.result.verification.verdict is Verdict.UNKNOWN
    assert outcome.result.verification.chain is Verdict.PASS
    assert image_hash(disk) == before


@pytest.mark.parametrize("style", ["gpt", "mbr"])
def test_stale_store_is_mended_and_only_its_devices_change(style, request, machine):
    disk = windows.restored(request.getfixturevalue(style))
    before = store_elements(disk)
    assert wrong_identities(disk, before)
    outcome = repair(machine(disk))
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    assert "boot.device-stale" in found(outcome)
    after = store_elements(disk)
    assert not wrong_identities(disk, after)
    changed = {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)}
    assert changed == wrong_identities(disk, before)
    # each to its role
    assert stores.identities(after[stores.LOADER, 0x21000001][1]) == {stores.identity(disk, disk.windows)}
    assert stores.identities(after[stores.WINRE, 0x11000001][1]) == {stores.identity(disk, disk.recovery)}
    assert stores.identities(after[stores.WINRE_OPTIONS, 0x31000003][1]) == {
        stores.identity(disk, disk.recovery)
    }
    system = disk.esp if style == "gpt" else disk.system
    assert stores.identities(after[stores.BOOTMGR, 0x11000001][1]) == {stores.identity(disk, system)}


def test_fallback_store_is_mended_too(gpt, machine):
    disk = windows.restored(gpt)
    repair(machine(disk))
    assert not wrong_identities(disk, store_elements(disk, windows.FALLBACK_STORE))


def test_wrong_disk_guid_alone(gpt, machine):
    from dataclasses import replace

    disk = replace(gpt, disk_guid="11111111-2222-3333-4444-555555555555")
    disks.write_gpt(disk)
    outcome = repair(machine(disk))
    assert outcome.result.word is ResultWord.REPAIRED
    assert "boot.disk-guid-stale" in found(outcome)
    assert "boot.device-stale" not in found(outcome)
    assert not wrong_identities(disk, store_elements(disk))


@pytest.mark.parametrize("style", ["gpt", "mbr"])
@pytest.mark.parametrize(
    ("content", "finding"),
    [
        (None, "boot.store-missing"),
        (b"", "boot.store-empty"),
        (bytes(8192), "boot.store-empty"),
        (b"no hive at all" * 100, "boot.store-damaged"),
        ("truncated", "boot.store-damaged"),
    ],
)
def test_lost_store_is_made_anew(style, content, finding, request, machine):
    disk = windows.restored(request.getfixturevalue(style))
    part, path = windows.store_place(disk)
    if content is None:
        windows.delete_store(disk)
    else:
        data = windows.read_store(disk)[:4500] if content == "truncated" else content
        disks.write_file(disk, part, path, data)
    outcome = repair(machine(disk))
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    assert finding in found(outcome)
    elements = store_elements(disk)
    assert not wrong_identities(disk, elements)
    loaders = {g for (g, t), _ in elements.items() if t == 0x22000002}
    assert any(elements[g, 0x22000002][1].decode("utf-16-le").startswith("\\Windows") for g in loaders)
    # a Hyper-V host without this starts none of its machines
    assert any(t == 0x250000F0 and int.from_bytes(d, "little") == 1 for (_, t), (_, d) in elements.items())


def test_empty_esp_is_filled_as_bcdboot_would(gpt, machine):
    for folder in ("EFI/Microsoft", "EFI/Boot"):
        disks.delete_file(gpt, gpt.esp, folder)
    outcome = repair(machine(gpt))
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    source = disks.read_file(gpt, gpt.windows, "Windows/Boot/EFI/bootmgfw.efi")
    assert disks.read_file(gpt, gpt.esp, "EFI/Microsoft/Boot/bootmgfw.efi") == source
    assert disks.read_file(gpt, gpt.esp, "EFI/Boot/bootx64.efi") == source
    for locale in windows.LOCALES:
        assert disks.file_exists(gpt, gpt.esp, f"EFI/Microsoft/Boot/{locale}/bootmgfw.efi.mui")
    assert disks.file_exists(gpt, gpt.esp, "EFI/Microsoft/Boot/Fonts/wgl4_boot.ttf")
    assert disks.file_exists(gpt, gpt.esp, windows.FALLBACK_STORE)


def test_missing_fallback_loader(gpt, machine):
    disks.delete_file(gpt, gpt.esp, "EFI/Boot/bootx64.efi")
    store = windows.read_store(gpt)
    outcome = repair(machine(gpt))
    assert outcome.result.word is ResultWord.REPAIRED
    assert found(outcome) == {"boot.fallback-loader-missing"}
    assert disks.file_exists(gpt, gpt.esp, "EFI/Boot/bootx64.efi")
    assert windows.read_store(gpt) == store


STL, STL_SOURCE = "EFI/Microsoft/Boot/boot.stl", "Windows/Boot/EFI/boot.stl"


def with_boot_manager(disk, version, *, source=True):
    """A boot manager of this version, and perhaps the list that it wants, in Windows' own folder only."""
    manager = make_pe(version=version)
    for part, path in (
        (disk.esp, "EFI/Microsoft/Boot/bootmgfw.efi"),
        (disk.esp, "EFI/Boot/bootx64.efi"),
        (disk.windows, "Windows/Boot/EFI/bootmgfw.efi"),
    ):
        disks.write_file(disk, part, path, manager)
    if source:
        disks.write_file(disk, disk.windows, STL_SOURCE, b"list of revoked")
    return disk


@pytest.mark.parametrize("broken", [None, b"", bytes(600)])
def test_missing_list_of_revoked_signatures(gpt, machine, broken):
    disk = with_boot_manager(gpt, "10.0.26100.30215")
    if broken is not None:
        disks.write_file(disk, disk.esp, STL, broken)
    outcome = repair(machine(disk))
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    assert found(outcome) == {"boot.stl-missing"}
    assert disks.read_file(disk, disk.esp, STL) == b"list of revoked"
    assert repair(machine(disk)).result.word is ResultWord.HEALTHY


def test_older_boot_managers_want_no_list(gpt, machine):
    disk = with_boot_manager(gpt, "10.0.22621.4890")
    assert repair(machine(disk)).result.word is ResultWord.HEALTHY


@pytest.mark.parametrize("secure_boot", [True, False])
def test_a_list_that_is_nowhere_stops_secure_boot_only(gpt, stick, secure_boot):
    disk = with_boot_manager(gpt, "10.0.26100.30215", source=False)
    machine = ImageMachine([disk.path, stick.path], Firmware(FirmwareMode.UEFI, secure_boot))
    outcome = repair(machine)
    assert ("boot.stl-missing" in found(outcome)) == secure_boot
    assert outcome.result.verification is not None
    (check,) = [c for c in outcome.result.verification.checks if c.id == "verify.boot-file"]
    assert check.verdict is (Verdict.FAIL if secure_boot else Verdict.PASS)
    assert outcome.result.word is (ResultWord.NOT_REPAIRED if secure_boot else ResultWord.HEALTHY)


def test_damaged_boot_manager_is_replaced(gpt, machine):
    good = disks.read_file(gpt, gpt.esp, "EFI/Microsoft/Boot/bootmgfw.efi")
    disks.write_file(gpt, gpt.esp, "EFI/Microsoft/Boot/bootmgfw.efi", good[:600])
    outcome = repair(machine(gpt))
    assert outcome.result.word is ResultWord.REPAIRED
    assert "boot.file-damaged" in found(outcome)
    assert disks.read_file(gpt, gpt.esp, "EFI/Microsoft/Boot/bootmgfw.efi") == good


def test_dirty_store_is_replayed_and_its_log_goes(gpt, machine):
    disk = windows.restored(gpt)
    text = (1, "Wiederhergestellt\0".encode("utf-16-le"))
    windows.make_store_dirty(
        disk, lambda s: stores.changed(s, lambda h: stores.set_element(h, stores.LOADER, 0x12000004, text))
    )
    outcome = repair(machine(disk))
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    assert {"boot.store-dirty", "boot.device-stale"} <= found(outcome)
    elements = store_elements(disk)
    assert elements[stores.LOADER, 0x12000004][1] == text[1]  # what only the log had
    assert not wrong_identities(disk, elements)
    assert not disks.file_exists(disk, disk.esp, f"{windows.STORE}.LOG")


@pytest.mark.parametrize(("style", "wrong"), [("gpt", "winload.exe"), ("mbr", "winload.efi")])
def test_loader_of_the_other_firmware(style, wrong, request, machine):
    disk = request.getfixturevalue(style)
    path = (1, f"\\Windows\\system32\\{wrong}\0".encode("utf-16-le"))
    set_in_store(disk, lambda h: stores.set_element(h, stores.LOADER, 0x12000002, path))
    outcome = repair(machine(disk))
    assert outcome.result.word is ResultWord.REPAIRED
    assert "boot.path-firmware-mismatch" in found(outcome)
    right = {"gpt": "winload.efi", "mbr": "winload.exe"}[style]
    value = store_elements(disk)[stores.LOADER, 0x12000002][1].decode("utf-16-le").rstrip("\0")
    assert value == f"\\Windows\\system32\\{right}"


def test_dangling_default(gpt, machine):
    gone = (1, "{aaaaaaaa-0000-0000-0000-000000000000}\0".encode("utf-16-le"))
    set_in_store(gpt, lambda h: stores.set_element(h, stores.BOOTMGR, 0x23000003, gone))
    outcome = repair(machine(gpt))
    assert outcome.result.word is ResultWord.REPAIRED
    assert "boot.default-dangling" in found(outcome)
    value = store_elements(gpt)[stores.BOOTMGR, 0x23000003][1].decode("utf-16-le").rstrip("\0")
    assert value == stores.LOADER


def test_missing_osdevice(gpt, machine):
    set_in_store(gpt, lambda h: stores.delete_element(h, stores.LOADER, 0x21000001))
    outcome = repair(machine(gpt))
    assert outcome.result.word is ResultWord.REPAIRED
    assert "boot.device-missing" in found(outcome)
    assert stores.identities(store_elements(gpt)[stores.LOADER, 0x21000001][1]) == {
        stores.identity(gpt, gpt.windows)
    }


def test_entry_that_points_to_the_wrong_volume(gpt, machine):
    """The partition exists, but it is the ESP: 0xc000000f on the screen."""
    wrong = (3, stores.device(gpt, gpt.esp))
    set_in_store(gpt, lambda h: stores.set_element(h, stores.LOADER, 0x11000001, wrong))
    outcome = repair(machine(gpt))
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    assert "boot.path-missing" in found(outcome)
    assert stores.identities(store_elements(gpt)[stores.LOADER, 0x11000001][1]) == {
        stores.identity(gpt, gpt.windows)
    }


# --- BIOS ------------------------------------------------------------------------------------------------------


def test_no_active_partition(mbr, machine):
    disks.set_active(mbr, None)
    outcome = repair(machine(mbr))
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    assert "bios.no-active-partition" in found(outcome)
    flags = disks.read_bytes(mbr.path, 446, 64)[::16]
    assert flags == bytes([0x80, 0, 0, 0])


def test_wrong_hidden_sectors(mbr, machine):
    boot = mbr.system.offset
    disks.write_bytes(mbr.path, boot + 0x1C, struct.pack("<I", 63))
    outcome = repair(machine(mbr))
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    assert struct.unpack("<I", disks.read_bytes(mbr.path, boot + 0x1C, 4))[0] == boot // 512


def test_missing_bootmgr(mbr, machine):
    disks.delete_file(mbr, mbr.system, "bootmgr")
    outcome = repair(machine(mbr))
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    assert "bios.bootmgr-missing" in found(outcome)
    assert disks.file_exists(mbr, mbr.system, "bootmgr")


@pytest.mark.parametrize("place", ["disk", "volume"])
def test_missing_boot_code_is_said_and_not_claimed_repaired(place, mbr, machine):
    if place == "disk":
        disks.write_bytes(mbr.path, 0, bytes(440))
    else:
        disks.write_bytes(mbr.path, mbr.system.offset + 0x54, bytes(510 - 0x54))
    outcome = repair(machine(windows.restored(mbr)))
    finding = "bios.boot-code-missing" if place == "disk" else "bios.volume-code-missing"
    assert finding in found(outcome)
    assert outcome.result.word is ResultWord.NOT_REPAIRED
    assert outcome.result.verification is not None
    assert outcome.result.verification.verdict is Verdict.FAIL


# --- tables and firmware --------------------------------------------------------------------------------------


def test_damaged_primary_gpt(gpt, machine):
    disks.damage_gpt(gpt, primary=True)
    outcome = repair(machine(gpt))
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    assert "disk.gpt-primary-damaged" in found(outcome)
    assert outcome.after is not None
    assert outcome.after.disks[0].table.primary_ok


def test_firmware_entry_is_made_and_undone(gpt, stick):
    from rehost_payload.repair.session import run_undo

    other = FirmwareBootEntry(3, "UEFI Shell", True, None, None, "")
    firmware = Firmware(FirmwareMode.UEFI, variables_writable=True, boot_entries=(other,), boot_order=(3,))
    machine = ImageMachine([gpt.path, stick.path], firmware, {"BootOrder": b"\3\0"})
    outcome = repair(machine)
    assert outcome.result.diagnosis_before is not None
    missing = next(f for f in outcome.result.diagnosis_before.findings if f.id == "firmware.entry-missing")
    assert missing.evidence == ("Boot0003 UEFI Shell: starts no file of a disk",)
    assert machine.variables["BootOrder"] == b"\0\0\3\0"
    assert "bootmgfw.efi".encode("utf-16-le") in machine.variables["Boot0000"]
    assert run_undo(machine).result.word is ResultWord.UNDONE
    assert machine.variables == {"BootOrder": b"\3\0"}


def test_mode_mismatch_is_named(gpt, stick):
    machine = ImageMachine([gpt.path, stick.path], Firmware(FirmwareMode.BIOS))
    outcome = repair(machine)
    assert found(outcome) == {"firmware.mode-mismatch"}


# --- choices ----------------------------------------------------------------------------------------------------


@pytest.fixture
def dual(tmp_path: Path):
    """Two installations of one name on one disk, both entries' partitions unknown."""
    second = PartitionSpec("second", 128 * MIB, "ntfs", files=windows.windows_tree(windows.BootFiles()))
    disk = windows.gpt_server(tmp_path / "dual.img", extra=(second,), recovery=False)
    return windows.restored(disk)


def test_two_installations_are_asked_about(dual, machine):
    outcome = repair(machine(dual))
    assert outcome.result.word is ResultWord.CHOICE_NEEDED
    diagnosis = outcome.result.diagnosis_before
    assert diagnosis is not None
    assert diagnosis.question == "windows"
    assert len(diagnosis.candidates) == 2


@pytest.mark.parametrize("role", ["windows", "second"])
def test_the_chosen_installation_is_taken(dual, role, machine):
    m = machine(dual)
    diagnosis = repair(m).result.diagnosis_before
    assert diagnosis is not None
    chosen = next(c for c in diagnosis.candidates if c.startswith(f"disk0p{dual[role].number}:"))
    outcome = repair(m, Choices(windows=chosen))
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    elements = store_elements(dual)
    assert stores.identities(elements[stores.LOADER, 0x21000001][1]) == {stores.identity(dual, dual[role])}


# --- what stands in the way ------------------------------------------------------------------------------------


def test_hibernated_windows_blocks(gpt, machine):
    disks.set_hibernated(gpt, gpt.windows)
    disk = windows.restored(gpt)
    before = image_hash(disk)
    outcome = repair(machine(disk))
    assert outcome.result.word is ResultWord.BLOCKED
    assert "volume.hibernated" in found(outcome)
    assert image_hash(disk) == before


def test_bitlocker_blocks(tmp_path, machine):
    boot = bytearray(512)
    boot[0:11] = b"\xeb\x58\x90-FVE-FS-"
    boot[510:512] = b"\x55\xaa"
    locked = PartitionSpec("windows", 64 * MIB, content=bytes(boot))
    disk = disks.make_gpt_disk(
        tmp_path / "locked.img", esp_files=windows.esp_tree(windows.BootFiles()), extra=(locked,)
    )
    before = image_hash(disk)
    outcome = repair(machine(disk))
    assert outcome.result.word is ResultWord.BLOCKED
    assert "volume.bitlocker" in found(outcome)
    assert image_hash(disk) == before


def test_read_only_disk_blocks(gpt, stick):
    disk = windows.restored(gpt)
    machine = ImageMachine([disk.path, stick.path], read_only=frozenset({disk.path}))
    before = image_hash(disk)
    outcome = repair(machine)
    assert outcome.result.word is ResultWord.BLOCKED
    assert "disk.read-only" in found(outcome)
    assert image_hash(disk) == before


def test_full_esp_blocks(gpt, machine):
    disk = windows.restored(gpt)
    m = machine(disk)
    from rehost_payload.survey.run import survey_machine

    esp = next(v for v in survey_machine(m).volumes if v.partition == "disk0p1")
    disks.write_file(disk, disk.esp, "FILLER.BIN", bytes((esp.free or 0) - 40 * 1024))
    before = image_hash(disk)
    outcome = repair(m)
    assert outcome.result.word is ResultWord.BLOCKED, outcome.result
    assert "esp.full" in found(outcome)
    assert image_hash(disk) == before


def test_a_damaged_registry_is_named_with_what_was_seen(gpt, machine):
    hive = "Windows/System32/config/SYSTEM"
    for data, says in ((b"no hive" * 1000, "is damaged: "), (None, "is missing")):
        if data is None:
            disks.delete_file(gpt, gpt.windows, hive)
        else:
            disks.write_file(gpt, gpt.windows, hive, data)
        judged = {c.id: c for c in run_survey(machine(gpt)).result.verification.checks}
        check = judged["verify.system-hive"]
        assert check.verdict is Verdict.FAIL
        assert f"\\Windows\\System32\\config\\SYSTEM on disk0p{gpt.windows.number} {says}" in check.reason, (
            check
        )


def test_no_windows_at_all(stick, tmp_path):
    disk = disks.make_gpt_disk(tmp_path / "data.img", extra=(PartitionSpec("data", 32 * MIB, "ntfs"),))
    outcome = repair(ImageMachine([disk.path, stick.path]))
    assert outcome.result.word is ResultWord.NOT_REPAIRED
    assert "windows.none" in found(outcome)


def test_clone_attached_is_named(gpt, tmp_path, machine):
    clone = windows.copy_disk(gpt, tmp_path / "clone.img")
    assert "disk.duplicate-guid" in found(repair(machine(gpt, clone)))


def test_survey_without_stick_keeps_originals_on_the_windows_volume(gpt):
    disk = windows.restored(gpt)
    outcome = repair(ImageMachine([disk.path]))
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    assert outcome.result.journal is not None
    assert outcome.result.journal.startswith(f"disk0p{disk.windows.number} ")


def test_the_outcome_says_where_report_and_originals_lie(gpt, stick, machine):
    healthy = repair(machine(gpt))
    assert healthy.report is not None
    written = windows.restored(gpt)
    done = repair(machine(written))
    assert done.result.journal == f"{done.report}\\journal"
    for outcome in (healthy, done):
        folder = (outcome.report or "").split(" ", 1)[1].strip("\\")
        assert disks.file_exists(stick, stick["stick"], f"{folder}\\report.json")


def test_a_disk_that_cannot_be_read_again_is_not_called_repaired(gpt, machine, monkeypatch):
    from rehost_payload.repair import session

    real, calls = session.survey_machine, []

    def once(*args):
        calls.append(args)
        if len(calls) > 1:
            raise OSError(5, "Input/output error")
        return real(*args)

    monkeypatch.setattr(session, "survey_machine", once)
    outcome = repair(machine(windows.restored(gpt)))
    assert outcome.result.word is ResultWord.NOT_REPAIRED
    assert outcome.result.changes
    assert "verify" in (outcome.result.error or "")


def test_a_machine_whose_disks_cannot_be_opened_is_not_told_to_restore_its_backup(stick):
    class Locked(ImageMachine):
        def disks(self):
            return []

        def problems(self):
            return ["/dev/sda: Permission denied"]

    outcome = repair(Locked([stick.path]))
    assert outcome.result.word is ResultWord.FAILED
    assert "/dev/sda" in (outcome.result.error or "")


def test_a_dry_run_promises_a_plan_only_where_there_is_one(gpt, stick, machine):
    from rehost_payload.repair.session import run_repair

    def never(*_):
        raise AssertionError("a dry run asks nothing")

    assert run_repair(ImageMachine([stick.path]), never, dry_run=True).result.word is ResultWord.NOT_REPAIRED
    stale = windows.restored(gpt)
    assert run_repair(machine(stale), never, dry_run=True).result.word is ResultWord.PLANNED
    disks.set_hibernated(stale, stale.windows)
    assert run_repair(machine(stale), never, dry_run=True).result.word is ResultWord.BLOCKED
