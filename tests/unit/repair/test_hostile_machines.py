"""Machines on which a wrong conclusion would be a wrong write: twins, disks that belong together, somebody else's disks,
and undo after somebody else has written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from rehost_payload.formats.gpt import LDM_DATA
from rehost_payload.repair.assess import assess
from rehost_payload.repair.model import Choices, PatchBytes, ResultWord, Severity, Verdict, Verification
from rehost_payload.repair.session import Outcome, run_undo
from rehost_payload.repair.verify import verify
from rehost_payload.survey.model import Firmware, FirmwareMode, Survey
from rehost_payload.survey.run import survey_machine
from rehost_payload.system.protocol import DiskHandle
from support import disks, stores, windows
from support.disks import DiskLayout, PartitionLayout, PartitionSpec
from support.image_system import ImageMachine

from .helpers import found, image_hash, repair, store_elements

MIB = 1 << 20


@dataclass
class Connected(ImageMachine):
    """Disks with other properties than an image has: ``how`` says which, by the image."""

    how: tuple[tuple[Path, dict[str, Any]], ...] = ()

    def disks(self) -> Sequence[DiskHandle]:
        opened = super().disks()
        for disk in opened:
            for path, properties in self.how:
                if disk.info.path == str(path):
                    disk.info = replace(disk.info, **properties)  # type: ignore[misc]
        return opened


# --- the boot files are on another disk ------------------------------------------------------------------------


def store_for(first: DiskLayout, system: PartitionLayout, second: DiskLayout) -> bytes:
    """A store for the system partition of the first disk; Windows is on the second."""
    there = (3, stores.device(second, second.windows))

    def over_there(handle: Any) -> None:
        for entry, kinds in ((stores.LOADER, ()), (stores.RESUME, (0x21000026,))):
            for kind in (0x11000001, 0x21000001, *kinds):
                stores.set_element(handle, entry, kind, there)

    return stores.changed(stores.installed(first, windows=system).hive(), over_there)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[DiskLayout, DiskLayout]:
    """The active partition with the boot manager is on the first disk, Windows on the second, which cannot start."""
    boot = windows.BootFiles()
    system = PartitionSpec("system", 32 * MIB, "ntfs", "07", windows.bios_tree(boot), active=True)
    first = disks.make_disk(tmp_path / "first.img", [system], style="mbr", boot_code=boot.mbr)
    windows.install_pbr(first, first.system, boot.pbr)
    tree = windows.windows_tree(boot)
    second = disks.make_disk(
        tmp_path / "second.img", [PartitionSpec("windows", 128 * MIB, "ntfs", "07", tree)], style="mbr"
    )
    disks.write_file(first, first.system, windows.BIOS_STORE, store_for(first, first.system, second))
    return first, second


def test_windows_that_is_started_from_another_disk_gets_no_boot_files(
    pair: tuple[DiskLayout, DiskLayout], stick: DiskLayout
) -> None:
    before = [image_hash(d) for d in pair]
    machine = ImageMachine([*(d.path for d in pair), stick.path], Firmware(FirmwareMode.BIOS))
    outcome = repair(machine)
    assert outcome.result.word is ResultWord.HEALTHY, outcome.result
    assert [image_hash(d) for d in pair] == before


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_both_disks_restored_the_store_of_the_first_is_mended(
    pair: tuple[DiskLayout, DiskLayout], stick: DiskLayout, order: tuple[int, int]
) -> None:
    first, second = (windows.restored(d) for d in pair)
    before = image_hash(second)
    paths = [(first, second)[n].path for n in order]
    outcome = repair(ImageMachine([*paths, stick.path], Firmware(FirmwareMode.BIOS)))
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    assert image_hash(second) == before
    osdevice = store_elements(first)[stores.LOADER, 0x21000001][1]
    assert stores.identities(osdevice) == {stores.identity(second, second.windows)}


def test_what_the_first_disk_lacks_is_found_there(
    pair: tuple[DiskLayout, DiskLayout], stick: DiskLayout
) -> None:
    first, second = pair
    before = image_hash(second)
    disks.set_active(first, None)
    disks.write_bytes(first.path, first.system.offset + 0x1C, bytes(4))
    outcome = repair(ImageMachine([first.path, second.path, stick.path], Firmware(FirmwareMode.BIOS)))
    assert image_hash(second) == before
    assert found(outcome) == {"bios.no-active-partition", "bios.hidden-sectors-wrong"}
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result


def test_a_logical_partition_counts_from_elsewhere(mbr: DiskLayout) -> None:
    """Nothing is active, and the boot manager lies in a logical partition, whose boot sector counts from its own record."""
    survey = survey_machine(ImageMachine([mbr.path]))
    (disk,) = survey.disks
    first, *rest = disk.table.partitions
    table = replace(disk.table, partitions=(replace(first, number=5, active=False), *rest))
    volumes = (replace(survey.volumes[0], hidden_sectors=63), *survey.volumes[1:])
    changed = replace(survey, disks=(replace(disk, table=table),), volumes=volumes)
    assert not [a for a in assess(changed).plan.actions if isinstance(a, PatchBytes)]


# --- the old disk is still plugged in --------------------------------------------------------------------------


@pytest.mark.parametrize("properties", [{"transport": "usb"}, {"removable": True}])
@pytest.mark.parametrize("style", ["gpt", "mbr"])
def test_the_old_disk_is_still_plugged_in(
    style: str,
    properties: dict[str, Any],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    stick: DiskLayout,
) -> None:
    """Nothing of the restored server may lean on it: at the next start it is not there."""
    old = request.getfixturevalue(style)
    disk = windows.restored(windows.copy_disk(old, tmp_path / "new.img"))
    before = image_hash(old)
    machine = Connected([old.path, disk.path, stick.path], how=((old.path, properties),))
    outcome = repair(machine)
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    assert image_hash(old) == before
    judged = outcome.result.verification
    assert judged is not None
    (osdevice,) = [c for c in judged.checks if c.id == "verify.osdevice"]
    assert osdevice.reason.startswith(f"disk1p{disk.windows.number}:")
    own = {stores.identity(disk, p) for p in disk.partitions}
    paths = [None, windows.FALLBACK_STORE] if style == "gpt" else [None]
    for path in paths:
        for (_, kind), (_, data) in store_elements(disk, path).items():
            assert not stores.is_device(kind) or stores.identities(data) <= own
    # without it the server is as well
    assert repair(ImageMachine([disk.path, stick.path])).result.word is ResultWord.HEALTHY


def test_a_windows_on_the_old_disk_alone_is_not_called_found(gpt: DiskLayout, stick: DiskLayout) -> None:
    """The judge by itself: the loader's partition is on a disk that may be pulled out."""
    survey = survey_machine(ImageMachine([gpt.path]))
    assert verify(survey).chain is Verdict.PASS
    (disk,) = survey.disks
    esp, rest = disk.table.partitions[0], disk.table.partitions[1:]
    inside = replace(disk, table=replace(disk.table, partitions=(esp,)))
    outside = replace(disk, id="disk1", transport="usb", table=replace(disk.table, partitions=rest))
    volumes = tuple(v if v.partition == esp.id else replace(v, disk="disk1") for v in survey.volumes)
    checks = {c.id: c for c in verify(replace(survey, disks=(inside, outside), volumes=volumes)).checks}
    assert checks["verify.osdevice"].verdict is Verdict.UNKNOWN
    assert "no disk of the server's own" in checks["verify.osdevice"].reason


def test_originals_on_a_disk_that_had_to_be_named_are_found_again(gpt: DiskLayout, tmp_path: Path) -> None:
    """A server's disk in a USB case on a machine with a Windows of its own, and no stick."""
    own = windows.gpt_server(tmp_path / "own.img", seed="own")
    disk = windows.restored(gpt)
    before = windows.read_store(disk)
    machine = Connected([own.path, disk.path], how=((disk.path, {"transport": "usb"}),))
    outcome = repair(machine, Choices(disk="disk1"))
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    assert (outcome.result.journal or "").startswith("disk1p")
    assert run_undo(machine).result.word is ResultWord.UNDONE
    assert windows.read_store(disk) == before


# --- disks that are one, or copies of each other -----------------------------------------------------------------


def blocked_by(outcome: Outcome) -> set[str]:
    diagnosis = outcome.result.diagnosis_before
    assert diagnosis is not None
    return {f.id for f in diagnosis.findings if f.severity is Severity.BLOCKER}


@pytest.mark.parametrize("style", ["gpt", "mbr"])
def test_of_two_copies_none_is_written_unless_it_is_named(
    style: str, request: pytest.FixtureRequest, tmp_path: Path, machine: Callable[..., ImageMachine]
) -> None:
    """Two paths to one disk of a storage network look the same way."""
    disk = windows.restored(request.getfixturevalue(style))
    clone = windows.copy_disk(disk, tmp_path / "clone.img")
    before = image_hash(disk), image_hash(clone)
    outcome = repair(machine(disk, clone))
    assert outcome.result.word is ResultWord.BLOCKED
    assert blocked_by(outcome) <= {"disk.duplicate-guid", "disk.duplicate-signature"}
    assert (image_hash(disk), image_hash(clone)) == before
    outcome = repair(machine(disk, clone), Choices(disk="disk1"))
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    assert image_hash(disk) == before[0]
    assert image_hash(clone) != before[1]


def test_a_copy_that_is_not_ours_is_no_obstacle(gpt: DiskLayout, tmp_path: Path, stick: DiskLayout) -> None:
    disk = windows.restored(gpt)
    clone = windows.copy_disk(disk, tmp_path / "clone.img")
    before = image_hash(clone)
    machine = Connected([clone.path, disk.path, stick.path], how=((clone.path, {"transport": "usb"}),))
    assert repair(machine).result.word is ResultWord.REPAIRED
    assert image_hash(clone) == before


def intel(disk: DiskLayout) -> None:
    disks.write_bytes(disk.path, disk.size - 1024, b"Intel Raid ISM Cfg Sig. 1.2.02".ljust(512, b"\0"))


def test_members_of_an_array_are_not_written_one_by_one(
    gpt: DiskLayout, mbr: DiskLayout, machine: Callable[..., ImageMachine]
) -> None:
    """Of other identities they may be where the array is no mirror; what is known is that they belong together."""
    disk = windows.restored(gpt)
    intel(disk)
    # a single one: the rest of an array that is no more
    outcome = repair(machine(disk))
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    assert "disk.raid-member" in found(outcome)
    disk = windows.restored(gpt, "again")
    intel(disk)
    intel(mbr)
    before = image_hash(disk)
    outcome = repair(machine(disk, mbr))
    assert outcome.result.word is ResultWord.BLOCKED, outcome.result
    assert blocked_by(outcome) == {"disk.raid-member"}
    assert image_hash(disk) == before


def test_no_originals_on_half_of_a_mirror(tmp_path: Path) -> None:
    """Only the system partition is to be written, and there is no stick: the originals go there as well."""
    disk = windows.gpt_server(tmp_path / "first.img", recovery=False)
    parts = tuple(replace(p, type=LDM_DATA) if p.role == "windows" else p for p in disk.partitions)
    disk = replace(disk, partitions=parts)
    disks.write_gpt(disk)
    disks.delete_file(disk, disk.esp, "EFI/Boot")
    other = disks.regenerate_guids(windows.copy_disk(disk, tmp_path / "second.img"), "second")
    before = [disks.read_bytes(d.path, d.windows.offset, d.windows.size) for d in (disk, other)]
    outcome = repair(ImageMachine([disk.path, other.path]))
    assert outcome.result.changes
    assert (outcome.result.journal or "").startswith("disk0p1 ")
    assert [disks.read_bytes(d.path, d.windows.offset, d.windows.size) for d in (disk, other)] == before


@pytest.mark.parametrize("style", ["gpt", "mbr"])
def test_half_of_a_mirrored_dynamic_volume_is_not_written(
    style: str, tmp_path: Path, machine: Callable[..., ImageMachine]
) -> None:
    """Each disk has identities of its own; the file system in the boot volume's partition is the same."""
    boot = windows.BootFiles()
    if style == "gpt":
        disk = windows.gpt_server(tmp_path / "first.img", boot, recovery=False)
        parts = [replace(p, type=LDM_DATA) if p.role == "windows" else p for p in disk.partitions]
        disks.write_gpt(replace(disk, partitions=tuple(parts)))
        disks.delete_file(disk, disk.esp, "EFI/Boot")
    else:
        tree = windows.windows_tree(boot) | windows.bios_tree(boot)
        del tree["bootmgr"]
        disk = disks.make_mbr_disk(tmp_path / "first.img", windows_files=tree, boot_code=boot.mbr)
        windows.install_pbr(disk, disk.windows, boot.pbr)
        disks.write_bytes(disk.path, 446 + 4, b"\x42")
        disks.write_file(disk, disk.windows, windows.BIOS_STORE, stores.installed(disk).hive())
    other = windows.copy_disk(disk, tmp_path / "second.img")
    if style == "gpt":
        other = disks.regenerate_guids(replace(other, partitions=tuple(parts)), "second")
    else:
        other = disks.change_signature(other, 0x12345678)
    before = image_hash(disk), image_hash(other)
    outcome = repair(machine(disk, other))
    assert "volume.mirrored" in found(outcome)
    if style == "gpt":  # each disk has a system partition of its own, which is no dynamic volume
        assert outcome.result.word is ResultWord.REPAIRED, outcome.result
        return
    assert outcome.result.word is ResultWord.BLOCKED, outcome.result
    assert (image_hash(disk), image_hash(other)) == before
    # the other half is away: Windows takes it as failed, and makes it anew
    assert repair(machine(disk)).result.word is ResultWord.REPAIRED


def test_a_disk_without_signature_is_not_taken_for_another_one(
    mbr: DiskLayout, tmp_path: Path, stick: DiskLayout
) -> None:
    """0 is no identity: undo does not go to the next disk that has none, and does not say that it is done."""
    disk = disks.change_signature(mbr, 0)
    windows.write_stores(disk)
    disks.delete_file(disk, disk.system, "bootmgr")
    outcome = repair(ImageMachine([disk.path, stick.path]))
    assert any(c.where == "\\bootmgr" for c in outcome.result.changes), outcome.result
    other = disks.make_mbr_disk(tmp_path / "other.img", system_files={"a": b"b"}, signature=0)
    before = image_hash(other)
    undone = run_undo(ImageMachine([other.path, stick.path]))
    assert undone.result.word is ResultWord.FAILED, undone.result
    assert image_hash(other) == before
    assert run_undo(ImageMachine([disk.path, stick.path])).result.word is ResultWord.UNDONE
    assert not disks.file_exists(disk, disk.system, "bootmgr")


def test_a_server_made_of_the_same_image_is_not_called_undone(
    gpt: DiskLayout, tmp_path: Path, stick: DiskLayout
) -> None:
    """It has the same identities, and lacks the same file. The journal stays good for the server that it belongs to."""
    disks.delete_file(gpt, gpt.esp, "EFI/Boot")
    twin = windows.copy_disk(gpt, tmp_path / "twin.img")
    before = image_hash(twin)
    assert repair(ImageMachine([gpt.path, stick.path])).result.word is ResultWord.REPAIRED
    undone = run_undo(ImageMachine([twin.path, stick.path]))
    assert undone.result.word is ResultWord.FAILED, undone.result
    assert "nothing is left to undo" in (undone.result.error or "")
    assert image_hash(twin) == before
    assert run_undo(ImageMachine([gpt.path, stick.path])).result.word is ResultWord.UNDONE
    assert not disks.file_exists(gpt, gpt.esp, "EFI/Boot")


# --- partition tables ----------------------------------------------------------------------------------------------


def test_a_table_of_an_earlier_life_is_not_put_over_the_damaged_one(
    gpt: DiskLayout, machine: Callable[..., ImageMachine]
) -> None:
    """Behind the copy of a smaller disk stands the backup of what was on this one before."""
    entries = disks.read_bytes(gpt.path, 1024, 128 * 128)
    earlier = replace(gpt.partitions[0], role="old", offset=64 * MIB, size=32 * MIB)
    disks.write_gpt(replace(gpt, disk_guid=disks.derived_guid("old", "disk"), partitions=(earlier,)))
    disks.write_bytes(gpt.path, 1024, entries)
    disks.damage_gpt(gpt, primary=True)
    before = image_hash(gpt)
    outcome = repair(machine(gpt))
    assert "disk.gpt-primary-damaged" in found(outcome)
    assert outcome.result.word is ResultWord.NOT_REPAIRED, outcome.result
    assert image_hash(gpt) == before


@pytest.mark.parametrize("array", [True, False])
@pytest.mark.parametrize("sector", [512, 4096])
def test_a_damaged_table_is_still_made_from_its_copy(
    array: bool, sector: int, tmp_path: Path, machine: Callable[..., ImageMachine]
) -> None:
    disk = windows.gpt_server(tmp_path / "server.img", sector_size=sector, recovery=False)
    good = disks.read_bytes(disk.path, 0, 6 * 4096)
    disks.damage_gpt(disk, primary=True, array=array)
    assert repair(machine(disk)).result.word is ResultWord.REPAIRED
    assert disks.read_bytes(disk.path, 0, 6 * 4096) == good


def test_a_data_disk_without_a_good_table_does_not_stop_the_repair(
    gpt: DiskLayout, tmp_path: Path, machine: Callable[..., ImageMachine]
) -> None:
    data = disks.make_gpt_disk(tmp_path / "data.img", extra=(PartitionSpec("data", 32 * MIB, "ntfs"),))
    disks.damage_gpt(data, primary=True, backup=True)
    before = image_hash(data)
    outcome = repair(machine(windows.restored(gpt), data))
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    assert image_hash(data) == before


# --- the chosen Windows --------------------------------------------------------------------------------------------


def test_the_chosen_windows_is_judged(gpt: DiskLayout, tmp_path: Path) -> None:
    """The other disk has a healthy one, which starts as well as ever."""
    broken = windows.gpt_server(tmp_path / "broken.img", recovery=False)
    windows.delete_store(broken)
    survey = survey_machine(ImageMachine([gpt.path, broken.path]))
    assert verify(survey).chain is Verdict.PASS
    (chosen,) = [w.id for w in survey.windows if w.volume.startswith("disk1")]
    assert verify(survey, Choices(windows=chosen)).chain is Verdict.FAIL


def test_another_windows_that_starts_is_no_proof_of_the_repair(
    gpt: DiskLayout, tmp_path: Path, stick: DiskLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store that was written is judged as well, whichever the firmware would take."""
    disk = windows.restored(windows.copy_disk(gpt, tmp_path / "disk.img"))
    other = windows.gpt_server(tmp_path / "other.img", release=windows.SERVER_2019, recovery=False)
    judged: list[str | None] = []

    def strict(survey: Survey, choices: Choices | None = None) -> Verification:
        judged.append(choices.system_volume if choices else None)
        found = verify(survey, choices)
        return replace(found, verdict=Verdict.FAIL, chain=Verdict.FAIL) if judged[-1] == "disk1p1" else found

    machine = ImageMachine([other.path, disk.path, stick.path])
    copy = windows.copy_disk(disk, tmp_path / "copy.img")
    assert repair(machine).result.word is ResultWord.REPAIRED
    monkeypatch.setattr("rehost_payload.repair.session.verify", strict)
    outcome = repair(ImageMachine([other.path, copy.path, stick.path]))
    assert judged == [None, "disk1p1"]
    assert outcome.result.word is ResultWord.NOT_REPAIRED


@pytest.mark.parametrize("reverse", [False, True])
def test_the_system_partition_on_another_disk(tmp_path: Path, stick: DiskLayout, *, reverse: bool) -> None:
    boot = windows.BootFiles()
    first = disks.make_gpt_disk(tmp_path / "first.img", esp_files=windows.esp_tree(boot))
    second = disks.make_gpt_disk(tmp_path / "second.img", windows_files=windows.windows_tree(boot))
    disks.write_file(first, first.esp, windows.STORE, store_for(first, first.esp, second))
    paths = [second.path, first.path] if reverse else [first.path, second.path]
    before = [image_hash(first), image_hash(second)]
    assert repair(ImageMachine([*paths, stick.path])).result.word is ResultWord.HEALTHY
    assert [image_hash(first), image_hash(second)] == before
    first, second = windows.restored(first), windows.restored(second)
    before = [image_hash(second)]
    outcome = repair(ImageMachine([*paths, stick.path]))
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    assert [image_hash(second)] == before


def test_windows_in_a_logical_partition(tmp_path: Path, stick: DiskLayout) -> None:
    boot = windows.BootFiles()
    system = PartitionSpec("system", 32 * MIB, "ntfs", "07", windows.bios_tree(boot), active=True)
    tree = windows.windows_tree(boot)
    logical = [
        PartitionSpec("data", 32 * MIB, "ntfs", "07"),
        PartitionSpec("windows", 128 * MIB, "ntfs", "07", tree),
    ]
    disk = disks.make_disk(tmp_path / "disk.img", [system], style="mbr", boot_code=boot.mbr, logical=logical)
    windows.install_pbr(disk, disk.system, boot.pbr)
    windows.write_stores(disk)
    disk = windows.restored(disk)
    store = windows.read_store(disk)
    machine = ImageMachine([disk.path, stick.path])
    outcome = repair(machine)
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    assert {c.where for c in outcome.result.changes} == {"\\Boot\\BCD"}
    assert run_undo(machine).result.word is ResultWord.UNDONE
    assert windows.read_store(disk) == store


# --- the registry --------------------------------------------------------------------------------------------------


def test_a_hive_that_windows_cannot_load_is_not_passed_because_its_keys_can_be_read(
    gpt: DiskLayout, machine: Callable[..., ImageMachine]
) -> None:
    """The last of its bins has lost its head: nothing that is asked for lies behind it, but Windows goes through all."""
    path = "Windows/System32/config/SYSTEM"
    disk = windows.restored(gpt)
    hive = bytearray(disks.read_file(disk, disk.windows, path))
    at = 4096
    while at + int.from_bytes(hive[at + 8 : at + 12], "little") < 4096 + int.from_bytes(
        hive[40:44], "little"
    ):
        at += int.from_bytes(hive[at + 8 : at + 12], "little")
    assert hive[at : at + 4] == b"hbin"
    hive[at : at + 4] = bytes(4)
    disks.write_file(disk, disk.windows, path, bytes(hive))
    outcome = repair(machine(disk))
    assert "windows.hive-damaged" in found(outcome)
    assert outcome.result.word is ResultWord.NOT_REPAIRED
    assert outcome.result.verification is not None
    (check,) = [c for c in outcome.result.verification.checks if c.id == "verify.system-hive"]
    assert check.verdict is Verdict.FAIL
    assert f"at byte {at:#x}" in check.reason
    assert disks.read_file(disk, disk.windows, path) == bytes(hive)
