"""What all file system readers of this package have in common.

Paths are absolute, with backslashes (slashes are taken as well), and matched without case, as Windows does
it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO

from .errors import FormatError
from .source import ByteSource

READ_LIMIT = 512 << 20
_PIECE = 4 << 20
_MAX_WALKED = 2_000_000
_MAX_DEPTH = 128

Step = Callable[[int, int], None]
"""Called with (done, total) of something that counts; total 0 where it is not known."""


class UnreadableFile(FormatError):
    """The file is there, but not stored in a way that we read. ``code`` is a stable word.

    "wof" (compressed by Windows' overlay filter), "dedup", "reparse" (any other reparse point), "encrypted".
    """

    def __init__(self, path: str, code: str) -> None:
        self.code = code
        super().__init__(path, f"stored in a way that cannot be read here ({code})")


@dataclass(frozen=True)
class FileStat:
    """``name`` is in the volume's own spelling; ``size`` is 0 for a directory."""

    name: str
    is_directory: bool
    size: int
    reparse_tag: int = 0


@dataclass(frozen=True)
class FileMetadata:
    """What a volume says of a file beside its content.

    Times are FILETIME (100 ns since 1601, UTC), 0 where there is none; FAT keeps local time, which is taken as UTC.
    ``file_id`` is NTFS' file reference, another one for another file of the same name. ``security`` is the
    self-relative security descriptor. ``unreadable`` is the code of UnreadableFile where `open` would raise it.
    ``changed`` is when anything about the file was changed, which programs do not set back as they do ``modified``.
    """

    name: str
    is_directory: bool
    size: int
    created: int = 0
    modified: int = 0
    attributes: int = 0
    file_id: int | None = None
    reparse_tag: int = 0
    security: bytes | None = None
    unreadable: str | None = None
    changed: int = 0


class FileSystemReader(ABC):
    """A volume opened for reading. Damaged metadata raises FormatError, from every method.

    A path that does not exist: `stat` returns None, everything else raises FileNotFoundError,
    NotADirectoryError or IsADirectoryError.
    """

    @property
    @abstractmethod
    def kind(self) -> str:
        """A value of survey.model.FileSystem."""

    @property
    @abstractmethod
    def label(self) -> str: ...

    @property
    @abstractmethod
    def serial(self) -> str: ...

    @property
    @abstractmethod
    def cluster_size(self) -> int: ...

    @property
    @abstractmethod
    def hidden_sectors(self) -> int:
        """Sectors before the volume as its boot sector says it."""

    @property
    @abstractmethod
    def dirty(self) -> bool:
        """The volume's own mark that it was not unmounted, or should be checked."""

    @abstractmethod
    def stat(self, path: str) -> FileStat | None: ...

    @abstractmethod
    def listdir(self, path: str) -> list[FileStat]:
        """Sorted by name without case."""

    @abstractmethod
    def open(self, path: str) -> ByteSource: ...

    @abstractmethod
    def metadata(self, path: str) -> FileMetadata | None:
        """None where the path does not exist."""

    @abstractmethod
    def free(self) -> int | None:
        """Bytes; None where counting would take too long."""

    def link_target(self, path: str) -> str | None:
        """Where a symbolic link, junction or mount point leads, as stored; None for anything else.

        A target that starts with no letter, backslash or volume is relative to the link's folder.
        """
        return None

    def find_files(
        self, suffixes: frozenset[str], problems: list[str], step: Step | None = None
    ) -> Iterator[str]:
        """The path of every file whose name ends in one of ``suffixes`` (lower case, with the dot).

        Links are not followed. What cannot be read goes into ``problems`` and the search goes on.
        """
        waiting = [("", 0)]
        count = 0
        while waiting:
            folder, depth = waiting.pop()
            try:
                entries = self.listdir(folder)
            except (FormatError, OSError) as error:
                problems.append(f"{folder or chr(92)}: {error}")
                continue
            count += len(entries)
            if step is not None:
                step(count, 0)
            if count > _MAX_WALKED or depth > _MAX_DEPTH:
                problems.append(
                    f"{folder}: more than {_MAX_WALKED} files or {_MAX_DEPTH} levels; not searched"
                )
                return
            for entry in entries:
                path = f"{folder}\\{entry.name}"
                if entry.is_directory:
                    if not entry.reparse_tag:
                        waiting.append((path, depth + 1))
                elif has_suffix(entry.name, suffixes):
                    yield path

    def exists(self, path: str) -> bool:
        return self.stat(path) is not None

    def is_directory(self, path: str) -> bool:
        found = self.stat(path)
        return found is not None and found.is_directory

    def size(self, path: str) -> int:
        return self.open(path).size

    def read(self, path: str, limit: int = READ_LIMIT) -> bytes:
        """The whole file. Raises FormatError where it has more than ``limit`` bytes or ends early."""
        source = self.open(path)
        if source.size > limit:
            raise FormatError(path, f"its {source.size} bytes are more than the {limit} expected at most")
        # BytesIO hands its buffer over: joining pieces would take twice the memory, for a hive of 100 MB too
        # much
        buffer = BytesIO()
        while buffer.tell() < source.size:
            piece = source.read_at(buffer.tell(), min(_PIECE, source.size - buffer.tell()))
            if not piece:
                raise FormatError(path, "the file ends before its size", buffer.tell())
            buffer.write(piece)
        return buffer.getvalue()

    def exact_path(self, path: str) -> str | None:
        """``path`` in the volume's own spelling, or None where it does not exist."""
        names: list[str] = []
        for part in split_path(path):
            found = self.stat("\\".join([*names, part]))
            if found is None:
                return None
            names.append(found.name)
        return "\\" + "\\".join(names)


def has_suffix(name: str, suffixes: frozenset[str]) -> bool:
    return name[name.rfind(".") :].lower() in suffixes if "." in name else False


def split_path(path: str) -> list[str]:
    return [part for part in path.replace("/", "\\").split("\\") if part]


def join_path(*parts: str) -> str:
    """An absolute path with backslashes, made of parts that may hold several names each."""
    return "\\" + "\\".join(name for part in parts for name in split_path(part))
