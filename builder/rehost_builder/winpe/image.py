"""Which image of a WIM file is WinPE, and what it starts by itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from rehost_builder.errors import BuildError
from rehost_builder.wim.info import ImageInfo
from rehost_builder.wim.reader import Wim
from rehost_builder.wim.tree import Tree
from rehost_builder.winpe.bootfiles import read_boot_program
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.hive import Hive

SYSTEM32 = "Windows/System32"
_TEXT_LIMIT = 1 << 20
_WINRE = ("recenv.exe",)
BY_REGISTRY = " (by the registry)"
OUR_START = "\\Rehost\\start.cmd"
"""In every command of ours: an image that was built before is built anew as if we had never been there."""


class Shell(Enum):
    """What an image starts: nothing but a prompt, Windows Setup, the recovery environment, another maker's program."""

    PROMPT = "command prompt"
    SETUP = "Windows Setup"
    WINRE = "Windows recovery environment"
    VENDOR = "another maker's program"


@dataclass(frozen=True)
class BootImage:
    """The chosen image. ``starts`` is what the shell runs, for people; ``launch_ini`` and ``startnet`` as they are."""

    info: ImageInfo
    tree: Tree
    architecture: str
    shell: Shell
    starts: str
    launch_ini: str | None
    startnet: str | None

    def has(self, path: str) -> bool:
        return self.tree.find(path) is not None


def choose_image(wim: Wim, place: str) -> ImageInfo:
    """WinPE rather than Setup: by Microsoft's mark (FLAGS 9), by name, by the boot index, or because it is the only one.

    Raises BuildError where the file holds none.
    """
    images = wim.images
    if not images:
        raise BuildError(f"{place} holds no image", "give a boot.wim, winre.wim or winpe.wim")
    rules: list[Callable[[ImageInfo], bool]] = [
        lambda i: i.flags == "9",
        lambda i: re.search(r"\b(windows ?pe|winpe|recovery environment|winre)\b", i.name, re.I) is not None,
        lambda i: i.index == wim.header.boot_index and not _is_setup(i),
        lambda i: not _is_setup(i),
    ]
    for fits in rules:
        found = [i for i in images if fits(i)]
        if found:
            return found[0]
    return images[0]


def _is_setup(info: ImageInfo) -> bool:
    return info.flags == "2" or "setup" in info.name.casefold()


def open_image(wim: Wim, info: ImageInfo, place: str) -> BootImage:
    """Reads what the image starts. Raises BuildError where it is no WinPE (an installation image, for example)."""
    tree = wim.tree(info.index)
    loaders = [name for name in ("winload.exe", "winload.efi") if _loader(tree, name)]
    if not loaders:
        raise BuildError(
            f"image {info.index} of {place} ({info.name or 'without a name'}) holds no winload: it is no boot image",
            "give a boot.wim, winre.wim or winpe.wim; install.wim is none",
        )
    if tree.find(f"{SYSTEM32}/wpeinit.exe") is None and tree.find(f"{SYSTEM32}/winpeshl.exe") is None:
        raise BuildError(
            f"image {info.index} of {place} ({info.name or 'without a name'}) is a full Windows, no WinPE",
            "give a boot.wim, winre.wim or winpe.wim",
        )
    launch = _text(wim, tree, f"{SYSTEM32}/winpeshl.ini")
    startnet = _text(wim, tree, f"{SYSTEM32}/startnet.cmd")
    shell, starts = _shell(wim, tree, info, launch, startnet)
    return BootImage(info, tree, _architecture(wim, tree, info), shell, starts, launch, startnet)


def _loader(tree: Tree, name: str) -> bool:
    return any(tree.find(f"{SYSTEM32}/{folder}{name}") for folder in ("", "Boot/"))


def _architecture(wim: Wim, tree: Tree, info: ImageInfo) -> str:
    """As the XML says, else as the first program that is there."""
    if info.architecture:
        return info.architecture
    for name in ("Windows/System32/cmd.exe", "Windows/System32/wpeinit.exe", "Windows/System32/winload.efi"):
        try:
            data = wim.read_file(tree, name)
            if data:
                return read_boot_program(name, data).machine
        except FormatError:
            continue
    return ""


def _text(wim: Wim, tree: Tree, path: str) -> str | None:
    data = wim.read_file(tree, path, _TEXT_LIMIT)
    if data is None:
        return None
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    return data.removeprefix(b"\xef\xbb\xbf").decode("cp1252", "replace")


def _shell(
    wim: Wim, tree: Tree, info: ImageInfo, launch: str | None, startnet: str | None
) -> tuple[Shell, str]:
    if launch is not None:
        commands = launch_commands(launch)
        if commands:
            winre = any(name in command.casefold() for command in commands for name in _WINRE)
            return (Shell.WINRE if winre else Shell.VENDOR), "; ".join(commands)
    if _is_setup(info) and (tree.find("setup.exe") or tree.find("sources/setup.exe")):
        return Shell.SETUP, "setup.exe"
    # Microsoft's own boot.wim has Setup as its second image; elsewhere the registry is worth its seconds
    command = "" if any(_is_setup(i) for i in wim.images) else _registry_command(wim, tree)
    if command and "winpeshl" not in command.casefold():
        return Shell.VENDOR, f"{command}{BY_REGISTRY}"
    own = [line for line in startnet_commands(startnet or "") if line.casefold().split()[0] != "wpeinit"]
    if own:
        return Shell.VENDOR, "; ".join(own[:3])
    return Shell.PROMPT, "cmd.exe"


def launch_commands(text: str) -> list[str]:
    """The programs that winpeshl.ini starts, in its order."""
    commands: list[str] = []
    section = ""
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("["):
            section = line.strip("[]").strip().casefold()
        elif not line or line.startswith(";"):
            continue
        elif section == "launchapps":
            commands.append(line)
        elif section == "launchapp":
            key, _, value = line.partition("=")
            if key.strip().casefold() == "apppath" and value.strip():
                commands.append(value.strip())
    return [command for command in commands if not _is_ours(command)]


def startnet_commands(text: str) -> list[str]:
    """Lines of startnet.cmd that do something."""
    lines = (line.strip().lstrip("@").strip() for line in text.splitlines())
    quiet = re.compile(r"(echo\b[^&|>]*$|rem\b|::|title\b|color\b|cls$|:\w)", re.I)
    return [line for line in lines if line and not quiet.match(line) and not _is_ours(line)]


def _is_ours(line: str) -> bool:
    return OUR_START.casefold() in line.casefold()


def _registry_command(wim: Wim, tree: Tree) -> str:
    """SYSTEM\\Setup\\CmdLine: what the kernel's session manager starts, winpeshl.exe on every image of Microsoft's."""
    try:
        data = wim.read_file(tree, f"{SYSTEM32}/config/SYSTEM")
        key = Hive.parse(data, lenient=True).find("Setup") if data else None
        value = key.value("CmdLine") if key is not None else None
        return value.as_string().strip() if value is not None else ""
    except FormatError:
        return ""
