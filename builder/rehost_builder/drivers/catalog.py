"""Security catalogs (.cat): which files they vouch for, for which Windows, and who is said to have signed them.

A catalog is PKCS #7 SignedData (RFC 2315) around a Certificate Trust List (Microsoft's [MS-CAT] names the OIDs). Parsed with
asn1crypto. The signature itself is NOT verified here, only read: a forged catalog would pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asn1crypto import algos, cms, core, parser

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
    """``attributes`` are those of the whole catalog ("OS", "HWID1", ...). ``signer`` is empty for an unsigned one."""

    members: tuple[Member, ...]
    attributes: Mapping[str, str]
    signer: str

    def holds(self, digests: set[bytes]) -> bool:
        return any(m.digest in digests for m in self.members)

    def names(self, file: str) -> bool:
        """Whether a member is called so; catalogs write names in any case."""
        return any(m.file.lower() == file.lower() for m in self.members)


def parse_catalog(data: bytes) -> Catalog:
    """FormatError for what is no catalog."""
    if len(data) > MAX_SIZE:
        raise FormatError(WHAT, f"larger than {MAX_SIZE >> 20} MiB, which no catalog is")
    try:
        return _parse(data)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as e:
        if isinstance(e, FormatError):
            raise
        # asn1crypto tells what it expected over several lines
        raise FormatError(WHAT, str(e).partition("\n")[0] or type(e).__name__) from None


def _parse(data: bytes) -> Catalog:
    info = cms.ContentInfo.load(data)
    if info["content_type"].native != "signed_data":
        raise FormatError(WHAT, "no PKCS #7 signed data")
    signed = info["content"]
    inner = signed["encap_content_info"]
    if inner["content_type"].dotted != _CTL:
        raise FormatError(WHAT, "signed data, but no certificate trust list: no catalog")
    # in PKCS #7 the content is the structure itself, not an octet string as in CMS: only its body is at hand here
    content = inner["content"].contents
    if content is None:
        raise FormatError(WHAT, "is empty")
    ctl = CertificateTrustList.load(parser.emit(0, 1, 16, content))
    members = tuple(_member(s) for s in ctl["subjects"]) if not isinstance(ctl["subjects"], core.Void) else ()
    attributes: dict[str, str] = {}
    if not isinstance(ctl["extensions"], core.Void):
        for extension in ctl["extensions"]:
            if extension["id"].dotted == _NAME_VALUE:
                attributes.update([_name_value(NameValue.load(extension["value"].native))])
    return Catalog(members, attributes, _signer(signed))


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


def _signer(signed: Any) -> str:
    """The subject of the certificate that the first signature names; not verified."""
    for info in signed["signer_infos"]:
        sid = info["sid"]
        if sid.name != "issuer_and_serial_number":
            return "unnamed"
        serial = sid.chosen["serial_number"].native
        for choice in signed["certificates"]:
            certificate = choice.chosen
            if choice.name == "certificate" and certificate.serial_number == serial:
                return str(
                    certificate.subject.native.get("common_name") or certificate.subject.human_friendly
                )
        return "unnamed"
    return ""
