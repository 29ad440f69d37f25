"""The files of an ISO image as pieces of that image: nothing is unpacked, nothing is mounted.

Windows media are UDF with an ISO 9660 side that holds nothing but a text ("this disc contains a UDF file system"), so
UDF is looked at first. pycdlib reads both; what it cannot open (UDF without an ISO 9660 side) is unpacked by 7-Zip.
"""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pycdlib
from pycdlib.pycdlibexception import PyCdlibException

from rehost_builder.content import Content, Extent, Joined
from rehost_builder.errors import BuildError
from rehost_builder.media.iso9660 import el_torito_entries
from rehost_builder.run import run

_SECTOR = 2048
_ANCHOR = 256 * _SECTOR
_BIOS, _EFI = 0, 0xEF
_MAX_FILES = 200_000


@dataclass(frozen=True)
class IsoFiles:
    """``files`` by their path with slashes; ``read_by`` names the file system; boot images as El Torito has them."""

    files: dict[str, Content]
    read_by: str
    label: str
    bios_boot: Content | None
    efi_boot: Content | None


def read_iso(path: Path, workspace: Path, wanted: Callable[[str], bool]) -> IsoFiles:
    """Lists an ISO. ``wanted`` chooses what 7-Zip unpacks into ``workspace`` where it is needed.

    Raises BuildError for what is no ISO, is cut short, or cannot be read by any way.
    """
    iso = pycdlib.PyCdlib()
    problem = ""
    try:
        iso.open(str(path))
    except PyCdlibException as e:
        problem = str(e)
    except (
        struct.error,
        IndexError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as e:
        problem = f"{type(e).__name__}: {e}"
    if problem:
        _check_announced(path)
        found = _by_7zip(path, workspace, wanted, problem)
    else:
        try:
            found = _by_pycdlib(iso, path)
        except (PyCdlibException, struct.error, IndexError, ValueError, TypeError, AttributeError) as e:
            raise BuildError(f"{path}: damaged: {e}", "check its hash, download it again") from None
        finally:
            iso.close()
    _check_length(path, found)
    return found


def _by_pycdlib(iso: Any, path: Path) -> IsoFiles:
    label = iso.pvd.volume_identifier.decode("ascii", "replace").strip()
    ways: list[tuple[str, str]] = []
    if iso.has_udf():
        ways.append(("UDF", "udf_path"))
    if iso.has_joliet():
        ways.append(("Joliet", "joliet_path"))
    if iso.has_rock_ridge():
        ways.append(("Rock Ridge", "rr_path"))
    ways.append(("ISO 9660", "iso_path"))
    catalog = iso.eltorito_boot_catalog
    catalog_at = catalog.extent_location() * _SECTOR if catalog is not None else -1
    best: tuple[dict[str, Content], str] = ({}, ways[0][0])
    for name, argument in ways:
        part = iso.udf_main_descs.partitions[0].part_start_location if name == "UDF" else 0
        files: dict[str, Content] = {}
        for file, record in _walk(iso, argument):
            content = _udf_content(path, record, part) if name == "UDF" else _iso_content(iso, path, record)
            if isinstance(content, Extent) and content.offset == catalog_at:
                continue  # the boot catalog, which every image has of its own
            files[re.sub(r"\.?;\d+$", "", file) if name == "ISO 9660" else file] = content
            if len(files) > _MAX_FILES:
                raise ValueError("more files than a Windows medium has")
        if len(files) > len(best[0]):
            best = files, name
        if name == "UDF" and len(files) > 1:
            break
    bios, efi = _boot_images(path)
    return IsoFiles(*best, label, bios, efi)


def _walk(iso: Any, argument: str) -> Iterator[tuple[str, Any]]:
    for folder, _, names in iso.walk(**{argument: "/"}):
        for name in names:
            full = posixpath.join(folder, name)
            record = iso.get_record(**{argument: full})
            if record is not None and record.is_file() and not getattr(record, "is_symlink", lambda: False)():
                yield full.lstrip("/"), record


def _udf_content(path: Path, record: Any, partition: int) -> Content:
    """The extents of a UDF file, those that follow each other joined."""
    rest = record.get_data_length()
    parts: list[Extent] = []
    for descriptor in record.alloc_descs:
        length = min(descriptor.extent_length & 0x3FFFFFFF, rest)
        start = (partition + descriptor.log_block_num) * _SECTOR + descriptor.offset
        if not length:
            continue
        if parts and parts[-1].offset + parts[-1].length == start:
            parts[-1] = Extent(path, parts[-1].offset, parts[-1].length + length)
        else:
            parts.append(Extent(path, start, length))
        rest -= length
    if rest:
        raise ValueError("the extents of a file are shorter than the file")
    if not parts:
        return b""
    return parts[0] if len(parts) == 1 else Joined(tuple(parts))


def _iso_content(iso: Any, path: Path, record: Any) -> Content:
    length = record.get_data_length()
    return Extent(path, record.extent_location() * iso.logical_block_size, length) if length else b""


def _boot_images(path: Path) -> tuple[Content | None, Content | None]:
    """The El Torito images for BIOS and UEFI, at their full length."""
    bios: Content | None = None
    efi: Content | None = None
    try:
        with path.open("rb") as f:
            for platform, offset, sectors in el_torito_entries(f):
                if platform == _BIOS and bios is None:
                    bios = Extent(path, offset, sectors * 512)
                elif platform == _EFI and efi is None:
                    f.seek(offset)
                    efi = Extent(path, offset, max(sectors * 512, _fat_size(f.read(512))))
    except (ValueError, struct.error):
        return None, None
    return bios, efi


def _fat_size(boot_sector: bytes) -> int:
    """Bytes of a FAT volume; El Torito entries for UEFI often say one sector only."""
    if len(boot_sector) < 512 or boot_sector[510:] != b"\x55\xaa":
        return 0
    size, small, large = (
        struct.unpack_from("<H", boot_sector, 11)[0],
        *struct.unpack_from("<H11xI", boot_sector, 19),
    )
    return int(size * (small or large)) if size in (512, 1024, 2048, 4096) else 0


def _check_announced(path: Path) -> None:
    """Refuses an image that is shorter than its own descriptors say: the likeliest reason why it cannot be read."""
    have = path.stat().st_size
    with path.open("rb") as f:
        need = max(_iso_size(f), _udf_size(f))
    if need > have:
        raise _cut_short(path, have, need)


def _iso_size(f: BinaryIO) -> int:
    """Bytes of the ISO 9660 volume (ECMA-119, 8.4.8); 0 where there is none."""
    f.seek(16 * _SECTOR)
    descriptor = f.read(_SECTOR)
    if descriptor[:6] != b"\x01CD001" or len(descriptor) < _SECTOR:
        return 0
    return int(struct.unpack_from("<I", descriptor, 80)[0]) * _SECTOR


def _udf_size(f: BinaryIO) -> int:
    """Where the UDF partition ends, in bytes (ECMA-167, 3/10.2 and 3/10.5); 0 where that is not said."""
    f.seek(_ANCHOR)
    anchor = f.read(512)
    if len(anchor) < 512 or struct.unpack_from("<H", anchor)[0] != 2:
        return 0
    length, place = struct.unpack_from("<II", anchor, 16)
    for number in range(min(length // _SECTOR, 32)):
        f.seek((place + number) * _SECTOR)
        descriptor = f.read(512)
        if len(descriptor) == 512 and struct.unpack_from("<H", descriptor)[0] == 5:
            start, count = struct.unpack_from("<II", descriptor, 188)
            return int(start + count) * _SECTOR
    return 0


def _cut_short(path: Path, have: int, need: int) -> BuildError:
    return BuildError(
        f"{path} is cut short: it has {have:,} bytes, its content reaches to byte {need:,}",
        "download or copy it again and compare its hash",
    )


def _check_length(path: Path, found: IsoFiles) -> None:
    have = path.stat().st_size
    need = 0
    for content in (*found.files.values(), found.bios_boot, found.efi_boot):
        for part in content.parts if isinstance(content, Joined) else (content,):
            if isinstance(part, Extent) and part.path == path:
                need = max(need, part.offset + part.length)
    if need > have:
        raise _cut_short(path, have, need)


# --- 7-Zip


def _by_7zip(path: Path, workspace: Path, wanted: Callable[[str], bool], problem: str) -> IsoFiles:
    with path.open("rb") as f:
        f.seek(32 << 10)
        marks = f.read(16 << 10)
    if not any(mark in marks for mark in (b"CD001", b"BEA01", b"NSR02", b"NSR03")):
        raise BuildError(
            f"{path} is no ISO image: neither ISO 9660 nor UDF is on it",
            "give the ISO of Windows Server or Windows, a folder with its files, or a boot.wim",
        )
    program = next((found for name in ("7z", "7zz", "7za") if (found := shutil.which(name))), None)
    if program is None:
        raise BuildError(
            f"{path} cannot be read ({problem}), and 7-Zip, which might, is not installed",
            "install 7-Zip, or unpack the ISO into a folder and give that",
        )
    what = f"{path} cannot be read by 7-Zip either"
    listed = _listed(
        run([program, "l", "-slt", "-ba", path], what=what, hint="check its hash, download it again")
    )
    chosen = {name: size for name, size in listed.items() if wanted(name)}
    target = workspace / "iso"
    target.mkdir(parents=True, exist_ok=True)
    names = workspace / "iso.list"
    names.write_text("".join(f"{name}\n" for name in chosen), encoding="utf-8")
    if chosen:
        run([program, "x", "-y", f"-o{target}", "-scsUTF-8", path, f"@{names}"], what=what)
    files: dict[str, Content] = {name: b"" for name in listed if name not in chosen}
    for name, size in chosen.items():
        file = target / name
        # its exit code is 0 also where it has left files out
        if not file.is_file() or file.stat().st_size != size:
            raise BuildError(
                f"{path}: 7-Zip did not unpack {name}", "unpack the ISO into a folder and give that"
            )
        files[name] = file
    bios, efi = _boot_images(path)
    return IsoFiles(files, "7-Zip", "", bios, efi)


def _listed(text: str) -> dict[str, int]:
    """Files and their bytes from `7z l -slt`, whose keys are never translated."""
    found: dict[str, int] = {}
    for block in re.split(r"\r?\n\r?\n", text):
        fields = dict(line.split(" = ", 1) for line in block.splitlines() if " = " in line)
        name = fields.get("Path", "").replace(os.sep, "/").replace("\\", "/")
        folder = fields.get("Folder") == "+" or fields.get("Attributes", "").startswith("D")
        if name and not folder and ".." not in name.split("/") and not name.startswith("/"):
            size = fields.get("Size", "")
            found[name] = int(size) if size.isdigit() else 0
    return found
