"""Certificates that virtual TPMs are locked with: which ones the old host has, and which of them were saved.

The host's are in the registry (store Shielded VM Local Certificates), by thumbprint. Export-Guardian.ps1 saves each with
its private key as <thumbprint>.pfx under a password. Without that, what can be seen of such a file is its name, that it
is whole, and that a private key is inside. Which guardian a machine is locked with is not known from its files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rehost_payload.capture.found import GuardianCertificate, GuardianFile
from rehost_payload.capture.places import Places
from rehost_payload.formats.cert_store import parse_stored
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.hive import Hive
from rehost_payload.formats.pfx import private_keys
from rehost_payload.survey.model import Problem

FOLDER = "Guardian"
"""In the root of a stick or of a target: what Export-Guardian.ps1 makes. Below the host's folder in a capture, too."""
LARGEST = 1 << 20
"""Bytes of one file; a certificate with its key has about 4 KiB."""
_STORE = "Microsoft\\SystemCertificates\\Shielded VM Local Certificates\\Certificates"
_SUBJECT = re.compile(r"Shielded VM (Encryption|Signing) Certificate \((.*)\) \(.*\)")
_BOTH = {"Encryption", "Signing"}
_THUMBPRINT = re.compile(r"([0-9A-Fa-f]{40})\.pfx", re.IGNORECASE)
_MOST_CERTIFICATES = 200


def host_guardians(software: Hive | None, problems: list[Problem]) -> tuple[GuardianCertificate, ...]:
    """Those of the hive SOFTWARE; none where no machine of the host ever had a virtual TPM, or where one of them cannot be
    read: of the others nobody may take that they are all."""
    found: list[GuardianCertificate] = []
    try:
        store = None if software is None else software.key(_STORE)
        for key in store.subkeys() if store is not None else ():
            value = key.value("Blob")
            if value is None:
                continue
            if len(found) >= _MOST_CERTIFICATES:
                raise FormatError("certificate store", f"more than {_MOST_CERTIFICATES} certificates")
            stored = parse_stored(value.data)
            if stored.thumbprint != key.name.upper():
                raise FormatError("certificate store", f"{key.name} is not the thumbprint of what it holds")
            match = _SUBJECT.fullmatch(stored.name)
            purpose, guardian = (match[1], match[2]) if match else ("", stored.name)
            found.append(
                GuardianCertificate(stored.thumbprint, stored.name, guardian, purpose, stored.has_key)
            )
    except FormatError as error:
        problems.append(Problem("damaged", "SOFTWARE: Shielded VM Local Certificates", str(error)))
        return ()
    return tuple(found)


def saved_files(
    places: Places, given: Iterable[tuple[str, bytes]], problems: list[Problem]
) -> tuple[GuardianFile, ...]:
    """Certificates in files: those that were ``given`` (name and content), and those in the folder Guardian of any volume
    or of a capture there."""
    files = (saved_file(path, data) for path, data in (*given, *_on_volumes(places, problems)))
    return best(f for f in files if f is not None)


def best(files: Iterable[GuardianFile]) -> tuple[GuardianFile, ...]:
    """One of each name, a good one where there is one."""
    found: dict[str, GuardianFile] = {}
    for file in files:
        known = found.get(file.thumbprint)
        if known is None or (known.problem and not file.problem):
            found[file.thumbprint] = file
    return tuple(found.values())


def _on_volumes(places: Places, problems: list[Problem]) -> Iterator[tuple[str, bytes]]:
    for volume in places.readable:
        captures = [
            n[:-1] for n in places.listdir(volume, "\\") if n.startswith("Rehost-") and n.endswith("\\")
        ]
        for folder in (f"\\{FOLDER}", *(f"\\{name}\\host\\{FOLDER}" for name in captures)):
            for name in places.listdir(volume, folder):
                if _THUMBPRINT.fullmatch(name) is None:
                    continue
                original = places.original(volume, f"{folder}\\{name}")
                try:
                    source = places.reader(volume).open(f"{folder}\\{name}")
                    yield original, source.read_at(0, min(source.size, LARGEST + 1))
                except (FormatError, OSError) as error:
                    problems.append(Problem("damaged", original, str(error)))


def saved_file(path: str, data: bytes) -> GuardianFile | None:
    """A file by its name and content; None where it is not named by a thumbprint: nobody can tell whose it is."""
    match = _THUMBPRINT.fullmatch(re.split(r"[\\/]", path)[-1])
    if match is None:
        return None
    try:
        problem = "" if private_keys(data) else "no private key was seen in it"
    except FormatError as error:
        problem = str(error)
    if len(data) > LARGEST:
        problem = f"it has more than {LARGEST} bytes"
    return GuardianFile(path, match[1].upper(), data, problem)


@dataclass(frozen=True)
class Saved:
    """Whether all that the host has was saved; ``lines`` are what was compared, ``names`` the guardians."""

    whole: bool
    names: tuple[str, ...]
    lines: tuple[str, ...]


def compare(certificates: Sequence[GuardianCertificate], files: Sequence[GuardianFile]) -> Saved:
    """Every certificate whose key the host has must have a good file, and a guardian made by Windows has two of them."""
    wanted = [c for c in certificates if c.has_key] or list(certificates)
    by_thumbprint = {f.thumbprint: f for f in files}
    lines: list[str] = []
    whole = bool(wanted)
    if not certificates:
        lines.append("no certificate was found in the host's store Shielded VM Local Certificates")
    for certificate in wanted:
        file = by_thumbprint.get(certificate.thumbprint)
        whole &= file is not None and not file.problem
        said = "no file" if file is None else f"{file.path}: {file.problem or 'holds a private key'}"
        lines.append(f"certificate {certificate.thumbprint}, {certificate.subject}: {said}")
    purposes: dict[str, set[str]] = {}
    for certificate in wanted:
        purposes.setdefault(certificate.guardian, set()).add(certificate.purpose)
    for guardian, have in purposes.items():
        lacking = _BOTH - have if have & _BOTH else set()
        whole &= not lacking
        lines += [
            f"guardian {guardian}: the host has no {p.lower()} certificate with its key" for p in lacking
        ]
    known = {c.thumbprint for c in certificates}
    lines += [f"{f.path}: of no certificate of this host" for f in files if f.thumbprint not in known]
    return Saved(whole, tuple(purposes), tuple(lines))


def documents(certificates: Sequence[GuardianCertificate], files: Sequence[GuardianFile]) -> dict[str, bytes]:
    """The good files of this host's certificates, by their place below the host's folder in a capture."""
    known = {c.thumbprint for c in certificates}
    return {f"{FOLDER}/{f.thumbprint}.pfx": f.data for f in files if f.thumbprint in known and not f.problem}
