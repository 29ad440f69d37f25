"""PFX files (PKCS #12, RFC 7292): what they show without their password, which is whether a private key is inside."""

from __future__ import annotations

from .der import Value, value_at
from .errors import FormatError

_WHAT = "PFX"
_DATA = "1.2.840.113549.1.7.1"
_KEYS = frozenset(
    {"1.2.840.113549.1.12.10.1.1", "1.2.840.113549.1.12.10.1.2"}
)  # plain, and under the password


def private_keys(data: bytes) -> int:
    """How many private keys stand in the file's readable part. FormatError for what is no whole PFX file.

    Certificates are encrypted as a rule, and so is whatever stands in an encrypted part: zero means that none was seen.
    """
    version, safe, *mac = value_at(data).parts(least=2)
    if version.integer() != 3:
        raise FormatError(_WHAT, f"version {version.integer()}")
    if not mac:
        raise FormatError(_WHAT, "it is not under a password")
    content = _content(safe)
    if content is None:
        raise FormatError(_WHAT, "it is signed, not under a password")
    return sum(_keys_in(part) for part in value_at(content).parts())


def _keys_in(part: Value) -> int:
    content = _content(part)
    if content is None:
        return 0
    return sum(bag.parts(least=2)[0].oid() in _KEYS for bag in value_at(content).parts())


def _content(info: Value) -> bytes | None:
    """The bytes of a ContentInfo that holds plain data; None for another kind."""
    kind, *body = info.parts(least=1)
    if kind.oid() != _DATA:
        return None
    if not body:
        raise FormatError(_WHAT, "a part without content")
    return body[0].parts(0xA0, 1)[0].octets()
