"""WIM files made and judged by wimlib."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

needs_wimlib = pytest.mark.skipif(
    shutil.which("wimlib-imagex") is None, reason="wimlib-imagex is not installed (package wimtools)"
)


def wimlib(*arguments: str | Path, stdin: str = "") -> str:
    """The output of wimlib-imagex; AssertionError with its words where it fails."""
    done = subprocess.run(
        ["wimlib-imagex", *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"wimlib-imagex {arguments}: {done.stderr or done.stdout}"
    return done.stdout


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def capture(target: Path, folder: Path, name: str = "Microsoft Windows PE (x64)", *options: str) -> Path:
    """One more image in ``target``; LZX as Microsoft's, unless the options say otherwise."""
    verb = "append" if target.exists() else "capture"
    flags = () if any(o.startswith("--flags") for o in options) else ("--flags=9",)
    wimlib(verb, folder, target, name, *flags, *options)
    return target


def verify(wim: Path) -> None:
    """Every content against its hash, every image's metadata, the integrity table."""
    wimlib("verify", wim)


def listing(wim: Path, image: int = 1, below: str = "/") -> list[str]:
    return wimlib("dir", wim, str(image), f"--path={below}").splitlines()


def details(wim: Path, path: str, image: int = 1) -> dict[str, str]:
    """What wimlib knows of one entry."""
    text = wimlib("dir", wim, str(image), f"--path={path}", "--detailed", "--one-file-only")
    return dict(re.findall(r"^\s*([A-Z][\w ]+?) += (.*)$", text, re.M))


def facts(wim: Path) -> dict[str, str]:
    """The lines of `wimlib-imagex info`, those of the last image winning."""
    return dict(re.findall(r"^([\w ]+?): +(.*)$", wimlib("info", wim), re.M))


def extract(wim: Path, target: Path, image: int = 1) -> dict[str, bytes]:
    """All files of an image by their path."""
    wimlib("apply", wim, str(image), target, "--no-acls")
    return {
        p.relative_to(target).as_posix(): p.read_bytes() for p in sorted(target.rglob("*")) if p.is_file()
    }
