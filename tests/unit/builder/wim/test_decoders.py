"""LZX, XPRESS and stored contents, made by wimlib."""

from __future__ import annotations

import contextlib
import random
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_builder.wim import lzx, resource, xpress
from rehost_builder.wim.header import Compression
from rehost_builder.wim.huffman import BadCode, decode_table
from rehost_builder.wim.reader import Wim
from rehost_payload.formats.errors import FormatError
from support.wim_files import capture, needs_wimlib, write_files

DECODERS = {"LZX": lzx.decompress, "XPRESS": xpress.decompress}


def _contents() -> dict[str, bytes]:
    rng = random.Random(7)
    words = [rng.randbytes(rng.randrange(2, 9)) for _ in range(300)]
    calls = b"".join(
        b"\xe8" + rng.randrange(-70000, 13_000_000).to_bytes(4, "little", signed=True) for _ in range(9000)
    )
    return {
        "text": Path(__file__).read_bytes(),
        "program": Path(sys.executable).resolve().read_bytes()[:400_000],
        "words": b"".join(rng.choices(words, k=40_000)),
        "noise": rng.randbytes(70_000),
        "calls": calls,
        "one": b"x",
        "chunk": b"ab" * 16384,
        "zeros": bytes(200_000),
        "rows": b"".join(i.to_bytes(4, "little") + b"\0" * 20 for i in range(4000)),
        "tail": bytes(32768) + b"\xe8\x01\x02\x03\x04" * 3,
    }


@pytest.fixture(scope="module")
def wims(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("decoders")
    tree = write_files(folder / "tree", _contents())
    return {
        kind: capture(folder / f"{kind}.wim", tree, "x", f"--compress={kind}", "--chunk-size=32K")
        if kind != "none"
        else capture(folder / "none.wim", tree, "x", "--compress=none")
        for kind in ("none", "XPRESS", "LZX")
    }


@needs_wimlib
@pytest.mark.parametrize("kind", ["none", "XPRESS", "LZX"])
def test_every_content_has_its_hash(wims: dict[str, Path], kind: str) -> None:
    with wims[kind].open("rb") as f:
        wim = Wim(f)
        assert wim.header.compression is Compression(kind)
        tree = wim.tree(1)
        for name, data in _contents().items():
            assert wim.read_file(tree, name) == data
        compressed = [b for b in wim.blobs if b.resource.compressed]
        assert bool(compressed) is (kind != "none")
        for blob in wim.blobs:
            assert resource.sha1(f, wim.header, blob.resource) == blob.sha1


@pytest.fixture(scope="module")
def chunks(wims: dict[str, Path]) -> dict[str, list[tuple[bytes, int]]]:
    """Compressed chunks as the decoders get them."""
    found: dict[str, list[tuple[bytes, int]]] = {}
    for kind, module in (("LZX", lzx), ("XPRESS", xpress)):
        taken: list[tuple[bytes, int]] = found.setdefault(kind, [])
        original = resource._DECODERS[Compression(kind)]

        def spy(data: bytes, size: int, taken=taken, original=original) -> bytes:  # type: ignore[no-untyped-def]
            taken.append((data, size))
            return original(data, size)

        resource._DECODERS[Compression(kind)] = spy
        try:
            with wims[kind].open("rb") as f:
                wim = Wim(f)
                for blob in wim.blobs:
                    resource.sha1(f, wim.header, blob.resource)
        finally:
            resource._DECODERS[Compression(kind)] = original
        assert module.decompress is original
        taken.sort(key=lambda c: len(c[0]))
    return found


@needs_wimlib
@pytest.mark.parametrize("kind", ["XPRESS", "LZX"])
def test_damaged_chunks_are_bad_bytes_and_nothing_else(
    chunks: dict[str, list[tuple[bytes, int]]], kind: str
) -> None:
    rng = random.Random(11)
    small = [c for c in chunks[kind] if len(c[0]) < 12000]
    refused = 0
    for _ in range(150):
        data, size = rng.choice(small)
        damaged = bytearray(data)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(min(len(damaged), 400))] ^= 1 << rng.randrange(8)
        try:
            assert len(DECODERS[kind](bytes(damaged), size)) == size
        except FormatError:
            refused += 1
        with pytest.raises(FormatError):
            DECODERS[kind](data[: rng.randrange(len(data) // 2)], size)
    assert refused > 10


@pytest.mark.parametrize("kind", ["XPRESS", "LZX"])
@given(data=st.binary(max_size=2000), size=st.integers(-1, 40000))
@settings(max_examples=60, deadline=None)
def test_any_bytes(kind: str, data: bytes, size: int) -> None:
    with contextlib.suppress(FormatError):
        assert len(DECODERS[kind](data, size)) == size


def test_a_code_that_claims_too_much() -> None:
    with pytest.raises(BadCode):
        decode_table([1, 1, 1], 15)
    with pytest.raises(BadCode):
        decode_table([16], 15)
    assert decode_table([], 15) == ([0, 0], 1)
    assert decode_table([1, 2, 2], 15) == ([1, 1, 1 << 5 | 2, 2 << 5 | 2], 2)
