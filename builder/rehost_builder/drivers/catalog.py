"""Security catalogs (.cat): which files they vouch for, for which Windows, and who has signed them.

A catalog is PKCS #7 SignedData (RFC 2315) around a Certificate Trust List (Microsoft's [MS-CAT] names the OIDs). Parsed with
asn1crypto; its signature is verified by `signature`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from asn1crypto import algos, cms, core

from rehost_builder.drivers.signature import (
    Signature,
    as_sequence,
    content_of,
    signed_data,
    verify,
)
from rehost_payload.formats.errors import FormatError

WHAT = "catalog"
MAX_SIZE = 16 << 20  # bytes; real ones have up to 1 MiB
_CTL = "1.3.6.1.4.1.311.10.1"
_NAME_VALUE = "1.3.6.1.4.1.311.12.2.1"
_INDIRECT_DATA = "1.3.6.1.4.1.311.2.1.4"


class _Attribute(core.Sequence):  # type: ignore[misc]
    _fields = [("type", core.ObjectIdentifier), ("values", core.SetOf, {"spec": core.Any})]  # noqa: RUF012


class _Attributes(core.SetOf):  # type: ignore[misc]
    _child_spec = _Attribute


class _Subject(core.Sequence):  # type: ignore[misc]
    _fields = [("identifier", core.OctetString), ("attributes", _Attributes, {"optional": True})]  # noqa: RUF012


class _Subjects(core.SequenceOf):  # type: ignore[misc]
    _child_spec = _Subject


class _Usage(core.SequenceOf):  # type: ignore[misc]
    _child_spec = core.ObjectIdentifier


class _Extension(core.Sequence):  # type: ignore[misc]
    _fields = [  # noqa: RUF012
        ("id", core.ObjectIdentifier),
        ("critical", core.Boolean, {"default": False}),
        ("value", core.OctetString),
    ]


class _Extensions(core.SequenceOf):  # type: ignore[misc]
    _child_spec = _Extension


class CertificateTrustList(core.Sequence):  # type: ignore[misc]
    _fields = [  # noqa: RUF012
        ("usage", _Usage),
        ("list_identifier", core.OctetString, {"optional": True}),
        ("sequence_number", core.Integer, {"optional": True}),
        ("this_update", cms.Time),
        ("next_update", cms.Time, {"optional": True}),
        ("algorithm", algos.DigestAlgorithm),
        ("subjects", _Subjects, {"optional": True}),
        ("extensions", _Extensions, {"explicit": 0, "optional": True}),
    ]


class NameValue(core.Sequence):  # type: ignore[misc]
    """CAT_NAMEVALUE: the value is UTF-16LE with a NUL at its end."""

    _fields = [("name", core.BMPString), ("flags", core.Integer), ("value", core.OctetString)]  # noqa: RUF012


class IndirectData(core.Sequence):  # type: ignore[misc]
    """SPC_INDIRECT_DATA: what is hashed, and the hash."""

    _fields = [("data", core.Any), ("digest", algos.DigestInfo)]  # noqa: RUF012


@dataclass(frozen=True)
class Member:
    """``digest`` is the file's flat hash, or for programs the Authenticode hash. ``file`` may be empty."""

    file: str
    digest: bytes
    attributes: Mapping[str, str]


@dataclass(frozen=True)
class Catalog:
    """``attributes`` are those of the whole catalog ("OS", "HWID1", ...). ``signature`` is None for an unsigned one."""

    members: tuple[Member, ...]
    attributes: Mapping[str, str]
    signature: Signature | None

    @cached_property
    def _digests(self) -> frozenset[bytes]:
        return frozenset(m.digest for m in self.members)

    def holds(self, digests: set[bytes]) -> bool:
        return not self._digests.isdisjoint(digests)

    def names(self, file: str) -> bool:
        """Whether a member is called so; catalogs write names in any case."""
        return any(m.file.lower() == file.lower() for m in self.members)


def parse_catalog(data: bytes, microsoft: Iterable[str] | None = None) -> Catalog:
    """FormatError for what is no catalog. ``microsoft``: as in `signature.verify`."""
    if len(data) > MAX_SIZE:
        raise FormatError(WHAT, f"larger than {MAX_SIZE >> 20} MiB, which no catalog is")
    try:
        return _parse(data, microsoft)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as e:
        if isinstance(e, FormatError):
            raise
        # asn1crypto tells what it expected over several lines
        raise FormatError(WHAT, str(e).partition("\n")[0] or type(e).__name__) from None


def _parse(data: bytes, microsoft: Iterable[str] | None) -> Catalog:
    signed = signed_data(data, WHAT)
    ctl = CertificateTrustList.load(as_sequence(content_of(signed, _CTL, WHAT)))
    members = tuple(_member(s) for s in ctl["subjects"]) if not isinstance(ctl["subjects"], core.Void) else ()
    attributes: dict[str, str] = {}
    if not isinstance(ctl["extensions"], core.Void):
        for extension in ctl["extensions"]:
            if extension["id"].dotted == _NAME_VALUE:
                attributes.update([_name_value(NameValue.load(extension["value"].native))])
    return Catalog(members, attributes, verify(signed, microsoft))


def _member(subject: Any) -> Member:
    attributes: dict[str, str] = {}
    digest: bytes = subject["identifier"].native
    found = subject["attributes"]
    for attribute in found if not isinstance(found, core.Void) else ():
        for value in attribute["values"]:
            kind = attribute["type"].dotted
            if kind == _NAME_VALUE:
                attributes.update([_name_value(value.parse(NameValue))])
            elif kind == _INDIRECT_DATA:
                digest = value.parse(IndirectData)["digest"]["digest"].native
    return Member(attributes.get("File", ""), digest, attributes)


def _name_value(pair: Any) -> tuple[str, str]:
    return str(pair["name"].native), pair["value"].native.decode("utf-16-le", "replace").rstrip("\0")
