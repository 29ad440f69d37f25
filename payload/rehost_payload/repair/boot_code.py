"""Boot code for the BIOS, written by a program of Microsoft's: what it may touch is saved before it starts, and what it
left is judged before it counts.

What it writes is not known beforehand. The journal's steps are therefore open (see journal.SectorsStep) while it runs,
and are told its work afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rehost_payload.formats import boot_code
from rehost_payload.repair.errors import ApplyError
from rehost_payload.repair.journal import Journal, SectorsStep, sha256
from rehost_payload.repair.locate import Place, locate_disk, locate_volume
from rehost_payload.repair.model import Change, WriteBootCode
from rehost_payload.system.protocol import DiskHandle, System, SystemError_

BOOT_CODE = "boot-code"
_BAD = (boot_code.NONE, boot_code.NOT_BOOTABLE, boot_code.NTLDR, boot_code.GRUB)


@dataclass(frozen=True)
class _State:
    """What lies where boot code may be: the disk's first sector, and the volume's areas by their byte offset."""

    master: bytes
    volume: dict[int, bytes]

    @property
    def pieces(self) -> dict[int, bytes]:
        return {0: self.master} | self.volume


def check_boot_code(action: WriteBootCode, system: System) -> None:
    """Whether `write_boot_code` has a chance. Raises ApplyError, SystemError_, OSError."""
    if not system.boot_code_writer():
        raise SystemError_("boot-code", "there is nothing here that writes boot code")
    place = locate_volume(system, action.volume)
    with _disk(action, place, system) as disk:
        if disk.info.read_only:
            raise ApplyError("read-only", f"{disk.info.path} is read-only")
        if not _areas(action, place, disk):
            raise SystemError_("boot-code", f"a volume with {action.volume.file_system} has no boot code")


def write_boot_code(action: WriteBootCode, system: System, journal: Journal) -> list[Change]:
    """Saves, writes, judges. Raises ApplyError or SystemError_; the journal then knows what to put back."""
    place = locate_volume(system, action.volume)
    with _disk(action, place, system) as disk:
        before = _state(action, place, disk)
    steps = {
        journal.begin(SectorsStep(action.disk, offset, data.hex(), "", BOOT_CODE)): (offset, data)
        for offset, data in before.pieces.items()
    }
    system.write_boot_code(place.disk, place.offset, place.size, action.master)
    with _disk(action, place, system) as disk:
        after = _state(action, place, disk)
    _judge(action, place, before, after)
    changes = []
    for seq, (offset, old) in steps.items():
        new = after.pieces[offset]
        journal.done(seq, new.hex())
        if new != old:
            where = f"{BOOT_CODE} ({place.disk} at {offset})"
            changes.append(Change("sectors", where, sha256(old), sha256(new)))
    return changes


@contextmanager
def _disk(action: WriteBootCode, place: Place, system: System) -> Iterator[DiskHandle]:
    with locate_disk(system, action.disk) as disk:
        if disk.info.path != place.disk:
            raise ApplyError("stale-survey", f"the volume is on {place.disk}, not on {disk.info.path}")
        yield disk


def _areas(action: WriteBootCode, place: Place, disk: DiskHandle) -> tuple[tuple[int, int], ...]:
    head = disk.read_at(place.offset, 512)
    return boot_code.volume_areas(action.volume.file_system, head, place.size, disk.info.sector_size)


def _state(action: WriteBootCode, place: Place, disk: DiskHandle) -> _State:
    areas = _areas(action, place, disk)
    volume = {place.offset + at: disk.read_at(place.offset + at, length) for at, length in areas}
    return _State(disk.read_at(0, disk.info.sector_size), volume)


def _judge(action: WriteBootCode, place: Place, before: _State, after: _State) -> None:
    """The program said that all went well: did it? Raises ApplyError."""
    kind = action.volume.file_system
    code = slice(boot_code.MASTER_CODE if action.master else 0, None)
    if after.master[code] != before.master[code]:
        raise _failed(f"the first sector of {place.disk} has changed where its partition table is")
    if before.volume.keys() != after.volume.keys():
        raise _failed(f"the volume's parameters at {place.offset} of {place.disk} have changed")
    old, new = before.volume[place.offset], after.volume[place.offset]
    if boot_code.parameters(kind, old) != boot_code.parameters(kind, new):
        raise _failed(f"the volume's parameters at {place.offset} of {place.disk} have changed")
    if action.master and boot_code.master_kind(after.master) in _BAD:
        raise _failed(
            f"the program ended well, but there is no boot code in the first sector of {place.disk}"
        )
    if boot_code.volume_kind(kind, new) in _BAD:
        raise _failed(f"the program ended well, but there is no code for bootmgr at {place.offset}")


def _failed(why: str) -> ApplyError:
    return ApplyError("boot-code", why)
