"""What a disk holds, seen by tools that are not ours: mtools, libntfs-3g and ntfsprogs, sgdisk, fsck.fat, hivexml.

The functions that judge return a list of complaints; an empty one means that the tool is content.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support import disks, fat_image, hives, sparse, stores
from support.disks import DiskLayout, PartitionLayout
from support.ntfs_image import NtfsImage

_ENVIRONMENT = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin", "LC_ALL": "C"}
Tree = dict[str, str]


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, errors="replace", env=_ENVIRONMENT)


@contextmanager
def volume_file(disk: DiskLayout, part: PartitionLayout) -> Iterator[Path]:
    """The partition alone in a file, as the tools want it."""
    with tempfile.TemporaryDirectory(dir=disk.path.parent) as folder:
        path = Path(folder) / "volume"
        sparse.make(path, part.size)
        sparse.copy_range(disk.path, part.offset, path, 0, part.size)
        yield path


# --- contents


def region(disk: DiskLayout, start: int, size: int) -> str:
    """SHA-256 of a part of the disk; holes count as zeros."""
    digest = hashlib.sha256()
    with disk.path.open("rb") as file:
        position = start
        for offset, count in sparse.extents(file.fileno(), start, start + size):
            # lengths of holes instead of their zeros would make the sum depend on the file system
            digest.update(bytes(offset - position))
            while count > 0:
                data = os.pread(file.fileno(), min(count, 1 << 20), offset)
                digest.update(data)
                offset += len(data)
                count -= len(data)
            position = offset
        digest.update(bytes(start + size - position))
    return digest.hexdigest()


def regions(disk: DiskLayout) -> dict[str, str]:
    """Every partition by role, and what is outside of all of them ("table")."""
    result = {p.role: region(disk, p.offset, p.size) for p in disk.partitions}
    edges = [0]
    for part in sorted(disk.partitions, key=lambda p: p.offset):
        edges += [part.offset, part.offset + part.size]
    edges.append(disk.size)
    gaps = zip(edges[::2], edges[1::2], strict=True)
    result["table"] = " ".join(region(disk, start, end - start) for start, end in gaps)
    return result


def paths(disk: DiskLayout, part: PartitionLayout) -> list[str]:
    """All files and folders of a volume; folders end in a slash. NTFS without its metadata files."""
    if part.fs.startswith("fat"):
        return fat_image.listing(disk.path, part.offset)
    with volume_file(disk, part) as path:
        output = _run("ntfsls", "-f", "-R", "-F", str(path)).stdout
    found: list[str] = []
    folder = ""
    for line in output.splitlines():
        if line.endswith(":") and line.startswith("/"):
            folder = line[1:-1].strip("/")
        elif line and line.rstrip("/") not in (".", ".."):
            name = f"{folder}/{line}".lstrip("/")
            if not name.startswith("$"):
                found.append(name)
    return sorted(set(found))


def tree(disk: DiskLayout, part: PartitionLayout) -> Tree:
    """Every file with its SHA-256; folders with ""."""
    names = paths(disk, part)
    if part.fs.startswith("fat"):
        with tempfile.TemporaryDirectory() as folder:
            source = f"{disk.path}@@{part.offset}"
            subprocess.run(
                ["mcopy", "-i", source, "-s", "-n", "-Q", "::/", folder], check=True, capture_output=True
            )
            return {
                n: "" if n.endswith("/") else hashlib.sha256((Path(folder) / n).read_bytes()).hexdigest()
                for n in names
            }
    with disks.ntfs_volume(disk, part, read_only=True) as volume:
        return {n: "" if n.endswith("/") else hashlib.sha256(volume.read(n)).hexdigest() for n in names}


def contents(disk: DiskLayout, part: PartitionLayout, names: Iterable[str]) -> dict[str, str | None]:
    """SHA-256 of each of these files, None where there is none; "unreadable" where it is named and cannot be read.

    For volumes that a power cut left with whatever it left: each file is looked at by itself.
    """
    if part.fs == "ntfs":
        with volume_file(disk, part) as path:
            _run(
                "ntfsfix", str(path)
            )  # of our copy: ntfs-3g opens none whose $MFTMirr lags behind, Windows does
            with NtfsImage(path, read_only=True) as volume:
                return _contents(names, volume.exists, volume.read)
    return _contents(
        names, lambda n: disks.file_exists(disk, part, n), lambda n: disks.read_file(disk, part, n)
    )


def _contents(
    names: Iterable[str], exists: Callable[[str], bool], read: Callable[[str], bytes]
) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in names:
        if not exists(name):
            found[name] = None
            continue
        try:
            found[name] = hashlib.sha256(read(name)).hexdigest()
        except OSError:
            found[name] = "unreadable"
    return found


def difference(before: Tree, after: Tree) -> dict[str, str]:
    """Path -> "added", "removed" or "changed"."""
    result = dict.fromkeys(after.keys() - before.keys(), "added")
    result |= dict.fromkeys(before.keys() - after.keys(), "removed")
    return result | {n: "changed" for n in before.keys() & after.keys() if before[n] != after[n]}


# --- judges


def table_complaints(disk: DiskLayout) -> list[str]:
    if disk.style != "gpt":
        return []
    result = _run("sgdisk", "-v", str(disk.path))
    fine = "No problems found" in result.stdout and result.returncode == 0
    return [] if fine else [f"sgdisk -v: {result.stdout}{result.stderr}"]


# of fsck.fat about a volume that was not unmounted before the power went, and about the clusters of a file that was
# being written then: true, harmless, and for Windows to put right
_AFTER_POWER_CUT = re.compile(
    r"Dirty bit is set.*?automatically removing dirty bit\.\n"
    r"|There are differences between boot sector and its backup.*?Not automatically fixing this\.\n"
    r"|Reclaimed \d+ unused clusters? \(\d+ bytes\)\.\n"
    r"|Free cluster summary wrong.*?\n(  Auto-correcting\.\n)?|Leaving filesystem unchanged\.\n",
    re.DOTALL | re.IGNORECASE,
)


def volume_complaints(disk: DiskLayout, part: PartitionLayout, *, power_cut: bool = False) -> list[str]:
    """``power_cut``: what every power cut leaves on FAT is no complaint."""
    if part.fs == "":
        return []
    with volume_file(disk, part) as path:
        if part.fs.startswith("fat"):
            result = _run("fsck.fat", "-n", str(path))
            rest = [line for line in _AFTER_POWER_CUT.sub("", result.stdout).splitlines() if line.strip()]
            # two lines are left: its name and version, and the count of files
            if result.returncode == 0 or (power_cut and len(rest) <= 2):
                return []
            return [f"fsck.fat of {part.role}: {result.stdout}"]
        found = []
        result = _run("ntfsfix", "-n", str(path))
        if result.returncode:
            found.append(f"ntfsfix of {part.role}: {result.stdout}{result.stderr}")
        # ntfsfix is content with a volume that asks for a check, ntfsinfo names its flags
        info = _run("ntfsinfo", "-m", "-f", str(path))
        flags = re.search(r"Volume Flags:\s*(\S+)", info.stdout)
        if info.returncode or flags is None or int(flags[1], 16) & 1:
            found.append(f"ntfsinfo of {part.role}: {info.stdout[-400:]}{info.stderr[-400:]}")
        return found


def complaints(disk: DiskLayout, *, power_cut: bool = False) -> list[str]:
    """Of all tools about the whole disk."""
    found = table_complaints(disk)
    for part in disk.partitions:
        found += volume_complaints(disk, part, power_cut=power_cut)
    return found


def hive_complaints(data: bytes) -> list[str]:
    """hivexml reads all of it, and its header says that no log is needed."""
    found = [] if hives.is_clean(data) else [f"dirty or damaged header: {hives.sequences(data)}"]
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        result = _run("hivexml", file.name)
    if result.returncode or "</hive>" not in result.stdout:
        found.append(f"hivexml: {result.stderr}")
    return found


def regipy_elements(data: bytes) -> dict[tuple[str, int], bytes]:
    """Device elements of a boot store as regipy, a third reader, sees them."""
    from regipy.registry import RegistryHive  # type: ignore[import-untyped]

    found: dict[tuple[str, int], bytes] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "BCD"
        path.write_bytes(data)
        hive = RegistryHive(str(path))
        for entry in hive.get_key("\\Objects").iter_subkeys():
            elements = next((k for k in entry.iter_subkeys() if k.name == "Elements"), None)
            if elements is None:
                continue
            for element in elements.iter_subkeys():
                number = int(element.name, 16)
                if not stores.is_device(number):
                    continue
                for value in element.iter_values(trim_values=False):
                    raw = value.value
                    data_ = bytes.fromhex(raw) if isinstance(raw, str) else bytes(raw)
                    found[entry.name.lower(), number] = data_
    return found


# --- what a repair may change


def translated(element: bytes, mapping: Mapping[bytes, bytes]) -> bytes:
    """The element with every old identity replaced by its new one, wherever it lies."""
    for old, new in mapping.items():
        element = element.replace(old, new)
    return element


def identity_mapping(old: DiskLayout, new: DiskLayout) -> dict[bytes, bytes]:
    """Bytes of device elements that belong to ``old`` -> those that belong to ``new``."""
    import struct
    import uuid

    if old.style == "mbr":
        # signature and 12 zeros: four bytes alone could be found anywhere
        return {
            struct.pack("<I", old.signature).ljust(16, b"\0"): struct.pack("<I", new.signature).ljust(
                16, b"\0"
            )
        }
    pairs = {old.disk_guid: new.disk_guid}
    pairs |= {a.unique_guid: b.unique_guid for a, b in zip(old.partitions, new.partitions, strict=True)}
    return {uuid.UUID(a).bytes_le: uuid.UUID(b).bytes_le for a, b in pairs.items() if a and b}


@dataclass(frozen=True)
class StoreChange:
    """How two versions of a store differ."""

    devices: frozenset[tuple[str, int]]  # device elements with other contents
    others: tuple[str, ...]  # anything else, in words


def store_change(before: bytes, after: bytes) -> StoreChange:
    """Compares every key and value of two stores, as hivex reads them."""
    old, new = hives.values(before), hives.values(after)
    devices: set[tuple[str, int]] = set()
    others: list[str] = []
    for place in sorted(old.keys() | new.keys()):
        if old.get(place) == new.get(place):
            continue
        path, name = place
        parts = path.split("\\")
        is_element = len(parts) == 4 and name.lower() == "element" and place in old and place in new
        if is_element and stores.is_device(int(parts[3], 16)):
            devices.add((parts[1].lower(), int(parts[3], 16)))
        else:
            others.append(f"{path} {name}: {old.get(place)} -> {new.get(place)}")
    return StoreChange(frozenset(devices), tuple(others))
