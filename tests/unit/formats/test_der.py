"""The reader of certificates and signatures: asn1crypto writes what it reads, and OpenSSL judges what it verifies."""

from __future__ import annotations

import hashlib
from datetime import date

import pytest
from asn1crypto import core
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_payload.formats import certificates, der
from rehost_payload.formats.catalog import parse_catalog
from rehost_payload.formats.errors import FormatError
from support.catalogs import make_catalog
from support.signing import Authority, component_ca, root, test_signer, vendor, whql


@given(st.integers())
def test_integers(number: int) -> None:
    assert der.value_at(core.Integer(number).dump()).integer() == number


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=9), st.integers(0, 2))
def test_object_identifiers(arcs: list[int], first: int) -> None:
    arcs[0] = arcs[0] % 40 if first < 2 else arcs[0]
    text = ".".join(map(str, [first, *arcs]))
    assert der.value_at(core.ObjectIdentifier(text).dump()).oid() == text


@given(st.binary(max_size=70_000), st.sampled_from([der.OCTET_STRING, der.SEQUENCE, 0xA0]))
@settings(max_examples=30)
def test_lengths(content: bytes, tag: int) -> None:
    value = der.value_at(der.encoded(tag, content) + b"more")
    assert (value.tag, value.content, value.end) == (tag, content, len(value.whole))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("", "cut off"),
        ("30", "cut off"),
        ("3005", "do not fit"),
        ("3080", "a length that is not given"),
        ("30890000000000000000", "a length that is not given"),
        ("3088ffffffffffffffff", "do not fit"),
        ("1f8100", "a tag of several bytes"),
    ],
)
def test_what_is_no_value(data: str, problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        der.value_at(bytes.fromhex(data))


@pytest.mark.parametrize("data", ["3003040201", "3001ff", "0401ff"])
def test_children_stay_inside(data: str) -> None:
    with pytest.raises(FormatError):
        list(der.value_at(bytes.fromhex(data)).children())


@pytest.mark.parametrize(
    ("tag", "text", "day"),
    [
        (0x17, "200101000000Z", date(2020, 1, 1)),
        (0x17, "991231000000Z", date(1999, 12, 31)),
        (0x18, "20500228000000Z", date(2050, 2, 28)),
        (0x17, "201301000000Z", None),
        (0x18, "x", None),
        (0x0C, "200101000000Z", None),
    ],
)
def test_days(tag: int, text: str, day: date | None) -> None:
    value = der.value_at(der.encoded(tag, text.encode()))
    if day is not None:
        assert value.day() == day
    else:
        with pytest.raises(FormatError):
            value.day()


@pytest.mark.parametrize("who", [root, component_ca, whql, test_signer, vendor])
def test_certificates_as_cryptography_has_them(who) -> None:  # type: ignore[no-untyped-def]
    authority: Authority = who()
    theirs = authority.certificate
    ours = certificates.Certificate(der.value_at(theirs.public_bytes(Encoding.DER)))
    public = authority.key.public_key().public_numbers()
    assert ours.key == (public.n, public.e)
    assert ours.serial == theirs.serial_number
    assert ours.subject == theirs.subject.public_bytes()
    assert ours.issuer == theirs.issuer.public_bytes()
    assert ours.signed_part == theirs.tbs_certificate_bytes
    assert ours.signature == theirs.signature
    assert ours.issued == theirs.not_valid_before_utc.date()
    assert ours.is_authority is (who in (root, component_ca))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=64), st.sampled_from(["sha1", "sha256"]), st.data())
def test_openssl_agrees_about_signatures(message: bytes, name: str, data: st.DataObject) -> None:
    """Sound ones, and ones with changed bytes, another length, and another hash."""
    signer = whql()
    kind: hashes.HashAlgorithm = hashes.SHA1() if name == "sha1" else hashes.SHA256()
    signature = bytearray(signer.key.sign(message, padding.PKCS1v15(), kind))
    if data.draw(st.booleans()):
        signature[data.draw(st.integers(0, len(signature) - 1))] ^= data.draw(st.integers(0, 255))
    changed = bytes(signature[data.draw(st.sampled_from([0, 0, 0, 1])) :])
    try:
        signer.key.public_key().verify(changed, message, padding.PKCS1v15(), kind)
        sound = True
    except InvalidSignature:
        sound = False
    ours = certificates.Certificate(der.value_at(signer.certificate.public_bytes(Encoding.DER)))
    assert certificates.rsa_verifies(ours, changed, message, name) is sound
    assert not certificates.rsa_verifies(ours, changed, message + b"x", name)


def test_padding_is_compared_as_a_whole() -> None:
    """A hash at the wrong end of short padding, which verifiers that parse it have taken."""
    signer = whql()
    numbers = signer.key.private_numbers()
    n = numbers.public_numbers.n
    info = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(b"m").digest()
    padded = b"\0\1" + b"\xff" * 8 + b"\0" + info
    for block in (padded + bytes(256 - len(padded)), b"\0\1" + b"\xff" * (253 - len(info)) + b"\0" + info):
        forged = pow(int.from_bytes(block, "big"), numbers.d, n).to_bytes(256, "big")
        ours = certificates.Certificate(der.value_at(signer.certificate.public_bytes(Encoding.DER)))
        assert certificates.rsa_verifies(ours, forged, b"m", "sha256") is (block.endswith(info))


CATALOG = make_catalog({"a.sys": b"\1" * 32, "a.inf": b"\2" * 32}, {"OS": "7X64"})


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_catalogs(data: st.DataObject) -> None:
    """Whatever byte is changed: refused, or read; and never sound with other members."""
    changed = bytearray(CATALOG)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = parse_catalog(bytes(changed))
    except FormatError:
        return
    sound = parse_catalog(CATALOG)
    if found.signature is not None and found.signature.problem is None:
        assert (found.members, found.attributes) == (sound.members, sound.attributes)
