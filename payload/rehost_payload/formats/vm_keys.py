"""Looks keys of a configuration up and remembers which were understood, so that the others can be named."""

from __future__ import annotations

from datetime import datetime

from rehost_payload.formats.hive_base import filetime
from rehost_payload.formats.vm_tree import Blob, Kind, Node, Value


class Keys:
    """Typed look-ups. A key of another type than the wanted one counts as absent and stays unread."""

    def __init__(self) -> None:
        self._read: set[int] = set()

    def take(self, node: Node) -> Value | None:
        """The node's value, marked as understood."""
        self._read.add(id(node))
        return node.value

    def text(self, base: Node | None, path: str) -> str | None:
        node = None if base is None else base.find(path)
        if node is None or not isinstance(node.value, str):
            return None
        self.take(node)
        return node.value

    def number(self, base: Node | None, path: str) -> int | None:
        node = None if base is None else base.find(path)
        if node is None or isinstance(node.value, bool) or not isinstance(node.value, int):
            return None
        self.take(node)
        return node.value

    def flag(self, base: Node | None, path: str) -> bool | None:
        """A truth value; numbers count, older configurations write some so."""
        node = None if base is None else base.find(path)
        if node is None or not isinstance(node.value, int):
            return None
        self.take(node)
        return bool(node.value)

    def time(self, base: Node | None, path: str) -> datetime | None:
        """A FILETIME, as a number or as its 8 bytes; None also where it is zero."""
        node = None if base is None else base.find(path)
        if node is None or isinstance(node.value, bool):
            return None
        value = node.value
        if isinstance(value, bytes) and len(value) == 8:
            value = int.from_bytes(value, "little")
        if not isinstance(value, int):
            return None
        self.take(node)
        return filetime(value) if value > 0 else None

    def size(self, base: Node | None, path: str) -> int | None:
        """How many bytes a value has that is kept as bytes."""
        node = None if base is None else base.find(path)
        if node is None or not isinstance(node.value, bytes | Blob):
            return None
        self.take(node)
        return node.value.size if isinstance(node.value, Blob) else len(node.value)

    def rest(self, base: Node) -> dict[str, Value]:
        """Every value below ``base`` that nobody asked for, by its path; they count as understood from now on."""
        found: dict[str, Value] = {}
        for path, node in base.leaves():
            if id(node) not in self._read and node.value is not None:
                self._read.add(id(node))
                found.setdefault(path, node.value)
        return found

    def skip(self, base: Node | None) -> None:
        """Marks everything below ``base`` as known and of no interest."""
        for _, node in base.leaves() if base is not None else ():
            self._read.add(id(node))

    def unread(self, root: Node) -> list[str]:
        """Paths of the values that were not asked for."""
        return [p for p, n in root.leaves() if id(n) not in self._read and n.kind is not Kind.NODE]
