"""Boot programs: version, the authority that signed them, and their security version number.

A machine starts what one of the authorities in its firmware has signed: until 2026 "Microsoft Windows Production PCA
2011", since then also "Windows UEFI CA 2023". Firmware that has revoked the older one starts only the younger; firmware
that was never updated starts only the older. The SVN must not be lower than the one in the firmware's revocation list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pefile
from asn1crypto import cms

from rehost_payload.formats.errors import FormatError

WHAT = "boot program"
PCA_2011 = "Microsoft Windows Production PCA 2011"
CA_2023 = "Windows UEFI CA 2023"
_MACHINES = {0x14C: "x86", 0x8664: "amd64", 0xAA64: "arm64", 0x1C4: "arm"}
_SECURITY, _RCDATA = 4, 10
_SVN = "SECURITYVERSIONNUMBER"


@dataclass(frozen=True)
class BootProgram:
    """``authority`` issued the signer's certificate, "" where there is no signature; ``svn`` is "major.minor"."""

    path: str
    machine: str
    version: str
    authority: str
    svn: str
    minimum_os: tuple[int, int] = (0, 0)

    @property
    def year(self) -> str:
        """2011 or 2023 for the two that matter, else ""."""
        return {PCA_2011: "2011", CA_2023: "2023"}.get(self.authority, "")


def read_boot_program(path: str, data: bytes) -> BootProgram:
    """FormatError for what is no PE file. The signature is read, not verified: the firmware does that."""
    try:
        pe = pefile.PE(data=data, fast_load=True)
        pe.parse_data_directories([2])
        header = pe.OPTIONAL_HEADER
        fixed = getattr(pe, "VS_FIXEDFILEINFO", None)
        version = ""
        if fixed:
            high, low = fixed[0].FileVersionMS, fixed[0].FileVersionLS
            version = f"{high >> 16}.{high & 0xFFFF}.{low >> 16}.{low & 0xFFFF}"
        return BootProgram(
            path=path,
            machine=_MACHINES.get(pe.FILE_HEADER.Machine, f"machine {pe.FILE_HEADER.Machine:#x}"),
            version=version,
            authority=_authority(pe, data),
            svn=_svn(pe),
            minimum_os=(header.MajorSubsystemVersion, header.MinorSubsystemVersion),
        )
    except (pefile.PEFormatError, AttributeError, IndexError, ValueError, TypeError, OverflowError) as e:
        raise FormatError(WHAT, f"{path}: {str(e).strip(chr(39)) or type(e).__name__}") from None


def _authority(pe: Any, data: bytes) -> str:
    """The common name of who issued the first signer's certificate."""
    directories = pe.OPTIONAL_HEADER.DATA_DIRECTORY
    if len(directories) <= _SECURITY or not directories[_SECURITY].Size:
        return ""
    at = directories[_SECURITY].VirtualAddress
    length = int.from_bytes(data[at : at + 4], "little")
    if length < 9 or at + length > len(data):
        return ""
    try:
        content = cms.ContentInfo.load(data[at + 8 : at + length])["content"]
        signer = content["signer_infos"][0]["sid"].chosen
        return str(signer["issuer"].native.get("common_name", ""))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return ""


def _svn(pe: Any) -> str:
    for kind in getattr(getattr(pe, "DIRECTORY_ENTRY_RESOURCE", None), "entries", []):
        if kind.id != _RCDATA:
            continue
        for named in kind.directory.entries:
            if named.name is not None and str(named.name).upper().endswith(_SVN):
                place = named.directory.entries[0].data.struct
                raw = pe.get_data(place.OffsetToData, place.Size)
                if len(raw) >= 4:
                    value = int.from_bytes(raw[:4], "little")
                    return f"{value >> 16}.{value & 0xFFFF}"
    return ""
