"""An image's metadata: security descriptors, and the tree of files with their attributes and hashes.

Entries keep their bytes as they are: what is not understood (short names, object IDs, tagged items, hard links,
alternate streams) is written back unchanged. Only the place of a folder's list, which moves, is filled in anew.
Layout of an entry (102 bytes and its names), little endian:

    +00 8 length without the streams that follow    +40 20 SHA-1 of the content
    +08 4 attributes   +0c 4 security ID, or -1      +58 8  hard link group, or reparse tag
    +10 8 place of the folder's list, 0 for none     +60 2  number of further streams
    +28 8 created, +30 accessed, +38 written         +62 2  +64 2 bytes in short name, name
"""

from __future__ import annotations

import struct
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass, field

from rehost_payload.formats.errors import FormatError

WHAT = "WIM metadata"
DIRECTORY, REPARSE_POINT, ARCHIVE = 0x10, 0x400, 0x20
NO_HASH = bytes(20)
_FIXED = 102
_STREAM = 38
_END = bytes(8)


@dataclass(slots=True)
class Entry:
    """A file or folder. ``sha1`` is that of the unnamed stream, zeros for an empty one."""

    name: str
    raw: bytes
    attributes: int
    sha1: bytes = NO_HASH
    other_streams: tuple[bytes, ...] = ()
    children: list[Entry] = field(default_factory=list)
    has_list: bool = False
    _index: dict[str, Entry] | None = None

    @property
    def is_folder(self) -> bool:
        return bool(self.attributes & DIRECTORY)

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """Contents that this name refers to."""
        return tuple(h for h in (self.sha1, *self.other_streams) if h != NO_HASH)

    @property
    def hard_link_group(self) -> int:
        """0 for none."""
        return 0 if self.attributes & REPARSE_POINT else int.from_bytes(self.raw[0x58:0x60], "little")

    def child(self, name: str) -> Entry | None:
        if self._index is None:
            self._index = {}
            for entry in self.children:
                self._index.setdefault(entry.name.casefold(), entry)
        return self._index.get(name.casefold())

    def add(self, entry: Entry) -> None:
        self.children.insert(bisect(self.children, entry.name.upper(), key=lambda e: e.name.upper()), entry)
        self._index = None

    def remove(self, entry: Entry) -> None:
        self.children.remove(entry)
        self._index = None

    def walk(self, path: str = "") -> Iterator[tuple[str, Entry]]:
        """Everything below, folders before what is in them, as ("Windows/System32/x.dll", entry)."""
        stack = [(path, self)]
        while stack:
            prefix, entry = stack.pop()
            if entry is not self:
                yield prefix, entry
            for child in reversed(entry.children):
                stack.append((f"{prefix}/{child.name}" if prefix else child.name, child))


@dataclass
class Tree:
    """``security`` is the block of descriptors as it is."""

    security: bytes
    root: Entry

    def find(self, path: str) -> Entry | None:
        """The entry at ``path`` (either slash, any case), or None."""
        entry: Entry | None = self.root
        for part in split_path(path):
            entry = entry.child(part) if entry is not None else None
        return entry

    def resolve(self, path: str) -> str | None:
        """``path`` with the names as they are in the image, or None."""
        names, entry = [], self.root
        for part in split_path(path):
            found = entry.child(part)
            if found is None:
                return None
            names.append(found.name)
            entry = found
        return "/".join(names)


def split_path(path: str) -> list[str]:
    return [part for part in path.replace("\\", "/").split("/") if part]


def parse_tree(data: bytes) -> Tree:
    """FormatError for metadata that is damaged, or whose folders contain each other."""
    try:
        (length,) = struct.unpack_from("<I", data)
        length = max(length + 7 & ~7, 8)
        if length >= len(data):
            raise FormatError(WHAT, f"security data of {length} bytes", 0)
        root, _ = _entry(data, length)
        if root is None:
            raise FormatError(WHAT, "it has no root", length)
        seen: set[int] = set()
        queue = [(root, _place(root))]
        while queue:
            folder, at = queue.pop()
            if not at or not folder.is_folder:
                continue
            if at in seen:
                raise FormatError(WHAT, "two folders share one list", at)
            seen.add(at)
            folder.has_list = True
            while True:
                entry, at = _entry(data, at)
                if entry is None:
                    break
                folder.children.append(entry)
                queue.append((entry, _place(entry)))
        return Tree(data[:length], root)
    except (struct.error, UnicodeDecodeError) as e:
        raise FormatError(WHAT, str(e)) from None


def _place(entry: Entry) -> int:
    return int.from_bytes(entry.raw[0x10:0x18], "little")


def _entry(data: bytes, at: int) -> tuple[Entry | None, int]:
    """The entry at ``at`` and where the next one is; None at the end of a list."""
    (length,) = struct.unpack_from("<Q", data, at)
    if length <= 8:
        return None, at + 8
    if length < _FIXED or at + length > len(data):
        raise FormatError(WHAT, f"an entry of {length} bytes", at)
    streams, _, name_bytes = struct.unpack_from("<HHH", data, at + 0x60)
    if _FIXED + name_bytes > length:
        raise FormatError(WHAT, f"a name of {name_bytes} bytes in an entry of {length}", at)
    name = data[at + _FIXED : at + _FIXED + name_bytes].decode("utf-16-le", "surrogatepass")
    if "/" in name or "\\" in name or "\0" in name or name in (".", ".."):
        raise FormatError(WHAT, f"a file called {name!r}", at)
    attributes = int.from_bytes(data[at + 8 : at + 12], "little")
    sha1 = data[at + 0x40 : at + 0x54]
    end = at + (length + 7 & ~7)
    others: list[bytes] = []
    for _ in range(streams):
        stream_length, _, stream_hash, stream_name = struct.unpack_from("<QQ20sH", data, end)
        if stream_length < _STREAM or end + stream_length > len(data):
            raise FormatError(WHAT, f"a stream of {stream_length} bytes", end)
        # Where a file has several streams the content may be the one without a name.
        if stream_name == 0 and sha1 == NO_HASH and not attributes & REPARSE_POINT:
            sha1 = stream_hash
        else:
            others.append(stream_hash)
        end += stream_length + 7 & ~7
    return Entry(name, data[at:end].ljust(end - at, b"\0"), attributes, sha1, tuple(others)), end


def pack_tree(tree: Tree) -> bytes:
    """The metadata resource; every folder's list follows those of the folders before it."""
    out = bytearray(tree.security)
    out += tree.root.raw + _END
    pending = [(tree.root, len(tree.security))]
    while pending:
        folder, where = pending.pop()
        if not folder.children and not folder.has_list:
            struct.pack_into("<Q", out, where + 0x10, 0)
            continue
        struct.pack_into("<Q", out, where + 0x10, len(out))
        below = []
        for entry in folder.children:
            if entry.is_folder:
                below.append((entry, len(out)))
            out += entry.raw
        out += _END
        pending += reversed(below)
    return bytes(out)


def new_entry(name: str, *, sha1: bytes | None, filetime: int) -> Entry:
    """A file with this content, or a folder (``sha1`` None). No security descriptor: as wimlib adds files on Linux."""
    encoded = name.encode("utf-16-le")
    if not encoded or len(encoded) > 510 or any(c in name for c in '/\\\0:*?"<>|') or name[-1] in " .":
        raise ValueError(f"not a file name on Windows: {name!r}")
    attributes = DIRECTORY if sha1 is None else ARCHIVE
    length = _FIXED + len(encoded) + 2 + 7 & ~7
    raw = struct.pack(
        "<QIiQQQQQQ20sIQHHH",
        length, attributes, -1, 0, 0, 0, filetime, filetime, filetime, sha1 or NO_HASH, 0, 0, 0, 0, len(encoded),
    )  # fmt: skip
    return Entry(
        name, (raw + encoded).ljust(length, b"\0"), attributes, sha1 or NO_HASH, has_list=sha1 is None
    )
