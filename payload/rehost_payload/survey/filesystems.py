"""From a volume's bytes to the reader for its file system."""

from __future__ import annotations

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.exfat import ExfatVolume
from rehost_payload.formats.fat import FatVolume
from rehost_payload.formats.filesystem import FileSystemReader
from rehost_payload.formats.ntfs import NtfsVolume
from rehost_payload.formats.signatures import Signature, identify
from rehost_payload.formats.source import ByteSource


def open_filesystem(source: ByteSource, signature: Signature | None = None) -> FileSystemReader:
    """The reader for the volume that fills ``source``.

    Raises FormatError where the file system is one that we do not read (its name is the ``what``), or
    damaged. ``signature`` saves identifying it once more.
    """
    signature = signature or identify(source)
    if signature.kind == "ntfs" and not signature.backup:
        return NtfsVolume(source)
    if signature.kind in ("fat12", "fat16", "fat32"):
        return FatVolume(source)
    if signature.kind == "exfat":
        return ExfatVolume(source)
    problem = "its boot sector is damaged" if signature.backup else "this file system cannot be read here"
    raise FormatError(signature.kind, problem)
