"""The second reader of ISO images: against images of pycdlib and xorriso, and against damaged bytes."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import pycdlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_builder.media.iso_reader import open_iso
from rehost_payload.formats.errors import FormatError

FILES = {
    "bootmgr": b"b" * 5000,
    "EFI/BOOT/BOOTX64.EFI": b"MZ" + bytes(3000),
    "sources/boot.wim": bytes(range(256)) * 64,
    "empty.txt": b"",
    "Grüße an alle, lang genug für Joliet.txt": b"x",
}


def by_pycdlib(udf: bool, joliet: bool) -> bytes:
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, vol_ident="TEST", udf="2.60" if udf else None, joliet=3 if joliet else None)
    made: set[str] = set()
    for number, (name, data) in enumerate(FILES.items()):
        *folders, _ = name.split("/")
        for depth in range(1, len(folders) + 1):
            path = "/".join(folders[:depth])
            if path not in made:
                made.add(path)
                places = {"udf_path": f"/{path}"} if udf else {}
                places |= {"joliet_path": f"/{path}"} if joliet else {}
                iso.add_directory(**places)
        places = {"udf_path": f"/{name}"} if udf else {}
        places |= {"joliet_path": f"/{name}"} if joliet else {}
        iso.add_fp(io.BytesIO(data), len(data), f"/F{number}.;1", **places)
    out = io.BytesIO()
    iso.write_fp(out)
    iso.close()
    return out.getvalue()


@pytest.mark.parametrize(("udf", "joliet"), [(True, False), (False, True), (True, True)])
def test_images_of_pycdlib(udf: bool, joliet: bool) -> None:
    image = open_iso(io.BytesIO(by_pycdlib(udf, joliet)))
    assert image.best.kind == ("udf" if udf else "joliet")
    assert {p: image.content(f) for p, f in image.best.files.items()} == FILES
    assert image.problems == []
    assert image.needed <= image.size


def test_images_of_xorriso(tmp_path: Path) -> None:
    if shutil.which("xorriso") is None:
        pytest.skip("xorriso is not installed (tools/setup.sh test)")
    for name, data in FILES.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(data)
    iso = tmp_path / "x.iso"
    command = [
        "xorriso",
        "-as",
        "mkisofs",
        "-quiet",
        "-r",
        "-J",
        "-joliet-long",
        "-iso-level",
        "3",
        "-o",
        iso,
    ]
    subprocess.run([*command, tmp_path / "tree"], check=True, capture_output=True)
    with iso.open("rb") as file:
        image = open_iso(file)
        assert {t.kind for t in image.trees} == {"joliet", "iso9660"}
        for tree in image.trees:  # the one by Joliet, the other by Rock Ridge names
            assert {p: image.content(f) for p, f in tree.files.items()} == FILES


BYTES = by_pycdlib(True, True)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.integers(16 * 2048, 40 * 2048), st.integers(256 * 2048, len(BYTES) - 1)),
            st.binary(min_size=1, max_size=6),
        ),
        min_size=1,
        max_size=12,
    ),
    st.integers(0, len(BYTES)),
)
def test_damaged_images_are_read_or_refused(patches: list[tuple[int, bytes]], cut: int) -> None:
    data = bytearray(BYTES)
    for at, patch in patches:
        data[at : at + len(patch)] = patch
    for content in (bytes(data), bytes(data[:cut])):
        try:
            image = open_iso(io.BytesIO(content))
            assert image.needed >= 0
            for tree in image.trees:
                for found in tree.files.values():
                    image.content(found)
        except FormatError:
            continue


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=5000))
def test_random_bytes(data: bytes) -> None:
    with pytest.raises(FormatError):
        open_iso(io.BytesIO(bytes(16 * 2048) + data))
