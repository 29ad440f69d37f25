"""The few ways in which repair touches a machine; apply and undo both go through here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from rehost_payload.repair.errors import ApplyError
from rehost_payload.repair.journal import SectorsStep
from rehost_payload.repair.locate import locate_disk, locate_volume
from rehost_payload.repair.model import VolumeRef
from rehost_payload.system.protocol import TEMPORARY_NAME, System, WritableVolume


class Mounts:
    """The volumes that are mounted for writing, each once, for as long as the run needs them."""

    def __init__(self, system: System, stack: ExitStack) -> None:
        self._system = system
        self._stack = stack
        self._mounted: dict[VolumeRef, WritableVolume] = {}
        self._inner = ExitStack()
        stack.push(self._inner)

    def of(self, ref: VolumeRef) -> WritableVolume:
        if ref not in self._mounted:
            where = locate_volume(self._system, ref)
            self._mounted[ref] = self._inner.enter_context(
                self._system.writable(where.disk, where.offset, where.size)
            )
        return self._mounted[ref]

    def close(self) -> None:
        self._mounted.clear()
        self._inner.close()


@contextmanager
def mounted(system: System, ref: VolumeRef) -> Iterator[WritableVolume]:
    """The volume that ``ref`` names, mounted for writing."""
    where = locate_volume(system, ref)
    with system.writable(where.disk, where.offset, where.size) as volume:
        yield volume


def put_sectors(step: SectorsStep, data: bytes, system: System) -> None:
    """Writes the sectors of a step and tells the system to look at the table again."""
    with locate_disk(system, step.disk) as disk:
        path = disk.info.path
    system.write_sectors(path, step.offset, data)
    system.reread_partitions(path)


def overlaid(data: bytes, offset: int, pieces: Iterable[tuple[int, bytes]]) -> bytes:
    """``data``, which begins at ``offset`` of a disk, with the pieces (offset, bytes) laid over it in their order."""
    changed = bytearray(data)
    for place, piece in pieces:
        first, last = max(place, offset), min(place + len(piece), offset + len(data))
        if first < last:
            changed[first - offset : last - offset] = piece[first - place : last - place]
    return bytes(changed)


def put_variable(name: str, value: str | None, system: System) -> None:
    """Sets a UEFI variable (hex, None: delete) and reads it back."""
    data = None if value is None else bytes.fromhex(value)
    system.set_firmware_variable(name, data)
    if system.firmware_variable(name) != data:
        raise ApplyError("firmware", f"the firmware did not keep {name}")


def remove_leftover(volume: WritableVolume, path: str) -> None:
    """Deletes the temporary file that a power cut may have left beside ``path``."""
    leftover = path.rpartition("\\")[0] + "\\" + TEMPORARY_NAME
    if volume.exists(leftover):
        volume.remove(leftover)
