"""What the user has: an ISO, a folder, the ADK's WinPE add-on, a boot image; all of them as one kind of thing.

Media of different makers write the same names in different cases, so every look-up ignores case.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path

from rehost_builder.content import Content
from rehost_builder.errors import BuildError
from rehost_builder.winpe.isofs import read_iso

_MAX_FILES = 200_000


class Kind(Enum):
    ISO = "ISO image"
    FOLDER = "folder"
    ADK = "ADK WinPE add-on"
    WIM = "boot image"


@dataclass(frozen=True)
class Source:
    """``files`` by their path on the medium, with slashes; ``read_by`` says how they were found."""

    kind: Kind
    place: Path
    files: Mapping[str, Content]
    read_by: str
    label: str = ""
    bios_boot: Content | None = None
    efi_boot: Content | None = None

    @cached_property
    def _index(self) -> dict[str, str]:
        index: dict[str, str] = {}
        for name in sorted(self.files):
            index.setdefault(name.casefold(), name)
        return index

    def name_of(self, path: str) -> str | None:
        """The path as it is spelled on the medium, or None."""
        return self._index.get(path.casefold())

    def get(self, path: str) -> Content | None:
        name = self.name_of(path)
        return None if name is None else self.files[name]

    def below(self, folder: str) -> dict[str, Content]:
        """Files in a folder and below, by their path inside of it."""
        prefix = folder.casefold().rstrip("/") + "/"
        found = {n[len(prefix) :]: c for n, c in self.files.items() if n.casefold().startswith(prefix)}
        return dict(sorted(found.items()))


def wanted_files(name: str) -> bool:
    """What of a medium can matter: boot files and images, the folder and name of everything else only."""
    low = name.casefold()
    return low.startswith(("boot/", "efi/", "bootmgr")) or low.endswith(".wim")


def open_source(place: Path, workspace: Path) -> Source:
    """One thing that the user named. Raises BuildError for what is nothing of use, OSError where it cannot be read."""
    if place.is_dir():
        return _folder(place)
    with place.open("rb") as f:
        head = f.read(8)
    if head[:5] in (b"MSWIM", b"WLPWM"):
        return Source(Kind.WIM, place, {place.name: place}, "file")
    if not head:
        raise BuildError(f"{place} is empty", "download or copy it again")
    found = read_iso(place, workspace, wanted_files)
    return Source(Kind.ISO, place, found.files, found.read_by, found.label, found.bios_boot, found.efi_boot)


def _folder(place: Path) -> Source:
    """A folder of files; the ADK's is known by its architecture folders."""
    adk = _adk_root(place)
    if adk is not None:
        return _adk(adk)
    files: dict[str, Content] = {}
    for path in _walk(place):
        files[path.relative_to(place).as_posix()] = path
    if not files:
        raise BuildError(f"the folder {place} is empty", "give the folder that holds boot, efi and sources")
    # copype makes a folder with media and fwfiles in it
    names = {n.casefold().split("/")[0] for n in files}
    if {"media", "fwfiles"} <= names:
        inner = {n.split("/", 1)[1]: c for n, c in files.items() if n.casefold().startswith("media/")}
        boot = {
            n.casefold().split("/", 1)[1]: c for n, c in files.items() if n.casefold().startswith("fwfiles/")
        }
        return Source(Kind.FOLDER, place, inner, "folder", "", *_firmware_files(boot))
    return Source(Kind.FOLDER, place, files, "folder")


def _walk(place: Path) -> Iterable[Path]:
    count = 0

    def failed(error: OSError) -> None:
        raise error

    for folder, folders, names in os.walk(place, onerror=failed):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file():
                count += 1
                if count > _MAX_FILES:
                    raise BuildError(
                        f"{place} has more than {_MAX_FILES} files", "is it the folder of a medium?"
                    )
                yield path


def _find(folder: Path, *names: str) -> Path | None:
    """A path below a folder in any case."""
    for name in names:
        if not folder.is_dir():
            return None
        found = next((p for p in sorted(folder.iterdir()) if p.name.casefold() == name.casefold()), None)
        if found is None:
            return None
        folder = found
    return folder


def _adk_root(place: Path) -> Path | None:
    """The folder with ``amd64/Media``: the one named, or the add-on's inside of it."""
    candidates = [place, *(p for p in (_find(place, "Windows Preinstallation Environment"),) if p)]
    kit = _find(place, "Assessment and Deployment Kit", "Windows Preinstallation Environment")
    for candidate in [*candidates, *([kit] if kit else [])]:
        if _find(candidate, "amd64", "Media") or _find(candidate, "arm64", "Media"):
            return candidate
    return None


def _adk(root: Path) -> Source:
    media = _find(root, "amd64", "Media")
    if media is None:
        raise BuildError(
            f"{root} has no amd64 folder: it is the add-on for ARM64 only",
            "install the WinPE add-on with amd64, or give a Windows Server ISO",
        )
    files: dict[str, Content] = {p.relative_to(media).as_posix(): p for p in _walk(media)}
    image = _find(root, "amd64", "en-us", "winpe.wim")
    if image is None:
        raise BuildError(
            f"{root}: amd64/en-us/winpe.wim is missing", "repair the installation of the WinPE add-on"
        )
    files["sources/boot.wim"] = image
    tools = _find(root.parent, "Deployment Tools", "amd64", "Oscdimg")
    boot: dict[str, Content] = {}
    if tools is not None:
        boot = {p.name.casefold(): p for p in sorted(tools.iterdir()) if p.is_file()}
    return Source(Kind.ADK, root, files, "folder", "", *_firmware_files(boot))


def _firmware_files(boot: Mapping[str, Content]) -> tuple[Content | None, Content | None]:
    return boot.get("etfsboot.com"), boot.get("efisys_noprompt.bin") or boot.get("efisys.bin")
