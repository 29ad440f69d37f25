"""The certificates of a host that virtual TPMs are locked with: as the registry keeps them, and as they are exported."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from pathlib import Path

from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates

from support import disks, hives, windows
from support.hives import binary
from support.hyperv_host import DC, Host, Vm, configuration, make_host, software_hive, vmcx
from support.signing import Authority, certify

STORE = "Microsoft\\SystemCertificates\\Shielded VM Local Certificates\\Certificates"


def guardian(name: str = "UntrustedGuardian", host: str = "HV01") -> tuple[Authority, Authority]:
    """The two certificates that New-HgsGuardian -GenerateCertificates makes."""
    kinds = (("Signing", 7), ("Encryption", 8))
    first, second = (
        certify(f"Shielded VM {kind} Certificate ({name}) ({host})", key=key) for kind, key in kinds
    )
    return first, second


def thumbprint(authority: Authority) -> str:
    return hashlib.sha1(authority.certificate.public_bytes(Encoding.DER)).hexdigest().upper()


def stored(authority: Authority, *, key: bool = True) -> bytes:
    """The value Blob of a certificate in the registry."""
    der = authority.certificate.public_bytes(Encoding.DER)
    properties = [(3, hashlib.sha1(der).digest()), *([(2, b"\x01" * 80)] if key else []), (32, der)]
    return b"".join(struct.pack("<III", number, 1, len(data)) + data for number, data in properties)


def exported(authority: Authority, *, key: bool = True) -> bytes:
    """A PFX file of it, under a password."""
    own = authority.key if key else None
    encryption = BestAvailableEncryption(b"secret")
    return serialize_key_and_certificates(b"name", own, authority.certificate, None, encryption)


def with_guardians(host: Host, certificates: Iterable[Authority], *, key: bool = True) -> Host:
    """The host with these in its certificate store."""
    keys = {f"{STORE}\\{thumbprint(c)}": {"Blob": binary(stored(c, key=key))} for c in certificates}
    hive = hives.make_hive(keys, base=software_hive(windows.SERVER_2016))
    with disks.ntfs_volume(*host.place("C")) as volume:
        volume.write("Windows\\System32\\config\\SOFTWARE", hive)
    return host


def host_with_tpm(folder: Path, **settings: bool) -> Host:
    """dc01 has a virtual TPM, and the host the certificates of one guardian."""
    security = [("security", [("settings", list((settings or {"tpm_enabled": True}).items()))])]
    vm = Vm(DC, "dc01", [("SCSI", 0, 0, "VHD", "E:\\VMs\\dc01\\dc01.vhd")], more=security)
    path = f"E:\\VMs\\dc01\\Virtual Machines\\{DC.upper()}.vmcx"
    return with_guardians(make_host(folder, more={path: vmcx(configuration(vm))}), guardian())
