"""What our own readers say of a volume before it may be written, on every system: Windows and Linux both mount a
hibernated volume without a word.
"""

from __future__ import annotations

from dataclasses import dataclass

from rehost_payload.formats import hiberfil
from rehost_payload.formats.fat import FatVolume
from rehost_payload.formats.fat_leftover import shared_leftovers
from rehost_payload.formats.ntfs import NtfsVolume
from rehost_payload.formats.source import ByteSource
from rehost_payload.survey.filesystems import open_filesystem
from rehost_payload.system.protocol import BUSY_NAME, TEMPORARY_NAME, SystemError_

FOR_CAPTURES = ("ntfs", "exfat")


@dataclass(frozen=True)
class Condition:
    """``leftovers``: sectors (byte offset in the volume, content) that must be written before it is mounted."""

    kind: str
    label: str
    serial: str
    dirty: bool = False
    journal_unclean: bool = False
    leftovers: tuple[tuple[int, bytes], ...] = ()


def condition(source: ByteSource, where: str, sector: int, *, capture: bool = False) -> Condition:
    """Raises SystemError_ ("hibernated", "dirty", "file-system") for a volume that must not be written, FormatError or
    OSError for one that cannot be read.

    exFAT is not refused for its flag when a few small files are written: every stick that was pulled out has it.
    A capture may fill the volume, and must not do so by an allocation table that is not sure.
    """
    reader = open_filesystem(source)
    if capture and reader.kind not in FOR_CAPTURES:
        raise unfit(where, reader.kind)
    facts = (reader.kind, reader.label if capture else "", reader.serial)
    if isinstance(reader, FatVolume):
        return Condition(*facts, leftovers=_leftovers(source, sector))
    if isinstance(reader, NtfsVolume) and hiberfil.is_hibernated(reader):
        raise SystemError_("hibernated", f"{where}: Windows is hibernated on it")
    minds = capture or isinstance(reader, NtfsVolume)
    if minds and reader.dirty and not reader.exists(BUSY_NAME):
        raise SystemError_("dirty", f"{where}: the volume is marked for a check")
    unclean = isinstance(reader, NtfsVolume) and reader.journal_unclean()
    return Condition(*facts, minds and reader.dirty, unclean)


def unfit(where: str, kind: str) -> SystemError_:
    return SystemError_("file-system", f"{where}: {kind}; a capture needs NTFS or exFAT")


def _leftovers(source: ByteSource, sector: int) -> tuple[tuple[int, bytes], ...]:
    """Folder entries of temporary files that share their clusters with a good file, marked as deleted."""
    changed: dict[int, bytearray] = {}
    for place, byte in shared_leftovers(source, TEMPORARY_NAME):
        start = place // sector * sector
        content = changed.setdefault(start, bytearray(source.read_at(start, sector)))
        content[place - start : place - start + 1] = byte
    return tuple((start, bytes(content)) for start, content in changed.items())
