"""Security catalogs made by the tests: a certificate trust list, signed by the tests' own authority."""

from __future__ import annotations

from datetime import UTC, datetime

from asn1crypto import algos, cms, core

from support.asn1 import CertificateTrustList, IndirectData, NameValue
from support.signing import PE_IMAGE, Authority, Stamp, signed_data, whql

_NAME = "1.3.6.1.4.1.311.12.2.1"
CTL = "1.3.6.1.4.1.311.10.1"
_SPC = "1.3.6.1.4.1.311.2.1.4"


def _pair(name: str, value: str) -> NameValue:
    return NameValue({"name": name, "flags": 0x10010001, "value": (value + "\0").encode("utf-16-le")})


def make_catalog(
    members: dict[str, bytes],
    attributes: dict[str, str] | None = None,
    *,
    signer: Authority | None = None,
    signed: bool = True,
    algorithm: str = "sha256",
    stamp: Stamp | None = None,
) -> bytes:
    """``members``: digests by file name; ``attributes``: those of the catalog. ``signer``: `whql` unless given."""
    content = trust_list(members, attributes, algorithm)
    return signed_data(CTL, content, (signer or whql()) if signed else None, stamp=stamp)


def trust_list(
    members: dict[str, bytes], attributes: dict[str, str] | None = None, algorithm: str = "sha256"
) -> bytes:
    """What is signed in a catalog."""
    subjects = []
    for name, digest in members.items():
        program = name.lower().endswith((".sys", ".exe", ".dll"))
        data = core.Sequence.load(PE_IMAGE if program else bytes.fromhex("300c060a2b060104018237020119"))
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
    return bytes(ctl.dump())
