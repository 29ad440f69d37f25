"""The host's settings out of its hives."""

from __future__ import annotations

from pathlib import Path

from rehost_payload.capture.found import FoundHost
from rehost_payload.capture.host import HostHives, host_settings
from rehost_payload.capture.model import CapturePlan, HostSettings
from rehost_payload.formats.hive import Hive
from support import disks, hives
from support.hyperv_host import CARDS, EXTERN, Host, make_host, system_hive
from unit.capture.conftest import look

Found = tuple[FoundHost, CapturePlan]


def settings_of(found: Found) -> HostSettings:
    settings = found[0].settings
    assert settings is not None
    return settings


def test_switches_and_their_types(found_2016: Found) -> None:
    switches = {s.name: s for s in settings_of(found_2016).switches}
    assert {n: (s.kind, s.team, s.host_adapter) for n, s in switches.items()} == {
        "Extern": ("external", "", True),
        "Intern": ("internal", "", True),
        "Labor": ("private", "", False),
        "Team": ("external", "set", False),
    }
    assert switches["Extern"].id == EXTERN
    (uplink,) = switches["Extern"].uplinks
    assert (uplink.name, uplink.description, uplink.pnp_id) == (
        "Ethernet",
        "Intel(R) I350",
        "PCI\\VEN_8086\\0",
    )
    assert [u.name for u in switches["Team"].uplinks] == ["Ethernet 2", "Ethernet 3"]


def test_addresses_of_the_host(found_2016: Found) -> None:
    adapters = {a.name: a for a in settings_of(found_2016).adapters}
    extern = adapters["vEthernet (Extern)"]
    assert (extern.switch, extern.dhcp) == ("Extern", False)
    assert extern.addresses == ("192.0.2.10/24", "198.51.100.7/16")
    assert (extern.gateways, extern.dns) == (("192.0.2.1",), ("192.0.2.2", "192.0.2.3"))
    assert adapters["vEthernet (Intern)"].switch == "Intern"
    assert (adapters["Backup"].addresses, adapters["Backup"].dhcp) == ((), True)


def test_hyperv_settings_with_their_evidence(found_2016: Found) -> None:
    settings = settings_of(found_2016)
    assert (settings.machine_path, settings.disk_path) == ("D:\\VMs", "D:\\Disks")
    assert (settings.mac_minimum, settings.mac_maximum) == ("00-15-5D-00-0A-00", "00-15-5D-00-0A-FF")
    assert settings.live_migrations is None  # absent is Windows' default
    kept = {(e.hive, e.key.rpartition("\\")[2], e.value): e.data for e in settings.evidence}
    assert kept["SOFTWARE", "Virtualization", "MinimumMacAddress"] == "00155d000a00"
    assert kept["SOFTWARE", "Worker", "Something"] == "01000000"
    assert any(value == "Unknown" for _, _, value in kept)
    assert settings.unread == ()


def test_name_roles_and_letters(host_2016: Host, found_2016: Found) -> None:
    settings = settings_of(found_2016)
    assert (settings.name, settings.domain, settings.build) == ("HV01", "example.net", 14393)
    assert settings.roles == ("Hyper-V", "DNS Server")  # a disabled service is no role
    letters = {entry.letter: entry for entry in settings.letters}
    assert letters.keys() == {"C:", "D:", "E:"}  # and no optical drive
    data, archive = host_2016.place("D"), host_2016.place("E")
    assert letters["D:"].partition_guid == data[1].unique_guid
    assert (letters["E:"].signature, letters["E:"].offset) == (archive[0].signature, archive[1].offset)
    assert (letters["D:"].label, letters["D:"].holds_machines) == ("Data", True)


def changed_host(found: Found, host: Host, keys: dict[str, dict[str, hives.Value]]) -> HostSettings:
    """The settings out of the same SYSTEM hive with more keys."""
    windows = found[0].windows
    assert windows is not None
    system = Hive.parse(hives.make_hive(keys, base=system_hive(host)))
    return host_settings(HostHives(system, None, "ControlSet001"), windows, found[0].volumes, frozenset(), "")


def test_a_team_below_a_switch(host_2016: Host, found_2016: Found) -> None:
    """One uplink that is itself a team of adapters (LBFO)."""
    drivers = "ControlSet001\\Control\\Class\\{4D36E972-E325-11CE-BFC1-08002BE10318}"
    members = "ControlSet001\\Services\\MsLbfoProvider\\Parameters\\NdisAdapters"
    settings = changed_host(
        found_2016,
        host_2016,
        {
            f"{drivers}\\0000": {"DriverDesc": hives.sz("Microsoft Network Adapter Multiplexor Driver")},
            f"{members}\\{{{CARDS[5].upper()}}}": {"TeamId": hives.sz("x")},
        },
    )
    assert {s.name: s.team for s in settings.switches} == {
        "Extern": "lbfo",
        "Intern": "",
        "Labor": "",
        "Team": "set",
    }
    assert any(CARDS[5].upper() in e.key and e.value == "TeamId" for e in settings.evidence)
    assert settings.unread == ("SOFTWARE could not be read",)


def test_addresses_that_are_none_are_named(host_2016: Host, found_2016: Found) -> None:
    interfaces = "ControlSet001\\Services\\Tcpip\\Parameters\\Interfaces"
    values = {
        "IPAddress": hives.multi_sz("300.1.1.1", "10.0.0.5"),
        "SubnetMask": hives.multi_sz("255.0.0.0", "255.0.0.0"),
    }
    settings = changed_host(found_2016, host_2016, {f"{interfaces}\\{{{CARDS[4].upper()}}}": values})
    intern = next(a for a in settings.adapters if a.name == "vEthernet (Intern)")
    assert intern.addresses == ("10.0.0.5/8",)
    assert any("300.1.1.1" in line for line in settings.unread)


def test_settings_that_are_in_the_log_only(tmp_path: Path) -> None:
    """The host lost power: the newest default path is not in SOFTWARE itself yet."""
    host = make_host(tmp_path)
    layout, part = host.place("C")
    path = "Windows\\System32\\config\\SOFTWARE"
    old = disks.read_file(layout, part, path)
    keys = {
        "Microsoft\\Windows NT\\CurrentVersion\\Virtualization": {
            "DefaultExternalDataRoot": hives.sz("E:\\New")
        }
    }
    dirty, log = hives.make_dirty(old, hives.make_hive(keys, base=old))
    disks.write_files(layout, part, {path: dirty, f"{path}.LOG1": log})
    found = look(host.images)
    assert settings_of(found).machine_path == "E:\\New"
    assert "host/hives/SOFTWARE.LOG1" in {f.target for u in found[1].units for f in u.files}
    assert not [p for p in found[0].problems if "SOFTWARE" in p.where]


def test_hives_that_cannot_be_read(tmp_path: Path) -> None:
    host = make_host(tmp_path)
    layout, part = host.place("C")
    for name in ("SYSTEM", "SOFTWARE"):
        disks.write_file(layout, part, f"Windows\\System32\\config\\{name}", b"\xa5" * 8192)
    found, plan = look(host.images)
    settings = found.settings
    assert settings is not None
    assert set(settings.unread) == {"SYSTEM could not be read", "SOFTWARE could not be read"}
    assert {m.name for m in found.machines} == {"web01", "sql", "dc01", "test"}
    captured = {f.original for u in plan.units for f in u.files}
    assert any(p.endswith("config\\SYSTEM") for p in captured)
