"""Packages installed by a made-up DISM in a made-up Windows PE: judged like ours, undone like ours, replaced by ours."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from rehost_payload.formats.source import SliceSource
from rehost_payload.repair.errors import ApplyError
from rehost_payload.repair.journal import Journal, TreeStep, parse_journal
from rehost_payload.repair.model import Engine, ResultWord, Verdict, VolumeRef
from rehost_payload.repair.session import Consent, Outcome, run_repair, run_undo
from rehost_payload.repair.tree import read_record
from rehost_payload.survey.filesystems import open_filesystem
from rehost_payload.system.protocol import SystemError_, WritableVolume
from rehost_payload.system.win32 import Win32
from rehost_payload.system.winpe import WinPeSystem
from support import disks, fat_image, hives, infs, packages, windows
from support.catalogs import make_catalog
from support.disks import DiskLayout
from support.driver_image import make_driver
from support.hives import dword, sz
from support.image_system import ImageDisk, ImageVolume, tree_of
from support.made_up_dism import CATALOGS, CONFIG, SETUP_LOG, STORE, SYSTEM, MadeUpDism
from support.win32_machine import Device, FakeDisk, Machine, Part, pci

from .test_power_cut import Fuse, PowerCut

pytestmark = pytest.mark.usefixtures("our_authority")

CARD = r"PCI\VEN_9005&DEV_028F&SUBSYS_08009005&REV_01\4&1&0&0008"
DATA_CARD = r"PCI\VEN_9005&DEV_0290&SUBSYS_08019005&REV_01\4&2&0&0008"
BRIDGE = r"PCI\VEN_1022&DEV_1453&SUBSYS_14531022&REV_00\3&1&0&08"
DISK, DATA_DISK = r"SCSI\Disk&Ven_Adaptec\5&1", r"SCSI\Disk&Ven_Adaptec\5&2"
CURRENT_BUILD = (r"SOFTWARE\Microsoft\Windows NT\CurrentVersion", "CurrentBuildNumber")
SERVICE = r"ControlSet00{}\Services\exraid"


def build(number: int) -> bytes:
    return f"{number}\0".encode("utf-16-le")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> DiskLayout:
    """A server with two control sets, files that DISM writes to, and logs beside its hives."""
    path = tmp_path_factory.mktemp("dism") / "server.img"
    disk = windows.gpt_server(path, recovery=False, windows_size=160 * windows.MIB)
    place = SYSTEM.strip("\\").replace("\\", "/")
    old = disks.read_file(disk, disk.windows, place)
    second = {r"ControlSet002\Control\CrashControl": {"AutoReboot": dword(0)}}
    second[r"ControlSet001\Control\CrashControl"] = {"AutoReboot": dword(0)}
    # left by an earlier driver of the same name
    second[r"ControlSet002\Services\exraid"] = {"Start": dword(3), "Type": dword(1)}
    second[r"ControlSet002\Services\exraid\StartOverride"] = {"0": dword(3)}
    config = CONFIG.strip("\\").replace("\\", "/")
    files = {
        place: hives.make_hive({"Select": {"LastKnownGood": dword(2)}, **second}, old),
        f"{config}/DRIVERS": hives.make_hive({"DriverDatabase": {"": sz("x")}}, name="DRIVERS"),
        f"{config}/SYSTEM.LOG1": b"",
        f"{config}/SAM": b"sam",
        SETUP_LOG.strip("\\").replace("\\", "/"): "[Setup]\r\n".encode("utf-16-le"),
        "Windows/INF/oem4.inf": b"; another's",
        "Windows/INF/machine.inf": b"; of Windows",
        f"Windows/{STORE}/other.inf_amd64_1/other.inf".replace("\\", "/"): b"; other",
        f"Windows/{CATALOGS}/oem4.cat".replace("\\", "/"): b"another's",
        "Users/Default/NTUSER.DAT": b"ntuser",
        "Windows/System32/SMI/Store/Machine/SCHEMA.DAT": b"schema",
    }
    disks.write_files(disk, disk.windows, files)
    return disk


@dataclass
class Lab:
    disk: DiskLayout
    stick: DiskLayout
    machine: Machine
    dism: MadeUpDism
    system: WinPeSystem
    packages: Path
    fail: list[Callable[[str, str], None]]

    def repair(self, engine: Engine = Engine.DISM) -> Outcome:
        return run_repair(self.system, lambda *_: Consent(True), engine=engine, files=lambda _: {"r": b"{}"})

    def undo(self) -> ResultWord:
        return run_undo(self.system).result.word

    def file(self, path: str) -> bytes:
        return disks.read_file(self.disk, self.disk.windows, path.strip("\\").replace("\\", "/"))

    def values(self) -> dict[tuple[str, str], hives.Value]:
        return hives.values(self.file(SYSTEM))

    def tree(self) -> dict[str, str]:
        """Every file and folder of the Windows volume, by what it holds."""
        part = self.disk.windows
        return tree_of(open_filesystem(SliceSource(ImageDisk(self.disk.path, True), part.offset, part.size)))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Its folder's name has what command lines trip over."""
    return packages.signed(tmp_path / "packages" / "Adaptec für Server")


MakeLab = Callable[..., Lab]


@pytest.fixture
def make_lab(server: DiskLayout, stick_master: DiskLayout, tmp_path: Path, package: Path) -> MakeLab:
    root = tmp_path / "pe" / "Windows"
    (root / "System32").mkdir(parents=True)
    for name in ("wpeutil.exe", "dism.exe"):
        (root / "System32" / name).touch()

    def make(how: str = "works", pe: int = 20348, data_disk: DiskLayout | None = None, **more: object) -> Lab:
        disk = windows.copy_disk(server, tmp_path / "server.img")
        stick = windows.copy_disk(stick_master, tmp_path / "stick.img")
        layouts = [disk, stick, *([data_disk] if data_disk else [])]
        fakes = {
            n: FakeDisk(
                d.path,
                tuple(Part(p.number, p.offset, p.size) for p in d.partitions),
                serial=f"SN{n}".encode(),
                instance=DATA_DISK if d is data_disk else DISK,
            )
            for n, d in enumerate(layouts)
        }
        fakes[1].bus, fakes[1].removable = 7, True
        devices = {
            BRIDGE: pci(r"ACPI\PNP0A08\0", BRIDGE, "060400", 0, 0x10001, "pci"),
            CARD: pci(BRIDGE, CARD, "010400", 3, 0, ""),
            DISK: Device(CARD),
            r"ACPI\PNP0A08\0": Device(None),
        }
        if data_disk:
            devices |= {DATA_CARD: pci(BRIDGE, DATA_CARD, "010400", 4, 0, ""), DATA_DISK: Device(DATA_CARD)}
        machine = Machine(fakes, devices, values={CURRENT_BUILD: build(pe)})
        fail: list[Callable[[str, str], None]] = []

        def failing(what: str, where: str) -> None:
            for f in fail:
                f(what, where)
            loaded = [name for name in machine.hives if name.startswith("{bf1a281b")]
            if loaded and what in ("replace", "remove"):
                raise SystemError_("busy", f"{where} is loaded as {loaded[0]}")

        def volume(api: Win32, name: str) -> WritableVolume:
            for number, part, known in machine._parts():
                if known == name:
                    return ImageVolume(fakes[number].image, part.offset, part.size, failing)
            raise AssertionError(name)

        dism = MadeUpDism(machine, how, fail=failing, **more)  # type: ignore[arg-type]
        environment = {
            "SystemRoot": str(root),
            "SystemDrive": str(tmp_path / "drive"),
            "REHOST_DRIVERS": str(tmp_path / "packages"),
        }
        system = WinPeSystem(machine, environment, volume, sleep=lambda _: None, run=dism)
        return Lab(disk, stick, machine, dism, system, tmp_path / "packages", fail)

    return make


def notes(outcome: Outcome) -> list[str]:
    return [n.id for n in outcome.result.notes]


def judged(outcome: Outcome) -> set[Verdict]:
    assert outcome.result.verification is not None
    checks = outcome.result.verification.checks
    return {c.verdict for c in checks if c.id.startswith(("verify.driver", "verify.storage")) for _ in (1,)}


def is_ours(lab: Lab) -> bool:
    """oem2 is the first free number for our engine; the made-up DISM takes oem41."""
    return lab.values()[SERVICE.format(1), "Owners"] == hives.multi_sz("oem2.inf")


def test_dism_installs_and_we_add_what_is_left(make_lab: MakeLab) -> None:
    lab = make_lab()
    before = lab.tree()
    outcome = lab.repair()
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    assert notes(outcome) == ["dism-used"]
    assert judged(outcome) == {Verdict.PASS}
    assert len(lab.dism.commands) == 1
    kept = fat_image.listing(lab.stick.path, lab.stick["stick"].offset)
    assert [name for name in kept if name.endswith("dism.log")]
    after = lab.tree()
    values = lab.values()
    assert values[SERVICE.format(1), "Owners"] == hives.multi_sz("oem41.inf")
    assert "\\Windows\\INF\\oem2.inf" not in after
    # what DISM leaves to be done: the second control set, and its StartOverride
    assert values[SERVICE.format(2), "Start"] == dword(0)
    assert (SERVICE.format(2) + r"\StartOverride", "0") not in values
    new = {p for p in after if p not in before}
    assert {f"\\Windows\\INF\\oem41.{e}" for e in ("inf", "PNF")} < new
    told = {c.where for c in outcome.result.changes if c.after != "absent"}
    assert {p for p in new if "exraid.inf_amd64" not in p} <= told
    assert lab.machine.idle()
    assert lab.machine.letters == {}
    assert lab.repair().result.word is ResultWord.HEALTHY
    assert lab.undo() is ResultWord.UNDONE
    assert lab.tree() == before


def test_originals_on_the_volume_of_windows_itself(make_lab: MakeLab) -> None:
    """Without a stick. The volume stays in use for the journal, and is flushed all the same before it is read again."""
    lab = make_lab()
    del lab.machine.disks[1]

    def windows_tree() -> dict[str, str]:
        return {p: h for p, h in lab.tree().items() if not p.startswith("\\Rehost\\")}

    before = windows_tree()
    outcome = lab.repair()
    assert (outcome.result.word, notes(outcome)) == (ResultWord.REPAIRED, ["dism-used"])
    log = lab.machine.log
    letter = log.index("unmount R:\\")
    assert log[letter + 1].startswith("flush ")
    assert lab.undo() is ResultWord.UNDONE
    assert windows_tree() == before


def failed_then_ours(lab: Lab, word: str, in_detail: str) -> None:
    before = lab.tree()
    outcome = lab.repair()
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    assert notes(outcome) == [word]
    assert in_detail in outcome.result.notes[0].params["detail"]
    assert judged(outcome) == {Verdict.PASS}
    assert is_ours(lab)
    assert not [p for p in lab.tree() if "oem41" in p]
    assert lab.machine.idle()
    assert lab.machine.letters == {}
    assert lab.undo() is ResultWord.UNDONE
    assert lab.tree() == before


@pytest.mark.parametrize("code", [2, 50, 0x800703F1, 0xC0000142])
def test_an_exit_code_with_half_written_files(make_lab: MakeLab, code: int) -> None:
    failed_then_ours(make_lab("half", code=code), "dism-failed", f"ended with code {code}")


def test_the_same_as_without_dism(make_lab: MakeLab) -> None:
    """After a failure nothing is left that our engine alone would not have made."""
    lab = make_lab("half")
    assert lab.repair().result.word is ResultWord.REPAIRED
    fallen_back = lab.tree()
    lab = make_lab()
    assert lab.repair(Engine.PORTABLE).result.word is ResultWord.REPAIRED
    assert lab.dism.commands == []
    assert lab.tree() == fallen_back


def test_success_without_anything_done(make_lab: MakeLab) -> None:
    failed_then_ours(make_lab("nothing"), "dism-failed", "driver-not-installed")


def test_a_package_that_is_staged_only(make_lab: MakeLab) -> None:
    failed_then_ours(make_lab("staged"), "dism-failed", "driver-not-installed")


def test_a_package_that_the_judge_does_not_pass(make_lab: MakeLab) -> None:
    failed_then_ours(make_lab("no-ids"), "dism-judged", "verify.")


def test_a_tool_that_hangs_is_ended_and_its_hives_unloaded(make_lab: MakeLab) -> None:
    lab = make_lab("hangs")
    failed_then_ours(lab, "dism-failed", "did not end within 1800 seconds")
    assert lab.dism.limits == [1800.0]


def test_an_older_windows_pe_leaves_it_to_us(make_lab: MakeLab) -> None:
    lab = make_lab(pe=9600)
    outcome = lab.repair()
    assert outcome.result.word is ResultWord.REPAIRED
    (note,) = outcome.result.notes
    assert (note.id, note.params) == ("dism-older", {"running": "9600", "target": "14393"})
    assert lab.dism.commands == []
    assert is_ours(lab)


@pytest.mark.parametrize(("missing", "word"), [("wpeutil.exe", "platform"), ("dism.exe", "absent")])
def test_no_windows_pe_or_no_dism_in_it(make_lab: MakeLab, tmp_path: Path, missing: str, word: str) -> None:
    lab = make_lab()
    (tmp_path / "pe" / "Windows" / "System32" / missing).unlink()
    assert notes(lab.repair()) == [f"dism-{word}"]
    assert lab.dism.commands == []
    assert is_ours(lab)


@pytest.fixture
def data_disk(tmp_path: Path, package: Path) -> DiskLayout:
    """A disk on a second controller, for which there is a package of its own."""
    folder = package.parent / "data"
    folder.mkdir()
    inf = infs.encoded(infs.package().replace("exraid", "exdata").replace("DEV_028F", "DEV_0290"))
    image = make_driver({"ntoskrnl.exe": ["IoCreateDevice"]}, fill=b"data")
    members = {"exdata.inf": packages.digest(inf), "exdata.sys": packages.digest(image)}
    (folder / "exdata.inf").write_bytes(inf)
    (folder / "exdata.sys").write_bytes(image)
    (folder / "exdata.cat").write_bytes(make_catalog(members, packages.SERVER))
    part = disks.PartitionSpec("data", 20 * windows.MIB, "ntfs", disks.BASIC_DATA, {"a.txt": b"a"})
    return disks.make_gpt_disk(tmp_path / "data.img", msr=False, extra=(part,))


def test_two_packages(make_lab: MakeLab, data_disk: DiskLayout) -> None:
    lab = make_lab(data_disk=data_disk)
    before = lab.tree()
    outcome = lab.repair()
    assert outcome.result.word is ResultWord.REPAIRED, outcome.result
    assert notes(outcome) == ["dism-used"]
    assert {Path(c[4].partition(":")[2]).name for c in lab.dism.commands} == {"exraid.inf", "exdata.inf"}
    values = lab.values()
    owners = {
        values[rf"ControlSet00{n}\Services\{s}", "Owners"] for n in (1, 2) for s in ("exraid", "exdata")
    }
    assert owners == {hives.multi_sz("oem41.inf"), hives.multi_sz("oem42.inf")}
    assert lab.undo() is ResultWord.UNDONE
    assert lab.tree() == before


def test_of_two_packages_the_second_fails(make_lab: MakeLab, data_disk: DiskLayout) -> None:
    failed_then_ours(make_lab("half", data_disk=data_disk, only="exdata.inf"), "dism-failed", "code 50")


def test_what_will_be_done_is_said_before(make_lab: MakeLab) -> None:
    for pe, word in ((20348, "dism-chosen"), (9600, "dism-older")):
        lab = make_lab(pe=pe)
        outcome = run_repair(lab.system, lambda *_: Consent(False), engine=Engine.DISM, dry_run=True)
        assert (outcome.result.word, notes(outcome)) == (ResultWord.PLANNED, [word])
        assert lab.dism.commands == []


def test_another_servers_half_is_no_obstacle(make_lab: MakeLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stick has been in a server where DISM was cut off."""
    lab = make_lab()
    write = MadeUpDism._write

    def cut(self: MadeUpDism, volume: ImageVolume, path: str, data: bytes) -> None:
        if path.endswith(".cat"):
            lab.fail.append(Fuse(0, PowerCut, False))
        write(self, volume, path, data)

    monkeypatch.setattr(MadeUpDism, "_write", cut)
    with pytest.raises(PowerCut):
        lab.repair()
    lab.fail.clear()
    lab.machine.letters.clear()
    assert lab.repair().result.word is ResultWord.BLOCKED
    # the same stick in a server whose Windows volume is another one
    stick = windows.copy_disk(lab.stick, lab.stick.path.with_name("stick-2.img"))
    other = windows.gpt_server(lab.disk.path.with_name("other.img"), windows_size=160 * windows.MIB)
    for number, layout in ((0, other), (1, stick)):
        lab.machine.disks[number].image = layout.path
        lab.machine.disks[number].parts = tuple(Part(p.number, p.offset, p.size) for p in layout.partitions)
    assert lab.repair(Engine.PORTABLE).result.word is ResultWord.REPAIRED


def test_what_dism_may_service(make_lab: MakeLab) -> None:
    lab = make_lab(pe=20348)
    refusal = lab.system.driver_tool_refusal
    assert refusal(20348, "\\Windows") is None
    assert refusal(9200, "\\Windows.old\\WINDOWS") is None
    assert refusal(20349, "\\Windows") == ("older", {"running": "20348", "target": "20349"})
    assert refusal(7601, "\\Windows") == ("database", {"target": "7601"})
    assert refusal(14393, "\\WINNT") == ("folder", {"folder": "\\WINNT"})
    lab.machine.values.clear()
    assert refusal(14393, "\\Windows") == ("older", {"running": "?", "target": "14393"})


def test_originals_that_do_not_fit(make_lab: MakeLab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = make_lab()
    monkeypatch.setattr("rehost_payload.repair.tree._MOST", 1000)
    failed_then_ours(lab, "dism-failed", "originals have")
    assert lab.dism.commands == []


def test_nothing_to_install_says_nothing(make_lab: MakeLab) -> None:
    lab = make_lab()
    lab.repair()
    assert notes(lab.repair()) == []


def test_cut_anywhere_while_dism_works(make_lab: MakeLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo brings every byte back; until then nothing is repaired on top of a half."""
    whole = make_lab()
    old = whole.tree()
    fuse = Fuse(10**6, PowerCut, False)
    whole.fail.append(fuse)
    inside: list[int] = []
    write = MadeUpDism._write

    def noted(self: MadeUpDism, volume: ImageVolume, path: str, data: bytes) -> None:
        inside.append(fuse.passed)
        write(self, volume, path, data)

    monkeypatch.setattr(MadeUpDism, "_write", noted)
    whole.repair()
    monkeypatch.undo()
    assert len(inside) > 8
    for count in sorted({*inside, *range(0, fuse.passed, 9)}):
        lab = make_lab()
        lab.fail.append(Fuse(count, PowerCut, False))
        with pytest.raises(PowerCut):
            lab.repair()
        lab.fail.clear()
        lab.machine.hives.clear()  # a restart
        lab.machine.letters.clear()
        changed = lab.tree() != old
        again = run_repair(lab.system, lambda *_: Consent(False), engine=Engine.DISM)
        if count in inside:
            assert again.result.word is ResultWord.BLOCKED
            assert "undo it first" in (again.result.error or "")
        undone = lab.undo()
        assert undone is ResultWord.UNDONE or not changed
        assert lab.tree() == old, f"after undo of a cut after {count} writes"


def test_a_cut_is_not_undone_over_a_windows_that_was_started_since(
    make_lab: MakeLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its registry is newer than what was saved; that it was started is seen by its event log."""
    lab = make_lab()
    log = "Windows/System32/winevt/Logs/System.evtx"
    disks.write_files(lab.disk, lab.disk.windows, {log: b"ElfFile\0".ljust(70000, b"1")})
    old = lab.tree()
    write = MadeUpDism._write

    def cut(self: MadeUpDism, volume: ImageVolume, path: str, data: bytes) -> None:
        write(self, volume, path, data)
        lab.fail.append(Fuse(0, PowerCut, False))

    monkeypatch.setattr(MadeUpDism, "_write", cut)
    with pytest.raises(PowerCut):
        lab.repair()
    lab.fail.clear()
    lab.machine.hives.clear()
    lab.machine.letters.clear()
    sam = f"{CONFIG}/SAM".strip("\\").replace("\\", "/")
    blocked = run_repair(lab.system, lambda *_: Consent(False), engine=Engine.DISM)
    assert blocked.result.word is ResultWord.BLOCKED
    newer = {log: b"ElfFile\0".ljust(70000, b"2"), sam: b"new passwords"}
    disks.write_files(lab.disk, lab.disk.windows, newer)
    since = lab.tree()
    outcome = run_undo(lab.system)
    assert outcome.result.word is ResultWord.FAILED
    assert "Windows was started since" in (outcome.result.error or "")
    assert lab.tree() == since
    # nobody has to choose between that and no repair at all
    again = run_repair(lab.system, lambda *_: Consent(False), engine=Engine.DISM)
    assert again.result.word is not ResultWord.BLOCKED
    assert run_undo(lab.system, force=True).result.word is ResultWord.UNDONE
    after = lab.tree()
    name = "\\" + log.replace("/", "\\")
    assert after.pop(name) != old.pop(name)  # what is not ours stays
    assert after == old
    part = lab.stick["stick"]
    kept = [n for n in fat_image.listing(lab.stick.path, part.offset) if "replaced-" in n]
    assert b"new passwords" in [disks.read_file(lab.stick, part, n) for n in kept]


def test_interrupted_while_dism_works(make_lab: MakeLab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = make_lab()
    before = lab.tree()
    write = MadeUpDism._write

    def interrupted(self: MadeUpDism, volume: ImageVolume, path: str, data: bytes) -> None:
        write(self, volume, path, data)
        if path.endswith(".log"):
            raise KeyboardInterrupt

    monkeypatch.setattr(MadeUpDism, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lab.repair()
    assert lab.tree() == before
    assert lab.machine.letters == {}


TREE = {
    "kind": "tree",
    "volume": {"disk": "d", "offset": 0, "size": 1, "file_system": "ntfs"},
    "what": "dism",
    "record": "0001.json",
    "record_sha256": "0",
}


@pytest.mark.parametrize(
    ("step", "after"),
    [
        ({**TREE, "record": "..\\..\\x"}, None),
        ({**TREE, "record": None}, None),
        ({**TREE, "after": {"new": [], "changed": {}}}, None),
        (TREE, "00"),
        (TREE, {"new": [1], "changed": {}}),
        (TREE, {"new": [], "changed": {"a": 1}}),
        (TREE, {"new": None, "changed": {}}),
        (TREE, {"new": []}),
    ],
)
def test_lines_that_no_journal_has(step: dict[str, object], after: object) -> None:
    lines = [{"op": "open", "version": 1}, {"op": "begin", "seq": 1, "step": step}]
    lines += [{"op": "done", "seq": 1, "after": after}] * (after is not None)
    with pytest.raises(ApplyError, match="damaged"):
        parse_journal("".join(json.dumps(x) + "\n" for x in lines).encode())


@pytest.mark.parametrize("wrong", [b"", b"[]", b'{"folders": [{}], "files": []}', b'{"folders": 1}'])
def test_a_record_that_is_none(wrong: bytes) -> None:
    volume = SameEverywhere(wrong)
    step = TreeStep(VolumeRef("d", 0, 1, "ntfs"), "dism", "r.json", hashlib.sha256(wrong).hexdigest())
    with pytest.raises(ApplyError) as error:
        read_record(Journal(volume, "\\Rehost\\x"), step)  # type: ignore[arg-type]
    assert error.value.code == "journal"
    with pytest.raises(ApplyError, match="damaged"):
        read_record(Journal(SameEverywhere(b"{}"), "\\Rehost\\x"), step)  # type: ignore[arg-type]


class SameEverywhere:
    """A volume on which every file holds the same."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, path: str) -> bytes:
        return self.data


def test_undo_with_a_damaged_original_touches_nothing_else(make_lab: MakeLab) -> None:
    lab = make_lab()
    lab.repair()
    after = lab.tree()
    part = lab.stick["stick"]
    (pack,) = (n for n in fat_image.listing(lab.stick.path, part.offset) if n.endswith("-000.bin"))
    disks.write_file(lab.stick, part, pack, b"damaged")
    outcome = run_undo(lab.system)
    assert outcome.result.word is ResultWord.FAILED
    assert "is damaged" in (outcome.result.error or "")
    assert {p: h for p, h in lab.tree().items() if "oem41" in p} == {
        p: h for p, h in after.items() if "oem41" in p
    }


def test_undo_minds_what_was_changed_since(make_lab: MakeLab) -> None:
    lab = make_lab()
    before = lab.tree()
    lab.repair()
    place = SETUP_LOG.strip("\\").replace("\\", "/")
    written = lab.file(place)
    disks.write_file(lab.disk, lab.disk.windows, place, written + b"more")
    disks.write_file(lab.disk, lab.disk.windows, "Windows/INF/oem42.inf", b"; of another package, later")
    outcome = run_undo(lab.system)
    assert outcome.result.word is ResultWord.FAILED
    assert "setupapi.offline.log" in (outcome.result.error or "")
    disks.write_file(lab.disk, lab.disk.windows, place, written)
    assert lab.undo() is ResultWord.UNDONE
    after = lab.tree()
    assert after.pop("\\Windows\\INF\\oem42.inf")
    assert after == before
