"""Whether Windows is hibernated, told by the first page of hiberfil.sys.

The page starts with the signature of PO_MEMORY_IMAGE. Resume rewrites it: what is left after a resume, or
when there was none, is zeros or another word. A volume whose Windows is hibernated must not be written: the
resumed system has its own idea of what the volume holds. Windows' fast start-up writes the same signature;
nothing in the first bytes tells the two apart in every version, and for us they mean the same.
"""

from __future__ import annotations

from enum import StrEnum

from .filesystem import FileSystemReader


class Hibernation(StrEnum):
    NONE = "none"  # zeros, empty, or no signature that a resume would follow
    HIBERNATED = "hibernated"
    RESUMED = "resumed"  # an image that was used already: the next start is a cold one


_IMAGE = frozenset({b"hibr", b"HIBR", b"HORM"})
_USED = frozenset({b"wake", b"WAKE", b"rstr", b"RSTR"})


def state(start: bytes) -> Hibernation:
    """``start`` is the beginning of hiberfil.sys, four bytes at least where the file has them."""
    magic = start[:4]
    if magic in _IMAGE:
        return Hibernation.HIBERNATED
    return Hibernation.RESUMED if magic in _USED else Hibernation.NONE


def is_hibernated(volume: FileSystemReader) -> bool:
    """Whether a resumable image lies in the volume's root. Raises FormatError where it cannot be read."""
    found = volume.stat("\\hiberfil.sys")
    if found is None or found.is_directory:
        return False
    return state(volume.open("\\hiberfil.sys").read_at(0, 4096)) is Hibernation.HIBERNATED
