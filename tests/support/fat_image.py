"""FAT volumes inside disk images, by mkfs.vfat and mtools: no mount, no root."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

_ENVIRONMENT = {
    "MTOOLS_SKIP_CHECK": "1",
    "MTOOLS_FAT_COMPATIBILITY": "1",
    "MTOOLSRC": os.devnull,
    "LC_ALL": "C.UTF-8",
}


def _run(*command: str, data: bytes | None = None) -> bytes:
    environment = {**os.environ, **_ENVIRONMENT, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
    done = subprocess.run(command, input=data, capture_output=True, env=environment, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _slashes(path: str) -> str:
    return "::/" + path.replace("\\", "/").strip("/")


def make_volume(
    image: Path,
    offset: int,
    size: int,
    files: Mapping[str, bytes],
    *,
    bits: int = 32,
    label: str = "",
    sector_size: int = 512,
    sectors_per_cluster: int = 1,
) -> None:
    """Formats [offset, offset + size) of the image. One sector per cluster unless told otherwise: left to
    itself mkfs.vfat chooses by the size of the whole file, which can make a bad FAT32."""
    command = ["mkfs.vfat", "-F", str(bits), "-S", str(sector_size), "-s", str(sectors_per_cluster)]
    command += ["-h", str(offset // sector_size), "--offset", str(offset // sector_size), "--invariant"]
    if label:
        command += ["-n", label]
    _run(*command, str(image), str(size // 1024))
    if files:
        write_tree(image, offset, files)


def write_tree(image: Path, offset: int, files: Mapping[str, bytes]) -> None:
    """Writes the files (folders end in a slash); folders on the way are made, files that exist replaced."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, data in files.items():
            path = root / name.replace("\\", "/").strip("/")
            if name.endswith(("/", "\\")):
                path.mkdir(parents=True, exist_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        top = [str(p) for p in sorted(root.iterdir())]
        if top:
            _run("mcopy", "-i", f"{image}@@{offset}", "-s", "-o", "-Q", *top, "::/")


def read(image: Path, offset: int, path: str) -> bytes:
    return _run("mcopy", "-i", f"{image}@@{offset}", _slashes(path), "-")


def exists(image: Path, offset: int, path: str) -> bool:
    try:
        _run("mdir", "-b", "-i", f"{image}@@{offset}", _slashes(path))
    except OSError:
        return False
    return True


def delete(image: Path, offset: int, path: str) -> None:
    """Removes a file or a whole folder."""
    _run("mdeltree", "-i", f"{image}@@{offset}", _slashes(path))


def listing(image: Path, offset: int) -> list[str]:
    """All files and folders (with a slash at the end), recursively, as mdir names them."""
    lines = _run("mdir", "-/", "-b", "-i", f"{image}@@{offset}", "::/").decode()
    return sorted(line.removeprefix("::/") for line in lines.splitlines() if line)
