"""Timestamps of signatures: when somebody who is not the signer has seen the signature.

Authenticode has two kinds, both in the attributes that are not signed: a countersignature (PKCS #9, RFC 2985), whose
certificate is among those of the file, and a token of RFC 3161, which is signed data of its own. What is checked is that
the timestamp is one over exactly this signature, by a certificate for timestamps that was valid then and whose chain holds
as far as it goes; whether Windows trusts its root is not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from .certificates import DIGEST_INFO, Certificate, chain_of, digest_name
from .der import SEQUENCE, Value, value_at
from .errors import FormatError
from .signed_data import SignerInfo, attribute_values, signed_data

_COUNTER_SIGNATURE = "1.2.840.113549.1.9.6"
_SIGNING_TIME = "1.2.840.113549.1.9.5"
_DATA = "1.2.840.113549.1.7.1"
_TOKEN = "1.3.6.1.4.1.311.3.3.1"
_TOKEN_INFO = "1.2.840.113549.1.9.16.1.4"
_FOR_TIMESTAMPS = "1.3.6.1.5.5.7.3.8"
_MOST_CERTIFICATES = 32


@dataclass(frozen=True)
class Timestamp:
    """``problem``: why nothing can be concluded from it; None where it is one over this signature."""

    day: date
    by: str
    problem: str | None = None


def timestamp_of(info: SignerInfo, certificates: Sequence[Certificate]) -> Timestamp | None:
    """The timestamp of a signature; None where it has none. ``certificates``: those of its file. Never raises for damage."""
    try:
        values = attribute_values(info.more)
        if tokens := values.get(_TOKEN):
            return _token(tokens[0], info.signature)
        if counters := values.get(_COUNTER_SIGNATURE):
            return _counter(SignerInfo.of(counters[0]), info.signature, certificates)
    except FormatError as e:
        return Timestamp(date.min, "unnamed", f"it cannot be read: {e.problem}")
    return None


def _counter(counter: SignerInfo, signature: bytes, certificates: Sequence[Certificate]) -> Timestamp:
    """What is signed is the signature itself; the time stands in the signed attributes."""
    times = counter.signed_attributes.get(_SIGNING_TIME, [])
    if len(times) != 1:
        return Timestamp(date.min, "unnamed", "it holds no time")
    return _judged(times[0].day(), counter, _DATA, signature, certificates)


def _token(token: Value, signature: bytes) -> Timestamp:
    signed = signed_data(token.whole, _TOKEN_INFO, "timestamp")
    info = value_at(signed.content).parts(least=5)
    imprint, when = info[2].parts(SEQUENCE, 2), info[4]
    name = digest_name(imprint[0])
    if name not in DIGEST_INFO:
        return Timestamp(when.day(), "unnamed", f"its hash is of a kind that is not known ({name})")
    if imprint[1].octets() != hashlib.new(name, signature, usedforsecurity=False).digest():
        return Timestamp(when.day(), "unnamed", "it is that of another signature")
    if not signed.signers:
        return Timestamp(when.day(), "unnamed", "it is not signed")
    certificates = [Certificate(c) for c in signed.certificates[:_MOST_CERTIFICATES]]
    return _judged(when.day(), SignerInfo.of(signed.signers[0]), _TOKEN_INFO, signed.content, certificates)


def _judged(
    day: date, info: SignerInfo, kind: str, content: bytes, certificates: Sequence[Certificate]
) -> Timestamp:
    signer = info.certificate(certificates)
    if signer is None:
        return Timestamp(day, "unnamed", "its certificate is not in the file")
    _, broken = chain_of(signer, certificates)
    problem = info.problem(signer, kind, content) or broken
    if problem is None and _FOR_TIMESTAMPS not in signer.usages:
        problem = "its certificate is not for timestamps"
    if problem is None and not signer.issued <= day <= signer.expires:
        problem = f"its certificate is valid from {signer.issued} to {signer.expires} only"
    return Timestamp(day, signer.name, problem)
