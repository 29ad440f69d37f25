"""Damaged and hostile files on a host: always a plan, always with everything that is still there."""

from __future__ import annotations

import errno
import os
import random
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rehost_payload.capture.copy_plan import check_plan, jobs_of
from rehost_payload.capture.copy_source import BytesOpener
from rehost_payload.capture.model import CaptureChoices, CapturePlan
from rehost_payload.capture.plan import find_and_plan
from rehost_payload.formats.ntfs import NtfsVolume
from rehost_payload.formats.ntfs_records import DATA
from rehost_payload.formats.source import BytesSource, SliceSource
from rehost_payload.repair.model import Severity
from rehost_payload.survey.model import Controller, Firmware, FirmwareMode
from rehost_payload.system.protocol import DiskHandle, DiskInfo
from support import disks
from support.effort import at_most
from support.hyperv_host import (
    DC,
    HYPERV,
    SECOND,
    WEB,
    Host,
    Vm,
    child_of,
    configuration,
    guid,
    make_host,
    make_link,
    vhdx,
    vmcx,
)
from support.sources import PatchedSource
from unit.capture.conftest import TAKEN, look

ODD = guid("odd")


class Disk(PatchedSource):
    """A disk of bytes with a few of them changed."""

    @property
    def info(self) -> DiskInfo:
        return DiskInfo("/dev/sda", self.size, 512)

    def partition_path(self, number: int, offset: int) -> str | None:
        return None

    def close(self) -> None:
        pass


class Machine:
    """The system of such disks."""

    name = "linux"

    def __init__(self, disks: Sequence[DiskHandle]) -> None:
        self._disks = disks

    def firmware(self) -> Firmware:
        return Firmware(FirmwareMode.UNKNOWN)

    def controllers(self) -> Sequence[Controller]:
        return ()

    def disks(self) -> Sequence[DiskHandle]:
        return self._disks

    def problems(self) -> Sequence[str]:
        return ()

    def volume_files(self, disk: str, offset: int) -> None:
        return None


@pytest.fixture(scope="module")
def images(host_2016: Host) -> list[bytes]:
    return [path.read_bytes() for path in host_2016.images]


@pytest.fixture(scope="module")
def placed(host_2016: Host, images: list[bytes]) -> dict[str, tuple[int, int]]:
    """Disk and offset of each file that lies in one piece."""
    found = {}
    for path in host_2016.files:
        layout, part = host_2016.place(path[0])
        number = host_2016.layouts.index(layout)
        volume = NtfsVolume(SliceSource(BytesSource(images[number]), part.offset, part.size))
        place = volume._lookup(path[2:])
        assert place is not None
        data = volume.record(place[0]).first(DATA)
        if data is not None and len(data.runs) == 1 and data.runs[0].lcn is not None:
            found[path] = (number, part.offset + data.runs[0].lcn * volume.cluster_size)
    assert len(found) > 15
    return found


def planned(images: list[bytes], patches: dict[int, dict[int, bytes]]) -> CapturePlan:
    system = Machine([Disk(data, patches.get(i, {})) for i, data in enumerate(images)])
    _, plan = find_and_plan(system, lambda *_: None, CaptureChoices(TAKEN))  # type: ignore[arg-type]
    return plan


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 1 << 32), st.integers(1, 30), st.sampled_from([1, 4, 8, 64]))
def test_damaged_files_are_captured_all_the_same(
    host_2016: Host,
    images: list[bytes],
    placed: dict[str, tuple[int, int]],
    seed: int,
    count: int,
    length: int,
) -> None:
    """Bytes of configurations, lists, states and disks are changed anywhere in their heads and tables."""
    rng = random.Random(seed)
    patches: dict[int, dict[int, bytes]] = {}
    for _ in range(count):
        path = rng.choice(sorted(placed))
        number, at = placed[path]
        size = len(host_2016.files[path])
        inside = rng.choice([0, 0x1000, 0x2000, 0x10000, 0x30000, 2 << 20, (2 << 20) + 0x10000, 3 << 20])
        place = min(inside + rng.randrange(512), size - length)
        patches.setdefault(number, {})[at + max(0, place)] = rng.randbytes(length)
    with at_most(5_000_000):
        plan = planned(images, patches)
    files = [f for u in plan.units for f in u.files]
    assert {p for p in host_2016.files if not p.endswith(".iso")} <= {f.original for f in files}
    targets = [f.target.casefold() for f in files]
    assert len(targets) == len(set(targets))


def test_a_ring_of_disks(tmp_path: Path) -> None:
    """A disk that is its own ancestor, and one that is its own parent."""
    disks = "D:\\VMs\\web01\\Virtual Hard Disks"
    name = f"web01_{SECOND.upper()}.avhdx"
    more = {
        f"{disks}\\web01.vhdx": vhdx("web01", child_of("web01 2", f".\\{name}")),
        "D:\\Golden\\base.vhdx": vhdx("golden", child_of("golden", ".\\base.vhdx")),
    }
    host = make_host(tmp_path, more=more)
    found, plan = look(host.images)
    rings = {f.child for m in found.machines for c in m.chains.values() for f in c.faults if f.kind == "ring"}
    assert {f"{disks}\\web01.vhdx", "D:\\Golden\\base.vhdx"} <= rings
    files = [f for u in plan.units for f in u.files]
    assert {p for p in host.files if not p.endswith(".iso")} <= {f.original for f in files}
    web = next(u for u in plan.units if u.id == WEB)
    assert "capture.chain-broken" in {f.id for f in web.findings}


def test_a_chain_deeper_than_windows_opens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The limit is 256; eight disks with a limit of five say the same sooner."""
    monkeypatch.setattr("rehost_payload.capture.disks.MAX_DEPTH", 5)
    chain = {
        f"D:\\long\\{i}.avhdx": vhdx(
            f"long {i}", child_of(f"long {i - 1}", f".\\{i - 1}.avhdx") if i else None
        )
        for i in range(8)
    }
    found, plan = look(make_host(tmp_path, more=chain).images)
    assert {len(c.disks) for c in found.orphan_chains} == {1, 2, 3, 4, 5}
    assert {f.kind for c in found.orphan_chains for f in c.faults} == {"depth"}
    orphans = next(u for u in plan.units if u.kind == "orphans")
    assert set(chain) <= {f.original for f in orphans.files}


def test_a_list_that_cannot_be_read(tmp_path: Path) -> None:
    host = make_host(tmp_path, more={f"{HYPERV}\\data.vmcx": b"\x14\x20\x28\x01" + bytes(30_000)})
    found, plan = look(host.images)
    assert len(found.machines) == 5
    assert found.known is not None  # the one configuration in the default folder
    assert "capture.list-damaged" in {f.id for f in plan.findings}


def test_a_configuration_that_names_others_files(tmp_path: Path) -> None:
    """A configuration may name any path: only what Hyper-V uses as a disk is taken, and never twice."""
    evil = [
        ("IDE", 0, 0, "VHD", "C:\\Windows\\System32\\config\\SAM"),
        ("IDE", 0, 1, "VHD", "D:\\Golden"),
        ("IDE", 1, 0, "VHD", "D:\\VMs\\web01\\Virtual Machines\\..\\..\\..\\..\\Golden\\base.vhdx"),
    ]
    path = f"E:\\VMs\\dc01\\Virtual Machines\\{DC.upper()}.vmcx"
    host = make_host(tmp_path, more={path: vmcx(configuration(Vm(DC, "..\\..\\dc01", evil, generation=1)))})
    found, plan = look(host.images)
    unit = next(u for u in plan.units if u.id == DC)
    assert unit.folder == "_.._.._dc01"
    assert "capture.disk-unread" in {f.id for f in unit.findings}
    base = [f for u in plan.units for f in u.files if f.original == "D:\\Golden\\base.vhdx"]
    assert len(base) == 1
    assert all(".." not in f.target.split("/") for u in plan.units for f in u.files)
    assert found.problems == ()


def test_disks_that_are_called_anything(tmp_path: Path) -> None:
    """Names of devices and of our own files, marks of writing direction, and one that is its own folder's: each file
    is in the plan, and the copy engine takes all the names."""
    names = [
        *("disk.vhdx.rehost-part", "SHA256SUMS", "manifest.json", "CAPTURE.JSON", "con.vhdx", "trail.vhdx."),
        *(
            "\u202exdhv.exe",
            "e\u0301.vhdx",
            "\u00e9.vhdx",
            "\U0001f600.vhdx",
            'a"b<c>|.vhdx',
            "-rf.vhdx",
            ".vhdx",
        ),
        *("n" * 250 + ".vhdx", "Virtual Hard Disks"),
    ]
    paths = [f"D:\\odd\\{name}" for name in names]
    drives = [("SCSI", 0, slot, "VHD", path) for slot, path in enumerate(paths)]
    more = {path: path.encode() for path in paths}
    more[f"D:\\odd\\Virtual Machines\\{ODD.upper()}.vmcx"] = vmcx(configuration(Vm(ODD, "odd", drives)))
    _, plan = look(make_host(tmp_path, more=more).images)
    unit = next(u for u in plan.units if u.id == ODD)
    assert set(paths) <= {f.original for f in unit.files}
    check_plan(plan, [job for u in plan.units for job in jobs_of(u, BytesOpener(b""), {})])
    assert len({f.target.casefold() for f in unit.files}) == len(unit.files)


def test_links_that_lead_in_circles(tmp_path: Path) -> None:
    """A junction to the folder above it, one to itself, symbolic links to each other: each disk is found once."""
    host = make_host(tmp_path)
    with disks.ntfs_volume(*host.place("D")) as volume:
        for path, target in (
            ("loop\\back", "D:\\loop"),
            ("loop\\self", "D:\\loop\\self"),
            ("A\\test\\Virtual Hard Disks\\up", "D:\\A"),
            ("old\\root", "D:\\"),
        ):
            volume.make_directories(path)
            stored, shown = f"\\??\\{target}".encode("utf-16-le"), target.encode("utf-16-le")
            head = struct.pack("<HHHH", 0, len(stored), len(stored) + 2, len(shown))
            volume.set_reparse(path, 0xA0000003, head + stored + b"\0\0" + shown + b"\0\0")
        for path, target in (("loop\\a.vhdx", "D:\\loop\\b.vhdx"), ("loop\\b.vhdx", "D:\\loop\\a.vhdx")):
            make_link(volume, path, target)
    with at_most(5_000_000):
        _, plan = look(host.images)
    originals = [f.original for u in plan.units if u.kind != "host" for f in u.files]
    assert {p for p in host.files if not p.endswith((".iso", "data.vmcx"))} <= set(originals)
    assert len(originals) == len(set(originals))
    assert not [p for p in originals if "\\loop\\" in p or "\\up\\" in p or "\\root\\" in p]


class Failing(Disk):
    """A disk that does not give one of its sectors."""

    bad = 1 << 60

    def read_at(self, offset: int, length: int) -> bytes:
        if offset < self.bad + 512 and self.bad < offset + length:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read_at(offset, length)


def test_a_bad_sector_in_the_file_table_costs_one_file_and_is_told(images: list[bytes]) -> None:
    """The list of files names 64 in each 64 KiB: all but one are still found, and the rest is not taken for all."""
    made = [Failing(data, {}) for data in images]
    name = "forgotten.vhdx".encode("utf-16-le")
    made[1].bad = images[1].rindex(b"FILE0", 0, images[1].rindex(name))  # its own record, not its folder's

    def plan_of(handles: list[Failing]) -> CapturePlan:
        _, plan = find_and_plan(Machine(handles), lambda *_: None, CaptureChoices(TAKEN))  # type: ignore[arg-type]
        return plan

    whole, less = planned(images, {}), plan_of(made)
    files = [{f.original for u in p.units for f in u.files} for p in (whole, less)]
    assert files[0] - files[1] == {"D:\\old\\forgotten.vhdx"}
    (finding,) = [f for f in less.findings if f.id == "capture.search-incomplete"]
    assert (finding.severity, finding.params["where"]) == (Severity.FATAL, "disk1p1")
    assert "$MFT: 1 records cannot be read" in finding.evidence[0]
