"""Boot code written by somebody else's program: saved before, judged after, put back whatever happened."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rehost_payload.repair.apply import apply_plan
from rehost_payload.repair.assess import assess
from rehost_payload.repair.errors import ApplyError
from rehost_payload.repair.journal import Journal, SectorsStep, parse_journal
from rehost_payload.repair.model import (
    DiskRef,
    PatchBytes,
    Plan,
    ResultWord,
    Severity,
    Verdict,
    WriteBootCode,
)
from rehost_payload.repair.session import run_undo
from rehost_payload.repair.undo import undo
from rehost_payload.repair.verify import verify
from rehost_payload.repair.view import View
from rehost_payload.repair.writing import overlaid
from rehost_payload.survey.json import from_json, to_json
from rehost_payload.survey.model import BootCode, FileSystem, Survey
from rehost_payload.survey.run import survey_machine
from rehost_payload.system.protocol import DiskHandle
from support import bootsect, disks, windows
from support.disks import DiskLayout
from support.image_system import ImageMachine

from .helpers import found, image_hash, repair

BOOT = 1 << 14


@pytest.fixture(scope="session")
def healthy(mbr_master: DiskLayout) -> Survey:
    return replace(survey_machine(ImageMachine([mbr_master.path])), boot_code_writer=True)


def with_code(survey: Survey, master: BootCode, volume: BootCode | None) -> Survey:
    """The survey of the same server with other boot code."""
    (disk,) = survey.disks
    changed = [replace(v, boot_code=volume) if v.partition == "disk0p1" else v for v in survey.volumes]
    table = replace(disk.table, boot_code=master)
    return replace(survey, disks=(replace(disk, table=table),), volumes=tuple(changed))


# --- diagnosis, plan and judgement are functions of the survey -------------------------------------------------


def test_a_healthy_server_has_nothing_to_write(healthy: Survey) -> None:
    assert assess(healthy).issues == ()
    assert {v.boot_code for v in healthy.volumes if v.partition == "disk0p1"} == {BootCode.BOOTMGR}


@pytest.mark.parametrize(
    ("master", "volume", "findings"),
    [
        (BootCode.NONE, BootCode.BOOTMGR, {"bios.boot-code-missing"}),
        (BootCode.GRUB, BootCode.BOOTMGR, {"bios.boot-code-foreign"}),
        (BootCode.OTHER, BootCode.NONE, {"bios.volume-code-missing"}),
        (BootCode.OTHER, BootCode.NOT_BOOTABLE, {"bios.volume-code-missing"}),
        (BootCode.OTHER, BootCode.NTLDR, {"bios.volume-code-foreign"}),
        (BootCode.NONE, BootCode.NTLDR, {"bios.boot-code-missing", "bios.volume-code-foreign"}),
    ],
)
def test_what_is_missing_is_found_and_written_in_one_go(
    master: BootCode, volume: BootCode, findings: set[str], healthy: Survey
) -> None:
    broken = with_code(healthy, master, volume)
    assessment = assess(broken)
    assert {i.finding.id for i in assessment.issues} == findings
    assert all(i.finding.severity is Severity.FATAL and i.finding.repairable for i in assessment.issues)
    (action,) = assessment.plan.actions
    assert isinstance(action, WriteBootCode)
    assert action.master == (master is not BootCode.OTHER)
    assert action.volume.offset == broken.volumes[0].offset
    assert verify(broken).verdict is not Verdict.PASS
    # the same server looked at by a system that has no bootsect
    cannot = assess(replace(broken, boot_code_writer=False))
    assert {i.finding.id for i in cannot.issues} == findings
    assert not any(i.finding.repairable for i in cannot.issues)
    assert cannot.plan.actions == ()
    assert from_json(to_json(broken)) == broken


@pytest.mark.parametrize("volume", [BootCode.OTHER, None])
def test_code_that_nobody_knows_is_left_alone_and_not_passed(
    volume: BootCode | None, healthy: Survey
) -> None:
    survey = with_code(healthy, BootCode.OTHER, volume)
    assert assess(survey).plan.actions == ()
    verification = verify(survey)
    (check,) = [c for c in verification.checks if c.id == "verify.volume-code"]
    assert check.verdict is verification.verdict is Verdict.UNKNOWN


def test_grub_with_its_linux_is_left_alone(healthy: Survey) -> None:
    survey = with_code(healthy, BootCode.GRUB, BootCode.BOOTMGR)
    linux = replace(healthy.volumes[-1], id="disk0p9", file_system=FileSystem.EXT, partition=None)
    survey = replace(survey, volumes=(*survey.volumes, linux))
    assert assess(survey).issues == ()
    (check,) = [c for c in verify(survey).checks if c.id == "verify.boot-code"]
    assert check.verdict is Verdict.UNKNOWN


def test_the_flag_comes_before_the_code(healthy: Survey) -> None:
    survey = with_code(healthy, BootCode.NONE, BootCode.BOOTMGR)
    (disk,) = survey.disks
    parts = tuple(replace(p, active=False) for p in disk.table.partitions)
    survey = replace(survey, disks=(replace(disk, table=replace(disk.table, partitions=parts)),))
    kinds = [type(a) for a in assess(survey).plan.actions]
    assert kinds == [PatchBytes, WriteBootCode]


def test_a_dirty_or_read_only_place_blocks(healthy: Survey) -> None:
    broken = with_code(healthy, BootCode.NONE, BootCode.BOOTMGR)
    assert assess(replace(broken, disks=(replace(broken.disks[0], read_only=True),))).blocked
    volumes = tuple(replace(v, dirty=True) if v.partition == "disk0p1" else v for v in broken.volumes)
    assert assess(replace(broken, volumes=volumes)).blocked


# --- the whole way on images ---------------------------------------------------------------------------------


def codeless(disk: DiskLayout) -> DiskLayout:
    """Restored to a new disk: no code in its first sector, none in the volume, no active partition, a stale store."""
    disks.write_bytes(disk.path, 0, bytes(440))
    (total,) = struct.unpack("<Q", disks.read_bytes(disk.path, disk.system.offset + 0x28, 8))
    for sector in (0, total):  # and its copy
        disks.write_bytes(disk.path, disk.system.offset + sector * 512 + 0x54, bytes(510 - 0x54))
    disk = windows.restored(disk)
    disks.set_active(disk, None)
    return disk


def places(disk: DiskLayout) -> bytes:
    """The disk's first sectors and the system volume's, and the volume's last."""
    part = disk.system
    return (
        disks.read_bytes(disk.path, 0, BOOT)
        + disks.read_bytes(disk.path, part.offset, BOOT)
        + disks.read_bytes(disk.path, part.offset + part.size - 4096, 4096)
    )


@pytest.fixture
def broken(mbr: DiskLayout) -> DiskLayout:
    return codeless(mbr)


Bootsect = Callable[[Path, int, int, bool], None]


def machine_of(broken: DiskLayout, stick: DiskLayout, program: Bootsect = bootsect.write) -> ImageMachine:
    return ImageMachine([broken.path, stick.path], bootsect=program)


def journal(stick: DiskLayout, outcome: Any) -> list[dict[str, Any]]:
    path = outcome.result.journal.split(" ", 1)[1].strip("\\") + "\\journal.jsonl"
    return [json.loads(line) for line in disks.read_file(stick, stick["stick"], path).splitlines()]


def test_written_judged_and_undone(broken: DiskLayout, stick: DiskLayout) -> None:
    before = places(broken)
    machine = machine_of(broken, stick)
    outcome = repair(machine)
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    assert {"bios.boot-code-missing", "bios.volume-code-missing", "bios.no-active-partition"} <= found(
        outcome
    )
    sector = disks.read_bytes(broken.path, 0, 512)
    assert sector[:440] == bootsect.MASTER
    assert sector[446] == 0x80  # the flag of the same sector was not lost
    assert outcome.result.verification is not None
    verdicts = {c.id: c.verdict for c in outcome.result.verification.checks}
    assert verdicts["verify.boot-code"] is verdicts["verify.volume-code"] is Verdict.PASS
    changed = [c.where for c in outcome.result.changes if c.where.startswith("boot-code")]
    assert len(changed) == 3  # the disk's sector, the volume's first 16, its backup
    lines = journal(stick, outcome)
    seqs = [r["seq"] for r in lines if r["op"] == "begin" and r["step"].get("what") == "boot-code"]
    assert [len(r["after"]) for r in lines if r["op"] == "done" and r["seq"] in seqs] == [1024, 16384, 1024]
    undone = run_undo(machine)
    assert undone.result.word is ResultWord.UNDONE, undone.result
    assert places(broken) == before


def nothing(image: Path, offset: int, size: int, master: bool) -> None:
    """It says that all went well."""


def without_the_volume(image: Path, offset: int, size: int, master: bool) -> None:
    with image.open("r+b") as file:
        file.write(bootsect.MASTER)


def with_the_table(image: Path, offset: int, size: int, master: bool) -> None:
    bootsect.write(image, offset, size, master)
    with image.open("r+b") as file:
        file.seek(446)
        file.write(bytes(64))


def with_the_signature(image: Path, offset: int, size: int, master: bool) -> None:
    bootsect.write(image, offset, size, master)
    with image.open("r+b") as file:
        file.seek(440)
        file.write(b"\1\2\3\4")


def with_the_parameters(image: Path, offset: int, size: int, master: bool) -> None:
    bootsect.write(image, offset, size, master)
    with image.open("r+b") as file:
        file.seek(offset + 0x28)
        file.write(bytes(8))


def half(image: Path, offset: int, size: int, master: bool) -> None:
    bootsect.write(image, offset, size, master)
    raise OSError(5, "Input/output error")


def interrupted(image: Path, offset: int, size: int, master: bool) -> None:
    bootsect.write(image, offset, size, master)
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "program",
    [
        nothing,
        without_the_volume,
        with_the_table,
        with_the_signature,
        with_the_parameters,
        half,
        interrupted,
    ],
)
def test_a_program_that_fails_or_lies(program: Bootsect, broken: DiskLayout, stick: DiskLayout) -> None:
    before, store = places(broken), windows.read_store(broken)
    machine = machine_of(broken, stick, program)
    try:
        outcome = repair(machine)
    except KeyboardInterrupt:
        assert program is interrupted
    else:
        assert outcome.result.word is ResultWord.FAILED
        assert outcome.result.rolled_back
        wanted = "write" if program is half else "boot-code"
        assert (outcome.result.error or "").startswith(wanted)
    assert places(broken) == before
    assert windows.read_store(broken) == store


class PowerCut(BaseException):
    pass


@pytest.mark.parametrize("program", [bootsect.write, without_the_volume, with_the_table, nothing])
def test_a_power_cut_while_it_runs(program: Bootsect, broken: DiskLayout, stick: DiskLayout) -> None:
    before = places(broken)
    cut_while_it_runs(machine_of(broken, stick), program)
    # undone after the next start, by a system that has no such program
    undone = run_undo(ImageMachine([broken.path, stick.path]))
    assert undone.result.word is ResultWord.UNDONE, undone.result
    assert places(broken) == before


def cut_while_it_runs(machine: ImageMachine, program: Bootsect = bootsect.write) -> None:
    """The program has written, and the journal does not know what."""

    def cut(*_: str) -> None:
        raise PowerCut

    def run(image: Path, offset: int, size: int, master: bool) -> None:
        program(image, offset, size, master)
        machine.fail = cut
        raise PowerCut

    machine.bootsect = run
    with pytest.raises(PowerCut):
        repair(machine)


def larger_partition(disk: DiskLayout) -> None:
    disks.write_bytes(disk.path, 446 + 16 + 12, struct.pack("<I", 12345))


def new_partition(disk: DiskLayout) -> None:
    disks.write_bytes(disk.path, 446 + 48, struct.pack("<B3xB3xII", 0, 7, 600000, 2048))


def formatted_volume(disk: DiskLayout) -> None:
    disks.write_bytes(disk.path, disk.system.offset + 0x48, b"serial!!")


@pytest.mark.parametrize("change", [larger_partition, new_partition, formatted_volume])
def test_undo_of_a_cut_minds_what_was_made_of_the_disk_since(
    change: Callable[[DiskLayout], None], broken: DiskLayout, stick: DiskLayout
) -> None:
    """The server went on after the power cut; its disk was partitioned anew. The old table is not put over it unasked."""
    before = places(broken)
    cut_while_it_runs(machine_of(broken, stick))
    change(broken)
    since = places(broken)
    machine = ImageMachine([broken.path, stick.path])
    outcome = run_undo(machine)
    assert outcome.result.word is ResultWord.FAILED
    assert "is there now" in (outcome.result.error or "")
    assert places(broken) == since
    assert run_undo(machine, force=True).result.word is ResultWord.UNDONE
    assert places(broken) == before


def test_undo_of_a_cut_on_another_server(broken: DiskLayout, stick: DiskLayout, tmp_path: Path) -> None:
    """The stick goes to a virtual machine whose disk has no serial number either, and the same size."""
    machine = Nameless([broken.path, stick.path])
    cut_while_it_runs(machine)
    other = windows.restored(windows.copy_disk(broken, tmp_path / "other.img"), "other")
    before = image_hash(other)
    outcome = run_undo(Nameless([other.path, stick.path]))
    assert outcome.result.word is ResultWord.FAILED
    assert image_hash(other) == before


class Nameless(ImageMachine):
    """Disks without serial numbers."""

    def disks(self) -> Sequence[DiskHandle]:
        opened = super().disks()
        for disk in opened:
            disk.info = replace(disk.info, serial="")  # type: ignore[misc]
        return opened


def test_a_power_cut_at_the_lines_behind_it(broken: DiskLayout, stick: DiskLayout, tmp_path: Path) -> None:
    """Some areas' new contents are known to the journal then, others' are not."""
    before = places(broken)
    for count in range(4):
        disk, medium = (
            windows.copy_disk(broken, tmp_path / "d.img"),
            windows.copy_disk(stick, tmp_path / "s.img"),
        )
        machine = machine_of(disk, medium)
        left: int | None = None

        def fail(what: str, where: str) -> None:
            nonlocal left
            if left == 0:
                raise PowerCut
            if left is not None and what == "append":
                left -= 1

        def run(image: Path, offset: int, size: int, master: bool, count: int = count) -> None:
            nonlocal left
            bootsect.write(image, offset, size, master)
            left = count

        machine.fail, machine.bootsect = fail, run
        with pytest.raises(PowerCut):
            repair(machine)
        assert places(disk) != before
        assert run_undo(ImageMachine([disk.path, medium.path])).result.word is ResultWord.UNDONE
        assert places(disk) == before


def test_undo_refuses_where_somebody_wrote_other_code(broken: DiskLayout, stick: DiskLayout) -> None:
    before = places(broken)
    machine = machine_of(broken, stick)
    assert repair(machine).result.word is ResultWord.REPAIRED
    disks.write_bytes(broken.path, 0, b"somebody else's")
    outcome = run_undo(machine)
    assert outcome.result.word is ResultWord.FAILED
    assert "conflict: changed since by somebody else: boot-code" in (outcome.result.error or "")
    assert run_undo(machine, force=True).result.word is ResultWord.UNDONE
    assert places(broken) == before


def test_three_active_partitions_in_one_sector(mbr: DiskLayout, stick: DiskLayout) -> None:
    """Two actions change one sector: the second must not take back the first, and undo must know both."""
    flags = disks.read_bytes(mbr.path, 446, 64)
    for entry in range(3):
        disks.write_bytes(mbr.path, 446 + 16 * entry, b"\x80")
    machine = machine_of(mbr, stick)
    outcome = repair(machine)
    assert "bios.several-active" in found(outcome)
    assert [type(a) for a in outcome.result.plan.actions] == [PatchBytes, PatchBytes]  # type: ignore[union-attr]
    assert disks.read_bytes(mbr.path, 446, 64)[::16] == flags[::16]
    assert run_undo(machine).result.word is ResultWord.UNDONE
    assert disks.read_bytes(mbr.path, 446, 64)[::16] == b"\x80\x80\x80\0"


def test_a_volume_with_fat32(tmp_path: Path, stick: DiskLayout) -> None:
    """Its second sector counts free clusters: it belongs to the file system and is neither saved nor put back."""
    spec = disks.PartitionSpec("system", 40 << 20, "fat32", type="0c", files={"bootmgr": b"x"}, active=True)
    disk = disks.make_disk(tmp_path / "fat.img", [spec], style="mbr", boot_code=b"")
    part = disk["system"]
    machine = ImageMachine([disk.path, stick.path], bootsect=bootsect.write)
    survey = survey_machine(machine)
    volume = next(v for v in survey.volumes if v.partition == "disk0p1")
    assert volume.boot_code is BootCode.NOT_BOOTABLE
    view = View(survey)
    action = WriteBootCode(view.disk_ref(survey.disks[0]), view.ref(volume), True, "f")
    before = disks.read_bytes(disk.path, 0, 512), disks.read_bytes(disk.path, part.offset, 32 * 512)
    with machine.writable(str(stick.path), stick["stick"].offset, stick["stick"].size) as place:
        log = Journal.create(place, "\\Rehost\\test", {})
        changes = apply_plan(Plan((action,), ("f",)), machine, log).changes
        assert len(changes) == 4  # the disk's sector; the boot sector, its copy, the second stage
        assert survey_machine(machine).volumes[0].boot_code is BootCode.BOOTMGR
        information = part.offset + 512 + 488
        disks.write_bytes(disk.path, information, b"\1\2\3\4")  # a file was written since
        undo(log, machine)
    assert disks.read_bytes(disk.path, 0, 512) == before[0]
    now = disks.read_bytes(disk.path, part.offset, 32 * 512)
    assert now[:1000] + now[1004:] == before[1][:1000] + before[1][1004:]
    assert now[1000:1004] == b"\1\2\3\4"


# --- the journal ---------------------------------------------------------------------------------------------


def lines(*records: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(r).encode() + b"\n" for r in ({"op": "open", "version": 1}, *records))


STEP = {
    "kind": "sectors",
    "disk": {"path": "/dev/sda", "serial": "1", "size": 9},
    "offset": 0,
    "before": "00ff",
    "after": "",
    "what": "boot-code",
}


def test_the_journal_is_told_what_was_written() -> None:
    begin: dict[str, Any] = {"op": "begin", "seq": 1, "step": STEP}
    (entry,) = parse_journal(lines(begin)).entries
    assert entry.step == SectorsStep(DiskRef("/dev/sda", "1", 9), 0, "00ff", "", "boot-code")
    assert not entry.done
    (entry,) = parse_journal(lines(begin, {"op": "done", "seq": 1, "after": "1234"})).entries
    assert entry.step == SectorsStep(DiskRef("/dev/sda", "1", 9), 0, "00ff", "1234", "boot-code")
    assert entry.done


@pytest.mark.parametrize(
    ("seq", "after"), [(1, "12"), (1, "12345"), (1, "zz00"), (1, 7), (1, None), (2, "1234"), (1, "")]
)
def test_a_line_that_cannot_be(seq: int, after: Any) -> None:
    begin: dict[str, Any] = {"op": "begin", "seq": 1, "step": STEP}
    with pytest.raises(ApplyError, match="line 3"):
        parse_journal(lines(begin, {"op": "done", "seq": seq, "after": after}))
    twice: dict[str, Any] = {"op": "done", "seq": 1, "after": "1234"}
    with pytest.raises(ApplyError, match="line 4"):
        parse_journal(lines(begin, twice, twice))


def whole() -> bytes:
    """A journal with every kind of step and line."""
    volume = {
        "disk": "/dev/sda",
        "offset": 1,
        "size": 2,
        "file_system": "ntfs",
        "label": "",
        "disk_serial": "",
    }
    volume |= {"partition_guid": None, "signature": 7, "disk_size": 0}
    file = {"kind": "file", "volume": volume, "path": "\\BCD", "before_sha256": "0", "after_sha256": "1"}
    steps: list[dict[str, Any]] = [
        {**file, "original": "0001.bin"},
        {"kind": "folder", "volume": volume, "path": "\\Boot"},
        STEP,
        {"kind": "variable", "name": "BootOrder", "before": None, "after": "0000"},
        {"kind": "tree", "volume": volume, "what": "dism", "record": "0005.json", "record_sha256": "0"},
    ]
    begun = [{"op": "begin", "seq": n, "step": step} for n, step in enumerate(steps, 1)]
    done: list[dict[str, Any]] = [{"op": "done", "seq": n} for n in (1, 2, 4)]
    ends: list[dict[str, Any]] = [{"op": "complete"}, {"op": "undone", "seq": 4}, {"op": "all-undone"}]
    made = {"new": ["\\Windows\\INF\\oem1.inf"], "changed": {"\\Windows\\INF\\a.log": "1", "\\x": None}}
    done += [{"op": "done", "seq": 3, "after": "1234"}, {"op": "done", "seq": 5, "after": made}]
    return lines(*begun, *done, *ends)


def test_a_journal_torn_anywhere() -> None:
    data = whole()
    first = data.index(b"\n") + 1
    for end in range(first, len(data)):
        content = parse_journal(data[:end])
        assert content.all_undone == (end >= len(data) - 1)
        for entry in content.entries:  # what a step does not know yet was not torn out of a line
            if isinstance(entry.step, SectorsStep):
                assert entry.step.after in ("", "1234")
                assert entry.done == bool(entry.step.after)


@given(st.data())
def test_any_damage_to_a_journal(data: st.DataObject) -> None:
    text = bytearray(whole())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(text) - 1))
        text[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    with suppress(ApplyError):
        for entry in parse_journal(bytes(text)).entries:
            if isinstance(entry.step, SectorsStep):
                assert len(bytes.fromhex(entry.step.after)) in (0, len(bytes.fromhex(entry.step.before)))


@pytest.mark.parametrize(
    "junk", [b'{"op": "done", "seq": Infinity}', b"[" * 100_000, b'{"op": "done", "seq": []}']
)
def test_numbers_and_depths_that_no_journal_has(junk: bytes) -> None:
    with pytest.raises(ApplyError, match="line 2"):
        parse_journal(lines() + junk + b"\n")


@pytest.mark.parametrize(
    ("place", "piece", "wanted"),
    [
        (0, b"xx", b"abcdef"),
        (9, b"xxx", b"xxcdef"),
        (10, b"XY", b"XYcdef"),
        (12, b"XY", b"abXYef"),
        (15, b"XYZ", b"abcdeX"),
        (8, b"0123456789", b"234567"),
        (16, b"XY", b"abcdef"),
    ],
)
def test_pieces_over_a_part_of_a_disk(place: int, piece: bytes, wanted: bytes) -> None:
    assert overlaid(b"abcdef", 10, [(place, piece)]) == wanted
