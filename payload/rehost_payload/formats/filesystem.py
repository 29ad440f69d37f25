"""What all file system readers of this package have in common.

Paths are absolute, with backslashes (slashes are taken as well), and matched without case, as Windows does
it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from io import BytesIO

from .errors import FormatError
from .source import ByteSource

READ_LIMIT = 512 << 20
_PIECE = 4 << 20


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
    def free(self) -> int | None:
        """Bytes; None where counting would take too long."""

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


def split_path(path: str) -> list[str]:
    return [part for part in path.replace("/", "\\").split("\\") if part]


def join_path(*parts: str) -> str:
    """An absolute path with backslashes, made of parts that may hold several names each."""
    return "\\" + "\\".join(name for part in parts for name in split_path(part))
