"""PKCS #7 signatures of catalogs and drivers (RFC 2315, Authenticode): verified as far as the file itself allows.

What is checked: that the signature is the signer's over exactly this content, and that each certificate of the chain is
signed by the next one in the file. The root is not in the file, and none is part of this program: a chain counts as
Microsoft's where it leads through a certificate that is known by its fingerprint. Dates and revocation are not
checked; neither does Windows when it loads a boot driver.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Any

from asn1crypto import cms, core, parser, x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from rehost_payload.formats.errors import FormatError

SIGNED_DATA = "signed_data"
WHQL = "1.3.6.1.4.1.311.10.3.5"
ATTESTED = "1.3.6.1.4.1.311.10.3.5.1"
SYSTEM_COMPONENT = "1.3.6.1.4.1.311.10.3.6"
_USAGE_NAMES = {
    WHQL: "WHQL",
    ATTESTED: "attestation",
    "1.3.6.1.4.1.311.10.3.39": "extended verification",
    SYSTEM_COMPONENT: "part of Windows",
}
_MAX_CHAIN = 8
_CROSS_ROOT = "Microsoft Code Verification Root"

# SHA-256 of the signed part ("to be signed") of certificates of Microsoft that issue those of its signers. The first five
# are also in Microsoft's recommended code integrity policies; those without a year were read out of WHQL catalogs.
MICROSOFT = frozenset(
    [
        "cec1afd0e310c55c1dcc601ab8e172917706aa32fb5eaf826813547fdf02dd46",  # Windows Third Party Component CA 2012
        "c55ee44c6de86fa9ac3fc90f84ef0d4a6cad5aac6a112047c88b997e7547aed1",  # Windows Third Party Component CA 2013
        "d8be9e4d9074088ef818bc6f6fb64955e90378b2754155126feebbbd969cf0ae",  # Windows Third Party Component CA 2014
        "4e80be107c860de896384b3eff50504dc2d76ac7151df3102a4450637a032146",  # Windows Production PCA 2011
        "8e7c756d4597e8cca0f627d75647e2f9d5a693f1f263b193347066d214c1d4db",  # Windows Hardware Compatibility PCA (2012)
        "8f4f0990e595635cce02a53b179dc081f79b7cd5c6d66094de169fe326d93171",  # Windows Hardware Compatibility PCA (2010)
        "d4653ba6c46d62a9a9f7913733f4a7ba0b4d9add38395c5a48e7aaab76f80e84",  # Windows Hardware Compatibility PCA (2008)
    ]
)


class Trust(Enum):
    """Where the chain of certificates leads."""

    MICROSOFT = "Microsoft"  # through a certificate known by its fingerprint
    NAMED_MICROSOFT = "named Microsoft"  # to a name of Microsoft; whether it is theirs is not known here
    CROSS_SIGNED = "cross-signed"  # to the root by which Microsoft vouched for public CAs until 2021
    TEST = "test"  # to a certificate that says of itself that it is for tests, or signs itself
    OTHER = "other"  # to anybody else


@dataclass(frozen=True)
class Signature:
    """The first signature of a PKCS #7 file.

    ``chain``: names from the signer's to the last issuer, which is not in the file unless it signs itself.
    ``problem`` says why the signature is not one over this content; None where it is.
    """

    signer: str
    chain: tuple[str, ...]
    usages: tuple[str, ...]  # object identifiers of the signer's extended key usages
    digest: str  # "sha1", "sha256"
    issued: date  # begin of the signer's certificate
    trust: Trust
    problem: str | None

    @property
    def whql(self) -> bool:
        return WHQL in self.usages

    @property
    def attested(self) -> bool:
        return ATTESTED in self.usages

    @property
    def usage_text(self) -> str:
        """ "WHQL, extended verification"; empty for a plain code signing certificate."""
        return ", ".join(_USAGE_NAMES[u] for u in self.usages if u in _USAGE_NAMES)


def signed_data(data: bytes, what: str) -> Any:
    """The SignedData of a PKCS #7 file. FormatError, ValueError or TypeError for what is none."""
    info = cms.ContentInfo.load(data)
    if info["content_type"].native != SIGNED_DATA:
        raise FormatError(what, "no PKCS #7 signed data")
    return info["content"]


def content_of(signed: Any, kind: str, what: str) -> bytes:
    """The body of the signed structure, without its tag and length. FormatError where it is of another kind."""
    inner = signed["encap_content_info"]
    if inner["content_type"].dotted != kind:
        raise FormatError(what, f"signed data of the kind {inner['content_type'].dotted}, not {kind}")
    # in PKCS #7 the content is the structure itself, not an octet string as in CMS: only its body is at hand here
    content = inner["content"].contents
    if not content:
        raise FormatError(what, "is empty")
    return bytes(content)


def as_sequence(content: bytes) -> bytes:
    """The body of `content_of` with the tag and length of a SEQUENCE again."""
    return bytes(parser.emit(0, 1, 16, content))


def verify(signed: Any, microsoft: Iterable[str] | None = None) -> Signature | None:
    """The first signature of the SignedData; None where there is none.

    ``microsoft``: fingerprints of the certificates that are known to be Microsoft's, None for `MICROSOFT`. ValueError, TypeError and the like
    where the structure itself is broken.
    """
    infos = list(signed["signer_infos"])
    if not infos:
        return None
    info = infos[0]
    found = signed["certificates"]
    certificates = (
        [] if isinstance(found, core.Void) else [c.chosen for c in found if c.name == "certificate"]
    )
    signer = _signer(info, certificates)
    digest = str(info["digest_algorithm"]["algorithm"].native)
    if signer is None:
        return Signature(
            "unnamed", (), (), digest, date.min, Trust.OTHER, "the signer's certificate is not in the file"
        )
    chain, broken = _chain(signer, certificates)
    usages = signer.extended_key_usage_value
    inner = signed["encap_content_info"]
    problem = _content_problem(info, signer, inner["content_type"].dotted, inner["content"].contents or b"")
    last = chain[-1]
    names = [_name(c.subject) for c in chain]
    if not _same(last.subject, last.issuer):
        names.append(_name(last.issuer))
    return Signature(
        signer=names[0],
        chain=tuple(names),
        usages=tuple(u.dotted for u in usages) if usages is not None else (),
        digest=digest,
        issued=signer.not_valid_before.date(),
        trust=_trust(chain, names, frozenset(MICROSOFT if microsoft is None else microsoft)),
        problem=problem or broken,
    )


def _signer(info: Any, certificates: list[x509.Certificate]) -> x509.Certificate | None:
    sid = info["sid"]
    for certificate in certificates:
        if sid.name == "issuer_and_serial_number":
            if certificate.serial_number == sid.chosen["serial_number"].native and _same(
                certificate.issuer, sid.chosen["issuer"]
            ):
                return certificate
        elif certificate.key_identifier == sid.chosen.native:
            return certificate
    return None


def _chain(
    signer: x509.Certificate, certificates: list[x509.Certificate]
) -> tuple[list[x509.Certificate], str | None]:
    """From the signer upwards as far as the file goes; and what is wrong with it."""
    chain = [signer]
    while len(chain) < _MAX_CHAIN:
        last = chain[-1]
        if _same(last.subject, last.issuer):
            broken = None if _signed_by(last, last) else f"the certificate {_name(last.subject)} is forged"
            return chain, broken
        issuers = [c for c in certificates if _same(c.subject, last.issuer) and c not in chain]
        if not issuers:
            return chain, None
        issuer = next((c for c in issuers if _signed_by(last, c)), None)
        if issuer is None:
            return chain, f"the certificate {_name(last.subject)} is not signed by its issuer"
        if not issuer.ca:
            return chain, f"the certificate {_name(issuer.subject)} may not issue others"
        chain.append(issuer)
    return chain, "the chain of certificates has no end"


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    algorithm = certificate["signature_algorithm"]
    try:
        digest = algorithm.hash_algo
        if algorithm.signature_algo != "rsassa_pkcs1v15":
            return False
    except ValueError:
        return False
    return _rsa_verifies(
        issuer, certificate["signature_value"].native, certificate["tbs_certificate"].dump(), digest
    )


def _rsa_verifies(issuer: x509.Certificate, signature: bytes, data: bytes, digest: str) -> bool:
    algorithm = _HASHES.get(digest)
    if algorithm is None:
        return False
    try:
        key = load_der_public_key(issuer.public_key.dump())
        if not isinstance(key, rsa.RSAPublicKey):
            return False
        key.verify(signature, data, padding.PKCS1v15(), algorithm())
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True


_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "md5": hashes.MD5,
    "sha1": hashes.SHA1,
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}


def _content_problem(info: Any, signer: x509.Certificate, kind: str, content: bytes) -> str | None:
    digest = str(info["digest_algorithm"]["algorithm"].native)
    if digest not in _HASHES:
        return f"its hash is of a kind that is not known ({digest})"
    attributes = info["signed_attrs"]
    signed = content
    if not isinstance(attributes, core.Void) and len(attributes):
        values = {a["type"].dotted: a["values"] for a in attributes}
        kinds, digests = values.get("1.2.840.113549.1.9.3"), values.get("1.2.840.113549.1.9.4")
        if kinds is None or digests is None or len(kinds) != 1 or len(digests) != 1:
            return "its signed attributes are incomplete"
        if kinds[0].dotted != kind:
            return "it is the signature of something else"
        if digests[0].native != hashlib.new(digest, content, usedforsecurity=False).digest():
            return "the content was changed after it was signed"
        # signed is the set itself with its own tag, not the [0] under which it is stored
        signed = parser.emit(0, 1, 17, attributes.contents)
    if not _rsa_verifies(signer, info["signature"].native, signed, digest):
        return "the signature is not that of the certificate it names"
    return None


def _same(one: x509.Name, other: x509.Name) -> bool:
    """Byte by byte, as Windows compares names; the spelling of a name is part of what is signed."""
    return bool(one.dump() == other.dump())


def _trust(chain: list[x509.Certificate], names: list[str], microsoft: frozenset[str]) -> Trust:
    # the signer itself is no authority
    fingerprints = (hashlib.sha256(c["tbs_certificate"].dump()).hexdigest() for c in chain[1:])
    if any(f in microsoft for f in fingerprints):
        return Trust.MICROSOFT
    last = chain[-1]
    if len(chain) == 1 and _same(last.subject, last.issuer):
        return Trust.TEST
    # "Microsoft Testing Root Certificate Authority 2010", "WDKTestCert ..."
    if any("test" in name.lower() for name in names):
        return Trust.TEST
    if names[-1] == _CROSS_ROOT:
        return Trust.CROSS_SIGNED
    if names[-1].startswith("Microsoft "):
        return Trust.NAMED_MICROSOFT
    return Trust.OTHER


def _name(name: x509.Name) -> str:
    native = name.native
    for part in ("common_name", "organizational_unit_name", "organization_name"):
        value = native.get(part)
        if value:
            return value if isinstance(value, str) else str(value[0])
    return str(name.human_friendly)
