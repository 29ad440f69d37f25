"""Security catalogs made by the tests: a certificate trust list in PKCS #7, signed in name only."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from asn1crypto import algos, cms, core, parser, x509

from rehost_builder.drivers.catalog import CertificateTrustList, IndirectData, NameValue

_NAME = "1.3.6.1.4.1.311.12.2.1"
_SPC = "1.3.6.1.4.1.311.2.1.4"


def _pair(name: str, value: str) -> NameValue:
    return NameValue({"name": name, "flags": 0x10010001, "value": (value + "\0").encode("utf-16-le")})


def make_catalog(
    members: dict[str, bytes],
    attributes: dict[str, str] | None = None,
    *,
    signer: str = "Example Publisher",
    algorithm: str = "sha256",
) -> bytes:
    """``members``: digests by file name; ``attributes``: those of the catalog; no signer, no signature."""
    subjects = []
    for name, digest in members.items():
        data = core.Sequence.load(bytes.fromhex("300c060a2b060104018237020119"))
        info = IndirectData(
            {
                "data": core.Any(data),
                "digest": algos.DigestInfo({"digest_algorithm": {"algorithm": algorithm}, "digest": digest}),
            }
        )
        subjects.append(
            {
                "identifier": digest,
                "attributes": [
                    {"type": _NAME, "values": [core.Any(_pair("File", name))]},
                    {"type": _SPC, "values": [core.Any(info)]},
                ],
            }
        )
    extensions = [{"id": _NAME, "value": _pair(k, v).dump()} for k, v in (attributes or {}).items()]
    when = cms.Time({"utc_time": datetime(2020, 1, 1, tzinfo=UTC)})
    ctl = CertificateTrustList(
        {
            "usage": ["1.3.6.1.4.1.311.12.1.1"],
            "list_identifier": b"0123456789abcdef",
            "this_update": when,
            "algorithm": {"algorithm": algorithm},
            "subjects": subjects,
            "extensions": extensions,
        }
    )
    inner = core.ObjectIdentifier("1.3.6.1.4.1.311.10.1").dump() + parser.emit(2, 1, 0, ctl.dump())
    parts = core.Integer(1).dump() + parser.emit(0, 1, 17, b"") + parser.emit(0, 1, 16, inner)
    infos = b""
    if signer:
        certificate = _certificate(signer)
        parts += parser.emit(2, 1, 0, certificate.dump())
        infos = cms.SignerInfo(
            {
                "version": "v1",
                "sid": cms.SignerIdentifier(
                    "issuer_and_serial_number",
                    {"issuer": certificate.issuer, "serial_number": certificate.serial_number},
                ),
                "digest_algorithm": {"algorithm": "sha256"},
                "signature_algorithm": {"algorithm": "rsassa_pkcs1v15"},
                "signature": hashlib.sha256(b"no signature").digest(),
            }
        ).dump()
    signed = parser.emit(0, 1, 16, parts + parser.emit(0, 1, 17, infos))
    outer = core.ObjectIdentifier("1.2.840.113549.1.7.2").dump() + parser.emit(2, 1, 0, signed)
    return bytes(parser.emit(0, 1, 16, outer))


def _certificate(name: str) -> x509.Certificate:
    who = x509.Name.build({"common_name": name})
    when = x509.Time({"utc_time": datetime(2020, 1, 1, tzinfo=UTC)})
    key = {"algorithm": {"algorithm": "rsa"}, "public_key": {"modulus": 3233, "public_exponent": 17}}
    return x509.Certificate(
        {
            "tbs_certificate": {
                "version": "v3",
                "serial_number": 4711,
                "signature": {"algorithm": "sha256_rsa"},
                "issuer": who,
                "validity": {"not_before": when, "not_after": when},
                "subject": who,
                "subject_public_key_info": key,
            },
            "signature_algorithm": {"algorithm": "sha256_rsa"},
            "signature_value": b"\0",
        }
    )
