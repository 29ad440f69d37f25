"""INF as text: encodings, comments, quotes, continuations, tokens, limits."""

from __future__ import annotations

import codecs
import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_payload.formats import inf_text
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.inf_text import Line, Section, number_of, parse_text


def lines(body: str, strings: str = "") -> tuple[Line, ...]:
    text = parse_text(f"[S]\n{body}\n[Strings]\n{strings}".encode())
    section = text.section("s")
    assert section is not None
    return section.lines


def only(body: str, strings: str = "") -> Line:
    (line,) = lines(body, strings)
    return line


@pytest.mark.parametrize(
    ("encoding", "mark", "name"),
    [
        ("utf-16-le", codecs.BOM_UTF16_LE, "utf-16-le"),
        ("utf-16-be", codecs.BOM_UTF16_BE, "utf-16-be"),
        ("utf-8", codecs.BOM_UTF8, "utf-8"),
        ("cp1252", b"", "cp1252"),
    ],
)
def test_encodings(encoding: str, mark: bytes, name: str) -> None:
    text = parse_text(mark + '[Strings]\r\nName = "Gerät für €"\r\n'.encode(encoding))
    assert text.encoding == name
    assert text.strings == {"name": "Gerät für €"}


def test_every_byte_is_a_character_of_the_ansi_code_page() -> None:
    data = b"[Strings]\na = " + bytes(b for b in range(0x80, 0x100) if b != 0xA0)
    assert len(parse_text(data).strings["a"]) == 127


def test_another_code_page() -> None:
    # the second byte of this character is a backslash, which must not join lines
    data = "[Strings]\nName = 表\nNext = 1\n".encode("cp932")
    assert parse_text(data, code_page="cp932").strings == {"name": "表", "next": "1"}


@pytest.mark.parametrize(
    ("body", "key", "fields"),
    [
        ("a = b", "a", ("b",)),
        ("a=b,c , d", "a", ("b", "c", "d")),
        ("a", None, ("a",)),
        ("a,b=c", None, ("a", "b=c")),
        ("a = b=c", "a", ("b=c",)),
        ("1 = x,,,", "1", ("x", "", "", "")),
        ("a = b ; comment", "a", ("b",)),
        ('a = "b ; no comment" ; comment', "a", ("b ; no comment",)),
        ('a = " b "', "a", (" b ",)),
        ('a = "say ""this"""', "a", ('say "this"',)),
        ('a = ""', "a", ("",)),
        ('a = """"', "a", ('"',)),
        ('a = "never closed, but ended', "a", ("never closed, but ended",)),
        ('HKR,"Instances\\"Name,x', None, ("HKR", "Instances\\Name", "x")),
        ('"a b" = c', "a b", ("c",)),
        ('"a=b" = c', "a=b", ("c",)),
        ("a = b, \\\n   c", "a", ("b", "c")),
        ("a = b \\ ; comment\n , c", "a", ("b", "c")),
        ('a = "x\\"\\\n,y', "a", ("x\\", "y")),
        ('a = "dir\\"', "a", ("dir\\",)),
        ("cda.sys= 1,\\,,,", "cda.sys", ("1", "\\", "", "", "")),
        ("\ta\t=\tb\t", "a", ("b",)),
    ],
)
def test_lines(body: str, key: str | None, fields: tuple[str, ...]) -> None:
    line = only(body)
    assert (line.key, line.fields) == (key, fields)


def test_line_numbers_count_continued_lines_from_the_first() -> None:
    assert [line.number for line in lines("a = \\\n b\n\n; c\nd = e")] == [2, 6]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_newlines(newline: str) -> None:
    text = parse_text(newline.join(["[A]", "x=1", "[B]", "y=2"]).encode())
    assert [(s.name, s.lines[0].key) for s in text.sections.values()] == [("A", "x"), ("B", "y")]


def test_sections_of_one_name_are_one() -> None:
    text = parse_text(b"[One] ; comment\na=1\n[Two]\nb=2\n[ONE]\nA=3,,4\n")
    section = text.section("one")
    assert section is not None
    assert section.name == "One"
    assert [line.fields for line in section.values("a")] == [("1",), ("3", "", "4")]
    assert section.all_fields("A") == ["1", "3", "4"]
    assert section.first("a") == "1"
    assert section.first("b") == ""


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("%name%", "Value"),
        ("%NAME%", "Value"),
        ('"%Name%"', "Value"),
        ("a%Name%b%Name%", "aValuebValue"),
        ("%%SystemRoot%%", "%SystemRoot%"),
        ("%12%\\x.sys", "%12%\\x.sys"),
        ("%unknown%", "%unknown%"),
        ("%nested%", "%name%"),
        ("100%", "100%"),
        ("%with;semicolon%", "odd"),
    ],
)
def test_tokens(written: str, meant: str) -> None:
    strings = 'name = Value\nnested = %name%\n"with;semicolon" = odd\n12 = never'
    line = only(f"a = {written}", strings)
    assert line.fields == (meant,)
    assert line.raw_fields == (written.strip('"'),)


def test_keys_are_replaced_as_well() -> None:
    line = only("%name% = x", "name = file.sys")
    assert (line.key, line.raw_key) == ("file.sys", "%name%")


def test_languages() -> None:
    data = (
        b"[S]\na=%x%,%y%,%z%\n[Strings]\nx=plain\ny=plain\n[Strings.0407]\nx=deutsch\n"
        b"[Strings.0409]\nx=english\n[Strings.040c]\nz=francais\n"
    )

    def fields(language: int) -> tuple[str, ...]:
        section = parse_text(data, language=language).section("s")
        assert section is not None
        return section.lines[0].fields

    assert fields(0x0407) == ("deutsch", "plain", "francais")
    assert fields(0x0C07) == ("deutsch", "plain", "francais")  # Austria takes Germany's
    assert fields(0x0409) == ("english", "plain", "francais")
    assert fields(0x0411) == ("plain", "plain", "francais")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("0x10", 16),
        ("007", 7),
        (" 0XfF ", 255),
        ("", None),
        ("x", None),
        ("-1", None),
        ("1.5", None),
    ],
)
def test_numbers(text: str, value: int | None) -> None:
    assert number_of(text) == value


def test_signed_numbers() -> None:
    assert number_of("-1", signed=True) == -1


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"MZ\x90\0\3\0\0\0", "NUL character"),
        (b"[A]\nx=\0", "NUL character in line 2"),
        (codecs.BOM_UTF16_LE + b"[\0A\0]", "a section name without ]"),
        (codecs.BOM_UTF16_LE + b"\0\xd8[\0", "is not utf-16-le"),
        (codecs.BOM_UTF8 + b"\xff", "is not utf-8"),
        (b"hello", "text before the first section"),
        (b"[A\nx=1", "without ]"),
        (b"[" + b"A" * 256 + b"]", "section name of 256"),
        (b"[A]\nx=" + b"y" * 4097, "field of 4097"),
        (b"[A]\n" + b"," * 5000, "more than 4096 fields"),
        (b"[A]\nx=" + b"%s%" * 3 + b"\n[Strings]\ns=" + b"y" * 2000, "after its %tokens%"),
        (b"\n" * (inf_text.MAX_LINES + 1), "lines, which no INF has"),
        (b"x" * (inf_text.MAX_SIZE + 1), "larger than 8 MiB"),
    ],
)
def test_what_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        parse_text(data)


def test_a_short_file_does_not_become_a_huge_one() -> None:
    data = b"[A]\n" + b"%s%\n" * 20_000 + b"[Strings]\ns=" + b"y" * 4000
    with pytest.raises(FormatError, match="Mi characters"):
        parse_text(data)


PIECES = st.sampled_from(
    [
        "[A]",
        "[Strings]",
        "a",
        "%a%",
        "%",
        "%%",
        '"',
        '""',
        "=",
        ",",
        ";",
        "\\",
        "\n",
        "\r\n",
        " ",
        "\t",
        "0x1",
        "é",
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(PIECES, max_size=60))
def test_any_text_is_read_or_refused(pieces: list[str]) -> None:
    try:
        text = parse_text(b"[A]\n" + "".join(pieces).encode("cp1252"))
    except FormatError:
        return
    for section in text.sections.values():
        for line in section.lines:
            assert len(line.fields) == len(line.raw_fields) >= 1
            assert (line.key is None) == (line.raw_key is None)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for start in (b"", b"[A]\n", codecs.BOM_UTF16_LE, codecs.BOM_UTF8):
        with contextlib.suppress(FormatError):
            parse_text(start + data)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.text(st.characters(blacklist_characters="\r\n\0%", blacklist_categories=["Cs"]), max_size=20),
        min_size=1,
    )
)
def test_quoted_fields_come_back(fields: list[str]) -> None:
    body = ",".join('"' + f.replace('"', '""') + '"' for f in fields)
    text = parse_text(codecs.BOM_UTF16_LE + f"[A]\nkey = {body}\n".encode("utf-16-le"))
    section = text.section("A")
    assert section is not None
    assert section.lines[0].fields == tuple(fields)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_byte_order_mark(encoding: str) -> None:
    """As Windows guesses it; a half character at the end is passed over."""
    text = '[Version]\r\nSignature="$Windows NT$"\r\nProvider=M\u00fcller\r\n'
    for end in (b"", b"\x1a"):
        found = parse_text(text.encode(encoding) + end)
        assert found.encoding == encoding
        assert found.sections["version"].first("Provider") == "M\u00fcller"
    marked = parse_text(text.encode("utf-16") + b"\x1a")
    assert marked.sections["version"].first("Provider") == "M\u00fcller"
    with pytest.raises(FormatError, match="NUL character in line 1"):
        parse_text(b"[Ve\0rsion]\r\n")


def test_a_long_section_is_looked_up_at_once() -> None:
    """Every one of many keys, last ones too: the number of comparisons does not grow with the square."""
    count = 20_000
    section = parse_text(b"[S]\n" + b"".join(b"f%d.sys = %d\n" % (i, i) for i in range(count))).sections["s"]
    compared = 0

    class Counted:
        def __init__(self, key: str) -> None:
            self._key = key

        @property
        def key(self) -> str:
            nonlocal compared
            compared += 1
            return self._key

    counted = Section("S", tuple(Counted(str(line.key)) for line in section.lines))  # type: ignore[misc]
    for i in range(count):
        assert next(counted.values(f"F{i}.SYS")).key == f"f{i}.sys"
    assert compared < 10 * count
    assert section.first("f19999.sys") == "19999"
