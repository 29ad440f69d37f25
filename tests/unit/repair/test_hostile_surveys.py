"""diagnose, plan and verify on surveys that no sane machine gives: they answer, and never claim PASS for nonsense."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rehost_payload.formats.bcd_build import bcdboot_store
from rehost_payload.formats.bcd_devices import GptIdentity, PartitionDevice, encode_device
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.hive import minimal_hive
from rehost_payload.repair.diagnose import diagnose
from rehost_payload.repair.model import Choices, Verdict
from rehost_payload.repair.plan import plan
from rehost_payload.repair.verify import verify
from rehost_payload.survey.json import checked, from_json, to_json
from rehost_payload.survey.model import StoreElement, StoreRole, Survey
from rehost_payload.system.hivex_edit import edit_hive
from support.synthetic_survey import around

ESP = GptIdentity("00000001-aaaa-bbbb-cccc-000000000000", "00000000-1111-2222-3333-444444444444")
WINDOWS = GptIdentity("00000002-aaaa-bbbb-cccc-000000000000", "00000000-1111-2222-3333-444444444444")


@cache
def healthy() -> Survey:
    edits = bcdboot_store(firmware="uefi", system=ESP, windows=WINDOWS, seed=UUID(int=1))
    return around(edit_hive(minimal_hive("NewStoreRoot"), edits), gpt=True)


def test_the_unchanged_one_passes() -> None:
    assert diagnose(healthy()).healthy
    assert verify(healthy()).chain is Verdict.PASS


@st.composite
def hostile(draw: st.DrawFn) -> Survey:
    survey = healthy()
    store = survey.boot_stores[0]
    objects = list(store.objects)
    for _ in range(draw(st.integers(1, 4))):
        i = draw(st.integers(0, len(objects) - 1))
        obj = objects[i]
        elements = list(obj.elements)
        what = draw(st.sampled_from(["drop-object", "retype", "drop", "garble", "cut", "add"]))
        if what == "drop-object" and len(objects) > 1:
            del objects[i]
            continue
        if what == "retype":
            kind = draw(
                st.sampled_from([None, 0, 0x10100002, 0x10200003, 0x10200004, 0x30000000, 0x101FFFFF])
            )
            obj = replace(obj, type=kind)
        elif elements and what in ("drop", "garble", "cut"):
            j = draw(st.integers(0, len(elements) - 1))
            e = elements[j]
            raw = bytes.fromhex(e.raw)
            if what == "drop":
                del elements[j]
            elif what == "cut":
                elements[j] = replace(e, raw=raw[: draw(st.integers(0, len(raw)))].hex())
            else:
                noise = draw(st.binary(max_size=200))
                elements[j] = replace(e, raw=noise.hex(), reg_type=draw(st.sampled_from([0, 1, 3, 7])))
        elif what == "add":
            kind = draw(
                st.sampled_from([0x11000001, 0x21000001, 0x31000003, 0x12000002, 0x23000003, 0x24000001])
            )
            elements = [e for e in elements if e.type != kind]  # a key cannot be there twice
            elements.append(StoreElement(kind, draw(st.binary(max_size=120)).hex(), 3))
        objects[i] = replace(obj, elements=tuple(elements))
    parts = survey.disks[0].table.partitions
    kept = tuple(p for p in parts if draw(st.integers(0, 9)))
    disk = replace(survey.disks[0], table=replace(survey.disks[0].table, partitions=kept))
    volumes = tuple(v for v in survey.volumes if v.partition in {p.id for p in kept})
    ids = {v.id for v in volumes}
    return replace(
        survey,
        disks=(disk,),
        volumes=volumes,
        windows=tuple(w for w in survey.windows if w.volume in ids and draw(st.booleans())),
        boot_stores=(replace(store, objects=tuple(objects)),) if store.volume in ids else (),
        paths=tuple(p for p in survey.paths if p.volume in ids),
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(hostile())
def test_answers_whatever_it_is_given(survey: Survey) -> None:
    diagnosis, first, verification = diagnose(survey), plan(survey), verify(survey)
    assert plan(survey) == first  # pure
    assert from_json(to_json(survey)) == survey
    if verification.chain is Verdict.PASS:
        # the judge and the diagnosis share no code: where he passes, it must not say that Windows will not start
        assert not [f for f in diagnosis.findings if f.severity == "fatal"], diagnosis.findings
    plan(survey, Choices(windows="disk9p9:\\Nonsense", system_volume="disk7p7", disk="disk8"))


def test_an_edited_survey_is_refused_before_it_is_diagnosed() -> None:
    survey = healthy()
    assert checked(survey) == survey
    store = survey.boot_stores[0]
    element = replace(store.objects[0].elements[0], raw="no hex")
    broken = replace(store.objects[0], elements=(element,))
    for edited in (
        replace(survey, disks=(replace(survey.disks[0], id="disk7"),)),
        replace(survey, boot_stores=(replace(store, volume="disk9p9"),)),
        replace(survey, boot_stores=(replace(store, objects=(broken,)),)),
    ):
        with pytest.raises(FormatError):
            checked(edited)


def test_the_fallback_store_is_judged_by_its_entries() -> None:
    survey = healthy()
    main = survey.boot_stores[0]
    loader = next(o for o in main.objects if o.type == 0x10200003)
    stale = GptIdentity("99999999-aaaa-bbbb-cccc-000000000000", ESP.disk)
    raw = encode_device(PartitionDevice(identity=stale)).hex()
    lost = replace(
        loader, elements=tuple(replace(e, raw=raw) if e.type == 0x11000001 else e for e in loader.elements)
    )
    path = "\\EFI\\Microsoft\\Recovery\\BCD"
    for obj, verdict in ((loader, Verdict.PASS), (lost, Verdict.FAIL)):
        store = replace(main, id=f"disk0p1:{path}", path=path, role=StoreRole.EFI_RECOVERY, objects=(obj,))
        checks = verify(replace(survey, boot_stores=(main, store))).checks
        assert [c.verdict for c in checks if c.id == "verify.fallback-store"] == [verdict]
