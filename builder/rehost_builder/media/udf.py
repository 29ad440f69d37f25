"""Writes the ISO of the WinPE base: a bridge disc (UDF 1.02 as Windows media have it, ISO 9660 and Joliet over the
same bytes), and El Torito for BIOS and UEFI.

Windows and its boot programs read UDF; the other two are for whoever does not. Names on the ISO 9660 side are those of
ISO 9660:1999 ("level 4"), without a version and without a trailing dot: etfsboot.com looks for BOOTMGR, and does not
find the "BOOTMGR.;1" of a strict name. Files from 4 GiB on have several directory records there (multi-extent, ECMA-119
9.1.6), which Linux, xorriso and 7-Zip put together. pycdlib's "2.60" writes UDF revision 1.02.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pycdlib
import pycdlib.udf

from rehost_builder.content import Content, open_content, size_of
from rehost_builder.environment import named
from rehost_builder.media.iso9660 import fixed_time

_SEAL = 16 * 2048 + 883
_NOT_IN_JOLIET = set("*/:;?\\")
_LONGEST_NAME, _LONGEST_PATH = 64, 240  # characters, of Joliet


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

    ``epoch`` (seconds, UTC) dates everything; the same input gives the same bytes. The primary volume descriptor has the
    SHA-256 of the image in the field for applications (see `_seal`). The file appears under its name
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
                    interchange_level=4, vol_ident=label, sys_ident="", app_ident_str="REHOST", joliet=3,
                    udf="2.60",
                )  # fmt: skip
                files.callback(iso.close)
                hidden = set(udf_only(tree))
                _add(iso, files, tree, hidden)
                _add_boot(iso, files, tree, hidden, boot)

                def report(done: int, total: int, _: Any) -> None:
                    if progress is not None:
                        progress(done, total)

                iso.write_fp(out, blocksize=1 << 20, progress_cb=report)
            _seal(out)
            out.flush()
            os.fsync(out.fileno())
        temporary.chmod(0o644)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _seal(out: BinaryIO) -> None:
    """Writes the SHA-256 of the image, computed with zeros in this field, into the 512 bytes that ECMA-119 (8.4.32)
    leaves to the application: so that a byte that no list of files covers cannot change unnoticed.
    """
    out.seek(_SEAL)
    out.write(bytes(512))
    out.seek(0)
    digest = hashlib.sha256()
    while data := out.read(1 << 20):
        digest.update(data)
    out.seek(_SEAL)
    out.write(f"REHOST SHA-256 {digest.hexdigest()}".encode("ascii"))


def udf_only(tree: Iterable[str]) -> list[str]:
    """Paths that ISO 9660 and Joliet cannot have: too long, or with characters that one of the two does not know, or
    the same as another one in capitals. UDF has them all.
    """
    shown: set[str] = set()
    without = []
    for path in sorted(tree):
        parts = path.split("/")
        if (
            len(path) > _LONGEST_PATH
            or path.upper() in shown
            or any(len(p) > _LONGEST_NAME or p[-1:] in (" ", ".") or _NOT_IN_JOLIET & set(p) for p in parts)
            or not (path.isascii() and path.isprintable())
        ):
            without.append(path)
        shown.add(path.upper())
    return without


def _places(path: str, shown: bool) -> dict[str, str]:
    everywhere = {"iso_path": f"/{path.upper()}", "joliet_path": f"/{path}"} if shown else {}
    return {**everywhere, "udf_path": f"/{path}"}


def _folders(path: str) -> Iterator[str]:
    """Those above a path, the outermost first."""
    at = path.find("/")
    while at >= 0:
        yield path[:at]
        at = path.find("/", at + 1)


def _add(iso: Any, files: ExitStack, tree: Mapping[str, Content], hidden: set[str]) -> None:
    """``hidden``: paths that only UDF has."""
    pool = files.enter_context(_Pool())
    shown = {folder for path in tree if path not in hidden for folder in _folders(path)}
    made: set[str] = set()
    for path in sorted(tree):
        for folder in _folders(path):
            if folder not in made:
                made.add(folder)
                iso.add_directory(**_places(folder, folder in shown))
        source = _Late(path, tree[path], pool)
        iso.add_fp(source, source.size, **_places(path, path not in hidden))


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
        self.size = size_of(content)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, length: int = -1) -> bytes:
        left = max(0, self.size - self._at)
        wanted = left if length < 0 else min(length, left)
        with named(self._path):
            file = self._pool.open(self, self._content)
            file.seek(self._at)
            data = file.read(wanted)
        if len(data) < wanted:
            raise OSError(errno.EIO, "the file has become shorter while it was read", self._path)
        self._at += len(data)
        return data


def _unused(tree: Mapping[str, Content], stem: str, extension: str) -> str:
    """A name at the root of the medium that no other file has."""
    taken = {path.casefold() for path in tree}
    return next(
        name
        for n in range(len(taken) + 1)
        if (name := f"{stem}{n or ''}.{extension}").casefold() not in taken
    )


def _add_boot(
    iso: Any, files: ExitStack, tree: Mapping[str, Content], hidden: set[str], boot: BootEntries
) -> None:
    entries: list[tuple[str, Content, dict[str, object]]] = []
    if boot.bios is not None:
        # etfsboot.com wants to be loaded whole: 8 sectors of 512 bytes
        sectors = min(max(size_of(boot.bios) // 512, 1), 0xFFFF)
        entries.append(("BIOS", boot.bios, {"boot_load_size": sectors, "platform_id": 0}))
    if boot.efi is not None:
        entries.append(("EFI", boot.efi, {"platform_id": 0xEF, "efi": True}))
    for number, (stem, content, options) in enumerate(entries):
        same = next((p for p in sorted(tree) if tree[p] == content and p not in hidden), None)
        name = f"/{(same or _unused(tree, stem, 'IMG')).upper()}"
        if same is None:
            iso.add_fp(files.enter_context(open_content(content)), size_of(content), iso_path=name)
        places: dict[str, str] = {}
        if number == 0:
            catalog = _unused(tree, "boot", "cat")
            places = {
                "bootcatfile": f"/{catalog.upper()}",
                "joliet_bootcatfile": f"/{catalog}",
                "udf_bootcatfile": f"/{catalog}",
            }
        iso.add_eltorito(name, **places, **options)


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
