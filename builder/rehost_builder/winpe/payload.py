"""What is put into the boot image: Python, the payload, drivers, and the scripts that start them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rehost_builder.content import Content
from rehost_builder.errors import BuildError
from rehost_builder.python_files import PythonPackage, our_licence, package_files, payload_files
from rehost_builder.templates import render
from rehost_builder.winpe.image import BY_REGISTRY, OUR_START, SYSTEM32, BootImage, Shell, launch_commands
from rehost_builder.winpe.runtime import Runtime

FOLDER = "Rehost"
MENU = "Rehost's menu"
"""What the medium starts, where it starts nothing beside."""
PACKAGES = ("click", "jinja2", "markupsafe")
_STARTNET, _LAUNCH = f"{SYSTEM32}/startnet.cmd", f"{SYSTEM32}/winpeshl.ini"
_SETUP = ("setup.exe", "sources/setup.exe")
_WPEINIT = re.compile(r'\s*@?(call\s+)?"?(\S*\\)?wpeinit\b', re.I)
_OURS = 'start "Rehost" cmd.exe /k "%SystemDrive%\\Rehost\\start.cmd"'


@dataclass(frozen=True)
class Additions:
    """``files`` by their path in the image, ``remove`` what goes, ``python`` the packages beside the runtime."""

    files: Mapping[str, Content]
    remove: tuple[str, ...]
    python: tuple[PythonPackage, ...]
    text: str


def python_additions(runtime: Runtime, version: str) -> tuple[dict[str, Content], tuple[PythonPackage, ...]]:
    """Runtime and packages, as they lie below the folder Rehost."""
    files: dict[str, Content] = {f"python/{name}": data for name, data in runtime.files.items()}
    name, data = runtime.path_file("..\\app")
    files[f"python/{name}"] = data
    collected = [package_files(package) for package in PACKAGES]
    collected.append(payload_files(version))
    for _, own in collected:
        files |= {f"app/{path}": content for path, content in own.items()}
    licence = our_licence()
    if licence is not None:
        files["LICENSE.txt"] = licence
    return files, tuple(package for package, _ in collected)


def make_additions(
    image: BootImage,
    runtime: Runtime,
    drivers: Mapping[str, Content],
    load: Sequence[str],
    *,
    version: str,
    keyboard: str = "",
    keep_shell: bool = True,
) -> Additions:
    """Everything for the image. ``drivers`` by their path below the drivers' folder, ``load`` the INFs for drvload.

    ``keep_shell``: another maker's program stays and ours is added; otherwise ours takes its place. Raises BuildError
    where the image starts its program in a way that cannot be added to.
    """
    ours, packages = python_additions(runtime, version)
    values = {
        "version": version,
        "build": image.info.version_text or "of unknown build",
        "keyboard": keyboard,
    }
    infs = [path.replace("/", "\\") for path in load]
    ours["start.cmd"] = script("start.cmd", **values)
    ours["drivers.cmd"] = script("drivers.cmd", drivers=infs)
    ours["rehost.cmd"] = script("rehost.cmd")
    ours |= {f"drivers/{path}": content for path, content in drivers.items()}
    files = {f"{FOLDER}/{path}": content for path, content in ours.items()}
    # what an earlier build has left in the image
    remove = tuple(path for path in _inside(image) if path not in files)
    if image.starts.endswith(BY_REGISTRY):
        raise BuildError(
            f"the boot image starts {image.starts.removesuffix(BY_REGISTRY)} by its registry, "
            "where Rehost cannot be added",
            "build from a Windows Server ISO instead",
        )
    if image.shell is Shell.VENDOR and keep_shell:
        files |= _beside(image)
        text = f"{image.starts} stays; Rehost opens in a window of its own"
    else:
        files[_STARTNET] = script("startnet.cmd", **values)
        remove += tuple(p for p in (_LAUNCH, *(_SETUP if image.shell is Shell.SETUP else ())) if image.has(p))
        text = MENU
    return Additions(files, remove, packages, text)


def script(name: str, **values: object) -> bytes:
    """A batch or INI file: CRLF and ASCII, which every code page has in common. ValueError for other characters."""
    text = render(f"winpe/{name}.j2", **values)
    return text.replace("\r\n", "\n").replace("\n", "\r\n").encode("ascii")


def _beside(image: BootImage) -> dict[str, Content]:
    """The other maker's own start, with ours after wpeinit or in front of it."""
    commands = launch_commands(image.launch_ini or "")
    try:
        if commands:
            return {_LAUNCH: script("winpeshl.ini", commands=commands, first=_after_wpeinit(commands))}
        return {_STARTNET: _with_ours(image.startnet or "").encode("cp1252")}
    except UnicodeEncodeError as e:
        raise BuildError(
            f"the start file of the boot image has a character that cannot be kept: {e.object[e.start]!r}",
            "build from a Windows Server ISO instead",
        ) from None


def _after_wpeinit(commands: Sequence[str]) -> int:
    """How many of the other maker's programs come first: up to wpeinit, which sets up devices before we load drivers.

    winpeshl waits for each program, so ours opens a window of its own and ends at once.
    """
    programs = (re.split(r"[\\/]", command.partition(",")[0].strip(' "'))[-1] for command in commands)
    return next((n + 1 for n, p in enumerate(programs) if p.casefold() in ("wpeinit.exe", "wpeinit")), 0)


def _inside(image: BootImage) -> list[str]:
    """Files below our folder that the image has already."""
    entry = image.tree.find(FOLDER)
    return [path for path, e in entry.walk(FOLDER) if not e.is_folder] if entry is not None else []


def _with_ours(text: str) -> str:
    """startnet.cmd with our line after wpeinit, or at its beginning."""
    lines = [line for line in text.splitlines() if OUR_START.casefold() not in line.casefold()]
    at = next((n + 1 for n, line in enumerate(lines) if _WPEINIT.match(line)), None)
    if at is None:
        at = 1 if lines and re.match(r"\s*@echo off", lines[0], re.I) else 0
    return "".join(f"{line}\r\n" for line in [*lines[:at], _OURS, *lines[at:]])
