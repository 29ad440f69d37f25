"""What the way back is told of a machine's network adapters."""

from __future__ import annotations

import struct

import pytest

from rehost_payload.capture.found import FoundConfiguration, FoundFile, FoundMachine
from rehost_payload.capture.model import MachineSummary
from rehost_payload.capture.summary import summarize
from rehost_payload.formats.source import BytesSource
from rehost_payload.formats.vm_model import read_machine
from rehost_payload.formats.vmcx import parse_vmcx
from support import vm_configurations as configurations
from support import vmcx_image


def summary() -> MachineSummary:
    root = parse_vmcx(BytesSource(vmcx_image.build(configurations.machine()).bytes)).root
    machine = read_machine(root)
    file = FoundFile("v", "\\m.vmcx", "D:\\m.vmcx", 1)
    return summarize(
        FoundMachine(
            machine.id,
            machine.name,
            FoundConfiguration(machine.id, file, machine, "machine"),
            registered=None,
        ),
        {configurations.SWITCH.lower(): "Extern"},
    )


@pytest.mark.parametrize(
    ("data", "vlan", "by_hand", "understood"),
    [
        (struct.pack("<IHHIHH", 1, 20, 0, 0, 0, 0), 20, "", True),
        (
            struct.pack("<IHHIHH", 2, 0, 5, 0, 0, 0),
            None,
            "trunk, native VLAN 5, allowed VLANs not read",
            True,
        ),
        (b"\x01\x02", None, "VLAN settings that could not be read: 0102", False),
    ],
)
def test_vlans(
    monkeypatch: pytest.MonkeyPatch, data: bytes, vlan: int | None, by_hand: str, understood: bool
) -> None:
    monkeypatch.setattr(configurations, "VLAN_BLOB", data)
    found = summary()
    lan, old = found.adapters
    assert (lan.switch, lan.vlan, lan.vlan_by_hand) == ("Extern", vlan, by_hand)
    assert (old.vlan, old.vlan_by_hand) == (None, "")
    assert any(f"VLAN settings {data.hex()}" in line for line in found.unread) is not understood
