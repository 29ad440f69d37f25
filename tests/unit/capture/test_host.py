"""The host's settings out of its hives."""

from __future__ import annotations

from rehost_payload.capture.found import FoundHost
from rehost_payload.capture.model import CapturePlan, HostSettings
from support.hyperv_host import EXTERN, Host

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
