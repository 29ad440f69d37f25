"""What is found on synthetic hosts of 2016 and 2012 R2, and what a capture would copy of it."""

from __future__ import annotations

from pathlib import Path

from rehost_payload.capture.found import FoundHost
from rehost_payload.capture.model import CaptureFile, CapturePlan, CaptureUnit, Role
from rehost_payload.repair.locate import read_file
from rehost_payload.system.images import ImageSystem
from support.hyperv_host import DC, FIRST, SECOND, SQL, TEST_A, TEST_B, WEB, Host, make_host
from unit.capture.conftest import look

Found = tuple[FoundHost, CapturePlan]


def unit(plan: CapturePlan, identifier: str) -> CaptureUnit:
    return next(u for u in plan.units if u.id == identifier)


def by_role(found: CaptureUnit, *roles: Role) -> set[str]:
    return {f.original for f in found.files if f.role in roles}


def files(plan: CapturePlan) -> list[CaptureFile]:
    return [f for u in plan.units for f in u.files]


def test_every_machine_is_found_and_known(found_2016: Found) -> None:
    found, plan = found_2016
    assert {(m.id, m.name, m.registered) for m in found.machines} == {
        (WEB, "web01", True),
        (SQL, "sql", True),
        (DC, "dc01", True),
        (TEST_A, "test", True),
        (TEST_B, "test", True),
    }
    assert [u.kind for u in plan.units] == ["machine"] * 5 + ["orphans", "host"]
    assert (plan.name, plan.host) == ("Rehost-HV01-2026-11-27", "HV01")
    assert found.problems == ()
    assert {v.root for v in found.volumes if v.letters} == {"C:", "D:", "E:"}


def test_every_file_of_hyperv_is_in_the_plan_once(host_2016: Host, found_2016: Found) -> None:
    """ISO images only on request; what is the host's may be there twice."""
    _, plan = found_2016
    captured = [f.original for u in plan.units if u.kind != "host" for f in u.files]
    assert len(captured) == len(set(captured))
    own = {p for p in host_2016.files if p.endswith(("data.vmcx", ".iso"))}
    assert set(captured) == set(host_2016.files) - own
    assert {f.size for f in files(plan)} >= {len(d) for p, d in host_2016.files.items() if p not in own}
    assert {f.original: f.size for f in files(plan) if f.original in host_2016.files} == {
        p: len(d) for p, d in host_2016.files.items() if not p.endswith(".iso")
    }


def test_the_plan_leads_to_the_bytes(host_2016: Host, found_2016: Found) -> None:
    """What the copy engine opens by a SourceRef is the file that the plan names."""
    _, plan = found_2016
    with ImageSystem(host_2016.images) as system:
        for file in files(plan):
            if file.original in host_2016.files:
                data = read_file(system, file.source.volume, file.source.path)
                assert data == host_2016.files[file.original], file.original


def test_a_chain_with_its_checkpoints(found_2016: Found) -> None:
    web = unit(found_2016[1], WEB)
    assert web.machine is not None
    (disk,) = web.machine.disks
    assert [p.rpartition("\\")[2] for p in disk.chain] == [
        f"web01_{SECOND.upper()}.avhdx",
        f"web01_{FIRST.upper()}.avhdx",
        "web01.vhdx",
    ]
    assert {(c.id, c.parent, c.has_state, c.name) for c in web.machine.checkpoints} == {
        (FIRST, None, True, "before the update"),
        (SECOND, FIRST, False, "after it"),
    }
    parents = {f.original: f.parent for f in web.files if f.parent}
    assert parents == {
        disk.chain[0]: f"web01/Virtual Hard Disks/web01_{FIRST.upper()}.avhdx",
        disk.chain[1]: "web01/Virtual Hard Disks/web01.vhdx",
    }
    assert len(by_role(web, Role.CHANGE_TRACKING)) == 2
    assert len(by_role(web, Role.CHECKPOINT, Role.CHECKPOINT_STATE)) == 4
    assert len(by_role(web, Role.GUEST_STATE)) == 1


def test_a_scattered_machine(found_2016: Found) -> None:
    sql = unit(found_2016[1], SQL)
    assert {f.original[:2] for f in sql.files} == {"C:", "D:", "E:"}
    assert len(by_role(sql, Role.SMART_PAGING)) == 1
    assert sql.machine is not None
    assert [d.path for d in sql.machine.disks if d.pass_through] == ["\\\\.\\PHYSICALDRIVE3"]
    assert [a.switch for a in sql.machine.adapters] == ["Team"]


def test_a_saved_machine(found_2016: Found) -> None:
    found, plan = found_2016
    assert [m.name for m in found.machines if m.state is not None] == ["dc01"]
    assert next(m for m in found.machines if m.id == DC).state_vendor == "Intel"
    machine = unit(plan, DC).machine
    assert machine is not None
    assert machine.saved_state


def test_two_of_one_name_and_their_common_parent(found_2016: Found) -> None:
    _, plan = found_2016
    a, b = (u for u in plan.units if u.name == "test")
    assert (a.folder, b.folder) == ("test", f"test ({b.id[:8]})")
    (base,) = [f for f in files(plan) if f.original == "D:\\Golden\\base.vhdx"]
    assert base in a.files
    assert base.shared_with == (b.id,)
    child = next(f for f in b.files if f.role is Role.DIFFERENCING_DISK)
    assert child.parent == base.target


def test_targets_are_unique_whatever_the_case(found_2016: Found) -> None:
    _, plan = found_2016
    targets = [f.target.casefold() for f in files(plan)]
    assert len(targets) == len(set(targets))
    for u in plan.units:
        assert all(f.target.startswith(u.folder + "/") for f in u.files)


def test_orphans_and_the_hosts_own_files(found_2016: Found) -> None:
    _, plan = found_2016
    assert by_role(unit(plan, "orphans"), Role.DISK) == {"D:\\old\\forgotten.vhdx"}
    host = unit(plan, "host")
    hives = {f.target for f in host.files if f.role is Role.HIVE}
    assert hives == {f"host/hives/{n}" for n in ("SYSTEM", "SOFTWARE", "SECURITY", "SAM")}
    kept = {f.target for f in host.files if f.role is Role.EVIDENCE}
    assert {"host/Hyper-V/data.vmcx", "host/Crypto/Keys/key", "host/Protect/S-1-5-18/Preferred"} <= kept


def test_config_only_leaves_out_what_is_large(host_2016: Host, found_2016: Found) -> None:
    _, plan = look(host_2016.images, config_only=True)
    kept = {f.original for f in files(plan)}
    assert not {p for p in kept if p.lower().endswith(("vhd", "vhdx", ".slp", ".rct", ".mrt"))}
    assert {p for p in host_2016.files if p.endswith((".vmcx", ".vmgs"))} <= kept
    full, config = unit(found_2016[1], WEB).machine, unit(plan, WEB).machine
    assert full == config


def test_images_and_single_machines_on_request(host_2016: Host) -> None:
    _, plan = look(host_2016.images, images=True, machines=("SQL",))
    assert [u.id for u in plan.units] == [SQL, "host"]
    assert by_role(unit(plan, SQL), Role.IMAGE) == {"D:\\ISO\\setup.iso"}
    _, plan = look(host_2016.images, machines=(TEST_B.upper(),))
    alone = unit(plan, TEST_B)
    assert "D:\\Golden\\base.vhdx" in by_role(alone, Role.DISK)


def test_the_host_of_2012_knows_its_machines_by_links(host_2012: Host, found_2012: Found) -> None:
    found, plan = found_2012
    assert {(m.name, m.registered) for m in found.machines} == {("web01", True), ("dc01", True)}
    assert found.known == {
        WEB: f"D:\\VMs\\web01\\Virtual Machines\\{WEB.upper()}.xml",
        DC: f"E:\\VMs\\dc01\\Virtual Machines\\{DC.upper()}.xml",
    }
    assert {f.original for u in plan.units if u.kind == "machine" for f in u.files} == set(host_2012.files)
    web, dc = unit(plan, WEB).machine, unit(plan, DC).machine
    assert web is not None
    assert dc is not None
    assert [c.id for c in web.checkpoints] == [FIRST]
    assert (web.saved_state, dc.saved_state) == (False, True)
    folder = f"dc01/Virtual Machines/{DC.upper()}"
    assert {f"{folder}/{DC.upper()}.bin", f"{folder}/{DC.upper()}.vsv"} <= {f.target for f in files(plan)}


def test_letters_that_lead_nowhere_are_guessed(tmp_path: Path) -> None:
    """After a restore every identity is another one; the paths in the configurations say which volume was which."""
    host = make_host(tmp_path, letters=False)
    found, plan = look(host.images)
    assert {(v.root, v.guessed) for v in found.volumes if v.root[1:] == ":"} == {
        ("C:", False),
        ("D:", True),
        ("E:", True),
    }
    assert {m.name for m in found.machines if m.registered} == {"web01", "sql", "dc01", "test"}
    assert not [u.name for u in plan.units if u.missing]
    captured = {f.original for f in files(plan)}
    assert {p for p in host.files if not p.endswith(".iso")} <= captured
