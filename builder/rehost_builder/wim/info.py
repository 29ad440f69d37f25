"""The XML at the end of a WIM file: what its images are called, and counts of what is in them."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass

from rehost_payload.formats.errors import FormatError

WHAT = "WIM XML"
ARCHITECTURES = {0: "x86", 5: "arm", 6: "ia64", 9: "amd64", 12: "arm64"}


@dataclass(frozen=True)
class ImageInfo:
    """``flags`` is Microsoft's edition word ("9" is Windows PE, "2" Setup); empty texts where it says nothing."""

    index: int
    name: str = ""
    flags: str = ""
    edition: str = ""
    installation_type: str = ""
    architecture: str = ""
    build: tuple[int, ...] = ()
    languages: tuple[str, ...] = ()
    default_language: str = ""
    files: int = 0
    size: int = 0
    modified: int = 0
    """Seconds since 1970, 0 where it is not said."""

    @property
    def version_text(self) -> str:
        return ".".join(map(str, self.build))


def parse_xml(raw: bytes) -> ET.Element:
    """FormatError for what is not the XML of a WIM file. No document types: nothing in it may be expanded."""
    try:
        text = raw.decode("utf-16")
    except UnicodeDecodeError as e:
        raise FormatError(WHAT, str(e)) from None
    if "<!" in text:
        raise FormatError(WHAT, "it declares a document type")
    try:
        root = ET.fromstring(text.rstrip("\0"))
    except (ET.ParseError, ValueError) as e:
        raise FormatError(WHAT, str(e)) from None
    if root.tag != "WIM":
        raise FormatError(WHAT, f"its root is {root.tag[:40]!r}")
    return root


def pack_xml(root: ET.Element) -> bytes:
    return b"\xff\xfe" + ET.tostring(root, encoding="unicode").encode("utf-16-le")


def image_element(root: ET.Element, index: int) -> ET.Element | None:
    return next((e for e in root.iter("IMAGE") if e.get("INDEX") == str(index)), None)


def image_infos(root: ET.Element) -> list[ImageInfo]:
    infos = []
    for element in root.iter("IMAGE"):
        index = element.get("INDEX", "")
        if not (index.isascii() and index.isdigit()):
            raise FormatError(WHAT, f"an image with the number {index!r}")
        windows = element.find("WINDOWS")
        numbers: list[int] = []
        languages: list[str] = []
        if windows is not None:
            for name in ("MAJOR", "MINOR", "BUILD", "SPBUILD"):
                numbers.append(_number(windows, f"VERSION/{name}"))
            languages = [e.text.strip() for e in windows.iterfind("LANGUAGES/LANGUAGE") if e.text]
        infos.append(
            ImageInfo(
                index=int(index),
                name=_text(element, "NAME") or _text(element, "DISPLAYNAME"),
                flags=_text(element, "FLAGS"),
                edition=_text(element, "WINDOWS/EDITIONID"),
                installation_type=_text(element, "WINDOWS/INSTALLATIONTYPE"),
                architecture=ARCHITECTURES.get(_number(element, "WINDOWS/ARCH", -1), ""),
                build=tuple(numbers),
                languages=tuple(languages),
                default_language=_text(element, "WINDOWS/LANGUAGES/DEFAULT"),
                files=_number(element, "FILECOUNT"),
                size=_number(element, "TOTALBYTES"),
                modified=_time(element),
            )
        )
    return infos


def _time(element: ET.Element) -> int:
    """LASTMODIFICATIONTIME, else CREATIONTIME: FILETIMEs in two hexadecimal halves."""
    for name in ("LASTMODIFICATIONTIME", "CREATIONTIME"):
        try:
            high, low = (int(_text(element, f"{name}/{part}PART"), 16) for part in ("HIGH", "LOW"))
        except ValueError:
            continue
        seconds = ((high & 0xFFFFFFFF) << 32 | low & 0xFFFFFFFF) // 10_000_000 - 11_644_473_600
        if 0 < seconds < 1 << 32:
            return seconds
    return 0


def change_counts(
    element: ET.Element, *, files: int, folders: int, size: int, hard_links: int, filetime: int
) -> None:
    """Adds to the counts of an image (differences, in files, folders and bytes) and dates its last change."""
    for name, difference in (
        ("DIRCOUNT", folders), ("FILECOUNT", files), ("TOTALBYTES", size), ("HARDLINKBYTES", hard_links)
    ):  # fmt: skip
        if difference:
            _child(element, name).text = str(max(0, _number(element, name) + difference))
    changed = _child(element, "LASTMODIFICATIONTIME")
    for name, value in (("HIGHPART", filetime >> 32), ("LOWPART", filetime & 0xFFFFFFFF)):
        _child(changed, name).text = f"0x{value:08X}"


def _child(element: ET.Element, name: str) -> ET.Element:
    found = element.find(name)
    return ET.SubElement(element, name) if found is None else found


def _text(element: ET.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _number(element: ET.Element, path: str, default: int = 0) -> int:
    text = _text(element, path)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else default
