"""What `prepare` hands to `commit`: every new content, computed and checked, nothing of it written yet."""

from __future__ import annotations

from dataclasses import dataclass

from rehost_payload.repair.journal import SectorsStep
from rehost_payload.repair.model import (
    EditHive,
    InjectDriver,
    SetFirmwareVariable,
    VolumeRef,
    WriteBootCode,
)

HiveAction = EditHive | InjectDriver


@dataclass(frozen=True)
class PreparedFile:
    """A file's content before (None: absent) and after (None: to be removed)."""

    volume: VolumeRef
    path: str
    before: bytes | None
    after: bytes | None


@dataclass(frozen=True)
class Installation:
    """The actions on one hive that install packages, and the files that our own engine makes of them."""

    actions: tuple[HiveAction, ...]
    files: tuple[PreparedFile, ...]


@dataclass(frozen=True)
class Prepared:
    """``files`` are all of them; ``installations`` say which of them install packages."""

    files: tuple[PreparedFile, ...]
    sectors: tuple[SectorsStep, ...]
    boot_code: tuple[WriteBootCode, ...]
    variables: tuple[SetFirmwareVariable, ...]
    installations: tuple[Installation, ...] = ()
