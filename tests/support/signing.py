"""Certificates and PKCS #7 signatures made by the tests: a certification authority of the tests' own, and its signers."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

from asn1crypto import algos, cms, core, parser, tsp
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from rehost_payload.formats.authenticode import file_digests
from rehost_payload.formats.pkcs7 import ATTESTED, WHQL
from support.asn1 import IndirectData

PUBLISHER = "Example Hardware Compatibility Publisher"
PE_IMAGE = bytes.fromhex("3017060a2b06010401823702010f3009030100a004a2028000")
"""SpcPeImageData as signing tools write it: the whole image, no name."""
_CODE_SIGNING = "1.3.6.1.5.5.7.3.3"
_TIME_STAMPING = "1.3.6.1.5.5.7.3.8"
_HASHES = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256()}


@dataclass(frozen=True)
class Authority:
    """A key and its certificate, and the certificates above it that a signed file carries."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey
    above: tuple[x509.Certificate, ...] = ()
    carried: bool = True  # files signed below it carry its certificate

    @property
    def fingerprint(self) -> str:
        """As `rehost_payload.formats.pkcs7.MICROSOFT` lists them."""
        return hashlib.sha256(self.certificate.tbs_certificate_bytes).hexdigest()

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


@cache
def _key(number: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def certify(
    name: str,
    issuer: Authority | None = None,
    *,
    ca: bool = False,
    usages: tuple[str, ...] = (),
    issued: int = 2020,
    until: int = 2049,
    in_file: bool = True,
    key: int = 0,
) -> Authority:
    """A certificate of ``issuer``, of itself where there is none. ``in_file``: it goes into what is signed below it.

    It is valid from the first day of the year ``issued`` to the first of ``until``.
    """
    own = _key(key)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(own.public_key())
        .serial_number(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) + 1)
        .not_valid_before(datetime(issued, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(until, 1, 1, tzinfo=UTC))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if usages:
        oids = [x509.ObjectIdentifier(u) for u in usages]
        # RFC 3161 wants it to be critical, which OpenSSL checks
        critical = usages == (_TIME_STAMPING,)
        builder = builder.add_extension(x509.ExtendedKeyUsage(oids), critical=critical)
    certificate = builder.sign(issuer.key if issuer else own, hashes.SHA256())
    above: tuple[x509.Certificate, ...] = ()
    if issuer is not None:
        above = (issuer.certificate, *issuer.above) if issuer.carried else issuer.above
    return Authority(certificate, own, above, in_file)


def root() -> Authority:
    """Not in any file, like Microsoft's."""
    return certify("Example Root Certificate Authority", ca=True, in_file=False, key=1)


def component_ca() -> Authority:
    """What stands for Microsoft's issuer of hardware publishers; tests hand its fingerprint to what they test."""
    return certify("Example Third Party Component CA", root(), ca=True, key=2)


def whql() -> Authority:
    """The signer of sound packages."""
    return certify(PUBLISHER, component_ca(), usages=(WHQL, _CODE_SIGNING), key=3)


def attested() -> Authority:
    return certify(PUBLISHER, component_ca(), usages=(ATTESTED, _CODE_SIGNING), key=3, issued=2021)


def test_signer() -> Authority:
    """As the driver kit makes one for its user."""
    return certify("WDKTestCert tester", usages=(_CODE_SIGNING,), key=4)


test_signer.__test__ = False  # type: ignore[attr-defined]  # pytest: no test


def vendor(issued: int = 2020, root_name: str = "Example Public CA") -> Authority:
    """A vendor with a certificate of a public authority; with Microsoft's cross root it is cross-signed."""
    top = certify(root_name, ca=True, in_file=False, key=5)
    return certify("Example Vendor, Inc.", top, usages=(_CODE_SIGNING,), issued=issued, key=6)


def expired() -> Authority:
    """A signer of sound packages whose certificate was valid in 2018 and 2019."""
    name = "Example Hardware Compatibility Publisher of 2018"
    return certify(name, component_ca(), usages=(WHQL, _CODE_SIGNING), issued=2018, until=2020, key=3)


@dataclass(frozen=True)
class Stamp:
    """A timestamp to be made. ``token``: of RFC 3161, else a countersignature. ``over``: another signature's."""

    day: datetime
    token: bool = True
    by: Authority | None = None
    over: bytes | None = None
    digest: str = "sha256"

    @property
    def authority(self) -> Authority:
        return self.by or stamper()


def stamper(usages: tuple[str, ...] = (_TIME_STAMPING,), issued: int = 2015, until: int = 2049) -> Authority:
    top = certify("Example Timestamping PCA", ca=True, in_file=False, key=7, issued=2010)
    name = f"Example Time-Stamp Service {issued} {until} {len(usages)}"
    return certify(name, top, usages=usages, issued=issued, until=until, key=8)


def signed_data(
    kind: str,
    content: bytes,
    signer: Authority | None,
    *,
    digest: str = "sha256",
    attributes: bool = True,
    stamp: Stamp | None = None,
) -> bytes:
    """PKCS #7 SignedData around ``content`` (DER of a SEQUENCE) of the type ``kind``; no signer, no signature."""
    body = core.Sequence.load(content).contents
    inner = core.ObjectIdentifier(kind).dump() + parser.emit(2, 1, 0, content)
    algorithm = cms.DigestAlgorithm({"algorithm": digest})
    parts = core.Integer(1).dump()
    parts += parser.emit(0, 1, 17, algorithm.dump() if signer else b"")
    parts += parser.emit(0, 1, 16, inner)
    infos = b""
    if signer is not None:
        carried = [signer.certificate, *signer.above]
        info = _signer_info(kind, body, signer, digest, attributes)
        if stamp is not None:
            _stamp(info, stamp)
            if not stamp.token:
                carried += [stamp.authority.certificate, *stamp.authority.above]
        parts += parser.emit(2, 1, 0, b"".join(c.public_bytes(Encoding.DER) for c in carried))
        infos = info.dump()
    signed = parser.emit(0, 1, 16, parts + parser.emit(0, 1, 17, infos))
    outer = core.ObjectIdentifier("1.2.840.113549.1.7.2").dump() + parser.emit(2, 1, 0, signed)
    return bytes(parser.emit(0, 1, 16, outer))


def _stamp(info: cms.SignerInfo, stamp: Stamp) -> None:
    """Puts a timestamp over the signature into the attributes that are not signed."""
    over = stamp.over or info["signature"].native
    if stamp.token:
        imprint = {
            "hash_algorithm": {"algorithm": stamp.digest},
            "hashed_message": hashlib.new(stamp.digest, over).digest(),
        }
        tst = tsp.TSTInfo(
            {
                "version": "v1",
                "policy": "1.2.3.4",
                "message_imprint": imprint,
                "serial_number": 1,
                "gen_time": stamp.day,
            }
        ).dump()
        kind = "1.2.840.113549.1.9.16.1.4"
        token = _cms(kind, tst, stamp.authority)
        attribute = core.ObjectIdentifier("1.3.6.1.4.1.311.3.3.1").dump() + parser.emit(0, 1, 17, token)
    else:
        extra = cms.CMSAttribute({"type": "signing_time", "values": [cms.Time({"utc_time": stamp.day})]})
        counter = _signer_info("1.2.840.113549.1.7.1", over, stamp.authority, stamp.digest, True, extra)
        attribute = core.ObjectIdentifier("1.2.840.113549.1.9.6").dump() + parser.emit(
            0, 1, 17, counter.dump()
        )
    attributes = parser.emit(0, 1, 17, parser.emit(0, 1, 16, attribute))
    info["unsigned_attrs"] = cms.CMSAttributes.load(attributes)


def _cms(kind: str, content: bytes, signer: Authority) -> bytes:
    """CMS SignedData (RFC 5652): the content is an octet string, which is what is hashed."""
    inner = core.ObjectIdentifier(kind).dump() + parser.emit(2, 1, 0, core.OctetString(content).dump())
    parts = core.Integer(3).dump() + parser.emit(
        0, 1, 17, cms.DigestAlgorithm({"algorithm": "sha256"}).dump()
    )
    parts += parser.emit(0, 1, 16, inner)
    carried = b"".join(c.public_bytes(Encoding.DER) for c in (signer.certificate, *signer.above))
    parts += parser.emit(2, 1, 0, carried)
    parts += parser.emit(0, 1, 17, _signer_info(kind, content, signer, "sha256", True).dump())
    outer = core.ObjectIdentifier("1.2.840.113549.1.7.2").dump() + parser.emit(
        2, 1, 0, parser.emit(0, 1, 16, parts)
    )
    return bytes(parser.emit(0, 1, 16, outer))


def _signer_info(
    kind: str,
    body: bytes,
    signer: Authority,
    digest: str,
    attributes: bool,
    more: cms.CMSAttribute | None = None,
) -> cms.SignerInfo:
    own = asn1_x509.Certificate.load(signer.certificate.public_bytes(Encoding.DER))
    to_sign, extra = body, {}
    if attributes:
        signed = cms.CMSAttributes(
            [
                {"type": "content_type", "values": [kind]},
                {"type": "message_digest", "values": [hashlib.new(digest, body).digest()]},
                *([more] if more is not None else []),
            ]
        )
        to_sign, extra = signed.dump(), {"signed_attrs": signed}
    return cms.SignerInfo(
        {
            "version": "v1",
            "sid": cms.SignerIdentifier(
                "issuer_and_serial_number", {"issuer": own.issuer, "serial_number": own.serial_number}
            ),
            "digest_algorithm": {"algorithm": digest},
            "signature_algorithm": {"algorithm": "rsassa_pkcs1v15"},
            "signature": signer.key.sign(to_sign, padding.PKCS1v15(), _HASHES[digest]),
            **extra,
        }
    )


def with_signature(
    data: bytes, signer: Authority, *, of: bytes | None = None, stamp: Stamp | None = None
) -> bytes:
    """A program with an Authenticode signature at its end; ``of``: the signature is that of another program."""
    data += bytes(-len(data) % 8)
    start = int.from_bytes(data[0x3C:0x40], "little") + 24
    wide = int.from_bytes(data[start : start + 2], "little") == 0x20B
    entry = start + (112 if wide else 96) + 32
    flat = hashlib.sha256(of or data).digest()
    others = {d for d in file_digests(of or data) if len(d) == 32} - {flat}
    content = IndirectData(
        {
            "data": core.Any(core.Sequence.load(PE_IMAGE)),
            "digest": algos.DigestInfo({"digest_algorithm": {"algorithm": "sha256"}, "digest": others.pop()}),
        }
    )
    signature = signed_data("1.3.6.1.4.1.311.2.1.4", content.dump(), signer, stamp=stamp)
    table = struct.pack("<IHH", 8 + len(signature), 0x200, 2) + signature
    table += bytes(-len(table) % 8)
    place = struct.pack("<II", len(data), len(table))
    return data[:entry] + place + data[entry + 8 :] + table
