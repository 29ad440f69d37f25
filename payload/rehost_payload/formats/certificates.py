"""X.509 certificates (RFC 5280), the chains that they make, and RSA signatures as PKCS #1 v1.5 (RFC 8017).

No root is part of this program: a chain is followed as far as the file that carries it goes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property

from .der import SET, Value, value_at
from .errors import FormatError

WHAT = "signature"
_MAX_CHAIN = 8
_RSA = "1.2.840.113549.1.1.1"
_HASHES = {
    "1.2.840.113549.2.5": "md5",  # named, and never taken: see DIGEST_INFO
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
DIGEST_INFO = {
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
    def expires(self) -> date:
        """The last day on which it is valid."""
        return self._fields[3].parts(least=2)[1].day()

    @property
    def name(self) -> str:
        return name_of(self._fields[4])

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


def name_of(name: Value) -> str:
    """Common name, else the unit, else the organization."""
    found: dict[str, str] = {}
    for relative in name.parts():
        for pair in relative.parts(SET):
            kind, value = pair.parts(least=2)[:2]
            found.setdefault(kind.oid(), value.text())
    return next((found[k] for k in ("2.5.4.3", "2.5.4.11", "2.5.4.10") if found.get(k)), "unnamed")


def chain_of(
    signer: Certificate, certificates: Sequence[Certificate]
) -> tuple[list[Certificate], str | None]:
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


def _signed_by(certificate: Certificate, issuer: Certificate) -> bool:
    digest = certificate.hash_name
    return digest is not None and rsa_verifies(issuer, certificate.signature, certificate.signed_part, digest)


def rsa_verifies(issuer: Certificate, signature: bytes, data: bytes, digest: str) -> bool:
    """RSASSA-PKCS1-v1_5: what the signature should be is made anew and compared as a whole, nothing of it is parsed."""
    key = issuer.key
    if key is None:
        return False
    modulus, exponent = key
    size = (modulus.bit_length() + 7) // 8
    info = DIGEST_INFO[digest] + hashlib.new(digest, data, usedforsecurity=False).digest()
    number = int.from_bytes(signature, "big")
    if len(signature) != size or number >= modulus or size < len(info) + 11:
        return False
    padded = b"\0\1" + b"\xff" * (size - len(info) - 3) + b"\0" + info
    return pow(number, exponent, modulus).to_bytes(size, "big") == padded
