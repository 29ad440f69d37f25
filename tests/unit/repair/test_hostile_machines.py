"""Machines on which a wrong conclusion would be a wrong write: twins, disks that belong together, somebody else's disks,
and undo after somebody else has written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from rehost_payload.repair.assess import assess
from rehost_payload.repair.model import Choices, PatchBytes, ResultWord, Verdict
from rehost_payload.repair.session import run_undo
from rehost_payload.repair.verify import verify
from rehost_payload.survey.model import Firmware, FirmwareMode
from rehost_payload.survey.run import survey_machine
from rehost_payload.system.protocol import DiskHandle
from support import disks, stores, windows
from support.disks import DiskLayout, PartitionSpec
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
    store = stores.installed(first, windows=first.system).hive()
    there = (3, stores.device(second, second.windows))

    def over_there(handle: Any) -> None:
        for entry, kinds in ((stores.LOADER, ()), (stores.RESUME, (0x21000026,))):
            for kind in (0x11000001, 0x21000001, *kinds):
                stores.set_element(handle, entry, kind, there)

    disks.write_file(first, first.system, windows.BIOS_STORE, stores.changed(store, over_there))
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
