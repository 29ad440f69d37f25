"""Writes the ISO of the WinPE base: UDF 1.02 as Windows media have it, and El Torito for BIOS and UEFI.

The ISO 9660 side holds the boot images only, as on Microsoft's own discs: etfsboot.com looks for BOOTMGR, and would
not find the "BOOTMGR.;1" of a strict ISO 9660 name. pycdlib's "2.60" writes UDF revision 1.02.
"""

from __future__ import annotations

import errno
import io
import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import pycdlib
import pycdlib.udf

from rehost_builder.content import Content, open_content, size_of
from rehost_builder.media.iso9660 import fixed_time

_CATALOG, _BIOS, _EFI = "/BOOT.CAT;1", "/BIOS.IMG;1", "/EFI.IMG;1"


@dataclass(frozen=True)
class BootEntries:
    """The boot images; one of them may be missing. They need not be among the files."""

    bios: Content | None
    efi: Content | None


def write_winpe_iso(
    target: Path,
    tree: Mapping[str, Content],
    boot: BootEntries,
    *,
    label: str,
    epoch: int,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes ``tree`` (path on the medium -> content) as a bootable image; ``progress`` gets bytes done and in all.

    ``epoch`` (seconds, UTC) dates everything; the same input gives the same bytes. The file appears under its name
    only when it is complete and on disk. Raises OSError (disk full, a source that vanishes), ValueError (names).
    """
    if boot.bios is None and boot.efi is None:
        raise ValueError("an ISO without a boot image")
    temporary = target.with_name(f".{target.name}.part")
    try:
        with temporary.open("w+b") as out:
            with _fixed_random(epoch), fixed_time(epoch), ExitStack() as files:
                iso = pycdlib.PyCdlib()
                iso.new(
                    interchange_level=3, vol_ident=label, sys_ident="", app_ident_str="REHOST", udf="2.60"
                )
                files.callback(iso.close)
                _add(iso, files, tree)
                _add_boot(iso, files, boot, _catalog_name(tree))

                def report(done: int, total: int, _: Any) -> None:
                    if progress is not None:
                        progress(done, total)

                iso.write_fp(out, blocksize=1 << 20, progress_cb=report)
            out.flush()
            os.fsync(out.fileno())
        temporary.chmod(0o644)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _add(iso: Any, files: ExitStack, tree: Mapping[str, Content]) -> None:
    pool = files.enter_context(_Pool())
    made = {"."}
    for path in sorted(tree):
        for folder in reversed(PurePosixPath(path).parents):
            if str(folder) not in made:
                made.add(str(folder))
                iso.add_directory(udf_path=f"/{folder}")
        iso.add_fp(_Late(path, tree[path], pool), size_of(tree[path]), udf_path=f"/{path}")


class _Pool:
    """The one file that is open: a medium may have more files than a program may have open."""

    def __init__(self) -> None:
        self._owner: object = None
        self._file: BinaryIO | None = None

    def open(self, owner: object, content: Content) -> BinaryIO:
        if self._file is None or self._owner is not owner:
            self.__exit__()
            self._file, self._owner = open_content(content), owner
        return self._file

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None


class _Late(io.RawIOBase):
    """FIX for pycdlib 1.22, which wants every file open from `add_fp` until the end, and writes less than was announced
    without a word where one has become shorter. Opened when it is read, and held to its size.
    """

    def __init__(self, path: str, content: Content, pool: _Pool) -> None:
        super().__init__()
        self._path = path
        self._content = content
        self._pool = pool
        self._at = 0
        self._size = size_of(content)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, length: int = -1) -> bytes:
        left = max(0, self._size - self._at)
        wanted = left if length < 0 else min(length, left)
        file = self._pool.open(self, self._content)
        file.seek(self._at)
        data = file.read(wanted)
        if len(data) < wanted:
            raise OSError(errno.EIO, "the file has become shorter while it was read", self._path)
        self._at += len(data)
        return data


def _catalog_name(tree: Mapping[str, Content]) -> str:
    """A name for the boot catalog's file that no other file has; UDF wants one."""
    taken = {path.casefold() for path in tree}
    return next(name for n in range(len(taken) + 1) if (name := f"boot{n or ''}.cat") not in taken)


def _add_boot(iso: Any, files: ExitStack, boot: BootEntries, catalog_name: str) -> None:
    entries: list[tuple[str, Content, dict[str, object]]] = []
    if boot.bios is not None:
        # etfsboot.com wants to be loaded whole: 8 sectors of 512 bytes
        sectors = min(max(size_of(boot.bios) // 512, 1), 0xFFFF)
        entries.append((_BIOS, boot.bios, {"boot_load_size": sectors, "platform_id": 0}))
    if boot.efi is not None:
        entries.append((_EFI, boot.efi, {"platform_id": 0xEF, "efi": True}))
    for number, (name, content, options) in enumerate(entries):
        iso.add_fp(files.enter_context(open_content(content)), size_of(content), iso_path=name)
        catalog = {"bootcatfile": _CATALOG, "udf_bootcatfile": f"/{catalog_name}"} if number == 0 else {}
        iso.add_eltorito(name, **catalog, **options)


@contextmanager
def _fixed_random(seed: int) -> Iterator[None]:
    """FIX for pycdlib 1.22: the number that names a UDF volume set is drawn, so that no two images are the same."""
    names = vars(pycdlib.udf)
    original = names["random"]
    names["random"] = random.Random(seed)
    try:
        yield
    finally:
        names["random"] = original
