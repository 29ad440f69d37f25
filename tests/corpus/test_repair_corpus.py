"""Repair of real people's boot stores: only what is stale changes, and the judge passes the result."""

from __future__ import annotations

import pytest

from rehost_payload.formats.bcd import FORMAT_DEVICE, element_format, parse_store
from rehost_payload.formats.bcd_devices import GptIdentity, MbrIdentity, describe_device, partitions
from rehost_payload.repair.diagnose import diagnose
from rehost_payload.repair.model import EditStore, Verdict
from rehost_payload.repair.plan import plan
from rehost_payload.repair.targets import TYPE_FIRMWARE_APPLICATION
from rehost_payload.repair.verify import verify
from rehost_payload.system.hivex_edit import edit_hive
from support.corpus import corpus
from support.synthetic_survey import around, with_store

# what the judge cannot pass although every device is right, and why
PLACEHOLDERS = {  # templates of other boot managers, which fill the paths in when they start
    "gpt-472a8d207c.bcd",
    "gpt-d033899e18.bcd",
    "mbr-07ff95defe.bcd",
}
NO_WINDOWS = {"mbr-4c9d174eb8.bcd", "mbr-6b7177b400.bcd"}  # tools and recovery environments only


FOLDER = corpus("bcd")


def _stores() -> list[str]:
    rows = [line.split("\t") for line in (FOLDER / "INDEX.tsv").read_text().splitlines()[1:]]
    return [r[0] for r in rows if r[4] == "installed" and r[2] in ("GPT", "MBR")]


@pytest.mark.parametrize("name", _stores())
def test_real_store_after_a_restore(name: str) -> None:
    data = (FOLDER / name).read_bytes()
    gpt = name.startswith("gpt")
    survey = around(data, gpt)
    actions = plan(survey).actions
    assert [type(a) for a in actions] == [EditStore], diagnose(survey)
    action = actions[0]
    assert isinstance(action, EditStore)
    new = edit_hive(data, action.edits)
    before, after = parse_store(data), parse_store(new)
    assert before.objects.keys() == after.objects.keys()
    known = {p.unique_guid for d in survey.disks for p in d.table.partitions}
    offsets = {(0x12345678, p.offset) for d in survey.disks for p in d.table.partitions}
    for obj, element in before.elements():
        other = after.objects[obj.guid].elements[element.type]
        if element_format(element.type) != FORMAT_DEVICE:
            assert other.data == element.data or element.type == 0x12000002, f"{obj.guid} {element.type:08x}"
            continue
        assert other.device is not None
        if obj.type == TYPE_FIRMWARE_APPLICATION:
            continue  # may name a stick that is not plugged in
        for identity in partitions(other.device):
            if isinstance(identity, GptIdentity):
                assert identity.partition in known, describe_device(other.device)
            elif isinstance(identity, MbrIdentity):
                assert (identity.signature, identity.offset) in offsets, describe_device(other.device)
    repaired = with_store(survey, new)
    assert plan(repaired).actions == ()
    verification = verify(repaired)
    if name in PLACEHOLDERS:
        assert verification.verdict is Verdict.FAIL, verification
    elif name in NO_WINDOWS:
        assert verification.verdict is not Verdict.PASS, verification
    else:
        assert verification.chain is Verdict.PASS, (
            verification
        )  # a survey without controllers: no word on drivers
        assert diagnose(repaired).healthy, diagnose(repaired)
