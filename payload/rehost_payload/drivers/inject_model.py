"""What driver injection takes and gives: plain data, and its one error."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.filesystem import FileSystemReader
from rehost_payload.formats.hive import HiveEdit

ReadWindowsFile = Callable[[str], bytes | None]
"""Reads a file of the installation by its path below the Windows folder ("System32\\\\drivers\\\\x.sys"); None: absent."""

STORE = r"System32\DriverStore\FileRepository"
"""Where Windows keeps every package, in a folder of its own."""

FIRST_WITH_DATABASE = 9200
"""Windows 8 and Server 2012 find boot drivers in SYSTEM\\DriverDatabase, earlier ones in CriticalDeviceDatabase."""

CODES = (
    "bad-inf",
    "catalog-missing",
    "damaged-hive",
    "extension",
    "file-missing",
    "foreign-file",
    "no-driver",
    "no-model",
    "no-number",
    "not-a-driver",
    "not-boot",
    "not-installed",
    "null-driver",
    "run-from-store",
    "too-large",
    "unreadable",
    "unsafe-path",
    "wrong-architecture",
)


class InjectError(Exception):
    """The package cannot be injected; nothing was changed. ``code`` is one of CODES, ``detail`` the evidence."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(f"{code}: {detail}")


def files_of_windows(reader: FileSystemReader, root: str) -> ReadWindowsFile:
    """The files of the installation in ``root``. What cannot be read is InjectError ("unreadable")."""

    def read(path: str) -> bytes | None:
        full = f"{root}\\{path}"
        try:
            return reader.read(full) if reader.exists(full) else None
        except FormatError as e:
            raise InjectError("unreadable", f"{full}: {e}") from e

    return read


@dataclass(frozen=True)
class Package:
    """A driver package: its files by path (backslashes, below its folder), and which of them is the INF."""

    inf: str
    files: Mapping[str, bytes]

    @property
    def sha256(self) -> str:
        """Of all of it: names and contents."""
        digest = hashlib.sha256()
        for name in sorted(self.files, key=str.lower):
            digest.update(f"{name.lower()}\0".encode("utf-8", "surrogatepass"))
            digest.update(hashlib.sha256(self.files[name]).digest())
        return digest.hexdigest()

    def find(self, path: str) -> tuple[str, bytes] | None:
        """The file's own spelling and content, whatever the case of ``path``."""
        wanted = path.lower()
        return next(((name, data) for name, data in self.files.items() if name.lower() == wanted), None)

    def spelling(self, path: str) -> str:
        """``path`` as the package spells it; as given where it is not there."""
        found = self.find(path)
        return path if found is None else found[0]


@dataclass(frozen=True)
class InjectedFile:
    """``path`` is below the Windows folder, with backslashes; folders of it may have to be made."""

    path: str
    data: bytes


@dataclass(frozen=True)
class Injection:
    """What has to be written; ``edits`` and ``files`` are empty where the package is there already.

    ``name`` is the package's name in the driver store ("arcsas.inf_amd64_0123456789abcdef"; empty before Windows 8),
    ``published`` the name Windows gives its INF ("oem7.inf"), ``services`` the drivers it installs, the controller's
    own first. ``files`` come in the order in which they may be written: what others refer to first. ``replaces``: in
    words, the driver files of Windows that are other ones afterwards.
    """

    name: str
    published: str
    services: tuple[str, ...]
    edits: tuple[HiveEdit, ...]
    files: tuple[InjectedFile, ...]
    notes: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
