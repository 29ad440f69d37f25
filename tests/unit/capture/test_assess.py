"""What the operator is told: each finding once on a host that is made so, and not on the healthy one."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

import rehost_payload
from rehost_payload.capture.assess import assess
from rehost_payload.capture.assess_targets import Target, assess_targets, needed_bytes
from rehost_payload.capture.found import FoundHost, FoundMachine
from rehost_payload.capture.model import CaptureChoices, CapturePlan
from rehost_payload.capture.plan import plan
from rehost_payload.formats.source import BytesSource
from rehost_payload.formats.vmgs import parse_vmgs
from rehost_payload.repair.model import Finding, Severity, VolumeRef
from rehost_payload.survey.model import Controller, Problem
from rehost_payload.ui.registry import FINDINGS
from support import disks, vhdx_image
from support.hyperv_host import (
    DC,
    FIRST,
    SECOND,
    SQL,
    TEST_A,
    WEB,
    Host,
    Vm,
    child_of,
    configuration,
    guest_state,
    guid,
    make_host,
    vhd,
    vhdx,
    vmcx,
)
from support.vhdx_image import MIB, PRESENT
from support.vmcx_image import Tree
from unit.capture.conftest import TAKEN, look

Found = tuple[FoundHost, CapturePlan]
CHOICES = CaptureChoices(TAKEN)
DISKS = "D:\\VMs\\web01\\Virtual Hard Disks"


def ids(findings: tuple[Finding, ...]) -> dict[tuple[str, str], Severity]:
    return {(f.id.removeprefix("capture."), f.subject): f.severity for f in findings}


def of(found: FoundHost) -> dict[tuple[str, str], Severity]:
    return ids(assess(found, CHOICES))


def changed(found: FoundHost, identifier: str, **changes: object) -> FoundHost:
    """The host with another machine in the place of one."""
    machines = tuple(
        replace(m, **changes) if m.id == identifier else m  # type: ignore[arg-type]
        for m in found.machines
    )
    return replace(found, machines=machines)


def with_vm(found: FoundHost, identifier: str, **changes: object) -> FoundHost:
    """The host with another content of one machine's configuration."""
    machine = next(m for m in found.machines if m.id == identifier)
    assert machine.configuration.machine is not None
    vm = replace(machine.configuration.machine, **changes)  # type: ignore[arg-type]
    return changed(found, identifier, configuration=replace(machine.configuration, machine=vm))


def machine_of(found: FoundHost, identifier: str) -> FoundMachine:
    return next(m for m in found.machines if m.id == identifier)


def copy_of(machine: FoundMachine) -> FoundMachine:
    """A second configuration of the same machine, in another folder."""
    file = replace(machine.configuration.file, original="E:\\copy.vmcx", path="\\copy.vmcx")
    return replace(machine, configuration=replace(machine.configuration, file=file), files=())


def test_what_the_host_of_2016_has(found_2016: Found) -> None:
    found, made = found_2016
    assert of(found) == {
        ("saved-state", DC): Severity.WARNING,
        ("checkpoint-state", WEB): Severity.WARNING,
        ("pass-through", SQL): Severity.FATAL,
        ("scattered", SQL): Severity.INFO,
        ("orphan-disks", "host"): Severity.INFO,
        ("domain-controllers", "host"): Severity.INFO,
    }
    # they come with the plan, each where it belongs
    saved = next(u for u in made.units if u.id == DC).findings
    assert [(f.id, f.params["maker"]) for f in saved] == [("capture.saved-state", "Intel")]
    assert {f.id for f in made.findings} == {"capture.orphan-disks", "capture.domain-controllers"}


@pytest.mark.parametrize("choices", [replace(CHOICES, orphans=False), replace(CHOICES, machines=("web01",))])
def test_nothing_is_said_of_disks_that_are_not_captured(found_2016: Found, choices: CaptureChoices) -> None:
    assert "capture.orphan-disks" not in {f.id for f in assess(found_2016[0], choices)}


def test_what_the_host_of_2012_has(found_2012: Found) -> None:
    found, _ = found_2012
    assert of(found) == {
        ("saved-state", DC): Severity.WARNING,
        ("version", DC): Severity.WARNING,
        ("version", WEB): Severity.WARNING,
        ("domain-controllers", "host"): Severity.INFO,
    }
    version = next(f for f in assess(found, CHOICES) if f.id == "capture.version")
    assert (version.params["refused"], version.params["accepted"]) == ("2022, 2025", "2016, 2019")


def own_disk(name: str, **more: object) -> bytes:
    items = vhdx_image.items(block_size=MIB, parent=more.pop("parent", None))  # type: ignore[arg-type]
    data = vhdx_image.build(items, bat={0: (PRESENT, 4)}, size=5 * MIB, data_write=UUID(guid(name)), **more)  # type: ignore[arg-type]
    return bytes(data)


SNAPSHOT_1, SNAPSHOT_2 = f"{DISKS}\\web01_{FIRST.upper()}.avhdx", f"{DISKS}\\web01_{SECOND.upper()}.avhdx"
LOG = vhdx_image.log_entry(1, [(5 * MIB - 4096, bytes(4096))], flushed=5 * MIB, last=5 * MIB)


@pytest.mark.parametrize(
    ("more", "without", "expected"),
    [
        ({}, [f"{DISKS}\\web01.vhdx"], {"parent-missing": Severity.FATAL}),
        ({f"{DISKS}\\web01.vhdx": vhdx("another")}, [], {"chain-broken": Severity.FATAL}),
        (
            {SNAPSHOT_1: vhdx("web01 1", child_of("web01 2", f".\\web01_{SECOND.upper()}.avhdx"))},
            [],
            {"chain-broken": Severity.FATAL},
        ),
        ({"D:\\elsewhere\\w.vhdx": vhdx("web01")}, [f"{DISKS}\\web01.vhdx"], {"parent-moved": Severity.WARNING}),
        ({f"{DISKS}\\web01.vhdx": b"vhdxfile" + bytes(100_000)}, [], {"disk-unread": Severity.FATAL}),
        (
            {f"{DISKS}\\web01.vhdx": own_disk("web01", log=LOG, log_guid=vhdx_image.LOG_GUID)},
            [],
            {"disk-dirty": Severity.WARNING},
        ),
        (
            {f"{DISKS}\\web01.vhdx": vhdx("web01")[: 5 * MIB - 4096]},
            [],
            {"disk-damaged": Severity.FATAL},
        ),
        (
            {f"{DISKS}\\newer.avhdx": vhdx("newer", child_of("web01 2", f".\\web01_{SECOND.upper()}.avhdx"))},
            [],
            {"stray-disk": Severity.WARNING},
        ),
        ({}, [SNAPSHOT_2], {"file-missing": Severity.FATAL, "stray-disk": None}),
        (
            {f"D:\\VMs\\web01\\Snapshots\\{FIRST.upper()}.vmcx": b"\xa5" * 40000},
            [],
            {"checkpoint-unread": Severity.WARNING},
        ),
        (
            {f"D:\\VMs\\web01\\Virtual Machines\\{WEB.upper()}.vmcx": b"\xa5" * 40000},
            [],
            {"configuration-unread": Severity.FATAL},
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) and len(value) < 3 else None,
)  # fmt: skip
def test_disks_that_do_not_fit(
    tmp_path: Path, more: dict[str, bytes], without: list[str], expected: dict[str, Severity | None]
) -> None:
    host = make_host(tmp_path, more=more, without=without)
    found, made = look(host.images)
    said = {f: s for (f, subject), s in of(found).items() if subject == WEB}
    for finding, severity in expected.items():
        assert said.get(finding) == severity, said
    # nothing that is there is left out, whatever is wrong with it
    captured = {f.original for u in made.units for f in u.files}
    assert {p for p in host.files if not p.endswith(".iso")} <= captured
    targets = [f.target.casefold() for u in made.units for f in u.files]
    assert len(targets) == len(set(targets))


def test_a_disk_without_any_signature_is_measured_by_its_name(tmp_path: Path) -> None:
    """A footer of the older format is not what anybody looks for in a .vhdx file."""
    wiped, swapped = f"{DISKS}\\web01.vhdx", "D:\\Disks\\sql-os.vhdx"
    _, made = look(make_host(tmp_path, more={wiped: bytes(70_000), swapped: vhd("sql")}).images)
    (unread,) = (f for u in made.units for f in u.findings if f.id == "capture.disk-unread")
    assert (unread.subject, "VHDX at byte 0x0: no file identifier" in unread.evidence[0]) == (WEB, True)


def test_a_missing_parent_is_missing_in_the_plan(tmp_path: Path) -> None:
    _, made = look(make_host(tmp_path, without=[f"{DISKS}\\web01.vhdx"]).images)
    assert next(u for u in made.units if u.id == WEB).missing == (f"{DISKS}\\web01.vhdx",)


def security(**values: bool) -> Tree:
    return [("security", [("settings", list(values.items()))])]


def test_what_ties_a_machine_to_its_host(tmp_path: Path) -> None:
    base = Vm(
        DC,
        "dc01",
        [
            ("IDE", 0, 0, "VHD", "E:\\VMs\\dc01\\dc01.vhd"),
            ("IDE", 0, 1, "VHD", "\\\\files\\share\\data.vhdx"),
            ("IDE", 1, 0, "ISO", "D:\\gone.iso"),
            ("IDE", 1, 1, "VHD", "E:\\Shared\\quorum.vhds"),
        ],
        version=0x0900,
        more=[*security(tpm_enabled=True), ("replication", [("mode", 1)])],
        general=[("disk_merge_pending", True)],
    )
    path = f"E:\\VMs\\dc01\\Virtual Machines\\{DC.upper()}.vmcx"
    more = {
        path: vmcx(configuration(base)),
        "E:\\Shared\\quorum.vhds": b"set",
        f"E:\\Shared\\quorum-{FIRST}.avhdx": vhdx("quorum"),
    }
    found, made = look(make_host(tmp_path, more=more).images)
    said = {f: s for (f, subject), s in of(found).items() if subject == DC}
    assert said == {
        "tpm": Severity.BLOCKER,
        "saved-state": Severity.WARNING,
        "replica": Severity.INFO,
        "merge-pending": Severity.INFO,
        "image-missing": Severity.INFO,
        "file-remote": Severity.FATAL,
        "shared-disk": Severity.WARNING,
    }
    unit = next(u for u in made.units if u.id == DC)
    assert {"E:\\Shared\\quorum.vhds", f"E:\\Shared\\quorum-{FIRST}.avhdx"} <= {
        f.original for f in unit.files
    }
    assert unit.missing == ()


@pytest.mark.parametrize(
    ("parts", "severity"),
    [({1: 5000}, None), ({1: 5000, 3: 16}, Severity.WARNING), ({3: 16, 6: 2048}, Severity.BLOCKER)],
)
def test_a_tpm_that_only_the_guest_state_shows(
    found_2016: Found, parts: dict[int, int], severity: Severity | None
) -> None:
    state = parse_vmgs(BytesSource(guest_state(parts)))
    assert of(changed(found_2016[0], WEB, guest_state=state)).get(("tpm", WEB)) is severity
    assert machine_of(found_2016[0], WEB).guest_state == parse_vmgs(BytesSource(guest_state({1: 5000})))


def test_files_that_cannot_be_copied_are_not(tmp_path: Path) -> None:
    """A deduplicated file is a stub; its bytes are elsewhere."""
    host = make_host(tmp_path)
    with disks.ntfs_volume(*host.place("D")) as volume:
        volume.write("Disks\\sql-os.vhdx", b"")
        volume.set_reparse("Disks\\sql-os.vhdx", 0x80000013, bytes(40))
    found, made = look(host.images)
    finding = next(f for f in assess(found, CHOICES) if f.id == "capture.file-unreadable")
    assert (finding.subject, finding.severity) == (SQL, Severity.FATAL)
    assert finding.params["reason"] == "dedup"
    # it is not said besides that the stub is a damaged disk, and captured as it is
    assert ("disk-unread", SQL) not in of(found)
    unit = next(u for u in made.units if u.id == SQL)
    assert unit.missing == ("D:\\Disks\\sql-os.vhdx",)
    assert "D:\\Disks\\sql-os.vhdx" not in {f.original for f in unit.files}


def locked(found: FoundHost, letter: str, **more: object) -> FoundHost:
    volumes = tuple(
        replace(v, file_system="bitlocker", unreadable="bitlocker") if v.root == letter else v
        for v in found.volumes
    )
    return replace(found, volumes=volumes, **more)  # type: ignore[arg-type]


def test_a_locked_volume_blocks_where_something_may_be_on_it(found_2016: Found) -> None:
    found, _ = found_2016
    key = ("volume-unreadable", "disk2p1")
    # everything that the host knows is elsewhere: then it is only worth knowing
    assert of(locked(found, "E:"))[key] is Severity.WARNING
    assert of(locked(found, "E:", known=None))[key] is Severity.BLOCKER
    assert of(locked(found, "E:", lost={DC: "E:\\x.vmcx"}))[key] is Severity.BLOCKER
    asked = changed(locked(found, "E:"), SQL, unreached=("E:\\Data\\sql-data.vhdx",))
    assert of(asked)[key] is Severity.BLOCKER
    assert of(asked)["file-locked", SQL] is Severity.BLOCKER


def test_a_dead_disk_blocks_where_something_may_be_on_it(found_2016: Found) -> None:
    """As a locked volume does: without the host's list, or with a machine of it gone, nobody would miss what it held."""
    dead = replace(found_2016[0], problems=(Problem("disk", "/dev/sdb", "I/O error"),))
    key = ("disk-unreadable", "host")
    assert of(dead)[key] is Severity.WARNING
    assert of(replace(dead, known=None))[key] is Severity.BLOCKER
    assert of(replace(dead, lost={DC: "E:\\x.vmcx"}))[key] is Severity.BLOCKER


def test_a_configuration_with_damaged_parts_may_name_more_disks_than_are_known(found_2016: Found) -> None:
    found, _ = found_2016
    web = machine_of(found, WEB)
    key = ("configuration-damaged", WEB)
    own = changed(found, WEB, configuration=replace(web.configuration, damage=("a key table",)))
    assert of(own)[key] is Severity.FATAL
    first, *others = web.checkpoints
    of_checkpoint = changed(found, WEB, checkpoints=(replace(first, damage=("a key table",)), *others))
    assert of(of_checkpoint)[key] is Severity.WARNING


def test_machines_behind_a_locked_volume(tmp_path: Path) -> None:
    """The same with a disk that really is locked: the machine is lost, and a disk of another is out of reach."""
    host = make_host(tmp_path)
    layout, part = host.place("E")
    disks.write_bytes(layout.path, part.offset, b"\xeb\x58\x90-FVE-FS-")
    found, _ = look(host.images)
    said = of(found)
    assert said["volume-unreadable", "disk2p1"] is Severity.BLOCKER
    assert said["machine-lost", "host"] is Severity.FATAL
    assert said["file-locked", SQL] is Severity.BLOCKER


@pytest.mark.parametrize(
    ("change", "finding", "subject", "severity"),
    [
        (lambda f: replace(f, machines=()), "no-machines", "host", Severity.WARNING),
        (lambda f: replace(f, windows=None), "no-host", "host", Severity.WARNING),
        (lambda f: replace(f, hosts=(f.windows, f.windows)), "several-hosts", "host", Severity.WARNING),
        (lambda f: replace(f, left_out=("D:\\x.vhdx",)), "left-out", "host", Severity.INFO),
        (
            lambda f: replace(f, problems=(Problem("disk", "/dev/sdb", "I/O error"),)),
            *("disk-unreadable", "host", Severity.WARNING),
        ),
        (
            lambda f: replace(f, problems=(Problem("list-damaged", "C:\\data.vmcx", "x"),)),
            *("list-damaged", "host", Severity.WARNING),
        ),
        (
            lambda f: replace(f, problems=(Problem("scan", "disk0p1", "x"),)),
            *("read-problems", "host", Severity.WARNING),
        ),
        (
            lambda f: replace(f, settings=replace(f.settings, roles=("Failover Clustering",))),
            *("cluster-host", "host", Severity.WARNING),
        ),
        (
            lambda f: replace(f, settings=replace(f.settings, unread=("x",))),
            *("settings-unread", "host", Severity.INFO),
        ),
        (
            lambda f: replace(
                f,
                controllers=(Controller("0000:01:00.0", *("1000",) * 4, "010400", "00", "megaraid_sas"),),
                disks=tuple(replace(d, controller="0000:01:00.0") for d in f.disks),
            ),
            *("raid-array", "host", Severity.WARNING),
        ),
        (lambda f: changed(f, SQL, registered=False), "not-registered", SQL, Severity.INFO),
        (
            lambda f: replace(f, machines=(*f.machines, copy_of(machine_of(f, SQL)))),
            *("same-id", SQL, Severity.WARNING),
        ),
        (lambda f: with_vm(f, SQL, highly_available=True), "clustered", SQL, Severity.WARNING),
        (lambda f: with_vm(f, SQL, version=0x0C00), "version", SQL, Severity.WARNING),
        (
            lambda f: with_vm(
                f,
                SQL,
                devices=tuple(
                    replace(d, name="Virtual PCI Express Port")
                    for d in machine_of(f, SQL).configuration.machine.devices  # type: ignore[union-attr]
                ),
            ),
            *("host-devices", SQL, Severity.WARNING),
        ),
    ],
)
def test_findings_of_the_host(
    found_2016: Found,
    change: Callable[[FoundHost], FoundHost],
    finding: str,
    subject: str,
    severity: Severity,
) -> None:
    found, _ = found_2016
    assert (finding, subject) not in of(found)
    said = of(change(found))
    assert said[finding, subject] is severity
    made = plan(change(found), CHOICES, assess(change(found), CHOICES))
    told = [f for u in made.units for f in u.findings] + list(made.findings)
    assert f"capture.{finding}" in {f.id for f in told}


def test_machines_in_one_folder(tmp_path: Path) -> None:
    path = f"D:\\A\\test\\Virtual Machines\\{TEST_A.upper()}.vmcx"
    vm = Vm(TEST_A, "other", [("SCSI", 0, 0, "VHD", "D:\\Disks\\other.vhdx")])
    more = {path: vmcx(configuration(vm)), "D:\\Disks\\other.vhdx": vhdx("other")}
    found, _ = look(make_host(tmp_path, more=more).images)
    (finding,) = [f for f in assess(found, CHOICES) if f.id == "capture.common-folder"]
    assert finding.params == {"folder": "D:\\Disks", "machines": "other, sql", "count": "2"}


def test_targets(found_2016: Found) -> None:
    _, made = found_2016
    outside = VolumeRef("/dev/sdx", 1 << 20, 1 << 40, "ntfs")

    def said(volume: VolumeRef, free: int | None = 1 << 40) -> dict[str, Severity]:
        findings = assess_targets(made, [Target("E:", volume, free)])
        assert all(f.subject == "E:" for f in findings)
        return {f.id.removeprefix("capture."): f.severity for f in findings}

    assert said(outside) == {}
    assert said(outside, None) == {}
    assert said(replace(outside, file_system="fat32")) == {"target-fat": Severity.BLOCKER}
    assert said(replace(outside, file_system="exfat")) == {"target-exfat": Severity.INFO}
    needed = needed_bytes(made)
    assert needed > made.size
    assert said(outside, needed) == {}
    assert said(outside, needed - 1) == {"target-small": Severity.BLOCKER}
    source = next(f.source.volume for u in made.units for f in u.files)
    assert said(source) == {"target-is-source": Severity.BLOCKER}
    assert said(replace(source, offset=source.offset + 1)) == {"target-same-disk": Severity.BLOCKER}


def test_every_finding_of_a_capture_is_registered_and_used() -> None:
    folder = Path(rehost_payload.__file__).parent / "capture"
    used = {
        node.value
        for path in folder.rglob("assess*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"capture\.[a-z-]+", node.value)
    }
    assert used == {name for name in FINDINGS if name.startswith("capture.")}


def test_parameters_are_those_of_the_texts(found_2016: Found, host_2016: Host) -> None:
    for finding in assess(found_2016[0], CHOICES):
        assert FINDINGS[finding.id] <= finding.params.keys(), finding.id
