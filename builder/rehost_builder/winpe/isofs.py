"""The files of an ISO image as pieces of that image: nothing is unpacked, nothing is mounted.

Windows media are UDF with an ISO 9660 side that holds nothing but a text ("this disc contains a UDF file system"), so
UDF is looked at first. What our reader does not understand is unpacked by 7-Zip.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rehost_builder.content import Content, Extent, Joined
from rehost_builder.errors import BuildError
from rehost_builder.media.iso_reader import IsoFile, IsoImage, announced_size, boot_entries, open_iso
from rehost_builder.run import run
from rehost_payload.formats.errors import FormatError

_BIOS, _EFI = 0, 0xEF
_NAMES = {"udf": "UDF", "joliet": "Joliet", "iso9660": "ISO 9660"}


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
    with path.open("rb") as f:
        need = announced_size(f)
        try:
            image = open_iso(f)
        except FormatError as e:
            problem = str(e)
        else:
            need = max(need, image.needed)
            problem = next((p for p in image.problems if p.startswith("udf: ")), "")
            # beside their UDF side, Microsoft's media have a text and the boot images, at the root
            if not problem or any(t.folders for t in image.trees):
                _check_length(path, need)
                return _found(image, path, _boot_images(path, f))
        _check_length(path, need)
        boot = _boot_images(path, f)
    return IsoFiles(_by_7zip(path, workspace, wanted, problem), "7-Zip", "", *boot)


def _found(image: IsoImage, path: Path, boot: tuple[Content | None, Content | None]) -> IsoFiles:
    tree = max(image.trees, key=lambda t: (t.kind == "udf" and len(t.files) > 1, len(t.files)))
    files = {
        # the boot catalog, which every image has of its own
        name: _content(path, file)
        for name, file in tree.files.items()
        if not image.catalog or not file.pieces or file.pieces[0][0] != image.catalog
    }
    return IsoFiles(files, _NAMES[tree.kind], tree.label, *boot)


def _content(path: Path, file: IsoFile) -> Content:
    parts = tuple(Extent(path, offset, length) for offset, length in file.pieces)
    if not parts:
        return b""
    return parts[0] if len(parts) == 1 else Joined(parts)


def _boot_images(path: Path, f: BinaryIO) -> tuple[Content | None, Content | None]:
    """The El Torito images for BIOS and UEFI, at their full length."""
    entries = [e for e in boot_entries(f) if e.bootable]
    bios = next((Extent(path, e.offset, e.load * 512) for e in entries if e.platform == _BIOS), None)
    efi = None
    if entry := next((e for e in entries if e.platform == _EFI), None):
        f.seek(entry.offset)
        efi = Extent(path, entry.offset, max(entry.load * 512, _fat_size(f.read(512))))
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


def _check_length(path: Path, need: int) -> None:
    have = path.stat().st_size
    if need > have:
        raise BuildError(
            f"{path} is cut short: it has {have:,} bytes, its content reaches to byte {need:,}",
            "download or copy it again and compare its hash",
        )


# --- 7-Zip


def _by_7zip(path: Path, workspace: Path, wanted: Callable[[str], bool], problem: str) -> dict[str, Content]:
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
    return files


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
