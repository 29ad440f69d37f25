"""Disks → partition tables → volumes, and why a volume cannot be read or must not be written."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from rehost_payload.formats import boot_code, gpt, hiberfil, mbr
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.filesystem import FileSystemReader
from rehost_payload.formats.ntfs import NtfsVolume
from rehost_payload.formats.partitions import DiskTable, read_table
from rehost_payload.formats.raid_member import member_of
from rehost_payload.formats.signatures import Signature, identify
from rehost_payload.formats.source import ByteSource, SliceSource
from rehost_payload.survey.bootfiles import known_files
from rehost_payload.survey.filesystems import open_filesystem
from rehost_payload.survey.model import (
    BootCode,
    BootFile,
    Disk,
    FileSystem,
    Partition,
    PartitionTable,
    Problem,
    TableStyle,
    Volume,
)
from rehost_payload.system.protocol import BUSY_NAME, DiskHandle, DiskInfo

# the code that says why a file system cannot be read; what is not here needs no explanation
_UNREADABLE = {
    FileSystem.BITLOCKER: "bitlocker",
    FileSystem.REFS: "refs",
    FileSystem.STORAGE_SPACES: "storage-spaces",
    FileSystem.LDM: "ldm",
    FileSystem.UNKNOWN: "unknown-file-system",
}
_BY_TYPE = {
    gpt.STORAGE_SPACES: FileSystem.STORAGE_SPACES,
    gpt.LDM_DATA: FileSystem.LDM,
    gpt.LDM_METADATA: FileSystem.LDM,
    "42": FileSystem.LDM,
}


@dataclass(frozen=True)
class OpenVolume:
    """A volume with its reader, which is None where it cannot be read."""

    volume: Volume
    reader: FileSystemReader | None


def partition_table(table: DiskTable, disk_id: str, handle: DiskHandle) -> PartitionTable:
    """The model's view of a table. Extended partitions are containers and left out."""
    record = table.mbr
    if table.gpt is not None:
        partitions = tuple(
            Partition(
                id=f"{disk_id}p{entry.number}",
                number=entry.number,
                offset=entry.first_lba * table.sector_size,
                size=(entry.last_lba - entry.first_lba + 1) * table.sector_size,
                type=entry.type_guid,
                type_name=gpt.TYPE_NAMES.get(entry.type_guid, ""),
                unique_guid=entry.unique_guid,
                name=entry.name,
                attributes=entry.attributes,
                path=handle.partition_path(entry.number, entry.first_lba * table.sector_size),
            )
            for entry in table.gpt.entries
        )
        return PartitionTable(
            TableStyle.GPT,
            disk_guid=table.gpt.table.disk_guid,
            signature=record.signature if record else None,
            partitions=partitions,
            primary_ok=table.gpt.primary is not None,
            backup_ok=table.gpt.backup is not None,
            outdated=table.gpt.outdated,
            boot_code=BootCode(record.boot_code) if record else BootCode.NONE,
            problems=table.problems,
        )
    if table.gpt_expected:
        return PartitionTable(
            TableStyle.GPT,
            signature=record.signature if record else None,
            primary_ok=False,
            backup_ok=False,
            problems=table.problems,
        )
    if record is None:
        return PartitionTable(TableStyle.NONE, problems=table.problems)
    partitions = tuple(
        Partition(
            id=f"{disk_id}p{part.number}",
            number=part.number,
            offset=part.first_lba * table.sector_size,
            size=part.sectors * table.sector_size,
            type=f"{part.type:02x}",
            type_name=mbr.TYPE_NAMES.get(part.type, ""),
            active=part.active,
            path=handle.partition_path(part.number, part.first_lba * table.sector_size),
        )
        for part in record.partitions
        if part.type not in mbr.EXTENDED_TYPES
    )
    return PartitionTable(
        TableStyle.MBR,
        signature=record.signature,
        partitions=partitions,
        boot_code=BootCode(record.boot_code),
        problems=table.problems,
    )


def survey_disk(handle: DiskHandle, source: ByteSource, disk_id: str) -> Disk:
    """May raise OSError where the disk does not answer."""
    info = handle.info
    table = partition_table(read_table(source, info.sector_size), disk_id, handle)
    raid = ""
    with suppress(OSError):  # a disk whose end cannot be read has a beginning all the same
        raid = member_of(source, info.sector_size)
    return _disk(info, disk_id, table, raid)


def _disk(info: DiskInfo, disk_id: str, table: PartitionTable, raid: str) -> Disk:
    return Disk(
        id=disk_id,
        path=info.path,
        size=info.size,
        sector_size=info.sector_size,
        table=table,
        model=info.model,
        serial=info.serial,
        transport=info.transport,
        controller=info.controller,
        read_only=info.read_only,
        removable=info.removable,
        boot_medium=info.boot_medium,
        raid=raid,
    )


def survey_volumes(disk: Disk, source: ByteSource, problems: list[Problem]) -> list[OpenVolume]:
    """One volume for each partition, or one over the whole disk where it has no table."""
    if disk.table.style is TableStyle.NONE:
        return [_volume(disk, None, SliceSource(source, 0, disk.size), problems)]
    return [
        _volume(disk, partition, SliceSource(source, partition.offset, partition.size), problems)
        for partition in disk.table.partitions
    ]


def _volume(
    disk: Disk, partition: Partition | None, source: ByteSource, problems: list[Problem]
) -> OpenVolume:
    volume_id = partition.id if partition else disk.id
    place = (partition.offset if partition else 0, partition.size if partition else disk.size)
    identity = (volume_id, disk.id, partition.id if partition else None, *place)
    try:
        signature = identify(source)
    except OSError as error:
        problems.append(Problem("io", volume_id, str(error)))
        return OpenVolume(Volume(*identity, FileSystem.UNKNOWN, unreadable="io"), None)
    kind = FileSystem(signature.kind)
    if partition is not None and kind in (FileSystem.UNKNOWN, FileSystem.EMPTY):
        kind = _BY_TYPE.get(partition.type, kind)
    plain = Volume(
        *identity,
        kind,
        label=signature.label,
        serial=signature.serial,
        unreadable=_UNREADABLE.get(kind),
    )
    if kind not in (FileSystem.NTFS, FileSystem.FAT12, FileSystem.FAT16, FileSystem.FAT32, FileSystem.EXFAT):
        return OpenVolume(plain, None)
    return _readable(disk, plain, source, signature, problems)


def _readable(
    disk: Disk, plain: Volume, source: ByteSource, signature: Signature, problems: list[Problem]
) -> OpenVolume:
    identity = (plain.id, plain.disk, plain.partition, plain.offset, plain.size, plain.file_system)
    try:
        reader = open_filesystem(source, signature)
        unclean, hibernated = False, False
        if isinstance(reader, NtfsVolume):
            unclean = reader.journal_unclean()
            hibernated = hiberfil.is_hibernated(reader)
        unwritable = "read-only" if disk.read_only else None
        if isinstance(reader, NtfsVolume):
            dirty = reader.dirty and not reader.exists(BUSY_NAME)
            unwritable = unwritable or ("hibernated" if hibernated else "dirty" if dirty else None)
        volume = Volume(
            *identity,
            label=reader.label,
            serial=reader.serial,
            cluster_size=reader.cluster_size,
            dirty=reader.dirty,
            journal_unclean=unclean,
            hibernated=hibernated,
            hidden_sectors=reader.hidden_sectors,
            boot_code=_boot_code(plain.file_system, source),
            unwritable=unwritable,
            free=_free(reader, plain.id, problems),
            boot_files=_boot_files(reader, plain.id, problems),
        )
        return OpenVolume(volume, reader)
    except FormatError as error:
        problems.append(Problem("damaged", plain.id, str(error)))
        return OpenVolume(Volume(*identity, unreadable="damaged", unwritable="damaged"), None)
    except OSError as error:
        problems.append(Problem("io", plain.id, str(error)))
        return OpenVolume(Volume(*identity, unreadable="io", unwritable="io"), None)


def _boot_code(kind: FileSystem, source: ByteSource) -> BootCode | None:
    found = boot_code.volume_kind(kind, source.read_at(0, boot_code.VOLUME_CODE))
    return None if found is None else BootCode(found)


def _free(reader: FileSystemReader, where: str, problems: list[Problem]) -> int | None:
    try:
        return reader.free()
    except FormatError as error:
        problems.append(Problem("damaged", where, str(error)))
        return None


def _boot_files(reader: FileSystemReader, where: str, problems: list[Problem]) -> tuple[BootFile, ...]:
    try:
        return known_files(reader)
    except FormatError as error:
        problems.append(Problem("damaged", where, str(error)))
        return ()
