"""Writes the ISO image: ISO 9660 with Rock Ridge and Joliet, El Torito for BIOS and UEFI, hybrid for USB.

pycdlib does the work. Two things it does not do are added here: fixed time stamps and the boot sector for USB.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import IO, Any, BinaryIO

import pycdlib

from rehost_builder.media.hybrid import ALIGNMENT, hybrid_boot_sector

Content = bytes | Path
_StructTime = time.struct_time


def write_iso(
    target: Path,
    files: Mapping[str, Content],
    *,
    label: str,
    epoch: int,
    bios_loader: str,
    efi_image: str,
    hybrid_code: bytes,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes ``files`` (path on the medium -> content) as a bootable image to ``target``.

    ``bios_loader`` and ``efi_image`` are paths among the files. ``epoch`` (seconds, UTC) dates everything. The
    same input gives the same bytes. The file appears under its name only when it is complete and on disk.
    Raises OSError (disk full), ValueError (names).
    """
    temporary = target.with_name(f".{target.name}.part")
    try:
        with temporary.open("w+b") as out:
            # The boot information table is written into the loader's own bytes, hence the copy in memory.
            with fixed_time(epoch), _Image(label) as image:
                for path in sorted(files):
                    image.add(path, files[path])
                image.boot(bios_loader, efi_image)
                total = image.write(out, progress)
            _make_hybrid(out, total, hybrid_code, files, bios_loader, efi_image, image)
            out.flush()
            os.fsync(out.fileno())
        temporary.chmod(0o644)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


class _Image:
    def __init__(self, label: str) -> None:
        self._iso = pycdlib.PyCdlib()
        self._iso.new(
            interchange_level=3,
            vol_ident=label,
            sys_ident="",
            app_ident_str="REHOST",
            joliet=3,
            rock_ridge="1.09",
        )
        self._open: list[BinaryIO] = []
        self._paths: dict[str, str] = {"": ""}

    def __enter__(self) -> _Image:
        return self

    def __exit__(self, *_: object) -> None:
        self._iso.close()
        for fp in self._open:
            fp.close()

    def add(self, path: str, content: Content) -> None:
        folder = self._folder(PurePosixPath(path).parent)
        name = PurePosixPath(path).name
        iso_path = f"{folder}/{_iso_name(name, is_file=True)}"
        if iso_path in self._paths.values():
            raise ValueError(f"two files are called {iso_path} on the medium")
        self._paths[path] = iso_path
        if isinstance(content, Path):
            fp: BinaryIO = content.open("rb")
            size = os.fstat(fp.fileno()).st_size
        else:
            fp, size = io.BytesIO(content), len(content)
        self._open.append(fp)
        self._iso.add_fp(fp, size, iso_path, rr_name=name, joliet_path=f"/{path}", file_mode=0o100444)

    def boot(self, bios_loader: str, efi_image: str) -> None:
        self._iso.add_eltorito(
            self._paths[bios_loader],
            bootcatfile="/BOOT.CAT;1",
            rr_bootcatname="boot.cat",
            joliet_bootcatfile="/boot.cat",
            boot_load_size=4,
            boot_info_table=True,
        )
        self._iso.add_eltorito(self._paths[efi_image], efi=True, platform_id=0xEF)

    def write(self, out: BinaryIO, progress: Callable[[int, int], None] | None) -> int:
        def report(done: int, total: int, _: Any) -> None:
            if progress is not None:
                progress(done, total)

        self._iso.write_fp(out, blocksize=1 << 20, progress_cb=report)
        self.places = {
            path: self._iso.get_record(iso_path=iso_path).extent_location() * 2048
            for path, iso_path in self._paths.items()
            if iso_path.endswith(";1")
        }
        out.seek(0, os.SEEK_END)
        return out.tell()

    def _folder(self, folder: PurePosixPath) -> str:
        key = "" if str(folder) == "." else str(folder)
        if key not in self._paths:
            iso_path = f"{self._folder(folder.parent)}/{_iso_name(folder.name, is_file=False)}"
            self._iso.add_directory(iso_path, rr_name=folder.name, joliet_path=f"/{key}", file_mode=0o040555)
            self._paths[key] = iso_path
        return self._paths[key]


def _iso_name(name: str, *, is_file: bool) -> str:
    """The ISO 9660 level 3 name (d-characters, one dot, version) that stands behind a real name."""
    stem, _, extension = name.rpartition(".") if is_file and "." in name[1:] else (name, "", "")
    stem = re.sub(r"[^A-Z0-9_]", "_", stem.upper())[:24]
    extension = re.sub(r"[^A-Z0-9_]", "_", extension.upper())[:5]
    return f"{stem}.{extension};1" if is_file else stem


def _make_hybrid(
    out: IO[bytes],
    total: int,
    code: bytes,
    files: Mapping[str, Content],
    bios_loader: str,
    efi_image: str,
    image: _Image,
) -> None:
    size = total + -total % ALIGNMENT
    out.truncate(size)
    content = files[efi_image]
    efi_size = content.stat().st_size if isinstance(content, Path) else len(content)
    # Derived from what is on the medium: a disk's number must be stable for a build, and differ between builds.
    out.seek(16 * 2048)
    disk_id = int.from_bytes(hashlib.sha256(out.read(64 * 2048)).digest()[:4], "little") or 1
    sector = hybrid_boot_sector(
        code,
        image_size=size,
        loader_offset=image.places[bios_loader],
        efi_offset=image.places[efi_image],
        efi_size=efi_size,
        disk_id=disk_id,
    )
    out.seek(0)
    out.write(sector)


class _Clock(ModuleType):
    """Stands in for the module ``time`` inside pycdlib: it is always ``epoch``, in UTC."""

    struct_time = _StructTime
    strftime = staticmethod(time.strftime)
    strptime = staticmethod(time.strptime)

    def __init__(self, epoch: int) -> None:
        super().__init__("time")
        self._epoch = epoch

    def time(self) -> float:
        return float(self._epoch)

    def gmtime(self, seconds: float | None = None) -> _StructTime:
        return time.gmtime(self._epoch if seconds is None else seconds)

    localtime = gmtime


@contextmanager
def fixed_time(epoch: int) -> Iterator[None]:
    """FIX for pycdlib 1.22, which asks the clock for every entry and knows no SOURCE_DATE_EPOCH.

    Without it two images of the same input differ in some 300 bytes (and in all of them in another time
    zone). Each of its modules that has the clock gets a still one for the time of writing; a test writes two
    images at different hours and compares them, so that a pycdlib that asks elsewhere is noticed.
    """
    clock = _Clock(epoch)
    ours = [module for name, module in list(sys.modules.items()) if name.startswith("pycdlib.")]
    touched = [module for module in ours if vars(module).get("time") is time]
    for module in touched:
        vars(module)["time"] = clock
    try:
        yield
    finally:
        for module in touched:
            vars(module)["time"] = time
