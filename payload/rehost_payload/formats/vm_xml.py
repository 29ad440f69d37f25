"""Configurations of Hyper-V 2008 to 2012 R2 (version 5.0 and older): XML, onto the tree of `vm_tree`.

Measured on real files of 2012 R2: UTF-16 with a byte order mark; the root element ``configuration`` holds the same
keys as the binary storage; every value has ``type="string|integer|bool|bytes"``, bytes being Base64. Nothing of a
document type is ever read: entities are how such files are made hostile.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from xml.parsers import expat

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.source import ByteSource
from rehost_payload.formats.vm_tree import MAX_DEPTH, MAX_NODES, Kind, Node, Value

LARGEST = 16 << 20  # bytes; real ones have 40 KB, the variables of the firmware included
_WHAT = "virtual machine XML"
_NUMBER = re.compile(r"-?[0-9]{1,20}")


@dataclass(frozen=True)
class XmlConfiguration:
    """``root`` is nameless and holds ``configuration``, as in the binary storage. ``notes`` name odd values."""

    root: Node
    notes: tuple[str, ...] = ()


def is_vm_xml(source: ByteSource) -> bool:
    """Whether this begins like an XML file with the root element of a configuration."""
    head = _decode(source.read_at(0, min(source.size, 2048)), "replace")
    return re.match(r"\s*(<\?xml[^>]*>)?\s*(<!--.*?-->\s*)*<configuration[\s/>]", head, re.DOTALL) is not None


def parse_vm_xml(source: ByteSource) -> XmlConfiguration:
    """Reads a configuration. FormatError for what is no XML, no configuration, or larger than 16 MiB."""
    if source.size > LARGEST:
        raise FormatError(_WHAT, f"{source.size} bytes are more than any configuration has")
    try:
        text = _decode(source.read_at(0, source.size), "strict")
    except UnicodeDecodeError as e:
        raise FormatError(_WHAT, f"not encoded as it says: {e.reason}", e.start) from e
    return _Builder().parse(text)


def _decode(data: bytes, errors: str) -> str:
    for mark, encoding in (
        (b"\xff\xfe", "utf-16-le"),
        (b"\xfe\xff", "utf-16-be"),
        (b"\xef\xbb\xbf", "utf-8"),
    ):
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, errors)
    if data[:2] == b"<\0":
        return data.decode("utf-16-le", errors)
    return data.decode("utf-8", errors)


class _Builder:
    """Puts the tree together. Own depth and number limits: the parser has none."""

    def __init__(self) -> None:
        self._root = Node("")
        self._open: list[tuple[Node, str | None, list[str]]] = [(self._root, None, [])]
        self._nodes = 0
        self._notes: list[str] = []
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self._parser.StartDoctypeDeclHandler = self._doctype

    def parse(self, text: str) -> XmlConfiguration:
        try:
            # text, not bytes: the declaration says UTF-16, whatever the file was turned into on its way
            self._parser.Parse(text, True)
        except expat.ExpatError as e:
            raise FormatError(_WHAT, f"line {e.lineno}: {expat.ErrorString(e.code)}") from e
        except UnicodeEncodeError as e:
            raise FormatError(_WHAT, "half a surrogate pair") from e
        finally:
            del self._parser  # it and this object hold each other
        if [c.name for c in self._root.children] != ["configuration"]:
            raise FormatError(_WHAT, "the root element is not 'configuration'")
        return XmlConfiguration(self._root, tuple(self._notes))

    def _fail(self, problem: str) -> FormatError:
        return FormatError(_WHAT, f"line {self._parser.CurrentLineNumber}: {problem}")

    def _doctype(self, *_: object) -> None:
        raise self._fail("a document type, which no configuration has")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._nodes += 1
        if len(self._open) > MAX_DEPTH or self._nodes > MAX_NODES:
            raise self._fail("more levels or elements than any configuration has")
        node = Node(name)
        self._open[-1][0].children.append(node)
        self._open.append((node, attributes.get("type"), []))

    def _text(self, text: str) -> None:
        self._open[-1][2].append(text)

    def _end(self, name: str) -> None:
        node, kind, parts = self._open.pop()
        text = "".join(parts)
        if node.children:
            if kind is not None or text.strip():
                self._note(f"{name} has a value and children; the value is left out")
            return
        if kind is None and not text.strip():
            return
        node.kind, node.value = self._value(name, kind, text)

    def _value(self, name: str, kind: str | None, text: str) -> tuple[Kind, Value]:
        bare = text.strip()
        if kind == "integer" and _NUMBER.fullmatch(bare):
            return Kind.INT, int(bare)
        if kind == "bool" and bare.lower() in ("true", "false"):
            return Kind.BOOL, bare.lower() == "true"
        if kind == "bytes":
            try:
                return Kind.BYTES, base64.b64decode("".join(text.split()), validate=True)
            except (binascii.Error, ValueError):
                pass
        if kind != "string":
            self._note(f"{name} is no value of type {kind}; kept as text")
        return Kind.STRING, text

    def _note(self, text: str) -> None:
        if len(self._notes) < 100:
            self._notes.append(text)
