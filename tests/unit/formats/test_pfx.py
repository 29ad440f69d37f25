"""What a PFX file and a stored certificate show; made by cryptography, and hostile bytes."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_payload.formats.cert_store import parse_stored
from rehost_payload.formats.der import encoded
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.pfx import private_keys
from support import guardians

SIGNING, ENCRYPTION = guardians.guardian()
WHOLE = guardians.exported(SIGNING)
BLOB = guardians.stored(SIGNING)


def test_a_private_key_is_seen_without_the_password() -> None:
    assert private_keys(WHOLE) == 1
    assert private_keys(guardians.exported(SIGNING, key=False)) == 0  # the certificate alone


@pytest.mark.parametrize(
    "options", [[], ["-legacy"], ["-descert", "-legacy"], ["-certpbe", "NONE", "-keypbe", "NONE"]]
)
def test_what_openssl_exports(tmp_path: Path, options: list[str]) -> None:
    """By other algorithms, as older Windows uses, and with nothing encrypted at all."""
    assert private_keys(by_openssl(tmp_path, *options)) == 1
    with pytest.raises(FormatError, match="not under a password"):
        private_keys(by_openssl(tmp_path, *options, "-nomac"))


def by_openssl(folder: Path, *options: str) -> bytes:
    pem, out = folder / "both.pem", folder / "out.pfx"
    pem.write_bytes(SIGNING.pem + SIGNING.key_pem)
    command = ["openssl", "pkcs12", "-export", "-in", pem, "-out", out, "-passout", "pass:x", *options]
    done = subprocess.run(command, capture_output=True)
    assert done.returncode == 0, done.stderr
    return out.read_bytes()


def test_what_is_no_whole_file_is_refused() -> None:
    for cut in (0, 1, 10, len(WHOLE) // 2, len(WHOLE) - 1):
        with pytest.raises(FormatError):
            private_keys(WHOLE[:cut])
    with pytest.raises(FormatError):
        private_keys(SIGNING.certificate.tbs_certificate_bytes)
    with pytest.raises(FormatError, match="version 4"):
        private_keys(encoded(0x30, encoded(2, b"\x04") + encoded(0x30, b"") + encoded(0x30, b"")))


def test_a_stored_certificate() -> None:
    found = parse_stored(BLOB)
    assert found.name == "Shielded VM Signing Certificate (UntrustedGuardian) (HV01)"
    assert (found.thumbprint, found.has_key) == (guardians.thumbprint(SIGNING), True)
    assert not parse_stored(guardians.stored(SIGNING, key=False)).has_key
    with pytest.raises(FormatError, match="no certificate"):
        parse_stored(BLOB[:32])  # its hash alone


@settings(max_examples=150, deadline=None)
@given(st.sampled_from((WHOLE, BLOB)), st.data())
def test_damaged_bytes_are_a_format_error_at_most(data: bytes, draw: st.DataObject) -> None:
    changed = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        changed[draw.draw(st.integers(0, min(len(data) - 1, 400)))] = draw.draw(st.integers(0, 255))
    del changed[draw.draw(st.integers(0, len(changed))) :]
    for parse in (private_keys, parse_stored):
        with contextlib.suppress(FormatError):
            parse(bytes(changed))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_format_error_at_most(data: bytes) -> None:
    for parse in (private_keys, parse_stored):
        with contextlib.suppress(FormatError):
            parse(data)
