"""PKCS #7 signatures of catalogs and drivers (RFC 2315, Authenticode): verified as far as the file itself allows.

What is checked: that the signature is the signer's over exactly this content, and that each certificate of the chain is
signed by the next one in the file, by RSA as PKCS #1 v1.5 (RFC 8017) says. The root is not in the file, and none is part of this program: a chain counts as
Microsoft's where it leads through a certificate that is known by its fingerprint. The dates of the signer's certificate and
of a timestamp are told and not judged here; revocation is not checked, nor does Windows when it loads a boot driver.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from enum import Enum

from .certificates import Certificate, chain_of, name_of
from .der import value_at
from .signed_data import SignedData, SignerInfo
from .timestamp import Timestamp, timestamp_of

WHQL = "1.3.6.1.4.1.311.10.3.5"
ATTESTED = "1.3.6.1.4.1.311.10.3.5.1"
SYSTEM_COMPONENT = "1.3.6.1.4.1.311.10.3.6"
_USAGE_NAMES = {
    WHQL: "WHQL",
    ATTESTED: "attestation",
    "1.3.6.1.4.1.311.10.3.39": "extended verification",
    SYSTEM_COMPONENT: "part of Windows",
}
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
    expires: date = date.max  # end of the signer's certificate
    timestamp: Timestamp | None = None

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


def verify(signed: SignedData, microsoft: Iterable[str] | None = None) -> Signature | None:
    """The first signature of the SignedData; None where there is none.

    ``microsoft``: fingerprints of the certificates that are known to be Microsoft's, None for `MICROSOFT`. FormatError
    where the structure itself is broken.
    """
    if not signed.signers:
        return None
    info = SignerInfo.of(signed.signers[0])
    certificates = [Certificate(c) for c in signed.certificates]
    signer = info.certificate(certificates)
    if signer is None:
        why = "the signer's certificate is not in the file"
        return Signature("unnamed", (), (), info.digest, date.min, Trust.OTHER, why)
    chain, broken = chain_of(signer, certificates)
    problem = info.problem(signer, signed.kind, signed.content)
    names = [c.name for c in chain]
    if chain[-1].subject != chain[-1].issuer:
        names.append(name_of(value_at(chain[-1].issuer)))
    return Signature(
        signer=names[0],
        chain=tuple(names),
        usages=signer.usages,
        digest=info.digest,
        issued=signer.issued,
        trust=_trust(chain, names, frozenset(MICROSOFT if microsoft is None else microsoft)),
        problem=problem or broken,
        expires=signer.expires,
        timestamp=timestamp_of(info, certificates),
    )


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
