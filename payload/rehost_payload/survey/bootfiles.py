"""The files that take part in booting, and what can be told of each without starting it."""

from __future__ import annotations

import hashlib

from rehost_payload.formats import pe
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.filesystem import FileSystemReader
from rehost_payload.survey.model import BootFile

# What a system partition (and a recovery partition) holds. Files behind a True are PE images.
KNOWN: tuple[tuple[str, bool], ...] = (
    ("\\EFI\\Boot\\bootx64.efi", True),
    ("\\EFI\\Boot\\bootia32.efi", True),
    ("\\EFI\\Boot\\bootaa64.efi", True),
    ("\\EFI\\Microsoft\\Boot\\bootmgfw.efi", True),
    ("\\EFI\\Microsoft\\Boot\\bootmgr.efi", True),
    ("\\EFI\\Microsoft\\Boot\\memtest.efi", True),
    ("\\EFI\\Microsoft\\Boot\\SecureBootRecovery.efi", True),
    ("\\EFI\\Microsoft\\Boot\\boot.stl", False),
    ("\\EFI\\Microsoft\\Boot\\winsipolicy.p7b", False),
    ("\\EFI\\Microsoft\\Recovery\\bootmgfw.efi", True),
    ("\\bootmgr", False),  # starts with 16-bit code, the PE image is inside
    ("\\bootmgr.efi", True),
    ("\\BOOTNXT", False),
    ("\\Boot\\memtest.exe", True),
    ("\\Boot\\boot.sdi", False),
    ("\\Recovery\\WindowsRE\\winre.wim", False),
    ("\\Recovery\\WindowsRE\\boot.sdi", False),
    ("\\Recovery\\WindowsRE\\ReAgent.xml", False),
)
_HASHED = 4 << 20


def boot_file(reader: FileSystemReader, path: str, *, image: bool, digest: bool = True) -> BootFile | None:
    """The facts of one file, None where it does not exist. Trouble with its content goes into ``problem``."""
    exact = reader.exact_path(path)
    if exact is None:
        return None
    found = reader.stat(exact)
    if found is None or found.is_directory:
        return None
    try:
        sha256 = None
        if digest and found.size <= _HASHED:
            sha256 = hashlib.sha256(reader.read(exact, _HASHED)).hexdigest()
        if found.size == 0:
            return BootFile(exact, 0, sha256, problem="empty")
        source = reader.open(exact)
        if not image:
            zeros = not any(source.read_at(0, 512))
            return BootFile(exact, found.size, sha256, problem="zeros" if zeros else None)
        facts = pe.read_facts(source)
        problem = "truncated" if facts.truncated else None
        return BootFile(exact, found.size, sha256, facts.machine, facts.version, problem)
    except FormatError as error:
        return BootFile(exact, found.size, problem=error.problem)


def known_files(reader: FileSystemReader) -> tuple[BootFile, ...]:
    """Those of the known list that exist on this volume."""
    found = (boot_file(reader, path, image=image) for path, image in KNOWN)
    return tuple(file for file in found if file is not None)
