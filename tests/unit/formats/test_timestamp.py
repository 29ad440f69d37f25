"""Timestamps of signatures, made by asn1crypto and by OpenSSL; real ones are in the tests over the corpus."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_payload.formats.authenticode import read_signature
from rehost_payload.formats.catalog import parse_catalog
from rehost_payload.formats.der import value_at
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.pkcs7 import Signature
from rehost_payload.formats.timestamp import Timestamp, _token
from support import signing
from support.catalogs import make_catalog
from support.packages import driver
from support.signing import Stamp

DAY = datetime(2019, 4, 2, 23, 59, 59, tzinfo=UTC)
MEMBERS = {"a.sys": b"\1" * 32}


def signature(stamp: Stamp | None, **more: object) -> Signature:
    found = parse_catalog(make_catalog(MEMBERS, stamp=stamp, **more)).signature  # type: ignore[arg-type]
    assert found is not None
    assert found.problem is None
    return found


@pytest.mark.parametrize("token", [True, False])
@pytest.mark.parametrize("digest", ["sha1", "sha256"])
def test_both_kinds(token: bool, digest: str) -> None:
    found = signature(Stamp(DAY, token, digest=digest), signer=signing.expired())
    assert found.timestamp == Timestamp(date(2019, 4, 2), "Example Time-Stamp Service 2015 2049 1")
    assert (found.issued, found.expires) == (date(2018, 1, 1), date(2020, 1, 1))


def test_of_a_program() -> None:
    found = read_signature(signing.with_signature(driver(), signing.whql(), stamp=Stamp(DAY)))
    assert found is not None
    assert found.problem is None
    assert found.timestamp is not None
    assert (found.timestamp.day, found.timestamp.problem) == (date(2019, 4, 2), None)


def test_none() -> None:
    assert signature(None).timestamp is None


@pytest.mark.parametrize("token", [True, False])
@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda t: Stamp(DAY, t, over=b"another signature"), "of another signature|changed after"),
        (lambda t: Stamp(DAY, t, signing.stamper(("1.3.6.1.5.5.7.3.3",))), "is not for timestamps"),
        (lambda t: Stamp(DAY, t, signing.stamper(issued=2020)), "valid from 2020-01-01 to 2049-01-01 only"),
        (lambda t: Stamp(DAY, t, signing.stamper(until=2019)), "valid from 2015-01-01 to 2019-01-01 only"),
    ],
)
def test_what_proves_nothing(token: bool, make: Callable[[bool], Stamp], problem: str) -> None:
    found = signature(make(token)).timestamp
    assert found is not None
    assert found.problem is not None
    assert any(p in found.problem for p in problem.split("|")), found.problem


@pytest.mark.parametrize("token", [True, False])
def test_a_changed_time_is_no_time(token: bool) -> None:
    data = make_catalog(MEMBERS, stamp=Stamp(DAY, token))
    text = b"20190402235959" if token else b"190402235959"
    assert data.count(text) == 1
    found = parse_catalog(data.replace(text, text.replace(b"0402", b"0401"))).signature
    assert found is not None
    assert found.problem is None  # the signature itself is not concerned
    assert found.timestamp is not None
    assert found.timestamp.problem == "the content was changed after it was signed" or (
        not token and found.timestamp.problem == "the signature is not that of the certificate it names"
    )


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_timestamps_are_read_or_refused(data: st.DataObject) -> None:
    """Whatever is changed in a timestamp, the signature stays what it is, or nothing can be read at all."""
    image = bytearray(_CATALOGS[data.draw(st.integers(0, 1))])
    start = len(image) - 1800
    for _ in range(data.draw(st.integers(1, 4))):
        image[data.draw(st.integers(start, len(image) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = parse_catalog(bytes(image)).signature
    except FormatError:
        return
    if found is not None and found.timestamp is not None and found.timestamp.problem is None:
        assert found.timestamp.day == DAY.date()


_CATALOGS = [make_catalog(MEMBERS, stamp=Stamp(DAY, token)) for token in (True, False)]


def test_a_token_that_openssl_has_made(tmp_path: Path) -> None:
    """The same for a token whose every byte is from another program."""
    authority = signing.stamper()
    (tmp_path / "tsa.pem").write_bytes(authority.pem)
    (tmp_path / "tsa.key").write_bytes(authority.key_pem)
    (tmp_path / "serial").write_text("01\n")
    (tmp_path / "signature").write_bytes(b"the bytes of a signature")
    (tmp_path / "openssl.cnf").write_text(
        "[tsa]\ndefault_tsa = t\n[t]\nserial = serial\nsigner_digest = sha256\n"
        "default_policy = 1.2.3.4\ndigests = sha256\ness_cert_id_chain = no\n"
    )
    query = ["openssl", "ts", "-query", "-data", "signature", "-sha256", "-cert", "-no_nonce", "-out", "q"]
    reply = ["openssl", "ts", "-reply", "-config", "openssl.cnf", "-queryfile", "q", "-signer", "tsa.pem"]
    reply += ["-inkey", "tsa.key", "-token_out", "-out", "token"]
    for command in (query, reply):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    token = value_at((tmp_path / "token").read_bytes())
    found = _token(token, b"the bytes of a signature")
    assert (found.by, found.problem) == ("Example Time-Stamp Service 2015 2049 1", None)
    assert abs((found.day - datetime.now(UTC).date()).days) <= 1
    assert _token(token, b"other bytes").problem == "it is that of another signature"
