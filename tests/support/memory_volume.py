"""A volume that exists only in memory: for hives of real machines, whose other files nobody has."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rehost_payload.formats.filesystem import FileMetadata, FileStat, FileSystemReader, split_path
from rehost_payload.formats.source import ByteSource, BytesSource


class MemoryVolume(FileSystemReader):
    """``files`` by path; ``more`` answers for files that are not among them (None: there is none)."""

    def __init__(
        self, files: Mapping[str, bytes], more: Callable[[str], bytes | None] = lambda path: None
    ) -> None:
        self._tree: dict[str, object] = {}
        self._names: dict[str, str] = {}
        self._more = more
        for path, data in files.items():
            self._put(split_path(path), data)

    def _put(self, parts: list[str], data: bytes) -> None:
        node = self._tree
        for part in parts[:-1]:
            self._names.setdefault(part.lower(), part)
            node = node.setdefault(part.lower(), {})  # type: ignore[assignment]
        self._names.setdefault(parts[-1].lower(), parts[-1])
        node[parts[-1].lower()] = data

    def _find(self, path: str) -> object:
        node: object = self._tree
        for part in split_path(path):
            node = node.get(part.lower()) if isinstance(node, dict) else None
        return node if node is not None else self._more("\\" + "\\".join(split_path(path)))

    @property
    def kind(self) -> str:
        return "ntfs"

    @property
    def label(self) -> str:
        return ""

    @property
    def serial(self) -> str:
        return ""

    @property
    def cluster_size(self) -> int:
        return 4096

    @property
    def hidden_sectors(self) -> int:
        return 0

    @property
    def dirty(self) -> bool:
        return False

    def free(self) -> int | None:
        return 1 << 30

    def stat(self, path: str) -> FileStat | None:
        found = self._find(path)
        name = (split_path(path) or [""])[-1]
        name = self._names.get(name.lower(), name)
        if isinstance(found, bytes):
            return FileStat(name, False, len(found))
        return FileStat(name, True, 0) if isinstance(found, dict) else None

    def listdir(self, path: str) -> list[FileStat]:
        node = self._find(path)
        if not isinstance(node, dict):
            raise FileNotFoundError(path)
        found = [self.stat(f"{path}\\{name}") for name in sorted(node)]
        return [f for f in found if f is not None]

    def metadata(self, path: str) -> FileMetadata | None:
        found = self.stat(path)
        return FileMetadata(found.name, found.is_directory, found.size) if found is not None else None

    def open(self, path: str) -> ByteSource:
        found = self._find(path)
        if not isinstance(found, bytes):
            raise FileNotFoundError(path)
        return BytesSource(found)
