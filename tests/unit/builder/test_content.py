"""Contents made of pieces read like one file."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from rehost_builder.content import Extent, Joined, digest_of, open_content, part_of, read_content, size_of


def test_pieces_read_as_one(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(200_000)
    file = tmp_path / "f"
    file.write_bytes(data)
    content = Joined((b"head", Extent(file, 1000, 150_000), b"", Extent(file, 5, 3), b"tail"))
    whole = b"head" + data[1000:151_000] + data[5:8] + b"tail"
    assert read_content(content) == whole
    assert size_of(content) == len(whole)
    assert digest_of(content) == (hashlib.sha256(whole).digest(), len(whole))
    rng = random.Random(2)
    with open_content(content) as f:
        for _ in range(200):
            start, length = rng.randrange(len(whole)), rng.randrange(5000)
            f.seek(start)
            assert f.read(length) == whole[start : start + length]
        assert f.seek(-2, 2) == len(whole) - 2
        assert f.read() == b"il"
    for _ in range(100):
        start = rng.randrange(len(whole))
        length = rng.randrange(len(whole) - start + 1)
        assert read_content(Joined(part_of(content, start, length))) == whole[start : start + length]
    assert read_content(Joined(part_of(file, 10, 20))) == data[10:30]
    assert read_content(Joined(part_of(b"abcdef", 2, 3))) == b"cde"
    with pytest.raises(ValueError, match="bytes"):
        part_of(content, 1, len(whole))


def test_a_file_that_became_shorter_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"short")
    with open_content(Extent(file, 0, 10)) as f, pytest.raises(OSError, match="shorter"):
        f.read()
