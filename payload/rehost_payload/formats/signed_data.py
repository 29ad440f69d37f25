"""PKCS #7 and CMS (RFC 2315, RFC 5652): the parts of signed data, and whether a signer has signed a content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from .certificates import DIGEST_INFO, WHAT, Certificate, digest_name, rsa_verifies
from .der import SEQUENCE, SET, Value, encoded, value_at
from .errors import FormatError

_SIGNED_DATA = "1.2.840.113549.1.7.2"
_CONTENT_TYPE, _MESSAGE_DIGEST = "1.2.840.113549.1.9.3", "1.2.840.113549.1.9.4"


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


@dataclass(frozen=True)
class SignerInfo:
    """``by`` is issuer and serial number, or the key identifier, of the certificate. ``more``: attributes that are not
    signed, in which timestamps are.
    """

    by: tuple[bytes, int] | bytes
    digest: str
    attributes: Value | None
    signature: bytes = field(repr=False)
    more: Value | None = None

    @classmethod
    def of(cls, info: Value) -> SignerInfo:
        _, sid, algorithm, *rest = info.parts(least=5)
        by: tuple[bytes, int] | bytes = sid.content
        if sid.tag == SEQUENCE:
            issuer, serial = sid.parts(least=2)[:2]
            by = (issuer.whole, serial.integer())
        attributes = rest.pop(0) if rest[0].tag == 0xA0 else None
        if len(rest) < 2:
            raise FormatError(WHAT, "a signer without signature")
        more = rest[2] if len(rest) > 2 and rest[2].tag == 0xA1 else None
        return cls(by, digest_name(algorithm), attributes, rest[1].octets(), more)

    def is_by(self, certificate: Certificate) -> bool:
        if isinstance(self.by, tuple):
            return (certificate.issuer, certificate.serial) == self.by
        return certificate.key_identifier == self.by

    def certificate(self, among: Iterable[Certificate]) -> Certificate | None:
        return next((c for c in among if self.is_by(c)), None)

    @cached_property
    def signed_attributes(self) -> dict[str, list[Value]]:
        return attribute_values(self.attributes)

    def problem(self, signer: Certificate, kind: str, content: bytes) -> str | None:
        """Why this is no signature of ``signer`` over a ``content`` of this kind; None where it is one."""
        if self.digest not in DIGEST_INFO:
            return f"its hash is of a kind that is not known ({self.digest})"
        covered = content
        if self.attributes is not None and self.attributes.content:
            kinds = self.signed_attributes.get(_CONTENT_TYPE)
            digests = self.signed_attributes.get(_MESSAGE_DIGEST)
            if kinds is None or digests is None or len(kinds) != 1 or len(digests) != 1:
                return "its signed attributes are incomplete"
            if kinds[0].oid() != kind:
                return "it is the signature of something else"
            if digests[0].octets() != hashlib.new(self.digest, covered, usedforsecurity=False).digest():
                return "the content was changed after it was signed"
            # signed is the set itself with its own tag, not the [0] under which it is stored
            covered = encoded(SET, self.attributes.content)
        if not rsa_verifies(signer, self.signature, covered, self.digest):
            return "the signature is not that of the certificate it names"
        return None


def attribute_values(attributes: Value | None) -> dict[str, list[Value]]:
    """The values of attributes by their object identifiers."""
    values: dict[str, list[Value]] = {}
    for attribute in attributes.children() if attributes is not None else ():
        kind, found = attribute.parts(least=2)[:2]
        values[kind.oid()] = found.parts(SET)
    return values
