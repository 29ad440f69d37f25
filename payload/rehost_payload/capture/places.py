r"""From paths of the old Windows to files on this machine's volumes, and back.

A letter is that of the old Windows' MountedDevices. Volumes mounted in folders, junctions and symbolic links are
followed. Where a letter leads to no volume that is here (after a restore all identities are others), the one volume
that has the path is taken, and remembered as having had that letter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rehost_payload.capture.found import FoundFile, FoundVolume
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.filesystem import FileMetadata, FileSystemReader
from rehost_payload.formats.mounted_devices import MountedDevice
from rehost_payload.formats.ntfs_details import MOUNT_POINT, SYMLINK
from rehost_payload.formats.sddl import to_sddl
from rehost_payload.repair.view import volume_ref
from rehost_payload.survey.model import Disk, Problem, Volume
from rehost_payload.survey.volumes import OpenVolume

_MOST_LINKS = 32
_LETTER = re.compile(r"(?:\\\\[?.]\\|\\\?\?\\)?([A-Za-z]:)(?:\\|$)(.*)", re.DOTALL)
_VOLUME = re.compile(
    r"(?:\\\\[?.]|\\\?\?)\\Volume\{([0-9A-Fa-f-]{36})\}(?:\\|$)(.*)", re.IGNORECASE | re.DOTALL
)
_CLUSTER = re.compile(r"\\ClusterStorage\\[^\\]+", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """A file or folder on a volume, in its own spelling. ``guessed``: no letter says that it is the volume meant."""

    volume: str
    path: str
    guessed: bool = False


class Places:
    """All volumes of a machine, readable or not, with the letters of the old Windows."""

    def __init__(
        self,
        opened: Sequence[OpenVolume],
        disks: Iterable[Disk],
        mounted: Iterable[MountedDevice] = (),
        system: tuple[str, str] | None = None,
    ) -> None:
        """``system``: the volume of the old Windows and its letter, which counts where MountedDevices is stale."""
        self.problems: list[Problem] = []
        self._disks = {d.id: d for d in disks}
        self._volumes = {o.volume.id: o.volume for o in opened}
        self._readers = {o.volume.id: o.reader for o in opened if o.reader is not None}
        self._letters: dict[str, str] = {}  # to volume
        self._guids: dict[str, str] = {}
        self._mounts: dict[str, str] = {}  # volume to folder
        self._guessed: dict[str, str] = {}  # volume to letter
        self._stats: dict[tuple[str, str], FoundFile | None] = {}
        self._links: dict[str, Place | None] = {}
        for volume in self._volumes.values():
            guid = self._partition_guid(volume)
            if guid is not None:
                self._guids[guid] = volume.id
        for device in mounted:
            found = self._volume_of(device)
            if found is not None and device.letter is not None:
                self._letters.setdefault(device.letter, found)
            elif found is not None and device.volume is not None:
                self._guids.setdefault(device.volume, found)
        if system is not None and system[1] not in self._letters and system[0] not in self._letters.values():
            self._letters[system[1]] = system[0]

    def _partition_guid(self, volume: Volume) -> str | None:
        partitions = self._disks[volume.disk].table.partitions
        return next((p.unique_guid for p in partitions if p.id == volume.partition), None)

    def _volume_of(self, device: MountedDevice) -> str | None:
        found = []
        for volume in self._volumes.values():
            if device.partition_guid is not None:
                match = self._partition_guid(volume) == device.partition_guid
            else:
                signature = self._disks[volume.disk].table.signature
                match = device.signature is not None and (signature, volume.offset) == (
                    device.signature,
                    device.offset,
                )
            if match:
                found.append(volume.id)
        return found[0] if len(found) == 1 else None  # a clone of the disk is attached: nobody knows which

    # --- volumes

    def reader(self, volume: str) -> FileSystemReader:
        return self._readers[volume]

    @property
    def readable(self) -> list[str]:
        return list(self._readers)

    def letters_of(self, volume: str) -> tuple[str, ...]:
        return tuple(sorted(letter for letter, v in self._letters.items() if v == volume))

    def root(self, volume: str) -> str:
        """How the old Windows began paths on it."""
        letters = self.letters_of(volume)
        if letters:
            return letters[0]
        if volume in self._mounts:
            return self._mounts[volume]
        if volume in self._guessed:
            return self._guessed[volume]
        guid = next((g for g, v in self._guids.items() if v == volume), None)
        return f"\\\\?\\Volume{{{guid or self._stable_name(volume)}}}"

    def _stable_name(self, volume: str) -> str:
        """A name that does not depend on the order in which the disks were found."""
        v = self._volumes[volume]
        disk = self._disks[v.disk]
        known = f"{disk.table.signature:08x}" if disk.table.signature is not None else disk.serial
        return f"{known}-{v.offset:x}" if known else volume

    def original(self, volume: str, path: str) -> str:
        return self.root(volume) + path

    def volumes(self) -> tuple[FoundVolume, ...]:
        found = []
        for v in self._volumes.values():
            disk = self._disks[v.disk]
            partition = next((p for p in disk.table.partitions if p.id == v.partition), None)
            guessed = v.id in self._guessed and not self.letters_of(v.id)
            found.append(
                FoundVolume(
                    id=v.id,
                    ref=volume_ref(v, disk, partition),
                    disk=v.disk,
                    root=self.root(v.id),
                    letters=self.letters_of(v.id),
                    guessed=guessed,
                    unreadable=v.unreadable,
                    label=v.label,
                    file_system=v.file_system.value,
                    size=v.size,
                    dirty=v.dirty,
                )
            )
        return tuple(found)

    # --- paths

    def resolve(self, path: str) -> Place | None:
        """Where a full path of the old Windows leads, a file or a folder; None where it is not there."""
        key = path.lower()
        if key not in self._links:
            self._links[key] = self._resolve(path)
        return self._links[key]

    def _resolve(self, path: str) -> Place | None:
        for _ in range(_MOST_LINKS):
            volume, rest = self._split(path)
            if rest is None:
                return None
            if volume is None or volume not in self._readers:
                return self._guess(path, rest) if volume is None else None
            place = self._exact(volume, rest)
            following = self._follow(volume, rest) if place is None else None
            if place is not None or following is None:
                return place
            path = following
        self.trouble("loop", path, f"more than {_MOST_LINKS} links")
        return None

    def unreachable(self, path: str) -> str | None:
        """Why nothing can be said of a path: "network", or the reason why its volume cannot be read."""
        volume, rest = self._split(path)
        if rest is None:
            return "network" if path.startswith("\\\\") else None
        if volume is None:
            return None
        return None if volume in self._readers else self._volumes[volume].unreadable or "unreadable"

    def _split(self, path: str) -> tuple[str | None, str | None]:
        """The volume (None: no letter says which) and the path on it; (None, None) for other kinds of path."""
        path = path.replace("/", "\\")
        letter, volume = _LETTER.fullmatch(path), _VOLUME.fullmatch(path)
        if letter is not None:
            return self._letters.get(letter[1].upper()), _normal(letter[2])
        if volume is not None:
            return self._guids.get(volume[1].lower()), _normal(volume[2])
        return None, None

    def _exact(self, volume: str, path: str) -> Place | None:
        reader = self._readers[volume]
        try:
            stat = reader.stat(path)
            if stat is None or stat.reparse_tag in (SYMLINK, MOUNT_POINT):
                return None
            return Place(volume, reader.exact_path(path) or path)
        except (FormatError, OSError) as error:
            self.trouble("damaged", f"{volume}:{path}", str(error))
            return None

    def _follow(self, volume: str, path: str) -> str | None:
        """The path with its first link replaced by what it leads to; None where no part of it is a link."""
        reader = self._readers[volume]
        parts = [p for p in path.split("\\") if p]
        for count in range(1, len(parts) + 1):
            prefix = "\\" + "\\".join(parts[:count])
            try:
                stat = reader.stat(prefix)
                target = reader.link_target(prefix) if stat is not None and stat.reparse_tag else None
            except (FormatError, OSError) as error:
                self.trouble("damaged", f"{volume}:{prefix}", str(error))
                return None
            if stat is None:
                return None
            if target is None:
                continue
            folder = self.root(volume)
            if _LETTER.fullmatch(target) is None and _VOLUME.fullmatch(target) is None:
                if target.startswith("\\"):
                    target = folder + target
                else:
                    target = folder + "\\" + "\\".join([*parts[: count - 1], target])
            elif stat.reparse_tag == MOUNT_POINT:
                mounted, rest = self._split(target)
                if mounted is not None and rest == "\\":
                    self._mounts.setdefault(mounted, folder + prefix)
            return "\\".join([target.rstrip("\\"), *parts[count:]])
        return None

    def _guess(self, path: str, rest: str) -> Place | None:
        """The only volume that has this path, for a letter (or cluster volume) that leads nowhere."""
        letter = _LETTER.fullmatch(path)
        found = []
        for wanted in dict.fromkeys((rest, _CLUSTER.sub("", rest, count=1))):
            taken = set(self._letters.values())
            found = [p for v in self._readers if v not in taken and (p := self._exact(v, wanted)) is not None]
            if len(found) == 1:
                if letter is not None and wanted == rest:
                    self._guessed.setdefault(found[0].volume, letter[1].upper())
                return replace(found[0], guessed=True)
        return None

    # --- files

    def exists(self, place: Place) -> bool:
        try:
            return self._readers[place.volume].exists(place.path)
        except (FormatError, OSError) as error:
            self.trouble("damaged", self.original(place.volume, place.path), str(error))
            return False

    def is_link(self, place: Place) -> bool:
        """Whether a symbolic link stands there (what it leads to is a file of its own)."""
        try:
            stat = self._readers[place.volume].stat(place.path)
        except (FormatError, OSError):
            return False  # whoever reads the file will say what is wrong
        return stat is not None and stat.reparse_tag == SYMLINK

    def forget(self) -> None:
        """Original paths are made anew: letters were learned since."""
        self._stats.clear()

    def file(self, place: Place) -> FoundFile | None:
        """The facts of a file; None for a folder, or where nothing is there any more."""
        key = (place.volume, place.path.lower())
        if key not in self._stats:
            self._stats[key] = self._file(place)
        return self._stats[key]

    def _file(self, place: Place) -> FoundFile | None:
        original = self.original(place.volume, place.path)
        try:
            found = self._readers[place.volume].metadata(place.path)
        except (FormatError, OSError) as error:
            self.trouble("damaged", original, str(error))
            return FoundFile(place.volume, place.path, original, 0, unreadable="damaged")
        if found is None or found.is_directory:
            return None
        return FoundFile(
            *(place.volume, place.path, original, found.size, found.created, found.modified),
            *(found.attributes, found.file_id, self._sddl(original, found), found.unreadable),
        )

    def _sddl(self, original: str, found: FileMetadata) -> str | None:
        try:
            return None if found.security is None else to_sddl(found.security)
        except FormatError as error:
            self.trouble("security", original, str(error))
            return None

    def trouble(self, code: str, where: str, detail: str) -> None:
        self.problems.append(Problem(code, where, detail))

    def link(self, volume: str, path: str) -> str | None:
        """The full path of the old Windows that a symbolic link leads to; None for anything else."""
        try:
            target = self._readers[volume].link_target(path)
        except (FormatError, OSError) as error:
            self.trouble("damaged", self.original(volume, path), str(error))
            return None
        if target is None or _LETTER.fullmatch(target) or target.startswith("\\\\"):
            return target
        root, folder = self.root(volume), path.rpartition("\\")[0]
        return root + target if target.startswith("\\") else f"{root}{folder}\\{target}"

    def listdir(self, volume: str, folder: str) -> list[str]:
        """Names in a folder, folders with a backslash at their end; nothing where it does not exist."""
        try:
            reader = self._readers[volume]
            entries = reader.listdir(folder) if reader.is_directory(folder) else []
        except (FormatError, OSError) as error:
            self.trouble("damaged", self.original(volume, folder), str(error))
            return []
        return [e.name + "\\" * (e.is_directory and not e.reparse_tag) for e in entries]


def _normal(rest: str) -> str:
    """A path on a volume without "." and "..", with one leading backslash."""
    parts: list[str] = []
    for part in rest.split("\\"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "\\" + "\\".join(parts)
