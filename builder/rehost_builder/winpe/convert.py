"""Makes a boot image out of one that the boot manager refuses (ESD, LZMS, other chunks), where wimlib is installed."""

from __future__ import annotations

import shutil
from pathlib import Path

from rehost_builder.content import Content, open_content, size_of
from rehost_builder.environment import named
from rehost_builder.errors import BuildError
from rehost_builder.run import run
from rehost_builder.wim.header import Header

PROGRAM = "wimlib-imagex"
_GROWTH = 3
"""An ESD becomes some 1.4 times as large; the original is copied out of its ISO first."""


def can_convert(header: Header) -> bool:
    """A split image needs all of its parts, which are not at hand; a pipable one says at its end only what is in it."""
    return header.parts == 1 and not header.pipable and shutil.which(PROGRAM) is not None


def convert(content: Content, index: int, work: Path, place: str) -> Path:
    """Image ``index`` alone, as a WIM compressed by LZX in chunks of 32 KiB, in ``work``."""
    need = size_of(content) * _GROWTH
    if shutil.disk_usage(work).free < need:
        raise BuildError(
            f"{work.parent} has too little space to convert {place}: {need >> 20} MB are needed",
            "set TMPDIR to a folder with more space",
        )
    source = work / "source.wim"
    if isinstance(content, Path):
        source = content
    else:
        with named(source), open_content(content) as f, source.open("wb") as out:
            shutil.copyfileobj(f, out, 1 << 20)
    target = work / "converted.wim"
    run(
        [PROGRAM, "export", source, str(index), target, "--compress=LZX", "--chunk-size=32K", "--boot"],
        what=f"{place} cannot be converted by wimlib",
        hint="check its hash, download or copy it again",
    )
    return target
