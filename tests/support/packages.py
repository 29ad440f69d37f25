"""Whole driver packages made by the tests: INF, driver and a catalog of the tests' own authority."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pefile

from rehost_payload.formats.authenticode import file_digests
from support.catalogs import make_catalog
from support.driver_image import make_driver
from support.infs import encoded, package
from support.pe_image import make_pe
from support.signing import Authority, component_ca

SERVER = {"OS": "Server_v100_X64_RS1,_v100_X64_RS3"}
INF = encoded(package(), "cp1252")
OURS = frozenset([component_ca().fingerprint])
"""What stands for the fingerprints of Microsoft's authorities."""


def driver(
    machine: str = "x64",
    version: str = "1.2.3.4",
    subsystem: int = 1,
    checksum: int | None = None,
    needs: tuple[int, int] = (6, 1),
    fill: bytes = b"",
) -> bytes:
    """A kernel driver that does nothing; ``checksum``: other than the right one."""
    pe = pefile.PE(data=make_pe(machine, version, subsystem=subsystem, fill=fill), fast_load=True)
    header = pe.OPTIONAL_HEADER
    header.MajorOperatingSystemVersion, header.MinorOperatingSystemVersion = needs
    header.MajorSubsystemVersion, header.MinorSubsystemVersion = needs
    header.CheckSum = pe.generate_checksum() if checksum is None else checksum
    return bytes(pe.write())


def digest(data: bytes) -> bytes:
    """The hash that a catalog holds: Authenticode for programs, which `file_digests` gives beside the flat one."""
    flat = hashlib.sha256(data).digest()
    others = {d for d in file_digests(data) if len(d) == 32} - {flat}
    return others.pop() if others else flat


def put(
    folder: Path,
    *,
    inf: bytes = INF,
    sys: bytes | None = None,
    catalog: bytes | None = None,
    signer: Authority | None = None,
    name: str = "exraid",
) -> Path:
    """Writes a package and returns the path of its INF. What is not given is as in a sound one."""
    folder.mkdir(parents=True, exist_ok=True)
    sys = driver() if sys is None else sys
    if catalog is None:
        members = {f"{name}.inf": digest(inf), f"{name}.sys": digest(sys)}
        catalog = make_catalog(members, SERVER, signer=signer)
    for suffix, data in (("inf", inf), ("sys", sys), ("cat", catalog)):
        (folder / f"{name}.{suffix}").write_bytes(data)
    return folder / f"{name}.inf"


def files(inf: bytes | None = None, image: bytes | None = None) -> dict[str, bytes]:
    """The files of a sound package by name."""
    inf = inf if inf is not None else encoded(package())
    image = image or make_driver({"ntoskrnl.exe": ["IoCreateDevice"]})
    catalog = make_catalog({"exraid.inf": digest(inf), "exraid.sys": digest(image)}, SERVER)
    return {"exraid.inf": inf, "exraid.sys": image, "exraid.cat": catalog}


def signed(folder: Path, text: str | None = None, image: bytes | None = None) -> Path:
    """The folder with a package that is sound as long as `OURS` stand for Microsoft; ``text`` is the INF's."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files(encoded(text or package()), image).items():
        (folder / name).write_bytes(data)
    return folder


NEW_CONTROLLER = r"PCI\VEN_15AD&DEV_07C0"
"""What QEMU calls pvscsi: the packages of `for_medium` are for it, and no other test has disks on it."""
BEST = "1.2.3.5"


def for_medium(folder: Path) -> None:
    """Packages for one controller, of which only one is right for Server 2016: `BEST`."""
    variants = {
        "best": ("NTamd64", "06/01/2021,1.2.3.5"),
        "older": ("NTamd64", "01/01/2015,1.0.0.0"),
        "for-newer-windows": ("NTamd64.10.0...15063", "01/01/2024,9.9.9.9"),
    }
    for name, (decoration, version) in variants.items():
        text = package(
            decoration=decoration,
            version=version,
            models=rf"%Card.DeviceDesc% = Card_Inst, {NEW_CONTROLLER}",
            install="CopyFiles = @exraid.sys",
        )
        number = version.partition(",")[2]
        put(folder / name, inf=encoded(text, "cp1252"), sys=driver(version=number, fill=name.encode()))
