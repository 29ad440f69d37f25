"""Structures of catalogs and signatures for asn1crypto: what the tests write them with. The product reads them by code of its own."""

from __future__ import annotations

from asn1crypto import algos, cms, core


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
