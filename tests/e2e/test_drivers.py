"""Windows on a controller that it does not know: boot store and driver in one run of the medium, and back again.

The disks are looked at from outside, with libntfs-3g, hivex, regipy and ntfsprogs.
"""

from __future__ import annotations

import hashlib
import json
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from support import disks, driver_records, hives, outside, packages, product, stores, windows
from support.disks import DiskLayout
from support.hives import Value, dword, sz
from support.lab import Lab
from support.product import Product, Run
from support.qemu import Disk
from support.tables import Table

SYSTEM = "Windows/System32/config/SYSTEM"
LOG = f"{SYSTEM}.LOG1"
CATALOGS = "Windows/System32/CatRoot/{F750E6C3-38EE-11D1-85E5-00C04FC295EE}"
STORE = "Windows/System32/DriverStore/FileRepository"
SERVICE = "ControlSet001\\Services\\exraid"
Values = Mapping[tuple[str, str], Value]


@dataclass(frozen=True)
class Before:
    disk: DiskLayout
    regions: dict[str, str]
    trees: dict[str, outside.Tree]
    system: bytes  # the SYSTEM hive as Windows would read it, logs replayed


def restored(healthy: DiskLayout) -> Before:
    """Another disk identity, so that the boot store is stale; SYSTEM needs its log, where the computer's name is."""
    disk = windows.restored(healthy)
    old = disks.read_file(disk, disk.windows, SYSTEM)
    name = "ControlSet001\\Control\\ComputerName\\ComputerName"
    new = hives.edited(old, lambda h: hives.set_value(h, name, "ComputerName", sz("NEUERNAME")))
    dirty, log = hives.make_dirty(old, new)
    disks.write_files(disk, disk.windows, {SYSTEM: dirty, LOG: log})
    trees = {role: outside.tree(disk, disk[role]) for role in (boot_role(disk), "windows")}
    return Before(disk, outside.regions(disk), trees, new)


def boot_role(disk: DiskLayout) -> str:
    return "esp" if disk.style == "gpt" else "system"


def changes(before: Before, role: str) -> dict[str, str]:
    now = outside.tree(before.disk, before.disk[role])
    return outside.difference(before.trees[role], now)


def read(before: Before, name: str) -> bytes:
    return disks.read_file(before.disk, before.disk.windows, name)


def assert_untouched_elsewhere(before: Before) -> None:
    now = outside.regions(before.disk)
    assert [r for r in now if r not in before.trees and now[r] != before.regions[r]] == []
    assert outside.complaints(before.disk) == []


def hive_changes(before: Before) -> tuple[dict[tuple[str, str], Value], Values]:
    """Values of SYSTEM that were added, changed or (None) removed; and all that are there now."""
    data = read(before, SYSTEM)
    assert outside.hive_complaints(data) == []
    old, new = hives.values(before.system), hives.values(data)
    changed = {k: v for k, v in new.items() if old.get(k) != v}
    removed = {k for k in old if k not in new}
    assert {k[0].rpartition("\\")[2].lower() for k in removed} <= {"startoverride"}
    return changed, new


def text(value: Value) -> str:
    return value[1].decode("utf-16-le").rstrip("\0")


# --- a driver from a package ---------------------------------------------------------------------------------


def test_a_driver_is_installed_and_taken_back(medium: Product, runs: Table, tmp_path: Path) -> None:
    """pvscsi, for which this Windows has a service that was demoted and a package that was only staged."""
    leftovers = driver_records.Driver(
        "pvscsi", "oem2.inf", (packages.NEW_CONTROLLER,), original="pvscsi.inf", complete=False, override=True
    )
    known = tuple(d for d in driver_records.IN_BOX if d.service != "pvscsi")
    before = restored(windows.mbr_server(tmp_path / "server.img", drivers=(*known, leftovers)))
    folder, files = medium.drivers, {}
    if folder is None:
        # an ISO without packages: they come on the stick
        folder = tmp_path / "drivers"
        packages.for_medium(folder)
        files = {f"drivers/{p.relative_to(folder).as_posix()}": p.read_bytes() for p in folder.rglob("*.*")}
        files["drivers/allow-unverified.txt"] = b""  # signed by the tests' own authority only
    else:
        assert_medium_names_its_packages(medium, folder)
    stick = product.rehost_volume(tmp_path / "stick.img", files)

    run = product.run_unattended(medium, tmp_path, [before.disk], bus="pvscsi", stick=stick, name="repair")
    note(runs, "mbr stale and no driver, kernel, bios, pvscsi", run)
    assert (run.code, run.word) == (0, "repaired"), run.console[-4000:]
    assert_untouched_elsewhere(before)
    assert_store_is_right(before)
    assert_driver_is_there(before, {p.name: p.read_bytes() for p in (folder / "best").iterdir()})
    assert_reported(run)

    run = product.run_unattended(
        medium, tmp_path, [before.disk], bus="pvscsi", stick=stick, mode="undo", name="undo"
    )
    note(runs, "the same, undone", run)
    assert (run.code, run.word) == (0, "undone"), run.console[-4000:]
    assert outside.complaints(before.disk) == []
    assert {role: changes(before, role) for role in before.trees} == {"system": {}, "windows": {}}


def assert_medium_names_its_packages(medium: Product, folder: Path) -> None:
    """build.json has each package with the hash of every file, and that nobody verified it."""
    named = medium.described["drivers"]["packages"]
    assert {p["source"].split("/")[1] for p in named} == {p.name for p in folder.iterdir()}
    for one in named:
        assert one["verified"] == "no"
        place = folder / one["source"].split("/")[1]
        digests = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in place.iterdir()}
        assert {f["path"]: f["sha256"] for f in one["files"]} == digests


def note(runs: Table, name: str, run: Run) -> None:
    seconds = (f"{s:.0f}" for s in (run.to_start, run.to_result, run.to_exit))
    runs.add(name, f"{run.code} {run.word}", *seconds)


def assert_store_is_right(before: Before) -> None:
    disk = before.disk
    part, path = windows.store_place(disk)
    assert changes(before, boot_role(disk)) == {path: "changed"}
    found = stores.elements(disks.read_file(disk, part, path))
    here = stores.identity(disk, disk.windows)
    assert stores.identities(found[stores.LOADER, 0x11000001][1]) == {here}
    assert stores.identities(found[stores.LOADER, 0x21000001][1]) == {here}


def assert_driver_is_there(before: Before, package: dict[str, bytes]) -> None:
    """Files, records and service are those of the right package, and nothing else has changed."""
    changed, now = hive_changes(before)
    ids = "DriverDatabase\\DeviceIds\\PCI\\VEN_15AD&DEV_07C0"
    ((_, oem),) = [k for k in changed if k[0] == ids]
    assert now[ids, oem] == (3, bytes.fromhex("01ff0000"))
    infs = f"DriverDatabase\\DriverInfFiles\\{oem}"
    name = text(now[infs, "Active"])
    record = f"DriverDatabase\\DriverPackages\\{name}"
    assert text(now[record, ""]) == oem
    blob = now[record, "Version"][1]
    assert (len(blob), blob[0]) == (48, 0)
    assert struct.unpack_from("<4H", blob, 32)[::-1] == tuple(map(int, packages.BEST.split(".")))
    configuration = text(now[f"{record}\\Descriptors\\PCI\\VEN_15AD&DEV_07C0", "Configuration"])
    assert text(now[f"{record}\\Configurations\\{configuration}", "Service"]) == "exraid"

    assert now[SERVICE, "Start"] == dword(0)
    assert now[SERVICE, "Type"] == dword(1)
    assert text(now[SERVICE, "Group"]) == "SCSI Miniport"
    assert text(now[SERVICE, "ImagePath"]).lower() == "system32\\drivers\\exraid.sys"
    assert not [k for k in now if k[0].lower().startswith(f"{SERVICE}\\StartOverride".lower())]
    assert regipy_value(read(before, SYSTEM), f"\\{SERVICE}", "Start") == 0
    # the name that only the log knew of
    computer = "ControlSet001\\Control\\ComputerName\\ComputerName"
    assert text(now[computer, "ComputerName"]) == "NEUERNAME"
    ours = (
        SERVICE,
        "ControlSet001\\Services\\EventLog",
        ids,
        infs,
        record,
        "DriverDatabase\\DeviceIds\\{4d36e97b-e325-11ce-bfc1-08002be10318}",
    )
    others = {k for k in changed if not any(k[0].lower().startswith(o.lower()) for o in ours)}
    assert others <= {
        ("DriverDatabase", "OemInfMap"),
        ("ControlSet001\\Control\\CrashControl", "AutoReboot"),
        ("ControlSet001\\Services\\partmgr\\Parameters", "SanPolicy"),
    }

    repository = f"{STORE}/{name}"
    wanted = {
        "Windows/System32/drivers/exraid.sys": package["exraid.sys"],
        f"Windows/INF/{oem}": package["exraid.inf"],
        f"{CATALOGS}/{oem.replace('.inf', '.cat')}": package["exraid.cat"],
        **{f"{repository}/{n}": data for n, data in package.items()},
    }
    found = changes(before, "windows")
    assert found.pop(SYSTEM) == "changed"
    assert found.pop(LOG) == "removed"
    tree = outside.tree(before.disk, before.disk.windows)
    assert {n: tree[n] for n in wanted} == {n: hashlib.sha256(d).hexdigest() for n, d in wanted.items()}
    # and the folders in which they lie
    rest = {n for n in found if n not in wanted and not any(w.startswith(n) for w in wanted)}
    assert rest == set()
    assert set(found.values()) == {"added"}


def regipy_value(data: bytes, key: str, name: str) -> object:
    """As a third reader has it."""
    from regipy.registry import RegistryHive  # type: ignore[import-untyped]

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "SYSTEM"
        path.write_bytes(data)
        return RegistryHive(str(path)).get_key(key).get_value(name)


def assert_reported(run: Run) -> None:
    kinds = {a["kind"] for a in run.report["result"]["plan"]["actions"]}
    assert {"edit-store", "inject-driver"} <= kinds
    # why the others were not taken
    said = json.dumps(run.report)
    assert "for build 15063 and later, not for 14393" in said
    assert packages.BEST in said


# --- a driver that Windows has, and does not start -------------------------------------------------------------


def test_a_driver_of_windows_is_enabled(uefi_lab: Lab, tmp_path: Path) -> None:
    """stornvme is there with Start 0, and StartOverride demotes it: the case that other checks do not see."""
    drivers = tuple(
        replace(d, override=True) if d.service == "stornvme" else d for d in driver_records.IN_BOX
    )
    before = restored(windows.gpt_server(tmp_path / "server.img", drivers=drivers, recovery=False))
    key = "ControlSet001\\Services\\stornvme\\StartOverride"
    assert hives.values(before.system)[key, "0"] == dword(3)
    with uefi_lab.machine(tmp_path, [Disk(before.disk.path, "nvme")]) as vm:
        code, output = vm.shell("rehost repair --yes", 120)
        assert code == 0, output
    assert_untouched_elsewhere(before)
    assert_store_is_right(before)
    changed, now = hive_changes(before)
    assert (key, "0") not in now
    assert now["ControlSet001\\Services\\stornvme", "Start"] == dword(0)
    assert set(changed) <= {
        ("ControlSet001\\Control\\CrashControl", "AutoReboot"),
        ("ControlSet001\\Services\\partmgr\\Parameters", "SanPolicy"),
    }
