"""Security catalogs (.cat): which files they vouch for, for which Windows, and who has signed them.

A catalog is PKCS #7 SignedData (RFC 2315) around a Certificate Trust List (Microsoft's [MS-CAT] names the OIDs). Its
signature is verified by `pkcs7`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from .der import SEQUENCE, SET, Value, encoded, value_at
from .errors import FormatError
from .pkcs7 import Signature, verify
from .signed_data import signed_data

WHAT = "catalog"
MAX_SIZE = 16 << 20  # bytes; real ones have up to 1 MiB
MAX_MEMBERS = 50_000
_CTL = "1.3.6.1.4.1.311.10.1"
_NAME_VALUE = "1.3.6.1.4.1.311.12.2.1"
INDIRECT_DATA = "1.3.6.1.4.1.311.2.1.4"


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
    """FormatError for what is no catalog. ``microsoft``: as in `pkcs7.verify`."""
    if len(data) > MAX_SIZE:
        raise FormatError(WHAT, f"larger than {MAX_SIZE >> 20} MiB, which no catalog is")
    try:
        return _parse(data, microsoft)
    except FormatError as e:
        raise FormatError(WHAT, e.problem, e.offset) from None


def _parse(data: bytes, microsoft: Iterable[str] | None) -> Catalog:
    signed = signed_data(data, _CTL, WHAT)
    subjects, extensions = _trust_list(value_at(encoded(SEQUENCE, signed.content)))
    attributes: dict[str, str] = {}
    for extension in extensions:
        parts = extension.parts(least=2)
        if parts[0].oid() == _NAME_VALUE:
            attributes.update([_name_value(value_at(parts[-1].octets()))])
    return Catalog(tuple(_member(s) for s in subjects), attributes, verify(signed, microsoft))


def _trust_list(whole: Value) -> tuple[list[Value], list[Value]]:
    """The subjects and the extensions of a CTL.

    Before the subjects: usage, perhaps an identifier and a number, one or two times, and the algorithm, the second
    sequence of the list. The third one are the subjects.
    """
    sequences = 0
    subjects: list[Value] = []
    extensions: list[Value] = []
    for part in whole.children():
        if part.tag == SEQUENCE:
            sequences += 1
            if sequences == 3:
                for subject in part.children():
                    subjects.append(subject)
                    if len(subjects) > MAX_MEMBERS:
                        raise FormatError(WHAT, f"more than {MAX_MEMBERS} members")
        elif part.tag == 0xA0:
            extensions = part.parts(0xA0, 1)[0].parts()
    if sequences < 2:
        raise FormatError(WHAT, "no certificate trust list")
    return subjects, extensions


def _member(subject: Value) -> Member:
    identifier, *rest = subject.parts(least=1)
    attributes: dict[str, str] = {}
    digest = identifier.octets()
    for attribute in rest[0].parts(SET) if rest else ():
        kind, values = attribute.parts(least=2)[:2]
        name = kind.oid()
        if name not in (_NAME_VALUE, INDIRECT_DATA):
            continue
        for value in values.parts(SET):
            if name == _NAME_VALUE:
                attributes.update([_name_value(value)])
            else:
                digest = indirect_digest(value)[1]
    return Member(attributes.get("File", ""), digest, attributes)


def _name_value(pair: Value) -> tuple[str, str]:
    """CAT_NAMEVALUE: name, flags, and the value in UTF-16LE with a NUL at its end."""
    name, _, value = pair.parts(least=3)[:3]
    return name.text(), value.octets().decode("utf-16-le", "replace").rstrip("\0")


def indirect_digest(value: Value) -> tuple[Value, bytes]:
    """SPCINDIRECT_DATA: the algorithm of the hash, and the hash."""
    _, info = value.parts(least=2)[:2]
    algorithm, digest = info.parts(least=2)[:2]
    return algorithm, digest.octets()
