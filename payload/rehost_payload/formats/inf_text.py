"""The text of a setup information file (INF): bytes to sections, lines and fields. No meaning yet; see inf.py.

Follows Microsoft's "General Syntax Rules for INF Files" and "INF Strings Section":

- encoding by byte order mark (UTF-16LE, UTF-16BE, UTF-8); UTF-16 without one where every second byte at the beginning is
  NUL, as Windows guesses (IsTextUnicode); else the ANSI code page of the package's author
- section names, keys and tokens have no case; sections of the same name are one section
- ``;`` starts a comment outside quotes and %tokens%; ``""`` inside quotes is one quote; a closing quote may be missing
- ``\\`` as the last visible character of a line, also before a comment, joins the next line
- ``%token%`` is replaced from [Strings.LLLL] of the wished language, then [Strings], then [Strings.0409];
  ``%%`` is one percent sign; dirids (``%12%``) and unknown tokens stay as they are; nothing is replaced twice

Everything is bounded: what is larger than any real INF by a factor of ten or more is refused with FormatError.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from rehost_payload.formats.errors import FormatError

WHAT = "INF"
MAX_SIZE = 8 << 20  # bytes; the largest storage INF measured has 125 KiB, printer INFs a few MiB
MAX_LINES = 200_000
MAX_FIELD = 4096  # characters, before and after tokens are replaced: the limit of Windows
MAX_EXPANDED = 32 << 20  # characters over all fields, so that a short file cannot become a huge one
ENGLISH = 0x0409
_MAX_SECTION_NAME = 255
_MAX_FIELDS = 4096  # per line; REG_BINARY data are one byte a field

# cp1252 with the five unassigned bytes as the control characters that Windows makes of them
_CP1252 = "".join(bytes([b]).decode("cp1252", "ignore") or chr(b) for b in range(256))
_BLANKS = " \t\f\v\xa0\x1a"
_TOKEN = re.compile(r"%([^%]*)%")
_INLINE_TOKEN = re.compile(r'%[^%",\r\n]*%')
_DIRID = re.compile(r"-?[0-9]+")
_NUMBER = re.compile("(-)?(0x([0-9a-f]{1,16})|([0-9]{1,20}))", re.IGNORECASE)


@dataclass(frozen=True)
class Line:
    """One entry of a section: ``key = fields`` or, where ``key`` is None, fields alone.

    ``raw_key`` and ``raw_fields`` are as written, without quotes but with %tokens%: the driver database of Windows
    stores some of them so. ``number`` is the first line in the file, from 1.
    """

    number: int
    key: str | None
    fields: tuple[str, ...]
    raw_key: str | None
    raw_fields: tuple[str, ...]

    def field(self, index: int) -> str:
        """The field at ``index``, from 0; empty where the line is shorter."""
        return self.fields[index] if index < len(self.fields) else ""


@dataclass(frozen=True)
class Section:
    name: str  # as first spelled
    lines: tuple[Line, ...]

    @cached_property
    def _by_key(self) -> dict[str, list[Line]]:
        """Each file of a package is looked up here: without it a long list takes minutes."""
        found: dict[str, list[Line]] = {}
        for line in self.lines:
            if line.key is not None:
                found.setdefault(line.key.lower(), []).append(line)
        return found

    def values(self, key: str) -> Iterator[Line]:
        """Every line with this key, in order; an INF may repeat a directive."""
        return iter(self._by_key.get(key.lower(), ()))

    def first(self, key: str) -> str:
        """The first field of the first line with this key, or an empty string."""
        return next((line.field(0) for line in self.values(key)), "")

    def all_fields(self, key: str) -> list[str]:
        """The fields of all lines with this key, without the empty ones: lists of section names."""
        return [f for line in self.values(key) for f in line.fields if f]


@dataclass(frozen=True)
class InfText:
    encoding: str
    sections: Mapping[str, Section]  # by lower-case name
    strings: Mapping[str, str]  # by lower-case token

    def section(self, name: str) -> Section | None:
        return self.sections.get(name.lower())


def decode(data: bytes, code_page: str = "cp1252") -> tuple[str, str]:
    """Text and name of the encoding. FormatError for what is no text."""
    if len(data) > MAX_SIZE:
        raise FormatError(WHAT, f"larger than {MAX_SIZE >> 20} MiB, which no INF is")
    for mark, encoding in (
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF8, "utf-8"),
    ):
        if data.startswith(mark):
            text = _decoded(data, len(mark), encoding)
            break
    else:
        if len(data) >= 8 and (guess := _UTF16.get(bytes(b == 0 for b in data[:8]))):
            return _without_nul(_decoded(data, 0, guess)), guess
        encoding = code_page
        if code_page == "cp1252":
            text, _ = codecs.charmap_decode(data, "strict", _CP1252)
        else:
            text = data.decode(code_page, "replace")
    return _without_nul(text), encoding


_UTF16 = {b"\0\1" * 4: "utf-16-le", b"\1\0" * 4: "utf-16-be"}  # which of the first bytes are NUL


def _decoded(data: bytes, start: int, encoding: str) -> str:
    # half a character at the end is passed over, as by Windows: editors of old put a Ctrl-Z there
    end = len(data) - (len(data) - start) % 2 if encoding.startswith("utf-16") else len(data)
    try:
        return data[start:end].decode(encoding)
    except UnicodeDecodeError as e:
        raise FormatError(WHAT, f"is not {encoding}: {e.reason}", start + e.start) from None


def _without_nul(text: str) -> str:
    nul = text.find("\0")
    if nul >= 0:
        raise FormatError(WHAT, f"no text: a NUL character in line {text.count(chr(10), 0, nul) + 1}")
    return text


def parse_text(data: bytes, *, language: int = ENGLISH, code_page: str = "cp1252") -> InfText:
    """Sections, lines and fields of an INF, tokens replaced. ``language`` is a Windows LANGID. FormatError."""
    text, encoding = decode(data, code_page)
    names: dict[str, str] = {}
    raw: dict[str, list[tuple[int, str | None, tuple[str, ...]]]] = {}
    current: list[tuple[int, str | None, tuple[str, ...]]] | None = None
    for number, line in _logical_lines(text):
        if line.startswith("["):
            end = line.find("]")
            name = line[1:end].strip(_BLANKS)
            if end < 0:
                raise FormatError(WHAT, f"line {number}: a section name without ]")
            if len(name) > _MAX_SECTION_NAME:
                raise FormatError(WHAT, f"line {number}: a section name of {len(name)} characters")
            names.setdefault(name.lower(), name)
            current = raw.setdefault(name.lower(), [])
            continue
        key, fields = _split(line, number)
        if key is None and not any(fields):
            continue
        if current is None:
            raise FormatError(WHAT, f"line {number}: text before the first section")
        current.append((number, key, fields))
    strings = _strings(raw, language)
    expander = _Expander(strings)
    sections = {}
    for lower, lines in raw.items():
        if lower == "strings" or lower.startswith("strings."):
            made = tuple(Line(n, key, fields, key, fields) for n, key, fields in lines)
        else:
            made = tuple(
                Line(
                    n,
                    None if key is None else expander.expand(key, n),
                    tuple(expander.expand(f, n) for f in fields),
                    key,
                    fields,
                )
                for n, key, fields in lines
            )
        sections[lower] = Section(names[lower], made)
    return InfText(encoding, sections, strings)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their continuations, comments cut off and blanks trimmed; empty ones are left out."""
    lines = re.split("\r\n|\r|\n", text)
    if len(lines) > MAX_LINES:
        raise FormatError(WHAT, f"{len(lines)} lines, which no INF has")
    parts: list[str] = []
    first = 0
    for number, line in enumerate(lines, 1):
        part, goes_on = _cut(line)
        if not parts:
            first = number
        parts.append(part)
        if goes_on:
            continue
        whole = "".join(parts).strip(_BLANKS)
        parts = []
        if whole:
            yield first, whole
    whole = "".join(parts).strip(_BLANKS)
    if whole:
        yield first, whole


def _cut(line: str) -> tuple[str, bool]:
    """The line without comment and leading blanks, and whether the next one continues it."""
    line = line.lstrip(_BLANKS)
    if line.startswith("["):
        return line, False
    if ";" in line:
        line = line[: _comment(line)]
    line = line.rstrip(_BLANKS)
    if line.endswith("\\") and not _in_quotes(line):
        return line[:-1], True
    return line, False


def _comment(line: str) -> int:
    """Where the comment starts; the line's length where there is none."""
    i, quoted = 0, False
    while i < len(line):
        c = line[i]
        if c == '"':
            quoted = not quoted
        elif not quoted and c == ";":
            return i
        elif not quoted and c == "%":
            token = _INLINE_TOKEN.match(line, i)
            if token is not None:
                i = token.end()
                continue
        i += 1
    return len(line)


def _in_quotes(line: str) -> bool:
    return line.count('"') % 2 == 1


def _split(line: str, number: int) -> tuple[str | None, tuple[str, ...]]:
    """Key and fields. Only an equals sign before the first comma makes a key; quotes go, a doubled one stays."""
    key: str | None = None
    fields: list[str] = []
    out: list[str] = []
    solid = 0  # length up to which blanks at the end belong to a quoted part
    quoted = False
    i = 0

    def finish() -> str:
        nonlocal solid
        text = "".join(out)
        field = text[:solid] + text[solid:].rstrip(_BLANKS)
        if len(field) > MAX_FIELD:
            raise FormatError(WHAT, f"line {number}: a field of {len(field)} characters")
        out.clear()
        solid = 0
        return field

    length = 0
    while i < len(line):
        c = line[i]
        i += 1
        if c == '"':
            if quoted and line[i : i + 1] == '"':
                out.append(c)
                length += 1
                i += 1
            else:
                quoted = not quoted
            solid = length
        elif quoted:
            out.append(c)
            length += 1
            solid = length
        elif c == ",":
            if len(fields) >= _MAX_FIELDS:
                raise FormatError(WHAT, f"line {number}: more than {_MAX_FIELDS} fields")
            fields.append(finish())
            length = 0
        elif c == "=" and key is None and not fields:
            key = finish()
            length = 0
        elif c in _BLANKS and not out and not solid:
            continue
        else:
            out.append(c)
            length += 1
    fields.append(finish())
    return key, tuple(fields)


def _strings(
    raw: Mapping[str, list[tuple[int, str | None, tuple[str, ...]]]], language: int
) -> dict[str, str]:
    """Tokens by lower-case name; sections that come first win."""
    wished = [f"strings.{language:04x}"]
    primary = language & 0x3FF
    same = sorted(
        name for name in raw if _language(name) is not None and (_language(name) or 0) & 0x3FF == primary
    )
    others = sorted(name for name in raw if _language(name) is not None)
    result: dict[str, str] = {}
    for name in (*wished, *same, "strings", f"strings.{ENGLISH:04x}", *others):
        for _, key, fields in raw.get(name, []):
            if key:
                result.setdefault(key.lower(), fields[0])
    return result


def _language(section: str) -> int | None:
    head, _, tail = section.partition(".")
    if head != "strings" or not re.fullmatch("[0-9a-f]{4}", tail):
        return None
    return int(tail, 16)


class _Expander:
    def __init__(self, strings: Mapping[str, str]) -> None:
        self._strings = strings
        self._left = MAX_EXPANDED

    def expand(self, text: str, number: int) -> str:
        if "%" not in text:
            return text
        result = _TOKEN.sub(self._one, text)
        self._left -= len(result)
        if len(result) > MAX_FIELD:
            raise FormatError(WHAT, f"line {number}: a field of {len(result)} characters after its %tokens%")
        if self._left < 0:
            raise FormatError(
                WHAT, f"line {number}: the %tokens% make more than {MAX_EXPANDED >> 20} Mi characters"
            )
        return result

    def _one(self, match: re.Match[str]) -> str:
        token = match.group(1)
        if not token:
            return "%"
        if _DIRID.fullmatch(token):
            return match.group(0)
        return self._strings.get(token.lower(), match.group(0))


def number_of(text: str, *, signed: bool = False) -> int | None:
    """A number as INFs write it: decimal (leading zeros too) or 0x and hexadecimal. None for what is none."""
    match = _NUMBER.fullmatch(text.strip())
    if match is None or (match.group(1) and not signed):
        return None
    value = int(match.group(3), 16) if match.group(3) else int(match.group(4))
    return -value if match.group(1) else value
