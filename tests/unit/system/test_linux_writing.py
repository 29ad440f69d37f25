"""When LinuxSystem mounts a volume for writing, and what it leaves behind. Real mounts are tests/e2e's
business."""

from __future__ import annotations

from pathlib import Path

import pytest

from rehost_payload.formats.fat import FatVolume
from rehost_payload.formats.source import SliceSource
from rehost_payload.system import linux
from rehost_payload.system.handles import FileDisk
from rehost_payload.system.images import open_image
from rehost_payload.system.protocol import SystemError_
from support import disks, windows
from support.disks import MIB, DiskLayout, PartitionLayout
from support.linux_bench import Bench


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> DiskLayout:
    return windows.gpt_server(tmp_path_factory.mktemp("linux") / "s.img", windows_size=32 * MIB)


@pytest.fixture
def server(original: DiskLayout, tmp_path: Path) -> DiskLayout:
    return windows.copy_disk(original, tmp_path / "s.img")


@pytest.fixture
def bench(server: DiskLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(server, tmp_path / "mounted", monkeypatch)


def refused(bench: Bench, part: PartitionLayout) -> str:
    with pytest.raises(SystemError_) as error, bench.writable(part):
        pass
    assert bench.mounts == []
    return error.value.code


def test_a_healthy_volume_is_marked_while_it_is_written(bench: Bench) -> None:
    with bench.writable(bench.disk.windows) as volume:
        assert volume.exists("\\rehost.busy")
    assert list(bench.folder.iterdir()) == []
    ((node, ways),) = bench.mounts
    assert node == f"/dev/fake{bench.disk.windows.number}"
    assert next((w.name, w.options) for w in ways) == ("ntfs3", "")
    with bench.writable(bench.disk.esp) as volume:
        assert not volume.exists("\\rehost.busy")  # FAT needs no mark
    assert [w.name for w in bench.mounts[1][1]] == ["vfat"]


def test_the_mark_goes_when_the_work_fails(bench: Bench) -> None:
    with pytest.raises(ZeroDivisionError), bench.writable(bench.disk.windows):
        raise ZeroDivisionError
    assert list(bench.folder.iterdir()) == []
    assert bench.mounted_now == 0


def test_a_mounted_volume_is_shared(bench: Bench) -> None:
    with bench.writable(bench.disk.esp) as first:
        with bench.writable(bench.disk.esp) as second:
            assert second is first
        assert bench.mounted_now == 1
    assert bench.mounted_now == 0
    with bench.writable(bench.disk.esp):
        pass
    assert len(bench.mounts) == 2


@pytest.mark.parametrize(("make", "code"), [(disks.set_hibernated, "hibernated"), (disks.set_dirty, "dirty")])
def test_volumes_that_must_not_be_written(bench: Bench, make, code: str) -> None:  # type: ignore[no-untyped-def]
    make(bench.disk, bench.disk.windows)
    assert refused(bench, bench.disk.windows) == code


def test_an_open_journal_is_left_to_the_kernel(bench: Bench) -> None:
    """ntfs-3g would throw it away."""
    disks.set_journal_open(bench.disk, bench.disk.windows)
    with bench.writable(bench.disk.windows):
        pass
    assert [w.name for w in bench.mounts[0][1]] == ["ntfs3"]


def test_what_a_power_cut_of_ours_left_dirty_is_written_again(bench: Bench) -> None:
    disks.set_dirty(bench.disk, bench.disk.windows)
    disks.write_file(bench.disk, bench.disk.windows, "rehost.busy", b"")
    (bench.folder / "rehost.busy").touch()
    with bench.writable(bench.disk.windows):
        pass
    assert bench.mounts[0][1][0].options == "force"
    # as long as the volume is dirty the mark must stay, or the next mount would be refused
    assert [f.name for f in bench.folder.iterdir()] == ["rehost.busy"]


def test_hibernated_counts_even_with_our_mark(bench: Bench) -> None:
    disks.set_hibernated(bench.disk, bench.disk.windows)
    disks.write_file(bench.disk, bench.disk.windows, "rehost.busy", b"")
    assert refused(bench, bench.disk.windows) == "hibernated"


def test_other_refusals(bench: Bench) -> None:
    assert refused(bench, bench.disk["msr"]) == "mount"
    disks.write_bytes(bench.disk.path, bench.disk.windows.offset, b"\xeb\x58\x90-FVE-FS-")
    assert refused(bench, bench.disk.windows) == "mount"
    bench.read_only = True
    assert refused(bench, bench.disk.esp) == "read-only"


def test_partitions_that_the_kernel_does_not_show(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged primary GPT: Linux sees no partition at all, so one is made for the time of the mount."""
    bench.nodes = {}
    calls: list[tuple[str, int]] = []

    def add(path: str, offset: int, size: int, taken: set[int]) -> int:
        assert (offset, size, taken) == (bench.disk.esp.offset, bench.disk.esp.size, set())
        calls.append(("add", 64))
        return 64

    monkeypatch.setattr(linux.blockio, "add_partition", add)
    monkeypatch.setattr(linux.blockio, "delete_partition", lambda path, n: calls.append(("delete", n)))
    with bench.writable(bench.disk.esp):
        assert bench.mounts[0][0] == f"{bench.disk.path}64"
    assert calls == [("add", 64), ("delete", 64)]


def test_shared_leftovers_go_before_the_mount(bench: Bench) -> None:
    disk, folder = bench.disk, "EFI/Microsoft/Boot"
    new = b"new content" * 3000
    disks.write_file(disk, disk.esp, f"{folder}/rehost.tmp", new)

    def esp() -> FatVolume:
        handle = open_image(disk.path)
        assert isinstance(handle, FileDisk)
        return FatVolume(SliceSource(handle, disk.esp.offset, disk.esp.size))

    volume = esp()
    entry = volume._lookup(folder)
    assert entry is not None
    places = {
        volume.short_name(raw): (at, raw) for at, raw in volume.entry_places(entry.first) if raw[11] != 15
    }
    at, raw = places["BCD"]
    temporary = places["REHOST.TMP"][1]
    linked = raw[:20] + temporary[20:22] + raw[22:26] + temporary[26:32]
    disks.write_bytes(disk.path, disk.esp.offset + at, linked)
    assert esp().read(f"{folder}/BCD") == new
    with bench.writable(disk.esp):
        assert not esp().exists(f"{folder}/rehost.tmp")
    assert esp().read(f"{folder}/BCD") == new
