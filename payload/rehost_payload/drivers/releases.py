"""The catalog attribute "OS": for which releases of Windows a driver package was tested and signed.

Its words are those of Microsoft's Hardware Dashboard ("List of operating system codes") as they stand in catalogs:
``7X64``, ``Server2008R2X64``, ``_v63_Server_X64``, ``Server_v100_X64_RS1``, ``_v100_X64_Vb``. From 1607 on the last
part is the code name of the release, in some catalogs its marketing version.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAMED = {
    # word without X64/X86/IA64/ARM, in lower case: (is a server, build)
    "2000": (False, 2195),
    "xp": (False, 2600),
    "server2003": (True, 3790),
    "vista": (False, 6002),
    "server2008": (True, 6002),
    "7": (False, 7601),
    "server2008r2": (True, 7601),
    "8": (False, 9200),
    "server2012": (True, 9200),
    "server8": (True, 9200),
    "_v63": (False, 9600),
    "_v63_server": (True, 9600),
    "server_v63": (True, 9600),
}
_CODES = {
    # code name or marketing version: (build of the client, build of the server)
    "": (10240, 10240),
    "th1": (10240, 10240),
    "th2": (10586, 10586),
    "rs1": (14393, 14393),
    "rs2": (15063, 15063),
    "rs3": (16299, 16299),
    "rs4": (17134, 17134),
    "rs5": (17763, 17763),
    "19h1": (18362, 18362),
    "vb": (19041, 19041),
    "fe": (20348, 20348),
    "21h2": (22000, 20348),
    "co": (22000, 22000),
    "ni": (22621, 22621),
    "22h2": (22621, 22621),
    "23h2": (22631, 25398),
    "zn": (25398, 25398),
    "ge": (26100, 26100),
    "24h2": (26100, 26100),
    "25h2": (26200, 26200),
}
_NAMES = {
    2195: "2000", 2600: "XP", 6002: "Vista", 7601: "7", 9200: "8", 9600: "8.1", 10240: "10", 10586: "10 1511",
    14393: "10 1607", 15063: "10 1703", 16299: "10 1709", 17134: "10 1803", 17763: "10 1809", 18362: "10 1903",
    19041: "10 2004", 22000: "11 21H2", 22621: "11 22H2", 22631: "11 23H2", 26100: "11 24H2", 26200: "11 25H2",
}  # fmt: skip
_SERVER_NAMES = {
    3790: "Server 2003", 6002: "Server 2008", 7601: "Server 2008 R2", 9200: "Server 2012", 9600: "Server 2012 R2",
    10240: "Server 2016 preview", 10586: "Server 2016 preview", 14393: "Server 2016", 16299: "Server 1709",
    17134: "Server 1803", 17763: "Server 2019", 18362: "Server 1903", 19041: "Server 2004", 20348: "Server 2022",
    25398: "Server 23H2", 26100: "Server 2025",
}  # fmt: skip
_V100 = re.compile("(server)?_v100(?:_(server))?(?:_(x64|arm64|arm))?(?:_(server))?(?:_([a-z0-9]+))?")
_OLD = re.compile("(.*?)_?(x64|x86|ia64|arm)?")


@dataclass(frozen=True)
class Release:
    """``word`` as in the catalog. ``build`` is None for a word that is not known."""

    word: str
    server: bool
    build: int | None
    amd64: bool

    @property
    def name(self) -> str:
        """ "Server 2016", "10 1809"; the word itself where the release is not known."""
        names = _SERVER_NAMES if self.server else _NAMES
        return names.get(self.build or 0, self.word)


def releases_of(attribute: str) -> tuple[Release, ...]:
    """The words of the attribute in their order, each once."""
    words = dict.fromkeys(w.strip() for w in attribute.split(","))
    return tuple(_release(w) for w in words if w)


def _release(word: str) -> Release:
    lower = word.lower()
    if new := _V100.fullmatch(lower):
        server = any(new.group(i) for i in (1, 2, 4))
        builds = _CODES.get(new.group(5) or "")
        build = builds[server] if builds is not None else None
        return Release(word, server, build, new.group(3) == "x64")
    old = _OLD.fullmatch(lower)
    assert old is not None  # the pattern fits everything
    server, number = _NAMED.get(old.group(1), ("server" in lower, None))
    return Release(word, server, number, old.group(2) == "x64")
