"""Survey, diagnosis and plan in words; names for people; the lock; the host's answers."""

from __future__ import annotations

import multiprocessing
import os
import pty
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rehost_payload.formats.hive import CreateKey, DeleteKey, DeleteValue, SetValue
from rehost_payload.repair.diagnose import diagnose
from rehost_payload.repair.model import (
    Action,
    Change,
    CopyFile,
    CreateStore,
    DiskRef,
    EditHive,
    EditStore,
    Finding,
    InjectDriver,
    Note,
    PatchBytes,
    RebuildGpt,
    ResultWord,
    RunResult,
    SetFirmwareVariable,
    Severity,
    VolumeRef,
    WriteBootCode,
)
from rehost_payload.repair.plan import plan
from rehost_payload.survey.model import StoreRole, Survey
from rehost_payload.system.host import Host, HostError
from rehost_payload.ui import describe
from rehost_payload.ui.describe import Names
from rehost_payload.ui.lock import Busy, claim, is_claimed, work_lock
from rehost_payload.ui.plain import from_plain, to_plain
from rehost_payload.ui.show import (
    Page,
    action_details,
    action_text,
    change_text,
    grouped,
    part,
    remedy,
    split_error,
    title,
)
from rehost_payload.ui.texts import Texts, ascii_fold

from . import sample

EN = Texts("en")


def page(survey: Survey | None, language: str = "en", width: int = 79) -> Page:
    return Page(Names(survey, Texts(language)), width)


def joined(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (100 << 20, "100 MiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        (931 << 30, "931 GiB"),
        (4 << 40, "4 TiB"),
        (None, "?"),
        (-1, "?"),
    ],
)
def test_sizes(count: int | None, text: str) -> None:
    assert describe.size(count) == text


@given(st.integers(0, 1 << 80))
def test_any_size_is_short(count: int) -> None:
    assert len(describe.size(count)) < 16


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("11000001", "device"),
        ("0x21000001", "osdevice"),
        ("21000001 (filedevice)", "filedevice"),
        ("21000026 (custom:21000026)", "custom:21000026"),
        ("device", "device"),
        ("2100000", "2100000"),
    ],
)
def test_elements(name: str, shown: str) -> None:
    assert describe.element(name) == shown


def test_names() -> None:
    names = Names(sample.survey(), EN)
    assert names.identifier("disk0") == "disk0 (LogicalDrv 0, 931 GiB, /dev/sda)"
    assert names.identifier("/dev/sda") == names.identifier("disk0")
    assert names.identifier("disk0p1") == "disk0p1 (EFI system, fat32, 100 MiB)"
    assert names.identifier("disk0p2") == "disk0p2 (Microsoft reserved, 16 MiB)"
    assert (
        names.identifier("disk0p3:\\Windows")
        == "disk0p3:\\Windows (Windows Server 2016 Standard, build 14393, HV01)"
    )
    assert names.identifier("elsewhere") == "elsewhere"
    assert names.object("{" + sample.LOADER + "}") == "Windows Server 2016"
    assert names.object("{b2721d73-1db4-4c62-bf78-c548a880142d}") == "{memdiag}"
    assert Names(None, EN).identifier("disk0") == "disk0"


def test_the_subject_stands_in_for_what_is_not_given() -> None:
    survey = sample.survey()
    finding = Finding("boot.store-dirty", Severity.FATAL, survey.boot_stores[0].id, {"path": "\\X"})
    assert title(finding, Names(survey, EN)) == (
        "The boot store \\X on disk0p1 (EFI system, fat32, 100 MiB) was not closed properly"
    )


def test_entries_of_the_fallback_store_are_told_apart() -> None:
    survey = sample.survey()
    store = replace(survey.boot_stores[0], id="fallback", role=StoreRole.EFI_RECOVERY)
    survey = replace(survey, boot_stores=(*survey.boot_stores, store))
    params = {"entry": "{bootmgr}", "element": "11000001 (device)"}
    finding = Finding("boot.device-stale", Severity.WARNING, "fallback", params)
    assert title(finding, Names(survey, EN)).startswith("Windows Boot Manager (fallback store) points to")
    main = replace(finding, subject=survey.boot_stores[0].id)
    assert title(main, Names(survey, EN)).startswith("Windows Boot Manager points to")


def test_the_worst_comes_first_and_is_explained_once() -> None:
    survey = sample.survey()
    diagnosis = diagnose(survey)
    assert [g[0].severity for g in grouped(diagnosis.findings)] == [Severity.FATAL, Severity.WARNING]
    text = joined(page(survey).diagnosis(diagnosis))
    assert text.count("Why:") == 1
    assert text.count("Repair:") == 1
    assert text.index("FATAL") < text.index("WARNING")


def test_what_cannot_be_repaired_says_what_to_do() -> None:
    finding = Finding("volume.bitlocker", Severity.BLOCKER, "disk0p3", {"volume": "disk0p3"})
    text = joined(page(sample.survey())._group([finding], True))  # type: ignore[arg-type]
    assert "BLOCKED disk0p3 (Basic data, ntfs, 'System', 930 GiB) is encrypted with BitLocker" in text
    assert "What you can do: Have the 48-digit recovery key ready" in text


@pytest.mark.parametrize("width", [40, 79, 99])
@pytest.mark.parametrize("language", ["en", "de"])
def test_everything_fits_the_width(language: str, width: int) -> None:
    survey = sample.survey()
    p = page(survey, language, width)
    lines = p.survey(survey) + p.diagnosis(diagnose(survey)) + p.plan(plan(survey))
    assert max(map(len, lines)) <= width


def test_what_a_serial_line_makes_longer_fits_as_well() -> None:
    """There ä is written as ae, ß as ss."""
    text = "Größere Änderungen überprüfen, größere Änderungen überprüfen: " * 4
    plain, folded = Page(Names(None, Texts("de")), 40), Page(Names(None, Texts("de")), 40, ascii=True)
    assert max(len(ascii_fold(line)) for line in plain.wrap(text)) > 40
    assert max(len(ascii_fold(line)) for line in folded.wrap(text)) <= 40
    *_, title, rule = folded.heading("Prüfung")
    assert ascii_fold(title) == "Pruefung"
    assert rule == "--------"


VOLUME = VolumeRef("/dev/sda", sample.MIB, 100 * sample.MIB, "fat32")
DISK = DiskRef("/dev/sda", "7A2F01C4", 931 * sample.GIB)
EDITS = (
    SetValue(("S", "arcsas"), "Start", 4, bytes(4)),
    SetValue(("S", "arcsas"), "Owners", 7, "a\0b\0\0".encode("utf-16-le")),
    SetValue(("S", "arcsas"), "Group", 1, "SCSI\0".encode("utf-16-le")),
    DeleteKey(("S", "arcsas", "StartOverride")),
    DeleteValue(("S",), "Old"),
    CreateKey(("S", "New")),
)
DESCRIPTION = SetValue(
    ("Objects", "{x}", "Elements", "12000004"), "Element", 1, "Windows Server 2016\0".encode("utf-16-le")
)


@pytest.mark.parametrize(
    ("action", "text"),
    [
        (
            EditStore(VOLUME, "\\BCD", "0", (), "f", replay=True, remove_logs=("\\BCD.LOG",)),
            "Change the boot store \\BCD on disk0p1",
        ),
        (CreateStore(VOLUME, "\\BCD", None, (DESCRIPTION,), "f"), "Write a new boot store \\BCD on disk0p1"),
        (CreateStore(VOLUME, "\\BCD", "0", (), "f"), "Replace the boot store \\BCD on disk0p1"),
        (CopyFile(VOLUME, "\\a", VOLUME, "\\b", 2048, "f"), "Copy \\a (2 KiB) to \\b on disk0p1"),
        (
            PatchBytes(DISK, 446, "00", "80", "active-flag", "f"),
            "Change 1 B at byte 446 of disk0 (LogicalDrv 0, 931 GiB, /dev/sda): mark the active partition",
        ),
        (
            WriteBootCode(DISK, VOLUME, True, "f"),
            "Let bootsect write boot code: into the first sector of disk0",
        ),
        (WriteBootCode(DISK, VOLUME, False, "f"), "Let bootsect write boot code into disk0p1"),
        (RebuildGpt(DISK, "primary", "f"), "Write the partition table at the beginning of the disk of disk0"),
        (
            EditHive(VOLUME, "\\W\\SYSTEM", "0", EDITS, "f", replay=True),
            "Change the registry of Windows (\\W\\SYSTEM on disk0p1 ",
        ),
        (
            InjectDriver(VOLUME, "\\W", "/p", "a.inf", "0", ("PCI\\X",), "arcsas", 14393, 3, "0", "f"),
            "Install the driver arcsas from /p/a.inf into Windows on disk0p1",
        ),
        (SetFirmwareVariable("BootOrder", None, "04000000", "f"), "Set the firmware variable BootOrder"),
        (SetFirmwareVariable("Boot0004", None, "00", "f"), "Set the firmware variable Boot0004"),
        (SetFirmwareVariable("Boot0004", "00", None, "f"), "Delete the firmware variable Boot0004"),
    ],
)
def test_actions_in_words(action: Action, text: str) -> None:
    names = Names(sample.survey(), EN)
    assert action_text(action, names).startswith(text)
    details = list(action_details(action, names))
    if isinstance(action, EditStore):
        assert details == ["apply its log files first", "remove its log files: \\BCD.LOG"]
    if isinstance(action, EditHive):
        assert details == [
            "apply its log files first",
            "S\\arcsas: Start = 0",
            "S\\arcsas: Owners = a, b",
            "S\\arcsas: Group = SCSI",
            "S\\arcsas\\StartOverride: remove",
            "S: Old: remove",
            "S\\New",
        ]
    if isinstance(action, InjectDriver):
        assert details == ["for the device PCI\\X"]
    if isinstance(action, CreateStore) and action.edits:
        assert details == ["Windows Server 2016"]
    if isinstance(action, SetFirmwareVariable) and action.after and action.name == "BootOrder":
        assert details == ["Boot0004, Boot0000"]
    assert action_text(action, Names(None, Texts("de")))
    assert from_plain(type(action), to_plain(action)) == action


def test_a_boot_entry_is_named() -> None:
    from rehost_payload.repair.rules.firmware import load_option

    data = load_option("Windows Boot Manager", 1, 2048, 4096, bytes(16), (2, 2))
    action = SetFirmwareVariable("Boot0004", None, data.hex(), "f")
    assert list(action_details(action, Names(None, EN))) == ["Windows Boot Manager"]


def test_a_volume_that_the_survey_does_not_know() -> None:
    other = replace(VOLUME, offset=5, label="X")
    assert Names(sample.survey(), EN).volume_ref(other) == "/dev/sda @ 5 (fat32, 'X', 100 MiB)"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (Change("file", "\\BCD", "a" * 64, "b" * 64), f"file \\BCD: {'a' * 16}... -> {'b' * 16}..."),
        (Change("file", "\\BCD.LOG", "a" * 64, "absent"), f"file \\BCD.LOG: {'a' * 16}... -> removed"),
        (Change("folder", "\\EFI", "absent", "present"), "folder \\EFI: was not there -> is there"),
        (Change("other", "x", "00", "80"), "other x: 00 -> 80"),
    ],
)
def test_changes_in_words(change: Change, text: str) -> None:
    assert change_text(change, EN) == text


@pytest.mark.parametrize(
    ("error", "code", "detail"),
    [
        ("no-space: 3 bytes are free", "no-space", "3 bytes are free"),
        ("journal", "journal", ""),
        ("something: else", "other", "something: else"),
        (
            "the report could not be written to disk0p3: io",
            "report",
            "the report could not be written to disk0p3: io",
        ),
    ],
)
def test_errors(error: str, code: str, detail: str) -> None:
    assert split_error(error) == (code, detail)


def test_outcome_names_error_rollback_and_next_step() -> None:
    kept = "disk1p1 \\Rehost\\20250101T000000Z\\journal"
    result = RunResult(
        ResultWord.FAILED, "a", "b", "repair", journal=kept, error="dirty: disk0p3", rolled_back=False
    )
    text = joined(page(None).outcome(result))
    assert "Run chkdsk on it" in text
    assert "NOT everything could be taken back" in text
    assert "Next: Read the error above. Keep the report and the Rehost folder" in text


def test_nothing_that_was_saved_is_to_be_kept_where_nothing_was() -> None:
    result = RunResult(ResultWord.FAILED, "a", "b", "repair", error="disks: none could be read: /dev/vda")
    assert joined(page(None).outcome(result)).endswith(
        "Next: Remedy the cause that is named above, then run it again."
    )


def test_a_note_is_said_with_the_outcome() -> None:
    note = Note("dism-older", {"running": "14393", "target": "20348"})
    result = RunResult(ResultWord.REPAIRED, "a", "b", "repair", notes=(note,))
    assert "this Windows PE (build 14393) is older" in joined(page(None).outcome(result))


@pytest.mark.parametrize(("language", "says"), [("en", "volume of Windows"), ("de", "Volume von Windows")])
def test_a_full_volume_may_be_that_of_windows(language: str, says: str) -> None:
    """Drivers are installed there: nobody is to look for room on the system partition alone."""
    params = {"volume": "disk0p3", "free": "1048576", "needed": "33554432"}
    found = Finding("esp.full", Severity.BLOCKER, "disk0p3", params, ("seen",))
    names = Names(sample.survey(), Texts(language))
    title_, explained = title(found, names), part(found, "explain", names) or ""
    assert "disk0p3" in title_
    assert says in remedy(found, names)[1]
    for word in ("boot file", "Startdatei", "system partition", "Systempartition"):
        assert word not in title_ + explained


# --- one at a time -----------------------------------------------------------------------------------------


def _hold(folder: Path, ready, done) -> None:  # type: ignore[no-untyped-def]
    with work_lock("repair", folder=folder):
        ready.set()
        done.wait(300)


def test_one_at_a_time(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, ready, done))
    holder.start()
    assert ready.wait(300)
    with pytest.raises(Busy, match="repair"), work_lock("undo", folder=tmp_path):
        pass
    with work_lock("other things", name="other", folder=tmp_path):
        pass
    done.set()
    holder.join(300)
    with work_lock("undo", folder=tmp_path):
        pass


def test_the_lock_goes_with_its_holder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, ready, done))
    holder.start()
    assert ready.wait(300)
    holder.kill()
    holder.join(300)
    with work_lock("undo", folder=tmp_path):
        pass


def test_only_once(tmp_path: Path) -> None:
    assert not is_claimed("unattended", tmp_path)
    assert claim("unattended", tmp_path)
    assert not claim("unattended", tmp_path)
    assert is_claimed("unattended", tmp_path)


# --- the host ----------------------------------------------------------------------------------------------


def test_host(tmp_path: Path) -> None:
    host = Host(tmp_path)
    assert not host.is_medium
    assert host.machine() == ""
    assert host.firmware() == "unknown"
    assert host.consoles() == [tmp_path / "dev/console"]
    for name, text in {
        "etc/os-release": 'NAME="Rehost"\nID=rehost\n',
        "sys/class/dmi/id/sys_vendor": "To be filled by O.E.M.\n",
        "sys/class/dmi/id/product_name": "Rack 7000\n",
        "sys/class/tty/console/active": "tty0 ttyS0 ../evil\n",
        "sys/firmware/efi/runtime": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert host.is_medium
    assert host.machine() == "Rack 7000"
    assert host.firmware() == "uefi"
    assert host.consoles() == [tmp_path / "dev/tty1", tmp_path / "dev/ttyS0"]


def test_announcement_reaches_every_console_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "sys/class/tty/console").mkdir(parents=True)
    (tmp_path / "sys/class/tty/console/active").write_text("ttyS0 ttyS1 tty0\n")
    (tmp_path / "dev").mkdir()
    master, slave = pty.openpty()
    (tmp_path / "dev/ttyS0").symlink_to(os.ttyname(slave))
    (tmp_path / "dev/tty1").touch()
    Host(tmp_path).announce("REHOST-RESULT 0 repaired")
    assert b"\nREHOST-RESULT 0 repaired\r" in os.read(master, 100)
    assert (tmp_path / "dev/tty1").read_bytes() == b"\r\nREHOST-RESULT 0 repaired\r\n"


def test_a_shell_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="no shell"):
        Host(tmp_path).shell()
