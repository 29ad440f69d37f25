"""What all file system readers of this package have in common.

Paths are absolute, with backslashes (slashes are taken as well), and matched without case, as Windows does
it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from .errors import FormatError
from .source import ByteSource


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


class FileSystemReader(Protocol):
    """A volume opened for reading. Damaged metadata raises FormatError, from every method.

    `stat` returns None where the path does not exist. `listdir` and `open` raise FileNotFoundError,
    NotADirectoryError or IsADirectoryError. `free` is in bytes, or None where counting would take too long.
    """

    @property
    def kind(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def serial(self) -> str: ...
    @property
    def cluster_size(self) -> int: ...
    @property
    def hidden_sectors(self) -> int | None: ...
    @property
    def dirty(self) -> bool: ...

    def stat(self, path: str) -> FileStat | None: ...
    def listdir(self, path: str) -> list[FileStat]: ...
    def open(self, path: str) -> ByteSource: ...
    def free(self) -> int | None: ...


def split_path(path: str) -> list[str]:
    return [part for part in path.replace("/", "\\").split("\\") if part]


def join_path(*parts: str) -> str:
    """An absolute path with backslashes, made of parts that may hold several names each."""
    return "\\" + "\\".join(name for part in parts for name in split_path(part))


def read_file(reader: FileSystemReader, path: str, limit: int) -> bytes:
    """The whole file. Raises FormatError where it is larger than ``limit`` bytes or ends early."""
    source = reader.open(path)
    if source.size > limit:
        raise FormatError(path, f"{source.size} bytes are more than the {limit} that are expected at most")
    data = source.read_at(0, source.size)
    if len(data) != source.size:
        raise FormatError(path, "the file ends before its size", len(data))
    return data


def exact_path(reader: FileSystemReader, path: str) -> str | None:
    """``path`` in the volume's own spelling, or None where it does not exist."""
    names: list[str] = []
    for part in split_path(path):
        found = reader.stat("\\".join([*names, part]))
        if found is None:
            return None
        names.append(found.name)
    return "\\" + "\\".join(names)
