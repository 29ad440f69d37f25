"""EditHive and InjectDriver through prepare, commit, journal and undo, on NTFS images."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from rehost_payload.drivers.inject import CATALOGS, STORE
from rehost_payload.formats.hive import DeleteKey
from rehost_payload.repair.apply import apply_plan, prepare
from rehost_payload.repair.errors import ApplyError
from rehost_payload.repair.journal import Journal
from rehost_payload.repair.locate import reading
from rehost_payload.repair.model import Action, Change, EditHive, InjectDriver, Plan, VolumeRef
from rehost_payload.repair.undo import undo
from rehost_payload.repair.view import View
from rehost_payload.survey.run import survey_machine
from rehost_payload.system.protocol import TEMPORARY_NAME
from support import disks, hives, infs, windows
from support.disks import DiskLayout
from support.driver_packages import IDS, database_hive, driver, package
from support.hives import dword
from support.image_system import ImageMachine, tree_of

from .test_power_cut import Fuse, PowerCut

CONFIG = "Windows/System32/config"
AWAKE = tuple(DeleteKey((f"ControlSet00{n}", "Services", "inbox", "StartOverride")) for n in (1, 2))
HIVE, LOG = f"{CONFIG}/SYSTEM", f"{CONFIG}/SYSTEM.LOG1"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> DiskLayout:
    """A server whose SYSTEM hive is dirty: control set 2 is in its log alone."""
    path = tmp_path_factory.mktemp("inject") / "server.img"
    disk = windows.gpt_server(path, recovery=False, windows_size=48 * windows.MIB)
    new = database_hive()
    old = hives.edited(new, lambda h: h.node_delete_child(hives.key(h, "ControlSet002")))
    dirty, log = hives.make_dirty(old, new)
    disks.write_files(disk, disk.windows, {HIVE: dirty, LOG: log, "Windows/INF/oem4.inf": b"; another's"})
    folders = (STORE, CATALOGS)
    disks.write_files(disk, disk.windows, {f"Windows/{f}/".replace("\\", "/"): b"" for f in folders})
    return disk


class Lab:
    """A copy of the server with a stick for the originals, and a package on this machine."""

    def __init__(
        self, server: DiskLayout, stick: DiskLayout, folder: Path, refs: tuple[VolumeRef, VolumeRef]
    ) -> None:
        self.disk = windows.copy_disk(server, folder / "server.img")
        self.stick = windows.copy_disk(stick, folder / "stick.img")
        self.machine = ImageMachine([self.disk.path, self.stick.path])
        self.folder = folder
        self.volume, self.home = refs
        self.runs = 0

    def file(self, path: str) -> bytes | None:
        path = path.replace("\\", "/").strip("/")
        if not disks.file_exists(self.disk, self.disk.windows, path):
            return None
        return disks.read_file(self.disk, self.disk.windows, path)

    def sha(self, path: str) -> str:
        return hashlib.sha256(self.file(path) or b"").hexdigest()

    def inject(self, what=None, **more) -> InjectDriver:  # type: ignore[no-untyped-def]
        what = what or package()
        place = self.folder / what.inf.partition(".")[0]
        place.mkdir(exist_ok=True)
        for name, data in what.files.items():
            (place / name).write_bytes(data)
        action = InjectDriver(
            volume=self.volume,
            root="\\Windows",
            package=str(place),
            inf=what.inf,
            inf_sha256=hashlib.sha256(what.files[what.inf]).hexdigest(),
            hardware_ids=IDS,
            service="exraid",
            build=14393,
            product_type=3,
            system_sha256=self.sha(HIVE),
            finding="driver.missing",
            replay=True,
            remove_logs=("\\Windows\\System32\\config\\SYSTEM.LOG1",),
        )
        return replace(action, **more)

    def edit(self, **more) -> EditHive:  # type: ignore[no-untyped-def]
        action = EditHive(
            volume=self.volume,
            path="\\Windows\\System32\\config\\SYSTEM",
            before_sha256=self.sha(HIVE),
            edits=AWAKE,
            finding="driver.demoted",
            replay=True,
            remove_logs=("\\Windows\\System32\\config\\SYSTEM.LOG1",),
        )
        return replace(action, **more)

    def apply(self, *actions: Action) -> tuple[Change, ...]:
        self.runs += 1
        with self._home() as volume:
            journal = Journal.create(volume, self._run, {})
            return apply_plan(Plan(actions, ()), self.machine, journal).changes

    def undo(self, force: bool = False) -> tuple[Change, ...]:
        with self._home() as volume:
            if not volume.exists(f"{self._run}\\journal\\journal.jsonl"):
                return ()
            return undo(Journal(volume, self._run), self.machine, force=force)

    @property
    def _run(self) -> str:
        return f"\\Rehost\\run{self.runs}"

    def _home(self):  # type: ignore[no-untyped-def]
        return self.machine.writable(str(self.stick.path), self.home.offset, self.home.size)

    def tree(self) -> dict[str, str]:
        """Every file and folder of the Windows volume, by what it holds; folders end with a backslash."""
        with reading(self.machine, self.volume) as reader:
            return tree_of(reader)


@pytest.fixture(scope="module")
def refs(server: DiskLayout, stick_master: DiskLayout) -> tuple[VolumeRef, VolumeRef]:
    """The Windows volume and the stick."""
    survey = survey_machine(ImageMachine([server.path, stick_master.path]))
    view = View(survey)
    (found,) = survey.windows
    (home,) = (v for v in survey.volumes if v.label == "REHOST")
    return view.ref(view.volumes[found.volume]), view.ref(home)


@pytest.fixture
def lab(
    server: DiskLayout, stick_master: DiskLayout, tmp_path: Path, refs: tuple[VolumeRef, VolumeRef]
) -> Lab:
    return Lab(server, stick_master, tmp_path, refs)


def new_files(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {p for p in after if before.get(p) != after[p]}


def code_of(lab: Lab, *actions: Action) -> tuple[str, str]:
    """The error's code and detail; nothing may have changed."""
    before = lab.tree()
    with pytest.raises(ApplyError) as error:
        lab.apply(*actions)
    assert lab.tree() == before
    return error.value.code, error.value.detail


def test_files_first_the_hive_last_and_everything_undone(lab: Lab) -> None:
    before, old_hive, old_log = lab.tree(), lab.file(HIVE), lab.file(LOG)
    changes = lab.apply(lab.inject(), lab.edit())
    after = lab.tree()
    files = [c.where for c in changes if c.kind == "file"]
    assert files[-2:] == ["\\Windows\\System32\\config\\SYSTEM", "\\Windows\\System32\\config\\SYSTEM.LOG1"]
    assert files.count("\\Windows\\System32\\config\\SYSTEM") == 1
    (store,) = {p for p in after if "exraid.inf_amd64_" in p and p.endswith("\\")}
    assert new_files(before, after) == {
        store,
        *(f"{store}exraid.{e}" for e in ("inf", "cat", "sys")),
        "\\Windows\\INF\\oem2.inf",
        f"\\Windows\\{CATALOGS}\\oem2.cat",
        "\\Windows\\System32\\drivers\\exraid.sys",
        "\\Windows\\System32\\config\\SYSTEM",
    }
    assert before.keys() - after.keys() == {"\\Windows\\System32\\config\\SYSTEM.LOG1"}
    hive = lab.file(HIVE)
    assert hive is not None
    assert hives.is_clean(hive)
    values = hives.values(hive)
    for control_set in ("ControlSet001", "ControlSet002"):  # the second was in the log alone
        assert values[f"{control_set}\\Services\\exraid", "Start"] == dword(0)
        assert (f"{control_set}\\Services\\inbox\\StartOverride", "0") not in values
    lab.undo()
    assert lab.tree() == before
    assert (lab.file(HIVE), lab.file(LOG)) == (old_hive, old_log)


@pytest.mark.parametrize("place", [HIVE, LOG])
def test_undo_leaves_a_registry_alone_that_windows_has_written_since(lab: Lab, place: str) -> None:
    """The hive itself, or the log beside it that Windows makes anew where ours went with the old hive."""
    before = lab.tree()
    lab.apply(lab.inject(), lab.edit())
    disks.write_files(lab.disk, lab.disk.windows, {place: b"newer"})
    since = lab.tree()
    with pytest.raises(ApplyError) as error:
        lab.undo()
    assert error.value.code == "conflict"
    assert lab.tree() == since
    lab.undo(force=True)
    assert lab.tree() == before


def test_a_second_time_nothing_is_written(lab: Lab) -> None:
    lab.apply(lab.inject(), lab.edit())
    again = [lab.inject(), lab.edit()]
    prepared = prepare(Plan(tuple(again), ()), lab.machine)
    assert prepared.files == ()


def test_a_clean_hive_keeps_its_logs_where_nothing_changes(lab: Lab) -> None:
    disks.write_files(lab.disk, lab.disk.windows, {HIVE: database_hive()})
    done = lab.edit(edits=())
    assert prepare(Plan((done,), ()), lab.machine).files == ()


def test_two_packages_become_one_write_of_the_hive(lab: Lab) -> None:
    text = infs.package().replace("exraid", "exdata").replace("DEV_028F", "DEV_0290")
    data = package({"exdata.cat": b"c", "exdata.sys": driver(fill=b"data")})
    data = type(data)("exdata.inf", {**data.files, "exdata.inf": infs.encoded(text)})
    second = lab.inject(data, service="exdata", hardware_ids=(r"PCI\VEN_9005&DEV_0290",))
    changes = lab.apply(lab.edit(), lab.inject(), second)
    assert [c.where for c in changes].count("\\Windows\\System32\\config\\SYSTEM") == 1
    values = hives.values(lab.file(HIVE) or b"")
    for name, number in (("exraid", 2), ("exdata", 3)):
        assert values[f"ControlSet001\\Services\\{name}", "Start"] == dword(0)
        assert values[f"ControlSet001\\Services\\{name}", "Owners"] == hives.multi_sz(f"oem{number}.inf")
    assert values["DriverDatabase", "OemInfMap"] == hives.binary(b"\xf0")


def test_stale_surveys_and_refused_packages_change_nothing(lab: Lab) -> None:
    assert code_of(lab, lab.inject(system_sha256="0" * 64))[0] == "stale-survey"
    assert code_of(lab, lab.edit(before_sha256="0" * 64))[0] == "stale-survey"
    assert code_of(lab, lab.inject(inf_sha256="0" * 64))[0] == "stale-survey"
    assert code_of(lab, lab.inject(service="other"))[0] == "stale-survey"
    assert code_of(lab, lab.inject(replay=False))[0] == "dirty"
    assert code_of(lab, lab.inject(hardware_ids=(r"PCI\VEN_0000&DEV_0000",)))[0] == "driver-no-model"
    assert code_of(lab, lab.inject(build=1))[0] == "driver-no-model"
    assert code_of(lab, lab.inject(package=str(lab.folder / "absent")))[0] == "driver-file-missing"
    bad = lab.inject(package({"exraid.sys": driver("x86"), "exraid.cat": b"c"}))
    code, detail = code_of(lab, bad)
    assert code == "driver-wrong-architecture"
    assert "exraid.inf" in detail


def test_originals_that_do_not_fit(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.image_system.ImageVolume.free", lambda self: 100_000)
    assert code_of(lab, lab.inject())[0] == "journal"


def test_cut_at_every_write(
    server: DiskLayout, stick_master: DiskLayout, tmp_path: Path, refs: tuple[VolumeRef, VolumeRef]
) -> None:
    """Old or new at every instant; the new hive only where all of its files are there; undo brings everything back."""

    def fresh() -> Lab:
        return Lab(server, stick_master, tmp_path, refs)

    def actions(lab: Lab) -> tuple[Action, ...]:
        return lab.inject(), lab.edit()

    whole = fresh()
    old = whole.tree()
    fuse = whole.machine.fail = Fuse(10**6, PowerCut, False)
    whole.apply(*actions(whole))
    new = whole.tree()
    assert fuse.passed > 30
    hive = "\\Windows\\System32\\config\\SYSTEM"
    for count in range(fuse.passed):
        lab = fresh()
        todo = actions(lab)
        lab.machine.fail = Fuse(count, PowerCut, False)
        with pytest.raises(PowerCut):
            lab.apply(*todo)
        now = lab.tree()
        for path in old.keys() | new.keys() | now.keys():
            assert now.get(path) in (old.get(path), new.get(path)), f"{path} after {count} writes"
        if now[hive] == new[hive]:
            assert new.keys() <= now.keys()
        lab.machine.fail = Fuse(10**6, PowerCut, False)
        lab.undo()
        assert lab.tree() == old, f"after undo of a cut after {count} writes"
    assert not any(TEMPORARY_NAME in path for path in new)
