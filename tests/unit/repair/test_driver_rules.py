"""Each thing that keeps a Windows from its disk behind another controller: found, remedied, and not seen where it is not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from rehost_builder.drivers.bundle import collect
from rehost_payload.formats.hive import DeleteKey, DeleteValue, SetValue, decode_strings
from rehost_payload.repair.diagnose import diagnose
from rehost_payload.repair.model import (
    CopyFile,
    EditHive,
    Finding,
    InjectDriver,
    Plan,
    Severity,
    Verdict,
)
from rehost_payload.repair.plan import plan
from rehost_payload.repair.verify_drivers import check_drivers
from rehost_payload.survey.model import Controller, Disk, Survey
from rehost_payload.system.hivex_edit import edit_hive
from support import driver_records, hives, infs, offline, packages, signing
from support.catalogs import make_catalog
from support.driver_image import make_driver
from support.driver_records import IN_BOX, Driver
from support.hives import binary, dword, multi_sz, sz
from support.offline import AHCI, NVME, SERIES_8, SMART_3100, controller, only, surveyed, tree
from support.pe_image import make_pe

pytestmark = pytest.mark.usefixtures("our_authority")

DISK_CLASS = "ControlSet001\\Control\\Class\\{4d36e967-e325-11ce-bfc1-08002be10318}"
SERVICES = "ControlSet001\\Services"
DRIVERS = "Windows/System32/drivers"
OTHERS = ("boot.", "esp.", "firmware.", "bios.")  # there is no system partition in these surveys


def found(survey: Survey) -> dict[str, Finding]:
    return {f.id: f for f in diagnose(survey).findings if not f.id.startswith(OTHERS)}


def assert_not_taken(folder: Path, reason: str) -> None:
    """The package in the folder is the right one for the card, and is left alone for this reason."""
    survey = surveyed(tree(), (SMART_3100,), [folder])
    finding = found(survey)["driver.missing"]
    assert not finding.repairable
    assert any("not taken" in line and reason in line for line in finding.evidence), finding.evidence
    assert plan(survey).actions == ()


def verdicts(survey: Survey) -> dict[str, Verdict]:
    return {c.id.removeprefix("verify."): c.verdict for c in check_drivers(survey, only(survey))}


def repaired(files: Mapping[str, bytes], actions: Plan) -> dict[str, bytes]:
    """The files after the actions, done here by hand for those that this file is about."""
    result = dict(files)
    for action in actions.actions:
        if isinstance(action, EditHive):
            result[offline.SYSTEM] = edit_hive(result[offline.SYSTEM], action.edits)
        elif isinstance(action, CopyFile):
            source = action.source_path.strip("\\").replace("\\", "/")
            target = action.path.strip("\\").replace("\\", "/")
            result[target] = next(v for k, v in result.items() if k.lower() == source.lower())
    return result


def mended(files: Mapping[str, bytes], *controllers: Controller) -> Survey:
    """The survey after what was planned; it has to be all right, and a second plan empty."""
    first = plan(surveyed(files, controllers))
    assert first.actions
    again = surveyed(repaired(files, first), controllers)
    assert not found(again), found(again)
    assert verdicts(again)["storage-driver"] is Verdict.PASS
    assert plan(again).actions == ()
    return again


@pytest.mark.parametrize("card", [AHCI, NVME, controller("1000:0060:1000:1013"), controller("1af4:1001")])
def test_control_a_windows_that_has_the_driver(card: Controller) -> None:
    survey = surveyed(tree(), (card,))
    assert found(survey) == {}
    assert set(verdicts(survey).values()) == {Verdict.PASS}
    assert plan(survey).actions == ()


def test_without_known_controller_nothing_is_said() -> None:
    survey = surveyed(tree(drivers=()), ())
    assert found(survey) == {}
    assert verdicts(survey) == {"storage-driver": Verdict.UNKNOWN}


# --- the driver is there, but not loaded at boot


def test_start_override_alone_is_removed() -> None:
    survey = surveyed(tree(), (SERIES_8,))
    (finding,) = found(survey).values()
    assert (finding.id, finding.severity, finding.repairable) == (
        "driver.not-at-boot",
        Severity.FATAL,
        True,
    )
    assert finding.params["service"] == "arcsas"
    assert "8805" in finding.params["controller"]
    assert any("StartOverride" in line for line in finding.evidence)
    assert verdicts(survey)["driver-service"] is Verdict.FAIL
    (action,) = plan(survey).actions
    assert isinstance(action, EditHive)
    assert action.edits == (DeleteKey(("ControlSet001", "Services", "arcsas", "StartOverride")),)
    drivers = only(survey).drivers
    assert drivers is not None
    assert action.before_sha256 == drivers.system_sha256
    mended(tree(), SERIES_8)


def test_every_control_set_is_mended() -> None:
    keys = {
        "ControlSet002\\Services\\arcsas": {"Type": dword(1), "Start": dword(3)},
        "ControlSet002\\Services\\arcsas\\StartOverride": {"0": dword(3)},
        "Select": {"LastKnownGood": dword(2)},
    }
    (action,) = plan(surveyed(tree(system=keys), (SERIES_8,))).actions
    assert isinstance(action, EditHive)
    assert {e.key[0] for e in action.edits} == {"ControlSet001", "ControlSet002"}
    assert SetValue(("ControlSet002", "Services", "arcsas"), "Start", 4, bytes(4)) in action.edits


@pytest.mark.parametrize("start", [1, 3, 4])
def test_a_driver_with_another_start_type(start: int) -> None:
    drivers = (*(replace(d, start=start) if d.service == "stornvme" else d for d in IN_BOX),)
    files = tree(drivers)
    assert set(found(surveyed(files, (NVME,)))) == {"driver.not-at-boot"}
    mended(files, NVME)


def test_an_override_of_zero_demotes_nothing() -> None:
    files = tree(system={f"{SERVICES}\\storahci\\StartOverride": {"0": dword(0)}})
    assert found(surveyed(files, (AHCI,))) == {}


def test_channels_of_an_ide_controller_and_filters_of_a_package() -> None:
    ide = controller("8086:7010", "010180")
    files = tree(system={f"{SERVICES}\\atapi\\StartOverride": {"0": dword(3)}})
    assert found(surveyed(files, (ide,)))["driver.not-at-boot"].params["service"] == "atapi"
    mended(files, ide)
    amd = controller("1022:7904", "010601")
    drivers = (
        *IN_BOX,
        Driver("amdsata", "amdsata.inf", ("PCI\\VEN_1022&DEV_7904&CC_0106",), upper_filters=("amdxata",)),
        Driver("amdxata", "amdsata.inf", (), override=True),
    )
    assert found(surveyed(tree(drivers), (amd,)))["driver.not-at-boot"].params["service"] == "amdxata"


# --- no driver


def test_no_driver_and_no_package_says_what_to_get() -> None:
    survey = surveyed(tree(), (SMART_3100,))
    (finding,) = found(survey).values()
    assert (finding.id, finding.severity, finding.repairable) == ("driver.missing", Severity.FATAL, False)
    assert "SmartPqi" in finding.params["service"]
    assert "Microchip" in finding.params["download"]
    assert plan(survey).actions == ()
    assert verdicts(survey) | {"driver-record": Verdict.FAIL, "storage-driver": Verdict.FAIL} == verdicts(
        survey
    )


def test_the_best_package_is_taken_and_the_others_explained(tmp_path: Path) -> None:
    packages.signed(tmp_path / "old")
    packages.signed(tmp_path / "new", infs.package(version="01/02/2024,2.0.0.0"))
    packages.signed(
        tmp_path / "later", infs.package(decoration="NTamd64.10.0...15063", version="1/1/2025,3.0.0.0")
    )
    brand_new = make_driver({"ntoskrnl.exe": ["KeOfTomorrow"]})
    packages.signed(tmp_path / "tomorrow", infs.package(version="01/02/2026,4.0.0.0"), brand_new)
    x86 = make_pe("x86", subsystem=1)
    packages.signed(tmp_path / "x86", infs.package(version="01/02/2026,5.0.0.0"), x86)
    survey = surveyed(tree(), (SMART_3100,), [tmp_path])
    (finding,) = found(survey).values()
    assert finding.id == "driver.missing"
    assert finding.repairable
    lines = "\n".join(finding.evidence)
    assert "new/exraid.inf: taken, exraid 2.0.0.0" in lines
    assert "old/exraid.inf: fits as well" in lines
    assert "15063" in lines
    assert "KeOfTomorrow" in lines
    assert "it is for x86" in lines
    (action,) = plan(survey).actions
    assert isinstance(action, InjectDriver)
    assert (Path(action.package).name, action.service, action.build, action.product_type) == (
        "new",
        "exraid",
        14393,
        3,
    )
    assert action.hardware_ids[0] == "PCI\\VEN_9005&DEV_028F&SUBSYS_08009005&REV_01"


def test_an_unsigned_package_without_catalog_is_not_taken(tmp_path: Path) -> None:
    (packages.signed(tmp_path / "p") / "exraid.cat").unlink()
    finding = found(surveyed(tree(), (SMART_3100,), [tmp_path]))["driver.missing"]
    assert not finding.repairable
    assert "not signed" in "\n".join(finding.evidence)


# --- what vouches for a package


SOUND = packages.files


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            lambda: {"exraid.inf": infs.package().encode("utf-16")},
            "exraid.inf has other line endings than were signed",
        ),
        (
            lambda: {"exraid.sys": make_driver({"ntoskrnl.exe": ["IoCreateDevice"]}, fill=b"another build")},
            "exraid.sys is not the file that was signed",
        ),
        (
            lambda: {"exraid.cat": packages.files(image=make_driver(fill=b"other"))["exraid.cat"]},
            "exraid.sys is not the file that was signed",
        ),
        (lambda: {"exraid.cat": b"catalog"}, "exraid.cat cannot be read"),
        (lambda: {"exraid.cat": SOUND()["exraid.cat"][:-1]}, "exraid.cat cannot be read"),
        (
            lambda: {
                "exraid.cat": SOUND()["exraid.cat"].replace(
                    "RS1".encode("utf-16-le"), "RS9".encode("utf-16-le")
                )
            },
            "the content was changed after it was signed",
        ),
    ],
)
def test_a_package_that_its_catalog_does_not_vouch_for_is_not_taken(
    changes: Callable[[], dict[str, bytes]], reason: str, tmp_path: Path
) -> None:
    packages.signed(tmp_path / "p")
    for name, data in changes().items():
        (tmp_path / "p" / name).write_bytes(data)
    assert_not_taken(tmp_path, reason)


@pytest.mark.parametrize(
    ("signer", "reason"),
    [
        (signing.attested, "is signed by attestation, without Microsoft's tests"),
        (signing.test_signer, "is test-signed"),
        (lambda: signing.vendor(2020, "Microsoft Code Verification Root"), "is signed by the vendor, not by"),
        (signing.vendor, "is not signed by Microsoft"),
    ],
)
def test_a_package_of_a_signer_that_windows_refuses_is_not_taken(
    signer: Callable[[], signing.Authority], reason: str, tmp_path: Path
) -> None:
    packages.put(tmp_path / "p", signer=signer())
    finding = found(surveyed(tree(), (SMART_3100,), [tmp_path]))["driver.missing"]
    assert not finding.repairable
    assert any("not taken" in line and reason in line for line in finding.evidence), finding.evidence


@pytest.mark.parametrize("secure_boot", [True, False, None])
def test_with_secure_boot_on_what_the_vendor_alone_has_signed_is_not_taken(
    secure_boot: bool | None, tmp_path: Path
) -> None:
    packages.put(tmp_path / "p", signer=signing.vendor(2014, "Microsoft Code Verification Root"))
    survey = surveyed(tree(), (SMART_3100,), [tmp_path])
    survey = replace(survey, firmware=replace(survey.firmware, secure_boot=secure_boot))
    finding = found(survey)["driver.missing"]
    assert finding.repairable is not bool(secure_boot)
    lines = "\n".join(finding.evidence)
    assert ("not taken, Secure Boot is on" in lines) is bool(secure_boot)
    packages.signed(tmp_path / "older", infs.package(version="01/02/2010,0.0.0.1"))
    survey = surveyed(tree(), (SMART_3100,), [tmp_path])
    survey = replace(survey, firmware=replace(survey.firmware, secure_boot=secure_boot))
    (action,) = plan(survey).actions
    assert isinstance(action, InjectDriver)
    assert Path(action.package).name == ("older" if secure_boot else "p")


def test_the_next_best_that_is_sound_is_taken(tmp_path: Path) -> None:
    packages.signed(tmp_path / "sound")
    packages.signed(tmp_path / "newer", infs.package(version="01/02/2024,2.0.0.0"))
    (tmp_path / "newer" / "exraid.sys").write_bytes(
        make_driver({"ntoskrnl.exe": ["IoCreateDevice"]}, fill=b"!")
    )
    (action,) = plan(surveyed(tree(), (SMART_3100,), [tmp_path])).actions
    assert isinstance(action, InjectDriver)
    assert Path(action.package).name == "sound"


def unknown_signer() -> signing.Authority:
    top = signing.certify("Microsoft Example Root", ca=True, in_file=False, key=5)
    return signing.certify("Microsoft Example Publisher", top, usages=(signing.WHQL,), key=6)


def test_a_signer_that_is_not_known_is_a_warning(tmp_path: Path) -> None:
    packages.put(tmp_path / "p", signer=unknown_signer())
    survey = surveyed(tree(), (SMART_3100,), [tmp_path])
    assert set(found(survey)) == {"driver.missing", "driver.package-unverified"}
    warning = found(survey)["driver.package-unverified"]
    assert warning.severity is Severity.WARNING
    assert "signed in the name of Microsoft by a certificate not known here" in warning.evidence[0]
    (action,) = plan(survey).actions
    assert isinstance(action, InjectDriver)


def test_a_sound_package_has_no_warning_and_its_signer_is_named(tmp_path: Path) -> None:
    packages.signed(tmp_path / "p")
    finding = found(surveyed(tree(), (SMART_3100,), [tmp_path]))
    assert set(finding) == {"driver.missing"}
    assert any(f"signed by {signing.PUBLISHER}" in line for line in finding["driver.missing"].evidence)


def test_consent_for_what_is_not_signed_by_microsoft(tmp_path: Path) -> None:
    """As --allow-unverified-drivers of the builder: nothing but the signature may be missing."""
    packages.put(tmp_path / "p", signer=signing.vendor())
    (tmp_path / "allow-unverified.txt").touch()
    survey = surveyed(tree(), (SMART_3100,), [tmp_path])
    assert set(found(survey)) == {"driver.missing", "driver.package-unverified"}
    assert found(survey)["driver.missing"].repairable
    assert "allows it" in found(survey)["driver.package-unverified"].evidence[-1]
    packages.put(tmp_path / "p", signer=signing.vendor(), sys=packages.driver("x86"))
    finding = found(surveyed(tree(), (SMART_3100,), [tmp_path]))["driver.missing"]
    assert not finding.repairable
    assert any("is for x86" in line for line in finding.evidence)


def test_the_builders_manifest_is_checked_and_not_believed(tmp_path: Path) -> None:
    packages.put(tmp_path / "in" / "p", signer=signing.vendor())
    place = tmp_path / "medium"
    (one,) = collect([tmp_path / "in"], place, allow_unverified=True).packages
    survey = surveyed(tree(), (SMART_3100,), [place])
    assert set(found(survey)) == {"driver.missing", "driver.package-unverified"}
    # a file that is not what the builder put there
    (place / one.folder / "exraid.sys").write_bytes(packages.driver(fill=b"changed"))
    finding = found(surveyed(tree(), (SMART_3100,), [place]))["driver.missing"]
    assert not finding.repairable
    assert any("exraid.sys is not the file that the medium was made with" in x for x in finding.evidence)
    # and no consent without the manifest
    packages.put(place / one.folder, signer=signing.vendor())
    (place / "packages.json").unlink()
    assert not found(surveyed(tree(), (SMART_3100,), [place]))["driver.missing"].repairable


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "packages": [1]}', "\xff"])
def test_a_manifest_that_is_none_is_said(text: str, tmp_path: Path) -> None:
    packages.signed(tmp_path / "p")
    (tmp_path / "packages.json").write_bytes(text.encode("latin-1"))
    survey = surveyed(tree(), (SMART_3100,), [tmp_path])
    assert set(found(survey)) == {"driver.missing", "driver.packages-left-out"}
    assert found(survey)["driver.missing"].repairable  # it is sound by itself


def test_folders_and_archives_that_are_left_out_are_named(tmp_path: Path) -> None:
    packages.signed(tmp_path / "p")
    (tmp_path / "SmartPQI.zip").write_bytes(b"PK")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "Setup.EXE").write_bytes(b"MZ")
    (tmp_path / "p" / "tool.exe").write_bytes(b"MZ")  # beside an INF: a part of that package
    survey = surveyed(tree(), (AHCI,), [tmp_path, tmp_path / "nothing", tmp_path / "SmartPQI.zip"])
    (finding,) = found(survey).values()
    assert (finding.id, finding.severity, finding.params) == (
        "driver.packages-left-out",
        Severity.WARNING,
        {"count": "4"},
    )
    assert [line.rpartition(": ")[0].removeprefix(f"{tmp_path}/") for line in finding.evidence]
    lines = "\n".join(finding.evidence)
    assert f"{tmp_path}/nothing: there is no such folder" in lines
    assert f"{tmp_path}/SmartPQI.zip: it is no folder" in lines
    assert f"{tmp_path}/SmartPQI.zip: an archive, which is not opened here" in lines
    assert f"{tmp_path}/x/Setup.EXE: an archive" in lines
    assert diagnose(surveyed(tree(), (AHCI,), [tmp_path / "nothing"])).findings  # no controller needs one


def inf_of(**parts: str) -> bytes:
    return infs.encoded(infs.package(**parts))


FILTER = infs.SERVICE.replace(
    "[Card_Service]", "AddService = exfilter,, Filter_Service\n[Card_Service]", 1
) + (
    "[Filter_Service]\nServiceType = 1\nStartType = 0\nErrorControl = 1\nServiceBinary = %12%\\exfilter.sys\n"
)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (lambda: packages.files(image=make_pe("x86", subsystem=1)), "is for x86"),
        (lambda: packages.files(inf_of(decoration="NTx86")), "is for x86, not for amd64"),
        (lambda: packages.files(inf_of(decoration="NTamd64.10.0...15063")), "for build 15063 and later"),
        (lambda: packages.files(inf_of(extra_version="ExtensionId = {1}")), "an Extension INF"),
        (lambda: packages.files(inf_of(service="[Card_Inst.Services]\nAddService = ,2")), "null driver"),
        # a second service whose file is not there
        (
            lambda: packages.files(inf_of(service=FILTER, install="CopyFiles = @exraid.sys, @exfilter.sys")),
            "exfilter.sys is missing",
        ),
        (
            lambda: packages.files(inf_of(install="CopyFiles = @exraid.sys, @..\\..\\config\\SYSTEM")),
            "leads out",
        ),
        (lambda: packages.files(inf_of(install="CopyFiles = @C:\\exraid.sys")), "is absolute"),
        (
            lambda: packages.files(
                inf_of().replace(*(t.encode("utf-16-le") for t in ("sys = 1", "sys=1,..")))
            ),
            "leads out",
        ),
    ],
)
def test_traps_of_packages_are_refused_on_the_server(
    files: Callable[[], dict[str, bytes]], reason: str, tmp_path: Path
) -> None:
    """Each is signed soundly: what is wrong with it is the package itself."""
    (tmp_path / "p").mkdir()
    for name, data in files().items():
        (tmp_path / "p" / name).write_bytes(data)
    assert_not_taken(tmp_path, reason)


def test_a_package_that_was_tested_for_no_server_is_taken_and_that_is_said(tmp_path: Path) -> None:
    image = packages.driver()
    inf = inf_of()
    catalog = make_catalog(
        {"exraid.inf": packages.digest(inf), "exraid.sys": packages.digest(image)}, {"OS": "_v100_X64_Vb"}
    )
    packages.put(tmp_path / "p", inf=inf, sys=image, catalog=catalog)
    finding = found(surveyed(tree(), (SMART_3100,), [tmp_path]))["driver.missing"]
    assert finding.repairable
    assert any("no server, and Server 2016 and later may refuse it" in line for line in finding.evidence)


# --- the judge looks at the catalog that Windows would


CATROOT = "Windows/System32/CatRoot/{F750E6C3-38EE-11D1-85E5-00C04FC295EE}"
VIRTIO = controller("1af4:1001")


def signature(survey: Survey) -> tuple[Verdict, str]:
    (check,) = (c for c in check_drivers(survey, only(survey)) if c.id == "verify.driver-signature")
    return check.verdict, check.reason


def catalog_for(image: bytes, signer: signing.Authority | None = None) -> bytes:
    return make_catalog({"viostor.sys": packages.digest(image)}, signer=signer)


IMAGE = make_driver({"ntoskrnl.exe": ["IoCreateDevice"]}, fill=b"theirs")
OTHER = make_driver({"ntoskrnl.exe": ["IoCreateDevice"]}, fill=b"another")


@pytest.mark.parametrize(
    ("catalog", "image", "verdict", "words"),
    [
        (lambda: catalog_for(IMAGE), IMAGE, Verdict.PASS, f"signed by {signing.PUBLISHER}"),
        (lambda: catalog_for(OTHER), IMAGE, Verdict.FAIL, "its hash is not in the catalog"),
        (lambda: b"catalog", IMAGE, Verdict.FAIL, "catalog"),
        (lambda: None, IMAGE, Verdict.FAIL, "neither a signature in the file nor a catalog"),
        (
            lambda: make_catalog({"a": packages.digest(IMAGE)}, signed=False),
            IMAGE,
            Verdict.FAIL,
            "is not signed",
        ),
        (
            lambda: catalog_for(IMAGE, unknown_signer()),
            IMAGE,
            Verdict.UNKNOWN,
            "is valid (checked); it leads to a certificate that bears Microsoft's name",
        ),
        # a signature inside, with and without a catalog beside it
        (
            lambda: None,
            signing.with_signature(IMAGE, signing.whql()),
            Verdict.PASS,
            "the signature inside it",
        ),
        (
            lambda: None,
            signing.with_signature(IMAGE, signing.whql(), of=OTHER),
            Verdict.FAIL,
            "the file was changed after it was signed",
        ),
        (
            lambda: catalog_for(OTHER),
            signing.with_signature(IMAGE, signing.whql()),
            Verdict.PASS,
            "inside it",
        ),
    ],
)
def test_the_signature_of_an_installed_driver(
    catalog: Callable[[], bytes | None], image: bytes, verdict: Verdict, words: str
) -> None:
    files = tree(files={f"{CATROOT}/oem0.cat": catalog(), f"{DRIVERS}/viostor.sys": image})
    survey = surveyed(files, (VIRTIO,))
    assert signature(survey)[0] is verdict
    assert words in signature(survey)[1]
    whole = verdicts(survey)["storage-driver"]
    assert whole is (Verdict.FAIL if verdict is Verdict.FAIL else Verdict.PASS)


def test_an_old_survey_says_that_it_was_not_checked() -> None:
    survey = surveyed(tree(), (VIRTIO,))
    drivers = only(survey).drivers
    assert drivers is not None
    older = offline.without(
        survey,
        packages=tuple(replace(p, catalog_facts=None) for p in drivers.packages),
        binaries=tuple(replace(b, digests=(), signer=None) for b in drivers.binaries),
    )
    assert signature(older)[0] is Verdict.UNKNOWN
    assert "neither its hash nor a signature was checked" in signature(older)[1]


def test_windows_own_driver_comes_before_a_package(tmp_path: Path) -> None:
    text = infs.package(models=r"%Card.DeviceDesc% = Card_Inst, PCI\VEN_9005&DEV_028D&SUBSYS_05529005")
    packages.signed(tmp_path / "p", text)
    (action,) = plan(surveyed(tree(), (SERIES_8,), [tmp_path])).actions
    assert isinstance(action, EditHive)


def test_a_staged_package_is_no_driver(tmp_path: Path) -> None:
    staged = Driver("exraid", "oem9.inf", ("PCI\\VEN_9005&DEV_028F",), original="exraid.inf", complete=False)
    survey = surveyed(tree((*IN_BOX, staged)), (SMART_3100,), [packages.signed(tmp_path / "p")])
    finding = found(survey)["driver.missing"]
    assert any("staged only" in line for line in finding.evidence)
    assert verdicts(survey)["driver-record"] is Verdict.FAIL


def test_a_card_that_was_not_named() -> None:
    unknown = replace(SERIES_8, subsystem_vendor="", subsystem_device="")
    survey = surveyed(tree(), (unknown,))
    (finding,) = found(survey).values()
    assert (finding.id, finding.severity) == ("driver.card-unknown", Severity.WARNING)
    assert verdicts(survey)["storage-driver"] is Verdict.UNKNOWN


def test_a_configuration_that_excludes_the_card() -> None:
    own = "PCI\\VEN_1022&DEV_7901&SUBSYS_B0051458"
    drivers = tuple(replace(d, excluded=(own,)) if d.service == "storahci" else d for d in IN_BOX)
    survey = surveyed(tree(drivers), (AHCI,))
    assert any("excludes" in line for line in found(survey)["driver.missing"].evidence)
    assert verdicts(survey)["driver-record"] is Verdict.FAIL
    other = controller("1022:7901:1458:b006", "010601")
    assert found(surveyed(tree(drivers), (other,))) == {}


def test_a_newer_package_where_the_windows_own_driver_is_in_doubt(tmp_path: Path) -> None:
    """SmartSAMD of Windows names every 9005:028F, also cards that are years younger."""
    ultra = controller("9005:028f:9005:1400")
    generic = Driver("SmartSAMD", "smartsamd.inf", ("PCI\\VEN_9005&DEV_028F",), version=(1, 50, 0, 0))
    packages.signed(tmp_path / "p", infs.package(version="01/02/2024,1016.2.0.1"))
    survey = surveyed(tree((*IN_BOX, generic)), (ultra,), [tmp_path])
    assert set(found(survey)) == {"driver.better-package"}
    assert isinstance(plan(survey).actions[0], InjectDriver)
    newer = replace(generic, version=(1016, 2, 0, 1))
    assert found(surveyed(tree((*IN_BOX, newer)), (ultra,), [tmp_path])) == {}
    assert found(surveyed(tree((*IN_BOX, generic)), (ultra,))) == {}


# --- the driver's file


def test_a_lost_file_comes_back_from_the_driver_store() -> None:
    store = driver_records.package_name(next(d for d in IN_BOX if d.service == "stornvme"))
    good = make_driver({"ntoskrnl.exe": ["IoCreateDevice"]}, fill=b"store")
    files = tree(
        files={
            f"{DRIVERS}/stornvme.sys": None,
            f"Windows/System32/DriverStore/FileRepository/{store}/stornvme.sys": good,
        }
    )
    survey = surveyed(files, (NVME,))
    finding = found(survey)["driver.file-missing"]
    assert finding.repairable
    assert isinstance(plan(survey).actions[0], CopyFile)
    mended(files, NVME)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (None, "is missing"),
        (b"", "empty"),
        (make_pe("x86", subsystem=1), "x86"),
        (make_pe("x64"), "no driver"),
        (make_driver({"ntoskrnl.exe": ["KeOfTomorrow"]}), "KeOfTomorrow"),
        (make_driver({"newport.sys": ["X"]}), "newport.sys"),
    ],
)
def test_a_file_that_cannot_be_loaded(image: bytes | None, words: str) -> None:
    survey = surveyed(tree(files={f"{DRIVERS}/stornvme.sys": image}), (NVME,))
    finding = found(survey)["driver.file-missing"]
    assert not finding.repairable
    assert words in "\n".join(finding.evidence)
    assert verdicts(survey)["driver-file"] is Verdict.FAIL


def test_a_missing_service() -> None:
    drivers = tuple(replace(d, service="stornvme2") if d.service == "stornvme" else d for d in IN_BOX)
    files = tree(drivers)
    files[offline.SYSTEM] = edit_hive(
        files[offline.SYSTEM], [DeleteKey(("ControlSet001", "Services", "stornvme2"))]
    )
    survey = surveyed(files, (NVME,))
    assert "does not exist" in "\n".join(found(survey)["driver.file-missing"].evidence)
    assert verdicts(survey)["driver-service"] is Verdict.FAIL


def test_an_installed_driver_without_signature() -> None:
    catalog = "Windows/System32/CatRoot/{F750E6C3-38EE-11D1-85E5-00C04FC295EE}/oem0.cat"
    survey = surveyed(tree(files={catalog: None}), (controller("1af4:1001"),))
    assert "CatRoot" in "\n".join(found(survey)["driver.file-missing"].evidence)
    assert verdicts(survey)["driver-signature"] is Verdict.FAIL
    assert verdicts(survey)["storage-driver"] is Verdict.FAIL


# --- data controllers


def two_disks(survey: Survey, address: str) -> Survey:
    first = survey.disks[0]
    table = replace(first.table, disk_guid="0" * 36, partitions=())
    second = Disk("disk1", "/dev/sdb", 1 << 40, 512, table, controller=address)
    return replace(survey, disks=(first, second))


def test_a_data_controller_is_a_warning() -> None:
    data = replace(SMART_3100, address="0000:04:00.0")
    survey = two_disks(surveyed(tree(), (AHCI, data)), data.address)
    (finding,) = found(survey).values()
    assert (finding.id, finding.severity) == ("driver.missing-data", Severity.WARNING)
    assert finding.params["disks"] == "disk1"


def test_a_data_controller_needs_no_boot_start() -> None:
    data = replace(SERIES_8, address="0000:04:00.0")
    assert found(two_disks(surveyed(tree(), (AHCI, data)), data.address)) == {}


def test_a_controller_without_disks_is_nobodys_business() -> None:
    assert found(surveyed(tree(), (AHCI, replace(SMART_3100, address="0000:04:00.0")))) == {}


def test_one_package_for_two_controllers_is_one_injection(tmp_path: Path) -> None:
    data = replace(controller("9005:028f:9005:0900"), address="0000:04:00.0")
    survey = two_disks(surveyed(tree(), (SMART_3100, data), [packages.signed(tmp_path / "p")]), data.address)
    (action,) = plan(survey).actions
    assert isinstance(action, InjectDriver)
    assert {"PCI\\VEN_9005&DEV_028F&SUBSYS_08009005", "PCI\\VEN_9005&DEV_028F&SUBSYS_09009005"} <= set(
        action.hardware_ids
    )


def test_behind_a_volume_management_device() -> None:
    vmd = controller("8086:467f:1043:8694", "010400", "0000:00:0e.0")
    nvme = replace(NVME, address="10000:e1:00.0")
    survey = surveyed(tree(), (nvme, vmd))
    assert "8086:467f" in found(survey)["driver.missing"].params["controller"]
    assert verdicts(survey)["storage-driver"] is Verdict.FAIL


# --- the stack above


def test_a_dangling_class_filter_goes_with_its_service() -> None:
    keys = {
        DISK_CLASS: {"LowerFilters": multi_sz("iaStorF", "EhStorClass")},
        f"{SERVICES}\\iaStorF": {
            "Type": dword(1),
            "Start": dword(0),
            "ErrorControl": dword(1),
            "ImagePath": sz("System32\\drivers\\iaStorF.sys"),
        },
    }
    files = tree(system=keys)
    survey = surveyed(files, (AHCI,))
    assert set(found(survey)) == {"driver.filter-dangling"}
    assert verdicts(survey)["driver-filters"] is Verdict.FAIL
    again = mended(files, AHCI)
    drivers = only(again).drivers
    assert drivers is not None
    assert next(f for f in drivers.class_filters if f.key.startswith("{4d36e967")).lower == ("EhStorClass",)


def test_two_dangling_filters_of_one_list() -> None:
    files = tree(system={DISK_CLASS: {"LowerFilters": multi_sz("one", "EhStorClass", "two")}})
    (action,) = plan(surveyed(files, (AHCI,))).actions
    assert isinstance(action, EditHive)
    (edit,) = action.edits
    assert isinstance(edit, SetValue)
    assert decode_strings(edit.data) == ("EhStorClass",)
    mended(files, AHCI)


def test_a_list_of_nothing_but_dangling_filters_goes() -> None:
    scsi = "ControlSet001\\Control\\Class\\{4d36e97b-e325-11ce-bfc1-08002be10318}"
    (action,) = plan(surveyed(tree(system={scsi: {"UpperFilters": multi_sz("gone")}}), (AHCI,))).actions
    assert isinstance(action, EditHive)
    (edit,) = action.edits
    assert isinstance(edit, DeleteValue)


def test_a_foreign_filter_that_works_stays() -> None:
    keys = {
        DISK_CLASS: {"LowerFilters": multi_sz("EhStorClass", "stdcfltn")},
        f"{SERVICES}\\stdcfltn": {
            "Type": dword(1),
            "Start": dword(0),
            "ErrorControl": dword(1),
            "ImagePath": sz("system32\\DRIVERS\\stdcfltn.sys"),
        },
    }
    assert found(surveyed(tree(system=keys, files={f"{DRIVERS}/stdcfltn.sys": make_driver()}), (AHCI,))) == {}


def test_device_filters_count_where_the_device_is_in_this_machine() -> None:
    ids = "VEN_1022&DEV_7901&SUBSYS_B0051458&REV_01"
    here = {f"ControlSet001\\Enum\\PCI\\{ids}\\3&1": {"UpperFilters": multi_sz("gone")}}
    elsewhere = {"ControlSet001\\Enum\\PCI\\VEN_8086&DEV_2829\\3&1": {"UpperFilters": multi_sz("gone")}}
    assert set(found(surveyed(tree(system=here), (AHCI,)))) == {"driver.filter-dangling"}
    mended(tree(system=here), AHCI)
    assert found(surveyed(tree(system=elsewhere), (AHCI,))) == {}


@pytest.mark.parametrize("service", ["pci", "partmgr", "volume"])
def test_a_link_of_the_chain_that_is_not_loaded(service: str) -> None:
    files = tree(system={f"{SERVICES}\\{service}\\StartOverride": {"0": dword(3)}})
    survey = surveyed(files, (AHCI,))
    assert set(found(survey)) == {"driver.chain-broken"}
    assert verdicts(survey)["driver-chain"] is Verdict.FAIL
    mended(files, AHCI)


def test_a_lost_link_of_the_chain() -> None:
    survey = surveyed(tree(files={f"{DRIVERS}/volmgr.sys": None}), (AHCI,))
    finding = found(survey)["driver.chain-broken"]
    assert not finding.repairable
    assert verdicts(survey)["driver-chain"] is Verdict.FAIL


@pytest.mark.parametrize(
    ("error_control", "owner", "severity", "repairable"),
    [
        (1, "oem5.inf", Severity.WARNING, False),
        (3, "oem5.inf", Severity.FATAL, True),
        (3, "spaceport.inf", Severity.FATAL, False),
    ],
)
def test_a_boot_driver_without_file(
    error_control: int, owner: str, severity: Severity, repairable: bool
) -> None:
    service = {
        "Type": dword(1),
        "Start": dword(0),
        "ErrorControl": dword(error_control),
        "ImagePath": sz("System32\\drivers\\backup.sys"),
        "Owners": multi_sz(owner),
    }
    files = tree(system={f"{SERVICES}\\backup": service})
    survey = surveyed(files, (AHCI,))
    (finding,) = found(survey).values()
    assert (finding.id, finding.severity, finding.repairable) == (
        "driver.boot-file-missing",
        severity,
        repairable,
    )
    assert (verdicts(survey)["driver-chain"] is Verdict.FAIL) is (severity is Severity.FATAL)
    if repairable:
        mended(files, AHCI)


# --- settings


def test_pending_servicing() -> None:
    survey = surveyed(tree(files={"Windows/WinSxS/pending.xml": b"<x/>"}), (AHCI,))
    assert set(found(survey)) == {"windows.pending-servicing"}
    temporary = {
        "ControlSet001\\Control\\Session Manager": {
            "PendingFileRenameOperations": multi_sz("\\??\\C:\\Temp\\a.tmp")
        }
    }
    assert found(surveyed(tree(system=temporary), (AHCI,))) == {}


def test_policies() -> None:
    top = "Policies\\Microsoft\\Windows\\DeviceInstall\\Restrictions"
    software = "Windows/System32/config/SOFTWARE"
    for values, expected in (
        ({"DenyUnspecified": dword(1)}, {"windows.device-policy"}),
        ({"DenyUnspecified": dword(0), "AllowAdminInstall": dword(1)}, set()),
    ):
        files = tree()
        files[software] = hives.make_hive({top: values}, files[software])
        assert set(found(surveyed(files, (AHCI,)))) == expected


@pytest.mark.parametrize("mbr", [False, True])
def test_the_letter_of_the_old_disk(mbr: bool) -> None:
    right = (
        b"\x01\x02\x03\x04" + (1 << 20).to_bytes(8, "little") if mbr else b"DMIO:ID:" + offline.GUID.bytes_le
    )
    wrong = right[:-9] + b"\xff" + right[-8:]
    name = "\\DosDevices\\C:"

    def survey(value: bytes) -> tuple[dict[str, bytes], Survey]:
        files = tree(system={"MountedDevices": {name: binary(value)}})
        return files, surveyed(files, (AHCI,), mounted=right)

    assert found(survey(right)[1]) == {}
    assert found(survey("\\??\\USBSTOR".encode("utf-16-le"))[1]) == {}
    files, moved = survey(wrong)
    assert set(found(moved)) == {"windows.letter-elsewhere"}
    again = surveyed(repaired(files, plan(moved)), (AHCI,), mounted=right)
    assert found(again) == {}
    assert not [a for a in plan(again).actions if isinstance(a, EditHive)]
    # a volume that must not be written is not written for this, and nothing else is held up by it
    dirty = replace(moved, volumes=(replace(moved.volumes[0], journal_unclean=True),))
    assert not found(dirty)["windows.letter-elsewhere"].repairable
    assert not [a for a in plan(dirty).actions if isinstance(a, EditHive)]


def test_the_letter_of_a_windows_that_is_not_on_c() -> None:
    files = tree(system={"MountedDevices": {"\\DosDevices\\C:": binary(b"DMIO:ID:" + bytes(16))}})
    software = "Windows/System32/config/SOFTWARE"
    files[software] = hives.make_hive(
        {"Microsoft\\Windows NT\\CurrentVersion": {"SystemRoot": sz("D:\\Windows")}}, files[software]
    )
    assert found(surveyed(files, (AHCI,))) == {}


def test_san_policy_matters_where_there_are_data_disks() -> None:
    files = tree(system={f"{SERVICES}\\partmgr\\Parameters": {"SanPolicy": dword(2)}})
    survey = surveyed(files, (AHCI,))
    assert found(survey) == {}
    first = survey.disks[0]
    part = replace(first.table.partitions[0], id="disk1p1")
    data = replace(first, id="disk1", path="/dev/sdb", table=replace(first.table, partitions=(part,)))
    assert "disk.san-policy" in found(replace(survey, disks=(first, data)))


def test_a_stop_error_stays_on_the_screen_where_drivers_are_changed() -> None:
    keys = {
        offline.CRASH_CONTROL: {"AutoReboot": dword(1)},
        "ControlSet002\\Control\\CrashControl": {"AutoReboot": dword(1)},
        "ControlSet002\\Services\\arcsas": {"Type": dword(1), "Start": dword(0)},
    }
    files = tree(system=keys)
    survey = surveyed(files, (SERIES_8,))
    assert set(found(survey)) == {"driver.not-at-boot", "windows.crash-reboot"}
    (action,) = plan(survey).actions
    assert isinstance(action, EditHive)
    for number in (1, 2):
        key = (f"ControlSet{number:03d}", "Control", "CrashControl")
        assert SetValue(key, "AutoReboot", 4, bytes(4)) in action.edits
    mended(files, SERIES_8)


def test_where_no_driver_is_changed_the_restart_is_left_alone() -> None:
    files = tree(system={offline.CRASH_CONTROL: {"AutoReboot": dword(1)}})
    assert found(surveyed(files, (AHCI,))) == {}
    filters = tree(system={offline.CRASH_CONTROL: {"AutoReboot": dword(0)}})
    assert "windows.crash-reboot" not in found(surveyed(filters, (SERIES_8,)))


# --- Windows 7 and Server 2008 R2


def test_the_database_of_windows_7() -> None:
    release = offline.windows.Release("Windows Server 2008 R2", 7601, 17514, "")
    key = "ControlSet001\\Control\\CriticalDeviceDatabase\\PCI#VEN_9005&DEV_028F"
    driver = Driver("exraid", "oem1.inf", ("PCI\\VEN_9005&DEV_028F",), override=False)
    files = tree((driver,), {key: {"Service": sz("exraid"), "ClassGUID": sz("{x}")}}, release=release)
    files[offline.SYSTEM] = edit_hive(files[offline.SYSTEM], [DeleteKey(("DriverDatabase",))])
    survey = surveyed(files, (SMART_3100,))
    assert found(survey) == {}
    assert verdicts(survey)["storage-driver"] is Verdict.PASS
    survey = surveyed(files, (AHCI,))
    assert set(found(survey)) == {"driver.missing"}
    assert verdicts(survey)["driver-record"] is Verdict.FAIL
