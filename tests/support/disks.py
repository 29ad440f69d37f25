"""Makes disk images for tests, without root and without mounting anything: GPT and MBR, FAT and NTFS.

The tables are written by code of its own, so that they check the readers and are not checked by them; sgdisk
and sfdisk judge this generator in tests/unit/formats. Files are sparse, a disk takes well under a second.
Identities (GUIDs, signatures) follow from ``seed``, by default the file's name: the same call makes the same
disk, two disks in one machine differ.

    disk = make_gpt_disk(tmp_path / "a.img", esp_files={"EFI/Boot/bootx64.efi": make_pe()},
    windows_files=tree) disk.esp.unique_guid, disk.windows.offset write_file(disk, disk.esp,
    "EFI/Microsoft/Boot/BCD", store) read_file(disk, disk.windows, "Windows/System32/config/SYSTEM")

Paths of files may use / or \\; a path that ends in one makes an empty folder.
"""

from __future__ import annotations

import os
import struct
import tempfile
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from support import fat_image, ntfs_image, sparse
from support.ntfs_image import NtfsImage

MIB = 1 << 20
Files = Mapping[str, bytes]

EFI_SYSTEM = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
MICROSOFT_RESERVED = "e3c9e316-0b5c-4db8-817d-f92df00215ae"
BASIC_DATA = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"
WINDOWS_RECOVERY = "de94bba4-06d1-4d40-a16a-bfd50179d6ac"
_ARRAY_BYTES = 128 * 128
_NAMESPACE = uuid.UUID("5f0c6a3e-6b1c-4c7e-9a39-3f1d9f0a7b11")


@dataclass(frozen=True)
class PartitionSpec:
    """What to make. ``role`` names the partition in the layout ("esp", "windows", ...); ``size`` 0 = the
    rest.

    ``fs``: "fat12", "fat16", "fat32", "ntfs", or "" for raw; ``content`` is written to the start of a raw
    one.
    """

    role: str
    size: int = 0
    fs: str = ""
    type: str = BASIC_DATA  # GPT: type GUID, MBR: two hex digits
    files: Files = field(default_factory=dict)
    label: str = ""
    guid: str | None = None
    name: str = ""
    attributes: int = 0
    active: bool = False
    content: bytes = b""
    cluster_size: int = 4096  # NTFS
    sectors_per_cluster: int = 1  # FAT


@dataclass(frozen=True)
class PartitionLayout:
    role: str
    number: int
    offset: int
    size: int
    type: str
    fs: str
    unique_guid: str | None = None
    name: str = ""
    attributes: int = 0
    active: bool = False


@dataclass(frozen=True)
class DiskLayout:
    """What was made, with everything that identifies it."""

    path: Path
    style: str  # "gpt" or "mbr"
    size: int
    sector_size: int
    partitions: tuple[PartitionLayout, ...]
    disk_guid: str | None = None
    signature: int = 0

    def __getitem__(self, role: str) -> PartitionLayout:
        for partition in self.partitions:
            if partition.role == role:
                return partition
        raise KeyError(role)

    @property
    def esp(self) -> PartitionLayout:
        return self["esp"]

    @property
    def system(self) -> PartitionLayout:
        """The active partition of an MBR disk."""
        return self["system"]

    @property
    def windows(self) -> PartitionLayout:
        return self["windows"]

    @property
    def recovery(self) -> PartitionLayout:
        return self["recovery"]


def derived_guid(seed: str, role: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{seed}/{role}"))


def derived_signature(seed: str) -> int:
    return zlib.crc32(f"{seed}/signature".encode()) or 1


# --- whole disks
# ------------------------------------------------------------------------------------------------


def make_gpt_disk(
    path: Path,
    *,
    esp_files: Files | None = None,
    windows_files: Files | None = None,
    recovery_files: Files | None = None,
    extra: Sequence[PartitionSpec] = (),
    esp_size: int = 0,
    windows_size: int = 256 * MIB,
    recovery_size: int = 64 * MIB,
    seed: str | None = None,
    disk_guid: str | None = None,
    esp_guid: str | None = None,
    windows_guid: str | None = None,
    recovery_guid: str | None = None,
    signature: int = 0,
    sector_size: int = 512,
    msr: bool = True,
) -> DiskLayout:
    """ESP (FAT32), reserved partition, Windows (NTFS), and with ``recovery_files`` a recovery partition
    (NTFS).

    None for ``esp_files`` or ``windows_files`` leaves that partition out. ``extra`` comes last.
    """
    specs: list[PartitionSpec] = []
    if esp_files is not None:
        # FAT32 needs 65525 clusters, whatever their size
        size = esp_size or (48 * MIB if sector_size == 512 else 300 * MIB)
        name = "EFI system partition"
        specs.append(PartitionSpec("esp", size, "fat32", EFI_SYSTEM, esp_files, guid=esp_guid, name=name))
    if msr:
        name = "Microsoft reserved partition"
        specs.append(PartitionSpec("msr", 16 * MIB, "", MICROSOFT_RESERVED, name=name))
    if windows_files is not None:
        name = "Basic data partition"
        specs.append(
            PartitionSpec(
                "windows", windows_size, "ntfs", BASIC_DATA, windows_files, guid=windows_guid, name=name
            )
        )
    if recovery_files is not None:
        specs.append(
            PartitionSpec(
                "recovery",
                recovery_size,
                "ntfs",
                WINDOWS_RECOVERY,
                recovery_files,
                label="Recovery",
                guid=recovery_guid,
                attributes=0x8000000000000001,
            )
        )
    return make_disk(
        path,
        [*specs, *extra],
        seed=seed,
        disk_guid=disk_guid,
        signature=signature,
        sector_size=sector_size,
    )


def make_mbr_disk(
    path: Path,
    *,
    system_files: Files | None = None,
    windows_files: Files | None = None,
    extra: Sequence[PartitionSpec] = (),
    logical: Sequence[PartitionSpec] = (),
    system_size: int = 64 * MIB,
    windows_size: int = 256 * MIB,
    seed: str | None = None,
    signature: int | None = None,
    sector_size: int = 512,
    boot_code: bytes = b"\xeb\xfe",
) -> DiskLayout:
    """An active system partition (NTFS with bootmgr and \\Boot) and a Windows partition (NTFS).

    None for ``system_files`` makes the Windows partition the active one. ``logical`` go into an extended one.
    """
    specs: list[PartitionSpec] = []
    if system_files is not None:
        specs.append(
            PartitionSpec(
                "system", system_size, "ntfs", "07", system_files, label="System Reserved", active=True
            )
        )
    if windows_files is not None:
        specs.append(
            PartitionSpec("windows", windows_size, "ntfs", "07", windows_files, active=system_files is None)
        )
    return make_disk(
        path,
        [*specs, *extra],
        style="mbr",
        logical=logical,
        seed=seed,
        signature=signature,
        sector_size=sector_size,
        boot_code=boot_code,
    )


def make_disk(
    path: Path,
    specs: Sequence[PartitionSpec],
    *,
    style: str = "gpt",
    logical: Sequence[PartitionSpec] = (),
    size: int = 0,
    seed: str | None = None,
    disk_guid: str | None = None,
    signature: int | None = None,
    sector_size: int = 512,
    boot_code: bytes = b"",
) -> DiskLayout:
    """Any disk. Partitions start at whole MiB, one after the other; ``size`` 0 = as large as they need."""
    seed = seed if seed is not None else path.name
    partitions: list[PartitionLayout] = []
    position = MIB

    def place(spec: PartitionSpec, number: int, start: int) -> PartitionLayout:
        length = spec.size or (size - MIB - start)
        guid = (spec.guid or derived_guid(seed, spec.role)) if style == "gpt" else None
        return PartitionLayout(
            *(spec.role, number, start, length, spec.type, spec.fs, guid),
            *(spec.name, spec.attributes, spec.active),
        )

    for index, spec in enumerate(specs):
        layout = place(spec, index + 1, position)
        partitions.append(layout)
        position = -(-(layout.offset + layout.size) // MIB) * MIB
    extended_start = position
    for index, spec in enumerate(logical):
        layout = place(spec, 5 + index, position + MIB)  # the MiB before it holds its extended boot record
        partitions.append(layout)
        position = -(-(layout.offset + layout.size) // MIB) * MIB
    size = size or position + MIB
    if position + (MIB if style == "gpt" else 0) > size:
        raise ValueError(f"the partitions need {position + MIB} bytes")
    if style == "gpt":
        disk_guid = disk_guid or derived_guid(seed, "disk")
        signature = signature or 0
    else:
        signature = derived_signature(seed) if signature is None else signature
    disk = DiskLayout(path, style, size, sector_size, tuple(partitions), disk_guid, signature)
    sparse.make(path, size)
    if style == "gpt":
        write_gpt(disk, boot_code)
    else:
        _write_mbr(disk, boot_code, extended_start, position)
    for layout, spec in zip(partitions, [*specs, *logical], strict=True):
        _fill(disk, layout, spec)
    return disk


def _fill(disk: DiskLayout, layout: PartitionLayout, spec: PartitionSpec) -> None:
    if spec.fs == "ntfs":
        with tempfile.TemporaryDirectory(dir=disk.path.parent) as folder:
            volume = Path(folder) / "volume"
            sparse.make(volume, layout.size)
            ntfs_image.make_volume(
                volume,
                spec.files,
                label=spec.label,
                start_sector=layout.offset // disk.sector_size,
                sector_size=disk.sector_size,
                cluster_size=spec.cluster_size,
            )
            sparse.copy_range(volume, 0, disk.path, layout.offset, layout.size)
    elif spec.fs.startswith("fat"):
        fat_image.make_volume(
            disk.path,
            layout.offset,
            layout.size,
            spec.files,
            bits=int(spec.fs[3:]),
            label=spec.label,
            sector_size=disk.sector_size,
            sectors_per_cluster=spec.sectors_per_cluster,
        )
    elif spec.content:
        write_bytes(disk.path, layout.offset, spec.content)


# --- partition tables
# -------------------------------------------------------------------------------------------


def write_bytes(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), data, offset)


def read_bytes(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        return os.pread(file.fileno(), length, offset)


def _mbr_entry(active: bool, kind: int, first: int, sectors: int) -> bytes:
    chs = b"\xfe\xff\xff"
    return struct.pack("<B3sB3sII", 0x80 if active else 0, chs, kind, chs, first, min(sectors, 0xFFFFFFFF))


def _mbr_sector(code: bytes, signature: int, entries: Sequence[bytes]) -> bytes:
    head = code[:440].ljust(440, b"\0") + struct.pack("<IH", signature, 0)
    return head + b"".join(entries).ljust(64, b"\0") + b"\x55\xaa"


def _write_mbr(disk: DiskLayout, code: bytes, extended_start: int, extended_end: int) -> None:
    sector = disk.sector_size
    primary = [p for p in disk.partitions if p.number <= 4]
    logical = [p for p in disk.partitions if p.number > 4]
    entries = [_mbr_entry(p.active, int(p.type, 16), p.offset // sector, p.size // sector) for p in primary]
    base = extended_start // sector
    if logical:
        entries.append(_mbr_entry(False, 0x0F, base, (extended_end - extended_start) // sector))
    write_bytes(disk.path, 0, _mbr_sector(code, disk.signature, entries))
    for index, part in enumerate(logical):
        record = part.offset - MIB
        links = [_mbr_entry(part.active, int(part.type, 16), MIB // sector, part.size // sector)]
        if index + 1 < len(logical):
            following = logical[index + 1]
            links.append(
                _mbr_entry(
                    False, 0x05, (following.offset - MIB) // sector - base, (following.size + MIB) // sector
                )
            )
        write_bytes(disk.path, record, _mbr_sector(b"", 0, links))


def write_gpt(disk: DiskLayout, boot_code: bytes = b"") -> None:
    """Writes the protective MBR and both copies of the table as the layout says (also over an older one)."""
    assert disk.disk_guid is not None
    sector = disk.sector_size
    total = disk.size // sector
    array = bytearray(_ARRAY_BYTES)
    for part in disk.partitions:
        assert part.unique_guid is not None
        struct.pack_into(
            "<16s16sQQQ72s",
            array,
            (part.number - 1) * 128,
            uuid.UUID(part.type).bytes_le,
            uuid.UUID(part.unique_guid).bytes_le,
            part.offset // sector,
            (part.offset + part.size) // sector - 1,
            part.attributes,
            part.name.encode("utf-16-le"),
        )
    array_sectors = -(-_ARRAY_BYTES // sector)

    def header(here: int, there: int, entries: int) -> bytes:
        def packed(crc: int) -> bytes:
            return struct.pack(
                "<8sIIIIQQQQ16sQIII",
                b"EFI PART",
                0x10000,
                92,
                crc,
                0,
                here,
                there,
                2 + array_sectors,
                total - 2 - array_sectors,
                uuid.UUID(disk.disk_guid).bytes_le,
                entries,
                128,
                128,
                zlib.crc32(array),
            )

        return packed(zlib.crc32(packed(0)))

    protective = _mbr_entry(False, 0xEE, 1, total - 1)
    write_bytes(disk.path, 0, _mbr_sector(boot_code, disk.signature, [protective]))
    write_bytes(disk.path, sector, header(1, total - 1, 2).ljust(sector, b"\0"))
    write_bytes(disk.path, 2 * sector, bytes(array))
    write_bytes(disk.path, (total - 1 - array_sectors) * sector, bytes(array))
    write_bytes(disk.path, (total - 1) * sector, header(total - 1, 1, total - 1 - array_sectors))


def damage_gpt(disk: DiskLayout, *, primary: bool = False, backup: bool = False, array: bool = False) -> None:
    """Overwrites the primary or the backup header (with ``array`` the first entry of its array instead)."""
    sector, total = disk.sector_size, disk.size // disk.sector_size
    array_sectors = -(-_ARRAY_BYTES // sector)
    if primary:
        write_bytes(disk.path, 2 * sector if array else sector, b"\xa5" * 64)
    if backup:
        lba = total - 1 - array_sectors if array else total - 1
        write_bytes(disk.path, lba * sector, b"\xa5" * 64)


def change_guids(
    disk: DiskLayout, *, disk_guid: str | None = None, partitions: Mapping[str, str] | None = None
) -> DiskLayout:
    """Gives the disk and the partitions named by role other GUIDs, as a restore to new hardware does."""
    changed = tuple(
        replace(p, unique_guid=(partitions or {}).get(p.role, p.unique_guid)) for p in disk.partitions
    )
    new = replace(disk, disk_guid=disk_guid or disk.disk_guid, partitions=changed)
    write_gpt(new, read_bytes(disk.path, 0, 440))
    return new


def regenerate_guids(disk: DiskLayout, seed: str) -> DiskLayout:
    """Other GUIDs for the disk and for every partition."""
    return change_guids(
        disk,
        disk_guid=derived_guid(seed, "disk"),
        partitions={p.role: derived_guid(seed, p.role) for p in disk.partitions},
    )


def change_signature(disk: DiskLayout, signature: int) -> DiskLayout:
    write_bytes(disk.path, 440, struct.pack("<I", signature))
    return replace(disk, signature=signature)


def set_active(disk: DiskLayout, number: int | None) -> None:
    """Marks one primary partition active, or with None no one."""
    for index in range(4):
        write_bytes(disk.path, 446 + 16 * index, b"\x80" if index + 1 == number else b"\0")


# --- files on the volumes
# ---------------------------------------------------------------------------------------


@contextmanager
def ntfs_volume(disk: DiskLayout, part: PartitionLayout, *, read_only: bool = False) -> Iterator[NtfsImage]:
    """The NTFS volume of a partition, cut out for the time of the block and put back at its end."""
    with tempfile.TemporaryDirectory(dir=disk.path.parent) as folder:
        volume = Path(folder) / "volume"
        sparse.make(volume, part.size)
        sparse.copy_range(disk.path, part.offset, volume, 0, part.size)
        with NtfsImage(volume, read_only=read_only) as image:
            yield image
        if not read_only:
            sparse.copy_range(volume, 0, disk.path, part.offset, part.size)


def read_file(disk: DiskLayout, part: PartitionLayout, path: str) -> bytes:
    """Raises OSError where it does not exist."""
    if part.fs == "ntfs":
        with ntfs_volume(disk, part, read_only=True) as volume:
            return volume.read(path)
    return fat_image.read(disk.path, part.offset, path)


def file_exists(disk: DiskLayout, part: PartitionLayout, path: str) -> bool:
    if part.fs == "ntfs":
        with ntfs_volume(disk, part, read_only=True) as volume:
            return volume.exists(path)
    return fat_image.exists(disk.path, part.offset, path)


def write_files(disk: DiskLayout, part: PartitionLayout, files: Files) -> None:
    """Makes or replaces files, and the folders on the way."""
    if part.fs == "ntfs":
        with ntfs_volume(disk, part) as volume:
            for path, data in files.items():
                if path.endswith(("/", "\\")):
                    volume.make_directories(path)
                else:
                    volume.write(path, data)
    else:
        fat_image.write_tree(disk.path, part.offset, files)


def write_file(disk: DiskLayout, part: PartitionLayout, path: str, data: bytes) -> None:
    write_files(disk, part, {path: data})


def delete_file(disk: DiskLayout, part: PartitionLayout, path: str) -> None:
    """Removes a file (FAT: also a whole folder)."""
    if part.fs == "ntfs":
        with ntfs_volume(disk, part) as volume:
            volume.delete(path)
    else:
        fat_image.delete(disk.path, part.offset, path)


def edit_ntfs(disk: DiskLayout, part: PartitionLayout, change: Callable[[NtfsImage], None]) -> None:
    with ntfs_volume(disk, part) as volume:
        change(volume)


# --- bad states of NTFS volumes
# ---------------------------------------------------------------------------------


def set_dirty(disk: DiskLayout, part: PartitionLayout, dirty: bool = True) -> None:
    """The volume's own dirty flag, as left behind by a crash."""
    edit_ntfs(disk, part, lambda v: v.set_volume_flags(ntfs_image.VOLUME_IS_DIRTY if dirty else 0))


def set_journal_open(disk: DiskLayout, part: PartitionLayout) -> None:
    """$LogFile as a power cut leaves it. Do this last: the next write by libntfs-3g closes it."""
    edit_ntfs(disk, part, lambda v: v.set_journal_open())


def set_hibernated(disk: DiskLayout, part: PartitionLayout, magic: bytes = b"HIBR") -> None:
    """A hiberfil.sys of 1 MiB that starts with ``magic`` (b"" = zeros: not hibernated)."""
    write_file(disk, part, "hiberfil.sys", magic.ljust(MIB, b"\0"))


# --- by path and offset, for a disk whose layout is not at hand
# ------------------------------------------------


def _anonymous(path: Path, offset: int, fs: str) -> tuple[DiskLayout, PartitionLayout]:
    size = path.stat().st_size - offset
    if fs == "ntfs":
        boot = read_bytes(path, offset, 64)
        size = (struct.unpack_from("<Q", boot, 40)[0] + 1) * struct.unpack_from("<H", boot, 11)[0]
    part = PartitionLayout("part", 1, offset, size, "", fs)
    return DiskLayout(path, "", path.stat().st_size, 512, (part,)), part


def read_ntfs(path: Path, offset: int, name: str) -> bytes:
    return read_file(*_anonymous(path, offset, "ntfs"), name)


def write_ntfs(path: Path, offset: int, name: str, data: bytes) -> None:
    write_file(*_anonymous(path, offset, "ntfs"), name, data)


def read_fat(path: Path, offset: int, name: str) -> bytes:
    return fat_image.read(path, offset, name)


def write_fat(path: Path, offset: int, name: str, data: bytes) -> None:
    fat_image.write_tree(path, offset, {name: data})
