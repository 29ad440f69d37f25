"""Real catalogs: what they name, and whether they hold the INF beside them."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from asn1crypto import cms

from rehost_payload.drivers.check import check_package
from rehost_payload.formats.catalog import parse_catalog
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.pkcs7 import Trust
from support.corpus import corpus

FOLDER = corpus("inf")
CATALOGS = sorted(p for p in FOLDER.rglob("*.cat") if p.stat().st_size > 1)


@pytest.mark.parametrize("path", CATALOGS, ids=lambda p: p.name)
def test_every_catalog_is_read(path: Path) -> None:
    catalog = parse_catalog(path.read_bytes())
    assert catalog.members
    assert catalog.signature is not None
    assert catalog.signature.problem is None
    assert catalog.signature.trust in (Trust.MICROSOFT, Trust.CROSS_SIGNED)
    assert all(len(m.digest) in (20, 32) and m.file for m in catalog.members)


def test_what_is_no_catalog() -> None:
    with pytest.raises(FormatError):
        parse_catalog((FOLDER / "odd" / "mpixia64.cat").read_bytes())


def test_server_attribute() -> None:
    catalog = parse_catalog((FOLDER / "intel-rst-16" / "iaStorAC.cat").read_bytes())
    assert catalog.attributes["OS"] == "Server_v100_X64_RS1,_v100_X64_RS3,_v100_X64_RS4"
    assert catalog.signature is not None
    assert catalog.signature.whql
    assert catalog.signature.chain == (
        "Microsoft Windows Hardware Compatibility Publisher",
        "Microsoft Windows Third Party Component CA 2012",
        "Microsoft Root Certificate Authority 2010",
    )


@pytest.mark.parametrize("path", CATALOGS, ids=lambda p: p.name)
def test_timestamps_as_asn1crypto_reads_them(path: Path) -> None:
    """All have one, of either kind; one of 2007 is over MD5, which proves nothing any more."""
    signature = parse_catalog(path.read_bytes()).signature
    assert signature is not None
    stamp = signature.timestamp
    assert stamp is not None
    if path.name == "aec67162.cat":
        assert stamp.problem == "its hash is of a kind that is not known (md5)"
    else:
        assert (stamp.by, stamp.problem) == ("Microsoft Time-Stamp Service", None)
    info = cms.ContentInfo.load(path.read_bytes())["content"]["signer_infos"][0]
    (attribute,) = info["unsigned_attrs"]
    (value,) = attribute["values"]
    if attribute["type"].native == "counter_signature":
        (time,) = (a["values"].native[0] for a in value["signed_attrs"] if a["type"].native == "signing_time")
    else:
        time = value["content"]["encap_content_info"]["content"].parsed["gen_time"].native
    assert stamp.day == time.date()
    assert signature.issued <= stamp.day <= signature.expires < date.today()


@pytest.mark.parametrize("path", CATALOGS, ids=lambda p: p.name)
def test_no_byte_of_a_real_catalog_can_be_changed(path: Path) -> None:
    """Of the hash of a member, and of what says for which Windows it is."""
    data = path.read_bytes()
    for what in (parse_catalog(data).members[0].digest, "OSAttr".encode("utf-16-be")):
        at = data.rindex(what)
        changed = parse_catalog(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert changed.signature is not None
        assert changed.signature.problem == "the content was changed after it was signed"


# as measured: signed as they are, only with CRLF, altered
@pytest.mark.parametrize(
    ("inf", "text"),
    [
        ("intel-rst-16/iaStorAC.inf", "has the hash that the catalog holds"),
        ("odd/iaStorSwExt.inf", "has the hash that the catalog holds"),
        ("adaptec-arcsas/arcsas.inf", "has other line endings than were signed"),
        ("amd-sata/amd_sata.inf", "has other line endings than were signed"),
        ("odd/MegaSR1.inf", "has other line endings than were signed"),
    ],
)
def test_infs_in_their_catalogs(inf: str, text: str) -> None:
    report = check_package(FOLDER / inf)
    own = [c.text for c in report.checks if c.file == report.path.name]
    assert any(text in t for t in own), own
