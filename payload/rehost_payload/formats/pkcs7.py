"""PKCS #7 signatures of catalogs and drivers (RFC 2315, Authenticode): verified as far as the file itself allows.

What is checked: that the signature is the signer's over exactly this content, and that each certificate of the chain is
signed by the next one in the file, by RSA as PKCS #1 v1.5 (RFC 8017) says. The root is not in the file, and none is part of this program: a chain counts as
Microsoft's where it leads through a certificate that is known by its fingerprint. Dates and revocation are not
checked; neither does Windows when it loads a boot driver.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from enum import Enum
from functools import cached_property

from .der import SEQUENCE, SET, Value, encoded, value_at
from .errors import FormatError

WHAT = "signature"
_SIGNED_DATA = "1.2.840.113549.1.7.2"
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


@dataclass(frozen=True)
class SignedData:
    """The parts of a PKCS #7 file. ``content`` is the body of the signed structure, without its tag and length."""

    kind: str  # object identifier of what is signed
    content: bytes
    certificates: tuple[Value, ...]
    signers: tuple[Value, ...]


def signed_data(data: bytes, kind: str, what: str) -> SignedData:
    """The SignedData of a PKCS #7 file around a structure of ``kind``. FormatError for what is none."""
    outer = value_at(data).parts(least=2)
    if outer[0].oid() != _SIGNED_DATA:
        raise FormatError(what, "no PKCS #7 signed data")
    (signed,) = outer[1].parts(0xA0, 1)[:1]
    _, _, inner, *rest = signed.parts(least=4)
    found, *body = inner.parts(least=1)
    if found.oid() != kind:
        raise FormatError(what, f"signed data of the kind {found.oid()}, not {kind}")
    # in PKCS #7 the content is the structure itself, not an octet string as in CMS; what is hashed is its body
    content = body[0].parts(0xA0, 1)[0].content if body else b""
    if not content:
        raise FormatError(what, "is empty")
    certificates: tuple[Value, ...] = ()
    if rest[0].tag == 0xA0:
        certificates = tuple(c for c in rest[0].children() if c.tag == SEQUENCE)
    return SignedData(kind, content, certificates, tuple(rest[-1].parts(SET)))


def verify(signed: SignedData, microsoft: Iterable[str] | None = None) -> Signature | None:
    """The first signature of the SignedData; None where there is none.

    ``microsoft``: fingerprints of the certificates that are known to be Microsoft's, None for `MICROSOFT`. FormatError
    where the structure itself is broken.
    """
    if not signed.signers:
        return None
    info = _Signer.of(signed.signers[0])
    certificates = [Certificate(c) for c in signed.certificates]
    signer = next((c for c in certificates if info.is_by(c)), None)
    if signer is None:
        why = "the signer's certificate is not in the file"
        return Signature("unnamed", (), (), info.digest, date.min, Trust.OTHER, why)
    chain, broken = _chain(signer, certificates)
    problem = _content_problem(info, signer, signed)
    names = [c.name for c in chain]
    if chain[-1].subject != chain[-1].issuer:
        names.append(_name(value_at(chain[-1].issuer)))
    return Signature(
        signer=names[0],
        chain=tuple(names),
        usages=signer.usages,
        digest=info.digest,
        issued=signer.issued,
        trust=_trust(chain, names, frozenset(MICROSOFT if microsoft is None else microsoft)),
        problem=problem or broken,
    )


# --- certificates ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Certificate:
    """An X.509 certificate (RFC 5280). Names are compared byte by byte, as Windows compares them: their spelling is part
    of what is signed. FormatError where a part that is asked for is broken.
    """

    value: Value

    @cached_property
    def _outer(self) -> list[Value]:
        return self.value.parts(least=3)

    @cached_property
    def _fields(self) -> list[Value]:
        """Serial number, signature algorithm, issuer, validity, subject, public key; then what may be left out."""
        fields = self._outer[0].parts(least=6)
        fields = fields[1:] if fields[0].tag == 0xA0 else fields  # the version
        if len(fields) < 6:
            raise FormatError(WHAT, "a certificate without public key")
        return fields

    @property
    def signed_part(self) -> bytes:
        return self._outer[0].whole

    @property
    def signature(self) -> bytes:
        return self._outer[2].bits()

    @property
    def hash_name(self) -> str | None:
        """Of its own signature; None where that is not made by RSA, or by a hash that is not known."""
        return _SIGNATURES.get(self._outer[1].parts(least=1)[0].oid())

    @cached_property
    def serial(self) -> int:
        return self._fields[0].integer()

    @cached_property
    def issuer(self) -> bytes:
        return self._fields[2].whole

    @cached_property
    def subject(self) -> bytes:
        return self._fields[4].whole

    @property
    def issued(self) -> date:
        return self._fields[3].parts(least=2)[0].day()

    @property
    def name(self) -> str:
        return _name(self._fields[4])

    @cached_property
    def key(self) -> tuple[int, int] | None:
        """Modulus and exponent of an RSA key; None for another one, or of a size that nobody uses."""
        algorithm, bits = self._fields[5].parts(least=2)[:2]
        if algorithm.parts(least=1)[0].oid() != _RSA:
            return None
        modulus, exponent = (v.integer() for v in value_at(bits.bits()).parts(least=2)[:2])
        fits = 1024 <= modulus.bit_length() <= 16384 and modulus > 0 and 2 < exponent < 1 << 33
        return (modulus, exponent) if fits else None

    @cached_property
    def _extensions(self) -> dict[str, Value]:
        found: dict[str, Value] = {}
        for more in self._fields[6:]:
            if more.tag == 0xA3:
                for extension in more.parts(0xA3, 1)[0].parts():
                    parts = extension.parts(least=2)
                    found[parts[0].oid()] = value_at(parts[-1].octets())
        return found

    @property
    def usages(self) -> tuple[str, ...]:
        """Object identifiers of its extended key usages."""
        found = self._extensions.get("2.5.29.37")
        return tuple(u.oid() for u in found.parts()) if found is not None else ()

    @property
    def is_authority(self) -> bool:
        found = self._extensions.get("2.5.29.19")
        parts = found.parts() if found is not None else []
        return bool(parts) and parts[0].tag == 0x01 and any(parts[0].content)

    @property
    def key_identifier(self) -> bytes | None:
        found = self._extensions.get("2.5.29.14")
        return found.octets() if found is not None else None


def _name(name: Value) -> str:
    """Common name, else the unit, else the organization."""
    found: dict[str, str] = {}
    for relative in name.parts():
        for pair in relative.parts(SET):
            kind, value = pair.parts(least=2)[:2]
            found.setdefault(kind.oid(), value.text())
    return next((found[k] for k in ("2.5.4.3", "2.5.4.11", "2.5.4.10") if found.get(k)), "unnamed")


def _chain(signer: Certificate, certificates: list[Certificate]) -> tuple[list[Certificate], str | None]:
    """From the signer upwards as far as the file goes; and what is wrong with it."""
    chain = [signer]
    while len(chain) < _MAX_CHAIN:
        last = chain[-1]
        if last.subject == last.issuer:
            broken = None if _signed_by(last, last) else f"the certificate {last.name} is forged"
            return chain, broken
        used = {c.value.start for c in chain}
        issuers = [c for c in certificates if c.subject == last.issuer and c.value.start not in used]
        if not issuers:
            return chain, None
        issuer = next((c for c in issuers[:_MAX_CHAIN] if _signed_by(last, c)), None)
        if issuer is None:
            return chain, f"the certificate {last.name} is not signed by its issuer"
        if not issuer.is_authority:
            return chain, f"the certificate {issuer.name} may not issue others"
        chain.append(issuer)
    return chain, "the chain of certificates has no end"


def _trust(chain: list[Certificate], names: list[str], microsoft: frozenset[str]) -> Trust:
    # the signer itself is no authority
    if any(hashlib.sha256(c.signed_part).hexdigest() in microsoft for c in chain[1:]):
        return Trust.MICROSOFT
    last = chain[-1]
    if len(chain) == 1 and last.subject == last.issuer:
        return Trust.TEST
    # "Microsoft Testing Root Certificate Authority 2010", "WDKTestCert ..."
    if any("test" in name.lower() for name in names):
        return Trust.TEST
    if names[-1] == _CROSS_ROOT:
        return Trust.CROSS_SIGNED
    if names[-1].startswith("Microsoft "):
        return Trust.NAMED_MICROSOFT
    return Trust.OTHER


# --- signatures --------------------------------------------------------------------------------------------------

_RSA = "1.2.840.113549.1.1.1"
_HASHES = {
    "1.3.14.3.2.26": "sha1",
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}
_SIGNATURES = {
    "1.2.840.113549.1.1.5": "sha1",
    "1.2.840.113549.1.1.11": "sha256",
    "1.2.840.113549.1.1.12": "sha384",
    "1.2.840.113549.1.1.13": "sha512",
}
# what stands before the hash in a DigestInfo (RFC 8017, 9.2, note 1)
_DIGEST_INFO = {
    "sha1": bytes.fromhex("3021300906052b0e03021a05000414"),
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}


def digest_name(algorithm: Value) -> str:
    """ "sha256"; the identifier itself of a hash that is not known."""
    oid = algorithm.parts(least=1)[0].oid()
    return _HASHES.get(oid, oid)


@dataclass(frozen=True)
class _Signer:
    """A SignerInfo. ``by`` is issuer and serial number, or the key identifier, of the certificate."""

    by: tuple[bytes, int] | bytes
    digest: str
    attributes: Value | None
    signature: bytes = field(repr=False)

    @classmethod
    def of(cls, info: Value) -> _Signer:
        _, sid, algorithm, *rest = info.parts(least=5)
        by: tuple[bytes, int] | bytes = sid.content
        if sid.tag == SEQUENCE:
            issuer, serial = sid.parts(least=2)[:2]
            by = (issuer.whole, serial.integer())
        attributes = rest.pop(0) if rest[0].tag == 0xA0 else None
        if len(rest) < 2:
            raise FormatError(WHAT, "a signer without signature")
        return cls(by, digest_name(algorithm), attributes, rest[1].octets())

    def is_by(self, certificate: Certificate) -> bool:
        if isinstance(self.by, tuple):
            return (certificate.issuer, certificate.serial) == self.by
        return certificate.key_identifier == self.by


def _content_problem(info: _Signer, signer: Certificate, signed: SignedData) -> str | None:
    if info.digest not in _DIGEST_INFO:
        return f"its hash is of a kind that is not known ({info.digest})"
    covered = signed.content
    if info.attributes is not None and info.attributes.content:
        values: dict[str, list[Value]] = {}
        for attribute in info.attributes.children():
            kind, found = attribute.parts(least=2)[:2]
            values[kind.oid()] = found.parts(SET)
        kinds, digests = values.get("1.2.840.113549.1.9.3"), values.get("1.2.840.113549.1.9.4")
        if kinds is None or digests is None or len(kinds) != 1 or len(digests) != 1:
            return "its signed attributes are incomplete"
        if kinds[0].oid() != signed.kind:
            return "it is the signature of something else"
        if digests[0].octets() != hashlib.new(info.digest, covered, usedforsecurity=False).digest():
            return "the content was changed after it was signed"
        # signed is the set itself with its own tag, not the [0] under which it is stored
        covered = encoded(SET, info.attributes.content)
    if not _rsa_verifies(signer, info.signature, covered, info.digest):
        return "the signature is not that of the certificate it names"
    return None


def _signed_by(certificate: Certificate, issuer: Certificate) -> bool:
    digest = certificate.hash_name
    return digest is not None and _rsa_verifies(
        issuer, certificate.signature, certificate.signed_part, digest
    )


def _rsa_verifies(issuer: Certificate, signature: bytes, data: bytes, digest: str) -> bool:
    """RSASSA-PKCS1-v1_5: what the signature should be is made anew and compared as a whole, nothing of it is parsed."""
    key = issuer.key
    if key is None:
        return False
    modulus, exponent = key
    size = (modulus.bit_length() + 7) // 8
    info = _DIGEST_INFO[digest] + hashlib.new(digest, data, usedforsecurity=False).digest()
    number = int.from_bytes(signature, "big")
    if len(signature) != size or number >= modulus or size < len(info) + 11:
        return False
    padded = b"\0\1" + b"\xff" * (size - len(info) - 3) + b"\0" + info
    return pow(number, exponent, modulus).to_bytes(size, "big") == padded
