"""DER, the encoding of certificates and signatures (X.690): values inside of values, walked without recursion.

Only what such files hold: tags of one byte, lengths that are given. Every place is checked against the value around it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from .errors import FormatError

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, OBJECT_IDENTIFIER = 0x01, 0x02, 0x03, 0x04, 0x06
UTC_TIME, GENERALIZED_TIME = 0x17, 0x18
SEQUENCE, SET = 0x30, 0x31
_TEXTS = {0x0C: "utf-8", 0x13: "ascii", 0x14: "latin-1", 0x16: "ascii", 0x1E: "utf-16-be", 0x1C: "utf-32-be"}
_MOST_ARCS = 64


@dataclass(frozen=True, slots=True)
class Value:
    """A value in ``data``: ``start`` is its tag's place, ``body`` that of its content, ``end`` is behind it."""

    data: bytes
    start: int
    body: int
    end: int

    @property
    def tag(self) -> int:
        return self.data[self.start]

    @property
    def content(self) -> bytes:
        return self.data[self.body : self.end]

    @property
    def whole(self) -> bytes:
        """With tag and length, as it is stored."""
        return self.data[self.start : self.end]

    def children(self) -> Iterator[Value]:
        """The values inside of a constructed one. FormatError where it is none, or they do not fill it."""
        if not self.tag & 0x20:
            raise FormatError("DER", f"a value of the kind {self.tag:#04x} holds no others", self.start)
        place = self.body
        while place < self.end:
            child = value_at(self.data, place, self.end)
            yield child
            place = child.end

    def parts(self, tag: int = SEQUENCE, least: int = 0) -> list[Value]:
        """The values inside of one with this tag, of which there have to be some. FormatError."""
        found = list(self.expect(tag).children())
        if len(found) < least:
            raise FormatError("DER", f"{len(found)} values where {least} are needed", self.start)
        return found

    def expect(self, tag: int) -> Value:
        """Itself. FormatError where it is of another kind."""
        if self.tag != tag:
            raise FormatError("DER", f"a value of the kind {self.tag:#04x}, not {tag:#04x}", self.start)
        return self

    # --- what simple values mean; FormatError where they are of another kind ---

    def integer(self) -> int:
        return int.from_bytes(self.expect(INTEGER).content, "big", signed=True)

    def octets(self) -> bytes:
        return self.expect(OCTET_STRING).content

    def bits(self) -> bytes:
        """A bit string of whole bytes."""
        content = self.expect(BIT_STRING).content
        if not content or content[0] != 0:
            raise FormatError("DER", "a bit string that is no row of bytes", self.start)
        return content[1:]

    def oid(self) -> str:
        """ "1.2.840.113549.1.7.2"."""
        arcs: list[int] = []
        arc = 0
        for byte in self.expect(OBJECT_IDENTIFIER).content:
            arc = arc << 7 | byte & 0x7F
            if not byte & 0x80:
                arcs.append(arc)
                arc = 0
            if arc.bit_length() > 128 or len(arcs) > _MOST_ARCS:
                raise FormatError("DER", "an object identifier without end", self.start)
        if not arcs:
            raise FormatError("DER", "an empty object identifier", self.start)
        first = min(arcs[0] // 40, 2)
        return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))

    def text(self) -> str:
        """A character string of any kind; what cannot be decoded is replaced."""
        encoding = _TEXTS.get(self.tag)
        if encoding is None:
            raise FormatError("DER", f"a value of the kind {self.tag:#04x} is no text", self.start)
        return self.content.decode(encoding, "replace")

    def day(self) -> date:
        """The day of a time."""
        text = self.content.decode("ascii", "replace")
        if self.tag == UTC_TIME:  # two digits: 1950 to 2049 (RFC 5280)
            text = ("20" if text[:2] < "50" else "19") + text
        elif self.tag != GENERALIZED_TIME:
            raise FormatError("DER", f"a value of the kind {self.tag:#04x} is no time", self.start)
        try:
            return date(int(text[:4]), int(text[4:6]), int(text[6:8]))
        except ValueError:
            raise FormatError("DER", f"{text!r} is no time", self.start) from None


def value_at(data: bytes, place: int = 0, end: int | None = None) -> Value:
    """The value at a place; what follows it is not looked at. FormatError where it does not end before ``end``."""
    end = len(data) if end is None else end
    if place + 2 > end:
        raise FormatError("DER", "cut off", place)
    if data[place] & 0x1F == 0x1F:
        raise FormatError("DER", "a tag of several bytes", place)
    length, body = data[place + 1], place + 2
    if length & 0x80:
        count = length & 0x7F
        if not 0 < count <= 8:
            raise FormatError("DER", "a length that is not given", place)
        length, body = int.from_bytes(data[body : body + count], "big"), body + count
    if body + length > end:
        raise FormatError("DER", f"{length} bytes do not fit there", place)
    return Value(data, place, body, body + length)


def encoded(tag: int, content: bytes) -> bytes:
    """A value around ``content``."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content
