"""The menu's way through a capture: targets, machines and consent are typed; and what an order without a yes does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from rehost_payload.capture.copy_plan import identity, layout
from rehost_payload.capture.copy_state import CaptureState, TargetState, to_json
from rehost_payload.capture.targets import UnknownTarget, candidates, choose
from rehost_payload.repair.model import ResultWord
from rehost_payload.system.capture_target import CaptureTarget, TargetInfo
from rehost_payload.system.directory_target import DirectoryTarget
from rehost_payload.system.images import ImageSystem
from rehost_payload.ui.answer import Orders, OrdersError
from rehost_payload.ui.capture_face import interactive, report
from rehost_payload.ui.capture_show import CapturePage
from rehost_payload.ui.capture_work import BadOrders, CaptureOrders, prepare, refused, resolve
from rehost_payload.ui.texts import Texts
from rehost_payload.ui.unattended import _capture
from support import disks
from support.disks import MIB, PartitionSpec
from support.hyperv_host import Host, make_host

from .test_work import Desk


class Bench(ImageSystem):
    """Images whose volumes can be "mounted": a target is a folder here, named after its image."""

    def __init__(self, images: Sequence[Path], folder: Path) -> None:
        super().__init__(images)
        self._folder = folder
        self.mounted: list[str] = []

    @contextmanager
    def capture_target(self, disk: str, offset: int, size: int) -> Iterator[CaptureTarget]:
        name = Path(disk).stem
        self.mounted.append(name)
        root = self._folder / name
        root.mkdir(exist_ok=True)
        yield DirectoryTarget(root, TargetInfo(name, name, "ntfs", disk, disk_size=size, offset=offset))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    return make_host(tmp_path_factory.mktemp("host"))


@pytest.fixture(scope="module")
def backups(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("backups")
    specs = [
        ("ntfs1", PartitionSpec("b", 160 * MIB, "ntfs", label="BACKUP1")),
        ("ntfs2", PartitionSpec("b", 160 * MIB, "ntfs", label="BACKUP2")),
        ("small", PartitionSpec("b", 48 * MIB, "fat32", label="STICK")),
    ]
    return [disks.make_disk(folder / f"{name}.img", [spec]).path for name, spec in specs]


@pytest.fixture
def bench(host: Host, backups: list[Path], tmp_path: Path) -> Iterator[Bench]:
    with Bench([*host.images, *backups], tmp_path) as system:
        yield system


def desk(bench: Bench, lines: str) -> Desk:
    found = Desk(lines)
    found.worker.system = bench
    return found


def test_candidates_say_why_they_are_none(bench: Bench) -> None:
    found = {c.volume.label: c.unfit for c in candidates(bench)}
    assert found["BACKUP1"] is None
    assert found["STICK"] == "file-system"
    assert found["Data"] is None  # that machines lie there shows only when they are looked for
    assert {c.unfit for c in candidates(bench) if c.disk.id == "disk0"} == {"windows"}


def test_targets_by_every_name(bench: Bench) -> None:
    found = candidates(bench)
    one = choose(found, "label:backup1")
    assert choose(found, one.id) == one
    assert choose(found, one.disk.path if one.volume.partition is None else one.id) == one
    with pytest.raises(UnknownTarget) as caught:
        choose(found, "label:BACKUP9")
    assert "label:BACKUP1" in caught.value.known
    with pytest.raises(UnknownTarget, match="several"):
        choose([one, one], "label:BACKUP1")


def test_chosen_from_lists(bench: Bench, tmp_path: Path) -> None:
    # the list: Data, Archive, BACKUP1, BACKUP2, STICK
    d = desk(bench, "9\n1,2,3\n3, 4\n1 5\nyes\n")
    outcome = interactive(d.worker)
    assert outcome is not None
    assert outcome.word is ResultWord.CAPTURED, d.shown
    assert "Please type numbers from 1 to 5" in d.shown
    assert "At most two targets" in d.shown
    assert [u.name for u in outcome.plan.units] == ["dc01", "web01", "HV01"]
    for name in ("ntfs1", "ntfs2"):
        (folder,) = (tmp_path / name).iterdir()
        assert (folder / "index.html").exists()
        assert {p.name for p in folder.iterdir() if p.is_dir()} == {"dc01", "web01", "host"}


def test_back_and_no(bench: Bench, tmp_path: Path) -> None:
    assert interactive(desk(bench, "\n").worker) is None
    outcome = interactive(desk(bench, "3\n\nno\n").worker)
    assert outcome is not None
    assert outcome.word is ResultWord.DECLINED
    assert bench.mounted == []
    assert list(tmp_path.iterdir()) == []


def test_a_target_with_machines_on_it_is_refused(bench: Bench, tmp_path: Path) -> None:
    """Left out of the search as a target, it still holds files that a configuration elsewhere names. What was found of
    these machines is not all, so no list of them is shown as if it were."""
    d = desk(bench, "1\n")
    outcome = interactive(d.worker)
    assert outcome is not None
    assert outcome.refused is not None
    assert (outcome.word, outcome.refused[:2]) == (ResultWord.BLOCKED, ("source-disk", "disk1p1"))
    assert "Virtual machines" not in d.shown
    report(d.worker, outcome)
    assert "The target is on a disk whose files are to be captured" in d.shown
    assert bench.mounted == []
    assert list(tmp_path.iterdir()) == []


def test_the_table_keeps_its_columns_on_a_serial_line(bench: Bench) -> None:
    """There "Prüfpunkte" and "Größe" are longer by a letter."""
    desk_ = desk(bench, "")
    units = prepare(bench, CaptureOrders(()), (), desk_.worker.progress).plan.units
    named = tuple(replace(u, name=f"Prüf {u.name}") if u.kind == "machine" else u for u in units)
    lines = CapturePage(Texts("de"), ascii=True).machines(named)
    header = next(line for line in lines if "Pruefpunkte" in line)
    rows = [line for line in lines if line.startswith("Pruef ")]
    assert header.endswith("Groesse")
    assert len(rows) > 1
    assert {len(row) for row in rows} == {len(header)}


def orders(**more: object) -> Orders:
    return Orders("capture", sources=("test",))._replace(**more)  # type: ignore[arg-type]


def test_unattended_without_a_yes_shows_everything_and_writes_nothing(bench: Bench) -> None:
    d = desk(bench, "")
    assert _capture(orders(targets=("label:BACKUP1",)), d.worker) == (0, "planned")
    assert "nothing will be written" in d.shown
    assert "web01" in d.shown
    assert bench.mounted == []


def test_unattended(bench: Bench, tmp_path: Path) -> None:
    d = desk(bench, "")
    wishes = orders(targets=("label:BACKUP1", "label:BACKUP2"), yes=True, vms=("web01",), config_only=True)
    assert _capture(wishes, d.worker) == (0, "captured")
    assert "2 good copies of 1 virtual machine" in d.shown
    (folder,) = (tmp_path / "ntfs2").iterdir()
    assert not list(folder.rglob("*vhdx"))


@pytest.mark.parametrize(
    "more",
    [{}, {"targets": ("label:NOWHERE",)}, {"targets": ("label:BACKUP1",), "vms": ("nobody",), "yes": True}],
)
def test_unattended_orders_that_fit_nothing(more: dict[str, object], bench: Bench) -> None:
    with pytest.raises(OrdersError):
        _capture(orders(**more), desk(bench, "").worker)
    assert bench.mounted == []


def test_fat_and_windows_are_refused(bench: Bench) -> None:
    d = desk(bench, "")
    assert _capture(orders(targets=("label:STICK",), yes=True), d.worker) == (5, "blocked")
    assert "Only NTFS and exFAT" in d.shown
    with pytest.raises(BadOrders):
        resolve(["label:STICK", "label:BACKUP1", "label:BACKUP2"], bench)


def small_target(host: Host, folder: Path, files: dict[str, bytes]) -> Bench:
    spec = PartitionSpec("b", 96 * MIB, "ntfs", label="BACKUP1", files=files)
    image = disks.make_disk(folder / "target.img", [spec]).path
    return Bench([*host.images, image], folder)


def test_a_resumed_capture_is_not_called_too_large(host: Host, tmp_path: Path) -> None:
    """What is there already needs no room."""
    names = ["label:BACKUP1"]
    with small_target(host, tmp_path, {}) as bench:
        targets = resolve(names, bench)
        prepared = prepare(bench, CaptureOrders(tuple(names)), targets, lambda *_: None)
        assert [f.id for f in prepared.target_findings] == ["capture.target-small"]
        refusal = refused(prepared, bench)
        assert refusal is not None
        assert refusal[0] == "no-space"
    state = CaptureState(
        1, "0", "Rehost-HV01-x", identity(prepared.plan), "HV01", "", "", "a", (TargetState("a", "a"),), ()
    )
    with small_target(host, tmp_path, {"Rehost-HV01-x/capture.json": to_json(state).encode()}) as again:
        prepared = prepare(again, CaptureOrders(tuple(names)), resolve(names, again), lambda *_: None)
        assert prepared.target_findings == ()
        assert prepared.resumed == {"label:BACKUP1": "Rehost-HV01-x"}
        assert refused(prepared, again) is None


def test_what_is_refused_is_refused_before_the_question(host: Host, tmp_path: Path) -> None:
    with small_target(host, tmp_path, {}) as bench:
        d = desk(bench, "3\n\n")  # no line is left for an answer
        outcome = interactive(d.worker)
    assert outcome is not None
    assert outcome.word is ResultWord.BLOCKED, d.shown
    report(d.worker, outcome)
    assert bench.mounted == []
    assert "Type yes" not in d.shown
    assert "Copying now" not in d.shown
    result = d.shown[d.shown.index("Result: blocked") :]
    cause, evidence, following = (
        result.index(text) for text in ("not enough room", "bytes free", "Next: Make room")
    )
    assert cause < evidence < following


def test_the_order_of_the_disks_does_not_matter(host: Host, tmp_path: Path) -> None:
    """The kernel numbers disks as they answer: a resumed capture must be the same one."""
    found = []
    for images in (host.images, [host.images[2], host.images[0], host.images[1]]):
        with Bench(images, tmp_path) as system:
            plan = prepare(system, CaptureOrders(), (), lambda *_: None).plan
            found.append((identity(plan), [layout(unit) for unit in plan.units]))
    assert found[0] == found[1]
