"""Writes a cpio archive for the kernel's initramfs, the same bytes whoever runs it and wherever.

Format "newc" (Linux Documentation/driver-api/early-userspace/buffer-format.rst): no root, no device nodes on
the host, and no owner, time or mode of the host's files gets in.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO


@dataclass(frozen=True)
class Node:
    """One entry. ``content`` is a file's path or bytes, a link's target, or nothing."""

    name: str
    mode: int
    content: Path | bytes = b""
    device: tuple[int, int] = (0, 0)


def nodes_of(root: Path, without: str = "") -> Iterator[Node]:
    """Everything below ``root``, sorted, with modes made the same: 755 for folders and programs, else 644.

    Of the folder ``without`` only the folder itself.
    """

    def walk(folder: Path, prefix: str) -> Iterator[Node]:
        for entry in sorted(os.scandir(folder), key=lambda e: e.name):
            name = prefix + entry.name
            path = folder / entry.name
            if entry.is_symlink():
                yield Node(name, stat.S_IFLNK | 0o777, os.fsencode(path.readlink()))
            elif entry.is_dir():
                yield Node(name, stat.S_IFDIR | 0o755)
                if name != without:
                    yield from walk(path, name + "/")
            elif not entry.is_file():
                raise ValueError(f"{path} is neither file nor folder nor link")
            else:
                program = entry.stat().st_mode & stat.S_IXUSR
                yield Node(name, stat.S_IFREG | (0o755 if program else 0o644), path)

    yield from walk(root, "")


def write_cpio(nodes: Iterable[Node], out: IO[bytes], epoch: int) -> int:
    """Writes the archive and returns its length in bytes. ``epoch`` (seconds) dates every entry.

    Entries are numbered from 1, so their order is part of the result. Raises ValueError for a file of 4 GiB.
    """
    length = 0

    def write(data: bytes) -> None:
        nonlocal length
        out.write(data)
        length += len(data)

    number = 0
    for number, node in enumerate([*nodes, Node("TRAILER!!!", 0)], 1):
        data = node.content.read_bytes() if isinstance(node.content, Path) else node.content
        if len(data) >= 1 << 32:
            raise ValueError(f"{node.name} is too large for a cpio archive")
        name = os.fsencode(node.name) + b"\0"
        trailer = node.mode == 0
        fields = (
            0 if trailer else number,
            node.mode,
            0,
            0,
            2 if stat.S_ISDIR(node.mode) else 1,
            0 if trailer else epoch,
            len(data),
            0,
            0,
            *node.device,
            len(name),
            0,
        )
        header = b"070701" + b"".join(b"%08X" % (value & 0xFFFFFFFF) for value in fields) + name
        write(header + bytes(-len(header) % 4))
        write(data + bytes(-len(data) % 4))
    write(bytes(-length % 512))
    return length
