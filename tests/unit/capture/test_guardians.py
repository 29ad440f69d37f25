"""Machines with a virtual TPM: what counts as saved, and that nothing less does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rehost_payload.capture.assess import assess
from rehost_payload.capture.found import FoundHost
from rehost_payload.capture.guardians import best, compare, documents, saved_file
from rehost_payload.capture.model import CaptureChoices
from rehost_payload.repair.model import Finding, Severity
from support import disks, hives, windows
from support.guardians import STORE, exported, guardian, host_with_tpm, stored, thumbprint
from support.hyperv_host import Host, software_hive
from support.signing import Authority
from unit.capture.conftest import TAKEN, look

SIGNING, ENCRYPTION = guardian()
BOTH = (SIGNING, ENCRYPTION)
FOREIGN = guardian(host="HV02")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    return host_with_tpm(tmp_path_factory.mktemp("tpm"))


@pytest.fixture(scope="module")
def found(host: Host) -> FoundHost:
    return look(host.images)[0]


def tpm(found: FoundHost, files: Sequence[tuple[str, bytes]] = ()) -> Finding:
    """The finding of dc01, with these files saved."""
    judged = [file for name, data in files if (file := saved_file(name, data)) is not None]
    found = replace(found, guardian_files=best(judged)) if files else found
    (finding,) = (f for f in assess(found, CaptureChoices(TAKEN)) if f.id.startswith("capture.tpm"))
    return finding


def whole(authority: Authority) -> bytes:
    return exported(authority)


def files_of(
    *authorities: Authority, make: Callable[[Authority], bytes] = whole
) -> tuple[tuple[str, bytes], ...]:
    return tuple((f"E:\\Guardian\\{thumbprint(a)}.pfx", make(a)) for a in authorities)


def test_without_an_export_it_blocks_and_names_what_the_host_has(found: FoundHost) -> None:
    finding = tpm(found)
    assert (finding.id, finding.severity) == ("capture.tpm", Severity.BLOCKER)
    said = "\n".join(finding.evidence)
    for authority, kind in zip(BOTH, ("Signing", "Encryption"), strict=True):
        subject = f"Shielded VM {kind} Certificate (UntrustedGuardian) (HV01)"
        assert f"certificate {thumbprint(authority)}, {subject}: no file" in said


def test_an_export_of_every_certificate_counts(found: FoundHost) -> None:
    finding = tpm(found, files_of(*BOTH))
    assert (finding.id, finding.severity) == ("capture.tpm-saved", Severity.WARNING)
    assert finding.params["guardians"] == "UntrustedGuardian"
    assert f"E:\\Guardian\\{thumbprint(SIGNING)}.pfx: holds a private key" in "\n".join(finding.evidence)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (files_of(SIGNING), "no file"),
        (files_of(*BOTH, make=lambda a: exported(a, key=False)), "no private key was seen"),
        (files_of(SIGNING) + files_of(ENCRYPTION, make=lambda a: whole(a)[:-1]), "do not fit"),
        (files_of(SIGNING) + files_of(ENCRYPTION, make=lambda a: b""), "cut off"),
        (files_of(SIGNING) + files_of(ENCRYPTION, make=lambda a: whole(a) + bytes(1 << 20)), "more than"),
        (files_of(*FOREIGN), "of no certificate of this host"),
        ((("guardian.pfx", whole(SIGNING)), ("other.pfx", whole(ENCRYPTION))), "no file"),
    ],
    ids=["one", "no-key", "cut", "empty", "large", "other-host", "renamed"],
)
def test_less_does_not(found: FoundHost, files: Sequence[tuple[str, bytes]], said: str) -> None:
    finding = tpm(found, files)
    assert (finding.id, finding.severity) == ("capture.tpm", Severity.BLOCKER)
    assert said in "\n".join(finding.evidence)


def test_a_good_file_counts_though_a_bad_one_has_its_name(found: FoundHost) -> None:
    bad = files_of(*BOTH, make=lambda a: b"x")
    assert tpm(found, bad + files_of(*BOTH)).id == "capture.tpm-saved"
    assert tpm(found, files_of(*BOTH) + bad).id == "capture.tpm-saved"


def test_every_guardian_of_the_host_is_needed(found: FoundHost) -> None:
    """Which one a machine is locked with is not known. Of certificates without their keys nothing can be saved."""
    files = best(f for name, data in files_of(*BOTH) if (f := saved_file(name, data)) is not None)
    other = replace(found.guardians[0], thumbprint="0" * 40, guardian="HGS", purpose="", has_key=False)
    assert compare(found.guardians, files).whole
    assert compare((*found.guardians, other), files).whole
    assert not compare((*found.guardians, replace(other, has_key=True)), files).whole
    assert not compare(found.guardians[:1], files).whole  # half of a guardian
    assert not compare((), files).whole
    assert compare([replace(g, has_key=False) for g in found.guardians], files).whole


def test_a_shielded_machine_may_be_locked_elsewhere(tmp_path: Path) -> None:
    found, _ = look(host_with_tpm(tmp_path, tpm_enabled=True, shielding_requested=True).images)
    finding = tpm(found, files_of(*BOTH))
    assert (finding.id, finding.severity, finding.params["what"]) == (
        *("capture.tpm", Severity.BLOCKER),
        "shielded",
    )


def test_they_are_found_on_any_volume_and_in_captures(tmp_path: Path) -> None:
    """In the folder that the script makes, and where an earlier run has copied them; what is given goes before."""
    host = host_with_tpm(tmp_path)
    (_, first), (_, second) = files_of(*BOTH)
    with disks.ntfs_volume(*host.place("D")) as volume:
        volume.write(f"Guardian\\{thumbprint(SIGNING)}.pfx", first)
        volume.write("Guardian\\readme.txt", b"x")
        volume.write(f"Rehost-HV01-2026-11-26\\host\\Guardian\\{thumbprint(ENCRYPTION).lower()}.PFX", second)
    found, _ = look(host.images)
    assert tpm(found).id == "capture.tpm-saved"
    assert documents(found.guardians, found.guardian_files) == {
        f"Guardian/{thumbprint(SIGNING)}.pfx": first,
        f"Guardian/{thumbprint(ENCRYPTION)}.pfx": second,
    }
    alien = tuple((f"/x/{thumbprint(a)}.pfx", whole(a)) for a in FOREIGN)
    found, _ = look(host.images, guardian_files=alien)
    assert len(documents(found.guardians, found.guardian_files)) == 2  # another host's keys are not copied
    assert len(found.guardian_files) == 4


@pytest.mark.parametrize("blob", [b"\x20" + bytes(11), stored(FOREIGN[0])], ids=["cut", "another"])
def test_a_damaged_store_is_named_and_nothing_counts(blob: bytes, tmp_path: Path) -> None:
    """The one that cannot be read may be the one that is needed."""
    host = host_with_tpm(tmp_path)
    blobs = {thumbprint(a): stored(a) for a in BOTH} | {"F" * 40: blob}
    hive = hives.make_hive(
        {f"{STORE}\\{name}": {"Blob": hives.binary(data)} for name, data in blobs.items()},
        base=software_hive(windows.SERVER_2016),
    )
    with disks.ntfs_volume(*host.place("C")) as volume:
        volume.write("Windows\\System32\\config\\SOFTWARE", hive)
    found, _ = look(host.images, guardian_files=files_of(*BOTH))
    assert found.guardians == ()
    assert any("Shielded VM Local Certificates" in p.where for p in found.problems)
    assert tpm(found).severity is Severity.BLOCKER
