"""Media that were changed by accident or on purpose: `rehost verify` and `rehost media inspect` say what is wrong, in
bounded time and memory. A byte that changed after the build is always noticed.
"""

from __future__ import annotations

import binascii
import hashlib
import random
import resource
import signal
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rehost_builder.cli import main
from rehost_builder.errors import BuildError
from rehost_builder.media.iso_reader import IsoImage, open_iso
from rehost_builder.verify import imports, winpe
from rehost_builder.verify.run import verify_medium
from rehost_builder.wim.header import read_header
from support.taken_apart import Parts

SECONDS, MEMORY = 60, 700 << 20  # seconds of this process's own work, however many others there are
ODD = (0, 1, 0x7F, 0x80, 0xFF)


@pytest.fixture(autouse=True, scope="module")
def remembered() -> Iterator[None]:
    """What our sources import takes two seconds to find out, and is the same in nearly all of these media."""
    known: dict[str, imports.Closure] = {}

    def closure(sources: dict[str, bytes], others: set[str], roots: tuple[str, ...]) -> imports.Closure:
        key = hashlib.sha256(repr((sorted(sources.items()), sorted(others), roots)).encode()).hexdigest()
        if key not in known:
            known[key] = imports.closure(sources, others, roots)
        return known[key]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(winpe, "closure", closure)
        yield


@contextmanager
def bounded() -> Iterator[None]:
    """A MemoryError or a TimeoutError where more is wanted than a small medium is worth."""

    def late(*_: object) -> None:
        raise TimeoutError(f"not done after {SECONDS} s")

    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    old = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, old)


def verified(path: Path) -> tuple[bool, list[str]]:
    """Whether it passes, and what it fails by. A medium that cannot be opened does not pass."""
    refused: BuildError | None = None
    with bounded():
        try:
            report = verify_medium(path)
        except BuildError as error:
            refused = error
    if refused is not None:
        assert refused.message
        assert refused.hint
        return False, ["opening"]
    assert all(p.reason for p in report.points)
    return report.passed, [p.name for p in report.points if p.verdict.value != "PASS" and p.needed]


def inspected(*places: Path) -> Result:
    with bounded():
        done = CliRunner().invoke(main, ["media", "inspect", *map(str, places)])
    assert done.exit_code in (0, 1, 3), done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    if done.exit_code == 1:
        assert done.stderr.startswith("rehost: ")
        assert "Traceback" not in done.output
    return done


def _places(image: IsoImage, size: int) -> dict[str, list[int]]:
    """Bytes of the image by what they belong to."""
    files = {
        i
        for f in image.best.files.values()
        for o, n in f.pieces
        for i in range(o // 2048, -(-(o + n) // 2048))
    }
    structures = [s for s in range(16, 2048) if s not in files and s * 2048 < size]
    with_content = [s for s in structures if any(image.read(s * 2048, 2048))]
    return {
        "descriptors": [s * 2048 + n for s in with_content if s < 32 for n in range(0, 900, 7)],
        "UDF volume": [s * 2048 + n for s in with_content if 32 <= s < 64 for n in range(0, 512, 5)],
        "directories and entries": [s * 2048 + n for s in with_content if s > 256 for n in range(0, 300, 3)],
        "boot catalog": list(range(image.catalog, image.catalog + 160)),
        "gaps": [f.pieces[-1][0] + f.pieces[-1][1] for f in image.best.files.values() if f.size % 2048],
        "files": [o + n // 2 for f in image.best.files.values() for o, n in f.pieces],
    }  # fmt: skip


def test_a_byte_that_changed_after_the_build(tmp_path: Path, finished: Path) -> None:
    """Wherever it is: in a file, in what leads to it, or where nobody looks."""
    assert verified(finished) == (True, [])
    rng = random.Random(11)
    original = finished.read_bytes()
    with finished.open("rb") as f:
        places = _places(open_iso(f), len(original))
    target = tmp_path / "x.iso"
    found: dict[str, set[str]] = {}
    for kind, offsets in places.items():
        assert offsets, kind
        for _ in range(7):
            data = bytearray(original)
            at = rng.choice(offsets)
            data[at] ^= rng.choice((1, 0x10, 0x80, 0xFF))
            target.write_bytes(data)
            passed, failed = verified(target)
            assert not passed, (kind, at)
            found.setdefault(kind, set()).update(failed)
    assert found["gaps"] == {"sealed"}
    assert "checksums" in found["files"]


def test_a_medium_that_ends_early(tmp_path: Path, finished: Path) -> None:
    rng = random.Random(12)
    original = finished.read_bytes()
    target = tmp_path / "x.iso"
    for length in (0, 2047, 17 * 2048, 257 * 2048, *(rng.randrange(len(original)) for _ in range(8))):
        target.write_bytes(original[:length])
        assert not verified(target)[0], length
    # the last block is UDF's second anchor, which nobody needs; that it is gone is seen all the same
    target.write_bytes(original[:-2048])
    assert not verified(target)[0]


# --- changed, and every list made right again: what is inside has to be looked at


def _numbers(rng: random.Random, data: bytearray, start: int, end: int, count: int = 3) -> None:
    for _ in range(rng.randrange(1, count + 1)):
        if rng.random() < 0.5 or end - start < 8:
            data[rng.randrange(start, end)] = rng.choice(ODD)
        else:
            struct.pack_into(
                "<I", data, rng.randrange(start, end - 4), rng.choice((0, 1, 0xFFFFFFFF, 1 << 31, 4096))
            )


@pytest.mark.parametrize("part", ["header", "table", "xml", "metadata", "anywhere", "end"])
def test_a_boot_image_that_is_damaged(tmp_path: Path, finished: Path, part: str) -> None:
    rng = random.Random(part)
    whole = Parts(finished)
    original = whole.files[whole.wim]
    (tmp_path / "boot.wim").write_bytes(original)
    with (tmp_path / "boot.wim").open("rb") as f:
        header = read_header(f)
    ranges = {
        "header": (8, 208),
        "table": (header.table.offset, header.table.offset + header.table.stored),
        "xml": (header.xml.offset, header.xml.offset + header.xml.stored),
        "metadata": (header.boot_metadata.offset, header.boot_metadata.offset + header.boot_metadata.stored),
        "anywhere": (0, len(original)),
        "end": (0, len(original)),
    }
    refused = 0
    target = tmp_path / "x.iso"
    for _ in range(6):
        data = bytearray(original)
        if part == "end":
            del data[rng.randrange(len(data)) :]
        else:
            _numbers(rng, data, *ranges[part])
        whole.files[whole.wim] = bytes(data)
        passed, failed = verified(whole.write(target))
        assert not {"sealed", "checksums", "description", "trees"} & set(failed)
        refused += not passed
        inspected(target)
    # a name or a date in the XML, or a file of Windows that nobody reads, is nobody's business
    assert refused >= {"header": 2, "table": 3, "metadata": 5, "end": 5}.get(part, 0)


@pytest.mark.parametrize("store", ["boot/bcd", "efi/microsoft/boot/bcd"])
def test_a_boot_store_that_is_damaged(tmp_path: Path, finished: Path, store: str) -> None:
    rng = random.Random(store)
    whole = Parts(finished)
    original = whole.files[store]
    used = len(original.rstrip(b"\0"))
    refused = 0
    target = tmp_path / "x.iso"
    for number in range(10):
        data = bytearray(original)
        if number < 2:
            del data[rng.randrange(used) :]
        else:
            _numbers(rng, data, 0 if number % 2 else 4096, used, 6)
        whole.files[store] = bytes(data)
        passed, failed = verified(whole.write(target))
        refused += not passed
        if not passed:
            assert set(failed) <= {
                f"boot-store-{'bios' if store == 'boot/bcd' else 'uefi'}",
                "boot-image",
                "loaders",
            }
        inspected(target)
    assert refused >= 4


def test_descriptors_that_lie(tmp_path: Path, finished: Path) -> None:
    """Numbers in the descriptors and directories, with the seal and the checksums of UDF made right again."""
    rng = random.Random(13)
    original = finished.read_bytes()
    with finished.open("rb") as f:
        places = _places(open_iso(f), len(original))
    target = tmp_path / "x.iso"
    for kind in ("descriptors", "UDF volume", "directories and entries", "boot catalog"):
        for _ in range(7):
            data = bytearray(original)
            at = rng.choice(places[kind]) // 4 * 4
            struct.pack_into("<I", data, at, rng.choice((0, 1, 0xFFFFFFFF, 1 << 31, 17, 300)))
            _tags(data, at // 2048 * 2048)
            target.write_bytes(_sealed(data))
            passed, failed = verified(target)
            assert "sealed" not in failed or "whole" in failed
            assert passed or failed, (kind, at)
            inspected(target)


def _tags(data: bytearray, sector: int) -> None:
    """Makes the UDF tag of a sector right again, where there is one."""
    length = struct.unpack_from("<H", data, sector + 10)[0]
    if sector // 2048 >= 16 and length and 16 + length <= 2048 and sector >= 32 * 2048:
        crc = binascii.crc_hqx(data[sector + 16 : sector + 16 + length], 0)
        struct.pack_into("<H", data, sector + 8, crc)
        data[sector + 4] = (sum(data[sector : sector + 4]) + sum(data[sector + 5 : sector + 16])) & 0xFF


def _sealed(data: bytearray) -> bytes:
    field = 16 * 2048 + 883
    data[field : field + 512] = bytes(512)
    mark = f"REHOST SHA-256 {hashlib.sha256(data).hexdigest()}".encode()
    data[field : field + len(mark)] = mark
    return bytes(data)
