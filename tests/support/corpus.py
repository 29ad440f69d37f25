"""Real samples, which are not ours to publish: a folder beside the repository, or none at all."""

from __future__ import annotations

import lzma
import os
from pathlib import Path

import pytest

_DEFAULT = Path(__file__).parents[3] / "shared" / "corpus"


def corpus(folder: str) -> Path:
    """The folder of this name in the corpus; skips the test (or the module) where it is absent."""
    path = Path(os.environ.get("REHOST_CORPUS") or _DEFAULT) / folder
    if not path.is_dir():
        pytest.skip(f"no real samples: {path} is absent (REHOST_CORPUS)", allow_module_level=True)
    return path


def read(path: Path) -> bytes:
    """A sample's bytes; .xz is unpacked."""
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data
