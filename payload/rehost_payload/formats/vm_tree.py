"""The tree of typed values that both kinds of Hyper-V configuration hold: the binary one and the XML one.

Siblings may have the same name (metrics and devices of one kind do), so children are a list. Names are compared
without case: the same device GUID is written in lower case in one place and in upper case in another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.source import ByteSource

MAX_DEPTH = 64  # real trees have 8 levels
MAX_NODES = 500_000  # the state of a machine with 256 GiB of memory has half of that
_LARGEST_BLOB = 64 << 20


class Kind(Enum):
    """What a value is. INT and UINT are told apart by the binary form only; XML has INT."""

    NODE = "node"
    INT = "int"
    UINT = "uint"
    DOUBLE = "double"
    BOOL = "bool"
    STRING = "string"
    BYTES = "bytes"


@dataclass(frozen=True)
class Blob:
    """A large value that is left in the file: memory of a saved machine comes in thousands of them."""

    source: ByteSource = field(repr=False, compare=False)
    offset: int
    size: int

    def read(self) -> bytes:
        """The bytes. FormatError where the file is shorter, or for more than 64 MiB at once."""
        if self.size > _LARGEST_BLOB:
            raise FormatError(
                "large value", f"{self.size} bytes are too many to be read at once", self.offset
            )
        data = self.source.read_at(self.offset, self.size)
        if len(data) != self.size:
            raise FormatError("large value", f"truncated: {len(data)} bytes of {self.size}", self.offset)
        return data


Value = int | float | bool | str | bytes | Blob


@dataclass(eq=False, slots=True)
class Node:
    """One key. ``value`` is None for Kind.NODE; only such a node has children, in their stored order."""

    name: str
    kind: Kind = Kind.NODE
    value: Value | None = None
    children: list[Node] = field(default_factory=list)

    def child(self, name: str) -> Node | None:
        """The first child of this name."""
        return next(self.all(name), None)

    def all(self, name: str) -> Iterator[Node]:
        """Every child of this name."""
        wanted = name.lower()
        return (c for c in self.children if c.name.lower() == wanted)

    def find(self, path: str) -> Node | None:
        """The node at this path ("properties/name"), of repeated siblings the first that leads there."""
        head, _, rest = path.partition("/")
        for child in self.all(head):
            found = child.find(rest) if rest else child
            if found is not None:
                return found
        return None

    def walk(self) -> Iterator[tuple[str, Node]]:
        """Every node below this one with its path, parents before children."""
        pending = [("", iter(self.children))]
        while pending:
            prefix, children = pending[-1]
            child = next(children, None)
            if child is None:
                pending.pop()
                continue
            path = f"{prefix}{child.name}"
            yield path, child
            if child.children:
                pending.append((path + "/", iter(child.children)))

    def leaves(self) -> Iterator[tuple[str, Node]]:
        """Every value below this node with its path."""
        return ((path, node) for path, node in self.walk() if node.kind is not Kind.NODE)
