"""Writes the stick and reads it back.

The first sector is zero from the first write to the end of the verification: a stick that is half written starts
nothing, and looks empty.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from rehost_builder.errors import BlockedError, BuildError
from rehost_builder.media.fat32 import Source, geometry, write_fat32
from rehost_builder.media.iso_reader import IsoFile, IsoImage
from rehost_builder.usb.device import Stick, opened
from rehost_builder.usb.layout import Part, StickLayout, boot_record
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.filesystem import FileSystemReader
from rehost_payload.formats.source import SliceSource
from rehost_payload.survey.filesystems import open_filesystem
from rehost_payload.system.blockio import reread_partitions
from rehost_payload.system.protocol import SystemError_

_BLOCK = 4 << 20
_FLUSH = 64 << 20  # bytes between two flushes: so that progress tells of the stick and not of the cache
Tell = Callable[[str, int, int], None]
"""(step, bytes done, bytes in total)"""


@dataclass(frozen=True)
class FromIso:
    """A file of the medium as a source."""

    image: IsoImage
    file: IsoFile

    @property
    def size(self) -> int:
        return self.file.size

    def blocks(self) -> Iterator[bytes]:
        return self.image.blocks(self.file)


class _Device:
    """A file object over a descriptor that writes everything it is given and flushes now and then."""

    def __init__(self, descriptor: int, tell: Callable[[int], None]) -> None:
        self._descriptor = descriptor
        self._at = 0
        self._unflushed = 0
        self._tell = tell

    def seek(self, offset: int) -> int:
        self._at = offset
        return offset

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            count = os.pwrite(self._descriptor, view[:_BLOCK], self._at)
            if count == 0:
                raise OSError(errno.ENOSPC, "the device takes no more")
            self._at += count
            self._unflushed += count
            view = view[count:]
            self._tell(count)
        if self._unflushed >= _FLUSH:
            self.flush()
        return len(data)

    def flush(self) -> None:
        os.fsync(self._descriptor)
        self._unflushed = 0


def write_stick(
    image: IsoImage, stick: Stick, plan: StickLayout, files: Mapping[str, Source], epoch: int, tell: Tell
) -> None:
    """Writes the medium to the stick and verifies it. Raises BuildError, after which the stick starts nothing."""
    first = image.read(0, 512)
    disk_id = int.from_bytes(hashlib.sha256(first + image.read(32768, 2048)).digest()[:4], "little") or 1
    record = boot_record(plan, first, disk_id)
    with _errors(stick), _exclusive(stick) as descriptor:
        total, done = _amount(image, plan, files), 0

        def count(number: int) -> None:
            nonlocal done
            done += number
            tell("writing", min(done, total), total)

        device = _Device(descriptor, count)
        device.write(bytes(512))
        device.flush()
        out = cast(BinaryIO, device)
        if plan.kind == "image":
            _copy(image, out)
        else:
            assert plan.boot is not None
            _format(out, plan.boot, files, epoch, disk_id, bootable=True)
        if plan.data is not None:
            _format(out, plan.data, {}, epoch, disk_id ^ 0x5A5A5A5A, bootable=False)
        device.flush()
        _verify(image, stick, plan, files, tell)
        device.seek(0)
        device.write(record)
        device.flush()
    with opened(stick) as handle:
        if handle.read_at(0, 512) != record:
            raise BuildError(f"{stick.path}: the first sector does not read back as it was written", _BROKEN)
    if not stick.is_file:
        with contextlib.suppress(
            SystemError_
        ):  # the kernel shows the old partitions until the stick is pulled
            reread_partitions(str(stick.path))


_BROKEN = "the stick is worn out or a counterfeit: take another one"


def _amount(image: IsoImage, plan: StickLayout, files: Mapping[str, Source]) -> int:
    tables = sum(2 * geometry(p.size).fat_sectors * 512 for p in (plan.boot, plan.data) if p is not None)
    return tables + (image.size if plan.kind == "image" else sum(f.size for f in files.values()))


def _copy(image: IsoImage, out: BinaryIO) -> None:
    """All but the first sector, which comes last."""
    out.seek(512)
    offset = 512
    while offset < image.size:
        data = image.read(offset, min(_BLOCK, image.size - offset))
        out.write(data)
        offset += len(data)


def _format(
    out: BinaryIO, part: Part, files: Mapping[str, Source], epoch: int, serial: int, bootable: bool
) -> None:
    write_fat32(
        out, part.offset, part.size, files,
        label=part.label, epoch=epoch, serial=serial, bootable=bootable,
    )  # fmt: skip


# --- reading back: by the payload's readers, which share nothing with what wrote


def _verify(
    image: IsoImage, stick: Stick, plan: StickLayout, files: Mapping[str, Source], tell: Tell
) -> None:
    total = image.size if plan.kind == "image" else sum(f.size for f in files.values())
    done = 0
    with opened(stick) as handle:

        def same(reader: Callable[[int, int], bytes], at: int, blocks: Iterator[bytes], what: str) -> None:
            nonlocal done
            for block in blocks:
                if reader(at, len(block)) != block:
                    raise BuildError(
                        f"{what} does not read back from {stick.path} as it was written", _BROKEN
                    )
                at += len(block)
                done += len(block)
                tell("reading back", done, total)

        def volume(part: Part) -> FileSystemReader:
            found = open_filesystem(SliceSource(handle, part.offset, part.size))
            if found.label != part.label:
                raise BuildError(f"the volume {part.label} does not read back from {stick.path}", _BROKEN)
            return found

        if plan.kind == "image":
            whole = IsoFile(image.size - 512, ((512, image.size - 512),))
            same(handle.read_at, 512, image.blocks(whole), "the medium")
        else:
            assert plan.boot is not None
            reader = volume(plan.boot)
            for name, source in files.items():
                found = reader.open(name)
                if found.size != source.size:
                    raise BuildError(
                        f"{name} has {found.size} bytes on {stick.path}, not {source.size}", _BROKEN
                    )
                same(found.read_at, 0, source.blocks(), name)
        if plan.data is not None:
            volume(plan.data)


@contextlib.contextmanager
def _exclusive(stick: Stick) -> Iterator[int]:
    """Opened for writing by us alone: the kernel refuses a disk that has been mounted since we looked."""
    descriptor = os.open(stick.path, os.O_RDWR | os.O_CLOEXEC | (0 if stick.is_file else os.O_EXCL))
    try:
        yield descriptor
    finally:
        with contextlib.suppress(OSError):  # the errors of a stick that was pulled have been reported
            os.close(descriptor)


@contextlib.contextmanager
def _errors(stick: Stick) -> Iterator[None]:
    started = time.monotonic()
    try:
        yield
    except FormatError as error:
        raise BuildError(f"{stick.path} does not read back as it was written: {error}", _BROKEN) from None
    except ValueError as error:
        raise BuildError(str(error)) from None
    except OSError as error:
        hints: dict[Any, str] = {
            errno.EBUSY: "something uses it: unmount its volumes",
            errno.EACCES: "run it as root",
            errno.EPERM: "run it as root",
        }
        gone = error.errno in (errno.ENODEV, errno.ENXIO, errno.EIO, errno.ENOSPC)
        hint = hints.get(error.errno, "plug it in again, or take another one" if gone else "")
        if error.errno == errno.EBUSY:  # only opening it does this
            raise BlockedError(f"{stick.path}: {error.strerror}", hint) from None
        when = f" after {time.monotonic() - started:.0f} s" if gone else ""
        raise BuildError(f"{stick.path}: {error.strerror or error}{when}", hint) from None
