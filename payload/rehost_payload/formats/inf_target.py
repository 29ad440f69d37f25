"""Which Windows a section of an INF is for: target systems, TargetOS decorations and how they are matched.

Follows "INF Manufacturer Section" and "Combining Platform Extensions with Operating System Versions":

    NT[architecture][.[major][.[minor][.[product type][.[suite mask][.[build]]]]]]

A build number counts only where major and minor version are those of the target, and is understood by build 14310
and later alone: earlier ones pass over such a decoration altogether.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

WORKSTATION, DOMAIN_CONTROLLER, SERVER = 1, 2, 3
PRODUCT_NAMES = {WORKSTATION: "workstation", DOMAIN_CONTROLLER: "domain controller", SERVER: "server"}
_FIRST_BUILD_AWARE = 14310
_ARCHITECTURES = ("x86", "amd64", "ia64", "arm64", "arm")
_SHAPE = re.compile(rf"nt({'|'.join(_ARCHITECTURES)})?((?:\.[^.]*)*)", re.IGNORECASE)
_NUMBER = re.compile("0x[0-9a-f]{1,8}|[0-9]{1,10}", re.IGNORECASE)

SERVERS = {
    7601: "Windows Server 2008 R2",
    9200: "Windows Server 2012",
    9600: "Windows Server 2012 R2",
    14393: "Windows Server 2016",
    17763: "Windows Server 2019",
    20348: "Windows Server 2022",
    26100: "Windows Server 2025",
}
"""The servers by build, with the names that Microsoft sells them under."""

_VERSIONS = {2195: (5, 0), 2600: (5, 1), 3790: (5, 2), 6000: (6, 0), 6001: (6, 0), 6002: (6, 0), 6003: (6, 0)}
_VERSIONS |= {7600: (6, 1), 7601: (6, 1), 9200: (6, 2), 9600: (6, 3)}


@dataclass(frozen=True)
class Target:
    """A Windows: version, product type (1 workstation, 2 domain controller, 3 server), suite bits, architecture."""

    major: int
    minor: int
    build: int
    product_type: int = SERVER
    suite_mask: int = 0
    architecture: str = "amd64"

    @property
    def name(self) -> str:
        """ "Windows Server 2016 (10.0.14393)" """
        number = f"{self.major}.{self.minor}.{self.build}"
        known = SERVERS.get(self.build) if self.product_type != WORKSTATION else None
        return f"{known} ({number})" if known else f"Windows {number}"


def target_of(text: str, product_type: int = SERVER, architecture: str = "amd64") -> Target:
    """From "14393", "10.0.14393" or the year of a server ("2016", "2012 R2"). ValueError for anything else."""
    wanted = text.strip().lower().replace(" ", "")
    for build, name in SERVERS.items():
        if wanted == name.removeprefix("Windows Server ").lower().replace(" ", ""):
            wanted = str(build)
    parts = wanted.split(".")
    if len(parts) not in (1, 3, 4) or not all(re.fullmatch("[0-9]{1,6}", p) for p in parts):
        raise ValueError(f"{text!r} is no Windows build; 14393, 10.0.14393 or 2016 would be")
    if len(parts) > 1:
        return Target(int(parts[0]), int(parts[1]), int(parts[2]), product_type, 0, architecture)
    build = int(wanted)
    version = _VERSIONS.get(build, (10, 0) if 10240 <= build < 100_000 else None)
    if version is None:
        years = ", ".join(name.removeprefix("Windows Server ") for name in SERVERS.values())
        raise ValueError(f"no Windows has the build number {build}, and the servers are {years}")
    return Target(*version, build, product_type, 0, architecture)


@dataclass(frozen=True)
class Decoration:
    """A TargetOS decoration. Absent fields are None; ``text`` is as written, empty for an undecorated section."""

    text: str
    architecture: str | None = None
    major: int | None = None
    minor: int | None = None
    product_type: int | None = None
    suite_mask: int | None = None
    build: int | None = None


def parse_decoration(text: str) -> Decoration | None:
    """None for what is no decoration: Windows passes over it."""
    text = text.strip()
    if not text:
        return Decoration("")
    shape = _SHAPE.fullmatch(text)
    if shape is None:
        return None
    fields = shape.group(2).split(".")[1:]
    if len(fields) > 5 or any(f and not _NUMBER.fullmatch(f) for f in fields):
        return None
    # leading zeros are decimal, which int(x, 0) would refuse
    numbers = [int(f, 16 if f[:2].lower() == "0x" else 10) if f else None for f in fields]
    numbers += [None] * (5 - len(numbers))
    architecture = shape.group(1)
    return Decoration(text, architecture.lower() if architecture else None, *numbers)


def why_not(decoration: Decoration, target: Target) -> str | None:
    """Why a Models section of this decoration is not for the target, in words; None where it is."""
    d, t = decoration, target
    if d.architecture is None:
        if t.architecture != "x86":
            return (
                f"names no architecture, and {t.architecture} has to be named since Windows Server 2003 SP1"
            )
    elif d.architecture != t.architecture:
        return f"for {d.architecture}, not for {t.architecture}"
    if d.build is not None and t.build < _FIRST_BUILD_AWARE:
        return f"names a build number, which Windows before build {_FIRST_BUILD_AWARE} does not understand"
    if d.major is not None:
        wanted, has = (d.major, d.minor or 0), (t.major, t.minor)
        if wanted > has:
            return f"for Windows {wanted[0]}.{wanted[1]} and later, not for {has[0]}.{has[1]}"
        if wanted == has and d.build is not None and d.build > t.build:
            return f"for build {d.build} and later, not for {t.build}"
    if d.product_type is not None and d.product_type != t.product_type:
        wants = PRODUCT_NAMES.get(d.product_type, f"product type {d.product_type}")
        return f"for {wants} only, not for {PRODUCT_NAMES.get(t.product_type, t.product_type)}"
    if d.suite_mask is not None and d.suite_mask & ~t.suite_mask:
        return f"for the product suite {d.suite_mask:#x} only"
    return None


def closeness(decoration: Decoration) -> tuple[int, ...]:
    """Among decorations that fit, the greatest is the closest to the target."""
    d = decoration
    return (
        d.architecture is not None,
        -1 if d.major is None else d.major,
        d.minor or 0,
        d.build or 0,
        d.product_type is not None,
        (d.suite_mask or 0).bit_count(),
    )
